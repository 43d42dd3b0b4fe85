"""Messages of a websocket, handed over as they come: whole, in order, and none after the end."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from oracle_hub.ingest.messages import MessageConnection

Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def connected(handler: Handler, max_size: int = 2**20) -> AsyncIterator[MessageConnection]:
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        kind = MessageConnection
        async with connect(url, compression=None, max_size=max_size, create_connection=kind) as connection:
            assert isinstance(connection, MessageConnection)
            yield connection


async def test_parts_are_put_together_and_nothing_is_lost_before_somebody_listens() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send("first")
        await peer.send([b"in ", b"three ", b"parts"])
        await peer.recv()
        await peer.send(["", "text ", "in parts"])
        for number in range(1_000):
            await peer.send(str(number))

    async with connected(handler) as connection:
        while len(connection._early) < 2:  # noqa: ASYNC110 - what came is not told to anybody yet
            await asyncio.sleep(0)
        got: list[bytes] = []
        connection.deliver_to(got.append)
        assert got == [b"first", b"in three parts"]
        await connection.send("go on")
        await connection.wait_closed()
        assert got[2] == b"text in parts"
        assert got[3:] == [str(number).encode() for number in range(1_000)]


async def test_after_the_end_nothing_is_handed_over() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send("one")
        await peer.recv()
        await peer.send("two")
        await peer.send([b"th", b"ree"])

    async with connected(handler) as connection:
        got: list[bytes] = []
        came = asyncio.Event()

        def take(message: bytes) -> None:
            got.append(message)
            came.set()

        connection.deliver_to(take)
        await came.wait()
        connection.end_delivery()
        await connection.send("go on")
        await connection.wait_closed()
        assert got == [b"one"]


async def test_a_message_that_is_too_long_in_parts_ends_the_connection() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send([b"x" * 600, b"y" * 600])
        await peer.wait_closed()

    async with connected(handler, max_size=1_000) as connection:
        got: list[bytes] = []
        connection.deliver_to(got.append)
        await connection.wait_closed()
        assert got == []
        assert isinstance(connection.protocol.close_exc, ConnectionClosedError)
        with pytest.raises(ConnectionClosedError, match="1009"):
            raise connection.protocol.close_exc


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux only")
async def test_what_was_read_is_acknowledged_at_once() -> None:
    """Else a peer that sends small packets one after the other waits 40 ms for the acknowledgement of the first."""

    async def handler(peer: ServerConnection) -> None:
        async for message in peer:
            await peer.send(message)

    async with connected(handler) as connection:
        came: asyncio.Queue[bytes] = asyncio.Queue()
        connection.deliver_to(came.put_nowait)
        own = connection.transport.get_extra_info("socket")
        for number in range(40):  # a connection acknowledges its first packets at once in any case
            await connection.send(str(number))
            await came.get()
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
