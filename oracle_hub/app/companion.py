"""The charts process beside a hub: started, watched, started again, and ended with the hub, whatever ends that.

The child reads its standard input, on which the hub writes the configuration and then nothing. When the hub is gone,
also by ``kill -9``, the kernel closes the pipe and the child ends by itself. Nothing of the child can hold up the hub:
it is another process, and only its first line is ever waited for, by a task of its own.
"""

import asyncio
import contextlib
import logging
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable

import msgspec

from oracle_hub.config import Config, canonical_text
from oracle_hub.ingest.backoff import Backoff

log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-m", "oracle_hub.cli", "charts", "--companion")
STOP_S = 0.8
"""How long the child may take to end by itself."""
PROVEN_S = 30.0
"""A child that ran for so long ends the backing off."""
MAX_LINE_BYTES = 64 << 10


class Started(msgspec.Struct, frozen=True):
    """What the child prints once it serves."""

    url: str


def wanted(config: Config) -> bool:
    """Whether this hub has charts beside it: as configured, else exactly where prices are simulated."""
    return config.charts.enabled if config.charts.enabled is not None else config.emulator is not None


class Companion:
    """One charts process, kept running. ``async with Companion(…) as companion`` around the hub's whole life.

    Args:
        config: the hub's; the child reads the same.
        announce: called with the child's address whenever it serves.
    """

    def __init__(self, config: Config, announce: Callable[[str], None]) -> None:
        self._config = config
        self._announce = announce
        self._backoff = Backoff(random.Random(), first_s=0.5, max_s=30.0)
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._serves = False
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Process id of the child that runs now."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def __aenter__(self) -> "Companion":
        return self

    def start(self, hub_url: str, log_level: str | None = None) -> None:
        """Follow the hub that serves at ``hub_url``."""
        level = log_level or logging.getLevelName(logging.getLogger().getEffectiveLevel()).lower()
        self._task = asyncio.get_running_loop().create_task(self._keep(hub_url, level), name="charts")

    def end(self) -> None:
        """Ask the child to end; it has until the end of the ``async with`` and a little more."""
        self._ending = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def __aexit__(self, *_: object) -> None:
        self.end()
        process = self._process
        if process is not None and process.returncode is None:
            if not self._serves:
                _kill(process)  # busy with its start, it would not hear of it, and it holds nothing
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                log.warning("charts did not end in time; killed")
                _kill(process)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self, hub_url: str, level: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            how = await self._run(hub_url, level)
            if self._ending:
                return
            if loop.time() - began_s >= PROVEN_S:
                self._backoff.reset()
            wait_s = self._backoff.next_s()
            log.error("charts %s; the hub goes on, and they are started again in %.1f s", how, wait_s)
            await asyncio.sleep(wait_s)

    async def _run(self, hub_url: str, level: str) -> str:
        """One life of the child. Returns how it ended."""
        try:
            process = await asyncio.create_subprocess_exec(
                *PROGRAM,
                *("--hub", hub_url, "--log-level", level),
                stdin=PIPE,
                stdout=PIPE,
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for the hub
            )
        except OSError as error:
            return f"could not be started ({error.strerror})"
        self._process = process
        self._serves = False
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(canonical_text(self._config).encode() + b"\n")
                await process.stdin.drain()
            self._heard(await self._line(process.stdout))
            while await process.stdout.read(MAX_LINE_BYTES):
                pass  # nothing more is expected; it must not fill the pipe
            status = await process.wait()
        except BaseException:
            _kill(process)
            raise
        return f"were killed by signal {-status}" if status < 0 else f"ended with status {status}"

    @staticmethod
    async def _line(stream: asyncio.StreamReader) -> bytes:
        try:
            return await stream.readline()
        except ValueError:
            return b""  # longer than anything of ours

    def _heard(self, line: bytes) -> None:
        try:
            started = msgspec.json.decode(line, type=Started)
        except msgspec.MsgspecError:
            return  # it ended, or will be told to have ended
        self._serves = True
        self._announce(started.url)


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            process.kill()
