"""Who has left is forgotten at once: nothing of it waits for the garbage collector, which stops everybody."""

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from aiohttp import web

from oracle_hub.server.client import Client
from oracle_hub.server.door import RequestHandler
from oracle_hub.server.inbound import FrameGuard
from oracle_hub.stream.messages import CloseCode
from oracle_hub.stream.session import Session
from tests.server.conftest import Stage
from tests.server.test_websocket_server import eventually, stalled

REQUEST = b'{"type":"subscribe","feeds":["SOL/USD"]}'
THROTTLED = REQUEST[:-1] + b',"max_hz":0.01}'
CLOSE = bytes((0x88, 0x82)) + bytes(4) + (1000).to_bytes(2, "big")


THEIRS = (Client, Session, RequestHandler, FrameGuard, web.WebSocketResponse)
"""What the server makes for a client."""


def kept() -> dict[type, int]:
    return Counter(type(each) for each in gc.get_objects() if isinstance(each, THEIRS))


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


HOW = ["a close frame", "a lost connection", "frames that no client may send", "too slow", "owed something for long"]


@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_left_is_freed_without_the_collector(stage: Stage, uncollected: None, how: str) -> None:
    await stage.start(close_grace_ms=10, slow_close_grace_ms=10)
    sock, client = await stalled(stage, THROTTLED if how == HOW[-1] else REQUEST)
    stage.tick("SOL/USD", 15_000_000_001)
    stage.tick("SOL/USD", 15_000_000_002)
    assert client.session.dirty is (how == HOW[-1])
    gone = client.gone
    del client
    assert kept() == dict.fromkeys(THEIRS, 1)
    if how == "a close frame":
        await asyncio.get_running_loop().sock_sendall(sock, CLOSE)
    elif how == "frames that no client may send":
        await asyncio.get_running_loop().sock_sendall(sock, b"\x81\x01x")
    elif how == "too slow":
        subscribers = stage.server._subscribers
        assert subscribers is not None
        subscribers._close_soon(next(iter(subscribers._clients)), CloseCode.TOO_SLOW)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
        sock.close()
    await gone.wait()
    del gone
    stage.server.heartbeat()
    sock.close()
    await eventually(lambda: not kept())
