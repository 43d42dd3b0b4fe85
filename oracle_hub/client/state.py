"""The client without its socket: messages and the time of their receipt in, prices, refusals and requests out. Pure.

Times called ``now_us`` are of the caller's monotonic clock, in µs.
"""

from collections import deque
from typing import Literal, TypeAlias

import msgspec

from oracle_hub.client.clock_offset import ClockOffset
from oracle_hub.client.decoding import ReadEntry, decode, read_json_entry
from oracle_hub.client.floors import Floors
from oracle_hub.client.mirror import REMOVED, Held, Mirror, Verdict
from oracle_hub.client.price import Merged, NoPrice, Price, Refusal, Update
from oracle_hub.errors import StreamError
from oracle_hub.stream import messages as wire

PING_INTERVAL_US = 5_000_000
SILENT_AFTER_HEARTBEATS = 2.5
MAX_ASKED = 16
"""Requests whose answer is awaited, for the clock offset; older ones are forgotten."""
UPDATES_PER_FEED = 8
"""Mode ``all``: how many updates per feed may wait before reading stops; with few feeds ``min_queue`` in all."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to subscribe to. See ``subscribe`` in docs/protocol.md."""

    feeds: tuple[str, ...]
    mode: Literal["latest", "all"] = "latest"
    detail: Literal["price", "full"] = "price"
    max_hz: float | None = None
    max_age_ms: int | None = None


class Send(msgspec.Struct, frozen=True):
    """Send this message."""

    data: bytes


class Reconnect(msgspec.Struct, frozen=True):
    """This connection is of no use any more: close it, call ``disconnected``, and try the next hub."""

    why: str
    retry_after_ms: int | None = None


class GiveUp(msgspec.Struct, frozen=True):
    """The hub will never accept this subscription."""

    code: str
    message: str


Effect: TypeAlias = Send | Reconnect | GiveUp


class Counters(msgspec.Struct):
    """Counts since the client was made."""

    messages: int = 0
    unknown_messages: int = 0
    updates: int = 0
    """Feed entries that were taken in."""
    duplicates: int = 0
    gaps: int = 0
    """Losses that were noticed by ``prev_seq`` or a heartbeat's ``seq``."""
    digest_mismatches: int = 0
    snapshots: int = 0
    resumes: int = 0
    """Reconnects after which nothing was missing."""
    held_back: int = 0
    """Entries of another hub that were older than what the hub before had told."""
    clock_steps: int = 0


From: TypeAlias = wire.Resume | Literal["first"]
"""After what a record holds; or with the first decision of all, where a hub that runs for the first time has it yet."""


class ClientState:
    """One subscription over all its connections.

    The owner of the socket calls ``connected``, then ``receive`` for every message, carries out the effects, calls
    ``on_timer`` when ``next_deadline_us`` is reached, and ``disconnected`` when the connection is gone. After each of
    these, ``turns`` and ``next_update`` tell what is new.
    """

    def __init__(self, wanted: Wanted, *, min_queue: int = 4_096, resume: From | None = None) -> None:
        """``resume``: where a program that wrote down what it heard goes on; mode ``all`` only."""
        self.wanted = wanted
        self.counters = Counters()
        self.hello: wire.Hello | None = None
        """What the hub of the current or last connection said of itself."""
        self.offset = ClockOffset()
        self.rejected: dict[str, str] = {}
        """Feeds that the hub does not have, with its code."""
        self.caught_up = False
        """Connected, and what is held is what the hub had when it sent the last message."""
        self._link: Literal["down", "syncing", "gap", "live"] = "down"
        self._mirror = Mirror()
        self._read_entry: ReadEntry = read_json_entry  # in the form of the message at hand
        self._from_first = resume == "first"
        if isinstance(resume, wire.Resume):
            self._mirror.instance, self._mirror.epoch = resume.instance or "", resume.epoch
            self._mirror.seq = resume.seq
        self._floors = Floors()
        self._sub: int | None = None
        self._request = 0
        self._asked: dict[int, int] = {}
        self._asked_at_us = 0
        self._subscribing: int | None = None
        self._resuming = False
        self._lost = False
        self._received_us = 0
        self._heartbeat_us = 0
        # News that nobody has taken yet: by feed in mode latest, in order in mode all.
        self._news: dict[str, Merged] = {}
        self._queue: deque[tuple[Held, bool, bool]] = deque()
        self._queued = 0  # entries that the queue has had in all
        self._marks: deque[tuple[int, int]] = deque()  # all that was decided until then stood before this in the queue
        self._heard_us: int | None = None
        self._lost_feeds: set[str] = set()
        self._min_queue = min_queue
        self._usable: dict[str, bool] = {}
        self._touched: set[str] = set()
        self._look_at_all = False
        self._silent = False
        self._next_end_us: int | None = None  # hub's clock

    # The connection.

    def connected(self, now_us: int) -> None:
        """A connection was made; its first message will be ``hello``."""
        self.offset = ClockOffset()
        self._link, self._sub, self._subscribing = "syncing", None, None
        self._asked.clear()
        self._received_us, self._heartbeat_us = now_us, 0

    def disconnected(self, now_us: int) -> None:
        """The connection is gone: no price can be acted on until the next one has caught up."""
        if self._link in ("live", "gap"):  # else what is held was told by an earlier connection
            self._floors.lift(self._mirror.feeds, self.offset.latest_us(now_us), now_us)
        self._set_link("down")
        self._sub = self._subscribing = None

    def receive(self, data: bytes | str, now_us: int) -> list[Effect]:
        """Take in one message that was received at ``now_us``. Never raises on what the hub sent."""
        self.counters.messages += 1
        try:
            message, self._read_entry = decode(data)
        except StreamError as error:
            return [Reconnect(f"a message that can't be read: {error}")]
        if message is None:
            self.counters.unknown_messages += 1
            return []
        self._received_us = now_us
        try:
            return self._take(message, now_us)
        except (StreamError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            return [Reconnect(f"a feed that can't be read: {error}")]

    def _take(self, message: wire.ServerMessage, now_us: int) -> list[Effect]:
        match message:
            case wire.Update() | wire.Snapshot() | wire.Subscribed() | wire.Pong():
                sent_us = message.sent_us
            case wire.Heartbeat() | wire.Hello():
                sent_us = message.server_time_us
            case wire.GoAway():
                return [Reconnect(f"the hub is going away: {message.reason[:100]}", message.retry_after_ms)]
            case wire.Error():
                return self._on_error(message)
            case wire.AuthRequired():
                return [GiveUp("unauthorized", "the hub wants a token: pass token=…")]
            case wire.Config():  # a feed that was refused may be there now
                there = self._sub is not None and not self.rejected.keys().isdisjoint(message.feeds)
                return self._resubscribe(now_us, resume=self.wanted.mode == "all") if there else []
            case _:
                return []
        if not self.offset.heard(sent_us, now_us):
            self.counters.clock_steps += 1
            return [Reconnect("the hub's clock was stepped")]
        match message:
            case wire.Update():
                return self._on_update(message, now_us)
            case wire.Snapshot():
                return self._on_snapshot(message, now_us)
            case wire.Heartbeat():
                return self._on_heartbeat(message, now_us)
            case wire.Hello():
                return self._on_hello(message, now_us)
            case wire.Subscribed():
                return self._on_subscribed(message, now_us)
        self._answered(message.id, message.received_us, now_us)
        return []

    # Messages of the hub.

    def _on_hello(self, hello: wire.Hello, now_us: int) -> list[Effect]:
        self.hello = hello
        self._heartbeat_us = hello.heartbeat_ms * 1000
        mirror = self._mirror
        if self._from_first and mirror.seq is None and hello.first_epoch == hello.epoch:
            mirror.instance, mirror.epoch, mirror.seq = hello.instance, hello.epoch, 0
        return [self._subscribe(now_us, resume=hello.instance == mirror.instance)]

    def _subscribe(self, now_us: int, *, resume: bool) -> Send:
        mirror, wanted = self._mirror, self.wanted
        point = None
        if resume and mirror.seq is not None:
            point = wire.Resume(mirror.epoch, mirror.seq, mirror.instance)
        self._resuming = point is not None
        self._sub, self._subscribing = None, self._ask(now_us)
        request = wire.Subscribe(
            feeds=list(wanted.feeds),
            id=self._subscribing,
            mode=wanted.mode,
            detail=wanted.detail,
            max_hz=wanted.max_hz,
            max_age_ms=wanted.max_age_ms,
            resume=point,
        )
        return Send(wire.encode(request))

    def _ask(self, now_us: int) -> int:
        """Number a request, and remember when it left us."""
        self._request += 1
        self._asked_at_us = now_us
        self._asked[self._request] = now_us
        if len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        return self._request

    def _answered(self, request: wire.RequestId, reached_us: int, now_us: int) -> None:
        asked_us = self._asked.pop(request, None) if isinstance(request, int) else None
        if asked_us is not None:
            self.offset.answered(asked_us, reached_us, now_us)

    def _on_error(self, error: wire.Error) -> list[Effect]:
        if self._subscribing is None or error.id != self._subscribing:
            return []
        text = f"the hub refused the subscription ({error.code}): {error.message[:200]}"
        if error.code in (wire.ErrorCode.RATE_LIMITED, wire.ErrorCode.TOO_MANY_SUBSCRIPTIONS):
            return [Reconnect(text)]
        return [GiveUp(error.code, text)]

    def _on_subscribed(self, answer: wire.Subscribed, now_us: int) -> list[Effect]:
        self._answered(answer.id, answer.received_us, now_us)
        if answer.id != self._subscribing:
            return []
        self._subscribing = None
        self.rejected = {entry.feed: entry.code for entry in answer.rejected}
        self._look_at_all = True
        for feed in self.rejected:
            self._mirror.feeds.pop(feed, None)
            self._note(feed)
        if answer.sub is None:
            return [Reconnect(f"the hub has none of the feeds {', '.join(self.rejected)[:100]}")]
        self._sub = answer.sub
        self._resuming = answer.recovered is True
        if not self._resuming:
            held_none = self._from_first and self._mirror.seq == 0
            self._lost = self._mirror.seq is not None and not held_none
        elif self._not_told(answer):
            # A feed that was refused before: a resume would tell it only when it changes.
            return self._resubscribe(now_us, resume=False)
        return []

    def _not_told(self, answer: wire.Subscribed) -> bool:
        """Whether a feed is accepted that we know nothing of. In mode ``all`` a snapshot is on its way anyhow."""
        some = self.wanted.mode == "latest" and "*" not in self.wanted.feeds
        return some and any(feed not in self._mirror.feeds for feed in answer.accepted)

    def _resubscribe(self, now_us: int, *, resume: bool) -> list[Effect]:
        if self._link != "syncing":
            self._set_link("gap")
        leave = [] if self._sub is None else [Send(wire.encode(wire.Unsubscribe(sub=self._sub)))]
        return [*leave, self._subscribe(now_us, resume=resume)]

    def _on_snapshot(self, message: wire.Snapshot, now_us: int) -> list[Effect]:
        if message.sub != self._sub or self.hello is None:
            return []
        mirror = self._mirror
        if mirror.instance == self.hello.instance and (mirror.epoch, mirror.seq or 0) <= (message.epoch, message.seq):
            self._floors.drop(mirror.instance)
        changed, gone = mirror.snapshot(message, self.hello.instance, self._read_entry)
        self.counters.snapshots += 1
        for feed in gone:
            self._note(feed)
        self._resuming = False
        self._set_link("live")
        self._tell(changed, now_us, replayed=False)
        self._lost = False
        self._mark(message.sent_us)
        return []

    def _on_update(self, message: wire.Update, now_us: int) -> list[Effect]:
        if message.sub != self._sub:
            return []
        if self._link != "live" and not self._resuming:
            # What follows a snapshot is of no use where the snapshot did not come.
            self.counters.gaps += 1
            return self._resubscribe(now_us, resume=False)
        verdict, changed = self._mirror.update(message, self._read_entry)
        if verdict is Verdict.GAP:
            self.counters.gaps += 1
            return self._resubscribe(now_us, resume=True)
        if verdict is Verdict.DUPLICATE:
            self.counters.duplicates += 1
            return []
        if self._resuming and self.wanted.mode == "latest":
            self._resuming = False
            self.counters.resumes += 1
            self._floors.drop(self._mirror.instance)
            self._set_link("live")
        self._tell(changed, now_us, replayed=message.replayed)
        if self._link == "live":
            self._mark(message.sent_us)
        return []

    def _on_heartbeat(self, beat: wire.Heartbeat, now_us: int) -> list[Effect]:
        effects: list[Effect] = []
        if beat.sub == self._sub:
            if self._link != "live":  # the present state is sent with the answer, before any heartbeat
                self.counters.gaps += 1
                effects = self._resubscribe(now_us, resume=False)
            elif beat.seq != self._mirror.seq:
                self.counters.gaps += 1
                effects = self._resubscribe(now_us, resume=beat.seq > (self._mirror.seq or 0))
            elif not self._mirror.agrees(beat):
                self.counters.digest_mismatches += 1
                self._lost = True
                effects = self._resubscribe(now_us, resume=False)
            else:
                self._mark(beat.server_time_us)
        if now_us - self._asked_at_us >= PING_INTERVAL_US:
            effects.append(Send(wire.encode(wire.Ping(id=self._ask(now_us)))))
        return effects

    def _set_link(self, link: Literal["down", "syncing", "gap", "live"]) -> None:
        self._look_at_all = self._look_at_all or link != self._link
        self._link = link
        self.caught_up = link == "live"

    # News.

    def _note(self, feed: str) -> None:
        """Something about a feed is new, though no entry says it."""
        self._touched.add(feed)
        self._news.setdefault(feed, Merged())

    def _tell(self, changed: list[Held], now_us: int, *, replayed: bool) -> None:
        self.counters.updates += len(changed)
        for held in changed:
            feed, entry = held.entry.feed, held.entry
            self._touched.add(feed)
            self.counters.held_back += self._floors.lower(held, now_us)
            if self.wanted.mode == "all":
                self._queue.append((held, replayed, self._lost))
                self._queued += 1
            else:
                self._news.setdefault(feed, Merged()).add(entry, held.mantissa)
                if self._lost:
                    self._lost_feeds.add(feed)
            end_us = entry.valid_until_us
            if end_us is not None and (self._next_end_us is None or end_us < self._next_end_us):
                self._next_end_us = end_us

    def _mark(self, hub_us: int) -> None:
        """Nothing that the hub decided until ``hub_us`` is still to come."""
        if self.wanted.mode == "all":
            if self._marks and self._marks[-1][0] == self._queued:
                self._marks.pop()
            self._marks.append((self._queued, hub_us))

    @property
    def heard_us(self) -> int | None:
        """Mode ``all``: the hub's time until which everything that it decided has been taken; None at first."""
        taken = self._queued - len(self._queue)
        while self._marks and self._marks[0][0] <= taken:
            self._heard_us = self._marks.popleft()[1]
        return self._heard_us

    # What a program asks.

    def get(self, feed: str, now_us: int, max_age_ms: int | None = None) -> Price:
        """The price of a feed that holds at ``now_us``.

        Raises:
            NoPrice: there is none, or none that is certain; its ``reason`` says why.
        """
        judged = self._judge(feed, self._mirror.feeds.get(feed), now_us, max_age_ms)
        if isinstance(judged, NoPrice):
            raise judged
        return judged

    def _judge(self, feed: str, held: Held | None, now_us: int, max_age_ms: int | None = None) -> Price | NoPrice:
        unusable = self._without_link(feed, now_us)
        if unusable is not None:
            return unusable
        if held is None:
            return NoPrice(feed, Refusal.UNKNOWN_FEED, "the hub has no such feed, or it was removed")
        entry, latest_us = held.entry, self.offset.latest_us(now_us)
        if held.mantissa is None or entry.state not in ("live", "degraded") or latest_us is None:
            return _none(feed, entry.reason)
        end_us = entry.valid_until_us
        if end_us is not None and latest_us >= end_us:
            return NoPrice(feed, Refusal.LEASE_OVER, f"its lease was over {latest_us - end_us} µs ago")
        if self._floors.hides(feed, entry.publish_time_us or 0, now_us):
            return NoPrice(feed, Refusal.TOO_OLD, "this hub's price is older than one that another hub told")
        if max_age_ms is not None:
            age_us = latest_us - (entry.publish_time_us or 0)
            if age_us > max_age_ms * 1000:
                return NoPrice(feed, Refusal.TOO_OLD, f"published {age_us // 1000} ms ago, more than {max_age_ms} ms")
        return held.price(held.mantissa, None if end_us is None else end_us - latest_us)

    def _without_link(self, feed: str, now_us: int) -> NoPrice | None:
        """Why no price of this feed can be certain, whatever is held."""
        if feed in self.rejected or (feed not in self.wanted.feeds and "*" not in self.wanted.feeds):
            return NoPrice(feed, Refusal.UNKNOWN_FEED, "not subscribed, or refused by the hub")
        if self._link == "gap":
            return NoPrice(feed, Refusal.GAP, "something was missed, and the newest state is on its way")
        if self._link != "live":
            return NoPrice(feed, Refusal.DISCONNECTED, "no connection to a hub that has caught up")
        silent_us = self.offset.waited_us(now_us)
        if self._heartbeat_us and silent_us > self._silence_us:
            return NoPrice(feed, Refusal.DISCONNECTED, f"nothing newer than {silent_us // 1000} ms was heard")
        return None

    @property
    def _silence_us(self) -> int:
        return int(self._heartbeat_us * SILENT_AFTER_HEARTBEATS)

    # Time.

    def next_deadline_us(self) -> int | None:
        """When ``on_timer`` has something to do, if nothing is received before; None: nothing is awaited."""
        deadlines = []
        if self._heartbeat_us and self._link != "down":
            deadlines.append(self._received_us + self._silence_us + 1)
        latest_us = self.offset.latest_us(self._received_us)
        if self._next_end_us is not None and latest_us is not None and self._link == "live":
            deadlines.append(self._received_us + self._next_end_us - latest_us)
        if self._floors.next_end_us is not None and self._link == "live":
            deadlines.append(self._floors.next_end_us)
        return min(deadlines, default=None)

    def on_timer(self, now_us: int) -> list[Effect]:
        """Leases end by themselves; a hub that has been silent for 2.5 heartbeats is given up."""
        silent_us = now_us - self._received_us
        if self._heartbeat_us and self._link != "down" and silent_us > self._silence_us:
            self._look_at_all = True
            return [Reconnect(f"nothing was heard for {silent_us // 1000} ms")]
        return []

    # What is new.

    def turns(self, now_us: int) -> list[Update]:
        """Feeds that have a price since the last call and had none before, or the other way round."""
        latest_us = self.offset.latest_us(now_us)
        ended = self._next_end_us is not None and latest_us is not None and latest_us >= self._next_end_us
        silent = bool(self._heartbeat_us) and self.offset.waited_us(now_us) > self._silence_us
        if self._floors.over(now_us) or self._look_at_all or ended or silent is not self._silent:
            self._touched.update(self._usable)
            self._touched.update(self._mirror.feeds)
            self._look_at_all, self._silent = False, silent
        if ended:
            ends = (held.entry.valid_until_us for held in self._mirror.feeds.values())
            self._next_end_us = min((end for end in ends if end is not None and end > (latest_us or 0)), default=None)
        turned = []
        for feed in self._touched:
            held = self._mirror.feeds.get(feed)
            judged = self._judge(feed, held, now_us)
            usable = isinstance(judged, Price)
            if self._usable.get(feed) is not usable:
                if self._usable.get(feed):
                    self._news.setdefault(feed, Merged()).was_none = True
                elif usable:
                    self._news.setdefault(feed, Merged())
                self._usable[feed] = usable
                turned.append(_update(feed, judged, held, self._news.get(feed) or Merged()))
            if held is None:
                self._usable.pop(feed, None)
        self._touched.clear()
        return turned

    @property
    def has_update(self) -> bool:
        """Whether ``next_update`` has one."""
        return bool(self._queue or self._news)

    @property
    def full(self) -> bool:
        """Mode ``all``: so much waits that nothing more should be read until some of it is taken."""
        return len(self._queue) >= max(self._min_queue, UPDATES_PER_FEED * len(self._mirror.feeds))

    def next_update(self, now_us: int) -> Update | None:
        """News of one feed, judged at ``now_us``: in mode ``latest`` the newest, in mode ``all`` the next in order."""
        if self._queue:
            held, replayed, lost = self._queue.popleft()
            feed = held.entry.feed
            judged: Price | NoPrice
            current = self._mirror.feeds.get(feed)
            if current is not None and current.entry == held.entry:
                judged = self._judge(feed, held, now_us)
                self._news.pop(feed, None)
            else:
                judged = NoPrice(feed, Refusal.TOO_OLD, "a newer decision was heard")
            merged = Merged()
            merged.add(held.entry, held.mantissa)
            return _update(feed, judged, held, merged, replayed=replayed, lost=lost)
        if not self._news:
            return None
        feed = next(iter(self._news))
        merged = self._news.pop(feed)
        latest = self._mirror.feeds.get(feed)
        lost = feed in self._lost_feeds
        self._lost_feeds.discard(feed)
        shown = latest if merged.n else None
        return _update(feed, self._judge(feed, latest, now_us), shown, merged, lost=lost)


def _none(feed: str, hub_reason: str) -> NoPrice:
    """The hub has no price; in its words, and in ours."""
    known = {
        wire.ViewReason.LEASE_OVER: Refusal.LEASE_OVER,
        wire.ViewReason.MAX_AGE: Refusal.TOO_OLD,
        REMOVED: Refusal.UNKNOWN_FEED,
    }
    reason = known.get(hub_reason, Refusal.NONE)
    return NoPrice(feed, reason, f"the hub has no price: {hub_reason[:64]}", hub_reason)


def _update(
    feed: str, judged: Price | NoPrice, held: Held | None, merged: Merged, *, replayed: bool = False, lost: bool = False
) -> Update:
    return Update(
        feed=feed,
        price=judged if isinstance(judged, Price) else None,
        refusal=judged if isinstance(judged, NoPrice) else None,
        entry=None if held is None else held.entry,
        merged=merged,
        instance="" if held is None else held.instance,
        epoch=0 if held is None else held.epoch,
        seq=0 if held is None else held.seq,
        replayed=replayed,
        lost=lost,
    )
