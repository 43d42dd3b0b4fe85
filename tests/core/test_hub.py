"""What the hub decides and when it says so, by value, on literal times."""

import pytest

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Batch, Decision, Hub, batch_digest
from oracle_hub.core.selector import Policy, Reason, Rule, State
from oracle_hub.core.source import Condition, Malformed, PriceUpdate, Status, Unchanged
from oracle_hub.core.table import Applied, InputStatus

T = 1_760_000_000_000_000
S = 1_000_000
P, A, B = "doves", "chainlink", "pyth"
MAX_AGE_US = {P: 5 * S, A: 7 * S, B: 9 * S}


def spec(feed: str = "SOL/USD", *, roles: tuple[str, str, str] = (P, A, B), **changes: object) -> FeedSpec:
    fields: dict[str, object] = {
        "feed": feed,
        "primary": roles[0],
        "verifiers": roles[1:],
        "max_age_us": {source: MAX_AGE_US.get(source, 5 * S) for source in roles},
    }
    return FeedSpec(**(fields | changes))  # type: ignore[arg-type]


def make(*feeds: FeedSpec) -> Hub:
    return Hub(Catalog(feeds or [spec()]), epoch=7, config_hash="c1", started_us=T)


def say(
    hub: Hub, source: str, mantissa: int, publish_us: int, *, feed: str = "SOL/USD", received_us: int | None = None
) -> Applied | None:
    received_us = publish_us if received_us is None else received_us
    return hub.apply(PriceUpdate(source, f"{source}:a", feed, mantissa, publish_us, received_us), received_us)


def say_all(hub: Hub, mantissa: int, at_us: int, feed: str = "SOL/USD") -> None:
    for source in (P, A, B):
        say(hub, source, mantissa, at_us, feed=feed)


def told(hub: Hub, now_us: int) -> Decision:
    """The one decision of a step that must publish."""
    batch = hub.step(now_us)
    assert batch is not None
    (decision,) = batch.decisions
    assert hub.decisions[decision.feed] is decision
    return decision


def brief(decision: Decision) -> tuple[str, str, str | None, int | None, int | None]:
    """State, reason, source, price, and the lease's end in microseconds after T."""
    lease = decision.valid_until_us
    return (
        decision.state.value,
        decision.reason.value,
        decision.source,
        decision.mantissa,
        None if lease is None else lease - T,
    )


@pytest.fixture
def live() -> Hub:
    """A hub with one live feed, all three heard at T + 1 s; batch 1 is sent."""
    hub = make()
    say_all(hub, 10_000, T + S)
    assert brief(told(hub, T + S)) == ("live", "agreed", P, 10_000, 6 * S + 1)
    return hub


class TestWarmUp:
    def test_nothing_is_live_or_degraded_before_all_are_heard(self) -> None:
        hub = make()
        assert brief(told(hub, T)) == ("none", "warming", None, None, 10 * S)
        say(hub, A, 10_000, T + 1)
        say(hub, B, 10_000, T + 2)
        assert hub.step(T + 3) is None
        assert hub.decisions["SOL/USD"].reason is Reason.WARMING
        say(hub, P, 10_001, T + 4)
        decision = told(hub, T + 4)
        assert brief(decision) == ("live", "agreed", P, 10_001, 4 + 5 * S + 1)
        assert [each.status for each in decision.inputs] == [InputStatus.OK] * 3

    def test_what_was_not_heard_counts_as_missing_at_the_deadline(self) -> None:
        hub = make()
        told(hub, T)
        say(hub, A, 10_000, T + 9 * S)
        say(hub, B, 10_001, T + 9 * S - 1)
        assert hub.step(T + 10 * S - 1) is None
        assert hub.next_deadline() == T + 10 * S
        decision = told(hub, T + 10 * S)
        assert brief(decision) == ("degraded", "primary_unusable", A, 10_000, 16 * S + 1)
        assert [each.status for each in decision.inputs] == [InputStatus.MISSING, InputStatus.OK, InputStatus.OK]

    def test_the_inputs_of_a_warming_feed_say_who_is_missing(self) -> None:
        hub = make()
        say(hub, A, 10_000, T)
        decision = told(hub, T)
        assert [(each.source, each.role, each.status.value) for each in decision.inputs] == [
            (P, "primary", "warming"),
            (A, "verifier", "ok"),
            (B, "verifier", "warming"),
        ]

    def test_with_nobody_heard_it_ends_in_too_few_and_stays(self) -> None:
        hub = make()
        told(hub, T)
        assert brief(told(hub, T + 10 * S)) == ("none", "too_few_sources", None, None, None)
        assert hub.next_deadline() is None
        assert hub.step(T + 3600 * S) is None

    def test_a_future_stamp_or_an_invalid_account_is_heard(self) -> None:
        hub = make()
        say(hub, A, 10_000, T)
        say(hub, B, 10_000, T)
        assert say(hub, P, 10_000, T + 3600 * S, received_us=T) is Applied.FUTURE
        decision = told(hub, T)
        assert brief(decision) == ("degraded", "primary_unusable", A, 10_000, 7 * S + 1)
        assert decision.inputs[0].status is InputStatus.FUTURE
        assert decision.inputs[0].held is None

    def test_a_reference_is_not_waited_for(self) -> None:
        ages = MAX_AGE_US | {"redstone": S}
        hub = make(spec(references=("redstone",), max_age_us=ages))
        say_all(hub, 10_000, T)
        decision = told(hub, T)
        assert decision.state is State.LIVE
        assert (decision.inputs[3].source, decision.inputs[3].role) == ("redstone", "reference")
        assert decision.inputs[3].status is InputStatus.MISSING

    def test_again_after_the_clock_was_anchored_anew(self, live: Hub) -> None:
        earlier = T - 3600 * S
        live.restart_warmup(earlier)
        assert live.pending
        assert brief(told(live, earlier)) == ("none", "warming", None, None, -3590 * S)
        say_all(live, 9_990, earlier + S)  # an hour older than what was held
        assert brief(told(live, earlier + S)) == ("live", "agreed", P, 9_990, -3594 * S + 1)

    def test_again_and_nobody_comes(self, live: Hub) -> None:
        live.restart_warmup(T + 3600 * S)
        told(live, T + 3600 * S)
        assert live.next_deadline() == T + 3610 * S
        assert brief(told(live, T + 3610 * S)) == ("none", "too_few_sources", None, None, None)


class TestLease:
    """The hub decides again at the very instant at which a lease ends, with no update."""

    def test_the_primary_dies(self, live: Hub) -> None:
        say(live, A, 10_001, T + 4 * S)
        say(live, B, 10_002, T + 4 * S)
        assert live.step(T + 4 * S) is None  # the primary still ends the lease
        assert live.next_deadline() == T + 6 * S + 1
        assert live.step(T + 6 * S) is None
        decision = told(live, T + 6 * S + 1)
        assert brief(decision) == ("degraded", "primary_unusable", A, 10_001, 11 * S + 1)
        assert decision.rule is Rule.R2
        assert decision.publish_us == T + 4 * S
        assert decision.inputs[0].status is InputStatus.STALE

    def test_then_all_die_one_after_another(self, live: Hub) -> None:
        seen = []
        while (deadline_us := live.next_deadline()) is not None:
            assert live.step(deadline_us - 1) is None
            decision = told(live, deadline_us)
            seen.append((deadline_us - T, decision.state.value, decision.reason.value))
        assert seen == [
            (6 * S + 1, "degraded", "primary_unusable"),
            (8 * S + 1, "none", "too_few_sources"),
        ]
        assert live.seq == 3

    def test_two_die_at_once(self) -> None:
        hub = make(spec(max_age_us=dict.fromkeys((P, A, B), 5 * S)))
        say(hub, P, 10_000, T)
        say(hub, A, 10_000, T)
        say(hub, B, 10_000, T + S)
        told(hub, T + S)
        assert hub.next_deadline() == T + 5 * S + 1
        assert brief(told(hub, T + 5 * S + 1)) == ("none", "too_few_sources", None, None, None)

    def test_one_verifier_dies(self, live: Hub) -> None:
        say(live, P, 10_000, T + 6 * S)
        say(live, B, 10_000, T + 6 * S)
        assert brief(told(live, T + 6 * S)) == ("live", "agreed", P, 10_000, 8 * S + 1)
        assert brief(told(live, T + 8 * S + 1)) == ("none", "verifier_unusable", None, None, 11 * S + 1)

    def test_a_late_step_decides_by_its_own_time(self, live: Hub) -> None:
        assert brief(told(live, T + 100 * S)) == ("none", "too_few_sources", None, None, None)

    def test_recovery_is_one_message(self, live: Hub) -> None:
        told(live, T + 100 * S)
        say_all(live, 9_000, T + 101 * S)
        batch = live.step(T + 101 * S)
        assert batch is not None and batch.seq == 3
        assert [brief(each) for each in batch.decisions] == [("live", "agreed", P, 9_000, 106 * S + 1)]

    def test_a_diverging_primary_is_rejected_at_once(self, live: Hub) -> None:
        say(live, P, 10_051, T + 2 * S)
        assert brief(told(live, T + 2 * S)) == ("degraded", "primary_diverged", A, 10_000, 7 * S + 1)
        say(live, P, 10_050, T + 3 * S)
        assert brief(told(live, T + 3 * S)) == ("live", "agreed", P, 10_050, 8 * S + 1)

    def test_the_more_recent_verifier_is_by_the_earlier_of_both_times(self, live: Hub) -> None:
        say(live, P, 20_000, T + 2 * S)
        say(live, A, 10_001, T + 2 * S + 10, received_us=T + 2 * S)  # stamped ahead of its receipt
        say(live, B, 10_002, T + 2 * S + 1, received_us=T + 2 * S + 1)
        assert told(live, T + 2 * S + 1).source == B

    def test_the_deadline_is_never_one_that_was_superseded(self, live: Hub) -> None:
        for second in range(2, 60):
            say_all(live, 10_000 + second, T + second * S)
            told(live, T + second * S)
            assert live.next_deadline() == live.decisions["SOL/USD"].valid_until_us == T + (second + 5) * S + 1

    def test_updates_leave_no_entries_behind(self) -> None:
        hub = make(*(spec(feed) for feed in ("SOL/USD", "BTC/USD", "ETH/USD")))
        most = 0
        for step in range(2_000):
            now_us = T + step * 1_000
            for feed in hub.catalog.feed_index:
                if step == 0 or feed != "BTC/USD":  # which keeps the first lease to end on top of the others
                    say_all(hub, 10_000 + step % 7, now_us, feed)
            hub.step(now_us)
            if step % 500 == 499:
                hub.apply(Status(P, "doves:a", None, Condition.INVALID, "", now_us), now_us)
                hub.step(now_us)
            most = max(most, len(hub._deadlines))
        assert most <= 4 * 3


class TestBatch:
    def test_it_is_named_and_gapless(self, live: Hub) -> None:
        assert live.seq == 1
        sequences = []
        for second in range(2, 6):
            say_all(live, 10_000, T + second * S)
            say_all(live, 10_000, T + second * S)
            batch = live.step(T + second * S)
            assert live.step(T + second * S) is None
            assert batch is not None
            assert (batch.epoch, batch.now_us, batch.config_hash) == (7, T + second * S, "c1")
            sequences.append(batch.seq)
        assert sequences == [2, 3, 4, 5]

    def test_a_burst_is_one_batch(self) -> None:
        hub = make(*(spec(f"F{number}/USD") for number in range(10)))
        for number in range(500):
            for source in (P, A, B):
                say(hub, source, 10_000 + number // 10, T + number, feed=f"F{number % 10}/USD")
        batch = hub.step(T + 500)
        assert batch is not None and batch.seq == 1
        assert [(each.feed, each.mantissa, each.publish_us) for each in batch.decisions] == [
            (f"F{number}/USD", 10_049, T + 490 + number) for number in range(10)
        ]
        assert not hub.pending and hub.step(T + 501) is None

    def test_only_what_changed_is_in_it(self) -> None:
        hub = make(spec("SOL/USD"), spec("BTC/USD"))
        say_all(hub, 10_000, T, "SOL/USD")
        say_all(hub, 50_000, T, "BTC/USD")
        assert hub.step(T) is not None
        say(hub, P, 50_001, T + 1, feed="BTC/USD")
        assert told(hub, T + 1).feed == "BTC/USD"

    def test_a_later_publish_time_at_an_equal_price_is_published(self, live: Hub) -> None:
        say(live, P, 10_000, T + 2 * S)
        decision = told(live, T + 2 * S)
        assert (decision.publish_us, decision.valid_until_us) == (T + 2 * S, T + 7 * S + 1)

    def test_a_later_publish_time_under_an_equal_lease_is_published(self, live: Hub) -> None:
        say(live, P, 10_000, T + 4 * S)
        told(live, T + 4 * S)  # the lease is now the first verifier's: T + 8 s
        say(live, P, 10_000, T + 5 * S)
        decision = told(live, T + 5 * S)
        assert (decision.publish_us, decision.valid_until_us) == (T + 5 * S, T + 8 * S + 1)

    def test_a_longer_lease_alone_is_published(self, live: Hub) -> None:
        say(live, P, 10_000, T + 4 * S)
        told(live, T + 4 * S)
        say(live, A, 10_000, T + 4 * S)
        assert brief(told(live, T + 4 * S)) == ("live", "agreed", P, 10_000, 9 * S + 1)

    def test_nothing_new_is_no_batch(self, live: Hub) -> None:
        live.apply(Malformed(P, "doves:a", "SOL/USD", "short", T), T)
        live.apply(Unchanged(P, "doves:a", "SOL/USD", T), T)
        live.apply(Status(P, "doves:a", "SOL/USD", Condition.RATE_LIMITED, "", T), T)
        live.apply(Status(P, "doves:a", "DOGE/USD", Condition.INVALID, "", T), T)
        assert say(live, P, 10_000, T, feed="DOGE/USD") is Applied.UNKNOWN
        assert not live.pending
        assert say(live, P, 10_000, T + S) is Applied.DUPLICATE
        assert say(live, P, 10_009, T + S) is Applied.CONFLICT
        assert say(live, P, 10_009, T) is Applied.OLDER
        assert live.step(T + 2 * S) is None
        assert live.seq == 1

    def test_one_future_stamp_locks_nothing(self, live: Hub) -> None:
        assert say(live, P, 99_999, T + 3600 * S, received_us=T + 2 * S) is Applied.FUTURE
        decision = told(live, T + 2 * S)
        assert brief(decision) == ("degraded", "primary_unusable", A, 10_000, 8 * S + 1)
        assert decision.inputs[0].status is InputStatus.FUTURE
        assert decision.inputs[0].held is not None and decision.inputs[0].held.mantissa == 10_000
        say(live, P, 10_003, T + 3 * S)
        assert brief(told(live, T + 3 * S)) == ("live", "agreed", P, 10_003, 8 * S + 1)

    def test_an_invalid_primary_and_its_return(self, live: Hub) -> None:
        live.apply(Status(P, "doves:a", "SOL/USD", Condition.INVALID, "price 0", T + 2 * S), T + 2 * S)
        assert told(live, T + 2 * S).reason is Reason.PRIMARY_UNUSABLE
        say(live, P, 10_000, T + S, received_us=T + 3 * S)  # a lagging second RPC
        assert live.step(T + 3 * S) is None
        say(live, P, 10_000, T + 4 * S)
        assert told(live, T + 4 * S).reason is Reason.AGREED

    def test_digests_are_equal_for_equal_runs_and_only_for_them(self) -> None:
        def run(last: int) -> list[bytes]:
            hub, digests = make(), []
            for second in range(20):
                for source in (P, A, B):
                    say(hub, source, 10_000 + second * last, T + second * S)
                batch = hub.step(T + second * S)
                assert isinstance(batch, Batch)
                digests.append(batch_digest(batch))
            return digests

        assert run(1) == run(1)
        assert all(len(digest) == 16 for digest in run(1))
        assert run(1)[0] == run(2)[0] and run(1)[1] != run(2)[1]


class TestBlock:
    def test_no_price_until_released(self, live: Hub) -> None:
        live.block(Reason.CLOCK_SKEW)
        assert brief(told(live, T + 2 * S)) == ("none", "clock_skew", None, None, None)
        assert live.next_deadline() is None
        say_all(live, 10_001, T + 3 * S)
        assert live.step(T + 3 * S) is None
        live.block(Reason.CLOCK_SKEW)
        assert not live.pending
        live.unblock(Reason.CLOCK_SKEW)
        assert brief(told(live, T + 4 * S)) == ("live", "agreed", P, 10_001, 8 * S + 1)

    def test_the_first_of_two_reasons_is_told_and_both_must_end(self, live: Hub) -> None:
        live.block(Reason.JOURNAL)
        assert told(live, T + 2 * S).reason is Reason.JOURNAL
        live.block(Reason.CLOCK_SKEW)
        assert told(live, T + 2 * S).reason is Reason.CLOCK_SKEW
        live.unblock(Reason.CLOCK_SKEW)
        assert told(live, T + 2 * S).reason is Reason.JOURNAL
        live.unblock(Reason.JOURNAL)
        assert told(live, T + 2 * S).state is State.LIVE

    def test_released_before_the_step_is_nothing(self, live: Hub) -> None:
        live.block(Reason.CLOCK_SKEW)
        live.unblock(Reason.CLOCK_SKEW)
        assert live.step(T + 2 * S) is None
        assert live.next_deadline() == T + 6 * S + 1

    def test_it_stands_over_warm_up(self) -> None:
        hub = make()
        hub.block(Reason.JOURNAL)
        assert told(hub, T).reason is Reason.JOURNAL
        hub.unblock(Reason.JOURNAL)
        assert brief(told(hub, T + 1)) == ("none", "warming", None, None, 10 * S)


class TestReload:
    def test_nothing_changes_and_the_lease_still_ends(self, live: Hub) -> None:
        live.reload(Catalog([spec()]), "c2")
        assert live.next_deadline() == T + 6 * S + 1
        assert live.step(T + 2 * S) is None
        assert live.next_deadline() == T + 6 * S + 1
        batch = live.step(T + 6 * S + 1)
        assert batch is not None and batch.config_hash == "c2" and batch.seq == 2
        assert batch.decisions[0].reason is Reason.PRIMARY_UNUSABLE

    def test_during_warm_up_its_end_stays(self) -> None:
        hub = make()
        told(hub, T)
        hub.reload(Catalog([spec()]), "c2")
        assert hub.step(T + 2 * S) is None
        assert hub.next_deadline() == T + 10 * S
        assert told(hub, T + 10 * S).reason is Reason.TOO_FEW_SOURCES

    def test_a_source_that_was_missing_is_not_waited_for_again(self) -> None:
        hub = make()
        say(hub, A, 10_000, T + 9 * S)
        say(hub, B, 10_000, T + 9 * S)
        told(hub, T + 10 * S)
        hub.reload(Catalog([spec()]), "c2")
        assert hub.step(T + 11 * S) is None
        assert hub.decisions["SOL/USD"].reason is Reason.PRIMARY_UNUSABLE

    def test_a_feed_that_is_gone_gets_a_last_word(self) -> None:
        hub = make(spec("SOL/USD"), spec("BTC/USD"))
        say_all(hub, 10_000, T, "SOL/USD")
        say_all(hub, 50_000, T, "BTC/USD")
        hub.step(T)
        hub.reload(Catalog([spec("BTC/USD")]), "c2")
        hub.reload(Catalog([spec("BTC/USD")]), "c3")  # twice before the step: still told
        assert hub.pending
        batch = hub.step(T + S)
        assert batch is not None
        assert [(each.feed, *brief(each)) for each in batch.decisions] == [
            ("SOL/USD", "none", "removed", None, None, None)
        ]
        assert set(hub.decisions) == {"BTC/USD"}
        assert hub.step(T + S) is None
        assert hub.next_deadline() == T + 5 * S + 1

    def test_gone_and_back_before_the_step_is_a_new_feed(self, live: Hub) -> None:
        live.reload(Catalog([spec("BTC/USD")]), "c2")
        live.reload(Catalog([spec("SOL/USD")]), "c3")
        assert brief(told(live, T + 2 * S)) == ("none", "warming", None, None, 12 * S)

    def test_a_new_feed_warms_up(self, live: Hub) -> None:
        live.reload(Catalog([spec("BTC/USD"), spec("SOL/USD")]), "c2")
        assert (told(live, T + 2 * S).feed, live.decisions["BTC/USD"].valid_until_us) == ("BTC/USD", T + 12 * S)
        say(live, A, 50_000, T + 3 * S, feed="BTC/USD")
        say(live, B, 50_000, T + 3 * S, feed="BTC/USD")
        assert live.step(T + 3 * S) is None
        say(live, P, 50_000, T + 3 * S, feed="BTC/USD")
        assert told(live, T + 3 * S).state is State.LIVE

    def test_a_new_source_is_waited_for(self, live: Hub) -> None:
        live.reload(Catalog([spec(roles=(P, A, "lazer"), policy=Policy.QUORUM)]), "c2")
        decision = told(live, T + 2 * S)
        assert brief(decision) == ("none", "warming", None, None, 12 * S)
        assert [each.status.value for each in decision.inputs] == ["ok", "ok", "warming"]
        say(live, "lazer", 10_000, T + 3 * S)
        assert brief(told(live, T + 3 * S)) == ("live", "agreed", P, 10_000, 6 * S + 1)

    def test_a_new_source_that_does_not_come_is_missing(self, live: Hub) -> None:
        live.reload(Catalog([spec(roles=(P, A, "lazer"), policy=Policy.QUORUM)]), "c2")
        told(live, T + 2 * S)
        say(live, P, 10_000, T + 11 * S)
        say(live, A, 10_000, T + 11 * S)
        assert brief(told(live, T + 12 * S)) == ("degraded", "verifier_unusable", P, 10_000, 16 * S + 1)

    def test_roles_change_places(self, live: Hub) -> None:
        live.reload(Catalog([spec(roles=(B, P, A))]), "c2")
        assert brief(told(live, T + 2 * S)) == ("live", "agreed", B, 10_000, 6 * S + 1)

    def test_another_threshold(self, live: Hub) -> None:
        say(live, P, 10_040, T + 2 * S)
        told(live, T + 2 * S)
        live.reload(Catalog([spec(max_divergence_bps=39)]), "c2")
        assert told(live, T + 2 * S).reason is Reason.PRIMARY_DIVERGED

    def test_another_policy(self, live: Hub) -> None:
        live.apply(Status(B, "pyth:a", None, Condition.HALTED, "", T + 2 * S), T + 2 * S)
        assert brief(told(live, T + 2 * S))[:2] == ("none", "verifier_unusable")
        live.reload(Catalog([spec(policy=Policy.QUORUM)]), "c2")
        assert brief(told(live, T + 2 * S)) == ("degraded", "verifier_unusable", P, 10_000, 6 * S + 1)

    def test_another_max_age(self, live: Hub) -> None:
        live.reload(Catalog([spec(max_age_us={P: 2 * S, A: 2 * S, B: 2 * S})]), "c2")
        assert brief(told(live, T + 2 * S)) == ("live", "agreed", P, 10_000, 3 * S + 1)
        assert live.next_deadline() == T + 3 * S + 1

    def test_another_exponent_begins_anew(self, live: Hub) -> None:
        live.reload(Catalog([spec(expo=-10)]), "c2")
        decision = told(live, T + 2 * S)
        assert (decision.expo, decision.reason, decision.mantissa) == (-10, Reason.WARMING, None)

    def test_the_watermark_carries_over(self, live: Hub) -> None:
        live.reload(Catalog([spec()]), "c2")
        assert say(live, P, 9_999, T) is Applied.OLDER

    def test_what_is_read_from_elsewhere_begins_anew(self, live: Hub) -> None:
        live.reload(Catalog([spec()]), "c2", {(P, "SOL/USD"), (B, "BTC/USD")})
        assert brief(told(live, T + 2 * S)) == ("none", "warming", None, None, 12 * S)
        assert say(live, P, 10_001, T - 3 * S) is Applied.TAKEN  # later than nothing, if earlier than what was held
        assert told(live, T + 2 * S).mantissa == 10_001

    def test_while_blocked(self, live: Hub) -> None:
        live.block(Reason.CLOCK_SKEW)
        told(live, T + 2 * S)
        live.reload(Catalog([spec("SOL/USD"), spec("BTC/USD")]), "c2")
        decision = told(live, T + 3 * S)
        assert (decision.feed, decision.reason) == ("BTC/USD", Reason.CLOCK_SKEW)
