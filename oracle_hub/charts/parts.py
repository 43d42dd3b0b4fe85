"""The open part of a bar: prices and times added up, until its bucket ends."""

from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution
from oracle_hub.core.price import rescale
from oracle_hub.errors import PriceError

NEVER_US = 2**63 - 1

CHILDREN: tuple[tuple[int, ...], ...] = tuple(
    tuple(child for child, other in enumerate(RESOLUTIONS) if other.parent is resolution) for resolution in RESOLUTIONS
)
"""By index of :data:`RESOLUTIONS`: the indices of those that are folded from it."""


class Part:
    """What is known of one bucket. ``open`` is None while no price was in force in it; bounds come with the first."""

    __slots__ = (
        "close",
        "degraded_us",
        "end_us",
        "expo",
        "high",
        "low",
        "open",
        "priced_us",
        "start_us",
        "updates",
    )

    def __init__(self) -> None:
        self.start_us = 0
        self.end_us = 0
        self.high = 0
        self.low = 0
        self.close = 0
        self.expo = 0
        self.clear()

    def clear(self) -> None:
        """Nothing is in force; the bounds stay."""
        self.open: int | None = None
        self.updates = 0
        self.degraded_us = 0
        self.priced_us = 0

    def move_to(self, resolution: Resolution, at_us: int) -> None:
        """Stand for the bucket that holds this instant."""
        if resolution is Resolution.S1:
            self.start_us = at_us - at_us % SECOND_US
            self.end_us = self.start_us + SECOND_US
        else:
            self.start_us = resolution.start_us(at_us)
            self.end_us = resolution.end_us(at_us)

    def begin(self, mantissa: int, expo: int) -> None:
        """The first price of the bucket."""
        self.open = self.high = self.low = self.close = mantissa
        self.expo = expo

    def take(self, mantissa: int, expo: int) -> None:
        """A decision with a price."""
        self.updates += 1
        if self.open is None:
            self.begin(mantissa, expo)
            return
        if expo != self.expo:
            mantissa = self._agree(mantissa, expo)
        self.close = mantissa
        if mantissa > self.high:
            self.high = mantissa
        elif mantissa < self.low:
            self.low = mantissa

    def fold(self, resolution: Resolution, other: "Part") -> None:
        """Add a later part of this bucket, which is one of ``resolution``."""
        if other.open is None:
            return
        if self.open is None:
            self.move_to(resolution, other.start_us)
            self.open, self.high, self.low, self.close = other.open, other.high, other.low, other.close
            self.expo = other.expo
        elif other.expo == self.expo:
            self.high = max(self.high, other.high)
            self.low = min(self.low, other.low)
            self.close = other.close
        else:
            self.high = max(self._agree(other.high, other.expo), self.high)
            self.low = min(self._agree(other.low, other.expo), self.low)
            self.close = self._agree(other.close, other.expo)
        self.updates += other.updates
        self.degraded_us += other.degraded_us
        self.priced_us += other.priced_us

    def _agree(self, mantissa: int, expo: int) -> int:
        """A feed's exponent was configured anew within the bucket: go on with the finer one, which is exact.

        Where the prices would not fit int64 at it: with the coarser, rounded half to even.
        """
        assert self.open is not None
        try:
            self._rescale(min(expo, self.expo))
            return rescale(mantissa, expo, self.expo)
        except PriceError:
            self._rescale(max(expo, self.expo))
            return rescale(mantissa, expo, self.expo)

    def _rescale(self, expo: int) -> None:
        if expo == self.expo:
            return
        assert self.open is not None
        self.open, self.high, self.low, self.close = (
            rescale(price, self.expo, expo) for price in (self.open, self.high, self.low, self.close)
        )
        self.expo = expo
