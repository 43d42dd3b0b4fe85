"""Readers who asked for a stream and read nothing of it, while prices go on."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from oracle_hub.charts.app import Charts
from tests.charts.udf_stage import FEED
from tests.client.client_stage import HubStage, turns_until


@asynccontextmanager
async def stalled_reader(charts: Charts, path: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.Transport]]:
    """One who asked for the stream and reads nothing, behind a small window."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    url = urlsplit(charts.url)
    sock.connect((url.hostname, url.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1_024)
    assert isinstance(writer.transport, asyncio.Transport)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await turns_until(lambda: charts.context.listening == 1)
    writer.transport.pause_reading()
    try:
        yield reader, writer.transport
    finally:
        writer.transport.abort()


async def tick_on(hub: HubStage, charts: Charts, steps: Iterable[int], until: Callable[[], bool] | None = None) -> None:
    """A price after the other, each taken in by the charts process. The hub's clock goes with ours: one that stops is
    noticed."""
    clock = asyncio.get_running_loop().time
    told_at_s = clock()
    for step in steps:
        if until is not None and until():
            return
        passed_us, told_at_s = int(1e6 * (clock() - told_at_s)), clock()
        batch = hub.service.try_tick(FEED, 15_000_000_000 + step, after_us=max(1, passed_us))
        assert batch is not None
        hub.server.publish(batch)
        await turns_until(lambda: charts.live.position is not None and charts.live.position.seq == hub.service.seq)
