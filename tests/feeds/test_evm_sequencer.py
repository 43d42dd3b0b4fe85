"""Prices of a second layer wait while its sequencer is down, and for a grace period afterwards."""

from oracle_hub.core.source import Condition, Status
from tests.feeds.evm_talk import NOW_S, SOL, UPTIME, S, Talk, conditions, prices


def guarded(answer: int, since_s: int) -> Talk:
    talk = Talk(sequencer=UPTIME)
    talk.node.transmit(UPTIME, answer, since_s, NOW_S - 50)
    talk.node.transmit(SOL, 115 * 10**8, NOW_S - 60, NOW_S - 50)
    return talk


def test_a_sequencer_that_is_up_for_long_lets_prices_through() -> None:
    talk = guarded(0, NOW_S - 3_600)
    assert prices(talk.connect()) == [115 * 10**8]


def test_prices_wait_while_the_sequencer_is_down_and_for_the_grace_period() -> None:
    talk = guarded(1, NOW_S - 60)
    said = talk.connect()
    assert prices(said) == [] and conditions(said) == [(None, Condition.HALTED)]
    assert prices(talk.transmit(116 * 10**8)) == []
    talk.later(60)
    up_s = talk.now_s
    assert prices(talk.tell(talk.node.transmit(UPTIME, 0, up_s, up_s))) == []
    assert prices(talk.later(3_598)) == []
    said = talk.later(3)
    assert prices(said) == [116 * 10**8] and (None, Condition.OK) in conditions(said)


def test_what_was_told_before_an_outage_counts_again_after_it() -> None:
    talk = guarded(0, NOW_S - 3_600)
    talk.connect()
    assert conditions(talk.tell(talk.node.transmit(UPTIME, 1, NOW_S, NOW_S))) == [(None, Condition.HALTED)]
    talk.later(60)
    talk.tell(talk.node.transmit(UPTIME, 0, talk.now_s, talk.now_s))
    said = talk.later(3_601)
    assert ("SOL/USD", Condition.RESUMED) in conditions(said) and (None, Condition.OK) in conditions(said)


def test_a_grace_period_that_ends_while_no_node_answers_lets_nothing_through() -> None:
    talk = guarded(0, NOW_S - 3_600)
    talk.connect()
    talk.tell(talk.node.transmit(UPTIME, 1, NOW_S, NOW_S))
    talk.later(60)
    talk.tell(talk.node.transmit(UPTIME, 0, talk.now_s, talk.now_s))
    talk.later(3_000)
    talk.link.connect(talk.now_s * S)  # and the socket does not open: it may be down again by now
    talk.now_s += 700
    silent = talk.link.on_timer(talk.now_s * S)
    assert [one for one in silent if isinstance(one, Status)] == [] and talk.link.next_deadline() is None
    said = talk.connect()
    assert ("SOL/USD", Condition.RESUMED) in conditions(said) and (None, Condition.OK) in conditions(said)


def test_what_waits_is_not_read_with_the_decimals_of_another_phase() -> None:
    talk = guarded(1, NOW_S - 60)
    assert prices(talk.connect()) == []
    talk.node.change_phase(SOL)
    talk.node.feeds[SOL.lower()].decimals = 6  # as 8 it would be a hundredth, as 6 the hundredfold
    up_s = talk.now_s + 60
    talk.later(60)
    talk.tell(talk.node.transmit(UPTIME, 0, up_s, up_s))
    assert prices(talk.later(3_700)) == []
    assert prices(talk.transmit(117 * 10**6)) == [117 * 10**8]


def test_an_uptime_feed_that_was_never_initialised_lets_nothing_through() -> None:
    talk = guarded(0, 0)
    said = talk.connect()
    assert prices(said) == [] and conditions(said) == [(None, Condition.HALTED)]
