"""What the stream tells, as points. Pure."""

import msgspec

from oracle_hub.charts.points import Point, point_from_entry
from oracle_hub.client import Update


def point_of(update: Update) -> Point | None:
    """The decision that an update of mode ``all`` carries; None where the news is the client's own."""
    entry = update.entry
    return None if entry is None else point_from_entry(entry, update.instance, update.epoch, update.seq)


class Heard(msgspec.Struct, frozen=True, gc=False):
    """A run of the stream."""

    points: list[Point]
    """New decisions, in order."""
    lost: dict[str, int]
    """Feeds of which decisions were missed for good, with the hub's time of the first decision after the hole."""
    heard_us: int | None
    """The hub's time until which this is everything; None where unknown."""


class Hearing:
    """Tells new decisions from those that were told again: a snapshot repeats what is known."""

    def __init__(self, last: dict[str, Point]) -> None:
        """``last`` is the last point of each feed that was written down."""
        self._last = dict(last)

    def take(self, updates: list[Update], heard_us: int | None) -> Heard:
        """Sort what the client gave."""
        points: list[Point] = []
        lost: dict[str, int] = {}
        for update in updates:
            point = point_of(update)
            if point is None:
                continue
            before = self._last.get(point.feed)
            if update.lost:
                lost.setdefault(point.feed, point.decided_us)
            if before is not None and self._told_before(before, point):
                continue
            self._last[point.feed] = point
            points.append(point)
        return Heard(points, lost, heard_us)

    @staticmethod
    def _told_before(before: Point, point: Point) -> bool:
        """Whether a point is the one that is held: in a snapshot it has the snapshot's sequence, not its own."""
        if (before.instance, before.epoch) != (point.instance, point.epoch):
            return False
        if point.seq < before.seq:
            return True
        return point.decided_us <= before.decided_us
