"""The table of detectors: from what is held of one feed to what is wrong with it. Pure, integers only.

A :class:`FeedWatch` keeps the latest facts of one feed, and finds the little that detectors need to remember in the
:class:`~oracle_hub.alerts.memory.Memory` of all. Facts change only when the hub decides (:meth:`FeedWatch.take`);
:meth:`FeedWatch.signals` may be asked at any later instant, since ages grow by themselves, and says when to ask next.
So a live run and a replay, which ask at different moments, agree.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from oracle_hub.alerts.alert import Kind, Signal
from oracle_hub.alerts.memory import Memory
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import FeedSpec
from oracle_hub.core.hub import Decision, DecisionInput
from oracle_hub.core.parity import BY_AGE, CENTI_BPS, Parity, apart, chain_max_age_us, parity
from oracle_hub.core.price import decimal_text, near
from oracle_hub.core.selector import Reason, State
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import InputStatus

HUNDREDTHS = "bps/100"
_NOT_YET = frozenset({Reason.WARMING, Reason.REMOVED})
_BLOCKED = frozenset({Reason.CLOCK_SKEW, Reason.JOURNAL})


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What is held of one feed after a step."""

    now_us: int
    spec: FeedSpec
    decision: Decision
    inputs: tuple[DecisionInput, ...]
    """Roles first, as they stand at ``now_us``."""


class Standing(msgspec.Struct, gc=False):
    """One input at one instant."""

    entry: DecisionInput
    age_us: int
    """0 where nothing is held."""
    usable: bool
    stale: bool


class FeedWatch:
    """One feed under watch."""

    __slots__ = ("_facts", "_memory", "_row", "conflicts_us", "settings")

    def __init__(self, settings: AlertSettings, feed: str, memory: Memory) -> None:
        self.settings = settings
        self.conflicts_us: dict[str, int] = {}
        """Per source, when it last told two values of one time."""
        self._facts: Facts | None = None
        """Those of the last :meth:`take`, or brought up to a later glance."""
        self._memory = memory
        self._row = memory.row(feed)

    @property
    def facts(self) -> Facts | None:
        """What the hub holds, as it was told last.

        Where that was by a glance, the feed was calm before and after: what could matter to a detector is of then,
        ways and slots of updates are of before.
        """
        now_us = self._memory.glanced_us(self._row)
        if now_us is not None and self._facts is not None:
            self._facts = self._glanced(self._facts, now_us)
            self._memory.told(self._row, now_us)
        return self._facts

    def _glanced(self, before: Facts, now_us: int) -> Facts:
        inputs = []
        for entry in before.inputs:
            if entry.held is None:  # a reference that told nothing, then and now
                inputs.append(entry)
                continue
            mantissa, publish_us, received_us, conf = self._memory.update(self._cell(entry.source))
            held = replace(entry.held, mantissa=mantissa, publish_us=publish_us, received_us=received_us, conf=conf)
            young = now_us - min(publish_us, received_us) <= before.spec.max_age_us[entry.source]
            inputs.append(replace(entry, held=held, status=InputStatus.OK if young else InputStatus.STALE))
        first = inputs[0].held
        assert first is not None
        decision = replace(
            before.decision,
            mantissa=first.mantissa,
            conf=first.conf,
            publish_us=first.publish_us,
            decided_us=now_us,
            valid_until_us=None,
            inputs=tuple(inputs),
        )
        return Facts(now_us, before.spec, decision, decision.inputs)

    def _cell(self, source: str) -> int:
        assert self._facts is not None
        return self._memory.cell(self._facts.spec.feed, source)

    def take(self, facts: Facts) -> None:
        """Note what the hub holds now."""
        before = () if self._facts is None else self._facts.inputs
        self._facts, memory = facts, self._memory
        memory.told(self._row, facts.now_us)
        for position, entry in enumerate(facts.inputs):
            held = entry.held
            if held is not None and not (position < len(before) and held is before[position].held):
                memory.see(self._cell(held.source), held.mantissa, held.publish_us)
        if facts.decision.mantissa is not None:
            memory.move(self._row, facts.now_us, facts.decision.mantissa)

    def recall(self, facts: Facts) -> None:
        """Hold facts of which all is remembered already."""
        self._facts = facts
        self._memory.told(self._row, facts.now_us)

    def standings(self, now_us: int) -> list[Standing]:
        """Every input as it stands at an instant at or after the facts."""
        facts = self.facts
        assert facts is not None
        result = []
        for entry in facts.inputs:
            held = entry.held
            if held is None:
                result.append(Standing(entry, 0, False, False))
                continue
            age_us = now_us - min(held.publish_us, held.received_us)
            stale = entry.status in BY_AGE and age_us > facts.spec.max_age_us[entry.source]
            fit = entry.status in BY_AGE and entry.status is not InputStatus.STALLED
            result.append(Standing(entry, age_us, fit and not stale, stale))
        return result

    @property
    def waiting(self) -> bool:
        """Whether nothing can be said yet: no facts in this run, or warming up. What is open stays so meanwhile."""
        return self.facts is None or self.facts.decision.reason in _NOT_YET

    def signals(self, now_us: int) -> list[Signal]:
        """What is wrong, or not quite right, at an instant at or after the facts. Empty: all is well."""
        facts = self.facts
        if facts is None or self.waiting:
            return []
        standings = self.standings(now_us)
        found: list[Signal] = []
        for detector in DETECTORS:
            found.extend(detector(self, facts, standings, now_us))
        return found

    def calm(self) -> bool:
        """Whether the facts are so ordinary that no detector but those that wait for time has anything to say.

        The quick look at each step: live, all roles usable and within a third of the threshold, references at half of
        theirs at most, nothing remembered. False is no verdict: then the detectors are asked.
        """
        facts, settings = self.facts, self.settings
        if facts is None or facts.decision.state is not State.LIVE or self.conflicts_us:
            return False
        first, second, third, *references = facts.inputs
        a, b, c = first.held, second.held, third.held
        ok = InputStatus.OK
        if first.status is not ok or second.status is not ok or third.status is not ok:
            return False
        if a is None or b is None or c is None:
            return False
        price = low = high = a.mantissa  # of the primary: live
        for mantissa in (b.mantissa, c.mantissa):
            low, high = min(low, mantissa), max(high, mantissa)
        if (high - low) * 30_000 > low * facts.spec.max_divergence_bps:
            return False
        for held in (a, b, c):
            if held.conf is not None and held.conf * 20_000 > held.mantissa * settings.wide_conf_bps:
                return False
        peg = settings.pegs.get(facts.spec.feed)
        if peg is not None and abs(price - peg) * 20_000 > peg * settings.peg_bps:
            return False
        if references and not all(self._in_parity(entry, price, facts) for entry in references):
            return False
        if settings.aggregates and not all(self._executable(entry, facts) for entry in facts.inputs):
            return False
        return self._memory.span(self._row) * 20_000 <= price * settings.velocity_bps

    def _in_parity(self, entry: DecisionInput, price: int, facts: Facts) -> bool:
        """Whether a reference gives no detector anything to say of the chosen price. Of one out of use none does."""
        held = entry.held
        if held is None or entry.status not in BY_AGE:
            return entry.status is not InputStatus.FUTURE
        if facts.now_us - min(held.publish_us, held.received_us) > facts.spec.max_age_us[entry.source]:
            return True
        return abs(held.mantissa - price) * 20_000 <= min(held.mantissa, price) * self.settings.parity_bps

    def _executable(self, entry: DecisionInput, facts: Facts) -> bool:
        """Whether an input is no aggregate, or one that is young enough for the exchange."""
        held = entry.held
        if held is None or entry.source not in self.settings.aggregates:
            return True
        limit_us = chain_max_age_us(facts.spec, self.settings.chain_max_age_us)
        return facts.now_us - min(held.publish_us, held.received_us) <= limit_us

    def next_us(self, now_us: int) -> int | None:
        """The next instant at which signals can differ with no new facts; None for never."""
        facts = self.facts
        if facts is None or self.waiting:
            return None
        instants = []
        settings = self.settings
        for entry in facts.inputs:
            held = entry.held
            if held is None or entry.status not in BY_AGE:
                continue
            born_us = min(held.publish_us, held.received_us)
            instants.append(born_us + facts.spec.max_age_us[entry.source] + 1)
            if entry.source in settings.aggregates:
                instants.append(born_us + chain_max_age_us(facts.spec, settings.chain_max_age_us) + 1)
        instants.extend(last_us + settings.conflict_us for last_us in self.conflicts_us.values())
        moved_us = self._memory.next_us(self._row)
        if moved_us is not None:
            instants.append(moved_us)
        return min((instant for instant in instants if instant > now_us), default=None)

    # What detectors ask.

    def seen(self, source: str) -> tuple[int, int, int, int]:
        """What a source did before: :meth:`Memory.seen`."""
        return self._memory.seen(self._cell(source))

    def moved(self, now_us: int, mantissa: int) -> int:
        """How far the chosen price is from its extremes within the window, in hundredths of a basis point."""
        extremes = self._memory.extremes(self._row, now_us)
        return 0 if extremes is None else max(apart(mantissa, extreme) for extreme in extremes)


Detector: TypeAlias = Callable[[FeedWatch, Facts, list[Standing], int], Iterator[Signal]]


def _distance(
    watch: FeedWatch,
    kind: Kind,
    sources: tuple[str, ...],
    value: int,
    enter: int,
    text: str,
    *,
    critical: int | None = None,
    coarse: bool = False,
) -> Signal:
    """A distance and its threshold, both in hundredths of a basis point."""
    leave = enter * watch.settings.leave_percent // 100
    return Signal(kind, sources, value, enter, leave, critical, HUNDREDTHS, text, coarse)


def pair_diverged(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """Every two usable roles, beyond the sum of their confidence intervals."""
    usable = [one.entry.held for one in standings[:3] if one.usable]
    enter = facts.spec.max_divergence_bps * 100 + 1
    for index, a in enumerate(usable):
        for b in usable[index + 1 :]:
            if a is None or b is None:
                continue
            value = apart(a.mantissa, b.mantissa, (a.conf or 0) + (b.conf or 0))
            if value * 100 >= enter * watch.settings.leave_percent:
                critical = max(enter, watch.settings.critical_divergence_bps * 100)
                sources = (a.source, b.source)
                text = f"{_price(a, facts)} and {_price(b, facts)}"
                hidden = _hidden(facts, *sources)
                yield _distance(
                    watch, Kind.PAIR_DIVERGED, sources, value, enter, text, critical=critical, coarse=hidden
                )


def primary_rejected(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """A usable primary that is not the price because of a disagreement."""
    primary, decision = standings[0], facts.decision
    disagree = decision.reason in (Reason.PRIMARY_DIVERGED, Reason.DIVERGED)
    if primary.usable and disagree and decision.source != primary.entry.source:
        text = f"{primary.entry.source} has a price; the choice is {decision.source or 'none'} ({decision.reason})"
        yield Signal(Kind.PRIMARY_REJECTED, (primary.entry.source,), 1, 1, 1, text=text)


def fallback_active(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """The price is degraded."""
    if facts.decision.state is State.DEGRADED:
        yield Signal(
            Kind.FALLBACK_ACTIVE, (), 1, 1, 1, text=f"priced by {facts.decision.source} ({facts.decision.reason})"
        )


def no_price(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """There is no price, for a reason of this feed. What blocks all of them has an alert of its own."""
    decision = facts.decision
    if decision.state is State.NONE and decision.reason not in _BLOCKED:
        yield Signal(Kind.NO_PRICE, (), 1, 1, 1, text=str(decision.reason))


def source_stale(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """A role without an update young enough."""
    for one in standings[:3]:
        status = one.entry.status
        if one.stale:
            limit_us = facts.spec.max_age_us[one.entry.source]
            text = f"{one.age_us / 1e6:.1f} s old, at most {limit_us / 1e6:g} s"
            yield Signal(Kind.SOURCE_STALE, (one.entry.source,), one.age_us, 1, 1, unit="us", text=text)
        elif status in (InputStatus.MISSING, InputStatus.INVALID, InputStatus.HALTED):
            yield Signal(Kind.SOURCE_STALE, (one.entry.source,), 1, 1, 1, text=status.value)


def source_stalled(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """A role that the hub holds for stalled. A clamp: at the end of its own range, the others beyond."""
    limit_bps = facts.spec.max_divergence_bps
    for one in standings[:3]:
        held = one.entry.held
        if one.entry.status is not InputStatus.STALLED or one.stale or held is None:
            continue
        value, since_us, least, most = watch.seen(one.entry.source)
        others = [other.entry.held.mantissa for other in standings[:3] if other is not one and other.entry.held]
        beyond = all(not near(held.mantissa, other, limit_bps) for other in others)
        floor = beyond and value == least < most and max(others) < held.mantissa
        ceiling = beyond and value == most > least and min(others) > held.mantissa
        kind = Kind.SOURCE_CLAMPED if floor or ceiling else Kind.SOURCE_STALLED
        seconds = (held.publish_us - since_us) // 1_000_000
        text = f"{_price(held, facts)} for {seconds} s of its own time, while the others moved"
        yield Signal(kind, (held.source,), 1, 1, 1, text=text)


def future_timestamp(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """The last update of a source was stamped too far ahead."""
    for one in standings:
        if one.entry.status is InputStatus.FUTURE:
            yield Signal(Kind.FUTURE_TIMESTAMP, (one.entry.source,), 1, 1, 1, text="stamped ahead of our clock")


def conflict(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """Two values of one time."""
    for source, last_us in watch.conflicts_us.items():
        if now_us < last_us + watch.settings.conflict_us:
            yield Signal(Kind.CONFLICT, (source,), 1, 1, 1, text="two values of one time; the first one is held")


def confidence_wide(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """A confidence interval beyond the feed's limit, or beyond the usual."""
    limit_bps = facts.spec.max_conf_bps or watch.settings.wide_conf_bps
    for one in standings[:3]:
        held = one.entry.held
        if held is None or held.conf is None or one.stale:
            continue
        value = -(-held.conf * CENTI_BPS // held.mantissa)
        if value * 100 >= limit_bps * 100 * watch.settings.leave_percent:
            hidden = _hidden(facts, held.source)
            text = f"{_bps(value, hidden)} bps of its price, at most {limit_bps}"
            yield _distance(
                watch, Kind.CONFIDENCE_WIDE, (held.source,), value, limit_bps * 100 + 1, text, coarse=hidden
            )


def redundancy_degraded(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """A price that one more loss would take."""
    usable = [one.entry.source for one in standings[:3] if one.usable]
    if facts.decision.state is not State.NONE and len(usable) < 3:
        lost = [one.entry.source for one in standings[:3] if not one.usable]
        yield Signal(
            Kind.REDUNDANCY_DEGRADED, (), 1, 1, 1, text=f"without {', '.join(lost)}: one more loss is no price"
        )


def velocity(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """The chosen price against its extremes of the window. True or manipulated: only a person can tell."""
    mantissa, settings = facts.decision.mantissa, watch.settings
    if mantissa is None:
        return
    value = watch.moved(now_us, mantissa)
    if value * 100 >= settings.velocity_bps * 100 * settings.leave_percent:
        enter, critical = settings.velocity_bps * 100, settings.critical_velocity_bps * 100
        text = f"{value / 100:.0f} bps within {settings.velocity_window_us / 1e6:g} s"
        yield _distance(watch, Kind.VELOCITY, (), value, enter, text, critical=critical)


def peg_band(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """A stable asset away from its peg: by the chosen price, else by the usable source that is nearest to the peg."""
    settings = watch.settings
    peg = settings.pegs.get(facts.spec.feed)
    if peg is None:
        return
    chosen = facts.decision.mantissa
    usable = [one.entry.held for one in standings[:3] if one.usable and one.entry.held is not None]
    prices = [held.mantissa for held in usable] if chosen is None else [chosen]
    if not prices:
        return
    hidden = chosen is None and _hidden(facts, *(held.source for held in usable))
    value = min(abs(price - peg) * CENTI_BPS // peg for price in prices)
    if value * 100 >= settings.peg_bps * 100 * settings.leave_percent:
        enter, critical = settings.peg_bps * 100, settings.critical_peg_bps * 100
        text = f"{_bps(value, hidden)} bps from the peg"
        yield _distance(watch, Kind.PEG_BAND, (), value, enter, text, critical=critical, coarse=hidden)


def parity_broken(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """The chosen price against each usable reference."""
    chosen = facts.decision.mantissa
    if chosen is None:
        return
    enter = watch.settings.parity_bps * 100 + 1
    for one in standings[3:]:
        held, value = one.entry.held, _parity(watch, facts, one, now_us).apart
        if held is not None and value is not None and value * 100 >= enter * watch.settings.leave_percent:
            text = f"ours is {decimal_text(chosen, facts.spec.expo)}, theirs {_price(held, facts)}"
            coarse = _hidden(facts, held.source)
            yield _distance(watch, Kind.PARITY_BROKEN, (held.source,), value, enter, text, coarse=coarse)


def not_executable(watch: FeedWatch, facts: Facts, standings: list[Standing], now_us: int) -> Iterator[Signal]:
    """The aggregate is older than the exchange allows, whatever we think of the price."""
    for one in standings:
        if one.entry.source not in watch.settings.aggregates:
            continue
        chain = _parity(watch, facts, one, now_us)
        if chain.too_old:
            text = f"the aggregate is {one.age_us / 1e6:.1f} s old, at most {chain.max_age_us / 1e6:g} s"
            yield Signal(Kind.NOT_EXECUTABLE, (one.entry.source,), one.age_us, 1, 1, unit="us", text=text)


def _parity(watch: FeedWatch, facts: Facts, one: Standing, now_us: int) -> Parity:
    return parity(facts.spec, facts.decision.mantissa, one.entry, now_us, watch.settings.chain_max_age_us)


DETECTORS: tuple[Detector, ...] = (
    pair_diverged,
    primary_rejected,
    fallback_active,
    no_price,
    source_stale,
    source_stalled,
    future_timestamp,
    conflict,
    confidence_wide,
    redundancy_degraded,
    velocity,
    peg_band,
    parity_broken,
    not_executable,
)
"""All detectors of a feed. Those of links, clock and journal are conditions that the engine is told."""


def coarse(value: int) -> int:
    """Hundredths of a basis point, rounded half up to whole basis points."""
    return (value + 50) // 100 * 100


def _bps(value: int, hidden: bool) -> str:
    return str(coarse(value) // 100) if hidden else f"{value / 100:.1f}"


def _hidden(facts: Facts, *sources: str) -> bool:
    """Whether the price of any of these may not be told."""
    return not all(map(facts.spec.shows, sources))


def _price(update: PriceUpdate, facts: Facts) -> str:
    if _hidden(facts, update.source):
        return f"{update.source} (price withheld: licence)"
    return f"{update.source} {decimal_text(update.mantissa, facts.spec.expo)}"
