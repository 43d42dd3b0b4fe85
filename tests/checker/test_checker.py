"""The checker passes what is right, and names what is wrong: one planted fault for each of its rules."""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import orjson
import pytest

from oracle_hub.core.catalog import Catalog
from tests.checker.belief import Belief
from tests.checker.check import check
from tests.checker.expected import merge_differences
from tests.checker.fabricated import FabricatedRun, fabricated_run
from tests.checker.findings import RULES, Report
from tests.checker.records import Acted, ClockAnchor, Closed, HeldFeed, LogRecord, Received, Woke
from tests.checker.truth import Decided, Truth

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


def reloaded_run() -> FabricatedRun:
    """Two clients, a reload that is told after its first batch, and more batches."""
    run = FabricatedRun()
    clients = [run.join("first", mode="all"), run.join("second")]
    run.tick("SOL/USD", 15_000_000_000)
    run.service.hub.reload(run.service.hub.catalog, "decaf")
    run.tick("SOL/USD", 15_000_000_001)
    for client in clients:
        client.tell({"type": "config", **run.standing})
    clients.append(run.join("later", resume=clients[0].belief, mode="all"))
    for number in range(3):
        run.tick("SOL/USD", 15_000_000_002 + number)
    run.heartbeat()
    return run


def test_a_reload_that_is_told_in_its_place_passes() -> None:
    run = reloaded_run()
    report = check(logs(run), run.truth)
    assert report.findings == []
    assert report.checked["config"] == 2


def test_who_comes_between_a_reload_and_the_first_batch_under_it_is_told_rightly() -> None:
    run = FabricatedRun()
    first = run.join("first", mode="all")
    for number in range(3):
        run.tick("SOL/USD", 15_000_000_000 + number)
    run.service.hub.reload(run.service.hub.catalog, "decaf")  # and nothing changes by it
    first.tell({"type": "config", **run.standing})
    run.join("between", mode="all")
    run.join("back", resume=first.belief, mode="all")
    for number in range(3):
        run.tick("SOL/USD", 15_000_000_003 + number)
    assert check(logs(run), run.truth).findings == []


def test_a_reload_that_was_not_told_is_found_once() -> None:
    run = reloaded_run()
    log = log_of(run, "second")
    del log[find(log, "config")]
    report = check(logs(run), run.truth)
    assert [(one.rule, one.client, one.message) for one in report.findings] == [
        ("config", "second", "a reload was not told")
    ]


@pytest.mark.parametrize(("client", "kind"), [("first", "config"), ("later", "hello")])
def test_another_configuration_than_the_journals_is_found(client: str, kind: str) -> None:
    run = reloaded_run()
    log = log_of(run, client)
    alter(log, find(log, kind), lambda message: message.update(config_hash="other"))
    assert rules(check(logs(run), run.truth)) == {"config"}


def test_a_config_of_another_epoch_is_found() -> None:
    run = reloaded_run()
    log = log_of(run, "first")
    alter(log, find(log, "config"), lambda message: message.update(epoch=1))
    assert "config" in rules(check(logs(run), run.truth))


def feed_removed_run() -> FabricatedRun:
    """A feed leaves the configuration and comes back, before clients of every kind and some that come between."""
    run = FabricatedRun()
    both, without = run.service.hub.catalog, Catalog(one for one in run.service.hub.catalog.feeds if one.feed[0] == "S")
    every = [run.join("all", mode="all"), run.join("latest"), run.join("named", feeds=["BTC/USD", "SOL/USD"])]
    run.join("throttled", max_hz=1)
    run.tick("BTC/USD", 6_000_000_000_000)
    held = [Belief(one.belief) for one in every]
    for catalog, config_hash in ((without, "less"), (both, "more")):
        run.service.hub.reload(catalog, config_hash)
        run.tick("SOL/USD", 15_000_000_000)
        for client in run.clients:
            client.tell({"type": "config", **run.standing})
        run.tick("SOL/USD", 15_000_000_001)
        for one, belief in zip(every, held, strict=True):
            run.join(f"{one.name} resumes {config_hash}", resume=belief, **one.options)
            run.join(f"{one.name} joins {config_hash}", **one.options)
        run.heartbeat()
    run.tick("BTC/USD", 6_000_000_000_001)
    run.heartbeat()
    return run


def test_a_feed_that_leaves_the_configuration_and_comes_back_passes() -> None:
    run = feed_removed_run()
    report = check(logs(run), run.truth)
    assert report.findings == []
    assert all(client.belief.current for client in run.clients)


def test_a_removal_that_was_not_told_is_found() -> None:
    run = feed_removed_run()
    log = log_of(run, "latest")
    alter(log, find(log, "update", 2), lambda message: message["feeds"].pop())
    assert "loss" in rules(check(logs(run), run.truth))


def stalled_run(stuck_us: int, **end: Any) -> tuple[FabricatedRun, Report]:
    """A client of mode ``all`` that did not read for so long, whose connection ended, and who came back."""
    run = FabricatedRun()
    client = run.join("stuck", mode="all")
    run.tick("SOL/USD", 15_000_000_000)
    at_us = run.clock_us + stuck_us
    client.log.append(Woke(client="stuck", connection=1, at_us=at_us, stuck_us=stuck_us))
    client.log.append(Closed(client="stuck", connection=1, at_us=at_us, why="ended", **end))
    back = run.join("back", resume=client.belief, mode="all")
    client.log += [msgspec.structs.replace(record, client="stuck", connection=2) for record in back.log]
    return run, check([client.log], run.truth)


def test_who_fell_behind_and_is_told_so_passes_and_comes_back() -> None:
    _, report = stalled_run(15_000_000, by_peer=True, code=4001)
    assert report.findings == []
    assert (report.checked["too_slow"], report.checked["resumed_after_4001"], report.checked["woke"]) == (1, 1, 1)


def test_who_fell_behind_and_is_cut_off_without_a_word_is_found() -> None:
    _, report = stalled_run(15_000_000, by_peer=True)
    assert rules(report) == {"goodbye"}


@pytest.mark.parametrize(
    ("stuck_us", "end"),
    [(21_000_000, {"by_peer": True}), (15_000_000, {}), (15_000_000, {"by_peer": True, "code": 4000})],
)
def test_who_answered_no_ping_or_left_or_was_told_otherwise_is_no_finding(stuck_us: int, end: dict[str, Any]) -> None:
    assert stalled_run(stuck_us, **end)[1].findings == []


def test_too_slow_is_for_mode_all_alone(run: FabricatedRun) -> None:
    log = log_of(run, "latest")
    log.append(Closed(client="latest", connection=1, at_us=run.clock_us, why="too_slow", by_peer=True, code=4001))
    assert rules(check(logs(run), run.truth)) == {"goodbye"}


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


def test_a_price_that_was_too_old_when_it_was_decided_is_none_in_a_merge() -> None:
    at_us = 1_790_000_000_000_000
    fresh = Decided(
        feed="SOL/USD", state="live", price="150", expo=-8, conf=None, source="doves", rule="R1", reason="agreed",
        publish_time_us=at_us - 1_000, decided_us=at_us, valid_until_us=None, recency_us=at_us - 1_000,
        inputs_digest=b"", published_us={}, warming=False,
    )  # fmt: skip
    old = msgspec.structs.replace(fresh, price="99", recency_us=at_us - 2_001)
    entry = {"n": 2, "low": "150", "high": "150", "was_none": True}
    assert merge_differences(entry, [old, fresh], 2_000) == {}
    assert merge_differences(entry, [old, fresh], 2_001) == merge_differences(entry, [old, fresh], None)
    assert merge_differences(entry, [old, fresh], None) == {"low": ["150", "99"]}
    assert merge_differences(entry | {"was_none": False}, [old, fresh], 2_000) == {"was_none": [False, True]}
