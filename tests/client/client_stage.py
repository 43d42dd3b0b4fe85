"""A hub's server, and one clock for hub and client that is set by hand."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from oracle_hub.client import Prices, Update, connect
from oracle_hub.core.hub import Batch
from oracle_hub.server.http import Server
from oracle_hub.server.service import ServerSettings
from tests.patience import PATIENCE_S
from tests.server.stream_service import HubService

SETTINGS = ServerSettings(port=0, heartbeat_ms=3_600_000, close_grace_ms=200, retry_after_ms=50)


class HubStage:
    """One hub that listens."""

    def __init__(self, *feeds: str, instance: str = HubService.instance, epoch: int = 1_790_000_000) -> None:
        self.service = HubService(*(feeds or ("SOL/USD", "BTC/USD")), epoch=epoch)
        self.service.instance = instance
        self.server = Server(self.service, SETTINGS)
        self.url = ""

    async def start(self, **settings: Any) -> "HubStage":
        """Listen on a free port, with prices for all feeds published."""
        self.server = Server(self.service, msgspec.structs.replace(SETTINGS, **settings))
        if self.service.first_epoch is not None:
            self.server.publish(self.service.first)  # before there is anybody to tell, as the program does
        host, port = await self.server.start()
        self.url = f"ws://{host}:{port}/v1/stream"
        for index, feed in enumerate(self.service.decisions):
            self.tick(feed, 15_000_000_000 + index)
        return self

    def tick(self, feed: str, mantissa: int, *sources: str) -> Batch:
        """A price, decided and published."""
        batch = self.service.tick(feed, mantissa, *sources)
        self.server.publish(batch)
        return batch

    def client(self, feeds: Sequence[str] = ("*",), *more_urls: str, **options: Any) -> Prices:
        """A client on this hub's clock, which starts where monotonic clocks start."""
        start_us = self.service.clock_us - 5_000_000

        def clock_us() -> int:
            return self.service.clock_us - start_us

        return connect([self.url, *more_urls], feeds, **{"clock_us": clock_us, **options})


async def until(prices: Prices, wanted: Any) -> Update:
    """Read news until one is as wanted."""
    async for update in prices:
        if wanted(update):
            return update
    raise AssertionError("the client ended")


async def turns_until(true: Callable[[], bool]) -> None:
    """Let the event loop turn until something is true; fails the test when it never is."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what is awaited has no event of its own
            await asyncio.sleep(0)
