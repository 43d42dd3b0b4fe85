"""Subscribers over real sockets: the stream, its limits, and what one of them can do to the others (nothing)."""

import asyncio
import re
import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import aiohttp
import msgspec
import pytest
import websockets

from oracle_hub.server.client import Client
from oracle_hub.server.door import RequestHandler
from oracle_hub.server.sockets import TCP_NOTSENT_LOWAT
from oracle_hub.stream.board import Publication
from oracle_hub.stream.messages import CloseCode
from oracle_hub.stream.session import Session, SessionLimits
from tests.patience import PATIENCE_S
from tests.server.conftest import Stage
from tests.stream.model_client import ModelClient


async def test_hello_comes_first_and_says_who_speaks(stage: Stage) -> None:
    await stage.start()
    peer = await stage.connect()
    hello = peer.hello
    assert (hello["type"], hello["protocol"], peer.ws.protocol) == ("hello", "oraclehub.v1", "oraclehub.v1")
    assert (hello["instance"], hello["epoch"], hello["seq"]) == (stage.service.instance, stage.service.epoch, 3)
    assert hello["feeds"] == ["SOL/USD", "BTC/USD"]
    assert hello["limits"]["max_message_bytes"] == 65_536 and hello["limits"]["max_future_ms"] == 2_000
    assert peer.ws._compress == 0


async def test_from_subscribe_to_update_none_heartbeat_and_config(stage: Stage) -> None:
    await stage.start()
    peer = await stage.connect()
    await peer.send(type="subscribe", id=1, feeds=["SOL/USD", "NO/USD"])
    subscribed, snapshot = await peer.read(), await peer.read()
    assert subscribed["rejected"] == [{"feed": "NO/USD", "code": "unknown_feed"}]
    client = ModelClient()
    client.take(snapshot)
    stage.tick("SOL/USD", 15_010_000_000)
    update = await peer.read()
    assert (update["type"], update["prev_seq"], update["seq"]) == ("update", 3, 4)
    assert update["sent_us"] == stage.service.clock_us
    client.take(update)
    lease_us = stage.service.decisions["SOL/USD"].valid_until_us
    assert lease_us is not None
    batch = stage.service.wait(lease_us)
    assert batch is not None
    stage.server.publish(batch)
    none = await peer.read()
    assert (none["feeds"][0]["state"], none["feeds"][0]["price"]) == ("none", None)
    client.take(none)
    stage.server.heartbeat()
    beat = await peer.read()
    client.take(beat)
    assert (beat["type"], beat["not_live"], client.wrong_digests, client.gaps) == ("heartbeat", ["SOL/USD"], 0, 0)
    stage.server.config_changed()
    config = await peer.read()
    assert (config["type"], config["config_hash"], config["feeds"]) == ("config", "c0ffee", ["SOL/USD", "BTC/USD"])


async def test_after_a_tighter_licence_nobody_resumes_from_before_it(stage: Stage) -> None:
    await stage.start()
    resume = {"epoch": stage.service.epoch, "seq": stage.server.history.last_seq - 1 if stage.server.history else 0}
    recovered = []
    for forget_past in (False, True):
        stage.server.config_changed(forget_past=forget_past)
        peer = await stage.connect()
        await peer.send(type="subscribe", feeds=["*"], mode="all", resume=resume)
        recovered.append((await peer.read())["recovered"])
    assert recovered == [True, False]
    assert (await peer.read())["type"] == "snapshot"


async def test_heartbeats_come_by_themselves(stage: Stage) -> None:
    await stage.start(heartbeat_ms=10)
    peer = await stage.subscriber("*")
    assert [(await peer.read())["type"] for _ in range(3)] == ["heartbeat"] * 3


async def test_held_back_changes_are_sent_by_a_timer(stage: Stage) -> None:
    await stage.start(flush_interval_ms=1)
    peer = await stage.subscriber("SOL/USD", max_hz=10)
    stage.tick("SOL/USD", 15_010_000_000)
    stage.tick("SOL/USD", 15_020_000_000)
    assert (await peer.read())["conflated"] is False
    subscribers = stage.server._subscribers
    assert subscribers is not None and stage.server.held_back == 1
    assert not subscribers._held_back  # it is not asked every millisecond, but when its time has come
    stage.service.clock_us += 100_000
    merged = await peer.read()
    assert (merged["conflated"], merged["feeds"][0]["price"], merged["feeds"][0]["n"]) == (True, "15020000000", 1)


async def test_a_price_too_old_for_a_subscription_is_ended_by_a_timer(stage: Stage) -> None:
    await stage.start()
    peer = await stage.connect()
    await peer.send(type="subscribe", feeds=["SOL/USD"], max_age_ms=2)
    await peer.read()
    assert (await peer.read())["feeds"][0]["state"] == "live"
    stage.service.clock_us += 2_000
    update = await peer.read()
    assert (update["feeds"][0]["state"], update["feeds"][0]["reason"]) == ("none", "max_age")


NONSENSE: list[tuple[Any, str]] = [
    ("garbage", "bad_json"),
    ("[" * 30_000, "bad_message"),
    ('{"type":"ping","deep":' + '{"a":' * 10_000 + "1" + "}" * 10_001, "bad_json"),
    ('{"type":"subscribe","feeds":5}', "bad_message"),
    ('{"type":"order"}', "unknown_type"),
    (b"\x00\x01\x02", "binary_message"),
]


@pytest.mark.parametrize(("sent", "code"), NONSENSE, ids=range(len(NONSENSE)))
async def test_nonsense_is_answered_and_the_session_goes_on(stage: Stage, sent: Any, code: str) -> None:
    await stage.start()
    peer = await stage.connect()
    await (peer.ws.send_bytes(sent) if isinstance(sent, bytes) else peer.ws.send_str(sent))
    error = await peer.read()
    assert (error["type"], error["code"]) == ("error", code)
    await peer.send(type="ping", id=4)
    assert (await peer.read())["id"] == 4


async def test_an_oversized_message_closes_its_connection_and_no_other(stage: Stage) -> None:
    await stage.start()
    good, bad = await stage.subscriber("*"), await stage.connect()
    await bad.ws.send_str("x" * 70_000)
    assert await bad.closed() == 1009
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await good.read())["type"] == "update"
    assert stage.server.errors == 0


async def test_who_keeps_failing_is_closed_with_a_code_that_says_stay_away(stage: Stage) -> None:
    await stage.start(session=SessionLimits(max_errors=3))
    peer = await stage.connect()
    for _ in range(5):
        await peer.ws.send_str("nonsense")
    assert await peer.closed() == 4500


@pytest.mark.parametrize(("options", "broken"), [({"max_hz": 1_000}, "session"), ({}, "write")])
async def test_a_session_that_fails_inside_ends_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, options: dict[str, int], broken: str
) -> None:
    await stage.start()
    good, bad = await stage.subscriber("*"), await stage.subscriber("*", **options)
    client = stage.clients[-1]

    def fail(*_: object) -> bytes:
        raise RuntimeError("a defect")

    publish = Session.publish

    def fail_in_one(session: Session, publication: Publication, unsent_bytes: int) -> bytes:
        return fail() if session is client.session else publish(session, publication, unsent_bytes)

    if broken == "session":
        monkeypatch.setattr(Session, "publish", fail_in_one)
    else:
        write = Client.write
        monkeypatch.setattr(Client, "write", lambda self, data: fail() if self is client else write(self, data))
        client.hold()
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await good.read())["type"] == "update"
    assert await bad.closed() == CloseCode.INTERNAL_ERROR
    assert stage.server.errors == 1


async def test_who_subscribes_to_nothing_is_closed(stage: Stage) -> None:
    await stage.start(subscribe_timeout_ms=1_000)
    good, bad = await stage.subscriber("*"), await stage.connect()
    stage.service.clock_us += 1_000_001
    stage.server.heartbeat()
    assert await bad.closed() == CloseCode.NO_SUBSCRIPTION
    assert (await good.read())["type"] == "heartbeat"
    await good.send(type="unsubscribe", sub=1)
    assert (await good.read())["type"] == "unsubscribed"
    for _ in range(2):
        stage.server.heartbeat()
        stage.service.clock_us += 1_000_001
    stage.server.heartbeat()
    assert await good.closed() == CloseCode.NO_SUBSCRIPTION


async def test_nothing_follows_our_close_not_even_for_who_subscribes_again(stage: Stage) -> None:
    await stage.start(session=SessionLimits(max_errors=1))
    peer = await stage.connect()
    await peer.ws.send_str("nonsense")
    await peer.send(type="subscribe", feeds=["*"])
    assert (await peer.read())["type"] == "error"
    client = stage.clients[0]
    stage.tick("SOL/USD", 15_010_000_000)
    assert await peer.closed() == 4500
    assert client.session.subscriptions == 0


async def open_socket(stage: Stage) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(stage.base.rpartition(":")[2])))
    return sock


async def cut(sock: socket.socket) -> bool:
    """Wait until the other side ends the connection."""
    with sock:
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), PATIENCE_S) == b""
        except ConnectionResetError:
            return True


@pytest.mark.parametrize("head", [b"", b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgr"])
async def test_who_never_finishes_a_request_is_cut(stage: Stage, head: bytes) -> None:
    await stage.start(handshake_timeout_ms=1_000)  # in which the good one has to come in
    good = await stage.subscriber("*")
    slow = await open_socket(stage)
    await asyncio.get_running_loop().sock_sendall(slow, head)
    assert await cut(slow)
    assert stage.server.cut_off == 1
    stage.tick("SOL/USD", 15_010_000_000)
    assert (await good.read())["type"] == "update"


async def test_who_asked_before_the_hub_stood_still_is_answered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.start()
    asking = await open_socket(stage)
    await eventually(lambda: [one for one in stage.server._door._waiting if one.transport is not None])  # and reads
    loop = asyncio.get_running_loop()
    asking.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")  # the loop looks an hour later
    before = loop.time
    monkeypatch.setattr(loop, "time", lambda: before() + 3_600)
    with asking:
        answer = await asyncio.wait_for(loop.sock_recv(asking, 1_024), PATIENCE_S)
    assert answer.startswith(b"HTTP/1.1 200")
    assert stage.server.cut_off == 0


async def test_of_many_who_send_no_request_the_oldest_is_cut(stage: Stage) -> None:
    await stage.start(max_handshakes=2)
    first, *others = [await open_socket(stage) for _ in range(3)]
    assert await cut(first)
    assert stage.server.cut_off == 1
    for sock in others:
        sock.close()


async def test_a_client_that_goes_away_without_a_word_is_forgotten(stage: Stage) -> None:
    await stage.start()
    good, gone = await stage.subscriber("*"), await stage.subscriber("*")
    gone.cut()
    for mantissa in range(15_000_000_001, 15_000_000_020):
        stage.tick("SOL/USD", mantissa)
        assert (await good.read())["feeds"][0]["price"] == str(mantissa)
    assert (stage.server.clients, stage.server.errors) == (1, 0)


async def eventually(condition: Callable[[], object]) -> None:
    """Let the loop turn until something holds; fail when it never does."""
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(1_000_000):
            if condition():
                return
            await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


async def raw_subscriber(stage: Stage, request: bytes, receive_buffer_bytes: int = 4096) -> socket.socket:
    """A subscriber that will not read, with a small receive buffer."""
    port = int(stage.base.rpartition(":")[2])
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(
        sock,
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        + bytes((0x81, 0x80 | len(request)))
        + bytes(4)
        + request,
    )
    return sock


async def stalled(stage: Stage, request: bytes, receive_buffer_bytes: int = 4096) -> tuple[socket.socket, Client]:
    """A subscriber that subscribed, and the server's side of it."""
    subscribers = stage.server._subscribers
    assert subscribers is not None
    before = subscribers.count
    sock = await raw_subscriber(stage, request, receive_buffer_bytes)
    await eventually(lambda: any(client.session.subscriptions for client in list(subscribers._clients)[before:]))
    return sock, next(reversed(subscribers._clients))


async def test_a_client_that_does_not_read_gets_one_merged_frame_and_costs_no_memory(stage: Stage) -> None:
    await stage.start(flush_interval_ms=1)
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["*"],"detail":"full"}')
    good = await stage.subscriber("SOL/USD")
    count = 1_000
    for number in range(count):
        stage.tick("SOL/USD", 15_000_000_001 + number)
        await good.read()
    assert client.transport.get_write_buffer_size() < 10_000
    assert client.session.dirty
    received = bytearray()
    loop = asyncio.get_running_loop()
    last = str(15_000_000_000 + count).encode()
    while last not in received:
        received += await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), PATIENCE_S)
    assert len(received) < 300_000  # what the kernel held, and one frame; not a thousand frames of 900 bytes
    assert received.count(b'"conflated":true') >= 1
    sock.close()


async def test_a_client_in_mode_all_that_does_not_read_is_cut(stage: Stage) -> None:
    await stage.start(session=SessionLimits(max_unsent_bytes=20_000), slow_close_grace_ms=50)
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["*"],"mode":"all","detail":"full"}')
    for number in range(1_000):
        stage.tick("SOL/USD", 15_000_000_001 + number)
        if client.closing:
            break
        await asyncio.sleep(0)
    assert client.session.close_code is CloseCode.TOO_SLOW
    await eventually(lambda: not stage.server.clients)
    sock.close()


async def test_who_floods_with_pings_is_refused_and_cut_off_without_an_error(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.start()
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["*"]}')
    ping = bytes((0x89, 0x80 | 100)) + bytes(104)
    await asyncio.get_running_loop().sock_sendall(sock, ping * 300)
    await eventually(lambda: client.session.close_code is CloseCode.TOO_MANY_ERRORS)
    flood = asyncio.get_running_loop().create_task(flood_with(sock, ping * 500))
    with sock:
        await eventually(lambda: not stage.server.clients)
        assert client.session.close_code is CloseCode.TOO_MANY_ERRORS
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)
    await eventually(lambda: not stage.subscribers._admission.connections)
    assert [record.message for record in caplog.records] == []


async def flood_with(sock: socket.socket, data: bytes) -> None:
    """Send this again and again, as fast as the other side takes it."""
    while True:
        await asyncio.get_running_loop().sock_sendall(sock, data)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("window_bytes", [8_000, 30_000])
async def test_with_any_receive_buffer_a_client_wakes_to_no_more_than_the_window(
    stage: Stage, window_bytes: int, direct: bool
) -> None:
    await stage.start(flush_interval_ms=1, max_unanswered_bytes=window_bytes)
    before = stage.server.clients
    sock = await raw_subscriber(stage, b'{"type":"subscribe","feeds":["SOL/USD"]}', receive_buffer_bytes=1 << 22)
    await eventually(lambda: stage.server.clients > before)
    (client,) = stage.clients
    await eventually(lambda: client.session.subscriptions)
    if not direct:
        client.hold()
    for number in range(1_000):  # of more than 300 bytes
        stage.tick("SOL/USD", 15_000_000_001 + number)
    assert client.session.dirty and not client.transport.get_write_buffer_size()
    assert window_bytes < client.unsent_bytes() + window_bytes < window_bytes + 5_000
    loop, last, received, pings = asyncio.get_running_loop(), b'"15000001000"', b"", 0
    while last not in received:
        received += await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), PATIENCE_S)
        asked = re.findall(rb"\x89\x08(.{8})", received, re.DOTALL)
        await loop.sock_sendall(sock, b"".join(bytes((0x8A, 0x88, 0, 0, 0, 0)) + offset for offset in asked[pings:]))
        pings = len(asked)
    assert received.index(b'"conflated":true') < window_bytes + 6_000
    stage.tick("SOL/USD", 16_000_000_000)
    assert (client.session.handle is not None, client.session.dirty) == (True, False)
    sock.close()


async def test_an_answer_that_was_not_asked_for_opens_no_window(stage: Stage) -> None:
    await stage.start(max_unanswered_bytes=8_000)
    _sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["SOL/USD"]}')
    for number in range(100):
        stage.tick("SOL/USD", 15_000_000_001 + number)
    unsent_bytes = client.unsent_bytes()
    assert unsent_bytes > 0
    for payload in (b"", b"\xff" * 8, bytes(8), b"\0\0\x10\0"):
        client.answered(payload)
    assert client.unsent_bytes() == unsent_bytes
    _sock.close()


@pytest.mark.parametrize("direct", [True, False])
async def test_frames_stay_whole_whether_the_kernel_or_the_transport_takes_them(stage: Stage, direct: bool) -> None:
    await stage.start(flush_interval_ms=1)
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["SOL/USD"],"detail":"full"}')
    assert client.session.handle is not None
    if not direct:
        client.descriptor = None
        client.hold()
    count = 0
    while not client.session.dirty:  # whole frames, then a part of one, then merged
        stage.tick("SOL/USD", 15_000_000_001 + count)
        count += 1
    received, loop, last = bytearray(), asyncio.get_running_loop(), str(15_000_000_000 + count).encode()
    while not (last in received and received.endswith(b"}]}")):
        received += await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), PATIENCE_S)
    frames, at = [], received.index(b"\r\n\r\n") + 4
    while at < len(received):
        assert received[at] == 0x81
        short = received[at + 1]
        start = at + 2 if short < 126 else at + 4
        at = start + (short if short < 126 else int.from_bytes(received[start - 2 : start], "big"))
        frames.append(msgspec.json.decode(received[start:at]))
    updates = [frame for frame in frames if frame["type"] == "update"]
    assert [update["prev_seq"] for update in updates[1:]] == [update["seq"] for update in updates[:-1]]
    assert updates[-1]["seq"] == stage.service.seq and updates[-1]["conflated"]
    sock.close()


async def test_nothing_overtakes_what_somebody_else_left_in_the_transport(stage: Stage) -> None:
    """aiohttp answers pings by itself: no frame of ours may come before the rest of such an answer, or within it."""
    await stage.start()
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["SOL/USD"]}')
    strange = b"\x82\x7f" + (1 << 23).to_bytes(8, "big") + bytes(1 << 23)
    client.transport.write(strange)  # more than the kernel holds
    assert client.session.handle is None and client.unsent_bytes() > 0
    stage.server.heartbeat()
    received, loop = bytearray(), asyncio.get_running_loop()
    while strange not in received:
        received += await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), PATIENCE_S)
    assert received.endswith(strange)  # whole, and the heartbeat was left out
    assert not client.unsent_bytes()
    stage.server.heartbeat()
    assert b'"type":"heartbeat"' in await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), PATIENCE_S)
    sock.close()


async def test_a_descriptor_is_forgotten_before_its_socket_is_closed(stage: Stage) -> None:
    await stage.start()
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["SOL/USD"]}')
    protocol, closed = client.transport.get_protocol(), []
    assert isinstance(protocol, RequestHandler)
    shut = client.transport.get_extra_info("socket")
    client.transport.abort()
    protocol.connection_lost(None)
    closed.append((client.session.handle, shut.fileno() >= 0))
    assert closed == [(None, True)]
    client.release()
    assert client.session.handle is None
    sock.close()


async def test_sockets_are_tuned(stage: Stage) -> None:
    await stage.start(not_sent_low_water_bytes=8_192)
    await stage.connect()
    client = stage.clients[0]
    sock = client.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 8_192


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        ({"max_clients": 1}, 503, "too_many_connections"),
        ({"max_clients_per_ip": 1}, 429, "too_many_from_address"),
    ],
)
async def test_connections_over_a_limit_are_refused_at_the_handshake(
    stage: Stage, limits: dict[str, int], status: int, code: str
) -> None:
    await stage.start(**limits)
    first = await stage.connect()
    got, body, response = await stage.get(
        "/v1/stream", Upgrade="websocket", Connection="Upgrade", **{"Sec-WebSocket-Version": "13"}
    )
    assert (got, body["error"]["code"], response.headers["Retry-After"]) == (status, code, "1")
    assert stage.server.refused == 1
    await first.ws.close()
    await eventually(lambda: not stage.server.clients)
    await stage.connect()


async def test_origin_and_subprotocol_are_checked_at_the_handshake(stage: Stage) -> None:
    await stage.start(allowed_origins=("https://app.example",))
    for origin in ("https://app.example", stage.base):
        await (await stage.connect(Origin=origin)).ws.close()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await stage.connect(Origin="https://evil.example")
    assert refused.value.status == 403
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await stage.http.ws_connect(f"{stage.base}/v1/stream", protocols=("other",))
    assert refused.value.status == 400
    async with stage.http.ws_connect(f"{stage.base}/v1/stream") as ws:  # naming none is fine
        assert (await ws.receive_json(timeout=PATIENCE_S))["type"] == "hello"


async def test_shutdown_says_goaway_and_closes_even_with_a_stuck_client(stage: Stage) -> None:
    await stage.start(close_grace_ms=500, slow_close_grace_ms=600_000)
    peer = await stage.subscriber("SOL/USD")
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["BTC/USD"],"mode":"all","detail":"full"}')
    while not client.transport.get_write_buffer_size():
        stage.tick("BTC/USD", 6_000_000_000_001 + stage.service.seq)

    async def farewell() -> None:
        assert await peer.read() == {"type": "goaway", "reason": "shutdown", "retry_after_ms": 1_000}
        with pytest.raises(aiohttp.ClientConnectorError):  # whoever comes back now finds nobody
            await stage.connect()
        assert await peer.closed() == CloseCode.SHUTDOWN

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(stage.server.stop("shutdown"), farewell())
    assert stage.server.clients == 0
    sock.close()


async def test_counters_count(stage: Stage) -> None:
    await stage.start()
    await stage.subscriber("*")
    frames, sent = stage.server.frames_sent, stage.server.bytes_sent
    stage.tick("SOL/USD", 15_010_000_000)
    assert stage.server.clients == 1
    assert stage.server.frames_sent == frames + 1 and 300 < stage.server.bytes_sent - sent < 500


async def test_an_independent_client_reads_frames_of_every_length(stage: Stage) -> None:
    await stage.start()
    url = stage.base.replace("http", "ws", 1) + "/v1/stream"
    async with websockets.connect(url, subprotocols=[websockets.Subprotocol("oraclehub.v1")], proxy=None) as peer:
        assert (await peer.recv()).startswith('{"type":"hello"')  # type: ignore[arg-type]
        for request in ('{"type":"ping","id":1}', '{"type":"ping","id":"' + "x" * 64 + '"}'):
            await peer.send(request)
            assert msgspec.json.decode(await peer.recv())["id"] == msgspec.json.decode(request)["id"]
        await peer.send('{"type":"subscribe","detail":"full","feeds":[' + '"no",' * 4_000 + '"*"]}')
        assert msgspec.json.decode(await peer.recv())["rejected"] == [{"feed": "no", "code": "unknown_feed"}]
        assert len(msgspec.json.decode(await peer.recv())["feeds"]) == 2
        await peer.ping()
        await stage.server.stop("shutdown")
        assert msgspec.json.decode(await peer.recv())["type"] == "goaway"
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await peer.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == CloseCode.SHUTDOWN


@pytest.mark.parametrize("direct", [True, False])
async def test_who_answers_is_asked_once_for_each_half_of_the_window_and_never_held(stage: Stage, direct: bool) -> None:
    """It is counted alike whether frames go to it with those of its row, or by themselves."""
    await stage.start(max_unanswered_bytes=8_000)
    sock, client = await stalled(stage, b'{"type":"subscribe","feeds":["SOL/USD"]}', 1 << 22)
    told, sent, asked_at, pings = stage.server.bytes_sent, 0, [], client.pings
    for number in range(100):
        if not direct:
            client.hold()
        stage.tick("SOL/USD", 15_000_000_001 + number)
        sent = stage.server.bytes_sent - told
        if client.pings > pings:
            asked_at.append(sent)
            pings = client.pings
            client.answered(client._asked.to_bytes(8, "big"))
    size = sent // 100
    gaps = [after - before for before, after in pairwise(asked_at)]
    assert len(gaps) >= 8 and all(4_000 <= gap < 4_000 + size + 20 for gap in gaps)
    assert (client.unsent_bytes(), client.session.dirty) == (0, False)
    sock.close()
