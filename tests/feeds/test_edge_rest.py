"""The pure link to Edge's REST API, by value: answers are signed with a test key."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.edge.messages import EdgePrice
from feeds.edge.rest import EdgeFeed, EdgeLimits, EdgeLink, EdgeProver
from feeds.emulator.edge_signing import EdgeSigner
from oracle_hub.core.source import Condition, Fetch, Frame, Malformed, PriceUpdate, Status, Unchanged
from oracle_hub.errors import ConfigError

S = 1_000_000
NOW_S = 1_790_000_000
T0 = NOW_S * S
SIGNER = EdgeSigner()
FEEDS = {"SOL/USD": EdgeFeed("SOLUSD"), "BTC/USD": EdgeFeed("btcusd", -6)}
SOL = EdgePrice("SOLUSD", 11_500_840_348, -8, NOW_S)
BTC = EdgePrice("BTCUSD", 9_100_000_000_000, -8, NOW_S - 1)


def make(**changes: Any) -> EdgeLink:
    options: dict[str, Any] = {"prover": EdgeProver(SIGNER.sets), "key": "top-secret"} | changes
    return EdgeLink("edge:1", "https://edge.example/", options.pop("feeds", FEEDS), **options)


def answer(link: EdgeLink, body: bytes, at_us: int = T0, status: int = 200, retry_after_ms: int = 0) -> list[Any]:
    """Ask, by connect or timer, and give the answer."""
    asked = link.connect(at_us) if link.next_deadline() is None else link.on_timer(at_us)
    (fetch,) = [effect for effect in asked if isinstance(effect, Fetch)]
    return link.receive(Frame("http", body, fetch.fetch_id, status, retry_after_ms), at_us + 7)


def statuses(output: Sequence[object]) -> list[tuple[str | None, Condition]]:
    return [(item.feed, item.condition) for item in output if isinstance(item, Status)]


def test_one_request_for_all_feeds_with_the_key_as_it_is() -> None:
    (fetch,) = make().connect(T0)
    url = "https://edge.example/prices/batch?feedIds=SOLUSD,BTCUSD"
    assert fetch == Fetch("batch:1", url, headers={"Authorization": "top-secret"}, timeout_ms=5_000)
    assert "secret" not in repr(make()) + repr(fetch)


def test_a_signed_batch_gives_verified_prices_at_the_feeds_exponents() -> None:
    assert answer(make(), SIGNER.batch([BTC, SOL])) == [
        PriceUpdate("edge", "edge:1", "BTC/USD", 91_000_000_000, T0 - S, T0 + 7, verified=True),
        PriceUpdate("edge", "edge:1", "SOL/USD", 11_500_840_348, T0, T0 + 7, verified=True),
    ]
    milliseconds = EdgePrice("SOLUSD", 5, -8, NOW_S * 1_000 + 250)
    update, *_ = answer(make(), SIGNER.single(milliseconds))
    assert update.publish_us == T0 + 250_000


def test_it_asks_again_by_the_time_of_the_request_and_never_twice_at_once() -> None:
    link = make()
    link.connect(T0)
    assert link.next_deadline() is None and link.on_timer(T0 + 5 * S) == []
    link.receive(Frame("http", SIGNER.batch([SOL, BTC]), "batch:1", 200), T0 + S // 2)
    assert link.next_deadline() == T0 + S and link.on_timer(T0 + S - 1) == []
    (fetch,) = link.on_timer(T0 + S)
    assert isinstance(fetch, Fetch) and fetch.fetch_id == "batch:2"
    link.receive(Frame("http", SIGNER.batch([SOL, BTC]), "batch:2", 200), T0 + 4 * S)
    assert link.next_deadline() == T0 + 4 * S  # a slow answer: at once


def test_the_same_message_is_nothing_new_and_a_change_under_its_signature_is_refused() -> None:
    link = make()
    answer(link, SIGNER.batch([SOL, BTC]))
    assert answer(link, SIGNER.batch([SOL, BTC]), T0 + S) == [
        Unchanged("edge", "edge:1", feed, T0 + S + 7) for feed in ("SOL/USD", "BTC/USD")
    ]
    changed = SIGNER.batch([SOL, BTC]).replace(b"11500840348", b"11500840349")
    output = answer(link, changed, T0 + 2 * S)
    assert not any(isinstance(item, PriceUpdate | Unchanged) for item in output)
    assert statuses(output) == [("SOL/USD", Condition.UNVERIFIED), ("BTC/USD", Condition.UNVERIFIED)]
    assert [item.feed for item in output if isinstance(item, Malformed)] == ["SOL/USD", "BTC/USD"]
    well = answer(link, SIGNER.batch([EdgePrice("SOLUSD", 9, -8, NOW_S + 3), BTC]), T0 + 3 * S)
    assert statuses(well) == [("SOL/USD", Condition.OK), ("BTC/USD", Condition.OK)]
    assert [item.mantissa for item in well if isinstance(item, PriceUpdate)] == [9, 91_000_000_000]


def test_strangers_are_refused_taken_as_unverified_or_not_looked_at() -> None:
    body = EdgeSigner(1).batch([SOL, BTC])
    assert not any(isinstance(item, PriceUpdate) for item in answer(make(), body))
    lenient = answer(make(verify="lenient"), body)
    assert [item.verified for item in lenient if isinstance(item, PriceUpdate)] == [False, False]
    assert {item.condition for item in lenient if isinstance(item, Status)} == {Condition.UNVERIFIED}
    off = answer(make(verify="off"), body)
    assert [item.verified for item in off] == [False, False]


def test_a_feed_without_a_price_is_named_once_and_found_again() -> None:
    link = make()
    output = answer(link, SIGNER.batch([SOL]))
    assert statuses(output) == [("BTC/USD", Condition.LOST)]
    assert statuses(answer(link, SIGNER.batch([SOL]), T0 + S)) == []
    assert statuses(answer(link, SIGNER.batch([SOL, BTC]), T0 + 2 * S)) == [("BTC/USD", Condition.OK)]


def test_prices_that_were_not_asked_for_or_come_twice() -> None:
    other = EdgePrice("DOGEUSD", 5, -8, NOW_S)
    output = answer(make(), SIGNER.batch([SOL, other, SOL, BTC]))
    assert [item.mantissa for item in output if isinstance(item, PriceUpdate)] == [11_500_840_348, 91_000_000_000]
    assert [item.reason for item in output if isinstance(item, Malformed)] == [
        "price of 'DOGEUSD', not asked for",
        "two prices in one answer",
    ]


def test_numbered_feeds() -> None:
    link = make(feeds={"BTC/USD": EdgeFeed("2")})
    output = answer(link, SIGNER.batch([EdgePrice(2, 830_999_792_250_000, -10, NOW_S)]))
    assert [item.mantissa for item in output] == [8_309_997_922_500]


def test_a_signed_number_is_the_price_of_no_other_feed() -> None:
    feeds = {"JITOSOL/USD": EdgeFeed("1"), "BONK/USD": EdgeFeed("49")}
    signed = SIGNER.batch([EdgePrice(49, 2_500, -8, NOW_S)])
    assert bytes([49]) == b"1"
    for told, mantissas in ((b'"49"', [2_500]), (b'"1"', [])):
        output = answer(make(feeds=feeds), signed.replace(b'"feedId":49', b'"feedId":' + told))
        assert [(item.feed, item.mantissa) for item in output if isinstance(item, PriceUpdate)] == [
            ("BONK/USD", mantissa) for mantissa in mantissas
        ]


def test_what_is_no_price_is_invalid() -> None:
    output = answer(make(), SIGNER.batch([EdgePrice("SOLUSD", 0, -8, NOW_S), BTC]))
    assert statuses(output) == [("SOL/USD", Condition.INVALID)]
    assert [item.feed for item in output if isinstance(item, PriceUpdate)] == ["BTC/USD"]


@pytest.mark.parametrize(
    ("status", "retry_after_ms", "condition", "waits_s"),
    [
        (401, 0, Condition.NOT_ENTITLED, 60),
        (403, 90_000, Condition.NOT_ENTITLED, 90),
        (429, 0, Condition.RATE_LIMITED, 60),
        (429, 3_000, Condition.RATE_LIMITED, 3),
        (503, 5_000, Condition.LOST, 5),
    ],
)
def test_refusals_are_named_and_waited_out(
    status: int, retry_after_ms: int, condition: Condition, waits_s: int
) -> None:
    link = make()
    (told,) = answer(link, b"no top-secret\nfor you", T0, status, retry_after_ms)
    assert (told.feed, told.condition) == (None, condition) and told.text.endswith("no … for you")
    assert link.next_deadline() == T0 + 7 + waits_s * S
    reconnected = link.connect(T0 + 8)
    assert reconnected == []  # the host's wish is kept over a reconnect
    assert link.next_deadline() == T0 + 7 + waits_s * S


@pytest.mark.parametrize(
    ("status", "ceilings_s"),
    [(0, [1, 2, 4, 5, 5, 5, 5]), (500, [1, 2, 4, 5, 5, 5, 5]), (400, [1, 2, 4, 8, 16, 30, 30])],
)
def test_failures_are_asked_again_ever_more_slowly(status: int, ceilings_s: list[int]) -> None:
    link, at_us, waits_us = make(), T0, []
    for _ in ceilings_s:
        assert [told.condition for told in answer(link, b"", at_us, status)] in ([Condition.LOST], [])
        due_us = link.next_deadline()
        assert due_us is not None
        waits_us.append(due_us - at_us - 7)
        at_us = due_us
    assert all(0.75 * top * S <= wait <= top * S for wait, top in zip(waits_us, ceilings_s, strict=True))
    assert len(set(waits_us)) == len(waits_us)  # not in step with others
    assert statuses(answer(link, SIGNER.batch([SOL, BTC]), at_us))[0] == (None, Condition.OK)
    assert link.next_deadline() == at_us + S
    answer(link, b"", at_us + S, status)
    assert link.connect(at_us + S + 8) != []  # a reconnect asks at once


def test_a_host_that_always_names_its_wait_is_taken_at_its_word() -> None:
    link, at_us = make(), T0
    for _ in range(7):
        answer(link, b"", at_us, 429, 3_000)
        assert link.next_deadline() == at_us + 7 + 3 * S
        at_us += 7 + 3 * S


def test_answers_to_nothing_and_nonsense_are_malformed() -> None:
    link = make()
    link.connect(T0)
    for frame in (Frame("http", b"{}", "batch:9", 200), Frame("websocket", b"{}")):
        (event,) = link.receive(frame, T0)
        assert isinstance(event, Malformed)
    (event,) = link.receive(Frame("http", b"<html>", "batch:1", 200), T0)
    assert isinstance(event, Malformed) and event.reason.startswith("edge.svm: offset 0: expected the API's JSON")
    assert link.next_deadline() == T0 + S


@given(st.binary(max_size=300), st.integers(0, 600))
@settings(max_examples=150, deadline=None)
def test_no_answer_can_break_it(body: bytes, status: int) -> None:
    link = make()
    for item in answer(link, body, status=status):
        assert isinstance(item, Malformed | Status | PriceUpdate)
    assert link.next_deadline() is not None


def test_ids_that_can_not_be() -> None:
    with pytest.raises(ConfigError, match=r"source edge, feed SOL/USD: 'SOL/USD' is no id of Edge"):
        make(feeds={"SOL/USD": EdgeFeed("SOL/USD")})
    with pytest.raises(ConfigError, match="source edge: feeds A and B have one id"):
        make(feeds={"A": EdgeFeed("SOLUSD"), "B": EdgeFeed("solusd")})


def test_limits_can_be_set() -> None:
    link = make(limits=EdgeLimits(poll_us=250_000))
    answer(link, orjson.dumps({"prices": []}))
    assert link.next_deadline() == T0 + 250_000
