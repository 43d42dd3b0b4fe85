"""A chain in memory that answers a Solana link's requests, and a Hermes that answers its own: no sockets, no clock."""

import base64
from collections.abc import Sequence
from pathlib import Path

import orjson

from feeds.addresses import ASSETS
from feeds.chainlink.store import PROGRAM as STORE
from feeds.chainlink.store import Transmission, Transmissions
from feeds.doves import PROGRAM as DOVES
from feeds.doves import AgPriceFeed, PriceFeed
from feeds.emulator.pyth_signing import simulated_signer
from feeds.jupiter import PROGRAM as PERPS
from feeds.jupiter import Custody
from feeds.layout import UNSET_KEY, pad32, pubkey_bytes
from feeds.pyth.accumulator import PriceMessage
from oracle_hub.app.engine import Engine
from oracle_hub.app.lineup import build_lineup, journaled_endpoints
from oracle_hub.app.pump import Pump
from oracle_hub.clock import AnchoredClock, ManualClock
from oracle_hub.config import Config
from oracle_hub.core.hub import Batch
from oracle_hub.core.source import Effect, Fetch, Frame, Send
from oracle_hub.journal.records import RunStart
from oracle_hub.journal.writer import JournalWriter
from oracle_hub.metrics import Latencies

SIMULATION = """
[roles]
primary = "doves"
verifiers = ["chainlink", "pyth"]
[sources.doves]
kind = "doves.custody"
[sources.chainlink]
kind = "chainlink.store"
max_age_ms = 5000
[sources.pyth]
kind = "pyth.hermes"
[feeds."SOL/USD"]
[feeds."BTC/USD"]
[emulator]
"""


class Chain:
    """Accounts, and what an RPC says of them."""

    def __init__(self) -> None:
        self.slot = 400_000_000
        self.accounts: dict[str, tuple[str, bytes]] = {}
        self.subscriptions: dict[tuple[str, str], int] = {}
        self.limits: dict[str, tuple[int, int, int]] = {}
        """What aggregates publish, where it is not 10 s, 60 s and 50 bps."""

    def put(self, address: str, owner: str, data: bytes) -> None:
        self.slot += 1
        self.accounts[address] = (owner, data)

    def custody(self, feed: str) -> None:
        asset = ASSETS[feed]
        custody = Custody(
            pool=UNSET_KEY,
            mint=pubkey_bytes(asset.mint),
            doves_oracle=pubkey_bytes(asset.edge),
            doves_ag_oracle=pubkey_bytes(asset.ag),
        )
        self.put(asset.custody, PERPS, custody.encode())

    def aggregate(self, feed: str, price: int, timestamp: int, limits: tuple[int, int, int] | None = None) -> str:
        asset = ASSETS[feed]
        if limits is not None:
            self.limits[feed] = limits
        age_s, leg_age_s, diff_bps = self.limits.get(feed, (10, 60, 50))
        state = AgPriceFeed(
            mint=pubkey_bytes(asset.mint),
            edge_feed=pubkey_bytes(asset.edge),
            cl_feed=pubkey_bytes(asset.chainlink_doves),
            pyth_feed=pubkey_bytes(asset.pyth_old_push),
            pyth_feed_id=bytes.fromhex(asset.hermes_id),
            price=price,
            expo=-8,
            timestamp=timestamp,
            max_ag_price_age_sec=age_s,
            max_price_feed_age_sec=leg_age_s,
            max_price_diff_bps=diff_bps,
        )
        self.put(asset.ag, DOVES, state.encode())
        return asset.ag

    def leg(self, feed: str, name: str, price: int, timestamp: int) -> str:
        """A Doves account of one oracle: ``edge``, ``chainlink`` or ``lazer``."""
        asset = ASSETS[feed]
        address, pair = {
            "edge": (asset.edge, asset.edge_pair),
            "chainlink": (asset.chainlink_doves, asset.chainlink_pair),
            "lazer": (asset.lazer, asset.lazer_pair),
        }[name]
        self.put(address, DOVES, PriceFeed(pair, bytes(33), price, -8, timestamp).encode())
        return address

    def store(self, feed: str, price: int, timestamp: int) -> str:
        asset = ASSETS[feed]
        ring = Transmission(self.slot, timestamp, price).encode()
        name = pad32(feed.replace("/", " / "))
        data = Transmissions(2, 1, UNSET_KEY, UNSET_KEY, UNSET_KEY, name, 8, 0, 7, 1, 1, 0, 0, ring).encode()
        self.put(asset.chainlink_store, STORE, data)
        return asset.chainlink_store

    def value(self, address: str) -> dict[str, object] | None:
        if address not in self.accounts:
            return None
        owner, data = self.accounts[address]
        encoded = [base64.b64encode(data).decode(), "base64"]
        return {"data": encoded, "owner": owner, "lamports": 1, "executable": False, "rentEpoch": 0, "space": len(data)}

    def answer(self, link: str, effect: Effect) -> Frame | None:
        """What comes back for a request, or for a message on the websocket."""
        if isinstance(effect, Fetch) and effect.method == "POST":
            request = orjson.loads(effect.body)
            if request["method"] == "getGenesisHash":
                result: object = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
            else:
                values = [self.value(address) for address in request["params"][0]]
                result = {"context": {"slot": self.slot}, "value": values}
            body = orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result})
            return Frame("http", body, effect.fetch_id, 200)
        if isinstance(effect, Send):
            request = orjson.loads(effect.text)
            if request["method"] == "accountSubscribe":
                self.subscriptions[link, request["params"][0]] = request["id"] + 1000
            return Frame(
                "websocket", orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "result": request["id"] + 1000})
            )
        return None

    def notification(self, link: str, address: str) -> Frame:
        params = {
            "result": {"context": {"slot": self.slot}, "value": self.value(address)},
            "subscription": self.subscriptions[link, address],
        }
        return Frame("websocket", orjson.dumps({"jsonrpc": "2.0", "method": "accountNotification", "params": params}))


def hermes_event(prices: dict[str, tuple[int, int]], conf: int = 1_000) -> Frame:
    """One event of the Hermes stream, signed: price and publish time in seconds, by feed."""
    parsed, messages = [], []
    for feed, (price, publish_time) in prices.items():
        price_id = ASSETS[feed].hermes_id
        body = {"price": str(price), "conf": str(conf), "expo": -8, "publish_time": publish_time}
        parsed.append({"id": price_id, "price": body, "ema_price": body, "metadata": {"slot": 1}})
        feed_id = bytes.fromhex(price_id)
        messages.append(PriceMessage(feed_id, price, conf, -8, publish_time, publish_time, price, conf))
    blobs = simulated_signer().updates(messages, max(message.publish_time for message in messages), slot=1)
    binary = {"encoding": "base64", "data": [base64.b64encode(blob).decode() for blob in blobs]}
    return Frame("sse", orjson.dumps({"binary": binary, "parsed": parsed}))


class Rig:
    """A whole hub without server and sockets, on a clock that moves when told to."""

    def __init__(self, directory: Path, config: Config, *, max_segment_bytes: int = 64 * 2**20) -> None:
        self.manual = ManualClock(wall_us=1_790_000_000_000_000)
        self.clock = AnchoredClock(self.manual)
        self.chain = Chain()
        self.published: list[Batch] = []
        self.journal = JournalWriter(
            directory,
            instance="test",
            epoch=1_790_000_000,
            max_segment_bytes=max_segment_bytes,
            clock=self.manual.monotonic_us,
            wall_clock=self.clock.now_us,
        )
        lineup = build_lineup(config, journaled_endpoints(config))
        now_us = self.clock.now_us()
        engine = Engine(lineup, epoch=1_790_000_000, started_us=now_us, warmup_us=10_000_000)
        self.pump = Pump(
            engine,
            self.clock,
            journal=self.journal,
            journal_required=False,
            publish=lambda batch, journaled: self.published.append(batch),
            latencies=Latencies(),
            checkpoint_interval_us=0,
        )
        self.pump.carry_out = self.carry_out
        self.hermes: tuple[str, ...] = ("hermes:1",)
        """The hosts of Hermes that tell prices."""
        self.pump.begin(RunStart("test", 1_790_000_000, "0", True, now_us, 0), now_us)
        self.pump.step()

    @property
    def now_s(self) -> int:
        return self.clock.now_us() // 1_000_000

    def connect(self, *names: str) -> None:
        for name in names or tuple(self.pump.engine.lineup.links):
            link = self.pump.engine.lineup.links[name]
            self.carry_out(name, self.pump.on_connect(link, self.clock.now_us()))

    def carry_out(self, name: str, effects: Sequence[Effect]) -> None:
        if name.startswith("solana"):
            for effect in effects:
                frame = self.chain.answer(name, effect)
                if frame is not None:
                    self.deliver(name, frame)

    def deliver(self, name: str, frame: Frame) -> None:
        link = self.pump.engine.lineup.links[name]
        self.carry_out(name, self.pump.on_frame(link, frame, self.clock.now_us()))

    def tell(self, *addresses: str) -> None:
        """Both endpoints tell these accounts."""
        for name in ("solana:a", "solana:b"):
            for address in addresses:
                self.deliver(name, self.chain.notification(name, address))

    def tick(self, feed: str, price: int) -> None:
        """All three oracles see this price now; both endpoints deliver it, and the hosts of :attr:`hermes`."""
        now_s = self.now_s
        changed = [self.chain.aggregate(feed, price, now_s), self.chain.store(feed, price, now_s)]
        for name in ("solana:a", "solana:b"):
            for address in changed:
                self.deliver(name, self.chain.notification(name, address))
        for name in self.hermes:
            self.deliver(name, hermes_event({feed: (price, now_s)}))

    def close(self) -> None:
        """End the run; everything is in the journal."""
        self.pump.step()
        self.pump.stop()
        assert self.journal.close()

    def run_out(self) -> None:
        """Let time pass to the end of the earliest lease, and decide there."""
        deadline_us = self.pump.engine.hub.next_deadline()
        assert deadline_us is not None
        self.manual.advance(deadline_us - self.clock.now_us())
        self.pump.step()
