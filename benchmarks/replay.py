"""How long the proof of an hour takes: ``oracle-hub replay`` of 180,000 updates, every published batch compared.

The hour is recorded by the program's own engine and journal: account notifications of five feeds by four kinds of
accounts, 50 a second, each decided by itself, as they come when they do not come at once. It is written in segments
that begin with checkpoints, sealed as a hub seals them, and read back by the command itself, from the start of the
interpreter to the report.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks import chain
from benchmarks.ingest import CONFIG, LINK, START_S, answer
from benchmarks.report import Figure, Report, Table, main
from feeds.addresses import ASSETS
from oracle_hub.app.checkpoint import checkpoint
from oracle_hub.app.engine import Engine
from oracle_hub.app.lineup import build_lineup, journaled_endpoints
from oracle_hub.config import parse_config
from oracle_hub.core.hub import batch_digest
from oracle_hub.core.source import Effect, Frame
from oracle_hub.journal.records import Config, LinkEvent, Published, RunStart, Step
from oracle_hub.journal.segments import list_segments
from oracle_hub.journal.writer import JournalWriter

UPDATES = 180_000
PER_SECOND = 50


class Recorder:
    """What a pump does, without a loop and sockets: record, apply, decide, record."""

    def __init__(self, folder: Path, max_segment_bytes: int) -> None:
        config = parse_config(CONFIG, origin="benchmark")
        lineup = build_lineup(config, journaled_endpoints(config))
        self.now_us = START_S * 1_000_000
        self.run = RunStart("benchmark", 1, "0", True, self.now_us, 0)
        self.engine = Engine(lineup, epoch=1, started_us=self.now_us, warmup_us=10_000_000)
        self.journal = JournalWriter(
            folder, instance="benchmark", epoch=1, max_segment_bytes=max_segment_bytes, disk_budget_bytes=None
        )
        self.journal.append(self.run)
        self.journal.append(Config(lineup.config_text, lineup.config_hash, self.now_us))
        self.subscriptions: dict[str, int] = {}
        self._segment = 0
        self._link_id = self.journal.link(LINK)
        self.journal.append(LinkEvent(LINK, "connect", self.now_us))
        self._answer(list(self.engine.connect(LINK, self.now_us)))

    def _answer(self, effects: list[Effect]) -> None:
        while effects:
            frame = answer(effects.pop(0), self.subscriptions, START_S)
            if frame is not None:
                effects.extend(self.frame(frame))

    def frame(self, frame: Frame) -> list[Effect]:
        """Take a frame, as the pump does."""
        self.journal.frame(self._link_id, self.now_us, frame)
        return list(self.engine.frame(LINK, frame, self.now_us))

    def tick(self) -> None:
        """A link's timer where it is due, then a step."""
        due_us = self.engine.lineup.links[LINK].next_deadline()
        if due_us is not None and due_us <= self.now_us:
            self.journal.append(LinkEvent(LINK, "timer", self.now_us))
            self._answer(list(self.engine.timer(LINK, self.now_us)))
        batch = self.engine.step(self.now_us)
        self.journal.append(Step(self.now_us))
        if batch is not None:
            self.journal.append(Published(batch.epoch, batch.seq, batch_digest(batch)))
        self.journal.commit()
        if self.journal.number > self._segment:
            self._segment = self.journal.number
            self.journal.append(checkpoint(self.engine, self.run, self.now_us))


def record(folder: Path, n_updates: int, max_segment_bytes: int = 64 * 2**20) -> None:
    """Record so many updates, one each 20 ms."""
    recorder = Recorder(folder, max_segment_bytes)
    rng = random.Random(7)
    places = [(feed, kind) for feed in chain.FEEDS for kind in chain.KINDS]
    prices = {feed: chain.start_price(feed) for feed in chain.FEEDS}
    for number in range(n_updates):
        turn, position = divmod(number, len(places))
        if position == 0:
            rng.shuffle(places)
            prices = {feed: price + price * rng.randint(-6, 6) // 100_000 for feed, price in prices.items()}
        recorder.now_us += 1_000_000 // PER_SECOND
        feed, kind = places[position]
        seen = prices[feed] + prices[feed] * rng.randint(-2, 2) // 10_000
        asset, slot = ASSETS[feed], 1_000 + turn
        state = chain.value(kind, asset, seen, recorder.now_us // 1_000_000, slot)
        message = chain.notification(recorder.subscriptions[kind.address(asset)], slot, state)
        recorder.frame(Frame("websocket", message))
        recorder.tick()
    taken = sum(count for (_, fate), count in recorder.engine.applied.items() if fate == "taken")
    if taken < n_updates * 0.99:
        raise SystemExit(f"replay: {taken} of {n_updates} updates were taken: {dict(recorder.engine.applied)}")
    if not recorder.journal.rotate():
        raise SystemExit(f"replay: {recorder.journal.last_error}")
    recorder.journal.seal_pending()
    recorder.journal.close()


def replayed(folder: Path) -> tuple[float, dict[str, object]]:
    """Seconds of the command, and its report. Ends the program where it does not prove every batch."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "oracle_hub.cli", "replay", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    elapsed_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"replay: exit status {done.returncode}: {done.stderr.decode()[-400:]}")
    report: dict[str, object] = orjson.loads(done.stdout)
    if report["published"] != report["batches"] or not report["proved"]:
        raise SystemExit(f"replay: not proved: {report}")
    return elapsed_s, report


def run(repetitions: int, *, n_updates: int = UPDATES) -> Report:
    """Record once, replay ``repetitions`` times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(folder, n_updates)
        segments = list_segments(folder)
        size_mib = sum(segment.path.stat().st_size for segment in segments) / 2**20
        seconds: list[float] = []
        report: dict[str, object] = {}
        for _ in range(repetitions):
            elapsed_s, report = replayed(folder)
            seconds.append(elapsed_s)
    median_s = sorted(seconds)[len(seconds) // 2]
    rows = tuple((name, int(str(report[name]))) for name in ("records", "frames", "steps", "batches", "checkpoints"))
    return Report(
        "replay",
        (
            Figure("replay_hour_s", median_s, "s", at_most=3.0),
            Figure("replay_updates", n_updates / median_s, "updates/s"),
        ),
        (Table("journal", ("what", "count"), (*rows, ("segments", len(segments)))),),
        (f"{size_mib:.1f} MiB on disk; fastest {min(seconds):.2f} s of {len(seconds)}",),
    )


if __name__ == "__main__":
    sys.exit(main("replay", str(__doc__), run, repetitions=3))
