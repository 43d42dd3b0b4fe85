"""The ways to each source: which there are, what each one brought, and which has fallen behind the others. Pure.

A *way* is one transport of one source: an account by one RPC, a stream by one host. The table takes the newest update
by the order key whatever way it came by; here stands what each way had to do with it. It costs a live run a look-up and
a count for each update; all else is reckoned when somebody asks, or once a second.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import Applied, Table

Int64: TypeAlias = npt.NDArray[np.int64]
_NOT_TOLD = -1
LOOK_INTERVAL_US = 1_000_000
"""How often ways are compared with each other."""


class WaySpec(msgspec.Struct, frozen=True, kw_only=True):
    """One way as it is configured."""

    source: str
    transport: str
    """As its updates name it. Unique within a source."""
    link: str
    """The link that carries it; a link to accounts carries ways to several sources."""
    way: str
    """The way of the configuration that it is of: ``chainlink``, ``chainlink.doves``."""
    kind: str
    proves: bool
    """Whether signatures are checked on it."""
    feeds: tuple[str, ...]
    max_age_us: int
    """The max age of its kind, or its own: so far it may be behind the others for a feed."""


class Disagreement(msgspec.Struct, frozen=True, gc=False):
    """Two ways told two values for one publish time."""

    feed: str
    publish_us: int
    mantissa: int
    """What this way told."""
    held: int
    """What was held."""
    held_by: str
    """The way that had brought it."""
    at_us: int


class WayRecord(msgspec.Struct):
    """What one way did since it is known."""

    last: dict[str, PriceUpdate] = {}
    """The latest update per feed, whatever became of it."""
    counts: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys((fate.value for fate in Applied), 0))
    """How many of its updates became what. One that was taken was the first with its news."""
    late: int = 0
    """Updates whose publish time another way had told before."""
    late_us: int = 0
    """How much later, all together."""
    latest_us: int = 0
    """And at most."""
    disagreements: int = 0
    disagreement: Disagreement | None = None
    """The latest one."""

    def follow(self, update: PriceUpdate, table: Table, conflict: bool) -> None:
        """Note an update with the publish time of the held one that was not taken."""
        before = self.last.get(update.feed)
        if before is not None and before.publish_us >= update.publish_us:
            return  # the same way once more: a snapshot, or a node that repeats itself
        cell = table.cell_of(update.source, update.feed)
        if cell is None:
            return
        late_us = max(0, update.received_us - table.received_us(cell))
        self.late += 1
        self.late_us += late_us
        self.latest_us = max(self.latest_us, late_us)
        held = table.held(cell) if conflict else None
        if held is not None:
            self.disagree(update, held)

    def disagree(self, update: PriceUpdate, held: PriceUpdate) -> None:
        """Note that this way told another value than the one held."""
        self.disagreements += 1
        self.disagreement = Disagreement(
            update.feed, update.publish_us, update.mantissa, held.mantissa, held.transport, update.received_us
        )


class Lag(msgspec.Struct, frozen=True):
    """A way that is behind another one of its source."""

    feed: str
    """For which it is furthest beyond its limit."""
    behind_us: int
    """By publish time."""
    ahead: str
    """The way that is newest."""
    feeds: int
    """For how many it is beyond its limit."""


Records = Mapping[tuple[str, str], WayRecord]
"""By (source, transport)."""


def by_source(specs: Iterable[WaySpec]) -> dict[str, tuple[WaySpec, ...]]:
    """The ways of each source."""
    found: dict[str, tuple[WaySpec, ...]] = {}
    for spec in specs:
        found[spec.source] = (*found.get(spec.source, ()), spec)
    return found


def newest_of(feed: str, ways: Iterable[WaySpec], records: Records, latest_us: int) -> PriceUpdate | None:
    """The update of a feed with the latest publish time that any way to one source told; of equals the first way's.

    One stamped later than ``latest_us`` is not believed.
    """
    found: PriceUpdate | None = None
    for way in ways:
        record = records.get((way.source, way.transport))
        update = record.last.get(feed) if record is not None and feed in way.feeds else None
        if update is None or update.publish_us > latest_us:
            continue
        if found is None or update.publish_us > found.publish_us:
            found = update
    return found


def unread(
    table: Table, before: Iterable[WaySpec], after: Iterable[WaySpec], moved: Mapping[str, Collection[str]]
) -> set[tuple[str, str]]:
    """What a table holds that the ways of another configuration would not bring, by source and feed.

    Such an update is no older one of what is read now: its publish time may be the later of the two, so that it would
    keep its place for as long as it is not stale.

    Args:
        table: what is held.
        before: the ways that brought it.
        after: the ways that are read from now on. One that is gone, or of another kind, has nothing against what it
            brought.
        moved: by way, the feeds that it reads from another account, or under another id, than before.
    """
    brought = {(spec.source, spec.transport): spec for spec in before}
    today = {spec.way: spec for spec in after}
    found = set()
    for source, feed, cell in table.cells():
        spec = brought.get((source, table.transports[cell]))
        now = None if spec is None else today.get(spec.way)
        if spec is None or now is None or now.kind != spec.kind:
            continue
        unproved = now.proves and not spec.proves and not table.verified(cell)
        if unproved or feed in moved.get(spec.way, ()):
            found.add((source, feed))
    return found


class Comparison:
    """The ways to one source beside each other, in columns: once a second, for thousands of feeds.

    Args:
        ways: all of one source.
        records: what came by them.
        latest_us: an update stamped later is not believed, and no way is behind it.
        since_us: before this nobody was asked: what a way never told counts from here.
    """

    def __init__(self, ways: Sequence[WaySpec], records: Records, latest_us: int, since_us: int) -> None:
        self._ways = ways
        self.feeds: tuple[str, ...] = ways[0].feeds if ways else ()
        """Of all ways; lags of each are looked for in its own order."""
        places: dict[str, int] = {}
        if any(way.feeds != self.feeds for way in ways):
            self.feeds = tuple(dict.fromkeys(chain.from_iterable(way.feeds for way in ways)))
            places = {feed: place for place, feed in enumerate(self.feeds)}
        told = np.full((len(ways), len(self.feeds)), _NOT_TOLD, np.int64)
        self._of: list[Int64 | None] = []
        """Per way, int64 of its feeds' places; None for all of them in order."""
        for row, way in enumerate(ways):
            record = records.get((way.source, way.transport))
            last: Mapping[str, PriceUpdate] = {} if record is None else record.last
            own = [_NOT_TOLD if one is None else one.publish_us for one in map(last.get, way.feeds)]
            if own and not _NOT_TOLD <= min(own) <= max(own) <= INT64_MAX:  # an update that the table refused
                own = [min(max(one, _NOT_TOLD), INT64_MAX) for one in own]
            of = None if way.feeds == self.feeds else np.array([places[feed] for feed in way.feeds], np.int64)
            told[row, slice(None) if of is None else of] = own
            self._of.append(of)
        believed = np.where(told <= latest_us, told, _NOT_TOLD)
        self._ahead = believed.argmax(axis=0)
        self._behind_us = believed.max(axis=0) - np.where(told == _NOT_TOLD, since_us, told)
        self._behind_us[:, believed.max(axis=0) == _NOT_TOLD] = 0

    def lags(self, limits_us: Int64 | None) -> list[tuple[WaySpec, Lag]]:
        """The ways that are behind, in their order.

        Args:
            limits_us: int64 (n_feeds,), so far a way may be behind for each of :attr:`feeds` without a word (at least
                its own max age); None to be told of any lag.
        """
        found = []
        for way, of, behind_us in zip(self._ways, self._of, self._behind_us, strict=True):
            places = np.arange(len(self.feeds)) if of is None else of
            behind_us = behind_us[places]
            limit_us = 0 if limits_us is None else np.maximum(limits_us[places], way.max_age_us)
            beyond_us = np.where(behind_us > 0, behind_us - limit_us, 0)
            n_feeds = int((beyond_us > 0).sum())
            if n_feeds:
                worst = int(beyond_us.argmax())
                place = int(places[worst])
                ahead = self._ways[int(self._ahead[place])].transport
                found.append((way, Lag(self.feeds[place], int(behind_us[worst]), ahead, n_feeds)))
        return found
