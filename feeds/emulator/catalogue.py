"""What the emulator plays: the five known assets, and any further feed that a configuration says how to read.

A further feed gets an :class:`~feeds.addresses.Asset` of its own. What the configuration names is at the configured
place; all else that an account has to name (the legs of an aggregate, the token of a custody) follows from the feed's
name, so that two runs play the same.
"""

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from hashlib import sha256

import msgspec

from feeds.addresses import (
    ASSETS,
    CHAINLINK_STORE,
    DOVES,
    PERPS,
    POOL,
    PYTH_LEGACY,
    PYTH_NEW_RECEIVER,
    PYTH_OLD_RECEIVER,
    REDSTONE,
    Asset,
    doves_ag_feed,
    pyth_legacy_price,
)
from feeds.chainlink.data_streams import STREAM_ID
from feeds.edge.messages import feed_id_of
from feeds.emulator.oracles import AGGREGATE, CHAINLINK_LEG, EDGE, HERMES, LAZER, LEGACY, ORACLES, RECEIVER, STORE
from feeds.emulator.oracles import REDSTONE as REDSTONE_ORACLE
from feeds.evm_addresses import PROXIES, checksummed
from feeds.layout import pubkey_text
from oracle_hub.core.price import INT64_MAX
from oracle_hub.errors import ConfigError

CUSTODY = "jupiter.custody"
POOL_KIND = "jupiter.pool"
LEGS = (EDGE, LAZER, CHAINLINK_LEG)
PLAYED_FOR: Mapping[str, tuple[str, ...]] = {
    "doves.custody": (AGGREGATE,),
    **{oracle: (oracle,) for oracle in (*LEGS, AGGREGATE, STORE, RECEIVER, LEGACY, REDSTONE_ORACLE, HERMES)},
    "pyth.pro": (LAZER,),
    "edge.rest": (EDGE,),
    "chainlink.streams": (CHAINLINK_LEG,),
    "chainlink.evm": (STORE,),
}
"""By kind of source, the oracles that have to be played for a feed that is read so. An aggregate has a path of its own,
unless two of its legs are read too. ``doves.pool`` is not here: the one pool has the five custodies."""
_FIELDS: Mapping[str, str] = {
    "doves.custody": "custody",
    AGGREGATE: "ag",
    EDGE: "edge",
    LAZER: "lazer",
    CHAINLINK_LEG: "chainlink_doves",
    STORE: "chainlink_store",
    RECEIVER: "pyth_new_push",
    LEGACY: "pyth_legacy",
    REDSTONE_ORACLE: "redstone",
    HERMES: "hermes_id",
    "pyth.pro": "pro_id",
    "chainlink.streams": "data_streams_id",
}
"""By kind of source, where an asset keeps its account or id. Edge's ids and EVM proxies are beside the assets."""
_SCHEMA = "0003"
"""Of the reports that the emulator signs: a Data Streams id begins with its schema."""
_PRO_IDS_FROM, _PRO_IDS = 1_000_000, 999_000_000
_SYMBOL_BYTES = 24
"""A pair of 32 bytes holds it and ``USD-PYTH``."""


class Place(msgspec.Struct, frozen=True):
    """What an address is."""

    oracle: str
    """An oracle, ``jupiter.custody`` or ``jupiter.pool``."""
    feed: str | None
    owner: str


class ReadAt(msgspec.Struct, frozen=True, kw_only=True):
    """By what a configuration reads a feed."""

    feed: str
    kind: str
    """Of source."""
    at: str
    """Account, or id at the oracle."""
    key: str
    """Where the configuration says so, for messages."""
    chain_id: int | None = None
    """For ``chainlink.evm``."""


@cache
def next_aggregate(feed: str) -> str:
    """The address of a feed's second aggregate. The real chain has none, and no rule derives this one."""
    return pubkey_text(sha256(f"oracle-hub emulator: second aggregate of {feed}".encode()).digest())


def _key(feed: str, what: str) -> bytes:
    return sha256(f"oracle-hub emulator: {what} of {feed}".encode()).digest()


@cache
def made_asset(feed: str) -> Asset:
    """An asset of no exchange: every address and id follows from the feed's name, and exists nowhere else."""
    base, _, quote = feed.partition("/")
    symbol = (base if quote == "USD" else base + quote).encode("ascii", "replace").decode()[:_SYMBOL_BYTES]
    names = ("mint", "custody", "edge", "chainlink_doves", "lazer", "redstone", "chainlink_store")
    accounts = {name: pubkey_text(_key(feed, name)) for name in (*names, "pyth_old_push", "pyth_new_push")}
    hermes_id = _key(feed, "hermes_id").hex()
    return Asset(
        feed=feed,
        symbol=symbol,
        decimals=9,
        ag=doves_ag_feed(accounts["mint"]),
        pyth_legacy=pyth_legacy_price(hermes_id),
        hermes_id=hermes_id,
        data_streams_id=_SCHEMA + _key(feed, "data_streams_id").hex()[len(_SCHEMA) :],
        pro_id=_PRO_IDS_FROM + int.from_bytes(_key(feed, "pro_id")[:8], "big") % _PRO_IDS,
        **accounts,
    )


def made_id(kind: str, feed: str) -> str | None:
    """The account or id at which the emulator plays a feed for a kind of source, when nothing else is said of it; None
    where it can't (``doves.pool``)."""
    if kind == "edge.rest":
        return feed_id_of(feed)[:32]
    if kind == "chainlink.evm":
        return checksummed("0x" + _key(feed, "proxy")[-20:].hex())
    field = _FIELDS.get(kind)
    return None if field is None else str(getattr(made_asset(feed), field))


class Catalogue:
    """Feeds by the places at which they are read.

    Args:
        feeds: what is played; all five known assets when absent.
        read: how the configuration reads them. Known assets are where they are, whatever it says.

    Raises:
        ConfigError: a feed that is neither known nor read by anything that can be played, or two feeds at one place.
    """

    def __init__(self, feeds: Collection[str] = tuple(ASSETS), read: Iterable[ReadAt] = ()) -> None:
        self.assets: dict[str, Asset] = dict(ASSETS)
        """By feed: the known ones, played or not, and the further ones."""
        self.oracles: dict[str, tuple[str, ...]] = dict.fromkeys(ASSETS, ORACLES)
        """By feed, what is played of it."""
        self.edge_ids: dict[str, str] = {feed: feed_id_of(feed) for feed in ASSETS}
        """Edge's id by feed, for those that are read so."""
        self.proxies: dict[int, dict[str, str]] = {chain_id: dict(feeds) for chain_id, feeds in PROXIES.items()}
        """By EVM chain and feed."""
        self._extra: dict[str, Place] = {}
        self._given: dict[str, Collection[str]] = dict.fromkeys(ASSETS, _FIELDS.values())
        further: dict[str, list[ReadAt]] = {feed: [] for feed in feeds if feed not in ASSETS}
        for one in read:
            if one.feed in further:
                further[one.feed].append(one)
        for feed, places in further.items():
            self._add(feed, places)
        self.places: dict[str, Place] = {POOL: Place(POOL_KIND, None, PERPS)}
        """Every address that the emulator knows."""
        self._addresses: dict[tuple[str, str], list[str]] = {}
        self._settle_places()
        self.of_hermes_id = self._index("hermes_id", "Pyth id")
        """Feed by id; so for the others."""
        self.of_streams_id = self._index("data_streams_id", "Data Streams id")
        self.of_pro_id: dict[int, str] = {int(key): feed for key, feed in self._index("pro_id", "Pyth Pro id").items()}
        self.of_edge_id = _unique(self.edge_ids, "Edge id")

    @property
    def further(self) -> list[str]:
        """The feeds that are no known assets."""
        return [feed for feed in self.assets if feed not in ASSETS]

    def addresses(self, feed: str, oracle: str) -> list[str]:
        """The accounts that an oracle writes for a feed; none for Hermes."""
        return self._addresses.get((feed, oracle), [])

    def has_custody(self, feed: str) -> bool:
        """Whether a custody of a feed is played."""
        return AGGREGATE in self.oracles.get(feed, ())

    def has_legs(self, feed: str) -> bool:
        """Whether two legs at least of a feed's aggregate are played, one to confirm the other."""
        return len(set(LEGS) & set(self.oracles[feed])) > 1

    def _add(self, feed: str, places: list[ReadAt]) -> None:
        asset, oracles, given = made_asset(feed), dict[str, None](), dict[str, str]()
        if not places:
            raise ConfigError(
                f"emulator: unknown feed {feed!r}; known: {', '.join(ASSETS)}; others need accounts in a configuration"
            )
        for one in places:
            if one.kind not in PLAYED_FOR:
                raise ConfigError(
                    f"{one.key}: the emulator's pool has no {feed}, only {', '.join(ASSETS)}; read it by doves.custody "
                    f"or doves.aggregate (oracle-hub feeds add --derived gives an account)"
                )
            oracles |= dict.fromkeys(PLAYED_FOR[one.kind])
            field, at = _FIELDS.get(one.kind), _plain(one)
            if one.kind == "edge.rest":
                self.edge_ids[feed] = at
            elif field is None:
                self._add_proxy(one)
            elif given.setdefault(field, at) != at:
                self._add_account(one)
        changed = {field: int(at) if field == "pro_id" else at for field, at in given.items()}
        self.assets[feed] = msgspec.structs.replace(asset, **changed)
        self.oracles[feed] = tuple(oracle for oracle in ORACLES if oracle in oracles)
        self._given[feed] = given

    def _add_account(self, one: ReadAt) -> None:
        """A further account of the same oracle, which writes both; of an id there is one."""
        owner = _OWNERS.get(one.kind)
        if owner is None:
            raise ConfigError(f"{one.key}: the emulator plays {one.feed} under another id for {one.kind} already")
        oracle = CUSTODY if one.kind == "doves.custody" else one.kind
        held = self._extra.setdefault(one.at, Place(oracle, one.feed, owner))
        if (held.feed, held.oracle) != (one.feed, oracle):
            raise _taken(one.feed, f"account {one.at}", f"{held.oracle} of {held.feed}")

    def _add_proxy(self, one: ReadAt) -> None:
        proxies = self.proxies.setdefault(one.chain_id or 0, {})
        taken = next((feed for feed, at in proxies.items() if at.lower() == one.at.lower()), one.feed)
        if taken != one.feed:
            raise ConfigError(f"{one.key}: the emulator plays {taken} there")
        if proxies.setdefault(one.feed, one.at).lower() != one.at.lower():
            raise ConfigError(f"{one.key}: the emulator plays {one.feed} at another proxy of this chain already")

    def _settle_places(self) -> None:
        for feed, asset in self.assets.items():
            for oracle, address, owner in (
                (EDGE, asset.edge, DOVES),
                (LAZER, asset.lazer, DOVES),
                (CHAINLINK_LEG, asset.chainlink_doves, DOVES),
                (AGGREGATE, asset.ag, DOVES),
                (AGGREGATE, next_aggregate(feed), DOVES),
                (STORE, asset.chainlink_store, CHAINLINK_STORE),
                (RECEIVER, asset.pyth_new_push, PYTH_NEW_RECEIVER),
                (RECEIVER, asset.pyth_old_push, PYTH_OLD_RECEIVER),
                (LEGACY, asset.pyth_legacy, PYTH_LEGACY),
                (REDSTONE_ORACLE, asset.redstone, REDSTONE),
                (CUSTODY, asset.custody, PERPS),
            ):
                self._settle(address, Place(oracle, feed, owner))
        for address, place in self._extra.items():
            self._settle(address, place)

    def _settle(self, address: str, place: Place) -> None:
        assert place.feed is not None
        oracles = self.oracles[place.feed]
        if place.oracle not in oracles and not (place.oracle == CUSTODY and AGGREGATE in oracles):
            return  # nobody reads it
        held = self.places.setdefault(address, place)
        if (held.feed, held.oracle) != (place.feed, place.oracle):
            raise _taken(place.feed, f"account {address}", f"{held.oracle} of {held.feed}")
        self._addresses.setdefault((place.feed, place.oracle), []).append(address)

    def _index(self, field: str, what: str) -> dict[str, str]:
        served = {feed: asset for feed, asset in self.assets.items() if field in self._given[feed]}
        return _unique({feed: str(getattr(asset, field)) for feed, asset in served.items()}, what)


_OWNERS: Mapping[str, str] = {
    "doves.custody": PERPS,
    **dict.fromkeys((EDGE, LAZER, CHAINLINK_LEG, AGGREGATE), DOVES),
    STORE: CHAINLINK_STORE,
    RECEIVER: PYTH_NEW_RECEIVER,
    LEGACY: PYTH_LEGACY,
    REDSTONE_ORACLE: REDSTONE,
}


def _plain(one: ReadAt) -> str:
    """An account or id as the emulator's servers compare it."""
    if one.kind == HERMES:
        return one.at.lower().removeprefix("0x")
    if one.kind == "edge.rest":
        return one.at.upper()
    if one.kind != "chainlink.streams":
        return one.at
    match = STREAM_ID.fullmatch(one.at)
    found = "" if match is None else match[1].lower()
    if not found.startswith(_SCHEMA):
        raise ConfigError(f"{one.key}: the emulator signs reports of schema 3 only, whose ids begin with {_SCHEMA}")
    return found


def _unique(ids: Mapping[str, str], what: str) -> dict[str, str]:
    """Feed by id."""
    found: dict[str, str] = {}
    for feed, one in ids.items():
        other = found.setdefault(one, feed)
        if other != feed:
            raise _taken(feed, f"{what} {one}", other)
    return found


def _taken(feed: str, what: str, other: str) -> ConfigError:
    return ConfigError(f"emulator: {feed}: {what} is that of {other}; give every feed its own in the configuration")


def mantissa_of(feed: str, text: str) -> int:
    """A start price of a configuration at exponent -8.

    Raises:
        ConfigError: no positive decimal number, or none that fits.
    """
    try:
        mantissa = int(Decimal(text).scaleb(8).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):
        mantissa = 0
    if not 0 < mantissa <= INT64_MAX // 1_000:
        raise ConfigError(f'emulator.prices.{feed}: {text!r} is no price; write a positive decimal number ("12.5")')
    return mantissa


KNOWN = Catalogue()
"""The five assets."""
