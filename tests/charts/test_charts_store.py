"""The store: what is written is found, whatever happens to the process, the disk or the file."""

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.charts.bars import Bar, Builder, Gap
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import DAY_US, RESOLUTIONS, SECOND_US, Resolution
from oracle_hub.charts.store import Position, Retention, Store, Written, open_store
from oracle_hub.charts.store_schema import BAR_COLUMNS
from oracle_hub.errors import StoreError
from tests.charts.plain_bars import BEGIN_US, FEED, INSTANCE, histories, plain_bars, point
from tests.patience import PATIENCE_S

FOREVER_US = 2**62
ROOT = Path(__file__).resolve().parents[2]


def bar(
    start_us: int,
    price: int = 100,
    resolution: Resolution = Resolution.M1,
    *,
    imported: bool = False,
    gap: bool = False,
) -> Bar:
    return Bar(FEED, resolution, start_us, price, price, price, price, -8, 1, 0, 0, imported=imported, gap=gap)


def rows(path: Path) -> list[tuple[object, ...]]:
    """All bars in the file, by feed, resolution and start."""
    db = sqlite3.connect(path)
    found = db.execute(
        f"SELECT text, resolution, {BAR_COLUMNS} FROM bars JOIN names ON id = feed_id ORDER BY 1, 2, 3"
    ).fetchall()
    db.close()
    return found


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_bars_are_the_plain_ones_however_often_it_is_restarted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    points = data.draw(histories(max_size=15))
    heard_us = max(points[-1].decided_us, BEGIN_US) + 2 * SECOND_US
    path = tmp_path_factory.mktemp("store") / "bars.sqlite"
    store = open_store(path, recording=True)
    builder = store.resume_builder(BEGIN_US)
    for told in points:
        builder.add(told)
        if data.draw(st.booleans()):
            builder.watermark(told.decided_us)
        if data.draw(st.booleans()):
            harvest = builder.drain()
            store.write_harvest(harvest, Position(told.instance, told.epoch, told.seq))
            builder.settle(harvest)
            if data.draw(st.booleans()):
                store.close()
                store = open_store(path, recording=True)
                builder = store.resume_builder(BEGIN_US + 999)
                assert store.position() == Position(told.instance, told.epoch, told.seq)
    builder.watermark(heard_us)
    for resolution in RESOLUTIONS:
        expected = plain_bars(points, resolution, BEGIN_US, heard_us)
        assert store.bars(FEED, resolution, 0, FOREVER_US) == expected
        assert store.last_bars(FEED, resolution, FOREVER_US, 3) == expected[-3:]
    assert store.points(FEED, 0, FOREVER_US) == points
    store.close()


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.integers(0, 40)),
    st.sampled_from((Resolution.M1, Resolution.H4)),
    st.integers(-2, 45),
    st.integers(0, 45),
    st.integers(1, 50),
)
def test_a_wider_range_with_the_same_end_agrees(
    tmp_path_factory: pytest.TempPathFactory, starts: set[int], resolution: Resolution, first: int, to: int, count: int
) -> None:
    length_us = resolution.length_us or 0
    held = [bar(index * length_us, 100 + index, resolution) for index in sorted(starts)]
    with open_store(tmp_path_factory.mktemp("store") / "bars.sqlite") as store:
        store.write(bars=held)
        narrow = store.bars(FEED, resolution, first * length_us, to * length_us)
        wide = store.bars(FEED, resolution, 0, to * length_us)
        assert narrow == [one for one in wide if one.start_us >= first * length_us]
        assert store.last_bars(FEED, resolution, to * length_us, count) == wide[-count:]
        previous_us = store.previous_start_us(FEED, resolution, max(first, 0) * length_us)
        assert previous_us == max((one.start_us for one in held if one.start_us < first * length_us), default=None)


def test_bounds_of_a_range_need_not_be_those_of_a_bucket(tmp_path: Path) -> None:
    with open_store(tmp_path / "bars.sqlite") as store:
        store.write(bars=[bar(0), bar(60 * SECOND_US), bar(120 * SECOND_US)])
        found = store.bars(FEED, Resolution.M1, 1, 120 * SECOND_US + 1)
        assert [one.start_us for one in found] == [60 * SECOND_US, 120 * SECOND_US]
        assert store.bars(FEED, Resolution.M1, 0, 120 * SECOND_US, limit=1) == [bar(0)]
        assert store.previous_start_us(FEED, Resolution.M1, FOREVER_US) == 120 * SECOND_US
        assert store.bars("XYZ/USD", Resolution.M1, 0, FOREVER_US) == []
        assert store.previous_start_us("XYZ/USD", Resolution.M1, FOREVER_US) is None


def test_a_correction_is_a_numbered_revision_and_what_was_told_is_kept(tmp_path: Path) -> None:
    with open_store(tmp_path / "bars.sqlite") as store:
        assert store.write(bars=[bar(0), bar(60 * SECOND_US)]) == Written(changed=2, unchanged=0)
        assert store.write(bars=[bar(0), bar(60 * SECOND_US, 105)]) == Written(changed=1, unchanged=1)
        assert [one.revision for one in store.bars(FEED, Resolution.M1, 0, FOREVER_US)] == [0, 1]
        told = [(one.close, one.revision) for one in store.revisions(FEED, Resolution.M1, 60 * SECOND_US)]
        assert told == [(100, 0), (105, 1)]


@pytest.mark.parametrize(
    ("held", "later", "winner"),
    [
        ({"imported"}, set(), "later"),
        (set(), {"imported"}, "held"),
        ({"gap"}, {"imported"}, "held"),
        ({"imported"}, {"imported"}, "later"),
        ({"gap"}, set(), "later"),
        (set(), {"gap"}, "held"),
        ({"gap"}, {"gap"}, "later"),
        ({"imported"}, {"gap"}, "held"),
        ({"imported", "gap"}, {"gap"}, "later"),
    ],
)
def test_which_of_two_bars_of_a_bucket_stays(tmp_path: Path, held: set[str], later: set[str], winner: str) -> None:
    with open_store(tmp_path / "bars.sqlite") as store:
        store.write(bars=[bar(0, 100, imported="imported" in held, gap="gap" in held)])
        store.write(bars=[bar(0, 200, imported="imported" in later, gap="gap" in later)])
        (found,) = store.bars(FEED, Resolution.M1, 0, FOREVER_US)
        assert found.close == {"held": 100, "later": 200}[winner]


def test_a_store_with_rows_in_every_table_passes_its_own_check(tmp_path: Path) -> None:
    path = tmp_path / "bars.sqlite"
    with open_store(path, recording=True) as store:
        builder = store.resume_builder(BEGIN_US)
        builder.add(point(0, 100, seq=1))
        builder.add(point(1, None, seq=2))
        builder.watermark(BEGIN_US + SECOND_US)
        store.write_harvest(builder.drain(), Position(INSTANCE, 1, 2))
        store.write(bars=[bar(0), bar(60 * SECOND_US)])
        store.write(bars=[bar(0, 105)])
    db = sqlite3.connect(path)
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    assert len(tables) == 7
    assert [name for name in tables if not db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]] == []
    db.close()
    with open_store(path, recording=True) as store:
        assert [one.close for one in store.revisions(FEED, Resolution.M1, 0)] == [100, 105]


def test_points_are_found_by_decision_and_by_publish_time(tmp_path: Path) -> None:
    told = [point(0, 100, seq=1), point(700_000, None, seq=2), point(900_000, 102, seq=3)]
    with open_store(tmp_path / "bars.sqlite") as store:
        builder = store.resume_builder(BEGIN_US)
        for one in told[:2]:
            builder.add(one)
        harvest = builder.drain()
        store.write_harvest(harvest)
        builder.settle(harvest)
        builder.add(told[2])
        assert store.points(FEED, BEGIN_US, FOREVER_US) == told
        assert store.points(FEED, BEGIN_US + 1, BEGIN_US + 900_000) == [told[1]]
        assert store.points(FEED, 0, FOREVER_US, limit=2) == told[:2]
        for at_us, expected in ((-1, None), (0, told[0]), (699_999, told[0]), (800_000, told[1]), (9**9, told[2])):
            assert store.point_at(FEED, decided_us=BEGIN_US + at_us) == expected
        for at_us, expected in ((-150_000, told[0]), (-149_999, told[2]), (750_000, told[2]), (750_001, None)):
            assert store.point_at(FEED, publish_time_us=BEGIN_US + at_us) == expected
        assert [(mark.state, mark.before) for mark in store.marks(FEED, 0, FOREVER_US)] == [
            ("live", None),
            ("none", "live"),
        ]
        assert [mark.state for mark in store.marks(FEED, 0, FOREVER_US, limit=1)] == ["none"]
        assert store.feeds() == [FEED]


def test_retention_deletes_piece_by_piece_and_keeps_what_a_restart_needs(tmp_path: Path) -> None:
    now_us = 20_000 * DAY_US
    keep = Retention(bars_days={Resolution.M1: 30, Resolution.D1: None}, points_days=1)
    old = [bar(now_us - 40 * DAY_US + 60 * SECOND_US * index) for index in range(25_000)]
    with open_store(tmp_path / "bars.sqlite", retention=keep) as store:
        store.write(
            [point(0, 100, seq=1), point(1, 101, seq=2)],
            [*old, bar(now_us - 60 * SECOND_US), bar(0, resolution=Resolution.D1)],
        )
        late_us = now_us + BEGIN_US
        deleted = [store.prune(now_us), store.prune(now_us)]
        assert 10_000 < sum(deleted) < 20_000 and sum(deleted[1:]) == 0
        left = store.bars(FEED, Resolution.M1, 0, FOREVER_US)
        assert left[0].start_us == now_us - 30 * DAY_US and left[-1].start_us == now_us - 60 * SECOND_US
        assert len(store.bars(FEED, Resolution.D1, 0, FOREVER_US)) == 1
        while store.prune(late_us):
            pass
        assert [one.seq for one in store.points(FEED, 0, FOREVER_US)] == [2]


@pytest.mark.parametrize("keep", [Retention(bars_days={Resolution.D1: 30}), Retention(points_days=0)])
def test_a_retention_that_would_starve_coarser_bars_is_refused(tmp_path: Path, keep: Retention) -> None:
    with pytest.raises(StoreError, match="at least"):
        open_store(tmp_path / "bars.sqlite", retention=keep)


# What can go wrong.

WRITER = """
import sys
from pathlib import Path
from oracle_hub.charts.resolutions import SECOND_US
from oracle_hub.charts.store import Position, open_store
from tests.charts.plain_bars import BEGIN_US, INSTANCE, point
store = open_store(Path(sys.argv[1]), recording=True)
builder = store.resume_builder(BEGIN_US)
seq = 0 if store.position() is None else store.position().seq
while True:
    seq += 1
    builder.add(point(seq * 400_000, 100 + seq % 7, seq=seq))
    builder.watermark(BEGIN_US + seq * 400_000 + 1)
    if seq % 3 == 0:
        harvest = builder.drain()
        store.write_harvest(harvest, Position(INSTANCE, 1_801_000_000, seq))
        builder.settle(harvest)
        print(seq, flush=True)
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "bars.sqlite"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            said = [int(child.stdout.readline()) for _ in range(60)]
            child.send_signal(signal.SIGKILL)
            said += [int(line) for line in child.stdout.read().splitlines() if line.endswith(("0", "3", "6", "9"))]
        assert child.returncode == -signal.SIGKILL
        with open_store(path, recording=True) as store:
            position = store.position()
            assert position is not None and position.seq >= said[59]
            points = [point(seq * 400_000, 100 + seq % 7, seq=seq) for seq in range(1, position.seq + 1)]
            assert store.points(FEED, 0, FOREVER_US) == points
            store.resume_builder(BEGIN_US)
            heard_us = BEGIN_US + position.seq * 400_000 + 1
            for resolution in (Resolution.S1, Resolution.S5, Resolution.M1, Resolution.D1):
                assert store.bars(FEED, resolution, 0, FOREVER_US) == plain_bars(points, resolution, BEGIN_US, heard_us)


FILLER = """
import resource, signal, sys
from pathlib import Path
from oracle_hub.charts.store import open_store
from oracle_hub.errors import StoreError
from tests.charts.test_charts_store import bar
from oracle_hub.charts.resolutions import SECOND_US
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = open_store(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
written = 0
try:
    while True:
        store.write(bars=[bar((written + index) * 60 * SECOND_US, 10**9 + index) for index in range(500)])
        written += 500
except StoreError as error:
    print(error)
assert len(store.bars("SOL/USD", bar(0).resolution, 0, 2**62)) == written
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.write(bars=[bar((written + index) * 60 * SECOND_US, 10**9 + index) for index in range(500)])
print(written + 500)
"""


def test_a_disk_that_takes_no_more_is_one_clear_line_and_the_same_write_works_later(tmp_path: Path) -> None:
    path = tmp_path / "bars.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", FILLER, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    message, written = done.stdout.splitlines()
    assert str(path) in message and "nothing of this write was kept" in message
    with open_store(path) as store:
        assert len(store.bars(FEED, Resolution.M1, 0, FOREVER_US)) == int(written) > 1_000


def test_a_full_disk_says_so_and_leaves_what_was_held(tmp_path: Path) -> None:
    with open_store(tmp_path / "bars.sqlite") as store:
        store.write(bars=[bar(0)])
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        more = [bar(index * 60 * SECOND_US, 100) for index in range(1, 5_000)]
        with pytest.raises(StoreError, match=r"bars\.sqlite: the disk is full; .* Make room"):
            store.write([point(0, 100, seq=1, feed="NEW/USD")], more, Position(INSTANCE, 1, 1))
        assert store.bars(FEED, Resolution.M1, 0, FOREVER_US) == [bar(0)]
        assert store.position() is None
        store._db.execute("PRAGMA max_page_count = 1000000")
        assert store.write([point(0, 100, seq=1, feed="NEW/USD")], more, Position(INSTANCE, 1, 1)).changed == 4_999
        assert store.feeds() == ["NEW/USD", FEED]


def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bars.sqlite"
    with open_store(path) as store:
        store.write(bars=[bar(index * 60 * SECOND_US) for index in range(5_000)])
    data = bytearray(path.read_bytes())
    for page in range(9, len(data) // 4096, 3):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"bars\.sqlite: damaged .*rebuild-bars"):
        open_store(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 20, b"x"])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bars.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"bars\.sqlite: damaged"):
        open_store(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(StoreError, match="another program"):
        open_store(path)


def test_a_schema_of_another_version_is_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "bars.sqlite"
    open_store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(StoreError, match="schema version 9, this program knows 1"):
        open_store(path)


def test_two_recorders_cannot_share_a_file_but_an_import_may_write_beside_one(tmp_path: Path) -> None:
    path = tmp_path / "bars.sqlite"
    with open_store(path, recording=True) as recording, open_store(path) as importing:
        with pytest.raises(StoreError, match="another process records into it"):
            open_store(path, recording=True)
        importing.write(bars=[bar(0, imported=True)])
        recording.write(bars=[bar(60 * SECOND_US)])
        assert [one.imported for one in recording.bars(FEED, Resolution.M1, 0, FOREVER_US)] == [True, False]
    open_store(path, recording=True).close()


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/bars\.sqlite: cannot be opened"):
        open_store(tmp_path / "file" / "bars.sqlite")


def test_readers_on_other_threads_see_no_bar_missing_or_twice_while_one_writes(tmp_path: Path) -> None:
    """The seam between what is on disk and what the builder holds is asked all the time while it moves."""
    faults: list[str] = []
    done = threading.Event()
    with open_store(tmp_path / "bars.sqlite") as store:
        builder = store.resume_builder(BEGIN_US)

        def read() -> None:
            seen = 0
            while not done.is_set():
                starts = [one.start_us for one in store.bars(FEED, Resolution.S1, 0, FOREVER_US)]
                if starts != list(range(BEGIN_US, BEGIN_US + len(starts) * SECOND_US, SECOND_US)) or len(starts) < seen:
                    faults.append(f"{len(starts)} bars after {seen}")
                seen = len(starts)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for seq in range(400):
            builder.add(point(seq * SECOND_US, 100 + seq, seq=seq + 1))
            builder.watermark(BEGIN_US + seq * SECOND_US)
            harvest = builder.drain()
            store.write_harvest(harvest)
            builder.settle(harvest)
        done.set()
        for reader in readers:
            reader.join()
        assert len(store.bars(FEED, Resolution.S1, 0, FOREVER_US)) == 400
    assert faults == []


def test_rows_say_nothing_of_how_they_were_written(tmp_path: Path) -> None:
    told: list[Point] = [point(index * 400_000, 100 + index % 5, seq=index + 1) for index in range(200)]
    for name, every in (("often.sqlite", 1), ("once.sqlite", 1_000)):
        with open_store(tmp_path / name) as store:
            builder = Builder(BEGIN_US)
            for index, one in enumerate(told):
                builder.add(one)
                if index % every == 0:
                    store.write_harvest(builder.drain())
            builder.watermark(BEGIN_US + 90 * SECOND_US)
            store.write_harvest(builder.drain())
            assert store.gaps() == [Gap(0, BEGIN_US, "recording began here")]
    assert rows(tmp_path / "often.sqlite") == rows(tmp_path / "once.sqlite")
    assert len(rows(tmp_path / "once.sqlite")) > 100


def test_a_store_is_closed_by_its_context(tmp_path: Path) -> None:
    with open_store(tmp_path / "bars.sqlite") as store:
        assert isinstance(store, Store)
    with pytest.raises(StoreError, match="cannot be written"):
        store.write(bars=[bar(0)])


def test_closing_waits_for_a_write_that_is_under_way(tmp_path: Path) -> None:
    store = open_store(tmp_path / "bars.sqlite")
    writing, closing = threading.Event(), threading.Event()
    ended: list[str] = []

    def put(db: sqlite3.Connection) -> None:
        writing.set()
        assert closing.wait(PATIENCE_S)
        db.execute("SELECT count(*) FROM names").fetchone()
        ended.append("written")

    def close() -> None:
        store.close()
        ended.append("closed")

    writer = threading.Thread(target=store._transaction, args=(put,))
    writer.start()
    assert writing.wait(PATIENCE_S)
    closer = threading.Thread(target=close)
    closer.start()
    closing.set()
    writer.join(PATIENCE_S)
    closer.join(PATIENCE_S)
    assert ended == ["written", "closed"]
    with pytest.raises(StoreError, match="closed database"):
        store.write()
