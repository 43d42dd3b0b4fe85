"""Bars from a journal are the rows that live recording made: the whole middle of the program on a manual clock."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec
import orjson
import pytest

from oracle_hub.app.rebuild import rebuild
from oracle_hub.charts.bars import Bar, Builder
from oracle_hub.charts.points import point_from_entry
from oracle_hub.charts.resolutions import Resolution
from oracle_hub.charts.store import Position, open_store
from oracle_hub.charts.store_schema import BAR_COLUMNS
from oracle_hub.cli import main
from oracle_hub.config import parse_config
from oracle_hub.core.hub import Batch
from oracle_hub.errors import JournalError
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import Gap, Published, Record, RunStart
from oracle_hub.stream.messages import feed_entry, view
from tests.app.rig import SIMULATION, Rig

SOL, BTC = "SOL/USD", "BTC/USD"
FOREVER_US = 2**62


def journal_of_a_run(directory: Path) -> Rig:
    """Two minutes: live, with changing prices, then flat on its lease, silent until it is over, and live again."""
    config = parse_config(SIMULATION, origin="simulation")
    rig = Rig(directory, config)
    for feed in config.feeds:
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, 100_00000000, rig.now_s)
        rig.chain.store(feed, 100_00000000, rig.now_s)
    rig.connect()
    for step in range(300):
        rig.manual.advance(230_000 + step % 3)
        if not 150 <= step < 240:
            rig.tick(SOL, 100_00000000 + step % 11 * 1_000_000)
            if step % 4 == 0:
                rig.tick(BTC, 60_000_00000000 + step)
        rig.pump.step()
        deadline_us = rig.pump.engine.hub.next_deadline()
        if deadline_us is not None and deadline_us < rig.clock.now_us() + 230_000:
            rig.run_out()
    rig.close()
    return rig


def record_live(path: Path, rig: Rig, begin_us: int, heard_us: int, every: int) -> None:
    """What a subscriber of the stream keeps, written after so many batches."""

    def told(batch: Batch) -> None:
        for decision in batch.decisions:
            entry = feed_entry(decision, view(decision, batch.now_us))
            builder.add(point_from_entry(entry, "test", batch.epoch, batch.seq))

    with open_store(path, recording=True) as store:
        builder: Builder = store.resume_builder(begin_us)
        for index, batch in enumerate(rig.published):
            told(batch)
            if index % every == 0:
                builder.watermark(batch.now_us)
                harvest = builder.drain()
                store.write_harvest(harvest, Position("test", batch.epoch, batch.seq))
                builder.settle(harvest)
        builder.watermark(heard_us)
        store.write_harvest(builder.drain(), Position("test", batch.epoch, batch.seq))


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row that a chart or a proof may read."""
    queries = {
        "bars": f"SELECT text, resolution, {BAR_COLUMNS} FROM bars JOIN names ON id = feed_id",
        "points": "SELECT f.text, decided_us, epoch, seq, s.text, mantissa, expo, r.text, publish_us, valid_until_us "
        "FROM points JOIN names f ON f.id = feed_id JOIN names s ON s.id = state_id JOIN names r ON r.id = reason_id",
        "marks": "SELECT f.text, at_us, s.text, r.text FROM marks JOIN names f ON f.id = feed_id "
        "JOIN names s ON s.id = state_id JOIN names r ON r.id = reason_id",
        "gaps": "SELECT * FROM gaps",
        "position": "SELECT * FROM position",
    }
    db = sqlite3.connect(path)
    found = {name: sorted(db.execute(query).fetchall(), key=repr) for name, query in queries.items()}
    db.close()
    return found


def first_and_last(records: Iterable[Record], tmp_path: Path) -> tuple[int, int]:
    with open_store(tmp_path / "span.sqlite") as store:
        report = rebuild(records, store)
    return report.from_us, report.to_us


@pytest.mark.parametrize("every", [1, 37])
async def test_rebuilding_gives_the_rows_of_live_recording(tmp_path: Path, every: int) -> None:
    rig = journal_of_a_run(tmp_path / "journal")
    begin_us, heard_us = first_and_last(read_journal(tmp_path / "journal"), tmp_path)
    live, rebuilt = tmp_path / "live.sqlite", tmp_path / "rebuilt.sqlite"
    record_live(live, rig, begin_us, heard_us, every)
    with open_store(rebuilt) as store:
        report = rebuild(read_journal(tmp_path / "journal"), store)
        bars = store.bars(SOL, Resolution.S1, 0, FOREVER_US)
        assert report.bars == report.changed and report.unchanged == 0
        # Flat on its lease after the last tick, then no price and no bars, then live again.
        assert 50 < len(bars) < 68 and {bar.updates for bar in bars} >= {0, 4}
        states = [mark.state for mark in store.marks(SOL, 0, FOREVER_US)]
        assert states[:2] == ["none", "live"] and states[-1] == "live" and "none" in states[2:]
    assert rows(rebuilt) == rows(live)
    with open_store(rebuilt) as store:
        again = rebuild(read_journal(tmp_path / "journal"), store)
    assert (again.changed, again.unchanged) == (0, report.bars)
    assert rows(rebuilt) == rows(live)


async def test_a_journal_that_begins_with_the_first_run_has_no_gap_before_it(tmp_path: Path) -> None:
    rig = journal_of_a_run(tmp_path / "journal")
    begin_us, heard_us = first_and_last(read_journal(tmp_path / "journal"), tmp_path)
    records = [
        msgspec.structs.replace(record, first=True) if isinstance(record, RunStart) else record
        for record in read_journal(tmp_path / "journal")
    ]
    for late, name in ((None, "empty"), (40, "late")):
        with open_store(tmp_path / f"{name}.sqlite") as store:
            if late is not None:  # a recording that began later, and is completed
                builder = store.resume_builder(rig.published[late].now_us)
                for batch in rig.published[late:]:
                    for decision in batch.decisions:
                        entry = feed_entry(decision, view(decision, batch.now_us))
                        builder.add(point_from_entry(entry, "test", batch.epoch, batch.seq))
                builder.watermark(heard_us)
                store.write_harvest(builder.drain(), Position("test", rig.published[-1].epoch, rig.published[-1].seq))
            rebuild(records, store)
            assert store.gaps() == []
            for resolution in (Resolution.S1, Resolution.M1):
                bars = store.bars(SOL, resolution, 0, FOREVER_US)
                assert bars and not any(bar.gap for bar in bars)
    with open_store(tmp_path / "other.sqlite") as store:  # what another hub said before
        minute_us = Resolution.M1.start_us(begin_us) - 60_000_000
        store.write(bars=[Bar(SOL, Resolution.M1, minute_us, 1, 1, 1, 1, -8, 1, 0, 0)])
        rebuild(records, store)
        assert [gap.reason for gap in store.gaps()] == ["recording began here"]


async def test_a_rebuild_mends_a_store_that_was_changed_by_hand(tmp_path: Path) -> None:
    rig = journal_of_a_run(tmp_path / "journal")
    begin_us, heard_us = first_and_last(read_journal(tmp_path / "journal"), tmp_path)
    path = tmp_path / "charts.sqlite"
    record_live(path, rig, begin_us, heard_us, 37)
    before = rows(path)
    db = sqlite3.connect(path)
    changed = db.execute("UPDATE bars SET high = high + 7 WHERE resolution = 5").rowcount
    assert changed > 10 and db.execute("DELETE FROM bars WHERE resolution = 60").rowcount
    db.execute("DELETE FROM points WHERE decided_us % 2 = 0")
    db.commit()
    db.close()
    with open_store(path) as store:
        report = rebuild(read_journal(tmp_path / "journal"), store)
    assert changed < report.changed < report.bars
    after = rows(path)
    assert [row[:-1] for row in after["bars"]] == [row[:-1] for row in before["bars"]]
    assert (after["points"], after["marks"], after["gaps"]) == (before["points"], before["marks"], before["gaps"])


async def test_a_rebuild_fills_the_gap_of_a_recording_and_numbers_the_corrections(tmp_path: Path) -> None:
    rig = journal_of_a_run(tmp_path / "journal")
    begin_us, heard_us = first_and_last(read_journal(tmp_path / "journal"), tmp_path)
    path = tmp_path / "charts.sqlite"
    with open_store(path) as store:
        builder = store.resume_builder(begin_us)
        for index, batch in enumerate(rig.published):
            if index == 40:
                builder.gap(builder.heard_us, rig.published[60].now_us, "connection lost")
            if not 40 <= index < 60:
                for decision in batch.decisions:
                    entry = feed_entry(decision, view(decision, batch.now_us))
                    builder.add(point_from_entry(entry, "test", batch.epoch, batch.seq))
        builder.watermark(heard_us)
        store.write_harvest(builder.drain(), Position("test", batch.epoch, batch.seq))
        marked = [bar for bar in store.bars(SOL, Resolution.S1, 0, FOREVER_US) if bar.gap]
        assert len(marked) >= 4 and len(store.gaps()) == 2
        report = rebuild(read_journal(tmp_path / "journal"), store)
        assert 0 < report.changed < report.bars
        bars = store.bars(SOL, Resolution.S1, 0, FOREVER_US)
        assert [bar.gap for bar in bars].count(True) == (1 if begin_us % 1_000_000 else 0)
        corrected = [bar for bar in bars if bar.revision == 1]
        assert {bar.start_us for bar in corrected} >= {bar.start_us for bar in marked if bar.start_us > begin_us}
        assert [gap.reason for gap in store.gaps()] == ["recording began here"]
    with open_store(tmp_path / "fresh.sqlite") as fresh:
        rebuild(read_journal(tmp_path / "journal"), fresh)
    left, right = rows(path), rows(tmp_path / "fresh.sqlite")
    assert [row[:-1] for row in left["bars"]] == [row[:-1] for row in right["bars"]]
    assert left["points"] == right["points"] and left["marks"] == right["marks"]


async def test_a_batch_that_differs_ends_the_rebuild_unless_it_is_lenient(tmp_path: Path) -> None:
    journal_of_a_run(tmp_path / "journal")
    records = list(read_journal(tmp_path / "journal"))
    index = next(index for index, record in enumerate(records) if isinstance(record, Published) and record.seq == 9)
    published = records[index]
    assert isinstance(published, Published)
    records[index] = Published(published.epoch, published.seq, bytes(16))
    with open_store(tmp_path / "charts.sqlite") as store:
        with pytest.raises(JournalError, match=rf"batch \({published.epoch}, 9\) is not derived as it was published"):
            rebuild(records, store)
        assert store.feeds() == []
        assert rebuild(records, store, strict=False).mismatches == 1


async def test_a_gap_of_the_journal_is_one_of_the_bars(tmp_path: Path) -> None:
    journal_of_a_run(tmp_path / "journal")
    records = list(read_journal(tmp_path / "journal"))
    lost = [*records[:300], Gap(0, 0, 5, 100, "damage"), *records[305:]]
    with open_store(tmp_path / "charts.sqlite") as store:
        report = rebuild(lost, store, strict=False)
        assert report.gaps == 1
        (began, gap) = store.gaps()
        assert began.to_us == report.from_us < gap.from_us < gap.to_us < report.to_us
        touched = [bar for bar in store.bars(SOL, Resolution.S1, 0, FOREVER_US) if bar.gap]
        assert touched and all(bar.start_us < gap.to_us for bar in touched)


async def test_what_a_recording_has_of_a_gap_of_the_journal_stays(tmp_path: Path) -> None:
    rig = journal_of_a_run(tmp_path / "journal")
    begin_us, heard_us = first_and_last(read_journal(tmp_path / "journal"), tmp_path)
    path = tmp_path / "charts.sqlite"
    record_live(path, rig, begin_us, heard_us, 37)
    before = rows(path)
    records = list(read_journal(tmp_path / "journal"))
    lost = [*records[:300], Gap(0, 0, 40, 100, "the disk refused"), *records[340:]]
    with open_store(tmp_path / "fresh.sqlite") as fresh:
        rebuild(lost, fresh, strict=False)
        (_, gap) = fresh.gaps()
    with open_store(path) as store:
        report = rebuild(lost, store, strict=False)
        assert report.gaps == 1
    after = rows(path)
    assert after["gaps"] == before["gaps"]

    def within(points: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
        return [point for point in points if gap.from_us < int(str(point[1])) < gap.to_us]

    assert len(within(before["points"])) >= 4 and within(after["points"]) == within(before["points"])
    assert within(after["marks"]) == within(before["marks"])


async def test_command_reports_as_json_and_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal_of_a_run(tmp_path / "journal")
    database = str(tmp_path / "charts.sqlite")
    assert main(["rebuild-bars", str(tmp_path / "journal"), "--database", database, "--json"]) == 0
    report = orjson.loads(capsys.readouterr().out)
    assert report["changed"] == report["bars"] > 100 and report["mismatches"] == 0
    assert main(["rebuild-bars", str(tmp_path / "journal"), "--database", database]) == 0
    assert f"{report['bars']} bars derived: 0 new or corrected" in capsys.readouterr().out
    assert main(["rebuild-bars", str(tmp_path / "nowhere"), "--database", database]) == 1
    assert capsys.readouterr().err.endswith("nowhere: no such file or directory\n")


def test_command_makes_no_store_of_a_journal_that_gives_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "journal").mkdir()
    database = tmp_path / "charts.sqlite"
    assert main(["rebuild-bars", str(tmp_path / "journal"), "--database", str(database)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "journal"]
