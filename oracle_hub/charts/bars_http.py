"""The native history over HTTP: ``/v1/bars/{feed}`` and ``/v1/marks/{feed}``. Prices are mantissas, as text."""

import msgspec
from aiohttp import web

from oracle_hub.charts.answers import ChartsCode, Refused, json_answer
from oracle_hub.charts.bars import Bar, Mark
from oracle_hub.charts.context import Context
from oracle_hub.charts.resolutions import SECOND_US, Resolution, parse_resolution
from oracle_hub.charts.sse import find_feed
from oracle_hub.errors import ChartsError

DEFAULT_COUNT = 300
MAX_TIME_S = 253_402_300_799
"""The end of the year 9999."""
MARKS_SPAN_US = 86_400 * SECOND_US


class BarEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One bucket. ``open``, ``high``, ``low`` and ``close`` are mantissas at the feed's ``expo``."""

    start_us: int
    open: str
    high: str
    low: str
    close: str
    updates: int
    """Decisions with a price in it; 0: the price was carried through."""
    degraded_us: int
    none_us: int
    closed: bool
    """Final. An open bar still grows."""
    revision: int
    imported: bool
    gap: bool
    """Not everything that was decided in it was heard."""


class BarsAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Answer of ``/v1/bars/{feed}``."""

    feed: str
    resolution: str
    expo: int
    server_time_us: int
    simulated: bool
    bars: list[BarEntry]
    """Ascending. A bucket in which no price was in force has none."""
    previous_us: int | None
    """Start of the last bar before the range, for paging back; None: there is none."""


class MarkEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A change of state."""

    at_us: int
    state: str
    before: str | None
    reason: str
    source: str | None
    rule: str


class MarksAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Answer of ``/v1/marks/{feed}``."""

    feed: str
    server_time_us: int
    simulated: bool
    marks: list[MarkEntry]


def bar_entry(bar: Bar) -> BarEntry:
    """A bar as it is told."""
    return BarEntry(
        start_us=bar.start_us,
        open=str(bar.open),
        high=str(bar.high),
        low=str(bar.low),
        close=str(bar.close),
        updates=bar.updates,
        degraded_us=bar.degraded_us,
        none_us=bar.none_us,
        closed=bar.closed,
        revision=bar.revision,
        imported=bar.imported,
        gap=bar.gap,
    )


def mark_entry(mark: Mark) -> MarkEntry:
    """A mark as it is told."""
    return MarkEntry(
        at_us=mark.at_us, state=mark.state, before=mark.before, reason=mark.reason, source=mark.source, rule=mark.rule
    )


def asked_resolution(text: str) -> Resolution:
    """Raises Refused, with the list of what there is."""
    try:
        return parse_resolution(text)
    except ChartsError as error:
        raise Refused(400, ChartsCode.UNKNOWN_RESOLUTION, str(error)) from None


def asked_number(request: web.Request, name: str, maximum: int) -> int | None:
    """A whole number of the query, 0 to ``maximum``; None where it is absent. Raises Refused for anything else."""
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= maximum):
        raise Refused(400, ChartsCode.BAD_QUERY, f"{name} is a whole number from 0 to {maximum}")
    return int(text)


def _asked_time_us(request: web.Request, name: str) -> int | None:
    seconds = asked_number(request, name, MAX_TIME_S)
    return None if seconds is None else seconds * SECOND_US


class History:
    """The door."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def bars(self, request: web.Request) -> web.Response:
        """``GET /v1/bars/{feed}?resolution=1&from=&to=&countback=&fill=none|prev``; times in seconds."""
        context, live = self._context, self._context.live
        feed = find_feed(live, request.match_info["feed"])
        resolution = asked_resolution(request.query.get("resolution", "1"))
        fill = request.query.get("fill", "none")
        if fill not in ("none", "prev"):
            raise Refused(400, ChartsCode.BAD_QUERY, "fill is none or prev")
        from_us, to_us = _asked_time_us(request, "from"), _asked_time_us(request, "to")
        limit = context.settings.max_rows
        countback = asked_number(request, "countback", limit)
        now_us = live.now_us()
        to_us = now_us + 1 if to_us is None else min(to_us, now_us + 1)  # no bar lies in the future
        read = context.store
        if countback is not None or from_us is None:
            count = DEFAULT_COUNT if countback is None else countback
            bars = await context.read(read.last_bars, feed, resolution, to_us, count)
            from_us = bars[0].start_us if bars else to_us
        else:
            bars = await context.read(read.bars, feed, resolution, from_us, to_us, limit + 1)
        if fill == "prev":
            bars = filled(bars, resolution, to_us, limit)
        if len(bars) > limit:
            raise Refused(400, ChartsCode.TOO_MANY_ROWS, f"more than {limit} bars; ask for a shorter range")
        previous_us = await context.read(read.previous_start_us, feed, resolution, from_us)
        return json_answer(
            BarsAnswer(
                feed=feed,
                resolution=resolution.value,
                expo=live.feeds[feed].expo if feed in live.feeds else bars[-1].expo if bars else 0,
                server_time_us=now_us,
                simulated=live.simulated is not None,
                bars=[bar_entry(bar) for bar in bars],
                previous_us=previous_us,
            )
        )

    async def marks(self, request: web.Request) -> web.Response:
        """``GET /v1/marks/{feed}?from=&to=``; times in seconds, the last day where they are absent."""
        context, live = self._context, self._context.live
        feed = find_feed(live, request.match_info["feed"])
        to_us = _asked_time_us(request, "to")
        to_us = live.now_us() + 1 if to_us is None else to_us
        from_us = _asked_time_us(request, "from")
        from_us = max(0, to_us - MARKS_SPAN_US) if from_us is None else from_us
        marks = await context.read(context.store.marks, feed, from_us, to_us, context.settings.max_rows + 1)
        if len(marks) > context.settings.max_rows:
            message = f"more than {context.settings.max_rows} marks; ask for a shorter range"
            raise Refused(400, ChartsCode.TOO_MANY_ROWS, message)
        return json_answer(
            MarksAnswer(
                feed=feed,
                server_time_us=live.now_us(),
                simulated=live.simulated is not None,
                marks=[mark_entry(mark) for mark in marks],
            )
        )


def filled(bars: list[Bar], resolution: Resolution, to_us: int, limit: int) -> list[Bar]:
    """With bars between them, and after the last until ``to_us``, that carry the last close through time without a
    price: all of their time is ``none_us``. At most ``limit + 1`` in all."""
    found: list[Bar] = []
    for bar in bars:
        if found:
            _carry(found, resolution, bar.start_us, limit)
        found.append(bar)
    if found:
        _carry(found, resolution, to_us, limit)
    return found


def _carry(found: list[Bar], resolution: Resolution, until_us: int, limit: int) -> None:
    last = found[-1]
    start_us = resolution.end_us(last.start_us)
    while start_us < until_us and len(found) <= limit:
        end_us = resolution.end_us(start_us)
        found.append(
            Bar(
                feed=last.feed,
                resolution=resolution,
                start_us=start_us,
                open=last.close,
                high=last.close,
                low=last.close,
                close=last.close,
                expo=last.expo,
                updates=0,
                degraded_us=0,
                none_us=end_us - start_us,
                closed=end_us <= until_us,
            )
        )
        start_us = end_us


def routes(context: Context) -> list[web.RouteDef]:
    """``/v1/bars/{feed}`` and ``/v1/marks/{feed}``."""
    history = History(context)
    return [web.get("/v1/bars/{feed:.+}", history.bars), web.get("/v1/marks/{feed:.+}", history.marks)]
