"""What is told when, by value: one firing and one resolve for each thing that goes wrong."""

import json
from typing import Any

import pytest

from oracle_hub.alerts.alert import KINDS, Change, Key, Kind, Severity
from oracle_hub.alerts.engine import AlertEngine, facts_after
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.selector import Policy
from tests.alerts.rig import SOL, SOURCES, START_US, Scene, spec

CALM = (100_00000000, 100_01000000, 99_99000000)


def pairs(scene: Scene) -> dict[tuple[str, str | None, tuple[str, ...]], list[str]]:
    """Changes by kind, feed and sources."""
    found: dict[tuple[str, str | None, tuple[str, ...]], list[str]] = {}
    for _, change, kind, feed, sources, _ in scene.log():
        found.setdefault((kind, feed, sources), []).append(change)
    return found


def test_nothing_is_told_while_all_is_well() -> None:
    scene = Scene()
    scene.run(60, *CALM)
    assert scene.log() == []
    assert scene.engine.open == []


def test_nothing_is_told_while_a_feed_warms_up() -> None:
    scene = Scene()
    scene.at(9.999)
    assert scene.log() == []
    scene.at(30)
    assert [(kind, change) for _, change, kind, *_ in scene.log()] == [
        ("no_price", "firing"),
        ("source_stale", "firing"),
        ("source_stale", "firing"),
        ("source_stale", "firing"),
    ]


def test_a_divergence_fires_once_after_its_hold_time_and_resolves_once() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    scene.run(20, CALM[0], CALM[1], 98_00000000)
    scene.run(40, *CALM)
    apart = [entry for entry in scene.log() if entry[2] == "pair_diverged"]
    assert apart == [
        (10.5, "firing", "pair_diverged", SOL, ("doves", "pyth"), "critical"),
        (10.5, "firing", "pair_diverged", SOL, ("chainlink", "pyth"), "critical"),
        (60.0, "resolved", "pair_diverged", SOL, ("doves", "pyth"), "critical"),
        (60.0, "resolved", "pair_diverged", SOL, ("chainlink", "pyth"), "critical"),
    ]
    (first, *_) = (one for one in scene.told if one.alert.kind is Kind.PAIR_DIVERGED)
    assert first.alert.started_us == START_US + 10_000_000
    assert first.alert.evidence["inputs"]["pyth"]["price"] == "9800000000"
    assert first.alert.evidence["value"] == 20_409
    assert "pyth 98.00000000" in first.alert.summary


def test_what_ends_before_its_hold_time_is_not_told() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    scene.tell(dict(zip(SOURCES, (CALM[0], CALM[1], 98_00000000), strict=True)))
    scene.at(10.4)
    scene.run(30, *CALM)
    assert scene.log() == []


def test_many_short_pulses_are_one_alert() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    for _ in range(8):
        scene.run(1, CALM[0], CALM[1], 98_00000000)
        scene.run(4, *CALM)
    scene.run(30, *CALM)
    assert pairs(scene)["pair_diverged", SOL, ("doves", "pyth")] == ["firing", "resolved"]


def test_between_the_two_thresholds_it_stays_as_it_is() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    near = round(CALM[0] * (1 + 40 / 10_000))
    scene.run(10, CALM[0], CALM[1], near)
    assert scene.log() == []
    scene.run(5, CALM[0], CALM[1], round(CALM[0] * (1 + 70 / 10_000)))
    scene.run(30, CALM[0], CALM[1], near)
    assert pairs(scene)["pair_diverged", SOL, ("doves", "pyth")] == ["firing"]


def test_a_distance_within_the_confidence_of_both_is_none() -> None:
    scene = Scene()
    for second in range(40):
        scene.at(second / 2)
        scene.tell({"doves": CALM[0], "chainlink": CALM[1]})
        scene.tell({"pyth": 99_30000000}, conf=90000000)
    assert "pair_diverged" not in {kind for _, _, kind, *_ in scene.log()}


def test_a_warning_that_lasts_becomes_critical_once() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    scene.run(100, CALM[0], CALM[1], round(CALM[0] * (1 - 80 / 10_000)))
    told = [entry for entry in scene.log() if entry[2:5] == ("pair_diverged", SOL, ("doves", "pyth"))]
    assert told == [
        (10.5, "firing", "pair_diverged", SOL, ("doves", "pyth"), "warning"),
        (70.0, "escalated", "pair_diverged", SOL, ("doves", "pyth"), "critical"),
    ]


def test_a_silent_primary_is_stale_and_the_fallback_is_told() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    scene.run(20, None, CALM[1], CALM[2])
    scene.run(30, *CALM)
    assert pairs(scene) == {
        ("fallback_active", SOL, ()): ["firing", "resolved"],
        ("source_stale", SOL, ("doves",)): ["firing", "resolved"],
    }


def test_redundancy_that_is_lost_is_told_before_a_price_is() -> None:
    scene = Scene(spec(policy=Policy.QUORUM), settings=AlertSettings(off=frozenset({Kind.FALLBACK_ACTIVE})))
    scene.run(10, *CALM)
    scene.run(10, CALM[0], None, CALM[2])
    scene.run(20, CALM[0], None, None)
    kinds = [(change, kind) for _, change, kind, *_ in scene.log()]
    assert kinds.index(("firing", "source_stale")) < kinds.index(("firing", "no_price"))


def test_a_stalled_source_is_one_that_stands_while_both_others_move() -> None:
    scene = Scene()
    for second in range(200):
        scene.at(second / 2)
        moving = 100_00000000 + second * 200_000
        scene.tell({"doves": moving, "chainlink": moving, "pyth": 100_00000000})
    assert pairs(scene)["source_stalled", SOL, ("pyth",)] == ["firing"]


def test_flat_prices_of_all_are_no_stall() -> None:
    scene = Scene()
    scene.run(300, *CALM)
    assert scene.log() == []


def test_a_clamp_stands_at_the_end_of_its_range_while_the_others_fall_through() -> None:
    scene = Scene()
    for second in range(300):
        scene.at(second / 2)
        falling = 100_00000000 - second * 20_000_000
        scene.tell({"doves": falling, "chainlink": max(falling, 90_00000000), "pyth": falling})
    told = pairs(scene)
    assert told["source_clamped", SOL, ("chainlink",)] == ["firing"]
    assert ("source_stalled", SOL, ("chainlink",)) not in told


def test_a_stamp_ahead_of_our_clock_is_told() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    scene.tell({"pyth": CALM[2]}, late_us=-3_600_000_000)
    assert pairs(scene)["future_timestamp", SOL, ("pyth",)] == ["firing"]
    scene.run(30, *CALM)
    assert pairs(scene)["future_timestamp", SOL, ("pyth",)] == ["firing", "resolved"]


def test_a_conflict_counts_for_a_while() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    scene.tell(dict(zip(SOURCES, CALM, strict=True)))
    scene.told += scene.engine.observe(scene.now_us, facts_after(scene.hub, scene.now_us), [("doves", SOL)])
    scene.run(100, *CALM)
    conflicts = [entry[:3] for entry in scene.log() if entry[2] == "conflict"]
    assert conflicts == [(10.0, "firing", "conflict"), (50.0, "resolved", "conflict")]


@pytest.mark.parametrize(("percent", "severity"), [(4, Severity.WARNING), (12, Severity.CRITICAL)])
def test_a_price_that_runs_is_told_though_all_agree(percent: int, severity: Severity) -> None:
    scene = Scene()
    scene.run(10, *CALM)
    for second in range(20):
        moved = 100_00000000 + second * percent * 5_000_000
        scene.run(1, moved, moved, moved)
    fast = [one for one in scene.told if one.alert.kind is Kind.VELOCITY]
    assert fast[0].change is Change.FIRING
    assert fast[-1].alert.severity is severity
    scene.run(120, moved, moved, moved)
    assert pairs(scene)["velocity", SOL, ()][-1] == "resolved"


def test_a_stable_asset_away_from_its_peg() -> None:
    scene = Scene(spec("USDC/USD"), settings=AlertSettings(pegs={"USDC/USD": 100_000_000}))
    scene.run(10, 100_010_000, 100_000_000, 99_990_000, feed="USDC/USD")
    scene.run(10, 99_000_000, 99_000_000, 99_000_000, feed="USDC/USD")
    scene.run(10, 88_000_000, 88_000_000, 88_000_000, feed="USDC/USD")
    told = [entry[:3] + entry[5:] for entry in scene.log() if entry[2] == "peg_band"]
    assert told == [(11.0, "firing", "peg_band", "warning"), (20.0, "escalated", "peg_band", "critical")]


def test_a_reference_apart_from_our_price_and_too_old_for_the_chain() -> None:
    scene = Scene(spec(references=("aggregate",)), settings=AlertSettings(aggregates=frozenset({"aggregate"})))
    scene.run(10, *CALM)
    for second in range(100):
        scene.at(10 + second / 2)
        scene.tell({**dict(zip(SOURCES, CALM, strict=True)), "aggregate": 101_00000000 if second < 10 else None})
    told = pairs(scene)
    assert told["parity_broken", SOL, ("aggregate",)] == ["firing", "resolved"]
    assert told["not_executable", SOL, ("aggregate",)] == ["firing"]


def test_frames_that_cant_be_used_are_told_when_there_are_many() -> None:
    scene = Scene()
    for number in range(30):
        scene.at(number)
        scene.told += scene.engine.malformed(scene.now_us, "pyth", "hermes:1", "no PriceUpdate")
    scene.at(200)
    told = [entry[:5] for entry in scene.log() if entry[2] == "decode_errors"]
    assert told == [
        (9.0, "firing", "decode_errors", None, ("pyth", "hermes:1")),
        (89.0, "resolved", "decode_errors", None, ("pyth", "hermes:1")),
    ]


def test_an_outage_of_many_feeds_is_one_alert_of_each_kind() -> None:
    feeds = [f"F{number}/USD" for number in range(12)]
    scene = Scene(*(spec(feed) for feed in feeds))
    for second in range(30):
        scene.at(second)
        for feed in feeds:
            told = CALM if second < 10 else (None, CALM[1], CALM[2])
            scene.tell(dict(zip(SOURCES, told, strict=True)), feed)
    assert [entry[1:5] for entry in scene.log()] == [
        ("firing", "source_stale", None, ("doves",)),
        ("firing", "fallback_active", None, ()),
    ]
    for second in range(30, 70):
        scene.at(second)
        for feed in feeds:
            scene.tell(dict(zip(SOURCES, CALM, strict=True)), feed)
    assert sorted(entry[1:5] for entry in scene.log()[2:]) == [
        ("resolved", "fallback_active", None, ()),
        ("resolved", "source_stale", None, ("doves",)),
    ]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_group_that_stays_hides_nobody_who_comes_later(restarted: bool) -> None:
    silent, late, first = ("X/USD", "Y/USD", "Z/USD"), "SOL/USD", "Z/USD"
    settings = AlertSettings(off=frozenset(KINDS) - {Kind.NO_PRICE})
    scene = Scene(*(spec(feed) for feed in (*silent, late)), settings=settings)

    def pass_time(until: int, *feeds: str) -> list[Any]:
        told = len(scene.log())
        for second in range(round((scene.now_us - START_US) / 1e6), until):
            scene.at(second)
            for feed in feeds:
                scene.tell(dict(zip(SOURCES, CALM, strict=True)), feed)
        return [entry[1:4] for entry in scene.log()[told:]]

    assert pass_time(30, late) == [("firing", "no_price", None)]
    if restarted:
        state = json.loads(json.dumps(scene.engine.state()))
        scene.engine = AlertEngine(settings)
        scene.engine.restore(state)
    assert pass_time(45) == [("firing", "no_price", late)]
    assert pass_time(90, late, first) == [("resolved", "no_price", late)]
    (group,) = scene.engine.open
    assert group.evidence["feeds"] == sorted(silent) and group.evidence["recovered"] == [first]
    assert pass_time(105, late) == [("firing", "no_price", first)]
    assert pass_time(160, late, *silent) == [("resolved", "no_price", first), ("resolved", "no_price", None)]
    assert scene.engine.open == []


def test_who_follows_a_group_within_seconds_is_part_of_it() -> None:
    feeds = [f"F{number}/USD" for number in range(6)]
    settings = AlertSettings(off=frozenset(KINDS) - {Kind.NO_PRICE})
    scene = Scene(*(spec(feed) for feed in feeds), settings=settings)
    for second in range(40):
        scene.at(second)
        for number, feed in enumerate(feeds):
            if second < 15 + number * 2 // 3:
                scene.tell(dict(zip(SOURCES, CALM, strict=True)), feed)
    assert [entry[:4] for entry in scene.log()] == [
        (21.0, "firing", "no_price", feeds[0]),
        (21.0, "firing", "no_price", feeds[1]),
        (22.0, "firing", "no_price", None),
    ]
    (group,) = (alert for alert in scene.engine.open if alert.feed is None)
    assert group.evidence["feeds"] == feeds[2:]


def test_beyond_the_cap_there_is_one_storm() -> None:
    feeds = [f"F{number}/USD" for number in range(30)]
    scene = Scene(*(spec(feed) for feed in feeds), settings=AlertSettings(group_min=100, storm_cap=5))
    for second in range(12):
        scene.at(second)
        for feed in feeds:
            scene.tell(dict(zip(SOURCES, CALM, strict=True)), feed)
    scene.at(40)
    told = scene.log()
    assert len([entry for entry in told if entry[1] == "firing"]) == 6
    assert [entry[2] for entry in told].count("storm") == 1
    for second in range(40, 80):
        scene.at(second)
        for feed in feeds:
            scene.tell(dict(zip(SOURCES, CALM, strict=True)), feed)
    assert scene.engine.open == []


def test_a_restart_neither_fires_again_nor_loses_the_resolve() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    scene.run(10, CALM[0], CALM[1], 98_00000000)
    before = scene.log()
    state = scene.engine.state()
    again = Scene()
    again.engine.restore(state)
    assert [alert.id for alert in again.engine.open] == [alert.id for alert in scene.engine.open]
    again.start(20_000_000)
    again.run(10, CALM[0], CALM[1], 98_00000000)
    assert again.log() == []
    again.run(30, *CALM)
    fired = {entry[2:5] for entry in before if entry[1] == "firing"}
    assert {entry[2:5] for entry in again.log()} == fired
    assert {entry[1] for entry in again.log()} == {"resolved"}


def test_a_state_that_is_none_is_refused() -> None:
    for state in ({}, {"conditions": [{}], "told": [], "now_us": 0}, {"conditions": [], "told": [{}], "now_us": 0}):
        with pytest.raises(ValueError, match="not a state of alerts"):
            Scene().engine.restore(state)


def test_a_feed_that_is_removed_ends_its_alerts() -> None:
    scene = Scene()
    scene.run(10, *CALM)
    scene.run(10, None, CALM[1], CALM[2])
    assert scene.engine.open
    scene.told += scene.engine.forget(scene.now_us, [])
    assert scene.engine.open == []
    assert {changes[-1] for changes in pairs(scene).values()} == {"resolved"}


def test_ids_are_the_same_in_every_run_and_differ_by_key() -> None:
    assert Key(Kind.NO_PRICE, SOL).id == "b1a667054f34cfb3"
    keys = [Key(Kind.NO_PRICE, SOL), Key(Kind.NO_PRICE, None), Key(Kind.SOURCE_STALE, SOL, ("a", "b"))]
    assert len({key.id for key in keys}) == 3
