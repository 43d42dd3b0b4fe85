"""Grids and hold times: every word of the command line, and every edge in time."""

import pytest

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.selector import Policy
from oracle_hub.core.stall import StallRule
from oracle_hub.errors import ConfigError
from oracle_hub.journal.grid import Setting, parse_grid
from oracle_hub.journal.holds import Held, HoldTimes, Level


def test_a_grid_is_every_combination_in_the_order_given() -> None:
    found = parse_grid("max_divergence_bps=10,25 policy=strict,quorum max_age_ms.pyth=1500 max_age_s=5")
    assert [one.label for one in found] == [
        "max_divergence_bps=10 max_age_s=5 max_age_s.pyth=1.5 policy=strict",
        "max_divergence_bps=10 max_age_s=5 max_age_s.pyth=1.5 policy=quorum",
        "max_divergence_bps=25 max_age_s=5 max_age_s.pyth=1.5 policy=strict",
        "max_divergence_bps=25 max_age_s=5 max_age_s.pyth=1.5 policy=quorum",
    ]
    assert found[0] == Setting(
        max_divergence_bps=10, policy=Policy.STRICT, max_age_us=5_000_000, source_age_us=(("pyth", 1_500_000),)
    )
    assert (found[0].age_us("pyth", 9), found[0].age_us("doves", 9), Setting().age_us("doves", 9)) == (
        1_500_000,
        5_000_000,
        9,
    )
    assert Setting().label == "as configured"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("max_divergence=5", "unknown key 'max_divergence'"),
        ("policy.pyth=strict", "unknown key"),
        ("policy=lenient", "known: strict, quorum"),
        ("max_age_s=1.5", "no whole number"),
        ("max_age_s=0", "not within a millisecond and a day"),
        ("max_age_s=5 max_age_ms=5", "given twice"),
        ("max_divergence_bps=10001", "not within 0 to 10000"),
        ("max_divergence_bps=" + ",".join(map(str, range(1_025))), "1025 settings are more than 1024"),
    ],
)
def test_what_is_no_grid_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_grid(text)


def test_what_is_not_tried_stays_as_it_was() -> None:
    spec = FeedSpec(feed="SOL/USD", primary="p", verifiers=("a", "b"), max_age_us={"p": 1, "a": 2, "b": 3})
    catalog = Catalog([spec], max_future_us=7, stall=StallRule(after_us=11))
    changed = Setting(max_divergence_bps=9, source_age_us=(("a", 5),)).changed(catalog)
    assert (changed.max_future_us, changed.stall) == (7, StallRule(after_us=11))
    assert changed.feeds[0].max_divergence_bps == 9
    assert changed.feeds[0].max_age_us == {"p": 1, "a": 5, "b": 3}
    assert changed.feeds[0].policy is spec.policy


R, W, B = Level.RIGHT, Level.WRONG, Level.BETWEEN


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ([(0, W), (9, R)], 0),
        ([(0, W), (10, R)], 1),
        ([(0, W), (5, B), (7, W), (16, R)], 0),
        ([(0, W), (12, R), (41, W), (80, R)], 1),
        ([(0, W), (12, R), (42, W), (80, R)], 2),
        ([(0, W), (12, B), (14, W), (80, B), (200, W)], 1),
    ],
)
def test_an_alert_counts_when_it_lasted_and_once_until_it_was_over(
    changes: list[tuple[int, Level]], count: int
) -> None:
    held = Held(HoldTimes(on_us=10, off_us=30))
    for now_us, level in changes:
        held.see(level, now_us)
    assert held.count == count


def test_a_grid_in_time_puts_the_end_of_the_hold_off() -> None:
    held = Held(HoldTimes(on_us=10, off_us=5, grid_us=100))
    held.see(W, 95)
    held.see(R, 199)
    assert held.count == 0
    held.see(W, 300)
    held.pass_time(400)
    assert held.count == 1
