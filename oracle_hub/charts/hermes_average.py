"""The moving average that Hermes clients are given as ``ema_price``: of the prices that we chose. Integers only, pure.

Exponential, over time, with a half-life of one hour, which is the period that Pyth's own average has. It moves at every
whole second in which a price was in force: by ``1 - 2**(-1/3600)`` of the way to that price. So it does not depend on
how many decisions a second had, and time without a price does not count. Pyth also weighs prices by 1/conf; we do not,
since our confidence intervals have several origins, and one origin must not outweigh the others.

What goes with it as ``conf`` is the mean distance of those prices from the average, weighted in the same way.
"""

from collections.abc import Iterable

import msgspec

from oracle_hub.charts.bars import Bar
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import MINUTE_US, SECOND_US, Resolution
from oracle_hub.charts.store_reads import Reads

HALF_LIFE_S = 3_600
HISTORY_US = 12 * 3_600 * SECOND_US
"""How far back an average looks. What lies further back would weigh 1/4096 of the whole."""
_ONE_BITS = 64
_ONE = 1 << _ONE_BITS
_KEPT_PER_SECOND = 18_443_192_663_214_935_054
"""``floor(2**64 * 2**(-1/3600))``: what one second leaves of the past."""
_SCALE_BITS = 32
"""Binary digits behind the point of the average."""


def kept(seconds: int) -> int:
    """What so many seconds leave of the past: ``2**64 * 2**(-seconds/3600)``, rounded down."""
    if seconds > _ONE_BITS * HALF_LIFE_S:
        return 0
    result, base = _ONE, _KEPT_PER_SECOND
    while seconds:
        if seconds & 1:
            result = result * base >> _ONE_BITS
        base = base * base >> _ONE_BITS
        seconds >>= 1
    return result


class Mean(msgspec.Struct, frozen=True, gc=False):
    """An average and a mean distance from it, in units of 2**-32 of the mantissa's."""

    price: int
    distance: int

    def after(self, mantissa: int, seconds: int) -> "Mean":
        """What it is when this price was in force for so many seconds more."""
        if seconds <= 0:
            return self
        left = kept(seconds)
        price = mantissa << _SCALE_BITS
        away = self.price - price
        moved = price + (away * left >> _ONE_BITS)
        # Each second adds its distance, which itself has shrunk to what those before it left.
        each = (_ONE - _KEPT_PER_SECOND) * seconds * left >> _ONE_BITS
        return Mean(moved, (self.distance * left >> _ONE_BITS) + (abs(away) * each >> _ONE_BITS))

    @property
    def mantissa(self) -> int:
        """The average, rounded to the nearest."""
        return (self.price + (1 << _SCALE_BITS - 1)) >> _SCALE_BITS

    @property
    def conf(self) -> int:
        """The mean distance, rounded up; at least 1."""
        return max(1, -(-self.distance >> _SCALE_BITS))


class Average:
    """The average of one feed as its decisions come in. Give it points in their order; what it has had it passes over.

    In whole seconds, None where unknown: ``publish_s`` is the publish time of the last priced decision,
    ``previous_publish_s`` of the one before it, ``earlier_publish_s`` of the last one that was in another second.
    """

    def __init__(self) -> None:
        self.expo = 0
        self.publish_s: int | None = None
        self.previous_publish_s: int | None = None
        self.earlier_publish_s: int | None = None
        self.decided_us = -1
        self._mean: Mean | None = None
        self._held: Point | None = None
        self._counted_s = 0
        """The last whole second that is in the average."""

    def begin(self, bars: Iterable[Bar], before: Point | None, at_us: int) -> None:
        """Start from bars of minutes before ``at_us``, and the decision that holds there.

        The first bar's open is where it starts; a bar counts as the mean of its four prices for as long as it had one.
        """
        for bar in bars:
            price = (bar.open + bar.high + bar.low + bar.close + 2) // 4
            if self._mean is None or bar.expo != self.expo:
                self.expo, self._mean = bar.expo, Mean(bar.open << _SCALE_BITS, 0)
            self._mean = self._mean.after(price, max(0, MINUTE_US - bar.none_us) // SECOND_US)
        self._counted_s = (at_us - 1) // SECOND_US
        if before is not None:
            self._hold(before)

    def add(self, point: Point) -> None:
        """The next decision."""
        if point.decided_us <= self.decided_us or point.is_view:
            return
        if self._mean is not None:
            self._mean = self._moved(point.decided_us)
        self._counted_s = max(self._counted_s, (point.decided_us - 1) // SECOND_US)
        self._hold(point)

    def at(self, decided_us: int) -> Mean | None:
        """The average as of a decision that is the last one or one that follows it; None before any price."""
        return self._moved(decided_us)

    def publish_before(self, decided_us: int, publish_s: int) -> tuple[int | None, int | None]:
        """The publish time of the priced decision before this one, and the last one before it that was another second.

        For the last decision, or for one that follows it.
        """
        if decided_us <= self.decided_us:
            return self.previous_publish_s, self.earlier_publish_s
        return self.publish_s, self.earlier_publish_s if publish_s == self.publish_s else self.publish_s

    def _hold(self, point: Point) -> None:
        self.decided_us, self._held = point.decided_us, point
        if point.mantissa is None:
            return
        if self._mean is None or point.expo != self.expo:
            self.expo, self._mean = point.expo, Mean(point.mantissa << _SCALE_BITS, 0)
        publish_s = publish_second(point.publish_time_us, point.decided_us)
        self.previous_publish_s = self.publish_s
        if publish_s != self.publish_s:
            self.earlier_publish_s = self.publish_s
        self.publish_s = publish_s

    def _moved(self, until_us: int) -> Mean | None:
        """With every whole second before ``until_us`` in which the price that is held was in force."""
        mean, held = self._mean, self._held
        if mean is None or held is None or held.mantissa is None:
            return mean
        end_us = until_us if held.valid_until_us is None else min(until_us, held.valid_until_us)
        return mean.after(held.mantissa, (end_us - 1) // SECOND_US - self._counted_s)


def publish_second(publish_time_us: int | None, decided_us: int) -> int:
    """A publish time as Hermes tells it. Where a source has none, the decision's."""
    return (decided_us if publish_time_us is None else publish_time_us) // SECOND_US


def average_until(store: Reads, feed: str, until_us: int) -> Average:
    """The average over everything that was decided before ``until_us``: minutes of bars, then points.

    Touches the disk. Raises StoreError.
    """
    average = Average()
    minute_us = until_us - until_us % MINUTE_US
    bars = store.bars(feed, Resolution.M1, minute_us - HISTORY_US, minute_us)
    average.begin(bars, store.point_at(feed, decided_us=minute_us - 1), minute_us)
    for point in store.points(feed, minute_us, until_us):
        average.add(point)
    return average
