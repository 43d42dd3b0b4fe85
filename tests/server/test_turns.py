"""Who is told what was held back from him comes in slices, so that no price waits for thousands of them."""

import asyncio
import os

from oracle_hub.server.due import BEATS_OF_ONE
from oracle_hub.server.websocket import Subscribers
from tests.server.conftest import Peer, Stage
from tests.server.stream_service import HubService

SOL = "SOL/USD"


class WatchfulService(HubService):
    """Notes how often the loop had turned at each look at the clock."""

    def __init__(self, *feeds: str) -> None:
        self.turns, self.looks = 0, set[int]()
        super().__init__(*feeds)

    def now_us(self) -> int:
        self.looks.add(self.turns)
        return super().now_us()

    def turn(self) -> None:
        self.turns += 1
        asyncio.get_running_loop().call_soon(self.turn)


class HurriedService(HubService):
    """Every look at its clock takes longer than a slice may, when it is in a hurry."""

    hurried = False

    def now_us(self) -> int:
        self.clock_us += 2_000 if self.hurried else 0
        return self.clock_us


async def begun(stage: Stage, n: int) -> tuple[Subscribers, list[Peer]]:
    """So many were told of one batch and not of a second, and one of them in the first slice after."""
    stage.service = service = HurriedService(SOL, "BTC/USD")
    await stage.start(flush_interval_ms=1)
    peers = [await stage.subscriber(SOL, max_hz=10) for _ in range(n)]
    stage.tick(SOL, 15_010_000_000)
    stage.tick(SOL, 15_020_000_000)
    for peer in peers:
        assert (await peer.read())["conflated"] is False
    subscribers = stage.server._subscribers
    assert subscribers is not None
    service.clock_us += 100_000
    service.hurried = True
    before = subscribers.writes
    subscribers._flush_due()
    assert subscribers.writes == before + 1
    return subscribers, peers


async def test_a_slice_ends_and_the_next_goes_on_as_of_the_same_instant(stage: Stage) -> None:
    _, peers = await begun(stage, 4)
    told = [await peer.read() for peer in peers]
    assert [(each["feeds"][0]["price"], each["feeds"][0]["n"]) for each in told] == [("15020000000", 1)] * 4
    assert len({each["sent_us"] for each in told}) == 1  # so that it was encoded once


async def test_who_has_his_turn_after_a_batch_is_told_of_that_too(stage: Stage) -> None:
    _, peers = await begun(stage, 3)
    stage.tick(SOL, 15_030_000_000)
    told = sorted([await peer.read() for peer in peers], key=lambda each: each["sent_us"])
    assert [(each["feeds"][0]["price"], each["feeds"][0]["n"]) for each in told] == [
        ("15020000000", 1), ("15030000000", 2), ("15030000000", 2),
    ]  # fmt: skip
    assert told[0]["sent_us"] < told[1]["sent_us"]


async def test_who_leaves_before_his_turn_is_passed_over(stage: Stage) -> None:
    subscribers, peers = await begun(stage, 3)
    left = next(iter(subscribers._turns._entries))
    left.transport.abort()
    await left.gone.wait()
    stay = [each for each in peers if each.ws.get_extra_info("sockname") != left.transport.get_extra_info("peername")]
    assert [(await peer.read())["feeds"][0]["price"] for peer in stay] == ["15020000000"] * 2
    assert not subscribers._turns and not subscribers.errors


async def test_requests_that_come_together_are_taken_in_turns(stage: Stage) -> None:
    """Else one who asks for everything 64 times lets a price wait for all of it."""
    stage.service = service = WatchfulService(SOL, "BTC/USD")
    await stage.start()
    peer = await stage.connect()
    service.turn()
    service.looks.clear()
    ping = b'{"type":"ping"}'
    together = (bytes([0x81, 0x80 | len(ping), 0, 0, 0, 0]) + ping) * 5
    assert os.write(peer.ws.get_extra_info("socket").fileno(), together) == len(together)
    for _ in range(5):
        assert (await peer.read())["type"] == "pong"
    assert len(service.looks) >= 5


async def test_a_client_with_many_subscriptions_gets_each_heartbeat_once(stage: Stage) -> None:
    await stage.start()
    peer = await stage.subscriber(SOL)
    for _ in range(2 * BEATS_OF_ONE):
        await peer.send(type="subscribe", feeds=[SOL])
        assert [(await peer.read())["type"] for _ in range(2)] == ["subscribed", "snapshot"]
    assert stage.server._subscribers is not None
    stage.server._subscribers.heartbeat()
    told = [await peer.read() for _ in range(2 * BEATS_OF_ONE + 1)]
    assert [(each["type"], each["sub"]) for each in told] == [("heartbeat", n + 1) for n in range(2 * BEATS_OF_ONE + 1)]
    await peer.send(type="ping")
    assert (await peer.read())["type"] == "pong"
