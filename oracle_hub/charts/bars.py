"""Bars from points: pure, exact to the microsecond, and the same however the points were cut into pieces.

>>> builder = Builder(begin_us)
>>> builder.add(point)             # in the order of the stream
>>> builder.watermark(heard_us)    # everything decided before this instant was heard
>>> harvest = builder.drain()      # what is final since the last one; write it, then
>>> builder.settle(harvest)

A bucket in which a price was in force has a bar. Open is the price in force at its start, else the first decision's;
close is the last one in force; ``updates`` counts decisions with a price, so 0 marks a carried bar. Time without a
price and time degraded are counted. No price in force: no bar.

Bars of one second are made from points. Every other resolution is folded from the final bars of its parent, never from
points again. A bar is final once its end has been heard.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from oracle_hub.charts.parts import CHILDREN, NEVER_US, Part
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution

LONG_AGO_US = 0
"""Where the gap before the first recording begins."""
LEASE_OVER_AFTER_US = 1_000_000
"""A lease that was over for so long before the next decision ended by itself: the hub was away."""
_STEP_2_US = 5 * SECOND_US


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One bucket of one feed. Prices are mantissas at ``expo``; times in µs, UTC."""

    feed: str
    resolution: Resolution
    start_us: int
    open: int
    high: int
    low: int
    close: int
    expo: int
    updates: int
    """Decisions with a price in this bucket; 0: the price was carried through it."""
    degraded_us: int
    """Time with a price whose state was ``degraded``."""
    none_us: int
    """Time without a price; of an open bar, as far as it was heard."""
    closed: bool = True
    """Final but for numbered corrections; an open bar still grows."""
    revision: int = 0
    """How often the stored bar was corrected."""
    imported: bool = False
    """From somebody else's history, not from what was told on the stream."""
    gap: bool = False
    """Not everything that was decided in this bucket was told."""


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A change of a feed's state."""

    feed: str
    at_us: int
    state: str
    before: str | None
    """The state it had; None at the first one known."""
    reason: str
    source: str | None
    rule: str


class Gap(msgspec.Struct, frozen=True, gc=False):
    """``[from_us, to_us)``: not everything that was decided in it was told."""

    from_us: int
    to_us: int
    reason: str


class Harvest(msgspec.Struct, frozen=True):
    """What is new since the one before, to be written in one transaction."""

    points: list[Point]
    bars: list[Bar]
    """Final ones. Of one feed and resolution: ascending."""
    marks: list[Mark]
    gaps: list[Gap]
    watermark_us: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing but the watermark in it."""
        return not (self.points or self.bars or self.marks or self.gaps)


class _Feed:
    """One feed: the price in force, and the open part of every resolution."""

    __slots__ = ("cursor_us", "degraded", "expo", "last", "mantissa", "name", "parts", "until_us")

    def __init__(self, name: str, cursor_us: int) -> None:
        self.name = name
        self.cursor_us = cursor_us
        """Everything before is accounted for."""
        self.last: Point | None = None
        self.mantissa: int | None = None
        self.expo = 0
        self.degraded = False
        self.until_us = NEVER_US
        self.parts = [Part() for _ in RESOLUTIONS]
        self.parts[0].move_to(Resolution.S1, cursor_us)


class Builder:
    """Keeps the open bars of all feeds, gives out final ones. ``live`` and ``tail`` may be read from other threads."""

    def __init__(self, begin_us: int, *, resumed: bool = False, first: bool = False) -> None:
        """Begin at ``begin_us``. All before it is a gap, so bars that began before are marked.

        Unless it was ``resumed`` (then gaps are remembered), or nothing was decided before (``first``).
        """
        self._lock = threading.Lock()
        self._feeds: dict[str, _Feed] = {}
        self._begin_us = begin_us
        self._watermark_us = begin_us
        self._heard_us = begin_us
        self.late = 0
        """Points that were decided before an instant up to which all had been heard: the hub's clock went back."""
        self.duplicates = 0
        self._gaps: list[Gap] = []
        self._gaps_end_us = 0
        self._points: list[Point] = []
        self._bars: list[Bar] = []
        self._marks: list[Mark] = []
        self._new_gaps: list[Gap] = []
        self._unsettled: dict[tuple[str, Resolution], deque[Bar]] = {}
        self._unsettled_points: deque[list[Point]] = deque()
        if not (resumed or first):
            self._note_gap(Gap(LONG_AGO_US, begin_us, "recording began here"))

    # In.

    def add(self, point: Point) -> bool:
        """Take the next point of the stream. False for one that is known already: replays and snapshots repeat."""
        with self._lock:
            if not self._take(point):
                self.duplicates += 1
                return False
            self._points.append(point)
            return True

    def watermark(self, heard_us: int) -> None:
        """Everything that was decided before ``heard_us`` (exclusive) has been added. Closes what ended until then."""
        with self._lock:
            if heard_us <= self._watermark_us:
                return
            self._watermark_us = heard_us
            self._heard_us = max(self._heard_us, heard_us)
            for feed in self._feeds.values():
                if feed.cursor_us < heard_us:
                    self._advance(feed, heard_us)

    def gap(self, from_us: int, to_us: int, reason: str) -> None:
        """Not everything in ``[from_us, to_us)`` was told. Call it before the watermark passes ``from_us``."""
        with self._lock:
            self._note_gap(Gap(from_us, to_us, reason))

    # Out.

    @property
    def watermark_us(self) -> int:
        """Up to here everything was heard."""
        return self._watermark_us

    @property
    def heard_us(self) -> int:
        """The latest instant that anything told of: where a gap begins when the connection is lost."""
        return self._heard_us

    @property
    def feeds(self) -> list[str]:
        """Every feed that was heard of."""
        with self._lock:
            return list(self._feeds)

    def drain(self) -> Harvest:
        """What is new since the last call. It stays in ``tail`` until it is settled."""
        with self._lock:
            harvest = Harvest(self._points, self._bars, self._marks, self._new_gaps, self._watermark_us)
            if self._points:
                self._unsettled_points.append(self._points)
            self._points, self._bars, self._marks, self._new_gaps = [], [], [], []
            return harvest

    def settle(self, harvest: Harvest) -> None:
        """A harvest is where readers find it now (or is given up). In the order in which they were drained."""
        with self._lock:
            for bar in harvest.bars:
                waiting = self._unsettled[bar.feed, bar.resolution]
                waiting.popleft()
            if harvest.points and self._unsettled_points:
                self._unsettled_points.popleft()

    def live(self, feed: str, resolution: Resolution) -> Bar | None:
        """The open bar, as far as it was heard; None where no price was in force in its bucket yet."""
        with self._lock:
            held = self._feeds.get(feed)
            return None if held is None else self._open_bar(held, resolution)

    def tail(self, feed: str, resolution: Resolution, from_us: int, to_us: int) -> list[Bar]:
        """Bars with ``from_us <= start < to_us`` that are not settled yet: final ones, then the open one."""
        with self._lock:
            found = [bar for bar in self._unsettled.get((feed, resolution), ()) if from_us <= bar.start_us < to_us]
            held = self._feeds.get(feed)
            bar = None if held is None else self._open_bar(held, resolution)
        if bar is not None and from_us <= bar.start_us < to_us:
            found.append(bar)
        return found

    def tail_points(self, feed: str, from_us: int, to_us: int) -> list[Point]:
        """Points with ``from_us <= decided_us < to_us`` that are not settled yet."""
        with self._lock:
            pieces = [*self._unsettled_points, self._points]
            return [
                point
                for piece in pieces
                for point in piece
                if point.feed == feed and from_us <= point.decided_us < to_us
            ]

    # Points.

    def _take(self, point: Point) -> bool:
        feed = self._feeds.get(point.feed)
        if feed is None:
            feed = self._feeds[point.feed] = _Feed(point.feed, self._watermark_us)
        last = feed.last
        if last is not None and _is_known(point, last):
            return False
        at_us = point.decided_us
        # What was in force when we began is no decision since then; nor is it late.
        was_before = last is None if at_us >= self._begin_us else last is None or last.decided_us <= at_us
        was_before = was_before and at_us < feed.cursor_us
        if at_us < feed.cursor_us:
            if not was_before:
                self.late += 1
                self._note_gap(Gap(at_us, feed.cursor_us, "the hub's clock went back"))
            at_us = feed.cursor_us
        self._advance(feed, at_us)
        self._mark(feed, point, at_us)
        feed.last = point
        feed.expo = point.expo
        feed.degraded = point.state == "degraded"
        feed.until_us = NEVER_US if point.valid_until_us is None else point.valid_until_us
        feed.mantissa = point.mantissa
        if point.mantissa is not None and not was_before:
            feed.parts[0].take(point.mantissa, point.expo)
        if at_us > self._heard_us:
            self._heard_us = at_us
        return True

    def _mark(self, feed: _Feed, point: Point, at_us: int) -> None:
        last = feed.last
        before = None if last is None else last.state
        if last is not None and last.mantissa is not None and feed.until_us + LEASE_OVER_AFTER_US <= at_us:
            self._marks.append(Mark(feed.name, feed.until_us, "none", before, "lease_over", None, "R3"))
            before = "none"
        if before != point.state:
            self._marks.append(Mark(feed.name, at_us, point.state, before, point.reason, point.source, point.rule))

    # Time.

    def _advance(self, feed: _Feed, to_us: int) -> None:
        """Account for the time until ``to_us``, and close every bucket that ends until then."""
        cursor_us, second = feed.cursor_us, feed.parts[0]
        mantissa, until_us = feed.mantissa, feed.until_us
        while cursor_us < to_us:
            if mantissa is None or cursor_us >= until_us:
                cursor_us = to_us
                if to_us >= second.end_us:
                    self._close_until(feed, to_us)
                break
            stop_us = min(to_us, second.end_us, until_us)
            if second.open is None:
                second.begin(mantissa, feed.expo)
            second.priced_us += stop_us - cursor_us
            if feed.degraded:
                second.degraded_us += stop_us - cursor_us
            cursor_us = stop_us
            if cursor_us == second.end_us:
                self._close_until(feed, cursor_us)
        feed.cursor_us = cursor_us

    def _close_until(self, feed: _Feed, now_us: int) -> None:
        """Close what ends at or before ``now_us``, finest first, so that each is complete when it closes."""
        parts = feed.parts
        second = parts[0]
        crosses = second.start_us // _STEP_2_US != now_us // _STEP_2_US
        if second.open is not None:
            self._close(feed, 0, second)
        second.move_to(Resolution.S1, now_us)
        if crosses:
            for index in range(1, len(parts)):
                part = parts[index]
                if part.open is not None and part.end_us <= now_us:
                    self._close(feed, index, part)

    def _close(self, feed: _Feed, index: int, part: Part) -> None:
        resolution = RESOLUTIONS[index]
        bar = self._bar(feed.name, resolution, part, part.end_us, closed=True)
        self._bars.append(bar)
        key = (feed.name, resolution)
        waiting = self._unsettled.get(key)
        if waiting is None:
            waiting = self._unsettled[key] = deque()
        waiting.append(bar)
        for child in CHILDREN[index]:
            feed.parts[child].fold(RESOLUTIONS[child], part)
        part.clear()

    def _bar(self, name: str, resolution: Resolution, part: Part, until_us: int, *, closed: bool) -> Bar:
        assert part.open is not None
        return Bar(
            name,
            resolution,
            part.start_us,
            part.open,
            part.high,
            part.low,
            part.close,
            part.expo,
            part.updates,
            part.degraded_us,
            until_us - part.start_us - part.priced_us,
            closed,
            0,
            False,
            part.start_us < self._gaps_end_us and self._in_gap(part.start_us, until_us),
        )

    def _open_bar(self, feed: _Feed, resolution: Resolution) -> Bar | None:
        """The open parts of a resolution and of its ancestors, folded, oldest (so coarsest) first."""
        start_us = resolution.start_us(feed.cursor_us)
        whole = Part()
        lineage = [resolution]
        while (parent := lineage[-1].parent) is not None:
            lineage.append(parent)
        for member in lineage:
            part = feed.parts[RESOLUTIONS.index(member)]
            if part.open is not None and part.start_us >= start_us:
                whole.fold(resolution, part)
        if whole.open is None:
            return None
        return self._bar(feed.name, resolution, whole, feed.cursor_us, closed=False)

    # Gaps.

    def _note_gap(self, gap: Gap) -> None:
        self._new_gaps.append(gap)
        self.remember_gaps([gap])

    def remember_gaps(self, gaps: Iterable[Gap]) -> None:
        """Mark bars that touch these, which are recorded already."""
        for gap in gaps:
            self._gaps.append(gap)
            self._gaps_end_us = max(self._gaps_end_us, gap.to_us)
        # No open bar began earlier than its month or the Monday before it.
        oldest_us = min(Resolution.MO1.start_us(self._watermark_us), Resolution.W1.start_us(self._watermark_us))
        self._gaps = [gap for gap in self._gaps if gap.to_us > oldest_us]

    def _in_gap(self, start_us: int, end_us: int) -> bool:
        return any(gap.from_us < end_us and start_us < gap.to_us for gap in self._gaps)

    # Going on.

    def resume_feed(
        self, points: Sequence[Point], parents: Callable[[Resolution, Resolution, int], Iterable[Bar]]
    ) -> None:
        """Take up a feed where the stored state ends: the builder's begin, which must be the start of a second.

        ``points``: the last one decided before it, then all later ones. ``parents(resolution, parent, start_us)`` gives
        the stored final bars of ``parent`` that belong to the open bucket of ``resolution`` and began before it.
        """
        with self._lock:
            feed = self._feeds[points[0].feed] = _Feed(points[0].feed, self._begin_us)
            for index, resolution in enumerate(RESOLUTIONS):
                parent = resolution.parent
                if parent is None:
                    continue
                for bar in parents(resolution, parent, resolution.start_us(self._begin_us)):
                    feed.parts[index].fold(resolution, part_of(bar))
            for point in points:
                self._take(point)
            self._marks.clear()


def part_of(bar: Bar) -> Part:
    """A closed bar as something to be folded into coarser ones."""
    part = Part()
    part.start_us, part.end_us = bar.start_us, bar.resolution.end_us(bar.start_us)
    part.open, part.high, part.low, part.close, part.expo = bar.open, bar.high, bar.low, bar.close, bar.expo
    part.updates, part.degraded_us = bar.updates, bar.degraded_us
    part.priced_us = part.end_us - part.start_us - bar.none_us
    return part


def _said(point: Point) -> tuple[object, ...]:
    return point.state, point.mantissa, point.reason, point.source, point.publish_time_us, point.valid_until_us


def _is_known(point: Point, last: Point) -> bool:
    """Whether a point only repeats what was told: a snapshot, a replay, or the view of a decision that is over."""
    if point.decided_us == last.decided_us and (point.is_view or _said(point) == _said(last)):
        return True
    return point.instance == last.instance and (point.epoch, point.seq) <= (last.epoch, last.seq)
