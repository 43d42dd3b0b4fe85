"""One run: start a scene, let everything on the schedule go wrong, and check what was recorded."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feeds.emulator.faults import Fault
from tests.checker.check import check
from tests.checker.findings import Finding, Report
from tests.checker.lineup import lineup
from tests.checker.pace import Pace
from tests.checker.scene import Scene, resume
from tests.checker.schedule import PROXY_KINDS, WORLD_KINDS, Event, schedule

N_CLIENT_PROCESSES = 2
NEEDED = ("prices", "compared", "agreed", "merged", "beliefs", "heartbeat", "snapshot", "acts_timed", "disconnects")
"""What a run must have looked at, or it has shown nothing."""
STALL = "stall_client"
"""A subscriber of mode ``all`` that did not read until it was closed for that. Once, before any other fault: later a
connection can always end for another reason before it has one, the more so where workers are killed."""
STALL_PATIENCE_S = 90.0
"""Until it is back; a stall lasts 20 s at most."""
NEEDED_AFTER = {"reload_hub": ("config",), STALL: ("too_slow", "resumed_after_4001")}
"""What it must have looked at once there was such a fault."""


class Conductor:
    """Begins and undoes the faults of a schedule."""

    def __init__(self, scene: Scene, progress: Callable[[str], None]) -> None:
        self._scene = scene
        self.pace = Pace()
        """Its end undoes every fault at once."""
        self._progress = progress
        self._faults: dict[Event, int] = {}
        self._stopped_workers: dict[Event, int] = {}
        self.done: Counter[str] = Counter()
        """Faults that were carried out, by kind."""

    async def stall(self) -> None:
        """Let nothing go wrong until who falls behind first was closed with 4001 and is back with what it held."""
        self._progress("  before  nothing else until a client that does not read was closed, and is back")
        back = asyncio.gather(*(recorder.came_back() for recorder in self._scene.recorders))
        over = asyncio.ensure_future(self.pace.ended())
        waits: list[asyncio.Future[Any]] = [back, over]
        await asyncio.wait(waits, timeout=STALL_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not self.pace.over:
            self.done[STALL] += 1
        for waiting in waits:
            waiting.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def play(self, events: list[Event], duration_s: float) -> None:
        """Play all events; returns when the time is over and every fault is undone."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with asyncio.TaskGroup() as group:
            for event in events:
                await self.pace.until(began_s + event.at_s)
                if self.pace.over:
                    break
                self._progress(f"{event.at_s:6.1f} s  {_words(event)}")
                group.create_task(self._one(event))
                self.done[event.kind] += 1
            await self.pace.until(began_s + duration_s)

    async def _one(self, event: Event) -> None:
        await self._begin(event)
        await self.pace.wait(event.duration_s)
        await self._undo(event)

    async def _begin(self, event: Event) -> None:
        scene = self._scene
        match event.kind:
            case "stop_hub":
                scene.hubs[event.target].signal(signal.SIGSTOP)
            case "kill_hub":
                await scene.hubs[event.target].kill()
            case "step_clock":
                scene.hubs[event.target].step_clock(event.value)
            case "reload_hub":
                scene.hubs[event.target].reload(event.value, event.feed)
            case "kill_worker":
                scene.hubs[event.target].kill_worker(event.value)
            case "stop_worker":
                process = scene.hubs[event.target].stop_worker(event.value)
                if process is not None:
                    self._stopped_workers[event] = process
            case "stop_clients":
                scene.recorders[event.target].signal(signal.SIGSTOP)
        if event.kind in PROXY_KINDS:
            self._disturb(event)
        elif event.kind in WORLD_KINDS:
            self._faults[event] = scene.world.inject(_fault(event))

    def _disturb(self, event: Event) -> None:
        proxy = self._scene.faulty[event.target]
        match event.kind:
            case "delay":
                proxy.delay_s = event.value / 1_000
            case "throttle":
                proxy.bytes_per_s = event.value
            case "pause":
                proxy.pause()
            case "truncate":
                proxy.truncate(event.value)
            case "reset":
                proxy.reset()
            case "half_open":
                proxy.half_open()

    async def _undo(self, event: Event) -> None:
        scene = self._scene
        match event.kind:
            case "stop_hub":
                scene.hubs[event.target].signal(signal.SIGCONT)
            case "kill_hub":
                await scene.hubs[event.target].start()
            case "step_clock":
                scene.hubs[event.target].step_clock(0)
            case "reload_hub":
                scene.hubs[event.target].reload()
            case "stop_worker" if event in self._stopped_workers:
                resume(self._stopped_workers.pop(event))
            case "stop_clients":
                scene.recorders[event.target].signal(signal.SIGCONT)
        if event.kind in PROXY_KINDS:
            scene.faulty[event.target].clear()
        elif event in self._faults:
            scene.world.clear(self._faults.pop(event))


def _fault(event: Event) -> Fault:
    kind, source, feed = event.kind.removesuffix("_source"), event.source, event.feed
    if kind == "spike":
        return Fault(kind="spike", source=source, feed=feed, bps=event.value)
    if kind == "future":
        return Fault(kind="future", source=source, feed=feed)
    return Fault(kind="kill" if kind == "kill" else "stall", source=source, feed=feed)


def _words(event: Event) -> str:
    what = f"{event.source} {event.feed or 'all feeds'}" if event.source else f"number {event.target}"
    value = f" ({event.value})" if event.value else ""
    return f"{event.kind} {what}{value} for {event.duration_s:.1f} s"


class Outcome:
    """What a run was and what it found."""

    def __init__(self, report: Report, faults: Counter[str], seconds: dict[str, float]) -> None:
        self.report = report
        self.faults = faults
        self.seconds = seconds
        """How long recording and checking took."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "passed": self.report.passed,
            "found": dict(self.report.found),
            "faults": dict(sorted(self.faults.items())),
            "checked": dict(sorted(self.report.checked.items())),
            "latest_act_us": self.report.latest_act_us,
            "longest_hop_us": self.report.longest_hop_us,
            "seconds": self.seconds,
            "findings": self.report.findings,
        }


async def run(
    directory: Path,
    *,
    minutes: float,
    seed: int,
    n_clients: int = 40,
    n_workers: int = 0,
    plant: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Record for so many minutes under faults from ``seed``, end everything, and check. ``directory`` keeps it all.

    SIGINT ends the recording early: what there is by then is checked.
    """
    duration_s = minutes * 60
    loop = asyncio.get_running_loop()
    async with Scene(directory, seed=seed, plants=(plant, None), n_workers=n_workers) as scene:
        progress(f"{len(scene.hubs)} hubs run; {n_clients} clients in {N_CLIENT_PROCESSES} processes")
        await scene.record(lineup(seed, n_clients, scene.steady_urls, scene.faulty_urls), N_CLIENT_PROCESSES)
        conductor = Conductor(scene, progress)
        events = schedule(
            seed,
            duration_s,
            n_hubs=len(scene.hubs),
            n_client_processes=N_CLIENT_PROCESSES,
            n_proxies=len(scene.faulty),
            n_workers=n_workers,
        )
        loop.add_signal_handler(signal.SIGINT, conductor.pace.end)
        began_s = loop.time()
        await conductor.stall()
        await conductor.play(events, duration_s)
        duration_s = round(loop.time() - began_s, 1)
        loop.remove_signal_handler(signal.SIGINT)
        statuses = [await recorder.end() for recorder in scene.recorders]
    began_s = time.monotonic()
    progress("recorded; replaying the journals")
    truth = await asyncio.to_thread(scene.truth)
    progress(f"{truth.published} published batches; checking the logs")
    report = await asyncio.to_thread(check, scene.logs(), truth, scene.anchors(), progress)
    check_coverage(report, statuses, conductor.done)
    return Outcome(report, conductor.done, {"recorded": duration_s, "checking": round(time.monotonic() - began_s, 1)})


def check_coverage(report: Report, statuses: list[int | None], done: Counter[str]) -> None:
    """A run of these faults has looked at what it was made for, and its recorders ended with these statuses: well."""

    def complain(message: str, **evidence: Any) -> None:
        report.add(Finding("coverage", "", 0, 0, message, evidence))

    needed = [*NEEDED, *(name for kind, names in NEEDED_AFTER.items() if done[kind] for name in names)]
    missing = [name for name in needed if not report.checked[name]]
    if missing:
        complain("the run showed nothing of", names=missing)
    for number, status in enumerate(statuses):
        if status != 0:
            complain("a process of clients did not end well", number=number, status=status)
