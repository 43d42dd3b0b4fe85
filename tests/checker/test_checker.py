"""The checker passes what is right, and names what is wrong: one planted fault for each of its rules."""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import orjson
import pytest

from tests.checker.check import check
from tests.checker.fabricated import FabricatedRun, fabricated_run
from tests.checker.findings import RULES, Report
from tests.checker.records import Acted, ClockAnchor, HeldFeed, LogRecord, Received
from tests.checker.truth import Truth

Change: TypeAlias = Callable[[dict[str, Any]], None]
INSTANCE = "6f1c2d3e-0000-4000-8000-000000000001"


@pytest.fixture
def run() -> FabricatedRun:
    return fabricated_run()


def logs(run: FabricatedRun) -> list[list[LogRecord]]:
    return [client.log for client in run.clients]


def log_of(run: FabricatedRun, name: str) -> list[LogRecord]:
    return next(client.log for client in run.clients if client.name == name)


def find(log: list[LogRecord], kind: str, number: int = 0, **keys: Any) -> int:
    """Where in a log the message of a kind with these values is."""
    found = []
    for index, record in enumerate(log):
        if isinstance(record, Received):
            message = orjson.loads(record.text)
            if message["type"] == kind and all(message.get(key) == value for key, value in keys.items()):
                found.append(index)
    return found[number]


def alter(log: list[LogRecord], index: int, change: Change) -> None:
    """Change a received message."""
    record = log[index]
    assert isinstance(record, Received)
    message = orjson.loads(record.text)
    change(message)
    log[index] = msgspec.structs.replace(record, text=orjson.dumps(message).decode())


def rules(report: Report) -> set[str]:
    assert set(report.found) <= RULES.keys()
    return set(report.found)


def test_a_true_run_passes_and_everything_was_looked_at(run: FabricatedRun) -> None:
    report = check(logs(run), run.truth)
    assert report.findings == []
    assert report.passed
    looked = report.checked
    assert looked["clients"] == looked["connections"] == 7
    for name in ("prices", "compared", "agreed", "merged", "beliefs", "heartbeat", "snapshot", "update", "batches"):
        assert looked[name] > 0, name


def test_a_dropped_frame_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "latest")
    dropped = find(log, "update", 3)
    del log[dropped]
    report = check(logs(run), run.truth)
    assert "loss" in rules(report)
    first = next(one for one in report.findings if "prev_seq" in one.evidence)
    assert (first.rule, first.client, first.connection) == ("loss", "latest", 1)
    received = [record for record in log if isinstance(record, Received)]
    assert orjson.loads(received[first.frame - 1].text)["prev_seq"] == first.evidence["prev_seq"]
    assert first.evidence["held"] < first.evidence["prev_seq"]


def test_the_last_frame_before_a_heartbeat_is_missed_too(run: FabricatedRun) -> None:
    log = log_of(run, "latest")
    beat = find(log, "heartbeat")
    del log[beat - 1]
    assert "loss" in rules(check(logs(run), run.truth))


def test_a_frame_that_was_never_sent_to_anybody_is_found(run: FabricatedRun) -> None:
    """The server pretends that a batch does not concern a client: prev_seq hides it, the journal does not."""
    log = log_of(run, "latest")
    index = find(log, "update", 3)
    record = log[index]
    assert isinstance(record, Received)
    gone = orjson.loads(record.text)
    del log[index]
    alter(log, find(log, "update", prev_seq=gone["seq"]), lambda one: one.update(prev_seq=gone["prev_seq"]))
    report = check(logs(run), run.truth)
    assert "loss" in rules(report)
    assert "batches between prev_seq and seq concern it too" in {one.message for one in report.findings}


def test_a_reused_sequence_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "all")
    alter(log, find(log, "update", 2), lambda one: one.update(seq=one["prev_seq"]))
    report = check(logs(run), run.truth)
    assert "order" in rules(report)
    assert report.findings[0].message == "a sequence that was used before"


def test_a_stale_live_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "latest")

    def too_late(message: dict[str, Any]) -> None:
        message["sent_us"] = message["feeds"][0]["valid_until_us"]

    alter(log, find(log, "update", 2), too_late)
    assert "lease" in rules(check(logs(run), run.truth))


def test_a_heartbeat_that_calls_a_dead_price_live_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "latest")
    alter(log, find(log, "heartbeat", -1), lambda one: one["not_live"].pop())
    assert rules(check(logs(run), run.truth)) == {"lease"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("price", "1"), ("source", "pyth"), ("publish_time_us", 1_800_000_000_000_000), ("valid_until_us", None)],
)
def test_other_content_is_found_by_journal_and_by_the_other_clients(run: FabricatedRun, key: str, value: Any) -> None:
    log = log_of(run, "latest")
    alter(log, find(log, "update", 2), lambda one: one["feeds"][0].update({key: value}))
    assert {"content", "agreement"} <= rules(check(logs(run), run.truth))


def test_other_inputs_are_found(run: FabricatedRun) -> None:
    log = log_of(run, "all")
    alter(log, find(log, "update", 2), lambda one: one["feeds"][0]["inputs"]["pyth"].update(price="1"))
    assert rules(check(logs(run), run.truth)) == {"content"}


@pytest.mark.parametrize(("key", "value"), [("n", 7), ("low", "1"), ("high", None)])
def test_a_merged_entry_that_hides_what_happened_is_found(run: FabricatedRun, key: str, value: Any) -> None:
    log = log_of(run, "slow")
    alter(log, find(log, "update", conflated=True), lambda one: one["feeds"][0].update({key: value}))
    assert rules(check(logs(run), run.truth)) == {"content"}


def test_a_client_that_believes_something_else_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "sol")
    index = find(log, "heartbeat", 2)
    record = log[index]
    assert isinstance(record, Received) and record.believed is not None
    wrong = msgspec.structs.replace(record.believed, feeds={"SOL/USD": HeldFeed("live", "1", None)})
    log[index] = msgspec.structs.replace(record, believed=wrong)
    report = check(logs(run), run.truth)
    assert rules(report) == {"belief"}
    log[index] = msgspec.structs.replace(record, believed=msgspec.structs.replace(wrong, current=False))
    report = check(logs(run), run.truth)
    assert report.passed and report.checked["gaps_known"] == 1  # it knows that it is not current


def test_a_digest_of_something_else_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "sol")
    alter(log, find(log, "heartbeat", 2), lambda one: one.update(digest="0" * 16))
    assert rules(check(logs(run), run.truth)) == {"belief"}


def test_what_no_journal_has_is_found(run: FabricatedRun) -> None:
    assert rules(check(logs(run), Truth())) == {"journal"}
    log = log_of(run, "all")
    alter(log, find(log, "update", -1), lambda one: one.update(seq=1_000))
    assert "journal" in rules(check(logs(run), run.truth))


def test_what_replay_objects_to_is_told(run: FabricatedRun) -> None:
    run.truth.objections.append("a batch replays as something else")
    assert rules(check(logs(run), run.truth)) == {"journal"}


def test_a_price_during_warm_up_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "all")
    alter(log, find(log, "update", 2), lambda one: one["feeds"][0]["inputs"]["pyth"].update(status="warming"))
    assert "warmup" in rules(check(logs(run), run.truth))


def test_a_publish_time_that_goes_back_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "latest")
    alter(log, find(log, "update", 4), lambda one: one["feeds"][0].update(publish_time_us=1))
    assert "publish_time" in rules(check(logs(run), run.truth))


def test_a_run_that_begins_anew_under_its_old_epoch_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "latest")
    log += [msgspec.structs.replace(record, connection=2) for record in log[:4]]
    report = check(logs(run), run.truth)
    assert rules(report) == {"order"}
    assert {(one.client, one.connection) for one in report.findings} == {("latest", 2)}


def test_garbage_is_found(run: FabricatedRun) -> None:
    log = log_of(run, "latest")
    log.append(Received(client="latest", connection=1, at_us=0, text='{"type":"upd'))
    assert rules(check(logs(run), run.truth)) == {"protocol"}


def act(run: FabricatedRun, at_us: int, **changes: Any) -> Report:
    seq = 5
    held = run.truth.runs[INSTANCE, run.service.epoch].at("SOL/USD", seq)
    assert held is not None and held.price is not None
    acted = Acted(
        client="acting",
        connection=1,
        at_us=at_us,
        feed="SOL/USD",
        state=held.state,
        price=held.price,
        publish_time_us=held.publish_time_us,
        valid_until_us=held.valid_until_us,
        instance=INSTANCE,
        epoch=run.service.epoch,
        seq=seq,
    )
    # The hub's clock was an hour ahead until it decided, and right from then on.
    anchors = [
        ClockAnchor(INSTANCE, run.service.epoch, 0, 3_600_000_000),
        ClockAnchor(INSTANCE, run.service.epoch, held.decided_us - 10_000, 0),
    ]
    return check([[msgspec.structs.replace(acted, **changes)]], run.truth, anchors)


def test_acts_are_judged_by_the_clock_under_which_the_price_was_decided(run: FabricatedRun) -> None:
    held = run.truth.runs[INSTANCE, run.service.epoch].at("SOL/USD", 5)
    assert held is not None and held.valid_until_us is not None
    assert act(run, held.valid_until_us - 1).passed
    assert rules(act(run, held.valid_until_us + 1_000_000)) == {"acted"}


@pytest.mark.parametrize("change", [{"price": "1"}, {"state": "degraded"}, {"seq": 1_000}, {"epoch": 5}])
def test_acting_on_what_was_not_published_is_found(run: FabricatedRun, change: dict[str, Any]) -> None:
    assert rules(act(run, 0, **change)) == {"acted"}


def test_findings_are_bounded_and_counted(run: FabricatedRun) -> None:
    log = log_of(run, "latest")
    log += [Received(client="latest", connection=1, at_us=0, text="")] * 50
    report = check(logs(run), run.truth)
    assert (report.found["protocol"], len(report.findings)) == (50, 20)
