"""History from elsewhere: read from CSV or from a UDF server, checked row by row, marked as imported.

Prices are read digit by digit, never as floats. Coarser bars are derived from what is imported, as they are from what
is recorded. Nothing imported ever takes the place of something recorded.
"""

import csv
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from oracle_hub.charts.bars import Bar, part_of
from oracle_hub.charts.parts import Part
from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution
from oracle_hub.core.price import rescale
from oracle_hub.errors import ChartsError, PriceError

MAX_DIGITS = 40
TIMES = ((10**17, 1, 1_000), (10**14, 1, 1), (10**11, 1_000, 1), (0, SECOND_US, 1))
"""From which number on a time is in nanoseconds, microseconds, milliseconds or seconds, with the factor and the divisor
that make microseconds of it: in the next longer unit it would be after the year 5138."""
DAY_US = 86_400 * SECOND_US
UDF_PAGE_BARS = 5_000
UDF_MAX_BYTES = 64 << 20
UDF_MAX_EMPTY_PAGES = 20
"""Some servers never say that nothing is earlier, but answer ``ok`` without bars for ever."""
ALIASES = {"t": "time", "o": "open", "h": "high", "l": "low", "c": "close"} | dict.fromkeys(
    ("date", "datetime", "open_time", "timestamp", "ts_s", "ts_ms", "ts_us", "ts_ns"), "time"
)
PRICES = ("open", "high", "low", "close")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows are of."""

    feed: str
    resolution: Resolution
    expo: int
    """Prices are kept at this exponent; finer digits are rounded half to even."""
    now_us: int
    """No bar may end after this."""


def read_csv(path: Path, source: Source) -> list[Bar]:
    """All rows of a CSV file with a header that names ``time``, ``open``, ``high``, ``low`` and ``close``.

    ``time`` is the start of the bar: seconds, ms, us or ns since 1970, or ISO 8601 (UTC where it names no zone). Blank
    lines and comments (``#``) before the header are passed over.
    ``updates``, ``degraded_us`` and ``none_us`` are read where they are there, as ``export`` writes them.

    Raises:
        ChartsError: a row that is no bar of this resolution; the message names file and line. No row was imported.
    """
    bars: dict[int, Bar] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            names = next((_words(row) for row in lines if any(_words(row)) and not row[0].startswith("#")), [])
            first = max(1, lines.line_num)
            header = [name if ALIASES.get(name) in names else ALIASES.get(name, name) for name in names]
            missing = [name for name in ("time", *PRICES) if name not in header]
            if missing:
                raise ChartsError(
                    f"{path}:{first}: no column {', '.join(missing)}; a header names time,open,high,low,close"
                )
            twice = [name for name in ("time", *PRICES) if header.count(name) > 1]
            if twice:
                raise ChartsError(
                    f"{path}:{first}: column {', '.join(twice)} stands there more than once; which one is meant?"
                )
            for row in lines:
                if any(row[len(header) :]):  # most likely a comma within a number: 1,160.5
                    where = f"{path}:{lines.line_num}"
                    raise ChartsError(f"{where}: {len(row)} values; the header has {len(header)} columns")
                if row:
                    _add(bars, dict(zip(header, row, strict=False)), source, f"{path}:{lines.line_num}")
    except OSError as error:
        raise ChartsError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        zipped = isinstance(error, UnicodeDecodeError) and error.object.startswith(b"\x1f\x8b")
        why = "it is compressed; unpack it with gunzip" if zipped else error
        raise ChartsError(f"{path}: not a CSV file in UTF-8 ({why})") from None
    return [bars[start_us] for start_us in sorted(bars)]


def _words(row: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in row]


async def read_udf(
    url: str, symbol: str, source: Source, from_us: int, to_us: int, session: aiohttp.ClientSession
) -> AsyncIterator[list[Bar]]:
    """Bars with ``from_us <= start < to_us`` of a UDF server, page by page, newest first.

    ``url`` is what charts are configured with; ``/history`` is asked. Goes back until the server says that there is
    nothing earlier, or has answered with nothing for 20 pages, or ``from_us`` is reached.

    Raises:
        ChartsError: the server can't be reached, refuses, or answers with something that is no bar.
    """
    length_us = source.resolution.length_us or 30 * 86_400 * SECOND_US
    empty = 0
    while from_us < to_us and empty < UDF_MAX_EMPTY_PAGES:
        page_us = max(from_us, to_us - UDF_PAGE_BARS * length_us)
        query = {
            "symbol": symbol,
            "resolution": source.resolution.value,
            "from": str(page_us // SECOND_US),
            "to": str(-(-to_us // SECOND_US)),
        }
        answer = await _ask(session, f"{url.rstrip('/')}/history", query)
        bars = {bar.start_us: bar for bar in _udf_bars(answer, source, url) if page_us <= bar.start_us < to_us}
        empty = 0 if bars or answer["s"] == "no_data" else empty + 1
        if bars:
            yield [bars[start_us] for start_us in sorted(bars)]
        later_us, to_us = to_us, page_us
        if answer["s"] == "no_data":
            following = answer.get("nextTime", answer.get("nb"))
            if not isinstance(following, int):
                return
            to_us = min(following * SECOND_US + 1, page_us)
        if to_us >= later_us:
            return


async def _ask(session: aiohttp.ClientSession, url: str, query: Mapping[str, str]) -> dict[str, Any]:
    try:
        async with session.get(url, params=query) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > UDF_MAX_BYTES:
                    raise ChartsError(f"{url}: an answer of more than {UDF_MAX_BYTES} bytes")
            if response.status != 200:
                raise ChartsError(f"{url}: HTTP {response.status} {body[:100].decode(errors='replace')!r}")
        answer = json.loads(body.decode(), parse_float=Decimal)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ChartsError(f"{url}: cannot be reached ({str(error) or type(error).__name__})") from None
    except ValueError:
        raise ChartsError(f"{url}: the answer is not JSON; is it the address of a UDF server?") from None
    if not isinstance(answer, dict) or answer.get("s") not in ("ok", "no_data"):
        what = answer.get("errmsg", answer) if isinstance(answer, dict) else answer
        raise ChartsError(f"{url}: refused symbol {query['symbol']} ({str(what)[:100]})")
    return answer


def _udf_bars(answer: Mapping[str, Any], source: Source, url: str) -> Iterator[Bar]:
    columns = [answer.get(name, []) for name in "tohlc"]
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        raise ChartsError(f"{url}: columns t, o, h, l, c of different lengths")
    bars: dict[int, Bar] = {}
    for index, row in enumerate(zip(*columns, strict=True)):
        start_us = row[0] * SECOND_US if isinstance(row[0], int) else None
        if start_us is not None and start_us > source.now_us + DAY_US:
            raise ChartsError(f"{url}: bar {index}: time {row[0]} is still to come; UDF has seconds since 1970")
        if start_us is not None and source.resolution.end_us(start_us) > source.now_us:
            continue  # the last bar of a live server is still open
        _add(bars, dict(zip(("time", *PRICES), map(str, row), strict=True)), source, f"{url}: bar {index}")
    yield from bars.values()


def _add(bars: dict[int, Bar], row: Mapping[str, str], source: Source, where: str) -> None:
    try:
        bar = _bar(row, source)
    except (ChartsError, PriceError) as error:
        raise ChartsError(f"{where}: {error}") from None
    if bar.start_us in bars:
        raise ChartsError(f"{where}: a second bar at {row['time']}")
    bars[bar.start_us] = bar


def _bar(row: Mapping[str, str], source: Source) -> Bar:
    start_us = _time_us(row.get("time", ""))
    resolution = source.resolution
    if not resolution.is_start(start_us):
        raise ChartsError(f"time {row['time']}: no bar of {resolution.label} starts there")
    end_us = resolution.end_us(start_us)
    if end_us > source.now_us:
        raise ChartsError(f"time {row['time']}: the bar is not over yet")
    opening, high, low, close = (_mantissa(name, row.get(name, ""), source.expo) for name in PRICES)
    if not low <= min(opening, close) <= max(opening, close) <= high:
        raise ChartsError("open and close must lie between low and high")
    updates = _count(row, "updates", 1, 2**40)
    degraded_us, none_us = (_count(row, name, 0, end_us - start_us) for name in ("degraded_us", "none_us"))
    return Bar(
        source.feed,
        resolution,
        start_us,
        opening,
        high,
        low,
        close,
        source.expo,
        updates,
        degraded_us,
        none_us,
        imported=True,
    )


def _time_us(text: str) -> int:
    text = text.strip()
    if text.isascii() and text.isdigit():
        value = int(text[:20])
        factor, divisor = next((factor, divisor) for least, factor, divisor in TIMES if value >= least)
        if value % divisor:
            raise ChartsError(f"time {text[:40]}: no bar starts within a microsecond")
        return value * factor // divisor
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ChartsError(f"time {text[:40]!r}: neither seconds, ms, us, ns (whole numbers) nor ISO 8601") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    whole = int(moment.replace(microsecond=0).timestamp())
    if whole < 0:
        raise ChartsError(f"time {text[:40]!r}: before 1970")
    return whole * SECOND_US + moment.microsecond


def _mantissa(name: str, text: str, expo: int) -> int:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise ChartsError(f"{name} {text[:40]!r} is no number") from None
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or len(digits) > MAX_DIGITS or abs(exponent) > MAX_DIGITS:
        raise ChartsError(f"{name} {text[:40]!r} is no price")
    if value <= 0:
        raise ChartsError(f"{name} {text[:40]} is not positive")
    return rescale(int("".join(map(str, digits))), exponent, expo)


def _count(row: Mapping[str, str], name: str, default: int, limit: int) -> int:
    text = (row.get(name) or "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > limit:
        raise ChartsError(f"{name} {text[:40]!r} is no integer from 0 to {limit}")
    return int(text)


def with_coarser(bars: Sequence[Bar]) -> list[Bar]:
    """Imported bars of one resolution, ascending, and all coarser ones that derive from them.

    A derived bar whose bucket is not within what is imported is marked as having a gap.
    """
    if not bars:
        return []
    from_us, to_us = bars[0].start_us, bars[-1].resolution.end_us(bars[-1].start_us)
    found: dict[Resolution, Sequence[Bar]] = {bars[0].resolution: bars}
    for resolution in RESOLUTIONS:
        parent = resolution.parent
        if parent in found and resolution not in found:
            found[resolution] = list(_derived(found[parent], resolution, from_us, to_us))
    return [bar for derived in found.values() for bar in derived]


def _derived(bars: Iterable[Bar], resolution: Resolution, from_us: int, to_us: int) -> Iterator[Bar]:
    part, feed, gap = Part(), "", False
    for bar in bars:
        if part.open is not None and bar.start_us >= part.end_us:
            yield _imported(feed, resolution, part, gap or part.start_us < from_us or part.end_us > to_us)
            part.clear()
            gap = False
        part.fold(resolution, part_of(bar))
        feed, gap = bar.feed, gap or bar.gap
    if part.open is not None:
        yield _imported(feed, resolution, part, gap or part.start_us < from_us or part.end_us > to_us)


def _imported(feed: str, resolution: Resolution, part: Part, gap: bool) -> Bar:
    assert part.open is not None
    return Bar(
        feed,
        resolution,
        part.start_us,
        part.open,
        part.high,
        part.low,
        part.close,
        part.expo,
        part.updates,
        part.degraded_us,
        part.end_us - part.start_us - part.priced_us,
        imported=True,
        gap=gap,
    )
