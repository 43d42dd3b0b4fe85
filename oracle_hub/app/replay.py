"""Replay: a journal through the same engine. The same records give the same batches, byte for byte."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from oracle_hub.alerts.alert import Transition
from oracle_hub.app.capture import digest
from oracle_hub.app.checkpoint import restore
from oracle_hub.app.engine import Engine, Lineup
from oracle_hub.config import parse_canonical
from oracle_hub.core.hub import DIGEST_BYTES, Batch, batch_digest
from oracle_hub.errors import JournalError
from oracle_hub.journal.records import (
    Checkpoint,
    ClockReading,
    Config,
    FrameIn,
    Gap,
    LinkEvent,
    Published,
    Record,
    RunStart,
    Step,
)


class Mismatch(msgspec.Struct, frozen=True):
    """A batch that came out other than the journal says it was published, or a checkpoint of another state."""

    epoch: int
    seq: int
    published: str
    derived: str | None
    """Digest in hex; None where the replay derived no batch at all."""


class ReplayReport(msgspec.Struct):
    """What a replay found."""

    runs: int = 0
    records: int = 0
    frames: int = 0
    steps: int = 0
    batches: int = 0
    published: int = 0
    """Batches that the journal says were published."""
    mismatches: list[Mismatch] = []
    unpublished: int = 0
    """Derived batches without a word of publication: at most the very last one of a run that was killed."""
    gaps: int = 0
    """Places where records are missing; what follows can't be derived with certainty up to the next checkpoint."""
    checkpoints: int = 0
    """Checkpoints passed; each equalled the state that was derived, or is among ``mismatches``."""
    began_at_checkpoint: bool = False
    """What came before the first checkpoint was not there, or not asked for."""
    skipped: int = 0
    """Records before the first run or checkpoint: what came before them was deleted."""
    first_us: int = 0
    last_us: int = 0
    digest: str = ""
    """BLAKE2b over the digests of all derived batches, in order."""

    @property
    def proved(self) -> bool:
        """Every published batch was derived again, and equal."""
        return not self.mismatches and not self.gaps


BuildLineup = Callable[[str, Lineup | None], Lineup]
"""From the canonical text of a configuration (and the line-up before it, at a reload) to a line-up."""


class Replayer:
    """Takes records one by one. ``on_batch`` sees every derived batch, ``on_alert`` every derived alert, in order.

    It begins at the first run or checkpoint; records before that are counted, and skipped.

    Raises:
        JournalError: a run without its configuration, or a checkpoint that can't be read where one is needed.
    """

    def __init__(
        self,
        build: BuildLineup,
        on_batch: Callable[[Batch], None] | None = None,
        on_alert: Callable[[Transition], None] | None = None,
        *,
        keep_digests: bool = False,
    ) -> None:
        self.report = ReplayReport()
        self.digests: bytearray | None = bytearray() if keep_digests else None
        """Digests of all derived batches, one after the other; None where they are not kept."""
        self._build = build
        self._on_batch = on_batch
        self._on_alert = on_alert
        self._engine: Engine | None = None
        self._run: RunStart | None = None
        self._pending: Batch | None = None
        self._pending_digest = b""
        self._alerts: Mapping[str, Any] | None = None
        """What was open at the end of the run before."""
        self._broken = False
        """Records are missing since the last run or checkpoint: the state is not certain."""
        self._rolling = blake2b(digest_size=DIGEST_BYTES)

    def take(self, record: Record) -> None:
        """Feed the next record."""
        report = self.report
        report.records += 1
        engine = self._engine
        if engine is not None and isinstance(record, FrameIn):
            report.frames += 1
            engine.frame(record.link, record.frame, record.received_us)
            if engine.others:
                engine.drain_others()
        elif engine is not None and isinstance(record, Step):
            self._step(engine, record.now_us)
        elif engine is not None and isinstance(record, Published):
            self._compare(record)
        elif self._run is None and not isinstance(record, RunStart | Checkpoint):
            report.skipped += 1
        elif isinstance(record, FrameIn | Step | Published):
            self._running()
        elif isinstance(record, LinkEvent):
            self._link(record)
        elif isinstance(record, ClockReading):
            self._clock(record)
        elif isinstance(record, RunStart):
            self._settle()
            report.runs += 1
            self._begin(record)
        elif isinstance(record, Checkpoint):
            self._pass(record)
        elif isinstance(record, Config):
            self._configure(record)
        elif isinstance(record, Gap):
            report.gaps += 1
            self._broken = True

    def _begin(self, record: RunStart) -> None:
        if self._engine is not None:
            self._alerts = self._engine.alerts.state()  # what is open outlives a run
        self._run, self._engine, self._broken = record, None, False

    def _tell(self, engine: Engine) -> None:
        if self._on_alert is not None:
            for transition in engine.transitions:
                self._on_alert(transition)
        engine.transitions.clear()

    def finish(self) -> ReplayReport:
        """The report, after the last record. Raises JournalError where there was nothing to begin with."""
        self._settle()
        if self._run is None:
            what = "give an earlier segment too" if self.report.skipped else "nothing is proved by it"
            raise JournalError(f"there is neither the start of a run nor a checkpoint in it: {what}")
        self.report.digest = self._rolling.hexdigest()
        return self.report

    @property
    def run(self) -> RunStart | None:
        """The run that the records are of; None before the first run or checkpoint."""
        return self._run

    @property
    def engine(self) -> Engine | None:
        """The middle of the program as it stands, between two records; None before the first run or checkpoint."""
        return self._engine

    def _running(self) -> Engine:
        if self._engine is None:
            raise JournalError("a run does not begin with its configuration: the journal is not whole")
        return self._engine

    def _pass(self, record: Checkpoint) -> None:
        """Begin at a checkpoint, or go on from it after a gap; elsewhere hold it against the derived state."""
        self.report.checkpoints += 1
        if self._engine is None or self._broken:
            self._settle()
            self.report.began_at_checkpoint |= self._run is None
            self._run = RunStart(record.instance, record.epoch, record.version, record.simulated, record.now_us, 0)
            self._engine = restore(record, self._build(record.config_text, None))
            self._engine.watching = self._on_alert is not None
            self._broken = False
            return
        derived = digest(self._engine)
        if derived != record.digest:
            self.report.mismatches.append(Mismatch(record.epoch, record.seq, record.digest.hex(), derived.hex()))

    def _configure(self, record: Config) -> None:
        if self._engine is None:
            assert self._run is not None  # what comes before a run is skipped
            config = parse_canonical(record.text)
            self._engine = Engine(
                self._build(record.text, None),
                epoch=self._run.epoch,
                started_us=record.now_us,
                warmup_us=config.hub.warmup_ms * 1_000,
            )
            self._engine.watching = self._on_alert is not None
            if self._alerts is not None:
                self._engine.resume_alerts(self._alerts, record.now_us)
        else:
            self._engine.reload(self._build(record.text, self._engine.lineup), record.now_us)

    def _link(self, record: LinkEvent) -> None:
        engine = self._running()
        if record.kind == "disconnect":
            engine.disconnect(record.link, record.now_us, record.text)
        elif record.kind == "connect":
            engine.connect(record.link, record.now_us)
        elif record.kind == "timer":
            engine.timer(record.link, record.now_us)
        engine.drain_others()

    def _clock(self, record: ClockReading) -> None:
        engine = self._running()
        if record.kind == "reanchor":
            engine.reanchor(record.now_us)
        elif record.kind != "reading":
            engine.skew(record.kind == "skew", record.now_us)

    def _step(self, engine: Engine, now_us: int) -> None:
        if self._pending is not None:
            self._settle()
        report = self.report
        report.steps += 1
        report.first_us = report.first_us or now_us
        report.last_us = now_us
        batch = engine.step(now_us)
        if engine.transitions:
            self._tell(engine)
        if batch is not None:
            report.batches += 1
            self._pending, self._pending_digest = batch, batch_digest(batch)
            self._rolling.update(self._pending_digest)
            if self.digests is not None:
                self.digests += self._pending_digest
            if self._on_batch is not None:
                self._on_batch(batch)

    def _compare(self, record: Published) -> None:
        self.report.published += 1
        batch, self._pending = self._pending, None
        derived = self._pending_digest if batch is not None else None
        if batch is None or (batch.epoch, batch.seq) != (record.epoch, record.seq) or derived != record.digest:
            self.report.mismatches.append(
                Mismatch(record.epoch, record.seq, record.digest.hex(), None if derived is None else derived.hex())
            )

    def _settle(self) -> None:
        if self._pending is not None:
            self.report.unpublished += 1
            self._pending = None


def replay(records: Iterable[Record], build: BuildLineup) -> ReplayReport:
    """Replay records and report."""
    replayer = Replayer(build)
    for record in records:
        replayer.take(record)
    return replayer.finish()
