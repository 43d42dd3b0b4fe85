"""Server-sent events, cut anywhere."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.ingest.sse import ServerSentEvent, SseParser

STREAM = (
    b"\xef\xbb\xbf: hi\ndata: one\r\ndata:two\rdata\r\r\n"
    b'event: error\ndata:  x\nid: 7\nretry: 5\n\nevent: lost\n\ndata:{"a":1}\n\n:\n'
)
EVENTS = [
    ServerSentEvent("", b""),
    ServerSentEvent("", b"one\ntwo\n"),
    ServerSentEvent("error", b" x"),
    ServerSentEvent("", b'{"a":1}'),
    ServerSentEvent("", b""),
]


def test_a_stream_is_read_by_the_standard() -> None:
    assert SseParser().feed(STREAM) == EVENTS


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_chunks_make_no_difference(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = SseParser()
    events = [event for start, end in pairwise(edges) for event in parser.feed(STREAM[start:end])]
    assert events == EVENTS


def test_an_event_has_a_bound_however_it_is_cut() -> None:
    parser = SseParser(max_event_bytes=20)
    assert parser.feed(b"data: 0123456789\n") == []
    with pytest.raises(ValueError, match="longer than 20 bytes"):
        parser.feed(b"data: 0123")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_taken(chunks: list[bytes]) -> None:
    parser = SseParser()
    for chunk in chunks:
        for event in parser.feed(chunk):
            assert b"\r" not in event.data
