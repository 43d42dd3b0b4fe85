"""A program that stands still, or lets its updates wait: what it is told meanwhile, and when it goes on."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

from oracle_hub.client import NoPrice, Prices, Refusal, Update
from tests.client.client_stage import HubStage, turns_until
from tests.patience import PATIENCE_S

HALF_SECOND_US = 500_000
LONG_US = 4 * 3_600_000_000
"""More than 2.5 heartbeats of the stage."""


@pytest.fixture
async def hub() -> AsyncIterator[HubStage]:
    stage = await HubStage().start()
    yield stage
    await stage.server.stop("the test is over")


def arrived(prices: Prices) -> None:
    """Wait, without a turn of the event loop, until the kernel has something for the client."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not prices._telling._has_unread():
        assert time.monotonic() < deadline_s, "nothing arrived"


def mantissas(updates: list[Update]) -> dict[str, int | None]:
    return {update.feed: None if update.price is None else update.price.mantissa for update in updates}


async def test_what_arrived_meanwhile_comes_before_older_news(hub: HubStage) -> None:
    async with hub.client() as prices:
        first = await anext(prices)  # of two feeds: news of the other one waits
        hub.service.clock_us += HALF_SECOND_US  # here the program computes for half a second
        hub.tick("SOL/USD", 15_000_000_100)
        hub.tick("BTC/USD", 15_000_000_200)
        arrived(prices)
        then = [await anext(prices), await anext(prices)]
        assert first.feed == "SOL/USD"
        assert mantissas(then) == {"SOL/USD": 15_000_000_100, "BTC/USD": 15_000_000_200}


async def test_one_who_takes_what_is_there_takes_what_arrived_meanwhile(hub: HubStage) -> None:
    async with hub.client(mode="all") as prices:
        await prices.take(limit=1)
        hub.service.clock_us += HALF_SECOND_US
        last = hub.tick("BTC/USD", 15_000_000_200)
        arrived(prices)
        taken = await prices.take()
        assert taken is not None and taken.heard_us == hub.service.clock_us
        assert [update.price is not None for update in taken.updates] == [False, True]  # the older one is a record only
        assert taken.updates[-1].seq == last.seq


async def test_whoever_never_catches_up_is_told_all_the_same(hub: HubStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oracle_hub.client.telling.DRAIN_LIMIT_S", 0.0)
    monkeypatch.setattr("oracle_hub.client.prices.has_unread", lambda _: True)
    async with hub.client() as prices:
        hub.service.clock_us += HALF_SECOND_US
        async with asyncio.timeout(PATIENCE_S):
            assert {(await anext(prices)).feed, (await anext(prices)).feed} == {"SOL/USD", "BTC/USD"}


@pytest.mark.parametrize("looked", [True, False], ids=["after a look at the socket", "before it"])
async def test_a_program_that_wakes_does_not_take_its_own_silence_for_the_hubs(hub: HubStage, looked: bool) -> None:
    nones: list[Update] = []
    async with hub.client(["SOL/USD"], on_none=nones.append) as prices:
        await anext(prices)
        heard = prices.stats.messages
        hub.service.clock_us += LONG_US
        hub.tick("SOL/USD", 15_000_000_100)
        hub.server.heartbeat()
        arrived(prices)
        # After a stall the deadline and what has arrived are found by the same turn of the loop. Where the process was
        # stopped, the wait of that turn is interrupted, and it finds the deadline only.
        loop = asyncio.get_running_loop()
        if looked:
            loop.call_at(loop.time(), prices._telling.on_deadline)
        else:
            prices._telling.on_deadline()
        await turns_until(lambda: prices.stats.messages >= heard + 2)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (prices.stats.reconnects, prices.stats.connected, prices.stats.last_error) == (0, True, None)
        assert mantissas([await anext(prices)]) == {"SOL/USD": 15_000_000_100}
        assert nones == []


async def test_a_lease_ends_also_while_updates_wait_for_the_program(
    hub: HubStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    nones: list[Update] = []
    async with hub.client(["SOL/USD"], mode="all", on_none=nones.append) as prices:
        prices._state._min_queue = 10  # as if so much waited already
        for step in range(20):
            hub.tick("SOL/USD", 15_000_000_100 + step)
        await turns_until(lambda: prices._state.full)
        assert nones == []
        end_us = hub.service.decisions["SOL/USD"].valid_until_us
        assert end_us is not None
        hub.service.clock_us = end_us + 1  # the hub says so too, but that is not read
        monkeypatch.setattr("oracle_hub.client.prices.has_unread", lambda _: True)
        prices._telling.on_deadline()
        async with asyncio.timeout(PATIENCE_S):
            await turns_until(lambda: bool(nones))
        assert nones[0].refusal is not None and nones[0].refusal.reason is Refusal.LEASE_OVER
        assert prices._state.full and prices.stats.reconnects == 0


async def test_an_end_that_nobody_iterates_to_see_is_logged(hub: HubStage, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "oracle_hub.client.prices"):
        async with hub.client(["SOL/USD"], max_age_ms=-1, wait=False) as prices:
            await turns_until(lambda: prices.stats.last_error is not None)
            with pytest.raises(NoPrice, match="no connection"):
                prices.get("SOL/USD")
            why = prices.stats.last_error
    assert why is not None and "the hub refused the subscription (bad_message)" in why
    assert [record.getMessage() for record in caplog.records] == [
        f"the client has ended, and gives no price any more: {why}"
    ]


async def test_nobody_is_told_a_price_whose_lease_ended_while_another_was_told(hub: HubStage) -> None:
    told: list[tuple[str, str]] = []

    def live(update: Update) -> None:
        told.append((update.feed, "live"))
        hub.service.clock_us += 60_000_000  # the program takes a minute over the first

    def none(update: Update) -> None:
        assert update.refusal is not None
        told.append((update.feed, update.refusal.reason.value))

    async with hub.client(on_live=live, on_none=none):
        await turns_until(lambda: len(told) == 3)
    (feed, _), *then = told
    assert told[0] == (feed, "live") and sorted(then) == [("BTC/USD", "lease_over"), ("SOL/USD", "lease_over")]
