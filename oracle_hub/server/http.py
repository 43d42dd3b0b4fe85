"""HTTP and websocket on one port: the server that the program starts.

Every view is made of what has been published. A price whose lease is over is never shown, even if the next decision
is late.
"""

import asyncio
import logging
import ssl
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from oracle_hub.core.hub import Batch, Decision
from oracle_hub.hosts import host_allowed
from oracle_hub.server import tls
from oracle_hub.server.answers import RequestError, bytes_answer, counted, error_answer, guard, json_answer
from oracle_hub.server.census import Standing
from oracle_hub.server.door import Door
from oracle_hub.server.frames import binary_frame, text_frame
from oracle_hub.server.service import ServerSettings, Service, SignedQuery
from oracle_hub.server.tokens import Tokens
from oracle_hub.server.websocket import Subscribers
from oracle_hub.stream.alerts import envelope
from oracle_hub.stream.board import Board
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import AlertChange, encode, feed_entry, view

__all__ = ["Server", "ServerSettings", "Service"]

log = logging.getLogger(__name__)


class Server:
    """Carries batches to subscribers.

    >>> server = Server(service, settings)
    >>> server.load(past)                      # optional: what was published before, for resumes
    >>> host, port = await server.start()      # when service.decisions has an entry for every feed
    >>> server.publish(batch)                  # right after each batch was journaled, in order
    >>> server.config_changed()                # after the first batch of another configuration
    >>> await server.stop("shutdown")
    """

    def __init__(self, service: Service, settings: ServerSettings | None = None) -> None:
        self._service = service
        self._settings = settings or ServerSettings()
        self._board: Board | None = None
        self._subscribers: Subscribers | None = None
        self._runner: web.AppRunner | None = None
        self._door = Door(
            timeout_s=self._settings.handshake_timeout_ms / 1000,
            max_waiting=self._settings.max_handshakes,
            max_message_bytes=self._settings.max_message_bytes,
        )
        self._failures = 0
        self._early: deque[tuple[Batch, bool]] = deque(maxlen=self._settings.history_batches)
        """What was published before there was anybody to tell: a resume may begin before it."""
        self._early_alerts: list[AlertChange] = []
        """What was open before there was anybody to tell."""
        self._tls: ssl.SSLContext | None = None
        self._tokens = Tokens(self._settings.tokens, required=self._settings.require_token)
        self._refusals: Counter[str] = Counter()

    # Counts for metrics.

    @property
    def clients(self) -> int:
        """Connected subscribers."""
        return self._subscribers.count if self._subscribers else 0

    @property
    def frames_sent(self) -> int:
        """Writes to sockets, usually one frame each."""
        return self._subscribers.writes if self._subscribers else 0

    @property
    def bytes_sent(self) -> int:
        return self._subscribers.bytes_sent if self._subscribers else 0

    @property
    def refused(self) -> int:
        """Handshakes and requests refused for who asks."""
        return self._refusals.total()

    @property
    def refusals(self) -> Mapping[str, int]:
        """The same by code, as in the answer."""
        return self._refusals

    @property
    def closes(self) -> Mapping[str, int]:
        """Ended websockets by the code that ended them; ``peer`` where the client left."""
        return self._subscribers.closes if self._subscribers else {}

    @property
    def bearers(self) -> Mapping[str, int]:
        """Connected subscribers by the name of their token."""
        return {name: self._tokens.bearers[name] for name in self._tokens.names}

    @property
    def conflated(self) -> int:
        """Feed entries that were sent merged."""
        return self._board.conflated if self._board else 0

    @property
    def held_back(self) -> int:
        """Subscribers who are owed news: their socket does not take it, or it is not yet time for it."""
        return self._subscribers.held_back if self._subscribers else 0

    @property
    def history(self) -> History | None:
        """What subscribers who come back can resume from; None before :meth:`load`."""
        return self._board.history if self._board else None

    @property
    def send_buffer_limited(self) -> bool:
        """Whether the platform limits what it hides of unsent data, as far as it was asked."""
        return self._subscribers is None or self._subscribers.send_buffer_limited

    def standing(self) -> Standing:
        """Subscribers, and bytes that their sockets have not taken, by kind. Looks at each of them."""
        return self._subscribers.standing() if self._subscribers else {}

    @property
    def cut_off(self) -> int:
        """Connections cut because their first request did not come in time."""
        return self._door.cut_off

    @property
    def errors(self) -> int:
        """Requests and sessions that failed inside the server: each is a defect of ours."""
        return self._failures + (self._subscribers.errors if self._subscribers else 0)

    # Life.

    def load(self, past: Sequence[tuple[Batch, bool]] = ()) -> Subscribers:
        """Begin with what was published before, oldest first, up to ``service.seq``: (batch, journaled).

        From here on :meth:`publish` counts, though nobody can connect before :meth:`start`.
        """
        service, settings = self._service, self._settings
        past = past or tuple(self._early)
        history = History(
            service.epoch,
            past[0][0].seq - 1 if past else service.seq,
            max_batches=settings.history_batches,
            max_bytes=settings.history_bytes,
            max_age_us=settings.history_age_ms * 1_000,
        )
        self._board = Board(
            service.decisions, history, text_frame, binary_frame=binary_frame, instance=service.instance
        )
        for batch, journaled in past:  # they lead to the decisions in force, from which the board began
            self._board.apply(batch, batch.now_us, journaled=journaled)
        self._board.reorder(service.decisions)
        for change in self._early_alerts:
            self._board.alerts.take(change)
        self._early.clear()
        self._early_alerts.clear()
        self._subscribers = Subscribers(service, settings, self._board, self._tokens)
        return self._subscribers

    async def start(self) -> tuple[str, int]:
        """Listen. Returns the address that was bound.

        Raises:
            OSError: the port is taken.
            ConfigError: certificate or key cannot be used.
        """
        settings = self._settings
        if settings.tls_certificate is not None and settings.tls_key is not None:
            self._tls = tls.server_context(settings.tls_certificate, settings.tls_key)
        subscribers = self._subscribers or self.load()
        self._runner = web.AppRunner(
            self._application(subscribers), access_log=None, handle_signals=False, shutdown_timeout=0.2
        )
        await self._runner.setup()
        assert self._runner.server is not None
        host, port = await self._door.listen(
            self._runner.server,
            settings.host,
            settings.port,
            max_connections=settings.max_clients,
            reuse_port=settings.reuse_port,
            tls=self._tls,
        )
        subscribers.start()
        return host, port

    def _application(self, subscribers: Subscribers) -> web.Application:
        middlewares = [
            self._door.middleware(),
            counted(self._refusals),
            guard(self._settings.allowed_origins, self._failed, self._answers_to),
            self._tokens.middleware(),
        ]
        app = web.Application(middlewares=middlewares)  # type: ignore[arg-type]  # told as Callable[..., …]
        app.router.add_get("/v1/stream", subscribers.handle, allow_head=False)
        app.router.add_get("/v1/prices", self._prices)
        app.router.add_get("/v1/prices/{feed:.+}", self._price)
        app.router.add_get("/v1/explain/{feed:.+}", self._explain)
        app.router.add_get("/v1/signed/{feed:.+}", self._signed)
        app.router.add_get("/v1/parity", self._parity)
        app.router.add_get("/v1/alerts", self._alerts)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def stop(self, reason: str) -> None:
        """Stop listening, send ``goaway`` to everybody, and close; within a second."""
        await self._door.stop_listening()  # first: who is sent away comes back at once
        if self._subscribers is not None:
            await self._subscribers.stop(reason)
        self._door.close()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            try:
                async with asyncio.timeout(0.4):
                    await runner.cleanup()
            except TimeoutError:
                log.warning("some connections did not end in time and were left to the system")

    def publish(self, batch: Batch, *, journaled: bool = True) -> None:
        """Send a batch. To be called right after it was journaled, in order; never waits, never raises.

        ``journaled=False``: it could not be written; subscribers are told so.
        """
        if self._subscribers is None:
            self._early.append((batch, journaled))
        else:
            self._subscribers.publish(batch, journaled)

    def alert(self, change: AlertChange) -> None:
        """Tell of an alert that begins, gets worse or ends. Never waits, never raises."""
        if self._subscribers is None:
            self._early_alerts.append(change)
        else:
            self._subscribers.alert(change)

    def heartbeat(self) -> None:
        """Send heartbeats now, beside those of the timer."""
        if self._subscribers is not None:
            self._subscribers.heartbeat()

    def config_changed(self, *, forget_past: bool = False) -> None:
        """Tell subscribers that the configuration was reloaded, after its first batch was published.

        ``forget_past``: nobody may resume from before it.
        """
        if self._board is not None and self._subscribers is not None:
            if forget_past:
                self._board.history.forget()
            self._board.reorder(self._service.decisions)
            self._subscribers.config_changed()

    def renew(self, settings: ServerSettings) -> None:
        """Take over tokens from these settings, and read the files of the certificate again.

        Connections whose token is known no longer are closed; others go on with the limits that they have. The rest of
        the settings is read at start only.

        Raises:
            ConfigError: certificate or key cannot be used. Then nothing was changed.
        """
        certificate, key = self._settings.tls_certificate, self._settings.tls_key
        if self._tls is not None and certificate is not None and key is not None:
            tls.server_context(certificate, key)  # the one in use is touched only when these are good
            tls.load(self._tls, certificate, key)
        self._tokens.change(settings.tokens, required=settings.require_token)
        if self._subscribers is not None:
            self._subscribers.tokens_changed()

    def _answers_to(self, host: str | None) -> bool:
        return host_allowed(host, self._settings.host, self._settings.allowed_hosts)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        log.error("a request failed", exc_info=error)

    # Views.

    def _published(self) -> Board:
        if self._board is None:
            raise RuntimeError("the server was not started")
        return self._board

    def _envelope(self, now_us: int) -> dict[str, Any]:
        service, board = self._service, self._published()
        return {
            "instance": service.instance,
            "epoch": board.epoch,
            "seq": board.seq,
            "server_time_us": now_us,
            "simulated": service.simulated,
            "policy": service.policy,
            "config_hash": service.config_hash,
        }

    async def _prices(self, request: web.Request) -> web.Response:
        full = _wants_full(request)
        if full is None:
            return _bad_detail()
        now_us = self._service.now_us()
        feeds = self._published().entries(now_us, full=full)
        return bytes_answer(encode({**self._envelope(now_us), "feeds": feeds}))

    async def _price(self, request: web.Request) -> web.Response:
        full = _wants_full(request)
        if full is None:
            return _bad_detail()
        decision = self._find(request.match_info["feed"])
        if decision is None:
            return self._unknown_feed(request)
        now_us = self._service.now_us()
        entry = msgspec.to_builtins(feed_entry(decision, view(decision, now_us), full=full))
        return json_answer({**self._envelope(now_us), **entry})

    async def _explain(self, request: web.Request) -> web.Response:
        decision = self._find(request.match_info["feed"])
        explained = None if decision is None else await self._service.explain(decision.feed)
        if explained is None:
            return self._unknown_feed(request)
        return bytes_answer(encode(explained))

    async def _signed(self, request: web.Request) -> web.Response:
        decision = self._find(request.match_info["feed"])
        if decision is None:
            return self._unknown_feed(request)
        publish_time_us, price = (_whole(request.query.get(key, "")) for key in ("publish_time_us", "price"))
        source = request.query.get("source", "")
        if publish_time_us is None or price is None or not source:
            message = "source, publish_time_us and price (a mantissa) of a chosen price are needed"
            return error_answer(400, RequestError.BAD_QUERY, message)
        asked = SignedQuery(feed=decision.feed, source=source[:64], publish_time_us=publish_time_us, price=price)
        return bytes_answer(encode(await self._service.signed(asked)))

    async def _parity(self, request: web.Request) -> web.Response:
        return bytes_answer(encode(await self._service.parity()))

    async def _alerts(self, request: web.Request) -> web.Response:
        return bytes_answer(encode({**self._envelope(self._service.now_us()), **envelope(self._published().alerts)}))

    def _find(self, name: str) -> Decision | None:
        """A feed by its name, where ``-`` may stand for ``/``."""
        decisions = self._published().decisions
        return decisions.get(name) or decisions.get(name.replace("-", "/"))

    def _unknown_feed(self, request: web.Request) -> web.Response:
        name = request.match_info["feed"][:64]
        return error_answer(404, RequestError.UNKNOWN_FEED, f"no feed {name!r}; GET /v1/prices lists all")

    async def _livez(self, request: web.Request) -> web.Response:
        return json_answer({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        ready, evidence = await self._service.ready()
        return bytes_answer(encode(evidence), 200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=await self._service.metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-store"},
        )


def _whole(text: str) -> int | None:
    """A positive decimal integer of 63 bits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _wants_full(request: web.Request) -> bool | None:
    """Whether ``?detail=full`` is asked; None for a value that is neither full nor price."""
    return {"price": False, "full": True}.get(request.query.get("detail", "price"))


def _bad_detail() -> web.Response:
    return error_answer(400, RequestError.BAD_QUERY, "detail is price or full")
