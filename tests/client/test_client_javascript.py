"""The JavaScript module in Node against a real server: the same behaviour as the Python client."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

import oracle_hub.client
from oracle_hub.server.tokens import Token, token_digest
from tests.client.client_stage import HubStage
from tests.conftest import ROOT, require
from tests.patience import PATIENCE_S
from tests.ports import deaf_port
from tests.server.stream_service import START_US

MODULE = Path(oracle_hub.client.__file__).parent / "js" / "oracle-hub.mjs"
PROGRAM = ROOT / "tests" / "js" / "hub_client.mjs"


@cache
def node() -> str | None:
    return shutil.which("node")


class Program:
    """A Node process that uses the module."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.heard: list[dict[str, Any]] = []

    @classmethod
    async def start(cls, urls: list[str], **options: Any) -> "Program":
        command = [node() or "", "--experimental-websocket", "--no-warnings", str(PROGRAM), str(MODULE)]
        process = await asyncio.create_subprocess_exec(
            *command,
            json.dumps({"urls": urls, "options": options}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
        message: dict[str, Any] = json.loads(line)
        self.heard.append(message)
        return message

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not wanted(message := await self.read()):
            pass
        return message

    async def event(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """Read until an event of this kind has these values."""
        return await self.until(
            lambda message: message["type"] == kind and all(message[key] == value for key, value in wanted.items())
        )

    def write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode())

    async def ask(self, kind: str, **command: Any) -> Any:
        self.write(json.dumps({"type": kind, **command}) + "\n")
        return (await self.event("answer"))["answer"]

    async def price(self, feed: str, **options: Any) -> str:
        """The mantissa, or why there is none."""
        answer = await self.ask("get", feed=feed, options=options)
        return str(answer["price"]["mantissa"] if "price" in answer else answer["why"])

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise


@pytest.fixture
async def hub() -> AsyncIterator[HubStage]:
    require(node() is not None, "node")
    stage = await HubStage().start()
    yield stage
    await stage.server.stop("the test is over")


async def test_get_updates_and_refusals(hub: HubStage) -> None:
    program = await Program.start([hub.url], feeds=["SOL/USD", "NO/USD"], detail="full")
    await program.event("open")
    answer = (await program.ask("get", feed="SOL/USD"))["price"]
    decision = hub.service.decisions["SOL/USD"]
    assert (answer["mantissa"], answer["expo"], answer["state"]) == ("15000000000", -8, "live")
    assert (answer["validUntilUs"], answer["seq"]) == (decision.valid_until_us, 3)
    assert (answer["instance"], list(answer["inputs"])) == (hub.service.instance, ["doves", "chainlink", "pyth"])
    assert 0 < answer["leaseLeftUs"] <= 10_000_000
    assert await program.price("NO/USD") == await program.price("BTC/USD") == "unknown_feed"
    hub.tick("SOL/USD", 15_010_000_000)
    await program.event("update", price="15010000000")
    hub.tick("SOL/USD", 20_000_000_000, "chainlink")
    none = await program.event("none", feed="SOL/USD")
    assert (none["why"], none["entry"]["reason"]) == ("none", "diverged")
    hub.tick("SOL/USD", 15_020_000_000)
    await program.event("live", price="15020000000")
    await program.ask("subscribe", feeds=["BTC/USD"])
    await program.event("live", feed="BTC/USD", price="15000000001")
    assert await program.price("SOL/USD") == "unknown_feed"
    hub.server.heartbeat()
    stats = await program.ask("stats")
    assert (stats["gaps"], stats["digestMismatches"], stats["reconnects"]) == (0, 0, 0)
    await program.ask("close")
    assert await program.price("BTC/USD") == "disconnected"
    await program.end()


async def test_who_changes_its_mind_before_the_answer_keeps_one_subscription(hub: HubStage) -> None:
    program = await Program.start([hub.url], feeds=["SOL/USD"])
    await program.event("open")
    await program.ask("subscribe", feeds=["BTC/USD"], then=["SOL/USD", "BTC/USD"])
    await program.event("live", feed="BTC/USD")
    hub.tick("BTC/USD", 15_010_000_000)  # to who follows BTC/USD alone too, if it still does
    await program.event("update", price="15010000000")
    assert hub.server._subscribers is not None
    (client,) = hub.server._subscribers._clients
    assert client.session.subscriptions == 1
    await program.end()


async def test_a_lease_ends_by_itself(hub: HubStage) -> None:
    program = await Program.start([hub.url], feeds=["*"])
    await program.event("open")
    await program.ask("skip", us=3_000_000)
    assert await program.price("SOL/USD", maxAgeMs=2_000) == "too_old"
    assert await program.price("SOL/USD") == "15000000000"
    await program.ask("skip", us=7_000_000)
    assert await program.price("SOL/USD") == "lease_over"
    await program.end()


async def test_heartbeats_agree_and_a_lost_connection_is_resumed(hub: HubStage) -> None:
    program = await Program.start([hub.url], feeds=["*"])
    await program.event("open")
    hub.server.heartbeat()
    assert hub.server._subscribers is not None
    for client in hub.server._subscribers._clients:
        client.transport.abort()
    await program.event("none", feed="SOL/USD", why="disconnected")
    for step in (1, 2, 3):
        hub.tick("SOL/USD", 15_000_000_000 + step)
    update = await program.event("live", price="15000000003")
    assert (update["merged"]["n"], update["lost"]) == (3, False)
    hub.server.heartbeat()
    stats = await program.ask("stats")
    assert (stats["reconnects"], stats["resumes"], stats["gaps"], stats["digestMismatches"]) == (1, 1, 0, 0)
    await program.end()


async def test_goaway_sends_it_to_the_next_hub_and_nothing_goes_back(hub: HubStage) -> None:
    other = await HubStage(instance="6f1c2d3e-0000-4000-8000-000000000002").start()
    hub.service.clock_us += 1_000_000
    hub.tick("SOL/USD", 15_000_000_777)
    other.service.clock_us = hub.service.clock_us
    program = await Program.start([hub.url, other.url], feeds=["SOL/USD"])
    await program.event("open")
    await hub.server.stop("shutdown")
    await program.event("connection", connected=True, url=other.url)
    await program.event("update", why="too_old")
    assert await program.price("SOL/USD") == "too_old"
    other.tick("SOL/USD", 15_000_000_888)
    await program.event("live", price="15000000888")
    await program.end()
    await other.server.stop("the test is over")


async def test_after_a_stall_only_the_newest_is_told(hub: HubStage) -> None:
    program = await Program.start([hub.url], feeds=["SOL/USD"])
    await program.event("open")
    await program.event("update", price="15000000000")
    program.write(json.dumps({"type": "freeze"}) + "\n")
    await program.event("frozen")
    for step in range(1, 301):
        hub.tick("SOL/USD", 15_000_000_000 + step)
    program.write("\n")
    await program.event("answer")
    before = len(program.heard)
    await program.event("update", price="15000000300")
    updates = [message for message in program.heard[before:] if message["type"] == "update"]
    assert sum(message["merged"]["n"] for message in updates) == 300
    assert len(updates) <= 3
    await program.end()


async def test_a_subscription_that_is_refused_fails(hub: HubStage) -> None:
    program = await Program.start([hub.url], feeds=["SOL/USD"], maxHz=-1)
    assert await program.event("not_open") == {"type": "not_open", "name": "HubError", "code": "bad_message"}
    await program.end()


async def test_a_hub_that_is_not_there_is_passed_over_at_once(hub: HubStage) -> None:
    with deaf_port() as port:
        gone = f"ws://127.0.0.1:{port}/v1/stream"
        program = await Program.start([gone, hub.url], feeds=["SOL/USD"], openTimeoutMs=600_000)
        await program.event("open")
    (lost,) = [message for message in program.heard if message.get("connected") is False]
    assert lost["url"] == gone
    await program.end()


async def test_the_modules_digest_is_blake2b() -> None:
    require(node() is not None, "node")
    sizes = [0, 1, 127, 128, 129, 256, 1_000]
    script = (
        f"import {{ blake2b8 }} from {json.dumps(MODULE.as_uri())};"
        f"for (const n of {sizes}) console.log(blake2b8(new Uint8Array(n).map((_, i) => i * 7)));"
    )
    process = await asyncio.create_subprocess_exec(
        node() or "", "--input-type=module", "-e", script, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    data = bytes(i * 7 & 255 for i in range(1_000))
    assert out.decode().split() == [blake2b(data[:size], digest_size=8).hexdigest() for size in sizes]


def said(kind: str, at_us: int, **keys: Any) -> str:
    """A message of a hub that a test plays."""
    time_key = {"hello": "server_time_us", "heartbeat": "server_time_us"}.get(kind, "sent_us")
    return json.dumps({"type": kind, time_key: at_us, "sub": 1, "epoch": 7, "seq": 10, **keys})


async def test_a_gap_is_resumed_and_a_wrong_digest_asks_for_a_snapshot() -> None:
    require(node() is not None, "node")
    requests: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
    entry: dict[str, Any] = {"feed": "SOL/USD", "state": "live", "price": "150", "expo": -8, "conf": None}
    entry |= {"source": "doves", "rule": "R1", "reason": "agreed", "publish_time_us": START_US, "decided_us": START_US}
    entry |= {"valid_until_us": None}

    async def play(socket: ServerConnection) -> None:
        hello = {"protocol": "oraclehub.v1", "instance": "i", "heartbeat_ms": 3_600_000, "feeds": ["SOL/USD"]}
        await socket.send(said("hello", START_US, policy="strict", config_hash="", simulated=None, limits={}, **hello))
        await sockets.put(socket)
        async for text in socket:
            await requests.put(json.loads(text))

    async with serve(play, "127.0.0.1", 0, subprotocols=[Subprotocol("oraclehub.v1")]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        program = await Program.start([f"ws://127.0.0.1:{port}/"], feeds=["SOL/USD"])
        hub = await sockets.get()

        async def accept(sub: int, recovered: bool | None) -> dict[str, Any]:
            """Answer the next request to subscribe, and give it."""
            while (request := await requests.get())["type"] != "subscribe":
                assert request["type"] == "unsubscribe" and request["sub"] == sub - 1
            keys = {"id": request["id"], "channel": "prices", "accepted": ["SOL/USD"], "rejected": []}
            await hub.send(
                said("subscribed", START_US, recovered=recovered, received_us=START_US, **{**keys, "sub": sub})
            )
            return request

        flags = {"conflated": False, "replayed": False}
        assert "resume" not in await accept(1, None)
        await hub.send(said("snapshot", START_US, feeds=[entry]))
        await program.event("update", price="150")
        await hub.send(said("update", START_US, seq=12, prev_seq=11, feeds=[{**entry, "price": "152"}], **flags))
        await program.event("none", why="gap")
        assert (await accept(2, True))["resume"] == {"epoch": 7, "seq": 10, "instance": "i"}
        await hub.send(said("update", START_US, sub=2, seq=12, prev_seq=10, feeds=[{**entry, "price": "152"}], **flags))
        await program.event("live", price="152")
        await hub.send(said("heartbeat", START_US, sub=2, seq=12, not_live=[], digest="0" * 16))
        assert "resume" not in await accept(3, None)
        await hub.send(said("snapshot", START_US, sub=3, seq=12, feeds=[{**entry, "price": "153"}]))
        await program.event("update", price="153")
        stats = await program.ask("stats")
        assert (stats["gaps"], stats["digestMismatches"], stats["reconnects"]) == (1, 1, 0)
        await program.end()


async def test_a_feed_that_was_refused_is_asked_for_when_a_reload_brings_it() -> None:
    require(node() is not None, "node")
    requests: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
    keys: dict[str, Any] = {"policy": "strict", "config_hash": "", "simulated": None}

    async def play(socket: ServerConnection) -> None:
        hello = {"protocol": "oraclehub.v1", "instance": "i", "heartbeat_ms": 3_600_000, "feeds": ["SOL/USD"]}
        await socket.send(said("hello", START_US, limits={}, **keys, **hello))
        await sockets.put(socket)
        async for text in socket:
            await requests.put(json.loads(text))

    async with serve(play, "127.0.0.1", 0, subprotocols=[Subprotocol("oraclehub.v1")]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        program = await Program.start([f"ws://127.0.0.1:{port}/"], feeds=["SOL/USD", "BTC/USD"])
        hub, request = await sockets.get(), await requests.get()
        rejected = [{"feed": "BTC/USD", "code": "unknown_feed"}]
        answer = {"id": request["id"], "channel": "prices", "accepted": ["SOL/USD"], "recovered": None}
        await hub.send(said("subscribed", START_US, rejected=rejected, received_us=START_US, **answer))
        await hub.send(said("config", START_US, feeds=["SOL/USD"], **keys))
        await hub.send(said("config", START_US, feeds=["SOL/USD", "BTC/USD"], **keys))
        assert await requests.get() == {"type": "unsubscribe", "sub": 1}
        assert (await requests.get())["feeds"] == ["SOL/USD", "BTC/USD"]
        assert requests.empty()
        await program.end()


SECRET = "c0ffee-5ca1ab1e~token+of/desk?a="


async def test_a_token_is_shown_as_a_subprotocol_and_a_wrong_one_ends_it() -> None:
    require(node() is not None, "node")
    hub = HubStage()
    await hub.start(require_token=True, tokens=(Token(name="a", digest=token_digest(SECRET), max_connections=1),))
    good = await Program.start([hub.url], feeds=["SOL/USD"], token=SECRET)
    await good.event("open")
    assert await good.price("SOL/USD") == "15000000000"
    assert hub.server.bearers == {"a": 1} and not hub.server.refusals
    for token, message in (
        ("wrong", "the hub does not know this token"),
        (None, "the hub wants a token: pass { token }"),
    ):
        bad = await Program.start([hub.url], feeds=["SOL/USD"], token=token)
        failed = await bad.event("failed")
        assert (failed["code"], failed["message"]) == ("unauthorized", message)
        assert (await bad.event("not_open"))["code"] == "unauthorized"
        await bad.end()
    assert hub.server.refusals == {"unauthorized": 1}  # then it was said in the first message
    await good.end()
    await hub.server.stop("the test is over")


async def test_a_token_in_the_first_message_opens_as_well() -> None:
    require(node() is not None, "node")
    hub = HubStage()
    await hub.start(require_token=True, tokens=(Token(name="a", digest=token_digest(SECRET), max_connections=1),))
    port = int(hub.url.rpartition(":")[2].partition("/")[0])
    refused = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Refuses the first handshake, for a reason that no page is told; then lets everything through."""
        nonlocal refused
        if not refused:
            refused += 1
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream"
    program = await Program.start([address], feeds=["SOL/USD"], token=SECRET)
    await program.event("open")
    assert await program.price("SOL/USD") == "15000000000"
    assert (refused, hub.server.bearers, dict(hub.server.refusals)) == (1, {"a": 1}, {})
    await program.end()
    server.close()
    await hub.server.stop("the test is over")
