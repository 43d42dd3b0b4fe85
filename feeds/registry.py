"""What can be decoded and what can be read, by name. A new source adds a line here; a test fails if one is missing."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from feeds.addresses import ASSETS, POOL, Asset
from feeds.chainlink.store import PROGRAM as CHAINLINK_STORE
from feeds.chainlink.store import Transmissions, TransmissionsReader
from feeds.custody import CustodyReader, PoolReader
from feeds.doves import PROGRAM as DOVES
from feeds.doves import AgPriceFeed, AgPriceFeedReader, PriceFeed, PriceFeedReader
from feeds.jupiter import PROGRAM as PERPS
from feeds.jupiter import Custody, Pool
from feeds.layout import check_owner, check_price, json_value, padded_text
from feeds.pyth.legacy import PROGRAMS as PYTH_LEGACY
from feeds.pyth.legacy import PriceAccount, PriceReader, status_name
from feeds.pyth.receiver import RECEIVERS, PriceUpdateReader, PriceUpdateV2
from feeds.reader import MILLISECOND_US, PriceAccountReader
from feeds.redstone import PROGRAM as REDSTONE
from feeds.redstone import PriceData, PriceDataReader, check_price_data
from oracle_hub.errors import ConfigError, DecodeError

Decoder: TypeAlias = Callable[[bytes, str | None], dict[str, object]]
Reader: TypeAlias = PriceAccountReader | CustodyReader


def _answer(
    kind: str, price: int, expo: int, timestamp: int, fields: dict[str, object], **extra: object
) -> dict[str, object]:
    """The common keys first; the layout's own fields after them, where they don't say the same."""
    head: dict[str, object] = {"kind": kind, "price": str(price), "expo": expo}
    head |= {"publish_time_us": timestamp * 1_000_000} | extra
    return head | {name: value for name, value in fields.items() if name not in head}


def decode_price_feed(data: bytes, owner: str | None = None) -> dict[str, object]:
    """A Doves PriceFeed. ``feed_id`` is the pair: text, or hex for a Data Streams id."""
    check_owner(PriceFeed.KIND, owner, frozenset({DOVES}))
    feed = PriceFeed.decode(data)
    check_price(feed.KIND, feed.price, 73, feed.timestamp, 82)
    return _answer(feed.KIND, feed.price, feed.expo, feed.timestamp, feed.fields(), feed_id=padded_text(feed.pair))


def decode_ag_price_feed(data: bytes, owner: str | None = None) -> dict[str, object]:
    """A Doves AgPriceFeed. ``feed_id`` is Pyth's."""
    check_owner(AgPriceFeed.KIND, owner, frozenset({DOVES}))
    feed = AgPriceFeed.decode(data)
    check_price(feed.KIND, feed.price, 168, feed.timestamp, 177)
    return _answer(feed.KIND, feed.price, feed.expo, feed.timestamp, feed.fields(), feed_id=feed.pyth_feed_id.hex())


def decode_custody(data: bytes, owner: str | None = None) -> dict[str, object]:
    """A Jupiter Custody: its kind and fields alone."""
    check_owner(Custody.KIND, owner, frozenset({PERPS}))
    return {"kind": Custody.KIND} | Custody.decode(data).fields()


def decode_pool(data: bytes, owner: str | None = None) -> dict[str, object]:
    """A Jupiter Pool: its kind and fields alone."""
    check_owner(Pool.KIND, owner, frozenset({PERPS}))
    return {"kind": Pool.KIND} | Pool.decode(data).fields()


def decode_transmissions(data: bytes, owner: str | None = None) -> dict[str, object]:
    """A Chainlink feed: the latest answer of its live ring."""
    check_owner(Transmissions.KIND, owner, frozenset({CHAINLINK_STORE}))
    feed = Transmissions.decode(data)
    if feed.latest_round_id == 0:
        raise DecodeError(f"{feed.KIND}: offset 143: latest_round_id is 0: nothing written yet")
    latest, fields = feed.latest, feed.fields()
    offset = 200 + 48 * feed.latest_index
    check_price(feed.KIND, latest.answer, offset + 16, latest.timestamp, offset + 8)
    return _answer(feed.KIND, latest.answer, -feed.decimals, latest.timestamp, fields, slot=json_value(latest.slot))


def decode_price_update_v2(data: bytes, owner: str | None = None) -> dict[str, object]:
    """A Pyth PriceUpdateV2. One verified partially decodes too, and says so: a reader refuses it."""
    check_owner(PriceUpdateV2.KIND, owner, RECEIVERS)
    update = PriceUpdateV2.decode(data)
    shift = 0 if update.num_signatures is None else 1
    check_price(update.KIND, update.price, 73 + shift, update.publish_time, 93 + shift)
    fields = update.fields()
    return _answer(
        update.KIND,
        update.price,
        update.exponent,
        update.publish_time,
        fields,
        conf=fields["conf"],
        feed_id=update.feed_id.hex(),
        slot=fields["posted_slot"],
    )


def decode_legacy_price(data: bytes, owner: str | None = None) -> dict[str, object]:
    """A legacy Pyth price account. One that is not trading decodes too, and says so: a reader calls it halted."""
    check_owner(PriceAccount.KIND, owner, PYTH_LEGACY)
    account = PriceAccount.decode(data)
    check_price(account.KIND, account.agg.price, 208, account.timestamp, 96)
    fields = account.fields()
    return _answer(
        account.KIND,
        account.agg.price,
        account.exponent,
        account.timestamp,
        fields,
        conf=json_value(account.agg.conf),
        slot=json_value(account.agg.pub_slot),
        status=status_name(account.agg.status),
    )


def decode_redstone(data: bytes, owner: str | None = None) -> dict[str, object]:
    """A RedStone price account. ``feed_id`` is RedStone's symbol; times in its own fields are milliseconds."""
    check_owner(PriceData.KIND, owner, frozenset({REDSTONE}))
    price = PriceData.decode(data)
    check_price_data(price)
    fields, at_us = price.fields(), price.timestamp * MILLISECOND_US
    return _answer(
        price.KIND,
        price.value,
        price.expo,
        0,
        fields,
        publish_time_us=json_value(at_us),
        feed_id=fields["feed_id"],
        slot=fields["write_slot"],
    )


DECODERS: Mapping[str, Decoder] = {
    PriceFeed.KIND: decode_price_feed,
    AgPriceFeed.KIND: decode_ag_price_feed,
    Custody.KIND: decode_custody,
    Pool.KIND: decode_pool,
    Transmissions.KIND: decode_transmissions,
    PriceUpdateV2.KIND: decode_price_update_v2,
    PriceAccount.KIND: decode_legacy_price,
    PriceData.KIND: decode_redstone,
}
"""Kind of account to a function of data and owner (None: not checked), which gives an object ready for JSON.

``price`` is always decimal text. Other integers are numbers within ±(2**53 - 1) and decimal text beyond, which can
happen to any field of 64 or 128 bits. Keys are base58, ids and signing keys hex. Fields that an older, shorter custody
lacks, and keys that are not set, are null. Every function raises DecodeError: a foreign owner or layout, too few bytes,
or (for the kinds that hold a price) an account that was never updated.
"""


class SourceKind(msgspec.Struct, frozen=True):
    """One way to read a source from Solana accounts."""

    reader: type[Reader]
    account: Callable[[Asset], str]
    """The known account of an asset that this kind is read from."""
    summary: str


SOURCES: Mapping[str, SourceKind] = {
    "doves.custody": SourceKind(CustodyReader, lambda asset: asset.custody, "the oracle that a custody names"),
    "doves.pool": SourceKind(PoolReader, lambda asset: asset.mint, "the oracles that a pool's custodies name"),
    "doves.aggregate": SourceKind(AgPriceFeedReader, lambda asset: asset.ag, "the aggregate itself"),
    "doves.edge": SourceKind(PriceFeedReader, lambda asset: asset.edge, "Edge's own leg"),
    "doves.chainlink": SourceKind(PriceFeedReader, lambda asset: asset.chainlink_doves, "the Data Streams leg"),
    "doves.lazer": SourceKind(PriceFeedReader, lambda asset: asset.lazer, "the Pyth Lazer leg"),
    "chainlink.store": SourceKind(TransmissionsReader, lambda asset: asset.chainlink_store, "Chainlink's public feeds"),
    "pyth.receiver": SourceKind(PriceUpdateReader, lambda asset: asset.pyth_new_push, "Pyth's sponsored accounts"),
    "pyth.legacy": SourceKind(PriceReader, lambda asset: asset.pyth_legacy, "Pyth's first push accounts"),
    "redstone": SourceKind(PriceDataReader, lambda asset: asset.redstone, "RedStone's price accounts"),
}
"""Kind of source, as a configuration names it, to its reader. Sources that are no accounts have links instead."""


def default_account(kind: str, feed: str, *, receiver: str = "new") -> str | None:
    """The known account of a feed for a kind of source; None when the feed is none of the known assets.

    Args:
        kind: one of :data:`SOURCES`.
        feed: as in ``SOL/USD``.
        receiver: for ``pyth.receiver``: ``new`` or ``old``.

    Raises:
        ConfigError: unknown kind.
    """
    known = _source_kind(kind)
    asset = ASSETS.get(feed)
    if asset is None:
        return None
    if kind == "pyth.receiver" and receiver == "old":
        return asset.pyth_old_push
    return known.account(asset)


def make_reader(
    kind: str, source: str, accounts: Mapping[str, str], expos: Mapping[str, int], *, pool: str | None = None
) -> Reader:
    """Make the reader of a source.

    Args:
        kind: one of :data:`SOURCES`.
        source: the name under which its updates go.
        accounts: by feed, the address that the kind is read from: a price account, a custody, or for ``doves.pool``
            a token.
        expos: canonical exponent by feed.
        pool: for ``doves.pool``; the exchange's one when absent.

    Raises:
        ConfigError: unknown kind, or one address for two feeds.
        DecodeError: a token that is no address.
    """
    reader = _source_kind(kind).reader
    if issubclass(reader, PoolReader):
        return reader(source, pool or POOL, accounts, expos)
    return reader(source, accounts, expos)


def _source_kind(kind: str) -> SourceKind:
    try:
        return SOURCES[kind]
    except KeyError:
        raise ConfigError(f"unknown kind of source {kind}; known: {', '.join(sorted(SOURCES))}") from None
