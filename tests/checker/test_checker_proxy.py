"""The proxy does what its faults are called, and nothing when there is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.checker.proxy import FaultProxy
from tests.patience import PATIENCE_S


class Peer:
    """A server that keeps what it reads and lets a test write."""

    def __init__(self) -> None:
        self.readers: list[asyncio.StreamReader] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.came = asyncio.Event()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.readers.append(reader)
        self.writers.append(writer)
        self.came.set()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Peer, FaultProxy]]:
    peer = Peer()
    server = await asyncio.start_server(peer.accept, "127.0.0.1", 0)
    proxy = await FaultProxy(server.sockets[0].getsockname()[:2]).start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield peer, proxy
    finally:
        await proxy.stop()
        server.close()
        for writer in peer.writers:
            writer.transport.abort()


async def connected(peer: Peer, proxy: FaultProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await peer.came.wait()
    return reader, writer


async def test_without_faults_every_byte_passes_in_both_directions() -> None:
    async with proxied() as (peer, proxy):
        reader, writer = await connected(peer, proxy)
        data = bytes(range(256)) * 1_000
        writer.write(data)
        peer.writers[0].write(data[::-1])
        assert await peer.readers[0].readexactly(len(data)) == data
        assert await reader.readexactly(len(data)) == data[::-1]
        peer.writers[0].close()
        assert await reader.read() == b""
        writer.close()
        assert proxy.accepted == 1


async def test_delay_and_throttle_change_no_byte() -> None:
    async with proxied() as (peer, proxy):
        proxy.delay_s, proxy.bytes_per_s = 0.01, 1_000_000
        reader, writer = await connected(peer, proxy)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        peer.writers[0].write(b"price")
        assert await reader.readexactly(5) == b"price"
        assert loop.time() - began_s >= 0.01
        writer.close()


async def test_a_pause_holds_back_and_then_passes_on() -> None:
    async with proxied() as (peer, proxy):
        reader, writer = await connected(peer, proxy)
        proxy.pause()
        peer.writers[0].write(b"held")
        waiting = asyncio.create_task(reader.readexactly(4))
        peer_waits = asyncio.create_task(peer.readers[0].readexactly(2))
        writer.write(b"up")
        await asyncio.wait([waiting, peer_waits], timeout=0.05)
        assert not waiting.done() and not peer_waits.done()
        proxy.clear()
        assert (await waiting, await peer_waits) == (b"held", b"up")
        writer.close()


async def test_truncation_cuts_in_the_middle() -> None:
    async with proxied() as (peer, proxy):
        reader, writer = await connected(peer, proxy)
        proxy.truncate(7)
        peer.writers[0].write(b"0123")
        assert await reader.readexactly(4) == b"0123"
        peer.writers[0].write(b"456789")
        assert await reader.read() == b"456"
        writer.close()


async def test_reset_ends_with_an_error() -> None:
    async with proxied() as (peer, proxy):
        reader, writer = await connected(peer, proxy)
        writer.write(b"x")
        assert await peer.readers[0].readexactly(1) == b"x"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionResetError):
            await peer.readers[0].read()
        writer.close()


async def test_half_open_says_nothing_until_it_is_cleared() -> None:
    async with proxied() as (peer, proxy):
        reader, writer = await connected(peer, proxy)
        writer.write(b"x")
        assert await peer.readers[0].readexactly(1) == b"x"
        proxy.half_open()
        peer.writers[0].write(b"lost")
        new_reader, new_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        new_writer.write(b"hello?")
        old, new = asyncio.create_task(reader.read()), asyncio.create_task(new_reader.read())
        await asyncio.wait([old, new], timeout=0.05)
        assert not old.done() and not new.done()
        assert proxy.connections == 2
        proxy.clear()
        for task in (old, new):
            with pytest.raises(ConnectionResetError):
                await task
        assert len(peer.readers) == 1  # nothing reached the target
        for one in (writer, new_writer):
            one.close()


async def test_without_a_target_connections_are_reset() -> None:
    async with proxied() as (_, proxy):
        proxy.target = None
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
