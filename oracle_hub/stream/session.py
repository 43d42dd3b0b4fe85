"""One subscriber: messages and batches in, bytes to send out.

The caller owns the socket. It must write what every method returns, in order and at once, pass in how many bytes it
could not write yet, and close the connection when :attr:`Session.close_code` is set.
"""

import json
from typing import Any, Literal, TypeAlias

import msgspec

from oracle_hub.core.hub import Batch
from oracle_hub.errors import StreamError
from oracle_hub.stream.alerts import AlertSubscription
from oracle_hub.stream.backlog import Backlog
from oracle_hub.stream.beats import Lane
from oracle_hub.stream.board import Board, Publication
from oracle_hub.stream.groups import Group, GroupKey, Row, Subscription
from oracle_hub.stream.messages import (
    BINARY_SUBPROTOCOL,
    MAX_NAME_LENGTH,
    SUBPROTOCOL,
    AlertChange,
    Auth,
    ClientMessage,
    CloseCode,
    Error,
    ErrorCode,
    FeedRejection,
    Merge,
    Ping,
    Pong,
    Rejected,
    RequestId,
    Resume,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    encode,
    parse_client_message,
    request_id,
)


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one subscriber may ask and may leave unread. Published in ``hello``, but for the bytes."""

    max_subscriptions: int = 64
    max_feeds: int = 4_096
    """In one ``subscribe``."""
    requests_per_second: int = 20
    request_burst: int = 100
    max_errors: int = 100
    """Refused messages in one connection, after which it is closed."""
    conflate_above_bytes: int = 4_096
    """Mode ``latest``: with more than this unsent, changes are merged instead of queued."""
    max_unsent_bytes: int = 1 << 20
    """Mode ``all``: with more than this unsent, beside the state that it began with, the connection is closed."""
    max_unsent_age_ms: int = 10_000
    """Mode ``all``: and also when something has waited for so long."""

    def published(self) -> dict[str, int]:
        """What a client has to know."""
        return {
            "max_subscriptions": self.max_subscriptions,
            "max_feeds": self.max_feeds,
            "requests_per_second": self.requests_per_second,
            "request_burst": self.request_burst,
            "max_errors": self.max_errors,
        }


DEFAULT_LIMITS = SessionLimits()

CHANNELS = ("prices", "alerts")

Kind: TypeAlias = Literal["keeper", "throttled", "all", "none"]
"""Of a subscriber: wants the newest at once; the newest, but not oftener than ``max_hz``; everything; nothing yet."""


def _printed(feed: object) -> str:
    """Something that is no feed id, short enough to be sent back by name, as JSON writes or calls it."""
    if isinstance(feed, list | dict):
        return "array" if isinstance(feed, list) else "object"
    return (feed if isinstance(feed, str) else json.dumps(feed))[:MAX_NAME_LENGTH]


class Session:
    """State of one subscriber between its socket and the board."""

    __slots__ = (
        "_alerts", "_allowance_at_us", "_allowance_us", "_backlog", "_beaten", "_board", "_last_number", "_limits",
        "_row", "_row_bytes", "_row_since_bytes", "_subscriptions", "close_code", "dirty", "errors", "handle", "lane",
        "lone", "peer", "place", "protocol", "row_place",
    )  # fmt: skip

    def __init__(
        self, board: Board, limits: SessionLimits = DEFAULT_LIMITS, peer: Any = None, *, protocol: str = SUBPROTOCOL
    ) -> None:
        self.peer = peer
        """The caller's own handle of this subscriber, to be found again in a publication."""
        self.protocol = protocol
        """The subprotocol that was agreed on: it decides in which form prices are told."""
        self._board = board
        self._limits = limits
        self._subscriptions: dict[int, Subscription] = {}
        self._alerts: dict[int, AlertSubscription] = {}
        self.lone: Subscription | None = None
        """Its subscription, where there is one and nothing else to be looked after."""
        self.handle: int | None = None
        """What the caller knows its transport by, while heartbeats may be written past the transport's queue."""
        self.lane: Lane | None = None
        self.place = -1
        """Where it stands among those whose heartbeat is ready, if in a lane."""
        self._row: Row | None = None
        """While its only subscription is in step: those that are served together with it."""
        self.row_place = -1
        """Where it stands in its row, if it can be reached there."""
        self._row_bytes = 0
        """What rows were written while it stood in them, without the present one,"""
        self._row_since_bytes = 0
        """and what the present one was written before it came."""
        self._last_number = 0
        self._beaten = 0
        """Of heartbeats in parts: the number of the last subscription that had its own. 0: not begun, or done."""
        self._backlog: Backlog | None = None
        """Kept from the first subscription of mode ``all`` on."""
        self._allowance_us = limits.request_burst * 1_000_000
        self._allowance_at_us: int | None = None
        self.errors = 0
        """Messages refused so far."""
        self.close_code: CloseCode | None = None
        """Set when the connection must be closed."""
        self.dirty = False
        """Whether something may wait for :meth:`flush`, which settles it."""

    def end(self) -> None:
        """The connection is gone or is being closed: nothing more is for it. Must be called before it is let go."""
        for subscription in self._subscriptions.values():
            subscription.end()
            self._board.leave(subscription.group)
        self.dirty = False
        self._beaten = 0
        self._subscriptions.clear()
        self._leave_alerts()
        self.handle = None
        self._board.beats.forget(self)

    def reach(self, handle: int) -> None:
        """Nothing waits in front of it: who writes to columns of handles may name this one."""
        self._go_by(handle)
        self._board.beats.offer(self)

    def out_of_reach(self) -> None:
        """Nothing must be written to its handle any more: no columns taken from now on name it."""
        self._go_by(None)
        self._board.beats.withdraw(self)

    def _go_by(self, handle: int | None) -> None:
        if handle == self.handle:
            return
        if self._row is not None:
            self._row.remove(self)
        self.handle = handle
        if self._row is not None:
            self._row.add(self)

    def enter(self, row: Row) -> None:
        """Its subscription stands where its group stands."""
        self._row, self._row_since_bytes = row, row.written_bytes
        row.add(self)
        self.settled()

    def leave_row(self) -> None:
        """That is over."""
        if self._row is not None:
            self._row_bytes = self.row_bytes
            self._row.remove(self)
            self._row = None
        self.unsettled()

    @property
    def row_bytes(self) -> int:
        """What was written to rows while it stood in them."""
        return self._row_bytes + (0 if self._row is None else self._row.written_bytes - self._row_since_bytes)

    def settled(self) -> None:
        """Its heartbeats may be written with those of others, if it has only one subscription."""
        self._board.beats.offer(self)

    def unsettled(self) -> None:
        """That is over."""
        self._board.beats.withdraw(self)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions it has."""
        return len(self._subscriptions) + len(self._alerts)

    @property
    def backlogged(self) -> bool:
        """Whether it was promised everything, in mode ``all``."""
        return self._backlog is not None

    @property
    def due_us(self) -> int:
        """While :attr:`dirty`: when something of what is held back may go, if it is read. 0: at any time."""
        if any(sub.behind for sub in self._alerts.values()):
            return 0
        return min((sub.next_us for sub in self._subscriptions.values() if sub.owed), default=0)

    @property
    def kind(self) -> Kind:
        """What it is, by its most demanding subscription."""
        kind: Kind = "none"
        for subscription in self._subscriptions.values():
            if subscription.replays:
                return "all"
            kind = "keeper" if subscription.is_keeper or kind == "keeper" else "throttled"
        return kind

    # From the client.

    def receive(self, text: str, received_us: int, now_us: int) -> bytes:
        """Answer one text message. Never raises on what a client sent."""
        try:
            self._spend(received_us)
            return self._noted(self._carry_out(parse_client_message(text), received_us, now_us), now_us)
        except StreamError as error:
            return self.refuse(error.code, str(error), request_id(text))

    def refuse(self, code: str, message: str, request: RequestId = None) -> bytes:
        """Answer with an error, and count it."""
        self.errors += 1
        if self.errors >= self._limits.max_errors:
            self.close_code = CloseCode.TOO_MANY_ERRORS
        return self._board.frame(encode(Error(id=request, code=code, message=message)))

    def spare(self, now_us: int) -> bytes:
        """A ping of the transport's own takes from the same allowance. Empty: answer it; else the refusal to send."""
        try:
            self._spend(now_us)
        except StreamError as error:
            return self.refuse(error.code, str(error))
        return b""

    def _spend(self, now_us: int) -> None:
        """Take one request from the allowance, which grows back with time up to the burst."""
        rate, burst = self._limits.requests_per_second, self._limits.request_burst * 1_000_000
        if self._allowance_at_us is not None:
            grown = max(0, now_us - self._allowance_at_us) * rate
            self._allowance_us = min(burst, self._allowance_us + grown)
        self._allowance_at_us = now_us
        if self._allowance_us < 1_000_000:
            raise StreamError(ErrorCode.RATE_LIMITED, f"more than {rate} requests per second")
        self._allowance_us -= 1_000_000

    def _carry_out(self, message: ClientMessage, received_us: int, now_us: int) -> bytes:
        if isinstance(message, Subscribe):
            return self._subscribe(message, received_us, now_us)
        if isinstance(message, Unsubscribe):
            return self._unsubscribe(message)
        if isinstance(message, Auth):
            raise StreamError(ErrorCode.AUTH_NOT_EXPECTED, "no token is waited for; the connection goes on without it")
        return self._pong(message, received_us, now_us)

    def _pong(self, message: Ping, received_us: int, now_us: int) -> bytes:
        return self._board.frame(encode(Pong(id=message.id, received_us=received_us, sent_us=now_us)))

    def _unsubscribe(self, message: Unsubscribe) -> bytes:
        if self._alerts.pop(message.sub, None) is not None:
            if not self._alerts:
                self._leave_alerts()
            return self._board.frame(encode(Unsubscribed(id=message.id, sub=message.sub)))
        subscription = self._subscriptions.pop(message.sub, None)
        if subscription is None:
            raise StreamError(ErrorCode.UNKNOWN_SUBSCRIPTION, f"no subscription {message.sub} in this session")
        subscription.end()
        self._board.leave(subscription.group)
        self._count()
        return self._board.frame(encode(Unsubscribed(id=message.id, sub=message.sub)))

    def _subscribe(self, message: Subscribe, received_us: int, now_us: int) -> bytes:
        self._check(message)
        accepted, rejected, follows_all = self._admit(message.feeds)
        if message.channel == "alerts":
            feeds = None if follows_all else frozenset(accepted)
            return self._subscribe_alerts(message, accepted, rejected, feeds, received_us, now_us)
        sub: Subscription | None = None
        recovered: bool | None = None
        tail = b""
        if accepted or follows_all:
            max_age_us = None if message.max_age_ms is None else message.max_age_ms * 1000
            feeds = None if follows_all else frozenset(accepted)
            key = GroupKey(feeds, message.detail == "full", max_age_us, self.protocol == BINARY_SUBPROTOCOL)
            sub = self._add(key, message)
            missed = self._board.since(message.resume)
            if message.resume is not None:
                recovered = missed is not None
            tail = self._state(sub, message.resume, missed, now_us)
        answer = Subscribed(
            id=message.id,
            sub=None if sub is None else sub.number,
            channel=message.channel,
            accepted=accepted,
            rejected=rejected,
            recovered=recovered,
            received_us=received_us,
            sent_us=now_us,
        )
        told = self._board.frame(encode(answer)) + tail
        if message.mode == "all" and self._backlog is not None:
            self._backlog.state_follows(len(told))
        return told

    def _check(self, message: Subscribe) -> None:
        if message.channel not in CHANNELS:
            channel = message.channel[:MAX_NAME_LENGTH]
            raise StreamError(ErrorCode.UNKNOWN_CHANNEL, f"no channel {channel!r}; there are {' and '.join(CHANNELS)}")
        if not message.feeds:
            raise StreamError(ErrorCode.BAD_MESSAGE, 'feeds is empty; ["*"] is all feeds - at `$.feeds`')
        if len(message.feeds) > self._limits.max_feeds:
            raise StreamError(ErrorCode.TOO_MANY_FEEDS, f"more than {self._limits.max_feeds} feeds in one subscribe")
        if self.subscriptions >= self._limits.max_subscriptions:
            limit = self._limits.max_subscriptions
            raise StreamError(ErrorCode.TOO_MANY_SUBSCRIPTIONS, f"at most {limit} subscriptions in one session")
        if message.mode == "all" and message.max_hz is not None:
            raise StreamError(ErrorCode.UNSUPPORTED_OPTION, "max_hz merges, so it goes with mode latest, not with all")
        priced = (message.max_hz, message.max_age_ms, message.resume)
        if message.channel == "alerts" and (priced != (None, None, None) or message.mode == "all"):
            text = "alerts have no mode, max_hz, max_age_ms or resume: all that is open is told first"
            raise StreamError(ErrorCode.UNSUPPORTED_OPTION, text)

    def _admit(self, feeds: list[object]) -> tuple[list[str], list[Rejected], bool]:
        """Sort the wanted feeds into those that exist and those that don't; and whether all feeds are wanted."""
        known = self._board.decisions
        accepted: dict[str, None] = {}
        rejected: dict[str, str] = {}
        follows_all = False
        for feed in feeds:
            if feed == "*":
                follows_all = True
            elif not isinstance(feed, str) or len(feed) > MAX_NAME_LENGTH:
                rejected[_printed(feed)] = FeedRejection.BAD_FEED_ID
            elif feed in known:
                accepted[feed] = None
            else:
                rejected[feed] = FeedRejection.UNKNOWN_FEED
        if follows_all:
            accepted = dict.fromkeys(known)
        return list(accepted), [Rejected(feed, code) for feed, code in rejected.items()], follows_all

    def _add(self, key: GroupKey, message: Subscribe) -> Subscription:
        min_gap_us = 0 if message.max_hz is None else int(1_000_000 / message.max_hz)
        self._last_number += 1
        if message.mode == "all" and self._backlog is None:
            self._backlog = Backlog()
        for company in self._subscriptions.values():
            company.stand_apart(company.last_seq)
        subscription = Subscription(
            self._last_number,
            self._board.join(key),
            self,
            replays=message.mode == "all",
            min_gap_us=min_gap_us,
            seq=self._board.seq,
        )
        self._subscriptions[subscription.number] = subscription
        self._stand_at(subscription, self._board.seq)
        self._count()
        return subscription

    def _subscribe_alerts(
        self,
        message: Subscribe,
        accepted: list[str],
        rejected: list[Rejected],
        feeds: frozenset[str] | None,
        received_us: int,
        now_us: int,
    ) -> bytes:
        """Follow the alerts of these feeds (None: all); what is open comes first."""
        board, tail, number = self._board.alerts, b"", None
        if feeds is None or feeds:
            self._last_number = number = self._last_number + 1
            sub = self._alerts[number] = AlertSubscription(number, feeds)
            board.sessions[self] = None
            self._count()
            tail = board.snapshot(sub, now_us)
        answer = Subscribed(
            id=message.id,
            sub=number,
            channel=message.channel,
            accepted=accepted,
            rejected=rejected,
            recovered=None,
            received_us=received_us,
            sent_us=now_us,
        )
        return self._board.frame(encode(answer)) + tail

    def _leave_alerts(self) -> None:
        self._alerts.clear()
        self._board.alerts.sessions.pop(self, None)
        self._count()

    def _count(self) -> None:
        lone = len(self._subscriptions) == 1 and self._backlog is None and not self._alerts
        self.lone = next(iter(self._subscriptions.values())) if lone else None
        if self.lone is None:
            self.unsettled()
        else:
            self.settled()

    def _stand_at(self, sub: Subscription, seq: int) -> None:
        sub.stand_at(seq, alone=len(self._subscriptions) == 1)

    def _state(self, sub: Subscription, resume: Resume | None, missed: list[Batch] | None, now_us: int) -> bytes:
        """What brings a new subscription up to date."""
        board = self._board
        if resume is None or missed is None:
            return board.snapshot(sub.group, sub.number, now_us)
        if sub.replays:
            frames = board.replay(sub.group, sub.number, resume.seq, missed, now_us)
            return b"".join(frames) + board.snapshot(sub.group, sub.number, now_us)
        merges: dict[str, Merge] = {}
        for batch in missed:
            for decision in batch.decisions:
                if sub.group.has(decision.feed):
                    merges.setdefault(decision.feed, Merge()).add(decision, sub.group.key.max_age_us)
        return board.merged(sub.group, sub.number, resume.seq, merges, now_us)

    # To the client.

    def publish(self, publication: Publication, unsent_bytes: int) -> bytes:
        """What to send for a batch that was applied to the board; empty where nothing is for this subscriber."""
        now_us = publication.sent_us
        self._close_if_late(unsent_bytes, now_us)
        data = b""
        for subscription in self._subscriptions.values():
            frame = self._publish(subscription, publication, unsent_bytes)
            if frame is not None:
                data = data + frame if data else frame
        return self._noted(data, now_us)

    def _close_if_late(self, unsent_bytes: int, now_us: int) -> None:
        """Mode ``all`` ends when the oldest byte that its socket has not taken is too old."""
        if self._backlog is None:
            return
        if self._backlog.age_us(unsent_bytes, now_us) > self._limits.max_unsent_age_ms * 1000:
            self.close_code = CloseCode.TOO_SLOW

    def _noted(self, data: bytes, now_us: int) -> bytes:
        if self._backlog is not None:
            self._backlog.sent(len(data), now_us)
        return data

    def _publish(self, sub: Subscription, publication: Publication, unsent_bytes: int) -> bytes | None:
        part = publication.parts.get(sub.group)
        if part is None:
            return None
        prev_seq = part.prev_seq if sub.in_step else sub.last_seq
        unread = self._unread(sub, unsent_bytes)
        if sub.replays and unread:
            self.close_code = CloseCode.TOO_SLOW
            return None
        now_us = publication.sent_us
        if not sub.replays:
            held_back = sub.must_wait(now_us) and not part.urgent
            if sub.parked:  # the group has kept it
                return None if unread or held_back else self._flush(sub, now_us)
            if sub.dirty or held_back or unread:
                self.dirty = True
                sub.stand_apart(prev_seq)
                if held_back:
                    sub.park(publication.batch.seq, part.decisions)
                    return None
                for decision in part.decisions:
                    sub.take_in(decision)
                return None if unread else self._flush(sub, now_us)
            sub.next_us = now_us + sub.min_gap_us
        frame = publication.frame(sub.group, sub.number, prev_seq)
        self._stand_at(sub, publication.batch.seq)
        return frame

    def _flush(self, sub: Subscription, now_us: int) -> bytes:
        frame = self._board.owed(sub, now_us)
        sub.told()
        self._stand_at(sub, self._board.seq)
        sub.next_us = now_us + sub.min_gap_us
        return frame

    def _unread(self, sub: Subscription, unsent_bytes: int) -> bool:
        """Whether so much is unsent that nothing more should be queued for this subscription."""
        if sub.replays and self._backlog is not None:
            return self._backlog.behind_bytes(unsent_bytes) > self._limits.max_unsent_bytes
        return unsent_bytes > self._limits.conflate_above_bytes

    def alert(self, change: AlertChange, now_us: int, unsent_bytes: int) -> bytes:
        """What to send for a change that the board of alerts took. Who does not read is told later, all at once."""
        if unsent_bytes > self._limits.conflate_above_bytes:
            for sub in self._alerts.values():
                sub.behind = True
            self.dirty = True
            return b""
        board = self._board.alerts
        return self._noted(b"".join(board.change(sub, change, now_us) for sub in self._alerts.values()), now_us)

    def _behind_on_alerts(self, now_us: int, unsent_bytes: int) -> list[bytes]:
        """All that is open, for subscriptions that were not told of a change, once it can be taken."""
        if unsent_bytes > self._limits.conflate_above_bytes:
            return []
        return [self._board.alerts.snapshot(sub, now_us) for sub in self._alerts.values() if sub.behind]

    def flush(self, now_us: int, unsent_bytes: int) -> bytes:
        """What was held back and may go now. To be called from :attr:`due_us` on, every few milliseconds while
        :attr:`dirty`."""
        frames = [
            self._flush(sub, now_us)
            for sub in self._subscriptions.values()
            if sub.owed and not sub.must_wait(now_us) and not self._unread(sub, unsent_bytes)
        ]
        frames += self._behind_on_alerts(now_us, unsent_bytes)
        self.dirty = any(sub.owed for sub in self._subscriptions.values()) or any(
            sub.behind for sub in self._alerts.values()
        )
        return self._noted(b"".join(frames), now_us)

    @property
    def beating(self) -> bool:
        """Whether some of its subscriptions wait for theirs of the heartbeats that were begun."""
        return self._beaten > 0

    def heartbeat(self, now_us: int, unsent_bytes: int, most: int | None = None) -> bytes:
        """One heartbeat per subscription, what was held back before it. Nothing for a client that doesn't read.

        Args:
            most: for so many subscriptions; the next call goes on. None: for all that are left.
        """
        self._close_if_late(unsent_bytes, now_us)
        frames = []
        left = [sub for sub in self._subscriptions.values() if sub.number > self._beaten]
        self._beaten = 0 if most is None or len(left) <= most else left[most - 1].number
        for sub in left[:most]:
            if self._unread(sub, unsent_bytes):
                continue
            if sub.owed:
                frames.append(self._flush(sub, now_us))
            frames.append(self._board.beats.heartbeat(sub.group, sub.number, sub.last_seq, now_us))
        if self._alerts and not self._beaten and unsent_bytes <= self._limits.conflate_above_bytes:
            frames += self._behind_on_alerts(now_us, unsent_bytes)
            frames += [self._board.alerts.heartbeat(sub, now_us) for sub in self._alerts.values()]
        return self._noted(b"".join(frames), now_us)

    def expire(self, ended: dict[Group, list[str]], now_us: int, unsent_bytes: int) -> bytes:
        """What to send when prices became too old for subscriptions with a max age of their own."""
        frames = []
        for sub in self._subscriptions.values():
            feeds = ended.get(sub.group)
            if not feeds:
                continue
            if self._unread(sub, unsent_bytes) and sub.replays:
                self.close_code = CloseCode.TOO_SLOW
            elif sub.owed or self._unread(sub, unsent_bytes):
                self.dirty = True
                sub.stand_apart(sub.last_seq)
                for feed in feeds:
                    sub.dirty.setdefault(feed, Merge()).was_none = True
            else:
                frames.append(self._board.too_old(sub.group, sub.number, sub.last_seq, feeds, now_us))
        return self._noted(b"".join(frames), now_us)
