"""A hub as its user starts it, subscribers on sockets, and the chain beside them: real processes, real protocols.

Nothing here sleeps: every wait is for a message, a line or an exit, with a patience that is long enough for a busy
machine, and no test judges how long anything took.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from feeds.emulator.emulator import EmulatorUrls
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "oracle_hub.cli")
FEEDS = ("SOL/USD", "BTC/USD", "ETH/USD", "USDC/USD", "USDT/USD")

Message: TypeAlias = dict[str, Any]

HUB = """
[hub]
warmup_ms = {warmup_ms}
max_divergence_bps = {max_divergence_bps}
[server]
heartbeat_ms = {heartbeat_ms}
{server}[solana]
snapshot_interval_ms = 1_000
silence_ms = 2_000
[roles]
primary = "doves"
verifiers = ["chainlink", "pyth"]
[sources.doves]
kind = "doves.custody"
max_age_ms = {max_age_ms}
[sources.chainlink]
kind = "chainlink.store"
max_age_ms = {chainlink_max_age_ms}
"""
PYTH = '[sources.pyth]\nkind = "pyth.hermes"\n'


def hub_config(
    urls: EmulatorUrls | None = None,
    *,
    warmup_ms: int = 10_000,
    max_age_ms: int = 8_000,
    max_divergence_bps: int = 50,
    server: str = "",
    heartbeat_ms: int = 500,
    feeds: Sequence[str] = FEEDS,
) -> str:
    """A configuration with short ages. With ``urls`` the hub takes the emulator there for the real chain.

    Ages are those of the primary, Pyth's and Chainlink's half a second and a second more. What the emulator writes is
    up to 3 s old before the next is there; the rest is for a machine that is busy: where every price is there, all stay
    live. So is the warm-up, which lasts that long only where a source says nothing. Clients leave a hub that has said
    nothing for two and a half heartbeats. ``server`` is more lines of its section.
    """
    text = HUB.format(
        warmup_ms=warmup_ms,
        max_age_ms=max_age_ms,
        chainlink_max_age_ms=max_age_ms + 1_000,
        max_divergence_bps=max_divergence_bps,
        server=server,
        heartbeat_ms=heartbeat_ms,
    )
    text += f"{PYTH}max_age_ms = {max_age_ms + 500}\n"
    if urls is None:
        text += "[emulator]\n"
    else:
        text += 'signers = "simulated"\n'
        text += f"hosts = {orjson.dumps([host.url for host in urls.hermes]).decode()}\n"
        for rpc in urls.solana:
            text += f'[[solana.rpc]]\nname = "{rpc.name}"\nhttp_url = "{rpc.http}"\nws_url = "{rpc.ws}"\n'
    return text + "".join(f'[feeds."{feed}"]\n' for feed in feeds)


async def patiently(waiting: Any, what: str) -> Any:
    """Await, and fail with what was waited for."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await waiting
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}") from None


async def asked(
    hub: "HubProcess", client: "Subscriber", path: str, wanted: Callable[[Message], bool], what: str
) -> Message:
    """Ask a hub, again at every message of its stream, until the answer is as wanted."""

    async def ask() -> Message:
        while not wanted(answer := await hub.get(path)):
            await client.read()
        return answer

    answer: Message = await patiently(ask(), what)
    return answer


class Finished:
    """What a command left behind."""

    def __init__(self, status: int, out: bytes, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def lines(self) -> list[Message]:
        """Standard output as JSON lines."""
        return [orjson.loads(line) for line in self.out.splitlines()]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment, without what could change an outcome."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOLANA_", "PYTH_"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}


async def command(*arguments: object, data: bytes = b"", env: dict[str, str] | None = None) -> Finished:
    """Run ``oracle-hub`` with these arguments to its end."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(env),
    )
    try:
        out, err = await patiently(process.communicate(data), f"the end of oracle-hub {arguments}")
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Finished(process.returncode, out, err.decode())


class HubProcess:
    """A running hub. ``hello`` is what it printed with ``--json``."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path) -> None:
        self.process = process
        self.state = state
        self.log: list[str] = []
        self.hello: Message = {}
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read_log())
        self.http = aiohttp.ClientSession()

    @property
    def url(self) -> str:
        return str(self.hello["url"])

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._news:
                self.log.append(line.decode().rstrip())
                self._news.notify_all()

    async def started(self) -> "HubProcess":
        """Wait for the line that says where it serves."""
        assert self.process.stdout is not None
        line = await patiently(self.process.stdout.readline(), "the hub's first line")
        assert line, "the hub ended at once:\n" + "\n".join(self.log)
        self.hello = orjson.loads(line)
        return self

    async def logged(self, part: str) -> str:
        """Wait for a line of the log that has this in it."""

        def found() -> str | None:
            return next((line for line in self.log if part in line), None)

        async with self._news:
            await patiently(self._news.wait_for(lambda: found() is not None), f"{part!r} in the log")
        line = found()
        assert line is not None
        return line

    async def get(self, path: str) -> Message:
        """A JSON answer, whatever its status."""
        async with self.http.get(self.url + path) as response:
            answer: Message = orjson.loads(await response.read())
        return answer

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def halted(self) -> None:
        """Wait until a signal has stopped or killed it: it does nothing any more."""
        with contextlib.suppress(ChildProcessError):  # the event loop has heard of its end already
            options = os.WSTOPPED | os.WEXITED | os.WNOWAIT
            await patiently(asyncio.to_thread(os.waitid, os.P_PID, self.process.pid, options), "the hub's halt")

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        status: int = await patiently(self.process.wait(), "the hub's end")
        await self._reading
        return status

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.send_signal(number)
        return await self.ended()

    async def clean_up(self) -> None:
        """End it whatever happened."""
        await self.http.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading


class Subscriber:
    """One websocket. Whatever was read is in ``messages``."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []
        self.close_code: int | None = None

    async def read(self) -> Message:
        """The next message. Raises ConnectionClosed at the end."""
        try:
            message: Message = orjson.loads(await self.socket.recv())
        except ConnectionClosed as closed:
            self.close_code = None if closed.rcvd is None else closed.rcvd.code
            raise
        self.messages.append(message)
        return message

    async def until(self, wanted: Callable[[Message], bool], what: str) -> Message:
        """Read on to the first message that is wanted."""

        async def search() -> Message:
            while not wanted(message := await self.read()):
                pass
            return message

        found: Message = await patiently(search(), what)
        return found

    async def feed(self, name: str, wanted: Callable[[Message], bool], what: str) -> Message:
        """Read on to the first word on a feed that is wanted; the feed's entry."""
        entry: Message = {}

        def has(message: Message) -> bool:
            found = [one for one in entries(message) if one["feed"] == name and wanted(one)]
            entry.update(found[0] if found else {})
            return bool(found)

        await self.until(has, f"{name}: {what}")
        return entry

    async def all_in(self, state: str, feeds: Sequence[str] = FEEDS) -> None:
        """Read on until the latest word on every feed has this state, counting what was read before."""
        await self.all_have("state", state, feeds)

    async def all_have(self, key: str, value: str, feeds: Sequence[str]) -> None:
        """Read on until the latest word on every feed has this value, counting what was read before."""

        def latest() -> dict[str, str]:
            return {entry["feed"]: entry[key] for message in self.messages for entry in entries(message)}

        if any(latest().get(feed) != value for feed in feeds):
            await self.until(lambda _: all(latest().get(feed) == value for feed in feeds), f"{feeds} all {value}")

    async def to_the_end(self) -> list[Message]:
        """Read until the connection ends; all messages."""

        async def drain() -> None:
            try:
                while True:
                    await self.read()
            except ConnectionClosed:
                pass

        await patiently(drain(), "the end of the stream")
        return self.messages

    @property
    def words(self) -> list[tuple[Message, Message]]:
        """Every word on every feed so far, as (message, entry)."""
        return [(message, entry) for message in self.messages for entry in entries(message)]


def entries(message: Message) -> list[Message]:
    """The feeds that a message tells of."""
    found: list[Message] = message["feeds"] if message["type"] in ("snapshot", "update") else []
    return found


@asynccontextmanager
async def subscriber(hub: HubProcess, *feeds: str, **options: object) -> AsyncIterator[Subscriber]:
    """Subscribe to feeds (none: to all) with full detail."""
    url = hub.url.replace("http", "ws", 1) + "/v1/stream"
    async with connect(
        url,
        subprotocols=["oraclehub.v1"],  # type: ignore[list-item]  # a NewType of str
        compression=None,
        proxy=None,
        max_queue=None,  # read on while a test waits for something else: it is no slow client
        close_timeout=1,
    ) as socket:
        client = Subscriber(socket)
        await client.until(lambda message: message["type"] == "hello", "hello")
        request = {"type": "subscribe", "id": 1, "feeds": list(feeds) or ["*"], "detail": "full", **options}
        await socket.send(orjson.dumps(request).decode())
        yield client


def check_leases(client: Subscriber) -> None:
    """Nothing that was sent as a price was over when it was sent."""
    for message, entry in client.words:
        until_us = entry["valid_until_us"]
        if entry["price"] is not None and until_us is not None:
            assert message["sent_us"] < until_us, (message["seq"], entry)
        assert (entry["price"] is None) is (entry["state"] == "none"), entry


def check_order(client: Subscriber) -> None:
    """Nothing was lost, and no source's publish time went back."""
    held: int | None = None
    latest_us: dict[tuple[str, str], int] = {}
    for message in client.messages:
        if message["type"] == "update":
            assert held is not None and message["prev_seq"] == held, message
        if message["type"] in ("snapshot", "update"):
            held = message["seq"]
        for entry in entries(message):
            for source, one in entry["inputs"].items():
                if one["publish_time_us"] is not None:
                    key = entry["feed"], source
                    assert one["publish_time_us"] >= latest_us.get(key, 0), (key, entry)
                    latest_us[key] = one["publish_time_us"]
