"""Several processes that serve subscribers on one port, fed by the hub: the hub's side.

The hub decides and journals; a worker (``app/worker.py``) holds connections. All of them listen on the same port
(``SO_REUSEPORT``), so the kernel deals connections out, and each is told the same batches in the same order, so
``(epoch, seq)`` means the same on each. The hub never waits for a worker: what one leaves unread is bounded, and one
that is over the bound, or silent, is killed and started again; its subscribers reconnect and resume elsewhere.
"""

import asyncio
import logging
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TypeAlias

import msgspec

from oracle_hub.app.worker_feed import WorkerFeed
from oracle_hub.clock import AnchoredClock
from oracle_hub.core.hub import Batch
from oracle_hub.errors import ConfigError
from oracle_hub.ingest.backoff import Backoff
from oracle_hub.metrics import SPECS, Sample
from oracle_hub.server.feed_pipe import (
    Alerted,
    Answer,
    Ask,
    Changed,
    Facts,
    Live,
    Published,
    Recent,
    Renew,
    Start,
    Stop,
    Tick,
    facts_of,
    pack,
)
from oracle_hub.server.service import ServerSettings, Service
from oracle_hub.stream.messages import AlertChange, encode

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "oracle_hub.app.worker")
TICK_S = 0.5
SILENCE_S = 3.0
"""A worker that has not answered a tick for so long is stuck."""
START_S = 20.0
"""A worker that does not listen by then is stuck too."""
HEALTHY_S = 10.0
"""After so long, a worker that ends is started again without delay."""
STOP_S = 0.8
"""How long workers may take to say goodbye before they are killed."""

Totals: TypeAlias = dict[tuple[str, tuple[str, ...]], float]


class Workers:
    """Implements :class:`oracle_hub.app.publisher.Publisher` with several processes.

    Args:
        service: the program, whose answers workers pass on.
        settings: of all of them together.
        clock: the hub's clock as it is now.
        failed: is called with a task of ours that ended by an exception.
        command: what a worker's process runs; its standard input is the pipe.
    """

    def __init__(
        self,
        service: Service,
        settings: ServerSettings,
        n_workers: int,
        clock: Callable[[], AnchoredClock],
        *,
        failed: Callable[[asyncio.Task[None]], None],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.recent = Recent(
            service.seq,
            max_batches=settings.history_batches,
            max_bytes=settings.history_bytes,
            max_age_us=settings.history_age_ms * 1_000,
        )
        self._service = service
        self._settings = settings
        self._numbers = range(1, n_workers + 1)
        self._clock = clock
        self._failed = failed
        self._command = command
        self._feeds: dict[int, WorkerFeed] = {}
        """By number, the present life of each worker that has one."""
        self._retired: Totals = {}
        """What workers that are gone have counted."""
        self._restarts: Counter[int] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._port: socket.socket | None = None
        self._facts: Facts | None = None
        self._offset_us: int | None = None
        self._stopping = False
        self._open_alerts: dict[str, AlertChange] = {}
        """By id, as they were told last."""

    # Life.

    async def start(self) -> tuple[str, int]:
        """Start all workers, and wait until they listen.

        Raises:
            OSError: the port is taken.
            ConfigError: a worker did not come up; its own words are in the log.
        """
        self._port = reserve(self._settings.host, self._settings.port)
        host, port = self._port.getsockname()[:2]
        self._settings = msgspec.structs.replace(self._settings, port=port)
        try:
            await asyncio.gather(*(self._begin(number) for number in self._numbers))
            await self._all_listening()
        except BaseException:
            await self._kill_all()
            raise
        for number in self._feeds:
            self._spawn(f"worker {number}", self._keep(number))
        self._spawn("workers", self._tick())
        return host, port

    async def _all_listening(self) -> None:
        """Wait until all workers that were just begun listen."""
        for feed in self._feeds.values():
            up = asyncio.create_task(feed.listening.wait())
            gone = asyncio.create_task(feed.process.wait())
            await asyncio.wait((up, gone), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not up.done():
                up.cancel()
                how = f"ended ({_end_of(feed)})" if not feed.running else f"did not listen within {START_S:g} s"
                raise ConfigError(f"server.workers: worker {feed.number} {how}; the log has its reason")

    def _spawn(self, name: str, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._failed)
        self._tasks.append(task)

    async def _begin(self, number: int) -> None:
        """Start a worker's process and its feed."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,  # nobody who reads our output waits for a worker
                start_new_session=True,  # Ctrl-C is for the hub
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        loop, n_start = asyncio.get_running_loop(), self._restarts[number] + 1
        _, feed = await loop.create_unix_connection(lambda: WorkerFeed(number, process, self, n_start), sock=ours)
        self._feeds[number] = feed
        level = logging.getLogger().getEffectiveLevel()
        feed.begin(pack(Start(worker=number, log_level=level, offset_us=self._clock().offset_us)))

    async def _keep(self, number: int) -> None:
        """Start a worker again whenever it ends."""
        backoff = Backoff(random.Random(), first_s=0.1, max_s=5.0)
        while True:
            feed = self._feeds[number]
            await feed.process.wait()
            feed.close()
            self._retire(feed)
            if self._stopping:
                return
            if asyncio.get_running_loop().time() - feed.began_s > HEALTHY_S:
                backoff.reset()
            delay_s = backoff.next_s()
            log.error("worker %d ended (%s); starting it again in %.2f s", number, _end_of(feed), delay_s)
            self._restarts[number] += 1
            await asyncio.sleep(delay_s)
            try:
                await self._begin(number)
            except OSError as error:  # no process or descriptor to be had: later, maybe
                log.error("worker %d cannot be started (%s)", number, error)

    def _retire(self, feed: WorkerFeed) -> None:
        """Keep what it counted: a counter must not fall when a worker ends."""
        for name, labels, value in feed.samples:
            if name in _COUNTERS:
                self._retired[name, labels] = self._retired.get((name, labels), 0) + value
        feed.samples = ()

    async def _tick(self) -> None:
        """Tell workers that the hub lives, and find those that do not."""
        loop = asyncio.get_running_loop()
        last_s = loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = loop.time()
            stopped = now_s - last_s > 2 * TICK_S
            last_s = now_s
            for feed in tuple(self._feeds.values()):
                if stopped:  # we were, not they: what they said meanwhile is not read yet
                    feed.heard_s = feed.began_s = now_s
                elif feed.listening.is_set() and now_s - feed.heard_s > SILENCE_S:
                    feed.kill(f"has been silent for {SILENCE_S:g} s")
                elif not feed.listening.is_set() and now_s - feed.began_s > START_S:
                    feed.kill(f"does not listen after {START_S:g} s")
            facts = facts_of(self._service)
            if facts != self._facts:
                self._tell_facts(facts, reloaded=False)
            self._send(self._tick_message())

    async def stop(self, reason: str) -> None:
        """Have all workers say goodbye; those that take too long are killed."""
        self._stopping = True
        farewell = pack(Stop(reason))
        for feed in self._feeds.values():
            feed.may_end = True
            feed.send(farewell)
        try:
            ends = [asyncio.ensure_future(feed.process.wait()) for feed in self._feeds.values() if feed.running]
            if ends:
                await asyncio.wait(ends, timeout=STOP_S)
        finally:
            await self._kill_all()

    async def _kill_all(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for feed in self._feeds.values():
            if feed.running:
                feed.kill("has not ended yet")
            feed.close()
        if self._port is not None:
            self._port.close()
        await asyncio.gather(
            *(feed.process.wait() for feed in self._feeds.values()), *self._tasks, return_exceptions=True
        )

    # What the program says.

    def publish(self, batch: Batch, *, journaled: bool = True) -> None:
        """Encode a batch once and give it to every worker."""
        frame = pack(Published(batch, journaled))
        self.recent.append(batch, frame)
        self._send(frame)

    def alert(self, change: AlertChange) -> None:
        """Tell every worker of a change of an alert; a later one is told of what is open."""
        if change.change == "resolved":
            self._open_alerts.pop(change.alert.id, None)
        else:
            self._open_alerts[change.alert.id] = change
        self._send(pack(Alerted(change)))

    def config_changed(self, *, forget_past: bool = False) -> None:
        """Tell of a reload. ``forget_past``: nothing from before it may be told again."""
        if forget_past:
            self.recent.forget()
        self._tell_facts(facts_of(self._service), reloaded=True, forget_past=forget_past)

    def renew(self, settings: ServerSettings) -> None:
        """Take over tokens; workers read the certificate again, which whoever made ``settings`` has tried."""
        self._settings = msgspec.structs.replace(
            self._settings, tokens=settings.tokens, require_token=settings.require_token
        )
        for feed in self._feeds.values():
            if feed.live:
                feed.send(pack(Renew(self._share(feed.number))))

    def _share(self, number: int) -> ServerSettings:
        """The settings of one worker: limits on connections are dealt out, rounded up."""
        settings, n_workers = self._settings, len(self._numbers)
        return msgspec.structs.replace(
            settings,
            worker=number,
            reuse_port=True,
            max_clients=-(-settings.max_clients // n_workers),
            max_clients_per_ip=-(-settings.max_clients_per_ip // n_workers),
            tokens=tuple(
                msgspec.structs.replace(token, max_connections=-(-token.max_connections // n_workers))
                for token in settings.tokens
            ),
        )

    def _tell_facts(self, facts: Facts, *, reloaded: bool, forget_past: bool = False) -> None:
        self._facts = facts
        self._send(pack(Changed(facts, reloaded, forget_past)))

    def _tick_message(self) -> bytes:
        clock = self._clock()
        return pack(Tick(clock.offset_us, clock.now_us()))

    def _send(self, message: bytes) -> None:
        offset_us = self._clock().offset_us
        if offset_us != self._offset_us:  # the clock was set anew: its readings come after it
            self._offset_us = offset_us
            message = self._tick_message() + message
        for feed in self._feeds.values():
            if feed.live:
                feed.send(message)

    # What a worker asks (:class:`oracle_hub.app.worker_feed.Origin`).

    def how_things_stand(self, number: int) -> bytes:
        service = self._service
        live = Live(self._share(number), facts_of(service), service.seq, tuple(service.decisions.values()))
        alerts = b"".join(pack(Alerted(change)) for change in self._open_alerts.values())
        return self._tick_message() + pack(live) + alerts

    async def answer(self, question: Ask) -> Answer:
        service, number = self._service, question.number
        try:
            match question.what:
                case "explain":
                    explained = await service.explain(question.feed)
                    return Answer(number, True, body=None if explained is None else encode(explained))
                case "signed":
                    assert question.signed is not None
                    return Answer(number, True, body=encode(await service.signed(question.signed)))
                case "parity":
                    return Answer(number, True, body=encode(await service.parity()))
                case "ready":
                    ready, evidence = await service.ready()
                    return Answer(number, True, ready, encode(evidence))
                case "metrics":
                    return Answer(number, True, body=await service.metrics())
        except Exception:
            log.exception("a worker's question could not be answered")
            return Answer(number, False)

    # What others see.

    def evidence(self) -> dict[str, object]:
        return {"workers": [self._one(number) for number in self._numbers]}

    def _one(self, number: int) -> dict[str, object]:
        feed = self._feeds.get(number)
        return {
            "worker": number,
            "pid": feed.process.pid if feed is not None and feed.running else None,
            "serving": feed is not None and feed.serving,
            "clients": int(_clients(feed)),
            "restarts": self._restarts[number],
            "unread_bytes": 0 if feed is None else feed.unread_bytes,
        }

    def samples(self) -> Iterator[Sample]:
        """The workers' own counts put together, and what tells of each of them."""
        totals = dict(self._retired)
        for feed in self._feeds.values():
            for name, labels, value in feed.samples:
                held = totals.get((name, labels), 0)
                totals[name, labels] = max(held, value) if name in _GREATEST else held + value
        for (name, labels), total in totals.items():
            yield name, labels, total
        for number in self._numbers:
            life, label = self._feeds.get(number), (str(number),)
            yield "oraclehub_worker_up", label, life is not None and life.serving
            yield "oraclehub_worker_clients", label, _clients(life)
            yield "oraclehub_worker_restarts", label, self._restarts[number]
            yield "oraclehub_worker_unread_bytes", label, 0 if life is None else life.unread_bytes


_GREATEST = frozenset(
    (
        *("oraclehub_most_unsent_bytes", "oraclehub_send_buffer_unlimited"),
        *("oraclehub_history_batches", "oraclehub_history_bytes"),
    )
)
"""Gauges of which the greatest is told, not the sum."""
_COUNTERS = frozenset(spec.name for spec in SPECS if spec.kind == "counter")


def _clients(feed: WorkerFeed | None) -> float:
    """Connected subscribers by its latest report."""
    samples = () if feed is None else feed.samples
    return next((value for name, _, value in samples if name == "oraclehub_clients"), 0.0)


def _end_of(feed: WorkerFeed) -> str:
    status = feed.process.returncode
    if status is None:
        return "running"
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def reserve(host: str, port: int) -> socket.socket:
    """Take a port for all workers: a socket that is bound and never listens, so that the kernel gives it nothing.

    ``SO_REUSEPORT`` alone would let a second hub of the same user share the port in silence, so first it is tried
    without.

    Raises:
        OSError: the port is taken, or the host is none of ours.
        ConfigError: this system cannot share a port.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("server.workers: this system has no SO_REUSEPORT; only 0 works here")
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    held = socket.socket(family, kind, protocol)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held
