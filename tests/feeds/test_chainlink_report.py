"""Data Streams reports: every vector to its values and signers, every bit of one, every schema, and nonsense."""

import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.chainlink.report import (
    ANY_DIGEST,
    KIND,
    PRICE_FIELD,
    SCHEMAS,
    Report,
    Signature,
    check,
    encode,
    encode_blob,
)
from feeds.chainlink.signers import KNOWN, PRODUCTION, STAGING
from feeds.emulator.report_signing import DonSigner
from feeds.signed import decode_signed
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Why
from oracle_hub.errors import DecodeError, PriceError

S = 1_000_000
NOW_S = 1_790_000_000
FEED = bytes.fromhex("0003b778d3f6b2ac4991302b89cb313f99a42467d6c9c5f96f57c29c0d2bc24f")
DON = DonSigner()
E18 = 10**18
QUOTE = {"price": 115 * E18, "bid": 114 * E18, "ask": 116 * E18}
ONE = DON.report(FEED, NOW_S, QUOTE)


def vectors(fixtures_dir: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    out = {}
    for path in sorted(fixtures_dir.glob("chainlink_ds_report_*.json")):
        vector = orjson.loads(path.read_bytes())
        out[path.stem] = (bytes.fromhex(vector["data"]["fullReport"].removeprefix("0x")), vector["expected"])
    return out


def test_every_vector_has_its_values(fixtures_dir: Path) -> None:
    versions = set()
    for name, (data, expected) in vectors(fixtures_dir).items():
        report = Report.decode(data)
        assert report.encode() == data, name
        fields = report.fields()
        versions.add(report.version)
        assert report.version == expected["schemaVersion"], name
        context = expected["reportContext"]
        assert report.context == bytes.fromhex(
            "".join(context[key][2:] for key in ("configDigest", "epochAndRound", "extraHash"))
        ), name
        assert (report.epoch, report.round) == (context["epoch"], context["round"]), name
        assert report.blob.hex() == expected["reportBlob"][2:], name
        assert [one.r_s[:32].hex() for one in report.signatures] == [text[2:] for text in expected["rawRs"]], name
        assert [one.r_s[32:].hex() for one in report.signatures] == [text[2:] for text in expected["rawSs"]], name
        assert report.digest().hex() == expected["signedHash"][2:], name
        for key, value in expected["fields"].items():
            assert str(fields[key]) == str(value), (name, key)
        assert fields["price"] == str(expected["fields"][PRICE_FIELD[report.version]]), name
        assert fields["publish_time_us"] == expected["fields"]["observationsTimestamp"] * S, name
    assert versions >= {3, 4, 9}


def test_every_vector_is_signed_by_its_signers(fixtures_dir: Path) -> None:
    for name, (data, expected) in vectors(fixtures_dir).items():
        keys = tuple(bytes.fromhex(text[2:]) for text in expected["recoveredSigners"])
        group = expected["reportContext"]["configDigest"][2:]
        configured = SignerSets([SignerSet(KIND, group, 0, keys, len(keys))])
        fields: dict[str, Any] = decode_signed(KIND, data, configured)
        assert (fields["verified"], fields["why"], fields["quorum_met"]) == (True, None, True), name
        assert [one["key"] for one in fields["signers"]] == [key.hex() for key in keys], name
        strict, lenient = (
            decode_signed(KIND, data, PRODUCTION),
            decode_signed(KIND, data, PRODUCTION, mode=Mode.LENIENT),
        )
        assert (strict["why"], lenient["verified"]) == ("signer_unproved", True), name
        by_testnet = decode_signed(KIND, data, STAGING)
        assert by_testnet["why"] == ("unknown_signer" if expected["network"] == "mainnet" else None), name


@pytest.mark.parametrize(
    "name", ["chainlink_ds_report_v4_0x0004b9905d_1748964317", "chainlink_ds_report_v3_arbusd_1722348998"]
)
def test_no_bit_can_be_flipped(fixtures_dir: Path, name: str) -> None:
    """Lenient, so that nothing but what was signed can be the reason."""
    data = bytearray(vectors(fixtures_dir)[name][0])
    assert check(Report.decode(bytes(data)), PRODUCTION, mode=Mode.LENIENT).verified
    passed = []
    for bit in range(len(data) * 8):
        data[bit >> 3] ^= 1 << (bit & 7)
        try:
            if check(Report.decode(bytes(data)), PRODUCTION, mode=Mode.LENIENT).verified:
                passed.append(bit >> 3)
        except DecodeError:
            pass
        data[bit >> 3] ^= 1 << (bit & 7)
    assert passed == []


def test_a_report_of_our_own_verifies_with_its_set_only() -> None:
    assert check(Report.decode(ONE), DON.sets).detail == f"signed by 2 of set {DON.digest.hex()}#0"
    verdict = check(Report.decode(ONE), SignerSets([]))
    assert verdict.why is Why.UNKNOWN_SET and [one.known for one in verdict.signers] == [False, False]
    assert check(Report.decode(ONE), KNOWN["staging"]).why is Why.UNKNOWN_SIGNER
    (keys,) = DON.sets
    anywhere = SignerSets([SignerSet(KIND, ANY_DIGEST, 0, keys.keys, 2)])
    assert check(Report.decode(ONE), anywhere).verified


@pytest.mark.parametrize(
    ("places", "why", "detail"),
    [
        ((0, 1), None, "signed by 2"),
        ((3, 1, 2), None, "signed by 3"),
        ((2,), Why.NO_QUORUM, "1 of 4 have signed, 2 are needed (f + 1)"),
        ((1, 1), Why.DUPLICATE_SIGNER, "an oracle has signed twice"),
        ((), Why.UNSIGNED, "the report has no signature"),
    ],
)
def test_who_has_signed(places: tuple[int, ...], why: Why | None, detail: str) -> None:
    blob = Report.decode(ONE).blob
    verdict = check(Report.decode(DON.signed(blob, 9, places)), DON.sets)
    assert verdict.why is why and verdict.detail.startswith(detail)


def test_a_stranger_among_the_signers_spoils_all() -> None:
    report = Report.decode(ONE)
    by_others = Report.decode(DonSigner(seed=1).signed(report.blob, 1))
    mixed = encode(report.context, report.blob, [*report.signatures, by_others.signatures[0]])
    verdict = check(Report.decode(mixed), DON.sets)
    assert verdict.why is Why.BAD_SIGNATURE and verdict.detail.startswith("signature 2 is by ")
    nobody = encode(report.context, report.blob, [report.signatures[0], Signature(bytes(64), 0)])
    verdict = check(Report.decode(nobody), DON.sets)
    assert verdict.why is Why.BAD_SIGNATURE and verdict.detail.startswith("signature 1 is by nobody, ")


def test_a_report_is_over_when_it_says_so_and_a_set_when_that_says_so() -> None:
    report = Report.decode(ONE)
    begin, end = NOW_S * S, (NOW_S + 30 * 86_400) * S
    at = {when: check(report, DON.sets, at_us=when).why for when in (begin - 1, begin, end, end + 1)}
    assert at == {begin - 1: Why.EARLY, begin: None, end: None, end + 1: Why.EXPIRED}
    (one,) = DON.sets
    limited = SignerSets([SignerSet(KIND, one.group, 0, one.keys, 2, NOW_S + 5, NOW_S + 9)])
    at = {when: check(report, limited, at_us=when * S).why for when in (NOW_S + 4, NOW_S + 5, NOW_S + 9)}
    assert at == {NOW_S + 4: Why.EARLY_SET, NOW_S + 5: None, NOW_S + 9: Why.EXPIRED_SET}
    assert check(report, limited).why is Why.EARLY_SET


def filled(version: int, chance: random.Random) -> dict[str, int | bytes]:
    """Random values of a schema within their forms."""
    values: dict[str, int | bytes] = {}
    for name, form in SCHEMAS[version]:
        bits = int(form[1:])
        raw = chance.randbytes(32)
        values[name] = (
            raw if form[0] == "b" else chance.getrandbits(bits) - ((1 << (bits - 1)) if form[0] == "i" else 0)
        )
    values["feedId"] = version.to_bytes(2, "big") + chance.randbytes(30)
    if version > 1:
        values["validFromTimestamp"] = min(int(values["validFromTimestamp"]), int(values["observationsTimestamp"]))
    return values


@pytest.mark.parametrize("version", SCHEMAS)
def test_every_schema_comes_back(version: int) -> None:
    chance = random.Random(version)
    for _ in range(50):
        values = filled(version, chance)
        report = Report.decode(DON.signed(encode_blob(version, values), 7, (0, 1)))
        assert (report.version, dict(report.values)) == (version, values)
        fields = report.fields()
        orjson.dumps(fields)
        assert fields["price"] == str(values[PRICE_FIELD[version]])
        assert fields["schema_version"] == version
    with pytest.raises(DecodeError, match=rf"offset 224: expected a blob of {len(SCHEMAS[version]) * 32} bytes"):
        Report.decode(DON.signed(encode_blob(version, values) + bytes(32), 7))


@given(st.integers(1, 2**80))
@settings(max_examples=60, deadline=None)
def test_prices_are_rounded_half_to_even(price: int) -> None:
    report = Report.decode(DON.report(FEED, NOW_S, {"price": price, "bid": price, "ask": price}))
    quotient, remainder = divmod(price, 10**10)
    expected = quotient + (remainder > 5 * 10**9 or (remainder == 5 * 10**9 and quotient % 2 == 1))
    if expected == 0:
        with pytest.raises(PriceError):
            report.mantissa(-8)
    elif expected < 2**63:
        assert report.mantissa(-8) == expected
    else:
        with pytest.raises(PriceError, match="does not fit int64"):
            report.mantissa(-8)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"price": 0, "bid": 1, "ask": 2}, "price 0e-18 is not positive"),
        ({"price": -5, "bid": 1, "ask": 2}, "price -5e-18 is not positive"),
        ({"price": E18, "bid": 0, "ask": E18}, f"bid 0 and ask {E18} are no market"),
        ({"price": E18, "bid": 2, "ask": 1}, "bid 2 and ask 1 are no market"),
    ],
)
def test_what_is_no_price_is_refused(values: dict[str, int], told: str) -> None:
    report = Report.decode(DON.report(FEED, NOW_S, values))
    with pytest.raises(PriceError) as caught:
        report.mantissa(-8)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("version", "values", "told"),
    [
        (4, {"price": 1, "marketStatus": 2}, None),
        (4, {"price": 1, "marketStatus": 1}, "market status is 1 (closed)"),
        (4, {"price": 1, "marketStatus": 0}, "market status is 0 (unknown)"),
        (8, {"midPrice": 1, "marketStatus": 1, "lastUpdateTimestamp": 1}, "market status is 1 (closed)"),
        (9, {"navPerShare": 1, "navDate": 1, "aum": 1, "ripcord": 1}, "the fund's data is halted (ripcord)"),
        (9, {"navPerShare": 1, "navDate": 1, "aum": 1, "ripcord": 0}, None),
        (7, {"exchangeRate": 1}, None),
    ],
)
def test_markets_that_are_closed(version: int, values: dict[str, int], told: str | None) -> None:
    report = Report.decode(DON.report(version.to_bytes(2, "big") + bytes(30), NOW_S, values))
    assert report.closed == told == report.fields()["closed"]


def changed(offset: int, raw: bytes) -> bytes:
    return ONE[:offset] + raw + ONE[offset + len(raw) :]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "offset 0: expected at least 384 bytes, found 0"),
        (ONE[:-1], "offset 0: expected whole words of 32 bytes and at most 8192, found 735 bytes"),
        (ONE + bytes(32), "offset 544: expected as many signatures as follow (at most 31), found 2"),
        (changed(127, b"\xc0"), "offset 127: expected the canonical encoding of a report"),
        (changed(192, b"\x02"), "offset 192: expected 0 or 1 in each place of rawVs"),
        (changed(223, b"\x01"), "offset 223: expected the canonical encoding of a report"),
        (
            changed(224, b"\xff"),
            "offset 224: expected the blob's length (whole words, within the report), found 115339",
        ),
        (changed(256, b"\x00\x0e"), "offset 256: expected a feed id of schema 1 to 13, found 14: 000e"),
        (changed(256, b"\x00\x04"), "offset 224: expected a blob of 256 bytes for schema 4, found 288"),
        (changed(288, b"\x01"), "offset 288: expected validFromTimestamp to fit uint32, found 01"),
        (changed(448, b"\x01"), "offset 448: expected price to fit int192, found 01"),
        (changed(319, b"\xff"), "offset 288: valid from 1790000127, after the observation at 1790000000"),
        (changed(32, b"\x01"), "offset 32: expected an epoch and round of 40 bits"),
        (b"{", "offset 0: expected the API's JSON of a report: Input data was truncated"),
        (b'{"feedID": 5}', "offset 0: expected the API's JSON of a report: "),
        (b'{"fullReport": "0xzz"}', "offset 0: expected the API's JSON of a report: non-hexadecimal"),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Report.decode(data)
    assert str(caught.value).startswith(f"{KIND}: {told}") and "\n" not in str(caught.value)


def test_the_api_wraps_reports_in_json() -> None:
    inner: dict[str, object] = {
        "feedID": "0x" + FEED.hex(),
        "fullReport": "0x" + ONE.hex(),
        "validFromTimestamp": NOW_S,
        "observationsTimestamp": NOW_S,
    }
    assert Report.decode(orjson.dumps({"report": inner})) == Report.decode(orjson.dumps(inner)) == Report.decode(ONE)
    for short in ({"feedID": inner["feedID"]}, {"feedID": FEED.hex().upper()}, {}):
        assert Report.decode(orjson.dumps(short | {"fullReport": inner["fullReport"]})) == Report.decode(ONE)
    assert Report.decode(orjson.dumps({"reports": [inner]})) == Report.decode(ONE)
    for name, value in (("feedID", "0x00"), ("validFromTimestamp", 5), ("observationsTimestamp", 5)):
        with pytest.raises(DecodeError, match=f"offset 0: {name} .* is not that of the report"):
            Report.decode(orjson.dumps(inner | {name: value}))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"reports": []}, "expected an answer with one report, found 0: give them one by one"),
        (
            {"reports": [{"fullReport": "0x00"}] * 2},
            "expected an answer with one report, found 2: give them one by one",
        ),
        (
            {"error": "unauthorized"},
            "expected the API's JSON of a report: an object with report, reports or fullReport",
        ),
        (
            {"report": {"fullReport": "0x00", "validFromTimestamp": "5"}},
            "expected the API's JSON of a report: Expected `int | null`, got `str` - at `$.report.validFromTimestamp`",
        ),
    ],
)
def test_an_answer_without_one_report_says_what_is_wrong(answer: dict[str, object], told: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Report.decode(orjson.dumps(answer))
    assert str(caught.value) == f"{KIND}: offset 0: {told}"


def test_nonsense_is_refused_cleanly() -> None:
    chance = random.Random(20_261_121)
    decoded, told = 0, set()
    for _ in range(20_000):
        data = bytearray(ONE)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        damaged = bytes(data) if chance.randrange(4) else bytes(data)[: chance.randrange(len(data))]
        if chance.randrange(10) == 0:
            damaged = chance.randbytes(chance.randrange(64) * 32)
        try:
            report = Report.decode(damaged)
        except DecodeError as error:
            told.add(str(error).partition(" offset ")[0])
            continue
        decoded += 1
        assert report.encode() == damaged
        check(report, DON.sets)
    assert decoded > 1_000 and told == {f"{KIND}:"}
