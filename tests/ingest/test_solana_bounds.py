"""The pure Solana link: how patiently it asks, what it remembers, and endpoints that are suddenly elsewhere."""

import pytest

from oracle_hub.core.source import Condition, Fetch, Frame, Malformed, Send
from oracle_hub.ingest.rpc_messages import call, subscribe_text
from oracle_hub.ingest.solana_rpc import SolanaRpc
from tests.ingest.test_solana_rpc import (
    GENESIS,
    T0,
    Reader,
    S,
    answer,
    confirm,
    fetches,
    make,
    notification,
    prices,
    sent,
    snapshot,
    statuses,
    subscription_of,
)


def looked_at(link: SolanaRpc, at_us: int) -> Fetch:
    """The snapshot that is asked for then."""
    (fetch,) = fetches(link.on_timer(at_us))
    return fetch


def at_slot_10() -> SolanaRpc:
    """A link that has proved its cluster and read an account at slot 10."""
    link = make(Reader("doves", "A"), genesis=GENESIS)
    output = link.connect(T0)
    link.receive(answer(fetches(output, "getGenesisHash")[0], GENESIS), T0)
    assert prices(link.receive(snapshot(fetches(output)[0], 10, b"100"), T0)) == [("A", 100, 10)]
    return link


def test_an_endpoint_that_is_suddenly_elsewhere_proves_its_cluster_again() -> None:
    link = at_slot_10()
    again = link.connect(T0 + S)
    moved = link.receive(snapshot(fetches(again)[0], 60_000_000, b"999"), T0 + S)
    assert prices(moved) == [] and fetches(moved, "getGenesisHash") == []
    assert link.next_deadline() == T0 + 2 * S
    moved = link.receive(snapshot(looked_at(link, T0 + 2 * S), 60_000_003, b"999"), T0 + 2 * S)
    (asked,) = fetches(moved, "getGenesisHash")
    assert prices(moved) == []
    devnet = link.receive(answer(asked, "devnet"), T0 + 2 * S)
    assert prices(devnet) == [] and statuses(devnet) == [("doves", Condition.WRONG_CLUSTER)]


def test_a_node_that_had_stood_still_is_used_again_once_it_has_proved_its_cluster() -> None:
    link = at_slot_10()
    link.receive(snapshot(fetches(link.connect(T0))[0], 20_000, b"101"), T0)
    (asked,) = fetches(link.receive(snapshot(looked_at(link, T0 + S), 20_002, b"102"), T0 + S), "getGenesisHash")
    assert prices(link.receive(answer(asked, GENESIS), T0 + S)) == [("A", 102, 20_002)]


def test_one_address_for_nodes_of_two_clusters_lets_no_state_of_the_other_pass() -> None:
    """Requests go to either in turn: the genesis hash is right each time, and each answer is from the other one."""
    link = at_slot_10()
    told, now_us = [], T0
    for number in range(1, 20):
        now_us += S if number > 1 else 15 * S
        slot, content = (10 + number, b"100") if number % 2 == 0 else (60_000_000 + number, b"999")
        output = link.receive(snapshot(looked_at(link, now_us), slot, content), now_us)
        for genesis in fetches(output, "getGenesisHash"):
            output = [*output, *link.receive(answer(genesis, GENESIS), now_us)]
        told += prices(output)
    assert told == []
    # The genesis hash that was asked for at the connect comes late, and from a node of the right cluster.
    other = at_slot_10()
    output = other.connect(T0 + S)
    confirm(other, output)
    other.receive(snapshot(fetches(output)[0], 60_000_000, b"999"), T0 + S)
    assert prices(other.receive(answer(fetches(output, "getGenesisHash")[0], GENESIS), T0 + S)) == []
    late = other.receive(notification(subscription_of(output, "A"), 60_000_001, b"999"), T0 + S)
    assert prices(list(late)) == []


@pytest.mark.parametrize(
    ("status", "body", "longest_us"),
    [
        (0, b"connection refused", 5 * S),
        (503, b"<html>", 5 * S),
        (502, b'{"error":{"code":-32000,"message":"upstream"}}', 5 * S),
        (500, b'{"result":null}', 5 * S),
        (404, b"<html>", 30 * S),
        (200, b'{"error":{"code":-32000,"message":"no"}}', 30 * S),
        (429, b"slow down", 30 * S),
    ],
)
def test_an_endpoint_that_is_down_is_asked_every_few_seconds_one_that_refuses_ever_less(
    status: int, body: bytes, longest_us: int
) -> None:
    link = make(transport_silence_us=1_000 * S, silence_us=1_000 * S, reply_us=1_000 * S, safety_snapshot_us=1_000 * S)
    (fetch,) = fetches(link.connect(T0))
    now_us, waits = T0, []
    for _ in range(9):
        link.receive(Frame("http", body, fetch.fetch_id, status), now_us)
        due_us = link.next_deadline()
        assert due_us is not None
        waits.append(due_us - now_us)
        now_us = due_us
        (fetch,) = fetches(link.on_timer(now_us))
    assert waits == [min(longest_us, S // 2 << number) for number in range(9)]
    assert prices(link.receive(snapshot(fetch, 5, b"1", b"2"), now_us)) == [("A", 1, 5), ("B", 2, 5)]


def test_subscriptions_that_were_given_up_are_remembered_within_bounds() -> None:
    """Accounts come and go on one connection. News of the last ones is on its way; nothing grows without end."""
    reader = Reader("doves", "A", "B")
    link = make(reader, left_subscriptions=3)
    confirm(link, link.connect(T0))
    given_up = []
    for number in range(50):
        reader.pubkeys = {"B", f"C{number}"}
        moved = link.reconcile(T0)
        confirm(link, moved)
        given_up += [sent(one)["params"][0] for one in moved if isinstance(one, Send) and "accountUns" in one.text]
        assert len(link._left) <= 6 and set(given_up[-3:]) <= link._left
    assert len(given_up) == 50
    for subscription in given_up[-3:]:
        assert link.receive(notification(subscription, 5, b"1"), T0) == ()
    (told,) = link.receive(notification(given_up[0], 5, b"1"), T0)
    assert isinstance(told, Malformed)
    many = make(Reader("doves", *(f"D{number}" for number in range(40))), left_subscriptions=3)
    assert many._limits.remembered(set(range(80)), 40) == set(range(80))
    assert many._limits.remembered(set(range(81)), 40) == set(range(41, 81))


@pytest.mark.parametrize("commitment", ["confirmed", "processed"])
def test_a_subscription_is_asked_for_in_the_words_of_the_protocol(commitment: str) -> None:
    address = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
    asked = call(7, "accountSubscribe", [address, {"encoding": "base64", "commitment": commitment}])
    assert subscribe_text(7, address, commitment).encode() == asked
