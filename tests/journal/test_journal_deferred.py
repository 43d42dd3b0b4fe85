"""Checkpoints in parts: put where they belong, however the segment is cut."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError
from oracle_hub.journal import deferred
from oracle_hub.journal.reader import RecordParser, read_segment
from oracle_hub.journal.records import (
    Appended,
    Checkpoint,
    Cut,
    FrameIn,
    Record,
    StatePart,
    Step,
    checkpoint_head,
    decode_checkpoint,
    encode_link_name,
    encode_record,
)
from oracle_hub.journal.segments import SegmentHeader, encode_header

HEADER = SegmentHeader("inst", 9, 1_000, 1_000, 0, 0)
CHECKPOINT = Checkpoint(
    now_us=5,
    epoch=9,
    seq=3,
    simulated=True,
    digest=b"d" * 16,
    instance="inst",
    version="0.2.0",
    config_hash="abc",
    config_text="port = 1\n",
    state=bytes(range(256)),
)
PAYLOAD = checkpoint_head(CHECKPOINT) + CHECKPOINT.state


def parts(cut_us: int, sizes: list[int]) -> list[StatePart]:
    """The payload, cut at some places."""
    ends = [*sizes, len(PAYLOAD)]
    return [
        StatePart(cut_us, index, end == ends[-1] and index == len(sizes), PAYLOAD[start:end])
        for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]


def frame(at_us: int) -> FrameIn:
    return FrameIn("a", at_us, Frame("websocket", b"%d" % at_us))


def segment(records: list[Appended]) -> tuple[bytes, list[int]]:
    """Bytes, and the offset behind each record."""
    data, seed = encode_header(HEADER)
    data += encode_link_name(0, "a", seed)
    ends = []
    for record in records:
        data += encode_record(record, 0, seed)
        ends.append(len(data))
    return data, ends


FIRST, SECOND, THIRD = parts(5, [100, 200])
WRITTEN: list[Appended] = [Step(4), Cut(5), frame(6), FIRST, Step(7), SECOND, frame(8), THIRD, Step(9)]
IN_PLACE: list[Record] = [Step(4), CHECKPOINT, frame(6), Step(7), frame(8), Step(9)]


def test_the_parts_are_the_payload_of_a_checkpoint() -> None:
    assert decode_checkpoint(PAYLOAD) == CHECKPOINT
    with pytest.raises(JournalError, match="a checkpoint in parts does not follow its layout"):
        decode_checkpoint(PAYLOAD[:60])


def test_it_is_read_where_it_was_cut() -> None:
    reader = read_segment(segment(WRITTEN)[0])
    assert list(reader) == IN_PLACE
    assert reader.parser.records == len(WRITTEN) + 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 300), max_size=12))
def test_however_the_bytes_come_the_parser_gives_what_stands_there(sizes: list[int]) -> None:
    data, _ = segment(WRITTEN)
    parser, found, at = RecordParser(), [], 0
    for size in [*sizes, len(data)]:
        found += parser.feed(data[at : at + size])
        at += size
    assert found + parser.finish() == WRITTEN
    assert parser.parts == 4


def test_wherever_it_breaks_off_nothing_is_lost_but_the_checkpoint() -> None:
    data, ends = segment(WRITTEN)
    for count, end in enumerate(ends, 1):
        expected = IN_PLACE[:-1] if count == 8 else [one for one in WRITTEN[:count] if isinstance(one, FrameIn | Step)]
        if count < len(ends):
            assert list(read_segment(data[:end])) == expected


@pytest.mark.parametrize(
    "written",
    [
        [Step(4), Cut(5), FIRST, frame(6), THIRD, Step(9)],
        [Step(4), Cut(5), frame(6), SECOND, THIRD, Step(9)],
        [Step(4), FIRST, SECOND, frame(6), THIRD, Step(9)],
        [Step(4), Cut(4), FIRST, SECOND, frame(6), THIRD, Step(9)],
        [Step(4), Cut(5), frame(6), StatePart(5, 0, True, PAYLOAD[:60]), Step(9)],
    ],
    ids=["one missing", "the first missing", "no cut", "of another cut", "no checkpoint"],
)
def test_parts_that_make_no_checkpoint_are_passed_over(written: list[Appended]) -> None:
    assert list(read_segment(segment(written)[0])) == [Step(4), frame(6), Step(9)]


def test_a_cut_that_was_given_up_is_followed_by_another() -> None:
    written: list[Appended] = [Cut(4), parts(4, [9])[0], frame(6), Cut(5), FIRST, SECOND, frame(8), THIRD]
    assert list(read_segment(segment(written)[0])) == [frame(6), CHECKPOINT, frame(8)]


def test_no_more_is_held_back_than_memory_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "MAX_HELD_RECORDS", 3)
    frames = [frame(at_us) for at_us in range(6, 12)]
    written: list[Appended] = [Cut(5), FIRST, *frames, SECOND, THIRD, Step(20)]
    assert list(read_segment(segment(written)[0])) == [*frames, Step(20)]


def test_what_was_held_back_comes_before_an_error() -> None:
    data, ends = segment(WRITTEN)
    damaged = bytearray(data)
    damaged[ends[6] + 20] ^= 1  # in the last part
    reader = read_segment(bytes(damaged))
    assert [next(reader) for _ in range(4)] == [Step(4), frame(6), Step(7), frame(8)]
    with pytest.raises(JournalError, match="damaged"):
        next(reader)
    lenient = list(read_segment(bytes(damaged), strict=False))
    assert [type(one).__name__ for one in lenient] == ["Step", "FrameIn", "Step", "FrameIn", "Gap", "Step"]


def test_a_cut_and_a_part_are_these_bytes() -> None:
    assert encode_record(Cut(5), 0, 0)[:-4] == struct.pack("<IBq", 8, 13, 5)
    assert encode_record(StatePart(5, 2, True, b"xy"), 0, 0)[:-4] == struct.pack("<IBqIB", 15, 14, 5, 2, 1) + b"xy"
