"""What a worker tells while it does not hear its hub: no heartbeat, and nobody anything that he asks for."""

import asyncio

from oracle_hub.stream.messages import CloseCode
from tests.server.conftest import Stage


async def test_no_heartbeat_is_said_while_not_all_is_here(stage: Stage) -> None:
    await stage.start()
    client = await stage.subscriber("SOL/USD")
    stage.service.is_current = False
    stage.server.heartbeat()
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await client.read())["type"] == "update"  # news is news however late
    stage.service.is_current = True
    stage.server.heartbeat()
    assert (await client.read())["type"] == "heartbeat"


async def test_nobody_is_given_a_snapshot_while_not_all_is_here(stage: Stage) -> None:
    await stage.start()
    stage.service.is_current = False
    client = await stage.connect()
    await client.send(type="subscribe", feeds=["SOL/USD"])
    assert (await stage.get("/livez"))[0] == 200  # it is heard by now, and could have been answered
    stage.service.clock_us += 2_000_000
    stage.tick("SOL/USD", 15_010_000_000)
    stage.service.is_current = True
    assert (await client.read())["received_us"] >= stage.service.clock_us
    assert (await client.read())["feeds"][0]["price"] == "15010000000"
    stage.service.is_current = False
    await client.send(type="ping")
    _, code = await asyncio.gather(stage.server.stop("the end"), client.closed())
    assert code == CloseCode.SHUTDOWN  # while it waits, too
