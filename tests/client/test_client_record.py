"""Keeping a record with the client: everything once, known until when, and resumed after a restart."""

import pytest

from oracle_hub.client import Taken, connect
from oracle_hub.stream.messages import Resume
from tests.client.client_stage import HubStage


@pytest.fixture
async def hub() -> HubStage:
    return await HubStage().start()


def told(taken: Taken | None) -> list[tuple[str, str | None, bool, bool]]:
    assert taken is not None
    return [(one.feed, one.entry.price, one.replayed, one.lost) for one in taken.updates if one.entry is not None]


async def test_what_was_taken_is_complete_until_the_time_that_is_told(hub: HubStage) -> None:
    async with hub.client(mode="all") as prices:
        first = await prices.take()
        assert told(first) == [("SOL/USD", "15000000000", False, False), ("BTC/USD", "15000000001", False, False)]
        assert first is not None and first.heard_us == hub.service.clock_us
        assert {one.instance for one in first.updates} == {hub.service.instance}
        hub.tick("SOL/USD", 15_000_000_002)
        assert told(await prices.take()) == [("SOL/USD", "15000000002", False, False)]
        hub.service.clock_us += 250_000
        hub.server.heartbeat()  # nothing happened, and that is known now
        quiet = await prices.take()
        assert quiet == Taken([], hub.service.clock_us)
    left = await prices.take()
    assert left is not None and [one.entry for one in left.updates] == [None, None]  # our own news: no connection
    assert await prices.take() is None
    await hub.server.stop("the test is over")


async def test_a_part_that_is_taken_is_not_called_complete(hub: HubStage) -> None:
    async with hub.client(mode="all") as prices:
        before = await prices.take(limit=1)
        assert before is not None and (len(before.updates), before.heard_us) == (1, None)
        after = await prices.take(limit=1)
        assert after is not None and (len(after.updates), after.heard_us) == (1, hub.service.clock_us)
    await hub.server.stop("the test is over")


async def test_a_program_that_kept_a_record_goes_on_where_it_stopped(hub: HubStage) -> None:
    point = Resume(hub.service.epoch, hub.service.seq, hub.service.instance)
    for step in range(3):
        hub.tick("SOL/USD", 15_000_000_100 + step)
    async with hub.client(mode="all", resume=point) as prices:
        taken = await prices.take()
        replayed = [("SOL/USD", f"1500000010{step}", True, False) for step in range(3)]
        snapshot = [("BTC/USD", "15000000001", False, False)]  # SOL/USD is as the replay has told
        assert told(taken) == replayed + snapshot
        assert taken is not None and taken.heard_us == hub.service.clock_us
    await hub.server.stop("the test is over")


@pytest.mark.parametrize("instance", ["another", None])
async def test_what_cannot_be_had_again_is_told_as_lost(hub: HubStage, instance: str | None) -> None:
    epoch = hub.service.epoch - (instance is None)  # a life before this one
    point = Resume(epoch, 7, instance or hub.service.instance)
    async with hub.client(mode="all", resume=point) as prices:
        assert [lost for *_, lost in told(await prices.take())] == [True, True]
    await hub.server.stop("the test is over")


async def test_a_record_begins_with_the_first_decision_of_a_hub_that_has_it_yet(hub: HubStage) -> None:
    first = HubStage()
    first.service.first_epoch = first.service.epoch
    await first.start()
    async with first.client(mode="all", resume="first") as prices:
        taken = await prices.take()
    assert taken is not None
    assert [(one.seq, one.feed, one.replayed, one.lost) for one in taken.updates] == [
        (1, "SOL/USD", True, False), (1, "BTC/USD", True, False),
        (2, "SOL/USD", True, False), (3, "BTC/USD", True, False),
    ]  # fmt: skip
    await first.server.stop("the test is over")
    async with hub.client(mode="all", resume="first") as prices:
        taken = await prices.take()
    assert taken is not None and {(one.replayed, one.lost) for one in taken.updates} == {(False, False)}


async def test_a_client_that_need_not_wait_is_open_before_its_hub() -> None:
    async with connect("ws://127.0.0.1:9/v1/stream", ["*"], mode="all", wait=False) as prices:
        assert prices.hub_time_us is None and not prices.stats.connected
    assert await prices.take() is None


def test_only_a_record_of_everything_can_be_resumed() -> None:
    with pytest.raises(ValueError, match="mode"):
        connect("ws://127.0.0.1:9/v1/stream", ["*"], resume=Resume(1, 1, "x"))
