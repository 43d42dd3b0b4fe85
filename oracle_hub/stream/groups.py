"""Who is told what: subscriptions that read the same, and those of them that stand at the same sequence.

A group is all subscriptions with equal keys. Most of its members have been sent everything so far: they are *in step*,
the group holds one sequence for all of them, and one frame serves them with no work per member but the write. Whoever
has just joined, is throttled, replays, did not take a frame, or has a second subscription is *apart* and is looked
after by its own session until it stands where the group stands. Who is throttled and owed something is *parked*: the
group keeps what happens meanwhile, once for all of them, and they cost nothing until they may be told.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from oracle_hub.core.hub import Decision
from oracle_hub.stream.messages import Merge, recency_us

if TYPE_CHECKING:
    from oracle_hub.stream.session import Session

_STRIDE = 611_953
"""A prime: successive starts of a rotation lie far apart, and reach every place unless it divides the length."""


MAX_KEPT = 256
"""Parts of batches that a group keeps for those who are parked; then they are merged for each of them."""


class GroupKey(NamedTuple):
    """What makes two subscriptions read the same: which feeds, how detailed, how old at most, in which form."""

    feeds: frozenset[str] | None
    """None: all, also those added later."""
    full: bool
    max_age_us: int | None
    binary: bool = False
    """Whether in the form of :mod:`oracle_hub.stream.binary`; else JSON."""


class Beat(NamedTuple):
    """A heartbeat without its time."""

    head: bytes
    tail: bytes
    stamp_size: int
    """Of the time that goes between."""


class Group:
    """Subscriptions with equal keys. They share encoded bytes."""

    __slots__ = (
        "_kept", "beat_until_us", "beats", "digest", "ends", "in_step", "keepers_apart", "key", "last_seq",
        "members", "not_live", "others", "parked", "shelf",
    )  # fmt: skip

    def __init__(self, key: GroupKey, seq: int) -> None:
        self.key = key
        self.members = 0
        self.last_seq = seq
        """The last batch that had something for this group; at first, the last batch when the group came to be."""
        self.in_step: dict[int, Row] = {}
        """Rows of those that were sent everything up to ``last_seq``, by the number of their subscription."""
        self.keepers_apart: dict[Subscription, None] = {}
        self.others: dict[Subscription, None] = {}
        """All that replay or are throttled: they come after every keeper."""
        self.parked: dict[Subscription, None] = {}
        """Of those that are throttled, who waits for its time. In the order of ``merged_seq``."""
        self._kept: deque[tuple[int, Sequence[Decision]]] = deque()
        """By sequence, what concerned this group since the first of them was parked, at most :data:`MAX_KEPT`."""
        self.ends: dict[str, int] = {}
        """With a max age: per feed, when its price will be too old for this group before its lease is over."""
        self.beat_until_us = 0
        """Until when ``not_live`` and ``digest`` hold, if nothing is published. 0: not computed."""
        self.not_live: list[str] = []
        self.digest = ""
        self.beats: dict[tuple[int, int], Beat] = {}
        """Heartbeats by number and sequence, while ``not_live`` and ``digest`` hold."""
        self.shelf: int | None = None
        """Where its heartbeats are filed by the time until which they hold."""

    def has(self, feed: str) -> bool:
        """Whether the group follows a feed."""
        return self.key.feeds is None or feed in self.key.feeds

    def keep(self, seq: int, decisions: Sequence[Decision]) -> None:
        """Keep what a batch has for this group, while somebody is parked."""
        if not self.parked:
            self._kept.clear()
            return
        first_seq = next(iter(self.parked)).merged_seq
        while self._kept and self._kept[0][0] <= first_seq:
            self._kept.popleft()
        self._kept.append((seq, decisions))
        if len(self._kept) > MAX_KEPT:
            for sub in tuple(self.parked):
                sub.catch_up()
            self._kept.clear()

    def park(self, sub: "Subscription", seq: int, decisions: Sequence[Decision]) -> None:
        """A subscription waits, and ``decisions`` of batch ``seq`` are the first that it was not told."""
        if not self._kept or self._kept[-1][0] < seq:
            self._kept.append((seq, decisions))
        self.parked[sub] = None

    def kept_since(self, seq: int) -> Iterator[Decision]:
        """What concerned this group after a sequence, newest batch first."""
        for at, decisions in reversed(self._kept):
            if at <= seq:
                return
            yield from decisions

    def sessions(self) -> list["Session"]:
        """All that have a subscription in this group, those who want the newest at once first."""
        apart = (sub.session for subs in (self.keepers_apart, self.others, self.parked) for sub in subs)
        rows = (session for row in self.in_step.values() for session in row.sessions)
        return list(dict.fromkeys((*rows, *apart)))

    def note(self, decisions: Iterable[Decision]) -> bool:
        """Take down when new decisions become too old for this group; True when that can differ from before."""
        self.beat_until_us = 0
        max_age_us = self.key.max_age_us
        if max_age_us is None:
            return False
        for decision in decisions:
            self.ends.pop(decision.feed, None)
            if decision.mantissa is None:
                continue
            end_us = recency_us(decision) + max_age_us + 1
            if decision.valid_until_us is None or end_us < decision.valid_until_us:
                self.ends[decision.feed] = end_us
        return True


class Row:
    """Sessions of one group that are in step and gave their subscription the same number.

    Those that the caller knows a handle of stand in two columns, so that a frame for all of them is written with no
    look at any. What a row was written is counted once for all, and by each session from when it came in.
    """

    __slots__ = ("_asked_bytes", "_handles", "_reached", "_unreached", "written_bytes")

    def __init__(self) -> None:
        self._reached: list[Session] = []
        self._handles = array("i")
        self._unreached: dict[Session, None] = {}
        self.written_bytes = 0
        self._asked_bytes = 0

    def __len__(self) -> int:
        return len(self._reached) + len(self._unreached)

    @property
    def sessions(self) -> Iterator["Session"]:
        """All of them."""
        return chain(self._reached, self._unreached)

    def add(self, session: "Session") -> None:
        """At the end, or among those without a handle."""
        if session.handle is None:
            self._unreached[session] = None
            return
        session.row_place = len(self._reached)
        self._reached.append(session)
        self._handles.append(session.handle)

    def remove(self, session: "Session") -> None:
        """Whoever is last takes the place."""
        place, session.row_place = session.row_place, -1
        if place < 0:
            del self._unreached[session]
            return
        last, handle = self._reached.pop(), self._handles.pop()
        if last is not session:
            self._reached[place], self._handles[place] = last, handle
            last.row_place = place

    def order(self, turn: int) -> "Order":
        """All sessions, beginning with another one at every turn: nobody is always last."""
        start = turn * _STRIDE % len(self._reached) if self._reached else 0
        return Order(
            self._handles[start:] + self._handles[:start],
            lambda: rotated(self._reached, turn),
            rotated(tuple(self._unreached), turn),
        )

    def wrote(self, size_bytes: int, ask_every_bytes: int) -> bool:
        """Count a frame that goes to all. True once for so many bytes: it is time to ask who has read them."""
        self.written_bytes += size_bytes
        if self.written_bytes - self._asked_bytes < ask_every_bytes:
            return False
        self._asked_bytes = self.written_bytes
        return True


class Order(NamedTuple):
    """Sessions in the order in which they are served: equal places of the first two belong together."""

    handles: Sequence[int]
    reached: Callable[[], Sequence["Session"]]
    """Called before the row changes, and only where they are needed: a list of them touches every one."""
    unreached: Sequence["Session"]
    """To whom no handle is known now."""


def rotated(sessions: Sequence["Session"], turn: int) -> Sequence["Session"]:
    """The same sessions in the same circle, from another start at every turn."""
    if len(sessions) < 2:
        return sessions
    start = turn * _STRIDE % len(sessions)
    return [*sessions[start:], *sessions[:start]]


class Subscription:
    """One subscription of one session."""

    __slots__ = (
        "_in_step", "_own_seq", "dirty", "group", "merged_seq", "min_gap_us", "next_us", "number", "parked", "replays",
        "session",
    )  # fmt: skip

    def __init__(
        self, number: int, group: Group, session: "Session", *, replays: bool, min_gap_us: int, seq: int
    ) -> None:
        self.number = number
        self.group = group
        self.session = session
        self.replays = replays
        """Mode ``all``: every batch is sent, or the connection ends."""
        self.min_gap_us = min_gap_us
        self.next_us = 0
        """Before this, ``max_hz`` holds back all but state changes."""
        self.dirty: dict[str, Merge] = {}
        """Feeds whose latest decision was not sent yet. Bounded by the number of feeds, whatever happens."""
        self.parked = False
        self.merged_seq = seq
        """While parked: ``dirty`` holds what happened up to here, and the group keeps the rest."""
        self._own_seq = seq
        self._in_step = False
        self._apart[self] = None

    @property
    def is_keeper(self) -> bool:
        """Whether it wants the newest, at once: it is served first."""
        return not self.replays and not self.min_gap_us

    @property
    def owed(self) -> bool:
        """Whether there is something that it was not told."""
        return self.parked or bool(self.dirty)

    def must_wait(self, now_us: int) -> bool:
        """Whether ``max_hz`` still holds it back. A clock that was set back does not make it wait longer."""
        return 0 < self.next_us - now_us <= self.min_gap_us

    @property
    def in_step(self) -> bool:
        """Whether it was sent all that the group was sent, and needs no look of its own."""
        return self._in_step

    @property
    def last_seq(self) -> int:
        """The last sequence sent to it."""
        return self.group.last_seq if self._in_step else self._own_seq

    @property
    def _apart(self) -> dict["Subscription", None]:
        return self.group.keepers_apart if self.is_keeper else self.group.others

    def stand_at(self, seq: int, *, alone: bool) -> None:
        """It was sent everything up to ``seq``. ``alone``: its session has no other subscription."""
        if alone and seq == self.group.last_seq and self.is_keeper:
            self._step_in()
        else:
            self.stand_apart(seq)

    def _step_in(self) -> None:
        if not self._in_step:
            self._in_step = True
            del self._apart[self]
            self.session.enter(self.group.in_step.setdefault(self.number, Row()))

    def stand_apart(self, seq: int) -> None:
        """It was sent ``seq`` and no later one, or has company that must be asked with it."""
        self._own_seq = seq
        if self._in_step:
            self._leave_row()
            self._apart[self] = None

    def _leave_row(self) -> None:
        self._in_step = False
        self.session.leave_row()
        if not self.group.in_step[self.number]:
            del self.group.in_step[self.number]

    def park(self, seq: int, decisions: Sequence[Decision]) -> None:
        """It must wait, from a batch on that has these decisions for its group."""
        del self._apart[self]
        self.parked, self.merged_seq = True, seq - 1
        self.group.park(self, seq, decisions)

    def catch_up(self) -> None:
        """Merge what the group has kept."""
        for decision in self.group.kept_since(self.merged_seq):
            self.take_in(decision)
        self.merged_seq = self.group.last_seq

    def take_in(self, decision: Decision) -> None:
        """It is owed this decision."""
        self.dirty.setdefault(decision.feed, Merge()).add(decision, self.group.key.max_age_us)

    def told(self) -> None:
        """It was sent all that it was owed."""
        self.dirty.clear()
        if self.parked:
            self.parked = False
            del self.group.parked[self]
            self._apart[self] = None

    def end(self) -> None:
        """It is no longer in its group's books."""
        if self._in_step:
            self._leave_row()
        elif self.parked:
            del self.group.parked[self]
        else:
            del self._apart[self]
