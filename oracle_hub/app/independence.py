"""Who can be a witness for whom: sources that read the same thing, or a part of it, prove nothing to each other."""

from collections.abc import Iterator, Mapping

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
            legs = getattr(readers.get(aggregate.name), "legs", {}).get(feed)
            named = set() if legs is None else {getattr(legs, name) for name in legs.__struct_fields__}
            for way in (way for ways in verifiers for way in ways):
                address = addresses[way.name][feed]
                if address in named and not any(address in line for line in found.get(feed, ())):
                    line = f"{way.name} reads {address}, which the aggregate that {aggregate.name} reads names as a leg"
                    found[feed] = (*found.get(feed, ()), line)
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
        for other in ways:
            address = addresses[other.name][feed]
            leg = legs.get(address) if other.source != aggregate.source else None
            if leg is not None:
                yield f"{other.name} reads {address}, which is {leg} of the aggregate that {aggregate.name} reads"
    _, firsts, seconds = roles
    for first in firsts:
        oracle = ORACLES.get(first.section.kind)
        for second in seconds:
            if oracle is not None and oracle == ORACLES.get(second.section.kind):
                names = f"{first.name} and {second.name}"
                yield f"{names} both carry {oracle}'s price: one oracle's error would pass as two witnesses"


def _legs(feed: str) -> dict[str, str]:
    """The accounts that an asset's aggregate is made of, by what they are."""
    asset = ASSETS[feed]
    return {
        asset.edge: "Edge's leg",
        asset.chainlink_doves: "Chainlink's leg",
        asset.lazer: "Pyth Lazer's leg",
        asset.redstone: "RedStone's leg",
        asset.pyth_old_push: "Pyth's leg",
    }
