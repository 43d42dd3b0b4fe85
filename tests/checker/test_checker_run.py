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

from tests.checker.check import LONGEST_STALL_US, TOO_SLOW, check
from tests.checker.findings import RULES
from tests.checker.pace import Pace
from tests.checker.plants import PLANTS
from tests.checker.recorder import ClientSpec, record
from tests.checker.records import ClockAnchor, Closed, Log, LogRecord, Opened, Received, Woke
from tests.checker.scene import USUAL_BPS, Scene

PATIENCE_S = 240.0
WATCHED_US = 6_000_000
"""By the hub's clock, from the first price on. Leases are shorter."""


UPDATES_AFTER_RELOAD = 4
BEHIND = {"honest": TOO_SLOW, "mute": None}
"""Hubs that also have a client of mode ``all`` that stops reading, with the code that they close it with …"""
OTHER_BPS = 70
STUCK_FOR_S = 12.0
"""… for so long: beyond the patience of a hub with a client that leaves a few messages, or heartbeats, unanswered."""
IMPATIENT = "max_unanswered_bytes = 2_048\nmax_unsent_age_ms = 2_000\n"


class WatchedLog(Log):
    """Keeps records, and says when every client has seen enough of its hub."""

    def __init__(self, watchers: set[str], stuck: dict[str, int | None], pace: Pace) -> None:
        """``stuck`` says with which code a client that stops reading must find its connection closed; None: none."""
        super().__init__(io.BytesIO())
        self.records: list[LogRecord] = []
        self.connections: Counter[str] = Counter()
        """Of each watcher, so far."""
        self.to_reload: asyncio.Queue[str] = asyncio.Queue()
        """Watchers whose hub must be given another configuration: once, and again where a busy machine cost the
        connection that was to be told."""
        self.reloaded: set[str] = set()
        """Watchers whose hub goes on by another configuration than when they connected."""
        self._pace = pace
        self._watchers = watchers
        self._stuck = stuck
        self._waiting = watchers | stuck.keys()
        self._first_price_us: dict[str, int] = {}
        self._priced = False
        """All watchers have had a price."""
        self._after_reload: Counter[str] = Counter()
        self._woke: set[str] = set()
        self._last_us: dict[str, int] = {}
        self._longest_gap_us: Counter[str] = Counter()
        self._fell: set[str] = set()
        """Who was closed as it must be, for having stopped reading."""

    def add(self, record: LogRecord | ClockAnchor) -> None:
        assert not isinstance(record, ClockAnchor)
        self.records.append(record)
        if record.client in self._stuck:
            self._follow(record)
        elif isinstance(record, Opened):
            self.connections[record.client] += 1
            self.reloaded.discard(record.client)
            self._after_reload[record.client] = 0
            if self._priced:
                self.to_reload.put_nowait(record.client)
        if isinstance(record, Received):
            self._received(record.client, orjson.loads(record.text))
        if not self._waiting:
            self._pace.end()

    def _follow(self, record: LogRecord) -> None:
        """Whether a stuck client was closed with its code, and soon enough to have been told why."""
        client = record.client
        if isinstance(record, Opened):
            self._woke.discard(client)
            self._longest_gap_us[client] = 0
        else:
            gap_us = record.at_us - self._last_us.get(client, record.at_us)
            self._longest_gap_us[client] = max(self._longest_gap_us[client], gap_us)
        self._last_us[client] = record.at_us
        if isinstance(record, Woke):
            self._woke.add(client)
        elif isinstance(record, Closed):
            told = record.by_peer and record.code == self._stuck[client] and client in self._woke
            if told and self._longest_gap_us[client] < LONGEST_STALL_US:
                self._fell.add(client)
            else:
                self._fell.discard(client)

    def _received(self, client: str, message: dict[str, Any]) -> None:
        if client not in self._watchers:
            if message["type"] == "subscribed" and self._stuck[client] is not None and not message["recovered"]:
                self._fell.discard(client)
            if message["type"] == "snapshot" and client in self._fell:  # it is back
                self._waiting.discard(client)
            return
        if any(entry["price"] for entry in message.get("feeds", []) if isinstance(entry, dict)):
            self._first_price_us.setdefault(client, message["sent_us"])
            if self._watchers == self._first_price_us.keys() and not self._priced:
                self._priced = True
                for watcher in self._watchers:
                    self.to_reload.put_nowait(watcher)
        self._after_reload[client] += client in self.reloaded and message["type"] == "update"
        first_us = self._first_price_us.get(client)
        old_enough = first_us is not None and message.get("server_time_us", 0) >= first_us + WATCHED_US
        if old_enough and self._after_reload[client] >= UPDATES_AFTER_RELOAD:
            self._waiting.discard(client)


async def reload_all(scene: Scene, log: WatchedLog, names: list[str]) -> None:
    """Once there are prices, give every hub another configuration, and wait until it is in force."""
    bps = dict.fromkeys(names, USUAL_BPS)
    async with aiohttp.ClientSession() as http:

        async def hash_of(url: str) -> str:
            while True:
                try:
                    async with http.get(url.replace("ws:", "http:").replace("/v1/stream", "/v1/prices")) as answer:
                        return str((await answer.json())["config_hash"])
                except aiohttp.ClientConnectionError:  # a busy machine costs it a connection, as it does the watchers
                    await asyncio.sleep(0)

        while True:
            name = await log.to_reload.get()
            hub, url = scene.hubs[names.index(name)], scene.steady_urls[names.index(name)]
            before, connection = await hash_of(url), log.connections[name]
            bps[name] = OTHER_BPS if bps[name] == USUAL_BPS else USUAL_BPS
            hub.reload(bps[name])
            while await hash_of(url) == before:
                pass
            if log.connections[name] == connection:  # else it is in the queue again
                log.reloaded.add(name)


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
        log = WatchedLog(set(names), {f"{name}-stuck": code for name, code in BEHIND.items()}, pace)
        async with asyncio.TaskGroup() as group:
            reloading = group.create_task(reload_all(scene, log, names))
            await record(specs, log, pace)
            reloading.cancel()
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
