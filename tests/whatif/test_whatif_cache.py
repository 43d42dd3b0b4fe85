"""The decoded cache: what it is made of, and that it is never believed blindly."""

from pathlib import Path

import pytest

from oracle_hub.app.whatif import decoded_journal
from oracle_hub.core.selector import Policy
from oracle_hub.errors import JournalError
from oracle_hub.journal.decoded import BLOCK_ROWS, Decoded, DecodedWriter, Stretch, open_decoded
from tests.whatif.whatif_stage import write_history

STRETCH = Stretch(
    feed="SOL/USD",
    expo=-8,
    roles=("p", "a", "b"),
    policy=Policy.STRICT,
    max_divergence_bps=50,
    max_conf_bps=0,
    max_age_us=(1, 2, 3),
)


def small(path: Path, rows: int = 3) -> None:
    writer = DecodedWriter(path, "key")
    number = writer.begin(STRETCH)
    for row in range(rows):
        writer.row(number, 10 + row, ((1, 100 + row, -1, 5), (0, 0, -1, 0), (1, 7, 3, 9)), row % 2)
    writer.end(number, 10 + rows)
    writer.finish(frames=1, steps=2, gaps=3, mismatches=4)


def opened(path: Path, key: str = "key") -> Decoded:
    decoded = open_decoded(path, key)
    assert decoded is not None
    return decoded


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.decoded"
    small(path)
    decoded = opened(path)
    assert (decoded.rows, decoded.feeds, decoded.index.stretches) == (3, ("SOL/USD",), (STRETCH,))
    assert (decoded.index.frames, decoded.index.steps, decoded.index.gaps, decoded.index.mismatches) == (1, 2, 3, 4)
    [(columns, end_us)] = decoded.blocks_of(0)
    assert end_us == 13
    assert columns.at_us.tolist() == [10, 11, 12]
    assert columns.mantissa.tolist() == [[100, 101, 102], [0, 0, 0], [7, 7, 7]]
    assert columns.conf.tolist() == [[-1] * 3, [-1] * 3, [3] * 3]
    assert columns.recency_us.tolist() == [[5] * 3, [0] * 3, [9] * 3]
    assert columns.usable.tolist() == [[1] * 3, [0] * 3, [1] * 3]
    assert columns.hold.tolist() == [0, 1, 0]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_long_stretch_is_cut_into_blocks_that_end_where_the_next_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.decoded"
    small(path, BLOCK_ROWS + 1)
    blocks = [(len(columns.at_us), end_us) for columns, end_us in opened(path).blocks_of(0)]
    assert blocks == [(BLOCK_ROWS, 10 + BLOCK_ROWS), (1, 11 + BLOCK_ROWS)]


def test_what_is_damaged_or_of_something_else_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.decoded"
    small(path)
    whole = path.read_bytes()
    assert open_decoded(path, "another") is None
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = open_decoded(path, "key")
        # A bit of padding changes nothing that is read.
        assert found is None or found.index == _index(tmp_path, whole), at
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert open_decoded(path, "key") is None
    assert open_decoded(tmp_path / "none", "key") is None


def _index(folder: Path, whole: bytes) -> object:
    path = folder / "whole"
    path.write_bytes(whole)
    return opened(path).index


async def test_a_cache_is_made_once_and_again_when_the_journal_or_the_cache_changed(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    write_history(directory, turns=30)
    decodes: list[int] = []

    def decode() -> Decoded:
        decodes.append(0)

        def progress(now_us: int) -> None:
            decodes[-1] += 1

        return decoded_journal(directory, tmp_path / "cache", strict=True, progress=progress)

    first = decode().index
    assert decode().index == first
    cache = tmp_path / "cache" / "journal.decoded"
    data = cache.read_bytes()
    cache.write_bytes(data[:100] + bytes([data[100] ^ 255]) + data[101:])
    assert decode().index == first
    assert cache.read_bytes() == data
    for segment in directory.glob("*.ohj"):
        segment.write_bytes(segment.read_bytes()[:-5])
    torn = decode().index
    assert torn.key != first.key
    assert [count > 0 for count in decodes] == [True, False, True, True]


def test_a_folder_without_a_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no segments of a journal"):
        decoded_journal(tmp_path, None, strict=True, progress=lambda now_us: None)


def test_a_cache_that_cannot_be_written_says_where_it_could(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="give --cache DIRECTORY"):
        DecodedWriter(tmp_path / "file" / "a.decoded", "key")


def test_a_full_disk_is_told_with_the_cache_and_nothing_stays_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.decoded"
    path.with_name("a.decoded.tmp").symlink_to("/dev/full")  # which takes what is buffered, and nothing more
    writer = DecodedWriter(path, "key")
    with pytest.raises(JournalError, match=r"a\.decoded: No space left on device; give --cache DIRECTORY$"):
        writer.finish(frames=0, steps=0, gaps=0, mismatches=0)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_is_discarded_on_a_full_disk_leaves_nothing_either(tmp_path: Path) -> None:
    path = tmp_path / "a.decoded"
    path.with_name("a.decoded.tmp").symlink_to("/dev/full")
    DecodedWriter(path, "key").discard()
    assert list(tmp_path.iterdir()) == []
