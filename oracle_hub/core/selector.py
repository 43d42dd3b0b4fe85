"""The rule: which of three sources gives the price, and until when that holds.

Over the usable ones of primary P and verifiers A, B, and ``near`` between pairs:

- **R1** P, A, B usable, P near A and P near B: the primary; *live*.
- **R2** otherwise, A and B usable and near each other: the more recent of the two; *degraded*.
- **R3** otherwise: no price, with a reason.

One corner is a matter of policy: P and exactly one verifier usable and near each other. ``strict`` gives no price,
``quorum`` gives the primary, degraded. A usable verifier that disagrees is never outvoted.

A verifier whose licence bars it from being chosen confirms and contradicts like any other, and R2 passes it over. Where
both are barred R2 has nobody to choose: no price.

A source enters the rule as four integers (:data:`Input`): the interval of time in which it is usable, its mantissa,
and its recency. Everything that depends on time is in the interval, so the instant at which the choice will change by
itself, the *lease*, follows from the same numbers.

The rule is written once, in :func:`decide`, over booleans. :data:`OUTCOMES` tabulates it; the scalar form below and the
columnar form in :mod:`oracle_hub.core.columns` both look the outcome up, and tests prove them equal to a third form.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from oracle_hub.core.price import near


class State(StrEnum):
    """What a subscriber may do with a feed."""

    LIVE = "live"
    DEGRADED = "degraded"
    NONE = "none"


class Rule(StrEnum):
    R1 = "R1"
    R2 = "R2"
    R3 = "R3"


class Policy(StrEnum):
    """What to do when exactly one verifier is unusable and the other agrees with the primary."""

    STRICT = "strict"
    QUORUM = "quorum"


class Reason(StrEnum):
    """Why a decision is what it is: a closed set. Members are listed in order of precedence, first wins."""

    REMOVED = "removed"
    """The feed is no longer in the configuration."""
    CLOCK_SKEW = "clock_skew"
    """Our wall clock and our monotonic clock parted; ages can't be trusted until re-anchored."""
    JOURNAL = "journal_unavailable"
    """The journal is required and cannot be written."""
    WARMING = "warming"
    """Not every source has been heard in this run, and the warm-up deadline is not over."""
    TOO_FEW_SOURCES = "too_few_sources"
    """Fewer than two of the three sources are usable."""
    DIVERGED = "diverged"
    """Usable sources disagree and no two verifiers stand together."""
    VERIFIER_UNUSABLE = "verifier_unusable"
    """Primary and one verifier agree, the other verifier is unusable (none under strict, degraded under quorum)."""
    NOT_REDISTRIBUTABLE = "not_redistributable"
    """The verifiers agree with each other and not both with a primary, and neither's licence lets its price leave."""
    PRIMARY_DIVERGED = "primary_diverged"
    """The verifiers agree with each other and not both with the primary."""
    PRIMARY_UNUSABLE = "primary_unusable"
    """The verifiers agree and the primary is unusable."""
    AGREED = "agreed"
    """All three agree."""


class Outcome(msgspec.Struct, frozen=True):
    """What the rule says, before prices are put in."""

    state: State
    rule: Rule
    chosen: int
    """0 primary, 1 first verifier, 2 second verifier, -1 none."""
    reason: Reason


def decide(
    p: bool,
    a: bool,
    b: bool,
    near_pa: bool,
    near_pb: bool,
    near_ab: bool,
    b_is_newer: bool,
    policy: Policy,
    a_barred: bool = False,
    b_barred: bool = False,
) -> Outcome:
    """The rule over booleans: which sources are usable, which pairs are near, whether B is more recent than A.

    A tie in recency goes to A, the first verifier in the configuration. ``a_barred`` and ``b_barred``: its licence
    forbids that it is chosen.
    """
    if p + a + b < 2:
        return Outcome(State.NONE, Rule.R3, -1, Reason.TOO_FEW_SOURCES)
    if p and a and b and near_pa and near_pb:
        return Outcome(State.LIVE, Rule.R1, 0, Reason.AGREED)
    if a and b and near_ab:
        if a_barred and b_barred:
            return Outcome(State.NONE, Rule.R3, -1, Reason.NOT_REDISTRIBUTABLE)
        reason = Reason.PRIMARY_DIVERGED if p else Reason.PRIMARY_UNUSABLE
        takes_b = a_barred or (b_is_newer and not b_barred)
        return Outcome(State.DEGRADED, Rule.R2, 2 if takes_b else 1, reason)
    if a and b:
        return Outcome(State.NONE, Rule.R3, -1, Reason.DIVERGED)
    if not (near_pa if a else near_pb):
        return Outcome(State.NONE, Rule.R3, -1, Reason.DIVERGED)
    if policy is Policy.QUORUM:
        return Outcome(State.DEGRADED, Rule.R1, 0, Reason.VERIFIER_UNUSABLE)
    return Outcome(State.NONE, Rule.R3, -1, Reason.VERIFIER_UNUSABLE)


BIT_P, BIT_A, BIT_B, BIT_NEAR_PA, BIT_NEAR_PB, BIT_NEAR_AB, BIT_B_NEWER = (1 << i for i in range(7))
"""The situation of a feed as seven bits: three usable, three near, and B more recent than A."""
USABLE_BITS = BIT_P | BIT_A | BIT_B
BIT_A_BARRED, BIT_B_BARRED = 1 << 7, 1 << 8
"""Two more bits, which no update changes: the licence of A, of B, forbids that it is chosen."""
SITUATIONS = 1 << 9


def _tabulate(policy: Policy) -> tuple[Outcome, ...]:
    def outcome(situation: int) -> Outcome:
        p, a, b, near_pa, near_pb, near_ab, b_is_newer, *barred = (bool(situation & 1 << bit) for bit in range(9))
        return decide(p, a, b, near_pa, near_pb, near_ab, b_is_newer, policy, *barred)

    return tuple(outcome(situation) for situation in range(SITUATIONS))


OUTCOMES: dict[Policy, tuple[Outcome, ...]] = {policy: _tabulate(policy) for policy in Policy}
"""Per policy, the outcome for each of the 512 situations; in the first 128 no verifier is barred."""

Input: TypeAlias = tuple[int, int, int, int]
"""``(usable_from_us, usable_until_us, mantissa, recency_us)``; both ends of the interval are inside it."""

ABSENT: Input = (1, 0, 1, 0)
"""A source that is unusable whatever the time."""


class Selection(msgspec.Struct, frozen=True, gc=False):
    """The outcome over actual inputs."""

    outcome: Outcome
    mantissa: int | None
    valid_until_us: int | None
    """Smallest t > now at which the same inputs give another state, rule, source, price or reason; None for never."""


def select(
    now_us: int, inputs: tuple[Input, Input, Input], max_divergence_bps: int, policy: Policy, barred: int = 0
) -> Selection:
    """Choose over three inputs (primary, first verifier, second verifier) at ``now_us``.

    ``barred`` holds :data:`BIT_A_BARRED` and :data:`BIT_B_BARRED` for verifiers that may not be chosen.
    """
    outcomes = OUTCOMES[policy]
    (p_from, p_until, p, _), (a_from, a_until, a, a_recency), (b_from, b_until, b, b_recency) = inputs
    situation = barred | BIT_B_NEWER if b_recency > a_recency else barred
    if near(p, a, max_divergence_bps):
        situation |= BIT_NEAR_PA
    if near(p, b, max_divergence_bps):
        situation |= BIT_NEAR_PB
    if near(a, b, max_divergence_bps):
        situation |= BIT_NEAR_AB
    usable = 0
    if p_from <= now_us <= p_until:
        usable = BIT_P
    if a_from <= now_us <= a_until:
        usable |= BIT_A
    if b_from <= now_us <= b_until:
        usable |= BIT_B
    outcome = outcomes[situation | usable]
    if usable == USABLE_BITS and outcome.state is not State.NONE:
        # Losing any one of three usable sources changes state, source or reason: no need to look further.
        lease: int | None = min(p_until, a_until, b_until) + 1
    else:
        lease = _lease(now_us, inputs, situation, outcome, outcomes)
    chosen = outcome.chosen
    return Selection(outcome, inputs[chosen][2] if chosen >= 0 else None, lease)


def _lease(
    now_us: int, inputs: Sequence[Input], situation: int, outcome: Outcome, outcomes: Sequence[Outcome]
) -> int | None:
    """Walk through the instants at which a source becomes usable or stops being so, until the outcome differs."""
    instants: set[int] = set()
    for usable_from, usable_until, _, _ in inputs:
        if usable_from <= usable_until:
            instants.update((usable_from, usable_until + 1))
    for instant in sorted(instants):
        if instant <= now_us:
            continue
        usable = 0
        for bit, (usable_from, usable_until, _, _) in zip((BIT_P, BIT_A, BIT_B), inputs, strict=True):
            if usable_from <= instant <= usable_until:
                usable |= bit
        if outcomes[situation | usable] != outcome:
            return instant
    return None
