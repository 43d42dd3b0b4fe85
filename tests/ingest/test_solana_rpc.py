"""The pure Solana link, by value: frames are written here, no network."""

import base64
from collections.abc import Sequence
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.source import (
    Account,
    Condition,
    Event,
    Fetch,
    Frame,
    Malformed,
    Open,
    PriceUpdate,
    Reconnect,
    Rewatch,
    Send,
    Status,
)
from oracle_hub.ingest.rpc_watch import RpcLimits
from oracle_hub.ingest.solana_rpc import SolanaRpc

S = 1_000_000
T0 = 1_760_000_000 * S
GENESIS = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
OWNER = "DoVEsk76QybCEHQGzkvYPWLQu9gzNoZZZt3TPiL597e"
HTTP = "http://rpc.example/secret-key-1234"


class Reader:
    """Reads the account's bytes as a decimal price; remembers what it was given."""

    CONFIGURED: ClassVar[frozenset[str]] = frozenset({"source"})

    def __init__(self, source: str, *pubkeys: str) -> None:
        self.source = source
        self.pubkeys = set(pubkeys)
        self.gone: list[tuple[str, int]] = []

    def accounts(self) -> frozenset[str]:
        return frozenset(self.pubkeys)

    def read(self, account: Account, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        price = int(account.data or b"0")
        return [PriceUpdate(self.source, transport, account.pubkey, price, 7, received_us, slot=account.slot)]

    def missing(self, pubkey: str, slot: int, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        self.gone.append((pubkey, slot))
        text = f"{pubkey} is missing"
        return [Status(self.source, transport, None, Condition.MISSING_ACCOUNT, text, received_us)]


def value(content: bytes) -> dict[str, Any]:
    data = [base64.b64encode(content).decode(), "base64"]
    return {"lamports": 1, "data": data, "owner": OWNER, "executable": False, "rentEpoch": 2**64 - 1, "space": 9}


def websocket(message: object) -> Frame:
    return Frame("websocket", orjson.dumps(message))


def notification(subscription: int, slot: int, content: bytes) -> Frame:
    result = {"context": {"slot": slot}, "value": value(content)}
    params = {"result": result, "subscription": subscription}
    return websocket({"jsonrpc": "2.0", "method": "accountNotification", "params": params})


def answer(fetch: Fetch, result: object, status: int = 200) -> Frame:
    return Frame("http", orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": result}), fetch.fetch_id, status)


def snapshot(fetch: Fetch, slot: int, *contents: bytes | None) -> Frame:
    values = [None if content is None else value(content) for content in contents]
    return answer(fetch, {"context": {"slot": slot}, "value": values})


def sent(effect: object) -> dict[str, Any]:
    assert isinstance(effect, Send)
    message: dict[str, Any] = orjson.loads(effect.text)
    return message


def fetches(output: Sequence[object], method: str = "getMultipleAccounts") -> list[Fetch]:
    found = [effect for effect in output if isinstance(effect, Fetch)]
    return [fetch for fetch in found if orjson.loads(fetch.body)["method"] == method]


def confirm(link: SolanaRpc, output: Sequence[object], received_us: int = T0) -> list[object]:
    """Confirm every accountSubscribe among the effects; its subscription id is its request id plus 1000."""
    answers: list[object] = []
    for effect in output:
        if isinstance(effect, Send) and sent(effect)["method"] == "accountSubscribe":
            number = sent(effect)["id"]
            answers.extend(
                link.receive(websocket({"jsonrpc": "2.0", "id": number, "result": number + 1000}), received_us)
            )
    return answers


def subscription_of(output: Sequence[object], pubkey: str) -> int:
    for effect in output:
        if (
            isinstance(effect, Send)
            and sent(effect)["method"] == "accountSubscribe"
            and sent(effect)["params"][0] == pubkey
        ):
            return int(sent(effect)["id"]) + 1000
    raise AssertionError(f"no subscription to {pubkey}")


def make(*readers: Reader, genesis: str | None = None, **limits: Any) -> SolanaRpc:
    return SolanaRpc(
        "solana:a",
        HTTP,
        "ws://rpc.example/",
        readers or (Reader("doves", "A", "B"),),
        genesis_hash=genesis,
        limits=RpcLimits(**limits),
        headers={"x-token": "very-secret"},
    )


def prices(output: Sequence[object]) -> list[tuple[str, int, int]]:
    return [(item.feed, item.mantissa, item.slot) for item in output if isinstance(item, PriceUpdate)]


def statuses(output: Sequence[object]) -> list[tuple[str, Condition]]:
    return [(item.source, item.condition) for item in output if isinstance(item, Status)]


def test_connect_opens_checks_reads_and_subscribes() -> None:
    output = make(genesis=GENESIS).connect(T0)
    assert output[0] == Open("websocket", "ws://rpc.example/", {"x-token": "very-secret"})
    (genesis,) = fetches(output, "getGenesisHash")
    assert (genesis.method, genesis.url, genesis.headers["x-token"]) == ("POST", HTTP, "very-secret")
    (states,) = fetches(output)
    assert orjson.loads(states.body)["params"] == [["A", "B"], {"encoding": "base64", "commitment": "confirmed"}]
    calls = [sent(effect) for effect in output if isinstance(effect, Send)]
    config = {"encoding": "base64", "commitment": "confirmed"}
    assert [(call["method"], call["params"]) for call in calls] == [
        ("slotSubscribe", []),
        ("accountSubscribe", ["A", config]),
        ("accountSubscribe", ["B", config]),
    ]
    assert output == make(genesis=GENESIS).connect(T0)  # the same calls give the same bytes: a replay depends on it


def test_secrets_do_not_show() -> None:
    link = make()
    output = link.connect(T0)
    assert "secret" not in repr(link) + repr(output[0]) + repr(fetches(output)[0])
    frame = Frame("http", b"key secret-key-1234 or very-secret is unknown", fetches(output)[0].fetch_id, 403)
    (status,) = [item for item in link.receive(frame, T0) if isinstance(item, Status)]
    assert status.text == "HTTP 403, key refused or not entitled: key … or … is unknown"


def test_snapshot_and_notifications_reach_the_reader() -> None:
    link = make()
    output = link.connect(T0)
    assert prices(link.receive(snapshot(fetches(output)[0], 10, b"100", b"200"), T0)) == [
        ("A", 100, 10),
        ("B", 200, 10),
    ]
    confirm(link, output)
    assert prices(link.receive(notification(subscription_of(output, "B"), 12, b"201"), T0 + 5)) == [("B", 201, 12)]


def test_many_accounts_are_read_in_hundreds() -> None:
    link = make(Reader("doves", *(f"K{number:03}" for number in range(250))))
    batches = [orjson.loads(fetch.body)["params"][0] for fetch in fetches(link.connect(T0))]
    assert [len(batch) for batch in batches] == [100, 100, 50]
    assert batches[0][0] == "K000" and batches[2][-1] == "K249"


def test_a_missing_or_closed_account_is_told() -> None:
    reader = Reader("doves", "A", "B")
    link = make(reader)
    output = link.connect(T0)
    assert prices(link.receive(snapshot(fetches(output)[0], 10, None, b"200"), T0)) == [("B", 200, 10)]
    confirm(link, output)
    closed = {**value(b""), "owner": "11111111111111111111111111111111"}
    params = {"result": {"context": {"slot": 11}, "value": closed}, "subscription": subscription_of(output, "B")}
    link.receive(websocket({"method": "accountNotification", "params": params}), T0)
    assert reader.gone == [("A", 10), ("B", 11)]


def test_one_account_serves_two_readers() -> None:
    link = make(Reader("doves", "A"), Reader("chainlink", "A"))
    output = link.connect(T0)
    confirm(link, output)
    events = link.receive(notification(subscription_of(output, "A"), 3, b"5"), T0)
    assert [event.source for event in events if isinstance(event, PriceUpdate)] == ["doves", "chainlink"]


def test_no_account_passes_before_the_cluster_is_known() -> None:
    link = make(genesis=GENESIS)
    output = link.connect(T0)
    confirm(link, output)
    assert list(link.receive(notification(subscription_of(output, "A"), 12, b"101"), T0 + 1)) == []
    assert prices(link.receive(snapshot(fetches(output)[0], 10, b"100", b"200"), T0 + 2)) == []
    events = link.receive(answer(fetches(output, "getGenesisHash")[0], GENESIS), T0 + 3)
    assert prices(events) == [("A", 101, 12), ("B", 200, 10)]
    assert [event.received_us for event in events if isinstance(event, PriceUpdate)] == [T0 + 1, T0 + 2]


def test_wrong_cluster_shuts_the_link_until_it_is_right() -> None:
    link = make(Reader("doves", "A"), Reader("pyth", "B"), genesis=GENESIS)
    output = link.connect(T0)
    confirm(link, output)
    events = link.receive(answer(fetches(output, "getGenesisHash")[0], "devnet"), T0)
    assert statuses(events) == [("doves", Condition.WRONG_CLUSTER), ("pyth", Condition.WRONG_CLUSTER)]
    assert [item for item in events if isinstance(item, Reconnect)] == [Reconnect("wrong cluster", 60_000)]
    assert list(link.receive(notification(subscription_of(output, "A"), 12, b"101"), T0)) == []
    assert list(link.receive(snapshot(fetches(output)[0], 10, b"100", b"200"), T0)) == []
    again = link.connect(T0 + 60 * S)
    assert list(link.receive(snapshot(fetches(again)[0], 10, b"100", b"200"), T0 + 60 * S)) == []
    events = link.receive(answer(fetches(again, "getGenesisHash")[0], GENESIS), T0 + 60 * S)
    assert statuses(events) == [("doves", Condition.OK), ("pyth", Condition.OK)]
    assert link.next_deadline() == T0 + 60 * S
    (fresh,) = fetches(link.on_timer(T0 + 60 * S))
    assert prices(link.receive(snapshot(fresh, 11, b"102", b"202"), T0 + 60 * S)) == [("A", 102, 11), ("B", 202, 11)]


def test_a_websocket_on_another_cluster_is_known_by_its_slots() -> None:
    link = make(Reader("doves", "A"), genesis=GENESIS)
    output = link.connect(T0)
    confirm(link, output)
    subscription = subscription_of(output, "A")
    assert link.receive(notification(subscription, 50_000_000, b"999"), T0) == ()  # where HTTP is, is not known yet
    right = link.receive(answer(fetches(output, "getGenesisHash")[0], GENESIS), T0)
    assert prices(right) == []
    assert prices(link.receive(snapshot(fetches(output)[0], 10, b"100"), T0)) == [("A", 100, 10)]
    hour_us = 3_600 * S
    near = 10 + 10_000 + 4 * 3_600
    assert prices(link.receive(notification(subscription, near, b"101"), T0 + hour_us)) == [("A", 101, near)]
    events = link.receive(notification(subscription, near + 1, b"999"), T0 + hour_us)
    words = f"the websocket is at slot {near + 1}, HTTP at 10: not the same cluster, or one stands still"
    assert [item.reason for item in events if isinstance(item, Malformed)] == [words]
    assert statuses(events) == [("doves", Condition.WRONG_CLUSTER)]
    assert [item for item in events if isinstance(item, Reconnect)] == [Reconnect("wrong cluster", 60_000)]
    again = link.connect(T0 + hour_us)
    confirm(link, again, T0 + hour_us)
    link.receive(notification(subscription_of(again, "A"), 9_000, b"102"), T0 + hour_us)
    assert statuses(link.on_timer(T0 + hour_us)) == [("doves", Condition.OK)]


@pytest.mark.parametrize(
    ("frame", "condition", "wait_us"),
    [
        ((200, b'{"error":{"code":-32005,"message":"Too many requests"}}', 0), Condition.RATE_LIMITED, S // 2),
        ((429, b"slow down", 7_000), Condition.RATE_LIMITED, 7 * S),
        ((503, b"<html>", 0), Condition.LOST, S // 2),
        ((0, b"timed out", 0), Condition.LOST, S // 2),
        ((401, b"unauthorized", 0), Condition.NOT_ENTITLED, 60 * S),
        ((200, b'{"result":{"context":{"slot":1},"value":[]}}', 0), Condition.LOST, S // 2),
        ((200, b'{"error":{"code":-32005,"message":"Node is behind by 42 slots"}}', 0), Condition.LOST, S // 2),
    ],
)
def test_a_failed_snapshot_is_named_and_asked_again(
    frame: tuple[int, bytes, int], condition: Condition, wait_us: int
) -> None:
    link = make(transport_silence_us=1_000 * S, silence_us=1_000 * S, reply_us=1_000 * S)
    output = link.connect(T0)
    status, body, retry_after_ms = frame
    events = link.receive(Frame("http", body, fetches(output)[0].fetch_id, status, retry_after_ms), T0)
    assert statuses(events) == [("doves", condition)]
    assert link.next_deadline() == T0 + wait_us
    assert fetches(link.on_timer(T0 + wait_us - 1)) == []
    (again,) = fetches(link.on_timer(T0 + wait_us))
    events = link.receive(snapshot(again, 5, b"1", b"2"), T0 + wait_us)
    assert statuses(events) == [("doves", Condition.OK)]
    assert prices(events) == [("A", 1, 5), ("B", 2, 5)]


def test_a_rate_limit_outlives_the_connection() -> None:
    link = make()
    output = link.connect(T0)
    link.receive(Frame("http", b"", fetches(output)[0].fetch_id, 429, 20_000), T0)
    assert fetches(link.connect(T0 + S)) == []
    assert len(fetches(link.on_timer(T0 + 20 * S))) == 1


def test_a_snapshot_may_not_be_older_than_what_is_held() -> None:
    link = make(transport_silence_us=1_000 * S)
    output = link.connect(T0)
    link.receive(snapshot(fetches(output)[0], 50, b"1", b"2"), T0)
    (fetch,) = fetches(link.on_timer(T0 + 15 * S))
    assert orjson.loads(fetch.body)["params"][1]["minContextSlot"] == 50
    behind = b'{"error":{"code":-32016,"message":"Minimum context slot has not been reached"}}'
    now_us = T0 + 15 * S
    told: list[tuple[str, Condition]] = []
    for _ in range(3):
        told += statuses(link.receive(Frame("http", behind, fetch.fetch_id, 200), now_us))
        now_us += 10 * S
        fetch = fetches(link.on_timer(now_us))[0]
    assert told == [
        ("doves", Condition.LOST)
    ]  # at the third time, and the demand is given up: the held slot may be wrong
    assert "minContextSlot" not in orjson.loads(fetch.body)["params"][1]


def test_an_older_state_is_passed_on_for_the_table_to_judge() -> None:
    link = make()
    output = link.connect(T0)
    confirm(link, output)
    number = subscription_of(output, "A")
    told = [*link.receive(notification(number, 9, b"90"), T0), *link.receive(notification(number, 8, b"80"), T0 + 1)]
    assert prices(told) == [("A", 90, 9), ("A", 80, 8)]


def test_a_snapshot_follows_once_all_subscriptions_stand() -> None:
    link = make()
    output = link.connect(T0)
    link.receive(snapshot(fetches(output)[0], 5, b"1", b"2"), T0)
    confirm(link, output, T0 + S)
    assert link.next_deadline() == T0 + S
    assert len(fetches(link.on_timer(T0 + S))) == 1


def test_a_refused_subscription_is_retried_alone() -> None:
    link = make()
    output = link.connect(T0)
    first = next(sent(effect)["id"] for effect in output if isinstance(effect, Send) and '"A"' in effect.text)
    refusal = {"jsonrpc": "2.0", "id": first, "error": {"code": -32005, "message": "too many", "data": None}}
    events = link.receive(websocket(refusal), T0)
    assert statuses(events) == [("doves", Condition.LOST)]
    (again,) = [item for item in link.on_timer(T0 + S // 2) if isinstance(item, Send)]
    assert sent(again)["params"][0] == "A"
    assert statuses(confirm(link, [again], T0 + S)) == [("doves", Condition.OK)]


def test_an_unanswered_subscription_is_asked_again_and_a_late_answer_is_left() -> None:
    link = make(Reader("doves", "A"), transport_silence_us=1_000 * S)
    output = link.connect(T0)
    first = subscription_of(output, "A") - 1000
    later = link.on_timer(T0 + 15 * S)
    assert statuses(later) == [("doves", Condition.LOST)]
    (unsubscribe,) = link.receive(websocket({"id": first, "result": 77}), T0 + 16 * S)
    assert (sent(unsubscribe)["method"], sent(unsubscribe)["params"]) == ("accountUnsubscribe", [77])
    assert statuses(confirm(link, later, T0 + 16 * S)) == [("doves", Condition.OK)]


def test_a_node_that_gives_equal_wishes_one_number_is_not_told_to_end_it() -> None:
    link = make(Reader("doves", "A"), transport_silence_us=1_000 * S)
    first = subscription_of(link.connect(T0), "A") - 1000
    (again,) = [sent(one)["id"] for one in link.on_timer(T0 + 15 * S) if isinstance(one, Send)]
    link.receive(websocket({"id": again, "result": 77}), T0 + 16 * S)
    assert list(link.receive(websocket({"id": first, "result": 77}), T0 + 16 * S)) == []
    assert prices(link.receive(notification(77, 8, b"5"), T0 + 17 * S)) == [("A", 5, 8)]


def test_two_accounts_under_one_number_are_not_taken_for_each_other() -> None:
    link = make(Reader("doves", "A"), Reader("pyth", "B"))
    numbers = [sent(one)["id"] for one in link.connect(T0) if isinstance(one, Send) and "accountSubscribe" in one.text]
    link.receive(websocket({"id": numbers[0], "result": 77}), T0)
    said = link.receive(websocket({"id": numbers[1], "result": 77}), T0)
    text = "B and A are told under one number, 77: no news tells of which"
    assert list(said) == [
        Malformed("doves", "solana:a", None, text, T0),
        Malformed("pyth", "solana:a", None, text, T0),
        Reconnect(text),
    ]
    assert prices(link.receive(notification(77, 8, b"5"), T0)) == [("A", 5, 8)]


def test_an_error_without_id_on_the_websocket_is_told() -> None:
    link = make()
    link.connect(T0)
    events = link.receive(websocket({"error": {"code": -32005, "message": "Too many requests"}}), T0)
    assert statuses(events) == [("doves", Condition.RATE_LIMITED)]


def test_transport_silence_reconnects() -> None:
    link = make(silence_us=1_000 * S)
    output = link.connect(T0)
    confirm(link, output)
    slots = {"method": "slotNotification", "params": {"result": {"parent": 1, "root": 0, "slot": 2}, "subscription": 0}}
    assert list(link.receive(websocket(slots), T0 + 10 * S)) == []
    assert not [item for item in link.on_timer(T0 + 24 * S) if isinstance(item, Reconnect)]
    link.receive(Frame("http", b"", "x", 200), T0 + 24 * S)  # HTTP says nothing of the websocket
    assert Reconnect("no frame on the websocket for 15 s") in link.on_timer(T0 + 25 * S)


def silent(link: SolanaRpc) -> tuple[list[object], int]:
    """A connected link with one account, both snapshots taken; its effects and its subscription."""
    output: list[object] = list(link.connect(T0))
    link.receive(snapshot(fetches(output)[0], 5, b"1"), T0)
    confirm(link, output)
    link.receive(snapshot(fetches(link.on_timer(T0))[0], 6, b"1"), T0)
    return output, subscription_of(output, "A")


def test_a_still_chain_is_not_a_dead_subscription() -> None:
    link = make(Reader("doves", "A"), transport_silence_us=1_000 * S, silence_us=4 * S)
    silent(link)
    assert link.next_deadline() == T0 + 4 * S
    (probe,) = fetches(link.on_timer(T0 + 4 * S))
    assert statuses(link.receive(snapshot(probe, 20, b"1"), T0 + 4 * S)) == []
    assert link.next_deadline() == T0 + 15 * S  # asked once; from here the safety snapshot watches


def test_accounts_that_fall_silent_one_by_one_are_looked_up_together() -> None:
    link = make(Reader("doves", "A", "B", "C"), transport_silence_us=1_000 * S, silence_us=4 * S)
    output = link.connect(T0)
    link.receive(snapshot(fetches(output)[0], 5, b"1", b"1", b"1"), T0)
    confirm(link, output)
    link.receive(snapshot(fetches(link.on_timer(T0))[0], 6, b"1", b"1", b"1"), T0)
    link.receive(notification(subscription_of(output, "B"), 9, b"2"), T0 + S // 4)
    link.receive(notification(subscription_of(output, "C"), 9, b"2"), T0 + S // 2)
    (probe,) = fetches(link.on_timer(T0 + 4 * S))
    assert orjson.loads(probe.body)["params"][0] == ["A"]
    assert link.next_deadline() == T0 + 5 * S
    (probe,) = fetches(link.on_timer(T0 + 5 * S))
    assert orjson.loads(probe.body)["params"][0] == ["B", "C"]


def test_a_silent_subscription_is_found_and_made_again() -> None:
    link = make(Reader("doves", "A"), transport_silence_us=1_000 * S, silence_us=4 * S)
    _, number = silent(link)
    (probe,) = fetches(link.on_timer(T0 + 4 * S))
    assert prices(link.receive(snapshot(probe, 20, b"7"), T0 + 4 * S)) == [("A", 7, 20)]
    output = link.on_timer(T0 + 9 * S)
    assert statuses(output) == [("doves", Condition.LOST)]
    calls = [sent(item) for item in output if isinstance(item, Send)]
    assert [(call["method"], call["params"][0]) for call in calls] == [
        ("accountUnsubscribe", number),
        ("accountSubscribe", "A"),
    ]
    assert list(link.receive(notification(number, 21, b"8"), T0 + 9 * S)) == []  # was on its way
    assert statuses(confirm(link, output, T0 + 9 * S)) == [("doves", Condition.OK)]


def test_a_late_notification_clears_the_suspicion() -> None:
    link = make(Reader("doves", "A"), transport_silence_us=1_000 * S, silence_us=4 * S)
    _, number = silent(link)
    (probe,) = fetches(link.on_timer(T0 + 4 * S))
    link.receive(snapshot(probe, 20, b"7"), T0 + 4 * S)
    assert prices(link.receive(notification(number, 20, b"7"), T0 + 5 * S)) == [("A", 7, 20)]
    assert statuses(link.on_timer(T0 + 10 * S)) == []


def test_what_changed_before_the_subscription_stood_proves_nothing() -> None:
    link = make(Reader("doves", "A"), transport_silence_us=1_000 * S)
    output = link.connect(T0)
    link.receive(snapshot(fetches(output)[0], 5, b"1"), T0)
    confirm(link, output, T0 + 1)
    link.receive(snapshot(fetches(link.on_timer(T0 + 1))[0], 6, b"2"), T0 + 1)
    assert statuses(link.on_timer(T0 + 6 * S)) == []


def test_subscriptions_that_die_again_and_again_end_the_session() -> None:
    link = make(Reader("doves", "A"), transport_silence_us=1_000 * S, deaths_before_reconnect=1)
    silent(link)
    (probe,) = fetches(link.on_timer(T0 + 15 * S))
    link.receive(snapshot(probe, 20, b"7"), T0 + 15 * S)
    assert Reconnect("the subscription to A falls silent again and again") in link.on_timer(T0 + 20 * S)


def test_reconcile_moves_the_subscriptions() -> None:
    reader = Reader("doves", "A", "B")
    link = make(reader)
    output = link.connect(T0)
    confirm(link, output)
    reader.pubkeys = {"B", "C"}
    moved = link.reconcile(T0)
    calls = [sent(item) for item in moved if isinstance(item, Send)]
    assert [(call["method"], call["params"][0]) for call in calls] == [
        ("accountUnsubscribe", subscription_of(output, "A")),
        ("accountSubscribe", "C"),
    ]
    assert [orjson.loads(fetch.body)["params"][0] for fetch in fetches(moved)] == [["C"]]
    assert link.reconcile(T0) == []


def test_a_refused_account_that_is_dropped_leaves_its_source_well() -> None:
    reader = Reader("doves", "A", "B")
    link = make(reader)
    output = link.connect(T0)
    number = next(sent(item)["id"] for item in output if isinstance(item, Send) and '"A"' in item.text)
    (lost,) = link.receive(websocket({"jsonrpc": "2.0", "id": number, "error": {"code": 1, "message": "no"}}), T0)
    assert isinstance(lost, Status) and lost.condition is Condition.LOST
    reader.pubkeys = {"B"}
    link.reconcile(T0)
    assert link.next_deadline() == T0
    said = [item for item in link.on_timer(T0) if isinstance(item, Status)]
    assert [(status.source, status.condition, status.feed) for status in said] == [("doves", Condition.OK, None)]
    assert not [item for item in link.on_timer(T0) if isinstance(item, Status)]


def test_one_bad_account_of_a_snapshot_costs_only_itself() -> None:
    link = make()
    output = link.connect(T0)
    bad = {**value(b"1"), "data": ["###", "base64"]}
    frame = answer(fetches(output)[0], {"context": {"slot": 4}, "value": [bad, value(b"2")]})
    events = link.receive(frame, T0)
    assert prices(events) == [("B", 2, 4)]
    assert [
        event.reason.startswith("account A in a snapshot: ") for event in events if isinstance(event, Malformed)
    ] == [True]


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result["value"].update(data=["AAAA", "base58"]),
        lambda result: result["value"].update(data=["A", "base64"]),
        lambda result: result["value"].update(data="AAAA"),
        lambda result: result["value"].pop("owner"),
        lambda result: result["context"].update(slot=-1),
        lambda result: result["context"].update(slot="5"),
        lambda result: result.pop("context"),
    ],
)
def test_a_bad_notification_is_named(change: Any) -> None:
    link = make()
    output = link.connect(T0)
    confirm(link, output)
    result = {"context": {"slot": 5}, "value": value(b"1")}
    change(result)
    params = {"result": result, "subscription": subscription_of(output, "A")}
    (event,) = link.receive(websocket({"method": "accountNotification", "params": params}), T0)
    assert isinstance(event, Malformed)
    assert event.reason.startswith("account A: ")


def test_a_refused_websocket_waits() -> None:
    link = make()
    link.connect(T0)
    status, reconnect = link.receive(Frame("websocket", b"no", status=403), T0)
    assert isinstance(status, Status) and status.condition is Condition.NOT_ENTITLED
    assert isinstance(reconnect, Reconnect) and reconnect.after_ms == 60_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.sampled_from([1002, 2, 3]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "result", "error", "params", "method", "context", "value", "slot", "code", "subscription"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60) | json_values.map(orjson.dumps),
    st.sampled_from(["websocket", "http", "sse"]),
    st.integers(0, 599),
)
def test_nothing_that_a_peer_says_raises(data: bytes, channel: Any, status: int) -> None:
    link = make(genesis=GENESIS)
    output = link.connect(T0)
    confirm(link, output)
    for fetch in ("", *(effect.fetch_id for effect in output if isinstance(effect, Fetch))):
        for item in link.receive(Frame(channel, data, fetch, status), T0):
            assert isinstance(item, Malformed | Status | Reconnect | Send | Fetch)
    link.on_timer(T0 + 60 * S)
    assert link.next_deadline() is not None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_not_json_are_malformed(data: bytes) -> None:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        link = make()
        link.connect(T0)
        (event,) = link.receive(Frame("websocket", data), T0)
        assert isinstance(event, Malformed) and event.source == "doves" and event.transport == "solana:a"
