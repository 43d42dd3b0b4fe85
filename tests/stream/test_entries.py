"""Entries that are told again are, at every instant and of every kind, the bytes that encoding them anew would give."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.hub import Decision
from oracle_hub.stream import binary
from oracle_hub.stream.board import Board, encode_entry
from oracle_hub.stream.entries import MANY_FEEDS, MAX_AGES, Encoder, Entries, Kind
from oracle_hub.stream.groups import GroupKey
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import Merge, View, view
from tests.server.stream_service import MAX_AGE_US, START_US, HubService
from tests.stream.model_client import sized_frame

NAMED = ("SOL/USD", "BTC/USD", "ETH/USD")
FEEDS = (*NAMED, *(f"F{number:02}/USD" for number in range(MANY_FEEDS)))
ENCODERS: tuple[Encoder, Encoder] = (encode_entry, binary.encode_entry)
KINDS = tuple(
    Kind(full, form, max_age_us)
    for full in (False, True)
    for form in (False, True)
    for max_age_us in (None, 2_500_000, 12_000_000)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(0, 2), st.integers(9_000, 9_100), st.integers(1, 7)),
        st.tuples(st.just("decide"), st.integers(1, 4_000_000), st.just(0), st.just(0)),
        st.tuples(st.just("look"), st.integers(-3_000_000, 15_000_000), st.integers(0, len(KINDS) - 1), st.just(0)),
    ),
    max_size=40,
)


class Counting:
    """An encoder that says how often it was asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, decision: Decision, shown: View, full: bool, merge: Merge | None) -> msgspec.Raw:
        self.asked[decision.feed] += 1
        return encode_entry(decision, shown, full, merge)


def plain(kind: Kind, decisions: list[Decision], now_us: int) -> list[bytes]:
    """All of them, encoded anew."""
    encode = ENCODERS[kind.binary]
    return [bytes(encode(one, view(one, now_us, kind.max_age_us), kind.full, None)) for one in decisions]


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_what_is_told_again_is_what_would_be_encoded(steps: list[tuple[str, int, int, int]]) -> None:
    service, entries = HubService(*FEEDS), Entries()
    for act, a, b, c in steps:
        if act == "tick":
            sources = [name for bit, name in enumerate(("doves", "chainlink", "pyth")) if c >> bit & 1]
            service.try_tick(NAMED[a], b, *sources)
        elif act == "decide":
            service.wait(service.clock_us + a)
        else:  # also before the decision was made, and after it should have been made anew
            kind, now_us = KINDS[b], service.clock_us + a
            decisions = list(service.decisions.values())
            told = entries.of(kind, ENCODERS[kind.binary], decisions, now_us)
            assert [bytes(one) for one in told] == plain(kind, decisions, now_us)
            few = decisions[1:3]
            told = entries.of(kind, ENCODERS[kind.binary], few, now_us)
            assert [bytes(one) for one in told] == plain(kind, few, now_us)


def test_a_feed_is_encoded_once_for_as_long_as_it_says_the_same() -> None:
    service, entries, encode = HubService(*NAMED), Entries(), Counting()
    for feed in NAMED:
        service.tick(feed, 100)

    def told(full: bool = False) -> list[msgspec.Raw]:
        return entries.of(Kind(full, False, None), encode, list(service.decisions.values()), service.clock_us)

    first = told()
    assert (told(), encode.asked) == (first, Counter(NAMED))
    service.tick("BTC/USD", 101)
    assert told()[1] != first[1]
    assert encode.asked == Counter((*NAMED, "BTC/USD"))
    told(full=True)
    assert encode.asked == Counter((*NAMED, *NAMED, "BTC/USD"))
    service.clock_us += MAX_AGE_US + 1  # over, and not decided anew
    over = told()
    assert (told(), encode.asked) == (over, Counter((*NAMED, *NAMED, *NAMED, "BTC/USD")))
    assert all(b'"reason":"lease_over"' in entry for entry in map(bytes, over))


def test_only_some_max_ages_are_kept_and_those_that_are_asked_for() -> None:
    service, entries, encode = HubService(*FEEDS), Entries(), Counting()
    decisions = list(service.decisions.values())

    def asked(max_age_us: int | None) -> int:
        """How many entries were encoded for it."""
        before = encode.asked.total()
        entries.of(Kind(False, False, max_age_us), encode, decisions, START_US)
        return encode.asked.total() - before

    assert [asked(None), *map(asked, range(1, MAX_AGES + 1))] == [len(FEEDS)] * (MAX_AGES + 1)
    assert asked(1) == 0
    assert asked(1_000) == len(FEEDS)
    assert [asked(None), asked(1), asked(1_000)] == [0, 0, 0]
    assert asked(2) == len(FEEDS)  # it was the one for which nobody had asked for the longest
    few = decisions[: MANY_FEEDS - 1]
    entries.of(Kind(False, False, 99), encode, few, START_US)
    assert asked(1_000) == 0  # few feeds take nobody's place


@pytest.mark.parametrize("form", [False, True])
def test_a_snapshot_is_the_same_as_that_of_a_board_nobody_asked_before(form: bool) -> None:
    service = HubService(*NAMED)
    board = Board(service.decisions, History(service.epoch, service.seq), sized_frame, binary_frame=sized_frame)
    keys = [GroupKey(feeds, full, None, form) for feeds in (None, frozenset(NAMED[:2])) for full in (False, True)]
    groups = [board.join(key) for key in keys]
    for mantissa, feed in enumerate((*NAMED, *NAMED), 100):
        board.apply(service.tick(feed, mantissa), service.clock_us)
        anew = Board(service.decisions, board.history, sized_frame, binary_frame=sized_frame)
        for wait_us in (0, MAX_AGE_US + 1_000):
            now_us = service.clock_us + wait_us
            for group in groups:
                asked_before = board.snapshot(group, 3, now_us)
                assert asked_before == anew.snapshot(anew.join(group.key), 3, now_us)
            assert board.entries(now_us, full=True) == anew.entries(now_us, full=True)


def test_a_feed_that_left_is_let_go() -> None:
    service, entries, encode = HubService(*NAMED), Entries(), Counting()
    kind, decisions = Kind(False, False, None), list(service.decisions.values())
    entries.of(kind, encode, decisions, START_US)
    entries.forget(NAMED[:1])
    entries.of(kind, encode, decisions, START_US)
    assert encode.asked == Counter((*NAMED, NAMED[0]))


def test_those_whose_prices_become_too_old_together_share_the_update_that_says_so() -> None:
    service = HubService(*NAMED)
    for feed in NAMED:
        service.tick(feed, 100)
    board = Board(service.decisions, History(service.epoch, service.seq), sized_frame)
    group, other = (board.join(GroupKey(None, full, 2_500_000)) for full in (False, True))
    now_us = service.clock_us + 2_600_000
    ended = board.pop_ended(now_us)
    told = board.too_old(group, 1, board.seq, ended[group], now_us)
    assert board.too_old(group, 1, board.seq, ended[group], now_us) is told
    asked = [(group, 2, board.seq), (group, 1, board.seq - 1), (other, 1, board.seq)]
    frames = [board.too_old(*one, ended[one[0]], now_us) for one in asked]
    assert len({told, *frames}) == 4
    anew = Board(service.decisions, board.history, sized_frame)
    assert frames == [anew.too_old(*one, list(ended[one[0]]), now_us) for one in asked]
    assert board.too_old(group, 1, board.seq, ended[group][:1], now_us) != told
    board.apply(service.tick(NAMED[0], 101), now_us)
    assert board.too_old(group, 1, board.seq - 1, ended[group], now_us + 1) != told
