"""Who can be a witness for whom: sources that read the same thing, or a part of it, prove nothing to each other."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Protocol, runtime_checkable

import msgspec

from feeds.addresses import ASSETS
from feeds.doves import AgLegs
from oracle_hub.config import AGGREGATES, Config, Way, feed_roles, ways_of
from oracle_hub.errors import ConfigError

ORACLES = {
    "doves.edge": "Edge",
    "doves.chainlink": "Chainlink",
    "chainlink.store": "Chainlink",
    "doves.lazer": "Pyth",
    "pyth.receiver": "Pyth",
    "pyth.legacy": "Pyth",
    "pyth.hermes": "Pyth",
    "pyth.pro": "Pyth",
    "redstone": "RedStone",
    "edge.rest": "Edge",
    "chainlink.streams": "Chainlink",
    "chainlink.evm": "Chainlink",
}
"""Whose price a kind carries, where it is one oracle's."""

CARRIED = {
    "doves.edge": "edge",
    "edge.rest": "edge",
    "doves.chainlink": "chainlink",
    "chainlink.streams": "chainlink",
    "doves.lazer": "lazer",
    "pyth.pro": "lazer",
    "redstone": "redstone",
}
"""Kinds that carry the very price that a leg of an aggregate does, by the leg (as in :class:`feeds.doves.AgLegs`).
Chainlink's store and EVM feeds and Pyth's accumulator are prices of their own, made by the same oracles."""

_LEGS = {
    "edge": "Edge's leg",
    "chainlink": "Chainlink's leg",
    "lazer": "Pyth Lazer's leg",
    "redstone": "RedStone's leg",
    "pyth": "Pyth's leg",
}
_PRICES = {
    "edge": "Edge's price",
    "chainlink": "the price of Chainlink Data Streams",
    "lazer": "Pyth Lazer's price",
    "redstone": "RedStone's price",
}

Addresses = Mapping[str, Mapping[str, str]]
"""Where each way to each source reads each feed, by the way's name and feed."""


class Readings:
    """Which ways read which feed, of one configuration: looked up for thousands of feeds."""

    def __init__(self, config: Config, addresses: Addresses) -> None:
        self.config = config
        self.addresses = addresses
        self._ways: dict[str, list[Way]] = {}
        for way in ways_of(config).values():
            self._ways.setdefault(way.source, []).append(way)

    def ways(self, source: str, feed: str) -> list[Way]:
        """The ways in which a source reads a feed."""
        return [way for way in self._ways.get(source, ()) if feed in self.addresses.get(way.name, {})]

    def by_role(self, feed: str) -> list[list[Way]]:
        """The ways of a feed's primary, and of each of its verifiers."""
        return [self.ways(source, feed) for source in _roles(self.config, feed)]


def refuse_same_reading(config: Config, addresses: Addresses) -> None:
    """Two roles that read the very same account or stream would agree with themselves.

    Raises:
        ConfigError: names the feed, both sources, and what they read.
    """
    readings = Readings(config, addresses)
    for feed in config.feeds:
        read: dict[str, Way] = {}
        for way in (way for ways in readings.by_role(feed) for way in ways):
            what = _reads(way, feed, addresses)
            if what in read and read[what].source != way.source:
                raise ConfigError(
                    f"feeds.{feed}: {read[what].name} and {way.name} both read {what}, so neither can verify the other"
                )
            read[what] = way


def dependent_verifiers(config: Config, addresses: Addresses) -> dict[str, tuple[str, ...]]:
    """Per feed and in words: roles that are no independent witnesses for each other."""
    readings = Readings(config, addresses)
    found = {feed: tuple(_dependences(readings, feed)) for feed in config.feeds}
    return {feed: lines for feed, lines in found.items() if lines}


@runtime_checkable
class NamesLegs(Protocol):
    """A reader of aggregates."""

    def legs_of(self, feed: str) -> AgLegs | None:
        """The accounts that a feed's aggregate is made of; None before it was read."""
        ...


class Witnesses:
    """Who is no independent witness for whom in a line-up, with the legs that the aggregates themselves name by now.

    What follows from the configuration alone is worked out once.
    """

    def __init__(self, config: Config, addresses: Addresses, readers: Mapping[str, object]) -> None:
        self._readings = Readings(config, addresses)
        self._readers = readers
        self._configured = dependent_verifiers(config, addresses)
        self._of_aggregates = any(way.section.kind in AGGREGATES for way in ways_of(config).values())

    def all(self) -> dict[str, tuple[str, ...]]:
        """Per feed and in words, of those feeds of which there is something to say."""
        if not self._of_aggregates:
            return self._configured
        found = {feed: self.of(feed) for feed in self._readings.config.feeds}
        return {feed: lines for feed, lines in found.items() if lines}

    def of(self, feed: str) -> tuple[str, ...]:
        """Of one feed, which need not be configured."""
        lines = self._configured.get(feed, ())
        if feed not in self._readings.config.feeds or not self._of_aggregates:
            return lines
        primary, *verifiers = self._readings.by_role(feed)
        for aggregate in primary:
            reader = self._readers.get(aggregate.name)
            told = reader.legs_of(feed) if isinstance(reader, NamesLegs) else None
            named = {} if told is None else msgspec.structs.asdict(told)
            for way in (way for ways in verifiers for way in ways) if named else ():
                address, leg = self._readings.addresses[way.name][feed], CARRIED.get(way.section.kind, "")
                whole = f"the aggregate that {aggregate.name} reads"
                if any(one.startswith(f"{way.name} ") and whole in one for one in lines):
                    continue
                if address in named.values():
                    lines = (*lines, f"{way.name} reads {address}, which {whole} names as a leg")
                elif named.get(leg) is not None:
                    lines = (*lines, _same_price(way, aggregate, leg))
        return lines


def _roles(config: Config, feed: str) -> tuple[str, ...]:
    roles = feed_roles(config, config.feeds[feed])
    return (roles.primary or "", *roles.verifiers)


def _reads(way: Way, feed: str, addresses: Addresses) -> str:
    """The account or stream behind a way; for a custody the aggregate that it leads to, where that is known."""
    if way.section.kind in AGGREGATES and feed in ASSETS:
        return ASSETS[feed].ag
    address = addresses[way.name][feed]
    oracle = ORACLES.get(way.section.kind)
    return f"feed {address} of {oracle}" if address.isdecimal() else address  # a number means another feed elsewhere


def _dependences(readings: Readings, feed: str) -> Iterator[str]:
    roles, addresses = readings.by_role(feed), readings.addresses
    ways = [way for role in roles for way in role]
    for aggregate in ways:
        if aggregate.section.kind not in AGGREGATES or feed not in ASSETS:
            continue
        legs = _legs(feed)
        for other in (way for way in ways if way.source != aggregate.source):
            address, carried = addresses[other.name][feed], CARRIED.get(other.section.kind)
            if address in legs:
                leg = _LEGS[legs[address]]
                yield f"{other.name} reads {address}, which is {leg} of the aggregate that {aggregate.name} reads"
            elif carried is not None:
                yield _same_price(other, aggregate, carried)
    primaries, firsts, seconds = roles
    for primary, verifier in product(primaries, (*firsts, *seconds)):
        carried = CARRIED.get(primary.section.kind)
        if carried is not None and carried == CARRIED.get(verifier.section.kind):
            yield f"{primary.name} and {verifier.name} both carry {_PRICES[carried]}, on two roads"
    for first in firsts:
        oracle = ORACLES.get(first.section.kind)
        for second in seconds:
            if oracle is not None and oracle == ORACLES.get(second.section.kind):
                names = f"{first.name} and {second.name}"
                yield f"{names} both carry {oracle}'s price: one oracle's error would pass as two witnesses"


def _same_price(way: Way, aggregate: Way, leg: str) -> str:
    """A way that reads no leg of an aggregate, but the same price on another road: partly one witness."""
    where = f"{_LEGS[leg]} of the aggregate that {aggregate.name} reads"
    return f"{way.name} carries {_PRICES[leg]}, as {where} does: in part they are one witness"


def _legs(feed: str) -> dict[str, str]:
    """The accounts that an asset's aggregate is made of, with their names in :class:`feeds.doves.AgLegs`."""
    asset = ASSETS[feed]
    return {
        asset.edge: "edge",
        asset.chainlink_doves: "chainlink",
        asset.lazer: "lazer",
        asset.redstone: "redstone",
        asset.pyth_old_push: "pyth",
    }
