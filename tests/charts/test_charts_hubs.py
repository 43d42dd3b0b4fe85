"""Charts beside several hubs, and the names that they answer to."""

import logging
from pathlib import Path

import aiohttp
import pytest

from oracle_hub.app.charts import DOORS
from oracle_hub.charts.app import Charts
from oracle_hub.charts.resolutions import Resolution
from oracle_hub.stream.messages import CloseCode
from tests.charts.charts_stage import SECOND_US, SETTINGS, ChartsStage, bars_client
from tests.client.client_stage import HubStage, turns_until

SOL = "SOL/USD"
OTHER = "0b5e0000-0000-4000-8000-000000000002"


async def test_bars_go_on_with_another_hub(tmp_path: Path) -> None:
    """A is lost; B, which has been there all the time, is another instance with a sequence of its own."""
    stage = await ChartsStage(tmp_path / "charts.sqlite").start_hub()
    other = HubStage(*stage.feeds, instance=OTHER, epoch=stage.hub.service.epoch + 500)
    await other.start()
    urls = [stage.hub.url, other.url]
    async with Charts(urls, stage.database, SETTINGS, clock_us=stage.clock_us, doors=DOORS) as charts:
        await turns_until(lambda: charts.live.status.connected)
        await stage.heard(charts)
        assert (charts.live.status.url, charts.recorder.hub) == (urls[0], urls[0])
        async with bars_client(charts) as client:
            await client.subscribe([SOL], "1S", count=10)
            for second in range(3):
                stage.tick(SOL, 15_000_000_100 + second, after_us=SECOND_US)
            await stage.heard(charts)
            before_us = stage.hub.service.clock_us
            first = stage.hub
            await first.server.stop("killed")
            other.service.clock_us = before_us + 2 * SECOND_US
            stage.hub = other  # by whose clock everything goes from now on
            for second in range(4):
                stage.tick(SOL, 15_000_000_200 + second, after_us=SECOND_US)
            await turns_until(lambda: charts.live.status.connected and charts.live.status.url == urls[1])
            assert charts.recorder.hub == urls[1]
            assert charts.recorder.hub_url("/readyz") == f"http{urls[1][2:].removesuffix('/v1/stream')}/readyz"
            for second in range(4, 8):
                stage.tick(SOL, 15_000_000_200 + second, after_us=SECOND_US)
            await stage.heard(charts)
            assert charts.live.status.instance == OTHER
            update = charts.live.update(SOL)
            assert update.price is not None and update.price.mantissa == 15_000_000_207
            last_us = Resolution.S1.start_us(stage.hub.service.clock_us) - SECOND_US
            await client.final(SOL, last_us)
            closes = {bar.close for bar in client.bars[SOL].values()}
            assert {"15000000101", "15000000205", "15000000206"} <= closes
        charts.recorder.harvest()
        writer = charts.recorder.writer
        assert writer is not None
        await turns_until(lambda: writer.rows_waiting == 0)
        (gap,) = [one for one in charts.store.gaps() if one.from_us > 0]
        assert before_us - SECOND_US <= gap.from_us <= before_us < gap.to_us <= last_us
    await other.server.stop("the test is over")


async def test_a_restart_begins_with_the_first_hub_again(tmp_path: Path) -> None:
    """B was followed while A was away. Charts stay with B; when they are started again they follow A, with a gap."""
    stage = await ChartsStage(tmp_path / "charts.sqlite").start_hub()
    other = HubStage(*stage.feeds, instance=OTHER, epoch=stage.hub.service.epoch + 500)
    await other.start()
    urls = [stage.hub.url, other.url]
    for hubs, instance in ((urls[1:], OTHER), (urls, stage.hub.service.instance)):
        async with Charts(hubs, stage.database, SETTINGS, clock_us=stage.clock_us, doors=DOORS) as charts:
            await turns_until(lambda: charts.live.status.connected)
            assert charts.live.status.instance == instance
            assert charts.live.update(SOL).price is not None
    await stage.stop()
    await other.server.stop("the test is over")


async def test_a_short_loss_of_the_hub_is_no_reason_for_another_one(tmp_path: Path) -> None:
    """The hub that was lost replays what was missed; with the other one it would be a gap."""
    stage = await ChartsStage(tmp_path / "charts.sqlite").start_hub()
    other = HubStage(*stage.feeds, instance=OTHER, epoch=stage.hub.service.epoch + 500)
    await other.start()
    async with Charts(
        [stage.hub.url, other.url], stage.database, SETTINGS, clock_us=stage.clock_us, doors=DOORS
    ) as charts:
        await turns_until(lambda: charts.live.status.connected)
        for second in range(3):
            stage.tick(SOL, 15_000_000_100 + second, after_us=SECOND_US)
            await stage.heard(charts)
        subscribers, others = stage.hub.server._subscribers, other.server._subscribers
        assert subscribers is not None and others is not None
        (client,) = subscribers._clients
        subscribers._close_soon(client, CloseCode.TOO_SLOW)
        for second in range(3):
            stage.tick(SOL, 15_000_000_200 + second)  # as it goes
        await turns_until(lambda: charts.live.connections == 2 and charts.live.status.connected)
        await stage.heard(charts)
        assert (charts.live.status.url, charts.live.status.instance) == (stage.hub.url, stage.hub.service.instance)
        update = charts.live.update(SOL)
        assert update.price is not None and update.price.mantissa == 15_000_000_202
        assert charts.recorder.gaps == 0
        charts.recorder.harvest()
        writer = charts.recorder.writer
        assert writer is not None
        await turns_until(lambda: writer.rows_waiting == 0)
        assert {one.seq for one in stage.points_of(SOL)} == {
            one.seq for one in charts.store.points(SOL, from_us=0, to_us=2**62)
        }
    await stage.stop()
    await other.server.stop("the test is over")


@pytest.mark.parametrize("looked", [True, False], ids=["while it is followed", "before anybody has looked"])
async def test_why_the_hub_was_lost_is_told_however_short_it_was(
    looked: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Closed as too slow, charts are back before anybody looks: the key that would help is named all the same."""
    stage = await ChartsStage(tmp_path / "charts.sqlite").start_hub()

    def told() -> str:  # by charts; the client library, which has a log of its own, is silent there
        return "\n".join(one.getMessage() for one in caplog.records if one.name == "oracle_hub.charts.recorder")

    with caplog.at_level(logging.INFO, "oracle_hub.charts.recorder"):
        async with stage.charts() as charts:
            subscribers = stage.hub.server._subscribers
            assert subscribers is not None
            if looked:
                await turns_until(lambda: "following the hub at" in told())
            for client in tuple(subscribers._clients):
                subscribers._close_soon(client, CloseCode.TOO_SLOW)
            await turns_until(
                lambda: "closed with 4001 too_slow: more waited for us than server.max_unsent_bytes" in told()
            )
            await turns_until(lambda: charts.live.status.connected)
    await stage.stop()


@pytest.mark.parametrize(("allowed", "status"), [((), 421), (("charts.example",), 200), (("*",), 200)])
async def test_names_that_charts_answer_to(tmp_path: Path, allowed: tuple[str, ...], status: int) -> None:
    stage = await ChartsStage(tmp_path / "charts.sqlite").start_hub()
    named = {"Host": "charts.example"}
    async with stage.charts(allowed_hosts=allowed) as charts, aiohttp.ClientSession(charts.url) as http:
        for path in ("/", "/livez", "/udf/config", "/v1/bars/SOL-USD", "/api/price_feed_ids", "/v1/stream"):
            async with http.get(path, headers=named) as answer:
                assert answer.status == (status if path != "/v1/stream" or status == 421 else 426), path
                if status == 421:
                    assert (await answer.json())["error"]["code"] == "host_refused"
        async with http.get("/livez", headers={"Host": "localhost:8081"}) as answer:
            assert answer.status == 200
    await stage.stop()
