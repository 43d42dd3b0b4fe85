"""What has been published, and every form of it that subscribers share.

The board changes only in :meth:`Board.apply`, so whatever a subscriber is shown, at whatever moment it joins, is the
state after some batch, and the next batch follows from there. A decision that was made but not published yet is not on
it. Each decision is encoded once per form, each frame once per group of subscribers that stand at the same sequence.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from oracle_hub.core.hub import Batch, Decision
from oracle_hub.stream import binary
from oracle_hub.stream.alerts import AlertBoard
from oracle_hub.stream.beats import Beats
from oracle_hub.stream.entries import Entries, Kind
from oracle_hub.stream.groups import Beat, Group, GroupKey, Row, Subscription, rotated
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import (
    Heartbeat,
    Merge,
    Resume,
    Snapshot,
    Update,
    View,
    ViewReason,
    encode,
    feed_entry,
    is_removed,
    view,
)

if TYPE_CHECKING:
    from oracle_hub.stream.session import Session


class Form(NamedTuple):
    """How snapshots, updates and heartbeats are written for a group."""

    entry: Callable[[Decision, View, bool, Merge | None], msgspec.Raw]
    encode: Callable[[Snapshot | Update | Heartbeat], bytes]
    """Takes messages whose feeds are of the same form."""
    frame: Callable[[bytes], bytes]
    stamp: Callable[[int], bytes]
    """How a time is written."""
    beat_time_at: Callable[[bytes], int]
    """Where in a heartbeat its time stands."""

    def message(self, message: Snapshot | Update | Heartbeat) -> bytes:
        """What goes to the transport."""
        return self.frame(self.encode(message))

    def beat(self, message: Heartbeat) -> Beat:
        """What goes to the transport, cut at its time: at another one of the same size the rest is the same."""
        payload = self.encode(message)
        frame, size = self.frame(payload), len(self.stamp(message.server_time_us))
        at = frame.index(payload) + self.beat_time_at(payload)
        return Beat(frame[:at], frame[at + size :], size)


def _json_time_at(heartbeat: bytes) -> int:
    key = b'"server_time_us":'
    return heartbeat.index(key) + len(key)  # before it stand numbers only


class Part:
    """What of a batch concerns one group."""

    __slots__ = ("decisions", "entries", "prev_seq", "urgent")

    def __init__(self, prev_seq: int, decisions: list[Decision]) -> None:
        self.prev_seq = prev_seq
        """Where those of the group stand that were in step until now."""
        self.decisions = decisions
        self.urgent = False
        """Whether the state of a feed changed: no throttle holds that back."""
        self.entries: list[msgspec.Raw] | None = None


class Publication:
    """One batch on its way out: whom it concerns, in which order, and what has been encoded of it."""

    def __init__(
        self, board: "Board", batch: Batch, sent_us: int, parts: dict[Group, Part], *, journaled: bool, turn: int
    ) -> None:
        self.batch = batch
        self.sent_us = sent_us
        self.parts = parts
        """Groups that follow one of its feeds; nobody else needs to hear of it."""
        self._journaled = _told(journaled)
        self._form = board.form
        self._entries: dict[tuple[str, bool, int | None, bool], msgspec.Raw] = {}
        self._frames: dict[tuple[Group, int, int], bytes] = {}
        groups = list(parts)
        start = turn % len(groups) if groups else 0
        groups = groups[start:] + groups[:start]
        self.turn = turn
        self.in_step: list[tuple[Group, int, Row]] = [
            (group, number, row) for group in groups for number, row in group.in_step.items()
        ]
        """First to be served: rows of sessions to which :meth:`step_frame` is all that they need, if they take it."""
        keepers = dict.fromkeys(sub.session for group in groups for sub in group.keepers_apart)
        others = dict.fromkeys(sub.session for group in groups for sub in group.others)
        others |= dict.fromkeys(sub.session for group in groups if parts[group].urgent for sub in group.parked)
        self.apart: list[Session] = list(
            chain(
                rotated(tuple(keepers), turn),
                (session for session in rotated(tuple(others), turn) if session not in keepers),
            )
        )
        """Then these, each by its own :meth:`~oracle_hub.stream.session.Session.publish`."""

    def step_frame(self, group: Group, number: int) -> bytes:
        """The update for those who were in step with their group before this batch."""
        return self.frame(group, number, self.parts[group].prev_seq)

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
                feeds=self._part_entries(group),
                journaled=self._journaled,
            )
            frame = self._frames[at] = self._form(group.key).message(update)
        return frame

    def _part_entries(self, group: Group) -> list[msgspec.Raw]:
        part = self.parts[group]
        if part.entries is None:
            part.entries = [self._entry(decision, group.key) for decision in part.decisions]
        return part.entries

    def _entry(self, decision: Decision, key: GroupKey) -> msgspec.Raw:
        at = (decision.feed, key.full, key.max_age_us, key.binary)
        entry = self._entries.get(at)
        if entry is None:
            shown = view(decision, self.sent_us, key.max_age_us)
            entry = self._entries[at] = self._form(key).entry(decision, shown, key.full, None)
        return entry


def _told(journaled: bool) -> bool | msgspec.UnsetType:
    """The journal is mentioned only when it failed."""
    return msgspec.UNSET if journaled else False


def encode_entry(decision: Decision, shown: View, full: bool, merge: Merge | None = None) -> msgspec.Raw:
    """One feed entry as JSON."""
    return msgspec.Raw(encode(feed_entry(decision, shown, full=full, merge=merge)))


class Board:
    """The published decisions in catalog order, the ring behind them, and the groups in front of them."""

    def __init__(
        self,
        decisions: Mapping[str, Decision],
        history: History,
        frame: Callable[[bytes], bytes] = bytes,
        *,
        binary_frame: Callable[[bytes], bytes] = bytes,
        instance: str = "",
    ) -> None:
        """Start from what is published already: ``decisions`` as they stand after ``history.last_seq``.

        ``frame`` turns a message into what goes to the transport, ``binary_frame`` one in the binary form; every
        message is framed once. The frame holds the payload as it is.
        """
        self.decisions: dict[str, Decision] = dict(decisions)
        self.removed: dict[str, Decision] = {}
        """Last words on feeds that left, for subscribers who were not told yet."""
        self.instance = instance
        self._unjournaled: deque[int] = deque(maxlen=history.max_batches)
        """Sequences of batches that the journal could not take, as far back as a resume reaches."""
        self.history = history
        self.conflated = 0
        """Feed entries that were sent merged: their subscriber was slow, or did not want more."""
        self.frame = frame
        self.alerts = AlertBoard(history.epoch, frame)
        json_form = Form(encode_entry, encode, frame, lambda now_us: b"%d" % now_us, _json_time_at)
        binary_form = Form(
            binary.encode_entry, binary.encode_message, binary_frame, binary.encode_time, lambda _: binary.TIME_AT
        )
        self.forms = json_form, binary_form
        self.beats = Beats(self)
        self._entries = Entries()
        self._groups: dict[GroupKey, Group] = {}
        self._by_feed: dict[str | None, dict[Group, None]] = {None: {}}
        """Groups by the feeds that they name; those that follow all feeds under None."""
        self._aging: set[Group] = set()
        """Groups with a max age of their own."""
        self._rank: dict[str, int] | None = None
        """Place of each feed among the decisions; None when it must be counted again."""
        self._turn = 0
        self._shared: dict[tuple[Group, int, int, int], tuple[bytes, int]] = {}
        self._shared_at = (0, 0)
        """At (seq, now_us): merged updates with their numbers of feeds, by group, number, sequence and where parked."""
        self._ended: dict[tuple[Group, int, int], tuple[Iterable[str], bytes]] = {}
        """Of those whose price became too old at one instant (below): their feeds, and the update that says so."""
        self._ended_at: tuple[int, int] | None = None
        """Seq and now_us."""
        self._next_end_us: int | None = None
        self._next_end_stale = False

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
        changed = set()
        for decision in batch.decisions:
            feed = decision.feed
            before = self.decisions.get(feed)
            if before is None or before.state is not decision.state:
                changed.add(feed)
            if is_removed(decision):
                self.decisions.pop(feed, None)
                self.removed[feed] = decision
                self.beats.forget_feed(feed)
                self._entries.forget((feed,))
                self._rank = None
            else:
                if before is None:
                    self._rank = None
                self.decisions[feed] = decision
                self.removed.pop(feed, None)
        self._turn += 1
        parts = self._parts(batch, changed)
        return Publication(self, batch, sent_us, parts, journaled=journaled, turn=self._turn)

    def _parts(self, batch: Batch, changed: set[str]) -> dict[Group, Part]:
        """Deal a batch out to the groups that it concerns, and move these on to it."""
        parts: dict[Group, Part] = {}
        if batch.decisions:
            for group in self._by_feed[None]:
                parts[group] = part = Part(group.last_seq, list(batch.decisions))
                part.urgent = bool(changed)
        for decision in batch.decisions:
            feed = decision.feed
            for group in self._by_feed.get(feed, ()):
                part_or_none = parts.get(group)
                if part_or_none is None:
                    part_or_none = parts[group] = Part(group.last_seq, [])
                part_or_none.decisions.append(decision)
                if feed in changed:
                    part_or_none.urgent = True
        for group, part in parts.items():
            group.last_seq = batch.seq
            group.keep(batch.seq, part.decisions)
            self._next_end_stale |= group.note(part.decisions)
            self.beats.moved(group)
        return parts

    def reorder(self, feeds: Iterable[str]) -> None:
        """Put the decisions into the order of a new catalog."""
        order = {feed: index for index, feed in enumerate(feeds)}
        self.decisions = dict(sorted(self.decisions.items(), key=lambda item: order.get(item[0], len(order))))
        self._rank = None

    def decision(self, feed: str) -> Decision | None:
        """The last word on a feed, also where that was its removal."""
        return self.decisions.get(feed) or self.removed.get(feed)

    def since(self, resume: Resume | None) -> list[Batch] | None:
        """All batches since a resume point; None when there is none, or not all of them can be had."""
        if resume is None or (resume.instance is not None and resume.instance != self.instance):
            return None
        return self.history.since(resume.epoch, resume.seq)

    def form(self, key: GroupKey) -> Form:
        """The form that a group reads."""
        return self.forms[key.binary]

    # Groups.

    def join(self, key: GroupKey) -> Group:
        """Count one more subscription with this key, and give its group."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key, self.seq)
            for feed in (None,) if key.feeds is None else key.feeds:
                self._by_feed.setdefault(feed, {})[group] = None
            if key.max_age_us is not None:
                self._aging.add(group)
                self._next_end_stale |= group.note(self.followed(group))
        group.members += 1
        return group

    def leave(self, group: Group) -> None:
        """Count one less; a group without members is forgotten."""
        group.members -= 1
        if group.members:
            return
        del self._groups[group.key]
        self._aging.discard(group)
        self.beats.left(group)
        self._next_end_stale = True
        for feed in (None,) if group.key.feeds is None else group.key.feeds:
            del self._by_feed[feed][group]
            if feed is not None and not self._by_feed[feed]:
                del self._by_feed[feed]

    @property
    def groups(self) -> Collection[Group]:
        """All that somebody follows."""
        return self._groups.values()

    @property
    def all_are_followed(self) -> bool:
        """Whether somebody follows all feeds."""
        return bool(self._by_feed[None])

    def followed(self, group: Group) -> list[Decision]:
        """Current decisions of a group's feeds, in catalog order."""
        if group.key.feeds is None:
            return list(self.decisions.values())
        if self._rank is None:
            self._rank = {feed: place for place, feed in enumerate(self.decisions)}
        feeds = sorted(filter(self._rank.__contains__, group.key.feeds), key=self._rank.__getitem__)
        return [self.decisions[feed] for feed in feeds]

    # Frames that are made on demand.

    def snapshot(self, group: Group, number: int, now_us: int) -> bytes:
        """All feeds of a group as they stand after the last batch, and at ``now_us``."""
        key, form = group.key, self.form(group.key)
        kind = Kind(key.full, key.binary, key.max_age_us)
        entries = self._entries.of(kind, form.entry, self.followed(group), now_us)
        return form.message(Snapshot(sub=number, epoch=self.epoch, seq=self.seq, sent_us=now_us, feeds=entries))

    def entries(self, now_us: int, *, full: bool) -> list[msgspec.Raw]:
        """All feeds as they stand at ``now_us``, in the order of the catalog, as JSON."""
        kind = Kind(full, False, None)
        return self._entries.of(kind, self.forms[0].entry, tuple(self.decisions.values()), now_us)

    def owed(self, sub: Subscription, now_us: int) -> bytes:
        """One update with all that a subscription was not told. Who was parked together shares it."""
        shareable = sub.parked and not sub.dirty
        if self._shared_at != (self.seq, now_us):
            self._shared_at = (self.seq, now_us)
            self._shared.clear()
        at = (sub.group, sub.number, sub.last_seq, sub.merged_seq)
        shared = self._shared.get(at) if shareable else None
        if shared is None:
            if sub.parked:
                sub.catch_up()
            frame = self.merged(sub.group, sub.number, sub.last_seq, sub.dirty, now_us)
            shared = frame, len(sub.dirty)
            if shareable:
                self._shared[at] = shared
        self.conflated += shared[1]
        return shared[0]

    def merged(self, group: Group, number: int, prev_seq: int, merges: Mapping[str, Merge], now_us: int) -> bytes:
        """One update for everything since ``prev_seq``: per feed only where it stands now, and what it went through."""
        key, form = group.key, self.form(group.key)
        entries = []
        for feed, merge in merges.items():
            decision = self.decision(feed)
            if decision is not None:
                shown = view(decision, now_us, key.max_age_us)
                entries.append(form.entry(decision, shown, key.full, merge))
        return self._update(form, number, self.seq, prev_seq, now_us, entries, conflated=True)

    def replay(self, group: Group, number: int, prev_seq: int, batches: Iterable[Batch], now_us: int) -> list[bytes]:
        """Updates as they were, marked as replayed: each decision is shown as of the time when it was made."""
        key, form = group.key, self.form(group.key)
        frames = []
        for batch in batches:
            entries = [
                form.entry(decision, view(decision, decision.decided_us, key.max_age_us), key.full, None)
                for decision in batch.decisions
                if group.has(decision.feed)
            ]
            if entries:
                frames.append(self._update(form, number, batch.seq, prev_seq, now_us, entries, replayed=True))
                prev_seq = batch.seq
        return frames

    def too_old(self, group: Group, number: int, seq: int, feeds: Iterable[str], now_us: int) -> bytes:
        """An update without a new sequence: these prices are now too old for the group's own max age.

        Subscriptions with equal numbers and sequences share it, if they are asked for one after the other with the
        very ``feeds`` that :meth:`pop_ended` gave.
        """
        if self._ended_at is None or self._ended_at != (self.seq, now_us):
            self._ended_at = self.seq, now_us
            self._ended.clear()
        held = self._ended.get((group, number, seq))
        if held is not None and held[0] is feeds:
            return held[1]
        shown, full, form = View(ViewReason.MAX_AGE, None), group.key.full, self.form(group.key)
        entries = [form.entry(self.decisions[feed], shown, full, None) for feed in feeds if feed in self.decisions]
        frame = self._update(form, number, seq, seq, now_us, entries)
        self._ended[group, number, seq] = feeds, frame
        return frame

    def _update(
        self,
        form: Form,
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
        return form.message(update)

    # Max age, a lease of the group's own.

    def next_end_us(self) -> int | None:
        """When :meth:`pop_ended` has something to tell; None for never."""
        if self._next_end_stale:
            self._next_end_us = min((end for group in self._aging for end in group.ends.values()), default=None)
            self._next_end_stale = False
        return self._next_end_us

    def pop_ended(self, now_us: int) -> dict[Group, list[str]]:
        """Feeds whose price became too old for a group since the last call."""
        ended: dict[Group, list[str]] = {}
        for group in self._aging:
            feeds = [feed for feed, end_us in group.ends.items() if end_us <= now_us]
            for feed in feeds:
                del group.ends[feed]
            if feeds:
                ended[group] = feeds
                self._next_end_stale = True
        return ended
