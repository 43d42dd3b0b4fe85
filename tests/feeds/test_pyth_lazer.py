"""Pyth Pro's signed payloads: every vector to its values, every bit of one of each form, and nonsense."""

import base64
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from feeds.pyth.lazer import Lazer, check
from feeds.pyth.signers import ED25519, KNOWN, LAZER, PRODUCTION, SECP256K1
from feeds.signed import decode_signed
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Why
from oracle_hub.errors import DecodeError

UNPROVED = {
    "74313a6525edf99936aa1477e94c72bc5cc617b21745f5f03296f3154461f214",
    "f65210bee4fcf5b1cee1e537fabcfd95010297653b94af04d454fc473e94834f",
    "b8d50f0bae75bf6e03c104903d7c3afc4a6596da",
}
"""Keys of test and staging."""
OURS = {"payload-only": "payload"}


def vectors(fixtures_dir: Path) -> list[tuple[str, bytes, dict[str, Any]]]:
    out = []
    for path in sorted(fixtures_dir.glob("lazer_*.json")):
        vector = orjson.loads(path.read_bytes())
        text = vector["data"]
        data = bytes.fromhex(text) if vector["encoding"] == "hex" else base64.b64decode(text)
        out.append((path.stem, data, vector["expected"]))
    return out


def load(fixtures_dir: Path, stem: str) -> bytes:
    (data,) = [data for name, data, _ in vectors(fixtures_dir) if name == f"lazer_{stem}"]
    return data


def test_every_vector_has_its_values(fixtures_dir: Path) -> None:
    for name, data, expected in vectors(fixtures_dir):
        fields: dict[str, Any] = decode_signed(LAZER, data)
        payload = expected["payload"]
        assert fields["format"] == OURS.get(expected["format"], expected["format"]), name
        assert str(fields["timestamp_us"]) == payload["timestamp_us"], name
        assert (fields["channel"], fields["channel_name"]) == (payload["channel"], payload["channel_name"]), name
        assert fields["trailing_bytes"] == payload["trailing"], name
        assert len(fields["feeds"]) == len(payload["feeds"]), name
        for found, wanted in zip(fields["feeds"], payload["feeds"], strict=True):
            assert found["feed_id"] == wanted["feed_id"], name
            values = {key: None if value is None else str(value) for key, value in wanted["properties"].items()}
            ours = {key: None if found[key] is None else str(found[key]) for key in values}
            assert ours == values, name
            extra = set(found) - set(values)
            assert extra <= {"feed_id", "publish_time_us", "market_session_name"}, name


def test_every_signed_vector_verifies_by_its_signer(fixtures_dir: Path) -> None:
    proved = 0
    for name, data, expected in vectors(fixtures_dir):
        strict = decode_signed(LAZER, data, PRODUCTION)
        lenient = decode_signed(LAZER, data, PRODUCTION, mode=Mode.LENIENT)
        if expected["format"] == "payload-only":
            assert strict["why"] == lenient["why"] == "unsigned", name
            continue
        key = expected.get("public_key") or expected["signer_address"]
        assert lenient["verified"] is True and lenient["why"] is None, name
        assert lenient["signers"] == [{"index": None, "key": key, "known": True}], name
        assert strict["why"] == ("signer_unproved" if key in UNPROVED else None), name
        assert decode_signed(LAZER, data, KNOWN["staging"])["verified"] is (key in UNPROVED), name
        proved += strict["verified"] is True
    assert proved >= 4


def test_the_price_time_is_when_it_was_made_not_when_it_was_sent(fixtures_dir: Path) -> None:
    fields = decode_signed(LAZER, load(fixtures_dir, "solana_1771339368200000"))
    assert fields["publish_time_us"] == 1_771_339_368_200_000 and fields["price"] == "6713436287632"
    bare = decode_signed(LAZER, load(fixtures_dir, "solana_1728479312975644"))
    assert bare["publish_time_us"] is None and bare["timestamp_us"] == 1_728_479_312_975_644


@pytest.mark.parametrize("name", ["solana_1771339368200000", "leEcdsa_1778594100000000", "evm_1738270008001000"])
def test_no_bit_can_be_flipped(fixtures_dir: Path, name: str) -> None:
    data = bytearray(load(fixtures_dir, name))
    sets = PRODUCTION if not name.startswith("evm") else KNOWN["staging"]
    assert check(Lazer.decode(bytes(data)), sets).verified
    passed = []
    for bit in range(len(data) * 8):
        data[bit >> 3] ^= 1 << (bit & 7)
        try:
            verified = check(Lazer.decode(bytes(data)), sets).verified
        except DecodeError:
            verified = False
        if verified:
            passed.append(bit)
        data[bit >> 3] ^= 1 << (bit & 7)
    assert passed == []


def test_a_changed_payload_is_a_bad_signature_or_of_an_unknown_signer(fixtures_dir: Path) -> None:
    solana = bytearray(load(fixtures_dir, "solana_1771339368200000"))
    solana[-1] ^= 1
    assert check(Lazer.decode(bytes(solana)), PRODUCTION).why is Why.BAD_SIGNATURE
    solana[68] ^= 1
    assert check(Lazer.decode(bytes(solana)), PRODUCTION).why is Why.BAD_SIGNATURE
    ecdsa = bytearray(load(fixtures_dir, "leEcdsa_1778594100000000"))
    ecdsa[-1] ^= 1
    assert check(Lazer.decode(bytes(ecdsa)), PRODUCTION).why is Why.UNKNOWN_SIGNER
    ecdsa[68] = 9
    verdict = check(Lazer.decode(bytes(ecdsa)), PRODUCTION)
    assert verdict.why is Why.BAD_SIGNATURE and verdict.signers[0].key is None


def test_a_key_has_its_time(fixtures_dir: Path) -> None:
    message = Lazer.decode(load(fixtures_dir, "solana_1771339368200000"))
    begin, end = 1_771_339_368, 1_771_339_369
    sets = SignerSets([SignerSet(LAZER, ED25519, 3, (message.public_key,), 1, begin, end)])
    whys = [check(message, sets, at_us=at).why for at in (begin * 10**6 - 1, None, end * 10**6 - 1, end * 10**6)]
    assert whys == [Why.EARLY_SET, None, None, Why.EXPIRED_SET]
    other = SignerSets([SignerSet(LAZER, SECP256K1, 3, (bytes(20),), 1)])
    assert check(message, other).why is Why.UNKNOWN_SIGNER


def test_bytes_after_the_payload_are_for_the_lenient(fixtures_dir: Path) -> None:
    data = load(fixtures_dir, "solana_1771339368200000") + b"\x00"
    message = Lazer.decode(data)
    assert message.trailing_bytes == 1
    assert check(message, PRODUCTION).why is Why.TRAILING_BYTES
    assert check(message, PRODUCTION, mode=Mode.LENIENT).verified


def test_an_unsigned_envelope_is_read_and_never_verified(fixtures_dir: Path) -> None:
    payload = load(fixtures_dir, "payload_only_1728479312975644")
    message = Lazer.decode((1_499_680_012).to_bytes(4, "little") + len(payload).to_bytes(2, "little") + payload)
    assert (message.format, message.payload) == ("leUnsigned", payload)
    assert check(message, PRODUCTION, mode=Mode.LENIENT).why is Why.UNSIGNED


def head(properties: int) -> bytes:
    """A payload of one feed with so many properties to follow."""
    return bytes.fromhex("75d3c793") + bytes(8) + bytes((1, 1)) + (6).to_bytes(4, "little") + bytes((properties,))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "offset 0: expected a magic number of 4 bytes, found 0 bytes"),
        (b"abcd", "offset 0: expected the magic number of a Lazer message or payload, found 61626364"),
        (bytes.fromhex("b9011a82"), "offset 4: expected signature and length of the payload (2 bytes from offset 100)"),
        (bytes.fromhex("75d3c793"), "offset 4: expected head of the payload (14 bytes from offset 0)"),
        (head(1), "offset 19: expected property (1 bytes from offset 19)"),
        (head(1) + b"\x0d", "offset 19: expected a property of 0 to 12, found 13"),
        (head(1) + b"\x00abc", "offset 23: expected price (8 bytes from offset 20)"),
        (head(1) + b"\x0c\x02", "offset 20: expected 0 or 1 for the presence of feed_update_timestamp, found 2"),
        (head(2) + b"\x0c\x00\x0c\x00", "offset 21: property feed_update_timestamp is there twice"),
        (
            bytes.fromhex("b9011a82") + bytes(96) + b"\x05\x00abcd",
            "offset 106: expected a payload of 5 bytes from offset 102",
        ),
        (
            bytes.fromhex("b9011a82") + bytes(96) + b"\x0e\x00" + bytes(14),
            "offset 102: expected a payload (93c7d375), found 00000000",
        ),
        (
            bytes.fromhex("b9011a82") + bytes(96) + b"\x14\x00" + head(0) + b"x",
            "offset 121: expected the payload's end, found 1 bytes more",
        ),
    ],
)
def test_foreign_and_cut_bytes_are_named(data: bytes, told: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Lazer.decode(data)
    assert str(caught.value) == f"{LAZER}: {told}"


def test_a_value_that_is_zero_or_absent_is_none() -> None:
    values = b"\x00" + bytes(8) + b"\x03\x00\x00" + b"\x04\xf8\xff" + b"\x06\x00" + b"\x09\x04\x00"
    (feed,) = Lazer.decode(head(5) + values).feeds
    assert (feed.price, feed.publisher_count, feed.exponent, feed.funding_rate) == (None, 0, -8, None)
    assert feed.fields()["market_session_name"] == "closed"


def test_truncations_and_mutations_raise_decode_errors_only(fixtures_dir: Path) -> None:
    chance = random.Random(20_261_121)
    whole = [data for _, data, _ in vectors(fixtures_dir)]
    refused = 0
    for _ in range(20_000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        text = f"{LAZER}: offset "
        try:
            orjson.dumps(Lazer.decode(bytes(data)).fields())
        except DecodeError as error:
            refused += 1
            text = str(error)
        assert text.startswith(f"{LAZER}: offset ") and "\n" not in text
    assert 5_000 < refused < 20_000
