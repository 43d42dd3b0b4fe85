"""How long an alert takes from the frame that causes it to a subscriber of ``alerts`` and to a webhook.

The whole hub runs as it is run, journal included, on a chain of one RPC endpoint on loopback. The clock starts when an
account notification that takes Chainlink's price 3 % away is handed to the endpoint's socket, and stops when a
subscriber has parsed the alert, and when a webhook has read its request. Hold times are set to zero: they are what the
figures come on top of. Endpoint, hub, subscriber and webhook share one process and one loop, which delays all of them.
"""

import asyncio
import itertools
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from benchmarks import chain, ingest
from benchmarks.alerts import Receiver
from benchmarks.latency import quantile
from benchmarks.report import Figure, Report, Table, Value, main
from feeds.addresses import ASSETS
from oracle_hub.app.run import Application
from oracle_hub.config import parse_config
from oracle_hub.core.source import Fetch, Send

ALERTS = 40
HANGING = 3
FEED = "SOL/USD"
PATIENCE_S = 20.0
CONFIG = """
[server]
port = 0
[state]
directory = "{state}"
[alerts]
hold_on_ms = {{ pair_diverged = 0 }}
hold_off_ms = {{ pair_diverged = 0 }}
"""


class Endpoint:
    """A Solana RPC on one port: HTTP and websocket. Accounts are live as of its start."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, int] = {}
        self.url = ""
        self._socket: web.WebSocketResponse | None = None
        self._start_s = int(time.time())
        self._slots = itertools.count(10)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A request, or a websocket for as long as it lasts."""
        if request.method == "POST":
            frame = ingest.answer(Fetch("", "", body=await request.read()), {}, self._start_s)
            return web.Response(body=b"" if frame is None else frame.data, content_type="application/json")
        self._socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            frame = ingest.answer(Send(message.data), self.subscriptions, self._start_s)
            if frame is not None:
                await socket.send_str(frame.data.decode())
        return socket

    async def move(self, bps: int) -> None:
        """Tell that Chainlink's price of the feed is so far from the others."""
        slot, asset = next(self._slots), ASSETS[FEED]
        price = chain.start_price(FEED) // 10_000 * (10_000 + bps) + slot
        account = chain.value(chain.STORE, asset, price, int(time.time()), slot)
        data = chain.notification(self.subscriptions[asset.chainlink_store], slot, account)
        assert self._socket is not None
        await self._socket.send_str(data.decode())


def config_text(state: Path, endpoint: str, hook: str, hanging: int) -> str:
    """The chain's sources of the other benchmarks, with webhooks."""
    text = ingest.CONFIG.replace('kind = "', 'max_age_ms = 600_000\nkind = "')
    text = text.replace("http://benchmark.invalid", endpoint)
    text = text.replace("ws://benchmark.invalid", endpoint.replace("http", "ws", 1))
    text += CONFIG.format(state=state)
    for name, path in (("desk", "take"), *((f"hang{number}", "hang") for number in range(hanging))):
        text += f'[[alerts.webhook]]\nname = "{name}"\nurl = "{hook}/{path}"\ntimeout_ms = 600_000\n'
    return text


async def serving(stack: list[web.AppRunner], handle: Any) -> str:
    """Serve a handler on loopback; its URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    stack.append(runner)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


async def until(socket: aiohttp.ClientWebSocketResponse, change: str) -> float:
    """Read to the first alert of a pair that changes so; when it was parsed."""
    while True:
        message = orjson.loads(await socket.receive_str())
        if message["type"] == "alert" and message["change"] == change and message["alert"]["kind"] == "pair_diverged":
            return time.perf_counter()


async def one_by_one(hanging: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the frame to a subscriber, and to a webhook, for each alert."""
    endpoint, receiver, runners = Endpoint(), Receiver(), list[web.AppRunner]()
    url, hook = await serving(runners, endpoint.handle), await serving(runners, receiver.handle)
    told_ms: list[float] = []
    posted_ms: list[float] = []
    with tempfile.TemporaryDirectory() as state:
        config = parse_config(config_text(Path(state), url, hook, hanging), origin="benchmark")
        async with Application(config) as hub, aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
            while any(one.mantissa is None for one in hub.decisions.values()):  # noqa: ASYNC110 - nothing to wait on
                await asyncio.sleep(0.01)
            async with session.ws_connect(f"{hub.url}/v1/stream", protocols=["oraclehub.v1"]) as socket:
                await socket.send_json({"type": "subscribe", "channel": "alerts", "feeds": ["*"]})
                while orjson.loads(await socket.receive_str())["type"] != "alerts":
                    pass
                for _ in range(ALERTS):
                    started_s = time.perf_counter()
                    await endpoint.move(300)
                    told_ms.append((await until(socket, "firing") - started_s) * 1e3)
                    posted_ms.append((await posted(receiver, "firing") - started_s) * 1e3)
                    await endpoint.move(0)
                    await until(socket, "resolved")
                    await posted(receiver, "resolved")
            receiver.end.set()
    for runner in runners:
        await runner.cleanup()
    return told_ms, posted_ms


async def posted(receiver: Receiver, change: str) -> float:
    """When the first of the two pairs that the price is part of had come to the webhook; takes both."""
    arrivals = [await receiver.arrived.get() for _ in range(2)]
    assert all(key.endswith(change) for key, _ in arrivals), arrivals
    return arrivals[0][1]


def run(repetitions: int) -> Report:
    """Measure alone and beside channels that hang."""
    rows: list[tuple[Value, ...]] = []
    figures = []
    for name, hanging in (("alone", 0), (f"beside {HANGING} webhooks that hang", HANGING)):
        rounds = [asyncio.run(one_by_one(hanging)) for _ in range(repetitions)]
        for way, index, at_most in (("subscriber", 0, 10.0), ("webhook", 1, 100.0)):
            delays_ms = sorted(delay for one in rounds for delay in one[index])
            p99_ms = quantile(delays_ms, 0.99)
            rows.append((way, name, statistics.median(delays_ms), p99_ms, delays_ms[-1]))
            figures.append(Figure(f"frame to {way}, p99, {name}", p99_ms, "ms", at_most=at_most))
    table = Table(
        f"{ALERTS * repetitions} divergences, one at a time",
        ("alert at", "situation", "median ms", "p99 ms", "longest ms"),
        tuple(rows),
    )
    return Report("alert_latency", tuple(figures), (table,), ("Journal on; webhooks are kept on disk before sent.",))


if __name__ == "__main__":
    logging.getLogger("oracle_hub").setLevel(logging.CRITICAL)  # every alert is a line of the log
    sys.exit(main("alert_latency", __doc__ or "", run, repetitions=3))
