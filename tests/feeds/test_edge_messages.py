"""Edge's messages: every vector to its values and signer, every bit of what is signed, all forms, and nonsense."""

import random
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from feeds.edge.messages import EVM, SVM, EdgePrice, Kind, check, decode, encode_abi, feed_id_of
from feeds.edge.signers import PRODUCTION, STAGING
from feeds.emulator.edge_signing import EdgeSigner
from feeds.signatures import recover
from feeds.signed import decode_signed
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Why
from oracle_hub.errors import DecodeError, PriceError

S = 1_000_000
NOW_S = 1_790_000_000
SOL = EdgePrice("SOLUSD", 11_500_840_348, -8, NOW_S)
BTC = EdgePrice("BTCUSD", 9_100_000_000_000, -8, NOW_S - 1)
QUOTED = EdgePrice("ETHUSD", 297_693_500_000, -8, NOW_S, 73_114_463, 297_693_000_000, 297_693_500_000)
SIGNER = EdgeSigner()
KINDS: tuple[Kind, ...] = (SVM, EVM)


def vectors(fixtures_dir: Path, beginning: str) -> dict[str, dict[str, Any]]:
    return {path.stem: orjson.loads(path.read_bytes()) for path in sorted(fixtures_dir.glob(f"{beginning}*.json"))}


def test_batches_for_solana(fixtures_dir: Path) -> None:
    found = vectors(fixtures_dir, "chaos_edge_svm_batch_")
    assert len(found) >= 3
    for name, vector in found.items():
        data, expected = orjson.dumps(vector["data"]), vector["expected"]
        (message,) = decode(SVM, data)
        assert message.signed == bytes.fromhex(expected["message"][2:]), name
        fields: dict[str, Any] = decode_signed(SVM, data, PRODUCTION)
        assert fields["message_hashes"] == [expected["messageHash"][2:]], name
        assert [one["key"] for one in fields["signers"]] == [expected["signerCompressed"][2:]], name
        for price, given in zip(fields["prices"], vector["data"]["prices"], strict=True):
            assert price["price"] == str(given["price"]), name
            assert (price["feed_id"], price["expo"], price["ts"]) == (given["feedId"], given["expo"], given["ts"]), name
            assert price["publish_time_us"] == given["ts"] * S, name
        staging = expected["environment"] == "staging"
        assert fields["why"] == ("signer_unproved" if staging else None), name
        assert decode_signed(SVM, data, STAGING)["why"] == (None if staging else "unknown_signer"), name


def test_reports_for_evm_chains(fixtures_dir: Path) -> None:
    found = vectors(fixtures_dir, "chaos_edge_evm_")
    assert {vector["expected"]["valid"] for vector in found.values()} == {True, False}
    for name, vector in found.items():
        data, expected = orjson.dumps(vector["data"]), vector["expected"]
        trusted = bytes.fromhex(expected["trustedSigner"][2:])
        fields: dict[str, Any] = decode_signed(EVM, data, SignerSets([SignerSet(EVM, "", 0, (trusted,), 1)]))
        assert (fields["verified"], fields["why"]) == (
            (True, None) if expected["valid"] else (False, "unknown_signer")
        ), name
        assert fields["message_hashes"] == [expected["messageHash"][2:]], name
        assert [one["key"] for one in fields["signers"]] == [expected["recoveredSigner"][2:].lower()], name
        for ours, theirs in (("price", "price"), ("bid", "bid"), ("ask", "ask"), ("round_id", "roundId")):
            assert str(fields[ours]) == str(vector["data"][theirs]), (name, ours)
        assert fields["publish_time_us"] == vector["data"]["timestamp"] * S, name
        assert decode_signed(EVM, data, STAGING)["verified"] is expected["valid"], name
        assert decode_signed(EVM, data, PRODUCTION)["why"] == (
            "signer_unproved" if expected["valid"] else "unknown_signer"
        ), name
        (message,) = decode(EVM, data)
        assert decode(EVM, encode_abi(message)) == (message,), name


def test_the_second_signature_that_anybody_can_make_of_one_is_refused_as_the_contract_refuses_it(
    fixtures_dir: Path,
) -> None:
    order = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141  # SEC 2, section 2.4.1
    for vector in vectors(fixtures_dir, "chaos_edge_evm_").values():
        raw = bytes.fromhex(vector["data"]["signature"][2:])
        s = int.from_bytes(raw[32:64], "big")
        assert s <= order // 2  # the real ones are
        other = raw[:32] + (order - s).to_bytes(32, "big") + bytes((55 - raw[64],))
        data = vector["data"] | {"signature": "0x" + other.hex()}
        fields: dict[str, Any] = decode_signed(EVM, orjson.dumps(data), STAGING)
        assert (fields["verified"], fields["why"]) == (False, "bad_signature")
        assert "upper half of the order" in fields["detail"] and [one["key"] for one in fields["signers"]] == [None]
        (message,) = decode(EVM, orjson.dumps(data))
        (edge,) = decode(EVM, orjson.dumps(vector["data"]))
        at_half = (order // 2).to_bytes(32, "big"), (order // 2 + 1).to_bytes(32, "big")
        halves = [msgspec.structs.replace(edge, signature=raw[:32] + half) for half in at_half]
        assert [one.mirrored for one in (message, edge, *halves)] == [True, False, False, True]
        key = msgspec.structs.replace(edge, signature=other[:64], recovery_id=other[64] - 27)
        assert recover(key.digest() or b"", key.signature, key.recovery_id) is not None  # it is a signature


def test_the_signer_of_the_documented_sample_is_not_proved(fixtures_dir: Path) -> None:
    (vector,) = vectors(fixtures_dir, "chaos_edge_rest_docs_sample").values()
    data = orjson.dumps(vector["data"])
    fields: dict[str, Any] = decode_signed(SVM, data, PRODUCTION)
    assert (fields["verified"], fields["why"]) == (False, "signer_unproved")
    assert [one["key"] for one in fields["signers"]] == [vector["expected"]["recoveredIfStringFeedPaddedTo32"][2:]]
    assert decode_signed(SVM, data, STAGING)["why"] == "unknown_signer"


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_can_be_flipped(fixtures_dir: Path, kind: Kind) -> None:
    name = {SVM: "chaos_edge_svm_batch_prod2", EVM: "chaos_edge_evm_ethusd"}[kind]
    (vector,) = vectors(fixtures_dir, name).values()
    sets = PRODUCTION if kind == SVM else STAGING
    (message,) = decode(kind, orjson.dumps(vector["data"]))
    assert message.signed is not None and check([message], sets, mode=Mode.LENIENT).verified
    passed = []
    for part in ("signed", "signature"):
        raw = bytearray(getattr(message, part))
        for bit in range(len(raw) * 8):
            raw[bit >> 3] ^= 1 << (bit & 7)
            flipped = msgspec.structs.replace(message, **{part: bytes(raw)})
            if check([flipped], sets, mode=Mode.LENIENT).verified:
                passed.append((part, bit))
            raw[bit >> 3] ^= 1 << (bit & 7)
    other = msgspec.structs.replace(message, recovery_id=message.recovery_id ^ 1)
    assert passed == [] and not check([other], sets, mode=Mode.LENIENT).verified


@pytest.mark.parametrize(
    ("name", "value"),
    [("price", 297_693_500_001), ("ts", NOW_S + 1), ("expo", -9), ("bid", 1), ("ask", 1), ("roundId", 1)],
)
def test_every_field_of_the_json_is_signed(name: str, value: int) -> None:
    answer = orjson.loads(SIGNER.evm(QUOTED))
    assert decode_signed(EVM, orjson.dumps(answer), SIGNER.sets)["verified"] is True
    changed = orjson.dumps(answer | {name: value})
    assert decode_signed(EVM, changed, SIGNER.sets)["why"] in ("unknown_signer", "bad_signature")
    if name in ("price", "ts", "expo"):
        answer = orjson.loads(SIGNER.single(SOL))
        assert decode_signed(SVM, orjson.dumps(answer | {name: value}), SIGNER.sets)["why"] in (
            "unknown_signer",
            "bad_signature",
        )


def test_the_forms_of_the_api() -> None:
    (batch,) = decode(SVM, SIGNER.batch([SOL, BTC]))
    assert batch.prices == (SOL, BTC) and batch.signed is not None and len(batch.signed) == 98
    assert [message.prices for message in decode(SVM, SIGNER.each([SOL, BTC]))] == [(SOL,), (BTC,)]
    assert [message.prices for message in decode(SVM, SIGNER.single(SOL))] == [(SOL,)]
    as_list = orjson.dumps(orjson.loads(SIGNER.each([SOL, BTC]))["prices"])
    assert decode(SVM, as_list) == decode(SVM, SIGNER.each([SOL, BTC]))
    for data in (SIGNER.batch([SOL, BTC]), SIGNER.each([SOL, BTC]), SIGNER.single(SOL)):
        assert check(decode(SVM, data), SIGNER.sets, mode=Mode.STRICT).verified
        assert check(decode(SVM, data), EdgeSigner(1).sets, mode=Mode.STRICT).why is Why.UNKNOWN_SIGNER
    (evm,) = decode(EVM, orjson.dumps({"prices": [orjson.loads(SIGNER.evm(QUOTED))]}))
    assert evm.prices == (QUOTED,) and check([evm], SIGNER.sets, mode=Mode.STRICT).verified


def test_numbers_may_be_decimal_text_and_names_stay_names() -> None:
    def as_text(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: as_text(one) for name, one in value.items()}
        return [as_text(one) for one in value] if isinstance(value, list) else str(value)

    answers: list[tuple[Kind, bytes]] = [
        (SVM, SIGNER.batch([SOL, BTC])),
        (SVM, SIGNER.single(SOL)),
        (EVM, SIGNER.evm(QUOTED)),
    ]
    for kind, data in answers:
        text = orjson.dumps(as_text(orjson.loads(data)))
        assert decode(kind, text) == decode(kind, data)
        assert check(decode(kind, text), SIGNER.sets, mode=Mode.STRICT).verified
    for name, value in (("ts", "1e9"), ("expo", "--8"), ("price", "5.0"), ("recoveryId", "")):
        with pytest.raises(DecodeError, match="offset 0: expected an integer, found "):
            decode(SVM, orjson.dumps(orjson.loads(SIGNER.single(SOL)) | {name: value}))


def test_a_batch_is_in_the_order_in_which_it_was_signed() -> None:
    answer = orjson.loads(SIGNER.batch([SOL, BTC]))
    answer["prices"].reverse()
    assert decode_signed(SVM, orjson.dumps(answer), SIGNER.sets)["why"] in ("unknown_signer", "bad_signature")


def test_one_bad_price_of_several_spoils_the_answer() -> None:
    answer = orjson.loads(SIGNER.each([SOL, BTC]))
    answer["prices"][1]["price"] += 1
    fields: dict[str, Any] = decode_signed(SVM, orjson.dumps(answer), SIGNER.sets)
    assert fields["why"] in ("unknown_signer", "bad_signature") and fields["detail"].startswith("BTCUSD: ")
    assert [one["known"] for one in fields["signers"]] == [True, False]
    assert (
        decode_signed(SVM, orjson.dumps({"feedId": 1, "price": 1, "expo": -8, "ts": 5}), SIGNER.sets)["why"]
        == "unsigned"
    )


def test_what_rest_leaves_out_for_evm_can_be_read_and_not_verified() -> None:
    answer = orjson.loads(SIGNER.evm(QUOTED))
    for name in ("roundId", "bid", "ask"):
        del answer[name]
    fields = decode_signed(EVM, orjson.dumps(answer), SIGNER.sets)
    assert (fields["price"], fields["why"]) == ("297693500000", "incomplete")


def test_seconds_and_milliseconds_by_magnitude() -> None:
    for ts, us in (
        (NOW_S, NOW_S * S),
        (NOW_S * 1_000 + 7, NOW_S * S + 7_000),
        (10**11, 10**17),
        (10**11 + 1, 10**14 + 1_000),
    ):
        price = msgspec.structs.replace(SOL, ts=ts)
        (message,) = decode(SVM, SIGNER.single(price))
        assert message.prices[0].publish_us == us
        assert check([message], SIGNER.sets, mode=Mode.STRICT).verified  # the value as it stands is what was signed


def test_a_key_is_accepted_in_its_time() -> None:
    (one, _) = SIGNER.sets
    sets = SignerSets([SignerSet(SVM, "a", 0, one.keys, 1, NOW_S, NOW_S + 9)])
    message = decode(SVM, SIGNER.batch([SOL]))
    at = {s: check(message, sets, at_us=s * S, mode=Mode.STRICT).why for s in (NOW_S - 1, NOW_S, NOW_S + 9)}
    assert at == {NOW_S - 1: Why.EARLY_SET, NOW_S: None, NOW_S + 9: Why.EXPIRED_SET}
    oldest = decode(SVM, SIGNER.batch([SOL, BTC]))
    assert check(oldest, sets, mode=Mode.STRICT).why is Why.EARLY_SET
    rotated = sets.having(SignerSet(SVM, "a", 1, one.keys, 1, NOW_S + 9))
    assert check(message, rotated, at_us=(NOW_S + 9) * S, mode=Mode.STRICT).verified


def test_prices_at_a_feeds_exponent() -> None:
    assert EdgePrice(2, 830_999_792_250_000, -10, NOW_S).mantissa(-8) == 8_309_997_922_500
    assert EdgePrice(2, 12_345_650, -10, NOW_S).mantissa(-8) == 123_456  # half to even
    with pytest.raises(PriceError):
        EdgePrice(2, 0, -10, NOW_S).mantissa(-8)
    assert (feed_id_of("SOL/USD"), feed_id_of("jitosol/usd")) == ("SOLUSD", "JITOSOLUSD")


ENTRY = {"feedId": "SOLUSD", "price": 5, "expo": -8, "ts": NOW_S, "signature": "00" * 64, "recoveryId": 0}
QUOTES: dict[str, object] = {"roundId": 1, "bid": 1, "ask": 1, "signature": "0x" + "00" * 64 + "1b"}


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        (SVM, b"", "expected the API's JSON"),
        (EVM, b"", "expected the API's JSON or its ABI encoding"),
        (SVM, b"{", "expected the API's JSON: Input data was truncated"),
        (SVM, b"[" * 100_000, "expected the API's JSON: "),
        (SVM, b"{}", "expected 1 to 1024 prices, found 0"),
        (SVM, b'{"prices": []}', "expected 1 to 1024 prices, found 0"),
        (SVM, ENTRY | {"feedId": 256}, "expected feedId to fit one byte, found 256"),
        (SVM, ENTRY | {"feedId": "X" * 33}, "expected a feedId of 1 to 32 ASCII characters"),
        (SVM, ENTRY | {"price": 2**64}, "expected price within [0, 18446744073709551616), found"),
        (SVM, ENTRY | {"price": 1.5}, "expected the API's JSON: "),
        (SVM, ENTRY | {"price": "1e5"}, "expected an integer, found '1e5'"),
        (SVM, ENTRY | {"expo": 128}, "expected expo within [-128, 128), found 128"),
        (SVM, ENTRY | {"ts": 0}, "expected ts, a unix time, found 0"),
        (SVM, ENTRY | {"ts": 2**62}, "expected ts, a unix time, found 4611686018427387904"),
        (SVM, ENTRY | {"signature": "00"}, "expected a signature of 64 bytes, found 1"),
        (SVM, ENTRY | {"signature": "xy"}, "expected a signature in hex"),
        (SVM, ENTRY | {"recoveryId": 4}, "expected a recoveryId of 0 to 3, found 4"),
        (SVM, {"prices": [ENTRY] * 1_025}, "expected 1 to 1024 prices, found 1025"),
        (EVM, ENTRY | QUOTES | {"signature": "00" * 65}, "expected a signature that ends in 27 or 28, found 0"),
        (EVM, ENTRY | QUOTES | {"expo": 1}, "expected expo, negated, to fit uint31, found -1"),
        (EVM, ENTRY | QUOTES | {"price": -1}, "expected price to fit uint192, found -1"),
        (EVM, ENTRY | QUOTES | {"roundId": 2**32}, "expected roundId to fit uint32, found 4294967296"),
        (EVM, {"prices": [ENTRY], "signature": "00", "recoveryId": 1}, "expected a signature with each price"),
    ],
)
def test_what_is_no_message_is_refused(kind: Kind, data: bytes | dict[str, object], told: str) -> None:
    raw = data if isinstance(data, bytes) else msgspec.json.encode(data)
    with pytest.raises(DecodeError) as caught:
        decode(kind, raw)
    assert str(caught.value).startswith(f"{kind}: offset 0: {told}") and "\n" not in str(caught.value)


def test_the_encoding_for_contracts_is_read_in_its_one_form() -> None:
    (message,) = decode(EVM, SIGNER.evm(QUOTED))
    data = encode_abi(message)
    assert len(data) == 480 and decode(EVM, data) == (message,)
    passed = 0
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        try:
            passed += check(decode(EVM, bytes(flipped)), SIGNER.sets, mode=Mode.STRICT).verified
        except DecodeError:
            continue
    assert passed == 0


@pytest.mark.parametrize("kind", KINDS)
def test_nonsense_is_refused_cleanly(kind: Kind) -> None:
    chance = random.Random(20_261_121)
    whole = [SIGNER.batch([SOL, BTC]), SIGNER.each([SOL, BTC]), SIGNER.single(SOL), SIGNER.evm(QUOTED)]
    whole.append(encode_abi(decode(EVM, SIGNER.evm(QUOTED))[0]))
    decoded, told = 0, set()
    for _ in range(10_000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.choice((0, 0x22, 0x2C, 0x30, 0x7B, 0xFF, chance.randrange(256)))
        damaged = bytes(data) if chance.randrange(4) else bytes(data)[: chance.randrange(len(data))]
        try:
            messages = decode(kind, damaged)
        except DecodeError as error:
            told.add(str(error).partition(" offset ")[0])
            continue
        decoded += 1
        check(messages, SIGNER.sets, mode=Mode.STRICT)
        orjson.dumps(decode_signed(kind, damaged))
    assert decoded > 300 and told == {f"{kind}:"}
