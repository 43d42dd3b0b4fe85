"""A real EVM node (Anvil), the contracts of a price feed on it, and a link that listens to it over real sockets.

web3 stands on the other side: it deploys and transacts as a client that we didn't write. Nothing here sleeps.
"""

import asyncio
import random
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from eth_typing import ChecksumAddress
from web3 import Web3
from web3.contract import Contract

from feeds.chainlink.evm import EvmLink
from oracle_hub.core.source import Effect, Event, Frame, Link, Malformed, PriceUpdate, Status, Unchanged
from oracle_hub.ingest.driver import DriverLimits, LinkDriver
from tests.conftest import ROOT, require
from tests.patience import PATIENCE_S
from tests.ports import free_ports

HERE = Path(__file__).parent
BINARY = ROOT / "tests/js/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
CHAIN_ID = 31_337
QUICK = DriverLimits(backoff_first_s=0.02, backoff_max_s=0.1, close_timeout_s=0.05)
CONTRACTS = orjson.loads((HERE / "feeds.json").read_bytes())["contracts"]


class Anvil:
    """One node. ``state`` is the file that it writes when it ends and reads when it starts."""

    def __init__(self, port: int, state: Path | None = None) -> None:
        require(BINARY.is_file(), "Anvil (npm ci --prefix tests/js --ignore-scripts)")
        self.port = port
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None
        self.drain: threading.Thread | None = None
        self.web3 = Web3(Web3.HTTPProvider(f"http://127.0.0.1:{port}"))

    @property
    def ws(self) -> str:
        """Where its websocket is."""
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        # An hour ago, so that tests can let its clock run ahead.
        arguments = ["--port", str(self.port), "--timestamp", str(int(time.time()) - 3_600)]
        if self.state is not None:
            arguments += ["--state", str(self.state)]
        process = subprocess.Popen([BINARY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process = process
        output = process.stdout
        assert output is not None
        assert any(line.startswith(b"Listening on ") for line in output), "Anvil ended before it listened"
        self.drain = threading.Thread(target=output.read, daemon=True)  # or a full pipe would stop it
        self.drain.start()
        self.web3.eth.default_account = self.web3.eth.accounts[0]

    def stop(self, *, kill: bool = False) -> None:
        """End it: asked, so that it writes its state, or killed."""
        if self.process is not None:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(PATIENCE_S)
            if self.drain is not None:
                self.drain.join(PATIENCE_S)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def deploy(self, name: str, *arguments: object) -> Contract:
        """Deploy one of the contracts."""
        made = CONTRACTS[name]
        receipt = self.receipt(
            self.web3.eth.contract(abi=made["abi"], bytecode=made["bytecode"]).constructor(*arguments)
        )
        address: ChecksumAddress | None = receipt["contractAddress"]
        assert address is not None
        return self.web3.eth.contract(address=address, abi=made["abi"])

    def receipt(self, call: Any) -> Any:
        """Transact and wait for the block."""
        return self.web3.eth.wait_for_transaction_receipt(call.transact(), timeout=PATIENCE_S, poll_latency=0.005)

    def feed(self, description: str, decimals: int = 8) -> tuple[Contract, Contract]:
        """A proxy and its first aggregator, without an answer."""
        aggregator = self.deploy("Aggregator", decimals, description)
        return self.deploy("Proxy", aggregator.address), aggregator

    def transmit(self, aggregator: Contract, answer: int, seconds_ago: int = 3) -> int:
        """One answer; gives the unix seconds of its block."""
        block = self.receipt(aggregator.functions.transmit(answer, seconds_ago))["blockNumber"]
        return int(self.web3.eth.get_block(block)["timestamp"])

    def ask(self, method: str, *params: object) -> Any:
        """A method of Anvil's own."""
        answer = self.web3.provider.make_request(method, list(params))  # type: ignore[arg-type]  # a NewType of str
        assert "error" not in answer, answer
        return answer["result"]


@contextmanager
def anvil(state: Path | None = None) -> Iterator[Anvil]:
    """A node that runs."""
    node = Anvil(free_ports(1)[0], state)
    node.start()
    try:
        yield node
    finally:
        node.stop(kill=True)


class Listener:
    """A sink that keeps what links say, and lets a test wait for it."""

    def __init__(self) -> None:
        self.said: list[Event] = []
        self.at_us: list[int] = []
        self.frames: list[tuple[str, object, int]] = []
        """Every call of every link in its order: what a journal holds."""
        self._news = asyncio.Event()

    def on_connect(self, link: Link, now_us: int) -> Sequence[Effect]:
        self.frames.append((link.name, "connect", now_us))
        return link.connect(now_us)

    def on_frame(self, link: Link, frame: Frame, received_us: int) -> Sequence[Effect]:
        self.frames.append((link.name, frame, received_us))
        return self._sort(link.receive(frame, received_us))

    def on_timer(self, link: Link, now_us: int) -> Sequence[Effect]:
        self.frames.append((link.name, "timer", now_us))
        return self._sort(link.on_timer(now_us))

    def on_disconnect(self, link: Link, now_us: int, reason: str) -> None:
        self._news.set()

    def _sort(self, outputs: Sequence[Event | Effect]) -> list[Effect]:
        effects: list[Effect] = []
        for output in outputs:
            if isinstance(output, PriceUpdate | Unchanged | Malformed | Status):
                self.said.append(output)
                self.at_us.append(time.time_ns() // 1_000)
            else:
                effects.append(output)
        self._news.set()
        return effects

    @property
    def prices(self) -> list[PriceUpdate]:
        """The updates alone."""
        return [one for one in self.said if isinstance(one, PriceUpdate)]

    async def until(self, found: Callable[[], bool], what: str) -> None:
        """Wait for something that was said."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not found():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; said: {self.said[-8:]}") from None

    async def price(self, mantissa: int) -> PriceUpdate:
        """Wait for a price."""
        await self.until(lambda: any(one.mantissa == mantissa for one in self.prices), f"price {mantissa}")
        return next(one for one in self.prices if one.mantissa == mantissa)


@asynccontextmanager
async def listening(*links: EvmLink) -> AsyncIterator[Listener]:
    """The links over real sockets until the block ends; a failure of a driver is raised there."""
    listener = Listener()
    async with aiohttp.ClientSession() as session:
        drivers = [
            LinkDriver(
                link, listener, session, clock=lambda: time.time_ns() // 1_000, rng=random.Random(1), limits=QUICK
            )
            for link in links
        ]
        tasks = [asyncio.create_task(driver.run()) for driver in drivers]
        try:
            yield listener
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
