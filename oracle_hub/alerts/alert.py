"""What an alert is, and the one table of kinds. Pure."""

from enum import StrEnum
from hashlib import blake2b
from typing import Any

import msgspec


class Severity(StrEnum):
    """How soon somebody should look."""

    WARNING = "warning"
    CRITICAL = "critical"


class Kind(StrEnum):
    """What is wrong. Names are stable: ids, rules and runbooks hang on them."""

    PAIR_DIVERGED = "pair_diverged"
    PRIMARY_REJECTED = "primary_rejected"
    FALLBACK_ACTIVE = "fallback_active"
    NO_PRICE = "no_price"
    SOURCE_STALE = "source_stale"
    SOURCE_STALLED = "source_stalled"
    SOURCE_CLAMPED = "source_clamped"
    FUTURE_TIMESTAMP = "future_timestamp"
    CONFLICT = "conflict"
    CONFIDENCE_WIDE = "confidence_wide"
    REDUNDANCY_DEGRADED = "redundancy_degraded"
    VELOCITY = "velocity"
    PEG_BAND = "peg_band"
    PARITY_BROKEN = "parity_broken"
    NOT_EXECUTABLE = "not_executable"
    CLOCK_SKEW = "clock_skew"
    DECODE_ERRORS = "decode_errors"
    JOURNAL_LAG = "journal_lag"
    STORM = "storm"
    HUB_ALIVE = "hub_alive"


class KindSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind behaves in time. Thresholds are its detector's; these are the defaults of ``[alerts]``."""

    summary: str
    """What it means, for the runbook and the command line."""
    hold_on_us: int
    """For how long the condition must last before it is told."""
    hold_off_us: int
    """For how long it must be over before the end is told."""
    severity: Severity = Severity.WARNING
    """When it begins. A value over the critical threshold makes it critical at once."""
    escalate_us: int | None = None
    """Critical after so long. None: never by time alone."""
    grid_us: int = 0
    """Ends of ``hold_on`` are put off to the next multiple of this, so that what happens to many feeds within it is one
    group. 0: told at the very instant."""


_S = 1_000_000

KINDS: dict[Kind, KindSpec] = {
    Kind.PAIR_DIVERGED: KindSpec(
        summary="two usable sources are further apart than the feed's threshold, beyond their confidence",
        hold_on_us=500_000,
        hold_off_us=30 * _S,
        escalate_us=60 * _S,
    ),
    Kind.PRIMARY_REJECTED: KindSpec(
        summary="the primary has a price and it is not used: both verifiers stand against it, or nobody agrees",
        hold_on_us=500_000,
        hold_off_us=30 * _S,
        escalate_us=60 * _S,
    ),
    Kind.FALLBACK_ACTIVE: KindSpec(
        summary="the price comes from the fallback, or from fewer sources than the rule wants",
        hold_on_us=2 * _S,
        hold_off_us=30 * _S,
        escalate_us=600 * _S,
        grid_us=_S,
    ),
    Kind.NO_PRICE: KindSpec(
        summary="the feed has no valid price: nothing executes",
        severity=Severity.CRITICAL,
        hold_on_us=1 * _S,
        hold_off_us=30 * _S,
        grid_us=_S,
    ),
    Kind.SOURCE_STALE: KindSpec(
        summary="a source has no update young enough, or none at all",
        hold_on_us=2 * _S,
        hold_off_us=30 * _S,
        escalate_us=300 * _S,
        grid_us=_S,
    ),
    Kind.SOURCE_STALLED: KindSpec(
        summary="a source repeats one value under new times while the others moved",
        hold_on_us=0,
        hold_off_us=30 * _S,
        escalate_us=300 * _S,
    ),
    Kind.SOURCE_CLAMPED: KindSpec(
        summary="a source stands at the end of its own range while the others are beyond it: a guard that clamps",
        severity=Severity.CRITICAL,
        hold_on_us=0,
        hold_off_us=30 * _S,
    ),
    Kind.FUTURE_TIMESTAMP: KindSpec(
        summary="a source stamps its updates further ahead than our clock allows", hold_on_us=0, hold_off_us=30 * _S
    ),
    Kind.CONFLICT: KindSpec(
        summary="two ways to one source tell different values of the same time", hold_on_us=0, hold_off_us=30 * _S
    ),
    Kind.CONFIDENCE_WIDE: KindSpec(
        summary="a source's own confidence interval is wider than usual",
        hold_on_us=2 * _S,
        hold_off_us=30 * _S,
        escalate_us=300 * _S,
    ),
    Kind.REDUNDANCY_DEGRADED: KindSpec(
        summary="one more loss, of a source or of a way to one, and a price is lost",
        hold_on_us=2 * _S,
        hold_off_us=30 * _S,
        escalate_us=600 * _S,
        grid_us=_S,
    ),
    Kind.VELOCITY: KindSpec(
        summary="the chosen price moved unusually far within the window", hold_on_us=0, hold_off_us=30 * _S
    ),
    Kind.PEG_BAND: KindSpec(
        summary="a stable asset is away from its peg", hold_on_us=1 * _S, hold_off_us=30 * _S, escalate_us=300 * _S
    ),
    Kind.PARITY_BROKEN: KindSpec(
        summary="our price and the reference (what the chain uses) are apart",
        hold_on_us=2 * _S,
        hold_off_us=30 * _S,
        escalate_us=60 * _S,
    ),
    Kind.NOT_EXECUTABLE: KindSpec(
        summary="the aggregate on the chain is too old for the exchange's own check",
        hold_on_us=2 * _S,
        hold_off_us=30 * _S,
        escalate_us=60 * _S,
        grid_us=_S,
    ),
    Kind.CLOCK_SKEW: KindSpec(
        summary="our wall clock and our monotonic clock parted: no prices until that is settled",
        severity=Severity.CRITICAL,
        hold_on_us=0,
        hold_off_us=5 * _S,
    ),
    Kind.DECODE_ERRORS: KindSpec(
        summary="frames of a source keep coming that can't be used", hold_on_us=0, hold_off_us=60 * _S
    ),
    Kind.JOURNAL_LAG: KindSpec(
        summary="the journal can't be written, or lags: what is published now may not be provable",
        severity=Severity.CRITICAL,
        hold_on_us=0,
        hold_off_us=5 * _S,
    ),
    Kind.STORM: KindSpec(
        summary="more alerts are open than are told one by one", severity=Severity.CRITICAL, hold_on_us=0, hold_off_us=0
    ),
    Kind.HUB_ALIVE: KindSpec(
        summary="always firing while the hub lives: its absence is the alarm", hold_on_us=0, hold_off_us=0
    ),
}
"""Every kind, in the order of the documentation."""


class Key(msgspec.Struct, frozen=True):
    """What an alert is about: the same over restarts."""

    kind: Kind
    feed: str | None
    """None: about a source, a link or the hub as a whole."""
    sources: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """16 hex digits over kind, feed and sources."""
        text = "\x00".join((self.kind.value, self.feed or "", *self.sources))
        return blake2b(text.encode(), digest_size=8).hexdigest()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One occurrence, as it is told."""

    id: str
    """Of the key: one id for every time that this goes wrong."""
    kind: Kind
    feed: str | None
    sources: tuple[str, ...]
    severity: Severity
    started_us: int
    """When the condition began; with the id it names the occurrence."""
    told_us: int
    """When it was first told."""
    ended_us: int | None = None
    summary: str
    """One line for people, with numbers."""
    evidence: dict[str, Any]
    """As of the transition: value and thresholds, inputs, ages, distances; for a group its members."""

    @property
    def occurrence(self) -> str:
        """Names this occurrence, for deduplication at the receiver."""
        return f"{self.id}-{self.started_us}"


class Change(StrEnum):
    """What happened to an alert."""

    FIRING = "firing"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


class Transition(msgspec.Struct, frozen=True):
    """An alert that is told. ``resolved`` comes exactly once for every ``firing``."""

    change: Change
    at_us: int
    alert: Alert


class Signal(msgspec.Struct, frozen=True, gc=False):
    """What a detector measures now. Above ``enter`` it is wrong; below ``leave`` it is over; between them it stays."""

    kind: Kind
    sources: tuple[str, ...]
    value: int
    """In ``unit``."""
    enter: int
    leave: int
    critical: int | None = None
    unit: str = ""
    """``bps/100`` for hundredths of a basis point, ``us``, or empty where only presence counts."""
    text: str = ""
    """What it is about, for people."""
    coarse: bool = False
    """The exact value would tell a price that may not be told: its ``bps/100`` are told as whole basis points."""
