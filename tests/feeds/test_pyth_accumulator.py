"""Accumulator updates: every vector to its value and reason, every bit of one, and nonsense."""

import base64
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.emulator.pyth_signing import EMITTER, PythSigner
from feeds.pyth.accumulator import (
    Accumulator,
    PriceMessage,
    check,
    encode,
    encode_payload,
    encode_price,
)
from feeds.pyth.merkle import EMPTY, node, proves, tree
from feeds.pyth.signers import ACCUMULATOR, GUARDIANS, KNOWN, PRODUCTION, ROUTERS, rotated, rotated_by_text
from feeds.pyth.vaa import decode_vaa
from feeds.signed import decode_signed
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Why
from oracle_hub.errors import ConfigError, DecodeError

KIND = ACCUMULATOR
S = 1_000_000
TEST_GUARDIAN = SignerSet(
    KIND,
    "1:71f8dcb863d176e2c420ad6610cf687359612b6fb392e0642b0ca6b1f186aa3b",
    0,
    (bytes.fromhex("7e5f4552091a69125d5dfcb7b8c2659029395bdf"),),
    1,
)
"""The key 1, with which contracts are tested on other chains."""
MALFORMED = {
    "bad_major_version": "offset 4: expected major version 1, found 60",
    "bad_message_type": "offset 173: expected a message of type 0, 1 or 2, found type 64",
    "bad_wormhole_magic": "offset 133: expected a VAA that says AUWV, found 41555755",
}


def vectors(fixtures_dir: Path, *, verify: bool) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    for path in sorted(fixtures_dir.glob("pnau_*.json")):
        vector = orjson.loads(path.read_bytes())
        if vector["should_verify"] is verify:
            yield path.stem, raw(vector), vector


def raw(vector: dict[str, Any]) -> bytes:
    text = vector["data"]
    return bytes.fromhex(text) if vector["encoding"] == "hex" else base64.b64decode(text)


def load(fixtures_dir: Path, name: str) -> bytes:
    return raw(orjson.loads((fixtures_dir / f"{name}.json").read_bytes()))


def compare(fields: dict[str, Any], expected: dict[str, Any], name: str) -> None:
    assert fields["root"] == expected["root"], name
    assert int(fields["slot"]) == expected["slot"], name
    assert (fields["ring_size"], fields["minor"]) == (expected["ring_size"], expected["minor"]), name
    vaa = fields["vaa"]
    assert vaa["signer_set_index"] == expected["guardian_set_index"], name
    assert vaa["signatures"] == expected["num_sigs"], name
    for key in ("timestamp", "nonce", "emitter_chain", "emitter_address", "sequence", "consistency_level"):
        assert vaa[key] == expected[key], (name, key)
    assert len(fields["messages"]) == len(expected["messages"]), name
    for found, wanted, hashes in zip(fields["messages"], expected["messages"], fields["proof_lengths"], strict=True):
        kind = {"PriceFeedMessage": "price", "TwapMessage": "twap"}[wanted["type"]]
        renamed = {"exponent": "expo"}
        values = {renamed.get(key, key): value for key, value in wanted.items()}
        for key in ("type", "len", "proof_len", "merkle_ok"):
            values.pop(key)
        assert found["type"] == kind and hashes == wanted["proof_len"], name
        assert {key: str(found[key]) for key in values} == {key: str(value) for key, value in values.items()}, name
        if "publish_time_us" in found:
            assert int(found["publish_time_us"]) == wanted["publish_time"] * S, name


def test_every_good_vector_verifies_and_has_its_values(fixtures_dir: Path) -> None:
    seen = set()
    for name, data, vector in vectors(fixtures_dir, verify=True):
        trailing = vector["expected"]["trailing_bytes"]
        mode = Mode.LENIENT if trailing else Mode.STRICT
        fields = decode_signed(KIND, data, PRODUCTION, mode=mode)
        compare(fields, vector["expected"], name)
        assert (fields["verified"], fields["why"]) == (True, None), (name, fields["detail"])
        proved = vector["verification"]
        assert (fields["quorum"], fields["valid_signatures"]) == (proved["quorum"], proved["valid_signatures"]), name
        assert [[one["index"], one["key"]] for one in fields["signers"]] == vector["expected"]["signers"], name  # type: ignore[attr-defined]
        seen.add((proved["model"], proved["set_index"]))
        if trailing:
            assert decode_signed(KIND, data, PRODUCTION)["why"] == "trailing_bytes"
    assert {model for model, _ in seen} == {"wormhole-mainnet", "pyth-router"}


def test_every_bad_vector_is_refused_for_its_reason(fixtures_dir: Path) -> None:
    counted = 0
    for name, data, vector in vectors(fixtures_dir, verify=False):
        counted += 1
        told = next((text for key, text in MALFORMED.items() if name.endswith(key)), None)
        if told is not None:
            with pytest.raises(DecodeError) as caught:
                Accumulator.decode(data)
            assert str(caught.value) == f"{KIND}: {told}"
            continue
        if vector["verification"]["model"] != "test-guardian":
            continue  # not in the folder that the project is built against
        fields = decode_signed(KIND, data, PRODUCTION)
        compare(fields, vector["expected"], name)
        assert (fields["verified"], fields["why"]) == (False, "unknown_signer"), name
        assert [one["key"] for one in fields["signers"]] == [TEST_GUARDIAN.keys[0].hex()], name  # type: ignore[attr-defined]
        assert decode_signed(KIND, data, PRODUCTION.having(TEST_GUARDIAN))["verified"] is True, name
    assert counted >= 7


def test_a_proof_is_looked_at_before_signers(fixtures_dir: Path) -> None:
    data = bytearray(load(fixtures_dir, "pnau_ton_btc_eth"))
    data[-1] ^= 1
    verdict = check(Accumulator.decode(bytes(data)), PRODUCTION)
    assert verdict.why is Why.BAD_PROOF and verdict.detail == "message 2 of 2 is not under the root that was signed"


def test_a_set_is_in_force_until_a_day_after_the_next(fixtures_dir: Path) -> None:
    update = Accumulator.decode(load(fixtures_dir, "pnau_ton_btc_eth"))
    begin, end = 1_713_281_400 * S, (1_773_580_004 + 86_400) * S
    at = {when: check(update, PRODUCTION, at_us=when).why for when in (begin - 1, begin, end - 1, end)}
    assert at == {begin - 1: Why.EARLY_SET, begin: None, end - 1: None, end: Why.EXPIRED_SET}
    expired = check(update, PRODUCTION, at_us=end, mode=Mode.LENIENT)
    assert expired.why is Why.EXPIRED_SET and expired.valid == 13 and expired.set_until_us == end


def test_router_sets_rotate_and_indexes_of_the_models_do_not_mix(fixtures_dir: Path) -> None:
    update = Accumulator.decode(load(fixtures_dir, "pnau_router_set1_btc_eth_sol_bnb"))
    assert update.slot == update.vaa.timestamp * 20
    assert check(update, PRODUCTION).verified
    assert check(update, KNOWN["staging"]).why is Why.UNKNOWN_SIGNER
    without = SignerSets(one for one in PRODUCTION if (one.group, one.index) != (ROUTERS, 1))
    assert check(update, without).why is Why.UNKNOWN_SET
    bare = orjson.loads((fixtures_dir / "vaa_router_akt.json").read_bytes())
    vaa = decode_vaa(KIND, raw(bare))
    assert (vaa.sequence, vaa.timestamp) == (bare["expected"]["sequence"], bare["expected"]["timestamp"])


def test_known_sets_are_those_of_the_rotations_themselves(fixtures_dir: Path) -> None:
    """From the first guardian alone, each set follows from the upgrade that the set before has signed."""
    published = orjson.loads((fixtures_dir / "guardian_sets.json").read_bytes())
    guardians = published["wormhole_mainnet"]
    walked = SignerSets([SignerSet(KIND, GUARDIANS, 0, (bytes.fromhex(guardians["sets"]["0"][0]),), 1)])
    for upgrade in guardians["upgrades"]:
        walked = rotated(walked, GUARDIANS, bytes.fromhex(upgrade["vaa_hex"]))
    known = {one.index: one for one in PRODUCTION.of_group(KIND, GUARDIANS)}
    assert {one.index: one for one in walked} == known and len(known) == 8
    assert {str(index): [key.hex() for key in one.keys] for index, one in known.items()} == guardians["sets"]
    for name, place in (("production", "production_set1"), ("staging", "staging_set1")):
        routers = published["pyth_router"]
        first = tuple(map(bytes.fromhex, routers[name]["0"]))
        walked = SignerSets([SignerSet(KIND, ROUTERS, 0, first, len(first) // 2 + 1)])
        vaa = bytes.fromhex(routers["upgrades"][place]["vaa_hex"])
        walked = rotated(walked, ROUTERS, vaa, from_s=1_790_000_000)
        second, ours = walked.get(KIND, ROUTERS, 1), KNOWN[name].get(KIND, ROUTERS, 1)
        assert second is not None and ours is not None
        assert (second.keys, second.quorum) == (ours.keys, ours.quorum)
        assert [key.hex() for key in ours.keys] == routers[name]["1"]


def test_a_rotation_must_be_signed_by_the_set_before(fixtures_dir: Path) -> None:
    published = orjson.loads((fixtures_dir / "guardian_sets.json").read_bytes())
    upgrades = [bytes.fromhex(one["vaa_hex"]) for one in published["wormhole_mainnet"]["upgrades"]]
    other = SignerSets([SignerSet(KIND, GUARDIANS, 0, (bytes(20),), 1)])
    with pytest.raises(ConfigError, match=r"^rotation to set 1: unknown_signer: signature 0 is by 58cc3a"):
        rotated(other, GUARDIANS, upgrades[0])
    with pytest.raises(ConfigError, match=r"signed by set 6 of .* which is not known"):
        rotated(SignerSets([]), GUARDIANS, upgrades[6])
    changed = bytearray(upgrades[3])
    changed[-1] ^= 1
    with pytest.raises(ConfigError, match="unknown_signer"):
        rotated(PRODUCTION, GUARDIANS, bytes(changed))
    changed[-19 * 20 - 1] = 18
    with pytest.raises(DecodeError, match="expected 18 addresses"):
        rotated(PRODUCTION, GUARDIANS, bytes(changed))
    with pytest.raises(DecodeError, match="not a guardian set upgrade"):
        rotated(PRODUCTION, GUARDIANS, PythSigner().vaa(b"x", 1, 1))


def test_rotations_of_a_configuration_are_taken_over_whosever_they_are(fixtures_dir: Path) -> None:
    published = orjson.loads((fixtures_dir / "guardian_sets.json").read_bytes())
    upgrades = [one["vaa_hex"] for one in published["wormhole_mainnet"]["upgrades"]]
    router = published["pyth_router"]["upgrades"]["production_set1"]["vaa_hex"]
    newest = {(GUARDIANS, 6), (GUARDIANS, 7), (ROUTERS, 1)}
    old = SignerSets(one for one in PRODUCTION if (one.group, one.index) not in newest)
    sets = rotated_by_text(old, [upgrades[5], "0x" + upgrades[6], router], "rotations")
    for group, index in newest - {(ROUTERS, 1)}:
        assert sets.get(KIND, group, index) == PRODUCTION.get(KIND, group, index)
    first, second = sets.get(KIND, ROUTERS, 0), sets.get(KIND, ROUTERS, 1)
    assert first == PRODUCTION.get(KIND, ROUTERS, 0) and second is not None  # its VAA has no time
    assert (second.quorum, second.from_s, second.until_s) == (3, 0, None)
    again = rotated_by_text(PRODUCTION, upgrades, "rotations")
    assert list(again) == list(PRODUCTION)  # no set that is over comes back
    other = SignerSet(KIND, GUARDIANS, 7, (bytes(20),), 1)
    with pytest.raises(ConfigError, match="is known to have another set of this number"):
        rotated(PRODUCTION.having(other), GUARDIANS, bytes.fromhex(upgrades[6]))
    assert check(Accumulator.decode(load(fixtures_dir, "pnau_router_set1_btc_eth_sol_bnb")), sets).verified
    with pytest.raises(
        ConfigError, match=r"^rotations: VAA 1: rotation to set 7: signed by set 6 of 26:e1.*; rotation"
    ):
        rotated_by_text(old, [upgrades[6]], "rotations")
    with pytest.raises(ConfigError, match=r"^rotations: VAA 2 is not in hex$"):
        rotated_by_text(old, [upgrades[5], "zz"], "rotations")
    with pytest.raises(
        ConfigError, match=r"^rotations: VAA 1: rotation: offset 1: expected a VAA of at least 6 bytes$"
    ):
        rotated_by_text(old, ["01"], "rotations")


def test_merkle_vectors(fixtures_dir: Path) -> None:
    published = orjson.loads((fixtures_dir / "merkle_vectors.json").read_bytes())
    assert published["null_hash"] == EMPTY.hex()
    for vector in published["generated_by_us_from_the_documented_algorithm"]:
        items = [bytes.fromhex(item) for item in vector["items"]]
        root, proofs = tree(items)
        assert root.hex() == vector["root"]
        assert [[proof[at : at + 20].hex() for at in range(0, len(proof), 20)] for proof in proofs] == vector["proofs"]
    for vector in published["real"]:
        proof = b"".join(map(bytes.fromhex, vector["proof"]))
        assert proves(bytes.fromhex(vector["root"]), bytes.fromhex(vector["message"]), proof) is vector.get(
            "valid", True
        )


@pytest.mark.parametrize("name", ["pnau_docs_sse_event1_btc", "pnau_router_set1_btc_eth_sol_bnb"])
def test_no_bit_can_be_flipped(fixtures_dir: Path, name: str) -> None:
    """All of them but the minor version, which is not signed and means nothing to a reader."""
    data = bytearray(load(fixtures_dir, name))
    passed = []
    for bit in range(len(data) * 8):
        data[bit >> 3] ^= 1 << (bit & 7)
        try:
            verified = check(Accumulator.decode(bytes(data)), PRODUCTION).verified
        except DecodeError:
            verified = False
        if verified:
            passed.append(bit >> 3)
        data[bit >> 3] ^= 1 << (bit & 7)
    assert set(passed) == {5}


# Updates of our own.

BTC = bytes.fromhex("e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43")
PRICE = PriceMessage(BTC, 7_717_360_161_297, 1_575_338_703, -8, 1_789_248_348, 1_789_248_347, 7_716_303_980_000, 5)
SIGNER = PythSigner()


def test_an_update_of_our_own_verifies_with_its_set_only() -> None:
    (data,) = SIGNER.updates([PRICE], 1_789_248_348)
    update = Accumulator.decode(data)
    assert update.prices == [PRICE] and update.slot == 1_789_248_348 * 20
    assert check(update, SIGNER.sets).verified
    assert check(update, PRODUCTION).why is Why.UNKNOWN_SIGNER
    assert check(update, PythSigner(seed=1).sets).why is Why.UNKNOWN_SIGNER
    assert check(update, PythSigner(index=1).sets).why is Why.UNKNOWN_SET


def test_more_messages_than_one_update_holds_share_a_vaa() -> None:
    prices = [PriceMessage(n.to_bytes(32, "big"), n + 1, 0, -8, 1, 1, 1, 0) for n in range(300)]
    first, second = map(Accumulator.decode, SIGNER.updates(prices, 1_789_248_348, 7))
    assert first.vaa == second.vaa and first.slot == 7
    assert first.prices + second.prices == prices
    assert check(first, SIGNER.sets).verified and check(second, SIGNER.sets).verified


@pytest.mark.parametrize(
    ("places", "why", "detail"),
    [
        ((0, 1), Why.NO_QUORUM, "2 of 5 have signed, 3 are needed"),
        ((), Why.UNSIGNED, "the VAA has no signature"),
        ((0, 2, 1), Why.BAD_SIGNATURE, "the signers' places don't ascend"),
        ((1, 1, 1), Why.BAD_SIGNATURE, "the signers' places don't ascend"),
        ((0, 2, 4), None, "3 of 5 have signed, 3 are needed"),
        ((0, 1, 2, 3, 4), None, "5 of 5 have signed, 3 are needed"),
    ],
)
def test_who_has_signed(places: tuple[int, ...], why: Why | None, detail: str) -> None:
    message = encode_price(PRICE)
    root, proofs = tree([message])
    vaa = SIGNER.vaa(encode_payload(5, 0, root), 1_789_248_348, 5, places)
    verdict = check(Accumulator.decode(encode(vaa, [message], proofs)), SIGNER.sets)
    assert (verdict.why, verdict.detail) == (why, detail)
    assert verdict.fields()["quorum_met"] is (len(set(places)) >= 3)


def test_a_stranger_among_the_signers_spoils_all() -> None:
    message = encode_price(PRICE)
    root, proofs = tree([message])
    vaa = bytearray(SIGNER.vaa(encode_payload(5, 0, root), 1_789_248_348, 5, (0, 1, 2, 3)))
    vaa[6 + 3 * 66] = 4  # the fourth signature now claims the fifth place
    verdict = check(Accumulator.decode(encode(bytes(vaa), [message], proofs)), SIGNER.sets)
    assert verdict.why is Why.BAD_SIGNATURE and verdict.detail.startswith("signature 4 is by ")
    vaa[6 + 3 * 66] = 200
    verdict = check(Accumulator.decode(encode(bytes(vaa), [message], proofs)), SIGNER.sets)
    assert verdict.why is Why.BAD_SIGNATURE
    assert [signer.known for signer in verdict.signers] == [True, True, True, False]


def test_a_set_that_nobody_vouches_for_is_for_the_lenient() -> None:
    (data,) = SIGNER.updates([PRICE], 1_789_248_348)
    update = Accumulator.decode(data)
    (known,) = SIGNER.sets
    unproved = SignerSets([SignerSet(known.kind, known.group, 0, known.keys, known.quorum, proved=False)])
    assert check(update, unproved).why is Why.SIGNER_UNPROVED
    assert check(update, unproved, mode=Mode.LENIENT).verified


def test_longer_messages_and_headers_of_later_versions_are_read() -> None:
    message = encode_price(PRICE) + b"more"
    root, proofs = tree([message, b"other"])
    vaa = SIGNER.vaa(encode_payload(5, 0, root) + b"more", 1_789_248_348, 5)
    data = encode(vaa, [message], proofs[:1])
    later = data[:5] + b"\x09\x02ab" + data[7:]
    update = Accumulator.decode(later)
    assert (update.minor, update.prices) == (9, [PRICE])
    assert check(update, SIGNER.sets).verified


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: b"PNAX" + d[4:], "offset 0: expected 504e4155 (PNAU), found 504e4158"),
        (lambda d: d[:7] + b"\x01" + d[8:], "offset 7: expected proof type 0 (Wormhole, Merkle), found 1"),
        (lambda d: d[:10] + b"\x02" + d[11:], "offset 10: expected VAA version 1, found 2"),
        (lambda d: d[:3], "offset 3: expected PNAU (4 bytes from offset 0)"),
        (lambda d: d[:-1], "expected proof of 0 hashes"),
        (lambda d: b"", "offset 0: expected PNAU (4 bytes from offset 0)"),
        (lambda d: d + bytes(2**20), "offset 0: expected at most 1048576 bytes"),
    ],
)
def test_foreign_and_cut_bytes_are_named(change: Any, told: str) -> None:
    (data,) = SIGNER.updates([PRICE, PRICE], 1_789_248_348)
    if told.startswith("expected proof"):
        told = "expected proof of 1 hashes (20 bytes from offset "
    with pytest.raises(DecodeError) as caught:
        Accumulator.decode(change(data))
    assert told in str(caught.value)


def test_an_update_without_messages_is_refused() -> None:
    with pytest.raises(DecodeError, match="expected at least one message, found none"):
        Accumulator.decode(encode(SIGNER.vaa(encode_payload(5, 0, EMPTY), 1, 1), [], []))


def test_stake_caps_are_read() -> None:
    message = b"\x02" + (1_789_248_348).to_bytes(8, "big") + b"\x00\x01" + b"\x07" * 32 + (10**18).to_bytes(8, "big")
    root, proofs = tree([message])
    data = encode(SIGNER.vaa(encode_payload(5, 0, root), 1_789_248_348, 5), [message], proofs)
    fields = decode_signed(KIND, data, SIGNER.sets)
    caps = [{"publisher": "07" * 32, "cap": str(10**18)}]
    assert fields["messages"] == [{"type": "stake_caps", "publish_time": 1_789_248_348, "caps": caps}]
    assert fields["verified"] is True and "price" not in fields


def test_truncations_and_mutations_raise_decode_errors_only(fixtures_dir: Path) -> None:
    chance = random.Random(20_261_121)
    whole = [data for _, data, _ in vectors(fixtures_dir, verify=True)][:8] + SIGNER.updates([PRICE], 1)
    refused = 0
    for _ in range(20_000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(min(len(data), 80)) if chance.random() < 0.5 else chance.randrange(len(data))
            data[place] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        text = f"{KIND}: offset "
        try:
            orjson.dumps(Accumulator.decode(bytes(data)).fields())
        except DecodeError as error:
            refused += 1
            text = str(error)
        assert text.startswith(f"{KIND}: offset ") and "\n" not in text
    assert 5_000 < refused < 20_000


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.data())
def test_each_message_of_a_tree_is_proved_and_no_other(messages: list[bytes], data: st.DataObject) -> None:
    root, proofs = tree(messages)
    place = data.draw(st.integers(0, len(messages) - 1))
    assert proves(root, messages[place], proofs[place])
    other = data.draw(st.binary(max_size=40))
    assert proves(root, other, proofs[place]) is (other == messages[place])


def test_pairs_are_sorted() -> None:
    assert node(b"\x01" * 20, b"\x02" * 20) == node(b"\x02" * 20, b"\x01" * 20)
    assert len(EMITTER) == 32
