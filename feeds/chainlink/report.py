"""Chainlink Data Streams: the full report, its schemas, and the signatures of the DON that made it.

Source: data-streams-sdk (Go and Rust report packages) and Chainlink's verifier contracts. A full report is the ABI
encoding of ``(bytes32[3] reportContext, bytes reportBlob, bytes32[] rawRs, bytes32[] rawSs, bytes32 rawVs)``. The blob
is static: field *n* is word *n*, and its first word, the feed id, begins with the schema's version. Only the canonical
encoding is read, so that every byte of a report either is signed or can't be another.

Each oracle signs ``keccak256(keccak256(reportBlob) ‖ reportContext)`` with secp256k1. The context's first word, the
config digest, names the DON's configuration: which oracles may sign, and that f + 1 of them are needed.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

import msgspec

from feeds.layout import json_value
from feeds.signatures import keccak256, recover
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Signer, Verdict, Why
from oracle_hub.core.price import rescale
from oracle_hub.errors import DecodeError, PriceError

KIND = "chainlink.report"
EXPO = -18
"""Every price of every schema has 18 decimals."""
ANY_DIGEST = "*"
"""Group of a signer set whose keys may sign under any config digest: the digest is signed, too."""
MAX_BYTES = 8_192
"""A report of the longest schema with all 31 oracles' signatures is some 3 KB."""
MAX_SIGNATURES = 31
_WORD = 32
_SECOND_US = 1_000_000

_HEAD = "feedId:b32 validFromTimestamp:u32 observationsTimestamp:u32 nativeFee:u192 linkFee:u192 expiresAt:u32 "
_TEXTS = {
    1: "feedId:b32 observationsTimestamp:u32 benchmarkPrice:i192 bid:i192 ask:i192 currentBlockNum:u64 "
    "currentBlockHash:b32 validFromBlockNum:u64 currentBlockTimestamp:u64",
    2: _HEAD + "price:i192",
    3: _HEAD + "price:i192 bid:i192 ask:i192",
    4: _HEAD + "price:i192 marketStatus:u32",
    5: _HEAD + "rate:i192 timestamp:u32 duration:u32",
    6: _HEAD + "price:i192 price2:i192 price3:i192 price4:i192 price5:i192",
    7: _HEAD + "exchangeRate:i192",
    8: _HEAD + "lastUpdateTimestamp:u64 midPrice:i192 marketStatus:u32",
    9: _HEAD + "navPerShare:i192 navDate:u64 aum:i192 ripcord:u32",
    10: _HEAD + "lastUpdateTimestamp:u64 price:i192 marketStatus:u32 currentMultiplier:i192 newMultiplier:i192 "
    "activationDateTime:u32 tokenizedPrice:i192",
    11: _HEAD + "mid:i192 lastSeenTimestampNs:u64 bid:i192 bidVolume:i192 ask:i192 askVolume:i192 "
    "lastTradedPrice:i192 marketStatus:u32",
    12: _HEAD + "navPerShare:i192 nextNavPerShare:i192 navDate:u64 ripcord:u32",
    13: _HEAD + "bestAsk:i192 bestBid:i192 askVolume:u64 bidVolume:u64 lastTradedPrice:i192",
}
SCHEMAS: Mapping[int, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        version: tuple((name, form) for name, _, form in (field.partition(":") for field in text.split()))
        for version, text in _TEXTS.items()
    }
)
"""By version: name and form of each word; ``i`` is signed, ``u`` unsigned with so many bits, ``b32`` is bytes."""
PRICE_FIELD: Mapping[int, str] = MappingProxyType(
    {
        1: "benchmarkPrice",
        2: "price",
        3: "price",
        4: "price",
        5: "rate",
        6: "price",
        7: "exchangeRate",
        8: "midPrice",
        9: "navPerShare",
        10: "price",
        11: "mid",
        12: "navPerShare",
        13: "lastTradedPrice",
    }
)
"""The field that is the schema's price."""
_OPEN_STATUS = {4: (2,), 8: (2,), 10: (2,), 11: (1, 2, 3, 4)}
"""Market statuses in which there is trading: 0 is unknown; closed is 1, for version 11 it is 5."""
_STATUS_NAMES = {0: "unknown"}


class Signature(msgspec.Struct, frozen=True, gc=False):
    """One oracle's signature: r and s (64 bytes), and 0 or 1."""

    r_s: bytes
    recovery_id: int


class Report(msgspec.Struct, frozen=True):
    """A full report. ``values`` are the blob's words by the names of its schema."""

    context: bytes
    """96 bytes: config digest, epoch and round, and a hash of the rest."""
    blob: bytes
    signatures: tuple[Signature, ...]
    version: int
    values: Mapping[str, int | bytes]

    @classmethod
    def decode(cls, data: bytes) -> "Report":
        """Read a full report, or the JSON that the API wraps around it (whose other fields must then agree).

        Raises:
            DecodeError: not the canonical encoding of a report, an unknown schema, a value out of its range, or times
                that go backwards.
        """
        if data[:1] == b"{":
            return _unwrapped(data)
        return _decoded(data)

    @property
    def feed_id(self) -> bytes:
        """32 bytes, of which the first two are the schema's version."""
        return self.blob[:_WORD]

    @property
    def config_digest(self) -> str:
        """Which configuration of the DON has signed, in hex."""
        return self.context[:_WORD].hex()

    @property
    def epoch(self) -> int:
        """Counts the DON's leaders."""
        return int.from_bytes(self.context[_WORD : 2 * _WORD], "big") >> 8

    @property
    def round(self) -> int:
        """Counts within an epoch."""
        return self.context[2 * _WORD - 1]

    @property
    def price(self) -> int:
        """The schema's price, signed, with 18 decimals."""
        return self.number(PRICE_FIELD[self.version])

    @property
    def publish_us(self) -> int:
        """When the oracles observed, to the second."""
        return self.number("observationsTimestamp") * _SECOND_US

    @property
    def valid_from_s(self) -> int:
        """First unix second that the report is for."""
        first = "observationsTimestamp" if self.version == 1 else "validFromTimestamp"
        return self.number(first)

    @property
    def expires_s(self) -> int | None:
        """Last unix second in which it can be verified on chain: a day to a month later. No measure of freshness."""
        return None if self.version == 1 else self.number("expiresAt")

    @property
    def closed(self) -> str | None:
        """Why there is no trading, in words; None when there is, or when the schema does not say."""
        if self.values.get("ripcord"):
            return "the fund's data is halted (ripcord)"
        if "marketStatus" not in self.values:
            return None
        status = self.number("marketStatus")
        if status in _OPEN_STATUS[self.version]:
            return None
        return f"market status is {status} ({_STATUS_NAMES.get(status, 'closed')})"

    def number(self, name: str) -> int:
        """A field that is a number.

        Raises:
            KeyError: the schema has no such field.
        """
        value = self.values[name]
        assert isinstance(value, int)
        return value

    def mantissa(self, expo: int) -> int:
        """The price at a feed's exponent, rounded half to even.

        Raises:
            PriceError: not positive, crossed (bid above ask, or either not positive), or beyond int64.
        """
        quotes = {1: ("bid", "ask"), 3: ("bid", "ask"), 11: ("bid", "ask"), 13: ("bestBid", "bestAsk")}.get(
            self.version
        )
        if quotes is not None:
            bid, ask = map(self.number, quotes)
            if not 0 < bid <= ask:
                raise PriceError(f"bid {bid} and ask {ask} are no market")
        return rescale(self.price, EXPO, expo)

    def digest(self) -> bytes:
        """The 32 bytes that the oracles signed."""
        return keccak256(keccak256(self.blob) + self.context)

    def encode(self) -> bytes:
        """The full report, byte for byte."""
        return encode(self.context, self.blob, self.signatures)

    def fields(self) -> dict[str, object]:
        """Everything, ready for JSON: the common keys, then the blob's fields under their own names, ids with 0x."""
        own = {
            name: "0x" + value.hex() if isinstance(value, bytes) else json_value(value)
            for name, value in self.values.items()
        }
        expires_s = self.expires_s
        head = {
            "kind": KIND,
            "price": str(self.price),
            "expo": EXPO,
            "publish_time_us": self.publish_us,
            "feed_id": self.feed_id.hex(),
            "schema_version": self.version,
            "valid_from_us": self.valid_from_s * _SECOND_US,
            "expires_us": None if expires_s is None else expires_s * _SECOND_US,
            "closed": self.closed,
            "config_digest": self.config_digest,
            "epoch": self.epoch,
            "round": self.round,
            "extra_hash": self.context[2 * _WORD :].hex(),
            "signatures": len(self.signatures),
        }
        own |= {name: str(own[name]) for name, form in SCHEMAS[self.version] if form.endswith("192")}
        return head | {name: value for name, value in own.items() if name not in head}


def encode(context: bytes, blob: bytes, signatures: Sequence[Signature]) -> bytes:
    """A full report of a context (96 bytes), a blob of whole words, and at most 31 signatures."""
    count = len(signatures)
    at_rs = 7 * _WORD + _WORD + len(blob)
    at_ss = at_rs + _WORD + count * _WORD
    offsets = b"".join(number.to_bytes(_WORD, "big") for number in (7 * _WORD, at_rs, at_ss))
    recovery_ids = bytes(one.recovery_id for one in signatures).ljust(_WORD, b"\0")
    length, how_many = len(blob).to_bytes(_WORD, "big"), count.to_bytes(_WORD, "big")
    rs, ss = (b"".join(one.r_s[at : at + _WORD] for one in signatures) for at in (0, _WORD))
    return context + offsets + recovery_ids + length + blob + how_many + rs + how_many + ss


def encode_blob(version: int, values: Mapping[str, int | bytes]) -> bytes:
    """A blob of a schema's values."""
    words = (values[name] for name, _ in SCHEMAS[version])
    return b"".join(word if isinstance(word, bytes) else word.to_bytes(_WORD, "big", signed=word < 0) for word in words)


def check(report: Report, sets: SignerSets, *, at_us: int | None = None, mode: Mode = Mode.STRICT) -> Verdict:
    """Check a report against the signer sets of DONs.

    Args:
        report: the decoded report.
        sets: who may sign; the group is the config digest in hex, or :data:`ANY_DIGEST`.
        at_us: when the set has to be in force, and the report not over: the time of the check, live. Absent: when the
            oracles observed.
        mode: how strict.
    """
    return in_force(report, *unaged(report, sets), report.publish_us if at_us is None else at_us, mode)


def unaged(report: Report, sets: SignerSets) -> tuple[Verdict, SignerSet | None]:
    """The part of :func:`check` that no time can change, so that it may be remembered; and the set that signed."""
    if not report.signatures:
        return Verdict(Why.UNSIGNED, "the report has no signature", set_name=report.config_digest), None
    candidates = sets.of_group(KIND, report.config_digest) + sets.of_group(KIND, ANY_DIGEST)
    digest = report.digest()
    keys = [recover(digest, one.r_s, one.recovery_id) for one in report.signatures]
    if not candidates:
        text = f"no signers are known for config digest {report.config_digest}"
        strangers = tuple(Signer(key, known=False) for key in keys)
        return Verdict(Why.UNKNOWN_SET, text, set_name=report.config_digest, signers=strangers), None
    signer_set = max(candidates, key=lambda one: sum(key in one.keys for key in keys))
    signers = tuple(
        Signer(key, known=key in signer_set.keys, index=signer_set.keys.index(key) if key in signer_set.keys else None)
        for key in keys
    )
    why, detail = _judge_signers(signers, signer_set)
    until_us = None if signer_set.until_s is None else signer_set.until_s * _SECOND_US
    return Verdict(why, detail, None, signer_set.name, until_us, signer_set.quorum, signers), signer_set


def in_force(
    report: Report, verdict: Verdict, signer_set: SignerSet | None, at_us: int, mode: Mode = Mode.STRICT
) -> Verdict:
    """A verdict of :func:`unaged` at a time: the set must be in force, and the report not over."""
    if signer_set is None:
        return verdict
    why, detail = verdict.why, verdict.detail
    if why is None:
        why, detail = _judge_times(report, signer_set, at_us, mode) or (None, detail)
    return msgspec.structs.replace(verdict, why=why, detail=detail, judged_at_us=at_us)


def _judge_signers(signers: Sequence[Signer], signer_set: SignerSet) -> tuple[Why | None, str]:
    """As on chain, one signature that is nobody's of the set spoils the report."""
    wrong = [place for place, one in enumerate(signers) if not one.known]
    if wrong:
        stranger = signers[wrong[0]].key
        made_by = "nobody" if stranger is None else stranger.hex()
        if len(wrong) < len(signers):
            return Why.BAD_SIGNATURE, f"signature {wrong[0]} is by {made_by}, who is not of set {signer_set.name}"
        text = f"signature 0 is by {made_by}, and none by set {signer_set.name}: changed, or signed by others"
        return Why.UNKNOWN_SIGNER, text
    keys = [one.key for one in signers]
    if len(set(keys)) < len(keys):
        return Why.DUPLICATE_SIGNER, "an oracle has signed twice"
    if len(keys) < signer_set.quorum:
        text = f"{len(keys)} of {len(signer_set.keys)} have signed, {signer_set.quorum} are needed (f + 1)"
        return Why.NO_QUORUM, text
    return None, f"signed by {len(keys)} of set {signer_set.name}"


def _judge_times(report: Report, signer_set: SignerSet, at_us: int, mode: Mode) -> tuple[Why, str] | None:
    if not signer_set.proved and mode is Mode.STRICT:
        return Why.SIGNER_UNPROVED, f"nobody vouches for set {signer_set.name}: it was seen in public data and no more"
    if at_us < signer_set.from_s * _SECOND_US:
        return Why.EARLY_SET, f"set {signer_set.name} begins at unix second {signer_set.from_s}"
    if signer_set.until_s is not None and at_us >= signer_set.until_s * _SECOND_US:
        return Why.EXPIRED_SET, f"set {signer_set.name} ended at unix second {signer_set.until_s}"
    if at_us < report.valid_from_s * _SECOND_US:
        return Why.EARLY, f"the report is valid from unix second {report.valid_from_s}"
    expires_s = report.expires_s
    if expires_s is not None and at_us > expires_s * _SECOND_US:
        return Why.EXPIRED, f"the report expired at unix second {expires_s}"
    return None


def _refuse(offset: int, text: str) -> NoReturn:
    raise DecodeError(f"{KIND}: offset {offset}: {text}")


def _decoded(data: bytes) -> Report:
    if len(data) < 12 * _WORD:
        _refuse(len(data), f"expected at least {12 * _WORD} bytes, found {len(data)}")
    if len(data) > MAX_BYTES or len(data) % _WORD:
        _refuse(0, f"expected whole words of 32 bytes and at most {MAX_BYTES}, found {len(data)} bytes")
    size = _word(data, 7)
    if size % _WORD or not 0 < size <= len(data) - 10 * _WORD:
        _refuse(7 * _WORD, f"expected the blob's length (whole words, within the report), found {size}")
    at_rs = 8 + size // _WORD
    count = _word(data, at_rs)
    if count > MAX_SIGNATURES or len(data) != (at_rs + 2 + 2 * count) * _WORD:
        _refuse(at_rs * _WORD, f"expected as many signatures as follow (at most {MAX_SIGNATURES}), found {count}")
    recovery_ids = data[6 * _WORD : 7 * _WORD]
    if any(one > 1 for one in recovery_ids):
        _refuse(6 * _WORD, "expected 0 or 1 in each place of rawVs")
    signatures = tuple(
        Signature(_bytes_at(data, at_rs + 1 + place) + _bytes_at(data, at_rs + 2 + count + place), recovery_ids[place])
        for place in range(count)
    )
    context, blob = data[: 3 * _WORD], data[8 * _WORD : at_rs * _WORD]
    canonical = encode(context, blob, signatures)
    if canonical != data:
        offset = next(place for place, pair in enumerate(zip(canonical, data, strict=True)) if pair[0] != pair[1])
        _refuse(offset, "expected the canonical encoding of a report")
    version, values = _values(blob)
    report = Report(context, blob, signatures, version, values)
    if report.valid_from_s * _SECOND_US > report.publish_us:
        _refuse(
            9 * _WORD, f"valid from {report.valid_from_s}, after the observation at {report.publish_us // _SECOND_US}"
        )
    if any(context[_WORD : 2 * _WORD - 5]):
        _refuse(_WORD, "expected an epoch and round of 40 bits")
    return report


def _word(data: bytes, index: int) -> int:
    return int.from_bytes(_bytes_at(data, index), "big")


def _bytes_at(data: bytes, index: int) -> bytes:
    return data[index * _WORD : (index + 1) * _WORD]


def _values(blob: bytes) -> tuple[int, dict[str, int | bytes]]:
    version = int.from_bytes(blob[:2], "big")
    schema = SCHEMAS.get(version)
    if schema is None:
        _refuse(8 * _WORD, f"expected a feed id of schema 1 to {max(SCHEMAS)}, found {version}: {blob[:_WORD].hex()}")
    if len(blob) != len(schema) * _WORD:
        _refuse(7 * _WORD, f"expected a blob of {len(schema) * _WORD} bytes for schema {version}, found {len(blob)}")
    values: dict[str, int | bytes] = {}
    for index, (name, form) in enumerate(schema):
        raw = _bytes_at(blob, index)
        bits = int(form[1:])
        if form[0] == "b":
            values[name] = raw
            continue
        value = int.from_bytes(raw, "big", signed=form[0] == "i")
        low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if form[0] == "i" else (0, 1 << bits)
        if not low <= value < high:
            _refuse((8 + index) * _WORD, f"expected {name} to fit {'u' * (form[0] == 'u')}int{bits}, found {raw.hex()}")
        values[name] = value
    return version, values


class _Wrapped(msgspec.Struct):
    fullReport: str
    feedID: str | None = None
    validFromTimestamp: int | None = None
    observationsTimestamp: int | None = None


class _Answer(msgspec.Struct):
    """What the API answers: one report, a list of them, or (in the documentation's examples) a report's own fields."""

    report: _Wrapped | None = None
    reports: list[_Wrapped] | None = None
    fullReport: str | None = None
    feedID: str | None = None
    validFromTimestamp: int | None = None
    observationsTimestamp: int | None = None

    def alone(self) -> _Wrapped:
        """The only report in it."""
        if self.report is not None:
            return self.report
        if self.reports is not None:
            if len(self.reports) != 1:
                _refuse(0, f"expected an answer with one report, found {len(self.reports)}: give them one by one")
            return self.reports[0]
        if self.fullReport is None:
            _refuse(0, "expected the API's JSON of a report: an object with report, reports or fullReport")
        return _Wrapped(self.fullReport, self.feedID, self.validFromTimestamp, self.observationsTimestamp)


def _unwrapped(data: bytes) -> Report:
    try:
        wrapped = msgspec.json.decode(data, type=_Answer).alone()
        raw = bytes.fromhex(wrapped.fullReport.removeprefix("0x"))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _refuse(0, f"expected the API's JSON of a report: {' '.join(str(error).split())[:200]}")
    report = _decoded(raw)
    if wrapped.feedID is not None and wrapped.feedID.lower().removeprefix("0x") != report.feed_id.hex():
        _refuse(0, f"feedID {wrapped.feedID[:80]} is not that of the report, 0x{report.feed_id.hex()}")
    for name, told in (
        ("validFromTimestamp", wrapped.validFromTimestamp),
        ("observationsTimestamp", wrapped.observationsTimestamp),
    ):
        if told is not None and report.values.get(name, told) != told:
            _refuse(0, f"{name} {told} is not that of the report, {report.number(name)}")
    return report
