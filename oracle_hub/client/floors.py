"""What other hubs told, below which none takes a program back. Pure.

Times called ``now_us`` are of the caller's monotonic clock, in µs.
"""

from collections.abc import Mapping

import msgspec

from oracle_hub.client.mirror import Held


class Floor(msgspec.Struct, frozen=True):
    """A price that another hub told: nothing published before it is shown while its lease lasts."""

    instance: str
    publish_us: int
    until_us: int | None
    """Our clock. None: it has no end."""

    def hides(self, publish_us: int, now_us: int) -> bool:
        """Whether a price that was published then must not be shown."""
        return publish_us < self.publish_us and (self.until_us is None or now_us < self.until_us)


class Floors:
    """At most one floor for each feed."""

    def __init__(self) -> None:
        self._floors: dict[str, Floor] = {}
        self.next_end_us: int | None = None
        """Our clock: when the next of them ends by itself, or earlier; None for never."""

    def lift(self, feeds: Mapping[str, Held], latest_us: int | None, now_us: int) -> None:
        """Remember what was told last. ``latest_us``: the latest that the clock of its hub can show now."""
        for feed, held in feeds.items():
            publish_us, end_us = held.entry.publish_time_us, held.entry.valid_until_us
            if held.mantissa is None or publish_us is None or self.hides(feed, publish_us, now_us):
                continue
            left_us = None if end_us is None or latest_us is None else end_us - latest_us
            until_us = None if left_us is None else now_us + left_us
            self._floors[feed] = Floor(held.instance, publish_us, until_us)
        self._look_ahead(now_us)

    def over(self, now_us: int) -> bool:
        """Whether one may have ended by itself since the last call."""
        if self.next_end_us is None or now_us < self.next_end_us:
            return False
        self._look_ahead(now_us)
        return True

    def _look_ahead(self, now_us: int) -> None:
        ends = (floor.until_us for floor in self._floors.values())
        self.next_end_us = min((end for end in ends if end is not None and end > now_us), default=None)

    def hides(self, feed: str, publish_us: int, now_us: int) -> bool:
        """Whether a price of a feed that was published then must not be shown."""
        floor = self._floors.get(feed)
        return floor is not None and floor.hides(publish_us, now_us)

    def drop(self, instance: str) -> None:
        """This hub goes on where it stopped: its own prices need no guard."""
        self._floors = {feed: floor for feed, floor in self._floors.items() if floor.instance != instance}

    def lower(self, held: Held, now_us: int) -> bool:
        """Take in what a hub tells now; whether it is held back. A price that is not ends its feed's floor."""
        floor = self._floors.get(held.entry.feed)
        if floor is None or held.mantissa is None:
            return False
        if floor.hides(held.entry.publish_time_us or 0, now_us):
            return True
        del self._floors[held.entry.feed]
        return False
