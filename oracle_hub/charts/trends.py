"""How far sources were apart and how old, second by second: the dashboard's past, kept while the process runs.

A page that is opened shows what was before it. Only in memory, in arrays of fixed size: nothing is decided by it, and
what was decided is in the store. What is kept of a source is what the dashboard may show of it at that second.
"""

import math
from array import array
from collections.abc import Iterator, Mapping

import msgspec
from aiohttp import web

from oracle_hub.charts.answers import json_answer
from oracle_hub.charts.bars_http import asked_number
from oracle_hub.charts.context import Context
from oracle_hub.charts.resolutions import SECOND_US
from oracle_hub.charts.sse import find_feed
from oracle_hub.stream.messages import InputEntry

KEPT_S = 1_800
MAX_FEEDS = 250
"""Feeds of which it is kept: 60 KB each with four sources. The first ones, in the hub's order."""
MAX_SOURCES = 16
SHOWN_US = 10_000_000
"""Of a source whose feed has no lease that would tell when its status changes: so long its number counts."""
UNKNOWN_MS = -1
_MOST_MS = 2**31 - 1


class SourceTrend(msgspec.Struct, frozen=True, gc=False):
    """One source, at the times of the answer; null where it was not usable, or not heard."""

    divergence_bps: list[float | None]
    age_ms: list[int | None]


class TrendAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``/v1/trends/{feed}``."""

    feed: str
    server_time_us: int
    simulated: bool
    kept_s: int
    """So far back it goes at most. 0: there are too many feeds, and of this one nothing is kept."""
    times: list[int]
    """Unix seconds, ascending. A second in which the hub was not heard is not among them."""
    sources: dict[str, SourceTrend]


class _Trend:
    """One feed. The slot of a second is fixed, so a second that was left out is seen by the time in its slot."""

    __slots__ = ("sources", "times")

    def __init__(self) -> None:
        self.times = array("q", [0]) * KEPT_S
        self.sources: dict[str, tuple[array[float], array[int]]] = {}

    def put(self, time_s: int, values: Mapping[str, tuple[float, int]]) -> None:
        slot = time_s % KEPT_S
        self.times[slot] = time_s
        for name in values:
            if name not in self.sources and len(self.sources) < MAX_SOURCES:
                self.sources[name] = array("f", [math.nan]) * KEPT_S, array("i", [UNKNOWN_MS]) * KEPT_S
        for name, (divergences, ages) in self.sources.items():
            divergences[slot], ages[slot] = values.get(name, (math.nan, UNKNOWN_MS))

    def slots(self, until_s: int, seconds: int) -> list[int]:
        """Slots of the last seconds that are there, ascending in time."""
        wanted = range(max(0, until_s - seconds + 1), until_s + 1)
        return [time_s % KEPT_S for time_s in wanted if self.times[time_s % KEPT_S] == time_s]


class Trends:
    """Samples all feeds once a second, and answers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._trends: dict[str, _Trend] = {}
        self._sampled_s = 0
        context.recorder.on_tick(self.sample)

    def sample(self) -> None:
        """Keep what holds at this second of the hub's clock, once; nothing while the hub is not heard."""
        live = self._context.live
        now_us = live.now_us()
        time_s = now_us // SECOND_US
        if time_s == self._sampled_s or not live.status.connected:
            return
        self._sampled_s = time_s
        for feed in self._kept():
            inputs = live.inputs(feed)
            if inputs:
                priced = live.update(feed).price is not None
                values = {name: _value(entry, now_us, priced=priced) for name, entry in inputs.items()}
                self._trends.setdefault(feed, _Trend()).put(time_s, values)

    def _kept(self) -> Iterator[str]:
        feeds = list(self._context.live.feeds)[:MAX_FEEDS]
        for gone in self._trends.keys() - feeds:
            del self._trends[gone]
        return iter(feeds)

    async def answer(self, request: web.Request) -> web.Response:
        """``GET /v1/trends/{feed}?seconds=``."""
        live = self._context.live
        feed = find_feed(live, request.match_info["feed"])
        seconds = asked_number(request, "seconds", KEPT_S)
        now_us = live.now_us()
        trend = self._trends.get(feed)
        kept = trend is not None or feed in list(live.feeds)[:MAX_FEEDS]
        trend = trend or _Trend()
        slots = trend.slots(now_us // SECOND_US, KEPT_S if seconds is None else seconds)
        return json_answer(
            TrendAnswer(
                feed=feed,
                server_time_us=now_us,
                simulated=live.simulated is not None,
                kept_s=KEPT_S if kept else 0,
                times=[trend.times[slot] for slot in slots],
                sources={
                    name: SourceTrend(
                        [None if math.isnan(found := divergences[slot]) else round(found, 2) for slot in slots],
                        [None if (age := ages[slot]) == UNKNOWN_MS else age for slot in slots],
                    )
                    for name, (divergences, ages) in trend.sources.items()
                },
            )
        )


def _value(entry: InputEntry, now_us: int, *, priced: bool) -> tuple[float, int]:
    """Divergence in bps and age in ms, as the dashboard shows them: no divergence of what may not be used now."""
    if entry.publish_time_us is None:
        return math.nan, UNKNOWN_MS
    age_us = max(0, now_us - entry.publish_time_us)
    holds = entry.status == "ok" and (priced or age_us <= SHOWN_US)
    divergence = entry.divergence_bps if holds else None
    return math.nan if divergence is None else divergence, min(age_us // 1_000, _MOST_MS)


def routes(context: Context) -> list[web.RouteDef]:
    """``/v1/trends/{feed}``."""
    return [web.get("/v1/trends/{feed:.+}", Trends(context).answer)]
