"""What happens at the door: requests that cannot be read, refusals that are counted, and what sockets are told."""

import asyncio
import logging
import os
import resource
import socket
from typing import Any

import msgspec
import pytest

from oracle_hub.server import sockets
from oracle_hub.server.census import Kindred, close_label, standing
from oracle_hub.stream.session import SessionLimits
from tests.patience import PATIENCE_S
from tests.server.conftest import Stage
from tests.server.test_websocket_server import eventually, stalled


async def answer_to(stage: Stage, request: bytes) -> tuple[int, str, Any]:
    """Status, type and body of what comes back for these bytes; then the connection must have ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(stage.base.rpartition(":")[2]))
    writer.write(request)
    received = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    kind = next(line.partition(": ")[2] for line in lines if line.lower().startswith("content-type"))
    return int(lines[0].split()[1]), kind, msgspec.json.decode(body)


SECRET = b"key-5ca1ab1e"
UNREADABLE = [
    (b"GET /" + SECRET + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, "head_too_large"),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + SECRET + b"x" * 9_000 + b"\r\n\r\n", 431, "head_too_large"),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX\x01-" + SECRET + b": \x00\r\n\r\n", 400, "bad_request"),
    (b"GET / HTTP/9.7 " + SECRET + b"\r\n\r\n", 400, "bad_request"),
    (b"\x16\x03\x01 " + SECRET + b"\r\n\r\n", 400, "bad_request"),
]


@pytest.mark.parametrize(("request_bytes", "status", "code"), UNREADABLE, ids=range(len(UNREADABLE)))
async def test_a_request_that_cannot_be_read_is_answered_in_one_line_and_logged_in_none(
    stage: Stage, caplog: pytest.LogCaptureFixture, request_bytes: bytes, status: int, code: str
) -> None:
    caplog.set_level(logging.DEBUG)
    await stage.start()
    good = await stage.subscriber("*")
    got, kind, body = await answer_to(stage, request_bytes)
    assert (got, kind, body["error"]["code"]) == (status, "application/json", code)
    assert SECRET.decode() not in str(body) + caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert stage.server.errors == 0
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await good.read())["type"] == "update"


@pytest.mark.parametrize(
    ("limits", "raised", "ceiling"),
    [
        ((1_024, 1_048_576), (10_256, 1_048_576), 10_000),
        ((1_024, 4_096), (4_096, 4_096), 3_840),
        ((200, 200), (200, 200), 150),
        ((20_000, 20_000), None, 19_744),
        ((1_024, resource.RLIM_INFINITY), (10_256, resource.RLIM_INFINITY), 10_000),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, 2**31),
    ],
)
def test_the_limit_of_descriptors_is_raised_for_all_who_may_come(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: tuple[int, int] | None, ceiling: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))
    assert sockets.descriptor_ceiling(10_000) == ceiling
    assert asked == ([] if raised is None else [raised])


async def test_the_last_descriptors_are_not_for_those_who_come_in(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ceiling = max(map(int, os.listdir("/proc/self/fd"))) + 20
    monkeypatch.setattr("oracle_hub.server.door.descriptor_ceiling", lambda max_connections: ceiling)
    await stage.start()
    good = await stage.subscriber("*")
    port = int(stage.base.rpartition(":")[2])
    held: list[asyncio.StreamWriter] = []

    async def answered() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        held.append(writer)
        try:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return bool(await asyncio.wait_for(reader.read(64), PATIENCE_S))
        except ConnectionError:
            return False

    assert await answered()
    while await answered():
        assert len(held) < ceiling
    assert not await answered()
    assert [record.levelname for record in caplog.records if "descriptors" in record.message] == ["WARNING"]
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await good.read())["type"] == "update"
    for writer in held:
        writer.close()
    async with asyncio.timeout(PATIENCE_S):
        while not await answered():
            held.pop().close()
    held.pop().close()


async def test_refusals_are_counted_by_reason(stage: Stage) -> None:
    await stage.start(max_clients_per_ip=1)
    await stage.get("/v1/prices", Origin="https://evil.example")
    await stage.get("/v1/prices?token=x")
    await stage.get("/nowhere")  # a mistake, no refusal
    kept = await stage.connect()
    await stage.get("/v1/stream", Upgrade="websocket")
    assert stage.server.refusals == {"origin_refused": 1, "token_in_query": 1, "too_many_from_address": 1}
    assert stage.server.refused == 3
    await kept.ws.close()


async def test_subscribers_are_counted_by_kind_and_by_how_they_ended(stage: Stage) -> None:
    await stage.start(session=SessionLimits(max_errors=1))
    keeper, throttled = await stage.subscriber("*"), await stage.subscriber("*", max_hz=5)
    every, none = await stage.subscriber("SOL/USD", mode="all"), await stage.connect()
    assert {kind: kindred.clients for kind, kindred in stage.server.standing().items()} == {
        "keeper": 1, "throttled": 1, "all": 1, "none": 1,
    }  # fmt: skip
    await throttled.send(type="subscribe", feeds=["*"])
    assert [(await throttled.read())["type"] for _ in range(2)] == ["subscribed", "snapshot"]
    assert stage.server.standing()["keeper"].clients == 2  # by its most demanding subscription
    await none.ws.send_str("nonsense")
    assert await none.closed() == 4500
    await every.ws.send_str("x" * 70_000)
    assert await every.closed() == 1009
    await keeper.ws.close(code=4999)  # a client's code is no label
    throttled.cut()
    await eventually(lambda: not stage.server.clients)
    assert sum(stage.server.closes.values()) == 4
    assert {code: stage.server.closes[code] for code in ("4500", "1009")} == {"4500": 1, "1009": 1}
    assert set(stage.server.closes) <= {"4500", "1009", "1006", "peer"}


async def test_unsent_bytes_and_merged_entries_are_told(stage: Stage) -> None:
    await stage.start(flush_interval_ms=1)
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["*"],"detail":"full"}')
    good = await stage.subscriber("SOL/USD")
    while not client.session.dirty:
        stage.tick("SOL/USD", 15_000_000_001 + stage.service.seq)
        await good.read()
    unsent = client.unsent_bytes()
    assert unsent > 4_096
    assert stage.server.standing()["keeper"] == Kindred(clients=2, unsent_bytes=unsent, most_unsent_bytes=unsent)
    assert stage.server.conflated == 0
    received, loop = b"", asyncio.get_running_loop()
    while b'"conflated":true' not in received:
        received += await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), PATIENCE_S)
    assert stage.server.conflated == 1
    sock.close()


def test_what_is_unsent_is_summed_by_kind() -> None:
    found = standing([("keeper", 5), ("all", 70), ("keeper", 9)])
    assert found["keeper"] == Kindred(clients=2, unsent_bytes=14, most_unsent_bytes=9)
    assert (found["all"].clients, found["throttled"], found["none"]) == (1, Kindred(), Kindred())
    assert [close_label(4001, 1000), close_label(None, 1009), close_label(None, 4001)] == ["4001", "1009", "peer"]


async def test_a_platform_that_does_not_limit_its_send_buffer_is_told_of_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.start()
    await stage.connect()
    assert stage.server.send_buffer_limited and not caplog.records
    monkeypatch.setattr(sockets, "TCP_NOTSENT_LOWAT", 12_345)  # an option that no kernel knows
    kept = [await stage.connect() for _ in range(2)]
    assert [peer.hello["type"] for peer in kept] == ["hello"] * 2
    told = bool(stage.server.send_buffer_limited)
    assert told is False
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "TCP_NOTSENT_LOWAT" in caplog.text


def transport_of(writer: asyncio.StreamWriter) -> asyncio.Transport:
    assert isinstance(writer.transport, asyncio.Transport)
    return writer.transport


async def test_an_option_that_reads_back_as_something_else_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    _, writer = await asyncio.open_connection(sock=here)
    assert sockets.tune(transport_of(writer), 4_096)  # no TCP: nothing to be told
    writer.close()
    there.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        _, writer = await asyncio.open_connection(*server.getsockname())
        assert sockets.tune(transport_of(writer), 4_096)
        monkeypatch.setattr(sockets, "TCP_NOTSENT_LOWAT", socket.TCP_MAXSEG)  # reads back as what was negotiated
        assert not sockets.tune(transport_of(writer), 1_000)
        writer.close()
        await writer.wait_closed()
