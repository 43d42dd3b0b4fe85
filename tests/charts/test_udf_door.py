"""UDF over HTTP, beside a hub: symbols, search, time, quotes, marks, errors, and who may read from a browser."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from oracle_hub.charts.app import Charts
from oracle_hub.charts.bars import Mark
from oracle_hub.charts.resolutions import SECOND_US, Resolution, parse_resolution
from oracle_hub.charts.store import Store
from tests.charts.charts_stage import charts_beside
from tests.charts.udf_stage import FEED, bar, fill, open_minute, plain_bars
from tests.client.client_stage import HubStage, turns_until
from tests.server.stream_service import START_US

PREFIXES = ("/udf", "/v1/shims/tradingview")
NOW_S = START_US // SECOND_US
TODAY_S = NOW_S - NOW_S % 86_400
LAST_S = NOW_S - NOW_S % 60
MINUTES = [LAST_S - 60 * back for back in range(30)][::-1]
FEED_TICKER = "Crypto.SOL/USD"
CODES = [
    "1S",
    "5S",
    "15S",
    "1",
    "3",
    "5",
    "15",
    "30",
    "60",
    "120",
    "240",
    "360",
    "720",
    "1D",
    "1W",
    "1M",
    "D",
    "W",
    "M",
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return fill(tmp_path, plain_bars(MINUTES[:-1]))


@pytest.fixture
async def hub() -> HubStage:
    return await HubStage().start()


@pytest.fixture
async def charts(hub: HubStage, database: Path) -> AsyncIterator[Charts]:
    start_us = hub.service.clock_us - 5_000_000
    # On the hub's clock: no lease ends because a test takes long.
    async with charts_beside(hub, database, clock_us=lambda: hub.service.clock_us - start_us) as running:
        await open_minute(hub, running)
        yield running


class Client:
    """Asks, and reads numbers as they are printed."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url

    async def __call__(self, path: str, prefix: str = "/udf", status: int = 200, **query: object) -> Any:
        params = {key.rstrip("_"): str(value) for key, value in query.items()}
        async with self.http.get(f"{self.url}{prefix}/{path}", params=params) as response:
            assert response.status == status
            assert response.content_type == "application/json"
            return json.loads(await response.text(), parse_float=Decimal)


@pytest.fixture
async def ask(charts: Charts) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Client(http, charts.url)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_config_and_symbols_have_all_that_the_retired_endpoint_had(
    ask: Client, prefix: str, fixtures_dir: Path
) -> None:
    retired = json.loads((fixtures_dir / "tv_shim_openapi_examples.json").read_text())["routes"]
    config = await ask("config", prefix)
    assert set(config) >= set(retired["/v1/shims/tradingview/config"]["examples"]["ConfigSuccessResponse"])
    assert config["supported_resolutions"] == CODES
    assert (config["supports_search"], config["supports_group_request"], config["supports_time"]) == (True, False, True)
    assert (config["supports_marks"], config["supports_timescale_marks"]) == (True, True)
    symbol = await ask("symbols", prefix, symbol="Crypto.SOL/USD")
    example = retired["/v1/shims/tradingview/symbols"]["examples"]["SymbolsSuccessResponse"]
    assert {key: type(value) for key, value in symbol.items() if key in example} == {
        key: type(value) for key, value in example.items()
    }
    assert (symbol["name"], symbol["ticker"], symbol["description"]) == ("SOLUSD", FEED_TICKER, "SOLANA / US DOLLAR")
    assert (symbol["pricescale"], symbol["minmov"], symbol["session"]) == (100_000_000, 1, "24x7")
    assert (symbol["timezone"], symbol["has_no_volume"], symbol["visible_plots_set"]) == ("Etc/UTC", True, "ohlc")
    assert (symbol["has_seconds"], symbol["seconds_multipliers"]) == (True, ["1", "5", "15"])
    assert symbol["intraday_multipliers"] == ["1", "3", "5", "15", "30", "60", "120", "240", "360", "720"]
    for form in ("SOL/USD", "SOLUSD", "sol", "ORACLEHUB:SOLUSD"):
        assert await ask("symbols", prefix, symbol=form) == symbol


async def test_search_and_symbol_info(ask: Client, fixtures_dir: Path) -> None:
    retired = json.loads((fixtures_dir / "tv_shim_openapi_examples.json").read_text())["routes"]
    (found,) = await ask("search", query="SOL", type="", exchange="PYTH", limit=30)
    assert found == {
        "symbol": "SOLUSD",
        "full_name": FEED_TICKER,
        "description": "SOLANA / US DOLLAR",
        "exchange": "ORACLEHUB",
        "ticker": FEED_TICKER,
        "type": "crypto",
    }
    assert len(await ask("search", query="USD")) == 2
    assert len(await ask("search", query="USD", limit=1)) == 1
    assert await ask("search", query="USD", limit=0) == []
    assert await ask("search", query="USD", limit=-1) == {"s": "error", "errmsg": "limit: -1 is below 0"}
    info = await ask("symbol_info", group="oraclehub_crypto")
    assert set(info) >= set(retired["/v1/shims/tradingview/symbol_info"]["examples"]["SymbolInfoSuccessResponse"])
    assert (info["symbol"], info["pricescale"]) == (["BTCUSD", "SOLUSD"], [100_000_000, 100_000_000])
    assert info["exchange-listed"] == info["exchange_listed"] == ["ORACLEHUB", "ORACLEHUB"]
    assert await ask("groups") == {"s": "ok", "d": {"groups": [{"id": "oraclehub_crypto"}]}}
    assert (await ask("symbol_info", group="pyth_stock"))["s"] == "error"


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_history_is_exact_and_tells_no_future(ask: Client, prefix: str) -> None:
    base = 10_000_000_000 + MINUTES[-2] % 1_000_000_007
    answer = await ask("history", prefix, symbol="SOLUSD", resolution="1", from_=MINUTES[-2], to=NOW_S + 10**6)
    assert answer == {
        "s": "ok",
        "t": MINUTES[-2:],
        "o": [Decimal(base).scaleb(-8), Decimal("150.00000000")],
        "h": [Decimal(base + 7).scaleb(-8), 150],
        "l": [Decimal(base - 7).scaleb(-8), 150],
        "c": [Decimal(base + 1).scaleb(-8), 150],
        "v": [0, 0],
    }
    query: dict[str, Any] = {"symbol": "SOL", "resolution": "1"}
    assert (await ask("history", prefix, **query, from_=0, to=NOW_S + 60))["t"] == MINUTES
    assert (await ask("history", prefix, **query, from_=NOW_S, to=NOW_S, countback=3))["t"] == MINUTES[-3:]
    assert await ask("history", prefix, **query, from_=NOW_S + 600, to=NOW_S + 900) == {
        "s": "no_data",
        "nextTime": LAST_S,
    }
    assert await ask("history", prefix, **query, from_=0, to=MINUTES[0]) == {"s": "no_data"}


async def test_the_last_bar_is_open_and_grows(ask: Client, hub: HubStage, charts: Charts) -> None:
    async def last(resolution: str) -> dict[str, Any]:
        page = await ask("history", symbol="SOL", resolution=resolution, from_=0, to=NOW_S + 60, countback=1)
        return {column: page[column][-1] for column in "tohlc"}

    for mantissa in (15_300_000_000, 14_900_000_000):
        hub.tick(FEED, mantissa)
    await turns_until(lambda: charts.live.position is not None and charts.live.position.seq == hub.service.seq)
    for code in CODES:
        start_us = parse_resolution(code).start_us(START_US)
        assert await last(code) == {"t": start_us // SECOND_US, "o": 150, "h": 153, "l": 149, "c": 149}


async def test_simulated_prices_are_called_so(hub: HubStage, database: Path) -> None:
    hub.service.simulated = {"simulated": True}
    async with charts_beside(hub, database) as charts, aiohttp.ClientSession() as http:
        client = Client(http, charts.url)
        assert (await client("symbols", symbol="SOL"))["description"] == "SOLANA / US DOLLAR (SIMULATED)"
        assert (await client("search", query="SOL"))[0]["description"] == "SOLANA / US DOLLAR (SIMULATED)"


async def test_a_hundred_charts_that_ask_at_once_are_all_answered(ask: Client) -> None:
    query: dict[str, Any] = {"symbol": "SOL", "resolution": "1", "from_": 0, "to": NOW_S, "countback": 20}
    pages = await asyncio.gather(*(ask("history", **query) for _ in range(200)))
    assert {tuple(page["t"]) for page in pages} == {tuple(MINUTES[-20:])}


async def test_errors_are_told_in_the_protocols_own_form(ask: Client) -> None:
    unknown = {"s": "error", "errmsg": "unknown_symbol: Crypto.DOGE/USD"}
    for path in ("symbols", "history", "marks", "timescale_marks"):
        assert await ask(path, symbol="Crypto.DOGE/USD", resolution="1", from_=0, to=1) == unknown
        assert await ask(path, resolution="1", from_=0, to=1) == {"s": "error", "errmsg": "symbol: a name is needed"}
    answer = await ask("history", symbol="SOL", resolution="7", from_=0, to=1)
    assert answer["s"] == "error" and "'7'" in answer["errmsg"]
    answer = await ask("history", symbol="SOL", resolution="1", from_=0)
    assert answer == {"s": "error", "errmsg": "to: a whole number is needed, not ''"}
    assert await ask("marks", symbol="SOL", resolution="1", from_=120, to=0) == {
        "s": "error",
        "errmsg": "from, to: the range is empty",
    }


async def test_a_store_that_fails_leaves_symbols_and_quotes(ask: Client, charts: Charts, tmp_path: Path) -> None:
    broken = Store.__new__(Store)
    super(Store, broken).__init__(tmp_path / "absent.sqlite")
    charts.context.store = broken
    answer = await ask("history", status=503, symbol="SOL", resolution="1", from_=0, to=1)
    assert answer["s"] == "error" and "absent.sqlite: cannot be read" in answer["errmsg"]
    (quote,) = (await ask("quotes", symbols="SOL"))["d"]
    assert (quote["s"], quote["v"]["lp"]) == ("ok", Decimal("150"))


async def test_time_is_the_hubs_in_plain_text(ask: Client, charts: Charts) -> None:
    async with ask.http.get(f"{charts.url}/udf/time") as response:
        assert (response.content_type, await response.text()) == ("text/plain", str(NOW_S))


async def test_quotes_have_the_day_so_far_and_no_price_where_there_is_none(
    ask: Client, hub: HubStage, charts: Charts
) -> None:
    yesterday = bar(TODAY_S - 86_400, (100, 200, 50, 16_000_000_000), Resolution.D1)
    today = bar(TODAY_S, (16_100_000_000, 16_200_000_000, 14_000_000_000, 15_000_000_000), Resolution.D1)
    charts.store.write(bars=[yesterday, today])
    answer = await ask("quotes", symbols="ORACLEHUB:SOLUSD,DOGE,Crypto.BTC/USD")
    assert [(entry["s"], entry["n"]) for entry in answer["d"]] == [
        ("ok", "ORACLEHUB:SOLUSD"),
        ("error", "DOGE"),
        ("ok", "Crypto.BTC/USD"),
    ]
    values = answer["d"][0]["v"]
    assert (values["lp"], values["prev_close_price"], values["ch"]) == (150, 160, -10)
    assert values["chp"] == Decimal("-6.25")
    assert (values["open_price"], values["high_price"], values["low_price"]) == (161, 162, 140)
    assert (values["state"], values["source"], values["short_name"]) == ("live", "doves", "SOLUSD")
    assert answer["d"][1]["errmsg"] == "unknown_symbol: DOGE"
    assert "ch" not in answer["d"][2]["v"] and answer["d"][2]["v"]["open_price"] == Decimal("150.00000001")
    batch = hub.service.wait(hub.service.clock_us + 30_000_000)
    assert batch is not None
    hub.server.publish(batch)
    await turns_until(lambda: charts.live.update(FEED).price is None)
    (entry,) = (await ask("quotes", symbols="SOL"))["d"]
    assert (entry["s"], entry["v"]) == ("error", {})
    assert await ask("quotes", symbols="") == {
        "s": "error",
        "errmsg": "symbols: 1 to 100 names with commas between them are needed, not 0",
    }


async def test_marks_reach_into_the_last_bar(ask: Client, charts: Charts) -> None:
    at_us = LAST_S * SECOND_US + 59_000_000
    charts.store.write(marks=[Mark(FEED, at_us, "none", "live", "diverged", None, "R3")])
    query: dict[str, Any] = {"symbol": "SOL", "resolution": "1", "from_": MINUTES[0], "to": LAST_S}
    found = await ask("marks", **query)
    assert (found["time"], found["label"]) == ([LAST_S], ["N"])
    (below,) = await ask("timescale_marks", **query)
    assert (below["time"], below["label"]) == (LAST_S, "N")
    assert (await ask("marks", **{**query, "to": LAST_S - 60}))["time"] == []


async def test_days_weeks_and_months_start_at_midnight_monday_and_the_first(ask: Client) -> None:
    starts = {"1D": TODAY_S, "1W": 1_789_948_800, "1M": 1_788_220_800}
    for code, start_s in starts.items():
        resolution = Resolution(code)
        assert resolution.start_us(START_US) == start_s * SECOND_US
        for alias in (code, code[1:]):
            assert (await ask("history", symbol="SOL", resolution=alias, from_=0, to=NOW_S))["t"] == [start_s]


async def test_browsers_of_other_origins_are_refused_unless_allowed(hub: HubStage, database: Path) -> None:
    async with aiohttp.ClientSession(headers={"Origin": "https://chart.example"}) as http:
        async with charts_beside(hub, database) as charts, http.get(f"{charts.url}/udf/config") as response:
            assert response.status == 403
        async with charts_beside(hub, database, allowed_origins=("https://chart.example",)) as charts:
            for path in ("config", f"history?symbol=SOL&resolution=1&from=0&to={NOW_S}", "time"):
                async with http.get(f"{charts.url}/udf/{path}") as response:
                    assert response.status == 200
                    assert response.headers["Access-Control-Allow-Origin"] == "https://chart.example"
