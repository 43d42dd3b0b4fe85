"""A segment: one file of the journal. Its name, its header, how it is sealed, and how old ones are deleted.

Names are ``<epoch>-<number>-<start, UTC>.ohj`` and sort by time, since an epoch grows with every run whatever the
clock does. A sealed segment is the same bytes in one zstd frame, under the same name with ``.zst`` appended.
"""

import os
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

import msgspec
import zstandard

from oracle_hub.errors import JournalError

MAGIC = b"\x8dOHJ\r\n\x1a\n"
"""Not text, and broken by any tool that rewrites line ends."""
FORMAT_VERSION = 3
READABLE_VERSIONS = frozenset({1, 2, 3})
"""Version 1 has no checkpoints, version 2 none in parts; they are the same otherwise."""
PLAIN_SUFFIX = ".ohj"
SEALED_SUFFIX = ".ohj.zst"
TEMPORARY_SUFFIX = ".tmp"

_FIXED = struct.Struct("<8sHHIQqqQIHH")
_CRC = struct.Struct("<I")
VERSION_END = 10
LENGTH_END = 12
_COPY_BYTES = 2**20


class SegmentHeader(msgspec.Struct, frozen=True):
    """The first bytes of a segment."""

    instance: str
    epoch: int
    run_start_us: int
    """Wall clock when the run began, microseconds."""
    segment_start_us: int
    """Wall clock when this segment was opened, microseconds."""
    first_record: int
    """Index within the run (its first record on disk is 0) of the first record in this segment."""
    number: int
    """Number of this segment within the run, from 0."""


class Segment(msgspec.Struct, frozen=True):
    """A segment as its name tells it."""

    path: Path
    epoch: int
    number: int
    start_us: int
    sealed: bool


def encode_header(header: SegmentHeader) -> tuple[bytes, int]:
    """Return the header's bytes and the seed for the CRCs of the segment's records (the header's own CRC)."""
    name = header.instance.encode()
    length = _FIXED.size + len(name) + _CRC.size
    fixed = _FIXED.pack(
        MAGIC,
        FORMAT_VERSION,
        length,
        0,
        header.epoch,
        header.run_start_us,
        header.segment_start_us,
        header.first_record,
        header.number,
        len(name),
        0,
    )
    seed = crc32(fixed + name)
    return fixed + name + _CRC.pack(seed), seed


def header_length(data: bytes | bytearray, where: str) -> int | None:
    """Return how long the header at the start of ``data`` is, or None while more bytes are needed to tell.

    Raises:
        JournalError: not a journal, or written in a format version that this release cannot read.
    """
    if bytes(data[: len(MAGIC)]) != MAGIC[: len(data)]:
        raise JournalError(f"{where} is not a segment of a journal: it does not begin with the magic bytes")
    if len(data) < LENGTH_END:
        return None
    version = int.from_bytes(data[len(MAGIC) : VERSION_END], "little")
    if version not in READABLE_VERSIONS:
        *others, newest = map(str, sorted(READABLE_VERSIONS))
        readable = f"{', '.join(others)} and {newest}"
        raise JournalError(
            f"{where} has journal format {version} but this release reads {readable}: use the one that wrote it"
        )
    return int.from_bytes(data[VERSION_END:LENGTH_END], "little")


def decode_header(data: bytes, where: str) -> tuple[SegmentHeader, int]:
    """Return the header in ``data`` (exactly the bytes that :func:`header_length` counts) and the records' seed.

    Raises:
        JournalError: the header is damaged.
    """
    if len(data) < _FIXED.size + _CRC.size:
        raise JournalError(f"{where} at offset 0: the header is damaged (its length says {len(data)})")
    seed: int = _CRC.unpack_from(data, len(data) - _CRC.size)[0]
    if crc32(data[: -_CRC.size]) != seed:
        raise JournalError(f"{where} at offset 0: the header is damaged (CRC)")
    _, _, _, _, epoch, run_start_us, segment_start_us, first_record, number, name_bytes, _ = _FIXED.unpack_from(data)
    name = data[_FIXED.size : _FIXED.size + name_bytes].decode("utf-8", "replace")
    return SegmentHeader(name, epoch, run_start_us, segment_start_us, first_record, number), seed


def segment_name(epoch: int, number: int, start_us: int) -> str:
    """Return the file name of a segment that is opened at the wall time ``start_us``."""
    start = datetime.fromtimestamp(start_us // 1_000_000, UTC)
    return f"{epoch:012d}-{number:06d}-{start:%Y%m%dT%H%M%SZ}{PLAIN_SUFFIX}"


def parse_segment_name(path: Path) -> Segment | None:
    """Return what a file's name says, or None when it is no name of a segment."""
    sealed = path.name.endswith(SEALED_SUFFIX)
    if not sealed and not path.name.endswith(PLAIN_SUFFIX):
        return None
    try:
        epoch, number, start = path.name.removesuffix(SEALED_SUFFIX if sealed else PLAIN_SUFFIX).split("-")
        started = datetime.strptime(start, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return Segment(path, int(epoch), int(number), int(started.timestamp()) * 1_000_000, sealed)
    except ValueError:
        return None


def list_segments(directory: Path) -> list[Segment]:
    """Return the segments of a directory, oldest first.

    Where a crash left a segment both plain and sealed, the plain one is listed: it is the original.
    """
    found: dict[tuple[int, int], Segment] = {}
    for path in directory.iterdir():
        segment = parse_segment_name(path)
        if segment is not None:
            key = (segment.epoch, segment.number)
            if key not in found or found[key].sealed:
                found[key] = segment
    return [found[key] for key in sorted(found)]


def last_epoch(directory: Path) -> int:
    """Return the newest epoch in a journal's directory, 0 when there is none. A new run needs a greater one."""
    segments = list_segments(directory) if directory.is_dir() else []
    return segments[-1].epoch if segments else 0


def sync_directory(directory: Path) -> None:
    """Make created, renamed and deleted names survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Delete what a crash during sealing left: half-written temporary files."""
    for path in directory.glob(f"*{SEALED_SUFFIX}{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def sealed_path(path: Path) -> Path:
    """Return where a plain segment is once it is sealed."""
    return path.with_name(path.name.removesuffix(SEALED_SUFFIX).removesuffix(PLAIN_SUFFIX) + SEALED_SUFFIX)


SEAL_LEVEL = 6
"""Of zstd: a twelfth smaller than level 3 for half a second of another thread a segment; higher ones gain 3 % for twice
as much (``benchmarks/journal_size.py``)."""


def seal_segment(path: Path) -> Path:
    """Compress a closed segment and delete the plain file. Takes time: call it from a thread.

    The compressed file is written under a temporary name, synced, read back and compared, renamed, and only then is
    the plain one deleted. A crash at any point leaves at least one whole copy.

    Raises:
        JournalError: what was read back is not what was written. The plain file stays.
        OSError: the disk refused. The plain file stays and the temporary one is gone.
    """
    sealed = sealed_path(path)
    temporary = sealed.with_name(sealed.name + TEMPORARY_SUFFIX)
    size = path.stat().st_size
    try:
        compressor = zstandard.ZstdCompressor(level=SEAL_LEVEL, write_checksum=True, write_content_size=True)
        with path.open("rb") as source, temporary.open("wb") as target:
            compressor.copy_stream(source, target, size=size)
            target.flush()
            os.fsync(target.fileno())
        if _content_crc(temporary, sealed=True) != _content_crc(path, sealed=False):
            raise JournalError(
                f"{temporary} does not read back as {path.name}: the disk may be failing; kept the original"
            )
        temporary.rename(sealed)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    path.unlink()
    return sealed


def _content_crc(path: Path, *, sealed: bool) -> tuple[int, int]:
    crc = size = 0
    with path.open("rb") as raw:
        source = zstandard.ZstdDecompressor().stream_reader(raw) if sealed else raw
        while chunk := source.read(_COPY_BYTES):
            crc = crc32(chunk, crc)
            size += len(chunk)
    return crc, size


def expired(
    segments: Sequence[Segment], now_us: int, retention_s: int | None, budget_bytes: int | None
) -> list[Segment]:
    """Return which segments to delete, oldest first. The last one, which is being written, is never among them.

    A segment ends when the next one starts; it is too old when that was more than ``retention_s`` ago.
    """
    sizes = [segment.path.stat().st_size for segment in segments]
    total = sum(sizes)
    doomed = []
    for index, segment in enumerate(segments[:-1]):
        age_us = now_us - segments[index + 1].start_us
        too_old = retention_s is not None and age_us > retention_s * 1_000_000
        too_much = budget_bytes is not None and total > budget_bytes
        if not (too_old or too_much):
            break
        doomed.append(segment)
        total -= sizes[index]
    return doomed
