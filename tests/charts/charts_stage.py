"""A hub whose clock is set by hand, and the charts process beside it, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from oracle_hub.app.charts import DOORS
from oracle_hub.charts import bars_messages as wire
from oracle_hub.charts.app import Charts, Door
from oracle_hub.charts.bars_http import BarEntry
from oracle_hub.charts.points import Point, point_from_entry
from oracle_hub.charts.settings import Settings
from oracle_hub.client.prices import boot_time_us
from oracle_hub.core.hub import Batch
from oracle_hub.stream.messages import View, feed_entry
from tests.client.client_stage import HubStage, turns_until
from tests.patience import PATIENCE_S
from tests.ports import free_ports

SETTINGS = Settings(port=0)
SECOND_US = 1_000_000


class ChartsStage:
    """One hub over all its lives, with every decision that it made."""

    def __init__(self, database: Path, *feeds: str) -> None:
        self.database = database
        self.feeds = feeds or ("SOL/USD", "BTC/USD")
        self.points: list[Point] = []
        self.hub = HubStage(*self.feeds)
        self._start_us = self.hub.service.clock_us - 5_000_000

    async def start_hub(self, port: int = 0) -> "ChartsStage":
        """Listen, with a first price of each feed."""
        first_us = self.hub.service.clock_us
        await self.hub.start(port=port or free_ports(1)[0])  # to be had again after a restart
        for feed in self.feeds:  # start() has published one price of each, a millisecond apart
            first_us += 1_000
            self._note(self.hub.service.decisions[feed])
        return self

    async def restart_hub(self, after_us: int = 3 * SECOND_US) -> None:
        """The hub ends, and begins again some time later, as the next epoch on the same port."""
        before = self.hub.service
        port = int(self.hub.url.rsplit(":", 1)[1].split("/")[0])
        await self.hub.server.stop("restart")
        self.hub = HubStage(*self.feeds, instance=before.instance, epoch=before.epoch + 1)
        self.hub.service.clock_us = before.clock_us + after_us
        await self.start_hub(port)

    async def stop(self) -> None:
        await self.hub.server.stop("the test is over")

    def clock_us(self) -> int:
        """The client's monotonic clock, in step with the hub's."""
        return self.hub.service.clock_us - self._start_us

    def tick(self, feed: str, mantissa: int, *sources: str, after_us: int = 1_000) -> None:
        """Time goes on, and a price is decided and published."""
        self._publish(self.hub.service.try_tick(feed, mantissa, *sources, after_us=after_us))

    def wait(self, us: int) -> None:
        """Time goes on with nothing heard of any source; what ends by itself is decided and published."""
        self._publish(self.hub.service.wait(self.hub.service.clock_us + us))
        self.hub.server.heartbeat()

    def _publish(self, batch: Batch | None) -> None:
        if batch is None:
            return
        for decision in batch.decisions:
            self._note(decision)
        self.hub.server.publish(batch)

    def _note(self, decision: object) -> None:
        entry = feed_entry(decision, View(None, decision.valid_until_us))  # type: ignore[arg-type,attr-defined]
        service = self.hub.service
        self.points.append(point_from_entry(entry, service.instance, service.epoch, service.seq))

    def points_of(self, feed: str) -> list[Point]:
        """Every decision of a feed."""
        return [point for point in self.points if point.feed == feed]

    @asynccontextmanager
    async def charts(self, *, doors: Sequence[Door] = DOORS, **settings: object) -> AsyncIterator[Charts]:
        """The charts process, when it has heard what the hub has now."""
        chosen = msgspec.structs.replace(SETTINGS, **settings)
        async with Charts(self.hub.url, self.database, chosen, clock_us=self.clock_us, doors=doors) as charts:
            await turns_until(lambda: charts.live.status.connected)
            await self.heard(charts)
            yield charts

    async def heard(self, charts: Charts) -> None:
        """Wait until charts know everything until now."""
        now_us = self.hub.service.clock_us
        self.hub.server.heartbeat()
        await turns_until(lambda: (charts.live.heard_us or 0) >= now_us and charts.live.status.connected)


@asynccontextmanager
async def charts_beside(
    hub: HubStage,
    database: Path,
    *,
    doors: Sequence[Door] = DOORS,
    clock_us: Callable[[], int] = boot_time_us,
    **settings: object,
) -> AsyncIterator[Charts]:
    """The charts process, when it has heard all feeds of the hub."""
    chosen = msgspec.structs.replace(SETTINGS, **settings)
    async with Charts(hub.url, database, chosen, doors=doors, clock_us=clock_us) as charts:
        await turns_until(lambda: charts.live.heard_us is not None)
        yield charts


class BarsClient:
    """A chart on ``/v1/bars`` that keeps what it was told, by the rules of the protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[wire.ServerMessage] = []
        self.bars: dict[str, dict[int, BarEntry]] = {}
        self.newest_us: dict[str, int] = {}
        self.finals: dict[str, list[int]] = {}
        """Start of every final bar, in the order in which they were told as news."""

    async def read(self) -> wire.ServerMessage:
        """The next message. Fails the test when a bar is older than one that was told, or changes after its end."""
        async with asyncio.timeout(PATIENCE_S):
            message = wire.server_message_decoder.decode(await self.socket.recv(decode=False))
        self.messages.append(message)
        if isinstance(message, wire.Snapshot):
            self._merge(message.feed, message.bars, news=False)
        elif isinstance(message, wire.Bars):
            for feed in message.feeds:
                self._merge(feed.feed, feed.bars, news=True)
        elif isinstance(message, wire.Revisions):
            self._revise(message.feed, message.bars)
        return message

    def _revise(self, feed: str, bars: list[BarEntry]) -> None:
        held = self.bars[feed]
        for bar in bars:
            assert bar.closed and bar.start_us <= self.newest_us[feed], "only the past is revised"
            assert bar.start_us not in held or bar.revision >= held[bar.start_us].revision
            held[bar.start_us] = bar

    def _merge(self, feed: str, bars: list[BarEntry], *, news: bool) -> None:
        held = self.bars.setdefault(feed, {})
        for bar in bars:
            if news:
                assert bar.start_us >= self.newest_us.get(feed, 0), "a chart cannot update oldest data"
                assert bar.start_us not in held or not held[bar.start_us].closed, "a final bar was told again"
                if bar.closed:
                    self.finals.setdefault(feed, []).append(bar.start_us)
            elif bar.start_us in held and held[bar.start_us].closed:
                assert held[bar.start_us] == bar, "a final bar has changed"
            held[bar.start_us] = bar
            self.newest_us[feed] = max(self.newest_us.get(feed, 0), bar.start_us)

    async def until(self, wanted: Callable[[wire.ServerMessage], bool]) -> wire.ServerMessage:
        """Read on to the first message that is wanted."""
        while not wanted(message := await self.read()):
            pass
        return message

    async def subscribe(self, feeds: Sequence[str], resolution: str, **options: object) -> None:
        """Subscribe, and read all snapshots."""
        request = {"type": "subscribe", "id": 1, "feeds": feeds, "resolution": resolution, **options}
        await self.socket.send(msgspec.json.encode(request).decode())
        answer = await self.until(lambda message: isinstance(message, wire.Subscribed))
        assert isinstance(answer, wire.Subscribed)
        for _ in answer.accepted:
            await self.until(lambda message: isinstance(message, wire.Snapshot))

    async def final(self, feed: str, start_us: int) -> None:
        """Read on until this bar is final."""
        while not (held := self.bars.get(feed, {}).get(start_us)) or not held.closed:
            await self.read()


@asynccontextmanager
async def bars_client(charts: Charts) -> AsyncIterator[BarsClient]:
    """A client after ``hello``."""
    url = charts.url.replace("http", "ws", 1) + "/v1/bars"
    async with connect(url, proxy=None, close_timeout=1) as socket:
        client = BarsClient(socket)
        assert isinstance(await client.read(), wire.Hello)
        yield client
