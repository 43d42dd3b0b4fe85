"""What holds in every incident under both policies, whatever its golden file says."""

from collections import defaultdict
from itertools import pairwise

import pytest

import oracle_hub.core.selector as selector_module
from oracle_hub.alerts.alert import KINDS, Change, Kind, Transition
from oracle_hub.core.selector import Policy, State
from oracle_hub.incidents.library import library
from oracle_hub.incidents.player import Conditions, Watcher, play
from oracle_hub.incidents.verdict import figures
from tests.incidents.judge import judged, look

CASES = [(name, policy) for name in library() for policy in Policy]


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_no_price_is_given_that_the_rule_forbids(name: str, policy: Policy) -> None:
    assert any(one.first is not None for stretches in judged(name, policy).stretches.values() for one in stretches)


def test_the_judge_would_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selector_module, "near", lambda *_: True)
    with pytest.raises(AssertionError):
        play(library()["bzx-1"], Conditions(), watcher=Watcher(look))


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_what_fires_is_resolved_once_and_only_what_may_stay_stays(name: str, policy: Policy) -> None:
    played = judged(name, policy)
    open_now: dict[str, Transition] = {}
    occurrences = []
    for one in played.alerts:
        if one.change is Change.FIRING:
            assert one.alert.id not in open_now, "fired twice"
            open_now[one.alert.id] = one
            occurrences.append(one.alert.occurrence)
        else:
            assert open_now[one.alert.id].alert.occurrence == one.alert.occurrence
            if one.change is Change.RESOLVED:
                del open_now[one.alert.id]
    assert len(occurrences) == len(set(occurrences)), "one occurrence was told twice"
    assert {one.alert.kind.value for one in open_now.values()} <= set(played.script.stays)


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_there_is_one_pair_for_each_pulse_that_outlives_its_hold_time(name: str, policy: Policy) -> None:
    played = judged(name, policy)
    by_id = defaultdict(list)
    for one in played.alerts:
        if one.change is not Change.ESCALATED:
            by_id[one.alert.id].append(one)
    for told in by_id.values():
        spec = KINDS[told[0].alert.kind]
        for before, after in pairwise(told):
            wait_us = spec.hold_off_us if after.change is Change.RESOLVED else spec.hold_on_us
            assert after.at_us - before.at_us >= wait_us, f"{told[0].alert.kind} flaps"
    for feed, stretches in played.stretches.items():
        for kind, state in ((Kind.NO_PRICE, State.NONE), (Kind.FALLBACK_ACTIVE, State.DEGRADED)):
            pulses = [0]
            for stretch in stretches:
                pulses[-1] += stretch.until_us - stretch.from_us if stretch.state is state else 0
                if stretch.state is not state:
                    pulses.append(0)
            long = sum(pulse >= KINDS[kind].hold_on_us for pulse in pulses)
            fired = [
                one
                for one in played.alerts
                if one.change is Change.FIRING and one.alert.kind is kind and one.alert.feed in (feed, None)
            ]
            assert len(fired) <= long, f"{kind} of {feed}: {len(fired)} told, {long} pulses"


def test_there_are_twenty_incidents_and_the_drills_are_called_so() -> None:
    kinds = [script.kind for script in library().values()]
    assert kinds.count("incident") >= 20
    assert all(name.startswith("drill-") == (script.kind == "drill") for name, script in library().items())


def test_figures_say_what_policies_cost() -> None:
    strict, quorum = (figures(judged("drill-lost-verifier", policy))[0] for policy in Policy)
    assert (str(strict.available_percent), str(quorum.available_percent)) == ("67.87", "97.22")
    assert strict.fallback_percent == 0 and str(quorum.fallback_percent) == "29.35"
    assert (str(strict.longest_outage_s), str(quorum.longest_outage_s)) == ("115.620", "10.000")
    assert strict.worst_bps is not None and strict.worst_bps < 2


def test_a_restart_tells_no_open_alert_again_and_gives_no_price_before_all_were_heard() -> None:
    played = judged("paradex", Policy.STRICT)
    stretches = played.stretches["BTC/USD"]
    down = next(index for index, one in enumerate(stretches) if one.down)
    assert stretches[down + 1].reason.value == "warming" and stretches[down + 1].first is None
    assert stretches[down + 1].from_us == 132_000_000
