"""Webhooks against a server that hangs, refuses, fails, resets and asks for patience."""

import base64
import hashlib
import hmac
import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from oracle_hub.alerts.alert import Severity
from oracle_hub.alerts.notify.posting import retry_after_s
from oracle_hub.alerts.notify.settings import Secret
from oracle_hub.errors import ConfigError
from tests.alerts.delivery import (
    INSTANCE,
    START_US,
    Received,
    Receiver,
    alert,
    delivering,
    escalated,
    firing,
    resolved,
    serving,
    webhook,
)
from tests.conftest import ROOT, require
from tests.ports import deaf_port

SECRET = "a secret for the desk"


def told(one: Received) -> tuple[str, str]:
    return one.json["alert"]["feed"], one.json["change"]


def accepts(script: str, received: Received, body: Path) -> bool:
    """Whether the documented shell script accepts a message, with this body."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "SECRET": SECRET,
        "BODY": str(body),
        "WEBHOOK_ID": received.headers["webhook-id"],
        "WEBHOOK_TIMESTAMP": received.headers["webhook-timestamp"],
        "WEBHOOK_SIGNATURE": received.headers["webhook-signature"],
    }
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=False).returncode == 0


async def told_next(receiver: Receiver, count: int) -> list[tuple[str, str]]:
    return [told(await receiver.next()) for _ in range(count)]


async def test_a_webhook_is_told_of_beginning_escalation_and_end(tmp_path: Path) -> None:
    sol = alert()
    async with serving() as receiver:
        deliveries = delivering(tmp_path, webhook(receiver), runbook_url="https://run.example/{kind}", simulated=True)
        await deliveries.start([])
        for one in (firing(sol), escalated(sol), resolved(sol)):
            deliveries.take(one)
        first, _, last = [await receiver.next() for _ in range(3)]
        await deliveries.stop(5)
    assert first.json == {
        "type": "alert",
        "key": f"{sol.occurrence}-firing",
        "change": "firing",
        "at_us": START_US + 500_000,
        "instance": INSTANCE,
        "simulated": True,
        "alert": {
            "id": sol.id,
            "occurrence": f"{sol.id}-{START_US}",
            "kind": "pair_diverged",
            "feed": "SOL/USD",
            "sources": ["doves", "pyth"],
            "severity": "warning",
            "started_us": START_US,
            "told_us": START_US + 500_000,
            "ended_us": None,
            "summary": "SOL/USD: 81.2 bps apart, 50 allowed",
            "evidence": {"distance_bps": 81.2, "ages_ms": {"doves": 120, "pyth": 400}},
            "runbook_url": "https://run.example/pair_diverged",
        },
    }
    assert (last.json["change"], last.json["alert"]["ended_us"]) == ("resolved", START_US + 2_500_000)
    assert last.headers["Idempotency-Key"] == last.headers["webhook-id"] == f"{sol.occurrence}-resolved"


@pytest.mark.parametrize("secret", [SECRET, "whsec_" + base64.b64encode(b"\x00\xffkey").decode()])
async def test_the_signature_is_that_of_the_standard(tmp_path: Path, secret: str) -> None:
    key = b"\x00\xffkey" if secret.startswith("whsec_") else secret.encode()
    async with serving() as receiver:
        deliveries = delivering(tmp_path, webhook(receiver, secret=Secret(secret)))
        await deliveries.start([])
        deliveries.take(firing(alert()))
        one = await receiver.next()
        await deliveries.stop(5)
    signed = f"{one.headers['webhook-id']}.{START_US // 1_000_000}.".encode() + one.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert one.headers["webhook-timestamp"] == "1790000000"
    assert one.headers["webhook-signature"] == f"v1,{expected}"


async def test_the_documented_checks_accept_what_is_sent_and_nothing_else(tmp_path: Path) -> None:
    require(shutil.which("openssl") is not None, "openssl")
    blocks = re.findall(r"```(python|bash)\n(.*?)```", (ROOT / "docs" / "alerts.md").read_text(), re.DOTALL)
    examples = {language: text for language, text in blocks if "webhook-id" in text or "WEBHOOK_ID" in text}
    async with serving() as receiver:
        deliveries = delivering(tmp_path, webhook(receiver, secret=Secret(SECRET)))
        await deliveries.start([])
        deliveries.take(firing(alert()))
        one = await receiver.next()
        await deliveries.stop(5)
    namespace: dict[str, object] = {}
    exec(examples["python"], namespace)
    genuine = namespace["genuine"]
    assert callable(genuine)
    now_s = START_US // 1_000_000
    assert genuine(one.headers, one.body, SECRET, now_s) is True
    assert genuine(one.headers, one.body + b" ", SECRET, now_s) is False
    assert genuine(one.headers, one.body, SECRET, now_s + 600) is False
    body = tmp_path / "body.json"
    body.write_bytes(one.body)
    assert accepts(examples["bash"], one, body)
    body.write_bytes(one.body + b" ")
    assert not accepts(examples["bash"], one, body)


async def test_failures_are_tried_again_until_it_works_and_order_is_kept(tmp_path: Path) -> None:
    sol, btc = alert(), alert("BTC/USD")
    async with serving() as receiver:
        receiver.answers.extend([500, "reset", 404, 302, 503, 200, 500, 200])
        deliveries = delivering(tmp_path, webhook(receiver))
        await deliveries.start([])
        for one in (firing(sol), firing(btc), resolved(sol), resolved(btc)):
            deliveries.take(one)
        received = await told_next(receiver, 10)
        await deliveries.stop(5)
    assert received[:6] == [("SOL/USD", "firing")] * 6
    assert received[6:] == [("BTC/USD", "firing")] * 2 + [("SOL/USD", "resolved"), ("BTC/USD", "resolved")]


async def test_health_tells_what_is_wrong_in_our_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as receiver:
        receiver.answers.extend([(503, {"Retry-After": "3600"})])
        deliveries = delivering(tmp_path, webhook(receiver, secret=Secret(SECRET)))
        await deliveries.start([])
        deliveries.take(firing(alert()))
        await receiver.next()
        await deliveries.stop(0.2)
        deliveries = delivering(tmp_path, webhook(receiver))
        await deliveries.start()
        await receiver.next()
        await deliveries.settled()
        (health,) = deliveries.health
        assert (health.name, health.way, health.ok, health.waiting, health.failures) == ("desk", "webhook", True, 0, 0)
        assert health.sent == {"firing": 1, "escalated": 0, "resolved": 0}
        assert health.last_success_us == START_US
        assert ("oraclehub_alert_messages_sent", ("desk", "firing"), 1) in list(deliveries.samples())
        await deliveries.stop(5)
    assert "desk: answered 503; trying again until it works" in caplog.text
    assert SECRET not in caplog.text and receiver.url.removeprefix("http://") not in caplog.text.replace("Host", "")


async def test_what_asked_for_patience_is_left_alone(tmp_path: Path) -> None:
    async with serving() as receiver:
        receiver.answers.append((429, {"Retry-After": "3600"}))
        deliveries = delivering(tmp_path, webhook(receiver), webhook(receiver, "other"))
        await deliveries.start([])
        deliveries.take(firing(alert()))
        first, second = [await receiver.next() for _ in range(2)]
        assert {first.path, second.path} == {"/desk", "/other"}
        deliveries.take(resolved(alert()))
        third = await receiver.next()
        assert third.path == second.path and told(third) == ("SOL/USD", "resolved")
        patient = next(one for one in deliveries.health if one.name == first.path.strip("/"))
        assert (patient.ok, patient.waiting, patient.last_error) == (False, 2, "answered 429")
        await deliveries.stop(5)
        assert receiver.requests.empty()


async def test_a_channel_that_hangs_delays_no_other(tmp_path: Path) -> None:
    async with serving() as stuck, serving() as receiver:
        stuck.always = "hang"
        deliveries = delivering(tmp_path, webhook(stuck, "stuck", timeout_s=600), webhook(receiver))
        await deliveries.start([])
        for number in range(50):
            deliveries.take(firing(alert(f"F{number}/USD")))
        received = await told_next(receiver, 50)
        assert received == [(f"F{number}/USD", "firing") for number in range(50)]
        assert stuck.requests.qsize() == 1
        assert {one.name: one.waiting for one in deliveries.health}["stuck"] == 50
        await deliveries.stop(0.1)


async def test_an_attempt_without_an_answer_ends_in_time_and_is_made_again(tmp_path: Path) -> None:
    async with serving() as receiver:
        receiver.answers.append("hang")
        deliveries = delivering(tmp_path, webhook(receiver, timeout_s=0.1))
        await deliveries.start([])
        deliveries.take(firing(alert()))
        keys = [(await receiver.next()).headers["Idempotency-Key"] for _ in range(2)]
        assert keys == [f"{alert().occurrence}-firing"] * 2
        await deliveries.stop(5)


async def test_nobody_listens(tmp_path: Path) -> None:
    with deaf_port() as port:
        lost = Receiver()
        lost.url = f"http://127.0.0.1:{port}"
        deliveries = delivering(tmp_path, webhook(lost))
        (result,) = await deliveries.test()
        await deliveries.stop(1)
    assert (result.channel, result.way, result.ok, result.error) == ("desk", "webhook", False, "no connection")


async def test_a_message_that_is_refused_as_such_is_given_up_and_those_behind_it_go_on(tmp_path: Path) -> None:
    sol, btc = alert(), alert("BTC/USD")
    async with serving() as receiver:
        receiver.answers.extend([400, 400, 400])
        deliveries = delivering(tmp_path, webhook(receiver))
        await deliveries.start([])
        for one in (firing(sol), firing(btc), resolved(sol), resolved(btc)):
            deliveries.take(one)
        received = await told_next(receiver, 5)
        await deliveries.settled()
        (health,) = deliveries.health
        await deliveries.stop(5)
    assert received == [("SOL/USD", "firing")] * 3 + [("BTC/USD", "firing"), ("BTC/USD", "resolved")]
    assert (health.given_up, health.ok, health.waiting) == (1, True, 0)


async def test_a_restart_sends_what_was_not_acknowledged_and_nothing_twice(tmp_path: Path) -> None:
    sol, btc, gone = alert(), alert("BTC/USD"), alert("ETH/USD")
    async with serving() as receiver:
        first = delivering(tmp_path, webhook(receiver))
        await first.start([])
        for one in (sol, btc, gone):
            first.take(firing(one))
        await told_next(receiver, 3)
        await first.stop(5)
        receiver.always = 500
        second = delivering(tmp_path, webhook(receiver))
        await second.start([sol, btc, gone])
        second.take(resolved(sol))
        await told_next(receiver, 1)
        await second.stop(0)
        while not receiver.requests.empty():
            receiver.requests.get_nowait()
        receiver.always = 200
        third = delivering(tmp_path, webhook(receiver))
        await third.start([btc])  # ETH/USD ended while nobody looked
        assert await told_next(receiver, 2) == [("SOL/USD", "resolved"), ("ETH/USD", "resolved")]
        await third.stop(5)
        assert receiver.requests.empty()


async def test_signs_of_life_go_on_and_stop_when_the_hub_does_not_work(tmp_path: Path) -> None:
    async with serving() as receiver:
        deliveries = delivering(tmp_path, webhook(receiver, heartbeat_s=0.01))
        await deliveries.start([])
        first, second = [(await receiver.next()).json for _ in range(2)]
        await deliveries.stop(1)
    assert (
        first
        == second
        == {
            "type": "heartbeat",
            "key": f"hub_alive-{INSTANCE}-{START_US}",
            "at_us": START_US,
            "every_s": 0.01,
            "instance": INSTANCE,
            "simulated": False,
        }
    )


async def test_a_test_is_a_pair_that_says_so_and_passes_filters(tmp_path: Path) -> None:
    async with serving() as receiver:
        channels = webhook(receiver, min_severity=Severity.CRITICAL), webhook(receiver, "other")
        deliveries = delivering(tmp_path, *channels)
        (result,) = await deliveries.test("desk")
        pair = [await receiver.next() for _ in range(2)]
        with pytest.raises(ConfigError, match="no alerts channel is called slack; configured: desk, other"):
            await deliveries.test("slack")
        await deliveries.stop(1)
        assert receiver.requests.empty()
    assert (result.channel, result.ok, result.error) == ("desk", True, None) and result.elapsed_ms > 0
    assert [(one.json["alert"]["kind"], one.json["change"]) for one in pair] == [
        ("test", "firing"),
        ("test", "resolved"),
    ]
    assert not (tmp_path / "alerts-outbox.sqlite").exists(), "a test does not touch the outbox of a hub that runs"


def test_a_secret_that_is_no_base64_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^alerts.webhook.desk.secret: what follows whsec_ is not base64$"):
        delivering(tmp_path, webhook(Receiver(), secret=Secret("whsec_!!!")))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        ("Mon, 21 Sep 2026 14:13:50 GMT", 30.0),
        ("Mon, 21 Sep 2020 14:13:50 GMT", 0.0),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, START_US) == seconds


async def test_what_the_disk_refuses_is_sent_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "alerts-outbox.sqlite").mkdir()
    async with serving() as receiver:
        deliveries = delivering(tmp_path, webhook(receiver))
        await deliveries.start([])
        deliveries.take(firing(alert()))
        assert await told_next(receiver, 1) == [("SOL/USD", "firing")]
        assert deliveries.kept is not None
        await deliveries.stop(1)
    assert "not kept over a restart" in caplog.text


async def test_a_damaged_outbox_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "alerts-outbox.sqlite"
    path.write_bytes(b"this is no database" * 100)
    async with serving() as receiver:
        deliveries = delivering(tmp_path, webhook(receiver))
        await deliveries.start([alert()])
        assert await told_next(receiver, 1) == [("SOL/USD", "firing")]
        await deliveries.stop(5)
        again = delivering(tmp_path, webhook(receiver))
        await again.start([alert()])
        await again.stop(5)
        assert receiver.requests.empty()
    assert path.with_suffix(".damaged").read_bytes().startswith(b"this is no database")
    assert "moved to alerts-outbox.damaged" in caplog.text
