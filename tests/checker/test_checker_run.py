"""Real hubs, real sockets, ``kill -9``: an honest hub passes, and each planted fault is found by its rule."""

import asyncio
import io
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import orjson
import pytest

from tests.checker.check import check
from tests.checker.findings import RULES
from tests.checker.pace import Pace
from tests.checker.plants import PLANTS
from tests.checker.recorder import ClientSpec, record
from tests.checker.records import ClockAnchor, Closed, Log, LogRecord, Received
from tests.checker.scene import Scene

PATIENCE_S = 240.0
WATCHED_US = 6_000_000
"""By the hub's clock, from the first price on. Leases are shorter."""


UPDATES_AFTER_RELOAD = 4
BEHIND = ("honest", "mute")
"""Hubs that also have a client of mode ``all`` that stops reading …"""
STUCK_FOR_S = 12.0
"""… for so long: beyond the patience of a hub with a client that leaves a few messages, or heartbeats, unanswered."""
IMPATIENT = "max_unanswered_bytes = 2_048\nmax_unsent_age_ms = 2_000\n"


class WatchedLog(Log):
    """Keeps records, and says when every client has seen enough of its hub."""

    def __init__(self, watchers: set[str], stuck: set[str], pace: Pace) -> None:
        super().__init__(io.BytesIO())
        self.records: list[LogRecord] = []
        self.priced = asyncio.Event()
        """All watchers have had a price."""
        self.reloaded = False
        """All hubs go on by another configuration."""
        self._pace = pace
        self._watchers = watchers
        self._waiting = watchers | stuck
        self._first_price_us: dict[str, int] = {}
        self._after_reload: Counter[str] = Counter()
        self._cut: set[str] = set()

    def add(self, record: LogRecord | ClockAnchor) -> None:
        assert not isinstance(record, ClockAnchor)
        self.records.append(record)
        if isinstance(record, Closed) and record.by_peer:
            self._cut.add(record.client)
        if isinstance(record, Received):
            self._received(record.client, orjson.loads(record.text))
        if not self._waiting:
            self._pace.end()

    def _received(self, client: str, message: dict[str, Any]) -> None:
        if client not in self._watchers:
            if message["type"] == "snapshot" and client in self._cut:  # it is back
                self._waiting.discard(client)
            return
        if any(entry["price"] for entry in message.get("feeds", []) if isinstance(entry, dict)):
            self._first_price_us.setdefault(client, message["sent_us"])
            if self._watchers == self._first_price_us.keys():
                self.priced.set()
        self._after_reload[client] += self.reloaded and message["type"] == "update"
        first_us = self._first_price_us.get(client)
        old_enough = first_us is not None and message.get("server_time_us", 0) >= first_us + WATCHED_US
        if old_enough and self._after_reload[client] >= UPDATES_AFTER_RELOAD:
            self._waiting.discard(client)


async def reload_all(scene: Scene, log: WatchedLog) -> None:
    """Once there are prices, give every hub another configuration, and wait until it is in force."""
    await log.priced.wait()
    async with aiohttp.ClientSession() as http:

        async def hash_of(url: str) -> str:
            async with http.get(url.replace("ws:", "http:").replace("/v1/stream", "/v1/prices")) as answer:
                return str((await answer.json())["config_hash"])

        for hub, url in zip(scene.hubs, scene.steady_urls, strict=True):
            before = await hash_of(url)
            hub.reload(70)
            while await hash_of(url) == before:
                pass
    log.reloaded = True


async def test_an_honest_hub_passes_and_every_planted_fault_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plants: list[str | None] = [None, *PLANTS]
    scene = Scene(tmp_path, seed=1, plants=plants, server=IMPATIENT)
    async with asyncio.timeout(PATIENCE_S), scene:
        names = [plant or "honest" for plant in plants]
        urls = dict(zip(names, scene.steady_urls, strict=True))
        watcher = ClientSpec(name="", urls=[], feeds=["*"], detail="full", mode="all", resume=True)
        specs = [msgspec.structs.replace(watcher, name=name, urls=[url]) for name, url in urls.items()]
        stuck = msgspec.structs.replace(watcher, stuck_first=True, stuck_every_s=3_600.0, stuck_for_s=STUCK_FOR_S)
        specs += [msgspec.structs.replace(stuck, name=f"{name}-stuck", urls=[urls[name]]) for name in BEHIND]
        pace = Pace()
        log = WatchedLog(set(names), {f"{name}-stuck" for name in BEHIND}, pace)
        async with asyncio.TaskGroup() as group:
            group.create_task(reload_all(scene, log))
            await record(specs, log, pace)
        for hub in scene.hubs:
            await hub.kill()
    assert capsys.readouterr().out == "honest-stuck\n"  # is back from its 4001; who was cut off is not
    truth = scene.truth()
    assert truth.objections == []
    assert len(truth.runs) == len(plants)
    for name in names:
        report = check([[one for one in log.records if one.client.split("-")[0] == name]], truth, scene.anchors())
        assert report.checked["prices"] and report.checked["compared"] and report.checked["heartbeat"]
        if name == "honest":
            assert report.findings == []
            assert report.checked["config"] and report.checked["too_slow"] and report.checked["resumed_after_4001"]
        else:
            assert PLANTS[name][1] in report.found, name
            assert {finding.client.split("-")[0] for finding in report.findings} == {name}


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_plants_name_rules_that_exist(name: str) -> None:
    assert PLANTS[name][1] in RULES
