"""Divergence and age of sources second by second: what holds at each second, bounded, and no second too many."""

import math
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from oracle_hub.charts import trends
from oracle_hub.charts.app import Charts
from oracle_hub.charts.trends import KEPT_S, _Trend
from tests.charts.charts_stage import SECOND_US, ChartsStage
from tests.charts.hermes_stage import get

SOL = "SOL/USD"


@pytest.fixture
async def stage(tmp_path: Path) -> ChartsStage:
    return await ChartsStage(tmp_path / "charts.sqlite").start_hub()


async def sampled(stage: ChartsStage, charts: Charts) -> int:
    """Let charts look at this second; returns it."""
    await stage.heard(charts)
    charts.recorder.tick()
    return stage.hub.service.clock_us // SECOND_US


async def test_what_held_at_each_second_is_told(stage: ChartsStage) -> None:
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        start_s = await sampled(stage, charts)
        stage.tick(SOL, 15_000_000_000)
        stage.tick(SOL, 15_015_000_000, "doves")  # the others are 10 bps away, and a little older
        stage.wait(SECOND_US)
        assert await sampled(stage, charts) == start_s + 1
        await sampled(stage, charts)  # the same second again
        stage.wait(3 * SECOND_US)
        assert await sampled(stage, charts) == start_s + 4  # two seconds were not looked at
        status, told = await get(http, "/v1/trends/SOL-USD")
        assert (status, told["feed"], told["kept_s"], told["simulated"]) == (200, SOL, KEPT_S, False)
        assert told["times"] == [start_s, start_s + 1, start_s + 4]
        assert list(told["sources"]) == ["doves", "chainlink", "pyth"]
        assert told["sources"]["pyth"]["divergence_bps"][1:] == [10.0, 10.0]
        assert told["sources"]["doves"]["divergence_bps"][1:] == [0.0, 0.0]
        ages = told["sources"]["doves"]["age_ms"]
        assert ages[2] == ages[1] + 3_000 and 1_000 <= ages[1] < 1_010
        assert told["sources"]["pyth"]["age_ms"][2] == ages[2] + 1
        _, told = await get(http, "/v1/trends/SOL/USD?seconds=4")
        assert told["times"] == [start_s + 1, start_s + 4]
    await stage.stop()


async def test_of_a_source_that_may_not_be_used_there_is_no_divergence(stage: ChartsStage) -> None:
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        stage.wait(15 * SECOND_US)  # all are stale
        await sampled(stage, charts)
        _, told = await get(http, "/v1/trends/SOL-USD?seconds=1")
        for source in told["sources"].values():
            assert source["divergence_bps"] == [None] and source["age_ms"][0] >= 15_000
    await stage.stop()


async def test_nothing_is_told_of_seconds_in_which_the_hub_was_not_heard(stage: ChartsStage) -> None:
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        last_s = await sampled(stage, charts)
        await stage.hub.server.stop("gone")
        while charts.live.status.connected:
            await http.get("/livez")
        charts.recorder.tick()
        _, told = await get(http, "/v1/trends/SOL-USD")
        assert told["times"] == [last_s]


async def test_feeds_beyond_the_bound_are_not_kept(stage: ChartsStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trends, "MAX_FEEDS", 1)
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        await sampled(stage, charts)
        told: dict[str, Any] = {}
        for feed in stage.feeds:
            _, told[feed] = await get(http, f"/v1/trends/{feed}")
        kept = [feed for feed, one in told.items() if one["kept_s"]]
        assert kept == [SOL] and len(told[SOL]["times"]) == 1
        assert (told["BTC/USD"]["times"], told["BTC/USD"]["sources"]) == ([], {})
    await stage.stop()


def test_only_the_last_half_hour_is_kept_and_sources_may_come_and_go() -> None:
    trend = _Trend()
    first = 1_790_000_000
    for time_s in range(first, first + KEPT_S + 500):
        name = "old" if time_s < first + KEPT_S else "new"
        trend.put(time_s, {name: (1.5, time_s - first)})
    last = first + KEPT_S + 499
    slots = trend.slots(last, KEPT_S)
    assert [trend.times[slot] for slot in slots] == list(range(last - KEPT_S + 1, last + 1))
    divergences, ages = trend.sources["old"]
    assert [ages[slot] for slot in slots] == [*range(500, KEPT_S), *[-1] * 500]
    assert math.isnan(divergences[slots[-1]]) and divergences[slots[0]] == 1.5
    assert [trend.sources["new"][1][slot] for slot in slots] == [*[-1] * (KEPT_S - 500), *range(KEPT_S, KEPT_S + 500)]
    assert trend.slots(last + KEPT_S, KEPT_S) == []
