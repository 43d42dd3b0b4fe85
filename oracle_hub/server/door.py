"""Connections between accept and their first whole request: few, and not for long."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web
from aiohttp._websocket.reader import WebSocketReader
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from oracle_hub.server.answers import Handler, RequestError, error_answer
from oracle_hub.server.inbound import FrameGuard
from oracle_hub.server.sockets import Listener, descriptor_ceiling

KEEPALIVE_S = 30
BACKLOG = 1_024
MAX_HEAD_BYTES = 65_536
"""More than this at once, or before its first request is whole, is nobody who wants one."""


class Writer(Protocol):
    """Somebody who writes past the transport."""

    def hold(self) -> None:
        """From now on not: bytes wait in the transport, or it is gone."""
        ...

    def release(self) -> None:
        """Again: nothing waits."""
        ...


class GuardedReader:
    """aiohttp's reader of frames, behind a guard. What comes after a fault is taken from the socket and let go: with
    unread bytes in it the kernel would answer with a reset, which can overtake our close."""

    def __init__(self, reader: WebSocketReader, guard: FrameGuard) -> None:
        self._reader = reader
        self._guard = guard

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        return self._reader.feed_data(data) if self._guard.passes(data) else (False, b"")

    def feed_eof(self) -> None:
        self._reader.feed_eof()


class RequestHandler(web.RequestHandler):
    """aiohttp's own, but for requests that cannot be read: it would log a traceback for each, with what was sent in it,
    and answer in plain text."""

    __slots__ = ("guard", "head_bytes", "subscriber", "unwanted")

    head_bytes: int | None
    """Received so far; None from the first whole request on."""
    guard: FrameGuard | None
    """Looks at what comes once this is a websocket; somebody must watch it. None: all is left to aiohttp."""
    unwanted: bool
    """It was cut while it was still agreeing on its encryption, when there is nothing yet that can be cut."""
    subscriber: Writer | None
    """Who has to know whether anything waits in the transport."""

    @property
    def asked(self) -> bool:
        """A whole request is here, and waits for its turn."""
        return bool(self._messages)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.unwanted and isinstance(transport, asyncio.Transport):
            transport.abort()

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        guarded = parser if self.guard is None else GuardedReader(parser, self.guard)
        super().set_parser(guarded, data_received_cb)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        rest = b""
        if self._payload_parser is None and not self._upgraded:
            data, rest = data[:MAX_HEAD_BYTES], data[MAX_HEAD_BYTES:]
            if self.head_bytes is not None:
                self.head_bytes += len(data)
        if self.head_bytes is None or self.head_bytes <= MAX_HEAD_BYTES:
            super().data_received(data)
            if not rest:
                return
            if self._upgraded:
                super().data_received(rest)
                return
        # aiohttp would read on and print all of it for an error of its own, 4 ms for each quarter of a megabyte: a few
        # hundred such connections kept prices waiting for seconds.
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        if self.subscriber is not None:
            self.subscriber.hold()
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.subscriber is not None:
            self.subscriber.release()

    def connection_lost(self, exc: BaseException | None) -> None:
        # The socket is closed after this, never before.
        if self.subscriber is not None:
            self.subscriber.hold()
            self.subscriber = None
        super().connection_lost(exc)
        # What points in a circle stays until the collector comes, which stops everything for as long as all that lives
        # takes to be walked: 150 ms with 5,000 clients. So these circles are opened.
        self.guard = None
        super().set_parser(None)  # type: ignore[arg-type]  # with it aiohttp lets go of the websocket

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        if isinstance(exc, LineTooLong):
            longest = f"the request line, or a header, is longer than {self.max_line_size} bytes"
            answer = error_answer(431, RequestError.HEAD_TOO_LARGE, longest)
        else:
            answer = error_answer(400, RequestError.BAD_REQUEST, "this is no request that HTTP/1.1 knows")
        answer.force_close()
        return answer


class Door:
    """Listens, makes the protocol of each new connection, and cuts those that do not come to the point.

    aiohttp waits without end for the head of a first request. Somebody who sends one byte a minute would hold a
    descriptor for ever, and enough of them all that there are.
    """

    def __init__(self, *, timeout_s: float, max_waiting: int, max_message_bytes: int | None = None) -> None:
        """``max_message_bytes``: for who watches the guards of connections. None: there are none."""
        self._server: web.Server | None = None
        self._listeners: list[asyncio.Server] = []
        self._max_message_bytes = max_message_bytes
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._waiting: dict[RequestHandler, asyncio.TimerHandle] = {}
        self.cut_off = 0
        """Connections that were cut because their request did not come."""

    async def listen(
        self,
        server: web.Server,
        host: str,
        port: int,
        *,
        max_connections: int,
        reuse_port: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> tuple[str, int]:
        """From now on let this server handle who comes to this address. Gives the address that was bound.

        ``max_connections``: so many should find a file descriptor; the system's limit is raised for them where it may.

        Raises:
            OSError: the port is taken.
        """
        self._server, loop = server, asyncio.get_running_loop()
        bound = await loop.create_server(self, host, port, reuse_port=reuse_port or None, start_serving=False)
        ceiling = descriptor_ceiling(max_connections + self._max_waiting)
        with contextlib.closing(bound):
            for sock in bound.sockets:
                listener = await loop.create_server(
                    self,
                    sock=Listener.of(sock.fileno(), ceiling),
                    backlog=BACKLOG,
                    ssl=tls,
                    ssl_handshake_timeout=self._timeout_s if tls else None,
                )
                self._listeners.append(listener)
        address: tuple[str, int] = self._listeners[0].sockets[0].getsockname()[:2]
        return address

    async def stop_listening(self) -> None:
        """Nobody new comes in. Who was sent away and comes back must find nobody, or whoever listens here next."""
        for sock in [sock for listener in self._listeners for sock in listener.sockets]:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        await asyncio.sleep(0)  # asyncio loses the socket of whom it accepts in the turn in which this closes
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def __call__(self) -> RequestHandler:
        """What the listening socket calls for every connection that it accepts."""
        assert self._server is not None
        loop = asyncio.get_running_loop()
        protocol = RequestHandler(
            self._server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None is none, as in web.AppRunner
            keepalive_timeout=KEEPALIVE_S,
        )
        protocol.unwanted = False
        protocol.subscriber = None
        protocol.head_bytes = 0
        protocol.guard = None if self._max_message_bytes is None else FrameGuard(self._max_message_bytes)
        while len(self._waiting) >= self._max_waiting:
            self._cut(next(iter(self._waiting)))
        self._waiting[protocol] = loop.call_later(self._timeout_s, self._overdue, protocol)
        return protocol

    def _overdue(self, protocol: RequestHandler) -> None:
        if protocol.asked:  # in time: it was we who stood still, and this timer came first
            del self._waiting[protocol]
        else:
            self._cut(protocol)

    def _cut(self, protocol: RequestHandler) -> None:
        self._waiting.pop(protocol).cancel()
        protocol.unwanted = True
        if protocol.transport is not None:
            self.cut_off += 1
            protocol.transport.abort()

    def middleware(self) -> Callable[..., Awaitable[object]]:
        """To be the first middleware: what reaches it has a whole head."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            protocol = request.protocol
            if isinstance(protocol, RequestHandler):
                protocol.head_bytes = None
                timer = self._waiting.pop(protocol, None)
                if timer is not None:
                    timer.cancel()
            return await handler(request)

        return middleware

    def close(self) -> None:
        """Wait for nobody any longer."""
        for protocol in tuple(self._waiting):
            self._cut(protocol)
