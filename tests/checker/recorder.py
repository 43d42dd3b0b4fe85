"""A process of subscribers that write down everything they receive: ``python -m tests.checker.recorder SPECS LOG``.

Raw subscribers speak the protocol with nothing but a websocket; library subscribers use ``oracle_hub.client`` and write
down what they would have acted on. A line on stdout names a subscriber that had to fall behind (``stuck_first``) and
is back. SIGTERM ends the process in order.
"""

import asyncio
import contextlib
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import msgspec
import orjson
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from oracle_hub.client import HubUnreachable, NoPrice, Prices, connect
from tests.checker.belief import Belief
from tests.checker.binary_form import message_of
from tests.checker.pace import Pace
from tests.checker.records import Acted, Asked, Closed, Log, Opened, Received, Woke

ACT_EVERY_S = 0.1
SILENCE_S = 3.0
"""Without a word for so long, a raw subscriber takes the connection for dead. Many heartbeats."""
OPEN_TIMEOUT_S = 3.0
FLUSH_EVERY_S = 0.5
SMALL_BUFFER_BYTES = 2_048
TOO_SLOW = 4001


class ClientSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one subscriber does."""

    name: str
    kind: str = "raw"
    """``raw`` or ``library``."""
    urls: list[str]
    """Tried in turn."""
    feeds: list[str]
    mode: str = "latest"
    detail: str = "price"
    binary: bool = False
    """Whether it asks for prices in the binary form."""
    max_hz: float | None = None
    max_age_ms: int | None = None
    resume: bool = False
    """Whether it comes back with what it held."""
    disconnect_every_s: float | None = None
    """Mean time after which it leaves, and comes back."""
    stuck_every_s: float | None = None
    """Mean time after which it stops reading …"""
    stuck_for_s: float = 0.0
    """… for so long."""
    stuck_first: bool = False
    """Whether it also does so after every snapshot, until it came back from a 4001 with what it held."""
    seed: int = 0


def monotonic_us() -> int:
    """The clock of all logs."""
    return time.monotonic_ns() // 1_000


class RawSubscriber:
    """Speaks the protocol by hand, and believes what its :class:`Belief` says."""

    def __init__(self, spec: ClientSpec, log: Log, pace: Pace) -> None:
        self._spec = spec
        self._log = log
        self._pace = pace
        self._random = random.Random(spec.seed)
        self._connection = 0
        self._belief: Belief | None = None
        self._stuck_first = spec.stuck_first
        self._code: int | None = None
        """With which its last connection was closed."""

    async def run(self) -> None:
        """Connect, again and again."""
        while not self._pace.over:
            url = self._spec.urls[self._connection % len(self._spec.urls)]
            self._connection += 1
            why, by_peer, code = "left", False, None
            try:
                await self._visit(url)
            except ConnectionClosed as error:
                why, by_peer = f"{type(error).__name__}: {error}"[:200], True
                code = None if error.rcvd is None else error.rcvd.code
            except (OSError, WebSocketException, TimeoutError) as error:
                why = f"{type(error).__name__}: {error}"[:200]
            self._code = code
            self._log.add(Closed(**self._at(), why=why, by_peer=by_peer, code=code))
            await self._pace.wait(self._random.uniform(0.05, 0.8))

    def _at(self) -> dict[str, Any]:
        return {"client": self._spec.name, "connection": self._connection, "at_us": monotonic_us()}

    async def _visit(self, url: str) -> None:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            sock = await self._connected(url)
        async with open_websocket(
            url,
            sock=sock,
            subprotocols=[Subprotocol("oraclehub.v1.bin" if self._spec.binary else "oraclehub.v1")],
            compression=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=0.2,
            ping_interval=None,
            max_queue=4,  # who does not read leaves it to the kernel
        ) as websocket:
            self._log.add(Opened(**self._at(), url=url))
            await self._listen(websocket)

    async def _connected(self, url: str) -> socket.socket:
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if self._spec.stuck_every_s is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
            parts = urlsplit(url)
            await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
        except BaseException:
            sock.close()
            raise
        return sock

    def _after_s(self, mean_s: float | None) -> float:
        return float("inf") if mean_s is None else time.monotonic() + self._random.expovariate(1 / mean_s)

    async def _listen(self, websocket: ClientConnection) -> None:
        spec = self._spec
        leave_at_s, stick_at_s = self._after_s(spec.disconnect_every_s), self._after_s(spec.stuck_every_s)
        hello = orjson.loads(await self._read(websocket))
        before = self._belief if spec.resume and self._belief is not None and self._belief.current else None
        belief = self._belief = Belief(before)
        belief.instance = hello["instance"]
        await self._subscribe(websocket, before)
        while time.monotonic() < leave_at_s:
            message = orjson.loads(await self._read(websocket, belief))
            if belief.sub is not None and not belief.current and message["type"] in ("update", "heartbeat"):
                return  # something was missed, and it knows: start over
            if time.monotonic() >= stick_at_s or (self._stuck_first and message["type"] == "snapshot"):
                began_us = monotonic_us()
                await self._pace.wait(spec.stuck_for_s)
                self._log.add(Woke(**self._at(), stuck_us=monotonic_us() - began_us))
                stick_at_s = self._after_s(spec.stuck_every_s)

    async def _read(self, websocket: ClientConnection, belief: Belief | None = None) -> str:
        async with asyncio.timeout(SILENCE_S):
            data = await websocket.recv()
        text = data if isinstance(data, str) else orjson.dumps(message_of(data)).decode()
        believed = None
        if belief is not None:
            message = orjson.loads(text)
            if message["type"] == "subscribed":
                belief.subscribed(message, belief.instance)
                if self._stuck_first and self._code == TOO_SLOW and message["recovered"]:
                    self._stuck_first = False
                    print(self._spec.name, flush=True)
            belief.take(message)
            believed = belief.believed() if message["type"] in ("snapshot", "heartbeat") else None
        self._log.add(Received(**self._at(), text=text, believed=believed))
        return text

    async def _subscribe(self, websocket: ClientConnection, before: Belief | None) -> None:
        spec = self._spec
        request: dict[str, object] = {"type": "subscribe", "id": 1, "feeds": spec.feeds}
        request |= {"mode": spec.mode, "detail": spec.detail}
        for key, value in (("max_hz", spec.max_hz), ("max_age_ms", spec.max_age_ms)):
            if value is not None:
                request[key] = value
        if before is not None:
            request["resume"] = before.resume
        text = orjson.dumps(request).decode()
        self._log.add(Asked(**self._at(), text=text))
        await websocket.send(text)


class LibrarySubscriber:
    """Uses the product's client and writes down every price that it would have acted on."""

    def __init__(self, spec: ClientSpec, log: Log, pace: Pace) -> None:
        self._spec = spec
        self._log = log
        self._pace = pace

    async def run(self) -> None:
        """Stay connected, and ask for prices at a steady pace."""
        while not self._pace.over:
            with contextlib.suppress(HubUnreachable):
                async with connect(
                    self._spec.urls,
                    self._spec.feeds,
                    max_age_ms=self._spec.max_age_ms,
                    binary=self._spec.binary,
                    open_timeout_s=OPEN_TIMEOUT_S,
                ) as prices:
                    await self._act(prices)
            await self._pace.wait(ACT_EVERY_S)

    async def _act(self, prices: Prices) -> None:
        while not self._pace.over:
            for feed in self._spec.feeds:
                self._ask(prices, feed)
            await self._pace.wait(ACT_EVERY_S)

    def _ask(self, prices: Prices, feed: str) -> None:
        at_us = monotonic_us()
        try:
            price = prices.get(feed)
        except NoPrice:
            return
        acted = Acted(
            client=self._spec.name,
            connection=0,
            at_us=at_us,
            feed=feed,
            state=price.state,
            price=str(price.mantissa),
            publish_time_us=price.publish_time_us,
            valid_until_us=price.valid_until_us,
            instance=price.instance,
            epoch=price.epoch,
            seq=price.seq,
        )
        self._log.add(acted)


async def _flush(log: Log, pace: Pace) -> None:
    while not pace.over:
        await pace.wait(FLUSH_EVERY_S)
        log.flush()


async def record(specs: list[ClientSpec], log: Log, pace: Pace) -> None:
    """Run all subscribers until the run is over."""
    runs = [
        (LibrarySubscriber(spec, log, pace) if spec.kind == "library" else RawSubscriber(spec, log, pace))
        for spec in specs
    ]
    tasks = [asyncio.create_task(one.run(), name=spec.name) for one, spec in zip(runs, specs, strict=True)]
    tasks += [asyncio.create_task(_flush(log, pace)), asyncio.create_task(pace.ended())]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    log.flush()
    for task in done:
        task.result()  # a subscriber ends by a fault only: let it be seen


async def _main(specs: list[ClientSpec], file: BinaryIO) -> None:
    pace = Pace()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pace.end)
    await record(specs, Log(file), pace)


if __name__ == "__main__":
    with Path(sys.argv[2]).open("ab") as log_file:
        asyncio.run(_main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[ClientSpec]), log_file))
