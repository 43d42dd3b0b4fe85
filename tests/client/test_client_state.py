"""The client's rules by value: gaps, replays, other hubs, the clock's offset, and what a program is told."""

from typing import Any

import msgspec
import pytest

from oracle_hub.client.addresses import Addresses
from oracle_hub.client.clock_offset import ClockOffset
from oracle_hub.client.price import NoPrice, Price, Refusal
from oracle_hub.client.state import ClientState, GiveUp, Reconnect, Send, Wanted
from oracle_hub.stream.messages import digest, digest_line

HUB_US = 1_790_000_000_000_000
"""What the hub's clock shows when ours shows 0."""
INSTANCE = "6f1c2d3e-0000-4000-8000-000000000001"
OTHER = "6f1c2d3e-0000-4000-8000-000000000002"


def entry(price: str | None = "150", feed: str = "SOL/USD", **changed: Any) -> dict[str, Any]:
    """A live price with a lease of 10 s, published at the hub's second 0; ``none`` where there is no price."""
    return {
        "feed": feed,
        "state": "none" if price is None else "live",
        "price": price,
        "expo": -8,
        "conf": None,
        "source": None if price is None else "doves",
        "rule": "R3" if price is None else "R1",
        "reason": "diverged" if price is None else "agreed",
        "publish_time_us": None if price is None else HUB_US,
        "decided_us": HUB_US,
        "valid_until_us": None if price is None else HUB_US + 10_000_000,
        **changed,
    }


class Link:
    """A client's state, and a hub that says what a test wants. One way takes 1 ms."""

    def __init__(self, **wanted: Any) -> None:
        self.state = ClientState(Wanted(**{"feeds": ("SOL/USD",), **wanted}), min_queue=2)
        self.now_us = 0
        self.hub_us = HUB_US
        """What the clock of the present hub shows when ours shows 0."""
        self.requests: list[dict[str, Any]] = []

    def say(self, kind: str, delay_us: int = 1_000, sent_us: int | None = None, **keys: Any) -> list[Any]:
        """A message of the hub, sent now unless told otherwise, heard after its way. Returns what is not a request."""
        at = self.hub_us + self.now_us if sent_us is None else sent_us
        time_key = {"hello": "server_time_us", "heartbeat": "server_time_us"}.get(kind, "sent_us")
        self.now_us += delay_us
        data = msgspec.json.encode({"type": kind, time_key: at, **keys})
        effects = self.state.receive(data, self.now_us)
        self.requests = [msgspec.json.decode(effect.data) for effect in effects if isinstance(effect, Send)]
        return [effect for effect in effects if not isinstance(effect, Send)]

    def hello(self, instance: str = INSTANCE, epoch: int = 7) -> dict[str, Any]:
        """Connect; returns the request to subscribe."""
        self.state.connected(self.now_us)
        keys: dict[str, Any] = {"protocol": "oraclehub.v1", "instance": instance, "epoch": epoch, "seq": 1}
        keys |= {"heartbeat_ms": 500, "feeds": [], "policy": "strict", "config_hash": "", "simulated": None}
        assert self.say("hello", limits={}, **keys) == []
        return self.requests[-1]

    def accept(self, sub: int = 1, recovered: bool | None = None, rejected: tuple[str, ...] = ()) -> None:
        request = self.requests[-1]
        refused = [{"feed": feed, "code": "unknown_feed"} for feed in rejected]
        accepted = [feed for feed in request["feeds"] if feed not in rejected]
        keys: dict[str, Any] = {"id": request["id"], "sub": sub, "channel": "prices", "accepted": accepted}
        reached_us = self.hub_us + self.now_us + 1_000
        self.now_us += 1_000
        self.say("subscribed", rejected=refused, recovered=recovered, received_us=reached_us, **keys)

    def snapshot(self, seq: int, *feeds: dict[str, Any], sub: int = 1, epoch: int = 7) -> None:
        assert self.say("snapshot", sub=sub, epoch=epoch, seq=seq, feeds=list(feeds)) == []

    def update(self, prev_seq: int, seq: int, *feeds: dict[str, Any], sub: int = 1, **keys: Any) -> list[Any]:
        flags = {"conflated": False, "replayed": False, "epoch": 7, **keys}
        return self.say("update", sub=sub, seq=seq, prev_seq=prev_seq, feeds=list(feeds), **flags)

    def start(self, *feeds: dict[str, Any]) -> "Link":
        """Connected, subscribed, with a snapshot at seq 10."""
        self.hello()
        self.accept()
        self.snapshot(10, *(feeds or (entry(),)))
        return self

    def price(self, feed: str = "SOL/USD", max_age_ms: int | None = None) -> int | Refusal:
        try:
            return self.state.get(feed, self.now_us, max_age_ms).mantissa
        except NoPrice as refusal:
            return refusal.reason

    def news(self) -> list[tuple[str, int | Refusal]]:
        self.state.turns(self.now_us)
        told: list[tuple[str, int | Refusal]] = []
        while (update := self.state.next_update(self.now_us)) is not None:
            if update.price is not None:
                told.append((update.feed, update.price.mantissa))
            else:
                assert update.refusal is not None
                told.append((update.feed, update.refusal.reason))
        return told

    def is_full(self) -> bool:
        return self.state.full


def test_before_a_snapshot_there_is_no_price() -> None:
    link = Link()
    assert link.price() is Refusal.DISCONNECTED
    request = link.hello()
    assert request == {
        "type": "subscribe",
        "id": 1,
        "channel": "prices",
        "feeds": ["SOL/USD"],
        "mode": "latest",
        "detail": "price",
        "max_hz": None,
        "max_age_ms": None,
        "resume": None,
    }
    link.accept()
    assert link.price() is Refusal.DISCONNECTED
    link.snapshot(10, entry())
    assert (link.price(), link.price("BTC/USD")) == (150, Refusal.UNKNOWN_FEED)


@pytest.mark.parametrize(
    ("prev_seq", "seq", "price", "gaps", "duplicates"),
    [
        (10, 11, 151, 0, 0),
        (9, 11, 151, 0, 0),  # more than is held was merged: nothing is lost
        (10, 10, 151, 0, 0),  # too old for our own max age: no new sequence
        (9, 10, 150, 0, 1),
        (8, 9, 150, 0, 1),
        (11, 12, Refusal.GAP, 1, 0),
        (11, 11, Refusal.GAP, 1, 0),
    ],
)
def test_something_was_lost_exactly_when_prev_seq_is_greater_than_what_is_held(
    prev_seq: int, seq: int, price: int | Refusal, gaps: int, duplicates: int
) -> None:
    link = Link().start()
    assert link.update(prev_seq, seq, entry("151")) == []
    assert link.price() == price
    assert (link.state.counters.gaps, link.state.counters.duplicates) == (gaps, duplicates)


def test_after_a_gap_the_client_resumes_under_another_number() -> None:
    link = Link().start()
    link.update(11, 12, entry("152"))
    unsubscribe, subscribe = link.requests
    assert unsubscribe == {"type": "unsubscribe", "sub": 1, "id": None}
    assert subscribe["resume"] == {"epoch": 7, "seq": 10, "instance": INSTANCE}
    link.accept(sub=2, recovered=True)
    link.update(12, 13, entry("153"))  # of the number that was left
    assert link.price() is Refusal.GAP
    link.update(10, 13, entry("153", n=3, low="149", high="155", was_none=False), sub=2, conflated=True)
    assert link.price() == 153
    link.state.turns(link.now_us)
    update = link.state.next_update(link.now_us)
    assert update is not None and not update.lost
    assert (update.merged.n, update.merged.low, update.merged.high) == (4, 149, 155)


def test_a_heartbeat_with_another_digest_or_sequence_asks_for_a_snapshot() -> None:
    link = Link().start()
    good = digest([digest_line("SOL/USD", "live", "150", HUB_US + 10_000_000, HUB_US)])
    beat: dict[str, Any] = {"sub": 1, "epoch": 7, "not_live": []}
    assert link.say("heartbeat", seq=10, digest=good, **beat) == [] and link.requests == []
    link.say("heartbeat", seq=10, digest="0" * 16, **beat)
    assert link.requests[-1]["resume"] is None
    assert (link.price(), link.state.counters.digest_mismatches) == (Refusal.GAP, 1)
    link.accept(sub=2)
    link.snapshot(11, entry("151"), sub=2)
    link.say("heartbeat", seq=12, digest=good, **{**beat, "sub": 2})
    (_, again) = link.requests
    assert again["resume"] == {"epoch": 7, "seq": 11, "instance": INSTANCE}
    assert link.state.counters.gaps == 1


def test_a_lease_is_judged_by_the_latest_that_the_hubs_clock_can_show() -> None:
    link = Link().start()
    # One way takes 1 ms, so the hub's clock may be up to 1 ms ahead of now_us + HUB_US; never more.
    link.now_us = 9_998_000
    link.say("heartbeat", sub=1, epoch=7, seq=10, not_live=[], digest="", delay_us=0)
    low, high = link.state.offset.low_us(link.now_us), link.state.offset.high_us(link.now_us)
    assert low is not None and high is not None
    assert low <= -HUB_US <= high and high - low < 4_000
    link = Link().start()
    link.state.offset.heard(HUB_US + 9_990_000, 9_991_000)
    link.now_us = 9_980_000
    assert link.price() == 150
    price = link.state.get("SOL/USD", link.now_us)
    assert price.lease_left_us is not None and 15_000 < price.lease_left_us <= 20_000
    link.now_us = 10_000_000
    assert link.price() is Refusal.LEASE_OVER
    assert link.news() == [("SOL/USD", Refusal.LEASE_OVER)]


def test_a_frame_that_waited_in_a_buffer_is_known_to_be_old() -> None:
    link = Link().start()
    link.news()
    link.now_us = 30_000_000
    assert link.price() is Refusal.DISCONNECTED
    link.update(10, 11, entry("151"), sent_us=HUB_US + 1_000_000)
    assert link.price() is Refusal.DISCONNECTED  # heard now, said 29 s ago
    assert link.news() == [("SOL/USD", Refusal.DISCONNECTED)]
    link.update(11, 12, entry("152", valid_until_us=HUB_US + 40_000_000), delay_us=1_000)
    assert (link.price(), link.news()) == (152, [("SOL/USD", 152)])


@pytest.mark.parametrize("hours", [1, -1])
def test_a_stepped_clock_ends_the_connection(hours: int) -> None:
    link = Link().start()
    (effect,) = link.update(10, 11, entry("151"), sent_us=HUB_US + link.now_us + hours * 3_600_000_000)
    assert effect == Reconnect("the hub's clock was stepped")
    link.state.disconnected(link.now_us)
    assert link.price() is Refusal.DISCONNECTED


def test_another_hub_takes_nobody_back_while_a_lease_lasts() -> None:
    link = Link().start(entry("150", publish_time_us=HUB_US))
    link.state.disconnected(link.now_us)
    assert link.hello(OTHER)["resume"] is None
    link.accept()
    link.snapshot(3, entry("149", publish_time_us=HUB_US - 1), entry("7", feed="BTC/USD"))
    assert (link.price(), link.state.counters.held_back) == (Refusal.TOO_OLD, 1)
    link.update(3, 4, entry("151", publish_time_us=HUB_US))
    assert link.price() == 151
    link.update(4, 5, entry("148", publish_time_us=HUB_US - 5))  # within one hub that is its own affair
    assert link.price() == 148


def test_what_another_hub_told_binds_no_longer_than_its_lease() -> None:
    link = Link().start(entry("150", valid_until_us=HUB_US + 2_000_000))
    link.state.disconnected(link.now_us)
    link.hello(OTHER)
    link.accept()
    link.snapshot(3, entry("149", publish_time_us=HUB_US - 1))
    assert link.price() is Refusal.TOO_OLD
    link.now_us = 2_100_000
    link.update(3, 4, entry("149", publish_time_us=HUB_US - 1), delay_us=1_000)
    assert link.price() == 149


@pytest.mark.parametrize("ahead_us", [0, 5_000_000, -5_000_000])
def test_the_end_of_what_another_hub_told_is_a_deadline_and_news_whatever_the_clock_of_the_next(ahead_us: int) -> None:
    link = Link().start(entry(valid_until_us=HUB_US + 500_000))
    assert link.news() == [("SOL/USD", 150)]
    link.state.disconnected(link.now_us)
    link.hub_us += ahead_us
    link.hello(OTHER)
    link.accept()
    link.snapshot(3, entry("149", publish_time_us=HUB_US - 1, valid_until_us=link.hub_us + 60_000_000))
    assert link.news() == [("SOL/USD", Refusal.TOO_OLD)]
    due_us = link.state.next_deadline_us()
    assert due_us is not None and 495_000 < due_us <= 500_000
    link.now_us = due_us - 1
    assert link.news() == []
    link.now_us = due_us
    assert link.state.on_timer(link.now_us) == []
    assert link.news() == [("SOL/USD", 149)]
    assert link.state.next_deadline_us() == link.state._received_us + 1_250_001


def test_the_same_hub_after_a_restart_is_taken_at_its_word() -> None:
    link = Link().start()
    link.state.disconnected(link.now_us)
    assert link.hello(epoch=8)["resume"]["epoch"] == 7
    link.accept(recovered=False)
    link.snapshot(1, entry("149", publish_time_us=HUB_US - 1), epoch=8)
    assert link.price() == 149
    link.state.turns(link.now_us)
    update = link.state.next_update(link.now_us)
    assert update is not None and update.lost


def test_mode_all_tells_every_entry_and_what_was_replayed() -> None:
    link = Link(mode="all").start()
    link.update(10, 11, entry("151"))
    link.state.disconnected(link.now_us)
    link.hello()
    link.accept(sub=1, recovered=True)
    link.update(11, 12, entry("152"), replayed=True)
    assert link.price() is Refusal.DISCONNECTED
    link.snapshot(12, entry("152"))
    assert link.price() == 152
    assert not link.is_full()
    for seq in range(13, 18):
        link.update(seq - 1, seq, entry(str(140 + seq)))
    assert link.is_full()  # eight entries of one feed
    link.state.turns(link.now_us)
    told = [link.state.next_update(link.now_us) for _ in range(8)]
    assert [update.entry.price for update in told if update and update.entry] == [str(150 + n) for n in range(8)]
    assert [update.replayed for update in told if update] == [False, False, True] + [False] * 5
    assert [isinstance(update.price, Price) for update in told if update] == [False] * 7 + [True]
    assert not link.state.has_update and not link.is_full()


def test_a_feed_that_was_refused_and_exists_now_is_asked_for_again() -> None:
    link = Link(feeds=("SOL/USD", "BTC/USD"))
    link.hello()
    link.accept(rejected=("BTC/USD",))
    link.snapshot(10, entry())
    assert (link.price("BTC/USD"), link.state.rejected) == (Refusal.UNKNOWN_FEED, {"BTC/USD": "unknown_feed"})
    link.state.disconnected(link.now_us)
    link.hello()
    link.accept(recovered=True)
    assert [request.get("resume") for request in link.requests] == [None, None]


def test_a_feed_that_was_removed_meanwhile_is_no_longer_held_after_a_resume() -> None:
    link = Link(feeds=("SOL/USD", "BTC/USD")).start(entry(), entry("7", "BTC/USD"))
    link.state.disconnected(link.now_us)
    link.hello()
    link.accept(recovered=True, rejected=("BTC/USD",))
    link.update(10, 11, conflated=True)
    line = digest_line("SOL/USD", "live", "150", HUB_US + 10_000_000, HUB_US)
    assert link.say("heartbeat", sub=1, epoch=7, seq=11, not_live=[], digest=digest([line])) == []
    assert (link.price(), link.price("BTC/USD"), link.requests) == (150, Refusal.UNKNOWN_FEED, [])
    assert link.state.counters.digest_mismatches == 0


@pytest.mark.parametrize(("mode", "resume"), [("latest", None), ("all", {"epoch": 7, "seq": 10, "instance": INSTANCE})])
def test_a_feed_that_was_refused_is_asked_for_when_a_reload_brings_it(mode: str, resume: object) -> None:
    link = Link(feeds=("SOL/USD", "BTC/USD"), mode=mode)
    link.hello()
    link.accept(rejected=("BTC/USD",))
    link.snapshot(10, entry())
    link.requests.clear()
    reload: dict[str, Any] = {"epoch": 7, "seq": 10, "policy": "strict", "config_hash": "c", "simulated": None}
    assert link.say("config", **reload, feeds=["SOL/USD"]) == [] and not link.requests
    assert link.say("config", **reload, feeds=["SOL/USD", "BTC/USD"]) == []
    assert [request["type"] for request in link.requests] == ["unsubscribe", "subscribe"]
    assert link.requests[1]["resume"] == resume
    link.accept(sub=2)
    link.snapshot(11, entry(), entry("7", "BTC/USD"), sub=2)
    assert (link.price(), link.price("BTC/USD"), link.state.rejected) == (150, 7, {})


def test_a_removed_feed_is_unknown() -> None:
    link = Link(feeds=("*",)).start()
    link.news()
    link.update(10, 11, entry(None, reason="removed"))
    assert link.price() is Refusal.UNKNOWN_FEED
    assert link.news() == [("SOL/USD", Refusal.UNKNOWN_FEED)]


@pytest.mark.parametrize(
    ("reason", "refusal"),
    [("diverged", Refusal.NONE), ("lease_over", Refusal.LEASE_OVER), ("max_age", Refusal.TOO_OLD)],
)
def test_the_hubs_reasons_are_kept(reason: str, refusal: Refusal) -> None:
    link = Link().start(entry(None, reason=reason))
    with pytest.raises(NoPrice) as caught:
        link.state.get("SOL/USD", link.now_us)
    assert (caught.value.reason, caught.value.hub_reason) == (refusal, reason)


def test_a_price_is_refused_by_the_age_that_its_caller_takes() -> None:
    link = Link().start()
    link.now_us = 900_000
    assert link.price(max_age_ms=1_000) == 150
    assert link.price(max_age_ms=899) is Refusal.TOO_OLD


@pytest.mark.parametrize("bad", ["1e9", "-5", "", "0", "１", "0x10"])
def test_a_price_that_is_no_positive_integer_ends_the_connection(bad: str) -> None:
    link = Link().start()
    (effect,) = link.update(10, 11, entry(bad))
    assert isinstance(effect, Reconnect) and "can't be read" in effect.why
    assert link.state._mirror.seq == 10


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"type":"update"}', b'{"type":"hello","epoch":"x"}', b"\xff"])
def test_what_is_no_message_ends_the_connection(data: bytes) -> None:
    link = Link().start()
    (effect,) = link.state.receive(data, link.now_us)
    assert isinstance(effect, Reconnect)


def test_a_message_of_a_later_version_is_left_alone() -> None:
    link = Link().start()
    assert link.state.receive(b'{"type":"weather","sub":1}', link.now_us) == []
    assert (link.state.counters.unknown_messages, link.price()) == (1, 150)


def test_goaway_and_errors_say_what_to_do() -> None:
    link = Link().start()
    assert link.say("goaway", reason="shutdown", retry_after_ms=250) == [
        Reconnect("the hub is going away: shutdown", 250)
    ]
    link = Link()
    request = link.hello()
    assert link.say("error", id=None, code="rate_limited", message="x") == []
    (effect,) = link.say("error", id=request["id"], code="rate_limited", message="x")
    assert isinstance(effect, Reconnect)
    (effect,) = link.say("error", id=request["id"], code="unsupported_option", message="x")
    assert isinstance(effect, GiveUp) and effect.code == "unsupported_option"


def test_silence_for_two_and_a_half_heartbeats_ends_the_connection() -> None:
    link = Link().start()
    heard_us = link.now_us
    assert link.state.next_deadline_us() == heard_us + 1_250_001
    assert link.state.on_timer(heard_us + 1_250_000) == []
    assert link.state.on_timer(heard_us + 1_250_001) == [Reconnect("nothing was heard for 1250 ms")]


def test_the_end_of_a_lease_is_a_deadline_and_news() -> None:
    link = Link().start(entry(valid_until_us=HUB_US + 500_000))
    assert link.news() == [("SOL/USD", 150)]
    due_us = link.state.next_deadline_us()
    assert due_us is not None and 495_000 < due_us <= 500_000
    link.now_us = due_us - 1_000
    assert link.news() == []
    link.now_us = due_us
    assert link.state.on_timer(link.now_us) == []
    (turned,) = link.state.turns(link.now_us)
    assert turned.refusal is not None and turned.refusal.reason is Refusal.LEASE_OVER
    assert link.state.next_deadline_us() == link.state._received_us + 1_250_001


def test_pings_keep_the_lower_bound_close() -> None:
    link = Link().start()
    good = digest([digest_line("SOL/USD", "live", "150", HUB_US + 10_000_000, HUB_US)])
    for _ in range(11):
        link.now_us += 499_000
        link.say("heartbeat", sub=1, epoch=7, seq=10, not_live=[], digest=good)
        if link.requests:
            break
    (ping,) = link.requests
    assert ping["type"] == "ping" and link.now_us >= 5_000_000
    before = link.state.offset.low_us(link.now_us)
    link.say("pong", id=ping["id"], received_us=HUB_US + link.now_us)
    after = link.state.offset.low_us(link.now_us)
    assert before is not None and after is not None and before < after <= -HUB_US


class TestClockOffset:
    def test_the_smallest_difference_counts(self) -> None:
        offset = ClockOffset()
        assert offset.latest_us(0) is None and offset.waited_us(0) == 0
        for sent_us, received_us in ((1_000, 1_300), (2_000, 2_100), (3_000, 3_900)):
            assert offset.heard(sent_us, received_us)
        assert offset.high_us(3_900) == 100
        assert offset.latest_us(4_000) == 3_900
        assert offset.waited_us(4_000) == 900

    def test_no_stall_makes_an_old_frame_young(self) -> None:
        offset = ClockOffset()
        offset.heard(0, 100)
        offset.heard(1_000, 600_001_100)  # ten minutes in a buffer
        assert offset.high_us(600_001_100) == 100 + 60_000  # 100 ppm of drift, no more
        assert offset.waited_us(600_001_100) == 599_940_000

    def test_a_request_bounds_it_from_below(self) -> None:
        offset = ClockOffset()
        offset.heard(10_500, 11_000)
        offset.answered(10_000, 10_200, 10_800)
        assert (offset.low_us(10_800), offset.high_us(11_000)) == (-200, 500)
        assert offset.latest_us(11_000) == 11_200
        offset.answered(20_000, 20_900, 21_000)  # slower: says less
        assert offset.low_us(21_000) == -201  # and 100 ppm of 10 ms


class TestAddresses:
    def test_they_take_turns_and_wait_longer_each_time(self) -> None:
        addresses = Addresses(["ws://a/", "ws://b/", "ws://a/"])
        assert [addresses.next(0) for _ in range(3)] == [("ws://a/", 0), ("ws://b/", 0), ("ws://a/", 0)]
        addresses.failed("ws://a/", "refused", 0, 0.5)
        assert addresses.next(0) == ("ws://b/", 0)
        addresses.failed("ws://b/", "refused", 0, 0.0)
        assert addresses.next(0) == ("ws://b/", 50_000)
        assert addresses.next(80_000) == ("ws://a/", 0)
        waits = []
        for _ in range(9):
            addresses.failed("ws://a/", "refused", 0, 0.999999)
            waits.append(addresses._not_before_us["ws://a/"])
        assert waits[:3] == [199_999, 399_999, 799_999] and waits[-1] == 9_999_995
        addresses.succeeded("ws://a/")
        addresses.failed("ws://a/", "refused", 0, 0.0)
        assert addresses._not_before_us["ws://a/"] == 50_000

    def test_who_stays_visits_a_hub_that_was_heard_once_more_before_the_next(self) -> None:
        addresses = Addresses(["ws://a/", "ws://b/"], stays=True)
        assert addresses.next(0) == ("ws://a/", 0)
        addresses.succeeded("ws://a/")
        addresses.failed("ws://a/", "closed with 1006", 0, 0.0)
        assert (addresses.next(0), addresses.returning) == (("ws://a/", 50_000), True)
        addresses.failed("ws://a/", "refused", 50_000, 0.0)  # it is gone
        assert (addresses.next(50_000), addresses.returning) == (("ws://b/", 0), False)
        addresses.succeeded("ws://b/")
        addresses.failed("ws://b/", "closed with 1006", 60_000, 0.0)
        assert addresses.next(60_000) == ("ws://b/", 50_000)
        addresses.succeeded("ws://b/")
        addresses.failed("ws://b/", "going away", 200_000, 0.0, retry_after_ms=1_000)  # it will not have anything
        assert (addresses.next(200_000), addresses.returning) == (("ws://a/", 0), False)
        addresses.failed("ws://a/", "closed with 1006", 200_000, 0.0)  # was there for a moment only
        assert addresses.next(200_000) == ("ws://a/", 200_000)  # the sooner of the two
        assert addresses.returning is False
        alone = Addresses(["ws://a/"], stays=True)
        alone.next(0)
        alone.succeeded("ws://a/")
        alone.failed("ws://a/", "closed with 1006", 0, 0.0)
        assert (alone.next(0), alone.returning) == (("ws://a/", 50_000), False)  # nobody waits for it to give up

    def test_a_hub_that_says_when_is_not_visited_before(self) -> None:
        addresses = Addresses(["ws://a/"])
        addresses.next(0)
        addresses.failed("ws://a/", "going away", 1_000, 0.0, retry_after_ms=2_000)
        assert addresses.next(1_000) == ("ws://a/", 2_000_000)
        addresses.failed("ws://a/", "going away", 0, 0.5, retry_after_ms=2_000)
        assert addresses.next(0) == ("ws://a/", 2_500_000)
        assert addresses.errors == {"ws://a/": "going away"}
