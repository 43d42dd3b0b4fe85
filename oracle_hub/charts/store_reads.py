"""Reading the store, from any number of threads, while one writes: final rows from the file, newer from the builder."""

import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

import msgspec

from oracle_hub.charts.bars import Bar, Builder, Gap, Mark
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import SECOND_US, Resolution
from oracle_hub.charts.store_schema import BAR_COLUMNS, CODES, IS_FEED, Row, bar_of
from oracle_hub.errors import StoreError

_POINT_COLUMNS = """decided_us, epoch, seq, i.text, st.text, mantissa, expo, conf, so.text, ru.text, re.text,
    publish_us, valid_until_us"""
_POINT_NAMES = """JOIN names i ON i.id = instance_id JOIN names st ON st.id = state_id JOIN names ru ON ru.id = rule_id
    JOIN names re ON re.id = reason_id LEFT JOIN names so ON so.id = source_id"""
READ_CACHE_KIB = 16_384
BUSY_TIMEOUT_MS = 10_000


class Position(msgspec.Struct, frozen=True):
    """The last batch of the hub that the store holds: where to resume the stream."""

    instance: str
    epoch: int
    seq: int


class Reads:
    """What doors ask. Every method may block on the disk: call it from a thread. Each thread has its own connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.builder: Builder | None = None
        """Whose unsettled and open bars complete what is on disk; None: only what is on disk."""
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()

    def _query(self, sql: str, parameters: Iterable[object] = ()) -> list[Row]:
        try:
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._open_reader()
            return connection.execute(sql, tuple(parameters)).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be read ({error})") from None

    def _open_reader(self) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute(f"PRAGMA cache_size = -{READ_CACHE_KIB}")
        self._local.connection = connection
        with self._readers_lock:
            self._readers.append(connection)
        return connection

    def _name_id(self, text: str) -> int | None:
        rows = self._query("SELECT id FROM names WHERE text = ?", (text,))
        return int(rows[0][0]) if rows else None

    # Bars.

    def bars(self, feed: str, resolution: Resolution, from_us: int, to_us: int, limit: int | None = None) -> list[Bar]:
        """Bars with ``from_us <= start < to_us``, ascending: final ones and the open one; the first ``limit`` of them.

        Buckets in which no price was in force have none. An unknown feed has none.
        """
        # The builder first: a bar that is settled in between is then on disk, and one that is in both is taken once.
        tail = [] if self.builder is None else self.builder.tail(feed, resolution, from_us, to_us)
        rows = self._bar_rows(
            feed, resolution, "start_s >= ? AND start_s < ? ORDER BY start_s LIMIT ?", from_us, to_us, limit
        )
        bars = [bar_of(feed, resolution, row) for row in rows]
        joined = _joined(self._over(bars), tail)
        return joined if limit is None else joined[:limit]

    def last_bars(self, feed: str, resolution: Resolution, before_us: int, count: int) -> list[Bar]:
        """The last ``count`` bars with ``start < before_us``, ascending."""
        if count <= 0:
            return []
        tail = [] if self.builder is None else self.builder.tail(feed, resolution, 0, before_us)
        rows = self._bar_rows(
            feed, resolution, "start_s >= ? AND start_s < ? ORDER BY start_s DESC LIMIT ?", 0, before_us, count + 1
        )
        rows.reverse()
        return _joined(self._over([bar_of(feed, resolution, row) for row in rows]), tail)[-count:]

    def _over(self, stored: list[Bar]) -> list[Bar]:
        """These without what was imported of the bucket that is still open: the builder's bar is the one of it."""
        now_us = None if self.builder is None else self.builder.watermark_us
        if now_us is None or not stored or stored[-1].resolution.end_us(stored[-1].start_us) <= now_us:
            return stored
        place = bisect_right(stored, now_us, key=lambda bar: bar.start_us) - 1
        if place >= 0 and stored[place].imported and now_us < stored[place].resolution.end_us(stored[place].start_us):
            return stored[:place] + stored[place + 1 :]
        return stored

    def _bar_rows(
        self, feed: str, resolution: Resolution, where: str, from_us: int, to_us: int, limit: int | None
    ) -> list[Row]:
        feed_id = self._name_id(feed)
        if feed_id is None:
            return []
        return self._query(
            f"SELECT {BAR_COLUMNS} FROM bars WHERE feed_id = ? AND resolution = ? AND {where}",
            (feed_id, CODES[resolution], _ceil_s(from_us), _ceil_s(to_us), -1 if limit is None else limit),
        )

    def previous_start_us(self, feed: str, resolution: Resolution, before_us: int) -> int | None:
        """Start of the last bar that starts before this instant; None where there is none."""
        found = self.last_bars(feed, resolution, before_us, 1)
        return found[0].start_us if found else None

    def revisions(self, feed: str, resolution: Resolution, start_us: int) -> list[Bar]:
        """All that a final bar has been, oldest first; the last one is what it is."""
        feed_id = self._name_id(feed)
        key = (feed_id, CODES[resolution], start_us // SECOND_US)
        rows = self._query(
            f"SELECT {BAR_COLUMNS} FROM bar_revisions WHERE feed_id = ? AND resolution = ? AND start_s = ? UNION ALL "
            f"SELECT {BAR_COLUMNS} FROM bars WHERE feed_id = ? AND resolution = ? AND start_s = ? ORDER BY revision",
            key * 2,
        )
        return [bar_of(feed, resolution, row) for row in rows]

    def expo(self, feed: str) -> int | None:
        """Exponent of the newest that is known of a feed; None where nothing is."""
        newest = self.point_at(feed, decided_us=2**62)
        if newest is not None:
            return newest.expo
        rows = self._query(
            "SELECT expo FROM bars JOIN names ON id = feed_id WHERE text = ? ORDER BY start_s DESC LIMIT 1", (feed,)
        )
        return int(rows[0][0]) if rows else None

    # Points, marks, gaps.

    def feeds(self) -> list[str]:
        """Every feed with bars or points, by name."""
        rows = self._query(f"SELECT text FROM names WHERE {IS_FEED}")
        return sorted({row[0] for row in rows}.union([] if self.builder is None else self.builder.feeds))

    def points(self, feed: str, from_us: int, to_us: int, limit: int | None = None) -> list[Point]:
        """Points with ``from_us <= decided_us < to_us``, ascending. With ``limit`` the first so many."""
        tail = [] if self.builder is None else self.builder.tail_points(feed, from_us, to_us)
        found = self._points(
            feed,
            "decided_us >= ? AND decided_us < ? ORDER BY decided_us, epoch, seq LIMIT ?",
            (from_us, to_us, -1 if limit is None else limit),
        )
        joined = list({(point.decided_us, point.epoch, point.seq): point for point in (*found, *tail)}.values())
        joined.sort(key=lambda point: (point.decided_us, point.epoch, point.seq))
        return joined if limit is None else joined[:limit]

    def point_at(self, feed: str, *, decided_us: int | None = None, publish_time_us: int | None = None) -> Point | None:
        """The decision that held at an instant, or the first whose price was published at or after one.

        ``decided_us``: the last point decided at or before it (look at ``valid_until_us``: it may be over by then).
        ``publish_time_us``: the point with the earliest publish time that is not before it.
        """
        if decided_us is not None:
            found = self._points(
                feed, "decided_us <= ? ORDER BY decided_us DESC, epoch DESC, seq DESC LIMIT 1", (decided_us,)
            )
            tail = [] if self.builder is None else self.builder.tail_points(feed, 0, decided_us + 1)
            return tail[-1] if tail else found[0] if found else None
        if publish_time_us is None:
            return None
        found = self._points(feed, "publish_us >= ? ORDER BY publish_us, decided_us LIMIT 1", (publish_time_us,))
        tail = [] if self.builder is None else self.builder.tail_points(feed, 0, 2**62)
        later = [p for p in (*found, *tail) if p.publish_time_us is not None and p.publish_time_us >= publish_time_us]
        return min(later, key=lambda point: (point.publish_time_us, point.decided_us), default=None)

    def _points(self, feed: str, where: str, parameters: Row) -> list[Point]:
        feed_id = self._name_id(feed)
        if feed_id is None:
            return []
        rows = self._query(
            f"SELECT {_POINT_COLUMNS} FROM (SELECT * FROM points WHERE feed_id = ? AND {where}) {_POINT_NAMES} "
            "ORDER BY decided_us, epoch, seq",
            (feed_id, *parameters),
        )
        return [
            Point(
                feed,
                instance,
                epoch,
                seq,
                decided_us,
                state,
                mantissa,
                expo,
                conf,
                source,
                rule,
                reason,
                publish,
                until,
            )
            for (
                decided_us,
                epoch,
                seq,
                instance,
                state,
                mantissa,
                expo,
                conf,
                source,
                rule,
                reason,
                publish,
                until,
            ) in rows
        ]

    def marks(self, feed: str, from_us: int, to_us: int, limit: int = -1) -> list[Mark]:
        """Changes of state with ``from_us <= at < to_us``, ascending; with a limit, the last so many of them."""
        rows = self._query(
            "SELECT at_us, st.text, be.text, re.text, so.text, ru.text FROM marks JOIN names f ON f.id = feed_id "
            "JOIN names st ON st.id = state_id JOIN names re ON re.id = reason_id JOIN names ru ON ru.id = rule_id "
            "LEFT JOIN names be ON be.id = before_id LEFT JOIN names so ON so.id = source_id "
            "WHERE f.text = ? AND at_us >= ? AND at_us < ? ORDER BY at_us DESC LIMIT ?",
            (feed, from_us, to_us, limit),
        )
        return [Mark(feed, *row) for row in reversed(rows)]

    def gaps(self, from_us: int = 0, to_us: int = 2**62) -> list[Gap]:
        """Intervals in which not everything was told, that touch ``[from_us, to_us)``."""
        rows = self._query(
            "SELECT from_us, to_us, reason FROM gaps WHERE to_us > ? AND from_us < ? ORDER BY from_us", (from_us, to_us)
        )
        return [Gap(*row) for row in rows]

    # Where it stands.

    def position(self) -> Position | None:
        """The last batch whose points are all in here; None before the first."""
        ((instance, epoch, seq),) = self._query("SELECT instance, epoch, seq FROM position")
        return None if instance is None else Position(instance, epoch, seq)

    def watermark_us(self) -> int | None:
        """Up to which instant everything that was heard is in here; None before the first write."""
        ((watermark_us,),) = self._query("SELECT watermark_us FROM position")
        return None if watermark_us is None else int(watermark_us)


def _ceil_s(at_us: int) -> int:
    """Bars start at whole seconds: ``start_us >= at_us`` is ``start_s >= ceil``, and so is ``<``."""
    return -(-at_us // SECOND_US)


def _joined(stored: list[Bar], tail: list[Bar]) -> list[Bar]:
    """Stored bars, then those of the builder that are not stored. A stored one knows its revision."""
    if not tail:
        return stored
    if stored and tail[0].start_us <= stored[-1].start_us:
        known = {bar.start_us for bar in stored}
        return sorted([*stored, *(bar for bar in tail if bar.start_us not in known)], key=lambda bar: bar.start_us)
    return stored + tail
