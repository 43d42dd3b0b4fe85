"""When a source is proven to stand still: one value under new times, while both others moved. Pure.

A source that stopped observing may still publish: a job that carries the last value forward, a guard that clamps, a
constant in somebody's configuration. Its age says nothing then, since its publish time goes on. What gives it away is
the company: its value is the same over ``after_us`` of its own time, and both other roles of the feed moved by
``bps`` or more, the same way, from where they stood when that value began.

A market in which nobody moves proves nothing, and neither does a source whose publish time stands with its value: that
one is merely old, and its max age is the judge. Once proven it lasts until the source tells another value: that the
others come back to where they were makes an old observation no younger.
"""

import msgspec

from oracle_hub.core.price import BPS_ONE


class StallRule(msgspec.Struct, frozen=True):
    """What it takes. The one definition: the table marks cells by it, and the alerts read the mark."""

    after_us: int = 60_000_000
    """The publish time must have moved on so far under one value. 0: nothing is ever proven."""
    bps: int = 20
    """How far both others must have moved, relative to the smaller of then and now."""

    def proven(self, under_one_value_us: int, first: tuple[int, int], second: tuple[int, int]) -> bool:
        """Whether a source stands still.

        Args:
            under_one_value_us: publish time of its latest update less that of the first one with the same value.
            first, second: of either other role, the mantissa when that value began and now; 0 for not known.
        """
        if not self.after_us or under_one_value_us < self.after_us:
            return False
        (first_then, first_now), (second_then, second_now) = first, second
        if not first_then or not second_then or (first_now > first_then) is not (second_now > second_then):
            return False
        return self._far(first_then, first_now) and self._far(second_then, second_now)

    def _far(self, then: int, now: int) -> bool:
        return abs(now - then) * BPS_ONE >= self.bps * min(now, then)
