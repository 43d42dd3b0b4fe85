"""Mode ``all`` of a client that stops reading: it is closed with 4001, and finds out when it reads again."""

import asyncio
import socket
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest

from oracle_hub.server.client import Client
from oracle_hub.stream.messages import CloseCode
from oracle_hub.stream.session import SessionLimits
from tests.patience import PATIENCE_S
from tests.server.conftest import Stage
from tests.server.test_websocket_server import eventually, raw_subscriber

SUBSCRIBE = b'{"type":"subscribe","feeds":["*"],"mode":"all","detail":"full"}'
SMALL_BYTES, LARGE_BYTES = 4_096, 1 << 22
"""Receive buffers: one that leaves bytes with us, and one that takes them all."""


class Read(NamedTuple):
    """What a client found when it read again."""

    messages: list[dict[str, Any]]
    pings: list[bytes]
    close_code: int | None
    n_bytes: int


async def stuck_client(stage: Stage, receive_buffer_bytes: int) -> tuple[socket.socket, Client]:
    """A subscriber of everything that reads nothing, and the server's side of it."""
    subscribers = stage.server._subscribers
    assert subscribers is not None
    sock = await raw_subscriber(stage, SUBSCRIBE, receive_buffer_bytes)
    await eventually(lambda: any(client.session.subscriptions for client in subscribers._clients))
    (client,) = subscribers._clients
    return sock, client


async def read_to_end(sock: socket.socket) -> Read:
    """Read whole frames until the server closes; every ping is answered, as a websocket library would."""
    loop, buffer, at = asyncio.get_running_loop(), bytearray(), 0
    messages: list[dict[str, Any]] = []
    pings: list[bytes] = []
    while True:
        while (frame := whole_frame(buffer, at)) is not None:
            first, payload, at = frame
            if first == 0x88:
                return Read(messages, pings, int.from_bytes(payload[:2], "big"), at)
            if first == 0x89:
                pings.append(payload)
                await loop.sock_sendall(sock, bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload)
            else:
                assert first == 0x81
                messages.append(msgspec.json.decode(payload))
        data = await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), PATIENCE_S)
        if not data:
            return Read(messages, pings, None, at)
        buffer += data
        if not at and b"\r\n\r\n" in buffer:
            at = buffer.index(b"\r\n\r\n") + 4


def whole_frame(buffer: bytes | bytearray, at: int) -> tuple[int, bytes, int] | None:
    """First byte, payload and end of the frame that begins there; None where it is not whole yet."""
    if not at or len(buffer) < at + 4:
        return None
    size, start = buffer[at + 1], at + 2
    if size >= 126:
        start += 2 if size == 126 else 8
        size = int.from_bytes(buffer[at + 2 : start], "big")
    end = start + size
    return None if len(buffer) < end else (buffer[at], bytes(buffer[start:end]), end)


def is_chained(messages: list[dict[str, Any]]) -> bool:
    """Whether every update follows from what came before it."""
    news = [message for message in messages if message["type"] in ("snapshot", "update")]
    return all(after["prev_seq"] == before["seq"] for before, after in pairwise(news))


@pytest.mark.parametrize("receive_buffer_bytes", [SMALL_BYTES, LARGE_BYTES])
async def test_who_reads_again_sees_why_it_was_closed_behind_the_window_alone(
    stage: Stage, receive_buffer_bytes: int
) -> None:
    limits = SessionLimits(max_unsent_bytes=400_000)
    await stage.start(session=limits, close_grace_ms=1, max_unanswered_bytes=20_000)
    sock, client = await stuck_client(stage, receive_buffer_bytes)
    with sock:
        while not client.closing:
            stage.tick("SOL/USD", 15_000_000_001 + stage.service.seq)
            assert client.transport.get_write_buffer_size() < 30_000  # the rest waits where it can be taken back
        assert (client.session.close_code, client.waiting_bytes) == (CloseCode.TOO_SLOW, 0)
        assert client.transport.get_write_buffer_size() < 30_000
        read = await read_to_end(sock)
    assert read.close_code == CloseCode.TOO_SLOW
    assert read.n_bytes < 30_000 + limits.conflate_above_bytes
    assert is_chained(read.messages) and len(read.messages) > 5
    last = read.messages[-1]
    back = await stage.connect()
    resume = {"epoch": last["epoch"], "seq": last["seq"]}
    await back.send(type="subscribe", feeds=["*"], mode="all", resume=resume)
    assert (await back.read())["recovered"] is True
    assert (await back.read())["prev_seq"] == last["seq"]


async def test_who_never_reads_is_cut_when_the_grace_for_the_slow_is_over(stage: Stage) -> None:
    await stage.start(session=SessionLimits(max_unsent_bytes=20_000), slow_close_grace_ms=50, close_grace_ms=60_000)
    sock, client = await stuck_client(stage, SMALL_BYTES)
    with sock:
        while not client.closing:
            stage.tick("SOL/USD", 15_000_000_001 + stage.service.seq)
        await eventually(lambda: not stage.server.clients)
    assert stage.server.closes == {"4001": 1}


async def test_whoever_is_closed_for_being_slow_does_not_hold_up_the_end(stage: Stage) -> None:
    await stage.start(session=SessionLimits(max_unsent_bytes=20_000), close_grace_ms=20, slow_close_grace_ms=600_000)
    sock, client = await stuck_client(stage, SMALL_BYTES)
    with sock:
        while not client.closing:
            stage.tick("SOL/USD", 15_000_000_001 + stage.service.seq)
        async with asyncio.timeout(PATIENCE_S):
            await stage.server.stop("test")


@pytest.mark.parametrize("receive_buffer_bytes", [SMALL_BYTES, LARGE_BYTES])
async def test_who_reads_again_in_time_gets_everything_in_order(stage: Stage, receive_buffer_bytes: int) -> None:
    await stage.start(close_grace_ms=1, flush_interval_ms=1, max_unanswered_bytes=20_000)
    sock, client = await stuck_client(stage, receive_buffer_bytes)
    count = 300
    for number in range(count):
        stage.tick("SOL/USD", 15_000_000_001 + number)
    assert client.waiting_bytes > 100_000 and not client.closing
    assert client.unsent_bytes() >= client.waiting_bytes
    with sock:
        reading = asyncio.ensure_future(read_to_end(sock))
        await eventually(lambda: not client.unsent_bytes())
        assert not client.waiting_bytes and client.session.handle is not None
        await stage.server.stop("done")
        read = await reading
    assert is_chained(read.messages)
    seqs = [message["seq"] for message in read.messages if message["type"] == "update"]
    assert seqs == list(range(seqs[0], seqs[0] + count))
    assert len(read.pings) > 10 and read.messages[-1]["type"] == "goaway"


async def test_a_goaway_passes_what_waits_in_order(stage: Stage) -> None:
    await stage.start(close_grace_ms=60_000, max_unanswered_bytes=20_000)
    sock, client = await stuck_client(stage, LARGE_BYTES)
    for number in range(100):
        stage.tick("SOL/USD", 15_000_000_001 + number)
    assert client.waiting_bytes > 30_000
    with sock:
        stopping = asyncio.ensure_future(stage.server.stop("over"))
        read = await read_to_end(sock)
    await stopping
    assert read.close_code == CloseCode.SHUTDOWN
    assert is_chained(read.messages)
    assert read.messages[-1]["type"] == "goaway"
    assert read.messages[-2]["seq"] == stage.service.seq


async def test_answers_that_are_left_unread_end_a_session_in_mode_all(stage: Stage) -> None:
    await stage.start(session=SessionLimits(max_unsent_bytes=20_000), max_unanswered_bytes=20_000)
    sock, client = await stuck_client(stage, LARGE_BYTES)
    request = b'{"type":"subscribe","feeds":["*"],"detail":"full"}'
    frame = bytes((0x81, 0x80 | len(request))) + bytes(4) + request
    with sock:
        await asyncio.get_running_loop().sock_sendall(sock, frame * 60)
        await eventually(lambda: client.closing)
        assert client.session.close_code is CloseCode.TOO_SLOW
        assert (await read_to_end(sock)).close_code == CloseCode.TOO_SLOW
