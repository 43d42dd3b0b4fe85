"""Which bars answer a request, and their text. Rules of the protocol as properties, over the real store."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.charts.resolutions import SECOND_US, Resolution
from oracle_hub.charts.store import Store
from oracle_hub.charts.udf_history import MAX_TIME_S, asked, number, page_text, read_page
from oracle_hub.core.price import INT64_MAX, decimal_text
from oracle_hub.errors import ChartsError
from tests.charts.udf_stage import FEED, bar, plain_bars, store_with

BEGIN_S = 1_790_000_040
STARTS = [BEGIN_S + 60 * minute for minute in range(200) if minute % 17 not in (3, 4, 5) and not 60 <= minute < 110]
"""Minutes with holes, one of them long."""
NOW_S = STARTS[-1] + 25


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store_with(tmp_path_factory.mktemp("udf"), plain_bars(STARTS)) as held:
        yield held


def ask(store: Store, max_bars: int = 1_000, now_s: int = NOW_S, **query: object) -> Any:
    wanted = asked({"resolution": "1", **{key.rstrip("_"): str(value) for key, value in query.items()}})
    text = page_text(read_page(store, FEED, wanted, now_s * SECOND_US, max_bars))
    return json.loads(text, parse_float=Decimal)


times = st.integers(BEGIN_S - 4_000, NOW_S + 4_000)


@settings(max_examples=200, deadline=None)
@given(times, times)
def test_a_range_has_exactly_its_bars_and_none_from_the_future(store: Store, from_s: int, to_s: int) -> None:
    answer = ask(store, from_=from_s, to=to_s)
    expected = [start for start in STARTS if from_s <= start < to_s and start <= NOW_S]
    assert answer.get("t", []) == expected
    assert answer["s"] == ("ok" if expected else "no_data")
    if not expected:
        earlier = [start for start in STARTS if start < min(from_s, to_s)]
        assert answer == ({"s": "no_data", "nextTime": earlier[-1]} if earlier else {"s": "no_data"})
        assert answer.get("nextTime", from_s - 1) < from_s


@settings(max_examples=100, deadline=None)
@given(times, times, times)
def test_a_wider_range_with_the_same_end_agrees(store: Store, to_s: int, one: int, other: int) -> None:
    narrow, wide = ask(store, from_=max(one, other), to=to_s), ask(store, from_=min(one, other), to=to_s)
    if narrow["s"] == "ok":
        for column in "tohlcv":
            assert wide[column][-len(narrow["t"]) :] == narrow[column]


@settings(max_examples=100, deadline=None)
@given(times, times, st.integers(1, 250))
def test_countback_gives_exactly_so_many_whatever_from_says(store: Store, from_s: int, to_s: int, count: int) -> None:
    answer = ask(store, from_=from_s, to=to_s, countback=count)
    assert answer.get("t", []) == [start for start in STARTS if start < to_s][-count:]
    assert answer["s"] == "ok" or answer == {"s": "no_data"}


@settings(max_examples=100, deadline=None)
@given(times, st.integers(-500, 5_000))
def test_following_next_time_ends_with_every_bar(store: Store, to_s: int, width_s: int) -> None:
    width_s = max(width_s, 1)
    collected: list[int] = []
    end = to_s
    while True:
        answer = ask(store, from_=end - width_s, to=end)
        if answer["s"] == "ok":
            collected = answer["t"] + collected
            end -= width_s
        elif "nextTime" in answer:
            assert answer["nextTime"] < end - width_s
            end = answer["nextTime"] + 1
        else:
            break
    assert collected == [start for start in STARTS if start < to_s]


def test_nothing_is_known_of_a_future_that_was_imported(store: Store) -> None:
    assert ask(store, from_=BEGIN_S, to=NOW_S + 10**9, now_s=STARTS[10])["t"] == STARTS[:11]
    assert ask(store, to=NOW_S + 10**9, countback=3, now_s=STARTS[10] - 1)["t"] == STARTS[7:10]


def test_the_text_is_exact_to_the_digit(tmp_path: Path) -> None:
    bars = [
        bar(60, (1, 12_345_678, 1, 100_000_000)),
        bar(120, (INT64_MAX, INT64_MAX, 2_728_183_000_000, 2_729_635_698_548)),
    ]
    with store_with(tmp_path, bars) as store:
        page = read_page(store, FEED, asked({"resolution": "1", "from": "0", "to": "999"}), 999 * SECOND_US, 10)
    assert page_text(page) == (
        '{"s":"ok","t":[60,120],"o":[0.00000001,92233720368.54775807],"h":[0.12345678,92233720368.54775807],'
        '"l":[0.00000001,27281.83000000],"c":[1.00000000,27296.35698548],"v":[0,0]}'
    )


def test_bars_of_two_exponents_are_each_printed_at_theirs(tmp_path: Path) -> None:
    with store_with(
        tmp_path, [bar(60, (15, 16, 14, 15), expo=-1), bar(120, (1500, 1600, 1400, 1501), expo=-3)]
    ) as store:
        page = read_page(store, FEED, asked({"resolution": "1", "from": "0", "to": "999"}), 999 * SECOND_US, 10)
    assert '"c":[1.5,1.501]' in page_text(page)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, INT64_MAX), st.integers(-18, 2))
def test_the_fast_printer_agrees_with_the_plain_one(mantissa: int, expo: int) -> None:
    assert number(expo)(mantissa) == decimal_text(mantissa, expo)


def test_too_many_bars_are_refused_not_cut(store: Store) -> None:
    with pytest.raises(ChartsError, match=r"from, to: the range has more than the 9 bars of one answer"):
        ask(store, max_bars=9, from_=BEGIN_S, to=NOW_S)
    with pytest.raises(ChartsError, match=r"countback: 10 is more than the 9 bars of one answer"):
        ask(store, max_bars=9, from_=BEGIN_S, to=NOW_S, countback=10)
    assert len(ask(store, max_bars=9, from_=BEGIN_S, to=NOW_S, countback=9)["t"]) == 9


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({}, "to: a whole number is needed, not ''"),
        ({"to": "1"}, "from: a whole number is needed, not ''"),
        ({"from": "a", "to": "1"}, "from: a whole number is needed, not 'a'"),
        ({"from": "1.5", "to": "2"}, "from: a whole number is needed, not '1.5'"),
        ({"from": "1790000000000", "to": "1790000060000"}, "to: 1790000060000 is not a time in seconds"),
        ({"from": "1", "to": "2", "countback": "-1"}, "countback: -1 is below 0"),
        ({"from": "1", "to": "2", "countback": "many"}, "countback: a whole number is needed, not 'many'"),
        (
            {"from": "1", "to": "2", "resolution": "1m"},
            "resolution: '1m' is no code: minutes are bare numbers, a month is 1M",
        ),
    ],
)
def test_what_cannot_be_used_is_named(query: dict[str, str], error: str) -> None:
    with pytest.raises(ChartsError) as refused:
        asked({"resolution": "1", **query})
    assert str(refused.value) == error


def test_an_unknown_resolution_is_refused_with_those_there_are() -> None:
    for text in ("", "7", "2D", "5m"):
        with pytest.raises(ChartsError, match="resolution"):
            asked({"resolution": text, "from": "1", "to": "2"})


def test_aliases_edges_and_a_countback_of_zero() -> None:
    def resolution(text: str) -> Resolution:
        return asked({"resolution": text, "from": "-5", "to": str(MAX_TIME_S)}).resolution

    assert [resolution(text) for text in ("1S", "D", "1D", "W", "1W", "M", "1M", "720")] == [
        Resolution.S1,
        Resolution.D1,
        Resolution.D1,
        Resolution.W1,
        Resolution.W1,
        Resolution.MO1,
        Resolution.MO1,
        Resolution.H12,
    ]
    wanted = asked({"resolution": "1", "from": "-5", "to": "9", "countback": "0"})
    assert (wanted.from_us, wanted.to_us, wanted.countback) == (-5_000_000, 9_000_000, None)
    assert asked({"resolution": "1", "to": "9", "countback": "3"}).countback == 3
