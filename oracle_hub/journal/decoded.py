"""The decoded column cache: what every source said, as the rule sees it, in columns that are mapped into memory.

One row is one feed at one instant at which the hub looked at it: usability, price, confidence and recency of its three
roles, before any limit that can be tuned. Rows of one feed under one configuration and run are a *stretch*; a stretch
is kept in *blocks* of bounded size, column after column. A cache is derived: it names what it was made of, every block
has a checksum, and one that is not whole or of something else is made again, never believed.

Layout: magic, blocks (each padded to eight bytes), the index as JSON, its length and CRC, magic. Little-endian.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from oracle_hub.core.selector import Policy
from oracle_hub.errors import JournalError

Int64: TypeAlias = npt.NDArray[np.int64]
UInt8: TypeAlias = npt.NDArray[np.uint8]
Standing: TypeAlias = tuple[int, int, int, int]
"""One role, as :meth:`oracle_hub.core.table.Table.standing` gives it."""

MAGIC = b"OHDECOD1"
FORMAT = 1
BLOCK_ROWS = 32_768
_TRAILER = struct.Struct("<QI8s")
_ROW_INT64 = 10
"""Columns of int64 in a block: the instant, and mantissa, confidence and recency of three roles."""
ROW_BYTES = _ROW_INT64 * 8 + 4


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """One feed, for as long as its configuration and its clock were the same."""

    feed: str
    expo: int
    roles: tuple[str, str, str]
    """Primary and verifiers."""
    policy: Policy
    max_divergence_bps: int
    max_conf_bps: int
    max_age_us: tuple[int, int, int]
    """By role."""
    barred: int = 0
    """Verifiers that may not be chosen, as :func:`oracle_hub.core.selector.select` takes them."""


class Block(msgspec.Struct, frozen=True):
    """Where some rows of a stretch lie."""

    stretch: int
    rows: int
    offset: int
    first_us: int
    crc: int


class DecodedIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache holds."""

    format: int
    key: str
    """Names what it was made of."""
    stretches: tuple[Stretch, ...]
    ends_us: tuple[int, ...]
    """Per stretch, until when its last row holds."""
    blocks: tuple[Block, ...]
    """In the order of time within each stretch."""
    frames: int
    steps: int
    gaps: int
    mismatches: int
    """Published batches that were not derived again: a journal of which this is more than 0 is no evidence."""


class Columns(NamedTuple):
    """Rows of one block, mapped."""

    at_us: Int64
    """int64 (N,): ascending."""
    mantissa: Int64
    """int64 (3, N): 0 where ``usable`` is 0."""
    conf: Int64
    """int64 (3, N): -1 where the source gives none."""
    recency_us: Int64
    """int64 (3, N): the age of a price counts from here."""
    usable: UInt8
    """uint8 (3, N): 1 where nothing but age and confidence can make the source unusable."""
    hold: UInt8
    """uint8 (N,): 0 where the rule decides; else 1 + the index of the reason (among all reasons) for no price."""


class DecodedWriter:
    """Writes a cache under a temporary name and renames it when it is whole."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.rows = 0
        self._key = key
        self._temporary = path.with_name(f"{path.name}.tmp")
        self._stretches: list[Stretch] = []
        self._ends_us: list[int] = []
        self._rows: list[list[tuple[int, ...]]] = []
        self._blocks: list[Block] = []
        self._offset = len(MAGIC)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
            self._file.write(MAGIC)
        except OSError as error:
            raise _refused(path, error) from error

    def begin(self, stretch: Stretch) -> int:
        """Begin a stretch; its number is for :meth:`row` and :meth:`end`."""
        self._stretches.append(stretch)
        self._ends_us.append(0)
        self._rows.append([])
        return len(self._stretches) - 1

    def row(self, number: int, at_us: int, roles: tuple[Standing, Standing, Standing], hold: int) -> None:
        """Append one row; ``at_us`` is not before the last one of the stretch."""
        a, b, c = roles
        rows = self._rows[number]
        rows.append((at_us, a[1], b[1], c[1], a[2], b[2], c[2], a[3], b[3], c[3], a[0], b[0], c[0], hold))
        if len(rows) >= BLOCK_ROWS:
            self._flush(number)

    def end(self, number: int, at_us: int) -> None:
        """Say until when the last row of a stretch holds."""
        self._ends_us[number] = at_us
        self._flush(number)

    def _flush(self, number: int) -> None:
        rows, self._rows[number] = self._rows[number], []
        if rows:
            self.block(number, np.array(rows, np.int64).T)

    def block(self, number: int, columns: Int64) -> None:
        """Append rows at once: int64 (14, N), in the order of :class:`Columns`, at most :data:`BLOCK_ROWS`."""
        count = columns.shape[1]
        data = b"".join((columns[:_ROW_INT64].astype("<i8").tobytes(), columns[_ROW_INT64:].astype(np.uint8).tobytes()))
        self._blocks.append(Block(number, count, self._offset, int(columns[0, 0]), crc32(data)))
        padding = -len(data) % 8
        self._write(data + bytes(padding))
        self._offset += len(data) + padding
        self.rows += count

    def finish(self, *, frames: int, steps: int, gaps: int, mismatches: int) -> None:
        """Write the index, and give the file its name. Raises JournalError where the disk refuses."""
        index = DecodedIndex(
            format=FORMAT,
            key=self._key,
            stretches=tuple(self._stretches),
            ends_us=tuple(self._ends_us),
            blocks=tuple(self._blocks),
            frames=frames,
            steps=steps,
            gaps=gaps,
            mismatches=mismatches,
        )
        text = msgspec.json.encode(index)
        self._write(text + _TRAILER.pack(len(text), crc32(text), MAGIC))
        try:
            self._file.close()  # what is buffered is written here
            self._temporary.replace(self.path)
        except OSError as error:
            raise _refused(self.path, error) from error

    def discard(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise _refused(self.path, error) from error


def _refused(path: Path, error: OSError) -> JournalError:
    return JournalError(f"cannot write the cache {path}: {error.strerror}; give --cache DIRECTORY")


class Decoded:
    """A whole cache, mapped into memory. Its pages are read when they are used and can be dropped at any time."""

    def __init__(self, index: DecodedIndex, data: mmap.mmap) -> None:
        self.index = index
        self._data = data

    @property
    def rows(self) -> int:
        """Rows of all feeds."""
        return sum(block.rows for block in self.index.blocks)

    @property
    def feeds(self) -> tuple[str, ...]:
        """Feeds, in the order of the configuration."""
        return tuple(dict.fromkeys(stretch.feed for stretch in self.index.stretches))

    def blocks_of(self, number: int) -> Iterator[tuple[Columns, int]]:
        """The blocks of a stretch in order, each with the instant until which its last row holds."""
        blocks = [block for block in self.index.blocks if block.stretch == number]
        ends_us = [block.first_us for block in blocks[1:]] + [self.index.ends_us[number]]
        for block, end_us in zip(blocks, ends_us, strict=True):
            yield _columns(self._data, block), end_us
            self.release()

    def goes_on(self, number: int) -> bool:
        """Whether the feed has another stretch from the instant on at which this one ends, as after a reload."""
        index = self.index
        feed, end_us = index.stretches[number].feed, index.ends_us[number]
        return any(
            block.first_us == end_us and block.stretch > number and index.stretches[block.stretch].feed == feed
            for block in index.blocks
        )

    def release(self) -> None:
        """Give the pages that were read back to the kernel: they are still in the file."""
        self._data.madvise(mmap.MADV_DONTNEED)


def _columns(data: mmap.mmap, block: Block) -> Columns:
    rows = block.rows
    wide = np.frombuffer(data, "<i8", _ROW_INT64 * rows, block.offset).reshape(_ROW_INT64, rows)
    narrow = np.frombuffer(data, np.uint8, 4 * rows, block.offset + wide.nbytes).reshape(4, rows)
    return Columns(wide[0], wide[1:4], wide[4:7], wide[7:10], narrow[:3], narrow[3])


def open_decoded(path: Path, key: str) -> Decoded | None:
    """Map a cache; None where there is none, or where it is damaged, of another format, or of something else."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    index = _index(data)
    if index is None or index.format != FORMAT or index.key != key:
        return None
    if len(index.ends_us) != len(index.stretches):
        return None
    for block in index.blocks:
        size = block.rows * ROW_BYTES
        if not 0 <= block.stretch < len(index.stretches) or block.offset + size > len(data):
            return None
        with memoryview(data) as view:
            if crc32(view[block.offset : block.offset + size]) != block.crc:
                return None
        data.madvise(mmap.MADV_DONTNEED)
    return Decoded(index, data)


def _index(data: mmap.mmap) -> DecodedIndex | None:
    if len(data) < len(MAGIC) + _TRAILER.size or data[: len(MAGIC)] != MAGIC:
        return None
    length, crc, magic = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    start = len(data) - _TRAILER.size - length
    if magic != MAGIC or start < len(MAGIC):
        return None
    text = data[start : start + length]
    if crc32(text) != crc:
        return None
    try:
        return msgspec.json.decode(text, type=DecodedIndex)
    except msgspec.MsgspecError:
        return None
