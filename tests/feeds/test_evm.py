"""The pure link to a node of an EVM chain, by value: the node is the emulator's, without a socket between them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from eth_abi.abi import decode as abi_decode
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.chainlink import contracts
from feeds.chainlink.contracts import AnswerUpdated, Round, Transmission, decode_log, decode_round, proxy_round
from feeds.chainlink.evm import EvmLink
from feeds.chainlink.node import Message, NodeLimits, log_or_head
from feeds.chainlink.proxies import EvmFeed
from feeds.evm_addresses import HEARTBEATS_S, PROXIES, checksummed, heartbeat_ms
from feeds.host_link import plain, secrets_of
from oracle_hub.core.source import Condition, Frame, Malformed, PriceUpdate, Reconnect, Send, Status, Unchanged
from oracle_hub.errors import ConfigError, DecodeError
from tests.feeds.evm_talk import BTC, NOW_S, SOL, UPTIME, URL, S, Talk, conditions, prices


def price(mantissa: int, publish_s: int, slot: int, received_s: int, feed: str = "SOL/USD") -> PriceUpdate:
    proxy = PROXIES[1][feed]
    return PriceUpdate("evm", "evm:1", feed, mantissa, publish_s * S, received_s * S, slot=slot, account=proxy)


def reasons(said: Sequence[Any]) -> list[str]:
    return [one.reason for one in said if isinstance(one, Malformed)]


# Bytes.


def test_a_capture_of_a_real_node_decodes(fixtures_dir: Path) -> None:
    capture = orjson.loads((fixtures_dir / "evm_price_feed_rpc_capture.json").read_bytes())
    events = []
    for frame in capture["notifications_in_order"]:
        message = Message.of(orjson.dumps(frame))
        assert message.params is not None
        log = log_or_head(message.params.result)
        assert isinstance(log, contracts.Log)
        events.append(decode_log(log))
    first, second = 15_012_345_678, 14_998_000_000
    assert events == [
        Transmission(first, 2, 1_780_000_100),
        None,
        AnswerUpdated(first, 2, 1_780_000_002),
        Transmission(second, 3, 1_780_000_105),
        None,
        AnswerUpdated(second, 3, 1_780_000_002),
    ]
    before, after = (
        decode_round(capture["calls"][f"proxy.latestRoundData {when} phase change"]["raw"])
        for when in ("before", "after")
    )
    assert before == Round(proxy_round(1, 3), second, 1_780_000_002, 1_780_000_002) and before.phase == 1
    assert after == Round(proxy_round(2, 1), 15_100_000_000, 1_780_000_001, 1_780_000_001) and after.phase == 2


def test_constants_are_those_of_the_contracts(fixtures_dir: Path) -> None:
    known = orjson.loads((fixtures_dir / "evm_chainlink_constants.json").read_bytes())
    assert known["topics"]["AnswerUpdated(int256,uint256,uint256)"] == contracts.ANSWER_UPDATED
    assert contracts.NEW_TRANSMISSION_OCR2 in known["topics"].values() and len(set(contracts.EVENTS)) == 2
    for vector in known["roundid_vectors"]:
        assert proxy_round(vector["phaseId"], vector["aggregatorRoundId"]) == int(vector["proxyRoundId"])
    chains = {"ethereum": 1, "arbitrum": 42_161, "base": 8_453}
    assert {chains[name]: feeds for name, feeds in known["feeds"].items()} == PROXIES
    selectors = (contracts.AGGREGATOR, contracts.PHASE_ID, contracts.DECIMALS, contracts.DESCRIPTION)
    assert selectors == ("0x245a7bfc", "0x58303b10", "0x313ce567", "0x7284e416")
    assert contracts.LATEST_ROUND_DATA == "0xfeaf968c"


def test_addresses_have_their_checksum_or_none() -> None:
    for address in (SOL, UPTIME, *PROXIES[8_453].values()):
        assert (
            checksummed(address) == checksummed(address.lower()) == checksummed("0x" + address[2:].upper()) == address
        )
    mistyped = SOL[:-1] + ("8" if SOL[-1] != "8" else "7")
    for wrong, why in ((mistyped, "EIP-55"), (SOL[:-1], "40 hex digits"), (SOL[2:], "40 hex digits")):
        with pytest.raises(DecodeError, match=why):
            checksummed(wrong)
    assert heartbeat_ms(8_453, "ETH/USD") == 1_260_000 and heartbeat_ms(1, "SOL/USD") == 86_460_000
    assert heartbeat_ms(10, "ETH/USD") is heartbeat_ms(None, "ETH/USD") is None and set(HEARTBEATS_S) <= set(PROXIES)


def test_the_emulated_report_is_one_of_the_contract() -> None:
    talk = Talk()
    talk.connect()
    talk.node.transmit(SOL, -5, 7, NOW_S)
    log = talk.node.blocks[-1][3][0]
    types = ("int192", "address", "uint32", "int192[]", "bytes", "int192", "bytes32", "uint40")
    decoded = abi_decode(types, bytes.fromhex(str(log["data"])[2:]))
    assert (decoded[0], decoded[2], decoded[3], decoded[4], decoded[7]) == (-5, 7, (-5,), b"", 257)


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"source evm, feed SOL/USD: .*EIP-55"):
        EvmLink("evm:1", URL, {"SOL/USD": EvmFeed(SOL.swapcase().replace("0X", "0x"))}, chain_id=1)
    with pytest.raises(ConfigError, match="SOL/USD and feed BTC/USD have one proxy"):
        EvmLink("evm:1", URL, {"SOL/USD": EvmFeed(SOL), "BTC/USD": EvmFeed(SOL.lower())}, chain_id=1)
    assert "abcdef" not in repr(EvmLink("evm:1", URL, {}, chain_id=1))


def test_what_a_node_says_is_told_without_the_key() -> None:
    said = plain(f"no\x00 access\nto {URL}, key abcdef0123456789" + "x" * 5_000, *secrets_of(URL))
    assert said.startswith("no access to …, key …x") and len(said) == 400


# The chain.


def test_nothing_is_asked_of_another_chain() -> None:
    talk = Talk(chain_id=42_161)
    told, over = talk.connect()
    assert (told.condition, told.text) == (Condition.WRONG_CLUSTER, "chain id is 1, configured is 42161")
    assert over == Reconnect("wrong chain", 60_000)
    assert [one["method"] for one in talk.asked] == ["eth_chainId"] and talk.link.next_deadline() is None


def test_the_latest_answer_at_connect_then_answers_as_they_are_observed() -> None:
    talk = Talk("SOL/USD", "BTC/USD")
    talk.node.transmit(SOL, 115 * 10**8, NOW_S - 60, NOW_S - 50)
    assert talk.connect()[0] == price(115 * 10**8, NOW_S - 50, 2, NOW_S)
    new = talk.transmit(116 * 10**8)
    assert new == [price(116 * 10**8, NOW_S - 3, 3, NOW_S)]
    assert talk.transmit(91_000 * 10**8, proxy=BTC) == [price(91_000 * 10**8, NOW_S - 3, 4, NOW_S, "BTC/USD")]
    logs = [one for one in talk.asked if one["params"][:1] == ["logs"]]
    assert [one["params"][1]["address"] for one in logs] == [
        talk.node.feeds[p.lower()].aggregators[0] for p in (SOL, BTC)
    ]


def test_an_observation_is_never_later_than_its_block() -> None:
    talk = Talk()
    talk.connect()
    (new,) = talk.transmit(116 * 10**8, observed_s=NOW_S + 98)
    assert new.publish_us == NOW_S * S


def test_a_log_counts_once_however_often_it_is_told() -> None:
    talk = Talk()
    talk.connect()
    told = talk.node.transmit(SOL, 116 * 10**8, NOW_S - 3, NOW_S)
    assert prices(talk.tell(told)) == [116 * 10**8]
    assert talk.tell(told[1:]) == []


def test_other_decimals_are_brought_to_the_feeds_exponent() -> None:
    talk = Talk()
    talk.node.feeds[SOL.lower()].decimals = 18
    talk.connect()
    assert prices(talk.transmit(116_123_456_789_999_999_999)) == [11_612_345_679]


@pytest.mark.parametrize("answer", [0, -5, 2**100])
def test_an_answer_that_is_no_price_makes_the_source_invalid_until_the_next(answer: int) -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    talk.now_s += 30
    said = talk.transmit(answer)
    assert conditions(said) == [("SOL/USD", Condition.INVALID)] and len(reasons(said)) == 1
    talk.now_s += 30
    well = talk.transmit(116 * 10**8)
    assert conditions(well) == [("SOL/USD", Condition.OK)] and prices(well) == [116 * 10**8]


# Proxies.


def test_a_proxy_of_another_pair_is_refused_by_name_and_the_others_go_on() -> None:
    talk = Talk("SOL/USD", "BTC/USD")
    talk.node.feeds[SOL.lower()].description = "wSOL / USD\x1b[31m"
    talk.node.transmit(SOL, 115 * 10**8, NOW_S - 60, NOW_S - 50)
    said = talk.connect()
    why = f"SOL/USD: proxy {SOL} describes itself as 'wSOL / USD [31m': another pair"
    assert conditions(said) == [("SOL/USD", Condition.INVALID)] and why in reasons(said)
    assert prices(said) == [] and prices(talk.transmit(116 * 10**8)) == []
    assert prices(talk.transmit(91_000 * 10**8, proxy=BTC)) == [91_000 * 10**8]
    talk.node.feeds[SOL.lower()].description = "SOL/USD"
    assert prices(talk.later(61)) == [116 * 10**8]  # asked again by the timer


def test_an_address_without_a_contract_is_named() -> None:
    talk = Talk("SOL/USD", "BTC/USD")
    del talk.node.feeds[BTC.lower()]
    said = talk.connect()
    assert set(conditions(said)) == {("BTC/USD", Condition.MISSING_ACCOUNT)}
    assert f"BTC/USD: no contract at {BTC} answers phaseId()" in reasons(said)
    assert prices(talk.transmit(116 * 10**8)) == [116 * 10**8]


def test_one_call_that_fails_names_feed_and_address_and_is_asked_again() -> None:
    talk = Talk()
    talk.node.transmit(SOL, 115 * 10**8, NOW_S - 60, NOW_S - 50)
    asked = talk.link.connect(NOW_S * S)
    said = talk.link.receive(Frame("websocket", b'{"jsonrpc":"2.0","id":1,"result":"0x1"}'), NOW_S * S)
    by_what = {
        orjson.loads(one.text)["params"][0]["data"]: one
        for one in said
        if isinstance(one, Send) and b"data" in one.text.encode()
    }
    number = orjson.loads(by_what[contracts.AGGREGATOR].text)["id"]
    error = {"id": number, "error": {"code": -32_005, "message": f"limit of {URL}"}}
    failed = talk.hear(orjson.dumps(error))
    assert conditions(failed) == [("SOL/USD", Condition.RATE_LIMITED)] and len(asked) == 2
    assert reasons(failed) == [f"SOL/USD: proxy {SOL}: aggregator: limit of … (-32005)"]
    well = talk.later(3)
    assert prices(well) == [115 * 10**8] and ("SOL/USD", Condition.OK) in conditions(well)


def test_a_phase_change_is_found_by_the_timer_and_by_the_latest_answer() -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    old = talk.node.feeds[SOL.lower()].aggregators[-1]
    talk.node.change_phase(SOL)
    assert prices(talk.transmit(116 * 10**8)) == []  # by an aggregator that nobody follows yet
    talk.now_s += 10
    assert prices(talk.transmit(117 * 10**8)) == []
    said = talk.later(61)
    assert prices(said) == [116 * 10**8, 117 * 10**8]  # nothing between is lost
    assert conditions(said) == [("SOL/USD", Condition.CHANGED)]
    new = talk.node.feeds[SOL.lower()].aggregators[-1]
    assert [one.text for one in said if isinstance(one, Status)] == [
        f"SOL/USD: proxy {SOL} is in phase 2, with aggregator {checksummed(new)}"
    ]
    assert "eth_unsubscribe" in [one["method"] for one in talk.asked]
    talk.node.feeds[SOL.lower()].aggregators.append(old)  # what still comes from the old one is not heard
    assert prices(talk.transmit(99 * 10**8)) == []
    talk.node.feeds[SOL.lower()].aggregators.pop()


def test_a_new_phase_that_begins_in_the_past_tells_nothing_until_it_is_news() -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    talk.node.change_phase(SOL)
    talk.node.transmit(SOL, 114 * 10**8, NOW_S - 500, NOW_S - 490)
    said = talk.later(61)
    assert prices(said) == [] and any("is older" in why for why in reasons(said))
    assert prices(talk.transmit(118 * 10**8)) == [118 * 10**8]


# Reorganised chains.


def test_removed_logs_take_back_and_a_later_answer_ends_that() -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    talk.now_s += 60
    talk.transmit(116 * 10**8)
    said = talk.tell(talk.node.remove(talk.now_s))
    assert conditions(said) == [("SOL/USD", Condition.INVALID)]
    (text,) = [one.text for one in said if isinstance(one, Status)]
    assert text.startswith(f"SOL/USD: answer {116 * 10**8} of {SOL} was taken back by the chain: its block 0x")
    assert prices(said) == []  # the table never goes back in time
    talk.now_s += 12
    assert prices(talk.transmit(117 * 10**8)) == [117 * 10**8]


def test_the_same_report_in_another_block_stands_again() -> None:
    talk = Talk()
    talk.connect()
    (told,) = talk.transmit(116 * 10**8, observed_s=NOW_S - 3)
    talk.tell(talk.node.remove(talk.now_s))
    talk.now_s += 12
    said = talk.transmit(116 * 10**8, observed_s=NOW_S - 3)
    assert conditions(said) == [("SOL/USD", Condition.RESUMED)] and prices(said) == []
    assert told.publish_us == (NOW_S - 3) * S


def test_an_older_removed_log_changes_nothing() -> None:
    talk = Talk()
    talk.connect()
    first = talk.node.transmit(SOL, 115 * 10**8, NOW_S - 3, NOW_S)
    talk.tell(first)
    talk.now_s += 60
    talk.transmit(116 * 10**8)
    gone = orjson.loads(first[-1][1])
    gone["params"]["result"]["removed"] = True
    assert talk.settle(talk.hear(orjson.dumps(gone))) == []


def test_blocks_that_do_not_continue_are_enough_without_removed_logs() -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    talk.now_s += 60
    talk.transmit(116 * 10**8)
    told = [one for one in talk.node.remove(talk.now_s) if b'"removed"' not in one[1].encode()]
    said = talk.tell(told)
    assert conditions(said) == [("SOL/USD", Condition.INVALID)] and prices(said) == []


def test_a_latest_answer_that_went_back_is_looked_at_twice() -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    talk.later(30)
    talk.transmit(116 * 10**8)
    lost = talk.node.feeds[SOL.lower()].rounds.pop()
    doubt = talk.later(31)
    assert conditions(doubt) == []
    rounds = [f"{price * 10**8} in round {proxy_round(1, number)}" for number, price in ((1, 115), (2, 116))]
    assert reasons(doubt) == [f"SOL/USD: {SOL}: latestRoundData says {rounds[0]}, not {rounds[1]}"]
    assert conditions(talk.later(3)) == [("SOL/USD", Condition.INVALID)]
    talk.node.feeds[SOL.lower()].rounds.append(lost)  # a backend that lagged behind
    assert prices(talk.later(61)) == [116 * 10**8]


def test_a_doubt_that_was_wrong_is_forgotten() -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    lost = talk.node.feeds[SOL.lower()].rounds.pop()
    talk.node.feeds[SOL.lower()].rounds = [(114 * 10**8, NOW_S, NOW_S)]
    assert len(reasons(talk.later(61))) == 1
    talk.node.feeds[SOL.lower()].rounds = [lost]
    assert conditions(talk.later(130)) == []


# Links that lag, fall silent, or are refused.


def test_an_answer_that_never_came_as_a_log_is_told_and_the_deaf_session_ends() -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    talk.later(30)
    talk.deaf = True
    assert talk.transmit(116 * 10**8) == []
    assert prices(talk.later(31)) == [116 * 10**8]
    said = talk.later(61)
    assert Reconnect("a subscription is deaf") in said and "never came as a log" in reasons(said)[0]
    talk.deaf = False
    assert prices(talk.connect()) == [] and prices(talk.transmit(117 * 10**8)) == [117 * 10**8]


def test_a_reconnect_fills_what_was_missed() -> None:
    talk = Talk()
    talk.connect()
    talk.transmit(115 * 10**8)
    for answer in (116, 117):
        talk.now_s += 60
        talk.node.transmit(SOL, answer * 10**8, talk.now_s - 3, talk.now_s)
    said = talk.connect()
    assert prices(said) == [116 * 10**8, 117 * 10**8]
    assert [one.publish_us for one in said if isinstance(one, PriceUpdate)] == [
        (talk.now_s - 63) * S,
        (talk.now_s - 3) * S,
    ]
    assert talk.asked[-2]["method"] == "eth_getLogs" and int(talk.asked[-2]["params"][0]["fromBlock"], 16) == 0


def test_the_backfill_has_a_bound() -> None:
    talk = Talk(limits=NodeLimits(backfill_blocks=5))
    talk.connect()
    talk.transmit(115 * 10**8)
    for _ in range(40):
        talk.node.mine(NOW_S, [])
    talk.connect()
    logs = [one for one in talk.asked if one["method"] == "eth_getLogs"]
    assert int(logs[-1]["params"][0]["fromBlock"], 16) == talk.node.blocks[-1][0] - 5


def test_a_silent_node_is_asked_once_and_then_left() -> None:
    talk = Talk()
    talk.connect()
    at_s = talk.now_s
    assert talk.link.next_deadline() == (at_s + 4) * S
    (asked,) = talk.link.on_timer((at_s + 4) * S)
    assert isinstance(asked, Send) and "eth_blockNumber" in asked.text
    assert talk.link.on_timer((at_s + 5) * S) == [] and talk.link.next_deadline() == (at_s + 8) * S
    assert talk.link.on_timer((at_s + 8) * S) == [Reconnect("nothing heard for 8 s")]
    assert talk.link.next_deadline() is None


def test_a_node_without_new_blocks_is_told_and_one_that_answers_nothing_of_a_feed_too() -> None:
    talk = Talk()
    talk.connect()
    said = talk.later(95, blocks=False)
    assert conditions(said) == [(None, Condition.LOST)] and "no new block for 90 s" in said[-1].text
    assert (None, Condition.OK) in conditions(talk.transmit(115 * 10**8))
    talk.settle([])
    asked = [one for one in talk.link.on_timer((talk.now_s + 70) * S) if isinstance(one, Send | Reconnect)]
    assert any(isinstance(one, Reconnect) for one in asked)


@pytest.mark.parametrize(
    ("status", "why", "condition", "after_ms"),
    [
        (401, ", the key was refused", Condition.NOT_ENTITLED, 60_000),
        (429, ", too many requests", Condition.RATE_LIMITED, 90_000),
        (503, "", Condition.LOST, 90_000),
    ],
)
def test_a_refused_socket(status: int, why: str, condition: Condition, after_ms: int) -> None:
    talk = Talk()
    talk.link.connect(NOW_S * S)
    retry_ms = 0 if status == 401 else 90_000
    told, over = talk.link.receive(Frame("websocket", URL.encode(), status=status, retry_after_ms=retry_ms), NOW_S * S)
    assert isinstance(told, Status) and (told.condition, told.text) == (condition, f"HTTP {status}{why}: …")
    assert over == Reconnect(f"socket refused with HTTP {status}", after_ms)


# Whatever else may come.


def test_what_is_nested_without_end_is_malformed() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for data in (b'{"more":' + deep + b"}", b'{"method":"eth_subscription","params":{"result":' + deep + b"}}"):
        talk = Talk()
        talk.connect()
        said = talk.hear(data)
        assert said and all(isinstance(one, Malformed) for one in said)


def test_numbers_that_no_chain_has_are_malformed() -> None:
    """A contract's may have 256 bits; what leaves the link has 64, or neither journal nor answers could hold it."""
    talk = Talk()
    talk.connect()
    (_, log) = talk.node.transmit(SOL, 116 * 10**8, NOW_S - 3, NOW_S)[-1]
    huge = "7f" * 32
    for field, told, why in (
        ("data", "0x" + huge, "no unix second"),
        ("blockNumber", "0x" + huge, "blockNumber is no number in hex"),
        ("blockNumber", hex(2**63), "blockNumber is no number in hex"),
    ):
        message = orjson.loads(log)
        message["params"]["result"][field] = told
        (reason, *_) = reasons(talk.hear(orjson.dumps(message)))
        assert why in reason
    assert prices(talk.transmit(117 * 10**8)) == [117 * 10**8]


@given(data=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_noise_is_malformed_and_never_an_exception(data: bytes) -> None:
    talk = Talk()
    talk.connect()
    said = talk.hear(data)
    assert said and all(isinstance(one, Malformed) for one in said)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_broken_logs_never_raise_and_never_give_a_price_of_another_feed(data: st.DataObject) -> None:
    talk = Talk()
    talk.connect()
    frames = [text for _, text in talk.node.transmit(SOL, 116 * 10**8, NOW_S - 3, NOW_S)]
    frame = bytearray(data.draw(st.sampled_from(frames)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    said = talk.hear(bytes(frame))
    allowed = (Malformed, PriceUpdate, Unchanged, Status, Send)
    assert all(isinstance(one, allowed) for one in said)
    assert {one.feed for one in said if isinstance(one, PriceUpdate)} <= {"SOL/USD"}


@given(st.lists(st.sampled_from(["price", "remove", "mine", "phase", "later", "reconnect", "deaf"]), max_size=25))
@settings(max_examples=60, deadline=None)
def test_whatever_a_chain_does_prices_never_go_back_in_time(steps: list[str]) -> None:
    talk, said, answer = Talk(), [], 100
    said += talk.connect()
    for step in steps:
        talk.now_s += 7
        answer += 1
        if step == "price":
            said += talk.transmit(answer * 10**8)
        elif step == "remove" and len(talk.node.blocks) > 1:
            said += talk.tell(talk.node.remove(talk.now_s))
        elif step == "phase":
            talk.node.change_phase(SOL)
        elif step == "later":
            said += talk.later(61)
        elif step == "deaf":
            talk.deaf = not talk.deaf
        elif step == "mine":
            said += talk.tell(talk.node.mine(talk.now_s, []))
        else:
            said += talk.connect()
    times = [one.publish_us for one in said if isinstance(one, PriceUpdate)]
    assert times == sorted(times)
    talk.deaf = False
    talk.now_s += 100
    said = talk.connect() + talk.transmit(999 * 10**8) + talk.later(61)
    assert prices(said)[-1:] == [999 * 10**8]  # and in the end the chain is believed again
