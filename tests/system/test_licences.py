"""Every door of a running hub and of its charts: no digit of a price that may not be told comes out of any of them."""

import asyncio
import re
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow.parquet  # type: ignore[import-untyped]
from websockets.asyncio.client import connect

from feeds.addresses import ASSETS
from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.core.price import decimal_text
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.segments import list_segments
from tests.alerts.delivery import Receiver, serving
from tests.system.conftest import Launch
from tests.system.process import HubProcess, command, hub_config, patiently, subscriber

SOL = "SOL/USD"
FEEDS = (SOL, "BTC/USD")
HIDDEN, FALLBACK = "pyth", "chainlink"
ALERTS = """
[alerts]
hold_on_ms = { pair_diverged = 0, no_price = 0, primary_rejected = 0, confidence_wide = 0 }
hold_off_ms = { pair_diverged = 100, no_price = 100 }
pegs = { "SOL/USD" = "1" }
wide_conf_bps = 1
[charts]
enabled = true
"""
CHANNELS = """
[[alerts.alertmanager]]
name = "am"
url = "{url}"
[[alerts.webhook]]
name = "desk"
url = "{url}/desk"
"""
SETTLING = 8
"""Updates of a subscriber that are listened to in each phase."""
HUB_PATHS = (
    *("/v1/prices", "/v1/prices?detail=full", "/v1/prices/SOL-USD?detail=full", "/v1/explain/SOL-USD"),
    *("/v1/explain/BTC-USD", "/v1/alerts", "/livez", "/readyz", "/metrics"),
)
IDS = "&".join(f"ids[]={ASSETS[feed].hermes_id}" for feed in FEEDS)
CHARTS_PATHS = (
    *("/livez", "/readyz", "/metrics", "/v1/hub", "/v1/alerts", "/v1/marks/SOL-USD", "/v1/bars/SOL-USD?resolution=1S"),
    *("/udf/config", "/udf/symbols?symbol=SOL/USD", "/udf/quotes?symbols=SOL/USD", "/udf/search?query=SOL&limit=9"),
    *("/udf/history?symbol=SOL/USD&resolution=1S&from=0&to=4000000000&countback=500", "/udf/symbol_info?group=crypto"),
    *("/hermes/", "/hermes/v2/price_feeds", f"/hermes/v2/updates/price/latest?{IDS}"),
    f"/hermes/api/latest_price_feeds?{IDS}&verbose=true&binary=true",
    *(f"/hermes/api/latest_vaas?{IDS}", "/hermes/ready", "/openapi.json", "/"),
)
SOCKETS = (
    ("/v1/bars", {"type": "subscribe", "id": 1, "channel": "bars", "feeds": ["*"], "resolution": "1S"}),
    (
        "/hermes/ws",
        {"type": "subscribe", "ids": [ASSETS[feed].hermes_id for feed in FEEDS], "verbose": True, "binary": True},
    ),
)
STREAMS = ("/v1/sse", "/udf/streaming", f"/hermes/v2/updates/price/stream?{IDS}")


class Doors:
    """Whatever came out of each door."""

    def __init__(self, hub: HubProcess, charts: str) -> None:
        self.hub = hub
        self.charts = charts
        self.said: dict[str, bytes] = {}
        self.binary = b""

    def hear(self, door: str, data: bytes) -> None:
        self.said[door] = self.said.get(door, b"") + b"\n" + data

    async def wait_for_charts(self) -> None:
        """Charts know the feeds when they have heard the hub, and say so of each."""
        async with self.hub.http.get(self.charts + "/v1/sse") as answer:
            data = b""
            while not all(feed.encode() in data for feed in FEEDS):
                piece = await patiently(answer.content.readany(), "the feeds of charts")
                assert piece, (answer.status, data)
                data += piece

    async def knock(self) -> None:
        """All paths that answer, and a piece of all that stream."""
        for base, paths in ((self.hub.url, HUB_PATHS), (self.charts, CHARTS_PATHS)):
            for path in paths:
                async with self.hub.http.get(base + path) as answer:
                    self.hear(path, await answer.read())
                    assert answer.status != 404 or path.startswith("/hermes/"), (path, answer.status)
        sockets = [self._watch(path, said) for path, said in SOCKETS]
        await asyncio.gather(*(self._listen(path) for path in STREAMS), *sockets, self._watch_binary())

    async def ask(self) -> None:
        """The commands that read a running hub."""
        asked = (("explain", SOL), ("tail", "--count", "3", "--json"), ("alerts", "open"))
        for done in await asyncio.gather(*(command(*one, "--url", self.hub.url) for one in asked)):
            assert done.status == 0, done.err
            self.hear("commands", done.out + done.err.encode())

    async def _listen(self, path: str) -> None:
        async with self.hub.http.get(self.charts + path) as answer:
            data = b""
            while len(data) < 2_000 and data.count(b"\n") < 2 * SETTLING:
                piece = await patiently(answer.content.readany(), path)
                assert piece, (path, answer.status, data)
                data += piece
            self.hear(path, data)

    async def _watch(self, path: str, said: dict[str, object]) -> None:
        async with connect(self.charts.replace("http", "ws") + path, compression=None) as socket:
            await socket.send(orjson.dumps(said).decode())
            for _ in range(SETTLING):
                frame = await patiently(socket.recv(), path)
                self.hear(path, frame if isinstance(frame, bytes) else frame.encode())

    async def post(self, receiver: Receiver) -> None:
        """What went to the channels of alerts: both of them have been told something of a divergence."""
        waited = {"/desk", "/api/v2/alerts"}
        while waited or not receiver.requests.empty():
            one = await receiver.next()
            if b"pair_diverged" in one.body:
                waited.discard(one.path)
            self.hear(one.path, one.body)

    async def _watch_binary(self) -> None:
        url = self.hub.url.replace("http", "ws") + "/v1/stream"
        async with connect(url, subprotocols=["oraclehub.v1.bin"], compression=None) as socket:  # type: ignore[list-item]
            await socket.send('{"type":"subscribe","id":1,"feeds":["*"],"detail":"full","mode":"all"}')
            for _ in range(SETTLING):
                frame = await patiently(socket.recv(), "binary frames")
                self.binary += frame if isinstance(frame, bytes) else frame.encode()


def told_by(journal: Path) -> dict[str, set[tuple[int, int]]]:
    """All that each source told: (mantissa, exponent), out of the journal, where nothing is withheld."""
    said: dict[str, set[tuple[int, int]]] = {}
    replayer = Replayer(lineup_from_text)
    for record in read_journal([one.path for one in list_segments(journal)], strict=False):
        replayer.take(record)
        engine = replayer.engine
        updates = [one for way in engine.ways.values() for one in way.last.values()] if engine else []
        for update in updates:
            assert engine is not None
            source, index = update.source, engine.hub.catalog.feed_index[update.feed]
            said.setdefault(source, set()).add((update.mantissa, engine.hub.catalog.feeds[index].expo))
            if update.conf is not None:
                said.setdefault(f"{source} conf", set()).add((update.conf, -8))
    return said


def forms(prices: set[tuple[int, int]]) -> Iterator[str]:
    for mantissa, expo in prices:
        text = decimal_text(mantissa, expo)
        yield from (str(mantissa), text, text.rstrip("0"))


async def exported(what: str, database: Path) -> bytes:
    """What an export tells: as CSV, and as Parquet, of which the columns are read since its bytes are packed."""
    text = await command("export", what, "--database", database)
    assert text.status == 0, text.err
    path = database.with_name(f"{what}.parquet")
    assert (await command("export", what, "--database", database, "--output", path)).status == 0
    rows = await asyncio.to_thread(lambda: pyarrow.parquet.read_table(path).to_pylist())
    assert len(rows) == len(text.out.splitlines()) - 1
    return text.out + repr(rows).encode()


def numbers(data: bytes) -> set[str]:
    return {found.decode().rstrip(".") for found in re.findall(rb"\d[\d.]*", data)}


async def test_no_door_tells_a_price_that_may_not_be_told(launch: Launch, chain: Emulator) -> None:
    async with serving() as receiver:
        doors, decided_us = await look_at_all_doors(launch, chain, receiver)
    state = doors.hub.state
    for what in ("points", "bars"):
        doors.hear(f"export {what}", await exported(what, state / "charts.sqlite"))
    prove = ("prove", "--feed", SOL, "--at", decided_us, "--journal", state / "journal")
    proof, proof_json, full = await asyncio.gather(
        command(*prove), command(*prove, "--json"), command(*prove, "--json", "--full")
    )
    doors.hear("prove", proof.out + proof_json.out)
    hidden = withheld(doors)
    assert numbers(full.out) & hidden, "the search finds what is there"
    assert orjson.loads(proof_json.out)["proved"] is orjson.loads(full.out)["proved"] is True


async def test_no_worker_tells_one_either(launch: Launch, chain: Emulator) -> None:
    async with serving() as receiver:
        doors, _ = await look_at_all_doors(launch, chain, receiver, "--workers", 2)
    withheld(doors)


def withheld(doors: Doors) -> set[str]:
    """What nobody but the source without a licence told, after a look that none of it came out of a door."""
    held = told_by(doors.hub.state / "journal")
    hidden = set(forms(held[HIDDEN])) - set(forms(set().union(*(held[name] for name in held if name != HIDDEN))))
    assert len(hidden) > 20, "prices that nobody else told"
    leaks = {door: sorted(numbers(data) & hidden) for door, data in doors.said.items()}
    assert {door: found for door, found in leaks.items() if found} == {}
    packed = {struct.pack("<q", mantissa) for mantissa, _ in held[HIDDEN] - held["doves"] - held[FALLBACK]}
    assert packed and not numbers(doors.binary) & hidden and not [one for one in packed if one in doors.binary]
    return hidden


async def look_at_all_doors(
    launch: Launch, chain: Emulator, receiver: Receiver, *arguments: object
) -> tuple[Doors, int]:
    """What came out while the hub ran, which it does no more; and when the fallback was decided."""
    config = hub_config(chain.urls, feeds=FEEDS) + ALERTS + CHANNELS.format(url=receiver.url)
    for source, licence in ((HIDDEN, "no"), (FALLBACK, "chosen")):
        config = config.replace(f"[sources.{source}]\n", f'[sources.{source}]\nredistribute = "{licence}"\n')
    hub = await launch(*arguments, config=config, charts=True)
    assert hub.process.stdout is not None
    line = await patiently(hub.process.stdout.readline(), "the charts' address")
    doors = Doors(hub, str(orjson.loads(line)["charts"]))
    async with subscriber(hub, *FEEDS) as client:
        await client.socket.send('{"type":"subscribe","id":2,"channel":"alerts","feeds":["*"]}')
        await client.all_in("live", FEEDS)
        await doors.wait_for_charts()
        await doors.knock()
        explained = (await hub.get("/v1/explain/SOL-USD"))["inputs"]
        told = {name: (one["redistribute"], one["withheld"], one["price"] is None) for name, one in explained.items()}
        assert told == {
            "doves": ("full", None, False),
            FALLBACK: ("chosen", "licence", True),
            HIDDEN: ("no", "licence", True),
        }
        assert isinstance(explained[HIDDEN]["divergence_bps"], int) and explained[HIDDEN]["age_ms"] is not None
        number = chain.inject(Fault(kind="spike", source="pyth", feed=SOL, bps=300))
        await client.until(
            lambda one: one["type"] == "alert" and one["alert"]["kind"] == "pair_diverged", "an alert on a divergence"
        )
        await doors.knock()
        chain.clear(number)
        chain.inject(Fault(kind="malformed", count=3))
        chain.inject(Fault(kind="stall", source="doves"))
        entry = await client.feed(SOL, lambda one: one["state"] == "degraded", "the fallback")
        assert (entry["rule"], entry["source"]) == ("R2", FALLBACK), "pyth, which is newer, may not be chosen"
        assert entry["price"] is not None and entry["inputs"][FALLBACK]["price"] is None
        await asyncio.gather(doors.knock(), doors.ask())
        doors.hear("stream", b"\n".join(map(orjson.dumps, client.messages)))
    sources = {one["source"] for _, one in client.words}
    assert FALLBACK in sources and HIDDEN not in sources
    assert await hub.end(signal.SIGTERM) == 0
    await doors.post(receiver)
    doors.hear("log", "\n".join(hub.log).encode())
    return doors, entry["decided_us"]
