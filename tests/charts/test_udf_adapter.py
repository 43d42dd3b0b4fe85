"""A year of minutes, paged back by a client that asks as TradingView's public adapter does, until it stops."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.charts.charts_stage import charts_beside
from tests.charts.udf_stage import fill, open_minute, plain_bars
from tests.client.client_stage import HubStage
from tests.conftest import require
from tests.server.stream_service import START_US

ADAPTER = Path(__file__).resolve().parent.parent / "js" / "udf_adapter.mjs"
NOW_S = START_US // 1_000_000
LAST_S = NOW_S - NOW_S % 60
YEAR = 525_600
HOLE = range(200_000, 230_000)
"""Minutes back from now with no bars: three weeks without a price."""


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    starts = [LAST_S - 60 * back for back in range(1, YEAR + len(HOLE)) if back not in HOLE]
    bars = [msgspec.structs.replace(bar, imported=True) for bar in plain_bars(reversed(starts))]
    return fill(tmp_path_factory.mktemp("year"), bars)


@pytest.fixture
async def url(year: Path) -> AsyncIterator[str]:
    """The last minute of the year is the open one, of what the hub says now."""
    hub = await HubStage().start()
    async with charts_beside(hub, year) as charts:
        await open_minute(hub, charts)
        yield charts.url


async def page_back(url: str, *arguments: object) -> dict[str, Any]:
    node = shutil.which("node")
    require(node is not None, "node")
    assert node is not None
    process = await asyncio.create_subprocess_exec(
        node, str(ADAPTER), url, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    seen: dict[str, Any] = json.loads(out)
    return seen


@pytest.mark.parametrize("prefix", ["/udf", "/v1/shims/tradingview"])
async def test_it_pages_back_by_countback_through_a_year_and_stops(url: str, prefix: str) -> None:
    seen = await page_back(url + prefix, "ORACLEHUB:SOLUSD", "1", 5_000, NOW_S + 3_600, "countback")
    assert (seen["bars"], seen["faults"], seen["jumps"]) == (YEAR, [], 0)
    assert (seen["first"], seen["last"]) == ((LAST_S - 60 * (YEAR + len(HOLE) - 1)) * 1000, LAST_S * 1000)
    assert seen["pages"] == -(-YEAR // 5_000) + 1  # the last one says that there is no more
    assert (seen["symbol"]["ticker"], seen["symbol"]["pricescale"]) == ("Crypto.SOL/USD", 100_000_000)


async def test_without_countback_it_is_led_over_the_hole_by_next_time(url: str) -> None:
    seen = await page_back(url + "/udf", "SOL", "1", 10_000, NOW_S + 60, "range")
    assert (seen["bars"], seen["faults"]) == (YEAR, [])
    assert seen["jumps"] == 1
    assert seen["first"] == (LAST_S - 60 * (YEAR + len(HOLE) - 1)) * 1000


async def test_the_whole_year_comes_in_one_answer(url: str) -> None:
    seen = await page_back(url + "/udf", "SOL/USD", "1", YEAR + len(HOLE), LAST_S + 60, "range")
    assert (seen["bars"], seen["faults"], seen["pages"]) == (YEAR, [], 2)


async def test_an_unknown_symbol_ends_it_with_the_name(url: str) -> None:
    with pytest.raises(AssertionError, match=r"unknown_symbol: DOGEUSD"):
        await page_back(url + "/udf", "DOGEUSD", "1", 10, NOW_S, "countback")
