"""Heartbeats: what they say, and whose next one is known but for its time.

Nearly everybody has one subscription that is in step, and nothing waits in front of it. Such sessions stand in a
*lane*: a column of handles beside a column of heartbeats, each cut in two where its time belongs. A sweep puts the time
in and hands both columns to whoever writes, with no look at a session, a subscription or a group: after half a second
those are in no cache, and a look at them costs as much as the write. What changes a heartbeat (a batch, the end of a
lease, a session that joins, leaves or falls behind) is noted when it happens and settled before the next entries are
taken.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from oracle_hub.core.hub import Decision
from oracle_hub.core.selector import State
from oracle_hub.stream.groups import Beat, Group
from oracle_hub.stream.messages import Heartbeat, digest, digest_line, recency_us

if TYPE_CHECKING:
    from oracle_hub.stream.board import Board
    from oracle_hub.stream.session import Session

_FOREVER_US = 2**63
_SHELF_US = 1 << 19
"""Groups are shelved by when their heartbeat ends, to half a second: a sweep looks through what ends about now."""
LINES_AT_A_TIME = 256
"""So many feeds are looked at before anything else gets its turn, ahead of the heartbeats of those who follow all."""
RENEWED_LINES = 512
"""While no more feeds than this stand in all heartbeats that are stale, these are made anew at once. Of more, those
alone that are written next: whose these are takes a look at each session, which costs as much as half a write."""


class Sweep(NamedTuple):
    """Heartbeats to write: equal places belong together."""

    handles: Sequence[int]
    frames: list[bytes]
    sessions: Callable[[], Sequence["Session"]]
    """Called before the lane changes, and only where they are needed: a list of them touches every one."""


class Line(msgspec.Struct, gc=False):
    """What one feed adds to a heartbeat. Thousands are held: the garbage collector has nothing to look for in them."""

    decision: Decision
    head: str
    """All of ``text`` that stands before the end of the lease."""
    text: str
    """See :func:`~oracle_hub.stream.messages.digest_line`."""
    until_us: int
    """While our clock is before this, nothing else is said to those without a max age of their own."""
    live: bool
    recency_us: int | None = None
    """What a max age is counted from: see :func:`~oracle_hub.stream.messages.recency_us`. None: nobody has asked."""


class Lane:
    """The sessions of one form whose heartbeat is ready but for its time."""

    __slots__ = ("cuts", "due", "handles", "sessions", "stamp_size")

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.handles = array("i")
        """No list of numbers: these would lie apart from each other."""
        self.cuts: list[tuple[bytes, bytes]] = []
        """What stands before and after the time."""
        self.due = 0
        """In the sweep that goes on, those at places below this are still to be served."""
        self.stamp_size = 0

    def add(self, session: "Session", handle: int, cut: tuple[bytes, bytes]) -> None:
        session.lane, session.place = self, len(self.sessions)
        self.sessions.append(session)
        self.handles.append(handle)
        self.cuts.append(cut)

    def remove(self, session: "Session") -> bool:
        """Whoever is last takes the place; at worst he gets two heartbeats in a sweep. Whether one was due."""
        place, was_due = session.place, session.place < self.due
        session.lane = None
        last, handle, cut = self.sessions.pop(), self.handles.pop(), self.cuts.pop()
        if last is not session:
            self.sessions[place], self.handles[place], self.cuts[place] = last, handle, cut
            last.place = place
        self.due = min(self.due, len(self.sessions))
        return was_due

    def groups(self, n: int) -> set[Group]:
        """Those of the next ``n`` that are due."""
        return {each.lone.group for each in self.sessions[max(0, self.due - n) : self.due] if each.lone is not None}

    def take(self, stamp: bytes, n: int) -> Sweep:
        """The next ``n`` that are due, from the end."""
        start, end = max(0, self.due - n), self.due
        self.due = start
        frames = list(map(stamp.join, self.cuts[start:end]))
        return Sweep(self.handles[start:end], frames, lambda: self.sessions[start:end])


class Beats:
    """All heartbeats of one board."""

    def __init__(self, board: "Board") -> None:
        self._board = board
        self._lines: dict[str, Line] = {}
        """By feed. Of decisions that others have replaced, too."""
        self._unlined: Iterator[str] = iter(())
        """Feeds whose lines are to be looked at before the sweep that goes on writes anything."""
        self._lanes = Lane(), Lane()
        """JSON, and binary."""
        self._apart: dict[Session, None] = {}
        """All others."""
        self._offered: dict[Session, None] = {}
        """Who may stand in a lane now."""
        self._waiting: deque[Session] = deque()
        """Of those apart: who is still to be served in the sweep that goes on."""
        self._served: Session | None = None
        """Of these, who was given out last."""
        self._stale: set[Group] = set()
        """Whose heartbeats in the lanes are to be made anew."""
        self._shelves: dict[int, dict[Group, None]] = {}
        self._settled_us = 0

    # What is said.

    def heartbeat(self, group: Group, number: int, seq: int, now_us: int) -> bytes:
        """The heartbeat for subscriptions of a group that have this number and stand at ``seq``."""
        stamp = self._board.form(group.key).stamp(now_us)
        beat = self._beat(group, number, seq, now_us, len(stamp))
        return b"%b%b%b" % (beat.head, stamp, beat.tail)

    def _beat(self, group: Group, number: int, seq: int, now_us: int, stamp_size: int) -> Beat:
        if now_us >= group.beat_until_us:
            self._sum_up(group, now_us)
        beat = group.beats.get((number, seq))
        if beat is None or beat.stamp_size != stamp_size:
            message = Heartbeat(
                sub=number,
                epoch=self._board.epoch,
                seq=seq,
                server_time_us=now_us,
                not_live=group.not_live,
                digest=group.digest,
            )
            if len(group.beats) >= group.members:
                group.beats.clear()  # of those who were here before
            beat = group.beats[number, seq] = self._board.form(group.key).beat(message)
        return beat

    def _sum_up(self, group: Group, now_us: int) -> None:
        max_age_us, held = group.key.max_age_us, self._lines
        texts, not_live, holds_until_us = [], [], _FOREVER_US
        for decision in self._board.followed(group):
            line = held.get(decision.feed)
            if line is None or line.decision is not decision or now_us >= line.until_us:
                line = self._line(decision, now_us)
            text, until_us, live = line.text, line.until_us, line.live
            if max_age_us is not None:
                if line.recency_us is None:
                    line.recency_us = recency_us(decision)
                too_old_us = line.recency_us + max_age_us + 1
                if too_old_us <= now_us:
                    text, until_us, live = _ended(decision.feed), _FOREVER_US, False
                elif too_old_us < until_us:
                    text, until_us = f"{line.head}{too_old_us}\n", too_old_us
            texts.append(text)
            if not live:
                not_live.append(decision.feed)
            if until_us < holds_until_us:
                holds_until_us = until_us
        group.not_live, group.digest, group.beat_until_us = not_live, digest(texts), holds_until_us
        group.beats.clear()
        self._shelve(group, None if holds_until_us == _FOREVER_US else holds_until_us // _SHELF_US)

    def _line(self, decision: Decision, now_us: int) -> Line:
        """What is said of a decision at ``now_us``, kept while it holds."""
        feed, until_us = decision.feed, decision.valid_until_us
        if until_us is not None and now_us >= until_us:  # not kept: a clock may be set back
            return Line(decision, "", _ended(feed), _FOREVER_US, False, _FOREVER_US)
        price = None if decision.mantissa is None else str(decision.mantissa)
        head = digest_line(feed, decision.state, price, None, now_us)[:-1]
        text = f"{head}{'' if until_us is None else until_us}\n"
        line = Line(
            decision,
            head,
            text,
            _FOREVER_US if until_us is None else until_us,
            decision.state is State.LIVE,
            _FOREVER_US if price is None else None,
        )
        self._lines[feed] = line
        return line

    def _line_up(self, now_us: int) -> bool:
        """Look at some of the feeds that changed since the last sweep; whether there are more."""
        decisions, held = self._board.decisions, self._lines
        feeds = list(islice(self._unlined, LINES_AT_A_TIME))
        for feed in feeds:
            decision, line = decisions.get(feed), held.get(feed)
            if decision is not None and (line is None or line.decision is not decision):
                self._line(decision, now_us)
        return len(feeds) == LINES_AT_A_TIME

    def forget_feed(self, feed: str) -> None:
        """It left."""
        self._lines.pop(feed, None)

    # What changes it.

    def moved(self, group: Group) -> None:
        """A group was sent something new: its heartbeats are other ones."""
        if group.in_step:
            self._stale.add(group)

    def left(self, group: Group) -> None:
        """Nobody follows a group any more."""
        self._stale.discard(group)
        self._shelve(group, None)

    def _shelve(self, group: Group, shelf: int | None) -> None:
        if shelf == group.shelf:
            return
        if group.shelf is not None:
            groups = self._shelves[group.shelf]
            del groups[group]
            if not groups:
                del self._shelves[group.shelf]
        if shelf is not None:
            self._shelves.setdefault(shelf, {})[group] = None
        group.shelf = shelf

    def admit(self, session: "Session") -> None:
        """From now on sweeps are for this session too, until it ends."""
        self._apart[session] = None
        self.offer(session)

    def offer(self, session: "Session") -> None:
        """It may be that nothing keeps a session out of its lane any more."""
        if session.handle is not None and session.lane is None:
            self._offered[session] = None

    def withdraw(self, session: "Session") -> None:
        """Something keeps it out: from now on it is served for itself, in the sweep that goes on too."""
        if session.lane is not None:
            self._apart[session] = None
            if session.lane.remove(session):
                self._waiting.append(session)

    def forget(self, session: "Session") -> None:
        """It is over."""
        self.withdraw(session)
        self._apart.pop(session, None)
        self._offered.pop(session, None)
        if self._served is session:
            self._served = None

    # Sweeps.

    def begin(self) -> None:
        """Everybody is due a heartbeat: from :meth:`take` until it has no more, then from :meth:`next_apart`."""
        for lane in self._lanes:
            lane.due = len(lane.sessions)
        self._waiting = deque(self._apart)
        self._unlined = iter(tuple(self._board.decisions) if self._board.all_are_followed else ())

    def take(self, n: int, now_us: int) -> Sweep | None:
        """At most ``n`` heartbeats that are due, as of now: to be written at once; none yet, while lines are made for
        them. None: no more."""
        if self._line_up(now_us):
            return Sweep((), [], list)
        stamps = self._settle(now_us)
        for lane, stamp in zip(self._lanes, stamps, strict=True):
            if lane.due:
                if self._stale:
                    self._renew(self._stale_before(lane, n), now_us)
                return lane.take(stamp, n)
        return None

    def next_apart(self) -> "Session | None":
        """One of those for whom :meth:`~oracle_hub.stream.session.Session.heartbeat` is to be called, again if that
        gave a part. None: no more."""
        if self._served is None or not self._served.beating:
            self._served = self._waiting.popleft() if self._waiting else None
        return self._served

    def _settle(self, now_us: int) -> tuple[bytes, bytes]:
        """Let in who may stand in a lane, and note whose heartbeat is over. Gives the time as each lane writes it."""
        stamps = self._board.forms[0].stamp(now_us), self._board.forms[1].stamp(now_us)
        for lane, stamp in zip(self._lanes, stamps, strict=True):
            if lane.stamp_size != len(stamp):
                lane.stamp_size = len(stamp)
                self._stale.update(session.lone.group for session in lane.sessions if session.lone is not None)
        if now_us < self._settled_us:  # our clock was set back: a lease that was over then may not be over now
            for group in self._board.groups:
                group.beat_until_us = 0
                self.moved(group)
        self._settled_us = now_us
        now_shelf = now_us // _SHELF_US
        for shelf in [shelf for shelf in self._shelves if shelf <= now_shelf]:
            for group in [group for group in self._shelves[shelf] if group.beat_until_us <= now_us]:
                self._stale.add(group)
                self._shelve(group, None)
        if self._offered:
            offered, self._offered = self._offered, {}
            for session in offered:
                self._enter(session, now_us)
        return stamps

    def _stale_before(self, lane: Lane, n: int) -> set[Group]:
        """Whose heartbeats must be made anew before the next ``n`` of a lane are written."""
        n_lines = 0
        for group in self._stale:
            n_lines += len(self._board.decisions if group.key.feeds is None else group.key.feeds)
            if n_lines > RENEWED_LINES:
                return self._stale & lane.groups(n)
        return set(self._stale)

    def _renew(self, groups: set[Group], now_us: int) -> None:
        """Make the heartbeats of these anew. Thousands may be stale after a move of the market: each is made when its
        turn to be written comes, not all of them before the first."""
        self._stale -= groups
        for group in groups:
            lane = self._lanes[group.key.binary]
            for number, row in group.in_step.items():
                cut = self._cut(group, number, now_us, lane.stamp_size)
                for session in row.sessions:
                    if session.lane is lane:
                        lane.cuts[session.place] = cut

    def _enter(self, session: "Session", now_us: int) -> None:
        """Let a session into its lane, if it has one subscription that is in step, and nothing else."""
        sub = session.lone
        if sub is None or not sub.in_step or session.handle is None or session not in self._apart:
            return
        lane = self._lanes[sub.group.key.binary]
        lane.add(session, session.handle, self._cut(sub.group, sub.number, now_us, lane.stamp_size))
        del self._apart[session]

    def _cut(self, group: Group, number: int, now_us: int, stamp_size: int) -> tuple[bytes, bytes]:
        beat = self._beat(group, number, group.last_seq, now_us, stamp_size)
        return beat.head, beat.tail


def _ended(feed: str) -> str:
    """The line of a feed whose lease is over, or whose price is too old."""
    return digest_line(feed, State.NONE, None, None, 0)
