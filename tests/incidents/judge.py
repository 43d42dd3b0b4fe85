"""Holds every price in force against the held inputs, by the text of the rule and nothing of its code."""

from fractions import Fraction
from functools import cache

from oracle_hub.core.catalog import FeedSpec
from oracle_hub.core.hub import Decision, DecisionInput, Hub
from oracle_hub.core.selector import Policy, State
from oracle_hub.core.table import InputStatus
from oracle_hub.incidents.library import library
from oracle_hub.incidents.player import Conditions, Played, Watcher, play

FORBIDDEN = frozenset(
    {InputStatus.FUTURE, InputStatus.HALTED, InputStatus.INVALID, InputStatus.STALLED, InputStatus.UNVERIFIED}
)


def near(a: int, b: int, bps: int) -> bool:
    """Exactly, by fractions."""
    return Fraction(abs(a - b), min(a, b)) <= Fraction(bps, 10_000)


def usable(one: DecisionInput, max_age_us: int, now_us: int) -> bool:
    """By what is held, and by what the source is told to be."""
    if one.held is None or one.held.mantissa <= 0 or one.status in FORBIDDEN:
        return False
    return now_us - one.held.publish_us <= max_age_us and now_us - one.held.received_us <= max_age_us


def look(hub: Hub, now_us: int) -> None:
    """Every price in force after a step.

    Raises:
        AssertionError: the rule does not allow it.
    """
    for index, spec in enumerate(hub.catalog.feeds):
        decision = hub.decisions.get(spec.feed)
        if decision is not None and decision.mantissa is not None:
            _judge(decision, hub.inputs(index, now_us)[:3], spec, now_us)


def _judge(decision: Decision, roles: tuple[DecisionInput, ...], spec: FeedSpec, now_us: int) -> None:
    fit = [usable(one, spec.max_age_us[one.source], now_us) for one in roles]
    p, a, b = (one.held.mantissa if one.held is not None else 0 for one in roles)
    bps = spec.max_divergence_bps
    agreed = all(fit) and near(p, a, bps) and near(p, b, bps)
    if decision.state is State.LIVE:
        assert agreed and (decision.mantissa, decision.source) == (p, roles[0].source)
    elif decision.source == roles[0].source:
        assert spec.policy is Policy.QUORUM and fit[0] and sorted(fit[1:]) == [False, True]
        assert near(p, a if fit[1] else b, bps) and decision.mantissa == p
    else:
        assert fit[1] and fit[2] and near(a, b, bps) and not agreed
        ages = [min(one.held.publish_us, one.held.received_us) for one in roles[1:] if one.held is not None]
        newer = 2 if ages[1] > ages[0] else 1
        assert (decision.mantissa, decision.source) == ((p, a, b)[newer], roles[newer].source)


@cache
def judged(name: str, policy: Policy) -> Played:
    """An incident, played once for all tests, with every price judged."""
    return play(library()[name], Conditions(policy=policy), watcher=Watcher(look))
