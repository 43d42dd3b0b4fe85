"""The rule: the design's table by value, every situation and a million random cells against a third form, and leases.

The third form below is written from the text of the rule alone and shares no code with the package.
"""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.columns import CODES, POLICIES, ColumnInputs, ColumnSelector
from oracle_hub.core.selector import (
    ABSENT,
    BIT_A_BARRED,
    BIT_B_BARRED,
    OUTCOMES,
    Input,
    Outcome,
    Policy,
    Reason,
    Rule,
    State,
    decide,
    select,
)

NOW = 1_760_000_000_000_000
SECOND = 1_000_000


def fresh(mantissa: int, recency_us: int = NOW - SECOND, max_age_us: int = 10 * SECOND) -> Input:
    """A source heard at ``recency_us``, as the table gives it to the rule."""
    return (0, recency_us + max_age_us, mantissa, recency_us)


class Naive(NamedTuple):
    state: str
    rule: str
    chosen: int
    reason: str


def naive(
    now: int, inputs: tuple[Input, Input, Input], bps: int, quorum: bool, may_leave: tuple[bool, bool] = (True, True)
) -> Naive:
    """The rule, as one would tell it; ``may_leave``: whether the licences of A and of B let its price be chosen."""
    (p_start, p_end, p, _), (a_start, a_end, a, a_time), (b_start, b_end, b, b_time) = inputs
    p_usable = p_start <= now <= p_end
    a_usable = a_start <= now <= a_end
    b_usable = b_start <= now <= b_end

    def agree(one: int, other: int) -> bool:
        if one <= other:
            return (other - one) * 10_000 <= bps * one
        return (one - other) * 10_000 <= bps * other

    if a_usable and b_usable:
        if p_usable and agree(p, a) and agree(p, b):
            return Naive("live", "R1", 0, "agreed")
        if agree(a, b):
            allowed = [
                (-time, role) for time, role, may in zip((a_time, b_time), (1, 2), may_leave, strict=True) if may
            ]
            if not allowed:
                return Naive("none", "R3", -1, "not_redistributable")
            newest = min(allowed)[1]
            return Naive("degraded", "R2", newest, "primary_diverged" if p_usable else "primary_unusable")
        return Naive("none", "R3", -1, "diverged")
    if not p_usable or not (a_usable or b_usable):
        return Naive("none", "R3", -1, "too_few_sources")
    if not agree(p, a if a_usable else b):
        return Naive("none", "R3", -1, "diverged")
    if quorum:
        return Naive("degraded", "R1", 0, "verifier_unusable")
    return Naive("none", "R3", -1, "verifier_unusable")


def plain(outcome: Outcome) -> Naive:
    return Naive(outcome.state.value, outcome.rule.value, outcome.chosen, outcome.reason.value)


# The table of the design. Prices: threshold 50 bps, so 10_000 and 10_050 are near, 10_000 and 10_051 are not.

P, A, B = 0, 1, 2
NONE, LIVE, DEGRADED = "none", "live", "degraded"
TABLE = [
    # P, A, B (None: unusable), then state, role and reason under strict, and under quorum where it differs
    pytest.param(10_000, 10_050, 9_990, (LIVE, P, "agreed"), None, id="all near"),
    pytest.param(10_000, 10_020, 10_080, (NONE, -1, "diverged"), None, id="B far from P and A"),
    pytest.param(10_000, 10_045, 10_060, (DEGRADED, A, "primary_diverged"), None, id="B far from P, near A"),
    pytest.param(10_000, 9_920, 9_930, (DEGRADED, A, "primary_diverged"), None, id="P far from both"),
    pytest.param(10_000, 10_060, 10_040, (DEGRADED, A, "primary_diverged"), None, id="A far from P, near B"),
    pytest.param(None, 10_000, 10_010, (DEGRADED, A, "primary_unusable"), None, id="P unusable, A near B"),
    pytest.param(None, 10_000, 10_060, (NONE, -1, "diverged"), None, id="P unusable, A far from B"),
    pytest.param(
        10_000, 10_010, None, (NONE, -1, "verifier_unusable"), (DEGRADED, P, "verifier_unusable"), id="B unusable"
    ),
    pytest.param(
        10_000, None, 10_010, (NONE, -1, "verifier_unusable"), (DEGRADED, P, "verifier_unusable"), id="A unusable"
    ),
    pytest.param(10_000, 10_060, None, (NONE, -1, "diverged"), None, id="A far from P, B unusable"),
    pytest.param(10_000, None, 10_060, (NONE, -1, "diverged"), None, id="B far from P, A unusable"),
    pytest.param(10_000, 10_040, 9_960, (LIVE, P, "agreed"), None, id="both near P though not near each other"),
    pytest.param(10_000, None, None, (NONE, -1, "too_few_sources"), None, id="P alone"),
    pytest.param(None, 10_000, None, (NONE, -1, "too_few_sources"), None, id="A alone"),
    pytest.param(None, None, 10_000, (NONE, -1, "too_few_sources"), None, id="B alone"),
    pytest.param(None, None, None, (NONE, -1, "too_few_sources"), None, id="nobody"),
]


@pytest.mark.parametrize(("p", "a", "b", "strict", "quorum"), TABLE)
@pytest.mark.parametrize("policy", list(Policy))
def test_the_table_of_the_rule(
    p: int | None,
    a: int | None,
    b: int | None,
    strict: tuple[str, int, str],
    quorum: tuple[str, int, str] | None,
    policy: Policy,
) -> None:
    prices = (p, a, b)
    # A is heard a millisecond after B, so "the more recent" is A; the stale variant of unusable is as good as absent.
    times = (NOW - SECOND, NOW - SECOND, NOW - SECOND - 1_000)
    for unusable in (ABSENT, fresh(10_000, NOW - 11 * SECOND), fresh(99, NOW - 11 * SECOND)):
        inputs = tuple(
            unusable if price is None else fresh(price, time) for price, time in zip(prices, times, strict=True)
        )
        selection = select(NOW, (inputs[0], inputs[1], inputs[2]), 50, policy)
        state, chosen, reason = quorum if quorum is not None and policy is Policy.QUORUM else strict
        outcome = selection.outcome
        assert (outcome.state.value, outcome.chosen, outcome.reason.value) == (state, chosen, reason)
        assert outcome.rule.value == {"live": "R1", "none": "R3"}.get(state, "R1" if chosen == P else "R2")
        assert selection.mantissa == (None if chosen < 0 else prices[chosen])


PRICES_BY_NEAR = {
    # near PA, PB, AB: prices of A and B beside a primary of 10_000
    (True, True, True): (10_030, 10_030),
    (True, True, False): (10_030, 9_970),
    (True, False, True): (10_030, 10_075),
    (True, False, False): (10_030, 10_200),
    (False, True, True): (10_075, 10_040),
    (False, True, False): (10_075, 10_000),
    (False, False, True): (10_075, 10_100),
    (False, False, False): (10_075, 9_900),
}


def test_every_situation_equals_the_third_form() -> None:
    """All 512 situations under both policies; each is also put in as prices and times."""
    assert {len(OUTCOMES[policy]) for policy in Policy} == {512}
    for bits in range(512):
        usable = [bool(bits >> role & 1) for role in range(3)]
        near_pa, near_pb, near_ab = (bool(bits >> pair & 1) for pair in (3, 4, 5))
        prices = (10_000, *PRICES_BY_NEAR[near_pa, near_pb, near_ab])
        for one, other, expected_near in ((0, 1, near_pa), (0, 2, near_pb), (1, 2, near_ab)):
            low, high = sorted((prices[one], prices[other]))
            assert (Fraction(high - low, low) <= Fraction(50, 10_000)) is expected_near
        times = (NOW, NOW, NOW + (bits >> 6 & 1))
        barred = bits & (BIT_A_BARRED | BIT_B_BARRED)
        may_leave = (not bits >> 7 & 1, not bits >> 8 & 1)
        inputs = [
            (0 if ok else 1, NOW + SECOND if ok else 0, price, time)
            for ok, price, time in zip(usable, prices, times, strict=True)
        ]
        for policy in Policy:
            expected = naive(NOW, (inputs[0], inputs[1], inputs[2]), 50, policy is Policy.QUORUM, may_leave)
            assert plain(OUTCOMES[policy][bits]) == expected
            assert plain(select(NOW, (inputs[0], inputs[1], inputs[2]), 50, policy, barred).outcome) == expected


def test_near_bits_of_unusable_sources_do_not_matter() -> None:
    """Otherwise a comparison with a stale price could change what is chosen."""
    for policy in Policy:
        for bits in range(128):
            for pair, (one, other) in ((3, (0, 1)), (4, (0, 2)), (5, (1, 2))):
                if not (bits >> one & 1 and bits >> other & 1):
                    assert OUTCOMES[policy][bits] == OUTCOMES[policy][bits ^ 1 << pair]


def test_state_rule_and_choice_go_together() -> None:
    for policy in Policy:
        for outcome in OUTCOMES[policy]:
            assert (outcome.state is State.NONE) == (outcome.chosen == -1) == (outcome.rule is Rule.R3)
            assert (outcome.state is State.LIVE) == (outcome.reason is Reason.AGREED)
            assert outcome.rule is not Rule.R2 or outcome.chosen in (1, 2)


@pytest.mark.parametrize("policy", list(Policy))
def test_who_may_not_be_told_verifies_and_is_never_chosen(policy: Policy) -> None:
    """By value: A is the newer one, and each of the licences is tried."""
    a, b = fresh(10_010, NOW - 1), fresh(10_020, NOW - 2)
    apart = (fresh(10_100), a, b)
    said = []
    for barred in (0, BIT_A_BARRED, BIT_B_BARRED, BIT_A_BARRED | BIT_B_BARRED):
        assert select(NOW, (fresh(10_000), a, b), 50, policy, barred).mantissa == 10_000, "R1 is nobody's licence"
        for inputs, reason in ((apart, "primary_diverged"), ((ABSENT, a, b), "primary_unusable")):
            chosen = select(NOW, inputs, 50, policy, barred)
            said.append((barred >> 7, chosen.mantissa, chosen.outcome.reason.value == reason))
    assert said[::2] == said[1::2] == [(0, 10_010, True), (1, 10_020, True), (2, 10_010, True), (3, None, False)]
    nobody = select(NOW, apart, 50, policy, BIT_A_BARRED | BIT_B_BARRED)
    assert nobody.outcome == Outcome(State.NONE, Rule.R3, -1, Reason.NOT_REDISTRIBUTABLE)
    assert nobody.valid_until_us == NOW - 2 + 10 * SECOND + 1, "until B is too old to agree with A"


def test_quorum_never_outvotes_and_differs_in_one_reason_only() -> None:
    for strict, quorum in zip(OUTCOMES[Policy.STRICT], OUTCOMES[Policy.QUORUM], strict=True):
        if strict != quorum:
            assert strict.reason is quorum.reason is Reason.VERIFIER_UNUSABLE
            assert (strict.state, quorum.state, quorum.chosen) == (State.NONE, State.DEGRADED, 0)


def test_decide_is_what_the_table_holds() -> None:
    outcome = decide(True, True, True, True, False, True, True, Policy.STRICT)
    assert outcome == OUTCOMES[Policy.STRICT][0b1101111]
    assert outcome == Outcome(State.DEGRADED, Rule.R2, 2, Reason.PRIMARY_DIVERGED)


def test_the_documented_table_is_what_the_code_does() -> None:
    """Every row of ADR 0003, and every situation has a row."""
    adr = Path(__file__).resolve().parents[2] / "docs" / "adr" / "0003-two-policies.md"
    rows = [
        line.strip("| ").split(" | ")
        for line in adr.read_text(encoding="utf-8").splitlines()
        if "`" in line and line[0] == "|"
    ]
    documented = {(usable, near): (strict, quorum) for usable, near, strict, quorum in rows}
    assert len(documented) == len(rows) == 18
    seen = set()
    for bits in range(128):
        usable = " ".join(name for bit, name in enumerate("PAB") if bits >> bit & 1)
        pairs = [pair for bit, pair in ((3, "PA"), (4, "PB"), (5, "AB")) if set(pair) <= set(usable)]
        near = [pair for bit, pair in ((3, "PA"), (4, "PB"), (5, "AB")) if pair in pairs and bits >> bit & 1]
        key = (usable or "none", " ".join(near) or ("none" if pairs else "–"))
        seen.add(key)
        for policy, text in zip((Policy.STRICT, Policy.QUORUM), documented[key], strict=True):
            outcome = OUTCOMES[policy][bits]
            chosen = "" if outcome.chosen < 0 else ", P" if outcome.chosen == 0 else ", newer of A, B"
            assert text == f"{outcome.state}{chosen}, `{outcome.reason}`"
    assert seen == set(documented)


# Edges.


def test_age_of_exactly_the_limit_is_usable_and_a_microsecond_more_is_not() -> None:
    others = (fresh(10_000), fresh(10_000))
    at_limit = select(NOW, (fresh(10_000, NOW - 10 * SECOND), *others), 50, Policy.STRICT)
    assert at_limit.outcome.state is State.LIVE
    assert at_limit.valid_until_us == NOW + 1
    beyond = select(NOW, (fresh(10_000, NOW - 10 * SECOND - 1), *others), 50, Policy.STRICT)
    assert beyond.outcome == Outcome(State.DEGRADED, Rule.R2, 1, Reason.PRIMARY_UNUSABLE)


@pytest.mark.parametrize("base", [10_000, 10_001, 19_999, 17_500_000_000, 2**62 // 10_000 * 10_000, 2**62, 2**62 - 1])
@pytest.mark.parametrize("bps", [0, 1, 50, 10_000])
def test_divergence_of_exactly_the_threshold_is_near_and_one_more_is_not(base: int, bps: int) -> None:
    bound = base * bps // 10_000
    for apart, state in ((bound, State.LIVE), (bound + 1, State.NONE)):
        for p, other in ((base, base + apart), (base + apart, base)):  # symmetric: whoever is the larger
            assert select(NOW, (fresh(p), fresh(other), fresh(p)), bps, Policy.STRICT).outcome.state is state


def test_equal_times_go_to_the_first_verifier_and_one_microsecond_decides() -> None:
    for lead, chosen in ((0, 1), (1, 2), (-1, 1)):
        inputs = (ABSENT, fresh(10_000, NOW - SECOND), fresh(10_001, NOW - SECOND + lead))
        assert select(NOW, inputs, 50, Policy.STRICT).outcome.chosen == chosen


def test_a_source_is_usable_from_its_first_instant() -> None:
    """The interval's start is inclusive: a stamp exactly at the limit of the future is believed."""
    for start, reason in ((NOW, Reason.AGREED), (NOW + 1, Reason.PRIMARY_UNUSABLE)):
        inputs = ((start, NOW + SECOND, 10_000, NOW), fresh(10_000), fresh(10_000))
        assert select(NOW, inputs, 50, Policy.STRICT).outcome.reason is reason


def test_the_price_is_the_chosen_sources_own() -> None:
    """Never a mean, never another's."""
    assert select(NOW, (fresh(10_003), fresh(10_001), fresh(10_002)), 50, Policy.STRICT).mantissa == 10_003
    assert select(NOW, (ABSENT, fresh(10_001, NOW - 2), fresh(10_002, NOW - 1)), 50, Policy.STRICT).mantissa == 10_002
    assert select(NOW, (ABSENT, ABSENT, fresh(10_002)), 50, Policy.STRICT).mantissa is None


# Leases.


def test_a_lease_ends_one_microsecond_after_the_first_source_that_matters() -> None:
    inputs = (fresh(10_000, NOW - 1), fresh(10_000, NOW - 3), fresh(10_000, NOW - 2))
    assert select(NOW, inputs, 50, Policy.STRICT).valid_until_us == NOW - 3 + 10 * SECOND + 1


def test_what_does_not_matter_does_not_end_a_lease() -> None:
    """All apart: diverged until two of them are gone."""
    apart = (fresh(10_000, NOW - 5), fresh(10_100, NOW - 5), fresh(10_300, NOW - 9))
    selection = select(NOW, apart, 50, Policy.STRICT)
    assert selection.outcome.reason is Reason.DIVERGED
    # B ends first: P and A remain, still apart, still diverged. Then both go together: too few.
    assert selection.valid_until_us == NOW - 5 + 10 * SECOND + 1


def test_nothing_to_wait_for_is_no_lease() -> None:
    assert select(NOW, (ABSENT, ABSENT, ABSENT), 50, Policy.STRICT).valid_until_us is None
    assert select(NOW, (fresh(10_000), ABSENT, ABSENT), 50, Policy.QUORUM).valid_until_us is None
    assert select(NOW, (ABSENT, fresh(10_000, NOW - 99 * SECOND), ABSENT), 50, Policy.STRICT).valid_until_us is None


small = st.integers(-6, 12)
sources = st.tuples(small, small, st.sampled_from([10_000, 10_040, 10_060, 10_110]), st.integers(0, 2))


@settings(max_examples=1_500, deadline=None)
@given(
    now=small,
    inputs=st.tuples(sources, sources, sources),
    policy=st.sampled_from(list(Policy)),
    may_leave=st.tuples(st.booleans(), st.booleans()),
)
def test_a_lease_is_the_first_instant_of_another_outcome(
    now: int, inputs: tuple[Input, Input, Input], policy: Policy, may_leave: tuple[bool, bool]
) -> None:
    """Brute force over every instant to come: nothing changes before the lease's end, and something does at it."""
    quorum = policy is Policy.QUORUM
    barred = sum(bit for may, bit in zip(may_leave, (BIT_A_BARRED, BIT_B_BARRED), strict=True) if not may)
    selection = select(now, inputs, 50, policy, barred)
    outcome = naive(now, inputs, 50, quorum, may_leave)
    assert plain(selection.outcome) == outcome
    changes = (t for t in range(now + 1, 20) if naive(t, inputs, 50, quorum, may_leave) != outcome)
    assert selection.valid_until_us == next(changes, None)


# A million cells.


def test_a_million_random_cells_scalar_equals_columnar_equals_naive() -> None:
    rng = np.random.default_rng(20_251_010)
    n = 1_000_000
    now = NOW + rng.integers(-4, 5, n)
    starts = np.where(rng.random((3, n)) < 0.8, 0, NOW + rng.integers(-6, 7, (3, n)))
    ends = NOW + np.where(rng.random((3, n)) < 0.5, SECOND, rng.integers(-6, 7, (3, n)))
    base = np.exp2(rng.uniform(0, 60, n)).astype(np.int64)  # 1 to 2^60, so that twice the bound stays below 2^62
    bps = rng.choice(np.array([0, 1, 50, 777, 10_000]), n)
    bound = bps * (base // 10_000) + bps * (base % 10_000) // 10_000
    steps = rng.choice(np.array([-1, 0, 0, 1, 1, 2]), (3, n))
    prices = np.maximum(base + steps * bound + rng.integers(-1, 2, (3, n)), 1)
    times = NOW + rng.integers(-1, 2, (3, n))
    policies = rng.integers(0, 2, n).astype(np.uint8)
    bars = rng.choice(np.array([0, 0, BIT_A_BARRED, BIT_B_BARRED, BIT_A_BARRED | BIT_B_BARRED]), n)
    columns = ColumnSelector().select(now, ColumnInputs(starts, ends, prices, times), bps, policies, bars)

    rows = [
        list(zip(starts[role].tolist(), ends[role].tolist(), prices[role].tolist(), times[role].tolist(), strict=True))
        for role in range(3)
    ]
    plain_codes = [plain(outcome) for outcome in CODES]
    codes, mantissas, policy_of = columns.code.tolist(), columns.mantissa.tolist(), policies.tolist()
    barred_of = bars.tolist()
    for index, (at, limit, *inputs) in enumerate(zip(now.tolist(), bps.tolist(), *rows, strict=True)):
        cell: tuple[Input, Input, Input] = (inputs[0], inputs[1], inputs[2])
        code = codes[index]
        barred = barred_of[index]
        scalar = select(at, cell, limit, POLICIES[policy_of[index]], barred)
        if scalar.outcome is not CODES[code]:
            assert scalar.outcome == CODES[code], (at, cell, limit)
        may_leave = (not barred & BIT_A_BARRED, not barred & BIT_B_BARRED)
        third = naive(at, cell, limit, policy_of[index] == 1, may_leave)
        assert third == plain_codes[code], (at, cell, limit)
        price = cell[third.chosen][2] if third.chosen >= 0 else 0
        assert mantissas[index] == price == (scalar.mantissa or 0), (at, cell, limit)
    assert np.bincount(columns.code, minlength=len(CODES)).min() > 5_000, "every outcome is well represented"
