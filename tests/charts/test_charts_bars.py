"""The builder against a plain recomputation from the decisions, and its edges by example."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.charts.bars import Bar, Builder, Gap, Mark
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution
from tests.charts.plain_bars import BEGIN_US, FEED, INSTANCE, MONDAY_THE_FIRST_US, histories, plain_bars, point

S1 = Resolution.S1


def built(points: Sequence[Point], heard_us: int, builder: Builder | None = None) -> Builder:
    builder = builder or Builder(BEGIN_US)
    for told in points:
        builder.add(told)
    builder.watermark(heard_us)
    return builder


def all_bars(builder: Builder, resolution: Resolution, feed: str = FEED) -> list[Bar]:
    return builder.tail(feed, resolution, 0, 2**62)


@settings(max_examples=80, deadline=None)
@given(histories(), st.sampled_from((1, 500_000, 5 * SECOND_US, 100 * SECOND_US)))
def test_bars_of_every_resolution_equal_a_plain_recomputation(points: list[Point], rest_us: int) -> None:
    heard_us = max(points[-1].decided_us, BEGIN_US) + rest_us
    builder = built(points, heard_us)
    for resolution in RESOLUTIONS:
        assert all_bars(builder, resolution) == plain_bars(points, resolution, BEGIN_US, heard_us)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_how_time_and_points_are_cut_makes_no_difference(data: st.DataObject) -> None:
    feeds = ("SOL/USD", "BTC/USD")
    told = sorted((p for feed in feeds for p in data.draw(histories(feed, 12))), key=lambda p: p.decided_us)
    heard_us = max(told[-1].decided_us, BEGIN_US) + 3 * SECOND_US
    whole, cut = Builder(BEGIN_US), Builder(BEGIN_US)
    rows: list[Bar] = []
    for now, later in zip(told, [*told[1:], None], strict=True):
        whole.add(now)
        cut.add(now)
        if data.draw(st.booleans()):
            cut.add(now)  # told again
        if later is not None:
            cut.watermark(data.draw(st.integers(now.decided_us, later.decided_us)))
        if data.draw(st.booleans()):
            harvest = cut.drain()
            rows += harvest.bars
            cut.settle(harvest)
    whole.watermark(heard_us)
    cut.watermark(heard_us)
    rows += cut.drain().bars
    expected = whole.drain()
    key = lambda bar: (bar.feed, RESOLUTIONS.index(bar.resolution), bar.start_us)  # noqa: E731
    assert sorted(rows, key=key) == sorted(expected.bars, key=key)
    for feed in feeds:
        for resolution in RESOLUTIONS:
            assert cut.live(feed, resolution) == whole.live(feed, resolution)


@settings(max_examples=60, deadline=None)
@given(histories(), st.sampled_from(RESOLUTIONS))
def test_no_bar_lies_in_the_future_and_each_is_given_once_in_order(points: list[Point], resolution: Resolution) -> None:
    builder = Builder(BEGIN_US)
    given_bars: list[Bar] = []
    for told in points:
        builder.add(told)
        now_us = max(told.decided_us, BEGIN_US)
        harvest = builder.drain()
        given_bars += [bar for bar in harvest.bars if bar.resolution is resolution]
        assert all(resolution.end_us(bar.start_us) <= now_us for bar in harvest.bars if bar.resolution is resolution)
        open_bar = builder.live(FEED, resolution)
        assert open_bar is None or open_bar.start_us <= now_us < resolution.end_us(open_bar.start_us)
    starts = [bar.start_us for bar in given_bars]
    assert starts == sorted(set(starts))
    assert all(resolution.is_start(start_us) for start_us in starts)


def test_a_flat_price_with_a_running_lease_makes_bars_and_an_expired_one_does_not() -> None:
    builder = built([point(0, 100, seq=1, lease_us=3 * SECOND_US)], BEGIN_US + 10 * SECOND_US)
    bars = [(bar.start_us - BEGIN_US, bar.open, bar.updates) for bar in all_bars(builder, S1)]
    assert bars == [(0, 100, 1), (SECOND_US, 100, 0), (2 * SECOND_US, 100, 0)]


def test_open_is_the_price_in_force_at_the_start_of_the_bucket() -> None:
    points = [point(500_000, 100, seq=1), point(1_400_000, 104, seq=2), point(1_600_000, 98, seq=3)]
    first, second = all_bars(built(points, BEGIN_US + 2 * SECOND_US), S1)
    assert (first.open, first.updates, first.none_us) == (100, 1, 500_000)
    assert (second.open, second.high, second.low, second.close, second.updates) == (100, 104, 98, 98, 2)


def test_a_decision_at_the_very_start_of_a_bucket_is_its_open() -> None:
    points = [point(0, 100, seq=1), point(SECOND_US, 104, seq=2)]
    _, second = all_bars(built(points, BEGIN_US + 2 * SECOND_US), S1)
    assert (second.open, second.low, second.updates) == (104, 104, 1)


def test_the_price_ends_with_its_bucket_when_none_follows_at_the_border() -> None:
    points = [point(0, 100, seq=1), point(SECOND_US, None, seq=2)]
    builder = built(points, BEGIN_US + 5 * SECOND_US)
    assert [bar.start_us for bar in all_bars(builder, S1)] == [BEGIN_US]
    (five,) = all_bars(builder, Resolution.S5)
    assert (five.none_us, five.closed) == (4 * SECOND_US, True)


def test_degraded_and_priceless_time_are_counted_to_the_microsecond() -> None:
    points = [point(100_000, 100, seq=1), point(300_001, 101, seq=2, state="degraded"), point(600_000, None, seq=3)]
    (bar,) = all_bars(built(points, BEGIN_US + SECOND_US), S1)
    assert (bar.degraded_us, bar.none_us, bar.updates, bar.close) == (299_999, 500_000, 2, 101)


def test_bars_before_the_recording_began_are_marked_and_later_ones_are_not() -> None:
    builder = built([point(0, 100, seq=1, lease_us=None)], MONDAY_THE_FIRST_US + 60 * SECOND_US)
    assert [bar.gap for bar in all_bars(builder, Resolution.M1)] == [True, False]
    assert [bar.gap for bar in all_bars(builder, Resolution.MO1)] == [True, False]
    assert not any(bar.gap for bar in all_bars(builder, S1))


def test_every_bar_that_touches_a_gap_is_marked_even_where_no_second_of_it_is() -> None:
    builder = Builder(BEGIN_US)
    builder.add(point(0, 100, seq=1, lease_us=SECOND_US))
    builder.gap(BEGIN_US + 7 * SECOND_US, BEGIN_US + 8 * SECOND_US, "connection lost")
    built([point(9_500_000, 101, seq=9)], BEGIN_US + 30 * SECOND_US, builder)
    assert [bar.gap for bar in all_bars(builder, Resolution.S5)] == [False, True, False]
    assert not any(bar.gap for bar in all_bars(builder, S1))
    assert builder.drain().gaps[1:] == [Gap(BEGIN_US + 7 * SECOND_US, BEGIN_US + 8 * SECOND_US, "connection lost")]


@pytest.mark.parametrize("reason", ["lease_over", "max_age"])
def test_a_view_of_a_known_decision_changes_nothing(reason: str) -> None:
    first = point(0, 100, seq=1, lease_us=500_000)
    shown = msgspec.structs.replace(first, seq=8, state="none", mantissa=None, reason=reason, valid_until_us=None)
    builder = Builder(BEGIN_US)
    assert builder.add(first)
    assert not builder.add(shown)
    builder.watermark(BEGIN_US + SECOND_US)
    (bar,) = all_bars(builder, S1)
    assert (bar.close, bar.none_us) == (100, 500_000)
    assert builder.duplicates == 1


def test_a_clock_that_went_back_takes_the_price_at_once_and_marks_the_bars() -> None:
    builder = built([point(0, 100, seq=1, lease_us=None)], BEGIN_US + 5_500_000)
    assert builder.add(msgspec.structs.replace(point(2_000_000, 90, seq=1, lease_us=None), epoch=1_801_000_001))
    builder.watermark(BEGIN_US + 6_500_000)
    late, after = all_bars(builder, S1)[-2:]
    assert (late.open, late.close, late.gap, after.close, after.gap) == (100, 90, True, 90, False)
    assert builder.late == 1


def test_an_exponent_configured_anew_goes_on_with_the_finer_one() -> None:
    points = [point(0, 100, seq=1), point(300_000, 10_150, seq=2, expo=-10), point(600_000, 99, seq=3)]
    bar, _ = all_bars(built(points, BEGIN_US + 1_500_000), S1)
    assert (bar.open, bar.high, bar.low, bar.close, bar.expo) == (10_000, 10_150, 9_900, 9_900, -10)


def test_an_exponent_at_which_prices_do_not_fit_goes_on_with_the_coarser_one() -> None:
    huge = 9 * 10**18
    bar, _ = all_bars(built([point(0, huge, seq=1), point(1, 123_456, seq=2, expo=-10)], BEGIN_US + 1_500_000), S1)
    assert (bar.open, bar.low, bar.expo) == (huge, 1_235, -8)


def test_marks_tell_where_the_state_changed_and_why() -> None:
    points = [
        point(0, 100, seq=1),
        point(1, 101, seq=2),
        point(2, 101, seq=3, state="degraded"),
        point(3, None, seq=4),
        point(4, 102, seq=5, lease_us=SECOND_US),
        msgspec.structs.replace(point(9 * SECOND_US, None, seq=1), epoch=1_801_000_009, reason="warming"),
    ]
    marks = built(points, BEGIN_US + 10 * SECOND_US).drain().marks
    seen = [(mark.at_us - BEGIN_US, mark.before, mark.state, mark.reason, mark.source) for mark in marks]
    assert seen == [
        (0, None, "live", "agreed", "doves"),
        (2, "live", "degraded", "agreed", "doves"),
        (3, "degraded", "none", "too_few_sources", None),
        (4, "none", "live", "agreed", "doves"),
        (4 + SECOND_US, "live", "none", "lease_over", None),
    ]
    assert isinstance(marks[0], Mark)


def test_what_is_drained_stays_readable_until_it_is_settled() -> None:
    builder = built([point(0, 100, seq=1, lease_us=None)], BEGIN_US + 2 * SECOND_US)
    before = all_bars(builder, S1)
    harvest = builder.drain()
    assert all_bars(builder, S1) == before and len(builder.tail_points(FEED, 0, 2**62)) == 1
    builder.settle(harvest)
    assert all_bars(builder, S1) == [] and builder.tail_points(FEED, 0, 2**62) == []
    assert builder.feeds == [FEED] and harvest.points[0].instance == INSTANCE
