"""The channel of alerts: what is open first, then every change, and nothing lost without being said."""

from typing import Any

import orjson
import pytest

from oracle_hub.stream.messages import AlertChange, AlertEntry, digest
from tests.stream.model_client import unframed
from tests.stream.test_session import BTC, FULL, SOL, Stage


def change(kind: str, feed: str | None, what: str = "firing", at_us: int = 7) -> AlertChange:
    ended_us = at_us if what == "resolved" else None
    alert = AlertEntry(
        id=f"{kind}-{feed}",
        occurrence=f"{kind}-{feed}-1",
        kind=kind,
        feed=feed,
        sources=["pyth"],
        severity="warning",
        started_us=1,
        told_us=2,
        ended_us=ended_us,
        summary="what is wrong",
        evidence={"value": 3},
    )
    return AlertChange(what, at_us, alert)


def tell(stage: Stage, one: AlertChange, unsent_bytes: int = 0) -> list[dict[str, Any]]:
    stage.board.alerts.take(one)
    return unframed(stage.session.alert(one, stage.service.clock_us, unsent_bytes))


def test_what_is_open_comes_first_and_then_every_change() -> None:
    stage = Stage()
    stage.board.alerts.take(change("no_price", SOL))
    subscribed, alerts = stage.subscribe("*", channel="alerts")
    assert (subscribed["channel"], subscribed["accepted"], subscribed["sub"]) == ("alerts", [SOL, BTC], 1)
    assert (alerts["type"], alerts["sub"], alerts["n"]) == ("alerts", 1, 1)
    assert [one["id"] for one in alerts["open"]] == ["no_price-SOL/USD"]
    (told,) = tell(stage, change("conflict", BTC))
    assert told == {
        "type": "alert", "sub": 1, "epoch": stage.service.epoch, "n": 2, "prev_n": 1, "sent_us": told["sent_us"],
        "at_us": 7, "change": "firing", "alert": orjson.loads(orjson.dumps({
            "id": "conflict-BTC/USD", "occurrence": "conflict-BTC/USD-1", "kind": "conflict", "feed": BTC,
            "sources": ["pyth"], "severity": "warning", "started_us": 1, "told_us": 2, "ended_us": None,
            "summary": "what is wrong", "evidence": {"value": 3}})),
    }  # fmt: skip
    (told,) = tell(stage, change("no_price", SOL, "resolved"))
    assert (told["change"], told["prev_n"], told["alert"]["ended_us"]) == ("resolved", 2, 7)
    assert list(stage.board.alerts.open) == ["conflict-BTC/USD"]


def test_only_what_concerns_the_feeds_asked_for_and_what_is_no_feeds() -> None:
    stage = Stage()
    stage.subscribe(BTC, channel="alerts")
    assert tell(stage, change("no_price", SOL)) == []
    (told,) = tell(stage, change("storm", None))
    assert (told["n"], told["prev_n"], told["alert"]["kind"]) == (2, 0, "storm")


def test_who_does_not_read_is_told_all_that_is_open_once_it_does() -> None:
    stage = Stage()
    stage.subscribe("*", channel="alerts")
    assert tell(stage, change("no_price", SOL), FULL) == []
    assert tell(stage, change("conflict", BTC), FULL) == []
    assert stage.session.dirty
    assert unframed(stage.session.flush(stage.service.clock_us, FULL)) == []
    (alerts,) = stage.flush()
    assert (alerts["type"], alerts["n"]) == ("alerts", 2)
    assert len(alerts["open"]) == 2
    assert not stage.session.dirty


def test_a_heartbeat_tells_that_nothing_else_is_open() -> None:
    stage = Stage()
    stage.subscribe("*", channel="alerts")
    tell(stage, change("no_price", SOL))
    (beat,) = unframed(stage.session.heartbeat(stage.service.clock_us, 0))
    assert (beat["type"], beat["sub"], beat["seq"], beat["not_live"]) == ("heartbeat", 1, 1, [])
    assert beat["digest"] == digest(["no_price-SOL/USD\n"])


def test_prices_and_alerts_in_one_session() -> None:
    stage = Stage()
    stage.subscribe(SOL)
    stage.subscribe("*", channel="alerts")
    assert stage.session.subscriptions == 2
    (told,) = tell(stage, change("no_price", SOL))
    assert told["sub"] == 2
    (update,) = stage.tick(SOL, 151)
    assert (update["type"], update["sub"]) == ("update", 1)
    beats = unframed(stage.session.heartbeat(stage.service.clock_us, 0))
    assert [beat["sub"] for beat in beats] == [1, 2]
    assert stage.ask(type="unsubscribe", id=5, sub=2) == [{"type": "unsubscribed", "id": 5, "sub": 2}]
    assert stage.board.alerts.sessions == {}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"mode": "all"}, "unsupported_option"),
        ({"max_hz": 5}, "unsupported_option"),
        ({"max_age_ms": 5}, "unsupported_option"),
        ({"resume": {"epoch": 1, "seq": 1}}, "unsupported_option"),
    ],
)
def test_options_of_prices_are_refused(options: dict[str, Any], code: str) -> None:
    (error,) = Stage().subscribe("*", channel="alerts", **options)
    assert (error["type"], error["code"]) == ("error", code)


def test_unknown_feeds_alone_are_no_subscription() -> None:
    stage = Stage()
    (subscribed,) = stage.subscribe("NOPE/USD", channel="alerts")
    assert (subscribed["sub"], subscribed["rejected"]) == (None, [{"feed": "NOPE/USD", "code": "unknown_feed"}])
    assert stage.board.alerts.sessions == {}


def test_a_session_that_ends_follows_no_more() -> None:
    stage = Stage()
    stage.subscribe("*", channel="alerts")
    stage.session.end()
    assert stage.board.alerts.sessions == {}
