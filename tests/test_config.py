"""Configuration: what is accepted, what is refused and with which words, and that the documentation knows every key."""

import copy
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.config import (
    KINDS,
    Config,
    canonical_text,
    config_hash,
    convert,
    documented_keys,
    load_config,
    parse_canonical,
    parse_config,
)
from oracle_hub.config_secrets import resolve_secret, resolve_url
from oracle_hub.core.selector import Policy
from oracle_hub.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
GOOD = """
[sources.doves]
kind = "doves.custody"
[sources.chainlink]
kind = "chainlink.store"
[sources.pyth]
kind = "pyth.hermes"
hosts = ["https://hermes.example"]
api_key = "env:PYTH_API_KEY"
[roles]
primary = "doves"
verifiers = ["chainlink", "pyth"]
[feeds."SOL/USD"]
max_divergence_bps = 25
[feeds."BTC/USD"]
policy = "quorum"
"""

RPC = """
[[solana.rpc]]
name = "a"
http_url = "https://rpc.example"
ws_url = "wss://rpc.example"
"""

TOKEN = """
[[server.tokens]]
name = "a"
token = "env:HUB_TOKEN_A"
"""


def parse(text: str) -> Config:
    return parse_config(text, origin="hub.toml")


def test_defaults() -> None:
    config = parse(GOOD)
    assert config.hub.policy is Policy.STRICT
    assert config.hub.max_divergence_bps == 50
    assert config.server.host == "127.0.0.1"
    assert config.sources["doves"].age_ms == 10_000
    assert config.sources["chainlink"].age_ms == 3_660_000
    assert config.feeds["SOL/USD"].max_divergence_bps == 25
    assert config.feeds["BTC/USD"].policy is Policy.QUORUM


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[roles]", "[hub]\npolcy = 1\n[roles]"), "hub.toml: hub: unknown key polcy; did you mean policy?"),
        (("[roles]", "[hubb]\n[roles]"), "hub.toml: unknown key hubb; did you mean hub?"),
        (
            ("max_divergence_bps = 25", "max_diverg = 2"),
            "feeds.SOL/USD: unknown key max_diverg; did you mean max_divergence_bps?",
        ),
        (
            ("max_divergence_bps = 25", "max_divergence_bps = 10001"),
            "feeds.SOL/USD.max_divergence_bps: is 10001, and can be at most 10000",
        ),
        (('"quorum"', '"majority"'), "feeds.BTC/USD.policy: majority is none of strict, quorum"),
        (
            ('policy = "quorum"', "max_age_ms = {doves = 4000, pyth = 0}"),
            "feeds.BTC/USD.max_age_ms.pyth: is 0, and must be",
        ),
        (('"doves.custody"', "7"), "sources.doves.kind: must be text, not an integer"),
        (('kind = "chainlink.store"', ""), "sources.chainlink: kind is missing"),
        (("[roles]", "[server]\nport = 70000\n[roles]"), "hub.toml: server.port: is 70000, and can be at most 65535"),
        (("[roles]", '[journal]\nmode = "on"\n[roles]'), "journal.mode: on is none of best_effort, off, required"),
        (("[roles]", RPC.replace('"a"', '"A B"') + "[roles]"), "solana.rpc.0.name: must match ^[a-z0-9_-]{1,32}$"),
        (("[roles]", "[emulator]\nspeed = 0\n[roles]"), "emulator.speed: is 0, and must be more than 0"),
        (("[roles]", TOKEN.replace("env:HUB_TOKEN_A", "0123-secret") + "[roles]"), 'tokens.a.token: write "env:NAME"'),
        (
            ("[roles]", '[server]\nallowed_hosts = ["https://hub.example"]\n[roles]'),
            "hub.toml: server.allowed_hosts: 'https://hub.example' is no name; write hub.example, *.example or *",
        ),
        (("[roles]", '[charts]\nallowed_hosts = ["a.example", "b:80"]\n[roles]'), "charts.allowed_hosts: 'b:80' is no"),
        (("[roles]", TOKEN + TOKEN + "[roles]"), "server.tokens: two have the name a"),
        (("[roles]", TOKEN + "max_conns = 5\n[roles]"), "unknown key max_conns; did you mean max_connections?"),
        (("[roles]", "[server]\nrequire_token = true\n[roles]"), "server.require_token: nobody could come in"),
        (
            ("[roles]", '[server]\ntls_key = "k.pem"\n[roles]'),
            "server.tls_certificate: certificate and key go together",
        ),
        (
            ("doves.custody", "doves.custard"),
            "sources.doves.kind: unknown kind doves.custard; did you mean doves.custody?",
        ),
        (('["chainlink", "pyth"]', '["chainlink"]'), "the rule takes exactly two verifiers, not 1"),
        (('["chainlink", "pyth"]', '["chainlink", "pith"]'), "no [sources.pith]; did you mean pyth?"),
        (
            ('primary = "doves"\nverifiers = ["chainlink"', 'primary = "chainlink"\nverifiers = ["doves"'),
            "chainlink is a slow push account (chainlink.store): verifier only",
        ),
        (('"env:PYTH_API_KEY"', '"0123-secret"'), 'sources.pyth.api_key: write "env:NAME"'),
        (('primary = "doves"', ""), "feeds.SOL/USD.primary: no primary here nor in [roles]"),
        (("[roles]", "[roles"), "hub.toml: not TOML: "),
        (
            ("[roles]", "deep = " + "[" * 5_000 + "]" * 5_000 + "\n[roles]"),
            "hub.toml: not TOML: maximum recursion depth",
        ),
        (('verifiers = ["chainlink", "pyth"]', 'verifiers = ["pyth", "pyth"]'), "a source stands in two roles"),
        (("https://hermes.example", "https://u:0123-secret@hermes.example"), "this URL seems to hold a key"),
        (('"https://hermes.example"', '"https://h.example", "https://h.example"'), "a host is named twice"),
        (("[roles]", RPC + RPC + "[roles]"), "solana.rpc: two endpoints have the same name (a)"),
        (("[roles]", RPC + RPC.replace('"a"', '"b"') + "[roles]"), "two endpoints have the same http_url"),
        (("[roles]", RPC.replace("rpc.example", "rpc.example/?k=0123-secret") + "[roles]"), "seems to hold a key"),
        (("[roles]", RPC.replace("rpc.example", "rpc.example/v2/0123-secret") + "[roles]"), "seems to hold a key"),
        (("max_divergence_bps = 25", "max_age_ms = {dove = 5}"), "names dove, which is no source"),
        (("[roles]", '[server]\nhost = ""\n[roles]'), 'hub.toml: server.host: is empty; "127.0.0.1" is this machine'),
        (("[roles]", '[charts]\nhost = ""\n[roles]'), "hub.toml: charts.host: is empty"),
        (
            ("[roles]", '[state]\ndirectory = "v\\u0000"\n[roles]'),
            "hub.toml: state.directory: holds a control character",
        ),
        (
            ('["chainlink", "pyth"]', '["chainlink", "py\\nth"]'),
            "hub.toml: roles.verifiers.1: holds a control character",
        ),
        (('policy = "quorum"', '"po\\nlicy" = 1'), "hub.toml: feeds.BTC/USD: holds a control character"),
        (
            ("max_divergence_bps = 25", "max_age_ms = {doves = 9223372036854775807}"),
            "feeds.SOL/USD.max_age_ms.doves: is 9223372036854775807, and can be at most 1000000000000",
        ),
        (
            ("[roles]", "[emulator]\nport = 65524\n[roles]"),
            "emulator.port: is 65524, and can be at most 65523",
        ),
        (
            ("[roles]", RPC.replace("rpc.example", "[rpc") + "[roles]"),
            "solana.rpc.a.http_url: is no URL; check its port",
        ),
        (("hermes.example", "hermes.example:port"), "sources.pyth.hosts: is no URL; check its port"),
        (
            ("[roles]", '[[alerts.webhook]]\nname = "w"\nurl = "http://["\n[roles]'),
            "hub.toml: alerts.webhook.w.url: is no URL",
        ),
        (
            ('kind = "pyth.hermes"', 'kind = "pyth.hermes"\nrest_url = "http://h:-1"'),
            "sources.pyth.rest_url: is no URL",
        ),
    ],
)
def test_refusals_name_what_and_where(change: tuple[str, str], message: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(*change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "0123-secret" not in str(caught.value)


def test_canonical_text_reads_back_equal_and_hash_follows_content() -> None:
    config = parse(GOOD)
    assert parse_canonical(canonical_text(config)) == config
    assert config_hash(config) == config_hash(parse("# a comment changes nothing\n" + GOOD))
    assert config_hash(config) != config_hash(parse(GOOD.replace("25", "26")))


def test_a_damaged_journaled_configuration_is_one_line() -> None:
    with pytest.raises(ConfigError, match="journaled configuration"):
        parse_canonical("{}")


def test_secrets_come_from_the_environment_and_stay_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORACLE_HUB_TEST_SECRET", "hunter2")
    assert resolve_secret("env:ORACLE_HUB_TEST_SECRET", key="sources.pyth.api_key") == "hunter2"
    assert resolve_secret("https://rpc.example", key="solana.rpc.a.http_url") == "https://rpc.example"
    monkeypatch.delenv("ORACLE_HUB_TEST_SECRET")
    with pytest.raises(
        ConfigError, match=r"sources.pyth.api_key: environment variable ORACLE_HUB_TEST_SECRET is not set"
    ):
        resolve_secret("env:ORACLE_HUB_TEST_SECRET", key="sources.pyth.api_key")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://rpc.example", "a URL beginning with http:// or https:// is needed"),
        ("rpc.example", "a URL beginning with http:// or https:// is needed"),
        ("http://user:hunter2@rpc.example", "a URL with a user name is not supported"),
        ("https://rpc.example:hunter2", "solana.rpc.a.http_url: is no URL; check its port"),
        ("https://[rpc.example/hunter2", "solana.rpc.a.http_url: is no URL; check its port"),
    ],
)
def test_urls_from_the_environment_are_checked_without_being_shown(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORACLE_HUB_TEST_URL", url)
    with pytest.raises(ConfigError) as caught:
        resolve_url("env:ORACLE_HUB_TEST_URL", ("http", "https"), key="solana.rpc.a.http_url")
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value) and "rpc.example" not in str(caught.value)


@pytest.mark.parametrize(
    "preset",
    ["simulate.toml", "simulate-signed.toml", "simulate-catalogue.toml", "jupiter-mainnet.toml", "jupiter-legs.toml"],
)
def test_presets_are_valid_and_say_what_they_give(preset: str) -> None:
    path = ROOT / "deploy" / preset
    config = load_config(path)
    assert list(config.feeds) == ["SOL/USD", "BTC/USD", "ETH/USD", "USDC/USD", "USDT/USD"]
    assert (config.emulator is not None) is preset.startswith("simulate")
    head = path.read_text().split("\n[")[0]
    assert "What it gives" in head


WORDS = st.text(alphabet="ab.[]\n", max_size=3)
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**9), st.floats(allow_nan=False), WORDS,
    st.lists(st.integers(), max_size=2), st.dictionaries(WORDS, st.integers(), max_size=2),
)  # fmt: skip
FULL = tomllib.loads(GOOD + RPC + TOKEN + "[hub]\nwarmup_ms = 5\n[emulator]\nspeed = 2.0\n[journal]\nmode = 'off'\n")


def paths(raw: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    return [path, *(below for key, value in inside for below in paths(value, (*path, key)))]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(paths(FULL)[1:]), JUNK)
def test_whatever_is_wrong_is_one_line_that_names_the_place(path: tuple[str | int, ...], junk: Any) -> None:
    raw = copy.deepcopy(FULL)
    table = raw
    for step in path[:-1]:
        table = table[step]  # type: ignore[index]
    table[path[-1]] = junk  # type: ignore[index]
    try:
        convert(raw, "hub.toml")
    except ConfigError as error:
        text = str(error)
        assert text.startswith("hub.toml: ") and all(str(step) in text for step in path)
        assert not any(sign in text.replace("{1,32}$", "") for sign in "$`\n")
        assert "*" not in text.replace("[a-z", "")


def test_an_empty_file_is_one_line(tmp_path: Path) -> None:
    for text in ("", "# nothing but a comment\n"):
        with pytest.raises(ConfigError, match=r"^hub.toml: is empty; begin with a file of deploy/"):
            parse(text)
    with pytest.raises(ConfigError, match=r"^hub.toml: sources is missing$"):
        parse("[hub]\n")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.toml")


def test_what_is_too_large_for_a_configuration_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.touch()
    os.truncate(path, 1 << 40)  # a terabyte without a block on the disk
    with pytest.raises(ConfigError, match=r"core: larger than 64 MiB: this is no configuration$"):
        load_config(path)


def test_a_byte_order_mark_is_passed_over_and_another_encoding_named(tmp_path: Path) -> None:
    path = tmp_path / "hub.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert config_hash(load_config(path)) == config_hash(parse(GOOD))
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"hub.toml: not UTF-8 \(invalid start byte at byte 0\); save it as UTF-8$"):
        load_config(path)


def test_every_key_and_kind_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    named = set(re.findall(r"^\| `([a-z_.]+)`", page, re.MULTILINE))
    undocumented = [key for key in documented_keys() if key not in named and "." in key]
    sections = {
        "solana.rpc",
        "server.tokens",
        "alerts.alertmanager",
        "alerts.webhook",
        "alerts.notify",
    }  # tables of their own
    assert [key for key in undocumented if key not in sections] == []
    assert sorted(set(KINDS) - named) == []
