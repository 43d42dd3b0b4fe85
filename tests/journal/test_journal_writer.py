"""Writing: one write per commit, rotation, sharing, full and failing disks, kill -9, the lock."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError
from oracle_hub.journal.files import OsSegmentFile
from oracle_hub.journal.reader import read_journal, read_segment
from oracle_hub.journal.records import FrameIn, Gap, LinkEvent, Published, Record, RunStart, Step
from oracle_hub.journal.segments import last_epoch, list_segments
from oracle_hub.journal.writer import JournalWriter


class Disk:
    """A disk with room for so many bytes, that takes at most so many per write and may report errors."""

    def __init__(self, room: int = 2**40, per_write: int = 2**40) -> None:
        self.room = room
        self.per_write = per_write
        self.write_error: int | None = None
        self.sync_error: int | None = None
        self.truncate_error: int | None = None
        self.open_error: int | None = None
        self.writes = 0
        self.syncs = 0

    def open(self, path: Path) -> "DiskFile":
        if self.open_error is not None:
            raise OSError(self.open_error, os.strerror(self.open_error))
        return DiskFile(self, path)


class DiskFile(OsSegmentFile):
    def __init__(self, disk: Disk, path: Path) -> None:
        super().__init__(path)
        self.disk = disk
        self.size = 0

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        disk = self.disk
        disk.writes += 1
        if disk.write_error is not None:
            raise OSError(disk.write_error, os.strerror(disk.write_error))
        taken = min(len(data), disk.per_write, disk.room + self.size - offset)
        if taken <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        disk.room -= max(0, offset + taken - self.size)
        self.size = max(self.size, offset + taken)
        return super().pwrite(data[:taken], offset)

    def truncate(self, length: int) -> None:
        if self.disk.truncate_error is not None:
            raise OSError(self.disk.truncate_error, os.strerror(self.disk.truncate_error))
        self.disk.room += self.size - length
        self.size = length
        super().truncate(length)

    def sync(self) -> None:
        self.disk.syncs += 1
        if self.disk.sync_error is not None:
            raise OSError(self.disk.sync_error, os.strerror(self.disk.sync_error))
        super().sync()


class Clock:
    def __init__(self) -> None:
        self.us = 1_000_000

    def __call__(self) -> int:
        return self.us


def writer(directory: Path, disk: Disk | None = None, *, epoch: int = 1, **options: int | bool) -> JournalWriter:
    clock: Callable[[], int] = Clock()
    opener = (disk or Disk()).open
    made = JournalWriter(directory, instance="i", epoch=epoch, opener=opener, clock=clock, **options)  # type: ignore[arg-type]
    return made


def websocket(text: str, size: int = 0) -> Frame:
    return Frame("websocket", text.encode().ljust(size, b"."))


def later(made: JournalWriter, us: int = 1_000_000) -> None:
    clock = made._clock
    assert isinstance(clock, Clock)
    clock.us += us


def test_commit_is_one_write_and_nothing_is_in_the_file_before(tmp_path: Path) -> None:
    disk = Disk()
    made = writer(tmp_path, disk)
    link = made.link("solana:a")
    for index in range(50):
        made.frame(link, index, websocket(f"frame {index}"))
    made.append(Step(50))
    assert disk.writes == 1  # the header
    assert list(read_journal(tmp_path)) == []
    assert made.commit() is True
    assert disk.writes == 2
    expected: list[Record] = [FrameIn("solana:a", index, websocket(f"frame {index}")) for index in range(50)]
    assert list(read_journal(tmp_path)) == [*expected, Step(50)]
    assert (made.buffered_bytes, made.records_written, made.records_lost) == (0, 52, 0)
    assert made.active is not None
    assert made.bytes_written == made.active.stat().st_size
    assert made.commit() is True
    assert disk.writes == 2
    assert made.close() is True


def test_short_writes_are_continued(tmp_path: Path) -> None:
    made = writer(tmp_path, Disk(per_write=100))
    records: list[Record] = [FrameIn("a", index, websocket(f"{index}", 70)) for index in range(9)]
    for record in records:
        made.append(record)
    assert made.commit() is True
    made.close()
    assert list(read_journal(tmp_path)) == records


def test_segments_rotate_by_size_and_each_reads_alone(tmp_path: Path) -> None:
    made = writer(tmp_path, max_segment_bytes=1_000)
    for index in range(40):
        made.append(FrameIn("hermes:1", index, websocket(f"{index}", 200)))
        made.append(Step(index))
        assert made.commit() is True
    made.close()
    segments = list_segments(tmp_path)
    assert made.upkeep.segments == len(segments) >= 8
    assert [segment.number for segment in segments] == list(range(len(segments)))
    assert sorted(path.name for path in tmp_path.glob("*.ohj")) == [segment.path.name for segment in segments]
    alone = [record for segment in segments for record in read_segment(segment.path)]
    assert alone == list(read_journal(tmp_path))
    assert [record.now_us for record in alone if isinstance(record, Step)] == list(range(40))
    assert all(segment.path.stat().st_size < 1_500 for segment in segments)


@pytest.mark.parametrize("references", [True, False])
def test_identical_payload_of_many_hosts_is_kept_once(tmp_path: Path, references: bool) -> None:
    made = writer(tmp_path, references=references)
    links = [made.link(f"hermes:{index}") for index in range(5)]
    for link in links:
        made.frame(link, link, Frame("sse", b"s" * 5_000, event="price"))
    made.commit()
    for link in links:
        made.frame(link, link, Frame("http", b"s" * 5_000, fetch_id="snap", status=200))
        made.frame(link, link, websocket("tiny"))
    made.commit()
    assert made.active is not None
    size = made.active.stat().st_size
    assert size < 6_500 if references else size > 50_000
    made.close()
    read = [record.frame for record in read_journal(tmp_path) if isinstance(record, FrameIn)]
    assert read[:5] == [Frame("sse", b"s" * 5_000, event="price")] * 5
    assert read[5::2] == [Frame("http", b"s" * 5_000, fetch_id="snap", status=200)] * 5


def test_of_what_is_said_to_be_unique_no_copy_is_looked_for(tmp_path: Path) -> None:
    made = writer(tmp_path)
    for link in (made.link("solana:a"), made.link("solana:b")):
        made.frame(link, link, websocket("same", 900), unique=True)
    made.commit()
    assert made.active is not None
    assert made.active.stat().st_size > 1_800
    made.close()
    assert [record.frame for record in read_journal(tmp_path) if isinstance(record, FrameIn)] == [
        websocket("same", 900)
    ] * 2


def test_a_new_segment_holds_the_payload_again(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.append(FrameIn("a", 1, websocket("same", 900)))
    assert made.rotate() is True
    made.append(FrameIn("b", 2, websocket("same", 900)))
    made.close()
    second = list_segments(tmp_path)[1].path
    assert list(read_segment(second)) == [FrameIn("b", 2, websocket("same", 900))]


def test_what_is_remembered_for_sharing_is_bounded(tmp_path: Path) -> None:
    made = writer(tmp_path)
    for index in range(100):
        made.append(FrameIn("a", index, websocket(f"{index}", 100_000)))
        made.commit()
    assert len(made._seen) == len(made._remembered) <= 22
    made.append(FrameIn("a", 100, websocket("0", 100_000)))  # long gone: written whole
    made.append(FrameIn("a", 101, websocket("100", 100_000)))
    made.close()
    assert [r.frame.data[:3] for r in read_journal(tmp_path) if isinstance(r, FrameIn)][-2:] == [b"0..", b"100"]


def test_full_disk_keeps_what_it_can_and_leaves_a_gap(tmp_path: Path) -> None:
    disk = Disk(room=2_000)
    made = writer(tmp_path, disk, buffer_limit_bytes=4_000)
    made.append(RunStart("i", 1, "0", False, 0, 0))
    assert made.commit() is True
    answers = []
    for index in range(200):
        made.append(FrameIn("a" if index % 2 else "b", index, websocket(f"{index // 2}", 300)))
        made.append(Step(index))
        answers.append(made.commit())
        later(made)
        assert made.buffered_bytes <= 4_000
        list(read_journal(tmp_path))  # never a torn record in the middle
    full_at = answers.index(False)
    assert answers == [True] * full_at + [False] * (200 - full_at)
    assert made.failing
    assert made.lag_us > 0
    assert made.last_error is not None
    assert "No space left" in made.last_error
    disk.room = 10**6
    later(made)
    assert made.commit() is True
    assert (made.failing, made.lag_us) == (False, 0)
    made.append(Published(1, 1, b"d"))
    made.close()
    read = list(read_journal(tmp_path))
    gaps = [record for record in read if isinstance(record, Gap)]
    assert sum(gap.records_lost for gap in gaps) == made.records_lost > 300
    assert sum(gap.bytes_lost for gap in gaps) == made.bytes_lost
    kept = [record.now_us for record in read if isinstance(record, Step)]
    assert kept[:full_at] == list(range(full_at))
    assert kept[full_at:] == list(range(200 - len(kept) + full_at, 200))  # the newest survived, whole
    at = max(index for index, record in enumerate(read) if isinstance(record, Gap))
    after = read[at + 1]
    assert isinstance(after, Step | FrameIn)
    assert gaps[0].from_us >= full_at - 1
    assert gaps[-1].to_us <= (after.now_us if isinstance(after, Step) else after.received_us)
    frames = [record for record in read if isinstance(record, FrameIn)]
    assert all(r.frame == websocket(f"{r.received_us // 2}", 300) for r in frames)
    assert read[-1] == Published(1, 1, b"d")


def test_full_disk_within_the_buffer_loses_nothing(tmp_path: Path) -> None:
    disk = Disk(room=700)
    made = writer(tmp_path, disk)
    records: list[Record] = []
    for index in range(20):
        records.append(FrameIn(f"link {index % 3}", index, websocket("same" if index % 2 else f"{index}", 400)))
        made.append(records[-1])
        made.commit()
    assert made.failing
    disk.room = 10**6
    later(made)
    assert made.commit() is True
    made.close()
    assert list(read_journal(tmp_path)) == records
    assert made.records_lost == 0


def test_a_failing_disk_is_not_asked_again_before_the_retry_interval(tmp_path: Path) -> None:
    disk = Disk()
    made = writer(tmp_path, disk, retry_interval_ms=100)
    disk.write_error = errno.ENOSPC
    made.append(Step(1))
    assert made.commit() is False
    asked = disk.writes
    disk.write_error = None
    later(made, 99_999)
    assert made.commit() is False
    assert disk.writes == asked
    later(made, 1)
    assert made.commit() is True


def test_after_an_io_error_the_run_goes_on_in_a_new_segment(tmp_path: Path) -> None:
    disk = Disk(per_write=200)
    made = writer(tmp_path, disk)
    records: list[Record] = [LinkEvent("a", "connect", 0), FrameIn("a", 1, websocket("x", 500))]
    for record in records:
        made.append(record)
    assert made.commit() is True
    disk.write_error = disk.truncate_error = errno.EIO
    records += [FrameIn("b", 2, websocket("x", 500)), Step(3)]
    made.append(records[2])
    made.append(records[3])
    assert made.commit() is False
    assert made.active is None
    disk.open_error = errno.EIO
    disk.write_error = None
    later(made)
    assert made.commit() is False
    disk.open_error = None
    later(made)
    assert made.commit() is True
    assert made.close() is True
    assert len(list_segments(tmp_path)) == 2
    assert list(read_journal(tmp_path)) == records


def test_torn_write_that_cannot_be_cut_back_is_overwritten_later(tmp_path: Path) -> None:
    disk = Disk()
    made = writer(tmp_path, disk)
    disk.room = 130
    disk.truncate_error = errno.EIO
    made.append(Step(1))
    made.append(FrameIn("a", 2, websocket("x", 400)))
    assert made.commit() is False
    reader = read_journal(tmp_path)
    assert list(reader) == [Step(1)]
    assert reader.torn_bytes > 0
    disk.room, disk.truncate_error = 10**6, None
    later(made)
    assert made.commit() is True
    made.close()
    reader = read_journal(tmp_path)
    assert list(reader) == [Step(1), FrameIn("a", 2, websocket("x", 400))]
    assert reader.torn_bytes == 0


def test_failed_sync_is_reported_and_the_segment_left(tmp_path: Path) -> None:
    disk = Disk()
    made = writer(tmp_path, disk)
    made.append(Step(1))
    made.commit()
    later(made, 200_000)
    disk.sync_error = errno.EIO
    assert made.sync() is False
    assert made.sync_failures == 1
    disk.sync_error = None
    made.append(Step(2))
    assert made.commit() is True
    assert [segment.number for segment in list_segments(tmp_path)] == [0, 1]
    assert made.sync() is True
    assert made.last_sync_us == 1_200_000
    made.close()
    assert list(read_journal(tmp_path)) == [Step(1), Step(2)]


def test_rotation_that_the_disk_refuses_goes_on_in_the_old_segment(tmp_path: Path) -> None:
    disk = Disk()
    made = writer(tmp_path, disk, max_segment_bytes=100)
    disk.open_error = errno.ENOSPC
    for index in range(10):
        made.append(Step(index))
        assert made.commit() is True
    assert len(list_segments(tmp_path)) == 1
    assert made.write_failures == 1  # not at every commit
    assert made.number == 0  # that is where it goes on
    disk.open_error = None
    later(made)
    made.append(Step(10))
    assert made.commit() is True
    made.append(Step(11))
    made.close()
    assert list(read_journal(tmp_path)) == [Step(index) for index in range(12)]


def test_frame_that_fits_no_record_is_a_gap_and_not_journaled(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.append(FrameIn("a", 5, Frame("http", bytes(2**24))))
    assert made.commit() is False
    assert made.commit() is True
    assert made.records_lost == 1
    made.close()
    [gap] = read_journal(tmp_path)
    assert isinstance(gap, Gap)
    assert (gap.from_us, gap.to_us, gap.records_lost, gap.bytes_lost) == (5, 5, 1, 2**24)


def test_second_hub_in_one_directory_is_refused(tmp_path: Path) -> None:
    made = writer(tmp_path)
    with pytest.raises(
        JournalError, match=rf"is in use by process {os.getpid()}: give each hub one of its own \(--state\)"
    ):
        writer(tmp_path, epoch=2)
    made.close()
    writer(tmp_path, epoch=2).close()
    assert last_epoch(tmp_path) == 2


def test_closed_writer_takes_nothing_more(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.append(Step(1))
    assert [made.close(), made.close()] == [True, True]
    made.append(Step(2))
    with pytest.raises(JournalError, match="is closed"):
        made.commit()
    assert list(read_journal(tmp_path)) == [Step(1)]


def test_epoch_must_grow(tmp_path: Path) -> None:
    assert last_epoch(tmp_path / "absent") == 0
    writer(tmp_path, epoch=7).close()
    with pytest.raises(JournalError, match="has epoch 7 and this run would be 7"):
        writer(tmp_path, epoch=7)
    writer(tmp_path, epoch=8).close()


def test_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot write the journal in"):
        writer(tmp_path / "file")
    disk = Disk()
    disk.open_error = errno.EROFS
    with pytest.raises(JournalError, match="Read-only"):
        writer(tmp_path, disk)
    writer(tmp_path).close()  # the failed start gave the lock back


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_the_disk_does_the_file_is_a_subsequence_with_its_losses_counted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    disk = Disk(per_write=data.draw(st.sampled_from([90, 1_000, 2**40])))
    made = writer(directory, disk, buffer_limit_bytes=3_000, max_segment_bytes=2_500)
    sent: list[Record] = []
    actions = st.sampled_from(["append", "append", "commit", "fill", "free", "error", "heal", "wait", "sync"])
    for action in data.draw(st.lists(actions, max_size=60)):
        if action == "append":
            size = data.draw(st.sampled_from([10, 300, 700]))
            sent.append(FrameIn(f"l{len(sent) % 3}", len(sent), websocket("same" if size == 300 else "x", size)))
            made.append(sent[-1])
        elif action == "commit":
            made.commit()
        elif action in ("fill", "free"):
            disk.room = 150 if action == "fill" else 2**40
        elif action in ("error", "heal"):
            disk.write_error = errno.EIO if action == "error" else None
        elif action == "wait":
            later(made)
        else:
            made.sync()
    disk.room, disk.write_error = 2**40, None
    assert made.close() is True
    reader = read_journal(directory)
    read = list(reader)
    kept = [record for record in read if isinstance(record, FrameIn)]
    assert reader.torn_bytes == 0
    assert kept == [record for record in sent if record in kept]
    lost = sum(record.records_lost for record in read if isinstance(record, Gap))
    assert lost == made.records_lost == len(sent) - len(kept)


CHILD = """
import sys
from oracle_hub.core.source import Frame
from oracle_hub.journal.records import Step
from oracle_hub.journal.writer import JournalWriter
made = JournalWriter(sys.argv[1], instance="i", epoch=5, max_segment_bytes=200_000)
link = made.link("a")
count = 0
while True:
    for _ in range(7):
        made.frame(link, count, Frame("websocket", b"%d" % count * 50))
    made.append(Step(count))
    assert made.commit()
    sys.stdout.write(f"{count}\\n")
    sys.stdout.flush()
    count += 1
"""


def test_after_kill_9_everything_committed_is_there(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    before = {path: path.read_bytes() for path in tmp_path.glob("*.ohj")}
    made = JournalWriter(tmp_path, instance="i", epoch=6)  # the lock died with the process
    made.append(Step(-1))
    made.close()
    assert {path: path.read_bytes() for path in before} == before
    steps = [record.now_us for record in read_journal(tmp_path) if isinstance(record, Step)]
    assert steps[: len(told)] == told
    assert len(told) <= len(steps) - 1 <= len(told) + 1
    assert len(before) > 1
