"""Runs one link over real sockets: connects, carries out effects, stamps frames, tries again.

The driver owns no decision about prices. It calls the :class:`Sink`, which writes to the journal and calls the link's
pure methods in that same order; what comes back are effects to carry out.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import aiohttp
import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from oracle_hub.core.source import Effect, Fetch, Frame, Link, Open, Reconnect, Send
from oracle_hub.ingest.backoff import Backoff
from oracle_hub.ingest.http import fetch_frame, reason_of, retry_after_ms
from oracle_hub.ingest.messages import MessageConnection
from oracle_hub.ingest.redaction import redacted, secrets_of
from oracle_hub.ingest.sse import SseParser

_SHORTEST_TIMER_S = 0.001
_SENDS_AT_A_TIME = 64
"""So many messages go out before anything else gets its turn: a link asks for each of its thousands of accounts."""
_UNUSABLE = "the URL and headers cannot be used together"
"""Said where the client refuses a request before it is made; its own words may hold the URL."""


class Sink(Protocol):
    """Where frames go: the part that owns journal and hub. Its methods are plain calls on the event loop.

    Each journals the call, calls the link's method of the same meaning, gives the events to the hub, and returns the
    effects for the driver. Frames are as they came, but for keys of ours that peers quote.
    """

    def on_connect(self, link: Link, now_us: int) -> Sequence[Effect]:
        """A session begins: call ``link.connect``."""
        ...

    def on_frame(self, link: Link, frame: Frame, received_us: int) -> Sequence[Effect]:
        """A frame arrived: call ``link.receive``."""
        ...

    def on_timer(self, link: Link, now_us: int) -> Sequence[Effect]:
        """The link's deadline has come: call ``link.on_timer``."""
        ...

    def on_disconnect(self, link: Link, now_us: int, reason: str) -> None:
        """The session ended. Subscriptions and requests of it are gone; ``reason`` holds no secret."""
        ...


class DriverLimits(msgspec.Struct, frozen=True):
    """Patience and bounds of one link's driver."""

    open_timeout_s: float = 5.0
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 10.0
    close_timeout_s: float = 0.5
    renew_after_s: float = 85_800.0
    """23 h 50 min: Hermes cuts every stream at 24 h, in the middle of a price. A driver renews up to a tenth sooner."""
    backoff_first_s: float = 0.25
    backoff_max_s: float = 5.0
    """Without end: a host that comes back is to be used again within seconds."""
    backoff_refused_s: float = 30.0
    """After refused credentials (HTTP 401, 403)."""
    healthy_after_s: float = 10.0
    """A session that lived so long resets the back-off."""
    max_frame_bytes: int = 16 * 2**20
    max_queued_sends: int = 16_384
    """Beside what a link asks for as it connects, of which an RPC endpoint gets one message for each account."""
    max_fetches: int = 4
    """Requests at once."""
    max_waiting_fetches: int = 1_024


class LinkHealth(msgspec.Struct):
    """What operations want to know about one link. Times are our clock, in microseconds; 0 for never."""

    state: str = "waiting"
    """``waiting`` (before a try), ``connecting``, ``open``, ``stopped``."""
    connected_since_us: int = 0
    last_frame_us: int = 0
    reconnects: int = 0
    frames: int = 0
    bytes: int = 0
    failed_fetches: int = 0
    last_error: str = ""


class Waiting(NamedTuple):
    """What waits in a driver. Both are bounded (:class:`DriverLimits`)."""

    sends: int
    """Messages that the peer has not taken."""
    fetches: int
    """Requests without an answer yet."""


class _Dial(websocket_connect):
    """Follows no redirect: credentials stay with the host that they were given for."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Over(Exception):
    """The session ended: why, after how long to try again, and whether the server refused us, or only a part of it."""

    def __init__(
        self,
        reason: str,
        after_ms: int = 0,
        *,
        refused: bool = False,
        planned: bool = False,
        amended: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_ms = after_ms
        self.refused = refused
        self.planned = planned
        self.amended = amended


class LinkDriver:
    """Keeps one link connected until cancelled. ``clock`` gives our clock in microseconds."""

    def __init__(
        self,
        link: Link,
        sink: Sink,
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], int],
        rng: random.Random,
        limits: DriverLimits | None = None,
    ) -> None:
        self.link = link
        self.health = LinkHealth()
        self._sink = sink
        self._session = session
        self._clock = clock
        self._limits = limits or DriverLimits()
        # A renewal closes before it opens: frames don't say which of two streams they are of, and a link starts over
        # with each. So that there is no gap, the hosts of a source must not all do it at once.
        self._renew_after_s = self._limits.renew_after_s * rng.uniform(0.9, 1.0)
        self._backoff = Backoff(
            rng,
            first_s=self._limits.backoff_first_s,
            max_s=self._limits.backoff_max_s,
            refused_s=self._limits.backoff_refused_s,
        )
        self._slots = asyncio.Semaphore(self._limits.max_fetches)
        self._fetches: set[asyncio.Task[None]] = set()
        self._outbox: asyncio.Queue[str] = asyncio.Queue(self._limits.max_queued_sends)
        self._over: asyncio.Future[_Over] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self._secrets: frozenset[bytes] = frozenset()

    async def run(self) -> None:
        """Connect, and connect again, until cancelled. Raises only what the sink raised."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._drop_queued()  # what still waits belongs to the session before
                self._over = loop.create_future()
                began_s = loop.time()
                over = await self._run_session(self._over)
                if loop.time() - began_s >= self._limits.healthy_after_s:
                    self._backoff.reset()
                self.health.state = "waiting"
                self.health.connected_since_us = 0
                self.health.reconnects += 1
                if not over.planned:
                    self.health.last_error = over.reason
                self._sink.on_disconnect(self.link, self._clock(), over.reason)
                await self._pause(over)
        finally:
            self._drop_queued()
            if self._timer is not None:
                self._timer.cancel()
            self.health.state = "stopped"

    @property
    def waiting(self) -> Waiting:
        """How much waits."""
        return Waiting(self._outbox.qsize(), len(self._fetches))

    def restart(self, reason: str) -> None:
        """Start the session over at once, without back-off: our clock was set anew, or the operator wishes it."""
        self._finish(_Over(reason, planned=True))

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Carry out effects that arose outside of this driver's own calls (a reconciled subscription)."""
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect)
            elif isinstance(effect, Fetch):
                self._fetch(effect)
            elif isinstance(effect, Reconnect):
                self._finish(_Over(effect.reason, effect.after_ms, amended=effect.amended))
        self._arm()

    async def _pause(self, over: _Over) -> None:
        """Wait for the back-off or the server's wish, while the link's timers and requests go on."""
        if over.planned:
            return
        if over.amended:
            self._backoff.reset()
        delay_s = max(self._backoff.next_s(refused=over.refused), over.after_ms / 1_000)
        self._over = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._over], timeout=delay_s)  # only a sink's own failure ends it early
        if self._over.done():
            self._over.result()

    # One session.

    async def _run_session(self, over: asyncio.Future[_Over]) -> _Over:
        self.health.state = "connecting"
        effects = self._sink.on_connect(self.link, self._clock())
        opening = next((effect for effect in effects if isinstance(effect, Open)), None)
        self._secrets = secrets_of(effects)
        # A link asks at once for all that it is configured to watch. What comes on top of that is bounded.
        asked = sum(isinstance(effect, Send) for effect in effects)
        self._outbox = asyncio.Queue(asked + self._limits.max_queued_sends)
        self.carry_out(effects)
        del effects  # of thousands of accounts these are megabytes, and the session may last for a day
        if opening is None:
            self._opened()
        stream = asyncio.create_task(self._stream(opening), name=f"stream {self.link.name}") if opening else None
        try:
            await asyncio.wait(
                [over] if stream is None else [over, stream],
                timeout=self._renew_after_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if over.done() and over.exception() is not None:
                return over.result()
            if stream is not None and stream.done():
                return stream.result()  # knows more: whether we were refused, and how long to wait
            if over.done():
                return over.result()
            return _Over("planned renewal", planned=True)
        finally:
            if stream is not None:
                stream.cancel()
                await asyncio.gather(stream, return_exceptions=True)

    def _drop_queued(self) -> None:
        for task in self._fetches:
            task.cancel()
        self._fetches.clear()
        while not self._outbox.empty():
            self._outbox.get_nowait()

    async def _stream(self, opening: Open) -> _Over:
        try:
            if opening.channel == "websocket":
                return await self._websocket(opening)
            return await self._sse(opening)
        except _Over as over:
            return over
        except (OSError, TimeoutError, aiohttp.ClientError, ConnectionClosed, InvalidHandshake, InvalidURI) as error:
            return _Over(reason_of(error))

    async def _websocket(self, opening: Open) -> _Over:
        limits = self._limits
        try:
            connection = await _Dial(
                opening.url,
                additional_headers=opening.headers,
                subprotocols=opening.subprotocols or None,  # type: ignore[arg-type]  # a NewType of str
                compression=None,
                proxy=None,
                open_timeout=limits.open_timeout_s,
                ping_interval=limits.ping_interval_s,
                ping_timeout=limits.ping_timeout_s,
                close_timeout=limits.close_timeout_s,
                max_size=limits.max_frame_bytes,
                create_connection=MessageConnection,
            )
        except InvalidStatus as error:
            response = error.response
            after_ms = retry_after_ms(response.headers.get("Retry-After"))
            self._refused("websocket", response.status_code, bytes(response.body or b""), after_ms)
        except ValueError:
            raise _Over(_UNUSABLE) from None
        assert isinstance(connection, MessageConnection)
        async with connection:
            self._opened()
            sender = asyncio.create_task(self._send_all(connection), name=f"send {self.link.name}")
            try:
                connection.deliver_to(self._take_message)
                await connection.wait_closed()
                raise connection.protocol.close_exc
            finally:
                connection.end_delivery()
                sender.cancel()

    def _take_message(self, data: bytes) -> None:
        """A websocket message came. A failure of the sink ends :meth:`run`, and no message is taken after it."""
        if self._over is None or self._over.done():
            return
        try:
            self._deliver(Frame("websocket", data), self._clock())
        except Exception as error:
            self._over.set_exception(error)

    async def _send_all(self, connection: ClientConnection) -> None:
        """Send what waits. Neither call lets the loop turn while there is something to send and the peer takes it."""
        try:
            while True:
                for _ in range(_SENDS_AT_A_TIME):
                    await connection.send(await self._outbox.get())
                await asyncio.sleep(0)
        except ConnectionClosed:
            return  # the receiving side says why

    async def _sse(self, opening: Open) -> _Over:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache", **opening.headers}
        limits = self._limits
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.open_timeout_s)
        async with asyncio.timeout(limits.open_timeout_s) as opening_timeout:
            try:
                response = await self._session.get(opening.url, headers=headers, timeout=timeout, allow_redirects=False)
            except aiohttp.ClientError:
                raise  # an unusable URL is a ValueError too, but has words of its own
            except ValueError:
                raise _Over(_UNUSABLE) from None
            async with response:
                if response.status != 200:
                    body = await response.content.read(4_096)
                    after_ms = retry_after_ms(response.headers.get("Retry-After"))
                    self._refused("sse", response.status, body, after_ms)
                if response.content_type != "text/event-stream":
                    raise _Over(f"answered with {response.content_type[:40]!r} instead of an event stream")
                opening_timeout.reschedule(None)
                self._opened()
                parser = SseParser(limits.max_frame_bytes)
                async for chunk in response.content.iter_any():
                    received_us = self._clock()
                    self.health.bytes += len(chunk)
                    try:
                        events = parser.feed(chunk)
                    except ValueError as error:
                        raise _Over(str(error)) from None
                    for event in events:
                        self._deliver(Frame("sse", event.data, event=event.event), received_us)
                raise _Over("server ended the stream")

    def _refused(self, channel: str, status: int, body: bytes, after_ms: int) -> None:
        """Tell the link that its stream was refused, then end the session."""
        received_us = self._clock()
        kind: Literal["websocket", "sse"] = "websocket" if channel == "websocket" else "sse"
        frame = Frame(kind, body[:4_096], status=status, retry_after_ms=after_ms)
        self._deliver(frame, received_us)
        wish = self._over.result() if self._over is not None and self._over.done() else _Over("")
        refused = status in (401, 403) and not wish.amended
        raise _Over(f"HTTP {status}", max(after_ms, wish.after_ms), refused=refused, amended=wish.amended)

    # What goes in and out.

    def _opened(self) -> None:
        self.health.state = "open"
        self.health.connected_since_us = self._clock()

    def _deliver(self, frame: Frame, received_us: int) -> None:
        health = self.health
        health.last_frame_us = received_us
        health.frames += 1
        if frame.channel != "sse":  # counted as chunks
            health.bytes += len(frame.data)
        if self._secrets:
            frame = redacted(frame, self._secrets)
        effects = self._sink.on_frame(self.link, frame, received_us)
        if effects:
            self.carry_out(effects)
        else:
            self._arm()

    def _send(self, effect: Send) -> None:
        if self.health.state == "waiting":  # no session: the next one starts over
            return
        try:
            self._outbox.put_nowait(effect.text)
        except asyncio.QueueFull:
            self._finish(_Over(f"the peer does not take what we send: {self._outbox.qsize():,} messages wait"))

    def _fetch(self, effect: Fetch) -> None:
        if len(self._fetches) >= self._limits.max_waiting_fetches:
            frame = Frame("http", b"too many requests are waiting", fetch_id=effect.fetch_id)
            asyncio.get_running_loop().call_soon(self._guard, lambda: self._deliver(frame, self._clock()))
            return
        task = asyncio.create_task(self._answer(effect), name=f"fetch {self.link.name} {effect.fetch_id}")
        self._fetches.add(task)
        task.add_done_callback(self._fetches.discard)

    async def _answer(self, effect: Fetch) -> None:
        async with self._slots:
            frame, received_us = await fetch_frame(self._session, effect, self._limits.max_frame_bytes, self._clock)
        frame = redacted(frame, secrets_of([effect]))
        if frame.status == 0:
            self.health.failed_fetches += 1
            self.health.last_error = frame.data.decode("utf-8", "replace")
        self._guard(lambda: self._deliver(frame, received_us))

    def _arm(self) -> None:
        """Have the link's deadline watched; a timer that is set too early is set again when it fires."""
        due_us = self.link.next_deadline()
        if due_us is None or (self._timer is not None and self._timer_us <= due_us):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(_SHORTEST_TIMER_S, (due_us - self._clock()) / 1_000_000)
        self._timer_us = due_us
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._guard, self._tick)

    def _tick(self) -> None:
        self._timer = None
        due_us = self.link.next_deadline()
        now_us = self._clock()
        if due_us is not None and due_us <= now_us:
            self.carry_out(self._sink.on_timer(self.link, now_us))
        else:
            self._arm()

    def _finish(self, over: _Over) -> None:
        """End the session, if one is open or opening."""
        if self._over is not None and not self._over.done() and self.health.state in ("open", "connecting"):
            self._over.set_result(over)

    def _guard(self, action: Callable[[], None]) -> None:
        """Run a callback of the loop so that a failure of the sink ends :meth:`run` and not only the callback."""
        try:
            action()
        except Exception as error:
            if self._over is None or self._over.done():
                raise
            self._over.set_exception(error)
