"""Bars computed plainly from all decisions at once, and random decisions: what the builder is compared with."""

from collections.abc import Iterable, Sequence

import msgspec
from hypothesis import strategies as st

from oracle_hub.charts.bars import Bar, Gap
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import SECOND_US, Resolution

MONDAY_THE_FIRST_US = 1_801_440_000 * SECOND_US
"""2027-02-01, a Monday: buckets of every resolution end here."""
BEGIN_US = MONDAY_THE_FIRST_US - 20 * SECOND_US
INSTANCE = "6f1c2d3e-0000-4000-8000-000000000001"
FEED = "SOL/USD"


def point(
    at_us: int,
    mantissa: int | None,
    *,
    seq: int,
    lease_us: int | None = 5 * SECOND_US,
    state: str | None = None,
    feed: str = FEED,
    expo: int = -8,
) -> Point:
    """A decision at ``BEGIN_US + at_us``."""
    decided_us = BEGIN_US + at_us
    state = state or ("none" if mantissa is None else "live")
    return Point(
        feed=feed,
        instance=INSTANCE,
        epoch=1_801_000_000,
        seq=seq,
        decided_us=decided_us,
        state=state,
        mantissa=mantissa,
        expo=expo,
        conf=None if mantissa is None else 7,
        source=None if mantissa is None else "doves",
        rule="R3" if mantissa is None else "R1" if state == "live" else "R2",
        reason="too_few_sources" if mantissa is None else "agreed",
        publish_time_us=None if mantissa is None else decided_us - 150_000,
        valid_until_us=None if lease_us is None else decided_us + lease_us,
    )


class Held(msgspec.Struct, frozen=True):
    """A decision with a price, and from when to when it was in force."""

    point: Point
    from_us: int
    to_us: int


def in_force(points: Sequence[Point], begin_us: int, heard_us: int) -> list[Held]:
    """The decisions of one feed that have a price."""
    found = []
    for index, told in enumerate(points):
        until_us = points[index + 1].decided_us if index + 1 < len(points) else heard_us
        if told.valid_until_us is not None:
            until_us = min(until_us, told.valid_until_us)
        if told.mantissa is not None:
            found.append(Held(told, max(told.decided_us, begin_us), min(until_us, heard_us)))
    return found


def plain_bar(
    held: Sequence[Held], resolution: Resolution, start_us: int, heard_us: int, gaps: Iterable[Gap]
) -> Bar | None:
    """The bar of one bucket, as far as it was heard; None where no price was in force."""
    end_us = min(resolution.end_us(start_us), heard_us)
    times = [max(0, min(one.to_us, end_us) - max(one.from_us, start_us)) for one in held]
    decided = [start_us <= one.point.decided_us < end_us and one.point.decided_us >= one.from_us for one in held]
    prices = [one.point.mantissa or 0 for one, time_us, new in zip(held, times, decided, strict=True) if time_us or new]
    if not prices:
        return None
    return Bar(
        feed=held[0].point.feed,
        resolution=resolution,
        start_us=start_us,
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[-1],
        expo=-8,
        updates=sum(decided),
        degraded_us=sum(t for one, t in zip(held, times, strict=True) if one.point.state == "degraded"),
        none_us=end_us - start_us - sum(times),
        closed=resolution.end_us(start_us) <= heard_us,
        gap=any(gap.from_us < end_us and start_us < gap.to_us for gap in gaps),
    )


def plain_bars(
    points: Sequence[Point], resolution: Resolution, begin_us: int, heard_us: int, gaps: Iterable[Gap] = ()
) -> list[Bar]:
    """All bars of one feed's decisions, the open one last."""
    gaps = [Gap(0, begin_us, ""), *gaps]
    held = in_force(points, begin_us, heard_us)
    starts = {
        bucket_us for one in held for bucket_us in _buckets(resolution, one.from_us, max(one.to_us, one.from_us + 1))
    }
    bars = (plain_bar(held, resolution, start_us, heard_us, gaps) for start_us in sorted(starts))
    return [bar for bar in bars if bar is not None]


def _buckets(resolution: Resolution, from_us: int, to_us: int) -> Iterable[int]:
    start_us = resolution.start_us(from_us)
    while start_us < to_us:
        yield start_us
        start_us = resolution.end_us(start_us)


STEPS_US = (0, 1, 250_000, 999_999, SECOND_US, 1_700_000, 12 * SECOND_US, 61 * SECOND_US, 3_700 * SECOND_US)
LEASES_US = (1, 400_000, SECOND_US, 5 * SECOND_US, 90 * SECOND_US)


@st.composite
def histories(draw: st.DrawFn, feed: str = FEED, max_size: int = 25) -> list[Point]:
    """Decisions of one feed in order, the first of which may lie before the beginning."""
    at_us = draw(st.sampled_from((-1_500_000, 0, 300_000)))
    points: list[Point] = []
    for seq in range(1, draw(st.integers(1, max_size)) + 1):
        mantissa = draw(st.none() | st.integers(90, 110))
        state = None if mantissa is None else draw(st.sampled_from(("live", "degraded")))
        lease_us = draw(st.sampled_from(LEASES_US))
        told = point(at_us, mantissa, seq=seq, state=state, lease_us=lease_us, feed=feed)
        # A hub never decides the very same twice; to a subscriber that would be the same decision told again.
        if not points or msgspec.structs.replace(points[-1], seq=seq) != told:
            points.append(told)
        at_us += draw(st.sampled_from(STEPS_US))
    return points
