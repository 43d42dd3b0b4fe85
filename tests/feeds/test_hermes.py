"""The pure Hermes link, by value: frames are written here or are those of Pyth's own documentation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.pyth.hermes import HermesFeed, HermesLimits, HermesLink
from oracle_hub.core.source import Condition, Fetch, Frame, Malformed, Open, PriceUpdate, Reconnect, Status
from oracle_hub.errors import ConfigError

S = 1_000_000
T0 = 1_760_000_000 * S
BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
SOL = "ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d"
FEEDS = {"BTC/USD": HermesFeed(f"0x{BTC.upper()}"), "SOL/USD": HermesFeed(SOL)}
QUERY = f"ids[]={BTC}&ids[]={SOL}&parsed=true&encoding=base64&ignore_invalid_price_ids=true"


def make(**limits: Any) -> HermesLink:
    return HermesLink(
        "hermes:1", "https://hermes.example/hermes/", FEEDS, key="top-secret", limits=HermesLimits(**limits)
    )


def entry(price_id: str, price: object, publish_s: object, slot: object = 5, expo: object = -8) -> dict[str, Any]:
    return {
        "id": price_id,
        "price": {"price": price, "conf": "7", "expo": expo, "publish_time": publish_s},
        "ema_price": {},
        "metadata": {"slot": slot, "proof_available_time": 1, "prev_publish_time": 1},
    }


def body(*entries: object) -> bytes:
    return orjson.dumps({"binary": {"encoding": "base64", "data": ["UE5BVQ=="]}, "parsed": list(entries)})


def fetch_of(output: Sequence[object]) -> Fetch:
    (fetch,) = [effect for effect in output if isinstance(effect, Fetch)]
    return fetch


def statuses(output: Sequence[object]) -> list[tuple[str | None, Condition]]:
    return [(item.feed, item.condition) for item in output if isinstance(item, Status)]


def prices(output: Sequence[object]) -> list[tuple[str, int, int]]:
    return [(item.feed, item.mantissa, item.publish_us // S) for item in output if isinstance(item, PriceUpdate)]


def test_connect_opens_the_stream_and_asks_for_the_latest() -> None:
    opening, fetch = make().connect(T0)
    headers = {"Authorization": "Bearer top-secret"}
    assert opening == Open("sse", f"https://hermes.example/hermes/v2/updates/price/stream?{QUERY}", headers)
    latest = f"https://hermes.example/hermes/v2/updates/price/latest?{QUERY}"
    assert fetch == Fetch("latest:1", latest, headers=headers, timeout_ms=10_000)
    assert "secret" not in repr(make()) + repr(opening) + repr(fetch)


def test_a_stream_event_gives_one_update_for_each_feed_whatever_the_order() -> None:
    link = make()
    link.connect(T0)
    data = body(entry(SOL, "17270134218", 1_760_000_000, slot=9), entry(BTC, "6140993501", 1_760_000_001, expo=-5))
    assert link.receive(Frame("sse", data), T0 + 3) == [
        PriceUpdate("pyth", "hermes:1", "SOL/USD", 17270134218, 1_760_000_000 * S, T0 + 3, conf=7, slot=9),
        PriceUpdate("pyth", "hermes:1", "BTC/USD", 6140993501000, 1_760_000_001 * S, T0 + 3, conf=7000, slot=5),
    ]


def test_the_documented_answers_are_read(fixtures_dir: Path) -> None:
    samples = json.loads((fixtures_dir / "hermes_rest_samples.json").read_text())
    link = HermesLink("hermes:1", "https://h", {"BTC/USD": HermesFeed(BTC)})
    fetch = fetch_of(link.connect(T0))
    frame = Frame("http", orjson.dumps(samples["v2_latest"]["body"]), fetch.fetch_id, 200)
    updates = [item for item in link.receive(frame, T0) if isinstance(item, PriceUpdate)]
    assert updates == [
        PriceUpdate("pyth", "hermes:1", "BTC/USD", 6140993501000, 1714746101 * S, T0, conf=3287868567, slot=138881186)
    ]
    for line in samples["v2_stream_sse_raw_lines"]["events"]:
        events = link.receive(Frame("sse", line.removeprefix("data:").encode()), T0)
        assert [item.feed for item in events if isinstance(item, PriceUpdate)] == ["BTC/USD"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry(BTC, "1.5", 1_760_000_000), "broken entry: price and conf must be decimal integers"),
        (entry(BTC, 15, 1_760_000_000), "broken entry: Expected `str`, got `int` - at `$.price.price`"),
        (entry(BTC, "15", 0), "broken entry: publish_time 0 is no Unix second"),
        (entry(BTC, "15", 2**60), f"broken entry: publish_time {2**60} is no Unix second"),
        ({"id": BTC}, "broken entry: Object missing required field `price`"),
        (entry(BTC, "15", 1_760_000_000, expo=90), "exponent 90 is too far from -8"),
    ],
)
def test_a_broken_entry_costs_only_itself(bad: dict[str, Any], reason: str) -> None:
    link = make()
    link.connect(T0)
    output = link.receive(Frame("sse", body(bad, entry(SOL, "2", 1_760_000_000))), T0)
    assert output[0] == Malformed("pyth", "hermes:1", "BTC/USD", reason, T0)
    assert prices(output) == [("SOL/USD", 2, 1_760_000_000)]


def test_an_id_that_was_not_asked_for_is_named() -> None:
    link = make()
    link.connect(T0)
    (event,) = link.receive(Frame("sse", body(entry("ab", "1", 1_760_000_000))), T0)
    assert event == Malformed("pyth", "hermes:1", None, "price of 'ab', not asked for", T0)


def test_a_price_that_is_none_makes_the_feed_invalid_until_it_is_one() -> None:
    link = make()
    link.connect(T0)
    zero = Frame("sse", body(entry(BTC, "0", 1_760_000_000)))
    assert statuses(link.receive(zero, T0)) == [("BTC/USD", Condition.INVALID)]
    again = link.receive(zero, T0)
    assert [type(item) for item in again] == [Malformed]
    healed = link.receive(Frame("sse", body(entry(BTC, "5", 1_760_000_001))), T0)
    assert statuses(healed) == [("BTC/USD", Condition.OK)]
    assert prices(healed) == [("BTC/USD", 5, 1_760_000_001)]


def test_a_feed_that_is_absent_is_told_by_name() -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    output = link.receive(Frame("http", body(entry(BTC, "5", 1_760_000_000)), fetch.fetch_id, 200), T0)
    assert statuses(output) == [("SOL/USD", Condition.LOST)]
    probe = fetch_of(link.on_timer(T0 + 10 * S))
    both = body(entry(BTC, "5", 1_760_000_000), entry(SOL, "6", 1_760_000_000))
    assert statuses(link.receive(Frame("http", both, probe.fetch_id, 200), T0 + 10 * S)) == [("SOL/USD", Condition.OK)]


def test_unknown_ids_of_a_404_are_named() -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    output = link.receive(Frame("http", f"Price ids not found: 0x{SOL}".encode(), fetch.fetch_id, 404), T0)
    assert statuses(output) == [("SOL/USD", Condition.LOST)]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_and_not_tried_again_soon(status: int) -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    told, reconnect = link.receive(Frame("sse", b"key top-secret unauthorized", status=status), T0)
    assert isinstance(told, Status)
    assert (told.feed, told.condition) == (None, Condition.NOT_ENTITLED)
    assert told.text == f"HTTP {status}, not entitled: key … unauthorized"
    assert reconnect == Reconnect(f"stream refused with HTTP {status}", 60_000)
    link.receive(Frame("http", b"unauthorized", fetch.fetch_id, status), T0)
    assert [item for item in link.on_timer(T0 + 59 * S) if isinstance(item, Fetch)] == []
    assert fetch_of(link.on_timer(T0 + 60 * S)).fetch_id == "latest:2"


def test_a_feed_that_the_key_does_not_cover_is_left_out() -> None:
    link = make()
    link.connect(T0)
    output = link.receive(Frame("sse", f"Not entitled: feed {SOL}".encode(), status=403), T0)
    assert statuses(output) == [("SOL/USD", Condition.NOT_ENTITLED)]
    assert output[-1] == Reconnect("stream refused with HTTP 403", 0, amended=True)
    opening = link.connect(T0 + S)[0]
    assert isinstance(opening, Open)
    assert BTC in opening.url and SOL not in opening.url


def test_a_feed_that_the_key_did_not_cover_is_asked_for_again_alone() -> None:
    link = make()
    first = fetch_of(link.connect(T0))
    link.receive(Frame("sse", f"Not entitled: feed {SOL}".encode(), status=403), T0)
    link.receive(Frame("http", body(entry(BTC, "5", 1)), first.fetch_id, 200), T0)
    link.connect(T0 + 299 * S)
    link.receive(Frame("http", body(entry(BTC, "5", 1)), "latest:2", 200), T0 + 299 * S)
    refused = fetch_of(link.on_timer(T0 + 300 * S))
    assert SOL in refused.url and BTC not in refused.url
    assert link.receive(Frame("http", f"Not entitled: feed {SOL}".encode(), refused.fetch_id, 403), T0 + 300 * S) == []
    for at_s in range(301, 600):  # BTC is told, so that nothing else is asked for
        link.receive(Frame("sse", body(entry(BTC, "5", at_s))), T0 + at_s * S)
        assert link.on_timer(T0 + at_s * S) == []
    deadline_us = link.next_deadline()
    assert deadline_us is not None and deadline_us <= T0 + 600 * S
    granted = fetch_of(link.on_timer(T0 + 600 * S))
    output = link.receive(Frame("http", body(entry(SOL, "7", 600)), granted.fetch_id, 200), T0 + 600 * S)
    assert statuses(output) == [("SOL/USD", Condition.OK)]
    assert prices(output) == [("SOL/USD", 7, 600)]
    assert output[-1] == Reconnect("the key covers SOL/USD again")
    opening = link.connect(T0 + 601 * S)[0]
    assert isinstance(opening, Open) and SOL in opening.url and BTC in opening.url


def test_a_rate_limit_holds_requests_back_over_a_reconnect() -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    output = link.receive(Frame("http", b"", fetch.fetch_id, 429, 90_000), T0)
    assert statuses(output) == [(None, Condition.RATE_LIMITED)]
    assert [type(item) for item in link.connect(T0 + S)] == [Open]
    link.receive(Frame("sse", b""), T0 + 80 * S)
    assert [item for item in link.on_timer(T0 + 89 * S) if isinstance(item, Fetch)] == []
    again = fetch_of(link.on_timer(T0 + 90 * S))
    healed = link.receive(Frame("http", body(entry(BTC, "5", 1), entry(SOL, "5", 1)), again.fetch_id, 200), T0 + 90 * S)
    assert statuses(healed) == [(None, Condition.OK)]


def test_a_link_is_well_again_when_its_last_trouble_is_over() -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    assert statuses(link.receive(Frame("http", b"timed out", fetch.fetch_id), T0)) == [(None, Condition.LOST)]
    link.receive(Frame("sse", b"Connection timeout reached (24h)", event="error"), T0)
    assert statuses(link.receive(Frame("sse", body(entry(BTC, "5", 1_760_000_000))), T0)) == []
    again = fetch_of(link.on_timer(T0 + S))
    both = body(entry(BTC, "5", 1_760_000_000), entry(SOL, "5", 1_760_000_000))
    assert statuses(link.receive(Frame("http", both, again.fetch_id, 200), T0 + S)) == [(None, Condition.OK)]


def test_a_clock_set_back_does_not_silence_the_link() -> None:
    link = make()
    fetch = fetch_of(link.connect(T0 + 3_600 * S))
    link.receive(Frame("http", b"", fetch.fetch_id, 429), T0 + 3_600 * S)
    link.connect(T0)
    link.receive(Frame("sse", b""), T0 + 599 * S)
    assert fetch_of(link.on_timer(T0 + 600 * S)).fetch_id == "latest:2"


def test_whoever_is_refused_first_the_stream_without_the_feed_is_another_one() -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    words = f"Not entitled: feed {SOL}".encode()
    link.receive(Frame("http", words, fetch.fetch_id, 403), T0)
    assert link.receive(Frame("sse", words, status=403), T0)[-1] == Reconnect(
        "stream refused with HTTP 403", 0, amended=True
    )
    link.connect(T0 + S)
    assert link.receive(Frame("sse", b"unauthorized", status=401), T0 + S)[-1] == Reconnect(
        "stream refused with HTTP 401", 60_000
    )


def test_a_request_without_the_feeds_that_were_refused_is_another_one() -> None:
    link = make(silence_us=1_000 * S, transport_silence_us=1_000 * S)
    fetch, now_us = fetch_of(link.connect(T0)), T0
    for _ in range(3):
        link.receive(Frame("http", b"bad request", fetch.fetch_id, 400), now_us)
        now_us = link.next_deadline() or 0
        fetch = fetch_of(link.on_timer(now_us))
    link.receive(Frame("http", f"Not entitled: feed {SOL}".encode(), fetch.fetch_id, 403), now_us)
    assert (link.next_deadline() or 0) <= now_us + S
    assert SOL not in fetch_of(link.on_timer(now_us + S)).url


def test_failed_fetches_are_tried_again_ever_slower() -> None:
    link = make(silence_us=1_000 * S, transport_silence_us=1_000 * S)
    fetch = fetch_of(link.connect(T0))
    now_us = T0
    for longest_us in (S, 2 * S, 4 * S, 5 * S, 5 * S):
        link.receive(Frame("http", b"timed out", fetch.fetch_id), now_us)
        due_us = link.next_deadline()
        assert due_us is not None and 3 * longest_us // 4 <= due_us - now_us <= longest_us
        now_us = due_us
        fetch = fetch_of(link.on_timer(now_us))


@pytest.mark.parametrize(("retry_after_ms", "waits_s"), [(3_000, 3), (90_000, 90), (1, 1), (0, 60)])
def test_a_rate_limit_lasts_as_long_as_the_host_says(retry_after_ms: int, waits_s: int) -> None:
    link = make(silence_us=1_000 * S, transport_silence_us=1_000 * S)
    fetch = fetch_of(link.connect(T0))
    assert statuses(link.receive(Frame("http", b"", fetch.fetch_id, 429, retry_after_ms), T0)) == [
        (None, Condition.RATE_LIMITED)
    ]
    assert link.next_deadline() == T0 + waits_s * S


@pytest.mark.parametrize(("retry_after_ms", "wish_ms"), [(3_000, 3_000), (90_000, 90_000), (0, 60_000)])
def test_a_stream_that_is_limited_comes_back_when_the_host_says(retry_after_ms: int, wish_ms: int) -> None:
    link = make()
    link.connect(T0)
    output = link.receive(Frame("sse", b"", status=429, retry_after_ms=retry_after_ms), T0)
    assert output[-1] == Reconnect("stream refused with HTTP 429", wish_ms)


def test_a_fault_of_the_server_is_told_and_ends_the_stream() -> None:
    link = make()
    link.connect(T0)
    text = "stream ended by the server: Slow consumer: disconnected"
    output = link.receive(Frame("sse", b"Slow consumer: disconnected", event="error"), T0)
    assert output == [Status("pyth", "hermes:1", None, Condition.LOST, text, T0), Reconnect(text)]
    link.connect(T0 + S)
    healed = link.receive(Frame("sse", body(entry(BTC, "5", 1_760_000_000))), T0 + S)
    assert statuses(healed) == [(None, Condition.OK)]


def test_comments_keep_the_link_but_not_the_feeds() -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    link.receive(Frame("http", body(entry(BTC, "5", 1), entry(SOL, "5", 1)), fetch.fetch_id, 200), T0)
    assert link.receive(Frame("sse", b""), T0 + 9 * S) == []
    assert link.next_deadline() == T0 + 10 * S
    assert fetch_of(link.on_timer(T0 + 10 * S)).url.count("ids[]=") == 2
    assert not [item for item in link.on_timer(T0 + 38 * S) if isinstance(item, Reconnect)]
    assert Reconnect("no event and no comment for 30 s") in link.on_timer(T0 + 39 * S)


def test_a_stream_that_never_told_what_rest_has_is_dropped() -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    first = 1_760_000_000
    link.receive(Frame("http", body(entry(BTC, "5", first), entry(SOL, "5", first)), fetch.fetch_id, 200), T0)
    link.receive(Frame("sse", body(entry(BTC, "5", first + 9))), T0 + 9 * S)
    probe = fetch_of(link.on_timer(T0 + 10 * S))
    assert SOL in probe.url and BTC not in probe.url
    link.receive(Frame("http", body(entry(SOL, "6", first + 8)), probe.fetch_id, 200), T0 + 10 * S)
    output = link.on_timer(T0 + 15 * S)
    assert statuses(output) == [("SOL/USD", Condition.LOST)]
    assert Reconnect("SOL/USD: REST has a newer price that the stream never told") in output


def test_a_source_that_stands_still_is_no_dead_stream() -> None:
    link = make(transport_silence_us=1_000 * S)
    fetch = fetch_of(link.connect(T0))
    same = body(entry(BTC, "5", 1_759_999_000), entry(SOL, "5", 1_759_999_000))
    for now_us in (T0, T0 + 10 * S, T0 + 25 * S):
        if now_us > T0:
            fetch = fetch_of(link.on_timer(now_us))
        output = link.receive(Frame("http", same, fetch.fetch_id, 200), now_us)
        assert statuses(output) == []
    assert statuses(link.on_timer(T0 + 39 * S)) == []


def test_an_unusable_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="source pyth, feed SOL/USD: price id 'ab' is not 64 hex digits"):
        HermesLink("hermes:1", "https://h", {"SOL/USD": HermesFeed("ab")})
    with pytest.raises(ConfigError, match="source pyth: feeds A and B have one price id"):
        HermesLink("hermes:1", "https://h", {"A": HermesFeed(SOL), "B": HermesFeed(f"0x{SOL}")})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=8)
    | st.sampled_from([BTC, "1", "-5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["parsed", "id", "price", "conf", "expo", "publish_time", "metadata", "slot"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
documents = json_values.map(orjson.dumps) | st.lists(json_values, max_size=3).map(lambda items: body(*items))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | documents, st.sampled_from(["websocket", "http", "sse"]), st.integers(0, 599))
def test_nothing_that_a_host_says_raises(data: bytes, channel: Any, status: int) -> None:
    link = make()
    fetch = fetch_of(link.connect(T0))
    for fetch_id in (fetch.fetch_id, "late"):
        for item in link.receive(Frame(channel, data, fetch_id, status), T0):
            assert isinstance(item, PriceUpdate | Malformed | Status | Reconnect)
    link.on_timer(T0 + 60 * S)
    assert link.next_deadline() is not None


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=60))
def test_bytes_that_are_no_prices_are_malformed(data: bytes) -> None:
    link = make()
    link.connect(T0)
    (event,) = link.receive(Frame("sse", data), T0)
    assert isinstance(event, Malformed) and event.feed is None
