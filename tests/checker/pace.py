"""Waiting in a run that may be over at any time."""

import asyncio
import contextlib


class Pace:
    """Waits end when their time has come, or when the run is over."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    def end(self) -> None:
        """The run is over: nobody waits any longer."""
        self._over.set()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    async def until(self, at_s: float) -> None:
        """Wait for a time of the event loop's clock."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(at_s):
                await self._over.wait()

    async def wait(self, seconds: float) -> None:
        """Wait for so long."""
        await self.until(asyncio.get_running_loop().time() + seconds)

    async def ended(self) -> None:
        """Wait for the end of the run."""
        await self._over.wait()
