"""The pure link to Chainlink Data Streams, by value: reports are signed by a DON of test keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.addresses import ASSETS
from feeds.chainlink.data_streams import ReportProver, StreamsFeed, StreamsLink, signed_headers
from feeds.emulator.report_signing import DonSigner
from oracle_hub.core.source import Condition, Fetch, Frame, Malformed, Open, PriceUpdate, Reconnect, Status, Unchanged
from oracle_hub.errors import ConfigError

S = 1_000_000
NOW_S = 1_790_000_000
T0 = NOW_S * S
SOL, BTC = (ASSETS[feed].data_streams_id for feed in ("SOL/USD", "BTC/USD"))
FEEDS = {"SOL/USD": StreamsFeed("0x" + SOL.upper()), "BTC/USD": StreamsFeed(BTC, -6)}
DON = DonSigner()


def make(**changes: Any) -> StreamsLink:
    options: dict[str, Any] = {"key": "the-key", "secret": "top-secret", "prover": ReportProver(DON.sets)} | changes
    feeds = options.pop("feeds", FEEDS)
    return StreamsLink("streams:1", "wss://ws.example/", "https://api.example", feeds, **options)


def report(stream_id: str = SOL, price: int = 115 * 10**18, observed_s: int = NOW_S, signer: DonSigner = DON) -> bytes:
    quotes = {"price": price, "bid": max(price - 1, 1), "ask": price + 1}
    raw = signer.report(bytes.fromhex(stream_id), observed_s, quotes)
    return orjson.dumps({"report": {"feedID": "0x" + stream_id, "fullReport": "0x" + raw.hex()}})


def streamed(link: StreamsLink, data: bytes, at_us: int = T0) -> list[Any]:
    return link.receive(Frame("websocket", data), at_us)


def statuses(output: Sequence[object]) -> list[tuple[str | None, Condition]]:
    return [(item.feed, item.condition) for item in output if isinstance(item, Status)]


def test_the_documented_signatures_of_requests(fixtures_dir: Path) -> None:
    vectors = orjson.loads((fixtures_dir / "chainlink_ds_auth_hmac.json").read_bytes())
    assert len(vectors["data"]) == len(vectors["expected"]) >= 6
    for asked, expected in zip(vectors["data"], vectors["expected"], strict=True):
        url, body = "https://api.example" + asked["path"], asked["body"].encode()
        key, secret, at_ms = asked["apiKey"], asked["apiSecret"], asked["timestamp"]
        assert signed_headers(asked["method"], url, body, key, secret, at_ms) == {
            "Authorization": key,
            "X-Authorization-Timestamp": str(at_ms),
            "X-Authorization-Signature-SHA256": expected,
        }


def test_connect_opens_a_signed_socket_and_asks_for_the_latest_of_each_feed() -> None:
    opening, *fetches = make(origin="002").connect(T0)
    ws = f"wss://ws.example/api/v1/ws?feedIDs=0x{SOL},0x{BTC}"
    headers = signed_headers("GET", ws, b"", "the-key", "top-secret", NOW_S * 1_000, "002")
    assert opening == Open("websocket", ws, headers) and headers["X-Cll-Origin"] == "002"
    url = f"https://api.example/api/v1/reports/latest?feedID=0x{BTC}"
    signed = signed_headers("GET", url, b"", "the-key", "top-secret", NOW_S * 1_000, "002")
    assert fetches[1] == Fetch("latest:2", url, headers=signed, timeout_ms=5_000) and len(fetches) == 2
    assert "secret" not in repr(make()) + repr(opening) + str(headers)


def test_a_report_of_the_past_is_told_to_be_counted_and_a_forged_one_is_named() -> None:
    link = make()
    link.connect(T0)
    streamed(link, report(), T0)
    assert streamed(link, report(price=114 * 10**18, observed_s=NOW_S - 20), T0 + 5) == [
        PriceUpdate("streams", "streams:1", "SOL/USD", 114 * 10**8, T0 - 20 * S, T0 + 5, verified=True)
    ]
    for at_s in (NOW_S, NOW_S - 20):
        refused = streamed(link, report(observed_s=at_s, signer=DonSigner(seed=3)), T0 + 6)
        assert [item.feed for item in refused if isinstance(item, Malformed)] == ["SOL/USD"]


def test_a_report_gives_a_verified_price_and_the_same_second_nothing_new() -> None:
    link = make()
    link.connect(T0)
    assert streamed(link, report()) == [
        PriceUpdate("streams", "streams:1", "SOL/USD", 115 * 10**8, T0, T0, verified=True)
    ]
    again = streamed(link, report(price=116 * 10**18), T0 + 5)
    assert again == [Unchanged("streams", "streams:1", "SOL/USD", T0 + 5)]
    (btc,) = streamed(link, report(BTC, 91_000 * 10**18))
    assert btc.mantissa == 91_000 * 10**6


def test_a_report_is_proved_once_for_all_origins() -> None:
    prover = ReportProver(DON.sets)
    for origin in ("001", "002"):
        link = make(prover=prover, origin=origin)
        link.connect(T0)
        assert streamed(link, report())[0].verified
    assert prover.checked == 1


@pytest.mark.parametrize("verify", ["strict", "lenient", "off"])
def test_strangers(verify: str) -> None:
    link = make(verify=verify)
    link.connect(T0)
    output = streamed(link, report(signer=DonSigner(seed=1)))
    prices = [item.verified for item in output if isinstance(item, PriceUpdate)]
    assert prices == ([] if verify == "strict" else [False])
    assert statuses(output) == ([] if verify == "off" else [("SOL/USD", Condition.UNVERIFIED)])
    if verify == "strict":
        (refused,) = [item for item in output if isinstance(item, Malformed)]
        assert refused.reason.startswith("not verified: unknown_set: no signers are known for config digest ")
    well = streamed(link, report(observed_s=NOW_S + 1))
    assert statuses(well) == ([] if verify == "off" else [("SOL/USD", Condition.OK)])


def test_a_report_that_is_over_is_not_verified() -> None:
    link = make()
    link.connect(T0)
    output = streamed(link, report(observed_s=NOW_S - 31 * 86_400))
    assert statuses(output) == [("SOL/USD", Condition.UNVERIFIED)] and "expired" in output[0].reason


def test_one_wrong_clock_does_not_silence_a_feed() -> None:
    link = make(verify="off")
    link.connect(T0)
    (ahead,) = streamed(link, report(observed_s=NOW_S + 86_400))
    assert isinstance(ahead, PriceUpdate)
    (right,) = streamed(link, report(observed_s=NOW_S + 1))
    assert isinstance(right, PriceUpdate)


def test_markets_that_are_closed_halt_and_open_again() -> None:
    stream_id = "0004" + "00" * 30
    link = make(feeds={"SPY/USD": StreamsFeed(stream_id)})
    link.connect(T0)

    def status(value: int, second: int) -> bytes:
        return (
            DON.report(bytes.fromhex(stream_id), NOW_S + second, {"price": 5 * 10**18, "marketStatus": value})
            .hex()
            .encode()
        )

    halted, well = [Condition.HALTED], [Condition.OK]
    tellings: tuple[tuple[int, int, list[Condition]], ...] = (
        (0, 1, halted),
        (0, 1, []),
        (1, 1, halted),
        (1, 1, []),
        (2, 2, well),
    )  # again by each later report
    for second, value, expected in tellings:
        data = b'{"report": {"fullReport": "0x%s"}}' % status(value, second)
        told = statuses(streamed(link, data, T0 + second * S))
        assert [condition for _, condition in told] == expected


def test_what_is_no_price_is_invalid() -> None:
    link = make()
    link.connect(T0)
    output = streamed(link, report(price=2**100))
    assert statuses(output) == [("SOL/USD", Condition.INVALID)] and isinstance(output[0], Malformed)


def test_silence_is_looked_up_and_a_dead_stream_is_opened_anew() -> None:
    link = make()
    _, *fetches = link.connect(T0)
    for fetch, stream_id in zip(fetches, (SOL, BTC), strict=True):
        assert isinstance(fetch, Fetch)
        (price,) = link.receive(Frame("http", report(stream_id), fetch.fetch_id, 200), T0)
        assert isinstance(price, PriceUpdate)
    streamed(link, report(BTC, observed_s=NOW_S + 4), T0 + 4 * S)
    assert link.next_deadline() == T0 + 5 * S
    (probe,) = link.on_timer(T0 + 5 * S)
    assert isinstance(probe, Fetch) and probe.url.endswith(SOL)
    assert link.next_deadline() == T0 + 9 * S
    due = link.on_timer(T0 + 14 * S)
    assert due[0] == Reconnect("no report for 10 s") and len(due) == 2  # BTC is looked up too


@pytest.mark.parametrize(
    ("status", "retry_after_ms", "condition", "waits_ms"),
    [
        (401, 0, Condition.NOT_ENTITLED, 60_000),
        (429, 0, Condition.RATE_LIMITED, 60_000),
        (429, 9_000, Condition.RATE_LIMITED, 9_000),
        (500, 0, Condition.LOST, 0),
    ],
)
def test_refusals(status: int, retry_after_ms: int, condition: Condition, waits_ms: int) -> None:
    link = make()
    link.connect(T0)
    frame = Frame("websocket", b"no top-secret for the-key", "", status, retry_after_ms)
    told, again = link.receive(frame, T0)
    assert isinstance(told, Status) and told.condition is condition and told.text.endswith("no … for …")
    assert again == Reconnect(f"stream refused with HTTP {status}", waits_ms)
    assert len(link.connect(T0 + 1)) == (1 if waits_ms else 3)  # no look-ups while we are to wait


def test_a_feed_without_a_report_is_named() -> None:
    link = make()
    _, fetch, _ = link.connect(T0)
    assert isinstance(fetch, Fetch)
    assert statuses(link.receive(Frame("http", b"", fetch.fetch_id, 404), T0)) == [("SOL/USD", Condition.LOST)]
    assert isinstance(link.receive(Frame("http", b"", fetch.fetch_id, 200), T0)[0], Malformed)


def test_reports_that_were_not_asked_for_and_nonsense_are_malformed() -> None:
    link = make()
    link.connect(T0)
    (other,) = streamed(link, report(ASSETS["ETH/USD"].data_streams_id))
    assert isinstance(other, Malformed) and other.reason.endswith("not asked for")
    (nonsense,) = streamed(link, b"\xff\x00")
    assert isinstance(nonsense, Malformed) and nonsense.reason.startswith("chainlink.report: offset 2: ")


@given(st.binary(max_size=900))
@settings(max_examples=150, deadline=None)
def test_no_frame_can_break_it(data: bytes) -> None:
    link = make()
    link.connect(T0)
    for item in streamed(link, data):
        assert isinstance(item, Malformed)


def test_ids_that_can_not_be() -> None:
    with pytest.raises(ConfigError, match="stream id 'SOL' is not 64 hex digits"):
        make(feeds={"SOL/USD": StreamsFeed("SOL")})
    with pytest.raises(ConfigError, match="source streams: feeds A and B have one stream id"):
        make(feeds={"A": StreamsFeed(SOL), "B": StreamsFeed("0x" + SOL)})
