"""Who can be a witness for whom: sources that read the same thing, or a part of it, prove nothing to each other."""

from collections.abc import Iterator, Mapping

from feeds.addresses import ASSETS
from oracle_hub.config import AGGREGATES, Config, feed_roles
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
}
"""Whose price a kind carries, where it is one oracle's."""

Addresses = Mapping[str, Mapping[str, str]]
"""Where each source reads each feed, by source and feed."""


def refuse_same_reading(config: Config, addresses: Addresses) -> None:
    """Two roles that read the very same account or stream would agree with themselves.

    Raises:
        ConfigError: names the feed, both sources, and what they read.
    """
    for feed in config.feeds:
        read: dict[str, str] = {}
        for source in _roles(config, feed):
            what = _reads(config, source, feed, addresses)
            if what in read:
                raise ConfigError(
                    f"feeds.{feed}: {read[what]} and {source} both read {what}, so neither can verify the other"
                )
            read[what] = source


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
        primary, *verifiers = _roles(config, feed)
        legs = getattr(readers.get(primary), "legs", {}).get(feed)
        named = set() if legs is None else {getattr(legs, name) for name in legs.__struct_fields__}
        for verifier in verifiers:
            address = addresses[verifier][feed]
            if address in named and not any(address in line for line in found.get(feed, ())):
                line = f"{verifier} reads {address}, which the aggregate that {primary} reads names as a leg"
                found[feed] = (*found.get(feed, ()), line)
    return found


def _roles(config: Config, feed: str) -> tuple[str, ...]:
    roles = feed_roles(config, config.feeds[feed])
    return (roles.primary or "", *roles.verifiers)


def _reads(config: Config, source: str, feed: str, addresses: Addresses) -> str:
    """The account or stream behind a source; for a custody the aggregate that it leads to, where that is known."""
    if config.sources[source].kind in AGGREGATES and feed in ASSETS:
        return ASSETS[feed].ag
    address = addresses[source][feed]
    oracle = ORACLES.get(config.sources[source].kind)
    return f"feed {address} of {oracle}" if address.isdecimal() else address  # a number means another feed elsewhere


def _dependences(config: Config, feed: str, addresses: Addresses) -> Iterator[str]:
    roles = _roles(config, feed)
    kinds = {source: config.sources[source].kind for source in roles}
    for aggregate in roles:
        if kinds[aggregate] in AGGREGATES and feed in ASSETS:
            legs = _legs(feed)
            for other in roles:
                leg = legs.get(addresses[other][feed])
                if leg is not None:
                    yield (
                        f"{other} reads {addresses[other][feed]}, which is {leg} of the aggregate that "
                        f"{aggregate} reads"
                    )
    _, first, second = roles
    oracle = ORACLES.get(kinds[first])
    if oracle is not None and oracle == ORACLES.get(kinds[second]):
        yield f"{first} and {second} both carry {oracle}'s price: one oracle's error would pass as two witnesses"


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
