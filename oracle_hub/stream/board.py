"""What has been published, and every form of it that subscribers share.

The board changes only in :meth:`Board.apply`, so whatever a subscriber is shown, at whatever moment it joins, is the
state after some batch, and the next batch follows from there. A decision that was made but not published yet is not on
it. Each decision is encoded once per form, each frame once per group of subscribers that stand at the same sequence.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from oracle_hub.core.hub import Batch, Decision
from oracle_hub.core.selector import State
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import (
    Heartbeat,
    Merge,
    Resume,
    Snapshot,
    Update,
    View,
    ViewReason,
    digest,
    digest_line,
    encode,
    feed_entry,
    is_removed,
    recency_us,
    view,
)


class GroupKey(NamedTuple):
    """What makes two subscriptions read the same: which feeds, how detailed, how old at most."""

    feeds: frozenset[str] | None
    """None: all, also those added later."""
    full: bool
    max_age_us: int | None


class Group:
    """Subscriptions with equal keys. They share encoded bytes; each keeps its own sequence."""

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.members = 0
        self.ends: dict[str, int] = {}
        """With a max age: per feed, when its price will be too old for this group before its lease is over."""
        self.beat_until_us = 0
        """Until when ``not_live`` and ``digest`` hold, if nothing is published. 0: not computed."""
        self.not_live: list[str] = []
        self.digest = ""

    def has(self, feed: str) -> bool:
        """Whether the group follows a feed."""
        return self.key.feeds is None or feed in self.key.feeds

    def note(self, decision: Decision) -> None:
        """Take down when a new decision becomes too old for this group."""
        self.beat_until_us = 0
        max_age_us = self.key.max_age_us
        if max_age_us is None:
            return
        self.ends.pop(decision.feed, None)
        if decision.mantissa is None:
            return
        end_us = recency_us(decision) + max_age_us + 1
        if decision.valid_until_us is None or end_us < decision.valid_until_us:
            self.ends[decision.feed] = end_us


class Publication:
    """One batch on its way out, with what has been encoded of it."""

    def __init__(
        self, board: "Board", batch: Batch, sent_us: int, state_changed: frozenset[str], journaled: bool
    ) -> None:
        self.batch = batch
        self._journaled = _told(journaled)
        self.sent_us = sent_us
        self.state_changed = state_changed
        """Feeds whose state differs from before: no throttle holds these back."""
        self._frame = board.frame
        self._entries: dict[tuple[str, bool, int | None], msgspec.Raw] = {}
        self._parts: dict[Group, tuple[tuple[Decision, ...], list[msgspec.Raw], bool]] = {}
        self._frames: dict[tuple[Group, int, int], bytes] = {}

    def part(self, group: Group) -> tuple[tuple[Decision, ...], list[msgspec.Raw], bool]:
        """Decisions of this batch for a group, their encoded entries, and whether any state changed."""
        part = self._parts.get(group)
        if part is None:
            decisions = tuple(decision for decision in self.batch.decisions if group.has(decision.feed))
            entries = [self._entry(decision, group.key) for decision in decisions]
            urgent = any(decision.feed in self.state_changed for decision in decisions)
            part = self._parts[group] = (decisions, entries, urgent)
        return part

    def _entry(self, decision: Decision, key: GroupKey) -> msgspec.Raw:
        form = (decision.feed, key.full, key.max_age_us)
        entry = self._entries.get(form)
        if entry is None:
            entry = self._entries[form] = encode_entry(decision, view(decision, self.sent_us, key.max_age_us), key.full)
        return entry

    def frame(self, group: Group, number: int, prev_seq: int) -> bytes:
        """The update for subscriptions of a group that have this number and stand at ``prev_seq``."""
        at = (group, number, prev_seq)
        frame = self._frames.get(at)
        if frame is None:
            update = Update(
                sub=number,
                epoch=self.batch.epoch,
                seq=self.batch.seq,
                prev_seq=prev_seq,
                sent_us=self.sent_us,
                conflated=False,
                replayed=False,
                feeds=self.part(group)[1],
                journaled=self._journaled,
            )
            frame = self._frames[at] = self._frame(encode(update))
        return frame


def _told(journaled: bool) -> bool | msgspec.UnsetType:
    """The journal is mentioned only when it failed."""
    return msgspec.UNSET if journaled else False


def encode_entry(decision: Decision, shown: View, full: bool, merge: Merge | None = None) -> msgspec.Raw:
    """One feed entry, encoded."""
    return msgspec.Raw(encode(feed_entry(decision, shown, full=full, merge=merge)))


class Board:
    """The published decisions in catalog order, the ring behind them, and the groups in front of them."""

    def __init__(
        self,
        decisions: Mapping[str, Decision],
        history: History,
        frame: Callable[[bytes], bytes] = bytes,
        *,
        instance: str = "",
    ) -> None:
        """Start from what is published already: ``decisions`` as they stand after ``history.last_seq``.

        ``frame`` turns a message into what goes to the transport; every message is framed once.
        """
        self.decisions: dict[str, Decision] = dict(decisions)
        self.removed: dict[str, Decision] = {}
        """Last words on feeds that left, for subscribers who were not told yet."""
        self.instance = instance
        self._unjournaled: deque[int] = deque(maxlen=history.max_batches)
        """Sequences of batches that the journal could not take, as far back as a resume reaches."""
        self.history = history
        self.frame = frame
        self._groups: dict[GroupKey, Group] = {}
        self._by_feed: dict[str | None, set[Group]] = {None: set()}
        """Groups by the feeds that they name; those that follow all feeds under None."""
        self._aging: set[Group] = set()
        """Groups with a max age of their own."""
        self._beats: dict[tuple[Group, int, int], bytes] = {}
        self._beats_at_us = -1

    @property
    def epoch(self) -> int:
        return self.history.epoch

    @property
    def seq(self) -> int:
        """Sequence of the last published batch."""
        return self.history.last_seq

    def apply(self, batch: Batch, sent_us: int, *, journaled: bool = True) -> Publication:
        """Store a batch, then make it what everybody sees."""
        self.history.append(batch)
        if not journaled:
            self._unjournaled.append(batch.seq)
        changed = []
        for decision in batch.decisions:
            feed = decision.feed
            before = self.decisions.get(feed)
            if before is None or before.state is not decision.state:
                changed.append(feed)
            if is_removed(decision):
                self.decisions.pop(feed, None)
                self.removed[feed] = decision
            else:
                self.decisions[feed] = decision
                self.removed.pop(feed, None)
            for group in self._by_feed[None]:
                group.note(decision)
            for group in self._by_feed.get(feed, ()):
                group.note(decision)
        return Publication(self, batch, sent_us, frozenset(changed), journaled)

    def reorder(self, feeds: Iterable[str]) -> None:
        """Put the decisions into the order of a new catalog."""
        order = {feed: index for index, feed in enumerate(feeds)}
        self.decisions = dict(sorted(self.decisions.items(), key=lambda item: order.get(item[0], len(order))))

    def decision(self, feed: str) -> Decision | None:
        """The last word on a feed, also where that was its removal."""
        return self.decisions.get(feed) or self.removed.get(feed)

    def since(self, resume: Resume | None) -> list[Batch] | None:
        """All batches since a resume point; None when there is none, or not all of them can be had."""
        if resume is None or (resume.instance is not None and resume.instance != self.instance):
            return None
        return self.history.since(resume.epoch, resume.seq)

    # Groups.

    def join(self, key: GroupKey) -> Group:
        """Count one more subscription with this key, and give its group."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key)
            for feed in (None,) if key.feeds is None else key.feeds:
                self._by_feed.setdefault(feed, set()).add(group)
            if key.max_age_us is not None:
                self._aging.add(group)
            for decision in self.decisions.values():
                if group.has(decision.feed):
                    group.note(decision)
        group.members += 1
        return group

    def leave(self, group: Group) -> None:
        """Count one less; a group without members is forgotten."""
        group.members -= 1
        if group.members:
            return
        del self._groups[group.key]
        self._aging.discard(group)
        for feed in (None,) if group.key.feeds is None else group.key.feeds:
            self._by_feed[feed].discard(group)
            if feed is not None and not self._by_feed[feed]:
                del self._by_feed[feed]

    def followed(self, group: Group) -> list[Decision]:
        """Current decisions of a group's feeds, in catalog order."""
        return [decision for decision in self.decisions.values() if group.has(decision.feed)]

    # Frames that are made on demand.

    def snapshot(self, group: Group, number: int, now_us: int) -> bytes:
        """All feeds of a group as they stand after the last batch, and at ``now_us``."""
        key = group.key
        entries = [
            encode_entry(decision, view(decision, now_us, key.max_age_us), key.full)
            for decision in self.followed(group)
        ]
        return self.frame(encode(Snapshot(sub=number, epoch=self.epoch, seq=self.seq, sent_us=now_us, feeds=entries)))

    def merged(self, group: Group, number: int, prev_seq: int, merges: Mapping[str, Merge], now_us: int) -> bytes:
        """One update for everything since ``prev_seq``: per feed only where it stands now, and what it went through."""
        key = group.key
        entries = []
        for feed, merge in merges.items():
            decision = self.decision(feed)
            if decision is not None:
                shown = view(decision, now_us, key.max_age_us)
                entries.append(encode_entry(decision, shown, key.full, merge))
        return self._update(number, self.seq, prev_seq, now_us, entries, conflated=True)

    def replay(self, group: Group, number: int, prev_seq: int, batches: Iterable[Batch], now_us: int) -> list[bytes]:
        """Updates as they were, marked as replayed: each decision is shown as of the time when it was made."""
        key = group.key
        frames = []
        for batch in batches:
            entries = [
                encode_entry(decision, view(decision, decision.decided_us, key.max_age_us), key.full)
                for decision in batch.decisions
                if group.has(decision.feed)
            ]
            if entries:
                frames.append(self._update(number, batch.seq, prev_seq, now_us, entries, replayed=True))
                prev_seq = batch.seq
        return frames

    def too_old(self, group: Group, number: int, seq: int, feeds: Iterable[str], now_us: int) -> bytes:
        """An update without a new sequence: these prices are now too old for the group's own max age."""
        shown = View(ViewReason.MAX_AGE, None)
        entries = [
            encode_entry(self.decisions[feed], shown, group.key.full) for feed in feeds if feed in self.decisions
        ]
        return self._update(number, seq, seq, now_us, entries)

    def _update(
        self,
        number: int,
        seq: int,
        prev_seq: int,
        now_us: int,
        entries: list[msgspec.Raw],
        *,
        conflated: bool = False,
        replayed: bool = False,
    ) -> bytes:
        update = Update(
            sub=number,
            epoch=self.epoch,
            seq=seq,
            prev_seq=prev_seq,
            sent_us=now_us,
            conflated=conflated,
            replayed=replayed,
            feeds=entries,
            journaled=_told(not any(prev_seq < lost <= seq for lost in self._unjournaled)),
        )
        return self.frame(encode(update))

    def heartbeat(self, group: Group, number: int, seq: int, now_us: int) -> bytes:
        """The heartbeat for subscriptions of a group that have this number and stand at ``seq``."""
        if now_us != self._beats_at_us:
            self._beats.clear()
            self._beats_at_us = now_us
        at = (group, number, seq)
        frame = self._beats.get(at)
        if frame is None:
            if now_us >= group.beat_until_us:
                self._sum_up(group, now_us)
            beat = Heartbeat(
                sub=number,
                epoch=self.epoch,
                seq=seq,
                server_time_us=now_us,
                not_live=group.not_live,
                digest=group.digest,
            )
            frame = self._beats[at] = self.frame(encode(beat))
        return frame

    def _sum_up(self, group: Group, now_us: int) -> None:
        lines, not_live, holds_until_us = [], [], 2**63
        for decision in self.followed(group):
            shown = view(decision, now_us, group.key.max_age_us)
            if shown.ended is not None:
                lines.append(digest_line(decision.feed, State.NONE, None, None, now_us))
                not_live.append(decision.feed)
                continue
            if decision.state is not State.LIVE:
                not_live.append(decision.feed)
            price = None if decision.mantissa is None else str(decision.mantissa)
            lines.append(digest_line(decision.feed, decision.state, price, shown.valid_until_us, now_us))
            if shown.valid_until_us is not None:
                holds_until_us = min(holds_until_us, shown.valid_until_us)
        group.not_live, group.digest, group.beat_until_us = not_live, digest(lines), holds_until_us

    # Max age, a lease of the group's own.

    def next_end_us(self) -> int | None:
        """When :meth:`pop_ended` has something to tell; None for never."""
        return min((end for group in self._aging for end in group.ends.values()), default=None)

    def pop_ended(self, now_us: int) -> dict[Group, list[str]]:
        """Feeds whose price became too old for a group since the last call."""
        ended: dict[Group, list[str]] = {}
        for group in self._aging:
            feeds = [feed for feed, end_us in group.ends.items() if end_us <= now_us]
            for feed in feeds:
                del group.ends[feed]
            if feeds:
                ended[group] = feeds
        return ended
