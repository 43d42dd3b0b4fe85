"""``/quotes`` of UDF: one price of now, with its day so far. Pure."""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec

from oracle_hub.charts.bars import Bar
from oracle_hub.charts.resolutions import SECOND_US, Resolution
from oracle_hub.charts.symbols import EXCHANGE, Symbol
from oracle_hub.client import Price

_CENT = Decimal("0.01")


def quote(asked: str, symbol: Symbol, price: Price, days: Sequence[Bar], now_us: int) -> dict[str, object]:
    """A price that holds, as one entry of the answer.

    ``days``: the last daily bars, ascending. What is not known is left out: there is no bid, ask or volume, and no
    change without the close of an earlier day. ``asked`` is the name as the client wrote it: by it, it finds the entry.
    """
    last = price.decimal
    values: dict[str, object] = {
        "lp": _raw(last),
        "short_name": symbol.name,
        "original_name": symbol.ticker,
        "description": symbol.description,
        "exchange": EXCHANGE,
        "state": price.state,
        "source": price.source,
        "rule": price.rule,
        "valid_until_us": price.valid_until_us,
        "lp_time": price.decided_us // SECOND_US,
    }
    today_us = Resolution.D1.start_us(now_us)
    for day in days:
        if day.start_us == today_us:
            values["open_price"] = _raw(_decimal(day.open, day.expo))
            values["high_price"] = _raw(_decimal(day.high, day.expo))
            values["low_price"] = _raw(_decimal(day.low, day.expo))
    closes = [_decimal(day.close, day.expo) for day in days if day.start_us < today_us]
    if closes:
        change = last - closes[-1]
        values["prev_close_price"] = _raw(closes[-1])
        values["ch"] = _raw(change)
        values["chp"] = _raw((100 * change / closes[-1]).quantize(_CENT, ROUND_HALF_EVEN))
    return {"s": "ok", "n": asked, "v": values}


def _decimal(mantissa: int, expo: int) -> Decimal:
    return Decimal(mantissa).scaleb(expo)


def _raw(value: Decimal) -> msgspec.Raw:
    return msgspec.Raw(f"{value:f}".encode())
