"""What tests of delivery share: alerts, and an HTTP server that answers as it is told."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson
from aiohttp import web

from oracle_hub.alerts.alert import Alert, Change, Key, Kind, Severity, Transition
from oracle_hub.alerts.notify.deliveries import Deliveries
from oracle_hub.alerts.notify.settings import (
    AlertmanagerSettings,
    DeliverySettings,
    LibrarySettings,
    Secret,
    WebhookSettings,
)
from tests.patience import PATIENCE_S

START_US = 1_790_000_000_000_000
INSTANCE = "11111111-2222-3333-4444-555555555555"


class HubClock:
    """The time that an Alertmanager believes in too."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000


class StillClock:
    """The time at which everything in a test happens."""

    def now_us(self) -> int:
        return START_US


def alert(
    feed: str = "SOL/USD",
    *,
    kind: Kind = Kind.PAIR_DIVERGED,
    severity: Severity = Severity.WARNING,
    started_us: int = START_US,
    ended_us: int | None = None,
) -> Alert:
    key = Key(kind, feed, ("doves", "pyth"))
    return Alert(
        id=key.id,
        kind=kind,
        feed=feed,
        sources=key.sources,
        severity=severity,
        started_us=started_us,
        told_us=started_us + 500_000,
        ended_us=ended_us,
        summary=f"{feed}: 81.2 bps apart, 50 allowed",
        evidence={"distance_bps": 81.2, "ages_ms": {"doves": 120, "pyth": 400}},
    )


def firing(one: Alert) -> Transition:
    return Transition(Change.FIRING, one.told_us, one)


def escalated(one: Alert) -> Transition:
    critical = msgspec.structs.replace(one, severity=Severity.CRITICAL)
    return Transition(Change.ESCALATED, one.told_us + 1_000_000, critical)


def resolved(one: Alert) -> Transition:
    over = msgspec.structs.replace(one, ended_us=one.told_us + 2_000_000)
    return Transition(Change.RESOLVED, one.told_us + 12_000_000, over)


class Received(msgspec.Struct, frozen=True):
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Receiver:
    """An HTTP server. What it answers next is in ``answers``: a status, headers with it, ``"reset"`` or ``"hang"``."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Received] = asyncio.Queue()
        self.answers: deque[int | tuple[int, Mapping[str, str]] | str] = deque()
        self.always: int | str = 200
        self.url = ""
        self.port = 0
        self.let_go = asyncio.Event()
        """Ends what hangs, with 200."""

    async def next(self) -> Received:
        async with asyncio.timeout(PATIENCE_S):
            return await self.requests.get()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.put_nowait(Received(request.path, dict(request.headers), await request.read()))
        answer = self.answers.popleft() if self.answers else self.always
        if answer == "reset":
            assert request.transport is not None
            request.transport.abort()
        elif answer == "hang":
            await self.let_go.wait()
        if isinstance(answer, tuple):
            return web.Response(status=answer[0], headers=answer[1])
        return web.Response(status=answer if isinstance(answer, int) else 200)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.port = runner.addresses[0][1]
    receiver.url = f"http://127.0.0.1:{receiver.port}"
    try:
        yield receiver
    finally:
        receiver.let_go.set()
        await runner.cleanup()


def delivering(
    state: Path, *channels: AlertmanagerSettings | WebhookSettings | LibrarySettings, **more: Any
) -> Deliveries:
    """Deliveries that try again at once."""
    more = {"first_retry_s": 0.001, "max_retry_s": 0.01} | more
    return Deliveries(DeliverySettings(channels=channels, **more), state, INSTANCE, StillClock())


def webhook(receiver: Receiver, name: str = "desk", **more: Any) -> WebhookSettings:
    return WebhookSettings(name=name, url=Secret(f"{receiver.url}/{name}"), **more)
