"""Limits that a price account publishes of itself, and whether they can be followed. Pure."""

import msgspec

from oracle_hub.core.price import BPS_ONE

MAX_AGE_S = 3_600
"""An age beyond this is no limit. The exchange's own are 10 s and 60 s."""


class PublishedLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What an aggregate says of how old it and its legs may be, and how far apart."""

    source: str
    account: str | None
    slot: int
    """With which they came for the first time."""
    since_us: int
    max_age_s: int
    """Of the aggregate itself."""
    max_leg_age_s: int
    max_divergence_bps: int
    legs: tuple[str, ...] = ()
    """Addresses of the accounts that the aggregate is made of."""

    @property
    def numbers(self) -> tuple[int, int, int]:
        """What counts: age, age of legs, distance."""
        return (self.max_age_s, self.max_leg_age_s, self.max_divergence_bps)

    @property
    def text(self) -> str:
        """The three in words."""
        return f"{self.max_age_s} s, legs {self.max_leg_age_s} s, {self.max_divergence_bps} bps"

    def fault(self) -> str | None:
        """Why they cannot be followed; None where they can."""
        for name, value in (("age", self.max_age_s), ("age of legs", self.max_leg_age_s)):
            if not 1 <= value <= MAX_AGE_S:
                return f"{name} of {value} s is not within 1 to {MAX_AGE_S}"
        if not 1 <= self.max_divergence_bps <= BPS_ONE:
            return f"distance of {self.max_divergence_bps} bps is not within 1 to {BPS_ONE}"
        return None
