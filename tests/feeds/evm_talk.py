"""A link to a node of an EVM chain and a node that answers it at once: no socket, and one clock for everybody."""

from collections.abc import Sequence
from typing import Any

import orjson

from feeds.chainlink.evm import EvmLink
from feeds.chainlink.proxies import EvmFeed
from feeds.emulator.evm import EvmNode
from feeds.evm_addresses import PROXIES, SEQUENCERS
from oracle_hub.core.source import Condition, Frame, Open, PriceUpdate, Send, Status

S = 1_000_000
NOW_S = 1_790_000_000
SOL, BTC = PROXIES[1]["SOL/USD"], PROXIES[1]["BTC/USD"]
UPTIME = SEQUENCERS[42_161]
URL = "wss://node.example/v2/abcdef0123456789"


class Talk:
    """A link and a node that answers it at once. ``now_s`` is everybody's clock."""

    def __init__(self, *feeds: str, chain_id: int = 1, **options: Any) -> None:
        self.now_s = NOW_S
        self.node = EvmNode(1, NOW_S - 100)
        for feed in ("SOL/USD", "BTC/USD"):
            self.node.add(PROXIES[1][feed], feed.replace("/", " / "))
        self.node.add(UPTIME, "L2 Sequencer Uptime Status Feed", 0)
        named = {feed: EvmFeed(PROXIES[1][feed]) for feed in feeds or ("SOL/USD",)}
        self.link = EvmLink("evm:1", URL, named, chain_id=chain_id, **options)
        self.asked: list[dict[str, Any]] = []
        self.deaf = False

    def connect(self) -> list[Any]:
        opening, *rest = self.link.connect(self.now_s * S)
        assert opening == Open("websocket", URL)
        return self.settle(rest)

    def settle(self, outputs: Sequence[Any]) -> list[Any]:
        """Have the node answer until nothing is asked any more; what was said meanwhile."""
        said: list[Any] = []
        waiting = list(outputs)
        while waiting:
            output = waiting.pop(0)
            if isinstance(output, Send):
                self.asked.append(orjson.loads(output.text))
                for text in self.node.answer(self, output.text):
                    waiting += self.hear(text)
            else:
                said.append(output)
        return said

    def hear(self, text: str | bytes) -> list[Any]:
        data = text.encode() if isinstance(text, str) else text
        return self.link.receive(Frame("websocket", data), self.now_s * S)

    def tell(self, told: list[tuple[object, str]]) -> list[Any]:
        return [] if self.deaf else [said for _, text in told for said in self.settle(self.hear(text))]

    def transmit(self, answer: int, observed_s: int | None = None, proxy: str = SOL) -> list[Any]:
        return self.tell(self.node.transmit(proxy, answer, observed_s or self.now_s - 3, self.now_s))

    def later(self, seconds: int, *, blocks: bool = True) -> list[Any]:
        """Time passes, with a block every ten seconds, and the timers that it ends fire."""
        said: list[Any] = []
        until_us = (self.now_s + seconds) * S
        while blocks and until_us - self.now_s * S > 10 * S:
            said += self.later(10, blocks=False) + self.tell(self.node.mine(self.now_s, []))
        while (due_us := self.link.next_deadline()) is not None and due_us <= until_us:
            self.now_s = max(self.now_s, -(-due_us // S))
            said += self.settle(self.link.on_timer(self.now_s * S))
        self.now_s = until_us // S
        return said


def conditions(said: Sequence[Any]) -> list[tuple[str | None, Condition]]:
    return [(one.feed, one.condition) for one in said if isinstance(one, Status)]


def prices(said: Sequence[Any]) -> list[int]:
    return [one.mantissa for one in said if isinstance(one, PriceUpdate)]
