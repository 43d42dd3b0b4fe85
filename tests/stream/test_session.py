"""One subscriber against the real hub: subscriptions, sequences, merging, resume, limits."""

from typing import Any

import orjson
import pytest

from oracle_hub.core.hub import Batch
from oracle_hub.stream.board import Board
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import CloseCode
from oracle_hub.stream.session import DEFAULT_LIMITS, Session, SessionLimits
from tests.server.stream_service import START_US, HubService
from tests.stream.model_client import ModelClient, sized_frame, unframed

SOL, BTC = "SOL/USD", "BTC/USD"
FULL = DEFAULT_LIMITS.conflate_above_bytes + 1


class Stage:
    """A hub, its board, and one session that is told of every batch."""

    def __init__(self, limits: SessionLimits = DEFAULT_LIMITS, **bounds: int) -> None:
        self.service = HubService(SOL, BTC)
        self.board = Board(self.service.decisions, History(self.service.epoch, self.service.seq, **bounds), sized_frame)
        self.limits = limits
        self.session = Session(self.board, limits)
        self.tick(SOL, 150)
        self.tick(BTC, 60_000)

    def ask(self, **message: Any) -> list[dict[str, Any]]:
        now_us = self.service.clock_us
        return unframed(self.session.receive(orjson.dumps(message).decode(), now_us, now_us))

    def subscribe(self, *feeds: Any, **options: Any) -> list[dict[str, Any]]:
        return self.ask(type="subscribe", id=1, feeds=list(feeds), **options)

    def publish(self, batch: Batch, unsent_bytes: int = 0) -> list[dict[str, Any]]:
        publication = self.board.apply(batch, self.service.clock_us)
        return unframed(self.session.publish(publication, unsent_bytes))

    def tick(self, feed: str, mantissa: int, *sources: str, unsent_bytes: int = 0) -> list[dict[str, Any]]:
        return self.publish(self.service.tick(feed, mantissa, *sources), unsent_bytes)

    def flush(self, after_us: int = 0) -> list[dict[str, Any]]:
        self.service.clock_us += after_us
        return unframed(self.session.flush(self.service.clock_us, 0))


def prices(message: dict[str, Any]) -> dict[str, str | None]:
    return {entry["feed"]: entry["price"] for entry in message["feeds"]}


def test_subscribing_gives_an_answer_and_a_snapshot_of_the_last_batch() -> None:
    stage = Stage()
    subscribed, snapshot = stage.subscribe(SOL)
    assert subscribed == {
        "type": "subscribed", "id": 1, "sub": 1, "channel": "prices", "accepted": [SOL], "rejected": [],
        "recovered": None, "received_us": stage.service.clock_us, "sent_us": stage.service.clock_us,
    }  # fmt: skip
    assert (snapshot["type"], snapshot["sub"], snapshot["seq"]) == ("snapshot", 1, 3)
    assert prices(snapshot) == {SOL: "150"}


def test_one_bad_feed_is_refused_by_name_and_the_others_are_taken() -> None:
    subscribed, snapshot = Stage().subscribe("SOL/USDX", SOL, 7, SOL, ["deep"], "x" * 100, None, True, {"a": 1}, 1e-7)
    assert subscribed["accepted"] == [SOL]
    assert subscribed["rejected"] == [
        {"feed": "SOL/USDX", "code": "unknown_feed"},
        {"feed": "7", "code": "bad_feed_id"},
        {"feed": "array", "code": "bad_feed_id"},
        {"feed": "x" * 64, "code": "bad_feed_id"},
        {"feed": "null", "code": "bad_feed_id"},
        {"feed": "true", "code": "bad_feed_id"},
        {"feed": "object", "code": "bad_feed_id"},
        {"feed": "1e-07", "code": "bad_feed_id"},
    ]
    assert prices(snapshot) == {SOL: "150"}


def test_without_an_accepted_feed_there_is_no_subscription() -> None:
    stage = Stage()
    (subscribed,) = stage.subscribe("NO/USD")
    assert (subscribed["sub"], subscribed["accepted"]) == (None, [])
    assert stage.session.subscriptions == 0


def test_updates_chain_by_the_last_sequence_sent_to_the_subscription() -> None:
    stage = Stage()
    stage.subscribe(SOL)
    assert stage.tick(BTC, 60_001) == []
    (first,) = stage.tick(SOL, 151)
    assert (first["prev_seq"], first["seq"], prices(first)) == (3, 5, {SOL: "151"})
    stage.tick(BTC, 60_002)
    (second,) = stage.tick(SOL, 152)
    assert (second["prev_seq"], second["seq"]) == (5, 7)
    assert (second["conflated"], second["replayed"]) == (False, False)


def test_an_update_is_one_object_for_all_who_stand_at_the_same_sequence() -> None:
    stage = Stage()
    others = [Session(stage.board) for _ in range(3)]
    for session in others:
        session.receive('{"type":"subscribe","feeds":["SOL/USD"]}', START_US, START_US)
    publication = stage.board.apply(stage.service.tick(SOL, 151), stage.service.clock_us)
    frames = [session.publish(publication, 0) for session in others]
    assert frames[0] is frames[1] is frames[2]


def test_all_feeds_includes_those_that_come_later_and_says_which_went() -> None:
    stage = Stage()
    stage.subscribe("*")
    other = HubService(SOL, "ETH/USD")
    stage.service.hub.reload(other.hub.catalog, "another")
    batch = stage.service.hub.step(stage.service.clock_us)
    assert batch is not None
    (update,) = stage.publish(batch)
    states = {entry["feed"]: (entry["state"], entry["reason"]) for entry in update["feeds"]}
    assert states[BTC] == ("none", "removed")
    assert states["ETH/USD"] == ("none", "warming")
    (later,) = stage.tick("ETH/USD", 4_000)
    assert prices(later) == {"ETH/USD": "4000"}
    assert stage.subscribe(BTC)[0]["rejected"] == [{"feed": BTC, "code": "unknown_feed"}]


def test_the_end_of_a_lease_is_an_update_of_its_own() -> None:
    stage = Stage()
    stage.subscribe(SOL)
    lease_us = stage.service.decisions[SOL].valid_until_us
    assert lease_us is not None
    batch = stage.service.wait(lease_us)
    assert batch is not None
    (update,) = stage.publish(batch)
    assert (update["feeds"][0]["state"], update["feeds"][0]["price"]) == ("none", None)


def test_who_joins_when_a_step_is_late_is_not_given_the_ended_price() -> None:
    stage = Stage()
    stage.service.clock_us = START_US + 60_000_000
    _, snapshot = stage.subscribe(SOL)
    entry = snapshot["feeds"][0]
    assert (entry["state"], entry["price"], entry["reason"]) == ("none", None, "lease_over")


def test_unsubscribing_ends_the_stream_and_is_answered() -> None:
    stage = Stage()
    stage.subscribe(SOL)
    assert stage.ask(type="unsubscribe", id=2, sub=1) == [{"type": "unsubscribed", "id": 2, "sub": 1}]
    assert stage.tick(SOL, 151) == []
    (error,) = stage.ask(type="unsubscribe", id=3, sub=1)
    assert (error["id"], error["code"]) == (3, "unknown_subscription")


def test_ping_is_answered_with_times() -> None:
    stage = Stage()
    now_us = stage.service.clock_us
    assert stage.ask(type="ping", id="p") == [{"type": "pong", "id": "p", "received_us": now_us, "sent_us": now_us}]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "subscribe", "feeds": []}, "bad_message"),
        ({"type": "subscribe", "feeds": ["*"], "channel": "bars"}, "unknown_channel"),
        ({"type": "subscribe", "feeds": ["*"], "mode": "all", "max_hz": 4}, "unsupported_option"),
        ({"type": "subscribe", "feeds": ["X"] * 6}, "too_many_feeds"),
        ({"type": "order"}, "unknown_type"),
    ],
)
def test_a_refused_request_is_answered_by_id_and_changes_nothing(message: dict[str, Any], code: str) -> None:
    stage = Stage(SessionLimits(max_feeds=5))
    (error,) = stage.ask(id="q", **message)
    assert (error["type"], error["id"], error["code"]) == ("error", "q", code)
    assert (stage.session.subscriptions, stage.session.errors, stage.session.close_code) == (0, 1, None)


def test_subscriptions_are_bounded() -> None:
    stage = Stage(SessionLimits(max_subscriptions=2))
    stage.subscribe(SOL)
    stage.subscribe(SOL)
    (error,) = stage.subscribe(SOL)
    assert error["code"] == "too_many_subscriptions"
    stage.ask(type="unsubscribe", sub=1)
    assert stage.subscribe(SOL)[0]["sub"] == 3


def test_requests_are_limited_by_rate_and_the_allowance_grows_back() -> None:
    stage = Stage(SessionLimits(requests_per_second=2, request_burst=3))
    kinds = [stage.ask(type="ping")[0]["type"] for _ in range(4)]
    assert kinds == ["pong", "pong", "pong", "error"]
    stage.service.clock_us += 499_999
    assert stage.ask(type="ping")[0]["code"] == "rate_limited"
    stage.service.clock_us += 1
    assert stage.ask(type="ping")[0]["type"] == "pong"


def test_who_keeps_sending_nonsense_is_closed_for_good() -> None:
    stage = Stage(SessionLimits(max_errors=3))
    for _ in range(3):
        assert stage.session.close_code is None
        stage.session.receive("nonsense", START_US, START_US)
    assert stage.session.close_code is CloseCode.TOO_MANY_ERRORS


def test_a_full_socket_costs_one_merged_entry_per_feed() -> None:
    stage = Stage()
    stage.subscribe("*")
    for mantissa in (151, 149, 152):
        assert stage.tick(SOL, mantissa, unsent_bytes=FULL) == []
    stage.tick(BTC, 60_005, unsent_bytes=FULL)
    assert stage.session.dirty
    assert stage.session.flush(stage.service.clock_us, FULL) == b""
    (merged,) = stage.flush()
    assert (merged["prev_seq"], merged["seq"], merged["conflated"]) == (3, 7, True)
    sol, btc = merged["feeds"]
    assert (sol["price"], sol["n"], sol["low"], sol["high"], sol["was_none"]) == ("152", 3, "149", "152", False)
    assert (btc["price"], btc["n"]) == ("60005", 1)
    assert stage.flush() == []
    (after,) = stage.tick(SOL, 153)
    assert (after["prev_seq"], after["conflated"]) == (7, False)


def test_a_merged_entry_tells_of_a_none_in_between() -> None:
    stage = Stage()
    stage.subscribe(SOL)
    batch = stage.service.wait(START_US + 30_000_000)
    assert batch is not None
    stage.publish(batch, FULL)
    stage.tick(SOL, 151, unsent_bytes=FULL)
    entry = stage.flush()[0]["feeds"][0]
    assert (entry["state"], entry["price"], entry["was_none"]) == ("live", "151", True)


def test_max_hz_merges_and_lets_state_changes_pass_at_once() -> None:
    stage = Stage()
    stage.subscribe(SOL, max_hz=10)
    assert len(stage.tick(SOL, 151)) == 1
    assert stage.tick(SOL, 152) == []
    assert stage.flush(after_us=90_000) == []
    (merged,) = stage.flush(after_us=10_000)
    assert (merged["conflated"], prices(merged)) == (True, {SOL: "152"})
    assert stage.tick(SOL, 153) == []
    batch = stage.service.wait(stage.service.clock_us + 30_000_000)
    assert batch is not None
    (none,) = stage.publish(batch)
    assert (none["feeds"][0]["state"], none["feeds"][0]["n"], none["feeds"][0]["low"]) == ("none", 2, "153")


def test_mode_all_is_closed_when_it_cannot_keep_up() -> None:
    stage = Stage(SessionLimits(max_unsent_bytes=100))
    stage.subscribe(SOL, mode="all")
    assert len(stage.tick(SOL, 151, unsent_bytes=FULL)) == 1
    assert len(stage.tick(SOL, 152, unsent_bytes=100)) == 1
    assert stage.tick(SOL, 152, unsent_bytes=101) == []
    assert stage.session.close_code is CloseCode.TOO_SLOW


def test_a_state_longer_than_the_limit_is_no_sign_of_a_slow_reader() -> None:
    stage = Stage(SessionLimits(max_unsent_bytes=2_000, max_unsent_age_ms=1_000))
    for mantissa in range(100, 140):
        stage.tick(SOL, mantissa)
    told = stage.subscribe(SOL, mode="all", **resume(stage, 1))
    state_bytes = sum(len(orjson.dumps(one)) for one in told)
    assert state_bytes > 5_000
    stage.tick(SOL, 151, unsent_bytes=state_bytes)  # nothing of it is taken yet
    unread = 0  # of what follows, while nothing of the state is taken
    for mantissa in range(152, 200):
        frames = stage.tick(SOL, mantissa, unsent_bytes=state_bytes + unread)
        if not frames:
            break
        unread += len(orjson.dumps(frames[0]))
    assert stage.session.close_code is CloseCode.TOO_SLOW
    assert 1_000 < unread < 2_500


def test_a_state_that_is_never_taken_is_too_old_in_the_end() -> None:
    stage = Stage(SessionLimits(max_unsent_bytes=2_000, max_unsent_age_ms=1_000))
    stage.subscribe(SOL, mode="all")
    stage.service.clock_us += 1_100_000
    stage.tick(SOL, 151, unsent_bytes=9_000)
    assert stage.session.close_code is CloseCode.TOO_SLOW


def test_a_state_of_mode_latest_forgives_nothing() -> None:
    stage = Stage(SessionLimits(max_unsent_bytes=2_000))
    stage.subscribe(SOL, mode="all")
    for mantissa in range(100, 120):
        stage.tick(SOL, mantissa)
    stage.subscribe(BTC)  # mode latest forgives nothing
    assert stage.session.close_code is None
    stage.tick(SOL, 152, unsent_bytes=2_001)
    assert stage.session.close_code is CloseCode.TOO_SLOW


def test_mode_all_is_closed_when_something_waits_for_too_long_though_it_is_little() -> None:
    stage = Stage(SessionLimits(max_unsent_age_ms=1_000))
    stage.subscribe(SOL, mode="all")
    frames = [stage.tick(SOL, 151, unsent_bytes=100)]
    stage.service.clock_us += 900_000
    frames.append(stage.tick(SOL, 152, unsent_bytes=100))  # the oldest is taken by now
    stage.service.clock_us += 900_000
    frames.append(stage.tick(SOL, 153, unsent_bytes=100))
    assert all(frames) and stage.session.close_code is None
    for _ in range(2):
        stage.service.clock_us += 600_000
        stage.session.heartbeat(stage.service.clock_us, 10_000)
    assert stage.session.close_code is CloseCode.TOO_SLOW


def test_mode_latest_is_merged_however_long_its_socket_takes_nothing() -> None:
    stage = Stage(SessionLimits(max_unsent_age_ms=1))
    stage.subscribe(SOL)
    for mantissa in range(151, 160):
        stage.service.clock_us += 1_000_000
        stage.tick(SOL, mantissa, unsent_bytes=FULL)
        stage.session.heartbeat(stage.service.clock_us, FULL)
    assert stage.session.close_code is None and stage.session.dirty


def resume(stage: Stage, seq: int, **more: Any) -> dict[str, Any]:
    return {"resume": {"epoch": stage.service.epoch, "seq": seq, **more}}


def test_mode_all_resumes_by_replaying_everything_and_ends_with_a_snapshot() -> None:
    stage = Stage()
    for mantissa in (151, 152):
        stage.tick(SOL, mantissa)
        stage.tick(BTC, 60_000 + mantissa)
    subscribed, *updates, snapshot = stage.subscribe(SOL, mode="all", **resume(stage, 3))
    assert subscribed["recovered"] is True
    assert [(u["prev_seq"], u["seq"], u["replayed"], prices(u)[SOL]) for u in updates] == [
        (3, 4, True, "151"),
        (4, 6, True, "152"),
    ]
    assert (snapshot["seq"], prices(snapshot)) == (7, {SOL: "152"})
    (live,) = stage.tick(SOL, 153)
    assert (live["prev_seq"], live["seq"]) == (7, 8)


def test_mode_latest_resumes_with_one_merged_frame() -> None:
    stage = Stage()
    for mantissa in (151, 149):
        stage.tick(SOL, mantissa)
    subscribed, merged = stage.subscribe(SOL, BTC, **resume(stage, 3))
    assert subscribed["recovered"] is True
    assert (merged["type"], merged["prev_seq"], merged["seq"], merged["conflated"]) == ("update", 3, 5, True)
    assert [(e["feed"], e["price"], e["n"], e["low"], e["high"]) for e in merged["feeds"]] == [
        (SOL, "149", 2, "149", "151")
    ]


@pytest.mark.parametrize("mode", ["latest", "all"])
@pytest.mark.parametrize("point", [{"epoch": 1, "seq": 3}, {"seq": 99}, {"seq": 3}, {"seq": 5, "instance": "other"}])
def test_a_resume_that_is_not_complete_is_a_snapshot(mode: str, point: dict[str, Any]) -> None:
    stage = Stage(max_batches=2)
    for mantissa in (151, 152, 153):
        stage.tick(SOL, mantissa)
    subscribed, snapshot = stage.subscribe(SOL, mode=mode, resume={"epoch": stage.service.epoch, **point})
    assert subscribed["recovered"] is False
    assert (snapshot["type"], prices(snapshot)) == ("snapshot", {SOL: "153"})


def test_max_age_ends_a_price_before_its_lease_without_a_new_sequence() -> None:
    stage = Stage()
    client = ModelClient()
    client.take(stage.subscribe(SOL, max_age_ms=2_000)[1])
    end_us = stage.board.next_end_us()
    assert end_us == client.feeds[SOL]["valid_until_us"] == stage.service.decisions[SOL].publish_us + 2_000_001  # type: ignore[operator]
    assert stage.board.pop_ended(end_us - 1) == {}
    ended = stage.board.pop_ended(end_us)
    (update,) = unframed(stage.session.expire(ended, end_us, 0))
    assert (update["prev_seq"], update["seq"]) == (3, 3)
    entry = update["feeds"][0]
    assert (entry["state"], entry["price"], entry["reason"]) == ("none", None, "max_age")
    client.take(update)
    client.take_all(stage.session.heartbeat(end_us, 0))
    assert (client.gaps, client.wrong_digests, stage.board.next_end_us()) == (0, 0, None)
    (again,) = stage.tick(SOL, 151)
    assert again["feeds"][0]["state"] == "live"


def test_what_was_too_old_for_a_subscription_when_it_was_decided_is_none_in_what_it_is_told_merged() -> None:
    stage = Stage()
    stage.subscribe(SOL, max_age_ms=60)
    stage.tick(SOL, 152, unsent_bytes=FULL)
    old = stage.service.try_tick(SOL, 999, after_us=70_000, age_us=65_000)
    assert old is not None
    stage.publish(old, FULL)
    stage.tick(SOL, 153, unsent_bytes=FULL)
    (owed,) = stage.flush()
    _, resumed = stage.subscribe(SOL, max_age_ms=60, **resume(stage, 3))
    for update in (owed, resumed):
        (entry,) = update["feeds"]
        assert (entry["state"], entry["price"], entry["was_none"]) == ("live", "153", True)
        assert (entry["n"], entry["low"], entry["high"]) == (3, "152", "153")


def test_heartbeats_name_what_is_not_live_and_carry_the_sequence_of_the_subscription() -> None:
    stage = Stage()
    stage.subscribe(SOL)
    stage.subscribe(BTC)
    stage.tick(BTC, 61_000, "doves")  # far from both verifiers, which agree with each other
    sol, btc = unframed(stage.session.heartbeat(stage.service.clock_us, 0))
    assert (sol["sub"], sol["seq"], sol["not_live"]) == (1, 3, [])
    assert (btc["sub"], btc["seq"], btc["not_live"]) == (2, 4, [BTC])
    stage.service.clock_us += 60_000_000
    sol, btc = unframed(stage.session.heartbeat(stage.service.clock_us, 0))
    assert (sol["not_live"], btc["not_live"]) == ([SOL], [BTC])


def test_a_heartbeat_sends_held_back_changes_first_and_skips_who_does_not_read() -> None:
    stage = Stage()
    stage.subscribe(SOL, max_hz=1)
    stage.tick(SOL, 151)
    stage.tick(SOL, 152)
    assert stage.session.heartbeat(stage.service.clock_us, FULL) == b""
    merged, beat = unframed(stage.session.heartbeat(stage.service.clock_us, 0))
    assert (merged["type"], merged["seq"], beat["type"], beat["seq"]) == ("update", 5, "heartbeat", 5)


def test_a_missed_none_shows_in_the_digest() -> None:
    stage = Stage()
    client = ModelClient()
    client.take(stage.subscribe(SOL)[1])
    batch = stage.service.wait(START_US + 30_000_000)
    assert batch is not None
    stage.publish(batch)  # lost on the way
    stage.tick(SOL, 151)  # lost as well
    client.take_all(stage.session.heartbeat(stage.service.clock_us, 0))
    assert client.wrong_digests == 1


def test_an_ended_session_leaves_its_groups() -> None:
    stage = Stage()
    stage.subscribe(SOL, max_age_ms=5)
    stage.subscribe("*")
    assert stage.board.next_end_us() is not None
    stage.session.end()
    assert stage.board.next_end_us() is None
    assert stage.tick(SOL, 151) == []


def test_what_the_journal_could_not_take_is_marked_also_when_merged_or_replayed() -> None:
    stage = Stage()
    stage.subscribe(SOL)
    (before,) = stage.tick(SOL, 151)
    assert "journaled" not in before
    publication = stage.board.apply(stage.service.tick(SOL, 152), stage.service.clock_us, journaled=False)
    (update,) = unframed(stage.session.publish(publication, 0))
    assert (update["seq"], update["journaled"]) == (5, False)
    stage.tick(SOL, 153)
    assert stage.subscribe(SOL, **resume(stage, 4))[1]["journaled"] is False
    assert "journaled" not in stage.subscribe(SOL, **resume(stage, 5))[1]
    replayed = stage.subscribe(SOL, mode="all", **resume(stage, 3))[1:-1]
    assert [message.get("journaled", True) for message in replayed] == [True, False, True]
