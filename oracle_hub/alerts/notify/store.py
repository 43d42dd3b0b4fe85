"""Lines of all channels on disk: one SQLite file, written by a thread of its own.

What is in memory is what counts while the hub lives; the file is for the next one. So nobody waits for the disk for
long: changes of a line that were not written yet are replaced by its next ones, which bounds what waits by the number
of lines, and a disk that refuses is tried again until it takes them.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

APPLICATION_ID = 0x4F48_414C
RETRY_S = 1.0
FLUSH_AT_END_S = 0.5
_TABLE = """
CREATE TABLE IF NOT EXISTS line (
    channel TEXT NOT NULL,
    occurrence TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (channel, occurrence)
) WITHOUT ROWID
"""
_Key = tuple[str, str]
_Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]


class Store:
    """The file. ``kill -9`` loses nothing that :meth:`written` waited for; a power cut may take the last second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: str | None = None
        """Why nothing is written at present; None while it works."""
        self._changes: dict[_Key, bytes | None] = {}
        self._waiters: list[_Waiter] = []
        self._more = threading.Condition()
        self._writing = False
        self._closing = False
        self._thread: threading.Thread | None = None

    def open(self) -> dict[str, dict[str, bytes]]:
        """Read what the last run left, by channel and occurrence, and begin to write. Blocks; never raises.

        A file that is no such file is moved aside: then nothing is known of the last run.
        """
        saved: dict[str, dict[str, bytes]] = {}
        try:
            saved = self._read()
        except (sqlite3.OperationalError, OSError) as error:
            self._failed(error)
        except sqlite3.DatabaseError as error:
            self._put_aside(error)
        self._thread = threading.Thread(target=self._write, name="alerts-outbox", daemon=True)
        self._thread.start()
        return saved

    def keep(self, channel: str, lines: Mapping[str, bytes | None]) -> None:
        """Have these lines written soon; None deletes. Does not block."""
        with self._more:
            self._changes.update({(channel, occurrence): body for occurrence, body in lines.items()})
            self._more.notify()

    async def written(self, timeout_s: float) -> None:
        """Wait until all that was kept so far is written, and no longer than this."""
        loop = asyncio.get_running_loop()
        with self._more:
            idle = not (self._changes or self._waiters or self._writing)
            if self._thread is None or idle or self.error is not None:
                return
            done = loop.create_future()
            self._waiters.append((loop, done))
            self._more.notify()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await done

    def close(self) -> None:
        """Write what is left, within a moment. Blocks so long."""
        with self._more:
            self._closing = True
            self._more.notify()
        if self._thread is not None:
            self._thread.join(FLUSH_AT_END_S)

    # In the thread.

    def _write(self) -> None:
        database: sqlite3.Connection | None = None
        while True:
            with self._more:
                while not (self._changes or self._waiters or self._closing):
                    self._more.wait()
                changes, self._changes = self._changes, {}
                waiters, self._waiters = self._waiters, []
                closing, self._writing = self._closing, True
            try:
                if changes:
                    database = database or self._connect()
                    _apply(database, changes)
                self.error = None
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
                _close(database)
                database = None
                with self._more:
                    self._changes = changes | self._changes
                    closing = closing or self._closing
                    if not closing:
                        self._more.wait(RETRY_S)
            with self._more:
                self._writing = False
            for loop, done in waiters:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_finish, done)
            if closing:
                _close(database)
                return

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(_TABLE)
        return database

    def _read(self) -> dict[str, dict[str, bytes]]:
        saved: dict[str, dict[str, bytes]] = {}
        with contextlib.closing(self._connect()) as database:
            for channel, occurrence, body in database.execute("SELECT channel, occurrence, body FROM line"):
                saved.setdefault(channel, {})[occurrence] = body
        return saved

    def _put_aside(self, error: Exception) -> None:
        aside = self.path.with_suffix(".damaged")
        log.error("%s cannot be read (%s): moved to %s; alerts begin anew", self.path, error, aside.name)
        try:
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        except OSError as failure:
            self._failed(failure)

    def _failed(self, error: Exception) -> None:
        if self.error is None:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            log.error("%s cannot be written (%s): alerts are sent, and not kept over a restart", self.path, why)
            self.error = why


def _apply(database: sqlite3.Connection, changes: Mapping[_Key, bytes | None]) -> None:
    gone = [key for key, body in changes.items() if body is None]
    kept = [(*key, body) for key, body in changes.items() if body is not None]
    database.execute("BEGIN IMMEDIATE")
    try:
        database.executemany("DELETE FROM line WHERE channel = ? AND occurrence = ?", gone)
        database.executemany("INSERT OR REPLACE INTO line VALUES (?, ?, ?)", kept)
        database.execute("COMMIT")
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _close(database: sqlite3.Connection | None) -> None:
    if database is not None:
        with contextlib.suppress(sqlite3.Error):
            database.close()


def _finish(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
