"""The running program: state, journal, engine, links and server put together, and their orderly end."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

import oracle_hub
from feeds.emulator.emulator import Emulator
from oracle_hub.alerts.alert import Kind
from oracle_hub.alerts.notify.deliveries import Deliveries
from oracle_hub.app import collector, samples
from oracle_hub.app.alert_channels import delivery_settings
from oracle_hub.app.alerting import Alerting
from oracle_hub.app.doors import server_settings
from oracle_hub.app.engine import Engine, Lineup
from oracle_hub.app.explain import explain_feed, readiness
from oracle_hub.app.journal_watch import JournalWatch
from oracle_hub.app.legacy import legacy_notes
from oracle_hub.app.lineup import (
    Endpoints,
    build_lineup,
    emulated_endpoints,
    endpoints_of,
)
from oracle_hub.app.publisher import OwnServer, Publisher
from oracle_hub.app.pump import Pump
from oracle_hub.app.signed import ChosenUpdates
from oracle_hub.app.simulation import emulator_settings, pace_warning
from oracle_hub.app.workers import COMMAND, Workers
from oracle_hub.clock import AnchoredClock, Clock, SystemClock
from oracle_hub.config import Config, check_host_names, convert
from oracle_hub.core.hub import Batch, Decision
from oracle_hub.core.licence import tightened, told_batch, told_decision
from oracle_hub.errors import ConfigError, OracleHubError, SourceError
from oracle_hub.ingest.supervisor import Supervisor
from oracle_hub.journal.records import RunStart
from oracle_hub.journal.segments import last_epoch
from oracle_hub.journal.writer import JournalWriter
from oracle_hub.metrics import Latencies, Sample, families_of, text_of
from oracle_hub.server.service import SignedAnswer, SignedQuery
from oracle_hub.state import Identity, begin_epoch

log = logging.getLogger(__name__)

CLOCK_CHECK_S = 0.25
MAINTENANCE_S = 5.0
TOLD_AT_START = 20
"""Lines about single feeds in the log: a catalogue of thousands has better places to be read."""
STOP_SERVER_S, STOP_LINKS_S, STOP_EMULATOR_S, STOP_DELIVERIES_S = 0.9, 0.4, 0.3, 0.2
"""What each may take to end: together less than the two seconds that a supervisor of processes is patient for."""


class Application:
    """One hub. ``async with Application(config) as app`` runs it; leaving ends it with a goaway.

    Args:
        config: what to do.
        clock: the machine's clocks, or a test's.
        load: reads the configuration again, for :meth:`reload`; None where there is no file.
    """

    def __init__(self, config: Config, *, clock: Clock | None = None, load: Callable[[], Config] | None = None) -> None:
        self.config = config
        self.clock = AnchoredClock(clock or SystemClock(), max_skew_us=config.hub.max_clock_skew_ms * 1_000)
        self.latencies = Latencies()
        self.emulator: Emulator | None = None
        self._journal_watch: JournalWatch | None = None
        self.url = ""
        self.worker_command: Sequence[str] = COMMAND
        self.failed: str | None = None
        """The part of the program whose failure ended it."""
        self._load = load
        self._started = False
        self._tasks: list[asyncio.Task[None]] = []
        self._reloading = asyncio.Lock()

    # Life.

    async def __aenter__(self) -> "Application":
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()  # what was started ends with the program, in reverse order
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start part after part; ``stack`` takes over how each ends."""
        state, wall_us = Path(self.config.state.directory), self.clock.clock.wall_us()
        identity = begin_epoch(state, wall_us, at_least=last_epoch(state / "journal") + 1)
        self.instance, self.first_epoch = identity.instance, identity.first_epoch
        lineup = _with_legacy(build_lineup(self.config, await self._endpoints(self.config, stack)))
        self.journal = self._open_journal(state / "journal", identity.epoch)
        stack.callback(self._close_journal)
        started_us = self._begin(lineup, identity, wall_us)
        self.publisher = self._make_publisher()
        await self._start_alerting(state, started_us, stack)
        if self.journal is not None:
            interval_us = self.config.journal.sync_interval_ms * 1_000
            self._journal_watch = JournalWatch(self.journal, interval_us, self.clock.clock.monotonic_us)
        self._supervise(lineup)
        self.pump.step()  # every feed is none, warming: told before anyone can ask
        self.url = await self._listen()
        self._started = True
        for name, work in (
            ("links", self.supervisor.run()),
            ("clock", self._watch_clock()),
            ("journal", self._keep_journal()),
        ):
            self._spawn(name, work)
        stack.push_async_callback(self._end_tasks)
        stack.push_async_callback(_within, STOP_SERVER_S, self.publisher.stop, "shutdown")
        stack.callback(self.pump.stop)
        collector.settle()

    def _begin(self, lineup: Lineup, identity: Identity, wall_us: int) -> int:
        """Begin the run: its engine, and its first record in the journal. Returns when, by the hub's clock in µs."""
        config, started_us = self.config, self.clock.now_us()
        self.pump = Pump(
            Engine(lineup, epoch=identity.epoch, started_us=started_us, warmup_us=config.hub.warmup_ms * 1_000),
            self.clock,
            journal=self.journal,
            journal_required=config.journal.mode == "required",
            publish=self._publish,
            latencies=self.latencies,
        )
        self.signed_updates = ChosenUpdates(lambda: self.pump.engine.lineup)
        run = RunStart(
            instance=self.instance,
            epoch=identity.epoch,
            version=oracle_hub.__version__,
            simulated=self.emulator is not None,
            wall_us=wall_us,
            monotonic_us=self.clock.clock.monotonic_us(),
            first=identity.epoch == identity.first_epoch,
        )
        self.pump.begin(run, started_us)
        return started_us

    async def _start_alerting(self, state: Path, started_us: int, stack: contextlib.AsyncExitStack) -> None:
        """Go on with the alerts that were open, and deliver what becomes of them."""
        engine = self.pump.engine
        self.alerting = Alerting(state, engine.alerts, show=self.publisher.alert)
        self.alerting.resume(lambda saved: engine.resume_alerts(saved, started_us))
        settings = delivery_settings(self.config)
        self.deliveries = Deliveries(settings, state, self.instance, self.clock, alive=self.pump.alive)
        await self.deliveries.start(self.alerting.open)
        stack.push_async_callback(self.deliveries.stop, STOP_DELIVERIES_S)
        self.alerting.deliver = self.deliveries.take
        self.alerting.begin(started_us)
        self.pump.tell = self.alerting.tell

    def _supervise(self, lineup: Lineup) -> None:
        """Hand the links to those who connect them. None connects before the supervisor runs."""
        self.supervisor = Supervisor(self.pump, clock=self.clock.now_us)
        self.pump.carry_out = self.supervisor.carry_out
        self.pump.clock_set = self._clock_set
        for link in lineup.links.values():
            self.supervisor.add(link)

    def _clock_set(self) -> None:
        """Our clock was set anew: what links and this process's own alerts wait for are instants of the old one."""
        self.alerting.own.set_clock(self.clock.now_us())
        self.supervisor.restart("our clock was set anew")

    def _make_publisher(self) -> Publisher:
        settings, n_workers = server_settings(self.config), self.config.server.workers
        if not n_workers:
            return OwnServer(self, settings)
        return Workers(self, settings, n_workers, lambda: self.clock, failed=self._ended, command=self.worker_command)

    async def _listen(self) -> str:
        try:
            host, port = await self.publisher.start()
        except OSError as error:
            where = f"{self.config.server.host}:{self.config.server.port}"
            raise ConfigError(f"server: cannot listen on {where} ({_words(error)}); see --host and --port") from None
        scheme = "http" if self.config.server.tls_certificate is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    async def _endpoints(self, config: Config, stack: contextlib.AsyncExitStack | None = None) -> Endpoints:
        """Where the links go. In a simulation the emulator is started first, and ended by ``stack``."""
        if config.emulator is None:
            return endpoints_of(config)
        if stack is not None:
            settings = emulator_settings(config)
            self.emulator = Emulator(settings=settings, now_us=self.clock.now_us)
            stack.push_async_callback(_within, STOP_EMULATOR_S, self.emulator.stop)
            try:
                self._emulator_urls = await self.emulator.start()
            except OSError as error:
                where = f"thirteen ports from {settings.port_base} on"
                raise ConfigError(
                    f"emulator: cannot listen on {where} ({_words(error)}); choose with --emulator-port"
                ) from None
            log.warning("SIMULATED: these prices are made by the emulator. They are not the market.")
            slow = pace_warning(config, self.emulator.every_us)
            if slow is not None:
                log.warning("%s", slow)
        return emulated_endpoints(config, self._emulator_urls)

    def _open_journal(self, directory: Path, epoch: int) -> JournalWriter | None:
        section = self.config.journal
        if section.mode == "off":
            return None
        return JournalWriter(
            directory,
            instance=self.instance,
            epoch=epoch,
            max_segment_bytes=section.max_segment_mib * 2**20,
            retention_s=section.retention_hours * 3_600,
            disk_budget_bytes=section.disk_budget_mib * 2**20,
            buffer_limit_bytes=section.buffer_limit_mib * 2**20,
        )

    def _close_journal(self) -> None:
        if self.journal is not None and not self.journal.close():
            log.error("journal: %s; its end may be missing", self.journal.last_error)

    def _spawn(self, name: str, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # A fault of the program: better no hub (keepers fail over) than one that has lost a part.
            log.critical("%s failed; ending", task.get_name(), exc_info=task.exception())
            self.failed = task.get_name()
            signal.raise_signal(signal.SIGTERM)

    async def _end_tasks(self) -> None:
        """Let the links say goodbye, then end every task; bounded in time, whatever peers do."""
        self.supervisor.stop()
        _, late = await asyncio.wait(self._tasks[:1], timeout=STOP_LINKS_S)
        if late:
            log.warning("some links did not end in time; cut off")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # While it runs.

    def _publish(self, batch: Batch, journaled: bool) -> None:
        told = told_batch(batch, self.pump.engine.hub.catalog)
        self.publisher.publish(told, journaled=journaled or self.journal is None)
        self.signed_updates.note(told)

    async def _watch_clock(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_CHECK_S)
            self.pump.check_clock()
            self._check_journal()

    def _check_journal(self) -> None:
        """Tell of a journal that can't be written. Not part of what follows from it."""
        now_us = self.clock.now_us()
        if self._journal_watch is not None:
            for about, trouble in self._journal_watch.troubles().items():
                self.alerting.condition(now_us, Kind.JOURNAL_LAG, about, trouble is not None, trouble or "")
        self.alerting.advance(now_us)

    async def _keep_journal(self) -> None:
        journal = self.journal
        if journal is None:
            return
        interval_s = self.config.journal.sync_interval_ms / 1_000
        loop = asyncio.get_running_loop()
        next_maintenance_s = loop.time() + MAINTENANCE_S
        while True:
            await asyncio.sleep(interval_s)
            await asyncio.to_thread(journal.sync)
            if loop.time() >= next_maintenance_s:
                next_maintenance_s = loop.time() + MAINTENANCE_S
                await asyncio.to_thread(journal.seal_pending)
                await asyncio.to_thread(journal.enforce_budget)

    async def reload(self) -> None:
        """Read the configuration again and go on by it. One that is wrong is refused whole, with a line in the log."""
        if self._load is None:
            log.warning("reload: there is no configuration file")
            return
        async with self._reloading:
            try:
                # Reading and building in threads: with thousands of feeds they take longer than prices may wait.
                config = await asyncio.to_thread(self._load)
                if (config.emulator is None) is not (self.config.emulator is None):
                    raise ConfigError("[emulator] cannot come or go at a reload; restart")
                before = self.pump.engine.lineup
                endpoints = await self._endpoints(config)
                lineup, less = await asyncio.to_thread(_built, config, endpoints, before)
                self.publisher.renew(server_settings(config))
            except OracleHubError as error:
                log.error("reload refused, going on as before: %s", error)
                return
            rewired = lineup.links is not before.links
            if rewired:
                for name in before.links:
                    await self.supervisor.remove(name)
            self.pump.reload(lineup)
            self.alerting.configured_anew()
            if rewired:
                for link in lineup.links.values():
                    self.supervisor.add(link)
            self._say_unplayed(config)
            waiting = _only_at_start(self.config, config)
            if waiting:
                log.warning("reload: %s changed, which is read at the next start", ", ".join(waiting))
            self.config = config
            await asyncio.sleep(0)  # taking over takes its time with thousands of feeds, and so does what follows
            self.pump.step()  # subscribers hear what changed before they hear why
            if less:
                self.signed_updates.forget()
            self.publisher.config_changed(forget_past=less)
            log.info("configuration %s in force", lineup.config_hash)

    def _say_unplayed(self, config: Config) -> None:
        """A simulation plays the feeds of its start: those that came with a reload have no price until a restart."""
        played = () if self.emulator is None else self.emulator.settings.feeds
        unplayed = [feed for feed in config.feeds if self.emulator is not None and feed not in played]
        if unplayed:
            more = f" and {len(unplayed) - 1} more" if len(unplayed) > 1 else ""
            log.warning("reload: the emulator does not play %s%s; restart for that", unplayed[0], more)

    # What the server asks (:class:`oracle_hub.server.http.Service`).

    @property
    def epoch(self) -> int:
        return self.pump.engine.hub.epoch

    @property
    def seq(self) -> int:
        return self.pump.engine.hub.seq

    @property
    def simulated(self) -> dict[str, object] | None:
        return None if self.emulator is None else self.emulator.describe()

    @property
    def policy(self) -> str:
        return self.config.hub.policy.value

    @property
    def config_hash(self) -> str:
        return self.pump.engine.lineup.config_hash

    @property
    def emulator_url(self) -> str | None:
        """Where the emulator is described, and takes faults; None where prices are real."""
        return None if self.emulator is None else self._emulator_urls.control

    @property
    def limits(self) -> dict[str, object]:
        hub = self.config.hub
        return {"max_divergence_bps": hub.max_divergence_bps, "max_future_ms": hub.max_future_ms}

    @property
    def decisions(self) -> Mapping[str, Decision]:
        hub, feeds = self.pump.engine.hub, self.pump.engine.hub.catalog.feed_index
        return {feed: told_decision(hub.decisions[feed], hub.catalog) for feed in feeds if feed in hub.decisions}

    def now_us(self) -> int:
        return self.clock.now_us()

    def current(self, now_us: int) -> bool:
        return True  # it is this program that publishes

    async def explain(self, feed: str) -> dict[str, object] | None:
        answer = explain_feed(self.pump.engine, feed, self.clock.now_us())
        return None if answer is None else {**answer, "simulated": self.simulated}

    async def signed(self, asked: SignedQuery) -> SignedAnswer:
        return self.signed_updates.answer(asked)

    async def parity(self) -> dict[str, object]:
        engine, now_us = self.pump.engine, self.clock.now_us()
        return {"now_us": now_us, "simulated": self.simulated, "feeds": engine.chain.view(engine.hub, now_us)}

    async def ready(self) -> tuple[bool, dict[str, object]]:
        health = self.supervisor.health()
        ready, evidence = readiness(self.pump, health, started=self._started, now_us=self.clock.now_us())
        delivery = {"channels": msgspec.to_builtins(self.deliveries.health), "error": self.deliveries.kept}
        evidence |= {**self.publisher.evidence(), "alerts": delivery, "simulated": self.simulated}
        return ready, evidence

    async def metrics(self) -> bytes:
        families = families_of(self._samples(), self.latencies)
        return await asyncio.to_thread(text_of, families)

    def _samples(self) -> Iterator[Sample]:
        simulated = "true" if self.emulator is not None else "false"
        yield "oraclehub_info", (self.instance, oracle_hub.__version__, simulated), 1
        yield from samples.of_pump(self.pump, self.clock.now_us(), max_feeds=self.config.server.max_metric_feeds)
        yield from samples.of_alerts(self.alerting)
        yield from samples.of_links(self.supervisor, self.clock.now_us())
        yield from samples.of_ways(self.pump.engine, self.supervisor, self.clock.now_us())
        yield from self.publisher.samples()
        yield from samples.of_journal(self.journal)
        yield from self.deliveries.samples()


def _built(config: Config, endpoints: Endpoints, before: Lineup) -> tuple[Lineup, bool]:
    """What a reload goes on with, and whether less may be told of a source than before: all that can be known without
    the hub."""
    lineup = _with_legacy(build_lineup(config, endpoints, before))
    _ = lineup.catalog.layout  # made here, so that the hub finds it
    return lineup, tightened(before.catalog, lineup.catalog)


def _with_legacy(lineup: Lineup) -> Lineup:
    """A line-up that knows which accounts of its configuration were replaced. They are said at once, too."""
    legacy = legacy_notes(lineup.config)
    lines = [line for told in legacy.values() for line in told]
    for line in lines[:TOLD_AT_START]:
        log.warning("%s: oracle-hub migrate", line)
    if len(lines) > TOLD_AT_START:
        log.warning("%d more such accounts: oracle-hub check", len(lines) - TOLD_AT_START)
    return msgspec.structs.replace(lineup, legacy=legacy)


def _words(error: OSError) -> str:
    """Why a port could not be had, without asyncio's own sentence around it."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


async def _within(seconds: float, end: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Await the end of something, but not for long."""
    try:
        await asyncio.wait_for(end(*arguments), seconds)
    except TimeoutError:
        log.warning("something did not end in time; going on without it")


def _only_at_start(before: Config, after: Config) -> list[str]:
    """What differs and is read at start only (docs/configuration.md)."""
    sections = ("state", "journal", "charts", "emulator")
    differing = [f"[{name}]" for name in sections if getattr(before, name) != getattr(after, name)]
    renewed = {"tokens": after.server.tokens, "require_token": after.server.require_token}
    renewed["max_metric_feeds"] = after.server.max_metric_feeds
    if msgspec.structs.replace(before.server, **renewed) != after.server:
        differing.insert(0, "[server]")
    delivery = ("runbook_url", "max_queued", "first_retry_ms", "max_retry_ms", "alertmanager", "webhook", "notify")
    differing += [f"alerts.{key}" for key in delivery if getattr(before.alerts, key) != getattr(after.alerts, key)]
    keys = ("warmup_ms", "max_clock_skew_ms")
    return differing + [f"hub.{key}" for key in keys if getattr(before.hub, key) != getattr(after.hub, key)]


async def serve(
    config: Config,
    load: Callable[[], Config] | None,
    announce: Callable[[Application], Awaitable[None]],
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Run a hub until SIGINT or SIGTERM; SIGHUP reloads. ``announce`` is awaited once it serves, and what it raises
    ends the hub; ``ending`` is called when it begins to end."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    reloads: set[asyncio.Task[None]] = set()
    asked_early: list[bool] = []
    loop.add_signal_handler(signal.SIGHUP, asked_early.append, True)  # it is read once there is a hub that can
    async with Application(config, load=load) as application:

        def reload() -> None:
            task = loop.create_task(application.reload(), name="reload")
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        if asked_early:
            reload()
        await announce(application)
        await ended.wait()
        ending()
    if application.failed is not None:
        raise SourceError(f"{application.failed} failed; the log has the reason")


def with_overrides(config: Config, **sections: Mapping[str, object]) -> Config:
    """A configuration with some keys replaced from the command line; None leaves a key as it is.

    Raises:
        ConfigError: a value out of range, or an emulator key where there is no emulator.
    """
    raw = msgspec.to_builtins(config)
    for name, keys in sections.items():
        given = {key: value for key, value in keys.items() if value is not None}
        if given and raw[name] is None:
            raise ConfigError(f"{', '.join(given)}: only for simulations, and this configuration has no [emulator]")
        if given:
            raw[name].update(given)
    overridden = convert(raw)
    check_host_names(overridden)
    return overridden
