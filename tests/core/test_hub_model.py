"""The hub against a naive twin, under random updates, times, blocks and reloads.

The twin keeps the accepted updates of every source in a dictionary, and works every feed out from scratch at every
instant with plain ifs. It shares no code with the table, the selector or the lease: a lease is found by trying the
instants after each age limit one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from oracle_hub.core.catalog import Catalog, FeedSpec, Redistribute
from oracle_hub.core.hub import Batch, Decision, Hub, batch_digest
from oracle_hub.core.selector import Policy, Reason
from oracle_hub.core.source import Condition, Event, PriceUpdate, Status

T = 1_760_000_000_000_000
WARMUP_US = 100
SKEW_US = 20
BPS = 50
P, A, B = "doves", "chainlink", "pyth"

Verdict: TypeAlias = tuple[str, str, str, str | None, int | None, int | None]
"""State, rule, reason, source, price, publish time."""


def feed(
    name: str, policy: Policy, roles: tuple[str, str, str], ages_us: tuple[int, int, int], *hidden: str
) -> FeedSpec:
    return FeedSpec(
        feed=name,
        primary=roles[0],
        verifiers=roles[1:],
        policy=policy,
        max_divergence_bps=BPS,
        max_conf_bps=100,
        max_age_us=dict(zip(roles, ages_us, strict=True)),
        redistribute=dict.fromkeys(hidden, Redistribute.NO),
    )


CATALOGS = [
    [feed("X", Policy.STRICT, (P, A, B), (50, 70, 90)), feed("Y", Policy.QUORUM, (P, A, B), (60, 60, 60))],
    [feed("X", Policy.QUORUM, (P, A, B), (50, 70, 90)), feed("Y", Policy.QUORUM, (P, A, B), (60, 60, 60))],
    [feed("X", Policy.STRICT, (P, A, B), (30, 90, 90))],
    [feed("X", Policy.STRICT, (P, A, B), (30, 90, 90), A), feed("Y", Policy.QUORUM, (P, A, B), (60, 60, 60), A, B)],
    [feed("Y", Policy.STRICT, (B, P, A), (60, 60, 60)), feed("X", Policy.STRICT, (P, A, B), (50, 70, 90))],
]


@dataclass
class Said:
    """What one source said of one feed."""

    heard: bool = False
    held: PriceUpdate | None = None
    future: bool = False
    bad: bool = False


@dataclass
class Twin:
    """What the hub should know, and what follows from it."""

    feeds: dict[str, FeedSpec]
    warm_until_us: dict[str, int | None]
    """None: set by the next step."""
    said: dict[tuple[str, str], Said] = field(default_factory=dict)
    warm: set[str] = field(default_factory=set)
    blocked: Reason | None = None

    def cell(self, source: str, name: str) -> Said:
        return self.said.setdefault((source, name), Said())

    def update(self, update: PriceUpdate, now_us: int) -> None:
        if update.feed not in self.feeds:
            return
        cell = self.cell(update.source, update.feed)
        cell.heard = True
        if update.publish_us - now_us > SKEW_US:
            cell.future = True
            return
        cell.future = False
        held = cell.held
        if held is None or update.publish_us > held.publish_us:
            newer = True
        elif update.publish_us < held.publish_us or update.mantissa == held.mantissa:
            newer = False
        else:
            newer = update.slot > held.slot > 0
        if newer:
            cell.held, cell.bad = update, False

    def bad(self, source: str, name: str) -> None:
        if name in self.feeds:
            cell = self.cell(source, name)
            cell.bad = cell.heard = True

    def usable(self, source: str, spec: FeedSpec, at_us: int) -> bool:
        cell = self.cell(source, spec.feed)
        if cell.held is None or cell.future or cell.bad:
            return False
        age_us = max(at_us - cell.held.publish_us, at_us - cell.held.received_us)
        if age_us > spec.max_age_us[source]:
            return False
        return cell.held.conf is None or 10_000 * cell.held.conf <= 100 * cell.held.mantissa

    def warming(self, spec: FeedSpec, at_us: int) -> bool:
        if spec.feed in self.warm:
            return False
        until_us = self.warm_until_us[spec.feed]
        assert until_us is not None
        return at_us < until_us and not all(self.cell(source, spec.feed).heard for source in spec.roles)

    def verdict(self, spec: FeedSpec, at_us: int) -> Verdict:
        if self.blocked is not None:
            return ("none", "R3", self.blocked.value, None, None, None)
        if self.warming(spec, at_us):
            return ("none", "R3", "warming", None, None, None)
        held = {source: self.cell(source, spec.feed).held for source in spec.roles if self.usable(source, spec, at_us)}

        def near(one: str, two: str) -> bool:
            left, right = held[one], held[two]
            assert left is not None and right is not None
            low, high = sorted((left.mantissa, right.mantissa))
            return high - low <= BPS * low // 10_000

        def chosen(state: str, which: str, why: str, source: str) -> Verdict:
            update = held[source]
            assert update is not None
            return (state, which, why, source, update.mantissa, update.publish_us)

        def none(why: str) -> Verdict:
            return ("none", "R3", why, None, None, None)

        p, a, b = spec.roles
        if len(held) < 2:
            return none("too_few_sources")
        if len(held) == 3 and near(p, a) and near(p, b):
            return chosen("live", "R1", "agreed", p)
        if a in held and b in held:
            if not near(a, b):
                return none("diverged")
            free = [source for source in (a, b) if spec.redistribute.get(source) != "no"]
            if not free:
                return none("not_redistributable")
            why = "primary_diverged" if p in held else "primary_unusable"
            return chosen("degraded", "R2", why, max(free, key=lambda source: self.recency(source, spec)))
        if not near(p, a if a in held else b):
            return none("diverged")
        if spec.policy == "quorum":
            return chosen("degraded", "R1", "verifier_unusable", p)
        return none("verifier_unusable")

    def recency(self, source: str, spec: FeedSpec) -> int:
        held = self.cell(source, spec.feed).held
        assert held is not None
        return min(held.publish_us, held.received_us)

    def lease(self, spec: FeedSpec, at_us: int) -> int | None:
        """The first microsecond at which the verdict differs: none lies beyond the longest age and the warm-up."""
        now = self.verdict(spec, at_us)
        if self.blocked is not None:
            return None
        if self.warming(spec, at_us):
            return self.warm_until_us[spec.feed]
        candidates = sorted(
            self.recency(source, spec) + spec.max_age_us[source] + 1
            for source in spec.roles
            if self.cell(source, spec.feed).held is not None
        )
        for instant_us in candidates:
            if instant_us > at_us and self.verdict(spec, instant_us) != now:
                return instant_us
        return None

    def begin_step(self, now_us: int) -> None:
        for name, until_us in self.warm_until_us.items():
            if until_us is None:
                self.warm_until_us[name] = now_us + WARMUP_US
        for name, spec in self.feeds.items():
            if not self.warming(spec, now_us):
                self.warm.add(name)

    def reload(self, feeds: list[FeedSpec]) -> None:
        names = {spec.feed for spec in feeds}
        self.said = {key: said for key, said in self.said.items() if key[1] in names}
        self.warm &= names
        self.warm_until_us = {name: self.warm_until_us.get(name) for name in names}
        self.feeds = {spec.feed: spec for spec in feeds}


def verdict_of(decision: Decision) -> Verdict:
    return (
        decision.state.value,
        decision.rule.value,
        decision.reason.value,
        decision.source,
        decision.mantissa,
        decision.publish_us,
    )


class HubAgainstTwin(RuleBasedStateMachine):
    """Three hubs take the same events: one steps whenever it can, one also a lot for nothing, one repeats the first."""

    @initialize()
    def start(self) -> None:
        self.now_us = T
        catalog = Catalog(CATALOGS[0], max_future_us=SKEW_US)
        self.hub, self.eager, self.again = (
            Hub(catalog, epoch=1, config_hash="0", started_us=T, warmup_us=WARMUP_US) for _ in range(3)
        )
        feeds = {spec.feed: spec for spec in CATALOGS[0]}
        self.twin = Twin(feeds, dict.fromkeys(feeds, T + WARMUP_US))
        self.script: list[Callable[[Hub], Batch | None]] = []
        self.digests: list[bytes] = []
        self.seq = 0
        self.published: dict[str, Decision] = {}
        self.step()

    def do(self, action: Callable[[Hub], object]) -> None:
        """The same to all hubs; the script makes the third repeat it at the end."""
        action(self.hub)
        action(self.eager)

        def repeat(hub: Hub) -> Batch | None:
            action(hub)
            return None

        self.script.append(repeat)
        self.eager.step(self.now_us)

    def send(self, event: Event) -> None:
        now_us = self.now_us
        self.do(lambda hub: hub.apply(event, now_us))

    @rule(
        source=st.sampled_from((P, A, B)),
        name=st.sampled_from("XXXY"),
        mantissa=st.sampled_from((10_000, 10_000, 10_000, 10_050, 10_051, 10_101)),
        lag_us=st.sampled_from((0, 0, 0, 1, 5, 20, 60, -10, -20, -21, -500)),
        slot=st.integers(0, 3),
        wide=st.sampled_from((None, None, 0, 100, 102)),
    )
    def update(self, source: str, name: str, mantissa: int, lag_us: int, slot: int, wide: int | None) -> None:
        update = PriceUpdate(source, "solana:a", name, mantissa, self.now_us - lag_us, self.now_us, wide, slot)
        self.twin.update(update, self.now_us)
        self.send(update)

    @rule(
        lags_us=st.tuples(*[st.sampled_from((0, 1, 3, -10, -20))] * 3),
        mantissa=st.sampled_from((9_990, 10_000, 10_010)),
        name=st.sampled_from("XY"),
        us=st.integers(0, 60),
    )
    def all_update(self, lags_us: tuple[int, ...], mantissa: int, name: str, us: int) -> None:
        for source, lag_us in zip((P, A, B), lags_us, strict=True):
            self.update(source, name, mantissa, lag_us, 0, None)
        self.pass_time(us)

    @rule(
        source=st.sampled_from((P, A, B)),
        name=st.sampled_from("XY"),
        what=st.sampled_from((Condition.INVALID, Condition.HALTED)),
    )
    def condition(self, source: str, name: str, what: Condition) -> None:
        self.twin.bad(source, name)
        self.send(Status(source, "solana:a", name, what, "", self.now_us))

    @rule(what=st.integers(0, 12))
    def disturb(self, what: int) -> None:
        """In one rule, so that most of a run is not spent without a price."""
        if what < len(CATALOGS):
            self.reload(what)
        elif what == 5:
            self.anchor_anew()
        else:
            self.block({Reason.CLOCK_SKEW} if what == 6 else {Reason.JOURNAL} if what == 7 else set())

    def block(self, reasons: set[Reason]) -> None:
        self.twin.blocked = next(iter(reasons), None)

        def change(hub: Hub) -> None:
            for reason in (Reason.CLOCK_SKEW, Reason.JOURNAL):
                if reason in reasons:
                    hub.block(reason)
                else:
                    hub.unblock(reason)

        self.do(change)

    def reload(self, number: int) -> None:
        self.step()
        for spec in CATALOGS[number]:
            before = self.twin.feeds.get(spec.feed)
            if before is not None and before.redistribute != spec.redistribute:
                self.published.pop(spec.feed, None)  # told anew: more or less of its inputs may be shown
        self.twin.reload(CATALOGS[number])
        self.do(lambda hub: hub.reload(Catalog(CATALOGS[number], max_future_us=SKEW_US), str(number)))
        self.step()

    def anchor_anew(self) -> None:
        self.now_us -= 1_000
        now_us = self.now_us
        self.twin = replace(self.twin, said={}, warm=set())
        self.twin.warm_until_us = dict.fromkeys(self.twin.feeds, now_us + WARMUP_US)
        self.do(lambda hub: hub.restart_warmup(now_us))
        self.step()

    @rule(us=st.integers(0, 60))
    def pass_time(self, us: int) -> None:
        """As the program does: a step at the end of the turn, and one at the end of each lease on the way."""
        self.step()
        until_us = self.now_us + us
        while (deadline_us := self.hub.next_deadline()) is not None and deadline_us <= until_us:
            assert deadline_us > self.now_us, "a lease that is over already"
            for between_us in range(self.now_us + 1, deadline_us):
                assert self.eager.step(between_us) is None, "a batch without a change"
            self.now_us = deadline_us
            seq = self.seq
            self.step()
            assert self.seq == seq + 1, "a lease that ended without a change"
        self.now_us = until_us
        self.step()

    @rule()
    def step(self) -> None:
        now_us = self.now_us
        self.twin.begin_step(now_us)
        self.script.append(lambda hub: hub.step(now_us))
        batch = self.hub.step(now_us)
        self.eager.step(now_us)
        if batch is not None:
            self.seq += 1
            assert (batch.epoch, batch.seq, batch.now_us) == (1, self.seq, now_us)
            assert batch.decisions
            self.digests.append(batch_digest(batch))
            self.compare_batch(batch)
        assert not self.hub.pending
        for name, spec in self.twin.feeds.items():
            decision = self.hub.decisions[name]
            assert verdict_of(decision) == self.twin.verdict(spec, now_us)
            assert decision.valid_until_us == self.twin.lease(spec, now_us)
            assert decision == self.published[name], "a decision that nobody was told"
            eager = self.eager.decisions[name]
            assert (verdict_of(eager), eager.valid_until_us) == (verdict_of(decision), decision.valid_until_us)
        assert self.hub.decisions.keys() == self.published.keys() == self.twin.feeds.keys()

    def compare_batch(self, batch: Batch) -> None:
        for decision in batch.decisions:
            before = self.published.get(decision.feed)
            if before is not None:
                told = (verdict_of(decision), decision.valid_until_us, decision.conf)
                assert told != (verdict_of(before), before.valid_until_us, before.conf), "told twice"
            if decision.reason is Reason.REMOVED:
                del self.published[decision.feed]
            else:
                self.published[decision.feed] = decision

    @invariant()
    def the_next_deadline_is_the_first_end_of_a_lease(self) -> None:
        leases = [
            decision.valid_until_us for decision in self.hub.decisions.values() if decision.valid_until_us is not None
        ]
        assert self.hub.next_deadline() == min(leases, default=None)
        assert len(self.hub._deadlines) <= 4 * len(self.hub.catalog.feeds)

    def teardown(self) -> None:
        if hasattr(self, "script"):
            batches = [batch for action in self.script if (batch := action(self.again)) is not None]
            assert [batch_digest(batch) for batch in batches] == self.digests


TestHubAgainstTwin = HubAgainstTwin.TestCase
TestHubAgainstTwin.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
