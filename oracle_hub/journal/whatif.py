"""What if the limits had been others: the columnar rule over a whole history, for every setting of a grid.

Reads a decoded cache (:mod:`oracle_hub.journal.decoded`) block by block, so memory is bounded by the block and not by
the history. ``docs/whatif.md`` says what each figure counts. The same transitions come out as from a replay of the
whole program under each setting; a test compares them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from oracle_hub.core.columns import CODES, ColumnSelector
from oracle_hub.core.selector import Outcome, Reason, Rule, State
from oracle_hub.journal.cells import PAIRS, Cells, Usable, cut, usable
from oracle_hub.journal.decoded import Decoded, Int64, Stretch, UInt8
from oracle_hub.journal.grid import Limits, Setting
from oracle_hub.journal.holds import Held, HoldTimes, Level

ALERTS = ("no_price", "fallback_active", "pair_diverged")
"""Kinds that are counted."""
LEAVE_PERCENT = 60
"""A pair's divergence is over below this part of the threshold that it began at."""

_HELD_CODES = tuple(Outcome(State.NONE, Rule.R3, -1, reason) for reason in Reason)
OUTCOMES_AND_HOLDS: tuple[Outcome, ...] = CODES + _HELD_CODES
"""Every outcome of the rule, and *none* for each reason that keeps it from deciding. A code is an index into it."""
_STATES = tuple(State)
_STATE_OF = np.array([_STATES.index(outcome.state) for outcome in OUTCOMES_AND_HOLDS], np.uint8)
_NONE = tuple(outcome.state is State.NONE for outcome in OUTCOMES_AND_HOLDS)
_FALLBACK = tuple(outcome.rule is Rule.R2 for outcome in OUTCOMES_AND_HOLDS)
_NOT_YET, _NOT_ITS_OWN = Reason.WARMING, (Reason.CLOCK_SKEW, Reason.JOURNAL)


def _alert_levels() -> tuple[tuple[int | None, int | None], ...]:
    """By code: levels of ``no_price`` and ``fallback_active``; None where nothing is said yet (what is open stays)."""
    levels: list[tuple[int | None, int | None]] = []
    for outcome in OUTCOMES_AND_HOLDS:
        if outcome.reason is _NOT_YET:
            levels.append((None, None))
            continue
        lost = outcome.state is State.NONE and outcome.reason not in _NOT_ITS_OWN
        levels.append((int(lost), int(outcome.state is State.DEGRADED)))
    return tuple(levels)


_LEVELS = _alert_levels()


def _pairs_of_choice() -> npt.NDArray[np.bool_]:
    """bool (3, codes * 8): whether a pair is the chosen price and a usable other, by code and usable sources."""
    table = np.zeros((3, len(OUTCOMES_AND_HOLDS) * 8), np.bool_)
    for code, outcome in enumerate(OUTCOMES_AND_HOLDS):
        for bits in range(8):
            for pair, (a, b) in enumerate(PAIRS):
                both = bits >> a & 1 and bits >> b & 1
                table[pair, code * 8 + bits] = bool(both) and outcome.chosen in (a, b)
    return table


_OF_CHOICE = _pairs_of_choice()
Codes: TypeAlias = UInt8


class FeedFigures(msgspec.Struct, kw_only=True):
    """How one feed fared under one setting. Times in microseconds."""

    feed: str
    live_us: int = 0
    degraded_us: int = 0
    none_us: int = 0
    fallback_us: int = 0
    """Part of ``degraded_us`` in which the price was a verifier's (R2)."""
    outages: int = 0
    longest_outage_us: int = 0
    worst_accepted_centibps: int = 0
    """Largest distance of a chosen price from another usable source, in hundredths of a basis point, rounded up."""
    transitions: int = 0
    """Changes of state, rule, source or reason."""
    alerts: dict[str, int] = {}
    differs_us: int = 0
    """Time in which state or price was another than as configured."""

    @property
    def total_us(self) -> int:
        """Time that was looked at."""
        return self.live_us + self.degraded_us + self.none_us

    @property
    def availability(self) -> float:
        """Share of the time with a price."""
        return (self.live_us + self.degraded_us) / self.total_us if self.total_us else 0.0


class SettingFigures(msgspec.Struct):
    """How one setting fared."""

    setting: Setting
    feeds: list[FeedFigures]


class WhatIf(msgspec.Struct):
    """The answer: the first setting is *as configured*."""

    settings: list[SettingFigures]
    disagreement_us: list[list[int]]
    """By two settings: feed-time in which they chose another state or price. Symmetric."""
    total_us: int
    """Feed-time: the sum over feeds."""
    cells: int
    """(feed, instant) cells, each decided under every setting."""


class _Track:
    """One feed under one setting, as time goes by."""

    def __init__(self, feed: str, alerts: dict[str, HoldTimes]) -> None:
        self.figures = FeedFigures(feed=feed)
        self._code = -1
        self._since_us = 0
        self._none_since_us: int | None = None
        self._times = alerts
        self._no_price = Held(alerts["no_price"])
        self._fallback = Held(alerts["fallback_active"])
        self._pairs: dict[tuple[str, str], Held] = {}

    def take(self, at_us: Int64, codes: Codes) -> None:
        """The codes of consecutive cells."""
        starts = np.flatnonzero(codes[1:] != codes[:-1]) + 1
        if codes[0] != self._code:
            self._turn(int(at_us[0]), int(codes[0]))
        for instant, code in zip(at_us[starts].tolist(), codes[starts].tolist(), strict=True):
            self._turn(instant, code)

    def _turn(self, at_us: int, code: int) -> None:
        self._account(at_us)
        self.figures.transitions += self._code >= 0
        self._code, self._since_us = code, at_us
        if not _NONE[code]:
            self._recover(at_us)
        elif self._none_since_us is None:
            self._none_since_us = at_us
            self.figures.outages += 1
        lost, fallen = _LEVELS[code]
        if lost is not None and fallen is not None:
            self._no_price.see(lost, at_us)
            self._fallback.see(fallen, at_us)

    def _account(self, at_us: int) -> None:
        if self._code < 0:
            return
        passed_us, figures = at_us - self._since_us, self.figures
        state = OUTCOMES_AND_HOLDS[self._code].state
        if state is State.LIVE:
            figures.live_us += passed_us
        elif state is State.DEGRADED:
            figures.degraded_us += passed_us
            if _FALLBACK[self._code]:
                figures.fallback_us += passed_us
        else:
            figures.none_us += passed_us

    def _recover(self, at_us: int) -> None:
        if self._none_since_us is not None:
            self.figures.longest_outage_us = max(self.figures.longest_outage_us, at_us - self._none_since_us)
            self._none_since_us = None

    def end(self, at_us: int) -> None:
        """Nothing is known from here on: what follows, if anything, begins anew."""
        self._account(at_us)
        self._recover(at_us)
        self._code = -1
        for held in (self._no_price, self._fallback, *self._pairs.values()):
            held.pass_time(at_us)

    def accept(self, alive: Usable, codes: Codes) -> None:
        """Note how far chosen prices were from usable others."""
        worst = self.figures.worst_accepted_centibps
        if alive.apart.max() <= worst:
            return
        far = np.flatnonzero(alive.apart.max(axis=0) > worst)
        key = codes[far].astype(np.intp) * 8 + alive.bits[far]
        self.figures.worst_accepted_centibps = max(worst, int((alive.apart[:, far] * _OF_CHOICE[:, key]).max()))

    def diverge(self, roles: tuple[str, str, str], at_us: Int64, alive: Usable, hold: UInt8, bps: int) -> None:
        """Follow the distance of each pair."""
        enter = bps * 100 + 1
        for pair, (a, b) in enumerate(PAIRS):
            value, key = alive.beyond[pair], (roles[a], roles[b])
            held = self._pairs.get(key)
            if (held is None or held.quiet) and value.max() < enter:
                continue
            if held is None:
                held = self._pairs[key] = Held(self._times["pair_diverged"])
            levels = np.where(value >= enter, Level.WRONG, Level.BETWEEN).astype(np.uint8)
            levels[value * 100 < enter * LEAVE_PERCENT] = Level.RIGHT
            known = np.flatnonzero(hold != 1 + _REASONS.index(_NOT_YET))
            levels, instants = levels[known], at_us[known]
            if len(levels):
                starts = np.append(0, np.flatnonzero(levels[1:] != levels[:-1]) + 1)
                for instant, level in zip(instants[starts].tolist(), levels[starts].tolist(), strict=True):
                    held.see(level, instant)

    def finish(self) -> FeedFigures:
        """The figures, alerts included."""
        diverged = sum(held.count for held in self._pairs.values())
        counts = (self._no_price.count, self._fallback.count, diverged)
        self.figures.alerts = dict(zip(ALERTS, counts, strict=True))
        return self.figures


_REASONS = tuple(Reason)


class Chosen(NamedTuple):
    """What one setting chose, cell by cell."""

    codes: Codes
    """uint8 (M,): index into :data:`OUTCOMES_AND_HOLDS`."""
    mantissa: Int64
    """int64 (M,): 0 for none."""


class _Chooser:
    """Every setting over the cells of one stretch. Those with equal limits of age and confidence share their inputs."""

    def __init__(self, stretch: Stretch, settings: Sequence[Setting]) -> None:
        self.limits = [setting.of(stretch) for setting in settings]
        self._selector = ColumnSelector()

    @property
    def ages_us(self) -> list[tuple[int, ...]]:
        return [limits.max_age_us for limits in self.limits]

    def choose(self, cells: Cells) -> Iterator[tuple[int, Usable, Chosen]]:
        """Number of the setting, what was usable, what was chosen. Not in the order of the settings."""
        groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for number, limits in enumerate(self.limits):
            groups.setdefault((limits.max_age_us, limits.max_conf_bps), []).append(number)
        for (ages_us, conf_bps), numbers in groups.items():
            alive = usable(cells, ages_us, conf_bps)
            done: dict[Limits, Chosen] = {}
            for number in numbers:
                limits = self.limits[number]
                if limits not in done:
                    done[limits] = self._select(cells, alive, limits)
                yield number, alive, done[limits]

    def _select(self, cells: Cells, alive: Usable, limits: Limits) -> Chosen:
        chosen = self._selector.select(
            cells.at_us, alive.inputs, limits.max_divergence_bps, limits.policy, limits.barred
        )
        hold = cells.columns.hold
        if hold.any():
            held = hold != 0
            chosen.code[held] = len(CODES) - 1 + hold[held]
            chosen.mantissa[held] = 0
        return Chosen(chosen.code, chosen.mantissa)


class _Disagreement:
    """Time in which two settings chose differently."""

    def __init__(self, n_settings: int) -> None:
        self.us = np.zeros((n_settings, n_settings))
        """Whole numbers: exact in float64 up to 285 years."""

    def take(self, cells: Cells, chosen: Sequence[Chosen]) -> None:
        first = chosen[0]
        doubtful = np.zeros(len(cells.at_us), np.bool_)
        for one in chosen[1:]:
            if one is not first:
                doubtful |= one.codes != first.codes
                doubtful |= one.mantissa != first.mantissa
        at = np.flatnonzero(doubtful)
        if not len(at):
            return
        lasted_us = (cells.until_us - cells.at_us)[at].astype(np.float64)
        states = np.stack([_STATE_OF[one.codes[at]] for one in chosen])
        prices = np.stack([one.mantissa[at] for one in chosen])
        for number in range(len(chosen) - 1):
            differs = (states[number + 1 :] != states[number]) | (prices[number + 1 :] != prices[number])
            self.us[number, number + 1 :] += differs.astype(np.float64) @ lasted_us


def what_if(
    decoded: Decoded,
    settings: Sequence[Setting],
    alerts: dict[str, HoldTimes],
    progress: Callable[[int], None] = lambda rows: None,
) -> WhatIf:
    """Decide the whole history under every setting, and under the configuration as it was.

    Args:
        decoded: the history.
        settings: what to try.
        alerts: hold times for each of :data:`ALERTS`.
        progress: called with the number of rows done since the last call.
    """
    tried = [Setting(), *settings]
    everywhere = _Disagreement(len(tried))
    by_feed: list[list[FeedFigures]] = []
    n_cells = 0
    for feed in decoded.feeds:
        tracks = [_Track(feed, alerts) for _ in tried]
        of_feed = _Disagreement(len(tried))
        for number, stretch in enumerate(decoded.index.stretches):
            if stretch.feed != feed:
                continue
            chooser = _Chooser(stretch, tried)
            for cells in _cells(decoded, number, chooser):
                n_cells += len(cells.at_us)
                _take(cells, chooser, tracks, of_feed, stretch)
                progress(len(cells.columns.at_us) if cells.columns.at_us is cells.at_us else _rows(cells))
            if not decoded.goes_on(number):
                for track in tracks:
                    track.end(decoded.index.ends_us[number])
        everywhere.us += of_feed.us
        by_feed.append([track.finish() for track in tracks])
        for number, figures in enumerate(by_feed[-1]):
            figures.differs_us = int(of_feed.us[0, number])
    total_us = sum(figures[0].total_us for figures in by_feed)
    matrix = everywhere.us + everywhere.us.T
    return WhatIf(
        [SettingFigures(one, [figures[number] for figures in by_feed]) for number, one in enumerate(tried)],
        [[int(value) for value in row] for row in matrix.tolist()],
        total_us,
        n_cells,
    )


def _cells(decoded: Decoded, number: int, chooser: _Chooser) -> Iterator[Cells]:
    for columns, end_us in decoded.blocks_of(number):
        yield cut(columns, end_us, chooser.ages_us)


def _rows(cells: Cells) -> int:
    rows = cells.columns.at_us
    return 1 + int(np.count_nonzero(rows[1:] != rows[:-1]))


def _take(
    cells: Cells, chooser: _Chooser, tracks: Sequence[_Track], disagreement: _Disagreement, stretch: Stretch
) -> None:
    chosen: list[Chosen | None] = [None] * len(tracks)
    for number, alive, choice in chooser.choose(cells):
        track = tracks[number]
        track.take(cells.at_us, choice.codes)
        track.accept(alive, choice.codes)
        bps = chooser.limits[number].max_divergence_bps
        track.diverge(stretch.roles, cells.at_us, alive, cells.columns.hold, bps)
        chosen[number] = choice
    disagreement.take(cells, [choice for choice in chosen if choice is not None])


class Transition(NamedTuple):
    """A change of what was chosen."""

    feed: str
    at_us: int
    outcome: Outcome
    source: str | None
    mantissa: int | None


def transitions(decoded: Decoded, setting: Setting, feed: str) -> Iterator[Transition]:
    """Every change of state, rule, reason, source or price of one feed under one setting, in order of time.

    A stretch begins with a transition, even if nothing changed.
    """
    for number, stretch in enumerate(decoded.index.stretches):
        if stretch.feed != feed:
            continue
        chooser = _Chooser(stretch, [setting])
        last: tuple[int, int] | None = None
        for cells in _cells(decoded, number, chooser):
            for _, _, (codes, mantissa) in chooser.choose(cells):
                for at_us, code, price in zip(cells.at_us.tolist(), codes.tolist(), mantissa.tolist(), strict=True):
                    if (code, price) != last:
                        last = (code, price)
                        outcome = OUTCOMES_AND_HOLDS[code]
                        source = stretch.roles[outcome.chosen] if outcome.chosen >= 0 else None
                        yield Transition(feed, at_us, outcome, source, price or None)
