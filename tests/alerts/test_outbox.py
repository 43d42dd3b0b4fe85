"""The queue of one channel: what it wants, in what order, and that whatever fires is resolved, over any failures."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.alerts.alert import Alert, Change, Kind, Severity, Transition
from oracle_hub.alerts.notify.outbox import REMEMBERED, Outbox
from oracle_hub.alerts.notify.settings import ChannelSettings, Secret
from tests.alerts.delivery import START_US, alert, escalated, firing, resolved

CHANNEL = ChannelSettings(name="desk", url=Secret("http://desk.example"))
CRITICAL_ONLY = ChannelSettings(name="pager", url=Secret("http://pager.example"), min_severity=Severity.CRITICAL)


def drain(outbox: Outbox) -> Iterator[tuple[str, Change]]:
    """Acknowledge everything."""
    while outbox.head is not None:
        entry = outbox.head
        yield entry.transition.alert.feed or entry.transition.alert.kind.value, entry.transition.change
        outbox.acknowledged(entry)


def test_transitions_are_told_in_order() -> None:
    sol, btc = alert(), alert("BTC/USD")
    outbox = Outbox(CHANNEL, 100)
    for one in (firing(sol), firing(btc), escalated(sol), resolved(btc), resolved(sol)):
        assert outbox.take(one)
    assert list(drain(outbox)) == [
        ("SOL/USD", "firing"),
        ("BTC/USD", "firing"),
        ("SOL/USD", "escalated"),
        ("BTC/USD", "resolved"),
        ("SOL/USD", "resolved"),
    ]
    assert outbox.firing == []


def test_what_is_told_twice_to_the_channel_is_sent_once() -> None:
    sol = alert()
    outbox = Outbox(CHANNEL, 100)
    taken = [outbox.take(one) for one in (firing(sol), firing(sol), resolved(sol), resolved(sol), escalated(sol))]
    assert taken == [True, False, True, False, False]
    assert list(drain(outbox)) == [("SOL/USD", "firing"), ("SOL/USD", "resolved")]
    assert not outbox.take(firing(sol))


def test_a_channel_for_critical_alerts_hears_of_an_escalation_as_firing() -> None:
    sol, btc = alert(), alert("BTC/USD")
    outbox = Outbox(CRITICAL_ONLY, 100)
    taken = [outbox.take(one) for one in (firing(sol), firing(btc), resolved(btc), escalated(sol), resolved(sol))]
    assert taken == [False, False, False, True, True]
    assert list(drain(outbox)) == [("SOL/USD", "firing"), ("SOL/USD", "resolved")]


def test_a_channel_for_some_kinds_hears_of_these_only() -> None:
    only = ChannelSettings(name="desk", url=Secret(""), kinds=frozenset({Kind.NO_PRICE}))
    outbox = Outbox(only, 100)
    assert not outbox.take(firing(alert()))
    assert outbox.take(firing(alert(kind=Kind.NO_PRICE)))


def test_a_refused_firing_takes_its_end_with_it() -> None:
    sol, btc = alert(), alert("BTC/USD")
    outbox = Outbox(CHANNEL, 100)
    for one in (firing(sol), firing(btc), resolved(sol), resolved(btc)):
        outbox.take(one)
    head = outbox.head
    assert head is not None
    outbox.refused(head)
    assert list(drain(outbox)) == [("BTC/USD", "firing"), ("BTC/USD", "resolved")]


def test_a_firing_that_may_have_arrived_is_resolved_even_if_it_is_refused_later() -> None:
    sol = alert()
    outbox = Outbox(CHANNEL, 100)
    outbox.take(firing(sol))
    outbox.take(resolved(sol))
    head = outbox.head
    assert head is not None
    outbox.unanswered(head)
    outbox.refused(head)
    assert list(drain(outbox)) == [("SOL/USD", "resolved")]


def test_too_many_drop_the_oldest_warnings_and_say_so() -> None:
    outbox = Outbox(CHANNEL, 6)
    grave = alert("ETH/USD", severity=Severity.CRITICAL)
    outbox.take(firing(alert("SOL/USD")))  # the head: perhaps on its way
    outbox.take(firing(grave))
    for number in range(6):
        one = alert(f"F{number}/USD")
        outbox.take(firing(one))
        outbox.take(resolved(one))
    assert len(outbox) == 5 and outbox.dropped == 5
    told = list(drain(outbox))
    assert told == [
        ("SOL/USD", "firing"),
        ("ETH/USD", "firing"),
        ("storm", "firing"),
        ("F5/USD", "firing"),
        ("F5/USD", "resolved"),
        ("storm", "resolved"),
    ]
    assert not outbox.take(resolved(alert("F0/USD"))), "nobody was told that it fires"
    assert outbox.take(resolved(grave))


def test_what_ends_alerts_that_were_told_is_never_dropped() -> None:
    outbox = Outbox(CHANNEL, 10)
    told = [alert(f"F{number}/USD") for number in range(20)]
    for one in told:
        outbox.take(firing(one))
        assert list(drain(outbox)) == [(one.feed, "firing")]
    for one in told:
        outbox.take(resolved(one))
    assert len(outbox) == 20 and outbox.dropped == 0


def test_after_a_restart_it_is_brought_up_to_what_is_open() -> None:
    feeds = ("A/USD", "B/USD", "C/USD", "D/USD")
    open_still, over, missed, worse = (alert(feed, started_us=START_US + n) for n, feed in enumerate(feeds))
    outbox = Outbox(CHANNEL, 100)
    for one in (open_still, over, worse):
        outbox.take(firing(one))
    assert len(list(drain(outbox))) == 3
    again = Outbox(CHANNEL, 100, {name: raw for name, raw in outbox.changed().items() if raw is not None})
    assert [one.feed for one in again.firing] == ["A/USD", "B/USD", "D/USD"]
    again.agree([open_still, missed, escalated(worse).alert], START_US + 60_000_000)
    entries = []
    while again.head is not None:
        entries.append(again.head.transition)
        again.acknowledged(again.head)
    assert [(one.alert.feed, one.change, one.alert.ended_us) for one in entries] == [
        ("B/USD", "resolved", START_US + 60_000_000),
        ("C/USD", "firing", None),
        ("D/USD", "escalated", None),
    ]


def test_what_was_told_to_its_end_is_not_told_again_by_a_hub_that_went_back_in_time() -> None:
    outbox = Outbox(CHANNEL, 10 * REMEMBERED)
    alerts = [alert(started_us=START_US + number) for number in range(REMEMBERED + 1)]
    for one in alerts:
        outbox.take(firing(one))
        outbox.take(resolved(one))
    assert len(list(drain(outbox))) == 2 * len(alerts)
    saved = {name: raw for name, raw in outbox.changed().items() if raw is not None}
    assert len(saved) == REMEMBERED
    again = Outbox(CHANNEL, 100, saved)
    again.agree([alerts[-1]], START_US)
    assert again.head is None


def test_a_secret_does_not_show() -> None:
    assert "example" not in repr(CHANNEL) and "***" in repr(CHANNEL)
    assert f"{CHANNEL.url}" == "***"


# For any schedule.

FEEDS = ("A/USD", "B/USD", "C/USD")
ACTIONS = st.one_of(
    st.tuples(st.just("happens"), st.sampled_from(FEEDS)),
    st.tuples(st.just("answer"), st.sampled_from(["ok", "ok", "ok", "lost", "unanswered", "refused"])),
    st.tuples(st.just("restart"), st.sampled_from(["orderly", "killed"])),
)


class World:
    """An engine that tells, an outbox with a disk, and a receiver that sorts out what it gets twice."""

    def __init__(self, max_queued: int) -> None:
        self.max_queued = max_queued
        self.outbox = Outbox(CHANNEL, max_queued)
        self.disk: dict[str, bytes] = {}
        self.open: dict[str, Alert] = {}
        self.now_us = START_US
        self.received: list[Transition] = []
        self.keys: set[str] = set()

    def happens(self, feed: str) -> None:
        """The next thing in the life of the feed's alert."""
        self.now_us += 1_000_000
        before = self.open.get(feed)
        if before is None:
            self.open[feed] = alert(feed, started_us=self.now_us)
            transition = firing(self.open[feed])
        elif before.severity is Severity.WARNING and self.now_us % 3:
            transition = escalated(before)
            self.open[feed] = transition.alert
        else:
            transition = resolved(self.open.pop(feed))
        self.outbox.take(transition)

    def answer(self, answer: str) -> bool:
        """One attempt."""
        entry = self.outbox.head
        if entry is None:
            return False
        self.flush()  # written ahead
        if answer in ("ok", "unanswered") and entry.key not in self.keys:
            self.keys.add(entry.key)
            self.received.append(entry.transition)
        if answer == "ok":
            self.outbox.acknowledged(entry)
        elif answer == "unanswered":
            self.outbox.unanswered(entry)
        elif answer == "refused":
            self.outbox.refused(entry)
        return True

    def restart(self, how: str) -> None:
        """What was not written is gone with a process that was killed."""
        if how == "orderly":
            self.flush()
        self.outbox = Outbox(CHANNEL, self.max_queued, self.disk)
        self.outbox.agree(self.open.values(), self.now_us)

    def flush(self) -> None:
        for name, raw in self.outbox.changed().items():
            if raw is None:
                self.disk.pop(name, None)
            else:
                self.disk[name] = raw


@pytest.mark.parametrize("max_queued", [4, 1000])
@given(schedule=st.lists(ACTIONS, max_size=60))
@settings(max_examples=150, deadline=None)
def test_for_any_failures_and_restarts_what_is_received_is_paired_and_in_order(
    max_queued: int, schedule: list[tuple[str, str]]
) -> None:
    world = World(max_queued)
    for action, how in schedule:
        getattr(world, action)(how)
    while world.open:
        world.happens(next(iter(world.open)))
    world.restart("orderly")
    while world.answer("ok"):
        pass
    told: dict[str, list[Change]] = {}
    by_id: dict[str, list[int]] = {}
    for one in world.received:
        told.setdefault(one.alert.occurrence, []).append(one.change)
        by_id.setdefault(one.alert.id, []).append(one.alert.started_us)
    refused = any(how == "refused" for _, how in schedule)
    for changes in told.values():
        assert changes[0] is Change.FIRING
        assert changes == sorted(changes, key=list(Change).index)
        if not refused:
            assert changes[-1] is Change.RESOLVED
    for started in by_id.values():
        assert started == sorted(started), "one occurrence of an alert ends before the next begins"
    assert world.outbox.firing == []
