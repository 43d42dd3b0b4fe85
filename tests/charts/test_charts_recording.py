"""Bars that are told live, bars in the store, and bars computed plainly from all decisions: the same ones."""

import sqlite3
from pathlib import Path

import aiohttp
import msgspec
import pytest

from oracle_hub.charts import bars_messages as wire
from oracle_hub.charts.app import Charts
from oracle_hub.charts.bars import Bar
from oracle_hub.charts.bars_http import BarEntry, BarsAnswer, bar_entry
from oracle_hub.charts.resolutions import Resolution
from oracle_hub.charts.store import open_store
from oracle_hub.client import NoPrice, Refusal
from tests.charts.charts_stage import SECOND_US, BarsClient, ChartsStage, bars_client
from tests.charts.plain_bars import plain_bars
from tests.client.client_stage import turns_until

SOL = "SOL/USD"
S1 = Resolution.S1


@pytest.fixture
async def stage(tmp_path: Path) -> ChartsStage:
    return await ChartsStage(tmp_path / "charts.sqlite").start_hub()


def plainly(stage: ChartsStage, begin_us: int, resolution: Resolution = S1, feed: str = SOL) -> list[Bar]:
    """Final bars by the plain rule, from the second in which recording began; what is a gap is judged elsewhere."""
    bars = plain_bars(stage.points_of(feed), resolution, begin_us, stage.hub.service.clock_us)
    return [msgspec.structs.replace(bar, gap=False) for bar in bars if bar.closed]


def without_gap(bar: BarEntry | Bar) -> BarEntry:
    entry = bar if isinstance(bar, BarEntry) else bar_entry(bar)
    return msgspec.structs.replace(entry, gap=False)


def stored(stage: ChartsStage, resolution: Resolution = S1, feed: str = SOL) -> list[Bar]:
    """Final bars in the file."""
    with open_store(stage.database) as store:
        return [msgspec.structs.replace(bar, gap=False) for bar in store.bars(feed, resolution, 0, 2**62)]


def final_bars(client: BarsClient, feed: str = SOL) -> list[BarEntry]:
    return [without_gap(bar) for _, bar in sorted(client.bars[feed].items()) if bar.closed]


def walk(stage: ChartsStage, steps: int, seed: int = 7) -> None:
    """Prices that move, stand still, and stay away for longer than their lease."""
    for step in range(steps):
        seed = seed * 1_103_515_245 + 12_345 & 0x7FFFFFFF
        pause_us = (90_000, 350_000, 1_200_000, 2_600_000)[seed % 4] if step % 9 else 12 * SECOND_US
        if step % 9 == 0:
            stage.wait(pause_us)
        else:
            stage.tick(SOL, 15_000_000_000 + seed % 50_000_000, after_us=pause_us)


def second_before(stage: ChartsStage) -> int:
    """Start of the last second that is over."""
    return S1.start_us(stage.hub.service.clock_us) - SECOND_US


async def settle(stage: ChartsStage, charts: Charts) -> None:
    """Everything until now is in the file."""
    await stage.heard(charts)
    charts.recorder.harvest()
    writer = charts.recorder.writer
    assert writer is not None
    await turns_until(lambda: writer.rows_waiting == 0)


async def test_live_bars_are_the_stored_and_the_plain_ones(stage: ChartsStage) -> None:
    begin_us = stage.hub.service.clock_us
    async with stage.charts() as charts, bars_client(charts) as client:
        await client.subscribe([SOL, "XRP/USD"], "1S", count=10)
        answer = next(one for one in client.messages if isinstance(one, wire.Subscribed))
        assert (answer.accepted, [one.code for one in answer.rejected]) == ([SOL], ["unknown_feed"])
        walk(stage, 40)
        stage.tick(SOL, 15_000_000_001, after_us=100_000)
        stage.wait(2 * SECOND_US)
        await client.final(SOL, second_before(stage))
        await settle(stage, charts)
    plain = plainly(stage, begin_us)
    assert len(plain) > 20
    assert stored(stage) == plain
    assert final_bars(client) == [bar_entry(bar) for bar in plain]
    minutes = plainly(stage, begin_us, Resolution.M1)
    assert len(minutes) >= 1 and stored(stage, Resolution.M1) == minutes
    await stage.stop()


async def test_the_first_run_of_a_hub_has_no_gap_before_it(tmp_path: Path) -> None:
    stage = ChartsStage(tmp_path / "charts.sqlite")
    service = stage.hub.service
    service.first_epoch, begin_us = service.epoch, service.clock_us
    await stage.start_hub()
    walk(stage, 8)  # the hub decides for a while before anybody listens
    async with stage.charts() as charts:
        assert charts.recorder.gaps == 0
        stage.tick(SOL, 15_000_000_001, after_us=2_500_000)
        await settle(stage, charts)
    with open_store(stage.database) as store:
        assert store.gaps() == []
        bars = store.bars(SOL, S1, 0, 2**62)
        points = store.points(SOL, 0, 2**62)
    assert bars == plain_bars(stage.points_of(SOL), S1, begin_us, bars[-1].start_us + SECOND_US)
    assert (points[0].seq, points[0].reason, points[0].decided_us) == (1, "warming", begin_us)
    assert not any(bar.gap for bar in bars)
    await stage.stop()


@pytest.mark.parametrize("forgotten", [True, False])
async def test_a_run_that_is_not_whole_or_not_the_first_has_a_gap_before_it(tmp_path: Path, forgotten: bool) -> None:
    stage = ChartsStage(tmp_path / "charts.sqlite")
    service = stage.hub.service
    service.first_epoch = service.epoch if forgotten else service.epoch - 1
    await stage.start_hub()
    if forgotten:
        stage.hub.server.config_changed(forget_past=True)
    stage.tick(SOL, 15_000_000_001)
    async with stage.charts() as charts:
        stage.tick(SOL, 15_000_000_002, after_us=2_500_000)
        await settle(stage, charts)
        assert charts.recorder.gaps == 0
    with open_store(stage.database) as store:
        assert [gap.reason for gap in store.gaps()] == ["recording began here"]
        assert store.bars(SOL, S1, 0, 2**62)[0].gap
    await stage.stop()


async def test_a_restart_of_charts_loses_and_repeats_nothing(stage: ChartsStage) -> None:
    begin_us = stage.hub.service.clock_us
    async with stage.charts() as charts, bars_client(charts) as client:
        await client.subscribe([SOL], "1S")
        walk(stage, 12)
        stage.tick(SOL, 15_000_000_001, after_us=1_500_000)
        await client.final(SOL, second_before(stage))
    walk(stage, 10, seed=11)  # nobody listens; the hub remembers
    async with stage.charts() as charts:
        assert charts.recorder.gaps == 0
        async with bars_client(charts) as again:
            again.bars, again.newest_us = client.bars, client.newest_us
            await again.subscribe([SOL], "1S", from_us=client.finals[SOL][-1])
            walk(stage, 10, seed=13)
            stage.tick(SOL, 15_000_000_001, after_us=100_000)
            stage.wait(2 * SECOND_US)
            await again.final(SOL, second_before(stage))
            await settle(stage, charts)
    plain = plainly(stage, begin_us)
    assert stored(stage) == plain
    assert final_bars(again) == [bar_entry(bar) for bar in plain]
    with open_store(stage.database) as store:
        assert [gap.reason for gap in store.gaps()] == ["recording began here"]
        assert [point.decided_us for point in store.points(SOL, 0, 2**62)] == sorted(
            {point.decided_us for point in stage.points_of(SOL)}
        )
    await stage.stop()


async def test_a_restart_of_the_hub_loses_and_repeats_nothing_but_marks_what_it_cannot_know(
    stage: ChartsStage,
) -> None:
    begin_us = stage.hub.service.clock_us
    async with stage.charts() as charts, bars_client(charts) as client:
        await client.subscribe([SOL], "1S")
        walk(stage, 12)
        stage.tick(SOL, 15_000_000_001, after_us=500_000)
        await stage.heard(charts)
        heard_us = stage.hub.service.clock_us
        await stage.restart_hub()
        born_us = stage.points_of(SOL)[-1].decided_us
        await stage.heard(charts)
        assert charts.live.status.epoch == stage.hub.service.epoch
        walk(stage, 12, seed=3)
        stage.tick(SOL, 15_000_000_001, after_us=100_000)
        stage.wait(2 * SECOND_US)
        await client.final(SOL, second_before(stage))
        await settle(stage, charts)
        assert charts.recorder.gaps == 1
    assert stored(stage) == plainly(stage, begin_us)
    assert final_bars(client) == [without_gap(bar) for bar in stored(stage)]
    with open_store(stage.database) as store:
        began, gap = store.gaps()
        assert began.reason == "recording began here"
        assert heard_us <= gap.from_us < born_us <= gap.to_us <= stage.points_of("BTC/USD")[-1].decided_us
        marked = [bar for bar in store.bars(SOL, S1, S1.end_us(began.to_us), 2**62) if bar.gap]
        assert marked and all(gap.from_us < bar.start_us + SECOND_US and bar.start_us < gap.to_us for bar in marked)
    await stage.stop()


async def test_no_door_shows_a_number_past_its_lease(stage: ChartsStage) -> None:
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        listener = charts.live.listen([SOL])
        async with listener:
            stage.tick(SOL, 15_000_000_500)
            await stage.heard(charts)
            assert [update.price is not None for update in listener.take()] == [True]
            until_us = charts.live.price(SOL).valid_until_us
            assert until_us is not None
            stage.hub.service.clock_us = until_us  # and no word from the hub
            with pytest.raises(NoPrice) as refused:
                charts.live.price(SOL)
            assert refused.value.reason is Refusal.LEASE_OVER
            async with http.get("/v1/sse?feeds=SOL-USD") as events:
                first = await events.content.readuntil(b"\n\n") + await events.content.readuntil(b"\n\n")
            assert b'"state":"none","price":null' in first and b'"reason":"lease_over"' in first
            assert b"15000000500" not in first
            stage.wait(0)
            update = await anext(listener)
            while update.point is None or update.point.state != "none":  # first told by the client itself
                assert update.price is None
                update = await anext(listener)
            assert update.price is None
            stage.wait(5 * SECOND_US)
            await stage.heard(charts)
            async with http.get("/v1/bars/SOL-USD?resolution=1S&countback=3") as answer:
                bars = msgspec.json.decode(await answer.read(), type=BarsAnswer).bars
            assert max(bar.start_us for bar in bars) < until_us  # an expired price makes no bars
    await stage.stop()


async def test_a_full_disk_stops_nothing_but_the_disk(stage: ChartsStage, caplog: pytest.LogCaptureFixture) -> None:
    begin_us = stage.hub.service.clock_us
    async with stage.charts() as charts, bars_client(charts) as client, aiohttp.ClientSession(charts.url) as http:
        await client.subscribe([SOL], "1S")
        stage.tick(SOL, 15_000_000_001, after_us=SECOND_US)
        await client.final(SOL, second_before(stage))
        await settle(stage, charts)
        writer, database = charts.recorder.writer, charts.store._db
        assert writer is not None
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        while writer.error is None:
            for step in range(100):
                stage.tick(SOL, 15_000_000_000 + step, after_us=777_000)
            await client.final(SOL, second_before(stage))
            await turns_until(lambda: writer.error is not None or writer.rows_waiting == 0)
        async with http.get("/readyz") as answer:
            ready = await answer.json()
        assert ready["ready"] is True and ready["store"]["ok"] is False
        assert "the disk is full" in ready["store"]["error"]
        stage.tick(SOL, 15_123_000_000, after_us=SECOND_US)
        await client.final(SOL, second_before(stage))  # the doors go on
        assert charts.live.price(SOL).mantissa == 15_123_000_000
        async with http.get("/v1/bars/SOL-USD?resolution=1S&countback=10000") as answer:
            told = msgspec.json.decode(await answer.read(), type=BarsAnswer).bars
        assert [without_gap(bar) for bar in told if bar.closed] == [bar_entry(bar) for bar in plainly(stage, begin_us)]
        database.execute("PRAGMA max_page_count = 1000000")
        await turns_until(lambda: writer.error is None)
        await settle(stage, charts)
        assert (writer.rows_lost, writer.rows_waiting) == (0, 0)
    lines = [record.message for record in caplog.records if record.name == "oracle_hub.charts.writing"]
    assert len(lines) == 2 and "the disk is full" in lines[0] and "can be written again" in lines[1]
    assert stored(stage) == plainly(stage, begin_us)
    check = sqlite3.connect(stage.database)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()
    await stage.stop()
