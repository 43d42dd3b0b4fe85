"""A journal that is full, slow or can't be sealed ends in an alert, not in a stall; and so does its end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from oracle_hub.alerts.alert import Kind, Transition
from oracle_hub.alerts.engine import AlertEngine
from oracle_hub.app.alerting import Alerting
from oracle_hub.app.journal_watch import TOLD_FOR_US, JournalWatch
from oracle_hub.journal.files import OsSegmentFile
from oracle_hub.journal.records import Step
from oracle_hub.journal.writer import JournalWriter


class Clock:
    def __init__(self) -> None:
        self.now_us = 1_000_000

    def __call__(self) -> int:
        return self.now_us


class TroubledFile(OsSegmentFile):
    """A segment on a disk that does as the test says."""

    before_write: Callable[[], None] = staticmethod(lambda: None)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        self.before_write()
        return super().pwrite(data, offset)


class Stage:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.patch = monkeypatch
        self.journal = JournalWriter(
            directory / "journal", instance="i", epoch=1, opener=TroubledFile, clock=self.clock, wall_clock=self.clock
        )
        self.watch = JournalWatch(self.journal, 200_000, self.clock)
        self.told: list[Transition] = []
        self.alerting = Alerting(directory, AlertEngine(), show=lambda change: None, deliver=self.told.append)

    def look(self) -> list[tuple[str, tuple[str, ...], str]]:
        """What is told now, by what it is about."""
        self.told.clear()
        for about, trouble in self.watch.troubles().items():
            self.alerting.condition(self.clock.now_us, Kind.JOURNAL_LAG, about, trouble is not None, trouble or "")
        self.alerting.advance(self.clock.now_us)
        return [(one.change.value, one.alert.sources, one.alert.summary) for one in self.told]

    def write(self) -> bool:
        self.journal.append(Step(self.clock.now_us))
        return self.journal.commit()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_nothing_is_told_of_a_good_journal(stage: Stage) -> None:
    for _ in range(20):
        assert stage.write()
        assert stage.journal.sync()
        assert stage.look() == []
        stage.clock.now_us += 200_000


def test_a_full_disk_and_its_end(stage: Stage) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    stage.patch.setattr(TroubledFile, "before_write", staticmethod(full))
    assert not stage.write()
    ((change, about, summary),) = stage.look()
    assert (change, about) == ("firing", ("write",))
    assert "No space left on device" in summary
    stage.patch.setattr(TroubledFile, "before_write", staticmethod(lambda: None))
    stage.clock.now_us += 1_000_000
    assert stage.write()
    assert stage.journal.sync()
    assert stage.look() == []
    stage.clock.now_us += 4_000_000
    assert stage.journal.sync()
    assert stage.look() == []
    stage.clock.now_us += 1_000_000
    assert [told[:2] for told in stage.look()] == [("resolved", ("write",))]


def test_a_slow_disk(stage: Stage) -> None:
    def slow() -> None:
        stage.clock.now_us += 350_000

    stage.patch.setattr(TroubledFile, "before_write", staticmethod(slow))
    assert stage.write()
    ((change, about, summary),) = stage.look()
    assert (change, about) == ("firing", ("slow",))
    assert "a write took 350 ms" in summary


def test_a_disk_that_does_not_sync(stage: Stage) -> None:
    assert stage.write()
    stage.clock.now_us += 2_000_001
    ((change, about, summary),) = stage.look()
    assert (change, about) == ("firing", ("sync",))
    assert "not synced for 2.0 s" in summary


def test_a_segment_that_is_damaged_before_it_is_sealed(stage: Stage) -> None:
    for _ in range(2):
        for _ in range(9):
            assert stage.write()
        assert stage.journal.rotate()
    damaged = sorted((stage.journal.directory).glob("*.ohj"))[0]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2 + 20] ^= 0xFF
    damaged.write_bytes(bytes(data))
    stage.journal.seal_pending()
    ((change, about, summary),) = stage.look()
    assert (change, about) == ("firing", ("seal",))
    assert f"{damaged} at offset" in summary
    assert damaged.exists()
    stage.journal.seal_pending()
    assert stage.journal.upkeep.seal_failures == 1


def test_segments_that_cannot_be_deleted(stage: Stage) -> None:
    immovable = stage.journal.directory / "000000000000-000000-20200101T000000Z.ohj"
    (immovable / "full").mkdir(parents=True)  # no file, so it can't be unlinked, whoever asks
    stage.clock.now_us += 100 * 3_600_000_000
    assert stage.journal.sync()
    assert stage.journal.enforce_budget() == 0
    ((change, about, summary),) = stage.look()
    assert (change, about) == ("firing", ("delete",))
    assert str(immovable) in summary
    assert stage.write()  # and all else goes on
    (immovable / "full").rmdir()
    immovable.rmdir()
    stage.clock.now_us += TOLD_FOR_US
    assert stage.journal.enforce_budget() == 0
    assert stage.journal.sync()
    assert stage.look() == []  # not over until it has been so for a while
    stage.clock.now_us += 5_000_000
    assert stage.journal.sync()
    ((change, about, summary),) = stage.look()
    assert (change, about) == ("resolved", ("delete",))
