"""Whatever happens between hub and subscribers, the checker passes; and no message can be taken out without a word."""

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checker.belief import Belief
from tests.checker.check import check
from tests.checker.fabricated import FabricatedClient, FabricatedRun
from tests.checker.records import LogRecord, Received

FEEDS = ("SOL/USD", "BTC/USD", "ETH/USD")

_options = st.fixed_dictionaries(
    {},
    optional={
        "feeds": st.sampled_from([["*"], ["SOL/USD"], ["BTC/USD", "SOL/USD"]]),
        "detail": st.sampled_from(["price", "full"]),
        "max_age_ms": st.integers(1, 12_000),
        "max_hz": st.sampled_from([1, 10]),
    },
)
_happenings = st.one_of(
    st.tuples(st.just("tick"), st.sampled_from(FEEDS), st.integers(1, 10**6), st.integers(1, 4_000_000)),
    st.tuples(st.just("wait")),
    st.tuples(st.just("beat")),
    st.tuples(st.just("join"), _options, st.booleans()),
    st.tuples(st.just("stall"), st.integers(0, 9)),
    st.tuples(st.just("wake"), st.integers(0, 9)),
    st.tuples(st.just("expire")),
    st.tuples(st.just("back"), st.integers(0, 9)),
)


def happen(run: FabricatedRun, happening: tuple[Any, ...]) -> None:
    """One thing that may happen to a hub or to one of its subscribers."""
    match happening:
        case ("tick", feed, mantissa, after_us):
            batch = run.service.try_tick(feed, mantissa, after_us=after_us)
            if batch is not None:
                run.publish(batch)
        case ("wait",):
            deadline_us = run.service.hub.next_deadline()
            batch = None if deadline_us is None else run.service.wait(max(deadline_us, run.clock_us))
            if batch is not None:
                run.publish(batch)
        case ("beat",):
            run.service.clock_us += 500
            run.heartbeat()
        case ("join", options, mode_all):
            chosen: dict[str, Any] = {**options, "mode": "all" if mode_all and "max_hz" not in options else "latest"}
            run.join(f"client-{len(run.clients)}", **chosen)
        case ("expire",):
            run.expire()
        case (what, number) if run.clients:
            _to_client(run, what, run.clients[number % len(run.clients)])


def _to_client(run: FabricatedRun, what: str, client: FabricatedClient) -> None:
    if what == "back":
        if client.belief.current:  # comes back as somebody else, with what it held
            run.join(f"client-{len(run.clients)}", resume=Belief(client.belief), **client.options)
    elif client.options["mode"] == "latest":  # in mode all a stalled client is closed
        client.unsent_bytes = 10_000 if what == "stall" else 0


def run_of(happenings: list[tuple[Any, ...]]) -> FabricatedRun:
    run = FabricatedRun(*FEEDS)
    for happening in happenings:
        happen(run, happening)
    for client in run.clients:
        client.unsent_bytes = 0
    run.service.clock_us += 1_000
    run.heartbeat()
    return run


@settings(deadline=None, max_examples=150)
@given(st.lists(_happenings, min_size=10, max_size=80))
def test_what_the_product_sends_passes(happenings: list[tuple[Any, ...]]) -> None:
    run = run_of(happenings)
    report = check([client.log for client in run.clients], run.truth)
    assert report.findings == []
    for client in run.clients:
        assert client.belief.current  # no false gap: nothing was lost


@settings(deadline=None, max_examples=100)
@given(st.lists(_happenings, min_size=20, max_size=60), st.data())
def test_no_update_can_be_taken_out_without_a_word(happenings: list[tuple[Any, ...]], data: st.DataObject) -> None:
    run = run_of([("join", {}, True), ("tick", "SOL/USD", 5, 1), *happenings])
    client = data.draw(st.sampled_from(run.clients))
    updates = [index for index, record in enumerate(client.log) if _advances(record)]
    if not updates:
        return
    del client.log[data.draw(st.sampled_from(updates))]
    report = check([client.log], run.truth)
    assert "loss" in report.found


def _advances(record: LogRecord) -> bool:
    if not isinstance(record, Received):
        return False
    message = orjson.loads(record.text)
    return bool(message["type"] == "update" and message["seq"] > message["prev_seq"])
