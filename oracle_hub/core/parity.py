"""Our decision beside the exchange's own aggregate: how far apart, and whether the chain could execute. Pure."""

import msgspec

from oracle_hub.core.catalog import FeedSpec
from oracle_hub.core.hub import DecisionInput
from oracle_hub.core.table import InputStatus

CENTI_BPS = 1_000_000
"""Hundredths of a basis point in 1."""
BY_AGE = frozenset({InputStatus.OK, InputStatus.STALE, InputStatus.STALLED})
"""Statuses of an input that holds a price which only age and repetition speak against: time alone can change them."""


class Parity(msgspec.Struct, frozen=True, gc=False):
    """One aggregate at one instant."""

    apart: int | None
    """Hundredths of a basis point between the chosen price and the aggregate's; None where one of them has no price
    that counts."""
    age_us: int | None
    """None where nothing is held."""
    max_age_us: int
    """How old an aggregate the exchange executes with may be."""
    sound: bool
    """What the account holds is a price, whatever its age."""

    @property
    def too_old(self) -> bool:
        """Older than the exchange's own check allows."""
        return self.age_us is not None and self.age_us > self.max_age_us

    @property
    def executable(self) -> bool:
        """Whether the exchange could execute with it."""
        return self.sound and not self.too_old


def apart(a: int, b: int, margin: int = 0) -> int:
    """Distance of two prices beyond a margin, in hundredths of a basis point of the smaller, rounded up."""
    distance = abs(a - b) - margin
    return 0 if distance <= 0 else -(-distance * CENTI_BPS // min(a, b))


def chain_max_age_us(spec: FeedSpec, default_us: int) -> int:
    """The exchange's limit on the age of its aggregate: as the account publishes it where that is followed."""
    return default_us if spec.chain_max_age_us is None else spec.chain_max_age_us


def parity(spec: FeedSpec, chosen: int | None, entry: DecisionInput, now_us: int, default_max_age_us: int) -> Parity:
    """Hold an aggregate against the chosen price.

    Args:
        spec: the feed, with the limits in force.
        chosen: mantissa of the decision; None where there is no price.
        entry: the aggregate, as it stood at or before ``now_us``.
        now_us: the instant.
        default_max_age_us: the exchange's limit where none is published.
    """
    held, limit_us = entry.held, chain_max_age_us(spec, default_max_age_us)
    sound = entry.status in BY_AGE or entry.status is InputStatus.UNCERTAIN
    if held is None:
        return Parity(None, None, limit_us, False)
    age_us = now_us - min(held.publish_us, held.received_us)
    counts = entry.status in BY_AGE and entry.status is not InputStatus.STALLED
    usable = counts and age_us <= spec.max_age_us[entry.source]
    distance = apart(chosen, held.mantissa) if usable and chosen is not None else None
    return Parity(distance, age_us, limit_us, sound)
