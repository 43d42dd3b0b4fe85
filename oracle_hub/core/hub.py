"""The hub: updates in, batches of decisions out. Live run, emulator, replay and test differ only in who calls ``step``.

>>> hub.apply(update, now_us)      # any number of times: a burst is one evaluation
>>> batch = hub.step(now_us)       # at the end of the loop turn, or at hub.next_deadline()
"""

import heapq
from collections.abc import Collection, Iterator
from hashlib import blake2b
from itertools import repeat
from typing import ClassVar

import msgspec
import numpy as np

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.columns import CHOSEN, CODES, NEVER, POLICIES, ColumnSelector
from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.selector import Reason, Rule, Selection, State, select
from oracle_hub.core.source import Event, PriceUpdate, Status
from oracle_hub.core.table import HEARD, Applied, InputStatus, Table

COLUMN_CROSSING = 40
"""From so many feeds in one step on, the columnar form is faster than the scalar one (``benchmarks/selector.py``)."""


_UNTOLD = -1


class Withheld(msgspec.Struct, frozen=True, gc=False):
    """What may be told of an update whose price may not: where it came from, and when."""

    transport: str
    publish_us: int
    received_us: int
    slot: int
    verified: bool
    account: str | None


class DecisionInput(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One source as it stood when the decision was made."""

    source: str
    role: str
    """``primary``, ``verifier`` or ``reference``."""
    status: InputStatus
    held: PriceUpdate | None
    withheld: Withheld | None = None
    """In place of ``held``, once :mod:`oracle_hub.core.licence` took out what may not be told. Never in a digest."""
    apart_bps: int | None = None
    """With it, and where the distance is from such a price: whole basis points."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The choice for one feed, and until when it holds with no new data."""

    feed: str
    expo: int
    state: State
    rule: Rule
    reason: Reason
    source: str | None
    mantissa: int | None
    """The price at ``expo``; None exactly when the state is none."""
    conf: int | None
    publish_us: int | None
    """Publish time of the chosen update."""
    decided_us: int
    valid_until_us: int | None
    """The *lease*: the hub decides again at this instant even if nothing arrives. None: never by itself."""
    inputs: tuple[DecisionInput, ...]


class Batch(msgspec.Struct, frozen=True, gc=False):
    """All that changed in one step. ``(epoch, seq)`` names it, and seq has no gap within an epoch."""

    epoch: int
    seq: int
    now_us: int
    config_hash: str
    decisions: tuple[Decision, ...]


DIGEST_BYTES = 16


def batch_digest(batch: Batch) -> bytes:
    """A 16-byte digest (BLAKE2b) over everything in a batch, inputs included. Equal digests: equal decisions."""
    return blake2b(_encode(batch), digest_size=DIGEST_BYTES).digest()


_encode = msgspec.json.Encoder().encode


class Hub:
    """Applies events to the table and decides again where something changed or a lease ended."""

    CONFIGURED: ClassVar[frozenset[str]] = frozenset(
        {"catalog", "config_hash", "table", "_cells", "_inputs", "_role_cells", "_max_conf_bps", "_max_divergence_bps"}
        | {"_policies", "_barred", "_bars", "_columns", "_told"}
    )
    """Attributes that follow from the catalog, and the table. Everything else is state, made of plain data."""
    FLAT: ClassVar[frozenset[str]] = frozenset(
        {"touched", "_removed", "_awaited", "_warm_until_us", "_deadlines", "_armed_us", "_dirty"}
    )
    """State that is lists and sets, with a member for each feed, of what never changes."""

    def __init__(
        self, catalog: Catalog, *, epoch: int, config_hash: str, started_us: int, warmup_us: int = 10_000_000
    ) -> None:
        self.epoch = epoch
        self.seq = 0
        """Sequence of the last batch; 0 before the first."""
        self.warmup_us = warmup_us
        self.touched: list[int] = []
        """Feeds that the last :meth:`step` looked at, by their index in the catalog."""
        self._blocks: frozenset[Reason] = frozenset()
        self.decisions: dict[str, Decision] = {}
        self._removed: list[Decision] = []
        self._columns = ColumnSelector()
        self._adopt(catalog, config_hash)
        self._await_all(started_us + warmup_us)

    def _adopt(self, catalog: Catalog, config_hash: str) -> None:
        self.catalog = catalog
        self.config_hash = config_hash
        self.table = Table(catalog)
        self._dirty = set(range(len(catalog.feeds)))
        layout = catalog.layout
        self._cells, self._inputs, self._role_cells = layout.by_feed, layout.inputs, layout.role_cells
        self._max_conf_bps = np.array([spec.max_conf_bps for spec in catalog.feeds], np.int64)
        self._max_divergence_bps = np.array([spec.max_divergence_bps for spec in catalog.feeds], np.int64)
        self._policies = np.array([POLICIES.index(spec.policy) for spec in catalog.feeds], np.uint8)
        self._told = np.full((5, len(catalog.feeds)), _UNTOLD, np.int64)
        """Per feed, what decides whether a decision is news, as columns found it last: outcome (by its code), mantissa,
        lease, publish time and confidence. The outcome is none where it was last decided in another way."""
        self._barred = layout.barred
        self._bars = np.array(self._barred, np.int64)

    def _await_all(self, until_us: int) -> None:
        """Begin warm-up for every feed: wait for the three roles, at most until then."""
        self._awaited: list[tuple[str, ...]] = [spec.roles for spec in self.catalog.feeds]
        self._told[0] = _UNTOLD
        self._warm_until_us: list[int | None] = [until_us] * len(self.catalog.feeds)
        """Per feed; None where the first step after a reload is to set it."""
        self._rearm()

    def _rearm(self) -> None:
        """Make the heap of leases anew, from the decisions in force."""
        self._deadlines: list[tuple[int, int]] = []
        """Heap of (instant, feed index): for each feed one that counts, at or before the end of its lease."""
        self._armed_us = [INT64_MAX] * len(self.catalog.feeds)
        """Per feed, the entry of the heap that counts; any other is left over and skipped."""
        for index, spec in enumerate(self.catalog.feeds):
            held = self.decisions.get(spec.feed)
            if held is not None and held.valid_until_us is not None:
                self._arm(index, held.valid_until_us)

    def _arm(self, index: int, lease_us: int) -> None:
        # A later lease needs no entry of its own: it is looked up when the earlier entry comes to the top. So a feed
        # updated a thousand times a second does not leave thousands of entries behind.
        if lease_us < self._armed_us[index]:
            self._armed_us[index] = lease_us
            heapq.heappush(self._deadlines, (lease_us, index))

    # What changes the inputs.

    def apply(self, event: Event, now_us: int) -> Applied | None:
        """Take one event. Decisions follow at the next :meth:`step`. None for what is not an update.

        A frame that says nothing (``Malformed``, ``Unchanged``) changes nothing; callers count those.
        """
        if isinstance(event, PriceUpdate):
            applied = self.table.apply(event, now_us)
            if applied is not Applied.UNKNOWN:
                self._dirty.add(self.catalog.feed_index[event.feed])
            return applied
        if isinstance(event, Status) and self.table.mark(event):
            self._touch(event.feed)
        return None

    def _touch(self, feed: str | None) -> None:
        if feed is None:
            self._dirty.update(range(len(self.catalog.feeds)))
        else:
            self._dirty.add(self.catalog.feed_index[feed])

    def block(self, reason: Reason) -> None:
        """Give no price for any feed, for this reason, until :meth:`unblock`. The first of several reasons is told."""
        self._set_blocks(self._blocks | {reason})

    def unblock(self, reason: Reason) -> None:
        """Take one reason back; prices return when none is left."""
        self._set_blocks(self._blocks - {reason})

    def _set_blocks(self, blocks: frozenset[Reason]) -> None:
        before, self._blocks = self.blocked, blocks
        if self.blocked is not before:
            self._touch(None)

    @property
    def blocked(self) -> Reason | None:
        """Why no feed has a price now, by precedence; None where nothing blocks."""
        return next((reason for reason in Reason if reason in self._blocks), None) if self._blocks else None

    def limit(self, spec: FeedSpec) -> None:
        """Decide one feed by other limits from the next step on; its sources and exponent are those that it has.

        Raises:
            ConfigError: as :meth:`~oracle_hub.core.catalog.Catalog.with_limits` does.
        """
        self.catalog = self.catalog.with_limits(spec)
        index = self.catalog.feed_index[spec.feed]
        self.table.limit(self.catalog, index)
        self._max_conf_bps[index] = spec.max_conf_bps
        self._max_divergence_bps[index] = spec.max_divergence_bps
        self._dirty.add(index)

    def restart_warmup(self, now_us: int) -> None:
        """Forget every held update and warm up again: after our clock was re-anchored no held age can be trusted."""
        self.table = Table(self.catalog)
        self._await_all(now_us + self.warmup_us)
        self._touch(None)

    def reload(self, catalog: Catalog, config_hash: str, forgotten: Collection[tuple[str, str]] = ()) -> None:
        """Decide by another catalog from the next step on. Held updates, leases and warm-up carry over.

        A feed that is gone gets a last decision: none, ``removed``. A source that is new to a feed has a warm-up of its
        own, which begins with the next step. A feed of which a source may be told more or less is decided, and so told,
        anew.

        Args:
            catalog: what is decided from now on, and from what.
            config_hash: of the configuration that it is of.
            forgotten: source and feed of updates that don't count any more; the source is as good as new to the feed.
        """
        old_catalog, old_table, old_awaited, old_until_us = self.catalog, self.table, self._awaited, self._warm_until_us
        self._adopt(catalog, config_hash)
        self.table.carry_over(old_table, forgotten)
        gone = [held for feed, held in self.decisions.items() if feed not in catalog.feed_index]
        self._removed = [held for held in self._removed if held.feed not in catalog.feed_index] + gone
        self.decisions = {
            feed: held
            for feed, held in self.decisions.items()
            if feed in catalog.feed_index
            and catalog.feeds[catalog.feed_index[feed]].expo == held.expo
            and _same_licences(old_catalog, catalog, feed)
        }
        self._awaited, self._warm_until_us = [], []
        for spec in catalog.feeds:
            old_index = old_catalog.feed_index.get(spec.feed)
            fresh: tuple[str, ...] = spec.roles
            waiting: tuple[str, ...] = ()
            until_us: int | None = None
            if old_index is not None and old_catalog.feeds[old_index].expo == spec.expo:
                roles, awaited = spec.roles, old_awaited[old_index]
                fresh = tuple(
                    source
                    for source in roles
                    if old_table.cell_of(source, spec.feed) is None or (source, spec.feed) in forgotten
                )
                waiting = tuple(source for source in roles if source in awaited and source not in fresh)
                until_us = old_until_us[old_index]
            self._awaited.append(waiting + fresh)
            self._warm_until_us.append(None if fresh else until_us)
        self._rearm()

    # What follows from them.

    def next_deadline(self) -> int | None:
        """The earliest end of a lease: :meth:`step` must be called then even if nothing arrives."""
        while self._deadlines:
            deadline_us, index = self._deadlines[0]
            held = self.decisions.get(self.catalog.feeds[index].feed)
            lease_us = held.valid_until_us if held is not None else None
            if deadline_us == self._armed_us[index]:
                if lease_us == deadline_us:
                    return deadline_us
                self._armed_us[index] = INT64_MAX
                if lease_us is not None:
                    self._arm(index, lease_us)
            # The new entry, if any, is later than the one on top, so that is the one that goes.
            heapq.heappop(self._deadlines)
        return None

    @property
    def pending(self) -> bool:
        """Whether something was applied since the last step."""
        return bool(self._dirty or self._removed)

    def step(self, now_us: int) -> Batch | None:
        """Decide every feed that was touched or whose lease is over. None when nothing changed for anybody."""
        while (deadline_us := self.next_deadline()) is not None and deadline_us <= now_us:
            index = heapq.heappop(self._deadlines)[1]
            self._armed_us[index] = INT64_MAX
            self._dirty.add(index)
        if not self._dirty and not self._removed:
            self.touched = []
            return None
        changed = [self._farewell(held, now_us) for held in self._removed]
        self._removed = []
        self.touched = indices = sorted(self._dirty)
        many = len(indices) >= COLUMN_CROSSING and self.blocked is None
        for index, selection in self._select_columns(indices, now_us) if many else zip(indices, repeat(None)):
            decision = self._decide(index, now_us, selection)
            if decision is not None:
                changed.append(decision)
        self._dirty.clear()
        if not changed:
            return None
        self.seq += 1
        return Batch(self.epoch, self.seq, now_us, self.config_hash, tuple(changed))

    def _select_columns(self, indices: list[int], now_us: int) -> Iterator[tuple[int, Selection | None]]:
        """What :func:`select` gives, by columns, for those of these feeds for which that is news."""
        rows = np.array(indices)
        table, cells = self.table, self._role_cells[:, rows]
        chosen = self._columns.select(
            now_us,
            table.input_columns(cells, self._max_conf_bps[rows]),
            self._max_divergence_bps[rows],
            self._policies[rows],
            self._bars[rows],
            leases=True,
        )
        assert chosen.valid_until_us is not None
        roles = CHOSEN[chosen.code]
        cell = cells[roles, np.arange(len(rows))]  # of the last role where none is chosen: no harm
        publish_us, confs = table.publish_us_column[cell], table.confs[cell]
        told = np.array([chosen.code, chosen.mantissa, chosen.valid_until_us, publish_us, confs])
        news = (self._told[:, rows] != told).any(axis=0).nonzero()[0]
        self._told[:, rows] = told
        for position, code, mantissa, lease_us in zip(news.tolist(), *told[:3, news].tolist(), strict=True):
            yield indices[position], Selection(CODES[code], mantissa or None, None if lease_us == NEVER else lease_us)

    def _decide(self, index: int, now_us: int, selection: Selection | None = None) -> Decision | None:
        spec = self.catalog.feeds[index]
        held = self.decisions.get(spec.feed)
        warm_until_us = self._warming(index, now_us)
        reason = self.blocked
        lease_us: int | None = None
        if reason is None and warm_until_us is not None:
            reason, lease_us = Reason.WARMING, warm_until_us
        if reason is not None or selection is None:
            self._told[0, index] = _UNTOLD
        if reason is not None:
            if held is not None and held.reason is reason and held.valid_until_us == lease_us:
                return None
            return self._settle(index, spec, now_us, None, reason, lease_us)
        if selection is None:
            primary, first, second = self._cells[index][:3]
            table = self.table
            inputs = (table.input(primary, spec), table.input(first, spec), table.input(second, spec))
            selection = select(now_us, inputs, spec.max_divergence_bps, spec.policy, self._barred[index])
        if held is not None and self._same(held, selection, index):
            return None
        return self._settle(index, spec, now_us, selection, selection.outcome.reason, selection.valid_until_us)

    def _same(self, held: Decision, selection: Selection, index: int) -> bool:
        outcome = selection.outcome
        if (
            held.reason is not outcome.reason
            or held.mantissa != selection.mantissa
            or held.valid_until_us != selection.valid_until_us
            or held.state is not outcome.state
            or held.rule is not outcome.rule
        ):
            return False
        if outcome.chosen < 0:
            return True
        cell = self._cells[index][outcome.chosen]
        return (
            held.source == self.catalog.feeds[index].roles[outcome.chosen]
            and held.publish_us == self.table.publish_us(cell)
            and held.conf == self.table.conf(cell)
        )

    def _settle(
        self, index: int, spec: FeedSpec, now_us: int, selection: Selection | None, reason: Reason, lease_us: int | None
    ) -> Decision:
        inputs = self.inputs(index, now_us)
        chosen = selection.outcome.chosen if selection is not None else -1
        update = inputs[chosen].held if chosen >= 0 else None
        decision = Decision(
            feed=spec.feed,
            expo=spec.expo,
            state=selection.outcome.state if selection is not None else State.NONE,
            rule=selection.outcome.rule if selection is not None else Rule.R3,
            reason=reason,
            source=None if update is None else update.source,
            mantissa=None if update is None else update.mantissa,
            conf=None if update is None else update.conf,
            publish_us=None if update is None else update.publish_us,
            decided_us=now_us,
            valid_until_us=lease_us,
            inputs=inputs,
        )
        self.decisions[spec.feed] = decision
        if lease_us is not None:
            self._arm(index, lease_us)
        return decision

    def _farewell(self, held: Decision, now_us: int) -> Decision:
        return msgspec.structs.replace(
            held,
            state=State.NONE,
            rule=Rule.R3,
            reason=Reason.REMOVED,
            source=None,
            mantissa=None,
            conf=None,
            publish_us=None,
            decided_us=now_us,
            valid_until_us=None,
            inputs=(),
        )

    def _warming(self, index: int, now_us: int) -> int | None:
        """Until when a feed waits for sources that it has not heard; None if it does not wait."""
        awaited = self._awaited[index]
        if not awaited:
            return None
        until_us = self._warm_until_us[index]
        if until_us is None:
            until_us = self._warm_until_us[index] = now_us + self.warmup_us
        roles = zip(self.catalog.feeds[index].roles, self._cells[index], strict=False)
        if now_us < until_us and not all(self.table.heard(cell) for source, cell in roles if source in awaited):
            return until_us
        self._awaited[index] = ()
        return None

    # What can be asked.

    def usable_counts(self, now_us: int) -> dict[str, int]:
        """For how many feeds each source is ``ok`` at ``now_us``, the references too."""
        table, n_sources = self.table, len(self.catalog.sources)
        cells = np.arange(n_sources * len(self.catalog.feeds)).reshape(-1, n_sources).T
        standing = table.input_columns(cells, self._max_conf_bps)
        usable = (standing.usable_from_us == 0) & (standing.usable_until_us >= now_us)
        counts = (usable & (table.flag_column[cells] & HEARD != 0)).sum(axis=1)
        return dict(zip(self.catalog.sources, counts.tolist(), strict=True))

    def inputs(self, index: int, now_us: int) -> tuple[DecisionInput, ...]:
        """Every source of a feed as it stands at ``now_us``, roles first."""
        spec = self.catalog.feeds[index]
        awaited = self._awaited[index]
        status, held = self.table.status, self.table.held
        inputs = []
        for source, role, cell in self._inputs[index]:
            warming = bool(awaited) and (source in awaited or role == "reference")
            inputs.append(DecisionInput(source, role, status(cell, spec, now_us, warming=warming), held(cell)))
        return tuple(inputs)


def _same_licences(old: Catalog, new: Catalog, feed: str) -> bool:
    before, after = old.feed_index.get(feed), new.feed_index.get(feed)
    return before is None or after is None or old.feeds[before].redistribute == new.feeds[after].redistribute
