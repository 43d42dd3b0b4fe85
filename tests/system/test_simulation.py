"""The first command of a stranger: ``oracle-hub run``, with nothing else."""

import asyncio
import signal
from urllib.parse import urlsplit

import orjson
import pytest

from tests.system.conftest import Launch
from tests.system.process import FEEDS, check_leases, check_order, command, subscriber


async def test_five_feeds_are_live_and_marked_as_simulated(launch: Launch) -> None:
    hub = await launch()
    async with subscriber(hub) as client:
        await client.all_in("live")
        prices = await hub.get("/v1/prices")
        assert [(feed["feed"], feed["state"], feed["rule"], feed["source"]) for feed in prices["feeds"]] == [
            (feed, "live", "R1", "doves") for feed in FEEDS
        ]
        ready = await hub.get("/readyz")
        assert ready["ready"] is True and ready["missing"] == []
        hello = client.messages[0]
        for marked in (hello, prices, ready, hub.hello):
            assert marked["simulated"]["simulated"] is True
        assert (hello["instance"], hello["epoch"]) == (hub.hello["instance"], hub.hello["epoch"])
        await hub.logged("SIMULATED")
        assert (await hub.get("/livez")) == {"status": "ok"}
        explained = await command("explain", "SOL/USD", "--json", "--url", hub.url)
        answer = orjson.loads(explained.out)
        assert explained.status == 0 and (answer["feed"], answer["state"], answer["rule"]) == ("SOL/USD", "live", "R1")
        assert answer["simulated"]["simulated"] is True
        assert {name: one["verified"] for name, one in answer["inputs"].items()} == {
            "doves": False,
            "chainlink": False,
            "pyth": True,
        }
        followed = await command("tail", "SOL/USD", "--json", "--count", "1", "--url", hub.url)
        assert followed.status == 0
        assert [line["type"] for line in followed.lines][:3] == ["hello", "subscribed", "snapshot"]
        check_order(client)
        check_leases(client)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_with_a_goaway_even_beside_a_stuck_client(launch: Launch, number: signal.Signals) -> None:
    hub = await launch()
    port = urlsplit(hub.url).port
    _, stuck = await asyncio.open_connection("127.0.0.1", port, limit=1)  # reads nothing of what it asks for
    _, silent = await asyncio.open_connection("127.0.0.1", port)  # never says what it wants
    stuck.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with subscriber(hub) as client:
        await client.all_in("live")
        hub.send_signal(number)
        messages = await client.to_the_end()
        assert messages[-1]["type"] == "goaway" and messages[-1]["reason"] == "shutdown"
        assert client.close_code == 4000
    assert await hub.ended() == 0
    assert not [line for line in hub.log if "Traceback" in line or "CRITICAL" in line]
    for writer in (stuck, silent):
        writer.transport.abort()
