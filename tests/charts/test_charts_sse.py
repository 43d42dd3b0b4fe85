"""The native stream as server-sent events: what is told, what is resumed, and who is refused."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from oracle_hub.charts import sse
from oracle_hub.charts.app import Charts
from oracle_hub.charts.sse import Ring, parse_id
from oracle_hub.charts.store_reads import Position
from tests.charts.charts_stage import SECOND_US, ChartsStage, bars_client, charts_beside
from tests.charts.plain_bars import INSTANCE, point
from tests.charts.stalled import stalled_reader, tick_on
from tests.client.client_stage import HubStage, turns_until
from tests.patience import PATIENCE_S

SOL, BTC = "SOL/USD", "BTC/USD"


@pytest.fixture
async def stage(tmp_path: Path) -> ChartsStage:
    return await ChartsStage(tmp_path / "charts.sqlite").start_hub()


class Events:
    """An event stream, read one event at a time. ``last_id`` is what a browser would come back with."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self.last_id = ""

    async def next(self) -> tuple[str, dict[str, Any]]:
        """The next event: its name, and its data."""
        while True:
            text = (await self._content.readuntil(b"\n\n")).decode()
            fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
            self.last_id = fields.get("id", self.last_id)
            if "event" in fields:
                return fields["event"], orjson.loads(fields["data"])

    async def until(self, kind: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next event of a kind that is wanted."""
        while True:
            name, data = await self.next()
            if name == kind and wanted(data):
                return data


@asynccontextmanager
async def events(charts: Charts, query: str = "", last_id: str | None = None) -> AsyncIterator[Events]:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with (
        aiohttp.ClientSession(charts.url, timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as http,
        http.get(f"/v1/sse{query}", headers=headers) as response,
    ):
        assert (response.status, response.content_type) == (200, "text/event-stream")
        yield Events(response.content)


async def test_a_reader_is_told_what_holds_and_what_changes(stage: ChartsStage) -> None:
    async with stage.charts(heartbeat_ms=50) as charts, events(charts, "?feeds=SOL-USD") as stream:
        snapshot = await stream.until("snapshot")
        assert [(feed["feed"], feed["price"], feed["state"]) for feed in snapshot["feeds"]] == [
            (SOL, "15000000000", "live")
        ]
        assert (snapshot["recovered"], snapshot["connected"], snapshot["simulated"]) == (None, True, None)
        assert stream.last_id == f"{snapshot['instance']}:{snapshot['epoch']}:{snapshot['seq']}"
        stage.tick(BTC, 6_000_000_000_000)
        stage.tick(SOL, 15_000_000_009)
        update = (await stream.until("update"))["feed"]
        decided = stage.points_of(SOL)[-1]
        assert (update["feed"], update["price"], update["seq"]) == (SOL, "15000000009", decided.seq)
        assert (update["decided_us"], update["valid_until_us"]) == (decided.decided_us, decided.valid_until_us)
        assert 0 < update["lease_left_us"] <= (decided.valid_until_us or 0) - decided.decided_us
        assert (await stream.until("heartbeat"))["not_live"] == []
        stage.wait(11 * SECOND_US)
        over = await stream.until("update", lambda data: data["feed"]["state"] == "none")
        assert over["feed"]["price"] is None
        assert (await stream.until("heartbeat"))["not_live"] == [SOL]
    await stage.stop()


async def test_who_comes_back_is_replayed_everything_once(stage: ChartsStage) -> None:
    async with stage.charts() as charts:
        async with events(charts) as stream:
            await stream.until("snapshot")
        for step in range(20):
            stage.tick(SOL, 15_000_000_100 + step)
            stage.tick(BTC, 6_000_000_000_100 + step)
        await stage.heard(charts)
        async with events(charts, "?feeds=SOL/USD", stream.last_id) as again:
            told = [(await again.until("update")) for _ in range(20)]
            assert [one["feed"]["price"] for one in told] == [str(15_000_000_100 + step) for step in range(20)]
            assert all(one["replayed"] for one in told)
            name, snapshot = await again.next()
            assert (name, snapshot["recovered"], snapshot["feeds"][0]["price"]) == ("snapshot", True, "15000000119")
    await stage.stop()


@pytest.mark.parametrize("last_id", ["nonsense", "a:1:2", "", "x:" * 99, "{instance}:{epoch}:999999", "{instance}:1:1"])
async def test_what_cannot_be_resumed_is_said(stage: ChartsStage, last_id: str) -> None:
    name = last_id.replace("{instance}", stage.hub.service.instance).replace("{epoch}", str(stage.hub.service.epoch))
    async with stage.charts() as charts, events(charts, last_id=name) as stream:
        kind, snapshot = await stream.next()
        assert (kind, snapshot["recovered"]) == ("snapshot", False)
    await stage.stop()


async def test_a_restarted_hub_is_another_epoch(stage: ChartsStage) -> None:
    async with stage.charts() as charts:
        async with events(charts) as stream:
            await stream.until("snapshot")
            await stage.restart_hub()
            gone = await stream.until("update")
            assert (gone["feed"]["price"], gone["feed"]["reason"]) == (None, "disconnected")
            await stage.heard(charts)
        async with events(charts, last_id=stream.last_id.replace(f":{stage.hub.service.epoch}:", ":1:")) as again:
            snapshot = await again.until("snapshot")
            assert (snapshot["recovered"], snapshot["epoch"]) == (False, stage.hub.service.epoch)
    await stage.stop()


@pytest.mark.parametrize(
    ("in_all", "by_address", "status", "code"),
    [(1, 100, 503, "too_many_listeners"), (100, 1, 429, "too_many_from_address")],
)
async def test_listeners_are_bounded(stage: ChartsStage, in_all: int, by_address: int, status: int, code: str) -> None:
    bounded = stage.charts(max_listeners=in_all, max_listeners_per_ip=by_address)
    async with bounded as charts, aiohttp.ClientSession(charts.url) as http:
        async with events(charts) as stream:
            await stream.until("snapshot")
            for path, headers in (("/v1/sse", {}), ("/v1/bars", {"Upgrade": "websocket"})):
                async with http.get(path, headers=headers) as refused:
                    assert refused.status == status and refused.headers["Retry-After"]
                    assert (await refused.json())["error"]["code"] == code
        await turns_until(lambda: charts.context.listening == 0)
        assert charts.context.refused == 2
        async with bars_client(charts):
            assert charts.context.listening == 1
    await stage.stop()


async def test_an_end_of_charts_ends_every_stream(stage: ChartsStage) -> None:
    async with stage.charts() as charts, bars_client(charts) as client:
        await client.subscribe([SOL], "1")
        charts.context.stop_listening()
        await client.socket.wait_closed()
        assert client.socket.close_code == 4000
        async with aiohttp.ClientSession(charts.url) as http, http.get("/v1/sse") as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (503, "shutting_down")
    await stage.stop()


async def test_a_reader_that_stalled_finds_little_that_is_old(tmp_path: Path) -> None:
    hub, n_ticks = await HubStage().start(), 1_000
    async with (
        charts_beside(hub, tmp_path / "charts.sqlite") as charts,
        stalled_reader(charts, "/v1/sse?feeds=SOL-USD") as (stalled, transport),
    ):
        await tick_on(hub, charts, range(1, n_ticks + 1))
        transport.resume_reading()
        newest, told = f'"price":"{15_000_000_000 + n_ticks}"', [""]
        async with asyncio.timeout(PATIENCE_S):
            while newest not in told[-1]:
                told.append((await stalled.readline()).decode())
        assert sum(line.startswith("event: update") for line in told) < n_ticks // 2


async def test_a_reader_that_takes_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "WRITE_TIMEOUT_S", 0.02)
    hub = await HubStage().start()
    async with charts_beside(hub, tmp_path / "charts.sqlite") as charts, stalled_reader(charts, "/v1/sse"):
        await tick_on(hub, charts, range(1, 5_000), lambda: charts.context.listening == 0)
        assert (charts.context.listening, charts.context.failures) == (0, 0)


def test_the_ring_gives_all_or_nothing() -> None:
    ring = Ring(max_points=4)
    assert ring.since(Position(INSTANCE, 1_801_000_000, 1)) is None
    for seq in range(1, 6):
        ring.take([point(seq, 100 + seq, seq=seq), point(seq, 200 + seq, seq=seq, feed=BTC)], lost=False)
    at = Position(INSTANCE, 1_801_000_000, 3)
    assert [(one.seq, one.feed) for one in ring.since(at) or ()] == [(4, SOL), (4, BTC), (5, SOL), (5, BTC)]
    assert ring.since(Position(INSTANCE, at.epoch, 2)) is None
    assert ring.since(Position(INSTANCE, at.epoch, 5)) == []
    assert ring.since(Position(INSTANCE, at.epoch, 6)) is None
    ring.take([point(9, 109, seq=9)], lost=True)
    assert ring.since(Position(INSTANCE, at.epoch, 5)) is None
    assert ring.since(Position(INSTANCE, at.epoch, 9)) == []


@pytest.mark.parametrize("text", [None, "", "a", "a:b:1", "a:1:-1", "a:1:１", "a:1:2:3", "a" * 101 + ":1:2"])
def test_an_id_that_is_none_of_ours_is_none(text: str | None) -> None:
    assert parse_id(text) is None
