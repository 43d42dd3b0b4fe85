"""The client before a hub's door: its token, encryption, and the size of its socket's buffer."""

import asyncio
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from oracle_hub.client import connect, open_prices
from oracle_hub.client.dialing import connected_socket
from oracle_hub.errors import StreamError
from oracle_hub.server.service import ServerSettings
from oracle_hub.server.tokens import Token, token_digest
from tests.client.client_stage import HubStage, turns_until
from tests.ports import deaf_port

SECRET = "c0ffee-5ca1ab1e-token-of-desk-a"
GUARDED: dict[str, Any] = {
    "require_token": True,
    "tokens": (Token(name="desk-a", digest=token_digest(SECRET)),),
}


@pytest.fixture
async def guarded() -> AsyncIterator[HubStage]:
    stage = await HubStage().start(**GUARDED)
    yield stage
    await stage.server.stop("the test is over")


async def test_a_token_opens_and_reopens(guarded: HubStage) -> None:
    async with guarded.client(["SOL/USD"], token=SECRET) as prices:
        assert prices.get("SOL/USD").mantissa == 15_000_000_000
        assert guarded.server.bearers == {"desk-a": 1}
        subscribers = guarded.server._subscribers
        assert subscribers is not None
        client = next(iter(subscribers._clients))
        client.transport.abort()
        await turns_until(lambda: prices.stats.reconnects == 1 and prices.stats.connected)


async def test_a_wrong_token_or_none_is_told_at_once_and_not_tried_again(guarded: HubStage) -> None:
    for options, message in (
        ({"token": "c0ffee-wrong"}, r"^the hub does not know this token \(HTTP 401\)$"),
        ({}, r"^the hub wants a token: pass token=…$"),
    ):
        with pytest.raises(StreamError, match=message) as refused:
            async with guarded.client(["SOL/USD"], **options):
                pass
        assert refused.value.code == "unauthorized"
    subscribers = guarded.server._subscribers
    assert subscribers is not None
    await turns_until(lambda: not subscribers._admission.connections)
    assert guarded.server.refusals == {"unauthorized": 1}


async def test_a_token_that_is_taken_back_ends_the_client(guarded: HubStage) -> None:
    async with guarded.client(["SOL/USD"], token=SECRET) as prices:
        await anext(prices)
        guarded.server.renew(ServerSettings(require_token=True))
        with pytest.raises(StreamError, match="the hub does not know this token any more"):
            async for _ in prices:
                pass


async def test_the_blocking_client_takes_it_too(guarded: HubStage) -> None:
    def ask() -> int:
        with open_prices(guarded.url, ["SOL/USD"], token=SECRET) as prices:
            return prices.get("SOL/USD").mantissa

    def ask_wrongly() -> str:
        with pytest.raises(StreamError) as refused, open_prices(guarded.url, ["SOL/USD"], token="wrong"):
            pass
        return refused.value.code

    assert await asyncio.to_thread(ask) == 15_000_000_000
    assert await asyncio.to_thread(ask_wrongly) == "unauthorized"


@pytest.mark.parametrize("token", ["", "two words", "line\nX-Other: 1", "schlüssel"])
def test_what_can_stand_in_no_header_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ValueError, match=r"^token is letters, digits and signs of ASCII, without spaces$"):
        connect("ws://127.0.0.1:1/v1/stream", ["SOL/USD"], token=token)


async def test_no_log_error_or_repr_holds_it(guarded: HubStage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with guarded.client(["SOL/USD"], token=SECRET) as prices:
        assert SECRET not in repr(prices) + repr(prices.stats)
    shown = caplog.text
    with pytest.raises(StreamError) as refused:
        async with guarded.client(["SOL/USD"], token=SECRET + "x"):
            pass
    shown += caplog.text + "".join(traceback.format_exception(refused.value)) + repr(refused.value)
    assert SECRET not in shown


async def test_it_is_not_taken_along_to_where_a_hub_sends_us() -> None:
    async def elsewhere(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(HTTPStatus.FOUND, "")
        response.headers["Location"] = "ws://127.0.0.1:9/v1/stream"
        return response

    async def nobody(_: ServerConnection) -> None:
        raise AssertionError("nobody comes in")

    async with serve(nobody, "127.0.0.1", 0, process_request=elsewhere) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", ["SOL/USD"], token=SECRET, wait=False) as prices:
            await turns_until(lambda: prices.stats.last_error is not None)
            assert "cannot follow redirect" in str(prices.stats.last_error)


async def test_an_encrypted_hub_needs_a_certificate_that_is_trusted(pems: Path) -> None:
    hub = await HubStage().start(tls_certificate=str(pems / "a.pem"), tls_key=str(pems / "a.key"), **GUARDED)
    hub.url = hub.url.replace("ws", "wss", 1)
    trust = ssl.create_default_context(cafile=str(pems / "a.pem"))
    async with hub.client(["SOL/USD"], token=SECRET, ssl_context=trust) as prices:
        assert prices.get("SOL/USD").mantissa == 15_000_000_000
        await anext(prices)
        hub.tick("SOL/USD", 15_010_000_000)
        update = await anext(prices)
        assert update.price is not None and update.price.mantissa == 15_010_000_000
    other = ssl.create_default_context(cafile=str(pems / "b.pem"))
    async with hub.client(["SOL/USD"], token=SECRET, ssl_context=other, wait=False) as prices:
        await turns_until(lambda: prices.stats.last_error is not None)
        assert "CERTIFICATE_VERIFY_FAILED" in str(prices.stats.last_error)
    await hub.server.stop("the test is over")


@pytest.mark.parametrize(("asked", "given"), [(32_768, 65_536), (8_192, 16_384)])
async def test_the_buffer_is_small_from_the_first_packet_on(asked: int, given: int) -> None:
    hub = await HubStage().start()
    async with hub.client(["SOL/USD"], receive_buffer_bytes=asked) as prices:
        assert prices._socket is not None
        sock = prices._socket.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == given  # Linux gives twice what is asked
    async with hub.client(["SOL/USD"], receive_buffer_bytes=None) as prices:
        assert prices._socket is not None
        sock = prices._socket.transport.get_extra_info("socket")
        with socket.socket() as plain:
            system = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= system > given
    await hub.server.stop("the test is over")


async def test_every_address_of_a_host_is_tried_and_a_proxy_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        loop = asyncio.get_running_loop()
        there = (socket.AF_INET, socket.SOCK_STREAM, 6, "")

        async def addresses(*_: object, **__: object) -> list[Any]:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)), (*there, ("127.0.0.1", port))]

        monkeypatch.setattr(loop, "getaddrinfo", addresses)
        found = await connected_socket(f"ws://hub.test:{port}/", 8_192)
        assert found is not None and found.getpeername() == ("127.0.0.1", port)
        found.close()
        assert await connected_socket(f"ws://hub.test:{port}/", None) is None
        monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert await connected_socket(f"ws://hub.test:{port}/", 8_192) is None
    monkeypatch.undo()
    with deaf_port() as port, pytest.raises(OSError, match="Connect call failed"):
        await connected_socket(f"ws://127.0.0.1:{port}/", 8_192)
