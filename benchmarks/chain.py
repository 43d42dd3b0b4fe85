"""Accounts of the chain and a validator's text that tells of them: real layouts and addresses, made prices."""

import base64
from collections.abc import Callable

import msgspec
import orjson

from feeds.addresses import ASSETS, CHAINLINK_STORE, DOVES, PYTH_LEGACY, PYTH_NEW_RECEIVER, Asset
from feeds.chainlink.store import Transmission, Transmissions
from feeds.doves import AgPriceFeed, PriceFeed
from feeds.layout import UNSET_KEY, pad32, pubkey_bytes
from feeds.pyth.legacy import PriceAccount, PriceInfo
from feeds.pyth.receiver import PriceUpdateV2

FEEDS = tuple(ASSETS)
GENESIS_HASH = "4sGjMW1sUnHzSxGspuhpqLDx6wiyjNtZAMdL4VZHirAn"
"""Of no public cluster."""
PRICES = {"SOL/USD": 15_000_000_000, "BTC/USD": 11_000_000_000_000, "ETH/USD": 400_000_000_000}
"""Mantissas at -8 to start from; a dollar where absent."""
SIGNER = bytes([2]) + bytes(32)


def edge(asset: Asset, price: int, timestamp: int, slot: int) -> bytes:
    """A Doves PriceFeed: 283 bytes."""
    return PriceFeed(asset.edge_pair, SIGNER, price, -8, timestamp, 254).encode()


def aggregate(asset: Asset, price: int, timestamp: int, slot: int) -> bytes:
    """A Doves AgPriceFeed: 394 bytes."""
    return AgPriceFeed(
        mint=pubkey_bytes(asset.mint),
        edge_feed=pubkey_bytes(asset.edge),
        cl_feed=pubkey_bytes(asset.chainlink_doves),
        pyth_feed=pubkey_bytes(asset.pyth_old_push),
        pyth_feed_id=bytes.fromhex(asset.hermes_id),
        price=price,
        expo=-8,
        timestamp=timestamp,
        lazer_feed=pubkey_bytes(asset.lazer),
    ).encode()


def store(asset: Asset, price: int, timestamp: int, slot: int) -> bytes:
    """Chainlink's Transmissions with a ring of one: 248 bytes."""
    return Transmissions(
        version=2,
        state=1,
        owner=UNSET_KEY,
        proposed_owner=UNSET_KEY,
        writer=UNSET_KEY,
        description=pad32(asset.feed.replace("/", " / ")),
        decimals=8,
        flagging_threshold=0,
        latest_round_id=max(1, slot),
        granularity=1,
        live_length=1,
        live_cursor=0,
        historical_cursor=0,
        ring=Transmission(slot, timestamp, price).encode(),
    ).encode()


def receiver(asset: Asset, price: int, timestamp: int, slot: int) -> bytes:
    """Pyth's PriceUpdateV2, fully verified: 134 bytes."""
    return PriceUpdateV2(
        write_authority=pubkey_bytes(asset.pyth_new_push),
        feed_id=bytes.fromhex(asset.hermes_id),
        price=price,
        conf=price // 4_000,
        exponent=-8,
        publish_time=timestamp,
        prev_publish_time=timestamp - 1,
        ema_price=price,
        ema_conf=price // 4_000,
        posted_slot=slot,
    ).encode()


def legacy(asset: Asset, price: int, timestamp: int, slot: int) -> bytes:
    """A legacy Pyth price account with 24 publishers: 3,312 bytes."""
    info = PriceInfo(price, price // 4_000, pub_slot=slot)
    count = 24
    component = pubkey_bytes(asset.mint) + b"".join(2 * [_info(price, price // 4_000, slot)])
    account = PriceAccount(
        size=240 + 96 * count,
        exponent=-8,
        num_components=count,
        num_qt=count,
        last_slot=slot,
        valid_slot=slot,
        timestamp=timestamp,
        min_pub=3,
        product=pubkey_bytes(asset.mint),
        agg=info,
    )
    tail = (component * count).ljust(len(account.tail), b"\0")
    return msgspec.structs.replace(account, tail=tail).encode()


def _info(price: int, conf: int, slot: int) -> bytes:
    parts = ((price, 8), (conf, 8), (1, 4), (0, 4), (slot, 8))
    return b"".join(value.to_bytes(size, "little") for value, size in parts)


class Kind(msgspec.Struct, frozen=True):
    """One kind of account: how it is named in a configuration, where it lies, and how it is made."""

    name: str
    owner: str
    address: Callable[[Asset], str]
    data: Callable[[Asset, int, int, int], bytes]
    """Of asset, price at -8, unix seconds and slot."""


EDGE = Kind("doves.edge", DOVES, lambda asset: asset.edge, edge)
AGGREGATE = Kind("doves.aggregate", DOVES, lambda asset: asset.ag, aggregate)
STORE = Kind("chainlink.store", CHAINLINK_STORE, lambda asset: asset.chainlink_store, store)
RECEIVER = Kind("pyth.receiver", PYTH_NEW_RECEIVER, lambda asset: asset.pyth_new_push, receiver)
LEGACY = Kind("pyth.legacy", PYTH_LEGACY, lambda asset: asset.pyth_legacy, legacy)
KINDS = (EDGE, AGGREGATE, RECEIVER, STORE)
"""What a hub of the exchange watches on the chain today."""


def value(kind: Kind, asset: Asset, price: int, timestamp: int, slot: int) -> dict[str, object]:
    """One account as a validator writes it, in a validator's order of keys."""
    data = kind.data(asset, price, timestamp, slot)
    return {
        "lamports": 2_860_560,
        "data": [base64.b64encode(data).decode(), "base64"],
        "owner": kind.owner,
        "executable": False,
        "rentEpoch": 2**64 - 1,
        "space": len(data),
    }


def notification(subscription: int, slot: int, account: dict[str, object]) -> bytes:
    """One ``accountNotification`` as it comes over the websocket."""
    result = {"context": {"slot": slot}, "value": account}
    params = {"result": result, "subscription": subscription}
    return orjson.dumps({"jsonrpc": "2.0", "method": "accountNotification", "params": params})


def reply(request_id: object, result: object) -> bytes:
    """The answer to a request."""
    return orjson.dumps({"jsonrpc": "2.0", "id": request_id, "result": result})


def start_price(feed: str) -> int:
    """Where a feed's made prices begin."""
    return PRICES.get(feed, 100_000_000)
