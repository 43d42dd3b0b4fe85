"""Subscribers on sockets. Control frames and reading go through aiohttp; what is sent is framed once and
written straight to the transport.

No subscriber has a task of its own but the one that reads from it, and nothing here ever waits for a socket to take
bytes: a subscriber that does not read costs itself, not others.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

import msgspec
from aiohttp import WSMessage, WSMsgType, web

from oracle_hub.core.hub import Batch
from oracle_hub.server.admission import SUBPROTOCOLS, Admission
from oracle_hub.server.census import Standing, close_label, standing
from oracle_hub.server.client import Client, ask_every_bytes
from oracle_hub.server.door import RequestHandler
from oracle_hub.server.due import BEATS_OF_ONE, SLICE_US, Due, Turns
from oracle_hub.server.frames import close_frame, pong_frame
from oracle_hub.server.service import ServerSettings, Service, until_current
from oracle_hub.server.sockets import tune
from oracle_hub.server.tokens import Token, Tokens, Visitor
from oracle_hub.stream.beats import Sweep
from oracle_hub.stream.board import Board
from oracle_hub.stream.groups import Row
from oracle_hub.stream.messages import (
    SUBPROTOCOL,
    AlertChange,
    AuthRequired,
    CloseCode,
    Config,
    ErrorCode,
    GoAway,
    Hello,
    encode,
)
from oracle_hub.stream.session import SessionLimits

log = logging.getLogger(__name__)

BEATS_AT_A_TIME = 64
"""So many heartbeats go out before anything else gets its turn: ten thousand of them must not stand before a price. All
of them at once but for that, since a processor that has just done one does the next at half the cost."""


class Subscribers:
    """All websocket subscribers of one server."""

    def __init__(self, service: Service, settings: ServerSettings, board: Board, tokens: Tokens) -> None:
        self._service = service
        self._settings = settings
        self._tokens = tokens
        self._board = board
        self._clients: dict[Client, None] = {}
        self._ask_every_bytes = ask_every_bytes(settings.max_unanswered_bytes)
        self._sweeping = False
        """Some heartbeats are due and were not sent yet."""
        self._admission = Admission(settings)
        self._held_back: set[Client] = set()
        """Who is owed something and is asked every few milliseconds whether it can take it."""
        self._due: Due[Client] = Due()
        """Who is owed something and must wait for its time."""
        self._turns: Turns[Client] = Turns()
        """Who may be told now what was held back, and was not yet."""
        self._due_at_us: int | None = None
        """What the timer of :meth:`_flush_due` is set to."""
        self._timers: dict[str, asyncio.Handle] = {}
        self._expiry_us: int | None = None
        """The instant that the timer of :meth:`expire` is set to."""
        self._next_beat_s = 0.0
        self.writes = 0
        """Writes to sockets, usually one frame each."""
        self.bytes_sent = 0
        self.closes: Counter[str] = Counter()
        """Ended websockets by code; see :func:`close_label`."""
        self.send_buffer_limited = True
        """Whether the platform limits what it hides of unsent data, as far as it was asked."""
        self.errors = 0
        """Sessions that failed inside the server: each is a defect of ours."""

    @property
    def count(self) -> int:
        """Connected subscribers."""
        return len(self._clients)

    @property
    def held_back(self) -> int:
        """Subscribers who are owed news that they can't take now, or may not yet. Looks at each of them."""
        return sum(client.session.dirty or client.waiting_bytes > 0 for client in self._clients)

    # Handshake and reading.

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/stream``. Whoever can't be served is refused before the upgrade."""
        admission = self._admission
        refusal = admission.refusal(request)
        if refusal is not None:
            return refusal
        with self._tokens.visit(request) as visitor:
            refusal = admission.refusal_of(visitor)
            if refusal is not None:
                return refusal
            with admission.connected(request):
                return await self._serve(request, visitor)

    async def _serve(self, request: web.Request, visitor: Visitor) -> web.WebSocketResponse:
        settings = self._settings
        ws = web.WebSocketResponse(
            protocols=SUBPROTOCOLS,
            compress=False,
            heartbeat=settings.ping_interval_ms / 1000,
            max_msg_size=settings.max_message_bytes + 1,  # it refuses this size; what is longer is ours to refuse
            timeout=settings.close_grace_ms / 1000,
            autoping=False,
            autoclose=False,  # a close of ours is answered by the peer and by nobody else
        )
        await ws.prepare(request)
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):
            return ws  # gone during the handshake
        self._tune(transport)
        guard = request.protocol.guard if isinstance(request.protocol, RequestHandler) else None
        if guard is not None and visitor.must_authenticate:
            guard.watch(partial(self._refuse_frames, transport))
        if visitor.must_authenticate and not await self._authenticated(ws, visitor, transport):
            return ws
        limits = settings.session if visitor.token is None else visitor.token.session_limits(settings.session)
        client, fault = self._join(transport, limits, visitor.token), None
        self._watch(client, request.protocol)
        if guard is not None:
            guard.watch(partial(self._fault, client))
            guard.allow(limits.request_burst + limits.max_errors, limits.requests_per_second, lambda: client.pings)
        client.session.protocol = ws.ws_protocol or SUBPROTOCOL
        try:
            self._write(client, self._hello(limits, client.session.protocol))
            if self._admission.over:
                self._close_soon(client, CloseCode.SHUTDOWN)
            async for message in ws:
                if message.type is WSMsgType.ERROR:
                    fault = getattr(message.data, "code", None)  # the peer's own close would hide it
                if message.type is WSMsgType.TEXT:
                    await until_current(self._service, lambda: client.closing or transport.is_closing())
                self._attempt(client, partial(self._take, client, message))
                if message.type is not WSMsgType.PONG:
                    await self._drained(client)
        finally:
            self._clients.pop(client, None)
            self._held_back.discard(client)
            self._turns.discard(client)
            if client.due_us is not None:
                self._due.discard(client.due_us, client)
            client.hold()
            client.session.end()
            client.gone.set()
            if client.cut is not None:
                client.cut.cancel()
            self.closes[close_label(client.session.close_code, client.fault or fault or ws.close_code)] += 1
            if client.closing:
                transport.close()
            client.session.peer = None  # nothing of it may wait for the collector: see RequestHandler.connection_lost
            forget_tracebacks(ws.exception())
        return ws

    async def _authenticated(self, ws: web.WebSocketResponse, visitor: Visitor, transport: asyncio.Transport) -> bool:
        """Ask for a token and wait for it; False when the connection was closed for want of one."""
        timeout_ms = self._settings.handshake_timeout_ms
        transport.write(self._board.frame(encode(AuthRequired(timeout_ms=timeout_ms))))
        with self._admission.authenticating():
            code = await visitor.authenticate(ws, timeout_ms / 1000)
        if code is None:
            return True
        self.closes[close_label(code if ws.close_code is None else None, ws.close_code)] += 1
        await ws.close(code=code, message=code.name.lower().encode())
        return False

    def _join(self, transport: asyncio.Transport, limits: SessionLimits, token: Token | None) -> Client:
        now_us = self._service.now_us()
        window_bytes = self._settings.max_unanswered_bytes
        client = Client(transport, self._board, limits, now_us=now_us, token=token, window_bytes=window_bytes)
        self._clients[client] = None
        self._board.beats.admit(client.session)
        return client

    def _watch(self, client: Client, protocol: web.RequestHandler) -> None:
        """Let the client know at once when bytes begin to wait in its transport, or when it is gone."""
        if not isinstance(protocol, RequestHandler):
            client.descriptor = None  # nobody would tell
        elif client.descriptor is not None:
            protocol.subscriber = client
            client.transport.set_write_buffer_limits(high=0)
            client.release()

    def _tune(self, transport: asyncio.Transport) -> None:
        if not tune(transport, self._settings.not_sent_low_water_bytes) and self.send_buffer_limited:
            self.send_buffer_limited = False
            log.warning("this platform does not honour TCP_NOTSENT_LOWAT: who stalls wakes to more old messages")

    async def _drained(self, client: Client) -> None:
        """Take no further request from a client before others had a turn, nor while it leaves the answers unread."""
        await asyncio.sleep(0)
        limit = self._settings.session.max_unsent_bytes
        # The transport tells nobody but aiohttp when it drains, so it is asked.
        while client.transport.get_write_buffer_size() > limit and not client.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(self._settings.flush_interval_ms / 1000)

    def _take(self, client: Client, message: WSMessage) -> bytes:
        now_us, session = self._service.now_us(), client.session
        if client.closing:
            return b""
        if message.type is WSMsgType.TEXT:
            answer = session.receive(message.data, now_us, self._service.now_us())
            if session.subscriptions:
                client.idle_since_us = None
            self._arm_expiry()
            return answer
        if message.type is WSMsgType.PONG:
            client.answered(message.data)
            return b""
        if message.type is WSMsgType.PING:
            return session.spare(now_us) or pong_frame(message.data)
        if message.type is WSMsgType.BINARY:
            return session.refuse(ErrorCode.BINARY_MESSAGE, f"{session.protocol} takes text messages only")
        return b""  # an error in the framing: aiohttp has closed with its code

    def _hello(self, limits: SessionLimits, protocol: str) -> bytes:
        service = self._service
        hello = Hello(
            protocol=protocol,
            instance=service.instance,
            epoch=self._board.epoch,
            seq=self._board.seq,
            server_time_us=service.now_us(),
            heartbeat_ms=self._settings.heartbeat_ms,
            feeds=list(self._board.decisions),
            policy=service.policy,
            config_hash=service.config_hash,
            simulated=service.simulated,
            limits={**service.limits, **self._settings.published(), **limits.published()},
            worker=msgspec.UNSET if self._settings.worker is None else self._settings.worker,
            first_epoch=msgspec.UNSET if service.first_epoch is None else service.first_epoch,
        )
        return self._board.frame(encode(hello))

    # Writing.

    def _write(self, client: Client, data: bytes) -> None:
        if data and not client.closing and not client.transport.is_closing():
            client.write(data)
            self.writes += 1
            self.bytes_sent += len(data)

    def _attempt(self, client: Client, produce: Callable[[], bytes]) -> None:
        """Write what ``produce`` gives. Whatever goes wrong in one session ends that session only."""
        try:
            self._write(client, produce())
        except Exception:
            self._failed(client)
        self._look_after(client)

    def _failed(self, client: Client) -> None:
        self.errors += 1
        log.exception("a subscriber's session failed and is closed")
        client.session.close_code = CloseCode.INTERNAL_ERROR

    def _look_after(self, client: Client) -> None:
        """Do what the session asks for beside writing."""
        session = client.session
        if session.close_code is not None:
            self._close_soon(client, session.close_code)
        elif client.overfull:
            self._close_soon(client, CloseCode.TOO_SLOW)
        elif session.dirty or client.waiting_bytes:
            self._hold_back(client)

    def _hold_back(self, client: Client) -> None:
        due_us = 0 if client.waiting_bytes else client.session.due_us
        if due_us <= self._service.now_us():
            self._held_back.add(client)
            self._arm_flush()
        elif client.due_us != due_us:
            client.due_us = due_us
            self._due.add(due_us, client)
            self._arm_due()

    def _arm_flush(self) -> None:
        if self._held_back and not self._turns:  # else when those were asked who can be asked now
            self._arm("flush", self._settings.flush_interval_ms / 1000, self.flush)

    def _arm_due(self) -> None:
        self._due_at_us = self._arm_at("due", self._due.next_us, self._due_at_us, self._flush_due)

    def _flush_due(self) -> None:
        due = self._due.pop(self._service.now_us())
        for client in due:
            client.due_us = None
        self._arm_due()
        self._flush_in_turn([client for client in due if client.session.dirty])

    def publish(self, batch: Batch, journaled: bool = True) -> None:
        """Make a batch what everybody sees, and send it to whoever follows one of its feeds."""
        self._turns.as_of_us = None
        publication = self._board.apply(batch, self._service.now_us(), journaled=journaled)
        late: list[Client] = []
        for group, number, row in publication.in_step:
            self._write_row(publication.step_frame(group, number), row, publication.turn, late)
        late += [session.peer for session in publication.apart]
        for client in late:
            self._attempt(client, partial(client.session.publish, publication, client.unsent_bytes()))
        self._arm_expiry()

    def _write_row(self, frame: bytes, row: Row, turn: int, late: list[Client]) -> None:
        """One write for each. Who has not taken what came before goes to ``late``.

        Where nothing is waiting, the frame is given to the kernel without asking the transport, which would do the
        same at a fifth more. Now and then a ping goes with it, in the same write: by itself it would cost as much.
        """
        size = len(frame)
        order = row.order(turn)
        frames = [frame] * len(order.handles)
        if row.wrote(size, self._ask_every_bytes):
            frames = [frame + session.peer.question() for session in order.reached()]
        self._write_sweep(Sweep(order.handles, frames, order.reached))
        for session in order.unreached:
            client: Client = session.peer
            client.left_out(size)
            if client.unsent_bytes() > self._settings.session.conflate_above_bytes:
                late.append(client)
            else:
                self._attempt(client, lambda: frame)

    def _write_sweep(self, sweep: Sweep) -> None:
        """The hot path: to each handle its frame. Whatever the kernel does not take, and any error, is the transport's.

        ``map`` and not ``for``: a loop of ours would cost half a write each."""
        sizes, taken = list(map(len, sweep.frames)), list[int]()
        writes = map(os.write, sweep.handles, sweep.frames)
        while len(taken) < len(sizes):
            try:
                taken.extend(writes)
            except OSError:  # what was written before is in the list
                taken.append(0)
        self.writes += len(sizes)
        self.bytes_sent += sum(sizes)
        if taken == sizes:
            return
        for session, frame, size in zip(sweep.sessions(), sweep.frames, taken, strict=True):
            if size < len(frame):
                client: Client = session.peer
                try:
                    client.transport.write(frame[size:])
                except Exception:
                    self._failed(client)
                    self._look_after(client)

    def alert(self, change: AlertChange) -> None:
        """Make a change of an alert what everybody sees, and send it to whoever follows alerts."""
        board, now_us = self._board.alerts, self._service.now_us()
        board.take(change)
        for session in tuple(board.sessions):
            client: Client = session.peer
            self._attempt(client, partial(session.alert, change, now_us, client.unsent_bytes()))

    def flush(self) -> None:
        """Send what was held back, to those who can take it by now: to some at once, to others in their turn."""
        waiting, self._held_back = self._held_back, set()
        self._flush_in_turn(waiting)

    def _flush_in_turn(self, clients: Collection[Client]) -> None:
        self._turns.add(clients)
        self._turns.as_of_us = self._service.now_us()
        self._flush_some()

    def _flush_some(self) -> None:
        until_us = self._service.now_us() + SLICE_US
        now_us = self._turns.as_of_us = self._turns.as_of_us or self._service.now_us()
        while (client := self._turns.next()) is not None:
            if client.waiting_bytes:  # under encryption nobody tells when the transport is empty
                client.release()
            self._attempt(client, partial(client.session.flush, now_us, client.unsent_bytes()))
            if self._turns and self._service.now_us() >= until_us:
                return self._arm("turns", 0, self._flush_some)
        self._arm_flush()

    def heartbeat(self) -> None:
        """One heartbeat for every subscription, now."""
        self._board.beats.begin()
        while self._heartbeats(BEATS_AT_A_TIME):
            pass

    def _heartbeats(self, n: int) -> bool:
        """Some of those that are due; False when there are no more."""
        now_us = self._service.now_us()
        if not self._service.current(now_us):
            return False
        sweep = self._board.beats.take(n, now_us)
        if sweep is not None:
            self._write_sweep(sweep)
            return True
        while (session := self._board.beats.next_apart()) is not None:
            if session.peer is not None:  # None: it has ended since
                self._heartbeat(session.peer, now_us)
            if self._service.now_us() >= now_us + SLICE_US:
                return True
        return False

    def _heartbeat(self, client: Client, now_us: int) -> None:
        if client.gone.is_set():
            return
        self._attempt(client, partial(client.session.heartbeat, now_us, client.unsent_bytes(), BEATS_OF_ONE))
        if client.session.subscriptions:
            client.idle_since_us = None
        elif client.idle_since_us is None:
            client.idle_since_us = now_us
        elif now_us - client.idle_since_us > self._settings.subscribe_timeout_ms * 1000:
            self._close_soon(client, CloseCode.NO_SUBSCRIPTION)

    def expire(self) -> None:
        """Tell subscriptions with a max age of their own which prices are too old for them now."""
        self._turns.as_of_us, now_us = None, self._service.now_us()
        ended = self._board.pop_ended(now_us)
        for session in dict.fromkeys(session for group in ended for session in group.sessions()):
            client: Client = session.peer
            self._attempt(client, partial(session.expire, ended, now_us, client.unsent_bytes()))
        self._arm_expiry()

    def config_changed(self) -> None:
        """Tell everybody about a reload."""
        service = self._service
        message = Config(
            epoch=self._board.epoch,
            seq=self._board.seq,
            policy=service.policy,
            config_hash=service.config_hash,
            feeds=list(self._board.decisions),
            simulated=service.simulated,
        )
        frame = self._board.frame(encode(message))
        for client in tuple(self._clients):
            self._write(client, frame)

    def tokens_changed(self) -> None:
        """Close those who could not come in any more."""
        for client in tuple(self._clients):
            if not self._tokens.still_welcome(client.token):
                client.session.close_code = CloseCode.UNAUTHORIZED
                self._look_after(client)

    def standing(self) -> Standing:
        """Subscribers and their unsent bytes, by kind."""
        return standing((client.session.kind, client.unsent_bytes()) for client in self._clients)

    # Timers.

    def start(self) -> None:
        """Start the heartbeat."""
        self._next_beat_s = asyncio.get_running_loop().time()
        self._schedule_beat()

    def _schedule_beat(self) -> None:
        loop = asyncio.get_running_loop()
        interval_s = self._settings.heartbeat_ms / 1000
        self._next_beat_s = max(self._next_beat_s + interval_s, loop.time())
        self._timers["beat"] = loop.call_at(self._next_beat_s, self._beat)

    def _beat(self) -> None:
        self._schedule_beat()
        if not self._sweeping:  # else the machine cannot keep up
            self._sweeping = True
            self._board.beats.begin()
            self._go_on()

    def _go_on(self) -> None:
        """Some heartbeats, and the rest when the loop has looked around."""
        self._sweeping = False  # whatever happens now, the next beat begins
        self._sweeping = self._heartbeats(BEATS_AT_A_TIME)
        if self._sweeping:
            self._timers["sweep"] = asyncio.get_running_loop().call_soon(self._go_on)

    def _arm(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        if name not in self._timers and not self._admission.over:
            self._timers[name] = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._fire, name, call)

    def _fire(self, name: str, call: Callable[[], None]) -> None:
        del self._timers[name]
        call()

    def _arm_expiry(self) -> None:
        self._expiry_us = self._arm_at("expire", self._board.next_end_us(), self._expiry_us, self.expire)

    def _arm_at(self, name: str, at_us: int | None, armed_us: int | None, call: Callable[[], None]) -> int | None:
        """Let a timer call at a time of our clock, unless it is set to that time already; None: not at all."""
        if at_us != armed_us or (at_us is not None and name not in self._timers):
            held = self._timers.pop(name, None)
            if held is not None:
                held.cancel()
            if at_us is not None:
                self._arm(name, (at_us - self._service.now_us()) / 1e6, call)
        return at_us

    # Closing.

    def _close_soon(self, client: Client, code: CloseCode) -> None:
        if client.closing:
            return
        too_slow = code is CloseCode.TOO_SLOW
        client.close(close_frame(code, code.name.lower()), drop=too_slow)
        client.session.close_code = code
        client.session.end()
        settings = self._settings
        grace_ms = settings.slow_close_grace_ms if too_slow else settings.close_grace_ms
        client.cut = self._abort_later(client.transport, grace_ms)

    def _fault(self, client: Client, code: int) -> None:
        """It sent frames that no client may send. What it sends from now on is read and let go."""
        if not client.closing:
            client.fault = code
            client.close(close_frame(code, ""), drop=True)
            client.session.end()
            client.cut = self._abort_later(client.transport, self._settings.close_grace_ms)

    def _refuse_frames(self, transport: asyncio.Transport, code: int) -> None:
        """The same before it was let in."""
        transport.write(close_frame(code, ""))
        self._abort_later(transport, self._settings.close_grace_ms)

    def _abort_later(self, transport: asyncio.Transport, grace_ms: int) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(grace_ms / 1000, transport.abort)

    async def stop(self, reason: str) -> None:
        """Say goodbye to everybody and close, within the grace."""
        self._admission.over = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        goaway = GoAway(reason=reason, retry_after_ms=self._settings.retry_after_ms)
        frame = self._board.frame(encode(goaway))
        clients = tuple(self._clients)
        for client in clients:
            self._write(client, frame)
            self._close_soon(client, CloseCode.SHUTDOWN)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.close_grace_ms / 1000):
                for client in clients:
                    await client.gone.wait()
        for client in clients:
            if not client.gone.is_set():
                client.transport.abort()


def forget_tracebacks(error: BaseException | None) -> None:
    """Let go of the frames that an error came through, and their variables."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
