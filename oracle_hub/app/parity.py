"""The exchange's aggregate beside our decisions, live and in a replay: distance, executability, and the leg it used.

An aggregate account does not say which of its legs it took. Where the price of exactly one leg that we read equals it,
that one is named; else, and where the leg is none of our sources, it is ``unknown``. So it is where only sources show
it whose price is withheld: the name beside the aggregate's price would tell theirs.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping

import msgspec

from feeds.custody import CustodyReader
from feeds.doves import AgLegs, AgPriceFeedReader
from oracle_hub.config import AGGREGATES, Config, ways_of
from oracle_hub.core.catalog import Catalog
from oracle_hub.core.hub import Hub
from oracle_hub.core.parity import Parity, parity
from oracle_hub.core.source import AccountReader, PriceUpdate

UNKNOWN = "unknown"
LEG_OF_KIND = {
    "doves.edge": "edge",
    "edge.rest": "edge",
    "doves.chainlink": "chainlink",
    "chainlink.streams": "chainlink",
    "doves.lazer": "lazer",
    "pyth.pro": "lazer",
    "pyth.receiver": "pyth",
    "pyth.hermes": "pyth",
    "redstone": "redstone",
}
"""Which leg of the aggregate a kind of source carries."""
_ON_CHAIN = frozenset({"doves.edge", "doves.chainlink", "doves.lazer", "pyth.receiver", "redstone"})
"""Kinds whose account can be compared with those that the aggregate names."""
_REMEMBERED = 128
"""Prices of a leg that are held against the aggregate's: two minutes at one a second."""
_SECOND_US = 1_000_000


def aggregates_of(config: Config) -> dict[str, tuple[str, ...]]:
    """The sources that are the exchange's aggregate, each with the names of its ways that read one: any may."""
    found: dict[str, tuple[str, ...]] = {}
    for name, way in ways_of(config).items():
        if way.section.kind in AGGREGATES:
            found[way.source] = (*found.get(way.source, ()), name)
    return found


def whole_bps(centi_bps: int | None) -> int | None:
    """A distance to 1 bp, which is what may be shown of any source."""
    return None if centi_bps is None else (centi_bps + 50) // 100


class ParityBook:
    """Remembers what legs and aggregates said. Derived, for people: nothing is decided by it."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        addresses: Mapping[str, Mapping[str, str]],
        readers: Mapping[str, AccountReader],
        before: "ParityBook | None" = None,
    ) -> None:
        self.chain_max_age_us = config.alerts.chain_max_age_ms * 1_000
        """The exchange's limit on the age of its aggregate, where none is published."""
        self._addresses = addresses
        self._readers = readers
        self._aggregate_ways = aggregates_of(config)
        self._leg_ways = _leg_ways(config)
        self.aggregates: dict[str, tuple[str, ...]] = {}
        """Per feed, the sources that are the exchange's aggregate."""
        self._legs: dict[str, dict[str, str]] = {}
        self._shown: dict[str, frozenset[str]] = {}
        """Per feed, those of the legs' sources whose price may be told."""
        self._prices: dict[tuple[str, str], deque[tuple[int, int]]] = {}
        """By (feed, source): publish time and mantissa, the latest last."""
        self.used: dict[tuple[str, str], Counter[str]] = {}
        """By (feed, aggregate): how many of its prices came from which leg."""
        for spec in catalog.feeds:
            aggregates = tuple(source for source in spec.sources if source in self._aggregate_ways)
            if not aggregates:
                continue
            self.aggregates[spec.feed] = aggregates
            self._legs[spec.feed] = legs = {
                source: LEG_OF_KIND[next(iter(self._leg_ways[source].values()))]
                for source in spec.sources
                if source in self._leg_ways
            }
            self._shown[spec.feed] = frozenset(source for source in legs if spec.shows(source))
            self.used |= {(spec.feed, source): Counter() for source in aggregates}
            self._prices |= {(spec.feed, source): deque(maxlen=_REMEMBERED) for source in (*aggregates, *legs)}
        if before is not None:
            self._prices |= {key: held for key, held in before._prices.items() if key in self._prices}
            self.used |= {key: held for key, held in before.used.items() if key in self.used}

    def note(self, update: PriceUpdate) -> None:
        """Take an update that was taken by the table."""
        prices = self._prices.get((update.feed, update.source)) if self._prices else None
        if prices is None:
            return
        used = self.used.get((update.feed, update.source))
        if used is not None and prices:
            used[self.leg(update.feed, update.source)] += 1  # of the one before: by now its leg was heard too
        prices.append((update.publish_us, update.mantissa))

    def leg(self, feed: str, aggregate: str) -> str:
        """The leg that the aggregate's present price is of, as far as can be seen; ``unknown`` where it cannot."""
        prices = self._prices[feed, aggregate]
        if not prices:
            return UNKNOWN
        publish_us, mantissa = prices[-1]
        same: set[str] = set()
        same_second: set[str] = set()
        shown: set[str] = set()
        for source, leg in self._legs[feed].items():
            if not self._is_leg(feed, source, aggregate):
                continue
            for leg_us, leg_mantissa in self._prices[feed, source]:
                if leg_mantissa == mantissa:
                    same.add(leg)
                    if source in self._shown[feed]:
                        shown.add(leg)
                    if leg_us // _SECOND_US == publish_us // _SECOND_US:
                        same_second.add(leg)
        for found in (same, same_second):
            if len(found) == 1:
                return leg if (leg := found.pop()) in shown else UNKNOWN
        return UNKNOWN

    def _is_leg(self, feed: str, source: str, aggregate: str) -> bool:
        """Whether an account is one that the aggregate names. A source that is no account is taken for its oracle's."""
        ways = self._leg_ways[source]
        if not all(kind in _ON_CHAIN for kind in ways.values()):
            return True
        legs = self._named_legs(feed, aggregate)
        named = () if legs is None else msgspec.structs.astuple(legs)
        return legs is None or any(self._addresses[way].get(feed) in named for way in ways)

    def _named_legs(self, feed: str, aggregate: str) -> AgLegs | None:
        for way in self._aggregate_ways[aggregate]:
            reader = self._readers.get(way)
            legs = reader.legs_of(feed) if isinstance(reader, CustodyReader | AgPriceFeedReader) else None
            if legs is not None:
                return legs
        return None

    def standing(self, hub: Hub, index: int, now_us: int) -> Iterator[tuple[str, str, Parity]]:
        """Each aggregate of a feed: source, role, and how it stands at ``now_us``."""
        spec = hub.catalog.feeds[index]
        aggregates = self.aggregates.get(spec.feed, ())
        decision = hub.decisions.get(spec.feed)
        if not aggregates or decision is None:
            return
        over = decision.valid_until_us is not None and decision.valid_until_us <= now_us
        chosen = None if over else decision.mantissa
        for entry in hub.inputs(index, now_us):
            if entry.source in aggregates:
                yield entry.source, entry.role, parity(spec, chosen, entry, now_us, self.chain_max_age_us)

    def view(self, hub: Hub, now_us: int) -> list[dict[str, object]]:
        """Every aggregate of every feed, for JSON. Distances to 1 bp, and no price: that is for ``explain`` to show."""
        feeds = range(len(hub.catalog.feeds))
        return [entry for index in feeds for entry in self.of_feed(hub, index, now_us)]

    def of_feed(self, hub: Hub, index: int, now_us: int) -> list[dict[str, object]]:
        """The same for one feed, by its index in the catalog."""
        feed = hub.catalog.feeds[index].feed
        return [
            {
                "feed": feed,
                "source": source,
                "role": role,
                "parity_bps": whole_bps(one.apart),
                "executable": one.executable,
                "age_ms": None if one.age_us is None else one.age_us // 1_000,
                "max_age_ms": one.max_age_us // 1_000,
                "leg": self.leg(feed, source),
                "legs": dict(sorted(self.used[feed, source].items())),
            }
            for source, role, one in self.standing(hub, index, now_us)
        ]


def _leg_ways(config: Config) -> dict[str, dict[str, str]]:
    """By source, its ways that carry a leg, with their kinds. What is an aggregate by any of its ways is no leg."""
    aggregates, found = aggregates_of(config), dict[str, dict[str, str]]()
    for name, way in ways_of(config).items():
        if way.section.kind in LEG_OF_KIND and way.source not in aggregates:
            found.setdefault(way.source, {})[name] = way.section.kind
    return found
