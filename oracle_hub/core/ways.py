"""The ways to each source: which there are, what each one brought, and which has fallen behind the others. Pure.

A *way* is one transport of one source: an account by one RPC, a stream by one host. The table takes the newest update
by the order key whatever way it came by; here stands what each way had to do with it. It costs a live run a look-up and
a count for each update; all else is reckoned when somebody asks, or once a second.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import Applied, Table

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


def newest(ways: Sequence[WaySpec], records: Records, latest_us: int) -> dict[str, PriceUpdate]:
    """Per feed of one source, the update with the latest publish time that any way told.

    One stamped later than ``latest_us`` is not believed.
    """
    found: dict[str, PriceUpdate] = {}
    for way in ways:
        record = records.get((way.source, way.transport))
        if record is None:
            continue
        for feed in way.feeds:
            update, held = record.last.get(feed), found.get(feed)
            if update is None or update.publish_us > latest_us:
                continue
            if held is None or update.publish_us > held.publish_us:
                found[feed] = update
    return found


def lag(
    way: WaySpec, records: Records, best: Mapping[str, PriceUpdate], since_us: int, limits_us: Mapping[str, int] | None
) -> Lag | None:
    """How far a way is behind; None where it is not.

    Args:
        best: of :func:`newest`.
        since_us: before this nobody was asked: what a way never told counts from here.
        limits_us: per feed, so far a way may be behind without a word; None to be told of any lag.
    """
    record = records.get((way.source, way.transport))
    last: Mapping[str, PriceUpdate] = record.last if record is not None else {}
    worst: tuple[int, int, str] | None = None
    n_feeds = 0
    for feed in way.feeds:
        ahead, own = best.get(feed), last.get(feed)
        if ahead is None:
            continue
        behind_us = ahead.publish_us - (since_us if own is None else own.publish_us)
        beyond_us = behind_us - (0 if limits_us is None else max(limits_us.get(feed, 0), way.max_age_us))
        if behind_us <= 0 or beyond_us <= 0:
            continue
        n_feeds += 1
        if worst is None or beyond_us > worst[0]:
            worst = (beyond_us, behind_us, feed)
    return None if worst is None else Lag(worst[2], worst[1], best[worst[2]].transport, n_feeds)
