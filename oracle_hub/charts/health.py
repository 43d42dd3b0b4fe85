"""Whether the process lives, whether it can serve the truth and why it thinks so, and its metrics."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from oracle_hub.charts.answers import json_answer
from oracle_hub.charts.context import Context
from oracle_hub.charts.live import HubStatus


class Alive(msgspec.Struct, frozen=True):
    """Answer of ``/livez``."""

    status: Literal["ok"] = "ok"


class StoreHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The store, as ``/readyz`` shows it."""

    ok: bool
    error: str | None
    """Why the last write failed."""
    rows_waiting: int
    rows_lost: int
    watermark_us: int | None
    """The hub's time until which bars are final."""


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``/readyz``. Ready: the hub is heard, so what is shown is the truth (``none`` is the truth too)."""

    ready: bool
    missing: list[str]
    hub: HubStatus
    store: StoreHealth
    feeds: int
    listeners: int


class MetricSpec(NamedTuple):
    """A metric that is read at scrape time. Prometheus adds ``_total`` to counters."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str


SPECS: tuple[MetricSpec, ...] = (
    MetricSpec("oraclehub_charts_connected", "gauge", "1 if the hub is heard and nothing is missing."),
    MetricSpec("oraclehub_charts_feeds", "gauge", "Feeds of the hub."),
    MetricSpec("oraclehub_charts_heard_seconds", "gauge", "For how long nothing was heard of the hub, by its clock."),
    MetricSpec("oraclehub_charts_gaps", "counter", "Times that decisions were missed for good."),
    MetricSpec("oraclehub_charts_store_ok", "gauge", "1 if the last write to the store succeeded."),
    MetricSpec("oraclehub_charts_store_rows_written", "counter", "Points, bars and marks written."),
    MetricSpec("oraclehub_charts_store_rows_waiting", "gauge", "Points, bars and marks that are not on disk yet."),
    MetricSpec("oraclehub_charts_store_rows_lost", "counter", "Rows given up while the disk refused them."),
    MetricSpec("oraclehub_charts_listeners", "gauge", "Open websockets and event streams."),
    MetricSpec("oraclehub_charts_refused", "counter", "Requests refused for a limit."),
    MetricSpec("oraclehub_charts_failures", "counter", "Answers that failed inside: each is a defect."),
)


class Health:
    """The door."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def live(self, request: web.Request) -> web.Response:
        """``GET /livez``."""
        return json_answer(Alive())

    async def ready(self, request: web.Request) -> web.Response:
        """``GET /readyz``: 200 or 503, with the evidence."""
        readiness = self.readiness()
        return json_answer(readiness, 200 if readiness.ready else 503)

    def readiness(self) -> Readiness:
        """The evidence. A store that can't be written is no reason to send readers away: it is named, and alerted."""
        context = self._context
        recorder, status = context.recorder, context.live.status
        writer, builder = recorder.writer, recorder.builder
        missing = [] if status.connected else ["the hub is not heard"]
        return Readiness(
            ready=not missing,
            missing=missing,
            hub=status,
            store=StoreHealth(
                ok=writer is None or writer.error is None,
                error=None if writer is None else writer.error,
                rows_waiting=0 if writer is None else writer.rows_waiting,
                rows_lost=0 if writer is None else writer.rows_lost,
                watermark_us=None if builder is None else builder.watermark_us,
            ),
            feeds=len(context.live.feeds),
            listeners=context.listening,
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """``GET /metrics``."""
        values = dict(self.samples())

        class Collector:
            def collect(self) -> Iterator[Metric]:
                for spec in SPECS:
                    family = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
                    yield family(spec.name, spec.help, value=values[spec.name])

        registry = CollectorRegistry()
        registry.register(Collector())
        return web.Response(
            body=generate_latest(registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-store"},
        )

    def samples(self) -> Iterator[tuple[str, float]]:
        """Every metric with its value now."""
        context = self._context
        live, recorder = context.live, context.recorder
        writer, heard_us = recorder.writer, live.heard_us
        yield "oraclehub_charts_connected", live.status.connected
        yield "oraclehub_charts_feeds", len(live.feeds)
        yield "oraclehub_charts_heard_seconds", 0 if heard_us is None else max(0, live.now_us() - heard_us) / 1e6
        yield "oraclehub_charts_gaps", recorder.gaps
        yield "oraclehub_charts_store_ok", writer is None or writer.error is None
        yield "oraclehub_charts_store_rows_written", 0 if writer is None else writer.rows_written
        yield "oraclehub_charts_store_rows_waiting", 0 if writer is None else writer.rows_waiting
        yield "oraclehub_charts_store_rows_lost", 0 if writer is None else writer.rows_lost
        yield "oraclehub_charts_listeners", context.listening
        yield "oraclehub_charts_refused", context.refused
        yield "oraclehub_charts_failures", context.failures


def routes(context: Context) -> list[web.RouteDef]:
    """``/livez``, ``/readyz`` and ``/metrics``."""
    health = Health(context)
    return [web.get("/livez", health.live), web.get("/readyz", health.ready), web.get("/metrics", health.metrics)]
