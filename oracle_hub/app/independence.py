"""Who can be a witness for whom: sources that read the same thing, or a part of it, prove nothing to each other."""

from collections.abc import Iterator, Mapping
from itertools import product

from feeds.addresses import ASSETS
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


def refuse_same_reading(config: Config, addresses: Addresses) -> None:
    """Two roles that read the very same account or stream would agree with themselves.

    Raises:
        ConfigError: names the feed, both sources, and what they read.
    """
    for feed in config.feeds:
        read: dict[str, Way] = {}
        for way in (way for source in _roles(config, feed) for way in _ways(config, source, feed, addresses)):
            what = _reads(way, feed, addresses)
            if what in read and read[what].source != way.source:
                raise ConfigError(
                    f"feeds.{feed}: {read[what].name} and {way.name} both read {what}, so neither can verify the other"
                )
            read[what] = way


def dependent_verifiers(config: Config, addresses: Addresses) -> dict[str, tuple[str, ...]]:
    """Per feed and in words: roles that are no independent witnesses for each other."""
    found = {feed: tuple(_dependences(config, feed, addresses)) for feed in config.feeds}
    return {feed: lines for feed, lines in found.items() if lines}


def dependent_at_run_time(
    config: Config, addresses: Addresses, readers: Mapping[str, object]
) -> dict[str, tuple[str, ...]]:
    """As :func:`dependent_verifiers`, with the legs that the aggregates themselves name by now."""
    found = dependent_verifiers(config, addresses)
    for feed in config.feeds:
        primary, *verifiers = (_ways(config, source, feed, addresses) for source in _roles(config, feed))
        for aggregate in primary:
            told = getattr(readers.get(aggregate.name), "legs", {}).get(feed)
            named = {} if told is None else {leg: getattr(told, leg) for leg in told.__struct_fields__}
            for way in (way for ways in verifiers for way in ways):
                address, leg = addresses[way.name][feed], CARRIED.get(way.section.kind, "")
                known, whole = found.get(feed, ()), f"the aggregate that {aggregate.name} reads"
                if any(one.startswith(f"{way.name} ") and whole in one for one in known):
                    continue
                if address in named.values():
                    found[feed] = (*known, f"{way.name} reads {address}, which {whole} names as a leg")
                elif named.get(leg) is not None:
                    found[feed] = (*known, _same_price(way, aggregate, leg))
    return found


def _ways(config: Config, source: str, feed: str, addresses: Addresses) -> list[Way]:
    """The ways in which a source reads a feed."""
    ways = ways_of(config).values()
    return [way for way in ways if way.source == source and feed in addresses.get(way.name, {})]


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


def _dependences(config: Config, feed: str, addresses: Addresses) -> Iterator[str]:
    roles = [_ways(config, source, feed, addresses) for source in _roles(config, feed)]
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
