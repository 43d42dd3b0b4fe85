"""The alert engine: from signals to alerts that begin once and end once. Pure; the same journal gives the same log.

Two layers. *Conditions* follow signals through hysteresis and hold times: pending, open, closing. *Telling* decides
which open conditions become alerts: several of one kind at once are one group, what follows from something worse is
kept back, and beyond a cap there is one storm. Whatever was told as firing is told as resolved, exactly once.

Time passes in here only by what it is told: everything due before an instant happens at its own instant, in order,
before that instant's facts are taken.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from oracle_hub.alerts.alert import Alert, Key, Kind, Severity, Signal, Transition
from oracle_hub.alerts.detectors import Facts, FeedWatch, coarse
from oracle_hub.alerts.glance import Glance
from oracle_hub.alerts.memory import Memory, WatchesState
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.alerts.telling import Condition, Teller
from oracle_hub.core.hub import Hub
from oracle_hub.core.licence import WITHHELD, told_inputs
from oracle_hub.core.price import divergence_bps

GLANCE_CROSSING = 12
"""From so many feeds in one step on, the quick look is faster over columns than one by one."""


class _Timer(msgspec.Struct, order=True, frozen=True, gc=False):
    at_us: int
    number: int
    key: Key | None
    """A condition to be looked at; None: a feed's signals."""
    feed: str


class AlertEngine:
    """Takes facts, tells transitions.

    >>> engine.look(now_us, hub)          # after each step: what it touched
    >>> engine.observe(now_us, facts)     # the same, one by one
    >>> engine.condition(now_us, key, …)  # what is no feed's: links, clock, journal
    >>> engine.advance(now_us)            # at engine.next_deadline(), or any time

    All return the transitions to be told, in order.
    """

    CONFIGURED: ClassVar[frozenset[str]] = frozenset({"settings", "_kinds", "_watches", "_memory", "_glance", "_shown"})
    """Given by the configuration, or kept by :meth:`watches`."""
    FLAT: ClassVar[frozenset[str]] = frozenset({"_resting", "_timers", "_armed_us"})
    """State that is containers, with a member for each feed, of what never changes."""

    def __init__(self, settings: AlertSettings | None = None) -> None:
        self.settings = settings or AlertSettings()
        self._kinds = {kind: self.settings.kind(kind) for kind in Kind}
        self._watches: dict[str, FeedWatch] = {}
        self._memory = Memory(self.settings.velocity_window_us)
        self._glance: Glance | None = None
        self._shown: tuple[Facts, dict[str, Any]] | None = None
        """The facts that were put into words last: behind several conditions of a feed stand the same."""
        self._resting: set[str] = set()
        """Feeds of which nothing is open, pending or remembered, and whose timer is armed."""
        self._conditions: dict[Key, Condition] = {}
        self._by_feed: dict[str, dict[Key, Condition]] = {}
        self._timers: list[_Timer] = []
        self._armed_us: dict[str, int] = {}
        """Per feed, the earliest timer for its signals."""
        self._number = 0
        self._now_us = 0
        self._errors: dict[tuple[str, str], list[int]] = {}
        """Per source and transport, when the latest unusable frames came."""
        self._teller = Teller(self.settings)

    # What is told to the engine.

    def look(self, now_us: int, hub: Hub, conflicts: Sequence[tuple[str, str]] = ()) -> list[Transition]:
        """Take what ``hub.step(now_us)`` touched; ``conflicts`` are (source, feed) of this step.

        The same as :meth:`observe` with :func:`facts_after`, whatever it finds; where much was touched, most of it by
        columns.
        """
        touched = hub.touched
        if len(touched) < GLANCE_CROSSING:
            return self.observe(now_us, facts_after(hub, now_us, touched), conflicts)
        told = self.advance(now_us)
        calm = self._calm(now_us, hub, {feed for _, feed in conflicts}) if hub.blocked is None else ()
        rest = facts_after(hub, now_us, [index for index in touched if index not in calm])
        if len(rest) >= GLANCE_CROSSING:
            priced = [self._memory.row(one.spec.feed) for one in rest if one.decision.mantissa is not None]
            self._memory.begin_second(np.array(priced, np.int64), now_us)
        return told + self.observe(now_us, rest, conflicts)

    def _calm(self, now_us: int, hub: Hub, disputed: Collection[str]) -> set[int]:
        """Take those touched feeds that are at rest and stay so, by their index in the catalog."""
        glance, feeds = self._glance, hub.catalog.feeds
        limited = None if glance is None or glance.settings is not self.settings else glance.follow(hub.catalog)
        if glance is None or limited is None:
            glance = self._glance = Glance(hub.catalog, self.settings, self._memory)
            self._resting.clear()  # their facts are of another catalog
        elif limited:
            self._resting.difference_update(limited)
        resting = self._resting.difference(disputed) if disputed else self._resting
        quiet = np.array([index for index in hub.touched if feeds[index].feed in resting], np.int64)
        return set(quiet[glance.calm(hub.table, quiet, now_us)].tolist())

    def observe(
        self, now_us: int, facts: Iterable[Facts], conflicts: Iterable[tuple[str, str]] = ()
    ) -> list[Transition]:
        """Take what the hub holds of some feeds after a step; ``conflicts`` are (source, feed) of this step."""
        told = self.advance(now_us)
        disputed: dict[str, list[str]] = {}
        for source, feed in conflicts:
            disputed.setdefault(feed, []).append(source)
        looked = False
        for one in facts:
            feed = one.spec.feed
            watch = self._watches.get(feed)
            if watch is None:
                watch = self._watch(feed)
            watch.take(one)
            for source in disputed.get(feed, ()):
                watch.conflicts_us[source] = now_us
            if feed not in self._by_feed and watch.calm():
                if feed not in self._armed_us:
                    self._arm_feed(feed, watch, now_us)
                if feed in self._armed_us:
                    self._resting.add(feed)
                continue
            self._resting.discard(feed)
            looked |= self._look(feed, watch, now_us)
        return told + self._teller.settle(now_us) if looked else told

    def _watch(self, feed: str) -> FeedWatch:
        watch = self._watches[feed] = FeedWatch(self.settings, feed, self._memory)
        return watch

    def condition(self, now_us: int, key: Key, wrong: bool, text: str) -> list[Transition]:
        """Say that something of no feed is wrong, or no longer: a link, the clock, the journal."""
        told = self.advance(now_us)
        signal = Signal(key.kind, key.sources, 1, 1, 1, text=text) if wrong else None
        if signal is not None or key in self._conditions:
            self._follow(key, signal, now_us)
            told += self._teller.settle(now_us)
        return told

    def malformed(self, now_us: int, source: str, transport: str, reason: str) -> list[Transition]:
        """Count a frame that could not be used."""
        times = self._errors.setdefault((source, transport), [])
        times.append(now_us)
        del times[: -self.settings.decode_errors]
        many = len(times) >= self.settings.decode_errors and now_us - times[0] <= self.settings.decode_window_us
        key = Key(Kind.DECODE_ERRORS, None, (source, transport))
        if not many and key not in self._conditions:
            return self.advance(now_us)
        # Over once no frame was unusable for as long as it is held; each new one begins that anew.
        told = self.condition(now_us, key, True, reason)
        return told + self.condition(now_us, key, False, reason)

    def forget(self, now_us: int, feeds: Iterable[str]) -> list[Transition]:
        """Feeds that are no longer configured: what was open for them ends."""
        told = self.advance(now_us)
        configured = set(feeds)
        gone = [feed for feed in self._watches if feed not in configured]
        for feed in gone:
            del self._watches[feed]
            self._memory.forget(feed)
            self._resting.discard(feed)
            self._armed_us.pop(feed, None)
            for key in list(self._by_feed.pop(feed, ())):
                condition = self._conditions.pop(key)
                if condition.is_open:
                    condition.ended_us = now_us
                    self._teller.ended(condition)
        return told + self._teller.settle(now_us) if gone else told

    def change(self, settings: AlertSettings) -> None:
        """Go on by other thresholds and times, from the next facts on. What is open stays so until they are seen."""
        self.settings = settings
        self._kinds = {kind: settings.kind(kind) for kind in Kind}
        self._teller.settings = settings
        self._memory.change(settings.velocity_window_us)
        for watch in self._watches.values():
            watch.settings = settings
        for condition in self._conditions.values():
            condition.kind = self._kinds[condition.key.kind]

    def advance(self, now_us: int) -> list[Transition]:
        """Let time pass: all that is due up to ``now_us`` happens at its own instant."""
        told: list[Transition] = []
        timers = self._timers
        while timers and timers[0].at_us <= now_us:
            at_us = timers[0].at_us
            while timers and timers[0].at_us == at_us:
                self._fire(heapq.heappop(timers))
            told += self._teller.settle(at_us)
        self._now_us = now_us
        return told

    def set_clock(self, now_us: int) -> None:
        """The clock was set anew and shows this now: what is under way keeps what is left of its time.

        Else an alert that was about to begin, or to end, would do so at once or hours later. How prices moved is
        forgotten. Every feed has to be looked at again before anything else.
        """
        by_us = now_us - self._now_us
        for condition in self._conditions.values():
            condition.shift(by_us)
        self._timers = [
            _Timer(timer.at_us + by_us, timer.number, timer.key, timer.feed)
            for timer in self._timers
            if timer.key is not None
        ]
        heapq.heapify(self._timers)
        self._armed_us.clear()
        self._resting.clear()
        self._glance = None
        for watch in self._watches.values():
            watch.conflicts_us = {source: at_us + by_us for source, at_us in watch.conflicts_us.items()}
        self._errors = {way: [at_us + by_us for at_us in times] for way, times in self._errors.items()}
        self._memory.forget_moves()
        self._now_us = now_us

    def next_deadline(self) -> int | None:
        """When :meth:`advance` has something to do; None for never. Possibly too early."""
        return self._timers[0].at_us if self._timers else None

    @property
    def changes(self) -> int:
        """Grows whenever :meth:`state` has something new to be kept."""
        return self._teller.changes

    @property
    def open(self) -> list[Alert]:
        """What is firing now, as it was told last."""
        return self._teller.open

    @property
    def feedless(self) -> list[Key]:
        """What is wrong, or about to be, with no feed: links, clock, journal, frames of a source."""
        return [key for key in self._conditions if key.feed is None]

    # Signals to conditions.

    def _fire(self, timer: _Timer) -> None:
        if timer.key is not None:
            condition = self._conditions.get(timer.key)
            if condition is not None and condition.due_us is not None and condition.due_us <= timer.at_us:
                before = condition.is_open, condition.severity
                condition.pass_time(timer.at_us)
                self._after(timer.key, condition, before)
            return
        if self._armed_us.get(timer.feed) == timer.at_us:
            del self._armed_us[timer.feed]
            self._resting.discard(timer.feed)
            watch = self._watches.get(timer.feed)
            if watch is not None:
                self._look(timer.feed, watch, timer.at_us)

    def _look(self, feed: str, watch: FeedWatch, now_us: int) -> bool:
        """Ask the detectors; whether anything is open or about to be."""
        known = self._by_feed.get(feed)
        signals = watch.signals(now_us)
        frozen = watch.waiting
        present = set()
        for signal in signals:
            if signal.kind in self.settings.off:
                continue
            key = Key(signal.kind, feed, signal.sources)
            present.add(key)
            self._follow(key, signal, now_us)
        if known and not frozen:
            for key in [key for key in known if key not in present]:
                self._follow(key, None, now_us)
        self._arm_feed(feed, watch, now_us)
        for source in [one for one, last in watch.conflicts_us.items() if now_us >= last + self.settings.conflict_us]:
            del watch.conflicts_us[source]
        return bool(known or signals)

    def _follow(self, key: Key, signal: Signal | None, now_us: int) -> None:
        condition = self._conditions.get(key)
        if condition is None:
            if signal is None or signal.value < signal.enter or key.kind in self.settings.off:
                return
            condition = self._conditions[key] = Condition(key, self._kinds[key.kind], now_us)
            if key.feed is not None:
                self._by_feed.setdefault(key.feed, {})[key] = condition
        before = condition.is_open, condition.severity
        condition.see(signal, now_us)
        self._after(key, condition, before)

    def _after(self, key: Key, condition: Condition, before: tuple[bool, Severity]) -> None:
        """Tell the teller what changed, keep the condition's timer armed, drop what is over."""
        was_open, severity = before
        if condition.fresh:
            condition.evidence = self._evidence(condition)
        if condition.over:
            del self._conditions[key]
            if was_open:
                self._teller.ended(condition)
            if key.feed is not None:
                known = self._by_feed[key.feed]
                del known[key]
                if not known:
                    del self._by_feed[key.feed]
            return
        if condition.is_open and not was_open:
            self._teller.opened(condition)
        elif condition.severity is not severity:
            self._teller.escalated(condition)
        if condition.due_us is not None and condition.due_us != condition.armed_us:
            condition.armed_us = condition.due_us
            self._push(condition.due_us, key, "")

    def _arm_feed(self, feed: str, watch: FeedWatch, now_us: int) -> None:
        at_us = watch.next_us(now_us)
        armed_us = self._armed_us.get(feed)
        if at_us is not None and (armed_us is None or at_us < armed_us):
            self._armed_us[feed] = at_us
            self._push(at_us, None, feed)

    def _push(self, at_us: int, key: Key | None, feed: str) -> None:
        self._number += 1
        heapq.heappush(self._timers, _Timer(at_us, self._number, key, feed))

    def _evidence(self, condition: Condition) -> dict[str, Any]:
        """What stands behind a condition, as of its latest signal."""
        signal = condition.signal
        evidence: dict[str, Any] = {"since_us": condition.since_us, "text": condition.text}
        if signal is not None and signal.unit:
            value, worst = signal.value, condition.worst
            if signal.coarse:
                value, worst = coarse(value), coarse(worst)
            evidence |= {"value": value, "threshold": signal.enter, "unit": signal.unit, "worst": worst}
        watch = self._watches.get(condition.key.feed or "")
        facts = None if watch is None else watch.facts
        if facts is not None:
            if self._shown is None or self._shown[0] is not facts:
                self._shown = facts, _inputs(facts)
            evidence |= self._shown[1]
        return evidence

    # Over a restart.

    def state(self) -> Mapping[str, Any]:
        """What must survive a restart, as JSON values: open conditions, and what was told."""
        conditions = [one.saved() for one in self._conditions.values() if one.is_open]
        return {"conditions": conditions, "told": self._teller.saved(), "now_us": self._now_us}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another run stopped. What was open stays open until facts say otherwise.

        Raises:
            ValueError: not a state that :meth:`state` gave.
        """
        try:
            for saved in state["conditions"]:
                condition = Condition.restored(saved, self._kinds)
                self._conditions[condition.key] = condition
                if condition.key.feed is not None:
                    self._by_feed.setdefault(condition.key.feed, {})[condition.key] = condition
                    self._watch(condition.key.feed)
            self._teller.restore(state["told"], self._conditions.values())
            self._now_us = int(state["now_us"])
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise ValueError(f"not a state of alerts: {error}") from None

    def watches(self) -> WatchesState:
        """What is known of the feeds, for a checkpoint. To be taken after a step and its :meth:`look`."""
        conflicts_us = {feed: dict(watch.conflicts_us) for feed, watch in self._watches.items() if watch.conflicts_us}
        return WatchesState(list(self._watches), conflicts_us, self._memory.state())

    def recall(self, state: WatchesState, hub: Hub) -> None:
        """Watch what another engine watched, beside a hub that stands as the other's stood.

        Raises:
            ValueError: no such state.
        """
        self._memory, self._watches, self._glance = Memory.restored(state.memory), {}, None
        for feed in state.feeds:
            watch, index = self._watch(feed), hub.catalog.feed_index.get(feed)
            watch.conflicts_us = dict(state.conflicts_us.get(feed, {}))
            told_us = self._memory.told_us(self._memory.row(feed))
            if told_us and index is not None:
                # Since then nothing came for it, or it would have been told of that.
                watch.recall(Facts(told_us, hub.catalog.feeds[index], hub.decisions[feed], hub.inputs(index, told_us)))


def facts_after(hub: Hub, now_us: int, touched: Iterable[int] | None = None) -> list[Facts]:
    """What to observe after ``hub.step(now_us)``: the feeds that the step looked at, decided anew or not.

    ``touched``: only these, by their index in the catalog.
    """
    feeds = hub.catalog.feeds
    facts = []
    for index in hub.touched if touched is None else touched:
        spec = feeds[index]
        decision = hub.decisions[spec.feed]
        inputs = decision.inputs
        # Decided at this instant, but maybe by the sources of before a reload.
        if decision.decided_us != now_us or tuple(entry.source for entry in inputs) != spec.sources:
            inputs = hub.inputs(index, now_us)
        facts.append(Facts(now_us, spec, decision, inputs))
    return facts


def _inputs(facts: Facts) -> dict[str, Any]:
    decision = facts.decision
    base = decision.mantissa
    if base is None and facts.inputs and facts.inputs[0].held is not None:
        base = facts.inputs[0].held.mantissa
    inputs: dict[str, Any] = {}
    for entry in told_inputs(facts.inputs, facts.spec, decision.mantissa):
        update, held = entry.held, entry.held or entry.withheld
        distance: float | None = entry.apart_bps
        if distance is None and update is not None and base is not None:
            distance = divergence_bps(update.mantissa, base)
        inputs[entry.source] = {
            "status": entry.status.value,
            "price": None if update is None else str(update.mantissa),
            "publish_time_us": None if held is None else held.publish_us,
            "age_ms": None if held is None else (facts.now_us - min(held.publish_us, held.received_us)) // 1_000,
            "divergence_bps": distance,
        }
        if entry.withheld is not None:
            inputs[entry.source]["withheld"] = WITHHELD
    return {
        "state": decision.state.value,
        "reason": decision.reason.value,
        "price": None if decision.mantissa is None else str(decision.mantissa),
        "expo": decision.expo,
        "source": decision.source,
        "inputs": inputs,
        "as_of_us": facts.now_us,
    }
