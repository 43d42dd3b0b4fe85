"""All links of the run, each kept connected by a driver of its own."""

import asyncio
import random
from collections.abc import Callable, Sequence

import aiohttp

from oracle_hub.core.source import Effect, Link
from oracle_hub.errors import SourceError
from oracle_hub.ingest.driver import DriverLimits, LinkDriver, LinkHealth, Sink, Waiting

_READ_BUFFER_BYTES = 2**20
"""aiohttp's line reader stops at twice this; an event with many feeds is longer than its default allows."""


class Supervisor:
    """Runs any number of links; links come and go at run time.

    ``run`` lasts until :meth:`stop`; it raises only what the sink raised, for that is a fault of the program and not of
    a peer. Every other failure is one link's own and ends in its back-off.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        clock: Callable[[], int],
        rng: random.Random | None = None,
        limits: DriverLimits | None = None,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._rng = rng or random.Random()
        self._limits = limits or DriverLimits()
        self._waiting: dict[str, tuple[Link, DriverLimits]] = {}
        self._drivers: dict[str, LinkDriver] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Run all links until :meth:`stop` is called."""
        # Streams stay open, and a catalogue of thousands has many: a common limit would leave the last ones waiting
        # for ever. Each driver bounds its own requests.
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, read_bufsize=_READ_BUFFER_BYTES, trust_env=False
        ) as self._session:
            try:
                async with asyncio.TaskGroup() as self._group:
                    for name, (link, limits) in tuple(self._waiting.items()):
                        self._start(name, link, limits)
                    self._waiting.clear()
                    await self._stop.wait()
                    for task in self._tasks.values():
                        task.cancel()
            finally:
                self._group = None
                self._session = None

    def add(self, link: Link, limits: DriverLimits | None = None) -> None:
        """Run one more link, now or when :meth:`run` begins.

        Raises:
            SourceError: its name is taken.
        """
        if link.name in self._drivers or link.name in self._waiting:
            raise SourceError(f"link {link.name}: the name is taken; give every transport a name of its own")
        if self._group is None:
            self._waiting[link.name] = (link, limits or self._limits)
        else:
            self._start(link.name, link, limits or self._limits)

    async def remove(self, name: str) -> None:
        """Close a link and forget it; nothing happens if there is none of that name."""
        self._waiting.pop(name, None)
        self._drivers.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def stop(self) -> None:
        """Close all links; :meth:`run` returns within the close timeout."""
        self._stop.set()

    def carry_out(self, name: str, effects: Sequence[Effect]) -> None:
        """Carry out effects of a link that was called by the sink on its own account (``reconcile``)."""
        driver = self._drivers.get(name)
        if driver is not None:
            driver.carry_out(effects)

    def restart(self, reason: str) -> None:
        """Start every open session over at once.

        Due after our clock was anchored anew: the links' deadlines are instants of the old one, and a clock that was
        set back by an hour would keep their watchdogs asleep for as long.
        """
        for driver in self._drivers.values():
            driver.restart(reason)

    def health(self) -> dict[str, LinkHealth]:
        """The state of every link by its name, for readiness and metrics. The values are live: read, do not keep."""
        return {name: driver.health for name, driver in self._drivers.items()}

    def waiting(self) -> dict[str, Waiting]:
        """What waits in every link by its name."""
        return {name: driver.waiting for name, driver in self._drivers.items()}

    def _start(self, name: str, link: Link, limits: DriverLimits) -> None:
        assert self._group is not None and self._session is not None
        driver = LinkDriver(link, self._sink, self._session, clock=self._clock, rng=self._rng, limits=limits)
        self._drivers[name] = driver
        self._tasks[name] = self._group.create_task(driver.run(), name=f"link {name}")
