"""Plays an incident through hub and alert engine, on the path that production takes. Pure; time is the script's.

Updates go through :meth:`Hub.apply`; the hub decides after each burst and at the end of each lease; the alert engine
sees what follows from every step, and its timers run between. A restart of the script makes a new hub, which holds
nothing and warms up; the engine goes on from its saved state, as in production.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import groupby

import msgspec

from oracle_hub.alerts.alert import Transition
from oracle_hub.alerts.engine import AlertEngine
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Decision, Hub
from oracle_hub.core.selector import Policy, Reason, Rule, State
from oracle_hub.core.source import Event, PriceUpdate
from oracle_hub.core.stall import StallRule
from oracle_hub.core.table import Applied
from oracle_hub.incidents.script import Script, decimal
from oracle_hub.incidents.timeline import arrivals, mantissa_of, proofs, truth_at

SAMPLE_US = 1_000_000
"""A price in force is compared with the truth at least so often, and at every decision."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration that an incident meets. Defaults are those of a fast source of each role."""

    policy: Policy | None = None
    """None: each feed's own."""
    default_policy: Policy = Policy.STRICT
    """Of feeds without limits of their own."""
    roles: tuple[str, str, str] = ("doves", "chainlink", "pyth")
    max_age_us: tuple[int, int, int] = (5_000_000, 5_000_000, 5_000_000)
    max_divergence_bps: int = 50
    max_conf_bps: int = 0
    max_future_us: int = 2_000_000
    stall: StallRule = StallRule()
    warmup_us: int = 10_000_000
    alerts: AlertSettings = AlertSettings()
    feeds: Mapping[str, FeedSpec] = {}
    """Feeds with limits of their own."""

    def spec(self, feed: str) -> FeedSpec:
        """The limits of one feed."""
        own = self.feeds.get(feed)
        if own is not None:
            return msgspec.structs.replace(own, references=(), policy=self.policy or own.policy)
        return FeedSpec(
            feed=feed,
            primary=self.roles[0],
            verifiers=self.roles[1:],
            policy=self.policy or self.default_policy,
            max_divergence_bps=self.max_divergence_bps,
            max_conf_bps=self.max_conf_bps,
            max_age_us=dict(zip(self.roles, self.max_age_us, strict=True)),
        )


class Stretch(msgspec.Struct, kw_only=True):
    """Time under one outcome: state, rule and reason stay; the price moves, and who of two verifiers is newer."""

    feed: str
    from_us: int
    """Since the start of the script, as all times here."""
    until_us: int
    state: State
    rule: Rule
    reason: Reason
    sources: dict[str, int] = {}
    """Whose price, in how many decisions."""
    first: int | None = None
    lowest: int | None = None
    highest: int | None = None
    down: bool = False
    """The hub did not run."""


class Worst(msgspec.Struct, frozen=True):
    """The price furthest from the truth among those in force."""

    at_us: int
    price: int
    truth: int
    off_centibps: int
    """Hundredths of a basis point of the smaller."""


class Played(msgspec.Struct, kw_only=True):
    """What became of it."""

    script: Script
    conditions: Conditions
    specs: dict[str, FeedSpec]
    stretches: dict[str, list[Stretch]]
    alerts: list[Transition]
    worst: dict[str, Worst | None]
    samples: dict[str, list[tuple[int, int | None, int]]]
    """Per feed (instant, price in force or None, truth), once a second."""


class Watcher(msgspec.Struct, frozen=True):
    """Looks on; for tests that hold the rule against what was decided."""

    after_step: Callable[[Hub, int], None]


class _Player:
    def __init__(self, script: Script, conditions: Conditions, watcher: Watcher | None) -> None:
        self.script, self.conditions, self.watcher = script, conditions, watcher
        self.specs = {feed: conditions.spec(feed) for feed in script.feeds}
        self.catalog = Catalog(
            self.specs.values(),
            max_future_us=conditions.max_future_us,
            stall=conditions.stall,
            proof=proofs(script, self.specs),
        )
        pegs = {
            name: mantissa_of(decimal(feed.peg), self.specs[name].expo)
            for name, feed in script.feeds.items()
            if feed.peg is not None
        }
        self.settings = msgspec.structs.replace(conditions.alerts, pegs={**pegs, **conditions.alerts.pegs})
        self.engine = AlertEngine(self.settings)
        self.epoch = 0
        self.hub: Hub | None = None
        self.now_us = script.start_us
        self.sample_us = script.start_us
        self.alerts: list[Transition] = []
        self.stretches: dict[str, list[Stretch]] = {feed: [] for feed in script.feeds}
        self.worst: dict[str, Worst | None] = dict.fromkeys(script.feeds)
        self.samples: dict[str, list[tuple[int, int | None, int]]] = {feed: [] for feed in script.feeds}

    def start(self) -> None:
        self.epoch += 1
        self.hub = Hub(
            self.catalog,
            epoch=self.epoch,
            config_hash="",
            started_us=self.now_us,
            warmup_us=self.conditions.warmup_us,
        )
        self.step([])

    def kill(self) -> None:
        """Nothing is left but what the alert engine saves."""
        self.hub = None
        saved = msgspec.json.decode(msgspec.json.encode(self.engine.state()))
        self.engine = AlertEngine(self.settings)
        self.engine.restore(saved)
        for feed, stretches in self.stretches.items():
            self._close(feed)
            stretches.append(
                Stretch(
                    feed=feed, from_us=self._since(), until_us=self._since(), state=State.NONE, rule=Rule.R3,
                    reason=Reason.WARMING, down=True,
                )
            )  # fmt: skip

    def until(self, at_us: int) -> None:
        """Let time pass: leases end and timers fire at their own instants."""
        while self.hub is not None and (due_us := self.hub.next_deadline()) is not None and due_us <= at_us:
            self._sample(due_us)
            self.now_us = max(self.now_us, due_us)
            self.step([])
        self._sample(at_us)
        self.now_us = at_us
        if self.hub is not None:
            self.alerts += self.engine.advance(at_us)

    def step(self, conflicts: list[tuple[str, str]]) -> None:
        hub = self.hub
        assert hub is not None
        batch = hub.step(self.now_us)
        self.alerts += self.engine.look(self.now_us, hub, conflicts)
        if batch is not None:
            for decision in batch.decisions:
                self._note(decision)
        if self.watcher is not None:
            self.watcher.after_step(hub, self.now_us)

    def take(self, events: Sequence[Event]) -> None:
        if self.hub is None:
            return
        conflicts = []
        for event in events:
            applied = self.hub.apply(event, self.now_us)
            if applied is Applied.CONFLICT and isinstance(event, PriceUpdate):
                conflicts.append((event.source, event.feed))
        self.step(conflicts)

    def _since(self) -> int:
        return self.now_us - self.script.start_us

    def _close(self, feed: str) -> None:
        if self.stretches[feed]:
            self.stretches[feed][-1].until_us = self._since()

    def _note(self, decision: Decision) -> None:
        stretches = self.stretches[decision.feed]
        outcome = (decision.state, decision.rule, decision.reason)
        last = stretches[-1] if stretches else None
        if last is None or last.down or (last.state, last.rule, last.reason) != outcome:
            self._close(decision.feed)
            state, rule, reason = outcome
            since_us = self._since()
            last = Stretch(
                feed=decision.feed, from_us=since_us, until_us=since_us, state=state, rule=rule, reason=reason
            )
            stretches.append(last)
        if decision.mantissa is not None:
            price = decision.mantissa
            last.first = price if last.first is None else last.first
            last.lowest = price if last.lowest is None else min(last.lowest, price)
            last.highest = price if last.highest is None else max(last.highest, price)
            last.sources[decision.source or ""] = last.sources.get(decision.source or "", 0) + 1
            self._compare(decision.feed, price, self._since())

    def _compare(self, feed: str, price: int, since_us: int) -> int:
        truth = truth_at(self.script.feeds[feed], self.specs[feed].expo, since_us)
        if truth > 0:
            off = -(-abs(price - truth) * 1_000_000 // min(price, truth))
            worst = self.worst[feed]
            if worst is None or off > worst.off_centibps:
                self.worst[feed] = Worst(since_us, price, truth, off)
        return truth

    def _sample(self, until_us: int) -> None:
        while self.sample_us <= until_us:
            since_us = self.sample_us - self.script.start_us
            for name, feed in self.script.feeds.items():
                held = self.hub.decisions.get(name) if self.hub is not None else None
                price = held.mantissa if held is not None else None
                if price is None:
                    truth = truth_at(feed, self.specs[name].expo, since_us)
                else:
                    truth = self._compare(name, price, since_us)
                self.samples[name].append((since_us, price, truth))
            self.sample_us += SAMPLE_US

    def finish(self) -> Played:
        for feed in self.stretches:
            self._close(feed)
        return Played(
            script=self.script, conditions=self.conditions, specs=self.specs, stretches=self.stretches,
            alerts=self.alerts, worst=self.worst, samples=self.samples,
        )  # fmt: skip


def play(script: Script, conditions: Conditions | None = None, *, watcher: Watcher | None = None) -> Played:
    """Play an incident from its first second to its last."""
    player = _Player(script, conditions or Conditions(), watcher)
    player.start()
    calls: list[tuple[int, int, Callable[[], None]]] = []
    for restart in script.restarts:
        kill_us = script.start_us + round(restart.at_s * 1e6)
        calls += [(kill_us, 0, player.kill), (kill_us + round(restart.down_s * 1e6), 1, player.start)]
    calls.sort(key=lambda call: call[:2])
    for at_us, group in groupby(arrivals(script, player.specs), key=lambda one: one.at_us):
        while calls and calls[0][0] <= at_us:
            player.until(calls[0][0])
            calls.pop(0)[2]()
        player.until(at_us)
        player.take([one.event for one in group])
    player.until(max(player.now_us, script.start_us + round(script.duration_s * 1e6)))
    return player.finish()


def percent(part_us: int, whole_us: int) -> Decimal:
    """A share, to two decimals."""
    return (Decimal(100 * part_us) / max(1, whole_us)).quantize(Decimal("0.01"))
