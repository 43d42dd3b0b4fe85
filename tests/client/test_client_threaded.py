"""The client for programs without an event loop, against a real server."""

import asyncio
import threading
from typing import Any

import pytest

from oracle_hub.client import HubUnreachable, NoPrice, Refusal, open_prices
from tests.client.client_stage import HubStage


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
