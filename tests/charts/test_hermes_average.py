"""Ids of Pyth's clients, and the average that they are told: against exact fractions, in whatever pieces it comes."""

from decimal import Context, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.addresses import ASSETS
from oracle_hub.charts.bars import Bar
from oracle_hub.charts.hermes_average import HALF_LIFE_S, Average, Mean, kept
from oracle_hub.charts.hermes_ids import PYTH_IDS, BadId, Ids, parse_id, pyth_ids
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import MINUTE_US, SECOND_US, Resolution
from oracle_hub.errors import ChartsError

START_US = 1_790_000_040 * SECOND_US
"""A whole minute."""
BNB = "2f95862b045670cd22bee3114c39763a4a08beeb663b145d283c31d7d1101c4f"


def point(at_us: int, mantissa: int | None, until_us: int | None = None, expo: int = -8) -> Point:
    state = "none" if mantissa is None else "live"
    published_us = None if mantissa is None else at_us - 500
    return Point("SOL/USD", "i", 1, 1, at_us, state, mantissa, expo, None, "doves", "R1", "x", published_us, until_us)


def test_known_ids_are_those_of_the_known_assets() -> None:
    assert {feed: asset.hermes_id for feed, asset in ASSETS.items()} == PYTH_IDS


def test_ids_are_found_in_every_form_and_only_for_feeds_that_are_there() -> None:
    ids = Ids({"BNB/USD": f"0x{BNB.upper()}"})
    for text in (BNB, BNB.upper(), f"0x{BNB}", f"0X{BNB.upper()}"):
        assert ids.feed_of(parse_id(text), ["BNB/USD"]) == "BNB/USD"
    assert ids.feed_of(BNB, ["SOL/USD"]) is None
    assert ids.served(["SOL/USD", "JUP/USD"]) == {"SOL/USD": PYTH_IDS["SOL/USD"]}


@pytest.mark.parametrize("text", ["", "0x", BNB[:-1], f"{BNB}0", f"x{BNB[1:]}", f"0x0x{BNB[4:]}", f" {BNB}"])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(BadId, match="expected 64 hex digits"):
        parse_id(text)
    with pytest.raises(ChartsError, match=r"^BNB/USD: invalid price feed id"):
        pyth_ids({"BNB/USD": text})


def test_two_feeds_cannot_have_one_id() -> None:
    with pytest.raises(ChartsError, match="SOL/USD and WSOL/USD have the same id"):
        pyth_ids({"WSOL/USD": PYTH_IDS["SOL/USD"]})
    assert pyth_ids({"WSOL/USD": PYTH_IDS["SOL/USD"], "SOL/USD": "ab" * 32})["WSOL/USD"] == PYTH_IDS["SOL/USD"]


def test_an_hour_leaves_half_and_a_second_its_root() -> None:
    assert abs(Fraction(kept(HALF_LIFE_S), 2**64) - Fraction(1, 2)) < Fraction(1, 2**50)
    assert abs(Fraction(kept(2 * HALF_LIFE_S), 2**64) - Fraction(1, 4)) < Fraction(1, 2**50)
    assert kept(0) == 2**64
    # The constant is the root itself, rounded down.
    assert kept(1) ** HALF_LIFE_S <= 2 ** (64 * HALF_LIFE_S - 1) < (kept(1) + 1) ** HALF_LIFE_S
    assert kept(10**12) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**60), st.integers(1, 5_000)), min_size=1, max_size=8))
def test_many_seconds_at_once_are_as_one_by_one(pieces: list[tuple[int, int]]) -> None:
    exact = Context(prec=60)
    price, distance = Decimal(pieces[0][0]), Decimal(0)
    mean = Mean(pieces[0][0] << 32, 0)
    each = exact.divide(Decimal(kept(1)), Decimal(2**64))
    for mantissa, seconds in pieces:
        mean = mean.after(mantissa, seconds)
        with localcontext(exact):
            left = each**seconds
            distance = distance * left + abs(price - mantissa) * seconds * left * (1 - each)
            price = mantissa + (price - mantissa) * left
    assert abs(mean.mantissa - price) <= 1 + 2**60 // 2**44
    assert abs(mean.conf - distance) <= 2 + 2**60 // 2**40
    assert mean.conf >= 1


def test_only_whole_seconds_with_a_price_in_force_count() -> None:
    average = Average()
    average.add(point(START_US, 1_000_000))
    assert average.at(START_US) == Mean(1_000_000 << 32, 0)
    for step in range(1, 500):  # many decisions within one second change nothing
        average.add(point(START_US + 1_000 * step, 3_000_000 + step))
    assert average.at(START_US + 500_000) == Mean(1_000_000 << 32, 0)
    average.add(point(START_US + 600_000, 2_000_000, until_us=START_US + 3 * SECOND_US))
    one_s = Mean(1_000_000 << 32, 0).after(2_000_000, 1)
    assert average.at(START_US + SECOND_US + 1) == one_s
    # The lease is over before the third second; what follows does not count.
    assert average.at(START_US + 60 * SECOND_US) == Mean(1_000_000 << 32, 0).after(2_000_000, 2)
    average.add(point(START_US + 60 * SECOND_US, None))
    average.add(point(START_US + 90 * SECOND_US, 2_000_000))
    assert average.at(START_US + 90 * SECOND_US) == Mean(1_000_000 << 32, 0).after(2_000_000, 2)


def test_what_was_told_before_is_passed_over() -> None:
    points = [point(START_US + 700_000 * step, 1_000_000 + 1_000 * step) for step in range(20)]
    once, twice = Average(), Average()
    for one in points:
        once.add(one)
    for one in (*points[:12], *points):
        twice.add(one)
    at_us = START_US + 60 * SECOND_US
    assert once.at(at_us) == twice.at(at_us)
    assert once.publish_before(at_us, at_us // SECOND_US) == twice.publish_before(at_us, at_us // SECOND_US)


def test_publish_times_before_a_decision() -> None:
    average = Average()
    base_s = START_US // SECOND_US
    assert average.publish_before(START_US, base_s) == (None, None)
    average.add(point(START_US + 1_000, 1))
    average.add(point(START_US + 2_000, 2))
    assert average.publish_before(START_US + 2_000, base_s) == (base_s, None)
    average.add(point(START_US + SECOND_US + 1_000, 3))
    average.add(point(START_US + SECOND_US + 2_000, None))
    average.add(point(START_US + SECOND_US + 3_000, 4))
    assert average.publish_before(START_US + SECOND_US + 3_000, base_s + 1) == (base_s + 1, base_s)
    # Of a decision that is heard and not taken in yet.
    assert average.publish_before(START_US + SECOND_US + 4_000, base_s + 1) == (base_s + 1, base_s)
    assert average.publish_before(START_US + 2 * SECOND_US + 1, base_s + 2) == (base_s + 1, base_s + 1)


def test_it_begins_with_the_minutes_before() -> None:
    bars = [
        Bar("SOL/USD", Resolution.M1, START_US - back * MINUTE_US, 100, 104, 96, 100, -8, 1, 0, none_us)
        for back, none_us in ((3, 0), (2, MINUTE_US), (1, 30 * SECOND_US))
    ]
    average = Average()
    average.begin(bars, point(START_US - 1_000, 200, until_us=START_US + 5 * SECOND_US), START_US)
    assert average.at(START_US) == Mean(100 << 32, 0).after(200, 0)
    assert average.at(START_US + 1) == Mean(100 << 32, 0).after(200, 1)
    average.add(point(START_US + 2 * SECOND_US, 300))
    assert average.at(START_US + 2 * SECOND_US) == Mean(100 << 32, 0).after(200, 2)


def test_another_exponent_begins_anew() -> None:
    average = Average()
    average.add(point(START_US, 1_000_000))
    average.add(point(START_US + 10 * SECOND_US, 1_000, expo=-5))
    assert (average.expo, average.at(START_US + 10 * SECOND_US)) == (-5, Mean(1_000 << 32, 0))
