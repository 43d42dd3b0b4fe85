"""A hub in a process of its own, whose wall clock is stepped over stdin: ``python -m tests.checker.hub --help``.

The program is :class:`oracle_hub.app.run.Application`, as ``oracle-hub run`` starts it. A line on stdin is the number
of microseconds by which the wall clock is off from then on; SIGHUP reads the configuration again. ``--plant`` puts a
fault in, for tests of the checker.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import orjson

from oracle_hub.app.run import Application, with_overrides
from oracle_hub.clock import AnchoredClock, ClockState, SystemClock
from oracle_hub.config import Config, load_config
from tests.checker.plants import PLANTS
from tests.checker.records import ClockAnchor, Log

SMALL = {"max_unanswered_bytes": 16_384, "max_unsent_bytes": 32_768}
"""Settings of the server: who stops reading is behind within seconds."""


class SteppedClock(SystemClock):
    """The machine's clocks, with a wall clock that somebody sets."""

    def __init__(self) -> None:
        self.step_us = 0

    def wall_us(self) -> int:
        return super().wall_us() + self.step_us


class WatchedClock(AnchoredClock):
    """Writes down every anchor, so that the checker knows what this hub's clock showed at any moment."""

    def __init__(self, clock: SteppedClock, max_skew_us: int, log: Log) -> None:
        super().__init__(clock, max_skew_us=max_skew_us)
        self._log = log
        self.instance, self.epoch = "", 0

    def write_down(self) -> None:
        """One anchor, as it is now."""
        monotonic_us = self.clock.monotonic_us()
        anchor = ClockAnchor(self.instance, self.epoch, monotonic_us, self.now_us() - monotonic_us)
        self._log.add(anchor)
        self._log.flush()

    def check(self) -> ClockState:
        state = super().check()
        if state.reanchored:
            self.write_down()
        return state


async def _take_steps(clock: SteppedClock) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        clock.step_us = int(line)


async def _serve(options: argparse.Namespace) -> None:
    def load() -> Config:
        return with_overrides(
            load_config(options.config),
            server={"port": options.port, "workers": options.workers, **SMALL},
            state={"directory": str(options.state)},
        )

    config = load()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    clock = SteppedClock()
    application = Application(config, clock=clock, load=load)
    if options.plant:  # whoever serves has the fault
        application.worker_command = (sys.executable, "-m", "tests.checker.worker", options.plant)
    with options.anchors.open("ab") as file:
        watched = WatchedClock(clock, config.hub.max_clock_skew_ms * 1_000, Log(file))
        application.clock = watched
        async with application:
            watched.instance, watched.epoch = application.instance, application.epoch
            watched.write_down()
            reloads: set[asyncio.Task[None]] = set()
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, application, reloads)
            line = {"url": application.url, "instance": application.instance, "epoch": application.epoch}
            sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
            sys.stdout.buffer.flush()
            steps = asyncio.create_task(_take_steps(clock))
            await ended.wait()
            steps.cancel()


def _reload(application: Application, reloads: set[asyncio.Task[None]]) -> None:
    task = asyncio.get_running_loop().create_task(application.reload())
    reloads.add(task)
    task.add_done_callback(reloads.discard)


def main() -> None:
    """Parse the command line and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--anchors", type=Path, required=True, help="file to which the clock's anchors are appended")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--plant", choices=sorted(PLANTS))
    options = parser.parse_args()
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if options.plant:
        PLANTS[options.plant][0]()
    asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
