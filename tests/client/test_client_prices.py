"""The client against a real server on a free port: what a keeper sees, and what it does when hubs go away."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from oracle_hub.client import HubUnreachable, NoPrice, Price, Prices, Refusal, Update, connect
from oracle_hub.client.dialing import why_closed
from oracle_hub.client.state import GiveUp, Reconnect
from oracle_hub.errors import StreamError
from tests.client.client_stage import HubStage, turns_until, until


@pytest.fixture
async def hub() -> AsyncIterator[HubStage]:
    stage = await HubStage().start()
    yield stage
    await stage.server.stop("the test is over")


def mantissa(update: Update) -> int | None:
    return None if update.price is None else update.price.mantissa


def refusal(prices: Prices, feed: str, max_age_ms: int | None = None) -> Refusal:
    with pytest.raises(NoPrice) as caught:
        prices.get(feed, max_age_ms)
    assert caught.value.feed == feed
    return caught.value.reason


async def test_a_price_is_at_hand_as_soon_as_the_client_is_open(hub: HubStage) -> None:
    async with hub.client(["SOL/USD"]) as prices:
        price = prices.get("SOL/USD")
        decision = hub.service.decisions["SOL/USD"]
        assert (price.mantissa, price.expo, price.state, price.source) == (15_000_000_000, -8, "live", "doves")
        assert (price.rule, price.reason, price.publish_time_us) == ("R1", "agreed", decision.publish_us)
        assert str(price.decimal) == "150.00000000"
        assert (price.valid_until_us, price.epoch, price.seq) == (decision.valid_until_us, hub.service.epoch, 3)
        assert price.instance == hub.service.instance
        assert decision.valid_until_us is not None and price.lease_left_us is not None
        left_us = decision.valid_until_us - hub.service.clock_us
        assert 0 <= left_us - price.lease_left_us < 1_000
        assert prices.hub is not None and prices.hub.feeds == ["SOL/USD", "BTC/USD"]


async def test_news_come_in_order_and_callbacks_at_once(hub: HubStage) -> None:
    lives: list[Update] = []
    nones: list[Update] = []
    async with hub.client(["SOL/USD"], on_live=lives.append, on_none=nones.append) as prices:
        assert mantissa(await anext(prices)) == 15_000_000_000
        hub.tick("SOL/USD", 15_010_000_000)
        assert mantissa(await anext(prices)) == 15_010_000_000
        batch = hub.service.wait(hub.service.decisions["SOL/USD"].valid_until_us or 0)
        assert batch is not None
        assert refusal(prices, "SOL/USD") is Refusal.LEASE_OVER  # before the hub has said so
        hub.server.publish(batch)
        none = await until(prices, lambda update: update.entry is not None and update.entry.state == "none")
        assert none.price is None and none.refusal is not None and none.refusal.reason is Refusal.NONE
        assert refusal(prices, "SOL/USD") is Refusal.NONE
        hub.tick("SOL/USD", 15_020_000_000)
        assert mantissa(await anext(prices)) == 15_020_000_000
    assert [mantissa(update) for update in lives] == [15_000_000_000, 15_020_000_000]
    assert [update.price for update in nones] == [None, None]  # the second: closed
    assert refusal(prices, "SOL/USD") is Refusal.DISCONNECTED


async def test_refusals_are_typed(hub: HubStage) -> None:
    async with hub.client(["SOL/USD", "NO/USD"]) as prices:
        assert prices.rejected == {"NO/USD": "unknown_feed"}
        assert refusal(prices, "NO/USD") is refusal(prices, "BTC/USD") is Refusal.UNKNOWN_FEED
        hub.service.clock_us += 2_000_000
        assert isinstance(prices.get("SOL/USD", 3_000), Price)
        assert refusal(prices, "SOL/USD", 2_000) is Refusal.TOO_OLD
        hub.service.clock_us += 8_000_000
        assert refusal(prices, "SOL/USD") is Refusal.LEASE_OVER


async def test_a_slow_reader_gets_the_newest_and_what_lay_between(hub: HubStage) -> None:
    async with hub.client(["SOL/USD"]) as prices:
        await anext(prices)
        for step in (3, 9, 1, 5):
            last = hub.tick("SOL/USD", 15_000_000_000 + step)
        await turns_until(lambda: prices.stats.updates == 5)
        update = await anext(prices)
        assert (mantissa(update), update.seq) == (15_000_000_005, last.seq)
        assert (update.merged.n, update.merged.low, update.merged.high) == (4, 15_000_000_001, 15_000_000_009)
        assert not update.merged.was_none and not update.lost


async def test_mode_all_gives_every_decision(hub: HubStage) -> None:
    async with hub.client(["SOL/USD"], mode="all", detail="full") as prices:
        for step in range(1, 6):
            hub.tick("SOL/USD", 15_000_000_000 + step)
        seen = [await anext(prices) for _ in range(6)]
        assert [update.entry.price for update in seen if update.entry] == [str(15_000_000_000 + n) for n in range(6)]
        assert seen[-1].price is not None and seen[-1].price.inputs is not None
        assert list(seen[-1].price.inputs) == ["doves", "chainlink", "pyth"]


@pytest.mark.parametrize("mode", ["latest", "all"])
async def test_after_a_lost_connection_nothing_is_missing(hub: HubStage, mode: Any) -> None:
    async with hub.client(["SOL/USD"], mode=mode) as prices:
        await anext(prices)
        for client in hub.server._subscribers._clients if hub.server._subscribers else ():
            client.transport.abort()
        gone = await anext(prices)
        assert gone.refusal is not None and gone.refusal.reason is Refusal.DISCONNECTED
        for step in (1, 2, 3):
            hub.tick("SOL/USD", 15_000_000_000 + step)
        hub.service.clock_us += 2_000_000  # the time to come back
        last = await until(prices, lambda update: mantissa(update) == 15_000_000_003)
        assert not last.lost
        if mode == "latest":
            assert (last.merged.n, last.merged.was_none) == (3, False)
        stats = prices.stats
        assert (stats.reconnects, stats.gaps, stats.digest_mismatches) == (1, 0, 0)


async def test_goaway_sends_the_client_to_the_next_hub_and_nothing_goes_back(hub: HubStage) -> None:
    other = await HubStage(instance="6f1c2d3e-0000-4000-8000-000000000002").start()
    hub.service.clock_us += 1_000_000
    hub.tick("SOL/USD", 15_000_000_777)
    async with hub.client(["SOL/USD"], other.url) as prices:
        await anext(prices)
        await hub.server.stop("shutdown")
        await turns_until(lambda: prices.stats.connected and prices.stats.url == other.url)
        assert refusal(prices, "SOL/USD") is Refusal.TOO_OLD
        assert prices.stats.held_back == 1
        other.service.clock_us = hub.service.clock_us
        other.tick("SOL/USD", 15_000_000_888)
        assert mantissa(await until(prices, lambda update: update.price is not None)) == 15_000_000_888
    await other.server.stop("the test is over")


async def test_the_end_of_a_lease_is_told_without_the_hub(hub: HubStage) -> None:
    nones: list[Update] = []
    async with hub.client(["SOL/USD"], on_none=nones.append) as prices:
        assert mantissa(await anext(prices)) == 15_000_000_000
        hub.service.clock_us += 10_000_000
        prices._telling.on_timer()
        assert [update.refusal and update.refusal.reason for update in nones] == [Refusal.LEASE_OVER]
        update = await anext(prices)
        assert (update.price, update.entry) == (None, None)


async def test_a_silent_hub_is_left(hub: HubStage) -> None:
    async with hub.client(["SOL/USD"]) as prices:
        hub.service.clock_us += 3 * 3_600_000_000  # 2.5 heartbeats, and what clocks may drift
        assert refusal(prices, "SOL/USD") is Refusal.DISCONNECTED
        prices._telling.on_timer()
        assert not prices.stats.connected
        hub.service.clock_us += 1_000_000  # the time to come back
        await turns_until(lambda: prices.stats.connected)
        assert (prices.stats.reconnects, prices.stats.last_error is not None) == (1, True)


async def test_a_subscription_that_no_hub_takes_is_an_error(hub: HubStage) -> None:
    with pytest.raises(StreamError, match=r"unsupported_option"):
        async with hub.client(["SOL/USD"], mode="all", max_hz=5):
            pass


async def test_no_hub_is_an_error_that_names_what_was_tried(hub: HubStage) -> None:
    await hub.server.stop("gone")
    with pytest.raises(HubUnreachable, match=hub.url):
        async with connect(hub.url, ["SOL/USD"], open_timeout_s=0.3):
            pass


@pytest.mark.parametrize("urls", [[], ["http://127.0.0.1/"], ["ws://user:secret@127.0.0.1/"]])
def test_addresses_are_checked(urls: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        connect(urls, ["SOL/USD"])
    assert "secret" not in str(caught.value)


def test_feeds_are_named() -> None:
    with pytest.raises(ValueError, match="feeds is empty"):
        connect("ws://127.0.0.1/", [])


async def test_a_failing_callback_harms_nobody(hub: HubStage) -> None:
    def fail(update: Update) -> None:
        raise RuntimeError(update.feed)

    async with hub.client(["SOL/USD"], on_live=fail) as prices:
        assert mantissa(await anext(prices)) == 15_000_000_000
        assert prices.stats.callback_errors == 1


async def test_after_a_stall_only_the_newest_is_told(hub: HubStage) -> None:
    async with hub.client(["SOL/USD"]) as prices:
        await anext(prices)
        for step in range(1, 301):  # 1 ms apart by the hub's clock, before the client's task gets a turn
            last = hub.tick("SOL/USD", 15_000_000_000 + step)
        told = [await anext(prices)]
        # At most three pieces: what the kernel held, what waited in the hub's transport, and what the hub merged since.
        while mantissa(told[-1]) != 15_000_000_300:
            told.append(await anext(prices))
        assert told[-1].seq == last.seq
        assert sum(update.merged.n for update in told) == 300
        assert len(told) <= 3
        assert prices.stats.updates > 20  # so it is the client that merged most of these, not the hub
        assert prices.stats.drained > 0


async def test_mode_all_stops_reading_rather_than_growing_and_loses_nothing(hub: HubStage) -> None:
    async with hub.client(["SOL/USD"], mode="all") as prices:
        for step in range(1, 5_001):
            hub.tick("SOL/USD", 15_000_000_000 + step)
            if step % 50 == 0:
                await asyncio.sleep(0)
        await turns_until(lambda: prices._state.full)
        for _ in range(100):
            await asyncio.sleep(0)
        assert prices.stats.updates == 4_096
        seen: list[int] = []
        while len(seen) < 5_001:
            update = await anext(prices)
            if update.entry is not None:
                assert not update.lost
                seen.append(int(update.entry.price or 0) - 15_000_000_000)
        assert seen == list(range(5_001))


async def test_a_full_hub_is_named_and_not_pressed() -> None:
    hub = await HubStage().start(max_clients=0)
    with pytest.raises(HubUnreachable, match="refused with HTTP 503"):
        async with connect(hub.url, ["SOL/USD"], open_timeout_s=0.9):  # it is to wait for a second
            pass
    assert hub.server.refused == 1
    await hub.server.stop("the test is over")


LEFT_UNREAD = "more waited for us than server.max_unsent_bytes of the hub, or for too long"


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        (4001, Reconnect(f"closed with 4001 too_slow: {LEFT_UNREAD}")),
        (4003, Reconnect("closed with 4003 too_slow")),
        (4501, GiveUp("unauthorized", "the hub does not know this token any more (closed with 4501 too_slow)")),
        (4499, Reconnect("closed with 4499 too_slow")),
        (4500, GiveUp("4500", "the hub does not want us back: closed with 4500 too_slow")),
        (4999, GiveUp("4999", "the hub does not want us back: closed with 4999 too_slow")),
        (1012, Reconnect("closed with 1012 too_slow")),
        (None, Reconnect("closed with 1006")),
    ],
)
def test_close_codes_say_whether_to_come_back(code: int | None, ended: Reconnect | GiveUp) -> None:
    received = None if code is None else Close(code, "too_slow")
    assert why_closed(ConnectionClosedError(received, None)) == ended
