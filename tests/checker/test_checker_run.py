"""Real hubs, real sockets, ``kill -9``: an honest hub passes, and each planted fault is found by its rule."""

import asyncio
import io
from pathlib import Path

import orjson
import pytest

from tests.checker.check import check
from tests.checker.findings import RULES
from tests.checker.plants import PLANTS
from tests.checker.recorder import ClientSpec, record
from tests.checker.records import ClockAnchor, Log, LogRecord, Received
from tests.checker.scene import Scene

PATIENCE_S = 60.0
WATCHED_US = 6_000_000
"""By the hub's clock, from the first price on. Leases are shorter."""


class WatchedLog(Log):
    """Keeps records, and says when every client has seen enough of its hub."""

    def __init__(self, clients: set[str]) -> None:
        super().__init__(io.BytesIO())
        self.records: list[LogRecord] = []
        self.enough = asyncio.Event()
        self._waiting = set(clients)
        self._first_price_us: dict[str, int] = {}

    def add(self, record: LogRecord | ClockAnchor) -> None:
        assert not isinstance(record, ClockAnchor)
        self.records.append(record)
        if isinstance(record, Received):
            message = orjson.loads(record.text)
            if any(entry["price"] for entry in message.get("feeds", []) if isinstance(entry, dict)):
                self._first_price_us.setdefault(record.client, message["sent_us"])
            first_us = self._first_price_us.get(record.client)
            if first_us is not None and message.get("server_time_us", 0) >= first_us + WATCHED_US:
                self._waiting.discard(record.client)
        if not self._waiting:
            self.enough.set()


async def test_an_honest_hub_passes_and_every_planted_fault_is_found(tmp_path: Path) -> None:
    plants: list[str | None] = [None, *PLANTS]
    async with asyncio.timeout(PATIENCE_S), Scene(tmp_path, seed=1, plants=plants) as scene:
        names = [plant or "honest" for plant in plants]
        specs = [
            ClientSpec(name=name, urls=[url], feeds=["*"], detail="full", mode="all", resume=True)
            for name, url in zip(names, scene.steady_urls, strict=True)
        ]
        log = WatchedLog(set(names))
        await record(specs, log, log.enough)
        for hub in scene.hubs:
            await hub.kill()
    truth = scene.truth()
    assert truth.objections == []
    assert len(truth.runs) == len(plants)
    for name in names:
        report = check([[one for one in log.records if one.client == name]], truth, scene.anchors())
        assert report.checked["prices"] and report.checked["compared"] and report.checked["heartbeat"]
        if name == "honest":
            assert report.findings == []
        else:
            assert PLANTS[name][1] in report.found, name
            assert {finding.client for finding in report.findings} == {name}


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_plants_name_rules_that_exist(name: str) -> None:
    assert PLANTS[name][1] in RULES
