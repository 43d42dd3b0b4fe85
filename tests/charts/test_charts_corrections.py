"""Bars of the past that another process corrects or adds while charts listen: told as revisions."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from oracle_hub.charts import bars_messages as wire
from oracle_hub.charts import bars_socket
from oracle_hub.charts.app import Charts
from oracle_hub.charts.bars import Bar
from oracle_hub.charts.resolutions import Resolution
from oracle_hub.charts.store import open_store
from tests.charts.charts_stage import SECOND_US, BarsClient, ChartsStage, bars_client
from tests.charts.test_charts_recording import settle

SOL, S1 = "SOL/USD", Resolution.S1


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChartsStage:
    monkeypatch.setattr(bars_socket, "CORRECTIONS_INTERVAL_S", 0.02)
    return await ChartsStage(tmp_path / "charts.sqlite").start_hub()


async def some_bars(stage: ChartsStage, charts: Charts, seconds: int = 5) -> list[Bar]:
    """Final bars of as many seconds, in the store."""
    for second in range(seconds + 1):
        stage.tick(SOL, 15_000_000_000 + second, after_us=SECOND_US)
    await settle(stage, charts)
    return [bar for bar in charts.store.bars(SOL, S1, 0, 2**62) if bar.closed]


def write_elsewhere(stage: ChartsStage, *bars: Bar) -> None:
    """As a process does that rebuilds or imports."""
    with open_store(stage.database) as store:
        store.write(bars=list(bars))


async def revised(client: BarsClient) -> wire.Revisions:
    message = await client.until(lambda one: isinstance(one, wire.Revisions))
    assert isinstance(message, wire.Revisions)
    return message


async def test_a_corrected_bar_is_told_with_its_revision(stage: ChartsStage) -> None:
    async with stage.charts() as charts, bars_client(charts) as client, bars_client(charts) as late:
        bars = await some_bars(stage, charts)
        await client.subscribe([SOL], "1S", count=100)
        await late.subscribe([SOL], "1S", from_us=bars[-1].start_us)
        wrong = bars[-3]
        write_elsewhere(stage, msgspec.structs.replace(wrong, high=wrong.high + 77, gap=False))
        told = await revised(client)
        (bar,) = [one for one in told.bars if one.start_us == wrong.start_us]
        assert (told.feed, bar.high, bar.revision, bar.closed) == (SOL, str(wrong.high + 77), 1, True)
        assert len(told.bars) == 1
        stage.tick(SOL, 15_000_000_900, after_us=2 * SECOND_US)
        await stage.heard(charts)
        for one in (client, late):  # live bars go on; who does not have that bar is told nothing of it
            await one.final(SOL, bars[-1].start_us + SECOND_US)
        assert not any(isinstance(one, wire.Revisions) for one in late.messages)
        write_elsewhere(stage, msgspec.structs.replace(wrong, high=wrong.high + 78, gap=False))
        assert [one.revision for one in (await revised(client)).bars] == [2]
        write_elsewhere(stage, msgspec.structs.replace(bars[-1], low=bars[-1].low - 5, gap=False))
        assert [one.start_us for one in (await revised(late)).bars] == [bars[-1].start_us]
    await stage.stop()


async def test_a_bar_that_was_missing_is_told(stage: ChartsStage) -> None:
    async with stage.charts() as charts, bars_client(charts) as client:
        bars = await some_bars(stage, charts)
        stage.wait(15 * SECOND_US)  # no price: no bars
        bars += await some_bars(stage, charts, 2)
        await client.subscribe([SOL], "1S", count=100)
        starts = [bar.start_us for bar in bars]
        hole_us = next(at + SECOND_US for at in starts if at + SECOND_US not in starts)
        write_elsewhere(stage, msgspec.structs.replace(bars[0], start_us=hole_us, gap=False, revision=0))
        await revised(client)
        assert hole_us in client.bars[SOL]
        stored = charts.store.bars(SOL, S1, 0, 2**62)
        assert sorted(client.bars[SOL]) == [bar.start_us for bar in stored]
    await stage.stop()


async def test_what_charts_write_themselves_is_no_correction(stage: ChartsStage) -> None:
    async with stage.charts() as charts, bars_client(charts) as client:
        await client.subscribe([SOL], "1S")
        await asyncio.to_thread(charts.store.changed_by_others)
        bars = await some_bars(stage, charts, 8)
        assert not await asyncio.to_thread(charts.store.changed_by_others)
        await client.final(SOL, bars[-1].start_us)
        assert not any(isinstance(one, wire.Revisions) for one in client.messages)
        assert charts.context.failures == 0
    await stage.stop()
