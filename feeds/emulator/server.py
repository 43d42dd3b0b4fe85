"""What every server of the emulator is: a host under a name, over a world that others share, with faults of its own."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from aiohttp import web

from feeds.emulator.accounts import Held
from feeds.emulator.faults import ActiveFault, Kind
from feeds.emulator.world import Change, World


class Server(ABC):
    """One host.

    Args:
        name: by which faults select it.
        world: what it tells.
        now_us: the clock.
    """

    ORACLE: ClassVar[str | None] = None
    """Whose prices it tells (:mod:`feeds.emulator.oracles`), and whose faults are its own; None: all of them."""

    def __init__(self, name: str, world: World, now_us: Callable[[], int]) -> None:
        self.name = name
        self._world = world
        self._now_us = now_us

    @abstractmethod
    def routes(self, app: web.Application) -> None:
        """Add its routes."""

    @abstractmethod
    def tell(self, changes: Sequence[Change]) -> None:
        """Tell whoever follows it what changed in the world."""

    @abstractmethod
    async def close(self) -> None:
        """End every connection in good order."""

    def _faults(self, *kinds: Kind) -> list[ActiveFault]:
        """What is wrong with it now, of these kinds."""
        active = self._world.faults.active(self._now_us(), *kinds)
        own = [fault for fault in active if fault.hits_endpoint(self.name)]
        return own if self.ORACLE is None else [fault for fault in own if self.ORACLE in fault.oracles]

    async def _slow_down(self) -> None:
        for fault in self._faults("slow"):
            await asyncio.sleep(fault.fault.delay_ms / 1_000)

    async def _hold_up(self, too_many: str | None = None) -> None:
        """What may befall any request: it waits, or is refused with 429 and this text."""
        await self._slow_down()
        for fault in self._faults("rate_limit"):
            raise web.HTTPTooManyRequests(text=too_many, headers={"Retry-After": str(fault.fault.retry_after_s)})

    def _told(self, changes: Sequence[Change]) -> Iterator[tuple[str, Held]]:
        """Feeds of its oracle with what each holds now, but for those that it is silent about."""
        silent = self._faults("silent")
        for change in changes:
            if change.oracle != self.ORACLE or change.held is None or change.endpoint not in (None, self.name):
                continue
            if not any(fault.hits(change.oracle, change.feed) for fault in silent):
                yield change.feed, change.held

    def _broken(self, frame: bytes) -> bytes:
        """A frame as it goes out: whole, or cut in half."""
        for fault in self._faults("malformed"):
            if fault.strike(self.name):
                return frame[: len(frame) // 2]
        return frame
