"""The client on asyncio: one subscription, kept up over one or several hubs."""

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from oracle_hub.client.addresses import Addresses
from oracle_hub.client.dialing import (
    RECEIVE_BUFFER_BYTES,
    connected_socket,
    handshake_options,
    why_closed,
    why_refused,
    wire_log,
)
from oracle_hub.client.price import HubUnreachable, Price, Taken, Update
from oracle_hub.client.state import ClientState, Effect, From, GiveUp, Reconnect, Send, Wanted
from oracle_hub.client.telling import Callback, Telling, has_unread
from oracle_hub.errors import StreamError
from oracle_hub.stream.messages import BINARY_SUBPROTOCOL, SUBPROTOCOL, Hello

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 << 20
CLOSE_TIMEOUT_S = 0.3
PROVEN_AFTER_US = 1_000_000
"""A connection that held so long ends the backing off."""
RETURN_TIMEOUT_S = 2.0
"""So long a hub that was lost is waited for at most, where there is another one."""


def boot_time_us() -> int:
    """A monotonic clock in µs, which also runs while the machine is suspended, where the system has one."""
    return _clock_ns() // 1000


_boot_clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def _clock_ns() -> int:
    return time.monotonic_ns() if _boot_clock is None else time.clock_gettime_ns(_boot_clock)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What the client has been through."""

    connected: bool
    """Connected and caught up."""
    url: str | None
    """The hub that is heard, or was last."""
    connections: int
    reconnects: int
    messages: int
    updates: int
    duplicates: int
    gaps: int
    digest_mismatches: int
    snapshots: int
    resumes: int
    held_back: int
    """Entries of another hub that were older than what had been told."""
    clock_steps: int
    unknown_messages: int
    drained: int
    """Messages that had waited in a buffer, and were read to get at the newest."""
    callback_errors: int
    offset_low_us: int | None
    offset_high_us: int | None
    """Bounds of our monotonic clock minus the hub's."""
    last_error: str | None


class Prices:
    """Prices of one subscription. Made by :func:`connect`; to be used with ``async with``.

    ``get`` answers at once, from memory. Iterating gives news, each feed's newest in mode ``latest``: whoever is slow
    skips what is over. Only one task may iterate. In mode ``all`` somebody must iterate, or reading stops.
    """

    def __init__(
        self,
        addresses: Addresses,
        state: ClientState,
        *,
        on_live: Callback | None = None,
        on_none: Callback | None = None,
        binary: bool = False,
        options: Mapping[str, Any] | None = None,
        receive_buffer_bytes: int | None = RECEIVE_BUFFER_BYTES,
        open_timeout_s: float = 10.0,
        wait: bool = True,
        clock_us: Callable[[], int] = boot_time_us,
        guard: contextlib.AbstractContextManager[Any] | None = None,
    ) -> None:
        self._addresses = addresses
        self._state = state
        self._options = dict(options or {})
        self._receive_buffer_bytes = receive_buffer_bytes
        self._subprotocols = [Subprotocol(SUBPROTOCOL)]
        if binary:
            self._subprotocols.insert(0, Subprotocol(BINARY_SUBPROTOCOL))
        self._open_timeout_s = open_timeout_s
        self._wait = wait
        self._clock_us = clock_us
        # Held while the state changes; a lock where other threads read it.
        self._guard = guard or contextlib.nullcontext()
        self._task: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._url: str | None = None
        self._abandoned: Reconnect | GiveUp | None = None
        self._telling = Telling(
            state,
            clock_us=clock_us,
            guard=self._guard,
            has_unread=lambda: self._socket is not None and has_unread(self._socket.transport),
            abandon=self._abandon,
            on_live=on_live,
            on_none=on_none,
        )
        self._room = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._connected_us = 0
        self._connections = 0
        self._last_error: str | None = None

    # What a program asks.

    def get(self, feed: str, max_age_ms: int | None = None) -> Price:
        """The price of a feed that holds now. Never waits.

        Raises:
            NoPrice: there is none to act on, or it was published more than ``max_age_ms`` ago; ``reason`` says which.
        """
        with self._guard:
            return self._state.get(feed, self._clock_us(), max_age_ms)

    @property
    def hub(self) -> Hello | None:
        """What the hub said of itself: instance, policy, simulated, feeds, limits."""
        return self._state.hello

    @property
    def hub_time_us(self) -> int | None:
        """The latest that the hub's clock can show now, by which leases are judged; None before any hub was heard."""
        with self._guard:
            return self._state.offset.latest_us(self._clock_us())

    @property
    def rejected(self) -> dict[str, str]:
        """Feeds that the hub refused, with its code."""
        return dict(self._state.rejected)

    @property
    def stats(self) -> Stats:
        """Counts since the client was made, and the clock offset of the present connection."""
        with self._guard:
            now_us, state = self._clock_us(), self._state
            return Stats(
                connected=state.caught_up,
                url=self._url,
                connections=self._connections,
                reconnects=max(0, self._connections - 1),
                drained=self._telling.drained,
                callback_errors=self._telling.callback_errors,
                offset_low_us=state.offset.low_us(now_us),
                offset_high_us=state.offset.high_us(now_us),
                last_error=self._last_error,
                **msgspec.structs.asdict(state.counters),
            )

    async def __aenter__(self) -> Self:
        """Start, and wait until a hub has told the present state (unless made with ``wait=False``).

        Raises:
            HubUnreachable: no hub did within the open timeout.
            StreamError: the hub will never accept this subscription.
        """
        self._task = asyncio.create_task(self._run(), name="oracle-hub client")
        self._task.add_done_callback(self._ended)
        if not self._wait:
            return self
        try:
            async with asyncio.timeout(self._open_timeout_s):
                await self._caught_up.wait()
            self._raise_if_over()
        except TimeoutError:
            await self.close()
            why = "; ".join(f"{url}: {error}" for url, error in self._addresses.errors.items()) or "no answer"
            raise HubUnreachable(f"no hub answered within {self._open_timeout_s:g} s: {why}") from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection. From now on there is no price."""
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        self._telling.news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """The next news; waits for it. Ends when the client is closed.

        Raises:
            StreamError: the hub will not accept this subscription any more.
        """
        while True:
            if self._over or self._telling.may_tell():
                with self._guard:
                    update = self._state.next_update(self._clock_us())
                self._room.set()
                if update is not None:
                    return update
            if self._over:
                self._raise_if_over()
                raise StopAsyncIteration
            self._telling.news.clear()
            await self._telling.news.wait()

    async def take(self, limit: int = 1024) -> Taken | None:
        """Mode ``all``: wait for updates, or for word that there were none; at most ``limit`` updates at once.

        For programs that keep a record: ``Taken.heard_us`` says until when it is complete. None when the client is
        closed. Not to be mixed with iterating.

        Raises:
            StreamError: the hub will not accept this subscription any more.
        """
        while True:
            if self._over or self._telling.may_tell():
                with self._guard:
                    now_us = self._clock_us()
                    updates: list[Update] = []
                    while len(updates) < limit and (update := self._state.next_update(now_us)) is not None:
                        updates.append(update)
                    heard_us = self._state.heard_us
                self._room.set()
                if updates or heard_us != self._telling.heard_us:
                    self._telling.heard_us = heard_us
                    return Taken(updates, heard_us)
            if self._over:
                self._raise_if_over()
                return None
            self._telling.news.clear()
            await self._telling.news.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._last_error = str(error)[:300] or type(error).__name__
            if self._caught_up.is_set() or not self._wait:  # else entering raises it
                log.error("the client has ended, and gives no price any more: %s", self._last_error)
        self._caught_up.set()
        self._telling.news.set()

    @property
    def _over(self) -> bool:
        return self._task is None or self._task.done()

    def _raise_if_over(self) -> None:
        task = self._task
        if task is not None and task.done() and not task.cancelled():
            error = task.exception()
            if error is not None:
                raise error

    # Connections, one after the other.

    async def _run(self) -> None:
        try:
            while True:
                await self._wait_for_room()
                url, wait_us = self._addresses.next(self._clock_us())
                if wait_us:
                    await asyncio.sleep(wait_us / 1e6)
                ended = await self._visit(url)
                if isinstance(ended, GiveUp):
                    raise StreamError(ended.code, ended.message)
                self._last_error = f"{url}: {ended.why}"
                log.warning("lost the hub at %s: %s", url, ended.why)
                self._addresses.failed(
                    url, ended.why, self._clock_us(), random.random(), retry_after_ms=ended.retry_after_ms
                )
        finally:
            self._lose()
            self._telling.stop()

    async def _visit(self, url: str) -> Reconnect | GiveUp:
        """One connection, from handshake to end. Returns why it ended."""
        self._abandoned = None
        open_s = min(self._open_timeout_s, RETURN_TIMEOUT_S) if self._addresses.returning else self._open_timeout_s
        try:
            async with asyncio.timeout(open_s):
                connected = await connected_socket(url, self._receive_buffer_bytes)
            async with open_websocket(
                url,
                sock=connected,
                logger=wire_log,
                subprotocols=self._subprotocols,
                compression=None,
                open_timeout=open_s,
                ping_interval=None,  # heartbeats of the stream say more than pings
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=MAX_MESSAGE_BYTES,
                **self._options,
            ) as socket:
                self._socket, self._url = socket, url
                self._connections += 1
                overdue = asyncio.get_running_loop().call_later(self._open_timeout_s, self._overdue)
                try:
                    ended = await self._read(socket)
                    socket.transport.abort()  # goodbyes can take half a second, in which there is no price
                    return ended
                finally:
                    overdue.cancel()
                    self._lose()
        except InvalidStatus as error:
            return why_refused(error, self._options)
        except ConnectionClosed as error:
            return self._why_ended(error)
        except TimeoutError:
            return Reconnect("no answer in time")
        except (OSError, WebSocketException, ValueError) as error:  # ValueError: it sends us elsewhere
            return Reconnect(str(error)[:200] or type(error).__name__)

    async def _read(self, socket: ClientConnection) -> Reconnect | GiveUp:
        state, clock_us = self._state, self._clock_us
        self._connected_us = clock_us()
        with self._guard:
            state.connected(self._connected_us)
        proven = False
        while True:
            data = await socket.recv(decode=False)
            now_us = clock_us()
            with self._guard:
                effects = state.receive(data, now_us)
            if effects:
                ended = await self._carry_out(effects, socket)
                if ended is not None:
                    return ended
            self._telling.received(now_us)
            if not proven and state.caught_up:
                self._caught_up.set()
                if now_us - self._connected_us >= PROVEN_AFTER_US:
                    proven = True
                    self._addresses.succeeded(self._url or "")
            if state.full:
                await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Mode ``all``: leave what comes next to the socket, and to the hub, until the program has caught up."""
        while self._state.full:
            self._room.clear()
            await self._room.wait()

    async def _carry_out(self, effects: Sequence[Effect], socket: ClientConnection) -> Reconnect | GiveUp | None:
        for effect in effects:
            if not isinstance(effect, Send):
                return effect
            await socket.send(effect.data, text=True)
        return None

    def _why_ended(self, error: ConnectionClosed) -> Reconnect | GiveUp:
        return self._abandoned or why_closed(error)

    def _lose(self) -> None:
        """The connection is of no use any more: say so at once, however long its end takes."""
        if self._socket is None:
            return
        self._socket = None
        with self._guard:
            self._state.disconnected(self._clock_us())
        self._telling.tell()

    def _overdue(self) -> None:
        if not self._state.caught_up and not self._state.full:
            self._abandon(Reconnect("the hub did not tell its state in time"))

    def _abandon(self, why: Reconnect | GiveUp) -> None:
        socket = self._socket
        if socket is not None:
            self._abandoned = why
            self._lose()
            socket.transport.abort()


def connect(
    urls: str | Sequence[str],
    feeds: Sequence[str],
    *,
    mode: Literal["latest", "all"] = "latest",
    detail: Literal["price", "full"] = "price",
    max_hz: float | None = None,
    max_age_ms: int | None = None,
    resume: From | None = None,
    binary: bool = False,
    on_live: Callback | None = None,
    on_none: Callback | None = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    receive_buffer_bytes: int | None = RECEIVE_BUFFER_BYTES,
    open_timeout_s: float = 10.0,
    wait: bool = True,
    clock_us: Callable[[], int] = boot_time_us,
    guard: contextlib.AbstractContextManager[Any] | None = None,
) -> Prices:
    """Subscribe to feeds of the first hub that can be reached, and stay subscribed.

    ``urls`` are addresses of one hub or of several; when one is lost, the next is tried. In mode ``all`` one that was
    lost without a word is tried once more before, since it can replay what was missed. ``feeds`` are names, or
    ``["*"]``. ``mode``, ``detail``, ``max_hz`` and ``max_age_ms`` are those of ``subscribe`` in docs/protocol.md.
    ``on_live`` and ``on_none`` are called on the event loop, at once, when a feed gets or loses its price, for whatever
    reason. ``resume`` is where a program that wrote down what it heard goes on (mode ``all``);
    ``"first"`` begins with the first decision of all where the hub runs for the first time and has it yet. ``binary``
    asks for the compact form, which a hub that does not have it answers with JSON; nothing else differs.
    ``wait=False`` enters at once, also where no hub can be reached yet. ``token`` is for hubs that ask for one; it and
    ``headers`` go with the handshake and are never printed. ``receive_buffer_bytes`` bounds what a program that stood
    still finds of old messages in its socket; None leaves that to the system. ``guard`` is held whenever what the
    client holds is read or changed: a lock, where other threads call ``get``.

    >>> async with connect("ws://127.0.0.1:8080/v1/stream", ["SOL/USD"]) as prices:
    ...     async for update in prices: ...

    Raises:
        ValueError: no feed is named, an address is no websocket's, ``resume`` comes without mode ``all``, or a token
            cannot stand in a header.
    """
    names = (feeds,) if isinstance(feeds, str) else tuple(feeds)
    if not names:
        raise ValueError('feeds is empty: name at least one, or ["*"] for all')
    if resume is not None and mode != "all":
        raise ValueError('resume needs mode "all": in mode "latest" the present state is all there is')
    return Prices(
        Addresses([urls] if isinstance(urls, str) else urls, stays=mode == "all"),
        ClientState(Wanted(feeds=names, mode=mode, detail=detail, max_hz=max_hz, max_age_ms=max_age_ms), resume=resume),
        on_live=on_live,
        on_none=on_none,
        binary=binary,
        options=handshake_options(token, headers, ssl_context),
        receive_buffer_bytes=receive_buffer_bytes,
        open_timeout_s=open_timeout_s,
        wait=wait,
        clock_us=clock_us,
        guard=guard,
    )
