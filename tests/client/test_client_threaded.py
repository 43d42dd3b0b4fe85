"""The client for programs without an event loop, against a real server."""

import asyncio
import threading
import time
from typing import Any

import pytest

from oracle_hub.client import HubUnreachable, NoPrice, Refusal, Update, open_prices
from tests.client.client_stage import HubStage, turns_until
from tests.patience import PATIENCE_S


def read(url: str, options: dict[str, Any]) -> tuple[list[int], int, Refusal]:
    """What a program without a loop does: ask, wait for news, leave."""
    seen = []
    with open_prices(url, ["SOL/USD"], **options) as prices:
        now = prices.get("SOL/USD").mantissa
        for update in prices:
            if update.price is not None:
                seen.append(update.price.mantissa)
                break
        with pytest.raises(TimeoutError):
            prices.next(0)
        assert prices.stats.connected and prices.rejected == {}
    with pytest.raises(NoPrice) as caught:
        prices.get("SOL/USD")
    assert prices.next() is None
    return seen, now, caught.value.reason


async def test_a_program_without_a_loop_asks_waits_and_leaves() -> None:
    hub = await HubStage().start()
    before = threading.active_count()
    options = {"clock_us": lambda: hub.service.clock_us}
    seen, now, after = await asyncio.to_thread(read, hub.url, options)
    assert (seen, now, after) == ([15_000_000_000], 15_000_000_000, Refusal.DISCONNECTED)
    assert all(thread.name != "oracle-hub client" for thread in threading.enumerate())
    assert threading.active_count() <= before + 1  # the pool's
    await hub.server.stop("the test is over")


async def test_an_unreachable_hub_leaves_no_thread() -> None:
    hub = await HubStage().start()
    await hub.server.stop("gone")

    def fail() -> None:
        with pytest.raises(HubUnreachable), open_prices(hub.url, ["SOL/USD"], open_timeout_s=0.2):
            pass

    await asyncio.to_thread(fail)
    assert all(thread.name != "oracle-hub client" for thread in threading.enumerate())


def poll(url: str, options: dict[str, Any], last: int) -> list[int]:
    """A program that looks for news between other work."""
    seen: list[int] = []
    deadline_s = time.monotonic() + PATIENCE_S
    with open_prices(url, ["SOL/USD"], mode="all", **options) as prices:
        while seen[-1:] != [last] and time.monotonic() < deadline_s:
            try:
                update = prices.next(0)
            except TimeoutError:
                continue
            assert update is not None
            if update.entry is not None:
                assert not update.lost
                seen.append(int(update.entry.price or 0))
    return seen


async def test_whoever_looks_without_waiting_misses_nothing() -> None:
    hub = await HubStage().start()
    options = {"clock_us": lambda: hub.service.clock_us}
    reading = asyncio.create_task(asyncio.to_thread(poll, hub.url, options, 15_000_000_300))
    await turns_until(lambda: hub.server.standing()["all"].clients == 1)
    for step in range(1, 301):
        hub.tick("SOL/USD", 15_000_000_000 + step)
        await asyncio.sleep(0)
    assert await reading == list(range(15_000_000_000, 15_000_000_301))
    await hub.server.stop("the test is over")


def close_in_callback(url: str, options: dict[str, Any]) -> list[str]:
    """A program whose callback does what would wait for itself."""
    refused: list[str] = []

    def on_live(update: Update) -> None:
        for forbidden in (prices.close, prices.next):
            try:
                forbidden()
            except RuntimeError as error:
                refused.append(str(error))
        assert prices.get(update.feed).mantissa == 15_000_000_000  # what is meant for callbacks

    prices = open_prices(url, ["SOL/USD"], on_live=on_live, **options)
    with prices:
        assert prices.stats.callback_errors == 0
    return refused


async def test_a_callback_that_would_wait_for_itself_is_refused() -> None:
    hub = await HubStage().start()
    async with asyncio.timeout(PATIENCE_S):
        refused = await asyncio.to_thread(close_in_callback, hub.url, {"clock_us": lambda: hub.service.clock_us})
    assert len(refused) == 2 and all("client's own thread" in text for text in refused)
    assert all(thread.name != "oracle-hub client" for thread in threading.enumerate())
    await hub.server.stop("the test is over")
