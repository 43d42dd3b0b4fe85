"""Our prices in the shapes of Hermes: same keys, same types, and what else we know in a key of our own. Pure.

``oracle_hub`` is the key that Hermes does not have. Its clients pass over it.
"""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from oracle_hub.charts.bars import Bar
from oracle_hub.charts.hermes_average import Average, publish_second
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import SECOND_US
from oracle_hub.charts.symbols import symbol
from oracle_hub.client import Price

EMITTER_CHAIN = 26
"""Pythnet's number at Wormhole, which clients of the first API want to see."""
USABLE = "ok"
SCHEDULE = "America/New_York;O,O,O,O,O,O,O;"
"""Open on all days: a feed of the hub has a price or says that it has none, whatever the day."""
_ASSET_TYPES = {"Crypto": "crypto", "FX": "fx", "Metal": "metal"}
ASSET_TYPES = frozenset(
    {"crypto", "fx", "equity", "metal", "rates", "crypto_redemption_rate", "commodities", "crypto_index"}
) | {"crypto_nav", "eco", "kalshi"}


class Provenance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a price comes from: the key ``oracle_hub`` of each."""

    feed: str
    state: str
    """``live`` or ``degraded``: there is no entry for a feed in ``none``."""
    source: str | None
    rule: str
    reason: str
    publish_time_us: int | None
    decided_us: int
    valid_until_us: int | None
    """End of the lease, exclusive, by the hub's clock. None: it does not end by itself."""
    instance: str
    epoch: int
    seq: int
    conf_origin: str
    """``source``: the chosen source's own. ``inputs``: the farthest usable source. ``minute``: the minute's range."""
    ema_origin: str
    """``decisions``: of the prices that we chose."""
    simulated: bool


class Quote(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One price with everything that both APIs of Hermes tell of it."""

    price_id: str
    mantissa: int
    conf: int
    expo: int
    publish_s: int
    previous_publish_s: int
    """Publish time of the decision before it; its own where that is unknown: then it is not taken for a first one."""
    earlier_publish_s: int | None
    """The last publish time before it that was another second."""
    ema: int
    ema_conf: int
    provenance: Provenance

    @property
    def feed(self) -> str:
        """Name of the feed."""
        return self.provenance.feed

    @property
    def source(self) -> str | None:
        """Whose price it is."""
        return self.provenance.source

    @property
    def publish_time_us(self) -> int | None:
        """When it was published, exactly."""
        return self.provenance.publish_time_us

    @property
    def decided_us(self) -> int:
        """When it was chosen."""
        return self.provenance.decided_us

    @property
    def slot(self) -> int:
        """What orders decisions, also over restarts: the instant of the decision in µs. There is no slot behind it."""
        return self.provenance.decided_us

    @property
    def available_s(self) -> int:
        """When it could be had."""
        return self.provenance.decided_us // SECOND_US


def quote_now(price_id: str, price: Price, average: Average, *, simulated: bool) -> Quote:
    """The price that holds now."""
    conf, origin = _conf_now(price)
    return _quote(price_id, price, conf, origin, average, simulated=simulated)


def quote_then(price_id: str, point: Point, minute: Bar | None, average: Average, *, simulated: bool) -> Quote:
    """A decision of the past, with the bar of its minute and the average as of it."""
    assert point.mantissa is not None
    if point.conf:
        conf, origin = point.conf, "source"
    else:
        bounds = () if minute is None or minute.expo != point.expo else (minute.high, minute.low)
        conf, origin = max((1, *(abs(bound - point.mantissa) for bound in bounds))), "minute"
    return _quote(price_id, point, conf, origin, average, simulated=simulated)


def _quote(
    price_id: str, told: Price | Point, conf: int, conf_origin: str, average: Average, *, simulated: bool
) -> Quote:
    assert told.mantissa is not None
    mean = average.at(told.decided_us) if average.expo == told.expo else None
    publish_s = publish_second(told.publish_time_us, told.decided_us)
    previous_s, earlier_s = average.publish_before(told.decided_us, publish_s)
    return Quote(
        price_id=price_id,
        mantissa=told.mantissa,
        conf=conf,
        expo=told.expo,
        publish_s=publish_s,
        previous_publish_s=publish_s if previous_s is None else previous_s,
        earlier_publish_s=earlier_s,
        # The first price of a feed is its own average, with no distance from it.
        ema=told.mantissa if mean is None else mean.mantissa,
        ema_conf=1 if mean is None else mean.conf,
        provenance=Provenance(
            feed=told.feed,
            state=told.state,
            source=told.source,
            rule=told.rule,
            reason=told.reason,
            publish_time_us=told.publish_time_us,
            decided_us=told.decided_us,
            valid_until_us=told.valid_until_us,
            instance=told.instance,
            epoch=told.epoch,
            seq=told.seq,
            conf_origin=conf_origin,
            ema_origin="decisions",
            simulated=simulated,
        ),
    )


def _conf_now(price: Price) -> tuple[int, str]:
    """The source's own confidence interval; where it gives none, how far the farthest usable source is away."""
    if price.conf:
        return price.conf, "source"
    farthest = 1
    for entry in (price.inputs or {}).values():
        if entry.status != USABLE:
            continue
        if entry.price is not None:
            farthest = max(farthest, abs(int(entry.price) - price.mantissa))
        elif entry.divergence_bps is not None:  # a source whose price may not be shown
            farthest = max(farthest, price.mantissa * math.ceil(entry.divergence_bps * 100) // 1_000_000)
    return farthest, "inputs"


# Shapes of the second API.


def binary(encoding: str, signed: Sequence[bytes]) -> dict[str, object]:
    """Signed updates of exactly the prices that are told beside it; none of them where one has none."""
    texts = [one.hex() if encoding == "hex" else b64encode(one).decode() for one in signed]
    return {"encoding": encoding, "data": texts}


def parsed_entry(quote: Quote) -> dict[str, object]:
    """An entry of ``parsed``."""
    price, average = _prices(quote)
    return {
        "id": quote.price_id,
        "price": price,
        "ema_price": average,
        "metadata": {
            "slot": quote.slot,
            "proof_available_time": quote.available_s,
            "prev_publish_time": quote.previous_publish_s,
        },
        "oracle_hub": quote.provenance,
    }


def price_update(
    quotes: Sequence[Quote],
    encoding: str,
    *,
    signed: Sequence[bytes],
    parsed: bool,
    absent: Mapping[str, str],
    simulated: bool,
) -> dict[str, object]:
    """The body of REST, and of each event. ``absent``: ids that were asked for and have no price, with the reason."""
    body: dict[str, object] = {"binary": binary(encoding, signed)}
    if parsed:
        body["parsed"] = [parsed_entry(quote) for quote in quotes]
    body["oracle_hub"] = {"simulated": simulated, "absent": absent}
    return body


def feed_metadata(price_id: str, feed: str, expo: int) -> dict[str, Any]:
    """An entry of ``/v2/price_feeds``. Values of attributes are strings: clients refuse anything else."""
    named = symbol(feed, expo)
    attributes = {
        "asset_type": _ASSET_TYPES[named.asset_class],
        "base": named.base,
        "description": named.description,
        "display_symbol": named.feed,
        "generic_symbol": named.name,
        "quote_currency": named.quote or "",
        "schedule": SCHEDULE,
        "symbol": named.ticker,
    }
    return {"id": price_id, "attributes": attributes, "oracle_hub": {"feed": feed, "expo": expo}}


# Shapes of the first API.


def price_feed(quote: Quote, signed: bytes | None, *, verbose: bool, with_binary: bool) -> dict[str, object]:
    """A price feed of the first API and of the websocket. No number of it may be null: its clients refuse that."""
    price, average = _prices(quote)
    entry: dict[str, object] = {"id": quote.price_id, "price": price, "ema_price": average}
    if verbose:
        entry["metadata"] = {
            "slot": quote.slot,
            "emitter_chain": EMITTER_CHAIN,
            "price_service_receive_time": quote.available_s,
            "prev_publish_time": quote.previous_publish_s,
        }
    if with_binary:
        entry["vaa"] = "" if signed is None else b64encode(signed).decode()
    entry["oracle_hub"] = quote.provenance
    return entry


def _prices(quote: Quote) -> tuple[dict[str, object], dict[str, object]]:
    common = {"expo": quote.expo, "publish_time": quote.publish_s}
    return (
        {"price": str(quote.mantissa), "conf": str(quote.conf), **common},
        {"price": str(quote.ema), "conf": str(quote.ema_conf), **common},
    )
