"""The processes of a run: a simulated world, hubs, proxies before them, and recorders. Ends only what it started."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import orjson

from feeds.emulator.emulator import Emulator, EmulatorSettings, EmulatorUrls
from oracle_hub.app.worker import QUIET_S
from tests.checker.lineup import FEEDS
from tests.checker.proxy import FaultProxy
from tests.checker.recorder import ClientSpec
from tests.checker.records import ClockAnchor, LogRecord, read_anchors, read_log
from tests.checker.truth import Truth
from tests.system.process import ROOT, environment, hub_config

START_TIMEOUT_S = 40.0
END_TIMEOUT_S = 15.0
USUAL_BPS = 50
"""``hub.max_divergence_bps``, where no reload says otherwise."""
HOP_US = int(QUIET_S * 1_000_000)
"""A batch that was decided so long before a heartbeat may still be on its way to the worker that sent the heartbeat:
one that has heard nothing younger than that sends none."""


class HubLife:
    """One instance, with a state directory that outlives its processes."""

    def __init__(self, directory: Path, urls: EmulatorUrls, plant: str | None, n_workers: int, server: str) -> None:
        self.directory = directory
        self._urls = urls
        self._server = server
        self._serving = False
        self._n_workers = n_workers
        self._config = directory / "hub.toml"
        self.configure()
        self._plant = plant
        self.proxies: list[FaultProxy] = []
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0

    @property
    def journal(self) -> Path:
        return self.directory / "state" / "journal"

    @property
    def anchors(self) -> Path:
        return self.directory / "anchors.jsonl"

    def configure(self, max_divergence_bps: int = USUAL_BPS, without: str | None = None) -> None:
        """Write the configuration that a start or a reload reads: one feed may be left out."""
        new = self._config.with_suffix(".new")
        text = hub_config(
            self._urls,
            warmup_ms=1_500,
            max_age_ms=4_000,
            max_divergence_bps=max_divergence_bps,
            server=self._server,
            heartbeat_ms=100,
            feeds=[feed for feed in FEEDS if feed != without],
        )
        new.write_text(text)
        new.replace(self._config)

    def reload(self, max_divergence_bps: int = USUAL_BPS, without: str | None = None) -> None:
        """Let the process go on by another configuration. One that has only begun to start is left alone."""
        self.configure(max_divergence_bps, without)
        if self._serving:
            self.signal(signal.SIGHUP)

    async def start(self) -> None:
        """Start a process and send the proxies to it."""
        arguments = ["--config", self._config, "--state", self.directory / "state", "--anchors", self.anchors]
        if self._n_workers:
            arguments += ["--workers", self._n_workers]
        if self._plant is not None:
            arguments += ["--plant", self._plant]
        with (self.directory / "hub.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.checker.hub", *map(str, arguments)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=environment(),
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), START_TIMEOUT_S)
        if not line:
            raise RuntimeError(f"a hub did not start; see {self.directory / 'hub.log'}")
        parts = urlsplit(orjson.loads(line)["url"])
        for proxy in self.proxies:
            proxy.target = (str(parts.hostname), int(parts.port or 0))
        self.starts += 1
        self._serving = True

    def worker_pids(self) -> list[int]:
        """Its workers that are there now."""
        if self.process is None or self.process.returncode is not None:
            return []
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [child for child in map(int, children) if b"worker" in Path(f"/proc/{child}/cmdline").read_bytes()]

    def kill_worker(self, place: int) -> None:
        """``kill -9`` to one of its workers, if there is one."""
        with contextlib.suppress(OSError):  # it, or its hub, may end at any time
            pids = self.worker_pids()
            if pids:
                os.kill(pids[place % len(pids)], signal.SIGKILL)

    def stop_worker(self, place: int) -> int | None:
        """SIGSTOP to one of its workers: a descriptor of it for :func:`resume`, or None where there is none."""
        with contextlib.suppress(OSError):
            pids = self.worker_pids()
            if pids:
                process = os.pidfd_open(pids[place % len(pids)])
                signal.pidfd_send_signal(process, signal.SIGSTOP)
                return process
        return None

    def signal(self, number: signal.Signals) -> None:
        """To the process, if there is one."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    def step_clock(self, step_s: int) -> None:
        """From now on the wall clock is off by this."""
        assert self.process is not None and self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(b"%d\n" % (step_s * 1_000_000))

    async def kill(self) -> None:
        """``kill -9``, and nobody listens any more."""
        for proxy in self.proxies:
            proxy.target = None
        self._serving = False
        self.signal(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()

    async def end(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        if self.process is None or self.process.returncode is not None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), END_TIMEOUT_S)
        except TimeoutError:
            await self.kill()


class RecorderProcess:
    """Some of the subscribers, in a process group of their own."""

    def __init__(self, directory: Path, specs: list[ClientSpec]) -> None:
        self.log = directory / "clients.jsonl"
        self._directory = directory
        self._specs = specs
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        specs = self._directory / "specs.json"
        specs.write_bytes(msgspec.json.encode(self._specs))
        with (self._directory / "clients.log").open("ab") as errors:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.checker.recorder", str(specs), str(self.log)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment(),
                start_new_session=True,
            )

    async def came_back(self) -> None:
        """Wait until all its subscribers that fall behind first are back, or it has ended."""
        assert self.process is not None and self.process.stdout is not None
        for _ in filter(lambda spec: spec.stuck_first, self._specs):
            await self.process.stdout.readline()

    def signal(self, number: signal.Signals) -> None:
        """To the whole group, which :meth:`start` made."""
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, number)

    async def end(self) -> int | None:
        """SIGTERM; the exit status, None where it had to be killed."""
        assert self.process is not None
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), END_TIMEOUT_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.process.wait()
            return None


class Scene:
    """``async with Scene(directory, …) as scene``: everything runs inside, and has ended after it."""

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        plants: Sequence[str | None] = (None, None),
        n_workers: int = 0,
        server: str = "",
    ) -> None:
        """``plants`` has one for each hub: the name of a fault that is put into it, or None. ``server`` is
        more lines of that section of their configuration."""
        self._n_workers = n_workers
        self._server = server
        self._directory = directory
        self._plants = plants
        self.world = Emulator(settings=EmulatorSettings(seed=seed), now_us=lambda: time.time_ns() // 1_000)
        self.hubs: list[HubLife] = []
        self.steady: list[FaultProxy] = []
        """One before each hub, without faults."""
        self.faulty: list[FaultProxy] = []
        """One before each hub, for faults."""
        self.recorders: list[RecorderProcess] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Scene":
        async with contextlib.AsyncExitStack() as stack:
            urls = await self.world.start()
            stack.push_async_callback(self.world.stop)
            for number, plant in enumerate(self._plants):
                directory = self._directory / f"hub-{number}"
                directory.mkdir(parents=True)
                hub = HubLife(directory, urls, plant, self._n_workers, self._server)
                for proxies in (self.steady, self.faulty):
                    proxies.append(await FaultProxy().start())
                    stack.push_async_callback(proxies[-1].stop)
                    hub.proxies.append(proxies[-1])
                self.hubs.append(hub)
                stack.push_async_callback(hub.end)
                await hub.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def steady_urls(self) -> list[str]:
        return [_url(proxy) for proxy in self.steady]

    @property
    def faulty_urls(self) -> list[str]:
        return [_url(proxy) for proxy in self.faulty]

    async def record(self, specs: list[ClientSpec], n_processes: int) -> None:
        """Start the recorders, with the subscribers dealt out to them."""
        for number in range(n_processes):
            directory = self._directory / f"clients-{number}"
            directory.mkdir(parents=True)
            recorder = RecorderProcess(directory, specs[number::n_processes])
            await recorder.start()
            self._stack.push_async_callback(recorder.end)
            self.recorders.append(recorder)

    # What it leaves behind.

    def truth(self) -> Truth:
        """What the journals of all hubs replay to."""
        truth = Truth(HOP_US if self._n_workers else 0)
        for hub in self.hubs:
            truth.replay(hub.journal)
        return truth

    def logs(self) -> list[Iterator[LogRecord]]:
        """What the subscribers wrote down, one per process; each can be read once."""
        return [read_log(recorder.log) for recorder in self.recorders]

    def anchors(self) -> list[ClockAnchor]:
        """What the hubs' clocks were."""
        return read_anchors(hub.anchors for hub in self.hubs)


def _url(proxy: FaultProxy) -> str:
    return f"ws://127.0.0.1:{proxy.port}/v1/stream"


def resume(process: int) -> None:
    """SIGCONT to a process by its descriptor, which is closed: also where its hub is gone, which it has to notice."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGCONT)
    os.close(process)
