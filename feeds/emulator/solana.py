"""One Solana RPC endpoint: JSON-RPC over POST and pubsub over a websocket, on one port, in the shapes of a real node.

Methods and error codes follow Solana's RPC documentation and what nodes answer: ``getAccountInfo``,
``getMultipleAccounts``, ``getGenesisHash``, ``getHealth``, ``getSlot``, ``getVersion``; ``accountSubscribe``,
``slotSubscribe`` and their counterparts. A subscription tells changes only.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Sequence

import msgspec
import orjson
from aiohttp import WSCloseCode, WSMsgType, web
from solders.pubkey import Pubkey
from zstandard import ZstdCompressor

from feeds.addresses import GENESIS_HASHES
from feeds.emulator.accounts import LIVE_LIMITS, Held, encode_price
from feeds.emulator.faults import ActiveFault
from feeds.emulator.server import Server
from feeds.emulator.world import SYSTEM_PROGRAM, AccountState, Change, World, slot_at

VERSION = "2.3.6"
MAX_KEYS = 100
_MAX_BASE58 = 128
_RENT_EPOCH_NONE = 2**64 - 1
_QUEUE_FRAMES = 10_000
_TOO_MANY = {"code": -32005, "message": "Too many requests"}


class RpcError(Exception):
    """An ``error`` member of an answer."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.body: dict[str, object] = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data


def _encoded(state: AccountState, config: dict[str, object]) -> dict[str, object]:
    """An account's ``value``."""
    encoding = config.get("encoding", "base58")
    data, space = state.data, len(state.data)
    piece = config.get("dataSlice")
    if isinstance(piece, dict):
        offset = int(piece.get("offset", 0))
        data = data[offset : offset + int(piece.get("length", 0))]
    if encoding == "base58":
        if len(data) > _MAX_BASE58:
            text = "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding."
            raise RpcError(-32600, text)
        coded: object = [_base58(data), "base58"] if "encoding" in config else _base58(data)
    elif encoding == "base64+zstd":
        coded = [b64encode(ZstdCompressor().compress(data)).decode(), "base64+zstd"]
    elif encoding in ("base64", "jsonParsed"):  # no parser knows these programs: a node falls back to base64
        coded = [b64encode(data).decode(), "base64"]
    else:
        known = "`binary`, `base58`, `base64`, `jsonParsed`, `base64+zstd`"
        raise RpcError(-32602, f"Invalid params: unknown variant `{encoding}`, expected one of {known}.")
    return {
        "data": coded,
        "executable": False,
        "lamports": state.lamports,
        "owner": state.owner,
        "rentEpoch": _RENT_EPOCH_NONE,
        "space": space,
    }


_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def _base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def _address(value: object) -> str:
    try:
        return str(Pubkey.from_string(value))  # type: ignore[arg-type]  # whatever a client sent
    except (TypeError, ValueError):
        short = isinstance(value, str) and all(letter in _ALPHABET for letter in value)
        raise RpcError(-32602, f"Invalid param: {'WrongSize' if short else 'Invalid'}") from None


def _config(params: Sequence[object]) -> dict[str, object]:
    config = params[1] if len(params) > 1 else None
    if config is not None and not isinstance(config, dict):
        raise RpcError(-32602, "Invalid params: invalid type: expected a config object.")
    return dict(config or {})


_ELSEWHERE_SLOTS = 40_000_000
"""How far another cluster is ahead."""


class Subscriber:
    """One websocket: its subscriptions, and a bounded queue of frames to send."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self.socket = socket
        self._transport = transport
        self.accounts: dict[int, str] = {}
        """Address by subscription."""
        self.by_address: dict[str, dict[int, dict[str, object]]] = {}
        """Subscriptions of an address, each with its configuration."""
        self.slots: set[int] = set()
        self.frames: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE_FRAMES)

    def put(self, frame: bytes) -> None:
        """Queue a frame; a client that is 10,000 frames behind is closed, as a node does."""
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            if self._transport is not None:
                self._transport.abort()

    async def write(self) -> None:
        """Send frames as they come, until the socket is closed."""
        while not self.socket.closed:
            frame = await self.frames.get()
            try:
                await self.socket.send_str(frame.decode("utf-8", "replace"))
            except (ConnectionError, RuntimeError):
                return


class SolanaServer(Server):
    """An endpoint under a name, over a world that others share.

    Args:
        name: ``a``, ``b``: by which faults select it.
        world: what it tells.
        now_us: the clock.
    """

    def __init__(self, name: str, world: World, now_us: Callable[[], int]) -> None:
        super().__init__(name, world, now_us)
        self._subscribers: set[Subscriber] = set()
        self._last_subscription = 0
        self._subscribed = asyncio.Event()
        self._last_slot = slot_at(now_us())
        self._methods: dict[str, Callable[[list[object]], object]] = {
            "getGenesisHash": lambda params: GENESIS_HASHES[
                "testnet" if self._is_elsewhere(told=False) else "mainnet-beta"
            ],
            "getHealth": lambda params: "ok",
            "getVersion": lambda params: {"solana-core": VERSION, "feature-set": 3_640_012_085},
            "getSlot": self._get_slot,
            "getBlockHeight": self._get_slot,
            "getAccountInfo": self._get_account,
            "getMultipleAccounts": self._get_accounts,
        }

    def routes(self, app: web.Application) -> None:
        """Add ``POST /`` and the websocket at ``GET /``."""
        app.router.add_post("/", self._post)
        app.router.add_get("/", self._websocket)

    # HTTP.

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await self._slow_down()
        for fault in self._faults("rate_limit"):
            if fault.fault.mode != "rpc":
                retry = {"Retry-After": str(fault.fault.retry_after_s)}
                answer = orjson.dumps({"jsonrpc": "2.0", "error": _TOO_MANY, "id": None})
                return web.Response(status=429, body=answer, headers=retry, content_type="application/json")
        try:
            message = orjson.loads(body)
        except orjson.JSONDecodeError:
            error = {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": None}
            return web.json_response(error)
        many = isinstance(message, list)
        answers = [self._answer(one, None) for one in (message if many else [message])]
        frame = self._broken(orjson.dumps(answers if many else answers[0]))
        return web.Response(body=frame, content_type="application/json")

    def _answer(self, message: object, subscriber: Subscriber | None) -> dict[str, object]:
        request_id = message.get("id") if isinstance(message, dict) else None
        head: dict[str, object] = {"jsonrpc": "2.0"}
        try:
            if not isinstance(message, dict) or not isinstance(message.get("method"), str):
                raise RpcError(-32600, "Invalid request")
            if any(fault.fault.mode == "rpc" or subscriber is not None for fault in self._faults("rate_limit")):
                return head | {"error": _TOO_MANY, "id": request_id}
            params = message.get("params") or []
            if not isinstance(params, list):
                raise RpcError(-32602, "Invalid params: invalid type: expected a sequence.")
            return head | {"result": self._call(message["method"], params, subscriber), "id": request_id}
        except RpcError as error:
            return head | {"error": error.body, "id": request_id}

    def _call(self, method: str, params: list[object], subscriber: Subscriber | None) -> object:
        if subscriber is not None:
            if method == "accountSubscribe":
                return self._subscribe(subscriber, params)
            if method == "slotSubscribe":
                self._last_subscription += 1
                subscriber.slots.add(self._last_subscription)
                return self._last_subscription
            if method in ("accountUnsubscribe", "slotUnsubscribe"):
                return self._unsubscribe(subscriber, params)
            raise RpcError(-32601, "Method not found")
        if method not in self._methods:
            raise RpcError(-32601, "Method not found")
        return self._methods[method](params)

    def _context(self, config: dict[str, object]) -> dict[str, object]:
        slot = slot_at(self._now_us()) + (_ELSEWHERE_SLOTS if self._is_elsewhere(told=False) else 0)
        least = config.get("minContextSlot")
        if isinstance(least, int) and least > slot:
            raise RpcError(-32016, "Minimum context slot has not been reached", {"contextSlot": slot})
        return {"apiVersion": VERSION, "slot": slot}

    def _get_slot(self, params: list[object]) -> int:
        config = params[0] if params and isinstance(params[0], dict) else {}
        slot = self._context(config)["slot"]
        assert isinstance(slot, int)
        return slot

    def _account(self, address: str) -> AccountState | None:
        state = self._world.account(address)
        if state is None:
            return None
        place = self._world.catalogue.places[address]
        held = None if place.feed is None else self._world.held(place.feed, place.oracle)
        return self._disguised(address, held, state, told=False)

    def _is_elsewhere(self, *, told: bool) -> bool:
        """Whether HTTP (or ``told``: the websocket) is on another cluster."""
        return any(told or fault.fault.mode != "websocket" for fault in self._faults("cluster"))

    def _disguised(self, address: str, held: Held | None, state: AccountState, *, told: bool) -> AccountState:
        """An account as this server tells it while it is on another cluster, or while the account is an impostor."""
        if held is None:
            return state
        twice = msgspec.structs.replace(held, mantissa=2 * held.mantissa)
        doubled = encode_price(address, twice, LIVE_LIMITS, self._world.catalogue)
        if self._is_elsewhere(told=told):
            return msgspec.structs.replace(state, data=doubled)
        place = self._world.catalogue.places[address]
        for fault in self._faults("impostor"):
            if not fault.hits(place.oracle, place.feed, address):
                continue
            if fault.fault.mode == "discriminator":
                return msgspec.structs.replace(state, data=bytes(255 - byte for byte in doubled[:8]) + doubled[8:])
            return msgspec.structs.replace(state, data=doubled, owner=SYSTEM_PROGRAM)
        return state

    def _get_account(self, params: list[object]) -> object:
        if not params:
            raise RpcError(-32602, "`params` should have at least 1 argument(s)")
        config = _config(params)
        state = self._account(_address(params[0]))
        return {"context": self._context(config), "value": None if state is None else _encoded(state, config)}

    def _get_accounts(self, params: list[object]) -> object:
        if not params or not isinstance(params[0], list):
            raise RpcError(-32602, "`params` should have at least 1 argument(s)")
        if len(params[0]) > MAX_KEYS:
            raise RpcError(-32602, f"Too many inputs provided; max {MAX_KEYS}")
        config = {"encoding": "base64"} | _config(params)
        states = [self._account(_address(key)) for key in params[0]]
        value = [None if state is None else _encoded(state, config) for state in states]
        return {"context": self._context(config), "value": value}

    # Websocket.

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=405, text="Used HTTP Method is not allowed. POST or OPTIONS is required\n")
        for fault in self._faults("rate_limit"):
            if fault.fault.mode == "http":
                return web.Response(status=429, headers={"Retry-After": str(fault.fault.retry_after_s)})
        socket = web.WebSocketResponse(autoping=False, max_msg_size=1 << 20, compress=False)
        await socket.prepare(request)
        subscriber = Subscriber(socket, request.transport)
        self._subscribers.add(subscriber)
        writer = asyncio.create_task(subscriber.write())
        try:
            async for message in socket:
                if self._faults("half_open"):
                    continue
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    reply = self._reply(message.data, subscriber)
                    if reply is not None:
                        subscriber.put(reply)
        except ConnectionError:
            pass
        finally:
            self._subscribers.discard(subscriber)
            writer.cancel()
        return socket

    def _reply(self, data: str | bytes, subscriber: Subscriber) -> bytes | None:
        """The answer to a message; None for one without an id, which wants no answer (a JavaScript client's pings)."""
        try:
            message = orjson.loads(data)
        except orjson.JSONDecodeError:
            return b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}'
        if isinstance(message, dict) and "id" not in message:
            return None
        return orjson.dumps(self._answer(message, subscriber))

    def _subscribe(self, subscriber: Subscriber, params: list[object]) -> int:
        if not params:
            raise RpcError(-32602, "`params` should have at least 1 argument(s)")
        address, config = _address(params[0]), _config(params)
        self._last_subscription += 1
        subscriber.accounts[self._last_subscription] = address
        subscriber.by_address.setdefault(address, {})[self._last_subscription] = config
        self._subscribed.set()
        return self._last_subscription

    def _unsubscribe(self, subscriber: Subscriber, params: list[object]) -> bool:
        number = params[0] if params else None
        if number in subscriber.accounts:
            del subscriber.by_address[subscriber.accounts.pop(number)][number]
        elif number in subscriber.slots:
            subscriber.slots.discard(number)
        else:
            raise RpcError(-32602, "Invalid subscription id.")
        return True

    # What the world tells.

    def tell(self, changes: Sequence[Change]) -> None:
        """Notify subscribers of changes and of new slots."""
        if self._faults("half_open"):
            return
        self._tell_slot()
        silent = [(fault, self._silent_up_to(fault)) for fault in self._faults("silent")]
        for change in changes:
            if change.address is None or change.endpoint not in (None, self.name):
                continue
            place = self._world.catalogue.places[change.address]
            struck = [up_to for fault, up_to in silent if fault.hits(place.oracle, place.feed, change.address)]
            self._notify(change, max(struck, default=0))

    def _silent_up_to(self, fault: ActiveFault) -> int:
        """The last subscription that a fault silences: all, or with ``mode="once"`` those that stood at its begin."""
        if fault.fault.mode != "once":
            return self._last_subscription
        return fault.strikes.setdefault(self.name, self._last_subscription)

    def _notify(self, change: Change, silent_up_to: int) -> None:
        address, state = change.address, None
        assert address is not None
        for subscriber in self._subscribers:
            for number, config in subscriber.by_address.get(address, {}).items():
                if number <= silent_up_to:
                    continue
                told = self._world.told_account(change)
                state = state or self._disguised(address, change.held, told, told=True)
                slot = change.slot + (_ELSEWHERE_SLOTS if self._is_elsewhere(told=True) else 0)
                result = {"context": {"slot": slot}, "value": self._value(state, config)}
                params = {"result": result, "subscription": number}
                frame = orjson.dumps({"jsonrpc": "2.0", "method": "accountNotification", "params": params})
                subscriber.put(self._broken(frame, change))

    def _value(self, state: AccountState, config: dict[str, object]) -> object:
        try:
            return _encoded(state, config)
        except RpcError:
            return _encoded(state, config | {"encoding": "base64"})

    def _tell_slot(self) -> None:
        slot = slot_at(self._now_us())
        self._last_slot = min(self._last_slot, slot)  # the clock may have been stepped back
        for told in range(max(self._last_slot + 1, slot - 8), slot + 1):
            result = {"parent": told - 1, "root": told - 31, "slot": told}
            for subscriber in self._subscribers:
                for number in subscriber.slots:
                    params = {"result": result, "subscription": number}
                    subscriber.put(orjson.dumps({"jsonrpc": "2.0", "method": "slotNotification", "params": params}))
        self._last_slot = slot

    def _broken(self, frame: bytes, change: Change | None = None) -> bytes:
        for fault in self._faults("malformed"):
            wanted = fault.fault
            if change is None and (wanted.source or wanted.feed or wanted.account):
                continue
            if change is not None and not fault.hits(change.oracle, change.feed, change.address):
                continue
            if fault.strike(self.name):
                return _break(frame, fault.fault.mode)
        return frame

    # Sockets.

    @property
    def subscriptions(self) -> int:
        """Account subscriptions that stand."""
        return sum(len(subscriber.accounts) for subscriber in self._subscribers)

    async def wait_for_subscriptions(self, count: int) -> None:
        """Return as soon as so many account subscriptions stand: what is told from then on is heard."""
        while self.subscriptions < count:
            self._subscribed.clear()
            await self._subscribed.wait()

    async def close(self) -> None:
        """Close every websocket in good order."""
        sockets = [subscriber.socket for subscriber in self._subscribers]
        await asyncio.gather(*(socket.close(code=WSCloseCode.GOING_AWAY) for socket in sockets), return_exceptions=True)


def _break(frame: bytes, mode: str | None) -> bytes:
    """A frame that is broken: its JSON cut short, its base64 spoilt, or its account's bytes cut short."""
    if mode in (None, "json"):
        return frame[: len(frame) // 2]
    start = frame.find(b'"data":["')
    if start < 0:
        return frame[: len(frame) // 2]
    begin = start + len(b'"data":["')
    end = frame.index(b'"', begin)
    if mode == "base64":
        return frame[:begin] + b"*" + frame[begin + 1 :]
    return frame[:begin] + frame[begin : begin + min(16, (end - begin) // 4 * 4)] + frame[end:]
