"""Clients of websockets that flood: closed by their frames' headers, while others go on."""

import asyncio
import socket
from pathlib import Path

import pytest

from oracle_hub.app.charts import charts_of
from oracle_hub.app.run import with_overrides
from oracle_hub.charts.app import Charts
from oracle_hub.cli.run import simulation_text
from oracle_hub.config import parse_config
from tests.charts.charts_stage import ChartsStage, bars_client
from tests.client.client_stage import turns_until
from tests.patience import PATIENCE_S

SOL = "SOL/USD"
FLOOD = 3_500
"""More than a guard lets through however long it has waited, and few enough bytes to be read at once."""
PONG = bytes((0x8A, 0x80)) + bytes(4)
"""RFC 6455, section 5.5.3: unasked, empty, with a mask of zeros."""
PING = b'{"type":"ping","id":1}'
REQUEST = bytes((0x81, 0x80 | len(PING))) + bytes(4) + PING
NONSENSE = bytes((0x81, 0x82)) + bytes(4) + b"{}"
UNMASKED = bytes((0x81, len(PING))) + PING


def as_the_program_has_it(stage: ChartsStage, directory: Path) -> Charts:
    config = with_overrides(
        parse_config(simulation_text(), origin="simulation"), charts={"port": 0}, state={"directory": str(directory)}
    )
    return charts_of(config, [stage.hub.url])


async def handshake(charts: Charts, path: str = "/v1/bars") -> socket.socket:
    host, _, port = charts.url.removeprefix("http://").rpartition(":")
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    await loop.sock_sendall(sock, (head + key).encode())
    return sock


async def received(sock: socket.socket, last: bytes) -> bytes:
    """What comes up to and with these bytes."""
    data, loop = b"", asyncio.get_running_loop()
    while last not in data:
        some = await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), PATIENCE_S)
        assert some, f"the connection ended without {last!r}"
        data += some
    return data


@pytest.mark.parametrize(
    ("path", "first"),
    [("/v1/bars", b'"hello"'), ("/ws", b"\x89\x00"), ("/v1/stream", b'"hello"')],  # of /ws the first word is a ping
    ids=["bars", "hermes", "relay"],
)
@pytest.mark.parametrize(
    ("sent", "code"),
    [(PONG * FLOOD, 1008), (NONSENSE * FLOOD, 1008), (UNMASKED, 1002)],
    ids=["pongs", "requests", "unmasked"],
)
async def test_a_client_that_floods_is_closed_and_nobody_else_notices(
    tmp_path: Path, path: str, first: bytes, sent: bytes, code: int
) -> None:
    stage = await ChartsStage(tmp_path / "charts.sqlite").start_hub()
    async with as_the_program_has_it(stage, tmp_path / "state") as charts:
        await turns_until(lambda: charts.live.heard_us is not None)
        async with bars_client(charts) as other:
            with await handshake(charts, path) as sock:
                await received(sock, first)
                await asyncio.get_running_loop().sock_sendall(sock, sent)
                await received(sock, b"\x88\x02" + code.to_bytes(2, "big"))
            await other.subscribe([SOL], "1S", count=10)
            assert charts.context.failures == 0
        await turns_until(lambda: charts.context.listening == 0)
    await stage.stop()


async def test_what_somebody_can_mean_is_answered(tmp_path: Path) -> None:
    stage = await ChartsStage(tmp_path / "charts.sqlite").start_hub()
    async with as_the_program_has_it(stage, tmp_path / "state") as charts:
        with await handshake(charts) as sock:
            await received(sock, b'"hello"')
            await asyncio.get_running_loop().sock_sendall(sock, PONG * 500 + REQUEST * 400)
            answers, loop = b"", asyncio.get_running_loop()
            while answers.count(b'"pong"') < 400:
                some = await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), PATIENCE_S)
                assert some, "the connection ended"
                answers += some
    await stage.stop()
