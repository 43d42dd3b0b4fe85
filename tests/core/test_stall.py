"""A source that repeats one value under new times while both others move is proven stalled, and not used."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle_hub.core.hub as hub_module
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Decision, Hub, batch_digest
from oracle_hub.core.selector import Policy, Reason, State
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.stall import StallRule
from oracle_hub.core.table import STALLED, Applied, InputStatus, Table

T = 1_790_000_000_000_000
S = 1_000_000
SOURCES = ("doves", "chainlink", "pyth")
RULE = StallRule(after_us=60 * S, bps=20)


def spec(policy: Policy = Policy.STRICT, *, feed: str = "SOL/USD", primary: str = "doves") -> FeedSpec:
    verifiers = [source for source in SOURCES if source != primary]
    return FeedSpec(
        feed=feed,
        primary=primary,
        verifiers=(verifiers[0], verifiers[1]),
        references=("aggregate",),
        policy=policy,
        max_age_us=dict.fromkeys((*SOURCES, "aggregate"), 5 * S),
    )


@pytest.mark.parametrize(
    ("elapsed_us", "first", "second", "proven"),
    [
        (60 * S, (100_000, 100_200), (100_000, 100_200), True),  # exactly 20 bps of the smaller
        (60 * S - 1, (100_000, 100_200), (100_000, 100_200), False),
        (60 * S, (100_000, 100_199), (100_000, 100_200), False),
        (60 * S, (100_200, 100_000), (100_200, 100_000), True),  # down as well as up
        (60 * S, (100_000, 101_000), (101_000, 100_000), False),  # they parted: that proves nothing about the third
        (60 * S, (0, 100_200), (100_000, 100_200), False),  # not known where the first stood
        (60 * S, (2**62, 2**63 - 1), (2**62, 2**63 - 1), True),  # no overflow
    ],
)
def test_what_it_takes(elapsed_us: int, first: tuple[int, int], second: tuple[int, int], proven: bool) -> None:
    assert RULE.proven(elapsed_us, first, second) is proven
    assert StallRule(after_us=0).proven(elapsed_us, first, second) is False


class Stage:
    """One feed, told second by second."""

    def __init__(self, policy: Policy = Policy.STRICT, *, stall: StallRule = RULE) -> None:
        self.hub = Hub(Catalog([spec(policy)], stall=stall), epoch=1, config_hash="", started_us=T)

    def tell(self, second: float, **prices: int) -> Decision:
        now_us = T + round(second * S)
        for source, mantissa in prices.items():
            self.hub.apply(PriceUpdate(source, "t:1", "SOL/USD", mantissa, now_us, now_us), now_us)
        self.hub.step(now_us)
        return self.hub.decisions["SOL/USD"]

    def drift(self, seconds: int, *, begin: int = 0, standing: str = "doves", by: int = 10) -> Decision:
        """Two move by ``by`` each second, one stands under new times."""
        for second in range(begin, begin + seconds + 1):
            decision = self.tell(second, **{s: 100_000 + (0 if s == standing else by * second) for s in SOURCES})
        return decision

    def status(self, source: str) -> InputStatus:
        decision = self.hub.decisions["SOL/USD"]
        inputs = self.hub.inputs(0, decision.decided_us)
        return next(entry.status for entry in inputs if entry.source == source)


def test_a_stalled_primary_gives_way_to_verifiers_that_moved_on() -> None:
    stage = Stage()
    assert stage.drift(59, by=5).state is State.LIVE
    decision = stage.tell(60, doves=100_000, chainlink=100_300, pyth=100_300)
    assert (decision.state, decision.reason, decision.mantissa) == (State.DEGRADED, Reason.PRIMARY_UNUSABLE, 100_300)
    assert stage.status("doves") is InputStatus.STALLED


def test_a_stalled_verifier_takes_the_price_under_strict_and_not_under_quorum() -> None:
    strict, quorum = Stage(), Stage(Policy.QUORUM)
    assert strict.drift(60, standing="pyth").reason is Reason.VERIFIER_UNUSABLE
    decision = quorum.drift(60, standing="pyth")
    assert (decision.state, decision.mantissa) == (State.DEGRADED, 100_600)


def test_it_ends_with_another_value_and_not_with_the_others_coming_back() -> None:
    stage = Stage()
    stage.drift(60)
    stage.tell(61, doves=100_000, chainlink=100_000, pyth=100_000)
    assert stage.status("doves") is InputStatus.STALLED
    decision = stage.tell(62, doves=100_001, chainlink=100_000, pyth=100_000)
    assert (decision.state, decision.mantissa) == (State.LIVE, 100_001)


def test_a_flat_market_proves_nothing() -> None:
    stage = Stage()
    for second in range(600):
        decision = stage.tell(second, doves=100_000, chainlink=100_000, pyth=100_000 + second % 2)
    assert decision.state is State.LIVE and stage.status("doves") is InputStatus.OK


def test_a_slow_account_whose_publish_time_stands_is_merely_old() -> None:
    hub = Stage().hub
    slow = T + S
    for second in range(1, 120):
        now_us = T + second * S
        hub.apply(PriceUpdate("pyth", "t:1", "SOL/USD", 100_000, slow, now_us), now_us)  # read again and again
        for source in ("doves", "chainlink"):
            hub.apply(PriceUpdate(source, "t:1", "SOL/USD", 100_000 + 10 * second, now_us, now_us), now_us)
        hub.step(now_us)
    assert hub.inputs(0, now_us)[2].status is InputStatus.STALE
    assert not int(hub.table.flag_column[hub.table.cell_of("pyth", "SOL/USD") or 0]) & STALLED


def test_who_was_heard_later_is_compared_from_there_on() -> None:
    stage = Stage()
    for second in range(70):
        stage.tell(second, doves=100_000, chainlink=100_000 + 10 * second)
    stage.tell(70, doves=100_000, chainlink=100_700, pyth=100_700)
    assert stage.status("doves") is InputStatus.OK  # pyth is not known to have moved
    stage.tell(71, doves=100_000, chainlink=101_000, pyth=101_000)
    assert stage.status("doves") is InputStatus.STALLED


def test_off_and_references_are_never_judged() -> None:
    stage = Stage(stall=StallRule(after_us=0))
    stage.drift(120)
    assert stage.status("doves") is InputStatus.OK
    stage = Stage()
    for second in range(120):
        stage.tell(second, doves=100_000 + 10 * second, chainlink=100_000 + 10 * second, aggregate=100_000)
    assert stage.status("aggregate") is InputStatus.OK


def test_a_reload_keeps_what_was_proven_unless_company_or_rule_are_others() -> None:
    for catalog, after in (
        (Catalog([spec()], stall=RULE), InputStatus.STALLED),
        (Catalog([spec(Policy.QUORUM), spec(feed="ETH/USD")], stall=RULE), InputStatus.STALLED),
        (Catalog([spec()], stall=StallRule(60 * S, 21)), InputStatus.OK),
        (Catalog([spec(primary="pyth")], stall=RULE), InputStatus.OK),
    ):
        stage = Stage()
        stage.drift(60)
        stage.hub.reload(catalog, "other")
        stage.tell(60.5)
        assert stage.status("doves") is after


# Against a form that keeps whole histories, and by columns.

MOVES = st.lists(
    st.tuples(
        st.integers(0, 2),  # who
        st.sampled_from((100_000, 100_000, 100_199, 100_200, 100_201, 99_800, 99_000)),
        st.integers(-5, 40),  # seconds on
    ),
    max_size=60,
)


def judged(log: list[tuple[int, int, int]]) -> list[bool]:
    """From the taken updates (who, value, publish time), who is stalled at the end. Nothing is kept along the way."""

    def value_at(who: int, end: int) -> int:
        return next((value for one, value, _ in reversed(log[:end]) if one == who), 0)

    result = []
    for who in range(3):
        mine = [index for index, (one, _, _) in enumerate(log) if one == who]
        run = mine[-1:]
        while len(run) < len(mine) and log[mine[-len(run) - 1]][1] == log[run[0]][1]:
            run = mine[-len(run) - 1 :]
        proven = False
        for end in range(run[0] + 1 if run else len(log) + 1, len(log) + 1):
            last = next(publish_us for one, _, publish_us in reversed(log[:end]) if one == who)
            pairs = []
            for other in (one for one in range(3) if one != who):
                then = value_at(other, run[0]) or next((value for one, value, _ in log[:end] if one == other), 0)
                pairs.append((then, value_at(other, end)))
            proven |= RULE.proven(last - log[run[0]][2], pairs[0], pairs[1])
        result.append(proven)
    return result


@given(MOVES)
@settings(deadline=None, max_examples=150)
def test_the_table_marks_what_whole_histories_prove(moves: list[tuple[int, int, int]]) -> None:
    table = Table(Catalog([spec()], stall=RULE))
    now_us, log = T, []
    for who, value, seconds in moves:
        now_us += max(0, seconds) * S
        publish_us = now_us + min(0, seconds) * S
        update = PriceUpdate(SOURCES[who], "t:1", "SOL/USD", value, publish_us, now_us)
        if table.apply(update, now_us) is Applied.TAKEN:
            log.append((who, value, publish_us))
        cells = [table.cell_of(source, "SOL/USD") or 0 for source in SOURCES]
        assert [bool(int(table.flag_column[cell]) & STALLED) for cell in cells] == judged(log)
        restored = Table(table.catalog)
        restored.restore(table.state())
        table = restored  # what it takes to go on is in the state


@pytest.mark.parametrize("policy", list(Policy))
def test_both_forms_publish_the_same(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for crossing in (10**9, 1):
        monkeypatch.setattr(hub_module, "COLUMN_CROSSING", crossing)
        hub = Hub(Catalog([spec(policy)], stall=RULE), epoch=1, config_hash="", started_us=T)
        told = []
        for second in range(300):
            now_us = T + second * S
            for number, source in enumerate(SOURCES):
                moving = 100_000 + (0 if second // 100 == number else 10 * second)
                hub.apply(PriceUpdate(source, "t:1", "SOL/USD", moving, now_us, now_us), now_us)
            batch = hub.step(now_us)
            told += [batch_digest(batch)] if batch is not None else []
        digests.append(told)
    assert digests[0] == digests[1]
