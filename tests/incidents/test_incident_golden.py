"""Every incident under both policies decides and tells what its reviewed file says; planted faults do not."""

import pytest

import oracle_hub.core.hub as hub_module
import oracle_hub.incidents.player as player_module
from oracle_hub.core.catalog import FeedSpec, Proof
from oracle_hub.core.selector import ABSENT, OUTCOMES, Input, Policy, Reason, Selection, select
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.stall import StallRule
from oracle_hub.core.table import HELD, UNUSABLE, Applied, Table
from oracle_hub.incidents.library import library
from oracle_hub.incidents.timeline import proofs
from tests.incidents.golden import GOLDEN, path_of, played, reasoning, reviewed, text_of
from tests.incidents.judge import judged

CASES = [(name, policy) for name in library() for policy in Policy]


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_it_decides_and_tells_what_was_reviewed(name: str, policy: Policy) -> None:
    assert text_of(judged(name, policy)) == reviewed(name, policy)
    assert len(reasoning(name, policy)) > 30, f"{path_of(name, policy).name}: nobody has written down why"


def test_no_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {path_of(name, policy).name for name, policy in CASES}


# Faults that the suite must see, and the incidents that show them.


def outvoting(
    now_us: int, inputs: tuple[Input, Input, Input], max_divergence_bps: int, policy: Policy, barred: int
) -> Selection:
    """Two that agree beat a third one that is fresh."""
    chosen = select(now_us, inputs, max_divergence_bps, policy, barred)
    if chosen.outcome.reason is Reason.DIVERGED:
        agreed = next(one for one in OUTCOMES[policy] if one.reason is Reason.AGREED)
        return Selection(agreed, inputs[0][2], chosen.valid_until_us)
    return chosen


def age_by_receipt(table: Table, cell: int, spec: FeedSpec) -> Input:
    """What has just come in is young, however old the observation."""
    flags = int(table.flag_column[cell])
    if flags & UNUSABLE or not flags & HELD:
        return ABSENT
    received_us = int(table.received_us_column[cell])
    until_us = received_us + int(table.max_age_us_column[cell])
    return (0, until_us, int(table.mantissas[cell]), received_us)


def plant(fault: str, patch: pytest.MonkeyPatch) -> None:
    """Break the decision in one way."""
    apply, order = Table.apply, Table._order

    def later(table: Table, cell: int, flags: int, update: PriceUpdate, unproven: bool) -> Applied:
        verdict = order(table, cell, flags, update, unproven)
        return Applied.TAKEN if verdict is Applied.CONFLICT else verdict

    def believing(table: Table, update: PriceUpdate, now_us: int) -> Applied:
        return apply(table, update, now_us + 10**13)

    match fault:
        case "outvotes a fresh outlier":
            patch.setattr(hub_module, "select", outvoting)
        case "ignores future stamps":
            patch.setattr(Table, "apply", believing)
        case "takes received time for staleness":
            patch.setattr(Table, "input", age_by_receipt)
        case "lets an unproved way stand in":
            patch.setattr(player_module, "proofs", lambda *given: dict.fromkeys(proofs(*given), Proof.EQUIVALENT))
        case "takes the later of two values":
            patch.setattr(Table, "_order", later)
        case "keeps a clamp alive":
            patch.setattr(StallRule, "proven", lambda *_: False)


PLANTED = {
    "outvotes a fresh outlier": ("pyth-2021", "bzx-1", "moon-5-8m", "aave-capo", "bin-usde"),
    "ignores future stamps": ("drill-future",),
    "takes received time for staleness": ("levana", "btc-oct10"),
    "lets an unproved way stand in": ("drill-several-ways",),
    "takes the later of two values": ("drill-several-ways",),
    "keeps a clamp alive": ("luna-min", "drill-carried", "stream-xusd"),
}


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_fails_the_incidents_that_show_it(
    fault: str, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(fault, monkeypatch)
    for name in PLANTED[fault]:
        assert text_of(played(library()[name], policy)) != reviewed(name, policy), name
