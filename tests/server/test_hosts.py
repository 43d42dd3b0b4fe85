"""Which names a server answers to: what protects a server on loopback from pages whose name leads to it."""

import aiohttp
import pytest

from oracle_hub.hosts import host_allowed, is_loopback, is_pattern
from tests.client.client_stage import HubStage


@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (None, True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("hub.localhost:1", True),
        ("10.1.2.3:8080", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evillocalhost", False),
        ("user@evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_on_loopback_only_names_that_nobody_else_can_have(bound: str, host: str | None, expected: bool) -> None:
    assert is_loopback(bound)
    assert host_allowed(host, bound, ()) is expected
    assert host_allowed(host, bound, ("*",))


def test_names_that_were_given() -> None:
    allowed = ("hub.example", "*.prices.example")
    for bound in ("127.0.0.1", "0.0.0.0"):
        for host in ("hub.example", "Hub.Example:80", "hub.example.", "a.prices.example", "a.b.prices.example:1"):
            assert host_allowed(host, bound, allowed), host
        for host in ("prices.example", "xprices.example", "other.example", "hub.example.evil"):
            assert not host_allowed(host, bound, allowed), host


@pytest.mark.parametrize("text", ["*", "*.example", "hub.example", "Hub-1.example", "hub", "10.1.2.3", "::1"])
def test_what_can_be_given(text: str) -> None:
    assert is_pattern(text)


@pytest.mark.parametrize(
    "text", ["", "*.", "*example", "a b", "hub:80", "http://hub", "[::1]", "hub/", "hub.", "u@hub"]
)
def test_what_no_host_could_match(text: str) -> None:
    assert not is_pattern(text)


def test_elsewhere_a_server_cannot_know_its_names() -> None:
    assert not is_loopback("0.0.0.0") and not is_loopback("hub")
    assert host_allowed("whatever.example", "0.0.0.0", ())
    assert host_allowed("hub", "hub", ("other",))


async def test_a_hub_on_loopback_refuses_a_name_that_leads_to_it() -> None:
    hub = await HubStage().start()
    url = hub.url.replace("ws", "http", 1).removesuffix("/v1/stream")
    evil = {"Host": "evil.example"}
    async with aiohttp.ClientSession() as http:
        for path in ("/v1/prices", "/livez", "/metrics"):
            async with http.get(url + path, headers=evil) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (421, "host_refused")
        async with http.get(url + "/v1/prices", headers={**evil, "Origin": "http://evil.example"}) as answer:
            assert answer.status == 421  # to the browser, page and server are one origin
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(hub.url, headers=evil)
        assert refused.value.status == 421
        async with http.get(url + "/v1/prices", headers={"Host": "localhost"}) as answer:
            assert answer.status == 200
    assert hub.server.refusals["host_refused"] == 5
    await hub.server.stop("the test is over")
    hub = await HubStage().start(allowed_hosts=("evil.example",))
    url = hub.url.replace("ws", "http", 1).removesuffix("/v1/stream")
    async with aiohttp.ClientSession() as http, http.get(url + "/v1/prices", headers=evil) as answer:
        assert answer.status == 200
    await hub.server.stop("the test is over")
