"""Ways beside each other in columns give what looking at them one by one gives."""

from collections.abc import Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.ways import Comparison, Lag, WayRecord, WaySpec, newest_of

FEEDS = ("A", "B", "C", "D")
LATEST_US, SINCE_US = 1_000, 100


def one_by_one(
    ways: list[WaySpec], records: dict[tuple[str, str], WayRecord], limits_us: Mapping[str, int] | None
) -> list[tuple[WaySpec, Lag]]:
    """The same, as it is defined."""
    found = []
    for way in ways:
        worst: tuple[int, int, str, str] | None = None
        n_feeds = 0
        for feed in way.feeds:
            ahead = newest_of(feed, ways, records, LATEST_US)
            if ahead is None:
                continue
            own = records[way.source, way.transport].last.get(feed)
            behind_us = ahead.publish_us - (SINCE_US if own is None else own.publish_us)
            beyond_us = behind_us - (0 if limits_us is None else max(limits_us[feed], way.max_age_us))
            if behind_us > 0 and beyond_us > 0:
                n_feeds += 1
                if worst is None or beyond_us > worst[0]:
                    worst = (beyond_us, behind_us, feed, ahead.transport)
        if worst is not None:
            found.append((way, Lag(worst[2], worst[1], worst[3], n_feeds)))
    return found


def update(transport: str, feed: str, publish_us: int) -> PriceUpdate:
    return PriceUpdate("pyth", transport, feed, 1, publish_us, publish_us)


def spec(number: int, feeds: tuple[str, ...], max_age_us: int) -> WaySpec:
    return WaySpec(
        source="pyth",
        transport=f"way:{number}",
        link=f"way:{number}",
        way="pyth",
        kind="pyth.hermes",
        proves=False,
        feeds=feeds,
        max_age_us=max_age_us,
    )


WAYS = st.lists(
    st.tuples(
        st.one_of(
            st.just(FEEDS), st.permutations(FEEDS).flatmap(lambda order: st.integers(0, 4).map(lambda n: order[:n]))
        ),
        st.dictionaries(st.sampled_from(FEEDS), st.integers(1, 12).map(lambda n: n * 100)),
        st.sampled_from([0, 150]),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=400)
@given(WAYS, st.lists(st.sampled_from([0, 100, 300]), min_size=4, max_size=4))
def test_columns_and_one_by_one_are_the_same(
    ways: list[tuple[list[str], dict[str, int], int]], limits_us: list[int]
) -> None:
    specs = [spec(number, tuple(feeds), max_age_us) for number, (feeds, _, max_age_us) in enumerate(ways)]
    records = {
        ("pyth", one.transport): WayRecord(last={feed: update(one.transport, feed, us) for feed, us in told.items()})
        for one, (_, told, _) in zip(specs, ways, strict=True)
    }
    compared = Comparison(specs, records, LATEST_US, SINCE_US)
    by_feed = dict(zip(FEEDS, limits_us, strict=True))
    assert compared.lags(None) == one_by_one(specs, records, None)
    limits = np.array([by_feed[feed] for feed in compared.feeds], np.int64)
    assert compared.lags(limits) == one_by_one(specs, records, by_feed)


def test_a_way_that_told_nothing_counts_from_when_it_was_asked() -> None:
    specs = [spec(0, FEEDS, 0), spec(1, FEEDS, 0)]
    records = {("pyth", "way:0"): WayRecord(last={"B": update("way:0", "B", 900)})}
    assert Comparison(specs, records, LATEST_US, SINCE_US).lags(None) == [(specs[1], Lag("B", 800, "way:0", 1))]


def test_a_time_that_fits_no_column_is_not_believed() -> None:
    specs = [spec(0, FEEDS, 0), spec(1, FEEDS, 0)]
    records = {
        ("pyth", "way:0"): WayRecord(last={"A": update("way:0", "A", 2**70), "B": update("way:0", "B", -(2**70))}),
        ("pyth", "way:1"): WayRecord(last={"A": update("way:1", "A", 900), "C": update("way:1", "C", INT64_MAX)}),
    }
    assert Comparison(specs, records, LATEST_US, SINCE_US).lags(None) == []
