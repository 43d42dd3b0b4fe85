"""Reading: every cut, every chunking, damage in the middle."""

from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError
from oracle_hub.journal.reader import RecordParser, read_journal, read_segment
from oracle_hub.journal.records import (
    Appended,
    Config,
    FrameIn,
    Gap,
    LinkEvent,
    Published,
    Record,
    RunStart,
    Step,
    encode_frame_ref,
    encode_link_name,
    encode_record,
)
from oracle_hub.journal.segments import SegmentHeader, encode_header

SIGNED = bytes(range(256)) + b"signed"
HEADER = SegmentHeader("inst", 9, 1_000, 1_000, 0, 0)


def small_journal() -> tuple[bytes, list[Record], list[int]]:
    """A segment, its records, and the offset behind the header and behind each record on disk."""
    data, seed = encode_header(HEADER)
    ends = [len(data)]
    records: list[Record] = [
        RunStart("inst", 9, "0.1.0", True, 1_000, 50, first=True),
        Config("port = 1\n", "abc", 1_001),
        LinkEvent("hermes:1", "connect", 1_002),
        FrameIn("hermes:1", 1_003, Frame("sse", SIGNED, event="price")),
        FrameIn("hermes:1", 1_004, Frame("http", SIGNED, fetch_id="snapshot", status=200)),
        Step(1_005),
        Published(9, 1, b"\x01" * 16),
        FrameIn("hermes:1", 1_006, Frame("sse", b"short")),
    ]
    data += encode_link_name(0, "hermes:1", seed)
    ends.append(len(data))
    for index, record in enumerate(records):
        if index == 4:
            assert isinstance(record, FrameIn)
            data += encode_frame_ref(0, record.received_us, record.frame, len(data) - ends[4], seed)
        else:
            data += encode_record(record, 0, seed)
        ends.append(len(data))
    return data, records, ends


DATA, RECORDS, ENDS = small_journal()


def test_the_whole_journal_is_read_with_its_references_resolved() -> None:
    reader = read_segment(DATA)
    assert list(reader) == RECORDS
    assert reader.header == HEADER
    assert reader.torn_bytes == 0
    assert reader.parser.records == len(RECORDS) + 1


@pytest.mark.parametrize("strict", [True, False])
def test_cut_at_any_byte_it_opens_to_its_last_whole_record(strict: bool) -> None:
    for cut in range(len(DATA) + 1):
        reader = read_segment(DATA[:cut], strict=strict)
        whole = [end for end in ENDS if end <= cut]
        assert list(reader) == RECORDS[: max(0, len(whole) - 2)], cut
        assert reader.torn_bytes == cut - (whole[-1] if whole else 0), cut


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, len(DATA)), max_size=12), st.integers(0, len(DATA)), st.booleans())
def test_chunking_does_not_matter(cuts: list[int], end: int, strict: bool) -> None:
    data = DATA[:end]
    assert parse_in_chunks(data, cuts, strict) == parse_in_chunks(data, [], strict)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(ENDS[0], len(DATA) - 1),
    st.integers(1, 255),
    st.lists(st.integers(0, len(DATA)), max_size=8),
)
def test_chunking_does_not_matter_for_damaged_bytes_either(at: int, flip: int, cuts: list[int]) -> None:
    damaged = bytearray(DATA)
    damaged[at] ^= flip
    once = parse_in_chunks(bytes(damaged), [], False)
    assert parse_in_chunks(bytes(damaged), cuts, False) == once
    assert parse_in_chunks(bytes(damaged), list(range(len(DATA))), False) == once


def parse_in_chunks(data: bytes, cuts: list[int], strict: bool) -> tuple[list[Appended], int, int]:
    parser = RecordParser(strict=strict)
    out: list[Appended] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, stop in pairwise(edges):
        out += parser.feed(data[start:stop])
    out += parser.finish()
    return out, parser.torn_bytes, parser.damaged_bytes


def test_every_flipped_byte_is_found_and_only_its_record_is_lost() -> None:
    for at in range(ENDS[0], len(DATA)):
        damaged = bytearray(DATA)
        damaged[at] ^= 0x55
        hit = max(index for index, end in enumerate(ENDS[:-1]) if end <= at)  # records on disk before the damaged one
        reader = read_segment(bytes(damaged), strict=False)
        read = list(reader)
        before = RECORDS[: max(0, hit - 1)]
        assert read[: len(before)] == before
        if hit == len(RECORDS):  # the last one: nothing whole follows, which is a torn tail
            assert read == before
            assert reader.torn_bytes == len(DATA) - ENDS[hit]
        else:
            gap = read[len(before)]
            assert isinstance(gap, Gap)
            assert gap.bytes_lost == ENDS[hit + 1] - ENDS[hit]
            assert f"at offset {ENDS[hit]}" in gap.reason
            if hit >= 5:
                assert read[len(before) + 1 :] == RECORDS[hit:]


def test_damage_in_the_middle_names_file_and_offset(tmp_path: Path) -> None:
    damaged = bytearray(DATA)
    damaged[ENDS[6] + 7] ^= 1
    path = tmp_path / "cut.ohj"
    path.write_bytes(damaged)
    reader = read_segment(path)
    good = [next(reader) for _ in range(5)]
    assert good == RECORDS[:5]
    with pytest.raises(JournalError, match=rf"cut\.ohj at offset {ENDS[6]}: a record is damaged"):
        next(reader)
    lenient = list(read_segment(path, strict=False))
    assert lenient[:5] == RECORDS[:5]
    assert lenient[6:] == RECORDS[6:]
    assert isinstance(lenient[5], Gap)
    assert (lenient[5].from_us, lenient[5].to_us, lenient[5].bytes_lost) == (1_004, 0, ENDS[7] - ENDS[6])


def test_reference_to_a_lost_frame_is_a_gap_of_one_record() -> None:
    damaged = bytearray(DATA)
    damaged[ENDS[4] + 100] ^= 1
    read = list(read_segment(bytes(damaged), strict=False))
    assert [type(record).__name__ for record in read[3:6]] == ["Gap", "Gap", "Step"]
    assert isinstance(read[4], Gap)
    assert read[4].records_lost == 1
    assert "refers to offset" in read[4].reason


def test_record_that_a_peer_put_into_a_frame_is_not_taken_for_one() -> None:
    # The peer guesses every seed but the right one; the frame that holds its records is cut off by a crash.
    _, seed = encode_header(HEADER)
    forged = b"".join(encode_record(Step(666), 0, guess) for guess in range(200) if guess != seed)
    data = encode_header(HEADER)[0] + encode_link_name(0, "a", seed)
    cut = data + encode_record(FrameIn("a", 1, Frame("websocket", forged + b"....")), 0, seed)[:-6]
    for strict in (True, False):
        reader = read_segment(cut, strict=strict)
        assert list(reader) == []
        assert reader.torn_bytes == len(cut) - len(data)


def test_tail_of_zeros_after_a_loss_of_power_is_torn() -> None:
    reader = read_segment(DATA + bytes(4096))
    assert list(reader) == RECORDS
    assert reader.torn_bytes == 4096


def test_sealed_bytes_read_the_same_and_cut_ones_to_what_is_there() -> None:
    sealed = zstandard.ZstdCompressor(write_checksum=True).compress(DATA)
    assert list(read_segment(sealed)) == RECORDS
    for cut in range(4, len(sealed)):
        read = list(read_segment(sealed[:cut]))
        assert read == RECORDS[: len(read)]


def test_damaged_compression_is_named() -> None:
    sealed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(DATA))
    sealed[-1] ^= 0xFF
    with pytest.raises(JournalError, match="compressed data is damaged"):
        list(read_segment(bytes(sealed)))
    last = list(read_segment(bytes(sealed), strict=False))[-1]
    assert isinstance(last, Gap)


def test_unknown_format_version_is_one_clear_line() -> None:
    newer = DATA[:8] + b"\x04\x00" + DATA[10:]
    with pytest.raises(JournalError, match="journal has journal format 4 but this release reads 1, 2 and 3") as caught:
        list(read_segment(newer))
    assert "\n" not in str(caught.value)


def test_something_else_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="not a segment of a journal"):
        list(read_segment(b"{}"))
    with pytest.raises(JournalError, match="no journal at"):
        read_journal(tmp_path / "absent")
    with pytest.raises(JournalError, match="no segments"):
        read_journal(tmp_path)
    with pytest.raises(JournalError, match="cannot read"):
        list(read_segment(tmp_path / "absent.ohj"))


def test_damaged_header_is_an_error_or_a_gap() -> None:
    damaged = bytearray(DATA)
    damaged[20] ^= 1
    with pytest.raises(JournalError, match="at offset 0: the header is damaged"):
        list(read_segment(bytes(damaged)))
    reader = read_segment(bytes(damaged), strict=False)
    first, *rest = reader
    assert isinstance(first, Gap)
    assert rest == RECORDS
    assert reader.header is None


def segment(number: int, first_record: int, steps: list[int]) -> bytes:
    data, seed = encode_header(SegmentHeader("inst", 9, 1_000, 1_000, first_record, number))
    return data + b"".join(encode_record(Step(step), 0, seed) for step in steps)


def test_missing_segment_of_a_run_is_noticed(tmp_path: Path) -> None:
    for number, first, steps in ((0, 0, [1, 2]), (1, 2, [3]), (2, 3, [4, 5])):
        name = f"000000000009-{number:06d}-20260101T000000Z.ohj"
        (tmp_path / name).write_bytes(segment(number, first, steps))
    assert list(read_journal(tmp_path)) == [Step(step) for step in (1, 2, 3, 4, 5)]
    next(tmp_path.glob("*-000001-*")).unlink()
    with pytest.raises(JournalError, match="begins with record 3 of its run, but 2 should follow"):
        list(read_journal(tmp_path))
    read = list(read_journal(tmp_path, strict=False))
    assert [record for record in read if isinstance(record, Step)] == [Step(1), Step(2), Step(4), Step(5)]
    assert isinstance(read[2], Gap)
    assert read[2].records_lost == 1


def test_torn_tail_of_an_earlier_run_is_reported_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "000000000009-000000-20260101T000000Z.ohj").write_bytes(segment(0, 0, [1, 2])[:-3])
    data, seed = encode_header(SegmentHeader("inst", 10, 1_000, 1_000, 0, 0))
    (tmp_path / "000000000010-000000-20260101T000000Z.ohj").write_bytes(data + encode_record(Step(9), 0, seed))
    reader = read_journal(tmp_path)
    assert list(reader) == [Step(1), Step(9)]
    assert [(torn.path.name[:12], torn.torn_bytes) for torn in reader.torn] == [("000000000009", 14)]
    assert reader.torn_bytes == 14
