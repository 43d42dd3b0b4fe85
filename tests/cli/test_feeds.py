"""``oracle-hub feeds`` over sockets: against the emulator's Hermes, and against one with feeds of other classes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from benchmarks.relay import listening
from feeds.addresses import ASSETS, PYTH_NEW_PUSH, pyth_push, redstone_price
from feeds.emulator.catalogue import made_asset
from feeds.emulator.emulator import Emulator, EmulatorSettings
from oracle_hub.app.lineup import addresses_of
from oracle_hub.cli import main
from oracle_hub.clock import SystemClock
from oracle_hub.config import load_config

SOL_STORE = ASSETS["SOL/USD"].chainlink_store
WIF, AAPL, PRE = "4c" * 32, "49" * 32, "50" * 32
KEY = "listing-key-71"
ADDRESS = "CH31Xns5z3M1cTAbKW34jcxPPciazARpijcHj9rxtemt"
CONFIG = """\
# Ours.   Keep this line.
[roles]
primary = "hermes"          # the one that counts
verifiers = ["receiver", "stone"]

[sources.hermes]
kind = "pyth.hermes"
hosts = ["HOST"]
[sources.receiver]
kind = "pyth.receiver"
[sources.stone]
kind = "redstone"
[sources.store]
kind = "chainlink.store"

[feeds."SOL/USD"]           # the first

[hub]                       # after the feeds
stall_bps = 21
"""


def metadata(price_id: str, symbol: str, asset_type: str, description: str) -> dict[str, Any]:
    """As Hermes writes it: every attribute is a string."""
    attributes = {"asset_type": asset_type, "symbol": symbol, "description": description, "quote_currency": "USD"}
    return {"id": price_id, "attributes": attributes | {"schedule": "America/New_York;O,O,O,O,O,O,O;"}}


LISTED = [
    metadata(ASSETS["SOL/USD"].hermes_id, "Crypto.SOL/USD", "Crypto", "SOLANA / US DOLLAR"),
    metadata("0x" + WIF, "Crypto.WIF/USD", "Crypto", "DOGWIFHAT / US DOLLAR"),
    metadata(AAPL, "Equity.US.AAPL/USD", "Equity", "APPLE INC / US DOLLAR"),
    metadata(PRE, "Equity.US.AAPL/USD.PRE", "Equity", "APPLE INC / US DOLLAR PRE MARKET"),
    metadata("ab", "Crypto.BAD/USD", "Crypto", "an id that is none"),
    metadata("51" * 32, "Crypto.TWO/USD", "Crypto", "one"),
    metadata("52" * 32, "Crypto.TWO/USD", "Crypto", "and another"),
]


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


class Hermes:
    """The list of a Hermes server, which looks for the query within symbols."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[str | None] = []
        self.body: bytes | None = None

    async def price_feeds(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization"))
        query, kind = request.query.get("query", "").lower(), request.query.get("asset_type")
        found = [
            one
            for one in LISTED
            if query in one["attributes"]["symbol"].lower() and kind in (None, one["attributes"]["asset_type"].lower())
        ]
        return web.Response(body=self.body or orjson.dumps(found), content_type="application/json")


@pytest.fixture
async def hermes() -> AsyncIterator[Hermes]:
    server = Hermes()
    app = web.Application()
    app.router.add_get("/hermes/v2/price_feeds", server.price_feeds)
    async with listening(app) as port:
        server.url = f"http://127.0.0.1:{port}/hermes"
        yield server


@pytest.fixture
def config(tmp_path: Path, hermes: Hermes) -> Path:
    path = tmp_path / "hub.toml"
    path.write_text(CONFIG.replace("HOST", hermes.url), encoding="utf-8", newline="")
    return path


class Feeds:
    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    async def __call__(self, *arguments: object) -> tuple[int, str, str]:
        status = await asyncio.to_thread(main, ["feeds", *map(str, arguments)])
        return (status, *self._capfd.readouterr())

    async def found(self, *arguments: object) -> list[dict[str, str]]:
        status, out, err = await self("search", *arguments, "--json")
        assert (status, err) == (0, "")
        offers: list[dict[str, str]] = json.loads(out)["offers"]
        return offers

    async def refused(self, *arguments: object) -> str:
        """The one line that it ends with."""
        status, out, err = await self(*arguments)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("oracle-hub feeds: ")
        return err.removeprefix("oracle-hub feeds: ").rstrip()


@pytest.fixture
def feeds(capfd: pytest.CaptureFixture[str]) -> Feeds:
    return Feeds(capfd)


# Search.


async def test_the_tables_are_searched_without_a_network(feeds: Feeds) -> None:
    found = await feeds.found("btc/usd")
    assert {(one["feed"], one["origin"]) for one in found} == {("BTC/USD", "known")}
    ids = {one["kind"]: one["id"] for one in found}
    btc = ASSETS["BTC/USD"]
    assert ids["doves.custody"] == btc.custody and ids["pyth.hermes"] == btc.hermes_id
    assert ids["chainlink.streams"] == btc.data_streams_id and ids["edge.rest"] == "BTCUSD"
    assert [(one["feed"], one["kind"]) for one in await feeds.found(btc.lazer)] == [("BTC/USD", "doves.lazer")]
    assert await feeds.refused("search", "wif") == ("nothing found for 'wif'; --hermes URL also asks a Hermes server")


async def test_a_hermes_server_is_searched_too(feeds: Feeds, hermes: Hermes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTING", KEY)
    found = await feeds.found("wif", "--hermes", hermes.url, "--key", "env:LISTING")
    assert [(one["feed"], one["kind"], one["id"], one["origin"]) for one in found][:2] == [
        ("WIF/USD", "pyth.hermes", WIF, "hermes"),
        ("WIF/USD", "pyth.receiver", pyth_push(WIF, program=PYTH_NEW_PUSH), "derived"),
    ]
    assert hermes.keys == [f"Bearer {KEY}"]
    equities = await feeds.found("aapl", "--hermes", hermes.url, "--asset-type", "equity")
    assert {one["feed"]: one["id"] for one in equities if one["kind"] == "pyth.hermes"} == {
        "US.AAPL/USD": AAPL,
        "US.AAPL/USD.PRE": PRE,
    }
    # What a table knows already is not told twice, and what has no id is not told at all.
    assert len([one for one in await feeds.found("sol/", "--hermes", hermes.url) if one["kind"] == "pyth.hermes"]) == 1
    status, out, _ = await feeds("search", "o", "--hermes", hermes.url, "--limit", "2")
    assert status == 0 and "more: narrow the query" in out and "BAD/USD" not in out


async def test_an_odd_entry_of_a_list_hides_no_other(feeds: Feeds, hermes: Hermes) -> None:
    wif = metadata(WIF, "Crypto.WIF/USD", "Crypto", "dogwifhat")
    wif["attributes"] |= {"min_channel": None, "publish_interval": 2}
    odd: list[object] = [
        {"id": "53" * 32},
        {"id": "54" * 32, "attributes": None},
        {"id": None, "attributes": {"symbol": "Crypto.WIF/USD"}},
        {"id": "55" * 32, "attributes": {"symbol": 5, "description": None, "publish_interval": 1.5}},
    ]
    hermes.body = orjson.dumps([*odd, wif | {"market_hours": {"is_open": True, "next_open": None}}])
    found = await feeds.found("wif", "--hermes", hermes.url)
    assert [(one["id"], one["asset_type"], one["description"]) for one in found if one["kind"] == "pyth.hermes"] == [
        (WIF, "crypto", "dogwifhat")
    ]


async def test_nothing_found_is_told_by_the_status_in_json_too(feeds: Feeds) -> None:
    status, out, err = await feeds("search", "wif", "--json")
    assert (status, json.loads(out)) == (1, {"offers": [], "asked": ["tables"]})
    assert err == "oracle-hub feeds: nothing found for 'wif'; --hermes URL also asks a Hermes server\n"


async def test_servers_that_do_not_answer_are_one_line(feeds: Feeds, hermes: Hermes) -> None:
    hermes.body = b'{"no": "list"}'
    assert (await feeds.refused("search", "wif", "--hermes", hermes.url)).startswith("Hermes: no list of feeds: ")
    line = await feeds.refused("search", "wif", "--hermes", "http://127.0.0.1:1")
    assert line.startswith("Hermes: no answer: connection failed: ")
    assert "environment variable NO_SUCH is not set" in await feeds.refused(
        "search", "wif", "--hermes", hermes.url, "--key", "env:NO_SUCH"
    )
    assert KEY not in await feeds.refused("search", "wif", "--hermes", hermes.url, "--key", KEY)
    assert await feeds.refused("search", "sol", "--limit", "0") == "--limit 0: at least one row"


async def test_the_emulator_lists_its_feeds_like_hermes(feeds: Feeds) -> None:
    emulator = Emulator(settings=EmulatorSettings(), now_us=SystemClock().wall_us)
    try:
        url = (await emulator.start()).hermes[0].url
        found = await feeds.found("eth", "--hermes", url)
        assert {one["id"] for one in found if one["kind"] == "pyth.hermes"} == {ASSETS["ETH/USD"].hermes_id}
        line = await feeds.refused("search", "eth", "--hermes", url, "--asset-type", "nonsense")
        assert line.startswith("Hermes: HTTP 400: Failed to deserialize query string: asset_type: unknown variant")
        assert await feeds.refused("search", "sol/eur", "--hermes", url, "--asset-type", "FX") == (
            "nothing found for 'sol/eur'"
        )
    finally:
        await emulator.stop()


# Add.


async def test_a_known_feed_needs_nothing_but_its_name(feeds: Feeds, config: Path) -> None:
    before = read(config).decode()
    status, out, _ = await feeds("add", "BTC/USD", "--config", config)
    assert status == 0 and '+[feeds."BTC/USD"]' in out and out.endswith("--write makes these changes\n")
    assert read(config).decode() == before
    status, out, _ = await feeds("add", "BTC/USD", "ETH/USD", "--config", config, "--write", "--json")
    answer = json.loads(out)
    assert (status, answer["written"], answer["feeds"]) == (0, True, ["BTC/USD", "ETH/USD"])
    assert read(Path(answer["backup"])).decode() == before
    after = read(config).decode()
    kept = [line for line in after.splitlines() if line]
    assert [line for line in kept if "BTC" not in line and "ETH" not in line] == [
        line for line in before.splitlines() if line
    ]
    loaded = load_config(config)
    assert list(loaded.feeds) == ["SOL/USD", "BTC/USD", "ETH/USD"] and loaded.hub.stall_bps == 21
    assert addresses_of(loaded, "hermes")["ETH/USD"] == ASSETS["ETH/USD"].hermes_id
    for again in (["ETH/USD"], ["eth/usd"]):
        assert await feeds.refused("add", *again, "--config", config, "--write") == (
            f"{config}: feeds.ETH/USD: is there already"
        )
    assert read(config).decode() == after


async def test_a_feed_of_hermes_gets_its_id_and_its_derived_accounts(feeds: Feeds, config: Path) -> None:
    line = await feeds.refused("add", "WIF/USD", "--config", config)
    assert line.startswith("WIF/USD: nothing is known that receiver (pyth.receiver) and stone (redstone) could read")
    assert (await feeds("add", "WIF/USD", "--config", config, "--derived", "--write"))[0] == 0
    loaded = load_config(config)
    assert loaded.feeds["WIF/USD"].accounts == {
        "hermes": WIF,
        "receiver": pyth_push(WIF),
        "stone": redstone_price("WIF"),
    }


async def test_roles_and_accounts_of_its_own(feeds: Feeds, config: Path) -> None:
    given = (
        "--verifiers",
        "store,stone",
        "--account",
        f"store={ADDRESS}",
        "--account",
        f"stone={ASSETS['SOL/USD'].ag}",
    )
    assert (await feeds("add", "US.AAPL/USD", "--config", config, *given, "--write"))[0] == 0
    section = load_config(config).feeds["US.AAPL/USD"]
    assert section.verifiers == ("store", "stone") and section.primary is None
    assert section.accounts == {"hermes": AAPL, "store": ADDRESS, "stone": ASSETS["SOL/USD"].ag}


async def test_line_ends_stay(feeds: Feeds, config: Path) -> None:
    write(config, read(config).replace(b"\n", b"\r\n"))
    assert (await feeds("add", "BTC/USD", "--config", config, "--write"))[0] == 0
    data = read(config)
    assert data.count(b"\n") == data.count(b"\r\n") and load_config(config).feeds.keys() == {"SOL/USD", "BTC/USD"}


async def test_a_byte_order_mark_does_not_stand_in_the_way(feeds: Feeds, config: Path) -> None:
    write(config, b"\xef\xbb\xbf" + read(config))
    assert (await feeds("add", "BTC/USD", "--config", config, "--write"))[0] == 0
    assert load_config(config).feeds.keys() == {"SOL/USD", "BTC/USD"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nonsense",), "'nonsense' is no name of a feed; write it as BASE/QUOTE (SOL/USD)"),
        (("BTC/USD", "BTC/USD"), "BTC/USD: named twice"),
        (("NO/USD",), "NO/USD: Hermes lists no such feed; see oracle-hub feeds search"),
        (("TWO/USD",), f"TWO/USD: Hermes lists it more than once ({'51' * 32}, {'52' * 32}); choose with --account"),
        (("BTC/USD", "--primary", "nobody"), "BTC/USD: no [sources.nobody]; defined: hermes, receiver, stone, store"),
        (
            ("BTC/USD", "--account", "store=x"),
            "BTC/USD: store has no role in it; its sources are hermes, receiver, stone",
        ),
        (("BTC/USD", "--account", "hermes"), "--account hermes: write SOURCE=ID, once for each source"),
        (("BTC/USD", "ETH/USD", "--account", "hermes=x"), "--account: for one FEED at a time"),
        (("BTC/USD", "--account", "hermes=x"), "feeds.BTC/USD.accounts.hermes: 'x' is no Pyth id (64 hex digits)"),
    ],
)
async def test_what_cannot_be_added_is_one_line(
    arguments: tuple[str, ...], line: str, feeds: Feeds, config: Path
) -> None:
    before = read(config)
    assert await feeds.refused("add", *arguments, "--config", config, "--write") == line
    assert read(config) == before


async def test_a_result_that_is_no_configuration_is_refused_whole(feeds: Feeds, config: Path) -> None:
    before = read(config)
    line = await feeds.refused("add", "BTC/USD", "--config", config, "--verifiers", "stone", "--write")
    assert "feeds.BTC/USD.verifiers: the rule takes exactly two verifiers, not 1" in line
    taken = f"stone={ASSETS['SOL/USD'].redstone}"
    line = await feeds.refused("add", "BTC/USD", "--config", config, "--account", taken)
    assert line.startswith("source stone: SOL/USD and BTC/USD name the same account")
    assert read(config) == before


async def test_an_emulator_plays_what_is_added_as_derived(feeds: Feeds, config: Path) -> None:
    write(config, read(config) + b"[emulator]\n")
    await feeds("add", "WIF/USD", "EUR/JPY", "--config", config, "--derived", "--write")
    loaded = load_config(config)
    for feed in ("WIF/USD", "EUR/JPY"):
        asset = made_asset(feed)
        assert dict(loaded.feeds[feed].accounts) == {
            "hermes": asset.hermes_id,
            "receiver": asset.pyth_new_push,
            "stone": asset.redstone,
        }
    assert (await feeds.refused("add", "BONK/USD", "--config", config)).startswith(
        "BONK/USD: hermes needs Pyth's id of it"
    )
    line = await feeds.refused("add", "JUP/USD", "--config", config, "--derived", "--account", f"stone={SOL_STORE}")
    assert line.startswith("emulator: JUP/USD: account")
