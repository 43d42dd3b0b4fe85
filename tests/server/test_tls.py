"""An encrypted port: what is refused before it opens, and that nothing goes around the encryption."""

import asyncio
import contextlib
import os
import re
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest

from oracle_hub.errors import ConfigError
from oracle_hub.server import tls
from oracle_hub.server.client import Client
from tests.patience import PATIENCE_S
from tests.server.conftest import Peer, Stage
from tests.server.test_websocket_server import eventually


def trusting(pems: Path, name: str = "a") -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pems / f"{name}.pem"))


async def secured(stage: Stage, pems: Path, **settings: object) -> Stage:
    await stage.start(tls_certificate=str(pems / "a.pem"), tls_key=str(pems / "a.key"), **settings)
    stage.base = stage.base.replace("http", "https", 1)
    return stage


async def secure_subscriber(stage: Stage, pems: Path, *feeds: str) -> Peer:
    peer = Peer(await stage.http.ws_connect(f"{stage.base}/v1/stream", ssl=trusting(pems), max_msg_size=0))
    peer.hello = await peer.read()
    await peer.send(type="subscribe", feeds=list(feeds))
    assert [(await peer.read())["type"] for _ in range(2)] == ["subscribed", "snapshot"]
    return peer


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("none.pem", "a.key", r"^server.tls_certificate: .*/none.pem: no such file$"),
        ("a.pem", "none.key", r"^server.tls_key: .*/none.key: no such file$"),
        ("", "a.key", r"^server.tls_certificate: .*: cannot be read \(Is a directory\)$"),
        ("text.pem", "a.key", r"^server.tls_certificate: .*/text.pem: holds no certificate in PEM$"),
        ("a.pem", "b.pem", r"^server.tls_key: .*/b.pem: holds no private key in PEM$"),
        ("a.pem", "b.key", r"^server.tls_key: .*/b.key: is not the key of the certificate in .*/a.pem$"),
        ("a.pem", "locked.key", r"^server.tls_key: .*/locked.key: has a passphrase"),
    ],
)
def test_files_that_cannot_be_used_are_named(pems: Path, certificate: str, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        tls.server_context(str(pems / certificate), str(pems / key))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line(pems: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    damaged.write_text((pems / "a.pem").read_text()[:100] + "\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match=r"^server.tls_certificate, server.tls_key: .* cannot be used \(.+\)$"):
        tls.server_context(str(damaged), str(pems / "a.key"))


async def test_views_and_stream_are_served_encrypted_only(stage: Stage, pems: Path) -> None:
    await secured(stage, pems)
    async with stage.http.get(f"{stage.base}/v1/prices", ssl=trusting(pems)) as answer:
        assert (answer.status, len((await answer.json())["feeds"])) == (200, 2)
    peer = await secure_subscriber(stage, pems, "SOL/USD")
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await peer.read())["feeds"][0]["price"] == "15010000000"
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await stage.http.get(f"{stage.base}/v1/prices", ssl=trusting(pems, "b"))
    with pytest.raises(aiohttp.ClientError):
        await stage.http.get(f"{stage.base.replace('https', 'http')}/v1/prices")
    await peer.ws.close()


async def test_no_frame_goes_around_the_encryption(stage: Stage, pems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await secured(stage, pems)
    peers = [await secure_subscriber(stage, pems, "SOL/USD") for _ in range(3)]
    client = stage.clients[0]
    assert client.descriptor is None and client.session.kind == "keeper"

    def write(descriptor: int, data: bytes) -> int:
        raise AssertionError("a frame was written to a descriptor as it is")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        stage.tick("SOL/USD", 15_010_000_000)
    for peer in peers:
        assert (await peer.read())["feeds"][0]["price"] == "15010000000"
        await peer.ws.close()
    assert stage.server.errors == 0


async def test_who_stalls_behind_encryption_is_noticed_as_early(stage: Stage, pems: Path) -> None:
    await secured(stage, pems, flush_interval_ms=1, max_unanswered_bytes=0)
    reader, writer, client = await stalled(stage, pems)
    count = 0
    while not client.session.dirty and count < 5_000:
        count += 1
        stage.tick("SOL/USD", 15_000_000_000 + count)
        await asyncio.sleep(0)
    assert client.session.dirty
    below = client.transport._ssl_protocol._transport  # type: ignore[attr-defined]
    assert below.get_write_buffer_size() < 20_000  # asyncio would let 64 KiB wait there unseen
    last = str(15_000_000_000 + count).encode()
    received = b""
    while last not in received:
        received += await asyncio.wait_for(reader.read(1 << 16), PATIENCE_S)
    assert b'"conflated":true' in received
    writer.transport.abort()


async def test_behind_encryption_too_what_waits_of_mode_all_goes_on_in_order(stage: Stage, pems: Path) -> None:
    await secured(stage, pems, flush_interval_ms=1)
    request = b'{"type":"subscribe","feeds":["*"],"detail":"full","mode":"all"}'
    reader, writer, client = await stalled(stage, pems, request)
    count = 300
    for number in range(count):
        stage.tick("SOL/USD", 15_000_000_001 + number)
        await asyncio.sleep(0)
    assert client.waiting_bytes > 100_000
    received, last, answered = b"", str(15_000_000_000 + count).encode(), 0
    while last not in received:
        received += await asyncio.wait_for(reader.read(1 << 16), PATIENCE_S)
        asked = re.findall(rb"\x89\x08(.{8})", received, re.DOTALL)
        writer.writelines(bytes((0x8A, 0x88, 0, 0, 0, 0)) + offset for offset in asked[answered:])
        answered = len(asked)
    positions = [received.index(b'"%d"' % (15_000_000_001 + number)) for number in range(count)]
    assert positions == sorted(positions)
    writer.transport.abort()


async def stalled(
    stage: Stage, pems: Path, request: bytes = b'{"type":"subscribe","feeds":["*"],"detail":"full"}'
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Client]:
    """A subscriber that will not read, with a small receive buffer, and the server's side of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(stage.base.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=sock, ssl=trusting(pems), server_hostname="127.0.0.1", limit=1)
    writer.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        + bytes((0x81, 0x80 | len(request))) + bytes(4) + request
    )  # fmt: skip
    subscribers = stage.server._subscribers
    assert subscribers is not None
    await eventually(lambda: any(client.session.subscriptions for client in subscribers._clients))
    return reader, writer, next(reversed(subscribers._clients))


async def test_a_handshake_that_never_ends_is_cut(stage: Stage, pems: Path) -> None:
    await secured(stage, pems, handshake_timeout_ms=30)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(stage.base.rpartition(":")[2]))
    writer.write(b"\x16\x03\x01")
    with contextlib.suppress(ConnectionResetError):  # where it was cut before it had read that
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    writer.close()


async def test_who_was_cut_before_the_handshake_ended_does_not_come_in_by_ending_it(stage: Stage, pems: Path) -> None:
    await secured(stage, pems, max_handshakes=1)
    port, door = int(stage.base.rpartition(":")[2]), stage.server._door
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: door._waiting)
    (first,) = door._waiting
    _, other = await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: first not in door._waiting)
    with contextlib.suppress(ConnectionError):
        await writer.start_tls(trusting(pems), server_hostname="127.0.0.1")
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    for each in (writer, other):
        each.transport.abort()


async def test_a_renewed_certificate_is_used_without_a_restart(stage: Stage, pems: Path, tmp_path: Path) -> None:
    def use(name: str) -> None:
        for kind in ("pem", "key"):
            (tmp_path / f"hub.{kind}").write_bytes((pems / f"{name}.{kind}").read_bytes())

    use("a")
    await stage.start(tls_certificate=str(tmp_path / "hub.pem"), tls_key=str(tmp_path / "hub.key"))
    stage.base = stage.base.replace("http", "https", 1)
    peer = await secure_subscriber(stage, pems, "SOL/USD")
    use("b")
    stage.server.renew(stage.settings)
    async with stage.http.get(f"{stage.base}/livez", ssl=trusting(pems, "b")) as answer:
        assert answer.status == 200
    (tmp_path / "hub.key").write_bytes((pems / "a.key").read_bytes())
    with pytest.raises(ConfigError, match="is not the key of the certificate"):
        stage.server.renew(stage.settings)
    async with stage.http.get(
        f"{stage.base}/livez", ssl=trusting(pems, "b"), headers={"Connection": "close"}
    ) as answer:
        assert answer.status == 200
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await peer.read())["type"] == "update"
    await peer.ws.close()
