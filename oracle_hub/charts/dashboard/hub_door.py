"""The hub through this process, for a page that may talk to nobody else: its stream, its health and its alerts.

``/v1/stream`` passes frames both ways as they are. So the page judges leases as every client does, with the stamps of
the hub's clock: a frame that waited here is known to be old. A page that does not read makes the relay wait, and that
is, to the hub, a slow client like any other.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Container
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import WSMsgType, web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from oracle_hub.charts.answers import ChartsCode, Refused, json_answer
from oracle_hub.charts.context import Context
from oracle_hub.charts.recorder import Recorder
from oracle_hub.charts.sockets import frame_guard, others_turn
from oracle_hub.client.dialing import RECEIVE_BUFFER_BYTES, connected_socket, wire_log
from oracle_hub.stream.messages import CloseCode

log = logging.getLogger(__name__)

SUBPROTOCOL = "oraclehub.v1"
MAX_REQUEST_BYTES = 65_536
"""Of a page's message."""
DIAL_TIMEOUT_S = 5.0
ASK_TIMEOUT_S = 2.0
KEPT_S = 1.0
"""So long one answer about the hub's health serves everybody."""

Ending = tuple[int, str]


class HubReport(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``/v1/hub``: what the hub's own ``/readyz`` says, if it can be asked."""

    reachable: bool
    status: int | None
    """Of the hub's answer: 200 ready, 503 not."""
    error: str | None
    """Why there is no answer."""
    readiness: msgspec.Raw | None
    """The hub's answer as it is."""


class OpenAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is open, in short."""

    id: str
    kind: str
    feed: str | None
    """None: of no single feed."""
    severity: str
    started_us: int
    summary: str


class AlertsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``/v1/alerts``: what is open at the hub. Null: nothing is known, since it can't be asked."""

    alerts: list[OpenAlert] | None


class _HubAlerts(msgspec.Struct):
    open: list[OpenAlert]


class HubDoor:
    """The door."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._relays: set[asyncio.Task[Ending]] = set()
        self._readiness = _Question(context.recorder, "/readyz", (200, 503))
        self._alerts = _Question(context.recorder, "/v1/alerts", (200,))
        context.on_stop(self._stop)

    def _stop(self) -> None:
        for relay in self._relays:
            relay.cancel()

    # The stream.

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/stream``: a connection to the hub for this page alone."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise Refused(426, ChartsCode.UPGRADE_REQUIRED, "this is a websocket; /v1/sse is for those without")
        with self._context.listener(request):
            page = web.WebSocketResponse(
                protocols=(SUBPROTOCOL,), max_msg_size=MAX_REQUEST_BYTES, heartbeat=20.0, timeout=0.5
            )
            guard = frame_guard(request, self._context.make_guard, MAX_REQUEST_BYTES)
            await page.prepare(request)
            fault = asyncio.get_running_loop().create_future()
            if guard is not None:
                guard.watch(fault.set_result)
            relay = asyncio.create_task(self._relay(page), name="relay of the stream")
            self._relays.add(relay)
            try:
                ends: tuple[asyncio.Future[Any], ...] = relay, fault
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._relays.discard(relay)
                relay.cancel()
                await asyncio.wait([relay])
            if fault.done():
                code, reason = fault.result(), ""
            else:
                code, reason = (CloseCode.SHUTDOWN, "shutdown") if relay.cancelled() else relay.result()
            await page.close(code=code, message=reason.encode()[:120])
        return page

    async def _relay(self, page: web.WebSocketResponse) -> Ending:
        """Until one of the two ends it; returns how the page is to be told."""
        recorder = self._context.recorder
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                sock = await connected_socket(recorder.hub, RECEIVE_BUFFER_BYTES)
                hub = await connect(
                    recorder.hub,
                    sock=sock,
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    additional_headers=recorder.headers,
                    compression=None,
                    max_size=None,
                    close_timeout=0.5,
                    logger=wire_log,
                )
        except (OSError, TimeoutError, WebSocketException) as error:
            log.debug("the hub's stream cannot be had for a page: %s", error)
            return CloseCode.SHUTDOWN, "the hub cannot be reached"
        up = asyncio.create_task(_up(page, hub), name="relay to the hub")
        try:
            return await _down(hub, page)
        finally:
            up.cancel()
            await asyncio.wait([up])
            await hub.close()

    # Health and alerts.

    async def report(self, request: web.Request) -> web.Response:
        """``GET /v1/hub``."""
        said = await self._readiness.answer()
        readiness = None if said.body is None else msgspec.Raw(said.body)
        return json_answer(
            HubReport(reachable=said.body is not None, status=said.status, error=said.error, readiness=readiness)
        )

    async def alerts(self, request: web.Request) -> web.Response:
        """``GET /v1/alerts``."""
        said = await self._alerts.answer()
        try:
            told = None if said.body is None else msgspec.json.decode(said.body, type=_HubAlerts).open
        except msgspec.MsgspecError:
            told = None  # a hub of another kind: nothing is known, which is not the same as no alerts
        return json_answer(AlertsAnswer(alerts=told))


class _Said(NamedTuple):
    status: int | None
    body: bytes | None
    """JSON; None where there is no answer of use."""
    error: str | None


class _Question:
    """One path of the hub, asked once a second at most, whoever asks here."""

    def __init__(self, recorder: Recorder, path: str, statuses: Container[int]) -> None:
        self._recorder = recorder
        self._path = path
        self._statuses = statuses
        self._asking = asyncio.Lock()
        self._asked_s = -KEPT_S
        self._said = _Said(None, None, None)

    async def answer(self) -> _Said:
        """What the hub says now, or said within the last second."""
        async with self._asking:
            if time.monotonic() - self._asked_s >= KEPT_S:
                self._said = await self._ask()
                self._asked_s = time.monotonic()
            return self._said

    async def _ask(self) -> _Said:
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=self._recorder.headers, trust_env=True) as http,
                http.get(self._recorder.hub_url(self._path), allow_redirects=False) as response,
            ):
                body = await response.read()
                if response.status not in self._statuses:
                    return _Said(response.status, None, f"the hub answers with HTTP {response.status}")
                msgspec.json.decode(body)
                return _Said(response.status, body, None)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError):
            return _Said(None, None, "the hub cannot be reached")


async def _up(page: web.WebSocketResponse, hub: ClientConnection) -> None:
    """What the page asks. When the page leaves, the hub's connection is closed, which ends the other direction."""
    with contextlib.suppress(ConnectionClosed):
        async for frame in page:
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            await hub.send(frame.data)
            await others_turn()
    await hub.close()


async def _down(hub: ClientConnection, page: web.WebSocketResponse) -> Ending:
    """What the hub tells. Each frame is taken when the page has taken the one before."""
    try:
        while True:
            frame = await hub.recv()
            if isinstance(frame, str):
                await page.send_str(frame)
    except ConnectionClosed as closed:
        received = closed.rcvd
        if received is not None and 4000 <= received.code < 5000:
            return received.code, received.reason
        return CloseCode.SHUTDOWN, "the connection to the hub was lost"
    except ConnectionError:
        return CloseCode.SHUTDOWN, "the page left"


def routes(context: Context) -> list[web.RouteDef]:
    """``/v1/stream``, ``/v1/hub`` and ``/v1/alerts``."""
    door = HubDoor(context)
    return [
        web.get("/v1/stream", door.stream, allow_head=False),
        web.get("/v1/hub", door.report),
        web.get("/v1/alerts", door.alerts),
    ]
