"""The emulator's accounts: what each oracle's state looks like on the chain, at the mainnet addresses."""

from functools import cache
from typing import NamedTuple

import msgspec

from feeds.addresses import (
    ASSETS,
    DOVES_SIGNER,
    POOL,
    Asset,
    doves_ag_feed_bump,
    doves_feed_bump,
)
from feeds.chainlink.store import Transmission, Transmissions
from feeds.doves import AgPriceFeed, PriceFeed
from feeds.emulator.catalogue import KNOWN, Catalogue, next_aggregate
from feeds.emulator.oracles import AGGREGATE, CHAINLINK_LEG, EDGE, LAZER, RECEIVER, STORE
from feeds.emulator.oracles import REDSTONE as REDSTONE_ORACLE
from feeds.jupiter import Custody, OracleParams, ParameterUpdateOracle, Pool
from feeds.layout import UNSET_KEY, pad32, pubkey_bytes
from feeds.pyth.legacy import Ema, PriceAccount, PriceInfo
from feeds.pyth.receiver import PriceUpdateV2
from feeds.reader import MILLISECOND_US
from feeds.redstone import PriceData, symbol_of

EXPO = -8
AG_ORACLE_OFFSET = 384
"""Where a custody's ``dovesAgOracle`` begins: accounts from before April 2025 end here."""
_SECOND_US = 1_000_000
_STABLE = frozenset({"USDC", "USDT"})


class Held(msgspec.Struct, frozen=True, gc=False):
    """What one oracle holds of one feed. Prices at exponent -8."""

    mantissa: int
    conf: int
    publish_us: int
    prev_publish_us: int
    emit_us: int
    slot: int
    """Slot of the write."""
    price_slot: int
    """Pyth's own count: grows with every update."""
    ema: int
    ema_conf: int
    round_id: int

    @property
    def publish_s(self) -> int:
        """Unix seconds, as the wires carry it."""
        return self.publish_us // _SECOND_US


@cache
def _feed_bump(pair: bytes) -> int:
    return doves_feed_bump(pair)


@cache
def _ag_bump(mint: str) -> int:
    return doves_ag_feed_bump(mint)


class Limits(NamedTuple):
    """What an aggregate publishes as its own limits: seconds, seconds, basis points."""

    max_age_s: int = 10
    max_leg_age_s: int = 60
    max_diff_bps: int = 50


LIVE_LIMITS = Limits()
"""As on mainnet in autumn 2026."""


def encode_price(address: str, held: Held, limits: Limits = LIVE_LIMITS, catalogue: Catalogue = KNOWN) -> bytes:
    """The bytes of a price account that holds this state; an aggregate also publishes its limits."""
    place = catalogue.places[address]
    assert place.feed is not None
    asset = catalogue.assets[place.feed]
    if place.oracle in (EDGE, LAZER, CHAINLINK_LEG):
        return _price_feed(asset, place.oracle, held)
    if place.oracle == AGGREGATE:
        return _aggregate(asset, held, limits)
    if place.oracle == STORE:
        return _transmissions(asset, held)
    if place.oracle == RECEIVER:
        return _price_update(address, asset, held)
    if place.oracle == REDSTONE_ORACLE:
        return _redstone(asset, held)
    return _legacy(asset, held)


def _price_feed(asset: Asset, oracle: str, held: Held) -> bytes:
    pair = {EDGE: asset.edge_pair, LAZER: asset.lazer_pair, CHAINLINK_LEG: asset.chainlink_pair}[oracle]
    signer = bytes.fromhex(DOVES_SIGNER)
    return PriceFeed(pair, signer, held.mantissa, EXPO, held.publish_s, _feed_bump(pair)).encode()


def _aggregate(asset: Asset, held: Held, limits: Limits) -> bytes:
    return AgPriceFeed(
        mint=pubkey_bytes(asset.mint),
        edge_feed=pubkey_bytes(asset.edge),
        cl_feed=pubkey_bytes(asset.chainlink_doves),
        pyth_feed=pubkey_bytes(asset.pyth_old_push),
        pyth_feed_id=bytes.fromhex(asset.hermes_id),
        price=held.mantissa,
        expo=EXPO,
        timestamp=held.publish_s,
        max_ag_price_age_sec=limits.max_age_s,
        max_price_feed_age_sec=limits.max_leg_age_s,
        max_price_diff_bps=limits.max_diff_bps,
        bump=_ag_bump(asset.mint),
        lazer_feed=pubkey_bytes(asset.lazer),
        redstone_feed=pubkey_bytes(asset.redstone),
    ).encode()


def _transmissions(asset: Asset, held: Held) -> bytes:
    return Transmissions(
        version=2,
        state=1,
        owner=UNSET_KEY,
        proposed_owner=UNSET_KEY,
        writer=UNSET_KEY,
        description=_text32(asset.feed.replace("/", " / ")),
        decimals=-EXPO,
        flagging_threshold=0,
        latest_round_id=held.round_id,
        granularity=1,
        live_length=1,
        live_cursor=0,
        historical_cursor=0,
        ring=Transmission(held.slot, held.publish_s, held.mantissa).encode(),
    ).encode()


def _price_update(address: str, asset: Asset, held: Held) -> bytes:
    return PriceUpdateV2(
        write_authority=pubkey_bytes(address),
        feed_id=bytes.fromhex(asset.hermes_id),
        price=held.mantissa,
        conf=held.conf,
        exponent=EXPO,
        publish_time=held.publish_s,
        prev_publish_time=held.prev_publish_us // _SECOND_US,
        ema_price=held.ema,
        ema_conf=held.ema_conf,
        posted_slot=held.slot,
    ).encode()


def _text32(text: str) -> bytes:
    """A name, as far as it fits."""
    return text.encode("ascii", "replace")[:32].ljust(32, b"\0")


def _redstone_id(asset: Asset) -> bytes:
    return pad32(symbol_of(asset.feed) or asset.symbol)


def _redstone(asset: Asset, held: Held) -> bytes:
    published_ms, written_ms = held.publish_us // MILLISECOND_US, held.emit_us // MILLISECOND_US
    return PriceData(_redstone_id(asset), held.mantissa, published_ms, written_ms, held.slot, -EXPO).encode()


def _legacy(asset: Asset, held: Held) -> bytes:
    return PriceAccount(
        exponent=EXPO,
        last_slot=held.slot,
        valid_slot=held.slot,
        ema_price=Ema(held.ema, held.ema, 1),
        ema_conf=Ema(held.ema_conf, held.ema_conf, 1),
        timestamp=held.publish_s,
        prev_slot=max(0, held.slot - 1),
        prev_timestamp=held.prev_publish_us // _SECOND_US,
        agg=PriceInfo(held.mantissa, held.conf, pub_slot=held.slot),
    ).encode()


def encode_custody(asset: Asset, mode: str = "set") -> bytes:
    """The bytes of an asset's custody, in a mode of the fault ``custody``."""
    names = {"set": asset.ag, "next": next_aggregate(asset.feed)}.get(mode)
    data = Custody(
        pool=pubkey_bytes(POOL),
        mint=pubkey_bytes(asset.mint),
        decimals=asset.decimals,
        is_stable=asset.symbol in _STABLE,
        oracle=OracleParams(oracle_account=pubkey_bytes(asset.pyth_old_push)),
        doves_oracle=pubkey_bytes(asset.edge),
        doves_ag_oracle=None if names is None else pubkey_bytes(names),
    ).encode()
    return data[:AG_ORACLE_OFFSET] if mode == "short" else data


@cache
def encode_pool() -> bytes:
    """The bytes of the pool: it names the five custodies."""
    signer = bytes.fromhex(DOVES_SIGNER)
    return Pool(
        custodies=tuple(pubkey_bytes(asset.custody) for asset in ASSETS.values()),
        parameter_update_oracle=ParameterUpdateOracle(signer[0], signer[1:]),
    ).encode()
