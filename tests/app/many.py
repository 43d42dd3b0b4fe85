"""A hub of hundreds of feeds without server and sockets, on a clock that moves when told to."""

from collections.abc import Sequence
from pathlib import Path

import orjson

from benchmarks import catalogue, chain
from oracle_hub.app.engine import Engine
from oracle_hub.app.lineup import build_lineup, journaled_endpoints
from oracle_hub.app.pump import Pump
from oracle_hub.clock import AnchoredClock, ManualClock
from oracle_hub.config import parse_config
from oracle_hub.core.hub import Batch
from oracle_hub.core.source import Effect, Fetch, Frame, Send
from oracle_hub.journal.records import RunStart
from oracle_hub.journal.writer import JournalWriter
from oracle_hub.metrics import Latencies

LINK = "solana:a"
SLOT = 400_000_000
RUN = RunStart("test", 1_790_000_000, "0", True, 0, 0)


class Many:
    """Feeds of a made catalogue, each read from three accounts by one link."""

    def __init__(self, directory: Path, n_feeds: int, *, max_segment_bytes: int = 64 * 2**20) -> None:
        self.manual = ManualClock(wall_us=1_790_000_000_000_000)
        self.clock = AnchoredClock(self.manual)
        self.published: list[Batch] = []
        config = parse_config(
            catalogue.made_config(n_feeds, str(directory), "127.0.0.1:9", hermes=False), origin="made"
        )
        now_us = self.clock.now_us()
        self.engine = Engine(
            build_lineup(config, journaled_endpoints(config)), epoch=RUN.epoch, started_us=now_us, warmup_us=60_000_000
        )
        self.journal = JournalWriter(
            directory,
            instance=RUN.instance,
            epoch=RUN.epoch,
            max_segment_bytes=max_segment_bytes,
            clock=self.manual.monotonic_us,
            wall_clock=self.clock.now_us,
        )
        self.pump = Pump(
            self.engine,
            self.clock,
            journal=self.journal,
            journal_required=False,
            publish=lambda batch, journaled: self.published.append(batch),
            latencies=Latencies(),
            checkpoint_interval_us=0,
        )
        self.pump.begin(RUN, now_us)
        self._places = {
            kind.address(catalogue.made_asset(number)): (source, number)
            for source, kind in catalogue.SOURCES.items()
            for number in range(n_feeds)
        }
        self._subscriptions: dict[str, int] = {}
        self._turn = 0
        link = self.engine.lineup.links[LINK]
        self._carry_out(self.pump.on_connect(link, now_us))
        self.pump.step()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            frame = self._answer(effect)
            if frame is not None:
                self._carry_out(self.pump.on_frame(self.engine.lineup.links[LINK], frame, self.clock.now_us()))

    def _answer(self, effect: Effect) -> Frame | None:
        if isinstance(effect, Fetch):
            request = orjson.loads(effect.body)
            result: object = chain.GENESIS_HASH
            if request["method"] == "getMultipleAccounts":
                values = [self._value(address) for address in request["params"][0]]
                result = {"context": {"slot": SLOT}, "value": values}
            return Frame("http", chain.reply(request["id"], result), effect.fetch_id, 200)
        if isinstance(effect, Send):
            request = orjson.loads(effect.text)
            if request["method"] == "accountSubscribe":
                self._subscriptions[request["params"][0]] = request["id"]
            return Frame("websocket", chain.reply(request["id"], request["id"]))
        return None

    def _value(self, address: str) -> dict[str, object]:
        source, number = self._places[address]
        now_s = self.clock.now_us() // 1_000_000
        return catalogue.account_value(source, number, self._turn, now_s, SLOT + self._turn)

    def turn(self, n_feeds: int, *, step: bool = True) -> None:
        """A second later: all three sources tell another price of the first so many feeds; then a step."""
        self.manual.advance(1_000_000)
        self._turn += 1
        for address, (_, number) in self._places.items():
            if number < n_feeds:
                data = chain.notification(self._subscriptions[address], SLOT + self._turn, self._value(address))
                self.pump.on_frame(self.engine.lineup.links[LINK], Frame("websocket", data), self.clock.now_us())
        if step:
            self.pump.step()

    def begin_segment(self) -> None:
        """The next segment begins, with a step: behind it a checkpoint is captured."""
        assert self.journal.rotate()
        self.pump.step()

    def close(self) -> None:
        """End the run; everything is in the journal."""
        self.pump.step()
        self.pump.stop()
        assert self.journal.close()
