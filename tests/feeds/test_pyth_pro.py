"""The pure link to Pyth Pro, by value: real payloads of the fixtures, and payloads signed by test keys."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.emulator.pro_signing import ProSigner
from feeds.pyth.lazer import Format, Lazer, LazerFeed, encode
from feeds.pyth.pro import ProFeed, ProLimits, ProLink, ProProver
from feeds.pyth.signers import PRODUCTION, STAGING
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.source import Condition, Frame, Malformed, Open, PriceUpdate, Reconnect, Send, Status, Unchanged
from oracle_hub.core.table import InputStatus, Table
from oracle_hub.errors import ConfigError

S = 1_000_000
T0 = 1_790_000_000 * S
SIGNER = ProSigner()
FEEDS = {"SOL/USD": ProFeed(6), "BTC/USD": ProFeed(1, -6)}
NAMES = ("price", "confidence", "exponent", "publisher_count", "market_session", "feed_update_timestamp")


def make(**changes: Any) -> ProLink:
    options: dict[str, Any] = {"key": "the-key", "prover": ProProver(SIGNER.sets)} | changes
    feeds = options.pop("feeds", FEEDS)
    name = options.pop("name", "pro:1")
    return ProLink(name, "wss://pro.example/", feeds, **options)


def opened(at_us: int = T0, **changes: Any) -> ProLink:
    link = make(**changes)
    link.connect(at_us)
    return link


def sol(price: int | None = 115 * 10**8, at_us: int | None = T0, **values: Any) -> LazerFeed:
    told: dict[str, Any] = {"exponent": -8, "publisher_count": 12, "confidence": 4_000_000, "market_session": 0}
    told |= {"price": price, "feed_update_timestamp": at_us} | values
    return LazerFeed(told.pop("feed_id", 6), NAMES, **told)


def payload(*feeds: LazerFeed, at_us: int = T0, signer: ProSigner = SIGNER, form: Format = "solana") -> bytes:
    return signer.message(form, at_us, 3, feeds or (sol(),))


def update(data: bytes, form: str = "solana", number: int = 1, encoding: str = "base64") -> Frame:
    text = b64encode(data).decode() if encoding == "base64" else data.hex()
    body = {"type": "streamUpdated", "subscriptionId": number, form: {"encoding": encoding, "data": text}}
    return Frame("websocket", orjson.dumps(body))


def told(link: ProLink, *feeds: LazerFeed, at_us: int = T0, received_us: int | None = None) -> list[Any]:
    """Give a link a payload of ``at_us``, received then if nothing else is said."""
    return link.receive(update(payload(*feeds, at_us=at_us)), at_us if received_us is None else received_us)


def said(link: ProLink, at_us: int = T0, **body: object) -> list[Any]:
    return link.receive(Frame("websocket", orjson.dumps(body)), at_us)


def timed(link: ProLink, at_us: int) -> list[Any]:
    return link.on_timer(at_us)


def got(link: ProLink, frame: Frame, at_us: int = T0) -> list[Any]:
    return link.receive(frame, at_us)


def statuses(output: Sequence[object]) -> list[tuple[str | None, Condition]]:
    return [(item.feed, item.condition) for item in output if isinstance(item, Status)]


def prices(output: Sequence[object]) -> list[PriceUpdate]:
    return [item for item in output if isinstance(item, PriceUpdate)]


# Connecting.


def test_connect_opens_with_the_key_and_subscribes_by_number() -> None:
    link = make(channel="real_time", envelope="leEcdsa")
    opening, send = link.connect(T0)
    assert opening == Open("websocket", "wss://pro.example/v1/stream", {"Authorization": "Bearer the-key"})
    assert isinstance(send, Send) and orjson.loads(send.text) == {
        "type": "subscribe",
        "subscriptionId": 1,
        "priceFeedIds": [6, 1],
        "properties": ["price", "confidence", "exponent", "publisherCount", "marketSession", "feedUpdateTimestamp"],
        "formats": ["leEcdsa"],
        "channel": "real_time",
        "deliveryFormat": "json",
        "jsonBinaryEncoding": "base64",
        "parsed": False,
        "ignoreInvalidFeeds": True,
    }
    assert "the-key" not in repr(link) + repr(opening)
    assert link.connect(T0 + 1)[1] == send  # numbers begin anew with each socket


def test_many_feeds_are_several_subscriptions_and_a_path_is_kept() -> None:
    feeds = {f"F{number}": ProFeed(number) for number in range(250)}
    link = ProLink("pro:1", "wss://h/v1/prices/stream", feeds, key="k", prover=ProProver(None))
    opening, *sends = link.connect(T0)
    assert isinstance(opening, Open) and opening.url == "wss://h/v1/prices/stream"
    asked = [orjson.loads(send.text) for send in sends if isinstance(send, Send)]
    assert [one["subscriptionId"] for one in asked] == [1, 2, 3]
    assert [feed_id for one in asked for feed_id in one["priceFeedIds"]] == list(range(250))


def test_ids_that_can_not_be() -> None:
    with pytest.raises(ConfigError, match="source pro: feeds A and B have one id"):
        make(feeds={"A": ProFeed(6), "B": ProFeed(6)})
    with pytest.raises(ConfigError, match="feed A: 4294967296 is no id of Pyth Pro"):
        make(feeds={"A": ProFeed(2**32)})


# Payloads.


def test_a_signed_payload_gives_verified_prices() -> None:
    link = opened()
    btc = sol(91_250 * 10**8, T0 - 5, feed_id=1, confidence=None)
    assert told(link, sol(), btc, at_us=T0 + 9) == [
        PriceUpdate("pro", "pro:1", "SOL/USD", 115 * 10**8, T0, T0 + 9, conf=4_000_000, verified=True),
        PriceUpdate("pro", "pro:1", "BTC/USD", 91_250 * 10**6, T0 - 5, T0 + 9, conf=None, verified=True),
    ]


@pytest.mark.parametrize("envelope", ["solana", "leEcdsa", "evm"])
@pytest.mark.parametrize("encoding", ["base64", "hex"])
def test_every_envelope_is_proved(envelope: Any, encoding: str) -> None:
    link = opened(envelope=envelope)
    (one,) = link.receive(update(payload(form=envelope), envelope, encoding=encoding), T0)
    assert isinstance(one, PriceUpdate) and one.verified


def real(fixtures_dir: Path, stem: str) -> tuple[bytes, dict[int, dict[str, Any]]]:
    vector = orjson.loads((fixtures_dir / f"lazer_{stem}.json").read_bytes())
    expected = vector["expected"]["payload"]
    return bytes.fromhex(vector["data"]), {one["feed_id"]: one["properties"] for one in expected["feeds"]}


@pytest.mark.parametrize(
    ("stem", "at_us", "feed_ids"),
    [
        ("solana_1771339368200000", 1_771_339_368_200_000, (1,)),
        ("leEcdsa_1778594100000000", 1_778_594_100_000_000, (1, 2)),
        ("leEcdsa_1771252161800000", 1_771_252_161_800_000, (1, 2)),
    ],
)
def test_real_payloads_of_production(fixtures_dir: Path, stem: str, at_us: int, feed_ids: tuple[int, ...]) -> None:
    data, expected = real(fixtures_dir, stem)
    envelope: Any = stem.partition("_")[0]
    feeds = {f"F{feed_id}": ProFeed(feed_id) for feed_id in expected}
    link = opened(feeds=feeds, prover=ProProver(PRODUCTION), envelope=envelope)
    output = link.receive(update(data, envelope), at_us + 40_000)
    got = {one.feed: (one.mantissa, one.conf, one.publish_us, one.verified) for one in prices(output)}
    for feed_id in feed_ids:
        values = expected[feed_id]
        conf = values.get("confidence")
        wanted = (int(values["price"]), None if conf is None else int(conf), int(values["feed_update_timestamp"]), True)
        assert got[f"F{feed_id}"] == wanted


def test_a_real_perpetual_is_rounded_to_our_digits(fixtures_dir: Path) -> None:
    data, expected = real(fixtures_dir, "leEcdsa_1771252161800000")
    assert expected[112]["price"] == "68554377427540000" and expected[112]["exponent"] == -12
    link = opened(feeds={"PERP": ProFeed(112)}, prover=ProProver(PRODUCTION), envelope="leEcdsa")
    output = link.receive(update(data, "leEcdsa"), 1_771_252_161_800_000)
    assert [(one.feed, one.mantissa) for one in prices(output)] == [("PERP", 6_855_437_742_754)]
    others = [one.reason for one in output if isinstance(one, Malformed)]
    assert others == ["price of feed 1, not asked for", "price of feed 2, not asked for"]


def test_payloads_of_staging_and_without_a_time_are_no_prices(fixtures_dir: Path) -> None:
    data, _ = real(fixtures_dir, "solana_1737666308200000")
    at_us = 1_737_666_308_200_000
    refused = opened(feeds={"SOL/USD": ProFeed(6)}, prover=ProProver(PRODUCTION)).receive(update(data), at_us)
    assert statuses(refused) == [("SOL/USD", Condition.UNVERIFIED)]
    assert "signer_unproved" in next(one.reason for one in refused if isinstance(one, Malformed) and one.feed)
    timeless = opened(feeds={"SOL/USD": ProFeed(6)}, prover=ProProver(STAGING)).receive(update(data), at_us)
    assert statuses(timeless) == [("SOL/USD", Condition.INVALID)] and prices(timeless) == []
    assert "feedUpdateTimestamp" in next(one.reason for one in timeless if isinstance(one, Malformed) and one.feed)


@pytest.mark.parametrize("stem", ["solana_1771339368200000", "leEcdsa_1778594100000000"])
def test_no_flipped_bit_of_a_signed_payload_is_taken(fixtures_dir: Path, stem: str) -> None:
    data, expected = real(fixtures_dir, stem)
    at_us, envelope = int(stem.partition("_")[2]), stem.partition("_")[0]
    feeds = {f"F{feed_id}": ProFeed(feed_id) for feed_id in expected}
    link = opened(feeds=feeds, prover=ProProver(PRODUCTION), envelope=envelope)
    step = 7  # every bit is tried on the decoder (test_pyth_lazer); here each byte's place in turn, through the link
    for bit in range(0, len(data) * 8, step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        output = link.receive(update(bytes(changed), envelope), at_us)
        assert not prices(output) and any(isinstance(one, Malformed) for one in output), bit
    assert prices(link.receive(update(data, envelope), at_us))


def test_three_hosts_cost_one_proof() -> None:
    prover = ProProver(SIGNER.sets)
    links = [opened(name=f"pro:{number}", prover=prover) for number in (1, 2, 3)]
    for second in range(5):
        for link in links:
            at_us = T0 + second * S
            (one,) = told(link, sol(at_us=at_us), at_us=at_us)
            assert isinstance(one, PriceUpdate) and one.verified and one.transport == link.name
    assert prover.checked == 5


def test_what_a_prover_remembers_is_bounded() -> None:
    prover = ProProver(SIGNER.sets, capacity=2)
    for second in (0, 1, 2, 0):
        prover.prove(payload(at_us=T0 + second), T0)
    assert prover.checked == 4


@pytest.mark.parametrize("verify", ["strict", "lenient", "off"])
def test_strangers(verify: Any) -> None:
    link = opened(verify=verify, prover=ProProver(None if verify == "off" else SIGNER.sets))
    output = link.receive(update(payload(signer=ProSigner(1))), T0)
    assert [one.verified for one in prices(output)] == ([] if verify == "strict" else [False])
    assert statuses(output) == ([] if verify == "off" else [("SOL/USD", Condition.UNVERIFIED)])
    refused = [one for one in output if isinstance(one, Malformed)]
    assert len(refused) == (verify == "strict")
    if refused:
        assert refused[0].feed == "SOL/USD"
        assert refused[0].reason.startswith("not verified: unknown_signer: signed by public key ")
    well = told(link, sol(at_us=T0 + 1), at_us=T0 + 1)
    assert statuses(well) == ([] if verify == "off" else [("SOL/USD", Condition.OK)])
    assert [one.verified for one in prices(well)] == [verify != "off"]


def test_a_proof_that_comes_later_is_told() -> None:
    link = opened(verify="lenient")
    link.receive(update(payload(signer=ProSigner(1))), T0)
    assert [one.verified for one in prices(told(link))] == [True]
    assert prices(told(link)) == []


def test_an_unsigned_payload_is_none_and_the_json_beside_it_is_not_read() -> None:
    link = opened()
    (bare,) = [one for one in link.receive(update(payload(form="leUnsigned")), T0) if isinstance(one, Malformed)]
    assert "unsigned" in bare.reason
    parsed = {"timestampUs": str(T0), "priceFeeds": [{"priceFeedId": 6, "price": "1", "exponent": -8}]}
    (one,) = said(link, type="streamUpdated", subscriptionId=1, parsed=parsed)
    assert isinstance(one, Malformed) and one.reason == "an update without a signed payload (solana)"


# Time.


def test_a_price_carried_forward_gets_no_younger() -> None:
    link = opened()
    assert len(prices(told(link))) == 1
    for later in range(1, 5):
        assert told(link, sol(), at_us=T0 + later * S) == [Unchanged("pro", "pro:1", "SOL/USD", T0 + later * S)]
    (news,) = prices(told(link, sol(at_us=T0 + 5 * S), at_us=T0 + 6 * S))
    assert news.publish_us == T0 + 5 * S


def test_another_value_at_one_time_is_for_the_table() -> None:
    link = opened()
    told(link)
    (other,) = told(link, sol(116 * 10**8), at_us=T0 + 1)
    assert isinstance(other, PriceUpdate) and other.publish_us == T0


def test_an_old_message_told_again_is_older_and_says_nothing_of_now() -> None:
    link = opened()
    told(link)
    told(link, sol(at_us=T0 + 2 * S), at_us=T0 + 2 * S)
    (again,) = told(link, received_us=T0 + 2 * S + 1)
    assert isinstance(again, PriceUpdate) and again.publish_us == T0 and again.verified  # the table counts it as older
    for feed in (sol(None), sol(market_session=4)):
        assert told(link, feed, at_us=T0 + S, received_us=T0 + 2 * S + 2) == []


@pytest.mark.parametrize(("off_us", "words"), [(-60 * S, "60.0 s behind our"), (60 * S, "60.0 s ahead of our")])
def test_a_payload_far_from_our_clock_is_named(off_us: int, words: str) -> None:
    link = opened()
    output = told(link, sol(at_us=T0 + off_us), at_us=T0 + off_us, received_us=T0)
    (status,) = [one for one in output if isinstance(one, Status)]
    assert (status.feed, status.condition) == (None, Condition.LOST) and words in status.text
    assert statuses(told(link, sol(market_session=4), at_us=T0 + off_us, received_us=T0)) == []
    assert statuses(told(link, sol(at_us=T0 + 1), at_us=T0 + 1)) == [(None, Condition.OK)]


def test_one_wrong_time_does_not_silence_a_feed() -> None:
    link = opened()
    told(link, sol(at_us=T0 + 86_400 * S))
    (right,) = told(link, sol(at_us=T0 + 1), at_us=T0 + 1)
    assert isinstance(right, PriceUpdate)


# What is no price.


@pytest.mark.parametrize(
    ("feed", "condition", "counted"),
    [
        (sol(None), Condition.INVALID, False),
        (sol(-5), Condition.INVALID, True),
        (sol(at_us=None), Condition.INVALID, True),
        (sol(10**18, exponent=0), Condition.INVALID, True),
        (sol(market_session=4), Condition.HALTED, False),
        (sol(market_session=9), Condition.HALTED, False),
    ],
)
def test_what_is_no_price(feed: LazerFeed, condition: Condition, counted: bool) -> None:
    link = opened()
    output = told(link, feed)
    assert prices(output) == [] and statuses(output) == [("SOL/USD", condition)]
    assert any(isinstance(one, Malformed) for one in output) is counted
    assert statuses(told(link, feed, at_us=T0 + 1)) == []  # told once
    well = told(link, sol(at_us=T0 + 2), at_us=T0 + 2)
    assert statuses(well) == [("SOL/USD", Condition.OK)] and len(prices(well)) == 1


@pytest.mark.parametrize(
    ("closed", "status"), [(sol(market_session=4), InputStatus.HALTED), (sol(None), InputStatus.INVALID)]
)
def test_a_price_of_a_host_that_lags_ends_no_halt_for_long(closed: LazerFeed, status: InputStatus) -> None:
    """Its price is newer than the one held, and older than the halt that the other host has told."""
    ages_us = dict.fromkeys(("doves", "chainlink", "pro"), 5 * S)
    spec = FeedSpec(feed="SOL/USD", primary="doves", verifiers=("chainlink", "pro"), max_age_us=ages_us)
    table = Table(Catalog([spec]))
    cell = table.cell_of("pro", "SOL/USD")
    assert cell is not None
    first, laggard = opened(), opened(name="pro:2")

    def after(output: Sequence[object], at_us: int) -> InputStatus:
        for one in output:
            if isinstance(one, PriceUpdate):
                table.apply(one, at_us)
            elif isinstance(one, Status):
                table.mark(one)
        return table.status(cell, spec, at_us, warming=False)

    assert after(told(first, sol()), T0) is InputStatus.OK
    halted_us = T0 + S
    assert after(told(first, closed, at_us=halted_us), halted_us) is status
    late = told(laggard, sol(at_us=T0 + S // 2), at_us=T0 + S // 2, received_us=halted_us + 1)
    assert after(late, halted_us + 1) is InputStatus.OK
    assert after(told(first, closed, at_us=halted_us, received_us=halted_us + 2), halted_us + 2) is InputStatus.OK
    again_us = halted_us + S
    assert after(told(first, closed, at_us=again_us), again_us) is status
    well_us = again_us + S
    assert after(told(first, sol(at_us=well_us), at_us=well_us), well_us) is InputStatus.OK


@pytest.mark.parametrize("session", [0, 1, 2, 3, None])
def test_sessions_in_which_there_is_trading(session: int | None) -> None:
    names = NAMES if session is not None else tuple(name for name in NAMES if name != "market_session")
    feed = LazerFeed(6, names, price=5, exponent=-8, market_session=session, feed_update_timestamp=T0)
    assert len(prices(told(opened(), feed))) == 1


def test_feeds_that_were_not_asked_for_and_nonsense_are_malformed() -> None:
    link = opened()
    (other,) = told(link, sol(feed_id=77))
    assert isinstance(other, Malformed) and other.reason == "price of feed 77, not asked for"
    (cut,) = link.receive(update(payload()[:-3]), T0)
    assert isinstance(cut, Malformed) and cut.reason.startswith("pyth.lazer: offset ")
    for frame, words in (
        (Frame("websocket", b"\xff"), "no message of Pyth Pro"),
        (Frame("websocket", b'{"type": "dance"}'), "unknown type of message: dance"),
        (Frame("http", b"", "x", 200), "a http frame"),
        (Frame("websocket", b'{"type":"streamUpdated","solana":{"data":"?"}}'), "a payload that is not in base64"),
    ):
        (one,) = link.receive(frame, T0)
        assert isinstance(one, Malformed) and words in one.reason


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_frame_can_break_it(data: bytes, wrapped: bool) -> None:
    link = opened()
    frame = update(data) if wrapped else Frame("websocket", data)
    assert all(isinstance(item, Malformed) for item in link.receive(frame, T0))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_payload_can_break_it(data: st.DataObject) -> None:
    """Well signed payloads of whatever numbers: what comes out is a price, or a word why not."""
    number = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
    feed = LazerFeed(
        data.draw(st.sampled_from([1, 6, 9])),
        tuple(data.draw(st.permutations(NAMES))[: data.draw(st.integers(0, 6))]),
        price=data.draw(number),
        confidence=data.draw(number),
        exponent=data.draw(st.integers(-(2**15), 2**15 - 1)),
        publisher_count=3,
        market_session=data.draw(st.integers(-(2**15), 2**15 - 1)),
        feed_update_timestamp=data.draw(st.one_of(st.none(), st.integers(0, 2**64 - 1))),
    )
    link = opened()
    for item in told(link, feed, at_us=data.draw(st.integers(0, 2**64 - 1)), received_us=T0):
        assert isinstance(item, PriceUpdate | Malformed | Status)
        if isinstance(item, PriceUpdate):
            assert 0 < item.mantissa < 2**63 and 0 < item.publish_us < 2**63


# Answers.


def test_ignored_feeds_are_named_each_with_its_reason_and_asked_for_again() -> None:
    feeds = {name: ProFeed(number) for number, name in enumerate("ABCDE")}
    link = opened(feeds=feeds)
    ignored = {"unknownIds": [1], "unknownSymbols": [], "unsupportedChannels": [2], "unstable": [3], "notEntitled": [4]}
    answer = {"type": "subscribedWithInvalidFeedIdsIgnored", "subscriptionId": 1, "subscribedFeedIds": [0]}
    output = said(link, T0, **answer, ignoredInvalidFeedIds=ignored)
    texts = {one.feed: (one.condition, one.text) for one in output}
    assert texts == {
        "B": (Condition.LOST, "Pyth Pro knows no feed of id 1 (B)"),
        "C": (Condition.LOST, "C (id 2) is not served on fixed_rate@200ms: ask slower"),
        "D": (Condition.LOST, "Pyth Pro does not call D (id 3) stable yet"),
        "E": (Condition.NOT_ENTITLED, "the key does not cover E (id 4)"),
    }
    for second in range(1, 300, 4):  # the others go on; what was ignored is not called silent
        assert len(prices(told(link, sol(feed_id=0, at_us=T0 + second * S), at_us=T0 + second * S))) == 1
        assert timed(link, T0 + second * S) == []
    again, back = timed(link, T0 + 300 * S)
    assert orjson.loads(again.text)["subscriptionId"] == 2 and orjson.loads(again.text)["priceFeedIds"] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert orjson.loads(back.text) == {"type": "unsubscribe", "subscriptionId": 1}
    assert said(link, T0 + 300 * S, type="unsubscribed", subscriptionId=1) == []
    well = said(link, T0 + 300 * S, type="subscribed", subscriptionId=2)
    assert statuses(well) == [(feed, Condition.OK) for feed in "BCDE"]


@pytest.mark.parametrize("key", ["error", "message"])
def test_a_refused_subscription_is_told_in_the_hosts_words_and_tried_slowly(key: str) -> None:
    link = opened()
    body: dict[str, Any] = {"type": "subscriptionError", "subscriptionId": 1, key: "no such thing for the-key"}
    output = said(link, T0, **body)
    assert [(one.feed, one.condition, one.text) for one in output] == [
        (feed, Condition.LOST, "no such thing for …") for feed in FEEDS
    ]
    assert link.next_deadline() == T0 + 60 * S  # silence is now what is to be expected
    (again,) = timed(link, T0 + 60 * S)
    assert orjson.loads(again.text)["subscriptionId"] == 2
    (other,) = said(link, type="subscriptionError", subscriptionId=77, error="duplicate")
    assert isinstance(other, Malformed) and other.reason == "of no subscription: duplicate"


def test_a_key_without_rights_is_not_entitled() -> None:
    output = said(opened(), type="subscriptionError", subscriptionId=1, error="Insufficient access to feeds [6, 1]")
    assert statuses(output) == [(feed, Condition.NOT_ENTITLED) for feed in FEEDS]


def test_errors_of_the_whole_socket() -> None:
    link = opened()
    (told_once,) = said(link, type="error", message="something happened")
    assert (told_once.feed, told_once.condition) == (None, Condition.LOST)
    assert told_once.text == "the host says: something happened"
    assert said(link, type="error", error="client too slow") == [Reconnect("the host says: client too slow")]
    assert link.next_deadline() is None  # nothing to watch until the socket is opened anew
    for at_us, well in ((T0 + S, {"type": "subscribed", "subscriptionId": 1}), (T0 + 2 * S, None)):
        link.connect(at_us)
        output = told(link, sol(at_us=at_us), at_us=at_us) if well is None else said(link, at_us, **well)
        assert statuses(output) == [(None, Condition.OK)]
        assert statuses(said(link, at_us, type="error", error="again")) == [(None, Condition.LOST)]


@pytest.mark.parametrize(
    ("status", "retry_after_ms", "condition", "waits_ms"),
    [
        (401, 0, Condition.NOT_ENTITLED, 60_000),
        (403, 90_000, Condition.NOT_ENTITLED, 90_000),
        (429, 0, Condition.RATE_LIMITED, 60_000),
        (429, 9_000, Condition.RATE_LIMITED, 9_000),
        (502, 0, Condition.LOST, 0),
    ],
)
def test_refused_sockets(status: int, retry_after_ms: int, condition: Condition, waits_ms: int) -> None:
    link = opened()
    output = got(link, Frame("websocket", b"wrong the-key", "", status, retry_after_ms))
    (told_once, again) = output
    assert isinstance(told_once, Status) and told_once.condition is condition and told_once.text.endswith("wrong …")
    assert again == Reconnect(f"stream refused with HTTP {status}", waits_ms)


# Watchdogs.


def test_a_silent_socket_is_opened_anew() -> None:
    link = opened()
    said(link, T0 + S, type="subscribed", subscriptionId=1)
    told(link, sol(at_us=T0 + 2 * S), sol(feed_id=1, at_us=T0 + 2 * S), at_us=T0 + 2 * S)
    assert timed(link, T0 + 6 * S) == [] and link.next_deadline() == T0 + 7 * S
    assert timed(link, T0 + 7 * S) == [Reconnect("no message for 5 s")]
    assert link.next_deadline() is None
    link.connect(T0 + 8 * S)
    assert link.next_deadline() == T0 + 13 * S


def test_a_feed_that_no_payload_names_is_subscribed_anew() -> None:
    link = opened()
    said(link, type="subscribed", subscriptionId=1)
    for second in range(1, 11):
        told(link, sol(at_us=T0 + second * S), at_us=T0 + second * S)
    told_once, again, back = timed(link, T0 + 10 * S)
    assert (told_once.feed, told_once.condition) == ("BTC/USD", Condition.LOST)
    assert orjson.loads(again.text)["subscriptionId"] == 2 and orjson.loads(back.text)["subscriptionId"] == 1
    assert timed(link, T0 + 10 * S + 1) == []
    btc = sol(91_250 * 10**8, T0 + 11 * S, feed_id=1)
    assert statuses(told(link, btc, at_us=T0 + 11 * S)) == [("BTC/USD", Condition.OK)]


def test_patience_is_configured() -> None:
    link = opened(limits=ProLimits(transport_silence_us=S))
    assert link.next_deadline() == T0 + S and timed(link, T0 + S) == [Reconnect("no message for 1 s")]


# The form.


@pytest.mark.parametrize("form", ["solana", "evm", "leEcdsa", "leUnsigned", "payload"])
def test_a_message_is_encoded_as_it_was_decoded(form: Format) -> None:
    data = payload(sol(), sol(None, None, feed_id=1), form=form)
    message = Lazer.decode(data)
    assert encode(message) == data and message.format == form
    assert [(one.feed_id, one.price, one.feed_update_timestamp) for one in message.feeds] == [
        (6, 115 * 10**8, T0),
        (1, None, None),
    ]


def test_real_messages_are_encoded_as_they_were(fixtures_dir: Path) -> None:
    for path in sorted(fixtures_dir.glob("lazer_*.json")):
        data = bytes.fromhex(orjson.loads(path.read_bytes())["data"])
        assert encode(Lazer.decode(data)) == data, path.stem
