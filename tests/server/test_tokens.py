"""API tokens: the ways to show one, what each lets in, and that no way leaves it lying about."""

import asyncio
import base64
import logging
from typing import Any

import aiohttp
import msgspec
import pytest

from oracle_hub.server.tokens import Token, Tokens, token_digest
from oracle_hub.stream.messages import Auth, CloseCode
from oracle_hub.stream.session import SessionLimits
from tests.patience import PATIENCE_S
from tests.server.conftest import Peer, Stage
from tests.server.test_websocket_server import eventually

SECRET = "c0ffee-5ca1ab1e-token-of-desk-a"
WRONG = "c0ffee-5ca1ab1e-token-of-desk-z"
DESK_A = Token(name="desk-a", digest=token_digest(SECRET), max_connections=2, max_subscriptions=1)
DESK_B = Token(name="desk-b", digest=token_digest("another-token-entirely"), max_connections=1)
REQUIRED: dict[str, Any] = {"tokens": (DESK_A, DESK_B), "require_token": True}
OPTIONAL: dict[str, Any] = {"tokens": (DESK_A, DESK_B)}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def subprotocol(token: str) -> str:
    return "oraclehub.token." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


async def open_stream(stage: Stage, *protocols: str, **headers: str) -> Peer:
    """A websocket of which nothing was read yet."""
    return Peer(await stage.http.ws_connect(f"{stage.base}/v1/stream", protocols=protocols, headers=headers))


async def refused(stage: Stage, *protocols: str, **headers: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await open_stream(stage, *protocols, **headers)
    return error.value.status


@pytest.mark.parametrize("settings", [REQUIRED, OPTIONAL], ids=["required", "optional"])
async def test_a_token_in_the_header_or_as_a_subprotocol_lets_in(stage: Stage, settings: dict[str, Any]) -> None:
    await stage.start(**settings)
    for protocols, headers in (
        (("oraclehub.v1",), bearer(SECRET)),
        ((), {"Authorization": f"bearer  {SECRET}"}),
        (("oraclehub.v1", subprotocol(SECRET)), {}),
        ((subprotocol(SECRET), "oraclehub.v1"), {}),
    ):
        peer = await open_stream(stage, *protocols, **headers)
        hello = await peer.read()
        assert (hello["type"], hello["limits"]["max_subscriptions"]) == ("hello", 1)
        assert peer.ws.protocol == ("oraclehub.v1" if protocols else None)
        assert stage.server.bearers == {"desk-a": 1, "desk-b": 0}
        await peer.ws.close()
        await eventually(lambda: not stage.server.bearers["desk-a"])


@pytest.mark.parametrize("settings", [REQUIRED, OPTIONAL], ids=["required", "optional"])
async def test_a_wrong_token_is_refused_at_the_handshake(stage: Stage, settings: dict[str, Any]) -> None:
    await stage.start(**settings)
    for wrong in (WRONG, "", SECRET[:-1], SECRET + "a", SECRET.upper()):
        assert await refused(stage, "oraclehub.v1", **bearer(wrong)) == 401
        assert await refused(stage, "oraclehub.v1", subprotocol(wrong)) == 401
    assert await refused(stage, "oraclehub.v1", "oraclehub.token.!!") == 401
    assert await refused(stage, subprotocol(SECRET)) == 400  # no subprotocol of ours beside it
    assert stage.server.refusals == {"unauthorized": 11}
    assert stage.server.clients == 0


async def test_where_none_is_required_who_shows_none_is_served_as_everybody(stage: Stage) -> None:
    await stage.start(**OPTIONAL)
    peer = await stage.connect()
    assert peer.hello["limits"]["max_subscriptions"] == 64
    await peer.send(type="auth", token=SECRET, id=3)
    error = await peer.read()
    assert (error["type"], error["id"], error["code"]) == ("error", 3, "auth_not_expected")
    await peer.send(type="ping", id=4)
    assert (await peer.read())["id"] == 4


async def test_without_any_token_configured_the_header_is_nobodys_business(stage: Stage) -> None:
    await stage.start()
    assert (await (await open_stream(stage, **bearer(WRONG))).read())["type"] == "hello"
    assert (await stage.get("/v1/prices", **bearer(WRONG)))[0] == 200


async def test_the_first_message_can_show_it(stage: Stage) -> None:
    await stage.start(**REQUIRED, handshake_timeout_ms=60_000)
    peer = await open_stream(stage, "oraclehub.v1")
    assert await peer.read() == {"type": "auth_required", "timeout_ms": 60_000}
    assert stage.server.clients == 0
    stage.tick("SOL/USD", 15_010_000_000)  # nothing of it reaches who is not in
    await peer.send(type="auth", token=SECRET)
    hello = await peer.read()
    assert (hello["type"], hello["limits"]["max_subscriptions"], stage.server.bearers["desk-a"]) == ("hello", 1, 1)
    await peer.send(type="subscribe", feeds=["*"])
    assert [(await peer.read())["type"] for _ in range(2)] == ["subscribed", "snapshot"]
    await peer.send(type="subscribe", feeds=["*"])
    assert (await peer.read())["code"] == "too_many_subscriptions"


FIRST: list[str | bytes] = [
    f'{{"type":"auth","token":"{WRONG}"}}',
    '{"type":"auth"}',
    '{"type":"subscribe","feeds":["*"]}',
    "garbage",
    b"\x00\x01",
]


@pytest.mark.parametrize("first", FIRST, ids=range(len(FIRST)))
async def test_another_first_message_is_the_last(stage: Stage, first: str | bytes) -> None:
    await stage.start(**REQUIRED)
    peer = await open_stream(stage)
    await peer.read()
    await (peer.ws.send_str(first) if isinstance(first, str) else peer.ws.send_bytes(first))
    assert await peer.closed() == CloseCode.UNAUTHORIZED
    await eventually(lambda: stage.server.closes == {"4501": 1})
    assert stage.server.clients == stage.server.errors == 0


async def test_who_says_nothing_is_closed(stage: Stage) -> None:
    await stage.start(**REQUIRED, handshake_timeout_ms=500)
    peer = await open_stream(stage)
    assert (await peer.read())["timeout_ms"] == 500
    assert await peer.closed() == CloseCode.UNAUTHORIZED


async def test_pings_buy_no_time(stage: Stage) -> None:
    await stage.start(**REQUIRED, handshake_timeout_ms=500)
    peer = await open_stream(stage)
    await peer.read()

    async def ping() -> None:
        for _ in range(500):  # more are a flood
            if not peer.ws.closed:
                await peer.ws.ping()
            await asyncio.sleep(0)

    pinging = asyncio.create_task(ping())
    async with asyncio.timeout(PATIENCE_S):
        assert await peer.closed() == CloseCode.UNAUTHORIZED
    pinging.cancel()
    await asyncio.wait([pinging])


async def test_who_leaves_instead_was_not_refused(stage: Stage) -> None:
    await stage.start(**REQUIRED)
    peer = await open_stream(stage)
    await peer.read()
    await peer.ws.close()
    await eventually(lambda: stage.server.closes)
    assert stage.server.closes == {"peer": 1}


async def test_those_who_have_to_show_one_yet_are_bounded(stage: Stage) -> None:
    await stage.start(**REQUIRED, max_handshakes=1)
    waiting = await open_stream(stage)
    await waiting.read()
    assert await refused(stage) == 503
    assert stage.server.refusals == {"too_many_connections": 1}
    assert (await (await open_stream(stage, **bearer(SECRET))).read())["type"] == "hello"
    await waiting.ws.close()


async def test_a_token_has_a_limit_of_connections_whichever_way_it_is_shown(stage: Stage) -> None:
    await stage.start(**REQUIRED)
    first, second = await open_stream(stage, **bearer(SECRET)), await open_stream(stage)
    assert (await second.read())["type"] == "auth_required"
    await second.send(type="auth", token=SECRET)
    assert (await second.read())["type"] == (await first.read())["type"] == "hello"
    assert await refused(stage, **bearer(SECRET)) == 429
    third = await open_stream(stage)
    await third.read()
    await third.send(type="auth", token=SECRET)
    assert await third.closed() == CloseCode.TOO_MANY_FOR_TOKEN
    other = await open_stream(stage, **bearer("another-token-entirely"))
    assert (await other.read())["type"] == "hello"
    await first.ws.close()
    await eventually(lambda: stage.server.bearers["desk-a"] == 1)
    assert (await (await open_stream(stage, **bearer(SECRET))).read())["type"] == "hello"


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/prices", "/v1/prices/SOL-USD", "/v1/explain/SOL-USD", "/metrics", "/nowhere"),
        "/v1/signed/SOL-USD?source=pyth&publish_time_us=1&price=1",
    ],
)
async def test_views_ask_for_it_too(stage: Stage, path: str) -> None:
    await stage.start(**REQUIRED)
    for headers in ({}, bearer(WRONG), {"Authorization": "Basic YTpi"}):
        status, body, response = await stage.get(path, **headers)
        assert (status, body["error"]["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="oracle-hub"'
    assert (await stage.get(path, **bearer(SECRET)))[0] == (404 if path == "/nowhere" else 200)


async def test_health_is_open(stage: Stage) -> None:
    await stage.start(**REQUIRED)
    assert (await stage.get("/livez"))[0] == (await stage.get("/readyz"))[0] == 200


@pytest.mark.parametrize("path", ["/v1/prices", "/livez", "/v1/stream"])
async def test_a_token_in_the_query_is_refused_whatever_it_is_called(stage: Stage, path: str) -> None:
    await stage.start(**REQUIRED)
    for query in (
        f"token={WRONG}",
        "access_token=x",
        f"API_KEY={SECRET}",
        f"x={SECRET}",
        f"{SECRET}=1",
        "detail=full&auth=",
    ):
        status, body, _ = await stage.get(f"{path}?{query}", **bearer(SECRET))
        assert (status, body["error"]["code"]) == (400, "token_in_query")
        assert SECRET not in body["error"]["message"] and WRONG not in body["error"]["message"]
    assert (await stage.get("/v1/prices?detail=full", **bearer(SECRET)))[0] == 200


async def test_a_page_may_ask_whether_it_may_send_a_token(stage: Stage) -> None:
    await stage.start(**REQUIRED, allowed_origins=("https://app.example",))
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    async with stage.http.options(f"{stage.base}/v1/prices", headers=asks) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Headers"]) == (204, "Authorization")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    status, _, response = await stage.get("/v1/prices", Origin="https://app.example")
    assert (status, response.headers["Access-Control-Allow-Origin"]) == (401, "https://app.example")
    async with stage.http.options(f"{stage.base}/v1/prices", headers={"Origin": "https://evil.example"}) as answer:
        assert answer.status == 403


async def test_tokens_that_are_gone_end_their_connections_and_no_other(stage: Stage) -> None:
    await stage.start(**OPTIONAL)
    a, b = [await open_stream(stage, **bearer(token)) for token in (SECRET, "another-token-entirely")]
    nobody = await stage.connect()
    for peer in (a, b):
        await peer.read()
    stage.server.renew(msgspec.structs.replace(stage.settings, tokens=(DESK_B,)))
    assert await a.closed() == CloseCode.UNAUTHORIZED
    assert await refused(stage, **bearer(SECRET)) == 401
    await nobody.send(type="ping", id=1)
    assert (await nobody.read())["id"] == 1
    stage.server.renew(msgspec.structs.replace(stage.settings, tokens=(DESK_B,), require_token=True))
    assert await nobody.closed() == CloseCode.UNAUTHORIZED
    await b.send(type="ping", id=2)
    assert (await b.read())["id"] == 2
    replaced = msgspec.structs.replace(DESK_B, digest=token_digest("yet-another-token"))
    stage.server.renew(msgspec.structs.replace(stage.settings, tokens=(replaced,), require_token=True))
    assert await b.closed() == CloseCode.UNAUTHORIZED


async def test_nothing_that_is_logged_or_shown_holds_a_token(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await stage.start(**REQUIRED)
    peer = await open_stream(stage, "oraclehub.v1", subprotocol(SECRET))
    await peer.read()
    first = await open_stream(stage)
    await first.send(type="auth", token=SECRET)
    assert [(await first.read())["type"] for _ in range(2)] == ["auth_required", "hello"]
    await peer.send(type="auth", token=SECRET)
    assert SECRET not in str(await peer.read())
    await peer.send(type="auth", token=[SECRET])
    assert SECRET not in str(await peer.read())
    assert await refused(stage, "other", subprotocol(SECRET)) == 400
    await stage.get(f"/v1/prices?token={SECRET}")
    async with stage.http.get(f"{stage.base}/v1/prices", headers=bearer(SECRET), skip_auto_headers=("Host",)) as answer:
        assert answer.status in (200, 400)
    client = stage.clients[0]
    shown = (client.token, DESK_A, stage.settings, stage.server._tokens, Auth(token=SECRET), Tokens((DESK_A,)))
    for text in (*map(repr, shown), msgspec.json.encode(stage.settings).decode(), caplog.text):
        assert SECRET not in text and subprotocol(SECRET) not in text
    assert "desk-a" in repr(client.token)


def test_limits_of_a_token_replace_those_of_everybody() -> None:
    common = SessionLimits(max_subscriptions=5, request_burst=7)
    assert Token(name="a", digest=b"").session_limits(common) == common
    own = Token(name="a", digest=b"", requests_per_second=3, request_burst=9).session_limits(common)
    assert (own.max_subscriptions, own.requests_per_second, own.request_burst) == (5, 3, 9)
