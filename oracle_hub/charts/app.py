"""The charts process put together: the recorder, the store, the newest prices, and the doors on one port."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from aiohttp import web

from oracle_hub.charts import health
from oracle_hub.charts.answers import guard
from oracle_hub.charts.context import Context
from oracle_hub.charts.live import Live
from oracle_hub.charts.recorder import Recorder
from oracle_hub.charts.settings import Settings
from oracle_hub.charts.sockets import MakeGuard
from oracle_hub.charts.store import Retention, open_store
from oracle_hub.client.prices import boot_time_us

log = logging.getLogger(__name__)

Door: TypeAlias = Callable[[Context], list[web.RouteDef]]

STOP_S = 0.3
BACKLOG = 256


class Gate(Protocol):
    """Accepts connections, and may cut those that never come to the point."""

    async def listen(self, server: web.Server, host: str, port: int, *, max_connections: int) -> tuple[str, int]:
        """From now on let this server handle who comes to this address. Gives the address that was bound."""

    async def stop_listening(self) -> None:
        """Nobody new comes in."""

    def middleware(self) -> Any:
        """To be the first middleware: what reaches it has a whole head."""

    def close(self) -> None:
        """Wait for nobody any longer."""


class Charts:
    """One charts process. ``async with Charts(hub, database) as charts`` runs it; ``charts.url`` is where it serves.

    Args:
        hub: address of the hub's stream, ``ws://127.0.0.1:8080/v1/stream``, or of several hubs: the first that can be
            reached is followed until it is lost. None need be there yet.
        database: the file of the store.
        headers: sent to the hub with the handshake: a token, for one. Never printed.
        clock_us: a monotonic clock, for tests.
        gate: accepts connections; without one a connection may take its time.
        make_guard: makes what looks at the frames of clients, on connections that the gate made.
        doors: what is served, beside health.

    Entering raises StoreError when the store cannot be used, and OSError when the port is taken.
    """

    def __init__(
        self,
        hub: str | Sequence[str],
        database: Path,
        settings: Settings | None = None,
        *,
        retention: Retention | None = None,
        headers: Mapping[str, str] | None = None,
        clock_us: Callable[[], int] = boot_time_us,
        gate: Gate | None = None,
        make_guard: MakeGuard | None = None,
        doors: Sequence[Door] = (),
    ) -> None:
        self.settings = settings or Settings()
        self.live = Live(max_listeners=2 * self.settings.max_listeners)
        self.failed = False
        """A part of the program failed: better none than one that no longer records."""
        self.on_failure: Callable[[], None] = lambda: None
        self.url = ""
        self._hub = hub
        self._database = database
        self._retention = retention
        self._headers = headers
        self._clock_us = clock_us
        self._gate = gate
        self._make_guard = make_guard
        self._doors = doors

    async def __aenter__(self) -> "Charts":
        async with contextlib.AsyncExitStack() as stack:
            self.store = await asyncio.to_thread(open_store, self._database, retention=self._retention, recording=True)
            stack.callback(self.store.close)
            self.recorder = Recorder(self._hub, self.store, self.live, headers=self._headers, clock_us=self._clock_us)
            stack.push_async_callback(self.recorder.close)
            await asyncio.to_thread(self.recorder.restore)
            self.context = Context(self.live, self.store, self.recorder, self.settings, self._make_guard)
            stack.callback(self.context.close)
            recording = asyncio.create_task(self.recorder.run(), name="charts recorder")
            recording.add_done_callback(self._ended)
            stack.push_async_callback(_end, recording)
            await self._listen(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.context.stop_listening()  # streams end by themselves, before the server waits for them
        await self._stack.aclose()

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        runner = web.AppRunner(
            application(self.context, self._doors, self._gate),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=STOP_S,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        settings = self.settings
        if self._gate is not None:
            stack.callback(self._gate.close)
            stack.push_async_callback(self._gate.stop_listening)
            address = await self._gate.listen(
                runner.server, settings.host, settings.port, max_connections=settings.max_listeners + settings.max_reads
            )
        else:
            loop = asyncio.get_running_loop()
            listener = await loop.create_server(runner.server, settings.host, settings.port, backlog=BACKLOG)
            stack.callback(listener.close)
            address = listener.sockets[0].getsockname()[:2]
        host, port = address
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("the recorder failed; ending", exc_info=task.exception())
            self.failed = True
            self.on_failure()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def application(context: Context, doors: Sequence[Door] = (), gate: Gate | None = None) -> web.Application:
    """All doors over one context."""

    def failed() -> None:
        context.failures += 1

    middlewares: list[Any] = [guard(context.settings, failed)]
    if gate is not None:
        middlewares.insert(0, gate.middleware())
    app = web.Application(middlewares=middlewares)
    for door in (health.routes, *doors):
        app.add_routes(door(context))
    return app
