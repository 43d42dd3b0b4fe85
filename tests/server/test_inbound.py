"""Frames that no client may send: closed with the code that says why, which arrives."""

import asyncio
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.server.inbound import SMALL_BYTES, SMALL_FRAMES, SMALL_FRAMES_PER_S, FrameGuard
from oracle_hub.server.tokens import Token, token_digest
from tests.patience import PATIENCE_S
from tests.server.conftest import Stage
from tests.server.test_websocket_server import flood_with, raw_subscriber

MAX_BYTES = 70_000
TEXT, CONTINUED, PING, PONG, FINAL = 0x01, 0x00, 0x09, 0x0A, 0x80
SUBSCRIBE = b'{"type":"subscribe","feeds":["SOL/USD"]}'


def frame(first: int, size: int, *, masked: bool = True) -> bytes:
    """A frame of zeros, under a mask of zeros."""
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, mask | size))
    elif size < 65_536:
        head = bytes((first, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask | 127)) + size.to_bytes(8, "big")
    return head + bytes(4 if masked else 0) + bytes(size)


UNMASKED = frame(FINAL | TEXT, 10, masked=False)
FRAGMENTED = frame(TEXT, 30_000) + frame(CONTINUED, 30_000) * 3
WHOLE = frame(FINAL | TEXT, MAX_BYTES + 1)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Messages in fragments of any size with pings between them, none longer than may be."""
    data = b""
    for _ in range(draw(st.integers(0, 4))):
        sizes = draw(st.lists(st.sampled_from((0, 1, 125, 126, 5_000, 17_000)), min_size=1, max_size=4))
        for number, size in enumerate(sizes):
            final = FINAL if number == len(sizes) - 1 else 0
            data += frame(final | (CONTINUED if number else TEXT), size)
            data += frame(FINAL | PING, draw(st.integers(0, 125))) if draw(st.booleans()) else b""
    return data


@settings(max_examples=60, deadline=None)
@given(messages(), st.lists(st.integers(1, 9_000), min_size=1, max_size=6), st.sampled_from((0, 1, 3)))
def test_good_frames_pass_however_they_are_cut_and_the_first_bad_one_does_not(
    data: bytes, sizes: list[int], which: int
) -> None:
    bad, code = {0: (UNMASKED, 1002), 1: (WHOLE, 1009), 3: (frame(FINAL | PING, 3, masked=False), 1002)}[which]
    told: list[int] = []
    guard = FrameGuard(MAX_BYTES)
    guard.watch(told.append)
    at, number = 0, 0
    while at < len(data):
        assert guard.passes(data[at : at + sizes[number % len(sizes)]])
        at += sizes[number % len(sizes)]
        number += 1
    assert told == []
    assert not guard.passes(bad)
    assert not guard.passes(frame(FINAL | TEXT, 2))
    assert told == [code]


def test_headers_may_come_byte_by_byte_and_a_message_may_have_just_the_size_that_is_allowed() -> None:
    guard = FrameGuard(MAX_BYTES)
    data = frame(FINAL | TEXT, MAX_BYTES) + frame(TEXT, MAX_BYTES - 1) + frame(FINAL | CONTINUED, 1)
    assert all(guard.passes(data[at : at + 1]) for at in range(len(data)))
    assert not guard.passes(frame(TEXT, MAX_BYTES) + frame(CONTINUED, 1))


def test_a_fault_from_before_anybody_watched_is_told_to_who_does() -> None:
    told: list[int] = []
    guard = FrameGuard(MAX_BYTES)
    assert not guard.passes(UNMASKED)
    guard.watch(told.append)
    assert told == [1002]


def test_small_frames_may_come_as_they_are_asked_for_and_no_flood_of_them() -> None:
    now_s, pings = 0.0, 0
    told: list[int] = []
    guard = FrameGuard(MAX_BYTES, lambda: now_s)
    guard.watch(told.append)
    guard.allow(200, 20, lambda: pings)
    pong, fragment = frame(FINAL | PONG, 8), frame(CONTINUED, SMALL_BYTES - 1)
    assert guard.passes(pong * (SMALL_FRAMES + 199) + frame(TEXT, 0))
    now_s = 1.0
    assert guard.passes(fragment * (SMALL_FRAMES_PER_S + 20))
    pings = 5_000
    assert guard.passes(frame(FINAL | CONTINUED, SMALL_BYTES) * 100)  # larger ones are few in a read as it is
    assert guard.passes(pong * pings)
    now_s = 3_600.0
    assert guard.passes(pong * (SMALL_FRAMES + 200))
    assert not guard.passes(pong)
    assert told == [1008]


async def read_to_end(sock: socket.socket, last: bytes) -> bytes:
    """Read to the end of the connection, and end our half with the last bytes that are due; a reset would raise."""
    loop, received, open_half = asyncio.get_running_loop(), b"", True
    while data := await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), PATIENCE_S):
        received += data
        if last in received and open_half:
            sock.shutdown(socket.SHUT_WR)
            open_half = False
    return received


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        *((UNMASKED, 1002), (FRAGMENTED, 1009), (WHOLE, 1009), (WHOLE * 40, 1009)),
        *((frame(FINAL | PONG, 0) * 100_000, 1008), (frame(TEXT, 0) + frame(CONTINUED, 0) * 100_000, 1008)),
    ],
    ids=["unmasked", "fragmented", "whole", "many", "pongs", "empty fragments"],
)
async def test_it_is_closed_with_its_code_and_not_reset_and_nobody_else_notices(
    stage: Stage, sent: bytes, code: int
) -> None:
    await stage.start(close_grace_ms=60_000)
    other = await stage.subscriber("SOL/USD")
    sock = await raw_subscriber(stage, SUBSCRIBE, receive_buffer_bytes=1 << 20)
    loop, received = asyncio.get_running_loop(), b""
    with sock:
        while b'"type":"snapshot"' not in received:
            received += await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), PATIENCE_S)
        await loop.sock_sendall(sock, sent)
        received += await read_to_end(sock, b"\x88\x02" + code.to_bytes(2, "big"))
    assert received.endswith(b"\x88\x02" + code.to_bytes(2, "big"))
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await other.read())["feeds"][0]["price"] == "15010000000"
    assert (stage.server.closes, stage.server.errors) == ({str(code): 1}, 0)


@pytest.mark.parametrize(("sent", "code"), [(UNMASKED, 1002), (WHOLE, 1009)], ids=["unmasked", "whole"])
async def test_before_a_token_was_shown_it_is_the_same(stage: Stage, sent: bytes, code: int) -> None:
    await stage.start(
        close_grace_ms=60_000,
        require_token=True,
        tokens=(Token(name="keeper", digest=token_digest("a-token-of-a-keeper")),),
    )
    sock = await raw_subscriber(stage, b"")
    loop, received = asyncio.get_running_loop(), b""
    with sock:
        await loop.sock_sendall(sock, sent)
        received += await read_to_end(sock, b"\x88\x02" + code.to_bytes(2, "big"))
    assert b"\x88\x02" + code.to_bytes(2, "big") in received
    assert b'"type":"hello"' not in received


async def test_who_floods_after_its_fault_is_cut_when_the_grace_is_over(stage: Stage) -> None:
    await stage.start(close_grace_ms=50)
    sock = await raw_subscriber(stage, SUBSCRIBE)
    with sock, pytest.raises(ConnectionError):
        await asyncio.wait_for(flood_with(sock, UNMASKED * 1_000), PATIENCE_S)
