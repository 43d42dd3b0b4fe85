"""What goes between hub and worker: whole however it is cut, bounded, and never taken for what it is not."""

from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.hub import Batch
from oracle_hub.errors import PipeError
from oracle_hub.server.feed_pipe import (
    MAX_MESSAGE_BYTES,
    Answer,
    Ask,
    Changed,
    Live,
    Published,
    Recent,
    Renew,
    Report,
    Stop,
    Tick,
    ToHub,
    ToWorker,
    Unpacker,
    facts_of,
    pack,
)
from oracle_hub.server.service import ServerSettings, SignedQuery
from oracle_hub.server.tokens import Token
from tests.server.stream_service import START_US, HubService

SETTINGS = ServerSettings(worker=2, tokens=(Token(name="desk", digest=bytes(range(32))),))
HALF = msgspec.msgpack.encode({"type": "tick", "x": 1})
"""A message without its field."""


def messages() -> list[ToWorker]:
    """One of most kinds, with a real decision in it."""
    service = HubService("SOL/USD", "BTC/USD")
    batch = service.tick("SOL/USD", 2**63 - 1)
    facts = facts_of(service)
    return [
        Tick(-5, 7),
        Live(SETTINGS, facts, service.seq, tuple(service.decisions.values())),
        Published(batch, False),
        Changed(facts, True),
        Renew(SETTINGS),
        Answer(3, True, True, b'{"a":1}'),
        Stop("shutdown"),
    ]


@given(cuts=st.lists(st.integers(0, 10_000), max_size=20))
@settings(deadline=None, max_examples=50)
def test_messages_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    sent = messages()
    stream = b"".join(map(pack, sent))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    unpacker: Unpacker[ToWorker] = Unpacker(ToWorker)
    got = [one for begin, end in pairwise(edges) for one in unpacker.feed(stream[begin:end])]
    assert got == sent


def test_answers_of_a_worker_come_back_as_they_were() -> None:
    unpacker: Unpacker[ToHub] = Unpacker(ToHub)
    sent: list[ToHub] = [Report((("oraclehub_clients", (), 2.0),)), Ask(1, "explain", "SOL/USD")]
    query = SignedQuery(feed="SOL/USD", source="pyth", publish_time_us=1, price=2)
    sent.append(Ask(2, "signed", signed=query))
    assert unpacker.feed(b"".join(map(pack, sent))) == sent


@pytest.mark.parametrize(
    "data",
    [
        (MAX_MESSAGE_BYTES + 1).to_bytes(4, "little"),
        b"\x01\0\0\0\xc1",  # a byte that MessagePack never uses
        pack(Ask(1, "ready")),  # what a worker says, not a hub
        len(HALF).to_bytes(4, "little") + HALF,
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    unpacker: Unpacker[ToWorker] = Unpacker(ToWorker)
    with pytest.raises(PipeError, match=r"^pipe: "):
        unpacker.feed(data)


@given(size=st.integers(1, 2_000), junk=st.binary(min_size=1, max_size=200))
@settings(deadline=None, max_examples=100)
def test_noise_is_refused_or_waited_for(size: int, junk: bytes) -> None:
    unpacker: Unpacker[ToWorker] = Unpacker(ToWorker)
    with suppress(PipeError):
        assert unpacker.feed(size.to_bytes(4, "little") + junk) == []


def batch(seq: int, now_us: int) -> Batch:
    return Batch(1, seq, now_us, "c0ffee", ())


def test_recent_frames_are_bounded_by_count_bytes_and_age() -> None:
    recent = Recent(10, max_batches=3, max_bytes=100, max_age_us=50)
    assert (recent.first_seq, recent.last_seq, recent.after(10, 1_000)) == (10, 10, (10, b""))
    for seq in (11, 12, 13, 14):
        recent.append(batch(seq, seq), b"%d;" % seq)
    assert (recent.first_seq, recent.last_seq, recent.size_bytes) == (11, 14, 9)
    recent.append(batch(15, 15), b"x" * 98)  # over the bytes with any other
    assert (recent.first_seq, recent.last_seq, recent.size_bytes) == (14, 15, 98)
    recent.append(batch(16, 66), b"y")  # and that one is too old now
    assert (recent.first_seq, recent.last_seq, recent.size_bytes) == (15, 16, 1)


def test_the_past_is_told_in_pieces_without_a_gap() -> None:
    recent = Recent(0)
    for seq in range(1, 8):
        recent.append(batch(seq, START_US), b"%d;" % seq)
    pieces, at = [], 0
    while at < recent.last_seq:
        found = recent.after(at, 5)
        assert found is not None
        at, data = found
        pieces.append(data)
    assert pieces == [b"1;2;", b"3;4;", b"5;6;", b"7;"]
    assert recent.after(3, 1) == (4, b"4;")  # at least one, however large
    assert recent.after(-1, 5) is None
