"""Sealing, retention, the disk budget."""

from pathlib import Path

import pytest
import zstandard

from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError
from oracle_hub.journal import segments as segments_module
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import FrameIn, Step
from oracle_hub.journal.segments import list_segments, parse_segment_name, seal_segment, segment_name
from oracle_hub.journal.writer import JournalWriter

DAY_US = 86_400_000_000


class WallClock:
    def __init__(self) -> None:
        self.us = 1_790_000_000_000_000

    def __call__(self) -> int:
        return self.us


def journal(directory: Path, wall: WallClock, *, retention_s: int | None, budget: int | None) -> JournalWriter:
    return JournalWriter(
        directory, instance="i", epoch=3, retention_s=retention_s, disk_budget_bytes=budget, wall_clock=wall
    )


def numbers(directory: Path) -> list[int]:
    return [segment.number for segment in list_segments(directory)]


def test_names_say_what_they_are_and_sort() -> None:
    name = segment_name(1_790_000_000, 12, 1_790_000_123_456_789)
    assert name == "001790000000-000012-20260921T141523Z.ohj"
    parsed = parse_segment_name(Path(name + ".zst"))
    assert parsed is not None
    assert (parsed.epoch, parsed.number, parsed.start_us, parsed.sealed) == (
        1_790_000_000,
        12,
        1_790_000_123_000_000,
        True,
    )
    assert sorted([segment_name(2, 0, 0), segment_name(1, 10, 10**15), segment_name(1, 9, 2 * 10**15)]) == [
        segment_name(1, 9, 2 * 10**15),
        segment_name(1, 10, 10**15),
        segment_name(2, 0, 0),
    ]


@pytest.mark.parametrize("name", ["journal.lock", "a-b-c.ohj", "1-2.ohj", "1-2-20261399T000000Z.ohj", "x.zst"])
def test_other_files_are_left_alone(name: str) -> None:
    assert parse_segment_name(Path(name)) is None


def test_sealing_keeps_every_byte_and_the_active_segment(tmp_path: Path) -> None:
    made = journal(tmp_path, WallClock(), retention_s=None, budget=None)
    for index in range(3):
        made.append(FrameIn("a", index, Frame("sse", b'{"price": "1"}' * 1_000)))
        made.rotate()
    made.append(Step(9))
    made.commit()
    plain = {path.name: path.read_bytes() for path in tmp_path.glob("*.ohj")}
    before = list(read_journal(tmp_path))
    assert made.seal_pending() == 3
    assert made.seal_pending() == 0
    assert [segment.sealed for segment in list_segments(tmp_path)] == [True, True, True, False]
    assert list(read_journal(tmp_path)) == before
    for path in tmp_path.glob("*.zst"):
        with path.open("rb") as file:
            data = zstandard.ZstdDecompressor().stream_reader(file).read()
        assert data == plain[path.name.removesuffix(".zst")]
        assert path.stat().st_size < len(data) / 10
    made.append(Step(10))
    made.close()
    assert list(read_journal(tmp_path)) == [*before, Step(10)]


def test_torn_tail_of_a_crash_is_sealed_as_it_is(tmp_path: Path) -> None:
    made = journal(tmp_path, WallClock(), retention_s=None, budget=None)
    made.append(Step(1))
    made.append(Step(2))
    made.close()
    [segment] = list_segments(tmp_path)
    segment.path.write_bytes(segment.path.read_bytes()[:-4])
    sealed = seal_segment(segment.path)
    reader = read_journal(sealed)
    assert list(reader) == [Step(1)]
    assert reader.torn_bytes == 13


def test_crash_while_sealing_leaves_a_whole_copy(tmp_path: Path) -> None:
    made = journal(tmp_path, WallClock(), retention_s=None, budget=None)
    made.append(Step(1))
    made.close()
    [segment] = list_segments(tmp_path)
    plain = segment.path.read_bytes()
    # Crash before the rename: half a temporary file beside the original.
    temporary = Path(f"{segment.path}.zst.tmp")
    temporary.write_bytes(zstandard.compress(plain)[:9])
    assert list(read_journal(tmp_path)) == [Step(1)]
    # Crash after the rename, before the original was deleted: both are whole, and one is listed.
    Path(f"{segment.path}.zst").write_bytes(zstandard.compress(plain))
    assert list(read_journal(tmp_path)) == [Step(1)]
    made = JournalWriter(tmp_path, instance="i", epoch=4)
    assert not temporary.exists()
    assert made.seal_pending() == 1
    assert not segment.path.exists()
    made.close()
    assert list(read_journal(tmp_path)) == [Step(1)]


def test_sealed_file_that_reads_back_wrong_never_replaces_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = journal(tmp_path, WallClock(), retention_s=None, budget=None)
    made.append(Step(1))
    made.rotate()
    real = segments_module._content_crc
    monkeypatch.setattr(segments_module, "_content_crc", lambda path, sealed: (*real(path, sealed=sealed), sealed))
    assert made.seal_pending() == 0
    assert made.upkeep.seal_failures == 1
    assert made.upkeep.seal_error is not None
    assert "does not read back" in made.upkeep.seal_error
    with pytest.raises(JournalError, match="kept the original"):
        seal_segment(list_segments(tmp_path)[0].path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".ohj", ".ohj"]
    made.close()
    assert list(read_journal(tmp_path)) == [Step(1)]


def test_retention_counts_from_the_end_of_a_segment(tmp_path: Path) -> None:
    wall = WallClock()
    made = journal(tmp_path, wall, retention_s=2 * 86_400, budget=None)
    for day in range(4):  # segments start on days 0 to 4
        made.append(Step(day))
        wall.us += DAY_US
        made.rotate()
    assert made.enforce_budget() == 1  # it ended on day 1; the next on day 2, and exactly two days is not too old
    assert numbers(tmp_path) == [1, 2, 3, 4]
    wall.us += 100 * DAY_US
    assert made.enforce_budget() == 3
    assert numbers(tmp_path) == [4]
    assert made.enforce_budget() == 0
    assert (made.upkeep.segments, made.upkeep.segments_deleted) == (1, 4)
    made.append(Step(9))
    made.close()
    assert list(read_journal(tmp_path)) == [Step(9)]


def test_budget_deletes_the_oldest_and_never_the_active_segment(tmp_path: Path) -> None:
    made = journal(tmp_path, WallClock(), retention_s=None, budget=3_500)
    for index in range(5):
        made.append(FrameIn("a", index, Frame("sse", b"%d" % index * 1_000)))
        made.commit()
        if index < 4:
            made.rotate()
    assert made.enforce_budget() == 2
    assert numbers(tmp_path) == [2, 3, 4]
    made.append(FrameIn("a", 9, Frame("sse", b"z" * 9_000)))
    made.commit()
    assert made.enforce_budget() == 2
    assert numbers(tmp_path) == [4]
    made.close()
    read = [record.received_us for record in read_journal(tmp_path) if isinstance(record, FrameIn)]
    assert read == [4, 9]


def test_a_journal_is_read_whole_while_its_hub_seals_it(tmp_path: Path) -> None:
    made = journal(tmp_path, WallClock(), retention_s=None, budget=None)
    for index in range(4):
        made.append(Step(index))
        made.rotate()
    reading = iter(read_journal(tmp_path))
    assert next(reading) == Step(0)
    assert made.seal_pending() == 4  # the reader has listed them as plain
    assert list(reading) == [Step(1), Step(2), Step(3)]
    made.close()


def test_what_retention_deletes_under_a_reader_is_said(tmp_path: Path) -> None:
    wall = WallClock()
    made = journal(tmp_path, wall, retention_s=86_400, budget=None)
    for index in range(3):
        made.append(Step(index))
        made.rotate()
    reading = iter(read_journal(tmp_path))
    assert next(reading) == Step(0)
    wall.us += 2 * DAY_US
    made.rotate()
    wall.us += 2 * DAY_US
    assert made.enforce_budget() == 4
    with pytest.raises(JournalError, match=r"000003-000001-.*is not there, or no longer .*read the journal again"):
        list(reading)
    made.close()
