"""What cannot be used is refused with one clear line, a status that is not 0, and never a traceback."""

import asyncio
import socket
from pathlib import Path

import orjson
import pytest

from tests.ports import deaf_port
from tests.system.conftest import Launch
from tests.system.process import PYTH, ROOT, Finished, command, hub_config

SECRET = "hidden-7f3a"
GOOD = hub_config()
TAPE = "t,price\n1700000000,100\n1700000001,101\n"


def refused(finished: Finished, *parts: str, silent: bool = True) -> None:
    """One line on standard error with all of these in it; nothing on standard output."""
    assert finished.status == 1, finished.err
    lines = finished.err.splitlines()
    assert len(lines) == 1, finished.err
    assert not (silent and finished.out)
    for part in parts:
        assert part in lines[0], lines[0]
    assert "Traceback" not in finished.err and SECRET not in finished.err


CONFIGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown section": (GOOD + "[hubb]\n", ("unknown key hubb", "did you mean hub?")),
    "unknown key": (GOOD.replace("warmup_ms", "warmup_s"), ("hub: unknown key warmup_s", "did you mean warmup_ms?")),
    "wrong type": (GOOD.replace("max_age_ms = 8000", 'max_age_ms = "8 s"'), ("max_age_ms", "int")),
    "out of range": (GOOD.replace("max_divergence_bps = 50", "max_divergence_bps = 20_000"), ("10000",)),
    "unknown kind": (GOOD.replace("doves.custody", "dove.custody"), ("dove.custody", "did you mean doves.custody?")),
    "unknown source": (GOOD.replace('primary = "doves"', 'primary = "dovess"'), ("dovess", "did you mean doves?")),
    "one verifier": (GOOD.replace('["chainlink", "pyth"]', '["pyth"]'), ("exactly two verifiers",)),
    "slow primary": (
        GOOD.replace('primary = "doves"', 'primary = "chainlink"').replace('"chainlink", "pyth"', '"doves", "pyth"'),
        ("chainlink", "verifier only"),
    ),
    "no feeds": (hub_config(feeds=()) + "[feeds]\n", ("feeds: none given",)),
    "unknown feed": (GOOD + '[feeds."DOGE/USD"]\n', ("DOGE/USD",)),
    "secret in the file": (
        GOOD.replace(PYTH, PYTH + f'api_key = "{SECRET}"\n'),
        ("sources.pyth.api_key", "env:NAME"),
    ),
    "no TOML": ("[hub\n", ("not TOML",)),
}


@pytest.mark.parametrize("case", CONFIGS)
async def test_a_configuration_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    text, parts = CONFIGS[case]
    path = tmp_path / "hub.toml"
    path.write_text(text)
    refused(await command("check", path), "hub.toml" if case != "unknown feed" else "", *parts)
    if case in ("unknown key", "secret in the file"):  # the same reading of the file
        refused(await command("run", "--config", path, "--port", "0", "--state", tmp_path / "state"), *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--config", "{tmp}/none.toml"), ("none.toml: no such file",)),
        (("--config", "{tmp}"), ("cannot be read",)),
        (("--tape", "{tmp}/none.csv"), ("none.csv", "No such file")),
        (("--tape", "{tmp}/tape.csv"), ("tape.csv", "manifest")),
        (("--tape", "{tmp}/tape.csv", "--manifest", "{tmp}/none.toml"), ("none.toml: no such manifest",)),
        (("--tape", "{tmp}/tape.csv", "--manifest", "{tmp}/bad.toml"), ("bad.toml", "prize")),
        (("--manifest", "{tmp}/bad.toml"), ("manifest without a tape",)),
        (("--start", "nonsense"), ("a start without a tape", "--tape FILE")),
        (("--allowed-host", "hub.example:80"), ("server.allowed_hosts: 'hub.example:80' is no name",)),
        (("--faults", "{tmp}/none.toml"), ("none.toml", "No such file")),
        (("--faults", "{tmp}/bad.toml"), ("bad.toml", "unknown key")),
        (("--host", "host.invalid"), ("server: cannot listen on host.invalid:0",)),
        (("--port", "70000"), ("65535", "port")),
        (("--state", "/proc/hub"), ("state.directory: /proc/hub cannot be used",)),
        (("--state", "{tmp}/tape.csv"), ("state.directory", "tape.csv cannot be used")),
    ],
)
async def test_options_that_cannot_be_used(tmp_path: Path, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    (tmp_path / "tape.csv").write_text(TAPE)
    (tmp_path / "bad.toml").write_text('title = "x"\nprize = 1\n')
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    finished = await command("run", "--port", "0", "--state", tmp_path / "state", "--log-level", "error", *given)
    refused(finished, *parts)


async def test_ports_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        quiet = ("--state", tmp_path / "state", "--log-level", "error")
        refused(await command("run", "--port", port, *quiet), f"127.0.0.1:{port}", "in use", "--port")
        finished = await command("run", "--port", "0", "--emulator-port", port, *quiet)
        refused(finished, f"{port}", "in use", "--emulator-port")


async def test_a_state_directory_in_use(launch: Launch) -> None:
    hub = await launch(config=hub_config())
    finished = await command("run", "--port", "0", "--state", hub.state, "--log-level", "error")
    refused(finished, "in use by process", str(hub.process.pid))
    assert (await hub.get("/livez")) == {"status": "ok"}


async def test_an_identity_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text('{"epoch": "yesterday"}')
    refused(await command("run", "--port", "0", "--state", tmp_path), "identity.json", "not an identity file")


@pytest.mark.parametrize("preset", ["jupiter-mainnet.toml", "jupiter-legs.toml"])
async def test_a_secret_that_is_not_set(tmp_path: Path, preset: str) -> None:
    path = ROOT / "deploy" / preset
    quiet = ("--port", "0", "--state", tmp_path)
    env = {f"SOLANA_RPC_{name}_HTTP": f"https://rpc.invalid/{SECRET}" for name in "AB"}
    env |= {f"SOLANA_RPC_{name}_WS": f"wss://rpc.invalid/{SECRET}" for name in "AB"}
    refused(await command("run", "--config", path, *quiet), "SOLANA_RPC_A_HTTP is not set")
    refused(await command("run", "--config", path, *quiet, env=env), "PYTH_API_KEY is not set")


async def test_no_hub_to_ask() -> None:
    with deaf_port() as port:
        for name in ("tail", "explain"):
            feed = "SOL/USD"
            refused(await command(name, feed, "--url", f"http://127.0.0.1:{port}"), "no hub there", "oracle-hub run")
            refused(await command(name, feed, "--url", "nowhere"), "--url: 'nowhere' is no address")


async def test_an_unknown_feed(launch: Launch) -> None:
    hub = await launch(config=hub_config())
    refused(await command("explain", "DOGE/USD", "--url", hub.url), "DOGE/USD", "/v1/prices")
    refused(await command("tail", "DOGE/USD", "--url", hub.url), "DOGE/USD", "unknown_feed", silent=False)
    refused(await command("tail", "DOGE/USD", "--json", "--url", hub.url), "DOGE/USD", "unknown_feed", silent=False)


async def test_files_that_are_no_journal(tmp_path: Path) -> None:
    (tmp_path / "tape.csv").write_text(TAPE)
    refused(await command("replay", tmp_path / "none"), "none: no such file")
    refused(await command("replay", tmp_path / "tape.csv"), "tape.csv is not a segment of a journal")
    refused(await command("replay", tmp_path), "no segments of a journal")


async def test_bytes_that_are_no_account() -> None:
    given = (b"", b"zz", b"\x00\xff\xfe garbage", b"00" * 283, b"AAAA")
    for finished in await asyncio.gather(*(command("decode", "doves.price_feed", data=data) for data in given)):
        refused(finished, "oracle-hub decode:")


async def test_lines_that_are_no_account() -> None:
    finished = await command("decode", "pyth.legacy_price", "--lines", data=b"zz\n\n00\nd4c3b2a1\n\xff\xfe\n")
    assert finished.status == 0 and not finished.err
    assert [list(line) for line in finished.lines] == [["error"]] * 4


async def test_lines_that_are_no_question() -> None:
    good = {"now_us": 10, "sources": {}}
    lines = [b"garbage", b"[]", b"{}", orjson.dumps(good | {"policy": "none"}), b"\xff\xfe", orjson.dumps(good)]
    finished = await command("select", data=b"\n".join(lines))
    assert finished.status == 1 and not finished.err
    assert [list(line) for line in finished.lines[:5]] == [["error"]] * 5
    assert finished.lines[5]["reason"] == "too_few_sources"


@pytest.mark.parametrize(
    "arguments", [(), ("dance",), ("run", "--tap", "x"), ("decode", "pyth"), ("run", "--port", "x")]
)
async def test_usage(arguments: tuple[str, ...]) -> None:
    finished = await command(*arguments)
    assert finished.status == 2 and not finished.out
    assert finished.err.startswith("usage: oracle-hub") and "Traceback" not in finished.err
