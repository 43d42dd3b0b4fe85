"""The drivers against small real servers on loopback: no sleeping, every wait is for an event with a time limit."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar

import msgspec
import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.utils import accept_key

from oracle_hub.core.source import Effect, Event, Fetch, Frame, Link, Open, Reconnect, Send
from oracle_hub.errors import SourceError
from oracle_hub.ingest.driver import DriverLimits
from oracle_hub.ingest.supervisor import Supervisor
from tests.patience import PATIENCE_S
from tests.ports import deaf_port

QUICK = DriverLimits(
    open_timeout_s=600.0,
    backoff_first_s=0.001,
    backoff_max_s=0.002,
    backoff_refused_s=0.002,
    ping_interval_s=600.0,
    ping_timeout_s=600.0,
    close_timeout_s=0.05,
)


def clock_us() -> int:
    return time.monotonic_ns() // 1_000


class Script:
    """A link that asks for what it is told to and keeps what it gets."""

    CONFIGURED: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, *effects: Effect, name: str = "link:1") -> None:
        self.name = name
        self.effects = effects
        self.replies: dict[bytes, list[Effect]] = {}
        self.deadline: int | None = None
        self.timer_effects: list[Effect] = []

    def connect(self, now_us: int) -> Sequence[Effect]:
        return self.effects

    def receive(self, frame: Frame, received_us: int) -> Sequence[Event | Effect]:
        return self.replies.get(frame.data, [])

    def next_deadline(self) -> int | None:
        return self.deadline

    def on_timer(self, now_us: int) -> Sequence[Event | Effect]:
        self.deadline = None
        return self.timer_effects


class Recorder:
    """A sink that calls the link and lets a test wait for what happened."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self._news = asyncio.Event()
        self.fail_on: bytes | None = None

    def _note(self, what: str, detail: object) -> None:
        self.calls.append((what, detail))
        self._news.set()

    def on_connect(self, link: Link, now_us: int) -> Sequence[Effect]:
        self._note("connect", link.name)
        return link.connect(now_us)

    def on_frame(self, link: Link, frame: Frame, received_us: int) -> Sequence[Effect]:
        self._note("frame", frame)
        if frame.data == self.fail_on:
            raise RuntimeError("journal is broken")
        return [item for item in link.receive(frame, received_us) if isinstance(item, Effect)]

    def on_timer(self, link: Link, now_us: int) -> Sequence[Effect]:
        self._note("timer", link.name)
        return [item for item in link.on_timer(now_us) if isinstance(item, Effect)]

    def on_disconnect(self, link: Link, now_us: int, reason: str) -> None:
        self._note("disconnect", reason)

    @property
    def frames(self) -> list[Frame]:
        return [detail for _, detail in self.calls if isinstance(detail, Frame)]

    def count(self, what: str) -> int:
        return sum(1 for name, _ in self.calls if name == what)

    def reasons(self) -> list[object]:
        return [detail for what, detail in self.calls if what == "disconnect"]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def running(sink: Recorder, *links: Link, limits: DriverLimits = QUICK) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(sink, clock=clock_us, rng=random.Random(1), limits=limits)
    for link in links:
        supervisor.add(link)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        supervisor.stop()
        async with asyncio.timeout(PATIENCE_S):
            await task


@asynccontextmanager
async def websocket_server(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"


@asynccontextmanager
async def http_server(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def half_open_server() -> AsyncIterator[int]:
    """Accepts TCP and never says anything."""
    done = asyncio.Event()

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        done.set()
        server.close()
        await server.wait_closed()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def test_effects_of_connect_are_carried_out_in_order() -> None:
    sink = Recorder()
    async with websocket_server(echo) as url:
        link = Script(Open("websocket", url), Send("one"), Send("two"))
        link.replies[b"two"] = [Send("three")]
        async with running(sink, link) as supervisor:
            await sink.until(lambda: len(sink.frames) == 3)
            assert sink.frames == [Frame("websocket", b"one"), Frame("websocket", b"two"), Frame("websocket", b"three")]
            health = supervisor.health()["link:1"]
            assert (health.state, health.frames, health.bytes, health.reconnects) == ("open", 3, 11, 0)
        assert health.state == "stopped"


async def test_what_a_link_asks_for_as_it_connects_may_be_any_number_and_the_rest_is_bounded() -> None:
    sink = Recorder()
    async with websocket_server(echo) as url:
        link = Script(Open("websocket", url), *(Send(f"{number}") for number in range(9)))
        async with running(sink, link, limits=msgspec.structs.replace(QUICK, max_queued_sends=2)):
            await sink.until(lambda: len(sink.frames) == 9)
    assert [frame.data for frame in sink.frames] == [b"%d" % number for number in range(9)]
    sink = Recorder()
    async with websocket_server(echo) as url:
        link = Script(Open("websocket", url), Send("0"))
        link.replies[b"0"] = [Send("more")] * 4
        async with running(sink, link, limits=msgspec.structs.replace(QUICK, max_queued_sends=2)):
            await sink.until(lambda: bool(sink.reasons()))
    assert sink.reasons()[0] == "the peer does not take what we send: 3 messages wait"


async def test_others_get_their_turn_while_thousands_of_messages_are_sent() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.recv()  # in the loop of the driver: it can look only when that turns
        await connection.send(f"{supervisor.waiting()['link:1'].sends}")

    sink, sends = Recorder(), [Send("one of many")] * 4_000
    async with websocket_server(handler) as url, running(sink, Script(Open("websocket", url), *sends)) as supervisor:
        await sink.until(lambda: len(sink.frames) >= 1)
    assert 0 < int(sink.frames[0].data) < 4_000


async def test_a_closing_server_is_connected_to_again() -> None:
    sink = Recorder()
    served = itertools.count()

    async def handler(connection: ServerConnection) -> None:
        if next(served) == 0:
            await connection.close(1011)
        else:
            await connection.send("back")
            await connection.wait_closed()

    async with websocket_server(handler) as url, running(sink, Script(Open("websocket", url))) as supervisor:
        await sink.until(lambda: len(sink.frames) == 1)
        assert sink.reasons() == ["websocket closed by the server, code 1011"]
        assert supervisor.health()["link:1"].reconnects == 1
        assert supervisor.health()["link:1"].last_error == "websocket closed by the server, code 1011"


async def test_a_half_open_websocket_times_out() -> None:
    sink = Recorder()
    limits = msgspec.structs.replace(QUICK, open_timeout_s=0.2)
    async with half_open_server() as port:
        link = Script(Open("websocket", f"ws://127.0.0.1:{port}/key-123"))
        async with running(sink, link, limits=limits):
            await sink.until(lambda: sink.count("connect") == 2)
    assert sink.reasons()[0] == "timed out"


async def test_a_websocket_that_answers_no_ping_is_given_up() -> None:
    done = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in request.decode().split("\r\n") if line.startswith("Sec-WebSocket-Key: "))[19:]
        upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.write(f"{upgrade}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())
        await done.wait()
        writer.close()

    sink = Recorder()
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    limits = msgspec.structs.replace(QUICK, ping_interval_s=0.05, ping_timeout_s=0.05)
    async with running(sink, Script(Open("websocket", url)), limits=limits):
        await sink.until(lambda: sink.count("connect") == 2)
        done.set()
    server.close()
    await server.wait_closed()
    assert sink.reasons()[0] == "no answer to pings on the websocket"


async def test_no_redirect_is_followed() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    sink = Recorder()
    async with http_server(handler) as url:
        link = Script(Open("websocket", url.replace("http", "ws")), Fetch("f", url))
        async with running(sink, link):
            await sink.until(lambda: len(sink.frames) >= 2)
    assert {(frame.channel, frame.status) for frame in sink.frames} == {("websocket", 302), ("http", 302)}


async def test_a_half_open_http_answer_is_a_frame_in_words() -> None:
    sink = Recorder()
    async with half_open_server() as port:
        link = Script(Fetch("state:1", f"http://127.0.0.1:{port}/key-123", timeout_ms=50))
        async with running(sink, link) as supervisor:
            await sink.until(lambda: len(sink.frames) == 1)
            assert supervisor.health()["link:1"].failed_fetches == 1
    assert sink.frames == [Frame("http", b"no answer within 50 ms", "state:1", 0, 0)]


async def test_a_refused_connection_names_no_url() -> None:
    sink = Recorder()
    with deaf_port() as port:
        async with running(sink, Script(Fetch("x", f"http://127.0.0.1:{port}/key-123"), name="dead")):
            await sink.until(lambda: len(sink.frames) == 1)
    assert sink.frames[0].status == 0 and sink.frames[0].data.startswith(b"connection failed: ")
    assert b"key-123" not in sink.frames[0].data


KEY = "key-of-ours-123"


@pytest.mark.parametrize(
    "place",
    [
        {"headers": {"Authorization": f"Bearer {KEY}"}},
        {"headers": {"authorization": KEY}},
        {"query": f"/v2?ids[]=feed-number-one&api-key={KEY}"},
        {"query": "/v2?access_token=key%2Dof%2Dours%2D123"},
    ],
)
async def test_a_key_that_the_peer_quotes_is_in_no_frame(place: dict[str, Any]) -> None:
    said = f"no access for {KEY} to feed-number-one".encode()

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=403, body=said)

    sink, query, headers = Recorder(), place.get("query", "/"), place.get("headers", {})
    async with http_server(handler) as url:
        stream = Open("sse", url + query, headers)
        async with running(sink, Script(Fetch("a:1", url + query, headers=headers)), Script(stream, name="link:2")):
            await sink.until(lambda: len(sink.frames) >= 2)
    told = {frame.channel: frame.data for frame in sink.frames}
    assert told == dict.fromkeys(("http", "sse"), "no access for … to feed-number-one".encode())


async def test_a_key_that_a_stream_quotes_is_in_no_frame() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(f'{{"error": "token {KEY} is not entitled"}}')
        await connection.send("a price")
        await connection.wait_closed()

    sink, path = Recorder(), "v2/0123456789abcdef0123456789abcdef"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with websocket_server(handler) as url, running(sink, Script(Open("websocket", url + path, headers))):
        await sink.until(lambda: len(sink.frames) == 2)
    assert [frame.data for frame in sink.frames] == ['{"error": "token … is not entitled"}'.encode(), b"a price"]


async def test_a_key_in_the_path_of_a_node_is_in_no_frame() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=404, text=f"Cannot POST {request.path}")

    sink, path = Recorder(), "/v2/0123456789abcdef0123456789abcdef"
    async with http_server(handler) as url, running(sink, Script(Fetch("a:1", url + path, "POST"))):
        await sink.until(lambda: len(sink.frames) == 1)
    assert sink.frames[0].data == "Cannot POST /v2/…".encode()


async def test_status_and_retry_after_come_with_the_answer() -> None:
    async def handler(request: web.Request) -> web.Response:
        body = await request.read()
        assert (request.method, request.headers["x-token"], body) == ("POST", "k", b"{}")
        return web.Response(status=429, text="slow", headers={"Retry-After": "7"})

    sink = Recorder()
    async with http_server(handler) as url, running(sink, Script(Fetch("a:1", url, "POST", {"x-token": "k"}, b"{}"))):
        await sink.until(lambda: len(sink.frames) == 1)
    assert sink.frames == [Frame("http", b"slow", "a:1", 429, 7_000)]


async def test_a_refused_handshake_is_told_to_the_link() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=403, text="not entitled", headers={"Retry-After": "0.01"})

    sink = Recorder()
    async with http_server(handler) as url, running(sink, Script(Open("websocket", url.replace("http", "ws")))):
        await sink.until(lambda: sink.count("connect") == 2)
    assert sink.frames[0] == Frame("websocket", b"not entitled", status=403, retry_after_ms=10)
    assert sink.reasons()[0] == "HTTP 403"


async def test_events_and_comments_of_a_stream_arrive_then_its_end() -> None:
    long = b"x" * 300_000

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept"] == "text/event-stream"
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": hello\n\ndata: " + long + b"\n\nevent: error\r\ndata: over\r\n\r\n")
        return response

    sink = Recorder()
    async with http_server(handler) as url, running(sink, Script(Open("sse", url))):
        await sink.until(lambda: sink.count("disconnect") == 1)
    assert sink.frames[:3] == [Frame("sse", b""), Frame("sse", long), Frame("sse", b"over", event="error")]
    assert sink.reasons()[0] == "server ended the stream"


async def test_a_refused_stream_is_told_and_the_links_wish_to_wait_counts() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=401, text="unauthorized")

    sink = Recorder()
    async with http_server(handler) as url:
        link = Script(Open("sse", url))
        link.replies[b"unauthorized"] = [Reconnect("key refused", 60_000)]
        async with running(sink, link) as supervisor:
            await sink.until(lambda: sink.count("disconnect") == 1)
            assert supervisor.health()["link:1"].state == "waiting"
    assert sink.frames == [Frame("sse", b"unauthorized", status=401)]
    assert sink.count("connect") == 1


async def test_a_link_that_asks_for_less_than_was_refused_does_not_wait_for_it() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=403, text="not entitled to one of them")

    sink = Recorder()
    patient = DriverLimits(backoff_first_s=0.001, backoff_max_s=3_600.0, backoff_refused_s=3_600.0)
    async with http_server(handler) as url:
        link = Script(Open("sse", url))
        link.replies[b"not entitled to one of them"] = [Reconnect("without it", amended=True)]
        async with running(sink, link, limits=patient):
            await sink.until(lambda: sink.count("connect") == 30)  # doubled, the waits would come to many hours


async def test_a_page_instead_of_a_stream_is_named() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    sink = Recorder()
    async with http_server(handler) as url, running(sink, Script(Open("sse", url))):
        await sink.until(lambda: sink.count("disconnect") == 1)
    assert sink.reasons()[0] == "answered with 'text/html' instead of an event stream"


async def test_the_links_deadline_calls_its_timer_and_its_effects_are_carried_out() -> None:
    sink = Recorder()
    async with websocket_server(echo) as url:
        link = Script(Open("websocket", url))
        link.deadline = clock_us() + 1_000
        link.timer_effects = [Send("tick")]
        async with running(sink, link):
            await sink.until(lambda: len(sink.frames) == 1)
    assert [call for call in sink.calls if call[0] in ("timer", "frame")] == [
        ("timer", "link:1"),
        ("frame", Frame("websocket", b"tick")),
    ]


async def test_a_links_reconnect_starts_over() -> None:
    sink = Recorder()
    async with websocket_server(echo) as url:
        link = Script(Open("websocket", url), Send("one"))
        link.replies[b"one"] = [Reconnect("enough")]
        async with running(sink, link):
            await sink.until(lambda: sink.count("connect") == 3)
    assert sink.reasons()[:2] == ["enough", "enough"]


async def test_all_sessions_can_be_started_over() -> None:
    sink = Recorder()
    async with websocket_server(echo) as url:
        limits = DriverLimits(backoff_first_s=60.0, backoff_max_s=60.0, close_timeout_s=0.05)
        links = [Script(Open("websocket", url), Send(name), name=name) for name in ("a", "b")]
        async with running(sink, *links, limits=limits) as supervisor:
            await sink.until(lambda: len(sink.frames) == 2)
            supervisor.restart("clock set anew")
            await sink.until(lambda: len(sink.frames) == 4)
            assert [health.last_error for health in supervisor.health().values()] == ["", ""]
    assert sink.reasons() == ["clock set anew", "clock set anew"]


async def test_renewal_is_planned_and_no_error() -> None:
    sink = Recorder()
    async with websocket_server(echo) as url:
        limits = DriverLimits(renew_after_s=0.02, backoff_first_s=60.0, backoff_max_s=60.0, close_timeout_s=0.05)
        async with running(sink, Script(Open("websocket", url)), limits=limits) as supervisor:
            await sink.until(lambda: sink.count("connect") == 2)
            assert supervisor.health()["link:1"].last_error == ""
    assert sink.reasons()[0] == "planned renewal"


class Drawn(random.Random):
    """Draws what it is told to, in turn, and notes the bounds."""

    def __init__(self, *shares: float) -> None:
        super().__init__(1)
        self.shares = list(shares)
        self.bounds: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.bounds.append((a, b))
        return self.shares.pop(0) if self.shares else super().uniform(a, b)


async def test_each_link_renews_at_a_moment_of_its_own() -> None:
    sink, rng = Recorder(), Drawn(0.0001, 1.0)
    async with websocket_server(echo) as url:
        limits = DriverLimits(renew_after_s=200.0, close_timeout_s=0.05)
        supervisor = Supervisor(sink, clock=clock_us, rng=rng, limits=limits)
        for name in ("early", "late"):
            supervisor.add(Script(Open("websocket", url), name=name))
        task = asyncio.create_task(supervisor.run())
        await sink.until(lambda: sink.count("connect") == 4)
        supervisor.stop()
        async with asyncio.timeout(PATIENCE_S):
            await task
    assert rng.bounds == [(0.9, 1.0)] * 2
    assert [name for what, name in sink.calls if what == "connect"] == ["early", "late", "early", "early"]
    assert set(sink.reasons()) == {"planned renewal"}


async def test_requests_are_bounded_and_every_one_is_answered() -> None:
    at_once = 0
    most = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return web.Response(text="ok")

    sink = Recorder()
    limits = DriverLimits(max_fetches=2, max_waiting_fetches=5)
    async with http_server(handler) as url:
        link = Script(*(Fetch(f"f:{number}", url) for number in range(8)))
        async with running(sink, link, limits=limits):
            await sink.until(lambda: len(sink.frames) == 8)
    assert most <= 2
    refused = {frame.fetch_id for frame in sink.frames if frame.data == b"too many requests are waiting"}
    assert refused == {"f:5", "f:6", "f:7"}


async def test_an_answer_beyond_its_bound_is_a_failure() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 5_000)

    sink = Recorder()
    limits = DriverLimits(max_frame_bytes=1_000)
    async with http_server(handler) as url, running(sink, Script(Fetch("f", url)), limits=limits):
        await sink.until(lambda: len(sink.frames) == 1)
    assert sink.frames == [Frame("http", b"answer longer than 1000 bytes", "f")]


async def test_links_come_and_go_while_others_run() -> None:
    sink = Recorder()
    async with websocket_server(echo) as url, running(sink, Script(Open("websocket", url), name="a")) as supervisor:
        supervisor.add(Script(Open("websocket", url), Send("hi"), name="b"))
        await sink.until(lambda: len(sink.frames) == 1)
        with pytest.raises(SourceError, match="link b: the name is taken"):
            supervisor.add(Script(name="b"))
        await supervisor.remove("b")
        assert list(supervisor.health()) == ["a"]
        supervisor.carry_out("b", [Send("nobody")])
        await sink.until(lambda: supervisor.health()["a"].state in ("open", "connecting"))
        supervisor.carry_out("a", [Send("from outside")])
        await sink.until(lambda: len(sink.frames) == 2)
    assert sink.frames[1] == Frame("websocket", b"from outside")


async def test_a_deadline_that_came_nearer_from_outside_is_kept_though_there_is_nothing_to_send() -> None:
    sink = Recorder()
    link = Script()
    async with running(sink, link) as supervisor:
        await sink.until(lambda: sink.count("connect") == 1)
        link.deadline = clock_us() + 3_600_000_000
        supervisor.carry_out("link:1", [])
        link.deadline = clock_us()
        supervisor.carry_out("link:1", [])
        await sink.until(lambda: sink.count("timer") == 1)


@pytest.mark.parametrize("channel", ["websocket", "http"])
async def test_a_failure_of_the_sink_ends_the_run(channel: str) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="bad")

    sink = Recorder()
    sink.fail_on = b"bad"
    async with websocket_server(echo) as ws_url, http_server(handler) as http_url:
        effects: list[Effect] = [Open("websocket", ws_url)]
        effects.append(Send("bad") if channel == "websocket" else Fetch("f", http_url))
        supervisor = Supervisor(sink, clock=clock_us, rng=random.Random(1), limits=QUICK)
        supervisor.add(Script(*effects))
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(PATIENCE_S):
                await supervisor.run()
        assert caught.group_contains(RuntimeError, match="journal is broken")


async def test_stop_is_quick_with_a_peer_that_does_not_close() -> None:
    stuck = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.send("x")
        with suppress(asyncio.CancelledError):
            await stuck.wait()

    sink = Recorder()
    async with websocket_server(handler) as url:
        async with running(sink, Script(Open("websocket", url))) as supervisor:
            await sink.until(lambda: len(sink.frames) == 1)
            began_us = clock_us()
            supervisor.stop()
        assert clock_us() - began_us < 8_000_000  # websockets alone would wait for 10 s
        stuck.set()


async def test_a_request_that_the_client_refuses_is_a_failure_of_its_link_only() -> None:
    sink = Recorder()
    refused = Script(Open("sse", "http://user:key-123@127.0.0.1:9/", {"Authorization": "Bearer key-123"}))
    async with running(sink, refused) as supervisor:
        await sink.until(lambda: sink.count("disconnect") >= 2)
        assert supervisor.health()["link:1"].last_error == "the URL and headers cannot be used together"
    assert set(sink.reasons()) == {"the URL and headers cannot be used together"}
