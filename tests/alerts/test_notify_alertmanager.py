"""A real Alertmanager, which calls a webhook of the test: what fires arrives, stays, and is resolved."""

import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from oracle_hub.alerts.alert import Alert, Change, Severity, Transition
from oracle_hub.alerts.notify.alertmanager import rfc3339
from oracle_hub.alerts.notify.deliveries import Deliveries
from oracle_hub.alerts.notify.settings import AlertmanagerSettings, DeliverySettings, Secret
from tests.alerts.delivery import (
    INSTANCE,
    START_US,
    HubClock,
    Receiver,
    alert,
    delivering,
    escalated,
    firing,
    serving,
)
from tests.conftest import ROOT, require
from tests.ports import free_ports
from tests.system.monitors import ALERTMANAGER, program

CONFIG = """
route:
  receiver: test
  group_by: [alertname, feed]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
- name: test
  webhook_configs:
  - url: {url}/from-alertmanager
    send_resolved: true
"""


def free_port() -> int:
    (port,) = free_ports(1)
    return port


@contextlib.asynccontextmanager
async def alertmanager(folder: Path, receiver: Receiver, port: int) -> AsyncIterator[str]:
    """Its address, once it listens."""
    (folder / "alertmanager.yml").write_text(CONFIG.format(url=receiver.url))
    command = [
        ALERTMANAGER, f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    async with program("Listening", *command):
        yield f"http://127.0.0.1:{port}"


async def known(url: str) -> list[Any]:
    """What it holds now."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v2/alerts") as answer:
        held: list[Any] = await answer.json()
        return held


def now_alert(feed: str = "SOL/USD", severity: Severity = Severity.WARNING) -> Alert:
    return alert(feed, severity=severity, started_us=HubClock().now_us() - 1_000_000)


def over_now(one: Alert) -> Transition:
    now_us = HubClock().now_us()
    return Transition(Change.RESOLVED, now_us, msgspec.structs.replace(one, ended_us=now_us))


def hub(state: Path, url: str, **more: Any) -> Deliveries:
    channel = AlertmanagerSettings(name="am", url=Secret(url), **({"hub_alive": False} | more))
    settings = DeliverySettings(channels=(channel,), first_retry_s=0.01, max_retry_s=0.05)
    return Deliveries(settings, state, INSTANCE, HubClock())


async def notified(receiver: Receiver, status: str, count: int = 1) -> list[Any]:
    """The alerts of the next notifications that have this status, one for each feed and severity."""
    seen: dict[tuple[str, str], Any] = {}
    while len(seen) < count:
        for one in (await receiver.next()).json["alerts"]:
            if one["status"] == status:
                seen[one["labels"].get("feed", ""), one["labels"]["severity"]] = one
    return [seen[key] for key in sorted(seen)]


async def test_what_fires_is_notified_and_so_is_its_end(tmp_path: Path) -> None:
    sol = now_alert()
    async with serving() as receiver, alertmanager(tmp_path, receiver, free_port()) as url:
        deliveries = hub(tmp_path, url)
        await deliveries.start([])
        deliveries.take(firing(sol))
        (told,) = await notified(receiver, "firing")
        deliveries.take(over_now(sol))
        (over,) = await notified(receiver, "resolved")
        await deliveries.stop(5)
    assert (
        told["labels"]
        == over["labels"]
        == {
            "alertname": "PairDiverged",
            "id": sol.id,
            "kind": "pair_diverged",
            "feed": "SOL/USD",
            "sources": "doves,pyth",
            "severity": "warning",
            "instance": INSTANCE,
        }
    )
    assert told["annotations"] == {"summary": sol.summary, "occurrence": sol.occurrence}
    assert datetime.fromisoformat(told["startsAt"]).timestamp() == pytest.approx(sol.started_us / 1e6, abs=1e-3)
    assert datetime.fromisoformat(over["endsAt"]) <= datetime.now(UTC)


async def test_an_escalation_ends_the_warning_and_begins_the_critical_one(tmp_path: Path) -> None:
    sol = now_alert()
    async with serving() as receiver, alertmanager(tmp_path, receiver, free_port()) as url:
        deliveries = hub(tmp_path, url)
        await deliveries.start([])
        deliveries.take(firing(sol))
        await notified(receiver, "firing")
        deliveries.take(escalated(sol))
        document = (await receiver.next()).json
        assert {(one["labels"]["severity"], one["status"]) for one in document["alerts"]} == {
            ("critical", "firing"),
            ("warning", "resolved"),
        }
        await deliveries.settled()
        assert [one["labels"]["severity"] for one in await known(url)] == ["critical"]
        await deliveries.stop(5)


async def test_an_alertmanager_that_was_restarted_is_told_again(tmp_path: Path) -> None:
    sol = now_alert()
    port = free_port()
    async with serving() as receiver:
        deliveries = hub(tmp_path, f"http://127.0.0.1:{port}", resend_s=0.05)
        await deliveries.start([])
        async with alertmanager(tmp_path, receiver, port):
            deliveries.take(firing(sol))
            await notified(receiver, "firing")
        shutil.rmtree(tmp_path / "data")
        async with alertmanager(tmp_path, receiver, port):
            (again,) = await notified(receiver, "firing")
            deliveries.take(over_now(sol))
            await notified(receiver, "resolved")
            await deliveries.stop(5)
    assert again["annotations"]["occurrence"] == sol.occurrence


async def test_an_end_that_is_ahead_of_the_alertmanagers_clock_comes_through(tmp_path: Path) -> None:
    """It takes an end that it has not reached for an alert that goes on, and keeps the later end of the two."""
    sol = now_alert()
    async with serving() as receiver, alertmanager(tmp_path, receiver, free_port()) as url:
        deliveries = hub(tmp_path, url, resend_s=0.2)
        await deliveries.start([])
        deliveries.take(firing(sol))
        await notified(receiver, "firing")
        ahead_us = HubClock().now_us() + 1_000_000
        over = msgspec.structs.replace(sol, ended_us=ahead_us)
        deliveries.take(Transition(Change.RESOLVED, ahead_us, over))
        (told,) = await notified(receiver, "resolved")
        await deliveries.stop(5)
    assert datetime.fromisoformat(told["endsAt"]).timestamp() == pytest.approx(ahead_us / 1e6, abs=1e-3)


async def test_what_fires_outlives_the_hub_and_the_hub_does_not(tmp_path: Path) -> None:
    """What an alert and ``HubAlive`` end by when the hub is gone: late, and soon."""
    sol = now_alert()
    async with serving() as receiver, alertmanager(tmp_path, receiver, free_port()) as url:
        deliveries = hub(tmp_path, url, hub_alive=True, resend_s=0.4, expire_s=600)
        await deliveries.start([])
        deliveries.take(firing(sol))
        told = await notified(receiver, "firing", 2)
        assert [one["labels"]["alertname"] for one in told] == ["HubAlive", "PairDiverged"]
        assert told[0]["labels"] == {
            "alertname": "HubAlive", "kind": "hub_alive", "severity": "none", "instance": INSTANCE,
        }  # fmt: skip
        await deliveries.stop(5)
        (over,) = await notified(receiver, "resolved")
        assert over["labels"]["alertname"] == "HubAlive"
        assert [one["labels"]["alertname"] for one in await known(url)] == ["PairDiverged"]
        again = hub(tmp_path, url)
        await again.start([])  # it ended while the hub was away
        (over,) = await notified(receiver, "resolved")
        assert over["labels"]["feed"] == "SOL/USD"
        await again.stop(5)


async def test_a_test_arrives_under_a_name_of_its_own(tmp_path: Path) -> None:
    async with serving() as receiver, alertmanager(tmp_path, receiver, free_port()) as url:
        deliveries = hub(tmp_path, url)
        (result,) = await deliveries.test()
        await deliveries.stop(1)
        assert (result.way, result.ok, result.error) == ("alertmanager", True, None)


async def test_a_token_is_shown_to_the_alertmanager_alone(tmp_path: Path) -> None:
    async with serving() as receiver:
        channel = AlertmanagerSettings(name="am", url=Secret(f"{receiver.url}/prefix/"), bearer=Secret("the-token"))
        deliveries = delivering(tmp_path, channel, simulated=True, runbook_url="https://run.example/{kind}")
        await deliveries.start([])
        alive = await receiver.next()
        deliveries.take(firing(alert()))
        one = await receiver.next()
        await deliveries.stop(1)
    assert (one.path, one.headers["Authorization"]) == ("/prefix/api/v2/alerts", "Bearer the-token")
    assert "the-token" not in repr(channel)
    (post,) = one.json
    assert post["labels"]["simulated"] == alive.json[0]["labels"]["simulated"] == "true"
    assert post["annotations"]["runbook_url"] == "https://run.example/pair_diverged"
    assert (post["startsAt"], post["endsAt"]) == (rfc3339(START_US), rfc3339(START_US + 900_000_000))


async def test_the_shipped_routes_send_each_to_whom_it_concerns(tmp_path: Path) -> None:
    require(shutil.which("amtool") is not None, "amtool (prometheus-alertmanager)")
    async with serving() as receiver:
        channel = AlertmanagerSettings(name="am", url=Secret(receiver.url))
        deliveries = delivering(tmp_path, channel)
        await deliveries.start([])
        (alive,) = (await receiver.next()).json
        for one in (alert(), alert(severity=Severity.CRITICAL, started_us=START_US + 1)):
            deliveries.take(firing(one))
        (warning,), (critical,) = [(await receiver.next()).json for _ in range(2)]
        await deliveries.stop(1)
    assert [receiver_of(one["labels"]) for one in (alive, warning, critical)] == ["dead-man", "operators", "on-call"]


def receiver_of(labels: dict[str, str]) -> str:
    """Who hears of an alert with these labels, by the shipped configuration."""
    config = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
    command = ["amtool", "config", "routes", "test", f"--config.file={config}"]
    given = [f"{name}={value}" for name, value in labels.items()]
    return subprocess.run([*command, *given], check=True, capture_output=True, text=True).stdout.strip()


def test_times_are_exact() -> None:
    assert rfc3339(1_790_000_000_000_001) == "2026-09-21T14:13:20.000001Z"
