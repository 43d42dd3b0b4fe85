"""Records: golden bytes, round trips, refusals."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError
from oracle_hub.journal.records import (
    CRC,
    MAX_PAYLOAD_BYTES,
    OVERHEAD_BYTES,
    PREFIX,
    Appended,
    Checkpoint,
    ClockReading,
    Config,
    Cut,
    FrameIn,
    FrameRef,
    Gap,
    LinkEvent,
    LinkName,
    Published,
    RecordType,
    Rewatch,
    RunStart,
    StatePart,
    Step,
    decode_record,
    encode_frame,
    encode_frame_ref,
    encode_link_name,
    encode_record,
    record_time_us,
    reseal,
)
from oracle_hub.journal.segments import SegmentHeader, decode_header, encode_header, header_length

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
FRAMES = st.builds(
    Frame,
    channel=st.sampled_from(["websocket", "sse", "http"]),
    data=st.binary(max_size=600),
    fetch_id=st.text(max_size=20),
    status=st.integers(0, 999),
    retry_after_ms=st.integers(0, 2**40),
    event=st.text(max_size=20),
)
RECORDS: st.SearchStrategy[Appended] = st.one_of(
    st.builds(RunStart, st.text(max_size=40), UINT64, st.text(max_size=10), st.booleans(), INT64, INT64),
    st.builds(Config, st.text(max_size=300), st.text(max_size=64), INT64),
    st.builds(LinkEvent, st.just("solana:a"), st.sampled_from(["connect", "disconnect", "timer"]), INT64, st.text()),
    st.builds(FrameIn, st.just("solana:a"), INT64, FRAMES),
    st.builds(Step, INT64),
    st.builds(Published, UINT64, UINT64, st.binary(max_size=64)),
    st.builds(ClockReading, INT64, INT64, st.sampled_from(["reading", "reanchor", "skew", "ok"])),
    st.builds(Gap, INT64, INT64, UINT64, UINT64, st.text(max_size=80)),
    st.builds(Rewatch, INT64),
    st.builds(Cut, INT64),
    st.builds(StatePart, INT64, st.integers(0, 2**32 - 1), st.booleans(), st.binary(max_size=300)),
    st.builds(
        Checkpoint,
        now_us=INT64,
        epoch=UINT64,
        seq=UINT64,
        simulated=st.booleans(),
        digest=st.binary(min_size=16, max_size=16),
        instance=st.text(max_size=40),
        version=st.text(max_size=10),
        config_hash=st.text(max_size=64),
        config_text=st.text(max_size=300),
        state=st.binary(max_size=300),
    ),
)


def decode(data: bytes) -> object:
    return decode_record(data[4], data[PREFIX.size : -CRC.size], {7: "solana:a"})


@settings(deadline=None, max_examples=300)
@given(RECORDS, st.integers(0, 2**32 - 1))
def test_any_record_comes_back_the_same(record: Appended, seed: int) -> None:
    data = encode_record(record, 7, seed)
    assert decode(data) == record
    assert PREFIX.unpack_from(data)[0] == len(data) - OVERHEAD_BYTES


def test_step_is_these_bytes() -> None:
    # length 8, type 7, time 1_700_000_000_000_000, CRC-32 (zlib) from seed 0 over the thirteen bytes before it
    assert encode_record(Step(1_700_000_000_000_000), 0, 0).hex() == "0800000007" + "00401e18240a0600" + "ce28cc68"


def test_frame_is_these_bytes() -> None:
    # length 28, type 5, received 5, link 3, http, status 429, retry 1500 ms, 1 byte of fetch id, 0 of event, both, data
    frame = Frame("http", b"{}", fetch_id="a", status=429, retry_after_ms=1500, event="")
    assert (
        encode_frame(3, 5, frame, 0xDEADBEEF).hex()
        == "1c000000050500000000000000030002ad01dc0500000000000001000000617b7dc3f7a450"
    )


def test_reference_holds_everything_but_the_data() -> None:
    frame = Frame("sse", b"x" * 300, fetch_id="f", status=200, retry_after_ms=9, event="price_update")
    record = encode_frame_ref(7, 11, frame, 1234, 0)
    assert len(record) < 80
    assert decode(record) == FrameRef("solana:a", 11, Frame("sse", b"", "f", 200, 9, "price_update"), 1234)
    assert decode(encode_link_name(9, "hermes:1", 0)) == LinkName(9, "hermes:1")


def test_times_are_found_without_decoding() -> None:
    assert record_time_us(encode_record(Step(77), 0, 0)) == 77
    assert record_time_us(encode_frame(0, 78, Frame("sse", b""), 0)) == 78
    assert record_time_us(encode_record(Published(1, 2, b""), 0, 0)) is None


def test_reseal_changes_the_crc_alone() -> None:
    assert reseal(encode_record(Step(1), 0, 10), 20) == encode_record(Step(1), 0, 20)
    assert encode_record(Step(1), 0, 10) != encode_record(Step(1), 0, 20)


@pytest.mark.parametrize(
    "frame",
    [
        Frame("http", b"", status=70_000),
        Frame("http", b"", retry_after_ms=2**63),
        Frame("http", b"", fetch_id="x" * 70_000),
        Frame("http", bytes(MAX_PAYLOAD_BYTES)),
    ],
    ids=["status", "retry", "fetch id", "size"],
)
def test_frame_that_fits_no_record_is_refused(frame: Frame) -> None:
    with pytest.raises(JournalError):
        encode_frame(0, 0, frame, 0)


@pytest.mark.parametrize("kind", [*RecordType, 0, 12, 255])
def test_payload_of_one_byte_is_refused_cleanly(kind: int) -> None:
    with pytest.raises(JournalError, match=r"layout|unknown"):
        decode_record(kind, b"\x01", {})


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 255), st.binary(max_size=80))
def test_no_payload_raises_anything_but_journal_error(kind: int, payload: bytes) -> None:
    try:
        decode_record(kind, payload, {0: "a"})
    except JournalError:
        return


def test_link_without_a_name_is_refused() -> None:
    record = encode_record(LinkEvent("x", "connect", 1), 4, 0)
    with pytest.raises(JournalError, match="LINK_EVENT record is of link 4, which no record named"):
        decode_record(record[4], record[PREFIX.size : -CRC.size], {})


def test_header_round_trip_and_seed() -> None:
    header = SegmentHeader("0a1b", 5, 1_000_000, 2_000_000, 42, 3)
    data, seed = encode_header(header)
    assert header_length(data, "x") == len(data)
    assert decode_header(data, "x") == (header, seed)
    other = encode_header(SegmentHeader("0a1b", 5, 1_000_000, 2_000_001, 42, 3))[1]
    assert other != seed
