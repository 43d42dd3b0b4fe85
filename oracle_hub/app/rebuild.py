"""Bars out of a journal: the same points and the same builder as in live recording, so the same rows."""

from collections.abc import Callable, Iterable

import msgspec

from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.charts.bars import Builder, Gap
from oracle_hub.charts.points import point_from_entry
from oracle_hub.charts.resolutions import Resolution
from oracle_hub.charts.store import Position, Store
from oracle_hub.core.hub import Batch
from oracle_hub.errors import JournalError
from oracle_hub.journal.records import Checkpoint, Published, Record, RunStart, Step
from oracle_hub.journal.records import Gap as JournalGap
from oracle_hub.stream.messages import feed_entry, view

POINTS_PER_WRITE = 5_000
NOTHING = "nothing to rebuild from: the journal holds no step of a run"


class RebuildReport(msgspec.Struct):
    """What a rebuild did."""

    batches: int = 0
    points: int = 0
    bars: int = 0
    """Final bars that were derived, of all resolutions."""
    changed: int = 0
    """Of these: rows that are new or corrected."""
    unchanged: int = 0
    gaps: int = 0
    """Places where the journal does not hold everything."""
    mismatches: int = 0
    """Batches that were derived other than they were published."""
    from_us: int = 0
    to_us: int = 0
    """Final bars end here at the latest."""


class Rebuilder:
    """Takes the records of a journal in order. Call :meth:`finish` after the last one.

    Only batches that the journal says were published count: nobody was told of another.

    Args:
        store: what it is written to; or, where there is none yet, what makes it once there is something to write.
        strict: end at a batch that differs.
    """

    def __init__(self, store: Store | Callable[[], Store], *, strict: bool = True) -> None:
        self.report = RebuildReport()
        self._given = store
        self._strict = strict
        self._replayer = Replayer(lineup_from_text, on_batch=self._derived)
        self._builder: Builder | None = None
        self._batch: Batch | None = None
        self._instance = ""
        self._first = False
        """Whether the journal begins with the first run of all."""
        self._position: Position | None = None
        self._written_us = 0
        self._waiting = 0
        self._gaps: list[Gap] = []
        self._gap_from_us: int | None = None
        self._last_us = 0

    def take(self, record: Record) -> None:
        """Feed the next record.

        Raises:
            JournalError: a batch came out other than it was published, or (``strict``) records are missing.
            StoreError: nothing since the write before was kept.
        """
        if isinstance(record, RunStart | Checkpoint):
            self._instance = record.instance
            if self._builder is None and isinstance(record, RunStart):
                self._first = record.first
        elif isinstance(record, JournalGap) and self._gap_from_us is None:
            self._gap_from_us = self._last_us
        mismatches = len(self._replayer.report.mismatches)
        self._replayer.take(record)
        if self._strict and len(self._replayer.report.mismatches) > mismatches:
            found = self._replayer.report.mismatches[-1]
            raise JournalError(
                f"batch ({found.epoch}, {found.seq}) is not derived as it was published; see replay, or rebuild with "
                "--lenient from what is derived"
            )
        if isinstance(record, Published):
            self._told()
        elif isinstance(record, Step):
            self._stepped(record.now_us)

    def finish(self) -> RebuildReport:
        """Write what is left, and say what was done."""
        report, builder = self.report, self._builder
        if builder is None:
            raise JournalError(NOTHING)
        self._flush()
        report.to_us = builder.watermark_us
        report.gaps, report.mismatches = len(self._gaps), len(self._replayer.report.mismatches)
        self._store().told_again(report.from_us, report.to_us, self._gaps, self._position, first=self._first)
        return report

    def _store(self) -> Store:
        if not isinstance(self._given, Store):
            self._given = self._given()
        return self._given

    def _derived(self, batch: Batch) -> None:
        self._batch = batch

    def _stepped(self, now_us: int) -> None:
        self._last_us = max(self._last_us, now_us)
        if self._builder is None:
            self._first = self._first and self._nothing_before(now_us)
            self._builder = Builder(now_us, first=self._first)
            self.report.from_us = self._written_us = now_us
        if self._gap_from_us is not None:
            gap = Gap(self._gap_from_us, now_us, "the journal does not hold everything")
            self._gap_from_us = None
            if gap.from_us < gap.to_us:
                self._flush()
                self._written_us = now_us  # what a recording has of the time between stays
                self._gaps.append(gap)
                self._builder.remember_gaps([gap])
        self._builder.watermark(now_us)

    def _nothing_before(self, now_us: int) -> bool:
        """Whether the store has no bar that began before: of another hub, for one."""
        store, minute_us = self._given, Resolution.M1.start_us(now_us)
        if not isinstance(store, Store):
            return True
        return not any(store.last_bars(feed, Resolution.M1, minute_us, 1) for feed in store.feeds())

    def _told(self) -> None:
        batch, builder = self._batch, self._builder
        self._batch = None
        if batch is None or builder is None:
            return
        self.report.batches += 1
        for decision in batch.decisions:
            entry = feed_entry(decision, view(decision, batch.now_us))
            builder.add(point_from_entry(entry, self._instance, batch.epoch, batch.seq))
        self._position = Position(self._instance, batch.epoch, batch.seq)
        self._waiting += len(batch.decisions)
        if self._waiting >= POINTS_PER_WRITE:
            self._flush()

    def _flush(self) -> None:
        builder, report = self._builder, self.report
        assert builder is not None
        harvest = builder.drain()
        points = harvest.points
        # Points at the very instant of the watermark are among them.
        until_us = max([harvest.watermark_us, *(point.decided_us + 1 for point in points)])
        written = self._store().write(
            points, harvest.bars, marks=harvest.marks, instead_of_us=(self._written_us, until_us)
        )
        builder.settle(harvest)
        self._written_us = until_us
        self._waiting = 0
        report.points += len(points)
        report.bars += len(harvest.bars)
        report.changed += written.changed
        report.unchanged += written.unchanged


def rebuild(
    records: Iterable[Record],
    store: Store | Callable[[], Store],
    *,
    strict: bool = True,
    progress: Callable[[int], None] = lambda now_us: None,
) -> RebuildReport:
    """Rebuild from records; ``progress`` is called with the time that was reached. ``store`` as for a Rebuilder.

    Raises:
        JournalError: as :meth:`Rebuilder.take`, or there is :data:`NOTHING`.
    """
    rebuilder = Rebuilder(store, strict=strict)
    for record in records:
        rebuilder.take(record)
        if isinstance(record, Step):
            progress(record.now_us)
    return rebuilder.finish()
