"""The clients that people have, unchanged but for the URL: from npm in Node, and pythclient; also over reconnects."""

import asyncio
import contextlib
import json
import shutil
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from oracle_hub.charts.app import Charts
from tests.charts.charts_stage import SECOND_US, ChartsStage
from tests.charts.hermes_stage import BTC, SOL, UNKNOWN, chosen_from_pyth
from tests.client.client_stage import turns_until
from tests.conftest import ROOT, require
from tests.patience import PATIENCE_S
from tests.ports import free_ports

JS = ROOT / "tests" / "js"
IDS = (SOL, BTC)


class Node:
    """A Node program on one of the clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
        message: dict[str, Any] = json.loads(line)
        return message

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not wanted(message := await self.read()):
            pass
        return message

    async def update(self, price: str) -> dict[str, Any]:
        """Read on to an update with this price."""
        return await self.until(lambda message: message["type"] == "update" and price in json.dumps(message))

    async def command(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.until(lambda message: message["type"] == "done")

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


@contextlib.asynccontextmanager
async def programs(what: str, *urls: str) -> AsyncIterator[list[Node]]:
    """One program per URL."""
    node = shutil.which("node")
    installed = (JS / "node_modules" / "@pythnetwork" / "hermes-client").is_dir()
    require(node is not None and installed, "node with tests/js/node_modules (npm ci --prefix tests/js)")
    pipe = asyncio.subprocess.PIPE
    started: list[Node] = []
    try:
        for url in urls:
            command = (str(node), str(JS / "hermes_clients.mjs"), what, url, *IDS)
            started.append(Node(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)))
        yield started
    finally:
        for program in started:
            await program.end()


async def some_history(stage: ChartsStage, charts: Charts) -> int:
    """Prices a second apart; returns the unix second in which the last ones were published."""
    for second in range(1, 4):
        stage.tick("SOL/USD", 15_000_000_000 + second, after_us=SECOND_US)
        stage.tick("BTC/USD", 6_000_000_000_000 + second)
    await stage.heard(charts)
    return stage.hub.service.clock_us // SECOND_US


@pytest.mark.parametrize("client", ["hermes", "hermes2"])
async def test_hermes_client_reads_everything(stage: ChartsStage, client: str) -> None:
    async with stage.charts() as charts:
        now_s = await some_history(stage, charts)
        async with programs(client, charts.url, f"{charts.url}/hermes") as (root, prefixed):
            told = await root.read()
            assert await prefixed.read() == told
    assert [one["attributes"]["symbol"] for one in told["feeds"]] == ["Crypto.SOL/USD"]
    sol, btc = told["latest"]["parsed"]
    assert (sol["id"], btc["id"]) == IDS
    assert (sol["price"]["price"], sol["price"]["publish_time"]) == ("15000000003", now_s)
    assert sol["metadata"]["prev_publish_time"] == now_s - 1
    assert (sol["oracle_hub"]["state"], sol["oracle_hub"]["rule"]) == ("live", "R1")  # it passes the client's schema
    assert told["encoded"]["binary"] == {"encoding": "base64", "data": []}
    assert f"Price ids not found: 0x{UNKNOWN}" in told["bad"]["error"]
    assert [one["id"] for one in told["ignored"]["parsed"]] == [SOL]
    assert [one["price"] for one in told["then"]["parsed"]] == [{**sol["price"], "conf": "3"}]


async def test_hermes_client_streams_and_comes_back(stage: ChartsStage) -> None:
    async with contextlib.AsyncExitStack() as stack:
        (port,) = free_ports(1)
        async with stage.charts(port=port) as charts:
            both = [charts.url, f"{charts.url}/hermes"]
            started = await stack.enter_async_context(programs("stream", *both))
            started += await stack.enter_async_context(programs("stream2", both[1]))
            for program in started:
                first = await program.until(lambda message: message["type"] == "update")
                assert [one["id"] for one in first["parsed"]] == list(IDS)
            stage.tick("SOL/USD", 15_000_111_000)
            for program in started:
                (entry,) = (await program.update("15000111000"))["parsed"]
                assert (entry["id"], entry["oracle_hub"]["feed"]) == (SOL, "SOL/USD")
        for program in started:
            await program.until(lambda message: message["type"] == "error")
        async with stage.charts(port=port):
            stage.tick("SOL/USD", 15_000_222_000)
            for program in started:
                await program.update("15000222000")


async def test_price_service_client_reads_everything(stage: ChartsStage) -> None:
    async with stage.charts() as charts:
        now_s = await some_history(stage, charts)
        async with programs("service", charts.url, f"{charts.url}/hermes") as (root, prefixed):
            told = await root.read()
            assert await prefixed.read() == told
    assert told["ids"] == sorted(IDS)
    assert [one["id"] for one in told["prices"]] == list(IDS)
    price = {"conf": "1", "expo": -8, "price": "15000000003", "publishTime": now_s}
    assert told["prices"][0]["price"] == price
    assert told["prices"][0]["ema"]["price"] == "15000000000"
    assert [one["emitterChain"] for one in told["metadata"]] == [26, 26]
    assert told["metadata"][0]["prevPublishTime"] == now_s - 1
    assert told["vaas"] == ["", ""]
    assert told["then"] == {**price, "conf": "3"}
    assert (told["bad"]["status"], told["bad"]["body"]) == (404, f"Price ids not found: 0x{UNKNOWN}")
    assert (told["signed"]["status"], told["signed"]["body"]) == (404, "Update data not found")


async def test_price_service_client_follows_the_websocket(stage: ChartsStage) -> None:
    async with contextlib.AsyncExitStack() as stack:
        (port,) = free_ports(1)
        async with stage.charts(port=port) as charts:
            # Without a slash at the end this client goes to /ws of the root.
            urls = [charts.url, f"{charts.url}/hermes/", f"{charts.url}/hermes"]
            started = await stack.enter_async_context(programs("socket", *urls))
            for program in started:
                first = await program.until(lambda message: message["type"] == "update")
                assert first["price"]["price"] in ("15000000000", "15000000001")
                assert first["metadata"]["emitterChain"] == 26
            stage.tick("SOL/USD", 15_000_111_000)
            for program in started:
                assert (await program.update("15000111000"))["id"] == SOL
                await program.command(f"subscribe {UNKNOWN}")
                refused = await program.until(lambda message: message["type"] == "error")
                assert refused["message"] == f"Price feed(s) with id(s) [0x{UNKNOWN}] not found"
                await program.command(f"unsubscribe {UNKNOWN} 0x{BTC}")
            stage.tick("BTC/USD", 6_000_000_111_000)
            stage.tick("SOL/USD", 15_000_222_000)
            for program in started:  # the connection goes on, without the feed that was left
                told = await program.until(lambda message: message["type"] != "error")
                assert (told["id"], told["price"]["price"]) == (SOL, "15000222000")
        async with stage.charts(port=port):
            stage.tick("SOL/USD", 15_000_333_000)
            for program in started:
                await program.update("15000333000")


@pytest.mark.parametrize("prefix", ["/", "/hermes/"])
async def test_pythclient_works_unchanged(stage: ChartsStage, prefix: str) -> None:
    hermes = pytest.importorskip("pythclient.hermes")
    async with stage.charts() as charts:
        now_s = await some_history(stage, charts)
        base = f"{charts.url}{prefix}"
        client = hermes.HermesClient([], endpoint=base, ws_endpoint=f"{base.replace('http', 'ws', 1)}ws")
        client.add_feed_ids(await client.get_price_feed_ids())
        assert set(client.feed_ids) == set(IDS)
        for version in (1, 2):
            prices = await client.get_all_prices(version=version)
            assert set(prices) == set(IDS)
            price = prices[SOL]["price"]
            assert (price.price, price.conf, price.expo, price.publish_time) == (15_000_000_003, 1, -8, now_s)
            assert prices[SOL]["ema_price"].price == 15_000_000_000
            then = await client.get_pyth_price_at_time(SOL, now_s - 1, version=version)
            assert (then["price"].price, then["price"].publish_time) == (15_000_000_002, now_s - 1)
        client.prices_dict.clear()
        following = asyncio.create_task(client.ws_pyth_prices())
        await turns_until(lambda: set(client.prices_dict) == set(IDS))
        stage.tick("SOL/USD", 15_000_444_000)
        await turns_until(lambda: client.prices_dict[SOL]["price"].price == 15_000_444_000)
        assert client.prices_dict[SOL]["update_data"] == [""]
        following.cancel()
        await asyncio.wait([following])


async def test_the_clients_read_signed_updates(stage: ChartsStage) -> None:
    async with stage.charts() as charts:
        signed = chosen_from_pyth(stage, "SOL/USD", "BTC/USD")
        updates = [signed["SOL/USD"], signed["BTC/USD"]]
        await stage.heard(charts)
        async with programs("hermes", charts.url) as (program,):
            told = await program.read()
        assert told["latest"]["binary"] == {"encoding": "hex", "data": [one.hex() for one in updates]}
        assert told["encoded"]["binary"]["data"] == [b64encode(updates[0]).decode()]
        async with programs("service", f"{charts.url}/hermes") as (program,):
            told = await program.read()
        assert told["vaas"] == told["signed"]["value"] == [b64encode(one).decode() for one in updates]


async def test_pythclient_reads_signed_updates(stage: ChartsStage) -> None:
    hermes = pytest.importorskip("pythclient.hermes")
    price_feeds = pytest.importorskip("pythclient.price_feeds")
    async with stage.charts() as charts:
        signed = chosen_from_pyth(stage, "SOL/USD")["SOL/USD"]
        await stage.heard(charts)
        client = hermes.HermesClient([SOL], endpoint=f"{charts.url}/", ws_endpoint=charts.url)
        told = (await client.get_all_prices(version=1))[SOL]
    (update,) = told["update_data"]
    assert b64decode(update) == signed
    (parsed,) = price_feeds.vaa_to_price_infos(update)
    assert int(parsed.price_feed.price.price) == told["price"].price
