"""What a configuration says of the server reaches it, key by key; and a reload renews what it may."""

import msgspec
import pytest

from oracle_hub.app.doors import server_settings
from oracle_hub.config import Config, config_hash, parse_config
from oracle_hub.config_sections import ServerSection
from oracle_hub.errors import ConfigError
from oracle_hub.server.service import ServerSettings
from oracle_hub.server.tokens import token_digest
from oracle_hub.stream.session import SessionLimits

BASE = """
[sources.doves]
kind = "doves.custody"
[sources.chainlink]
kind = "chainlink.store"
[sources.pyth]
kind = "pyth.hermes"
[roles]
primary = "doves"
verifiers = ["chainlink", "pyth"]
[feeds."SOL/USD"]
[server]
"""
SECRET = "5ca1ab1e-c0ffee-0f-desk-a"
TOKEN = '[[server.tokens]]\nname = "a"\ntoken = "env:HUB_TOKEN_A"\n'
NAMES = {"allowed_origins", "allowed_hosts", "host"}
BY_FEEDS = {"max_unsent_bytes"}
ELSEWHERE = {"tls_certificate", "tls_key", "require_token", "tokens", "workers", "max_metric_feeds"} | NAMES | BY_FEEDS
RENAMED = {"history_mib": ("history_bytes", 2**20)}


def config(server: str = "") -> Config:
    return parse_config(BASE + server, origin="hub.toml")


def test_defaults_are_those_of_the_server() -> None:
    assert server_settings(config()) == ServerSettings()


NUMBERS = [field.name for field in msgspec.structs.fields(ServerSection) if field.name not in ELSEWHERE]


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_reaches_the_server(key: str) -> None:
    default = getattr(ServerSection(), key)
    wanted = 100 if key == "heartbeat_ms" else default + 1
    given = server_settings(config(f"{key} = {wanted}\n"))
    name, factor = RENAMED.get(key, (key, 1))
    limits = {field.name for field in msgspec.structs.fields(SessionLimits)}
    assert getattr(given.session if name in limits else given, name) == wanted * factor
    assert given != ServerSettings()


@pytest.mark.parametrize(("n_feeds", "allowed"), [(1, 1 << 20), (256, 1 << 20), (257, 257 * 4_096), (2_000, 8_192_000)])
def test_what_may_be_unsent_grows_with_the_feeds_unless_it_is_configured(n_feeds: int, allowed: int) -> None:
    for text, expected in (("", allowed), ("max_unsent_bytes = 65536\n", 65_536)):
        one = config(text)
        feeds = {f"F{number}/USD": one.feeds["SOL/USD"] for number in range(n_feeds)}
        assert server_settings(msgspec.structs.replace(one, feeds=feeds)).session.max_unsent_bytes == expected


def test_a_token_is_read_from_the_environment_and_known_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN_A", SECRET)
    guarded = config("require_token = true\n" + TOKEN + "max_connections = 5\nrequest_burst = 9\n")
    given = server_settings(guarded)
    (token,) = given.tokens
    assert given.require_token and token.digest == token_digest(SECRET)
    assert (token.name, token.max_connections, token.request_burst, token.max_subscriptions) == ("a", 5, 9, None)
    held = config_hash(guarded)
    monkeypatch.setenv("HUB_TOKEN_A", SECRET + "2")
    assert config_hash(guarded) == held
    assert server_settings(guarded).tokens[0].digest == token_digest(SECRET + "2")
    assert SECRET not in repr(given) + repr(guarded)


@pytest.mark.parametrize(
    "value", ["", "tiny-7f3a", "fifteen-signs-x", "with a space in it", "tab\tin-it-0123456789", "schlüssel-schlüssel"]
)
def test_what_is_no_token_is_refused_by_its_variable_and_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN_A", value)
    with pytest.raises(ConfigError, match=r"^server.tokens.a.token: .*HUB_TOKEN_A") as refused:
        server_settings(config(TOKEN))
    assert not value or value not in str(refused.value)
