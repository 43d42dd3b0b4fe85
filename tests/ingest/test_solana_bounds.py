"""The pure Solana link: how patiently it asks, and what it remembers, within bounds."""

import pytest

from oracle_hub.core.source import Frame, Malformed, Send
from oracle_hub.ingest.rpc_messages import call, subscribe_text
from tests.ingest.test_solana_rpc import T0, Reader, S, confirm, fetches, make, notification, prices, sent, snapshot


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
