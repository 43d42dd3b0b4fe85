"""Golden bytes of every message, and what a client may send."""

from typing import get_args

import msgspec
import orjson
import pytest

from oracle_hub.core.hub import Decision, DecisionInput
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import InputStatus
from oracle_hub.errors import StreamError
from oracle_hub.stream import messages as m

NOW_US = 1_790_000_000_000_000


def held(source: str, mantissa: int, publish_us: int) -> PriceUpdate:
    return PriceUpdate(
        source=source, transport=f"{source}:a", feed="SOL/USD", mantissa=mantissa, publish_us=publish_us,
        received_us=publish_us + 40_000, slot=9, account="Acc1", verified=True,
    )  # fmt: skip


DOVES = held("doves", 15_000_000_000, NOW_US - 1_000_000)
LIVE = Decision(
    feed="SOL/USD", expo=-8, state=State.LIVE, rule=Rule.R1, reason=Reason.AGREED, source="doves",
    mantissa=15_000_000_000, conf=1_234, publish_us=NOW_US - 1_000_000, decided_us=NOW_US,
    valid_until_us=NOW_US + 9_000_001,
    inputs=(
        DecisionInput("doves", "primary", InputStatus.OK, DOVES),
        DecisionInput("pyth", "verifier", InputStatus.STALE, held("pyth", 15_015_000_000, NOW_US - 20_000_000)),
        DecisionInput("chainlink", "verifier", InputStatus.MISSING, None),
    ),
)  # fmt: skip
ALWAYS = m.View(None, LIVE.valid_until_us)
ENTRY = (
    b'{"feed":"SOL/USD","state":"live","price":"15000000000","expo":-8,"conf":"1234","source":"doves","rule":"R1",'
    b'"reason":"agreed","publish_time_us":1789999999000000,"decided_us":1790000000000000,'
    b'"valid_until_us":1790000009000001'
)

GOLDEN: list[tuple[m.ServerMessage, bytes]] = [
    (
        m.Hello(
            protocol="oraclehub.v1", instance="i", epoch=5, seq=7, server_time_us=9, heartbeat_ms=500,
            feeds=["SOL/USD"], policy="strict", config_hash="c0ffee", simulated={"tape": "x"}, limits={"max_feeds": 3},
        ),
        b'{"type":"hello","protocol":"oraclehub.v1","instance":"i","epoch":5,"seq":7,"server_time_us":9,'
        b'"heartbeat_ms":500,"feeds":["SOL/USD"],"policy":"strict","config_hash":"c0ffee","simulated":{"tape":"x"},'
        b'"limits":{"max_feeds":3}}',
    ),
    (m.AuthRequired(timeout_ms=5000), b'{"type":"auth_required","timeout_ms":5000}'),
    (
        m.Subscribed(
            id="a", sub=1, channel="prices", accepted=["SOL/USD"], rejected=[m.Rejected("X", "unknown_feed")],
            recovered=None, received_us=1, sent_us=2,
        ),
        b'{"type":"subscribed","id":"a","sub":1,"channel":"prices","accepted":["SOL/USD"],'
        b'"rejected":[{"feed":"X","code":"unknown_feed"}],"recovered":null,"received_us":1,"sent_us":2}',
    ),
    (m.Unsubscribed(id=None, sub=2), b'{"type":"unsubscribed","id":null,"sub":2}'),
    (
        m.Snapshot(sub=1, epoch=5, seq=7, sent_us=9, feeds=[msgspec.Raw(b"{}")]),
        b'{"type":"snapshot","sub":1,"epoch":5,"seq":7,"sent_us":9,"feeds":[{}]}',
    ),
    (
        m.Update(
            sub=1, epoch=5, seq=8, prev_seq=7, sent_us=9, conflated=False, replayed=False,
            feeds=[msgspec.Raw(b"{}"), msgspec.Raw(b"{}")],
        ),
        b'{"type":"update","sub":1,"epoch":5,"seq":8,"prev_seq":7,"sent_us":9,"conflated":false,"replayed":false,'
        b'"feeds":[{},{}]}',
    ),
    (
        m.Heartbeat(sub=1, epoch=5, seq=8, server_time_us=9, not_live=["BTC/USD"], digest="00ff"),
        b'{"type":"heartbeat","sub":1,"epoch":5,"seq":8,"server_time_us":9,"not_live":["BTC/USD"],"digest":"00ff"}',
    ),
    (
        m.Alerts(sub=2, epoch=5, n=3, sent_us=9, open=[msgspec.Raw(b"{}")]),
        b'{"type":"alerts","sub":2,"epoch":5,"n":3,"sent_us":9,"open":[{}]}',
    ),
    (
        m.AlertMessage(sub=2, epoch=5, n=4, prev_n=3, sent_us=9, at_us=8, change="firing", alert=msgspec.Raw(b"{}")),
        b'{"type":"alert","sub":2,"epoch":5,"n":4,"prev_n":3,"sent_us":9,"at_us":8,"change":"firing","alert":{}}',
    ),
    (
        m.Config(epoch=5, seq=8, policy="quorum", config_hash="d", feeds=[], simulated=None),
        b'{"type":"config","epoch":5,"seq":8,"policy":"quorum","config_hash":"d","feeds":[],"simulated":null}',
    ),
    (m.Pong(id=3, received_us=1, sent_us=2), b'{"type":"pong","id":3,"received_us":1,"sent_us":2}'),
    (m.Error(id=3, code="bad_json", message="x"), b'{"type":"error","id":3,"code":"bad_json","message":"x"}'),
    (m.GoAway(reason="shutdown", retry_after_ms=1000), b'{"type":"goaway","reason":"shutdown","retry_after_ms":1000}'),
]  # fmt: skip


@pytest.mark.parametrize(("message", "wire"), GOLDEN, ids=lambda value: type(value).__name__)
def test_a_server_message_is_these_bytes(message: m.ServerMessage, wire: bytes) -> None:
    assert m.encode(message) == wire
    assert m.server_message_decoder.decode(wire) == message


def test_every_server_message_has_golden_bytes() -> None:
    assert {type(message) for message, _ in GOLDEN} == set(get_args(m.ServerMessage))


def test_an_entry_is_these_bytes() -> None:
    assert m.encode(m.feed_entry(LIVE, ALWAYS)) == ENTRY + b"}"


def test_a_merged_entry_says_what_was_missed() -> None:
    merge = m.Merge()
    for mantissa in (150, None, 90, 120):
        merge.add(msgspec.structs.replace(LIVE, mantissa=mantissa))
    assert m.encode(m.feed_entry(LIVE, ALWAYS, merge=merge)) == (
        ENTRY + b',"n":4,"low":"90","high":"150","was_none":true}'
    )


def test_full_detail_gives_every_input_with_age_and_divergence() -> None:
    entry = orjson.loads(m.encode(m.feed_entry(LIVE, ALWAYS, full=True)))
    assert list(entry["inputs"]) == ["doves", "pyth", "chainlink"]
    assert entry["inputs"]["pyth"] == {
        "role": "verifier", "status": "stale", "price": "15015000000", "publish_time_us": 1789999980000000,
        "received_us": 1789999980040000, "age_ms": 20_000, "divergence_bps": 10.0, "account": "Acc1", "slot": 9,
        "transport": "pyth:a", "verified": True,
    }  # fmt: skip
    assert entry["inputs"]["chainlink"] == {
        "role": "verifier", "status": "missing", "price": None, "publish_time_us": None, "received_us": None,
        "age_ms": None, "divergence_bps": None, "account": None, "slot": None, "transport": None, "verified": False,
    }  # fmt: skip


def test_without_a_choice_divergence_is_to_the_primary() -> None:
    none = msgspec.structs.replace(LIVE, state=State.NONE, mantissa=None, source=None)
    inputs = m.input_entries(none)
    assert inputs["doves"].divergence_bps == 0.0
    assert inputs["pyth"].divergence_bps == 10.0


@pytest.mark.parametrize(
    ("after_us", "state", "price", "reason", "valid_until_us"),
    [
        (9_000_000, "live", "15000000000", "agreed", NOW_US + 9_000_001),
        (9_000_001, "none", None, "lease_over", None),
        (10**12, "none", None, "lease_over", None),
    ],
)
def test_a_price_is_never_shown_past_its_lease(
    after_us: int, state: str, price: str | None, reason: str, valid_until_us: int | None
) -> None:
    entry = m.feed_entry(LIVE, m.view(LIVE, NOW_US + after_us))
    assert (entry.state, entry.price, entry.reason, entry.valid_until_us) == (state, price, reason, valid_until_us)
    if state == "none":
        assert (entry.conf, entry.source, entry.rule, entry.publish_time_us) == (None, None, "R3", None)


def test_max_age_shortens_the_lease_and_never_lengthens_it() -> None:
    # Published 1 s before NOW, so it is 3 s old at NOW + 2 s, and older one microsecond later.
    assert m.view(LIVE, NOW_US, 3_000_000) == m.View(None, NOW_US + 2_000_001)
    assert m.view(LIVE, NOW_US + 2_000_000, 3_000_000).ended is None
    assert m.view(LIVE, NOW_US + 2_000_001, 3_000_000).ended is m.ViewReason.MAX_AGE
    assert m.view(LIVE, NOW_US, 60_000_000) == ALWAYS


def test_age_counts_from_receipt_where_the_stamp_is_ahead_of_our_clock() -> None:
    ahead = msgspec.structs.replace(DOVES, publish_us=NOW_US + 500, received_us=NOW_US)
    decision = msgspec.structs.replace(
        LIVE, publish_us=NOW_US + 500, inputs=(DecisionInput("doves", "primary", InputStatus.OK, ahead),)
    )
    assert m.recency_us(decision) == NOW_US


def test_the_digest_is_of_sorted_lines_and_ends_leases() -> None:
    # printf 'BTC/USD\0none\0\0\nSOL/USD\0live\0150\0200\n' | b2sum -l 64
    lines = [m.digest_line("SOL/USD", "live", "150", 200, 199), m.digest_line("BTC/USD", "none", None, None, 199)]
    assert lines == ["SOL/USD\0live\x00150\x00200\n", "BTC/USD\0none\0\0\n"]
    assert m.digest(lines) == m.digest(reversed(lines)) == "5823c5ebd66011ce"
    assert m.digest_line("SOL/USD", "live", "150", 200, 200) == "SOL/USD\0none\0\0\n"


def test_a_subscribe_has_defaults_and_ignores_unknown_keys() -> None:
    message = m.parse_client_message('{"type":"subscribe","feeds":["*"],"colour":{"deep":[1]}}')
    assert message == m.Subscribe(feeds=["*"])
    assert (message.mode, message.detail, message.channel) == ("latest", "price", "prices")


def test_a_subscribe_takes_every_option() -> None:
    wire = (
        '{"type":"subscribe","id":"k1","channel":"prices","feeds":["SOL/USD"],"mode":"all","detail":"full",'
        '"max_hz":2.5,"max_age_ms":900,"resume":{"instance":"i","epoch":5,"seq":6}}'
    )
    assert m.parse_client_message(wire) == m.Subscribe(
        id="k1", channel="prices", feeds=["SOL/USD"], mode="all", detail="full", max_hz=2.5, max_age_ms=900,
        resume=m.Resume(epoch=5, seq=6, instance="i"),
    )  # fmt: skip


REFUSED = [
    ("", "bad_json"),
    ("{", "bad_json"),
    ("\x00\xff", "bad_json"),
    ('{"type":"ping"} x', "bad_json"),
    ('{"type":"ping","x":' + "[" * 60_000 + "]" * 60_000 + "}", "bad_json"),
    ('{"type":"ping","id":"\\ud800"}', "bad_json"),
    ("[]", "bad_message"),
    ("null", "bad_message"),
    ("{}", "bad_message"),
    ('{"type":7}', "bad_message"),
    ('{"type":"order"}', "unknown_type"),
    ('{"type":"hello"}', "unknown_type"),
    ('{"type":"ping","id":1.5}', "bad_message"),
    ('{"type":"ping","id":true}', "bad_message"),
    ('{"type":"ping","id":9007199254740992}', "bad_message"),
    ('{"type":"ping","id":"' + "x" * 65 + '"}', "bad_message"),
    ('{"type":"subscribe"}', "bad_message"),
    ('{"type":"subscribe","feeds":"SOL/USD"}', "bad_message"),
    ('{"type":"subscribe","feeds":["*"],"mode":"some"}', "bad_message"),
    ('{"type":"subscribe","feeds":["*"],"detail":null}', "bad_message"),
    ('{"type":"subscribe","feeds":["*"],"max_hz":0}', "bad_message"),
    ('{"type":"subscribe","feeds":["*"],"max_hz":1e-310}', "bad_message"),  # no time in µs can be between
    ('{"type":"subscribe","feeds":["*"],"max_age_ms":-1}', "bad_message"),
    ('{"type":"subscribe","feeds":["*"],"max_age_ms":"5"}', "bad_message"),
    ('{"type":"subscribe","feeds":["*"],"resume":{"seq":1}}', "bad_message"),
    ('{"type":"subscribe","feeds":["*"],"resume":{"epoch":-1,"seq":1}}', "bad_message"),
    ('{"type":"unsubscribe"}', "bad_message"),
]


@pytest.mark.parametrize(("wire", "code"), REFUSED, ids=[f"{code}-{i}" for i, (_, code) in enumerate(REFUSED)])
def test_what_cannot_be_read_is_refused_with_a_code(wire: str, code: str) -> None:
    with pytest.raises(StreamError) as refused:
        m.parse_client_message(wire)
    assert refused.value.code == code
    assert len(str(refused.value)) <= 200 and "\n" not in str(refused.value)


def test_the_id_of_an_unreadable_message_is_found_where_there_is_one() -> None:
    assert m.request_id('{"type":"order","id":"k9"}') == "k9"
    assert m.request_id('{"type":"order","id":[1]}') is None
    assert m.request_id("{") is None


def test_close_codes_say_whether_to_come_back() -> None:
    assert {code.name: code.value for code in m.CloseCode if code < 4500} == {
        "SHUTDOWN": 4000, "TOO_SLOW": 4001, "INTERNAL_ERROR": 4002, "NO_SUBSCRIPTION": 4003,
        "TOO_MANY_FOR_TOKEN": 4004,
    }  # fmt: skip
    assert all(4000 <= code <= 4999 for code in m.CloseCode)
