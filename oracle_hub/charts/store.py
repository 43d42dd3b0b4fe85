"""The store: bars, points and marks in one SQLite file, written by one process in whole transactions.

A write is all or nothing, and holds the position in the stream beside what was made of it. So ``kill -9`` at any moment
leaves a file that says exactly from where to go on. A power cut may take the last seconds, never the consistency.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from oracle_hub.charts.bars import LONG_AGO_US, Bar, Builder, Gap, Harvest, Mark
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import DAY_US, RESOLUTIONS, SECOND_US, Resolution
from oracle_hub.charts.seams import RECORDED_BEFORE, put_bars
from oracle_hub.charts.store_reads import BUSY_TIMEOUT_MS, Reads
from oracle_hub.charts.store_reads import Position as Position
from oracle_hub.charts.store_schema import (
    APPLICATION_ID,
    CODES,
    HAS_POINTS,
    IS_FEED,
    NEWEST_POINT,
    PUT_GAP,
    PUT_MARK,
    PUT_POINT,
    SCHEMA_VERSION,
    TABLES,
    Row,
)
from oracle_hub.errors import StoreError

log = logging.getLogger(__name__)
Result = TypeVar("Result")

WAL_LIMIT_BYTES = 64 << 20
MIN_DATABASE_BYTES = 512
PRUNE_ROWS = 20_000
"""Rows that one call of ``prune`` deletes at most, so that it never holds up a write for long."""

DEFAULT_RETENTION_DAYS: dict[Resolution, int | None] = {
    Resolution.S1: 7,
    Resolution.S5: 14,
    Resolution.S15: 30,
    Resolution.M1: 800,
} | dict.fromkeys(RESOLUTIONS[4:])
"""None: for ever."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long rows are kept, in days; None: for ever."""

    bars_days: Mapping[Resolution, int | None] = msgspec.field(default_factory=DEFAULT_RETENTION_DAYS.copy)
    points_days: int | None = 7
    marks_days: int | None = 800

    def check(self) -> None:
        """Raise StoreError where a resolution would go before the coarser ones are derived from it."""
        for resolution in RESOLUTIONS:
            least = 32 if resolution is Resolution.D1 else 2
            days = self.bars_days.get(resolution)
            if days is not None and days < least:
                raise StoreError(f"bars of {resolution.label} must be kept for {least} days at least, not {days}")
        if self.points_days is not None and self.points_days < 1:
            raise StoreError(f"points must be kept for 1 day at least, not {self.points_days}")


class Written(msgspec.Struct, frozen=True):
    """What a write did to the rows of bars."""

    changed: int
    """New or corrected."""
    unchanged: int
    """The same row was there already, or one that has precedence."""


class Store(Reads):
    """Use :func:`open_store`. Writing methods may be called from one thread at a time; reading ones from any."""

    def __init__(self, path: Path, connection: sqlite3.Connection, retention: Retention, lock_file: int | None) -> None:
        super().__init__(path)
        self.retention = retention
        self._db = connection
        self._lock_file = lock_file
        self._write_lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._data_version: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, once a write that is under way has ended. Nothing may be read any more."""
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        with self._write_lock:  # closing a connection under a statement ends the whole process
            self._db.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    # Writing.

    def write(
        self,
        points: Sequence[Point] = (),
        bars: Sequence[Bar] = (),
        position: Position | None = None,
        *,
        marks: Sequence[Mark] = (),
        gaps: Sequence[Gap] = (),
        watermark_us: int | None = None,
        instead_of_us: tuple[int, int] | None = None,
    ) -> Written:
        """Write all of this, or nothing, in one transaction. A bar that differs from the stored one is a new revision.

        ``instead_of_us``: points and marks of this time, start inclusive, end exclusive, make room for the given ones.

        Raises:
            StoreError: nothing of it was written (disk full, I/O error). What was held stays readable; try again later.
        """

        def put(db: sqlite3.Connection) -> Written:
            changed = put_bars(db, bars, self._id)
            if instead_of_us is not None:
                db.execute("DELETE FROM points WHERE decided_us >= ? AND decided_us < ?", instead_of_us)
                db.execute("DELETE FROM marks WHERE at_us >= ? AND at_us < ?", instead_of_us)
            if points:
                db.executemany(PUT_POINT, [self._point_row(point) for point in points])
            if marks:
                db.executemany(PUT_MARK, [self._mark_row(mark) for mark in marks])
            if gaps:
                db.executemany(PUT_GAP, [(gap.from_us, gap.to_us, gap.reason) for gap in gaps])
            if position is not None:
                db.execute(
                    "UPDATE position SET instance = ?, epoch = ?, seq = ?",
                    (position.instance, position.epoch, position.seq),
                )
            if watermark_us is not None:
                db.execute("UPDATE position SET watermark_us = ?", (watermark_us,))
            return Written(changed, len(bars) - changed)

        return self._transaction(put)

    def write_harvest(self, harvest: Harvest, position: Position | None = None) -> Written:
        """Write what a builder gave out; then call ``builder.settle``. On StoreError try again later, in order."""
        return self.write(
            harvest.points,
            harvest.bars,
            position,
            marks=harvest.marks,
            gaps=harvest.gaps,
            watermark_us=harvest.watermark_us,
        )

    def told_again(
        self, from_us: int, to_us: int, gaps: Sequence[Gap], position: Position | None, *, first: bool = False
    ) -> None:
        """Everything of ``[from_us, to_us)`` was written anew, but for ``gaps``; the older ones in there are filled.
        What was told of such a gap before stays told.

        Where it reaches further than what was written before, recording goes on from its end, at ``position``. What
        then lies between the two is a gap. ``first``: nothing was decided before ``from_us``.
        """

        def put(db: sqlite3.Connection) -> None:
            held = [Gap(*row) for row in db.execute("SELECT from_us, to_us, reason FROM gaps")]
            watermark_us = db.execute("SELECT watermark_us FROM position").fetchone()[0]
            untold = [(gap.from_us, gap.to_us) for gap in held]
            untold.append((LONG_AGO_US if watermark_us is None else watermark_us, to_us))
            if watermark_us is None:
                held.append(Gap(LONG_AGO_US, from_us, "recording began here"))
            elif watermark_us < from_us:
                held.append(Gap(watermark_us, from_us, "nothing tells of this time"))
            left = [
                Gap(start_us, end_us, gap.reason)
                for gap in held
                for start_us, end_us in ((gap.from_us, min(gap.to_us, from_us)), (max(gap.from_us, to_us), gap.to_us))
                if start_us < end_us and not (first and (start_us, end_us) == (LONG_AGO_US, from_us))
            ]
            left += [
                Gap(max(gap.from_us, start_us), min(gap.to_us, end_us), gap.reason)
                for gap in gaps
                for start_us, end_us in untold
                if max(gap.from_us, start_us) < min(gap.to_us, end_us)
            ]
            db.execute("DELETE FROM gaps")
            db.executemany(PUT_GAP, [(gap.from_us, gap.to_us, gap.reason) for gap in left])
            if position is not None and (watermark_us is None or watermark_us < to_us):
                db.execute(
                    "UPDATE position SET instance = ?, epoch = ?, seq = ?, watermark_us = ?",
                    (position.instance, position.epoch, position.seq, to_us),
                )

        self._transaction(put)

    def changed_by_others(self) -> bool:
        """Whether another process has written since this was last asked: an import, or bars that were made anew.

        What this store writes itself is not told. The first time it is not known, and taken for yes.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            with self._write_lock:
                ((version,),) = self._db.execute("PRAGMA data_version").fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be read ({error})") from None
        before, self._data_version = self._data_version, int(version)
        return before != self._data_version

    def prune(self, now_us: int) -> int:
        """Delete what is older than its retention, some rows at a time; returns how many (0: done). Readers go on."""

        def put(db: sqlite3.Connection) -> int:
            left = PRUNE_ROWS
            feed_ids = [row[0] for row in db.execute(f"SELECT id FROM names WHERE {IS_FEED}")]
            for feed_id in feed_ids:
                for resolution, days in self.retention.bars_days.items():
                    if days is not None and left > 0:
                        before_s = (now_us - days * DAY_US) // SECOND_US
                        key = (feed_id, CODES[resolution], before_s)
                        left -= _delete(db, "bars", "resolution = ? AND start_s", key, left)
            for feed_id in feed_ids:
                if self.retention.points_days is not None and left > 0:
                    # The newest point of a feed is what a restart goes on from.
                    before_us = now_us - self.retention.points_days * DAY_US
                    newest_us = db.execute(NEWEST_POINT, (feed_id,)).fetchone()[0] or 0
                    left -= _delete(db, "points", "decided_us", (feed_id, min(before_us, newest_us)), left)
                if self.retention.marks_days is not None and left > 0:
                    before_us = now_us - self.retention.marks_days * DAY_US
                    left -= _delete(db, "marks", "at_us", (feed_id, before_us), left)
            return PRUNE_ROWS - left

        return self._transaction(put)

    def _transaction(self, put: Callable[[sqlite3.Connection], Result]) -> Result:
        with self._write_lock:
            db = self._db
            try:
                db.execute("BEGIN IMMEDIATE")
                result = put(db)
                db.execute("COMMIT")
            except (sqlite3.Error, OverflowError) as error:
                self._roll_back()
                raise _write_error(self.path, error) from None
            except BaseException:
                self._roll_back()
                raise
            return result

    def _roll_back(self) -> None:
        self._ids.clear()
        # Where even this fails, SQLite has rolled back already, or does so before the next transaction.
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _id(self, text: str) -> int:
        """Number of a name. Names written in a transaction that failed are forgotten with it."""
        found = self._ids.get(text)
        if found is None:
            row = self._db.execute("SELECT id FROM names WHERE text = ?", (text,)).fetchone()
            if row is None:
                row = self._db.execute("INSERT INTO names (text) VALUES (?) RETURNING id", (text,)).fetchone()
            found = self._ids[text] = int(row[0])
        return found

    def _maybe_id(self, text: str | None) -> int | None:
        return None if text is None else self._id(text)

    def _point_row(self, point: Point) -> Row:
        return (
            self._id(point.feed),
            point.decided_us,
            point.epoch,
            point.seq,
            self._id(point.instance),
            self._id(point.state),
            point.mantissa,
            point.expo,
            point.conf,
            self._maybe_id(point.source),
            self._id(point.rule),
            self._id(point.reason),
            point.publish_time_us,
            point.valid_until_us,
        )

    def _mark_row(self, mark: Mark) -> Row:
        return (
            self._id(mark.feed),
            mark.at_us,
            self._id(mark.state),
            self._maybe_id(mark.before),
            self._id(mark.reason),
            self._maybe_id(mark.source),
            self._id(mark.rule),
        )

    # Going on after a restart.

    def resume_builder(self, begin_us: int, *, first: bool = False) -> Builder:
        """A builder that goes on where the store stopped; in an empty store one that begins at ``begin_us``.

        ``first``: nothing was decided before ``begin_us``, so that there is no gap before it.

        It is also what completes the reads of this store from now on.
        """
        watermark_us = self.watermark_us()
        if watermark_us is None:
            self.builder = Builder(begin_us, first=first)
            return self.builder
        start_us = Resolution.S1.start_us(watermark_us)
        builder = Builder(start_us, resumed=True)
        builder.remember_gaps(self.gaps())
        for feed in [row[0] for row in self._query(f"SELECT text FROM names WHERE {HAS_POINTS}")]:
            points = self.points(feed, start_us, 2**62)
            before = self.point_at(feed, decided_us=start_us - 1)
            points = points if before is None else [before, *points]

            def parents(resolution: Resolution, parent: Resolution, bucket_us: int, feed: str = feed) -> Iterable[Bar]:
                held = self.bars(feed, parent, bucket_us, parent.start_us(start_us))
                key = self._name_id(feed), CODES[parent], bucket_us // SECOND_US
                if held and held[0].imported and not self._query(RECORDED_BEFORE, key):
                    return held  # the recording began in this bucket, behind what was imported
                return [bar for bar in held if not bar.imported]

            builder.resume_feed(points, parents)
        builder.watermark(watermark_us)
        self.builder = builder
        return builder


def _delete(db: sqlite3.Connection, table: str, where: str, key: Row, limit: int) -> int:
    """Delete the oldest rows of a feed below the last value of ``key``; returns how many."""
    column = where.rsplit(" ", 1)[-1]
    bound = db.execute(
        f"SELECT {column} FROM {table} WHERE feed_id = ? AND {where} < ? ORDER BY {column} LIMIT 1 OFFSET ?",
        (*key, limit),
    ).fetchone()
    upper = key[-1] if bound is None else bound[0]
    return db.execute(f"DELETE FROM {table} WHERE feed_id = ? AND {where} < ?", (*key[:-1], upper)).rowcount


def _write_error(path: Path, error: Exception) -> StoreError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return StoreError(
            f"{path}: the disk is full; nothing of this write was kept, what was held stays readable. Make room on it"
        )
    if name.startswith("SQLITE_BUSY"):
        return StoreError(f"{path}: another process writes for more than {BUSY_TIMEOUT_MS // 1000} s; try again later")
    return StoreError(
        f"{path}: cannot be written ({error}); nothing of this write was kept. Look at its disk, then try again"
    )


# Opening.


def open_store(path: Path, *, retention: Retention | None = None, recording: bool = False) -> Store:
    """Open the store, or make one. Its integrity is checked first.

    With ``recording`` it is refused while another process records into it. Imports and rebuilds need no such claim:
    their transactions wait for each other.

    Raises:
        StoreError: not a store, damaged, of another version, or in use. The file is left as it is.
    """
    retention = retention or Retention()
    retention.check()
    lock_file = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if recording:
            lock_file = _claim(path)
        connection = _connect(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror})") from None
    except sqlite3.Error as error:
        if lock_file is not None:
            os.close(lock_file)
        raise _open_error(path, error) from None
    except StoreError:
        if lock_file is not None:
            os.close(lock_file)
        raise
    return Store(path, connection, retention, lock_file)


def _claim(path: Path) -> int:
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreError(f"{path}: another process records into it; stop that one, or give another file") from None
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    if path.exists() and 0 < path.stat().st_size < MIN_DATABASE_BYTES:
        raise _damaged(path, "too short to be a database")  # which SQLite would take for an empty one
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            _check(path, connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            for statement in TABLES:
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError(f"{path}: a database of another program; give another file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema version {version}, this program knows {SCHEMA_VERSION}; use the version of oracle-hub "
            "that wrote it, or move it away and run rebuild-bars"
        )
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _damaged(path, found)


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path}: damaged ({' '.join(what.split())[:120]}); it was left as it is. Move it away with its -wal file, and "
        "run rebuild-bars to make it anew from the journal"
    )


def _open_error(path: Path, error: sqlite3.Error) -> StoreError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT")):
        return _damaged(path, str(error))
    if name == "SQLITE_FULL":
        return _write_error(path, error)
    return StoreError(f"{path}: cannot be opened ({error})")
