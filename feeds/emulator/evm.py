"""A node of an EVM chain with Chainlink's proxies on it, and its websocket: as much of JSON-RPC as a reader needs.

Source: Ethereum's execution API, and the contracts that :mod:`feeds.chainlink.contracts` reads. A real node (Anvil) is
what the link is tested against; this one plays the world's prices, and what Anvil doesn't send: logs with ``removed``.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import msgspec
import orjson
from aiohttp import WSMsgType, web

from feeds.emulator.accounts import Held
from feeds.emulator.oracles import STORE
from feeds.emulator.server import Server
from feeds.emulator.world import Change, World
from feeds.evm_addresses import SEQUENCERS
from feeds.signatures import keccak256

_PHASE_SHIFT = 64
_KEPT_BLOCKS = 1_024
_QUEUE_MESSAGES = 4_096
_SEQUENCER = "L2 Sequencer Uptime Status Feed"
_UP_SINCE_S = 1_600_000_000


def _selector(name: str) -> str:
    return "0x" + keccak256(f"{name}()".encode())[:4].hex()


def _topic(signature: str) -> str:
    return "0x" + keccak256(signature.encode()).hex()


_NAMES = {_selector(name): name for name in ("aggregator", "phaseId", "decimals", "description", "latestRoundData")}
_ANSWER_UPDATED = _topic("AnswerUpdated(int256,uint256,uint256)")
_NEW_TRANSMISSION = _topic("NewTransmission(uint32,int192,address,uint32,int192[],bytes,int192,bytes32,uint40)")


def _words(*numbers: int) -> str:
    """Numbers as the ABI lays them out, 32 bytes each, negative ones in two's complement."""
    return "0x" + b"".join((number % 2**256).to_bytes(32, "big") for number in numbers).hex()


Log: TypeAlias = dict[str, Any]
"""As ``eth_getLogs`` has it."""


class _Feed(msgspec.Struct):
    description: str
    decimals: int
    aggregators: list[str]
    """By phase; the last one is in use."""
    rounds: list[tuple[int, int, int]] = []
    """Answer, start and update of each round of the aggregator in use."""


class EvmNode:
    """The chain, without a socket: messages go in, messages come out, for sessions that the caller tells apart."""

    def __init__(self, chain_id: int, now_s: int) -> None:
        self.chain_id = chain_id
        self.feeds: dict[str, _Feed] = {}
        """By proxy in lower case."""
        self.blocks: list[tuple[int, str, str, list[Log]]] = []
        """The last ones: number, hash, hash before, logs."""
        self._subscriptions: dict[str, tuple[object, frozenset[str] | None]] = {}
        self._count = 0
        self.mine(now_s, [])

    def add(self, proxy: str, description: str, decimals: int = 8) -> None:
        """Put a proxy on the chain, without an answer."""
        self.feeds[proxy.lower()] = _Feed(description, decimals, [self._fresh("aggregator")])

    def _fresh(self, what: str) -> str:
        self._count += 1
        return "0x" + keccak256(f"{what} {self.chain_id} {self._count}".encode())[-20:].hex()

    # Requests.

    def answer(self, session: object, data: str | bytes) -> list[str]:
        """Answer one message of a session."""
        try:
            asked = orjson.loads(data)
            number, method, params = asked["id"], asked["method"], asked["params"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return [orjson.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "no"}}).decode()]
        answer: dict[str, object] = {"jsonrpc": "2.0", "id": number}
        try:
            answer["result"] = self._result(session, method, params)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            answer["error"] = {"code": -32602, "message": f"{method}: {type(error).__name__}"}
        return [orjson.dumps(answer).decode()]

    def _result(self, session: object, method: str, params: Sequence[Any]) -> object:
        if method == "eth_chainId":
            return hex(self.chain_id)
        if method == "eth_blockNumber":
            return hex(self.blocks[-1][0])
        if method == "eth_call":
            return self._called(params[0])
        if method == "eth_subscribe":
            subscription = self._fresh("subscription")
            wanted = None if params[0] == "newHeads" else _addresses(params[1])
            self._subscriptions[subscription] = (session, wanted)
            return subscription
        if method == "eth_unsubscribe":
            return self._subscriptions.pop(str(params[0]), None) is not None
        if method == "eth_getLogs":
            wanted, first = _addresses(params[0]), int(params[0]["fromBlock"], 16)
            logs = (log for number, _, _, logs in self.blocks if number >= first for log in logs)
            return [log for log in logs if log["address"] in wanted]
        raise ValueError(method)

    def _called(self, call: object) -> str:
        assert isinstance(call, dict)
        feed, name = self.feeds.get(call["to"].lower()), _NAMES[call["data"]]
        if feed is None:
            return "0x"
        phase = len(feed.aggregators)
        if name == "aggregator":
            return _words(int(feed.aggregators[-1], 16))
        if name == "phaseId":
            return _words(phase)
        if name == "decimals":
            return _words(feed.decimals)
        if name == "description":
            text = feed.description.encode()
            return _words(32, len(text)) + text.ljust(-(-len(text) // 32) * 32, b"\0").hex()
        number = len(feed.rounds)
        round_id = phase << _PHASE_SHIFT | number
        answer, started_at, updated_at = feed.rounds[-1] if feed.rounds else (0, 0, 0)
        return _words(round_id, answer, started_at, updated_at, round_id)

    def forget(self, session: object) -> None:
        """A session ended."""
        self._subscriptions = {key: one for key, one in self._subscriptions.items() if one[0] is not session}

    # What happens.

    def mine(self, now_s: int, logs: list[Log]) -> list[tuple[object, str]]:
        """A block with these logs; what each session is told."""
        number, before = (self.blocks[-1][0] + 1, self.blocks[-1][1]) if self.blocks else (1, "0x" + "00" * 32)
        self._count += 1
        block_hash = "0x" + keccak256(f"block {self.chain_id} {self._count} {now_s}".encode()).hex()
        for index, log in enumerate(logs):
            log |= {"blockHash": block_hash, "blockNumber": hex(number), "logIndex": hex(index)}
        self.blocks.append((number, block_hash, before, logs))
        del self.blocks[:-_KEPT_BLOCKS]
        head = {"number": hex(number), "hash": block_hash, "parentHash": before, "timestamp": hex(now_s)}
        return [*self._to_sessions(None, head), *(one for log in logs for one in self._to_sessions(log, log))]

    def _to_sessions(self, log: dict[str, object] | None, result: object) -> Iterator[tuple[object, str]]:
        for subscription, (session, wanted) in self._subscriptions.items():
            if (wanted is None) is (log is None) and (log is None or wanted is None or log["address"] in wanted):
                params = {"subscription": subscription, "result": result}
                told = {"jsonrpc": "2.0", "method": "eth_subscription", "params": params}
                yield session, orjson.dumps(told).decode()

    def transmit(self, proxy: str, answer: int, observed_s: int, now_s: int) -> list[tuple[object, str]]:
        """A report with one answer, in a block of its own."""
        feed = self.feeds[proxy.lower()]
        feed.rounds.append((answer, observed_s, now_s))
        number, address = len(feed.rounds), feed.aggregators[-1]
        self._count += 1
        common = {
            "address": address,
            "transactionHash": "0x" + keccak256(f"transaction {self.chain_id} {self._count}".encode()).hex(),
            "transactionIndex": "0x0",
            "removed": False,
        }
        report = _words(answer, 1, observed_s, 256, 320, 0, 1, 257, 1, answer, 0)
        logs: list[Log] = [
            common | {"topics": [_NEW_TRANSMISSION, _words(number)], "data": report},
            common | {"topics": [_ANSWER_UPDATED, _words(answer), _words(number)], "data": _words(now_s)},
        ]
        return self.mine(now_s, logs)

    def set_uptime(self, proxy: str, *, down: bool, since_s: int, now_s: int) -> list[tuple[object, str]]:
        """The sequencer went down, or came up."""
        return self.transmit(proxy, int(down), since_s, now_s)

    def change_phase(self, proxy: str) -> None:
        """The proxy points at a new aggregator, of which nobody is told, and which has no answer yet."""
        feed = self.feeds[proxy.lower()]
        feed.aggregators.append(self._fresh("aggregator"))
        feed.rounds = []

    def remove(self, now_s: int) -> list[tuple[object, str]]:
        """The last block is replaced by an empty one: its logs are told again, as removed, and its answers are gone."""
        _, _, _, logs = self.blocks.pop()
        told = [one for log in logs for one in self._to_sessions(log, log | {"removed": True})]
        for log in logs:
            for feed in self.feeds.values():
                if log["address"] == feed.aggregators[-1] and log["topics"][0] == _ANSWER_UPDATED:
                    feed.rounds.pop()
        return told + self.mine(now_s, [])


def _addresses(wanted: object) -> frozenset[str]:
    assert isinstance(wanted, Mapping)
    address = wanted["address"]
    return frozenset(one.lower() for one in ([address] if isinstance(address, str) else address))


class EvmServer(Server):
    """A node's websocket under a name, over a world that others share; the path names the chain id.

    Each chain has the proxies of the world's catalogue, with the prices of Chainlink's store, a block for each, and a
    sequencer that is up where it has one.
    """

    ORACLE: ClassVar[str | None] = STORE

    def __init__(self, name: str, world: World, now_us: Callable[[], int]) -> None:
        super().__init__(name, world, now_us)
        self.nodes = {chain_id: self._node(chain_id) for chain_id in world.catalogue.proxies}
        self._sockets: dict[object, asyncio.Queue[str | None]] = {}

    def _node(self, chain_id: int) -> EvmNode:
        now_s = self._now_us() // 1_000_000
        node = EvmNode(chain_id, now_s)
        for feed, proxy in self._world.catalogue.proxies[chain_id].items():
            node.add(proxy, feed.replace("/", " / "))
        if chain_id in SEQUENCERS:
            node.add(SEQUENCERS[chain_id], _SEQUENCER, 0)
            node.set_uptime(SEQUENCERS[chain_id], down=False, since_s=_UP_SINCE_S, now_s=now_s)
        return node

    def routes(self, app: web.Application) -> None:
        """Add the websocket of each chain."""
        app.router.add_get("/{chain_id:[0-9]+}", self._socket)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        await self._hold_up()
        if self._faults("unauthorized"):
            raise web.HTTPUnauthorized
        node = self.nodes.get(int(request.match_info["chain_id"]))
        if node is None:
            raise web.HTTPNotFound
        response = web.WebSocketResponse()
        await response.prepare(request)
        queue: asyncio.Queue[str | None] = asyncio.Queue(_QUEUE_MESSAGES)
        self._sockets[response] = queue
        sender = asyncio.create_task(self._send(response, queue))
        try:
            async for message in response:
                if message.type is WSMsgType.TEXT and not self._faults("half_open"):
                    for text in node.answer(response, message.data):
                        self._put(response, text)
        finally:
            self._sockets.pop(response, None)
            node.forget(response)
            sender.cancel()
        return response

    async def _send(self, response: web.WebSocketResponse, queue: asyncio.Queue[str | None]) -> None:
        while (text := await queue.get()) is not None:
            await response.send_str(text)
        await response.close()

    def _put(self, session: object, text: str | None) -> None:
        queue = self._sockets.get(session)
        if queue is not None:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(text)

    def tell(self, changes: Sequence[Change]) -> None:
        """A block for each new price, on each chain."""
        deaf = bool(self._faults("half_open"))
        for feed, held in self._told(changes):
            for chain_id, node in self.nodes.items():
                proxy = self._world.catalogue.proxies[chain_id].get(feed)
                for session, text in () if proxy is None else self._transmitted(node, proxy, held):
                    if not deaf:
                        self._put(session, self._broken(text.encode()).decode())

    def play(self, chain_id: int, what: Callable[[EvmNode], list[tuple[object, str]]]) -> None:
        """Let something happen on a chain, and tell its sessions."""
        for session, text in what(self.nodes[chain_id]):
            self._put(session, text)

    def _transmitted(self, node: EvmNode, proxy: str, held: Held) -> list[tuple[object, str]]:
        return node.transmit(proxy, held.mantissa, held.publish_s, max(held.publish_s, self._now_us() // 1_000_000))

    @property
    def sockets(self) -> int:
        """Sockets that are open."""
        return len(self._sockets)

    async def close(self) -> None:
        """End every socket in good order."""
        for session in tuple(self._sockets):
            self._put(session, None)
