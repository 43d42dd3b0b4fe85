"""Whatever happens: alerts come in pairs, one at a time, and do not depend on when the engine was asked."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.alerts.alert import Change, Transition
from oracle_hub.alerts.engine import AlertEngine, facts_after
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import Catalog
from oracle_hub.core.hub import Hub
from oracle_hub.core.source import PriceUpdate
from tests.alerts.rig import SOURCES, START_US, spec

FEEDS = ("A/USD", "B/USD", "C/USD", "D/USD")
ACT = st.tuples(
    st.sampled_from(SOURCES),
    st.sampled_from(FEEDS),
    st.sampled_from([100_00000000, 100_10000000, 99_00000000, 120_00000000, 1]),
    st.sampled_from([0, 0, 0, 2_000_000, -4_000_000]),
)
SCRIPT = st.lists(st.tuples(st.sampled_from([1, 200_000, 900_000, 4_000_000, 13_000_000]), st.lists(ACT, max_size=8)))


def play(script: list[tuple[int, list[tuple[str, str, int, int]]]], *, eager: bool, cap: int) -> list[Transition]:
    """Run a script; ``eager`` asks the engine at each of its deadlines, else only at steps."""
    catalog = Catalog([spec(feed) for feed in FEEDS])
    hub = Hub(catalog, epoch=1, config_hash="", started_us=START_US, warmup_us=1_000_000)
    engine = AlertEngine(AlertSettings(storm_cap=cap))
    told: list[Transition] = []
    now_us = START_US

    def step() -> None:
        hub.step(now_us)
        told.extend(engine.observe(now_us, facts_after(hub, now_us)))

    step()
    for gap_us, acts in [*script, (60_000_000, [])]:
        end_us = now_us + gap_us
        while (lease_us := hub.next_deadline()) is not None and lease_us <= end_us:
            while eager and (due_us := engine.next_deadline()) is not None and due_us < lease_us:
                told.extend(engine.advance(due_us))
            now_us = max(now_us, lease_us)
            step()
        while eager and (due_us := engine.next_deadline()) is not None and due_us <= end_us:
            told.extend(engine.advance(due_us))
        now_us = end_us
        for source, feed, mantissa, late_us in acts:
            hub.apply(PriceUpdate(source, "t:1", feed, mantissa, now_us - late_us, now_us), now_us)
        step()
    told.extend(engine.advance(now_us))
    opened = {one.alert.id for one in told if one.change is Change.FIRING}
    closed = {one.alert.id for one in told if one.change is Change.RESOLVED}
    assert {alert.id for alert in engine.open} >= opened - closed
    return told


@settings(deadline=None, max_examples=150)
@given(SCRIPT, st.sampled_from([2, 20]))
def test_alerts_come_in_pairs_and_one_at_a_time(
    script: list[tuple[int, list[tuple[str, str, int, int]]]], cap: int
) -> None:
    told = play(script, eager=False, cap=cap)
    assert [one.at_us for one in told] == sorted(one.at_us for one in told)
    firing: dict[str, int] = {}
    for one in told:
        if one.change is Change.FIRING:
            assert one.alert.id not in firing
            assert one.alert.started_us <= one.alert.told_us == one.at_us
            firing[one.alert.id] = one.alert.started_us
        else:
            assert firing[one.alert.id] == one.alert.started_us
        if one.change is Change.RESOLVED:
            assert one.alert.ended_us is not None
            assert one.alert.started_us <= one.alert.ended_us <= one.at_us
            del firing[one.alert.id]


@settings(deadline=None, max_examples=150)
@given(SCRIPT, st.sampled_from([2, 20]))
def test_the_log_does_not_depend_on_when_the_engine_was_asked(
    script: list[tuple[int, list[tuple[str, str, int, int]]]], cap: int
) -> None:
    lazy, eager = play(script, eager=False, cap=cap), play(script, eager=True, cap=cap)
    for ours, theirs in itertools.zip_longest(lazy, eager):
        assert ours == theirs
