"""The hub: updates in, batches of decisions out. Live run, emulator, replay and test differ only in who calls ``step``.

>>> hub.apply(update, now_us)      # any number of times: a burst is one evaluation
>>> batch = hub.step(now_us)       # at the end of the loop turn, or at hub.next_deadline()
"""

import heapq
from hashlib import blake2b

import msgspec
import orjson

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.selector import Reason, Rule, Selection, State, select
from oracle_hub.core.source import Event, Malformed, PriceUpdate, Status
from oracle_hub.core.table import Applied, InputStatus, Table


class DecisionInput(msgspec.Struct, frozen=True, gc=False):
    """One source as it stood when the decision was made."""

    source: str
    role: str
    """``primary``, ``verifier`` or ``reference``."""
    status: InputStatus
    held: PriceUpdate | None


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


def batch_digest(batch: Batch) -> bytes:
    """A 16-byte digest (BLAKE2b) over everything in a batch, inputs included. Equal digests: equal decisions."""
    return blake2b(orjson.dumps(msgspec.to_builtins(batch)), digest_size=16).digest()


class Hub:
    """Applies events to the table and decides again where something changed or a lease ended."""

    def __init__(
        self, catalog: Catalog, *, epoch: int, config_hash: str, started_us: int, warmup_us: int = 10_000_000
    ) -> None:
        self.epoch = epoch
        self.seq = 0
        """Sequence of the last batch; 0 before the first."""
        self.warmup_us = warmup_us
        self.blocked: Reason | None = None
        self._adopt(catalog, config_hash)
        self._warm_until_us = started_us + warmup_us

    def _adopt(self, catalog: Catalog, config_hash: str) -> None:
        self.catalog = catalog
        self.config_hash = config_hash
        self.table = Table(catalog)
        self.decisions: dict[str, Decision] = {}
        self._removed: list[Decision] = []
        self._dirty = set(range(len(catalog.feeds)))
        self._deadlines: list[tuple[int, int]] = []
        self._cells = [
            tuple(self.table.cell_of(source, spec.feed) or 0 for source in spec.sources) for spec in catalog.feeds
        ]
        self._warmed = [False] * len(catalog.feeds)

    # What changes the inputs.

    def apply(self, event: Event, now_us: int) -> Applied | None:
        """Take one event. Decisions follow at the next :meth:`step`. None for what is not an update."""
        if isinstance(event, PriceUpdate):
            applied = self.table.apply(event, now_us)
            if applied is not Applied.UNKNOWN:
                self._dirty.add(self.catalog.feed_index[event.feed])
            return applied
        if isinstance(event, Status) and self.table.mark(event):
            self._touch(event.feed)
        elif isinstance(event, Malformed):
            pass  # counted by the caller: a frame that says nothing changes nothing
        return None

    def _touch(self, feed: str | None) -> None:
        if feed is None:
            self._dirty.update(range(len(self.catalog.feeds)))
        else:
            self._dirty.add(self.catalog.feed_index[feed])

    def block(self, reason: Reason | None) -> None:
        """Give no price for any feed, for this reason, until called with None."""
        if reason is not self.blocked:
            self.blocked = reason
            self._touch(None)

    def restart_warmup(self, now_us: int) -> None:
        """Forget every held update and warm up again: after our clock was re-anchored no held age can be trusted."""
        self.table = Table(self.catalog)
        self._warm_until_us = now_us + self.warmup_us
        self._warmed = [False] * len(self.catalog.feeds)
        self._deadlines.clear()
        self._touch(None)

    def reload(self, catalog: Catalog, config_hash: str) -> None:
        """Decide by another catalog from the next step on. Held updates, leases and warm-up carry over.

        A feed that is gone gets a last decision: none, ``removed``.
        """
        old_table, old_decisions = self.table, self.decisions
        warmed = {spec.feed for spec, warm in zip(self.catalog.feeds, self._warmed, strict=True) if warm}
        self._adopt(catalog, config_hash)
        self.table.carry_over(old_table)
        self._removed = [held for feed, held in old_decisions.items() if feed not in catalog.feed_index]
        self.decisions = {feed: held for feed, held in old_decisions.items() if feed in catalog.feed_index}
        for index, spec in enumerate(catalog.feeds):
            self._warmed[index] = spec.feed in warmed and all(map(self.table.heard, self._cells[index][:3]))

    # What follows from them.

    def next_deadline(self) -> int | None:
        """The earliest end of a lease: :meth:`step` must be called then even if nothing arrives."""
        while self._deadlines:
            deadline_us, index = self._deadlines[0]
            held = self.decisions.get(self.catalog.feeds[index].feed)
            if held is not None and held.valid_until_us == deadline_us:
                return deadline_us
            heapq.heappop(self._deadlines)
        return None

    @property
    def pending(self) -> bool:
        """Whether something was applied since the last step."""
        return bool(self._dirty or self._removed)

    def step(self, now_us: int) -> Batch | None:
        """Decide every feed that was touched or whose lease is over. None when nothing changed for anybody."""
        while (deadline_us := self.next_deadline()) is not None and deadline_us <= now_us:
            self._dirty.add(heapq.heappop(self._deadlines)[1])
        if not self._dirty and not self._removed:
            return None
        changed = [self._farewell(held, now_us) for held in self._removed]
        self._removed = []
        for index in sorted(self._dirty):
            decision = self._decide(index, now_us)
            if decision is not None:
                changed.append(decision)
        self._dirty.clear()
        if not changed:
            return None
        self.seq += 1
        return Batch(self.epoch, self.seq, now_us, self.config_hash, tuple(changed))

    def _decide(self, index: int, now_us: int) -> Decision | None:
        spec = self.catalog.feeds[index]
        held = self.decisions.get(spec.feed)
        reason = self.blocked
        lease_us: int | None = None
        if reason is None and self._warming(index, now_us):
            reason, lease_us = Reason.WARMING, self._warm_until_us
        if reason is not None:
            if held is not None and held.reason is reason and held.valid_until_us == lease_us:
                return None
            return self._settle(index, spec, now_us, None, reason, lease_us)
        primary, first, second = self._cells[index][:3]
        table = self.table
        inputs = (table.input(primary, spec), table.input(first, spec), table.input(second, spec))
        selection = select(now_us, inputs, spec.max_divergence_bps, spec.policy)
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
            heapq.heappush(self._deadlines, (lease_us, index))
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

    def _warming(self, index: int, now_us: int) -> bool:
        if self._warmed[index]:
            return False
        if now_us >= self._warm_until_us or all(map(self.table.heard, self._cells[index][:3])):
            self._warmed[index] = True
            return False
        return True

    # What can be asked.

    def inputs(self, index: int, now_us: int) -> tuple[DecisionInput, ...]:
        """Every source of a feed as it stands at ``now_us``, roles first."""
        spec = self.catalog.feeds[index]
        warming = not self._warmed[index]
        return tuple(
            DecisionInput(
                source,
                "primary" if position == 0 else "verifier" if position < 3 else "reference",
                self.table.status(cell, spec, now_us, warming=warming),
                self.table.held(cell),
            )
            for position, (source, cell) in enumerate(zip(spec.sources, self._cells[index], strict=True))
        )
