"""Reads the journal back: a stream of bytes in chunks of any size, one segment, or a directory.

The rule for damage: where a record is not whole, look for the next whole one. If there is none up to the end, this is
the torn tail that a crash leaves; it is reported in ``torn_bytes`` and is no error. If there is one, bytes in the
middle are damaged: a :class:`~oracle_hub.errors.JournalError`, or with ``strict=False`` a :class:`Gap` in their place.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import msgspec
import zstandard

from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError
from oracle_hub.journal.deferred import in_place
from oracle_hub.journal.records import (
    CRC,
    MAX_PAYLOAD_BYTES,
    OVERHEAD_BYTES,
    PREFIX,
    REFERENCE_MIN_BYTES,
    REFERENCE_WINDOW_BYTES,
    Appended,
    Cut,
    FrameIn,
    FrameRef,
    Gap,
    LinkName,
    Record,
    RecordType,
    StatePart,
    Step,
    decode_plain,
    decode_record,
    record_time_us,
)
from oracle_hub.journal.segments import SegmentHeader, decode_header, header_length, list_segments, sealed_path

PREFIX_BYTES, CRC_BYTES = PREFIX.size, CRC.size
PUBLISHED = int(RecordType.PUBLISHED)
_CHUNK_BYTES = 2**18
_SEALED_BYTES = 2**14
"""Compressed bytes taken at once: ten or twenty times as much comes out, which should still be in a cache when read."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# The top byte of a length (always 0) and a known type: what the fourth and fifth byte of every record look like.
_PREFIX_TAIL = re.compile(b"\x00[" + re.escape(bytes(RecordType)) + b"]")


class RecordParser:
    """Turns the bytes of one plain segment into records, fed in chunks of any size.

    Call :meth:`feed` with every chunk in order, then :meth:`finish`. How the bytes are cut never changes the records.
    When a damaged place follows good records in one chunk, the good ones are returned and the error is raised by the
    next call. A checkpoint that was written in parts comes as it stands: :class:`SegmentReader` puts it in its place.
    """

    def __init__(self, *, strict: bool = True, name: str = "journal") -> None:
        self.name = name
        self.header: SegmentHeader | None = None
        """None until the first bytes are read."""
        self.offset = 0
        """Offset in the segment of the first byte that is not yet part of a record."""
        self.records = 0
        """Records on disk so far, names of links and gaps of the writer included."""
        self.parts = 0
        """How many of them are cuts, or parts of a checkpoint."""
        self.torn_bytes = 0
        """After :meth:`finish`: bytes behind the last whole record."""
        self.damaged_bytes = 0
        """Bytes skipped in the middle (``strict=False``)."""
        self._strict = strict
        self._buffer = bytearray()
        self._at = 0
        self._seed = 0
        self._in_header = True
        self._bad: str | None = None
        self._scan = 0
        self._ended = False
        self._error: JournalError | None = None
        self._links: dict[int, str] = {}
        self._data_at: dict[int, bytes] = {}
        """Data of frames that may be referred to, by offset, in the order of offsets."""
        self._last_us = 0

    def feed(self, chunk: bytes) -> list[Appended]:
        """Take the next bytes and return the records that they complete.

        Raises:
            JournalError: not a journal, an unknown format version, or (strict) damage, with file and offset.
        """
        self._buffer += chunk
        return self._parse()

    def finish(self) -> list[Appended]:
        """Say that no bytes follow. Returns the records that stand behind a damaged place at the end, if any.

        Raises:
            JournalError: as :meth:`feed`.
        """
        self._ended = True
        records = self._parse()
        if self._error is not None and records:
            return records
        self.torn_bytes = len(self._buffer) - self._at
        return records

    def _parse(self) -> list[Appended]:
        if self._error is not None:
            raise self._error
        out: list[Appended] = []
        try:
            while self._advance(out):
                if self._bad is None and not self._in_header:
                    self._take_whole(out)
        except JournalError as error:
            self._error = error
            if not out:
                raise
        self._forget_distant()
        # Bytes behind are given back; the offset of the first one in the buffer is offset - at.
        del self._buffer[: self._at]
        self._scan = max(0, self._scan - self._at)
        self._at = 0
        return out

    def _advance(self, out: list[Appended]) -> bool:
        """Do one thing; return whether it is worth trying again with the bytes at hand."""
        if self._in_header:
            return self._read_header(out)
        if self._bad is not None:
            return self._find_next_whole(out)
        size = self._whole_record(self._at)
        if size is None:
            if not self._ended or self._at == len(self._buffer):
                return False
            self._damage("a record is cut off")
            return True
        if size == 0:
            self._damage("a record is damaged (length or CRC)")
            return True
        self._take(size, out)
        return True

    def _take_whole(self, out: list[Appended]) -> None:
        """Take whole records up to the first that is not, in one loop.

        The three types that are nearly all records are taken here, at a microsecond each; any other goes through
        :meth:`_take`. What is checked is the same.
        """
        begin, base = self._at, self.offset
        data = bytes(memoryview(self._buffer)[begin:])
        view, end, seed, links = memoryview(data), len(data), self._seed, self._links
        prefix_at, crc_at, append, remembered = PREFIX.unpack_from, CRC.unpack_from, out.append, self._data_at
        at = count = 0
        last: Record | None = None
        while at + OVERHEAD_BYTES <= end:
            length, kind = prefix_at(data, at)
            start = at + PREFIX_BYTES
            stop = start + length
            if stop + CRC_BYTES > end or crc32(view[at:stop], seed) != crc_at(data, stop)[0]:
                break
            record = decode_plain(kind, data, start, stop, links)
            if record is None:
                self._passed(begin + at, base + at, count, last)
                count, last = 0, None
                self._take(stop + CRC_BYTES - at, out)
            else:
                append(record)
                count += 1
                if length >= REFERENCE_MIN_BYTES:
                    remembered[base + at] = record.frame.data  # type: ignore[union-attr]  # nothing else is so long
                if kind != PUBLISHED:
                    last = record
            at = stop + CRC_BYTES
        self._passed(begin + at, base + at, count, last)

    def _passed(self, at: int, offset: int, records: int, last: Record | None) -> None:
        self._at, self.offset = at, offset
        self.records += records
        if isinstance(last, FrameIn):
            self._last_us = last.received_us
        elif isinstance(last, Step):
            self._last_us = last.now_us

    def _read_header(self, out: list[Appended]) -> bool:
        length = header_length(self._buffer, self.name)
        if length is None or len(self._buffer) < length:
            return False
        try:
            self.header, self._seed = decode_header(bytes(self._buffer[:length]), self.name)
        except JournalError as error:
            if self._strict:
                raise
            # The seed is the header's last field: unless that is what was hit, the records can still be checked.
            self._seed = CRC.unpack_from(self._buffer, max(0, length - CRC.size))[0]
            self.damaged_bytes += length
            out.append(Gap(0, 0, 0, length, str(error)))
        self._in_header = False
        self._at = self.offset = length
        return True

    def _whole_record(self, at: int) -> int | None:
        """Size of the whole record at ``at``; 0 when there is none, None when the bytes at hand cannot tell."""
        if len(self._buffer) - at < PREFIX.size:
            return None
        length, _ = PREFIX.unpack_from(self._buffer, at)
        if length > MAX_PAYLOAD_BYTES:
            return 0
        size: int = length + OVERHEAD_BYTES
        if len(self._buffer) - at < size:
            return None
        with memoryview(self._buffer) as view:
            good = crc32(view[at : at + size - CRC.size], self._seed) == CRC.unpack_from(view, at + size - CRC.size)[0]
        return size if good else 0

    def _take(self, size: int, out: list[Appended]) -> None:
        record = bytes(self._buffer[self._at : self._at + size])
        at = self.offset
        try:
            decoded = decode_record(record[4], record[PREFIX.size : -CRC.size], self._links)
            if isinstance(decoded, FrameRef):
                decoded = self._resolve(decoded, at)
        except JournalError as error:
            if self._strict:
                raise JournalError(f"{self.name} at offset {at}: {error}") from error
            decoded = Gap(self._last_us, self._last_us, 1, size, str(error))
            self.damaged_bytes += size
        self._at += size
        self.offset += size
        self.records += 1
        if isinstance(decoded, LinkName):
            self._links[decoded.link_id] = decoded.name
            return
        self._last_us = record_time_us(record) or self._last_us
        if isinstance(decoded, FrameIn) and record[4] == RecordType.FRAME:
            self._remember(at, decoded.frame.data)
        elif isinstance(decoded, Cut | StatePart):
            self.parts += 1
        out.append(decoded)

    def _remember(self, at: int, data: bytes) -> None:
        if len(data) >= REFERENCE_MIN_BYTES:
            self._data_at[at] = data

    def _forget_distant(self) -> None:
        """Drop data that no reference can reach any more."""
        oldest, remembered = self.offset - REFERENCE_WINDOW_BYTES, self._data_at
        while remembered and (first := next(iter(remembered))) < oldest:
            del remembered[first]

    def _resolve(self, ref: FrameRef, at: int) -> FrameIn:
        data = self._data_at.get(at - ref.back_bytes)
        if data is None:
            raise JournalError(f"a frame refers to offset {at - ref.back_bytes}, where no frame was read")
        frame = ref.frame
        whole = Frame(frame.channel, data, frame.fetch_id, frame.status, frame.retry_after_ms, frame.event)
        return FrameIn(ref.link, ref.received_us, whole)

    def _damage(self, what: str) -> None:
        self._bad = what
        self._scan = self._at + 1

    def _find_next_whole(self, out: list[Appended]) -> bool:
        """Look for a whole record behind the bad place. A candidate that is not complete yet is waited for."""
        while True:
            match = _PREFIX_TAIL.search(self._buffer, self._scan + 3)
            if match is None:
                self._scan = max(self._scan, len(self._buffer) - PREFIX.size + 1)
                return False
            candidate = match.start() - 3
            size = self._whole_record(candidate)
            if size:
                self._skip_to(candidate, out)
                return True
            if size is None and not self._ended:
                self._scan = candidate
                return False
            self._scan = candidate + 1

    def _skip_to(self, at: int, out: list[Appended]) -> None:
        lost = at - self._at
        message = f"{self.name} at offset {self.offset}: {self._bad}; {lost} bytes are unreadable, then records go on"
        if self._strict:
            raise JournalError(f"{message}; read it leniently to go on behind them")
        start = self._at
        self._at = at
        self.offset += lost
        self.damaged_bytes += lost
        self._bad = None
        size = self._whole_record(at) or 0
        next_us = record_time_us(bytes(self._buffer[at : at + size])) if size >= OVERHEAD_BYTES + 8 else None
        out.append(Gap(self._last_us, next_us or 0, 0, at - start, message))


class SegmentReader(Iterator[Record]):
    """The records of one segment, plain or sealed, in order. ``torn_bytes`` is final once it is exhausted."""

    def __init__(self, source: Path | str | bytes, *, strict: bool = True) -> None:
        self.path = None if isinstance(source, bytes) else Path(source)
        self.parser = RecordParser(strict=strict, name=str(self.path or "journal"))
        self._lists = in_place(self._read(source, strict), self.parser)
        self._records = chain.from_iterable(self._lists)

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def __next__(self) -> Record:
        return next(self._records)

    def lists(self) -> Iterator[list[Record]]:
        """The same records as lists, some of them empty; instead of iterating, not beside it."""
        return self._lists

    @property
    def header(self) -> SegmentHeader | None:
        """None before the first record is read, and for a file cut inside its header."""
        return self.parser.header

    @property
    def torn_bytes(self) -> int:
        """Bytes behind the last whole record; final when the reader is exhausted."""
        return self.parser.torn_bytes

    def _read(self, source: Path | str | bytes, strict: bool) -> Iterator[list[Appended]]:
        chunks = _chunks(source, self.parser.name)
        while True:
            try:
                chunk = next(chunks, None)
            except zstandard.ZstdError as error:
                message = f"{self.parser.name}: the compressed data is damaged: {error}"
                if strict:
                    raise JournalError(message) from error
                yield self.parser.finish()
                yield [Gap(0, 0, 0, self.parser.torn_bytes, message)]
                return
            if chunk is None:
                break
            yield self.parser.feed(chunk)
        yield self.parser.finish()
        yield self.parser.finish()  # raises what was found behind the records just given


def _chunks(source: Path | str | bytes, name: str) -> Iterator[bytes]:
    try:
        if isinstance(source, bytes):
            pieces: Iterator[bytes] = iter((source,))
        else:
            pieces = _file_chunks(Path(source))
        first = next(pieces, b"")
    except FileNotFoundError as error:
        why = "a hub that runs deletes what is older than its retention; read the journal again"
        raise JournalError(f"cannot read {name}: it is not there, or no longer ({why})") from error
    except OSError as error:
        raise JournalError(f"cannot read {name}: {error.strerror}") from error
    if first[:4] != _ZSTD_MAGIC:
        yield first
        yield from pieces
        return
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    for piece in chain((first,), pieces):
        for start in range(0, len(piece), _SEALED_BYTES):
            if decompressor.eof:
                return
            yield decompressor.decompress(piece[start : start + _SEALED_BYTES])


def _file_chunks(path: Path) -> Iterator[bytes]:
    with _opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _opened(path: Path) -> BinaryIO:
    """What was plain when it was listed may be sealed by now: a hub goes on while its journal is read."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        return sealed_path(path).open("rb")


def read_segment(source: Path | str | bytes, *, strict: bool = True) -> SegmentReader:
    """Return a reader of one segment: a path, or its bytes. Plain and sealed are told apart by content.

    Raises (while iterating):
        JournalError: not a journal, an unknown format version, unreadable, or (strict) damaged in the middle.
    """
    return SegmentReader(source, strict=strict)


class Torn(msgspec.Struct, frozen=True):
    """A segment that did not end with a whole record."""

    path: Path
    torn_bytes: int


class JournalReader(Iterator[Record]):
    """The records of several segments in order. ``torn`` and ``last_header`` fill while it is read."""

    def __init__(self, paths: list[Path], *, strict: bool = True) -> None:
        self.paths = paths
        self.torn: list[Torn] = []
        self.last_header: SegmentHeader | None = None
        self.path: Path | None = None
        """The segment that the latest record is of."""
        self._strict = strict
        self._next_index: int | None = None
        self._records = chain.from_iterable(self._read())

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def __next__(self) -> Record:
        return next(self._records)

    @property
    def torn_bytes(self) -> int:
        """Bytes behind the last whole record, over all segments read so far."""
        return sum(torn.torn_bytes for torn in self.torn)

    def _read(self) -> Iterator[list[Record]]:
        for path in self.paths:
            self.path = path
            segment = read_segment(path, strict=self._strict)
            lists = segment.lists()
            first: list[Record] = []
            while segment.header is None and (more := next(lists, None)) is not None:
                first += more
            if segment.header is not None:
                yield list(self._check_succession(segment.header, path))
                self.last_header = segment.header
            yield first
            yield from lists
            if segment.torn_bytes:
                self.torn.append(Torn(path, segment.torn_bytes))
            header = segment.header
            known = header is not None and not segment.parser.damaged_bytes
            self._next_index = header.first_record + segment.parser.records if header is not None and known else None

    def _check_succession(self, header: SegmentHeader, path: Path) -> Iterator[Record]:
        last = self.last_header
        if last is None or self._next_index is None:
            return
        if (last.instance, last.epoch) != (header.instance, header.epoch):
            return
        missing = header.first_record - self._next_index
        if missing == 0:
            return
        message = f"{path} begins with record {header.first_record} of its run, but {self._next_index} should follow"
        if self._strict:
            raise JournalError(f"{message}: a segment is missing or cut; read leniently to go on")
        yield Gap(0, 0, max(missing, 0), 0, message)


def read_journal(source: Path | str | Iterable[Path | str], *, strict: bool = True) -> JournalReader:
    """Return a reader of a whole journal: a directory, one segment, or paths of segments in the order given.

    Within one run the segments must follow each other; a missing one is a JournalError, or with ``strict=False`` a
    :class:`Gap`. Segments that retention deleted at the beginning are not missed.

    Raises:
        JournalError: nothing to read there; while iterating, as :func:`read_segment`.
    """
    if isinstance(source, Path | str):
        path = Path(source)
        if path.is_dir():
            paths = [segment.path for segment in list_segments(path)]
            if not paths:
                raise JournalError(f"no segments of a journal in {path}")
        elif path.exists():
            paths = [path]
        else:
            raise JournalError(f"no journal at {path}")
    else:
        paths = [Path(item) for item in source]
    return JournalReader(paths, strict=strict)
