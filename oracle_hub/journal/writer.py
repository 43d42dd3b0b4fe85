"""Appends records to the journal: in memory at once, to the file with one write per :meth:`JournalWriter.commit`.

One thread (the hub's loop) owns ``frame``, ``append``, ``commit`` and ``rotate``. ``sync``, ``seal_pending`` and
``enforce_budget`` wait for the disk and may run in another thread. What a full or failing disk costs is bounded and
stays on record: see :meth:`JournalWriter.commit`.
"""

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError
from oracle_hub.journal.files import OsSegmentFile, SegmentFile, lock_directory, write_some
from oracle_hub.journal.records import (
    REFERENCE_MIN_BYTES,
    REFERENCE_WINDOW_BYTES,
    Appended,
    FrameIn,
    Gap,
    LinkEvent,
    RecordType,
    encode_frame,
    encode_frame_ref,
    encode_link_name,
    encode_record,
    record_time_us,
    reseal,
)
from oracle_hub.journal.segments import (
    SegmentHeader,
    encode_header,
    last_epoch,
    remove_leftovers,
    segment_name,
    sync_directory,
)
from oracle_hub.journal.upkeep import Upkeep

_SLICE_BYTES = 2**20
"""A backlog is written in pieces of this size, so that a nearly full disk takes what it can."""
_SHARED_WINDOW_BYTES = REFERENCE_WINDOW_BYTES // 4
"""The writer remembers less than a reader has to: copies arrive close together, and what fits a cache is cheap."""
_KEPT = frozenset({RecordType.RUN_START, RecordType.CONFIG, RecordType.LINK_NAME, RecordType.GAP})
"""Never dropped: small, rare, and what follows cannot be read without them."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1_000


def _wall_us() -> int:
    return time.time_ns() // 1_000


class JournalWriter:
    """Writes the journal of one run into a directory that it holds alone.

    Opening never touches segments of earlier runs; it starts a new one. ``retention_s`` and ``disk_budget_bytes`` are
    limits that :meth:`enforce_budget` applies; None means no limit. ``references`` lets identical frames (the signed
    message that three hosts deliver) share one copy of their data.

    Raises:
        JournalError: another process holds the directory, the epoch is not newer than what the directory has, or the
            directory cannot be written.
    """

    bytes_written: int = 0
    records_written: int = 0
    """Records on disk in this run; the index of the next one."""
    records_lost: int = 0
    bytes_lost: int = 0
    buffered_bytes: int = 0
    write_failures: int = 0
    sync_failures: int = 0
    last_sync_us: int | None = None
    """Monotonic clock at the last successful :meth:`sync`."""
    number: int = 0
    """Of the segment being written, or of the last one."""
    last_error: str | None = None
    failing: bool = False
    """The disk refused the last write; records wait in memory."""

    # State whose first value is the same for every writer.
    _offset: int = 0
    _seed: int = 0
    _directory_dirty: bool = False
    _next_number: int = 0
    _torn: bool = False
    _suspect: bool = False
    _refused: bool = False
    _gap: Gap | None = None
    _failing_since_us: int = 0
    _retry_at_us: int = 0
    _slowest_write_us: int = 0

    def __init__(
        self,
        directory: Path | str,
        *,
        instance: str,
        epoch: int,
        max_segment_bytes: int = 64 * 2**20,
        retention_s: int | None = 72 * 3_600,
        disk_budget_bytes: int | None = 10 * 2**30,
        buffer_limit_bytes: int = 16 * 2**20,
        retry_interval_ms: int = 100,
        references: bool = True,
        opener: Callable[[Path], SegmentFile] = OsSegmentFile,
        clock: Callable[[], int] = _monotonic_us,
        wall_clock: Callable[[], int] = _wall_us,
    ) -> None:
        self.directory: Final = Path(directory)
        self.instance: Final = instance
        self.epoch: Final = epoch
        self.max_segment_bytes: Final = max_segment_bytes
        self.buffer_limit_bytes: Final = buffer_limit_bytes
        self._retry_interval_us = retry_interval_ms * 1_000
        self._opener, self._clock, self._wall_clock = opener, clock, wall_clock
        self._run_start_us = wall_clock()
        self.upkeep: Final = Upkeep(
            self.directory, retention_s=retention_s, disk_budget_bytes=disk_budget_bytes, wall_clock=wall_clock
        )

        self._links: dict[str, int] = {}
        self._pending: list[bytes] = []
        self._unwritten_refs: dict[bytes, tuple[int, int, Frame]] = {}
        self._references = references
        self._sharing = references
        self._seen: dict[bytes, int] = {}
        self._remembered: deque[tuple[int, bytes]] = deque()
        self._file: SegmentFile | None = None
        self._active: Path | None = None
        self._retired: list[SegmentFile] = []
        self._handover = threading.Lock()
        self._maintenance = threading.Lock()
        self._lock_descriptor = lock_directory(self.directory)
        try:
            self._start()
        except BaseException:
            os.close(self._lock_descriptor)
            raise

    def _start(self) -> None:
        newest = last_epoch(self.directory)
        if self.epoch <= newest:
            raise JournalError(
                f"journal directory {self.directory} has epoch {newest} and this run would be {self.epoch}: "
                "epochs must grow; start from a later one or move the old journal away"
            )
        try:
            remove_leftovers(self.directory)
            self._open_segment()
            sync_directory(self.directory)
            self._directory_dirty = False
            self.upkeep.count()
        except OSError as error:
            raise JournalError(f"cannot write the journal in {self.directory}: {error.strerror}") from error
        self.last_sync_us = self._clock()

    # -- appending: memory only --------------------------------------------------------------------------------------

    def link(self, name: str) -> int:
        """Return the number of a link for :meth:`frame`, the same for the whole run. Look it up once, not per frame.

        Raises:
            JournalError: more than 65,536 links.
        """
        link_id = self._links.get(name)
        if link_id is None:
            link_id = len(self._links)
            record = encode_link_name(link_id, name, self._seed)
            self._links[name] = link_id  # before the push: a segment that it opens begins with all names
            self._push(record)
        return link_id

    def frame(self, link_id: int, received_us: int, frame: Frame, *, unique: bool = False) -> None:
        """Append a frame; of a ``unique`` one no copy is looked for. Touches memory only, unless the buffer is full.

        A frame that no record can hold (16 MiB or more) is counted as lost and a gap stands in its place; it is for
        the transport to refuse such frames.
        """
        data = frame.data
        sharing = self._sharing and not unique and len(data) >= REFERENCE_MIN_BYTES
        try:
            if sharing:
                here = self._offset + self.buffered_bytes
                there = self._seen.get(data)
                if there is not None and here - there <= _SHARED_WINDOW_BYTES:
                    record = encode_frame_ref(link_id, received_us, frame, here - there, self._seed)
                    self._unwritten_refs[record] = (link_id, received_us, frame)
                    self._push(record)
                    return
            record = encode_frame(link_id, received_us, frame, self._seed)
        except JournalError as error:
            self._refuse(received_us, len(data), str(error))
            return
        if sharing:
            self._seen[data] = here
            self._remembered.append((here, data))
        self._push(record)

    def append(self, record: Appended) -> None:
        """Append any record. A frame goes the way of :meth:`frame`.

        Raises:
            JournalError: the record cannot be encoded.
        """
        if isinstance(record, FrameIn):
            self.frame(self.link(record.link), record.received_us, record.frame)
            return
        link_id = self.link(record.link) if isinstance(record, LinkEvent) else 0
        self._push(encode_record(record, link_id, self._seed))

    def _push(self, record: bytes) -> None:
        self._pending.append(record)
        self.buffered_bytes += len(record)
        if self.buffered_bytes > self.buffer_limit_bytes:
            self._flush()
            if self.buffered_bytes > self.buffer_limit_bytes:
                self._drop_oldest()

    def _refuse(self, received_us: int, size: int, reason: str) -> None:
        self.records_lost += 1
        self.bytes_lost += size
        self._refused = True
        self._push(encode_record(Gap(received_us, received_us, 1, size, reason), 0, self._seed))

    # -- writing -----------------------------------------------------------------------------------------------------

    def commit(self) -> bool:
        """Write everything appended with one ``write(2)``; return whether all of it is now in the file.

        True: a crash of this process loses nothing of it (a loss of power may, see :meth:`sync`). False: the disk
        refused, or a frame could not be recorded; publish with ``journaled: false``. Records then wait in memory up to
        ``buffer_limit_bytes``, beyond which the oldest are dropped and counted; writing is tried again after the retry
        interval, and a :class:`Gap` is written where records are missing. Never raises for what the disk does.
        """
        if self._pending or self._gap is not None:
            self._flush()
        whole = not (self._pending or self._refused or self._gap is not None)
        self._refused = False
        if whole:
            if self._remembered:
                self._forget_distant()
            if self._offset >= self.max_segment_bytes or self._suspect:
                self._rotate_when_due()
        return whole

    def _flush(self) -> None:
        if self._lock_descriptor < 0:
            raise JournalError(f"the journal in {self.directory} is closed: open a new writer under a greater epoch")
        if self.failing and self._clock() < self._retry_at_us:
            return
        began_us = self._clock()
        try:
            if self._file is None:
                self._open_segment()
            self._write_pending()
        except OSError as error:
            self._fail(error)
        else:
            self.failing = False
            self._sharing = self._references
        self._slowest_write_us = max(self._slowest_write_us, self._clock() - began_us)

    def _write_pending(self) -> None:
        file = self._file
        assert file is not None
        if self._torn:
            file.truncate(self._offset)
            self._torn = False
        gap, gap_record = self._gap, b""
        if gap is not None:
            gap_record = encode_record(gap, 0, self._seed)
            self._pending.insert(0, gap_record)
            self.buffered_bytes += len(gap_record)
            self._gap = None
        try:
            while self._pending:
                self._write_batch(file)
        except OSError:
            if gap is not None and self._pending[0] is gap_record:  # not written: it goes on growing
                del self._pending[0]
                self.buffered_bytes -= len(gap_record)
                self._gap = gap
            raise

    def _write_batch(self, file: SegmentFile) -> None:
        batch = self._pending if self.buffered_bytes <= _SLICE_BYTES else self._first_slice()
        blob = b"".join(batch)
        written = 0
        try:
            while written < len(blob):
                written += write_some(file, memoryview(blob)[written:] if written else blob, self._offset + written)
        except OSError:
            self._keep_whole_records(batch, written)
            raise
        self._wrote(len(batch), len(blob))

    def _first_slice(self) -> list[bytes]:
        size = 0
        for index, record in enumerate(self._pending):
            size += len(record)
            if size >= _SLICE_BYTES:
                return self._pending[: index + 1]
        return self._pending

    def _keep_whole_records(self, batch: list[bytes], written: int) -> None:
        count = size = 0
        for record in batch:
            if size + len(record) > written:
                break
            count += 1
            size += len(record)
        self._torn = self._torn or written > size
        self._wrote(count, size)

    def _wrote(self, records: int, size: int) -> None:
        if records == len(self._pending):
            self._pending.clear()
            self._unwritten_refs.clear()
        else:
            del self._pending[:records]
        self._offset += size
        self.bytes_written += size
        self.records_written += records
        self.buffered_bytes -= size

    def _fail(self, error: OSError) -> None:
        now_us = self._clock()
        self.write_failures += 1
        self.last_error = f"{self._active or self.directory}: {error.strerror}"
        self._retry_at_us = now_us + self._retry_interval_us
        if not self.failing:
            self.failing = True
            self._failing_since_us = now_us
            self._write_out_references()
        if self.buffered_bytes > self.buffer_limit_bytes:
            self._drop_oldest()
        if self._file is None:
            return
        if self._torn:
            try:
                self._file.truncate(self._offset)
                self._torn = False
            except OSError:
                pass  # tried again before the next write; a reader stops at the torn record until then
        if error.errno not in _FULL:
            self._retire()  # the file itself may be bad: the next try opens another

    def _write_out_references(self) -> None:
        """While the disk fails records may be dropped, so none may point at another."""
        refs = self._unwritten_refs
        if refs:
            pending = self._pending
            self._pending = [encode_frame(*refs[r], self._seed) if r in refs else r for r in pending]
            self.buffered_bytes = sum(map(len, self._pending))
            refs.clear()
        self._forget_all()
        self._sharing = False

    def _drop_oldest(self) -> None:
        """Drop an eighth of the limit at once, so that a full buffer does not cost a pass over it per frame."""
        target = self.buffer_limit_bytes - self.buffer_limit_bytes // 8
        kept: list[bytes] = []
        times: list[int] = []
        size, lost, passed = self.buffered_bytes, 0, 0
        for record in self._pending:
            if size <= target:
                break
            passed += 1
            if record[4] in _KEPT:
                kept.append(record)
                continue
            size -= len(record)
            lost += 1
            time_us = record_time_us(record)
            if time_us is not None:
                times.append(time_us)
        if not lost:
            return
        lost_bytes = self.buffered_bytes - size
        self._pending = kept + self._pending[passed:]
        self.buffered_bytes = size
        self.records_lost += lost
        self.bytes_lost += lost_bytes
        gap = self._gap or Gap(times[0] if times else 0, 0, 0, 0, self.last_error or "the disk refused")
        to_us = times[-1] if times else gap.to_us
        self._gap = Gap(gap.from_us, to_us, gap.records_lost + lost, gap.bytes_lost + lost_bytes, gap.reason)

    def _forget_all(self) -> None:
        self._seen.clear()
        self._remembered.clear()

    def _forget_distant(self) -> None:
        oldest = self._offset - _SHARED_WINDOW_BYTES
        remembered, seen = self._remembered, self._seen
        while remembered and remembered[0][0] < oldest:
            offset, data = remembered.popleft()
            if seen.get(data) == offset:
                del seen[data]

    # -- segments ----------------------------------------------------------------------------------------------------

    @property
    def active(self) -> Path | None:
        """The segment being written, or None while none can be opened."""
        return self._active

    def rotate(self) -> bool:
        """Close the active segment and begin the next. Commits first; False when the disk does not let it."""
        return self.commit() and self._rotate()

    def _rotate_when_due(self) -> None:
        if self._clock() >= self._retry_at_us:
            self._rotate()

    def _rotate(self) -> bool:
        old_file = self._file
        try:
            self._open_segment()
        except OSError as error:  # go on in the old one, and try again later
            self.write_failures += 1
            self.last_error = f"{self.directory}: {error.strerror}"
            self._retry_at_us = self._clock() + self._retry_interval_us
            return False
        if old_file is not None:
            with self._handover:
                self._retired.append(old_file)
        return True

    def _open_segment(self) -> None:
        """Create the next segment with its header and the names of all links, and reseal what waits for it."""
        number, start_us = self._next_number, self._wall_clock()
        self._next_number += 1  # also where it can't be opened: a part of it may lie there
        path = self.directory / segment_name(self.epoch, number, start_us)
        header = SegmentHeader(self.instance, self.epoch, self._run_start_us, start_us, self.records_written, number)
        head, seed = encode_header(header)
        names = [encode_link_name(link_id, name, seed) for name, link_id in self._links.items()]
        blob = head + b"".join(names)
        file = self._opener(path)
        written = 0
        try:
            while written < len(blob):
                written += write_some(file, memoryview(blob)[written:], written)
        except OSError:
            file.close()
            path.unlink(missing_ok=True)
            raise
        self._pending = [reseal(r, seed) for r in self._pending if r[4] != RecordType.LINK_NAME]
        self.buffered_bytes = sum(map(len, self._pending))
        self._file, self._active, self._seed, self._offset = file, path, seed, len(blob)
        self.number = number
        self._torn = self._suspect = False
        self._forget_all()
        self.bytes_written += len(blob)
        self.records_written += len(names)
        self.upkeep.segments += 1
        self._directory_dirty = True

    def _retire(self) -> None:
        if self._file is not None:
            with self._handover:
                self._retired.append(self._file)
        self._file = self._active = None

    @property
    def lag_us(self) -> int:
        """For how long the disk has been refusing, on the monotonic clock; 0 while it takes everything."""
        return self._clock() - self._failing_since_us if self.failing else 0

    @property
    def sync_age_us(self) -> int:
        """Since the last successful :meth:`sync`, on the monotonic clock: what a loss of power may cost."""
        return 0 if self.last_sync_us is None else self._clock() - self.last_sync_us

    def take_slowest_write_us(self) -> int:
        """How long the slowest write took since this was asked last."""
        slowest_us, self._slowest_write_us = self._slowest_write_us, 0
        return slowest_us

    # -- the slow part: may run in another thread --------------------------------------------------------------------

    def sync(self) -> bool:
        """Wait until what was committed is on disk (``fdatasync``), with the directory's new names.

        Returns False when the disk reports an error. The kernel may then have thrown pages away, so the next commit
        goes on in a new segment.
        """
        with self._maintenance:
            return self._sync()

    def _sync(self) -> bool:
        now_us = self._clock()
        with self._handover:
            active = self._file
            retired, self._retired = self._retired, []
        dirty = self._directory_dirty
        if dirty:  # not unasked: the loop may open a segment, and say so, between asking and this
            self._directory_dirty = False
        good = True
        for file in retired:
            good &= self._attempt(file.sync)
            self._attempt(file.close)
        if active is not None:
            # Only this method and close() close a file, and both hold the maintenance lock.
            active_good = self._attempt(active.sync)
            self._suspect = self._suspect or not active_good
            good &= active_good
        if dirty and not self._attempt(lambda: sync_directory(self.directory)):
            self._directory_dirty = True
            good = False
        if good:
            self.last_sync_us = now_us
        return good

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except OSError as error:
            self.sync_failures += 1
            self.last_error = f"{self.directory}: sync: {error.strerror}"
            return False
        return True

    def seal_pending(self) -> int:
        """Check and compress every closed segment; return how many were. See :meth:`Upkeep.seal`."""
        with self._maintenance:
            open_from = self.epoch, self.number
            self._sync()  # closes the files of those before
            return self.upkeep.seal(open_from)

    def enforce_budget(self) -> int:
        """Delete the oldest segments beyond the retention or the disk budget; return how many. Never the active one.

        See :meth:`Upkeep.delete`.
        """
        with self._maintenance:
            deleted = self.upkeep.delete()
            if deleted:
                self._directory_dirty = True
            return deleted

    def close(self) -> bool:
        """Commit, sync, close all files and give the directory up. Returns whether everything appended is on disk.

        A writer that is closed takes nothing more: its next write raises JournalError. Closing twice does no harm.
        """
        if self._lock_descriptor < 0:
            return not self._pending
        self._retry_at_us = 0
        good = self.commit()
        with self._maintenance:
            good = self._sync() and good
            with self._handover:
                files, self._retired = self._retired, []
            if self._file is not None:
                files.append(self._file)
            self._file = self._active = None
            for file in files:
                self._attempt(file.close)
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1
        return good
