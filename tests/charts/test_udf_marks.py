"""Marks stand on bars, one for each state on each, and tell what happened there."""

from pathlib import Path

from oracle_hub.charts.bars import Mark
from oracle_hub.charts.resolutions import SECOND_US, Resolution
from oracle_hub.charts.udf_marks import COLORS, MAX_LINES, by_bar, marks, timescale_marks
from tests.charts.udf_stage import FEED, plain_bars, store_with

BEGIN_S = 1_790_000_040
BARS_S = [BEGIN_S, BEGIN_S + 60, BEGIN_S + 180]


def change(at_s: float, state: str, reason: str = "agreed") -> Mark:
    source = None if state == "none" else "chainlink"
    rule = {"live": "R1", "degraded": "R2", "none": "R3"}[state]
    return Mark(FEED, int(at_s * SECOND_US), state, None, reason, source, rule)


def bar_at(start_us: int) -> int | None:
    """The last bar at or before a bucket's start, among :data:`BARS_S`."""
    return max((start * SECOND_US for start in BARS_S if start * SECOND_US <= start_us), default=None)


def test_changes_in_one_bar_are_one_mark_for_each_state() -> None:
    changes = [change(BEGIN_S + 1.25, "degraded", "diverged"), change(BEGIN_S + 2, "none", "diverged")]
    changes += [change(BEGIN_S + 3, "degraded", "primary_stale"), change(BEGIN_S + 61, "live")]
    assert marks(by_bar(changes, Resolution.M1, bar_at)) == {
        "id": [f"{BEGIN_S}-degraded", f"{BEGIN_S}-none", f"{BEGIN_S + 60}-live"],
        "time": [BEGIN_S, BEGIN_S, BEGIN_S + 60],
        "color": [COLORS["degraded"], COLORS["none"], COLORS["live"]],
        "text": [
            "14:14:01.250 UTC degraded: R2, chainlink (diverged)\n"
            "14:14:03.000 UTC degraded: R2, chainlink (primary_stale)",
            "14:14:02.000 UTC none: diverged",
            "14:15:01.000 UTC live: R1, chainlink (agreed)",
        ],
        "label": ["D", "N", "L"],
        "labelFontColor": ["#ffffff"] * 3,
        "minSize": [14] * 3,
    }


def test_a_change_where_there_is_no_bar_stands_on_the_one_before_it() -> None:
    changes = [change(BEGIN_S - 5, "none"), change(BEGIN_S + 130, "none", "too_few_sources")]
    found = marks(by_bar(changes, Resolution.M1, bar_at))
    assert (found["time"], found["text"]) == ([BEGIN_S + 60], ["14:16:10.000 UTC none: too_few_sources"])


def test_below_the_bars_only_what_went_wrong_in_the_colour_of_the_worse() -> None:
    changes = [change(BEGIN_S + 1, "degraded"), change(BEGIN_S + 2, "none"), change(BEGIN_S + 3, "live")]
    changes += [change(BEGIN_S + 61, "live"), change(BEGIN_S + 181, "degraded")]
    (first, second) = timescale_marks(by_bar(changes, Resolution.M1, bar_at))
    assert (first["time"], first["color"], first["label"]) == (BEGIN_S, COLORS["none"], "N")
    assert (second["time"], second["color"], second["label"]) == (BEGIN_S + 180, COLORS["degraded"], "D")
    tooltip = first["tooltip"]
    assert isinstance(tooltip, list)
    assert [line.split(" ")[2] for line in tooltip] == ["degraded:", "none:", "live:"]


def test_many_changes_in_one_bar_are_counted() -> None:
    changes = [change(BEGIN_S + step / 10, "degraded") for step in range(MAX_LINES + 5)]
    (mark,) = timescale_marks(by_bar(changes, Resolution.M1, bar_at))
    tooltip = mark["tooltip"]
    assert isinstance(tooltip, list)
    assert (len(tooltip), tooltip[-1]) == (MAX_LINES + 1, "and 5 more")


def test_in_weeks_and_months_they_stand_on_monday_and_the_first(tmp_path: Path) -> None:
    for resolution, start_s in ((Resolution.W1, 1_789_948_800), (Resolution.MO1, 1_788_220_800)):
        with store_with(tmp_path / resolution, plain_bars([start_s], resolution)) as store:

            def found(start_us: int, resolution: Resolution = resolution) -> int | None:
                return store.previous_start_us(FEED, resolution, start_us + 1)

            assert marks(by_bar([change(BEGIN_S, "none")], resolution, found))["time"] == [start_s]
