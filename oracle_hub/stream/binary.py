"""The compact form of what a keeper waits for: snapshots, updates and heartbeats in fixed little-endian fields.

Every frame can be read by itself: names stand in it, so there is no dictionary that could be late, and a merged or
replayed entry needs nothing from before (docs/adr/0030-binary-form.md). ``docs/protocol-binary.md`` has the layout byte
by byte, and a test reads it. All other messages stay JSON; a frame begins with a byte that no text can begin with.

Where JSON has null, a flag is absent *and* the field is zero, which no byte order and no signedness makes a price.
"""

import struct
from typing import Final, TypeAlias

import msgspec

from oracle_hub.core.hub import Decision
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.errors import StreamError
from oracle_hub.stream.messages import (
    FeedEntry,
    Heartbeat,
    InputEntry,
    Merge,
    Snapshot,
    Update,
    View,
    ViewReason,
    encode,
    input_entries,
)

MAGIC = b"\xb1OH\x01"
"""First a byte that begins no UTF-8 text; last the version of the layout."""
BAD_FRAME, UNKNOWN_KIND = "bad_frame", "unknown_kind"

SNAPSHOT, UPDATE, HEARTBEAT = 1, 2, 3
CONFLATED, REPLAYED, NOT_JOURNALED = 1, 2, 4
HAS_PRICE, HAS_CONF, HAS_PUBLISH_TIME, HAS_LEASE, MERGED, HAS_RANGE, WAS_NONE = 1, 2, 4, 8, 16, 32, 64

STATES: Final = {State.NONE: 0, State.LIVE: 1, State.DEGRADED: 2}
RULES: Final = {Rule.R1: 1, Rule.R2: 2, Rule.R3: 3}
REASONS: Final[dict[Reason | ViewReason, int]] = {
    Reason.AGREED: 1,
    Reason.PRIMARY_DIVERGED: 2,
    Reason.PRIMARY_UNUSABLE: 3,
    Reason.VERIFIER_UNUSABLE: 4,
    Reason.DIVERGED: 5,
    Reason.TOO_FEW_SOURCES: 6,
    Reason.WARMING: 7,
    Reason.CLOCK_SKEW: 8,
    Reason.JOURNAL: 9,
    Reason.REMOVED: 10,
    ViewReason.LEASE_OVER: 11,
    ViewReason.MAX_AGE: 12,
    Reason.NOT_REDISTRIBUTABLE: 13,
}
"""Numbers are never given to another reason. A reader shows one that it does not know as ``reason_N``."""
_STATE_OF = {code: state.value for state, code in STATES.items()}
_RULE_OF = {code: rule.value for rule, code in RULES.items()}
_REASON_OF = {code: reason.value for reason, code in REASONS.items()}

_HEADER = struct.Struct("<4sBBHIIqqqq")
_ENTRY = struct.Struct("<IHHqqqqqIHHbBBBI")
_RANGE = struct.Struct("<qq")
_U16 = struct.Struct("<H")
HEADER_BYTES, ENTRY_BYTES = _HEADER.size, _ENTRY.size
TIME_AT = HEADER_BYTES - 8
"""Where in a frame the time stands at which it was sent."""
MERGED_ENTRY_BYTES = ENTRY_BYTES + _RANGE.size
_DIGEST_BYTES = 8
_MAX_N = 2**32 - 1

_inputs_decoder = msgspec.json.Decoder(dict[str, InputEntry])

BinaryMessage: TypeAlias = Snapshot | Update | Heartbeat
"""What has a binary form. In a snapshot and an update, ``feeds`` are entries in the same form."""


# Encoding.

encode_time = struct.Struct("<q").pack
"""A time in microseconds, as in the header."""


def encode_entry(decision: Decision, shown: View, full: bool, merge: Merge | None = None) -> msgspec.Raw:
    """The binary form of a decision as ``shown``: what :func:`~oracle_hub.stream.messages.feed_entry` says of it."""
    ended = shown.ended is not None
    flags, state, rule = 0, STATES[State.NONE], RULES[Rule.R3]
    price = conf = publish_us = until_us = n = 0
    source = inputs = b""
    if not ended:
        state, rule = STATES[decision.state], RULES[decision.rule]
        if decision.mantissa is not None:
            flags, price = HAS_PRICE, decision.mantissa
        if decision.conf is not None:
            flags, conf = flags | HAS_CONF, decision.conf
        if decision.publish_us is not None:
            flags, publish_us = flags | HAS_PUBLISH_TIME, decision.publish_us
        if decision.source is not None:
            source = decision.source.encode()
    if shown.valid_until_us is not None:
        flags, until_us = flags | HAS_LEASE, shown.valid_until_us
    text_at, extension = ENTRY_BYTES, b""
    if merge is not None:
        text_at, n, flags = MERGED_ENTRY_BYTES, min(merge.n, _MAX_N), flags | MERGED
        flags |= WAS_NONE if merge.was_none or ended else 0
        flags |= 0 if merge.low is None else HAS_RANGE
        extension = _RANGE.pack(merge.low or 0, merge.high or 0)
    if full:
        inputs = encode(input_entries(decision))
    feed = decision.feed.encode()
    end = text_at + len(feed) + len(source) + len(inputs)
    padding = -end % 8
    fixed = _ENTRY.pack(
        end + padding,
        len(feed),
        len(source),
        price,
        conf,
        publish_us,
        decision.decided_us,
        until_us,
        len(inputs),
        flags,
        text_at,
        decision.expo,
        state,
        rule,
        REASONS[decision.reason if shown.ended is None else shown.ended],
        n,
    )
    return msgspec.Raw(b"".join((fixed, extension, feed, source, inputs, bytes(padding))))


def encode_message(message: BinaryMessage) -> bytes:
    """A message whose ``feeds``, where it has them, come from :func:`encode_entry`."""
    match message:
        case Update():
            flags = (
                (CONFLATED if message.conflated else 0)
                | (REPLAYED if message.replayed else 0)
                | (NOT_JOURNALED if message.journaled is False else 0)
            )
            head = _header(UPDATE, flags, message, len(message.feeds), message.prev_seq, message.sent_us)
            return b"".join((head, *message.feeds))
        case Snapshot():
            head = _header(SNAPSHOT, 0, message, len(message.feeds), 0, message.sent_us)
            return b"".join((head, *message.feeds))
        case Heartbeat():
            names = [feed.encode() for feed in message.not_live]
            head = _header(HEARTBEAT, 0, message, len(names), 0, message.server_time_us)
            return b"".join(
                (
                    head,
                    bytes.fromhex(message.digest),
                    *(part for name in names for part in (_U16.pack(len(name)), name)),
                )
            )


def _header(kind: int, flags: int, message: BinaryMessage, count: int, prev_seq: int, sent_us: int) -> bytes:
    return _HEADER.pack(
        MAGIC, kind, flags, HEADER_BYTES, message.sub, count, message.epoch, message.seq, prev_seq, sent_us
    )


# Decoding.


def is_binary(data: bytes) -> bool:
    """Whether a websocket message is a frame of this form, of whatever version; else it is text."""
    return data[:1] == MAGIC[:1]


def _refused(what: str, at: int) -> StreamError:
    return StreamError(BAD_FRAME, f"binary frame: {what} at byte {at}")


def decode_message(data: bytes) -> BinaryMessage:
    """Read one frame. Entries of ``feeds`` stay as they are, for :func:`decode_entry`.

    Raises:
        StreamError: ``unknown_kind`` for a kind of a later version, to be ignored; ``bad_frame`` for anything else.
    """
    if len(data) < HEADER_BYTES:
        raise _refused(f"{len(data)} bytes where a header has {HEADER_BYTES}", 0)
    magic, kind, flags, body_at, sub, count, epoch, seq, prev_seq, sent_us = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise _refused(f"magic {magic.hex()} instead of {MAGIC.hex()}", 0)
    if not HEADER_BYTES <= body_at <= len(data):
        raise _refused(f"a body that begins at {body_at}", 6)
    if min(epoch, seq, prev_seq) < 0:
        raise _refused("a negative epoch or seq", 16)
    if kind == HEARTBEAT:
        return _heartbeat(data, body_at, sub, count, epoch, seq, sent_us)
    if kind not in (SNAPSHOT, UPDATE):
        raise StreamError(UNKNOWN_KIND, f"binary frame: kind {kind} is not known")
    feeds = _entries(data, body_at, count)
    if kind == SNAPSHOT:
        return Snapshot(sub=sub, epoch=epoch, seq=seq, sent_us=sent_us, feeds=feeds)
    return Update(
        sub=sub,
        epoch=epoch,
        seq=seq,
        prev_seq=prev_seq,
        sent_us=sent_us,
        conflated=bool(flags & CONFLATED),
        replayed=bool(flags & REPLAYED),
        feeds=feeds,
        journaled=False if flags & NOT_JOURNALED else msgspec.UNSET,
    )


def _entries(data: bytes, at: int, count: int) -> list[msgspec.Raw]:
    """Cut the body into its entries, which must fill it."""
    entries = []
    for _ in range(count):
        end = at + int.from_bytes(data[at : at + 4], "little")
        if end - at < ENTRY_BYTES or end > len(data):
            raise _refused("an entry that is cut or too short", at)
        entries.append(msgspec.Raw(data[at:end]))
        at = end
    if at != len(data):
        raise _refused("bytes after the last entry", at)
    return entries


def _heartbeat(data: bytes, at: int, sub: int, count: int, epoch: int, seq: int, sent_us: int) -> Heartbeat:
    names_at = at + _DIGEST_BYTES
    told, at = data[at:names_at], names_at
    names = []
    for _ in range(count):
        begin = at + _U16.size
        end = begin + int.from_bytes(data[at:begin], "little")
        if end > len(data):
            raise _refused("a name that is cut", at)
        names.append(_text(data, begin, end))
        at = end
    if at != len(data):
        raise _refused("bytes too many or too few", at)
    return Heartbeat(sub=sub, epoch=epoch, seq=seq, server_time_us=sent_us, not_live=names, digest=told.hex())


def _text(data: bytes, begin: int, end: int) -> str:
    try:
        return data[begin:end].decode()
    except UnicodeDecodeError:
        raise _refused("a name that is not UTF-8", begin) from None


def decode_entry(raw: msgspec.Raw | bytes) -> FeedEntry:
    """Read one entry of ``feeds``.

    Raises:
        StreamError: ``bad_frame``: the bytes contradict each other, or say that there is a price and no price.
    """
    data = bytes(raw)
    if len(data) < ENTRY_BYTES:
        raise _refused("an entry that is too short", 0)
    (
        size, feed_bytes, source_bytes, price, conf, publish_us, decided_us, until_us, inputs_bytes, flags, text_at,
        expo, state_code, rule_code, reason_code, n,
    ) = _ENTRY.unpack_from(data)  # fmt: skip
    least = MERGED_ENTRY_BYTES if flags & MERGED else ENTRY_BYTES
    source_at = text_at + feed_bytes
    inputs_at = source_at + source_bytes
    if size != len(data) or text_at < least or inputs_at + inputs_bytes > size:
        raise _refused("lengths that do not fit the entry", 0)
    state, rule = _STATE_OF.get(state_code), _RULE_OF.get(rule_code)
    if state is None or rule is None or not reason_code or not feed_bytes:
        raise _refused("an unknown state or rule, or no reason or no name", 57)
    if not (price > 0) is bool(flags & HAS_PRICE) is (state_code != 0) or price < 0:
        raise _refused("price, flag and state that contradict each other", 8)
    if conf < 0:
        raise _refused("a negative conf", 16)
    if (
        (conf and not flags & HAS_CONF)
        or (publish_us and not flags & HAS_PUBLISH_TIME)
        or (until_us and not flags & HAS_LEASE)
    ):
        raise _refused("a value where the flags say that there is none", 16)
    entry = FeedEntry(
        feed=_text(data, text_at, source_at),
        state=state,
        price=str(price) if price else None,
        expo=expo,
        conf=str(conf) if flags & HAS_CONF else None,
        source=_text(data, source_at, inputs_at) if source_bytes else None,
        rule=rule,
        reason=_REASON_OF.get(reason_code) or f"reason_{reason_code}",
        publish_time_us=publish_us if flags & HAS_PUBLISH_TIME else None,
        decided_us=decided_us,
        valid_until_us=until_us if flags & HAS_LEASE else None,
        inputs=_inputs(data[inputs_at : inputs_at + inputs_bytes]) if inputs_bytes else msgspec.UNSET,
    )
    return msgspec.structs.replace(entry, **_merge(data, flags, n)) if flags & MERGED else entry


def _merge(data: bytes, flags: int, n: int) -> dict[str, int | str | bool | None]:
    low, high = _RANGE.unpack_from(data, ENTRY_BYTES)
    if flags & HAS_RANGE:
        if not 0 < low <= high:
            raise _refused("a lowest and highest price that are no range", ENTRY_BYTES)
    elif low or high:
        raise _refused("a range where the flags say that there is none", ENTRY_BYTES)
    return {
        "n": n,
        "low": str(low) if low else None,
        "high": str(high) if high else None,
        "was_none": bool(flags & WAS_NONE),
    }


def _inputs(text: bytes) -> dict[str, InputEntry]:
    try:
        return _inputs_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise StreamError(BAD_FRAME, f"binary frame: inputs that can't be read: {error}"[:200]) from None


def as_json(data: bytes) -> bytes:
    """The same message as its JSON form has it, byte for byte: for logs, and for those who compare.

    Raises:
        StreamError: as :func:`decode_message` and :func:`decode_entry`.
    """
    message = decode_message(data)
    if isinstance(message, Heartbeat):
        return encode(message)
    entries = [msgspec.Raw(encode(decode_entry(raw))) for raw in message.feeds]
    return encode(msgspec.structs.replace(message, feeds=entries))
