"""Proof of one published price: the frames that brought its inputs, the inputs, the rule, and the batch, derived again.

The journal is read from the nearest run start or checkpoint before the batch. What is proved: the records in the
journal give exactly the batch whose digest was written when it was published, and the rule, applied once more to the
printed inputs alone, gives the printed price.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Batch, Decision, DecisionInput, batch_digest
from oracle_hub.core.selector import ABSENT, Input, Reason, select
from oracle_hub.core.table import InputStatus
from oracle_hub.errors import JournalError
from oracle_hub.journal.reader import read_journal, read_segment
from oracle_hub.journal.records import Checkpoint, FrameIn, Published, RunStart, Step
from oracle_hub.journal.segments import Segment, list_segments

_MARGIN_US = 120_000_000
"""Names of segments have the wall clock, in whole seconds, and ours may be apart from it by the allowed skew."""


class Evidence(msgspec.Struct, frozen=True):
    """Where an input came from."""

    segment: str
    """File of the journal."""
    frames: tuple[FrameIn, ...]
    """As they arrived. Usually one; several where frames of one link share a microsecond."""


class DecisionProof(msgspec.Struct, frozen=True):
    """One decision, what it was made of, and whether the rule gives it again."""

    decision: Decision
    spec: FeedSpec | None
    """None for a feed that the configuration no longer has."""
    evidence: dict[str, Evidence]
    """By source. A source without an entry held nothing, or its frame was deleted with an old segment."""
    private: frozenset[str]
    """Sources whose frames hold, or may hold beside their own, a price that the licence of its source keeps inside."""
    by_the_rule: bool | None
    """The rule over the inputs above gives this decision. None: no rule was applied (warming up, blocked)."""


class Proof(msgspec.Struct, frozen=True):
    """What can be said of one batch."""

    epoch: int
    seq: int
    now_us: int
    instance: str
    version: str
    """Version of oracle-hub that published it."""
    simulated: bool
    config_hash: str
    published: str
    """Digest in hex, as the journal says it was published."""
    derived: str
    began_at: str
    """Segment from whose beginning it was derived."""
    decisions: tuple[DecisionProof, ...]

    @property
    def proved(self) -> bool:
        """The same digest, and every decision by the rule."""
        return self.published == self.derived and all(one.by_the_rule is not False for one in self.decisions)


class _Start(msgspec.Struct, frozen=True):
    """A place where derivation can begin."""

    index: int
    epoch: int
    seq: int
    """Batches after this one are derived from here on."""
    now_us: int


class _Derived(msgspec.Struct, frozen=True):
    """A batch, and what stood beside it when it was derived."""

    batch: Batch
    digest: bytes
    run: RunStart
    specs: dict[str, FeedSpec]
    private: frozenset[str]
    start: _Start


class Prover:
    """Proves batches of one journal.

    Args:
        directory: the journal's folder.

    Raises:
        JournalError: no journal there, or nothing in it to begin from.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self._segments = list_segments(directory)
        except OSError as error:
            reason = error.strerror or "it can't be read"
            raise JournalError(f"{directory}: {reason.lower()}; --journal names a journal's directory") from None
        if not self._segments:
            raise JournalError(f"no segments of a journal in {directory}")
        self._starts = list(_starts(self._segments))
        if not self._starts:
            raise JournalError(f"{directory}: neither the start of a run nor a checkpoint is in it")

    def batch(self, epoch: int, seq: int, feed: str | None = None) -> Proof:
        """Prove one batch, or what it says of one feed.

        Raises:
            JournalError: the journal does not hold it, or says that it was never published; names what it holds.
        """
        starts = [start for start in self._starts if start.epoch == epoch]
        if not starts:
            held = ", ".join(str(known) for known in dict.fromkeys(start.epoch for start in self._starts))
            raise JournalError(f"no run of epoch {epoch} in the journal; it holds {held}")
        before = [start for start in starts if start.seq < seq]
        if not before:
            raise JournalError(f"batch {epoch}, {seq} is older than the journal, which begins after {starts[0].seq}")
        for derived in self._derive(before[-1]):
            if derived.batch.seq == seq:
                return self._proof(derived, feed)
            if derived.batch.seq > seq:
                break
        raise JournalError(f"batch {epoch}, {seq} was never published, as far as the journal goes")

    def in_force(self, feed: str, at_us: int) -> Proof:
        """Prove the decision that held for a feed at an instant.

        Raises:
            JournalError: none did: before the journal, an unknown feed, or its lease was over and nothing followed.
        """
        until_us = at_us
        found: _Derived | None = None
        for start in reversed([start for start in self._starts if start.now_us <= at_us]):
            found = None
            for derived in self._derive(start):
                if derived.batch.now_us > until_us:
                    break
                if any(decision.feed == feed for decision in derived.batch.decisions):
                    found = derived
            if found is not None:
                break
        if found is None:
            raise JournalError(f"the journal has no decision for {feed} at or before that time")
        decision = next(one for one in found.batch.decisions if one.feed == feed)
        if decision.valid_until_us is not None and decision.valid_until_us <= at_us:
            raise JournalError(
                f"nothing was in force for {feed}: the lease of batch {found.batch.epoch}, {found.batch.seq} ended at "
                f"{decision.valid_until_us} us and no decision followed (the hub was not running)"
            )
        return self._proof(found, feed)

    def _derive(self, start: _Start) -> Iterator[_Derived]:
        """Every published batch of a run from a place on, in order."""
        waiting: list[Batch] = []
        replayer = Replayer(lineup_from_text, on_batch=waiting.append)
        paths = [one.path for one in self._segments[start.index :] if one.epoch == start.epoch]
        for record in read_journal(paths, strict=False):
            replayer.take(record)
            if isinstance(record, Step):
                del waiting[:-1]
            elif isinstance(record, Published) and waiting and replayer.run is not None and replayer.engine is not None:
                batch = waiting.pop()
                specs = {spec.feed: spec for spec in replayer.engine.hub.catalog.feeds}
                private = _private(replayer.engine.hub.catalog, replayer.engine.lineup.readers)
                yield _Derived(batch, record.digest, replayer.run, specs, private, start)

    # What stands behind a batch.

    def _proof(self, derived: _Derived, feed: str | None) -> Proof:
        batch, run = derived.batch, derived.run
        decisions = [decision for decision in batch.decisions if feed is None or decision.feed == feed]
        if not decisions:
            told = ", ".join(decision.feed for decision in batch.decisions)
            raise JournalError(f"batch {batch.epoch}, {batch.seq} says nothing of {feed}; it tells of {told}")
        evidence = self._evidence(decisions, batch.epoch)
        return Proof(
            epoch=batch.epoch,
            seq=batch.seq,
            now_us=batch.now_us,
            instance=run.instance,
            version=run.version,
            simulated=run.simulated,
            config_hash=batch.config_hash,
            published=derived.digest.hex(),
            derived=batch_digest(batch).hex(),
            began_at=self._segments[derived.start.index].path.name,
            decisions=tuple(
                DecisionProof(
                    decision=decision,
                    spec=derived.specs.get(decision.feed),
                    evidence={
                        entry.source: evidence[entry.held.transport, entry.held.received_us]
                        for entry in decision.inputs
                        if entry.held is not None and (entry.held.transport, entry.held.received_us) in evidence
                    },
                    private=derived.private,
                    by_the_rule=by_the_rule(decision, derived.specs.get(decision.feed)),
                )
                for decision in decisions
            ),
        )

    def _evidence(self, decisions: Sequence[Decision], epoch: int) -> dict[tuple[str, int], Evidence]:
        """The frames that brought the inputs, by link and receipt: found newest segment first."""
        held = [entry.held for decision in decisions for entry in decision.inputs if entry.held is not None]
        wanted = {(update.transport, update.received_us) for update in held}
        found: dict[tuple[str, int], Evidence] = {}
        first_us = min((received_us for _, received_us in wanted), default=0)
        last_us = max((received_us for _, received_us in wanted), default=0)
        for segment in reversed([one for one in self._segments if one.epoch == epoch]):
            if segment.start_us - _MARGIN_US > last_us or len(found) == len(wanted):
                continue
            for key, frames in _frames_of(segment, wanted - set(found)).items():
                found[key] = Evidence(segment.path.name, tuple(frames))
            if segment.start_us + _MARGIN_US < first_us:
                break
        return found


def _private(catalog: Catalog, from_accounts: Iterable[str]) -> frozenset[str]:
    """Sources whose frames must be withheld. One frame of Solana brings accounts of several sources."""
    shared = frozenset(from_accounts)
    return catalog.withheld | shared if catalog.withheld & shared else catalog.withheld


def _starts(segments: Sequence[Segment]) -> Iterator[_Start]:
    """Where derivation can begin, by the first records of each segment."""
    for index, segment in enumerate(segments):
        for count, record in enumerate(read_segment(segment.path, strict=False)):
            if isinstance(record, RunStart):
                yield _Start(index, record.epoch, 0, record.wall_us)
                break
            if isinstance(record, Checkpoint):
                yield _Start(index, record.epoch, record.seq, record.now_us)
                break
            if count >= 2:  # a checkpoint is the first record, or stands behind a gap
                break


def _frames_of(segment: Segment, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], list[FrameIn]]:
    found: dict[tuple[str, int], list[FrameIn]] = {}
    for record in read_segment(segment.path, strict=False):
        if isinstance(record, FrameIn) and (record.link, record.received_us) in wanted:
            found.setdefault((record.link, record.received_us), []).append(record)
    return found


_WITHOUT_RULE = frozenset({Reason.REMOVED, Reason.CLOCK_SKEW, Reason.JOURNAL, Reason.WARMING})


def by_the_rule(decision: Decision, spec: FeedSpec | None) -> bool | None:
    """Whether the rule, over a decision's own inputs and nothing else, gives that decision.

    None where none was applied: a feed that is warming up, blocked or removed has no choice behind it.
    """
    if spec is None or decision.reason in _WITHOUT_RULE:
        return None
    first, second, third = (_input(entry, spec) for entry in decision.inputs[:3])
    chosen = select(decision.decided_us, (first, second, third), spec.max_divergence_bps, spec.policy, spec.barred)
    outcome = chosen.outcome
    source = spec.roles[outcome.chosen] if outcome.chosen >= 0 else None
    ours = (outcome.state, outcome.rule, outcome.reason, source, chosen.mantissa, chosen.valid_until_us)
    theirs = (decision.state, decision.rule, decision.reason, decision.source, decision.mantissa)
    return ours == (*theirs, decision.valid_until_us)


def _input(entry: DecisionInput, spec: FeedSpec) -> Input:
    """An input as the rule sees it. Only its age changes with time: any other fault makes it absent."""
    held = entry.held
    if held is None or entry.status not in (InputStatus.OK, InputStatus.STALE):
        return ABSENT
    recency_us = min(held.publish_us, held.received_us)
    return (0, recency_us + spec.max_age_us[entry.source], held.mantissa, recency_us)
