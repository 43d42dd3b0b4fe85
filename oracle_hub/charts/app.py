"""The charts process put together: the client of the hub, the newest prices, and the doors on one port."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from aiohttp import web

from oracle_hub.charts.answers import guard, json_answer
from oracle_hub.charts.context import Context
from oracle_hub.charts.hearing import Hearing
from oracle_hub.charts.live import Live
from oracle_hub.charts.settings import Settings
from oracle_hub.client import Prices, connect

log = logging.getLogger(__name__)

Door: TypeAlias = Callable[[Context], list[web.RouteDef]]

STOP_S = 0.4


class Charts:
    """One charts process. ``async with Charts(hub, settings) as charts`` runs it; ``charts.url`` is where it serves.

    Args:
        hub: address of the hub's stream, ``ws://127.0.0.1:8080/v1/stream``. It need not be there yet.
        doors: what is served, beside health.
    """

    def __init__(self, hub: str, settings: Settings | None = None, *, doors: Sequence[Door] = ()) -> None:
        self.settings = settings or Settings()
        self.live = Live(max_listeners=2 * self.settings.max_listeners)
        self.context = Context(self.live, self.settings)
        self.url = ""
        self._hub = hub
        self._doors = doors

    async def __aenter__(self) -> "Charts":
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.context.close)
            prices = self._connect()
            self.live.attach(prices)
            await stack.enter_async_context(prices)
            hearing = asyncio.create_task(self._hear(prices), name="charts hearing")
            stack.push_async_callback(_end, hearing)
            runner = web.AppRunner(
                application(self.context, self._doors),
                access_log=None,
                handle_signals=False,
                shutdown_timeout=STOP_S,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, self.settings.host, self.settings.port)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.context.close()  # streams end by themselves, before the server waits for them
        await self._stack.aclose()

    def _connect(self) -> Prices:
        turned = self.live.turned
        return connect(self._hub, ["*"], mode="all", detail="full", on_live=turned, on_none=turned, wait=False)

    async def _hear(self, prices: Prices) -> None:
        hearing = Hearing({})
        while (taken := await prices.take()) is not None:
            heard = hearing.take(taken.updates, taken.heard_us)
            self.live.take(heard.points, heard.heard_us)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def application(context: Context, doors: Sequence[Door] = ()) -> web.Application:
    """All doors over one context."""

    def failed() -> None:
        context.failures += 1

    app = web.Application(middlewares=[guard(context.settings.allowed_origins, failed)])  # type: ignore[list-item]
    for door in (_health, *doors):
        app.add_routes(door(context))
    return app


def _health(context: Context) -> list[web.RouteDef]:
    async def livez(request: web.Request) -> web.Response:
        return json_answer({"status": "ok"})

    return [web.get("/livez", livez)]
