"""What the journal holds, and how one record is laid out in bytes. No files here; ``docs/journal.md`` is the layout.

A record on disk is ``length u32 | type u8 | payload | crc u32``, little-endian. ``length`` counts the payload alone.
The CRC (CRC-32 as in zlib) covers everything before it and starts from the segment's *seed*, which is the CRC of the
segment's header. Bytes that a peer sent, or that another segment left in a reused block, can therefore not pass for a
record of this segment when a reader looks for the next whole one.

Every payload but that of ``LINK_NAME`` and ``PUBLISHED`` begins with a time (i64, microseconds).
"""

import struct
from enum import IntEnum
from typing import Literal, TypeAlias
from zlib import crc32

import msgspec

from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError

MAX_PAYLOAD_BYTES = 2**24 - 1
"""The top byte of a length is always 0, which makes the next record quick to find after damage."""
REFERENCE_MIN_BYTES = 256
"""Shorter frames are always written whole: a reference would save little."""
REFERENCE_WINDOW_BYTES = 8 * 2**20
"""How far back a reference may reach, so that a reader has to remember no more than this."""


class RecordType(IntEnum):
    """The type byte of a record. Numbers are never reused."""

    RUN_START = 1
    CONFIG = 2
    LINK_NAME = 3
    LINK_EVENT = 4
    FRAME = 5
    FRAME_REF = 6
    STEP = 7
    PUBLISHED = 8
    CLOCK = 9
    GAP = 10
    REWATCH = 11
    CHECKPOINT = 12
    """From format version 2 on."""
    CUT = 13
    """With ``STATE``, from format version 3 on."""
    STATE = 14


LinkEventKind: TypeAlias = Literal["connect", "disconnect", "timer"]
ClockKind: TypeAlias = Literal["reading", "reanchor", "skew", "ok"]


class RunStart(msgspec.Struct, frozen=True, gc=False):
    """A run begins. The first record that an app appends."""

    instance: str
    epoch: int
    version: str
    """Version of oracle-hub that wrote the run."""
    simulated: bool
    wall_us: int
    monotonic_us: int
    first: bool = False
    """The first run of its instance: nothing was decided before it. False where that is not known."""


class Config(msgspec.Struct, frozen=True, gc=False):
    """The configuration in force from here on: at the start, and again at each reload."""

    text: str
    hash: str
    now_us: int


class LinkEvent(msgspec.Struct, frozen=True, gc=False):
    """The driver called ``connect`` or ``on_timer`` of a link, or lost its stream."""

    link: str
    kind: LinkEventKind
    now_us: int
    text: str = ""


class FrameIn(msgspec.Struct, frozen=True, gc=False):
    """A frame arrived on a link."""

    link: str
    received_us: int
    frame: Frame


class Step(msgspec.Struct, frozen=True, gc=False):
    """The hub decided, at this time, over everything above this record."""

    now_us: int


class Published(msgspec.Struct, frozen=True, gc=False):
    """The step above gave this batch."""

    epoch: int
    seq: int
    digest: bytes


class ClockReading(msgspec.Struct, frozen=True, gc=False):
    """The wall clock was compared with the clock that carries ``now``."""

    wall_us: int
    now_us: int
    kind: ClockKind = "reading"


class Gap(msgspec.Struct, frozen=True, gc=False):
    """Records are missing here. Written after a full disk; also what a lenient reader yields in place of damage."""

    from_us: int
    """Time of the first missing record, or of the last good one before damage; 0 when unknown."""
    to_us: int
    """Time of the last missing record, or of the first good one after damage; 0 when unknown."""
    records_lost: int
    """0 when it cannot be known."""
    bytes_lost: int
    reason: str


class Rewatch(msgspec.Struct, frozen=True, gc=False):
    """The links were told to reconcile their sets of accounts."""

    now_us: int


class Checkpoint(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The state after the last step, so that reading can begin here. Derived: evidence of nothing by itself."""

    now_us: int
    epoch: int
    seq: int
    """Sequence of the last batch before it."""
    simulated: bool
    digest: bytes
    """16 bytes over the part of the state that decides."""
    instance: str
    version: str
    """Version of oracle-hub that wrote it: no other one has to be able to read the state."""
    config_hash: str
    config_text: str
    state: bytes
    """Compressed (zstd)."""


class Cut(msgspec.Struct, frozen=True, gc=False):
    """Here stands a checkpoint that was still being made when what follows was written: the state after the last step.

    Readers put the :class:`Checkpoint` in its place (:mod:`oracle_hub.journal.deferred`).
    """

    now_us: int


class StatePart(msgspec.Struct, frozen=True, gc=False):
    """A part of the checkpoint that belongs to a :class:`Cut` before, in the same segment."""

    cut_us: int
    """``now_us`` of the cut."""
    index: int
    """From 0."""
    last: bool
    data: bytes
    """All together are the payload of a ``CHECKPOINT``."""


Record: TypeAlias = (
    RunStart | Config | LinkEvent | FrameIn | Step | Published | ClockReading | Gap | Rewatch | Checkpoint
)


class LinkName(msgspec.Struct, frozen=True, gc=False):
    """Inside a segment a link is a small number; this record gives its name. Readers resolve it."""

    link_id: int
    name: str


class FrameRef(msgspec.Struct, frozen=True, gc=False):
    """A frame whose data is that of an earlier one. ``frame.data`` is empty until a reader fills it in."""

    link: str
    received_us: int
    frame: Frame
    back_bytes: int
    """From the first byte of this record back to the first byte of the frame that holds the data."""


Appended: TypeAlias = Record | Cut | StatePart
"""What a writer takes."""
RecordOnDisk: TypeAlias = Appended | LinkName | FrameRef

PREFIX = struct.Struct("<IB")
CRC = struct.Struct("<I")
OVERHEAD_BYTES = PREFIX.size + CRC.size

_TIME = struct.Struct("<q")
_RUN_START = struct.Struct("<qqQBH")
_SIMULATED, _FIRST = 1, 2
_CONFIG = struct.Struct("<qH")
_LINK_NAME = struct.Struct("<H")
_LINK_EVENT = struct.Struct("<qHB")
_FRAME = struct.Struct("<qHBHqHH")
_BACK = struct.Struct("<I")
_PUBLISHED = struct.Struct("<QQ")
_CLOCK = struct.Struct("<qqB")
_GAP = struct.Struct("<qqQQ")
_CHECKPOINT = struct.Struct("<qQQB16sHHHI")
_STATE = struct.Struct("<qIB")
_FRAME_HEAD = struct.Struct("<IBqHBHqHH")  # PREFIX and _FRAME in one call

_Channel: TypeAlias = Literal["websocket", "sse", "http"]
_CHANNELS: tuple[_Channel, ...] = ("websocket", "sse", "http")
_CHANNEL_CODE: dict[str, int] = {name: code for code, name in enumerate(_CHANNELS)}
_LINK_KINDS: tuple[LinkEventKind, ...] = ("connect", "disconnect", "timer")
_CLOCK_KINDS: tuple[ClockKind, ...] = ("reading", "reanchor", "skew", "ok")
_KINDS = {int(kind): kind for kind in RecordType}
_UNTIMED = frozenset({RecordType.LINK_NAME, RecordType.PUBLISHED})


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # whatever a decoder produced comes back the same


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def seal_record(kind: RecordType, payload: bytes, seed: int) -> bytes:
    """Return the whole record: prefix, payload and CRC.

    Raises:
        JournalError: the payload is longer than :data:`MAX_PAYLOAD_BYTES`.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise JournalError(f"a {kind.name} record of {len(payload)} bytes is over the limit of {MAX_PAYLOAD_BYTES}")
    body = PREFIX.pack(len(payload), kind) + payload
    return body + CRC.pack(crc32(body, seed))


def reseal(record: bytes, seed: int) -> bytes:
    """Return an encoded record with its CRC computed for another segment."""
    body = record[: -CRC.size]
    return body + CRC.pack(crc32(body, seed))


def record_time_us(record: bytes) -> int | None:
    """Return the time that an encoded record begins with, or None for the two types without one."""
    if record[4] in _UNTIMED:
        return None
    time_us: int = _TIME.unpack_from(record, PREFIX.size)[0]
    return time_us


def encode_frame(link_id: int, received_us: int, frame: Frame, seed: int) -> bytes:
    """Return the record of a frame. The hot path: two packs, two CRCs and one join.

    Raises:
        JournalError: too long, or a number or name that does not fit its field.
    """
    body = frame.data
    fetch_bytes = event_bytes = 0
    if frame.fetch_id or frame.event:
        fetch_id, event = _utf8(frame.fetch_id), _utf8(frame.event)
        fetch_bytes, event_bytes = len(fetch_id), len(event)
        body = b"".join((fetch_id, event, body))
    length = 25 + len(body)
    if length > MAX_PAYLOAD_BYTES:
        raise JournalError(f"a frame of {length} bytes is over the journal's limit of {MAX_PAYLOAD_BYTES}")
    channel, status, retry_ms = _CHANNEL_CODE[frame.channel], frame.status, frame.retry_after_ms
    try:
        head = _FRAME_HEAD.pack(length, 5, received_us, link_id, channel, status, retry_ms, fetch_bytes, event_bytes)
    except struct.error as error:
        raise JournalError(f"a frame does not fit its record: {error}") from error
    return b"".join((head, body, CRC.pack(crc32(body, crc32(head, seed)))))


def encode_frame_ref(link_id: int, received_us: int, frame: Frame, back_bytes: int, seed: int) -> bytes:
    """Return the record of a frame whose data stands ``back_bytes`` before this record.

    Raises:
        JournalError: a number or name that does not fit its field.
    """
    fetch_id, event = _utf8(frame.fetch_id), _utf8(frame.event)
    channel, status, retry_ms = _CHANNEL_CODE[frame.channel], frame.status, frame.retry_after_ms
    try:
        head = _FRAME.pack(received_us, link_id, channel, status, retry_ms, len(fetch_id), len(event))
        payload = b"".join((head, _BACK.pack(back_bytes), fetch_id, event))
    except struct.error as error:
        raise JournalError(f"a frame does not fit its record: {error}") from error
    return seal_record(RecordType.FRAME_REF, payload, seed)


def encode_link_name(link_id: int, name: str, seed: int) -> bytes:
    """Return the record that names a link for the rest of a segment.

    Raises:
        JournalError: more than 65,536 links.
    """
    if not 0 <= link_id < 2**16:
        raise JournalError(f"link {name!r} would be number {link_id}; a journal holds at most 65536 links in one run")
    return seal_record(RecordType.LINK_NAME, _LINK_NAME.pack(link_id) + _utf8(name), seed)


def encode_record(record: Appended, link_id: int, seed: int) -> bytes:
    """Return the bytes of any record; ``link_id`` is used by those that have a link.

    Raises:
        JournalError: too long, or a number or name that does not fit its field.
    """
    try:
        if isinstance(record, FrameIn):
            return encode_frame(link_id, record.received_us, record.frame, seed)
        kind, payload = _payload(record, link_id)
    except struct.error as error:
        raise JournalError(f"{type(record).__name__} does not fit its record: {error}") from error
    return seal_record(kind, payload, seed)


def _payload(record: Appended, link_id: int) -> tuple[RecordType, bytes]:
    match record:
        case Step(now_us):
            return RecordType.STEP, _TIME.pack(now_us)
        case Published(epoch, seq, digest):
            return RecordType.PUBLISHED, _PUBLISHED.pack(epoch, seq) + digest
        case LinkEvent(_, kind, now_us, text):
            return RecordType.LINK_EVENT, _LINK_EVENT.pack(now_us, link_id, _LINK_KINDS.index(kind)) + _utf8(text)
        case ClockReading(wall_us, now_us, clock_kind):
            return RecordType.CLOCK, _CLOCK.pack(now_us, wall_us, _CLOCK_KINDS.index(clock_kind))
        case Rewatch(now_us):
            return RecordType.REWATCH, _TIME.pack(now_us)
        case Config(text, config_hash, now_us):
            hash_bytes = _utf8(config_hash)
            return RecordType.CONFIG, _CONFIG.pack(now_us, len(hash_bytes)) + hash_bytes + _utf8(text)
        case Gap(from_us, to_us, records_lost, bytes_lost, reason):
            return RecordType.GAP, _GAP.pack(from_us, to_us, records_lost, bytes_lost) + _utf8(reason)
        case Checkpoint():
            return RecordType.CHECKPOINT, checkpoint_head(record) + record.state
        case Cut(now_us):
            return RecordType.CUT, _TIME.pack(now_us)
        case StatePart(cut_us, index, last, data):
            return RecordType.STATE, _STATE.pack(cut_us, index, last) + data
        case RunStart(instance, epoch, version, simulated, wall_us, monotonic_us, first):
            name = _utf8(instance)
            flags = (_SIMULATED if simulated else 0) | (_FIRST if first else 0)
            head = _RUN_START.pack(wall_us, monotonic_us, epoch, flags, len(name))
            return RecordType.RUN_START, head + name + _utf8(version)
        case _:
            raise JournalError(f"{type(record).__name__} is not a record of the journal")


def checkpoint_head(record: Checkpoint) -> bytes:
    """The payload of a checkpoint up to its state.

    Raises:
        struct.error: a text is too long for its length.
    """
    texts = [_utf8(text) for text in (record.instance, record.version, record.config_hash, record.config_text)]
    head = _CHECKPOINT.pack(
        record.now_us, record.epoch, record.seq, record.simulated, record.digest, *(len(text) for text in texts)
    )
    return b"".join((head, *texts))


def decode_checkpoint(payload: bytes) -> Checkpoint:
    """The checkpoint that a payload holds.

    Raises:
        JournalError: it does not follow its layout.
    """
    try:
        return _decode_checkpoint(payload)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise JournalError(f"a checkpoint in parts does not follow its layout: {error}") from error


def _decode_checkpoint(payload: bytes) -> Checkpoint:
    now_us, epoch, seq, simulated, digest, *lengths = _CHECKPOINT.unpack_from(payload)
    texts, at = [], _CHECKPOINT.size
    for length in lengths:
        texts.append(_text(payload[at : at + length]))
        at += length
    if at > len(payload):
        raise ValueError(f"the texts end at {at} of {len(payload)} bytes")
    instance, version, config_hash, config_text = texts
    return Checkpoint(
        now_us=now_us,
        epoch=epoch,
        seq=seq,
        simulated=bool(simulated),
        digest=digest,
        instance=instance,
        version=version,
        config_hash=config_hash,
        config_text=config_text,
        state=payload[at:],
    )


_PLAIN_FRAME, _PLAIN_STEP, _PLAIN_PUBLISHED = int(RecordType.FRAME), int(RecordType.STEP), int(RecordType.PUBLISHED)


def decode_plain(kind: int, data: bytes, start: int, stop: int, links: dict[int, str]) -> Record | None:
    """The record whose payload is ``data[start:stop]``, where it is one of the three frequent types and has nothing odd
    about it; None for anything else, which is for :func:`decode_record`.
    """
    if kind == _PLAIN_FRAME:
        if stop - start < _FRAME.size:
            return None
        received_us, link_id, channel, status, retry_ms, fetch_bytes, event_bytes = _FRAME.unpack_from(data, start)
        name = links.get(link_id)
        if name is None or fetch_bytes or event_bytes or channel >= len(_CHANNELS):
            return None
        frame = Frame(_CHANNELS[channel], data[start + _FRAME.size : stop], "", status, retry_ms)
        return FrameIn(name, received_us, frame)
    if kind == _PLAIN_STEP and stop - start == _TIME.size:
        return Step(_TIME.unpack_from(data, start)[0])
    if kind == _PLAIN_PUBLISHED and stop - start == _PUBLISHED.size + 16:
        epoch, seq = _PUBLISHED.unpack_from(data, start)
        return Published(epoch, seq, data[start + _PUBLISHED.size : stop])
    return None


def decode_record(kind: int, payload: bytes, links: dict[int, str]) -> RecordOnDisk:
    """Return the record that a payload holds. ``links`` maps the numbers of this segment's links to their names.

    Raises:
        JournalError: unknown type, a payload that does not follow its layout, or a link without a name.
    """
    record_type = _KINDS.get(kind)
    if record_type is None:
        raise JournalError(f"record type {kind} is unknown; a newer oracle-hub may have written it")
    try:
        if record_type in (RecordType.FRAME, RecordType.FRAME_REF):
            return _decode_frame(payload, links, is_ref=record_type is RecordType.FRAME_REF)
        return _decode_other(record_type, payload, links)
    except (struct.error, UnicodeDecodeError, IndexError, ValueError) as error:
        raise JournalError(f"a {record_type.name} record does not follow its layout: {error}") from error
    except KeyError as error:
        raise JournalError(f"a {record_type.name} record is of link {error}, which no record named") from error


def _decode_frame(payload: bytes, links: dict[int, str], *, is_ref: bool) -> FrameIn | FrameRef:
    received_us, link_id, channel, status, retry_ms, fetch_bytes, event_bytes = _FRAME.unpack_from(payload)
    start = _FRAME.size + (_BACK.size if is_ref else 0)
    event_at = start + fetch_bytes
    data_at = event_at + event_bytes
    if data_at > len(payload) or (is_ref and data_at != len(payload)):
        raise ValueError(f"names end at {data_at} of {len(payload)} bytes")
    frame = Frame(
        channel=_CHANNELS[channel],
        data=payload[data_at:],
        fetch_id=_text(payload[start:event_at]) if fetch_bytes else "",
        status=status,
        retry_after_ms=retry_ms,
        event=_text(payload[event_at:data_at]) if event_bytes else "",
    )
    if is_ref:
        return FrameRef(links[link_id], received_us, frame, _BACK.unpack_from(payload, _FRAME.size)[0])
    return FrameIn(links[link_id], received_us, frame)


def _decode_other(kind: RecordType, payload: bytes, links: dict[int, str]) -> Appended | LinkName:
    match kind:
        case RecordType.STEP:
            return Step(*_TIME.unpack(payload))
        case RecordType.PUBLISHED:
            epoch, seq = _PUBLISHED.unpack_from(payload)
            return Published(epoch, seq, payload[_PUBLISHED.size :])
        case RecordType.LINK_NAME:
            return LinkName(_LINK_NAME.unpack_from(payload)[0], _text(payload[_LINK_NAME.size :]))
        case RecordType.LINK_EVENT:
            now_us, link_id, code = _LINK_EVENT.unpack_from(payload)
            return LinkEvent(links[link_id], _LINK_KINDS[code], now_us, _text(payload[_LINK_EVENT.size :]))
        case RecordType.CLOCK:
            now_us, wall_us, code = _CLOCK.unpack(payload)
            return ClockReading(wall_us, now_us, _CLOCK_KINDS[code])
        case RecordType.REWATCH:
            return Rewatch(*_TIME.unpack(payload))
        case RecordType.CONFIG:
            now_us, hash_bytes = _CONFIG.unpack_from(payload)
            text_at = _CONFIG.size + hash_bytes
            if text_at > len(payload):
                raise ValueError(f"the hash ends at {text_at} of {len(payload)} bytes")
            return Config(_text(payload[text_at:]), _text(payload[_CONFIG.size : text_at]), now_us)
        case RecordType.CHECKPOINT:
            return _decode_checkpoint(payload)
        case RecordType.CUT:
            return Cut(*_TIME.unpack(payload))
        case RecordType.STATE:
            cut_us, index, last = _STATE.unpack_from(payload)
            return StatePart(cut_us, index, bool(last), payload[_STATE.size :])
        case RecordType.GAP:
            from_us, to_us, records, lost = _GAP.unpack_from(payload)
            return Gap(from_us, to_us, records, lost, _text(payload[_GAP.size :]))
        case _:
            wall_us, monotonic_us, epoch, flags, name_bytes = _RUN_START.unpack_from(payload)
            version_at = _RUN_START.size + name_bytes
            if version_at > len(payload):
                raise ValueError(f"the instance ends at {version_at} of {len(payload)} bytes")
            name, version = _text(payload[_RUN_START.size : version_at]), _text(payload[version_at:])
            simulated, first = bool(flags & _SIMULATED), bool(flags & _FIRST)
            return RunStart(name, epoch, version, simulated, wall_us, monotonic_us, first)
