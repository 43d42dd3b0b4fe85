"""How long an alert is on its way from the hub's loop to a webhook, and what telling one costs that loop.

A webhook of this machine takes alerts: alone, beside channels that hang, and while the loop is busy. The clock starts
at ``take`` and stops when the receiver has read the request. Channels on other machines add their network.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from aiohttp import web

from benchmarks.latency import quantile
from benchmarks.report import Figure, Report, Table, Value, main
from oracle_hub.alerts.alert import Alert, Change, Key, Kind, Severity, Transition
from oracle_hub.alerts.notify.deliveries import Deliveries
from oracle_hub.alerts.notify.settings import DeliverySettings, Secret, WebhookSettings

ALERTS = 200
HANGING = 3
EVIDENCE = {"inputs": {name: {"price": 14_250_000_000, "age_ms": 400} for name in ("doves", "chainlink", "pyth")}}


class WallClock:
    """The machine's."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000


class Receiver:
    """Notes when each message had come. What is posted to ``/hang`` is never answered."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        self.end = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        arrived_s = time.perf_counter()
        if request.path == "/hang":
            await self.end.wait()
        else:
            self.arrived.put_nowait((request.headers["webhook-id"], arrived_s))
        return web.Response()


def transition(number: int) -> Transition:
    """A firing alert like those of the engine."""
    key = Key(Kind.PAIR_DIVERGED, f"F{number}/USD", ("doves", "pyth"))
    now_us = WallClock().now_us()
    alert = Alert(
        id=key.id,
        kind=key.kind,
        feed=key.feed,
        sources=key.sources,
        severity=Severity.WARNING,
        started_us=now_us,
        told_us=now_us,
        summary=f"{key.feed}: pair_diverged: doves, pyth: 81.2 bps apart, 50 allowed",
        evidence=EVIDENCE,
    )
    return Transition(Change.FIRING, now_us, alert)


async def one_by_one(hanging: int, load: bool) -> tuple[list[float], list[float]]:
    """Milliseconds from ``take`` to the receiver, and microseconds that ``take`` took, for each alert."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/{path}", receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    names = [("desk", "take"), *((f"hang{number}", "hang") for number in range(hanging))]
    channels = tuple(
        WebhookSettings(name=name, url=Secret(f"{url}/{path}"), secret=Secret("signed"), timeout_s=600)
        for name, path in names
    )
    busy = asyncio.create_task(busy_loop()) if load else None
    delays_ms, costs_us = [], []
    with tempfile.TemporaryDirectory() as state:
        deliveries = Deliveries(DeliverySettings(channels=channels), Path(state), "benchmark", WallClock())
        await deliveries.start([])
        for number in range(ALERTS):
            happened = transition(number)
            started_s = time.perf_counter()
            deliveries.take(happened)
            costs_us.append((time.perf_counter() - started_s) * 1e6)
            _, arrived_s = await receiver.arrived.get()
            delays_ms.append((arrived_s - started_s) * 1e3)
        if busy is not None:
            busy.cancel()
        receiver.end.set()
        await deliveries.stop(0)
    await runner.cleanup()
    return delays_ms, costs_us


async def busy_loop() -> None:
    """A loop that decides 500 times a second, for a millisecond each."""
    while True:
        until_s = time.perf_counter() + 0.001
        while time.perf_counter() < until_s:
            msgspec.json.encode(EVIDENCE)
        await asyncio.sleep(0.001)


def run(repetitions: int) -> Report:
    """Measure all three situations; the medians over repetitions."""
    rows: list[tuple[Value, ...]] = []
    figures = []
    for name, hanging, load in (("alone", 0, False), ("beside 3 that hang", HANGING, False), ("busy loop", 0, True)):
        delays_ms: list[float] = []
        costs_us: list[float] = []
        for _ in range(repetitions):
            delays, costs = asyncio.run(one_by_one(hanging, load))
            delays_ms += delays
            costs_us += costs
        worst_ms = quantile(sorted(delays_ms), 0.99)
        rows.append((name, statistics.median(delays_ms), worst_ms, max(delays_ms), statistics.median(costs_us)))
        figures.append(Figure(f"take to webhook, p99, {name}", worst_ms, "ms", at_most=100.0))
    columns = ("situation", "median ms", "p99 ms", "longest ms", "take on the loop us")
    return Report(
        "alerts",
        tuple(figures),
        (Table(f"{ALERTS * repetitions} alerts, one at a time, receiver in the same process", columns, tuple(rows)),),
        ("Signed, written to disk before each is sent.",),
    )


if __name__ == "__main__":
    sys.exit(main("alerts", __doc__ or "", run, repetitions=3))
