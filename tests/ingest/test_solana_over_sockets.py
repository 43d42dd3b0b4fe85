"""The Solana link and its driver against a small node on loopback that misbehaves on purpose."""

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import orjson
from aiohttp import WSMsgType, web

from oracle_hub.core.source import Account, Condition, Effect, Event, Frame, Link, PriceUpdate, Rewatch, Status
from oracle_hub.ingest.driver import DriverLimits
from oracle_hub.ingest.rpc_watch import RpcLimits
from oracle_hub.ingest.solana_rpc import SolanaRpc
from oracle_hub.ingest.supervisor import Supervisor
from tests.patience import PATIENCE_S

OWNER = "DoVEsk76QybCEHQGzkvYPWLQu9gzNoZZZt3TPiL597e"
US_PER_S = 1_000_000


class Node:
    """Speaks the three methods that matter. ``silent`` accounts are subscribed to and never notified."""

    def __init__(self) -> None:
        self.accounts: dict[str, bytes] = {}
        self.slot = 100
        self.genesis = "right"
        self.silent: set[str] = set()
        self.http_faults: list[web.Response] = []
        self.subscriptions: dict[int, tuple[str, web.WebSocketResponse]] = {}
        self.connections: list[web.WebSocketResponse] = []
        self._next = 0

    def _value(self, pubkey: str) -> dict[str, Any] | None:
        content = self.accounts.get(pubkey)
        if content is None:
            return None
        return {"lamports": 1, "owner": OWNER, "data": [base64.b64encode(content).decode(), "base64"], "space": 1}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_websocket(request)
        call = orjson.loads(await request.read())
        if self.http_faults and call["method"] == "getMultipleAccounts":
            return self.http_faults.pop(0)
        result: object = self.genesis
        if call["method"] == "getMultipleAccounts":
            values = [self._value(pubkey) for pubkey in call["params"][0]]
            result = {"context": {"slot": self.slot}, "value": values}
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": result})

    async def _serve_websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.connections.append(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                call = orjson.loads(message.data)
                self._next += 1
                if call["method"] == "accountSubscribe":
                    self.subscriptions[self._next] = (call["params"][0], socket)
                await socket.send_json({"jsonrpc": "2.0", "id": call["id"], "result": self._next})
        return socket

    async def write(self, pubkey: str, content: bytes, slot: int) -> None:
        """Change an account and notify, unless its subscription is a silent one."""
        self.accounts[pubkey] = content
        self.slot = max(slot, self.slot)
        for number, (watched, socket) in tuple(self.subscriptions.items()):
            if watched == pubkey and pubkey not in self.silent and not socket.closed:
                result = {"context": {"slot": slot}, "value": self._value(pubkey)}
                params = {"result": result, "subscription": number}
                await socket.send_json({"jsonrpc": "2.0", "method": "accountNotification", "params": params})


class Reader:
    CONFIGURED: ClassVar[frozenset[str]] = frozenset()
    source = "doves"

    def accounts(self) -> frozenset[str]:
        return frozenset({"A", "B"})

    def read(self, account: Account, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        return [PriceUpdate("doves", transport, account.pubkey, int(account.data), 1, received_us, slot=account.slot)]

    def missing(self, pubkey: str, slot: int, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        return [Status("doves", transport, pubkey, Condition.MISSING_ACCOUNT, "missing", received_us)]


class Events:
    """A sink that keeps what the link said."""

    def __init__(self) -> None:
        self.items: list[Event] = []
        self._news = asyncio.Event()

    def _keep(self, output: Sequence[Event | Effect]) -> list[Effect]:
        self.items.extend(item for item in output if isinstance(item, Event))
        self._news.set()
        return [item for item in output if isinstance(item, Effect)]

    def on_connect(self, link: Link, now_us: int) -> Sequence[Effect]:
        return self._keep(link.connect(now_us))

    def on_frame(self, link: Link, frame: Frame, received_us: int) -> Sequence[Effect]:
        return self._keep(link.receive(frame, received_us))

    def on_timer(self, link: Link, now_us: int) -> Sequence[Effect]:
        return self._keep(link.on_timer(now_us))

    def on_disconnect(self, link: Link, now_us: int, reason: str) -> None:
        self._news.set()

    def price(self, feed: str) -> int | None:
        found = [item.mantissa for item in self.items if isinstance(item, PriceUpdate) and item.feed == feed]
        return found[-1] if found else None

    def conditions(self) -> list[Condition]:
        return [item.condition for item in self.items if isinstance(item, Status)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def told(self, condition: Condition, within_s: float) -> bool:
        """Whether a condition is told within a time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.until(lambda: condition in self.conditions())
        return condition in self.conditions()


@asynccontextmanager
async def hub_on(node: Node, **limits: Any) -> AsyncIterator[tuple[Events, Supervisor]]:
    app = web.Application()
    app.router.add_route("*", "/", node.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = f"127.0.0.1:{runner.addresses[0][1]}"
    link = SolanaRpc(
        "solana:a",
        f"http://{host}/",
        f"ws://{host}/",
        [Reader()],
        genesis_hash="right",
        limits=RpcLimits(**{"first_retry_us": 1_000, **limits}),
    )
    loop = asyncio.get_running_loop()
    quick = DriverLimits(backoff_first_s=0.001, close_timeout_s=0.05)
    events = Events()
    supervisor = Supervisor(events, clock=lambda: int(loop.time() * US_PER_S), rng=random.Random(1), limits=quick)
    supervisor.add(link)
    task = asyncio.create_task(supervisor.run())
    try:
        yield events, supervisor
    finally:
        supervisor.stop()
        async with asyncio.timeout(PATIENCE_S):
            await task
        await runner.cleanup()


def node_with(**accounts: bytes) -> Node:
    node = Node()
    node.accounts.update(accounts)
    return node


async def test_snapshot_then_changes_then_a_new_session() -> None:
    node = node_with(A=b"10", B=b"20")
    async with hub_on(node) as (events, supervisor):
        await events.until(lambda: events.price("B") == 20 and len(node.subscriptions) == 2)
        await node.write("A", b"11", 101)
        await events.until(lambda: events.price("A") == 11)
        node.accounts["B"] = b"21"
        await node.connections[0].close()
        await events.until(lambda: events.price("B") == 21 and len(node.subscriptions) == 4)
        await node.write("A", b"12", 102)
        await events.until(lambda: events.price("A") == 12)
        assert supervisor.health()["solana:a"].reconnects == 1


async def test_an_rpc_that_asks_for_patience_is_named_and_asked_again() -> None:
    node = node_with(A=b"10", B=b"20")
    limited = {"error": {"code": -32005, "message": "Too many requests"}}
    node.http_faults = [
        web.json_response(limited),
        web.Response(status=429, headers={"Retry-After": "0.01"}),
        web.Response(text="<html>"),
    ]
    async with hub_on(node) as (events, _):
        await events.until(lambda: events.price("B") == 20 and Condition.OK in events.conditions())
    assert events.conditions()[0] is Condition.RATE_LIMITED
    assert Condition.LOST in events.conditions()


async def test_a_wrong_cluster_gives_no_price() -> None:
    node = node_with(A=b"10", B=b"20")
    node.genesis = "devnet"
    async with hub_on(node) as (events, supervisor):
        await events.until(lambda: bool(supervisor.health()) and supervisor.health()["solana:a"].reconnects == 1)
    assert events.items and {type(item) for item in events.items} == {Status}
    assert events.conditions() == [Condition.WRONG_CLUSTER]


async def test_a_silent_subscription_is_found_while_the_other_goes_on() -> None:
    node = node_with(A=b"10", B=b"20")
    node.silent.add("B")
    async with hub_on(node, silence_us=20_000, proof_us=10_000, safety_snapshot_us=30_000) as (events, _):
        await events.until(lambda: len(node.subscriptions) == 2 and events.price("B") == 20)
        await events.until(lambda: sum(isinstance(item, PriceUpdate) for item in events.items) >= 6)
        for price in range(21, 31):  # the first move may be older than the state that it would be seen against
            await node.write("B", b"%d" % price, 80 + price)
            await events.until(lambda: events.price("B") == price)  # noqa: B023 - awaited in its own turn
            if await events.told(Condition.LOST, within_s=1.0):
                break
        assert Condition.LOST in events.conditions()
        node.silent.clear()
        await events.until(lambda: Condition.OK in events.conditions())
        await node.write("B", b"1_000", 1_080)
        await events.until(lambda: events.price("B") == 1_000)
        assert {watched for watched, _ in node.subscriptions.values()} == {"A", "B"}
        assert [watched for watched, _ in node.subscriptions.values()].count("A") == 1


async def test_an_older_state_is_passed_on_with_its_slot() -> None:
    node = node_with(A=b"10", B=b"20")
    async with hub_on(node) as (events, _):
        await events.until(lambda: len(node.subscriptions) == 2 and events.price("A") == 10)
        await node.write("A", b"11", 101)
        await node.write("A", b"10", 99)
        await events.until(lambda: events.items[-1:] != [] and getattr(events.items[-1], "slot", 0) == 99)
    slots = [item.slot for item in events.items if isinstance(item, PriceUpdate) and item.feed == "A"]
    assert slots.index(101) < slots.index(99)  # a snapshot may tell the newer one once more
