"""``oracle-hub migrate`` over real sockets: against the emulator, and against a node whose accounts a test writes."""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import web

from feeds.addresses import ASSETS, DOVES, GENESIS_HASHES, PERPS, POOL
from feeds.doves import AgPriceFeed, PriceFeed
from feeds.emulator.emulator import Emulator, EmulatorSettings
from feeds.emulator.faults import Fault
from feeds.jupiter import Custody
from feeds.layout import pubkey_bytes, pubkey_text
from oracle_hub.cli import main

SOL, BTC = ASSETS["SOL/USD"], ASSETS["BTC/USD"]
OTHER = pubkey_text(bytes([9]) * 32)
GENESIS = GENESIS_HASHES["mainnet-beta"]

CONFIG = f"""\
# Our line-up.   Keep this line.
[roles]
primary = "main"            # the one that counts
verifiers = ["chainlink", "pyth"]

[sources.main]
max_age_ms = 7_000          # agreed with risk
kind   = "doves.edge"       # since 2024

[sources.chainlink]
kind = "chainlink.store"

[sources.pyth]
kind = "pyth.receiver"

[feeds."BTC/USD"]           # by the known address

[feeds."SOL/USD"]
accounts = {{ main = "{SOL.edge}", pyth = "{SOL.pyth_new_push}" }}
"""
REWRITTEN = CONFIG.replace('"doves.edge" ', '"doves.custody" ').replace(SOL.edge, SOL.custody)
FOLLOWING = CONFIG.replace("doves.edge", "doves.custody").replace(f'main = "{SOL.edge}", ', "")


def custody(edge: str | None, ag: str | None, mint: str = SOL.mint) -> Custody:
    return Custody(
        pool=pubkey_bytes(POOL),
        mint=pubkey_bytes(mint),
        doves_oracle=pubkey_bytes(edge) if edge else None,
        doves_ag_oracle=pubkey_bytes(ag) if ag else None,
    )


class Node:
    """A node of which a test writes the accounts."""

    def __init__(self) -> None:
        self.accounts: dict[str, tuple[str, bytes]] = {}
        self.genesis = GENESIS
        self.url = ""
        self.now_s = int(time.time())

    def custody(self, data: bytes) -> None:
        self.accounts[SOL.custody] = (PERPS, data)

    def edge(self, price: int, age_s: int = 1, address: str = SOL.edge) -> None:
        state = PriceFeed(SOL.edge_pair, bytes(33), price, -8, self.now_s - age_s)
        self.accounts[address] = (DOVES, state.encode())

    def aggregate(self, price: int, age_s: int = 1, address: str = SOL.ag) -> None:
        key = bytes(32)
        state = AgPriceFeed(pubkey_bytes(SOL.mint), key, key, key, key, price, -8, self.now_s - age_s)
        self.accounts[address] = (DOVES, state.encode())

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["method"] == "getGenesisHash":
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": self.genesis})
        found = [self.accounts.get(key) for key in body["params"][0]]
        value = [
            state and {"owner": state[0], "data": [b64encode(state[1]).decode(), "base64"], "lamports": 1}
            for state in found
        ]
        return web.json_response(
            {"jsonrpc": "2.0", "id": body["id"], "result": {"context": {"slot": 7}, "value": value}}
        )


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    app = web.Application()
    app.router.add_post("/", node.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    node.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield node
    await runner.cleanup()


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    emulator = Emulator(settings=EmulatorSettings(), now_us=lambda: time.time_ns() // 1_000)
    await emulator.start()
    yield emulator
    await emulator.stop()


def read(path: Path) -> str:
    return path.read_bytes().decode()


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def set_mode(path: Path, bits: int) -> None:
    path.chmod(bits)


def beside(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


Migrate: TypeAlias = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "hub.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def migrate(capfd: pytest.CaptureFixture[str]) -> Migrate:
    """The command, beside the servers of the test: status, output, errors."""

    async def call(*arguments: object) -> tuple[int, str, str]:
        status = await asyncio.to_thread(main, ["migrate", *map(str, arguments)])
        return status, *capfd.readouterr()

    return call


def rpc_of(emulator: Emulator) -> str:
    assert emulator.urls is not None
    return emulator.urls.solana[0].http


async def told(migrate: Migrate, config: Path, url: str) -> dict[str, Any]:
    status, out, err = await migrate(config, "--rpc", url, "--json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


async def sol(migrate: Migrate, config: Path, url: str) -> dict[str, Any]:
    found: dict[str, Any] = (await told(migrate, config, url))["feeds"]["SOL/USD"]
    return found


async def test_both_live(emulator: Emulator, migrate: Migrate, config: Path) -> None:
    found = await told(migrate, config, rpc_of(emulator))
    for asset in (SOL, BTC):
        feed = found["feeds"][asset.feed]
        assert (feed["verdict"], feed["reads"], feed["custody"]) == ("new", asset.ag, asset.custody)
        for side, address in (("old", asset.edge), ("new", asset.ag)):
            assert feed[side]["address"] == feed[side]["derived"] == address
            assert feed[side]["matches_derived"] is True and feed[side]["fault"] is None
            assert float(feed[side]["price"]) > 0 and 0 <= feed[side]["age_ms"] < 60_000
        prices = [int(feed[side]["price"].replace(".", "")) for side in ("old", "new")]
        assert feed["divergence_bps"] == pytest.approx(abs(prices[0] - prices[1]) / min(prices) * 1e4, abs=0.01)
    assert "live too" in found["feeds"]["SOL/USD"]["text"]
    assert [warning.split(":")[0] for warning in found["warnings"]] == [
        "feeds.BTC/USD.accounts.main",
        "feeds.SOL/USD.accounts.main",
    ]
    assert found["changes"] == [
        "sources.main.kind: doves.edge -> doves.custody",
        f"feeds.SOL/USD.accounts.main: {SOL.edge} -> {SOL.custody}",
    ]
    assert found["written"] is False and read(config) == CONFIG


async def test_custody_without_the_new_oracle(emulator: Emulator, migrate: Migrate, config: Path) -> None:
    emulator.inject(Fault(kind="custody", feed="SOL/USD"))
    found = (await told(migrate, config, rpc_of(emulator)))["feeds"]
    assert (found["SOL/USD"]["verdict"], found["SOL/USD"]["reads"]) == ("old", SOL.edge)
    assert found["SOL/USD"]["new"] == {
        "address": None,
        "derived": SOL.ag,
        "matches_derived": None,
        "price": None,
        "publish_time_us": None,
        "age_ms": None,
        "fault": "custody names none",
    }
    assert found["SOL/USD"]["divergence_bps"] is None
    assert found["BTC/USD"]["verdict"] == "new"


async def test_new_account_empty(emulator: Emulator, migrate: Migrate, config: Path) -> None:
    emulator.inject(Fault(kind="wipe", account=SOL.ag))
    found = await sol(migrate, config, rpc_of(emulator))
    assert (found["verdict"], found["reads"]) == ("not_ready", SOL.edge)
    assert found["new"]["address"] == SOL.ag and found["new"]["fault"] == "it does not exist"


async def test_custody_missing_is_not_written(emulator: Emulator, migrate: Migrate, config: Path) -> None:
    emulator.inject(Fault(kind="wipe", account=SOL.custody))
    found = await sol(migrate, config, rpc_of(emulator))
    assert found["verdict"] == "unreadable" and found["old"] is found["new"] is found["reads"] is None
    status, out, err = await migrate(config, "--rpc", rpc_of(emulator), "--write")
    assert (status, out) == (1, "") and err.count("\n") == 1
    assert f"not rewritten: SOL/USD: custody {SOL.custody} does not exist" in err
    assert read(config) == CONFIG and beside(config) == ["hub.toml"]


async def test_write_keeps_comments_order_mode_and_a_backup(emulator: Emulator, migrate: Migrate, config: Path) -> None:
    set_mode(config, 0o640)
    status, out, _ = await migrate(config, "--rpc", rpc_of(emulator), "--write")
    assert status == 0 and "changed: sources.main.kind" in out and "hub.toml.bak" in out
    assert read(config) == REWRITTEN
    backup = config.with_name("hub.toml.bak")
    assert read(backup) == CONFIG
    assert mode(config) == mode(backup) == 0o640
    status, out, _ = await migrate(config, "--rpc", rpc_of(emulator), "--write")
    assert status == 0 and "nothing to change" in out
    assert beside(config) == ["hub.toml", "hub.toml.bak"]
    write(config, CONFIG.replace("Our", "Their"))
    assert (await migrate(config, "--rpc", rpc_of(emulator), "--write"))[0] == 0
    assert read(backup) == CONFIG
    assert read(config.with_name("hub.toml.bak.2")) == CONFIG.replace("Our", "Their")


async def test_line_ends_stay(emulator: Emulator, migrate: Migrate, config: Path) -> None:
    write(config, CONFIG.replace("\n", "\r\n"))
    assert (await migrate(config, "--rpc", rpc_of(emulator), "--write"))[0] == 0
    assert read(config) == REWRITTEN.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "[feeds]\n'SOL/USD'.accounts.main = '{edge}' # dotted\n",
            "[feeds]\n'SOL/USD'.accounts.main = \"{custody}\" # dotted\n",
        ),
        (
            "[feeds.'SOL/USD'.accounts] # table\nmain='{edge}'\n",
            "[feeds.'SOL/USD'.accounts] # table\nmain=\"{custody}\"\n",
        ),
        (
            "feeds = {{ 'SOL/USD' = {{ accounts = {{ main = '{edge}' }} }} }} # inline\n",
            "feeds = {{ 'SOL/USD' = {{ accounts = {{ main = \"{custody}\" }} }} }} # inline\n",
        ),
        (
            "[feeds.'SOL/USD']\n[hub] # between\n[feeds.'BTC/USD']\n",
            "[feeds.'SOL/USD']\n[hub] # between\n[feeds.'BTC/USD']\n",
        ),
        (
            "[feeds.'BTC/USD']\n[hub] # between\n[feeds.'SOL/USD']\naccounts.main = '{edge}'\n",
            "[feeds.'BTC/USD']\n[hub] # between\n[feeds.'SOL/USD']\naccounts.main = \"{custody}\"\n",
        ),
    ],
)
async def test_whatever_way_the_tables_are_written(
    before: str, after: str, emulator: Emulator, migrate: Migrate, config: Path
) -> None:
    rest = CONFIG[: CONFIG.index("[feeds")]
    write(
        config,
        before.format(edge=SOL.edge) + rest if before.startswith("feeds") else rest + before.format(edge=SOL.edge),
    )
    text = read(config)
    assert (await migrate(config, "--rpc", rpc_of(emulator), "--write"))[0] == 0
    expected = text.replace(before.format(edge=SOL.edge), after.format(custody=SOL.custody))
    assert read(config) == expected.replace('"doves.edge"', '"doves.custody"')


@pytest.mark.parametrize("kind", ["doves.custody", "doves.aggregate"])
async def test_an_old_oracle_under_a_newer_kind_is_mapped(
    kind: str, emulator: Emulator, migrate: Migrate, config: Path
) -> None:
    write(config, CONFIG.replace("doves.edge", kind))
    assert (await migrate(config, "--rpc", rpc_of(emulator), "--write"))[0] == 0
    assert read(config) == CONFIG.replace("doves.edge", "doves.custody").replace(SOL.edge, SOL.custody)


def further_way(text: str, way: str) -> str:
    """The primary read by Edge's API, and by a further way."""
    start, end = text.index("[sources.main]"), text.index("[sources.chainlink]")
    first = '[sources.main]\nkind = "edge.rest"\nhosts = ["https://edge.example"]\n[sources.main.ways.chain]\n'
    return (text[:start] + first + way + "\n" + text[end:]).replace(f'main = "{SOL.edge}", ', "")


async def test_an_old_oracle_by_a_further_way_is_mapped(emulator: Emulator, migrate: Migrate, config: Path) -> None:
    way = 'kind = "{}"\naccounts = {{ "SOL/USD" = "{}", "BTC/USD" = "{}" }}  # since 2024\n'
    write(config, further_way(CONFIG, way.format("doves.aggregate", SOL.edge, BTC.ag)))
    status, out, _ = await migrate(config, "--rpc", rpc_of(emulator), "--write", "--json")
    assert (status, json.loads(out)["changes"]) == (
        0,
        [
            "sources.main.ways.chain.kind: doves.aggregate -> doves.custody",
            f"sources.main.ways.chain.accounts.BTC/USD: {BTC.ag} -> {BTC.custody}",
            f"sources.main.ways.chain.accounts.SOL/USD: {SOL.edge} -> {SOL.custody}",
        ],
    )
    assert read(config) == further_way(CONFIG, way.format("doves.custody", SOL.custody, BTC.custody))


async def test_the_custody_of_a_further_way_is_looked_at(node: Node, migrate: Migrate, config: Path) -> None:
    write(config, further_way(CONFIG, f'kind = "doves.custody"\naccounts = {{ "SOL/USD" = "{OTHER}" }}\n'))
    found = await told(migrate, config, node.url)
    assert [one["custody"] for one in found["feeds"].values()] == [BTC.custody, OTHER]


async def test_a_table_for_people(emulator: Emulator, migrate: Migrate, config: Path) -> None:
    status, out, _ = await migrate(config, "--rpc", rpc_of(emulator))
    assert status == 0
    row = next(line for line in out.splitlines() if SOL.ag in line)
    assert "new" in row and "the same" in row and "yes" in row
    assert "SOL/USD  new  the new oracle is live and read" in out
    assert f"would change: feeds.SOL/USD.accounts.main: {SOL.edge} -> {SOL.custody}" in out


async def test_a_simulation_asks_an_emulator_of_its_own(migrate: Migrate, tmp_path: Path) -> None:
    path = tmp_path / "simulation.toml"
    path.write_text(FOLLOWING + "[emulator]\nseed = 3\n")
    status, out, _ = await migrate(path, "--json")
    found = json.loads(out)
    assert status == 0 and found["simulated"] is True
    assert [feed["verdict"] for feed in found["feeds"].values()] == ["new", "new"]
    assert found["changes"] == found["warnings"] == []


# Accounts that the emulator does not have.


@pytest.fixture
def only_sol(config: Path) -> Path:
    write(config, CONFIG.replace('[feeds."BTC/USD"]', "#"))
    return config


async def test_an_old_custody_that_ends_before_the_new_field(node: Node, migrate: Migrate, only_sol: Path) -> None:
    node.custody(custody(SOL.edge, SOL.ag).encode()[:384])
    node.edge(115_00000000)
    found = await sol(migrate, only_sol, node.url)
    assert (found["verdict"], found["reads"], found["old"]["price"]) == ("old", SOL.edge, "115.00000000")
    assert found["new"]["address"] is None and found["new"]["derived"] == SOL.ag


async def test_values_ages_and_distance(node: Node, migrate: Migrate, only_sol: Path) -> None:
    node.custody(custody(SOL.edge, SOL.ag).encode())
    node.edge(100_00000000, age_s=9_600_000)
    node.aggregate(101_00000000)
    found = await sol(migrate, only_sol, node.url)
    assert (found["verdict"], found["divergence_bps"]) == ("new", 100.0)
    assert found["old"]["publish_time_us"] == (node.now_s - 9_600_000) * 1_000_000
    assert "the old one has stood still for 9600" in found["text"]


async def test_a_new_oracle_that_stands_still(node: Node, migrate: Migrate, only_sol: Path) -> None:
    node.custody(custody(None, SOL.ag).encode())
    node.aggregate(101_00000000, age_s=3_600)
    found = await sol(migrate, only_sol, node.url)
    assert (found["verdict"], found["reads"]) == ("stale", SOL.ag)
    assert "limit 10 s" in found["text"] and "no way back" in found["text"]


async def test_a_new_oracle_that_was_never_updated(node: Node, migrate: Migrate, only_sol: Path) -> None:
    key = bytes(32)
    node.custody(custody(SOL.edge, SOL.ag).encode())
    node.edge(100_00000000)
    node.accounts[SOL.ag] = (DOVES, AgPriceFeed(pubkey_bytes(SOL.mint), key, key, key, key, 0, -8, 0).encode())
    found = await sol(migrate, only_sol, node.url)
    assert (found["verdict"], found["reads"]) == ("not_ready", SOL.edge)
    assert "never updated" in found["new"]["fault"]


async def test_neither_has_a_price(node: Node, migrate: Migrate, only_sol: Path) -> None:
    node.custody(custody(SOL.edge, None).encode())
    found = await sol(migrate, only_sol, node.url)
    assert (found["verdict"], found["reads"]) == ("no_price", None)


@pytest.mark.parametrize("side", ["old", "new"])
async def test_wrong_address(side: str, node: Node, migrate: Migrate, only_sol: Path) -> None:
    edge, ag = (OTHER, SOL.ag) if side == "old" else (SOL.edge, OTHER)
    node.custody(custody(edge, ag).encode())
    node.edge(100_00000000, address=edge)
    node.aggregate(100_00000000, address=ag)
    found = await sol(migrate, only_sol, node.url)
    assert found["verdict"] == "wrong_address" and found[side]["matches_derived"] is False
    assert OTHER in found["text"] and found[side]["derived"] in found["text"]
    status, _, err = await migrate(only_sol, "--rpc", node.url, "--write")
    assert status == 1 and "not rewritten" in err and "look before" in err


async def test_a_custody_of_another_token_and_of_another_program(node: Node, migrate: Migrate, only_sol: Path) -> None:
    node.custody(custody(SOL.edge, SOL.ag, BTC.mint).encode())
    found = await sol(migrate, only_sol, node.url)
    assert found["verdict"] == "unreadable" and f"holds the token {BTC.mint}" in found["text"]
    node.accounts[SOL.custody] = (OTHER, custody(SOL.edge, SOL.ag).encode())
    found = await sol(migrate, only_sol, node.url)
    assert found["verdict"] == "unreadable" and f"belongs to {OTHER}" in found["text"]


# Refusals.


async def test_nothing_can_be_read(node: Node, migrate: Migrate, config: Path) -> None:
    node.genesis = GENESIS_HASHES["devnet"]
    status, out, err = await migrate(config, "--rpc", node.url, "--write")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "nothing could be read: endpoint --rpc is on another cluster" in err
    status, out, err = await migrate(config, "--write")
    assert (status, out) == (1, "") and "no endpoint; add [[solana.rpc]] or give --rpc" in err
    assert read(config) == CONFIG


async def test_the_second_endpoint_answers_for_the_first(
    node: Node, migrate: Migrate, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_RPC", node.url)
    rpc = '[[solana.rpc]]\nname = "{0}"\nhttp_url = "env:{1}"\nws_url = "env:{1}_WS"\n'
    write(config, CONFIG + rpc.format("a", "FIRST_RPC") + rpc.format("b", "SECOND_RPC"))
    status, out, _ = await migrate(config, "--json")
    found = json.loads(out)
    assert status == 0 and found["endpoint"] == "b"
    assert found["warnings"][0] == "solana.rpc.a.http_url: environment variable FIRST_RPC is not set"
    assert found["feeds"]["SOL/USD"]["verdict"] == "unreadable"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((SOL.edge, BTC.edge), "it belongs to BTC/USD, not to SOL/USD"),
        ((SOL.edge, OTHER), "no custody of it is known"),
        (
            ('[feeds."SOL/USD"]', '[feeds."SOL/USD"]\nprimary = "pyth2"\nverifiers = ["chainlink", "main"]'),
            "also compared for SOL/USD",
        ),
    ],
)
async def test_what_cannot_be_mapped_is_left(
    change: tuple[str, str], says: str, emulator: Emulator, migrate: Migrate, config: Path
) -> None:
    text = CONFIG.replace('[feeds."BTC/USD"]', '[sources.pyth2]\nkind = "pyth.hermes"\n[feeds."BTC/USD"]')
    write(config, text.replace(*change))
    before = read(config)
    status, out, _ = await migrate(config, "--rpc", rpc_of(emulator), "--json")
    assert status == 0 and says in json.loads(out)["warnings"][-1]
    status, out, err = await migrate(config, "--rpc", rpc_of(emulator), "--write")
    assert (status, out, err.count("\n")) == (1, "", 1) and says in err
    assert read(config) == before


async def test_check_warns_of_old_oracles(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(config)]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert f"follow custody {SOL.custody}: oracle-hub migrate" in out
