"""What one channel still has to tell, what it has told, and what it must never tell. Pure.

The promise of a channel, over failures and restarts of either side: each alert is told as ``firing``, then perhaps
``escalated``, then ``resolved``; ``resolved`` exactly if ``firing`` was, and nothing out of order. What was not
acknowledged is told again, under the same key; what was acknowledged is not.

A *line* is one occurrence of an alert as this channel knows it. It is kept until its end was acknowledged, and is the
unit of persistence: :meth:`Outbox.changed` gives the lines that are to be written.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from oracle_hub.alerts.alert import Alert, Change, Key, Kind, Severity, Transition
from oracle_hub.alerts.notify.settings import ChannelSettings

REMEMBERED = 256
"""Ended occurrences that are remembered, so that a hub that went back in time does not tell them again."""


class Entry(msgspec.Struct, frozen=True):
    """One message that waits."""

    number: int
    """The order in the channel, over all alerts and restarts."""
    transition: Transition

    @property
    def key(self) -> str:
        """For deduplication at the receiver: the same at every attempt."""
        return f"{self.transition.alert.occurrence}-{self.transition.change.value}"


class Line(msgspec.Struct, kw_only=True):
    """One occurrence of an alert, as a channel knows it."""

    told: Transition | None = None
    """The last that was acknowledged."""
    perhaps: bool = False
    """An attempt at ``firing`` ended without an answer: it may have been received, so the end has to be told."""
    waiting: list[Entry] = []
    over: int = 0
    """Not 0: told to its end, or over for this channel otherwise; the order of that."""

    @property
    def known(self) -> bool:
        """The other side has been told that it fires, or may have been."""
        return self.told is not None or self.perhaps

    @property
    def last(self) -> Change | None:
        """The change after which only later ones are of interest."""
        newest = self.waiting[-1].transition if self.waiting else self.told
        return newest.change if newest is not None else None

    @property
    def alert(self) -> Alert:
        """As it is known now, waiting or told."""
        newest = self.waiting[-1].transition if self.waiting else self.told
        assert newest is not None
        return newest.alert


_ORDER = {None: 0, Change.FIRING: 1, Change.ESCALATED: 2, Change.RESOLVED: 3}


class Outbox:
    """The queue of one channel.

    Args:
        settings: which alerts the channel wants.
        instance: of the hub, told with what was dropped.
        max_queued: entries that wait at most; what has to end alerts that were told comes on top.
        saved: lines as :meth:`changed` gave them, by occurrence.

    Raises:
        msgspec.MsgspecError: ``saved`` holds something else.
    """

    def __init__(self, settings: ChannelSettings, max_queued: int, saved: Mapping[str, bytes] | None = None) -> None:
        self._settings = settings
        self._max_queued = max_queued
        self._lines = {name: msgspec.json.decode(raw, type=Line) for name, raw in (saved or {}).items()}
        entries = [entry for line in self._lines.values() for entry in line.waiting]
        self._queue = deque(sorted(entries, key=lambda entry: entry.number))
        ended = sorted((line.over, name) for name, line in self._lines.items() if line.over)
        self._ended = deque(name for _, name in ended)
        self._number = max(
            [entry.number for entry in entries] + [line.over for line in self._lines.values()], default=0
        )
        self._dirty: dict[str, None] = {}
        self._overflow: str | None = next((name for name in self._lines if self._is_own(name)), None)
        """The occurrence under which it is told that alerts were dropped."""
        self.dropped = 0
        """Alerts that were dropped, in this run."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def head(self) -> Entry | None:
        """What is to be sent next."""
        return self._queue[0] if self._queue else None

    @property
    def firing(self) -> list[Alert]:
        """What the other side was told to be wrong, as it was told last."""
        told = [line.told for line in self._lines.values() if not line.over and line.told is not None]
        alerts = [one.alert for one in told if one.change is not Change.RESOLVED]
        return sorted(alerts, key=lambda alert: (alert.started_us, alert.id))

    def told(self, occurrence: str) -> Alert | None:
        """An alert as the other side knows it; None if it does not."""
        line = self._lines.get(occurrence)
        return line.told.alert if line is not None and line.told is not None else None

    def changed(self) -> dict[str, bytes | None]:
        """Lines that changed since the last call, by occurrence, to be kept; None where a line is to be forgotten."""
        changed: dict[str, bytes | None] = {}
        for name in self._dirty:
            line = self._lines.get(name)
            changed[name] = None if line is None else msgspec.json.encode(line)
        self._dirty.clear()
        return changed

    # What happens in the hub.

    def take(self, transition: Transition) -> bool:
        """Put a transition in its place. False if this channel does not want it, or has it."""
        alert = transition.alert
        name = alert.occurrence
        line = self._lines.get(name)
        if line is None:
            if transition.change is Change.RESOLVED or not self._settings.wants(alert.kind, alert.severity):
                return False
            # The first that a channel hears of an alert is that it fires, also where it was too light until now.
            transition = Transition(Change.FIRING, transition.at_us, alert)
            line = self._lines[name] = Line(waiting=[])
        elif line.over or _ORDER[transition.change] <= _ORDER[line.last]:
            return False
        self._append(name, line, transition)
        while len(self._queue) > self._max_queued and self._drop_one(transition.at_us):
            pass
        return name in self._lines

    def agree(self, open_alerts: Iterable[Alert], now_us: int) -> None:
        """Bring the channel up to what is open now: what it missed fires, what is no longer open is resolved.

        To be called once after a restart, since the hub and the outbox are not saved in one instant.
        """
        still = {alert.occurrence: alert for alert in open_alerts}
        surplus = [
            line.alert
            for name, line in self._lines.items()
            if name not in still and not line.over and line.last is not Change.RESOLVED and not self._is_own(name)
        ]
        for alert in sorted(surplus, key=lambda alert: (alert.started_us, alert.id)):
            over = msgspec.structs.replace(alert, ended_us=alert.ended_us or now_us)
            self.take(Transition(Change.RESOLVED, now_us, over))
        for name, alert in still.items():
            known = self._lines.get(name)
            if known is None:
                self.take(Transition(Change.FIRING, now_us, alert))
            elif not known.over and alert.severity is not known.alert.severity:
                self.take(Transition(Change.ESCALATED, now_us, alert))
        if not self._queue:
            self._settle_overflow(now_us)

    # What happens at the other side.

    def acknowledged(self, entry: Entry) -> None:
        """The head was received."""
        name, line = self._pop(entry)
        line.told, line.perhaps = entry.transition, False
        if entry.transition.change is Change.RESOLVED:
            self._end(name)
        if not self._queue:
            self._settle_overflow(entry.transition.at_us)

    def unanswered(self, entry: Entry) -> None:
        """An attempt at the head ended such that it may have been received. It stays the head."""
        line = self._lines[entry.transition.alert.occurrence]
        if not line.perhaps and line.told is None:
            line.perhaps = True
            self._dirty[entry.transition.alert.occurrence] = None

    def refused(self, entry: Entry) -> None:
        """The head will never be received as it is. With a ``firing`` that nobody has, its whole alert goes."""
        name, line = self._pop(entry)
        if not line.known:
            self._forget(name)
        elif entry.transition.change is Change.RESOLVED:
            self._end(name)
        elif line.told is None:
            line.told = entry.transition

    # Within.

    def _append(self, name: str, line: Line, transition: Transition) -> None:
        self._number += 1
        entry = Entry(self._number, transition)
        line.waiting.append(entry)
        self._queue.append(entry)
        self._dirty[name] = None

    def _pop(self, entry: Entry) -> tuple[str, Line]:
        head = self._queue.popleft()
        assert head is entry, "only the head is sent"
        name = entry.transition.alert.occurrence
        line = self._lines[name]
        del line.waiting[0]
        self._dirty[name] = None
        return name, line

    def _end(self, name: str) -> None:
        if name == self._overflow:
            self._overflow = None
        self._number += 1
        self._lines[name] = Line(over=self._number, waiting=[])
        self._ended.append(name)
        if len(self._ended) > REMEMBERED:
            self._forget(self._ended.popleft())

    def _forget(self, name: str) -> None:
        line = self._lines.pop(name)
        for entry in line.waiting:
            self._queue.remove(entry)
        if name == self._overflow:
            self._overflow = None
        self._dirty[name] = None

    def _drop_one(self, now_us: int) -> bool:
        """Drop the oldest warning that nobody was told of, else the oldest such alert; False if there is none.

        The head stays: it may be on its way.
        """
        head = self._queue[0].transition.alert.occurrence
        oldest: str | None = None
        for entry in self._queue:
            name = entry.transition.alert.occurrence
            if (
                entry.transition.change is not Change.FIRING
                or name in (head, self._overflow)
                or self._lines[name].known
            ):
                continue
            oldest = oldest or name
            if self._lines[name].alert.severity is Severity.WARNING:
                oldest = name
                break
        if oldest is None:
            return False
        self._forget(oldest)
        self.dropped += 1
        if self._overflow is None:
            self._tell_overflow(now_us)
        return True

    # The channel's own alert: that it had to drop some.

    def _own_key(self) -> Key:
        return Key(Kind.STORM, None, ("delivery", self._settings.name))

    def _is_own(self, name: str) -> bool:
        return name.startswith(f"{self._own_key().id}-") and not self._lines[name].over

    def _tell_overflow(self, now_us: int) -> None:
        key = self._own_key()
        alert = Alert(
            id=key.id,
            kind=key.kind,
            feed=None,
            sources=key.sources,
            severity=Severity.CRITICAL,
            started_us=max(now_us, 1),
            told_us=now_us,
            summary=f"alerts are dropped: more than {self._max_queued} messages wait for channel {self._settings.name}",
            evidence={"channel": self._settings.name, "max_queued": self._max_queued},
        )
        if alert.occurrence in self._lines:
            return
        self._overflow = alert.occurrence
        line = self._lines[alert.occurrence] = Line(waiting=[])
        self._append(alert.occurrence, line, Transition(Change.FIRING, now_us, alert))

    def _settle_overflow(self, now_us: int) -> None:
        """The queue is empty again: say so, with how many were lost."""
        line = self._lines.get(self._overflow) if self._overflow is not None else None
        if line is None or line.told is None or self._overflow is None:
            return
        over = msgspec.structs.replace(
            line.told.alert,
            ended_us=now_us,
            summary=f"channel {self._settings.name} has caught up; alerts that were dropped: {self.dropped}",
        )
        self._append(self._overflow, line, Transition(Change.RESOLVED, now_us, over))
