"""Pyth Pro (Lazer): signed payloads, parsed from the signed bytes rather than from the JSON beside them.

Source: pyth-crosschain's ``lazer`` SDKs and contracts. A payload is wrapped for where it shall be checked: for Solana
with an ed25519 signature and its key, for EVM and for other chains (``leEcdsa``) with a recoverable secp256k1 signature
over the payload's keccak, or not at all. The EVM form is big endian, the others are little endian. A property of a feed
that has no value is zero, or marked as absent: both read as None here.

``feedUpdateTimestamp`` is the time of a price: the payload's own time moves on while a price is carried forward.
"""

import struct
from collections.abc import Sequence
from typing import Literal, NoReturn, TypeAlias

import msgspec

from feeds.layout import json_value
from feeds.pyth.signers import ED25519, LAZER, SECP256K1
from feeds.signatures import ed25519_holds, keccak256, recover
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Signer, Verdict, Why
from oracle_hub.errors import DecodeError

KIND = LAZER
PAYLOAD_MAGIC = 2_479_346_549
SOLANA_MAGIC = 2_182_742_457
EVM_MAGIC = 2_593_727_018
LE_ECDSA_MAGIC = 1_296_547_300
LE_UNSIGNED_MAGIC = 1_499_680_012
CHANNELS = {1: "real_time", 2: "fixed_rate@50ms", 3: "fixed_rate@200ms", 4: "fixed_rate@1000ms"}
SESSIONS = {0: "regular", 1: "pre_market", 2: "post_market", 3: "over_night", 4: "closed"}
Format: TypeAlias = Literal["solana", "evm", "leEcdsa", "leUnsigned", "payload"]
_PROPERTIES: dict[int, tuple[str, str]] = {
    0: ("price", "q"),
    1: ("best_bid_price", "q"),
    2: ("best_ask_price", "q"),
    3: ("publisher_count", "H"),
    4: ("exponent", "h"),
    5: ("confidence", "q"),
    6: ("funding_rate", "?q"),
    7: ("funding_timestamp", "?Q"),
    8: ("funding_rate_interval", "?Q"),
    9: ("market_session", "h"),
    10: ("ema_price", "q"),
    11: ("ema_confidence", "q"),
    12: ("feed_update_timestamp", "?Q"),
}
"""By id: name and form; a question mark is a byte that says whether a value follows."""
_NUMBERS = {name: (number, form) for number, (name, form) in _PROPERTIES.items()}
_ZERO_IS_NONE = frozenset({"price", "best_bid_price", "best_ask_price", "confidence", "ema_price", "ema_confidence"})


class LazerFeed(msgspec.Struct, frozen=True, gc=False):
    """One feed of a payload. Prices are at ``exponent``; times and intervals are in microseconds."""

    feed_id: int
    properties: tuple[str, ...]
    """Names of those that the payload holds, with or without a value, in its order."""
    price: int | None = None
    best_bid_price: int | None = None
    best_ask_price: int | None = None
    publisher_count: int | None = None
    exponent: int | None = None
    confidence: int | None = None
    funding_rate: int | None = None
    funding_timestamp: int | None = None
    funding_rate_interval: int | None = None
    market_session: int | None = None
    ema_price: int | None = None
    ema_confidence: int | None = None
    feed_update_timestamp: int | None = None
    """When the price was last made anew; the time that counts."""

    def fields(self) -> dict[str, object]:
        """What the payload holds, ready for JSON."""
        values = {name: getattr(self, name) for name in self.properties}
        out: dict[str, object] = {"feed_id": self.feed_id}
        for name, value in values.items():
            as_text = value is not None and (name in _ZERO_IS_NONE or name == "funding_rate")
            out[name] = str(value) if as_text else json_value(value)
        if "feed_update_timestamp" in values:
            out["publish_time_us"] = json_value(self.feed_update_timestamp)
        if self.market_session in SESSIONS:
            out["market_session_name"] = SESSIONS[self.market_session]
        return out


class Lazer(msgspec.Struct, frozen=True):
    """A message: what signed it, and the payload."""

    format: Format
    payload: bytes
    """The bytes that were signed."""
    timestamp_us: int
    channel: int
    feeds: tuple[LazerFeed, ...]
    signature: bytes = b""
    """64 bytes: ed25519, or r and s."""
    public_key: bytes = b""
    """Of a message for Solana."""
    recovery_id: int = 0
    trailing_bytes: int = 0

    @classmethod
    def decode(cls, data: bytes) -> "Lazer":
        """Read a message of any format, or a bare payload.

        Raises:
            DecodeError: foreign or cut bytes, or a property of an unknown number.
        """
        return _envelope(data)

    def fields(self) -> dict[str, object]:
        """Everything, ready for JSON. A single feed has a price's keys at the top as well."""
        feeds = [feed.fields() for feed in self.feeds]
        headline: dict[str, object] = {}
        if len(self.feeds) == 1:
            feed = self.feeds[0]
            headline = {
                "price": None if feed.price is None else str(feed.price),
                "expo": feed.exponent,
                "publish_time_us": json_value(feed.feed_update_timestamp),
                "conf": None if feed.confidence is None else str(feed.confidence),
                "feed_id": feed.feed_id,
            }
        return {
            "kind": KIND,
            **headline,
            "format": self.format,
            "timestamp_us": json_value(self.timestamp_us),
            "channel": self.channel,
            "channel_name": CHANNELS.get(self.channel),
            "feeds": feeds,
            "public_key": self.public_key.hex() or None,
            "trailing_bytes": self.trailing_bytes,
        }


def _refuse(offset: int, text: str) -> NoReturn:
    raise DecodeError(f"{KIND}: offset {offset}: {text}")


def _unpack(form: str, data: bytes, at: int, what: str) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, data, at)
    except struct.error:
        return _refuse(len(data), f"expected {what} ({struct.calcsize(form)} bytes from offset {at})")


def _envelope(data: bytes) -> Lazer:
    magic = int.from_bytes(data[:4], "little")
    signature, public_key, recovery_id, order = b"", b"", 0, "<"
    known: Format
    match magic:
        case _ if len(data) < 4:
            _refuse(len(data), f"expected a magic number of 4 bytes, found {len(data)} bytes")
        case magic if magic == PAYLOAD_MAGIC:
            return _payload("payload", data, 0, len(data), "<")
        case magic if magic == SOLANA_MAGIC:
            known, signature, public_key, at = "solana", data[4:68], data[68:100], 100
        case magic if magic == EVM_MAGIC:
            known, signature, at, order = "evm", data[4:68], 69, ">"
        case magic if magic == LE_ECDSA_MAGIC:
            known, signature, at = "leEcdsa", data[4:68], 69
        case magic if magic == LE_UNSIGNED_MAGIC:
            known, at = "leUnsigned", 4
        case _:
            _refuse(0, f"expected the magic number of a Lazer message or payload, found {data[:4].hex()}")
    (size,) = _unpack(order + "H", data, at, "signature and length of the payload")
    if known in ("evm", "leEcdsa"):
        recovery_id = data[68]
    start = at + 2
    if len(data) < start + size:
        _refuse(len(data), f"expected a payload of {size} bytes from offset {start}")
    message = _payload(known, data[: start + size], start, len(data), order)
    return msgspec.structs.replace(message, signature=signature, public_key=public_key, recovery_id=recovery_id)


def _payload(known: Format, data: bytes, start: int, whole: int, order: str) -> Lazer:
    """Read the payload between ``start`` and the end of ``data``; the message has ``whole`` bytes."""
    magic, timestamp_us, channel, count = _unpack(order + "IQBB", data, start, "head of the payload")
    if magic != PAYLOAD_MAGIC:
        _refuse(start, f"expected a payload ({PAYLOAD_MAGIC:08x}), found {magic:08x}")
    at = start + 14
    feeds = []
    for _ in range(count):
        feed, at = _feed(data, at, order)
        feeds.append(feed)
    if known != "payload" and at != len(data):
        _refuse(at, f"expected the payload's end, found {len(data) - at} bytes more")
    payload = data[start:at]
    return Lazer(known, payload, timestamp_us, channel, tuple(feeds), trailing_bytes=whole - at)


def _feed(data: bytes, at: int, order: str) -> tuple[LazerFeed, int]:
    feed_id, count = _unpack(order + "IB", data, at, "feed")
    at += 5
    values: dict[str, int | None] = {}
    for _ in range(count):
        (number,) = _unpack("B", data, at, "property")
        if number not in _PROPERTIES:
            _refuse(at, f"expected a property of 0 to {max(_PROPERTIES)}, found {number}")
        name, form = _PROPERTIES[number]
        if name in values:
            _refuse(at, f"property {name} is there twice")
        at += 1
        if form[0] == "?":
            (flag,) = _unpack("B", data, at, f"presence of {name}")
            if flag > 1:
                _refuse(at, f"expected 0 or 1 for the presence of {name}, found {flag}")
            at += 1
            form = form[1:]
            if not flag:
                values[name] = None
                continue
        (value,) = _unpack(order + form, data, at, name)
        at += struct.calcsize(order + form)
        values[name] = None if value == 0 and name in _ZERO_IS_NONE else value
    return LazerFeed(feed_id, tuple(values), **values), at


def encode_payload(timestamp_us: int, channel: int, feeds: Sequence[LazerFeed], *, big_endian: bool = False) -> bytes:
    """A payload as it is signed: of each feed the properties that it lists, in that order.

    Args:
        timestamp_us: when it is said.
        channel: one of :data:`CHANNELS`.
        feeds: at most 255.
        big_endian: for EVM.
    """
    order = ">" if big_endian else "<"
    out = bytearray(struct.pack(order + "IQBB", PAYLOAD_MAGIC, timestamp_us, channel, len(feeds)))
    for feed in feeds:
        out += struct.pack(order + "IB", feed.feed_id, len(feed.properties))
        for name in feed.properties:
            number, form = _NUMBERS[name]
            value = getattr(feed, name)
            out.append(number)
            if form[0] == "?":
                out.append(value is not None)
                form = form[1:] if value is not None else ""
            out += struct.pack(order + form, *([value or 0] if form else []))
    return bytes(out)


def encode(message: Lazer) -> bytes:
    """The message around its payload, as it goes over the wire."""
    size = len(message.payload)
    match message.format:
        case "solana":
            head = SOLANA_MAGIC.to_bytes(4, "little") + message.signature + message.public_key
        case "evm":
            head = EVM_MAGIC.to_bytes(4, "little") + message.signature + bytes((message.recovery_id,))
        case "leEcdsa":
            head = LE_ECDSA_MAGIC.to_bytes(4, "little") + message.signature + bytes((message.recovery_id,))
        case "leUnsigned":
            head = LE_UNSIGNED_MAGIC.to_bytes(4, "little")
        case "payload":
            return message.payload
    return head + size.to_bytes(2, "big" if message.format == "evm" else "little") + message.payload


def check(message: Lazer, sets: SignerSets, *, at_us: int | None = None, mode: Mode = Mode.STRICT) -> Verdict:
    """Check a message against the keys that may sign; arguments as in :func:`feeds.pyth.accumulator.check`."""
    return in_force(message, *unaged(message, sets), message.timestamp_us if at_us is None else at_us, mode)


def unaged(message: Lazer, sets: SignerSets) -> tuple[Verdict, SignerSet | None]:
    """The part of :func:`check` that no time can change, so that it may be remembered; and the set that signed."""
    if message.format in ("leUnsigned", "payload"):
        return Verdict(Why.UNSIGNED, f"a message of format {message.format} holds no signature", quorum=1), None
    if message.format == "solana":
        key: bytes | None = message.public_key
        group, name = ED25519, "public key"
        holds = ed25519_holds(message.public_key, message.signature, message.payload)
    else:
        key = recover(keccak256(message.payload), message.signature, message.recovery_id)
        group, name, holds = SECP256K1, "address", key is not None
    if key is None or not holds:
        text = "the signature is not one of the key beside it" if key else "nobody can have made the signature"
        return Verdict(Why.BAD_SIGNATURE, text, quorum=1, signers=(Signer(key, known=False),)), None
    signer_set = next((one for one in sets.of_group(KIND, group) if key in one.keys), None)
    if signer_set is None:
        text = f"signed by {name} {key.hex()}, which is not a known signer"
        return Verdict(Why.UNKNOWN_SIGNER, text, quorum=1, signers=(Signer(key, known=False),)), None
    until_us = None if signer_set.until_s is None else signer_set.until_s * 1_000_000
    return Verdict(None, "", None, signer_set.name, until_us, 1, (Signer(key, known=True),)), signer_set


def in_force(
    message: Lazer, verdict: Verdict, signer_set: SignerSet | None, at_us: int, mode: Mode = Mode.STRICT
) -> Verdict:
    """A verdict of :func:`unaged` at a time (us): the key must be in force then, and vouched for."""
    if signer_set is None:
        return verdict
    why, detail = _judge(message, signer_set, at_us, mode)
    return msgspec.structs.replace(verdict, why=why, detail=detail, judged_at_us=at_us)


def _judge(message: Lazer, signer_set: SignerSet, at_us: int, mode: Mode) -> tuple[Why | None, str]:
    name = f"{signer_set.name} of {KIND}"
    if not signer_set.proved and mode is Mode.STRICT:
        return Why.SIGNER_UNPROVED, f"nobody vouches for {name}: it was seen in public data and no more"
    if at_us < signer_set.from_s * 1_000_000:
        return Why.EARLY_SET, f"{name} begins at unix second {signer_set.from_s}"
    if signer_set.until_s is not None and at_us >= signer_set.until_s * 1_000_000:
        return Why.EXPIRED_SET, f"{name} ended at unix second {signer_set.until_s}"
    if message.trailing_bytes and mode is Mode.STRICT:
        return Why.TRAILING_BYTES, f"{message.trailing_bytes} bytes follow the payload"
    return None, f"signed by {name}"
