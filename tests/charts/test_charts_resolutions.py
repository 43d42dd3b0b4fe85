"""Resolutions: bounds of buckets, names, and that each is made of whole buckets of its parent."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution, parse_resolution
from oracle_hub.errors import ChartsError


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND_US


def test_there_are_the_sixteen_of_the_charts() -> None:
    codes = "1S 5S 15S 1 3 5 15 30 60 120 240 360 720 1D 1W 1M"
    assert " ".join(RESOLUTIONS) == codes
    assert [resolution.label for resolution in RESOLUTIONS][:5] == ["1 s", "5 s", "15 s", "1 min", "3 min"]


@pytest.mark.parametrize(
    ("resolution", "start", "end"),
    [
        (Resolution.S15, "2026-11-19T13:44:45", "2026-11-19T13:45:00"),
        (Resolution.M30, "2026-11-19T13:30:00", "2026-11-19T14:00:00"),
        (Resolution.H6, "2026-11-19T12:00:00", "2026-11-19T18:00:00"),
        (Resolution.D1, "2026-11-19T00:00:00", "2026-11-20T00:00:00"),
        (Resolution.W1, "2026-11-16T00:00:00", "2026-11-23T00:00:00"),
        (Resolution.MO1, "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
    ],
)
def test_bucket_of_a_thursday(resolution: Resolution, start: str, end: str) -> None:
    moment = at("2026-11-19T13:44:59") + 999_999
    assert resolution.start_us(moment) == at(start)
    assert resolution.end_us(at(start)) == at(end)


def test_december_ends_with_the_year() -> None:
    assert Resolution.MO1.end_us(at("2026-12-31T23:59:59")) == at("2027-01-01T00:00:00")


@given(st.sampled_from(RESOLUTIONS), st.integers(0, 4_000_000_000 * SECOND_US))
def test_a_bucket_holds_its_instants_and_whole_buckets_of_its_parent(resolution: Resolution, moment: int) -> None:
    start_us = resolution.start_us(moment)
    end_us = resolution.end_us(start_us)
    assert start_us <= moment < end_us
    assert resolution.is_start(start_us) and resolution.start_us(end_us - 1) == start_us
    assert resolution.end_us(moment) == end_us
    if resolution.parent is not None:
        assert resolution.parent.is_start(start_us) and resolution.parent.is_start(end_us)


@given(st.integers(0, 4_000_000_000))
def test_calendar_resolutions_begin_at_midnight_on_monday_and_on_the_first(second: int) -> None:
    day, week, month = (
        datetime.fromtimestamp(resolution.start_us(second * SECOND_US) // SECOND_US, UTC)
        for resolution in (Resolution.D1, Resolution.W1, Resolution.MO1)
    )
    assert (day.hour, day.minute, day.second) == (0, 0, 0)
    assert (week.isoweekday(), week.hour, week.minute, week.second) == (1, 0, 0, 0)
    assert (month.day, month.hour, month.minute, month.second) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1S", "1S"),
        ("1s", "1S"),
        ("5m", "5"),
        ("60", "60"),
        ("1H", "60"),
        ("D", "1D"),
        ("1W", "1W"),
        ("M", "1M"),
        ("1m", "1"),
    ],
)
def test_forms_that_chart_clients_write(text: str, expected: str) -> None:
    assert parse_resolution(text) == expected


@pytest.mark.parametrize("text", ["", "7", "1Y", "S5", "m", "1 hour and a half of time"])
def test_unknown_resolution_is_refused_by_name(text: str) -> None:
    with pytest.raises(ChartsError, match="there are 1S, 5S"):
        parse_resolution(text)
