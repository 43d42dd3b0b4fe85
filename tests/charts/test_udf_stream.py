"""Streaming as the retired endpoint had it: lines that clients turn into bars, and nothing of a price that is over."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from oracle_hub.charts import udf_stream
from oracle_hub.charts.live import Update
from oracle_hub.charts.symbols import symbol
from oracle_hub.charts.udf_stream import Lines, heartbeat
from oracle_hub.client import NoPrice, Price, Refusal
from oracle_hub.core.price import decimal_text
from tests.charts.charts_stage import charts_beside
from tests.charts.stalled import stalled_reader, tick_on
from tests.charts.udf_stage import FEED
from tests.client.client_stage import HubStage, turns_until
from tests.patience import PATIENCE_S
from tests.server.stream_service import START_US

SOL = symbol(FEED, -8)
MINUTE_US = 60_000_000
T0_US = 1_790_000_040_000_000
"""A minute begins."""


def price(mantissa: int, decided_us: int) -> Update:
    held = Price(
        feed=FEED,
        mantissa=mantissa,
        expo=-8,
        state="live",
        conf=None,
        source="doves",
        rule="R1",
        reason="agreed",
        publish_time_us=decided_us - 500,
        decided_us=decided_us,
        valid_until_us=None,
        lease_left_us=None,
        instance="i",
        epoch=1,
        seq=1,
        inputs=None,
    )
    return Update(feed=FEED, price=held, refusal=None, point=None)


def none(refusal: Refusal, hub_reason: str | None = None) -> Update:
    return Update(feed=FEED, price=None, refusal=NoPrice(FEED, refusal, "there is none", hub_reason), point=None)


def test_a_price_is_told_once_to_the_digit_at_the_second_of_its_decision() -> None:
    lines = Lines()
    first = lines.line(SOL, price(14_512_345_678, T0_US + 1_900_000), T0_US + 1_950_000)
    assert first == '{"id":"Crypto.SOL/USD","p":145.12345678,"t":1790000041,"f":"t","s":0}'
    assert lines.line(SOL, price(14_512_345_678, T0_US + 1_990_000), T0_US + 1_990_000) is None
    assert lines.line(SOL, price(14_512_345_679, T0_US + 1_995_000), T0_US + 1_996_000) is not None
    later = lines.line(SOL, price(14_512_345_679, T0_US + 2_000_000), T0_US + 2_000_000)
    assert later == '{"id":"Crypto.SOL/USD","p":145.12345679,"t":1790000042,"f":"t","s":0}'


def test_a_price_in_force_when_a_minute_begins_is_told_at_its_start() -> None:
    lines = Lines()
    lines.line(SOL, price(100, T0_US - 3_000_000), T0_US - 2_000_000)
    again = lines.line(SOL, price(100, T0_US - 3_000_000), T0_US + 20_000)
    assert again == '{"id":"Crypto.SOL/USD","p":0.00000100,"t":1790000040,"f":"t","s":0}'
    assert lines.line(SOL, price(100, T0_US - 3_000_000), T0_US + 40_000) is None


def test_no_price_is_a_line_that_readers_of_prices_pass_over() -> None:
    lines = Lines()
    lines.line(SOL, price(100, T0_US), T0_US)
    lost = lines.line(SOL, none(Refusal.NONE, "diverged"), T0_US + 1_000_000)
    assert lost is not None
    assert json.loads(lost) == {
        "f": "n",
        "symbol": SOL.ticker,
        "state": "none",
        "reason": "diverged",
        "t": 1_790_000_041,
    }
    assert lines.line(SOL, none(Refusal.NONE, "diverged"), T0_US + 2_000_000) is None
    assert '"lease_over"' in str(lines.line(SOL, none(Refusal.LEASE_OVER), T0_US + 3_000_000))
    back = lines.line(SOL, price(100, T0_US), T0_US)
    assert back == '{"id":"Crypto.SOL/USD","p":0.00000100,"t":1790000040,"f":"t","s":0}'


def test_a_heartbeat_names_no_symbol() -> None:
    assert json.loads(heartbeat(T0_US + 1_999_999)) == {"T": 1_790_000_041}


# Over HTTP.


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "bars.sqlite"


class Reader:
    """Reads as Pyth's example for TradingView does: pieces of text, split at line ends."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def line(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.response.content.readline(), parse_float=Decimal)

    async def until(self, **wanted: object) -> Any:
        while True:
            line = await self.line()
            if all(line.get(key) == value for key, value in wanted.items()):
                return line


@asynccontextmanager
async def streaming(url: str, prefix: str = "/v1/shims/tradingview", **headers: str) -> AsyncIterator[Reader]:
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{url}{prefix}/streaming") as response:
        assert response.status == 200
        assert response.headers["Transfer-Encoding"] == "chunked"
        yield Reader(response)


async def test_all_symbols_come_on_one_answer_and_a_lost_price_is_never_told_again(database: Path) -> None:
    hub = await HubStage().start()
    async with charts_beside(hub, database) as charts, streaming(charts.url) as reader:
        first = [await reader.line(), await reader.line()]
        assert {line["id"]: line["p"] for line in first} == {
            "Crypto.SOL/USD": Decimal("150.00000000"),
            "Crypto.BTC/USD": Decimal("150.00000001"),
        }
        assert {(line["t"], line["f"], line["s"]) for line in first} == {(START_US // 1_000_000, "t", 0)}
        hub.tick(FEED, 15_100_000_000)
        assert (await reader.line())["p"] == 151
        batch = hub.service.wait(hub.service.clock_us + 20_000_000)  # everything is too old
        assert batch is not None
        hub.server.publish(batch)
        lost = [await reader.line(), await reader.line()]
        assert {(line["f"], line["state"], "p" in line, "id" in line) for line in lost} == {("n", "none", False, False)}
        hub.tick("BTC/USD", 6_100_000_000_000)
        assert (await reader.until(f="t"))["id"] == "Crypto.BTC/USD"
        async with streaming(charts.url, "/udf") as late:  # one who comes now hears of no old price either
            lines = [await late.line(), await late.line()]
            assert {line.get("id") or line["symbol"]: line["f"] for line in lines} == {
                "Crypto.BTC/USD": "t",
                "Crypto.SOL/USD": "n",
            }


async def test_a_quiet_stream_has_heartbeats(database: Path) -> None:
    hub = await HubStage().start()
    async with charts_beside(hub, database, heartbeat_ms=20) as charts, streaming(charts.url) as reader:
        await reader.line()
        await reader.line()
        assert set(await reader.line()) == {"T"}
        assert set(await reader.line()) == {"T"}


async def test_streams_are_counted_bounded_and_open_to_allowed_origins(database: Path) -> None:
    hub = await HubStage().start()
    origin = "https://chart.example"
    async with charts_beside(
        hub, database, max_listeners_per_ip=1, allowed_origins=(origin,), heartbeat_ms=20
    ) as charts:
        async with streaming(charts.url, Origin=origin) as reader:
            assert reader.response.headers["Access-Control-Allow-Origin"] == origin
            assert charts.context.listening == 1
            async with aiohttp.ClientSession() as http, http.get(f"{charts.url}/udf/streaming") as refused:
                assert refused.status == 429
                assert (await refused.json())["s"] == "error"
        await turns_until(lambda: charts.context.listening == 0)


async def test_streams_end_with_the_process(database: Path) -> None:
    hub = await HubStage().start()
    async with charts_beside(hub, database) as charts, streaming(charts.url) as reader:
        await reader.line()
        charts.context.stop_listening()
        async with asyncio.timeout(PATIENCE_S):
            await reader.response.content.read()
        assert reader.response.content.at_eof()


async def test_a_reader_that_stalled_finds_little_that_is_old(database: Path) -> None:
    hub, n_ticks = await HubStage().start(), 1_500
    async with charts_beside(hub, database) as charts, stalled_reader(charts, "/udf/streaming") as (stalled, transport):
        await tick_on(hub, charts, range(1, n_ticks + 1))
        transport.resume_reading()
        newest = f'"p":{decimal_text(15_000_000_000 + n_ticks, -8)},'
        told: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            while not told or newest not in told[-1]:
                told.append((await stalled.readline()).decode())
        assert sum('"id":"Crypto.SOL/USD"' in line for line in told) < n_ticks // 2


async def test_a_reader_that_takes_nothing_is_cut_off(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udf_stream, "WRITE_TIMEOUT_S", 0.02)
    hub = await HubStage().start()
    async with charts_beside(hub, database) as charts, stalled_reader(charts, "/udf/streaming"):
        await tick_on(hub, charts, range(1, 20_000), lambda: charts.context.listening == 0)
        assert charts.context.listening == 0
        assert charts.context.failures == 0
