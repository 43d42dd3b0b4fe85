"""How soon an answer on an EVM chain is a price: from the transaction to the link's update, by a real node (Anvil).

Beside us listens web3's own client, in the same process and to the same node. The node makes a block the moment that a
transaction comes; the clock starts before it is sent, so that its way to the node and the node's work count.
"""

import asyncio
import sys
import time
from typing import Any

from web3 import AsyncWeb3, WebSocketProvider
from web3.types import LogReceipt

from benchmarks.report import Figure, Report, Table, main
from feeds.chainlink.contracts import ANSWER_UPDATED
from feeds.chainlink.evm import EvmLink
from feeds.chainlink.proxies import EvmFeed
from tests.evm.anvil import BINARY, CHAIN_ID, Anvil, anvil, listening

ANSWERS = 50
PRICE = 100 * 10**8


async def web3_hears(web3: AsyncWeb3[Any], heard: asyncio.Queue[float]) -> None:
    """When web3's client hands out each log."""
    async for message in web3.socket.process_subscriptions():
        result: LogReceipt = message["result"]
        assert result["topics"]
        heard.put_nowait(time.perf_counter())


async def one_by_one(node: Anvil) -> tuple[list[float], list[float]]:
    """Milliseconds from the transaction to our update, and to web3's log, for each answer."""
    proxy, aggregator = node.feed("SOL / USD")
    node.transmit(aggregator, PRICE)
    link = EvmLink("evm:1", node.ws, {"SOL/USD": EvmFeed(proxy.address)}, chain_id=CHAIN_ID)
    ours_ms: list[float] = []
    theirs_ms: list[float] = []
    async with listening(link) as heard, AsyncWeb3(WebSocketProvider(node.ws)) as web3:
        await heard.price(PRICE)
        await web3.eth.subscribe("logs", {"address": aggregator.address, "topics": [ANSWER_UPDATED]})
        times: asyncio.Queue[float] = asyncio.Queue()
        listener = asyncio.create_task(web3_hears(web3, times))
        for number in range(1, ANSWERS + 1):
            node.ask("evm_increaseTime", 5)
            transact = aggregator.functions.transmit(PRICE + number, 1).transact
            offset_s = time.time() - time.perf_counter()
            started_s = time.perf_counter()
            sending = asyncio.create_task(asyncio.to_thread(transact))
            told = await heard.price(PRICE + number)
            ours_ms.append((told.received_us / 1e6 - offset_s - started_s) * 1e3)
            theirs_ms.append((await times.get() - started_s) * 1e3)
            await sending
        listener.cancel()
    return ours_ms, theirs_ms


def run(repetitions: int) -> Report:
    """Measure on a node of its own for each repetition."""
    if not BINARY.is_file():
        return Report("evm", (), (), ("Anvil is not here: npm ci --prefix tests/js --ignore-scripts",))
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(repetitions):
        with anvil() as node:
            for held, new in zip((ours, theirs), asyncio.run(one_by_one(node)), strict=True):
                held += new
    rows = []
    for name, delays_ms in (("our link", ours), ("web3's client", theirs)):
        delays_ms.sort()
        rows.append((name, delays_ms[len(delays_ms) // 2], delays_ms[int(len(delays_ms) * 0.99)], delays_ms[-1]))
    table = Table(f"{len(ours)} answers", ("heard by", "median ms", "p99 ms", "longest ms"), tuple(rows))
    return Report("evm", (Figure("answer_ms_p99", rows[0][2], "ms", at_most=50.0),), (table,))


if __name__ == "__main__":
    sys.exit(main("evm", __doc__ or "", run, repetitions=3))
