"""Two hubs, a client that knows both, and each hub replaced in turn: what docs/runbook.md promises to keepers."""

import asyncio
import signal
import time
from contextlib import suppress

from feeds.emulator.emulator import Emulator
from oracle_hub.client import NoPrice, Update, connect
from tests.ports import free_ports
from tests.system.conftest import Launch
from tests.system.process import FEEDS, Subscriber, hub_config, patiently, subscriber

BOUND_S = 5.0
"""How long a feed may be without a price at a time on a busy machine: less than the lease that a hub leaves behind. On
an idle one it is some ten milliseconds."""


class Keeper:
    """Uses prices, and writes down for how long it had none, and that nothing went back."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.outages = 0
        self.instances: list[tuple[str, int]] = []
        """(instance, epoch) of each hub that told prices, in order."""
        self._without_since_s: dict[str, float] = {}
        self._publish_us: dict[str, int] = {}
        self._news = asyncio.Condition()

    def without(self, update: Update) -> None:
        self._without_since_s.setdefault(update.feed, time.monotonic())

    def again(self, update: Update) -> None:
        since_s = self._without_since_s.pop(update.feed, None)
        if since_s is not None:
            self.longest_s = max(self.longest_s, time.monotonic() - since_s)
            self.outages += 1

    async def take(self, update: Update) -> None:
        price = update.price
        if price is None:
            return
        if price.publish_time_us is not None:
            assert price.publish_time_us >= self._publish_us.get(update.feed, 0), "a price went back"
            self._publish_us[update.feed] = price.publish_time_us
        if not self.instances or self.instances[-1] != (price.instance, price.epoch):
            self.instances.append((price.instance, price.epoch))
        async with self._news:
            self._news.notify_all()

    async def served_by(self, instance: str, epoch: int) -> None:
        """Wait until every feed has a price again, told by this hub."""

        def served() -> bool:
            return self.instances[-1:] == [(instance, epoch)] and not self._without_since_s

        async with self._news:
            await patiently(self._news.wait_for(served), f"prices of epoch {epoch}")


async def rest(client: Subscriber) -> None:
    """Listen to a hub for two seconds by its own clock: whoever was sent away by ``goaway`` may be back by then."""
    began = await client.until(lambda message: message["type"] == "heartbeat", "a heartbeat")
    until_us = began["server_time_us"] + 2_000_000
    await client.until(
        lambda message: message["type"] == "heartbeat" and message["server_time_us"] >= until_us, "two seconds"
    )


async def test_keepers_notice_next_to_nothing_when_one_hub_after_the_other_is_replaced(
    launch: Launch, chain: Emulator
) -> None:
    config, ports = hub_config(chain.urls), free_ports(2)
    hubs = [await launch("--port", port, config=config, state=name) for port, name in zip(ports, "ab", strict=True)]
    for hub in hubs:
        async with subscriber(hub) as client:
            await client.all_in("live")
    first, second = (hub.hello["instance"] for hub in hubs)
    assert first != second
    urls = [hub.url.replace("http", "ws", 1) + "/v1/stream" for hub in hubs]
    keeper = Keeper()

    async with connect(urls, FEEDS, on_none=keeper.without, on_live=keeper.again) as prices:

        async def trade() -> None:
            async for update in prices:
                await keeper.take(update)

        trading = asyncio.create_task(trade())
        try:
            await keeper.served_by(first, hubs[0].hello["epoch"])
            away_s: list[float] = []
            for turn, other in ((0, 1), (1, 0)):
                ended = time.monotonic()
                assert await hubs[turn].end() == 0
                await keeper.served_by(hubs[other].hello["instance"], hubs[other].hello["epoch"])
                hubs[turn] = await launch("--port", ports[turn], config=config, state="ab"[turn])
                async with subscriber(hubs[turn]) as client:  # the next one goes when this one is as good
                    await client.all_in("live")
                    await rest(client)
                away_s.append(time.monotonic() - ended)
            with suppress(NoPrice):  # a lease may end at this very instant; what counts is the longest time without
                assert prices.get("SOL/USD").instance == hubs[0].hello["instance"]
        finally:
            trading.cancel()
            with suppress(asyncio.CancelledError):
                await trading

    a, b = hubs
    assert keeper.instances == [
        (first, keeper.instances[0][1]),
        (second, keeper.instances[1][1]),
        (first, a.hello["epoch"]),
    ]
    assert a.hello["epoch"] > keeper.instances[0][1] and b.hello["epoch"] > keeper.instances[1][1]
    assert keeper.outages <= 2 * len(FEEDS)  # each feed once for each hub that went
    assert keeper.longest_s < min(away_s), (keeper.longest_s, away_s)  # it did not wait for the hub that was away
    print(f"longest time without a price {keeper.longest_s * 1e3:.1f} ms, {keeper.outages} outages; away {away_s}")


async def test_a_hub_that_is_killed_costs_keepers_next_to_nothing(launch: Launch, chain: Emulator) -> None:
    hubs = [await launch(config=hub_config(chain.urls), state=name) for name in "ab"]
    for hub in hubs:
        async with subscriber(hub) as client:
            await client.all_in("live")
    urls = [hub.url.replace("http", "ws", 1) + "/v1/stream" for hub in hubs]
    keeper = Keeper()
    async with connect(urls, FEEDS, on_none=keeper.without, on_live=keeper.again) as prices:

        async def trade() -> None:
            async for update in prices:
                await keeper.take(update)

        trading = asyncio.create_task(trade())
        try:
            await keeper.served_by(hubs[0].hello["instance"], hubs[0].hello["epoch"])
            hubs[0].send_signal(signal.SIGKILL)
            await keeper.served_by(hubs[1].hello["instance"], hubs[1].hello["epoch"])
        finally:
            trading.cancel()
            with suppress(asyncio.CancelledError):
                await trading
    assert keeper.longest_s < BOUND_S and keeper.outages <= len(FEEDS)
    print(f"longest time without a price {keeper.longest_s * 1e3:.1f} ms")
