"""A hub that speaks TLS and asks for a token: from its configuration to those who ask, and what it leaves on disk."""

import contextlib
import signal
import ssl
from pathlib import Path

import aiohttp
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.system.conftest import Launch
from tests.system.process import Finished, command, hub_config, patiently

SECRET = "5ca1ab1e-c0ffee-0f-desk-a"
OTHER = "5ca1ab1e-c0ffee-0f-desk-b"
ENV = {"HUB_TOKEN_A": SECRET, "HUB_TOKEN_B": OTHER}
TOKEN_A = '[[server.tokens]]\nname = "a"\ntoken = "env:HUB_TOKEN_A"\n'
TOKEN_B = '[[server.tokens]]\nname = "b"\ntoken = "env:HUB_TOKEN_B"\nmax_subscriptions = 1\n'


def guarded(pems: Path, tokens: str = TOKEN_A + TOKEN_B, key: str = "a.key") -> str:
    section = f'require_token = true\ntls_certificate = "{pems}/a.pem"\ntls_key = "{pems}/{key}"\n'
    return hub_config(feeds=("SOL/USD",)).replace("[server]\n", f"[server]\n{section}") + tokens


def one_line(finished: Finished, *parts: str) -> None:
    assert finished.status == 1, finished.err
    (line,) = finished.err.splitlines()
    assert all(part in line for part in parts), line
    assert SECRET not in line


async def test_from_configuration_to_subscriber(launch: Launch, pems: Path) -> None:
    hub = await launch("--log-level", "debug", config=guarded(pems), env=ENV)
    assert hub.url.startswith("https://127.0.0.1:")
    trust = ssl.create_default_context(cafile=str(pems / "a.pem"))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as http:
        for path, token, status in (
            ("/v1/prices", None, 401),
            ("/v1/prices", "wrong", 401),
            ("/v1/prices", SECRET, 200),
            (f"/v1/prices?token={SECRET}", SECRET, 400),
            ("/livez", None, 200),
            ("/metrics", None, 401),
            ("/metrics", OTHER, 200),
        ):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            async with http.get(hub.url + path, headers=headers) as answer:
                assert answer.status == status, path
                text = await answer.text()
        assert 'oraclehub_refused_clients_total{reason="unauthorized"} 3.0' in text
        assert 'oraclehub_token_clients{token="b"} 0.0' in text and SECRET not in text
    url = hub.url.replace("https", "wss", 1) + "/v1/stream"
    bearers = [{"Authorization": f"Bearer {token}"} for token in (SECRET, OTHER)]
    async with (
        connect(url, ssl=trust, additional_headers=bearers[0], proxy=None) as a,
        connect(url, ssl=trust, additional_headers=bearers[1], proxy=None) as b,
    ):
        limits = [orjson.loads(await patiently(socket.recv(), "hello"))["limits"] for socket in (a, b)]
        assert [each["max_subscriptions"] for each in limits] == [64, 1]
        (hub.state.parent / "hub.toml").write_text(guarded(pems, TOKEN_B))
        hub.send_signal(signal.SIGHUP)
        with contextlib.suppress(ConnectionClosed):
            while True:
                await patiently(a.recv(), "the end of a token that is gone")
        assert a.close_code == 4501
        await b.send('{"type":"ping","id":7}')
        while orjson.loads(await patiently(b.recv(), "pong"))["type"] != "pong":
            pass
    assert await hub.end() == 0
    assert not any("changed, which is read at the next start" in line for line in hub.log)
    kept = b"".join(path.read_bytes() for path in hub.state.rglob("*") if path.is_file())
    assert b"env:HUB_TOKEN_A" in kept and SECRET.encode() not in kept and OTHER.encode() not in kept
    assert SECRET not in "\n".join(hub.log)


async def test_commands_that_ask_show_the_token_of_their_environment(launch: Launch, pems: Path) -> None:
    hub = await launch(config=guarded(pems), env=ENV)
    trusting = {"SSL_CERT_FILE": str(pems / "a.pem")}
    asking = (("explain", "SOL/USD", "--json"), ("tail", "SOL/USD", "--json", "--count", "1"))
    for arguments in asking:
        finished = await command(*arguments, "--url", hub.url, env={**trusting, "ORACLE_HUB_TOKEN": SECRET})
        assert finished.status == 0, finished.err
        assert b'"SOL/USD"' in finished.out
        for token in ("", "another-that-is-wrong"):
            finished = await command(*arguments, "--url", hub.url, env={**trusting, "ORACLE_HUB_TOKEN": token})
            one_line(finished, "the hub wants a token that it knows", "ORACLE_HUB_TOKEN")
    finished = await command("explain", "SOL/USD", "--url", hub.url, env={"ORACLE_HUB_TOKEN": f"{SECRET}\nX: y"})
    one_line(finished, "ORACLE_HUB_TOKEN: a token is letters")


async def test_what_it_cannot_start_with(tmp_path: Path, pems: Path) -> None:
    path = tmp_path / "hub.toml"
    for text, env, parts in (
        (guarded(pems), {}, ("server.tokens.a.token", "HUB_TOKEN_A is not set")),
        (guarded(pems), {**ENV, "HUB_TOKEN_A": "short"}, ("HUB_TOKEN_A holds is shorter than 16",)),
        (guarded(pems), {**ENV, "HUB_TOKEN_A": f"{SECRET} x"}, ("HUB_TOKEN_A holds must be",)),
        (guarded(pems), {**ENV, "HUB_TOKEN_B": SECRET}, ("server.tokens.b.token: the same as that of a",)),
        (guarded(pems, key="b.key"), ENV, ("server.tls_key", "is not the key of the certificate")),
        (guarded(pems, key="none.key"), ENV, ("server.tls_key", "none.key: no such file")),
    ):
        path.write_text(text)
        quiet = ("--port", "0", "--state", tmp_path / "state", "--log-level", "error")
        one_line(await command("run", "--config", path, *quiet, env=env), *parts)
        finished = await command("check", path, env=env)
        assert finished.status == 0 and all(part.encode() in finished.out.replace(b"\n", b" ") for part in parts)


async def test_a_port_that_is_none_is_refused_in_our_words(tmp_path: Path) -> None:
    finished = await command("run", "--port", "70000", "--state", tmp_path / "state")
    one_line(finished, "server.port: is 70000, and can be at most 65535")
    (tmp_path / "empty.toml").write_text("")
    one_line(await command("check", tmp_path / "empty.toml"), "empty.toml: is empty; begin with a file of deploy/")
