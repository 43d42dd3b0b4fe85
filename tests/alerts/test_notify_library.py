"""The notification library against local services, and what becomes of one that hangs."""

import logging
import sys
import threading
from pathlib import Path

import pytest

from oracle_hub.alerts.alert import Severity
from oracle_hub.alerts.notify.settings import LibrarySettings, Secret
from oracle_hub.errors import ConfigError
from tests.alerts.delivery import (
    INSTANCE,
    Receiver,
    alert,
    delivering,
    escalated,
    firing,
    resolved,
    serving,
    webhook,
)


def library(receiver: Receiver, path: str = "TOKEN-THAT-IS-SECRET", **more: object) -> LibrarySettings:
    url = Secret(f"json://127.0.0.1:{receiver.port}/{path}")
    return LibrarySettings(name="people", url=url, **more)  # type: ignore[arg-type]


async def test_people_read_beginning_escalation_and_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sol = alert()
    async with serving() as receiver:
        deliveries = delivering(tmp_path, library(receiver), runbook_url="https://run.example/{kind}", simulated=True)
        await deliveries.start([])
        for one in (firing(sol), escalated(sol), resolved(sol)):
            deliveries.take(one)
        told = [(await receiver.next()).json for _ in range(3)]
        await deliveries.stop(5)
    about = "pair_diverged SOL/USD doves/pyth"
    assert [(one["type"], one["title"]) for one in told] == [
        ("warning", f"[simulated] [WARNING] {about}"),
        ("failure", f"[simulated] [CRITICAL] {about}"),
        ("success", f"[simulated] [RESOLVED] {about}"),
    ]
    what, where = "SOL/USD: 81.2 bps apart, 50 allowed", f"{sol.occurrence} hub {INSTANCE}"
    runbook = "https://run.example/pair_diverged"
    assert [one["message"].splitlines() for one in told] == [
        [what, runbook, where],
        [what, "escalated after 1.5 s", runbook, where],
        [what, "lasted 2.5 s", where],
    ]
    assert "TOKEN-THAT-IS-SECRET" not in caplog.text


async def test_what_a_service_does_not_accept_is_tried_again(tmp_path: Path) -> None:
    async with serving() as receiver:
        receiver.answers.extend([500, "reset"])
        deliveries = delivering(tmp_path, library(receiver))
        await deliveries.start([])
        deliveries.take(firing(alert(severity=Severity.CRITICAL)))
        titles = [(await receiver.next()).json["title"] for _ in range(3)]
        await deliveries.settled()
        (health,) = deliveries.health
        await deliveries.stop(5)
    assert len(set(titles)) == 1
    assert (health.way, health.ok, health.failures, health.waiting) == ("notify", True, 2, 0)


async def test_a_call_that_hangs_is_one_thread_and_delays_no_other_channel(tmp_path: Path) -> None:
    async with serving() as stuck, serving() as receiver:
        stuck.always = "hang"
        people = library(stuck, "?rto=60", timeout_s=0.05)
        deliveries = delivering(tmp_path, people, webhook(receiver))
        await deliveries.start([])
        for feed in ("A/USD", "B/USD", "C/USD"):
            deliveries.take(firing(alert(feed)))
        assert [(await receiver.next()).json["alert"]["feed"] for _ in range(3)] == ["A/USD", "B/USD", "C/USD"]
        await stuck.next()
        later = 0
        while next(one for one in deliveries.health if one.name == "people").failures < 3:
            later += 1
            deliveries.take(firing(alert(f"LATER{later}/USD")))
            await receiver.next()
        assert stuck.requests.empty(), "attempts after the first wait for the same call"
        assert [one.name for one in threading.enumerate()].count("alerts-people") == 1
        stuck.let_go.set()
        stuck.always = 200
        assert (await stuck.next()).json["title"].endswith("B/USD doves/pyth"), "the call that hung did succeed"
        await deliveries.stop(5)


@pytest.mark.parametrize("url", ["no-such-service://TOKEN", "TOKEN", "json://a/TOKEN, json://b/TOKEN"])
def test_a_url_that_the_library_does_not_know_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        delivering(tmp_path, LibrarySettings(name="people", url=Secret(url)))
    assert str(refused.value) == (
        "alerts.notify.people.url: the notification library does not know such a URL; one service per entry"
    )


def test_without_the_extra_it_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(
        ConfigError, match=r"^alerts.notify.people: needs the extra: pip install 'oracle-hub\[notify\]'$"
    ):
        delivering(tmp_path, LibrarySettings(name="people", url=Secret("json://127.0.0.1")))
