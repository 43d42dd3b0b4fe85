"""The binary subprotocol on a real socket: agreed on in the handshake, and then only prices are binary."""

import orjson
import pytest
from websockets.asyncio.client import connect as open_websocket
from websockets.typing import Subprotocol

from oracle_hub.client import connect
from oracle_hub.stream import binary
from oracle_hub.stream.messages import BINARY_SUBPROTOCOL, SUBPROTOCOL, Resume
from tests.client.client_stage import HubStage, until

SUBSCRIBE = '{"type":"subscribe","id":1,"feeds":["SOL/USD"]}'


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([BINARY_SUBPROTOCOL, SUBPROTOCOL], BINARY_SUBPROTOCOL),
        ([SUBPROTOCOL, BINARY_SUBPROTOCOL], SUBPROTOCOL),
        ([BINARY_SUBPROTOCOL], BINARY_SUBPROTOCOL),
        (None, None),
    ],
)
async def test_the_first_form_that_was_offered_is_spoken(offered: list[str] | None, chosen: str | None) -> None:
    hub = await HubStage().start()
    names = None if offered is None else [Subprotocol(name) for name in offered]
    async with open_websocket(hub.url, subprotocols=names) as socket:
        assert socket.subprotocol == chosen
        assert orjson.loads(await socket.recv(decode=True))["protocol"] == (chosen or SUBPROTOCOL)
        await socket.send(SUBSCRIBE)
        assert orjson.loads(await socket.recv())["type"] == "subscribed"
        snapshot = await socket.recv()
        assert isinstance(snapshot, bytes) is (chosen == BINARY_SUBPROTOCOL)
        hub.tick("SOL/USD", 15_000_000_007)
        hub.server.heartbeat()
        for kind in ("update", "heartbeat"):
            news = await socket.recv()
            assert isinstance(news, bytes) is (chosen == BINARY_SUBPROTOCOL)
            told = orjson.loads(binary.as_json(news) if isinstance(news, bytes) else news)
            assert told["type"] == kind
    await hub.server.stop("test")


async def test_requests_stay_text_in_the_binary_subprotocol() -> None:
    hub = await HubStage().start()
    async with open_websocket(hub.url, subprotocols=[Subprotocol(BINARY_SUBPROTOCOL)]) as socket:
        await socket.recv()
        await socket.send(SUBSCRIBE.encode())
        error = orjson.loads(await socket.recv(decode=True))
        assert (error["code"], error["message"]) == ("binary_message", "oraclehub.v1.bin takes text messages only")
    await hub.server.stop("test")


async def test_the_python_client_reads_both_forms_alike() -> None:
    hub = await HubStage().start()
    async with hub.client(binary=True) as compact, hub.client() as plain:
        assert (compact.hub and compact.hub.protocol, plain.hub and plain.hub.protocol) == (
            BINARY_SUBPROTOCOL,
            SUBPROTOCOL,
        )
        assert compact.get("SOL/USD") == plain.get("SOL/USD")
        batch = hub.tick("SOL/USD", 15_000_000_009)
        told = [await until(prices, lambda update: update.seq == batch.seq) for prices in (compact, plain)]
        assert told[0].entry == told[1].entry
        assert compact.get("SOL/USD").mantissa == 15_000_000_009
    await hub.server.stop("test")


async def test_a_resume_is_replayed_in_the_binary_form() -> None:
    hub = await HubStage().start()
    seq, epoch, instance = hub.service.seq, hub.service.epoch, hub.service.instance
    batches = [hub.tick("SOL/USD", 15_000_000_100 + index) for index in range(3)]
    resume = Resume(epoch, seq, instance)
    async with connect(hub.url, ["SOL/USD"], mode="all", resume=resume, binary=True) as prices:
        heard = [await anext(prices) for _ in batches]
    assert [(update.seq, update.replayed) for update in heard] == [(batch.seq, True) for batch in batches]
    assert [update.entry and update.entry.price for update in heard] == ["15000000100", "15000000101", "15000000102"]
    await hub.server.stop("test")
