"""From conditions to alerts: hysteresis and hold times of one condition, and who is told of which. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from oracle_hub.alerts.alert import KINDS, Alert, Change, Key, Kind, KindSpec, Severity, Signal, Transition
from oracle_hub.alerts.settings import AlertSettings


class Phase(StrEnum):
    """Where a condition stands."""

    PENDING = "pending"
    OPEN = "open"
    CLOSING = "closing"
    OVER = "over"


class Condition:
    """One thing that is wrong, or about to be. Made when its signal first passes the threshold."""

    __slots__ = (
        "armed_us", "due_us", "ended_us", "escalate_us", "evidence", "fresh", "key", "kind", "opened_us", "phase",
        "severity", "signal", "since_us", "text", "worst",
    )  # fmt: skip

    def __init__(self, key: Key, kind: KindSpec, now_us: int) -> None:
        self.key = key
        self.kind = kind
        self.phase = Phase.PENDING
        self.since_us = now_us
        """When it began."""
        self.opened_us = 0
        """When it had lasted for its hold time."""
        self.ended_us: int | None = None
        self.due_us: int | None = None
        """When time alone changes it."""
        self.armed_us: int | None = None
        self.escalate_us: int | None = None
        self.severity = kind.severity
        self.signal: Signal | None = None
        """The latest one; None once it was gone."""
        self.worst = 0
        self.text = ""
        self.evidence: dict[str, Any] = {}
        self.fresh = True
        """Its evidence has to be taken down: it began, opened, or got worse."""

    @property
    def is_open(self) -> bool:
        """Wrong for long enough, and not over for long enough."""
        return self.phase in (Phase.OPEN, Phase.CLOSING)

    @property
    def over(self) -> bool:
        """To be dropped."""
        return self.phase is Phase.OVER

    def see(self, signal: Signal | None, now_us: int) -> None:
        """Take what its detector says now."""
        self.fresh = False
        wrong = signal is not None and signal.value >= signal.enter
        right = signal is None or signal.value < signal.leave
        self.signal = signal
        if signal is not None:
            self.worst = max(self.worst, signal.value)
            self.text = signal.text or self.text
        if self.phase is Phase.PENDING:
            self._while_pending(wrong, now_us)
        elif self.phase is Phase.OPEN and right:
            self.phase, self.due_us = Phase.CLOSING, now_us + self.kind.hold_off_us
            self.ended_us = now_us
        elif self.phase is Phase.CLOSING and wrong:
            self.phase, self.ended_us, self.due_us = Phase.OPEN, None, self.escalate_us
        if self.is_open and wrong and signal is not None:
            self._weigh(signal)
        if self.due_us is not None and self.due_us <= now_us:
            self.pass_time(now_us)

    def _while_pending(self, wrong: bool, now_us: int) -> None:
        if not wrong:
            self.phase, self.due_us = Phase.OVER, None
        elif self.due_us is None:
            due_us = now_us + self.kind.hold_on_us
            grid_us = self.kind.grid_us
            self.due_us = -(-due_us // grid_us) * grid_us if grid_us else due_us
            self.fresh = True

    def _weigh(self, signal: Signal) -> None:
        if signal.critical is not None and signal.value >= signal.critical and self.severity is not Severity.CRITICAL:
            self.severity, self.fresh = Severity.CRITICAL, True

    def pass_time(self, now_us: int) -> None:
        """Its deadline came."""
        if self.phase is Phase.PENDING:
            self.phase, self.opened_us, self.fresh = Phase.OPEN, now_us, True
            after_us = self.kind.escalate_us
            self.escalate_us = None if after_us is None else max(now_us, self.since_us + after_us)
            self.due_us = self.escalate_us
            if self.signal is not None:
                self._weigh(self.signal)
        elif self.phase is Phase.CLOSING:
            self.phase, self.due_us = Phase.OVER, None
        else:
            self.severity, self.fresh = Severity.CRITICAL, True
            self.escalate_us = self.due_us = None

    def end(self, now_us: int) -> None:
        """Over at once, whatever its signal says."""
        self.phase, self.due_us, self.ended_us = Phase.OVER, None, self.ended_us or now_us

    def shift(self, by_us: int) -> None:
        """The clock was set on by so much: all its times are told by the new one."""
        self.since_us += by_us
        self.opened_us += by_us
        for name in ("ended_us", "due_us", "armed_us", "escalate_us"):
            at_us = getattr(self, name)
            if at_us is not None:
                setattr(self, name, at_us + by_us)

    # Over a restart.

    def saved(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "kind": self.key.kind.value,
            "feed": self.key.feed,
            "sources": list(self.key.sources),
            "since_us": self.since_us,
            "opened_us": self.opened_us,
            "severity": self.severity.value,
            "escalate_us": self.escalate_us,
            "worst": self.worst,
            "text": self.text,
            "evidence": self.evidence,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any], kinds: Mapping[Kind, KindSpec]) -> "Condition":
        """Open, as it was. Raises KeyError, TypeError or ValueError for what :meth:`saved` did not give."""
        key = Key(Kind(saved["kind"]), saved["feed"], tuple(saved["sources"]))
        condition = cls(key, kinds[key.kind], int(saved["since_us"]))
        condition.phase = Phase.OPEN
        condition.opened_us = int(saved["opened_us"])
        condition.severity = Severity(saved["severity"])
        condition.escalate_us = condition.due_us = saved["escalate_us"]
        condition.worst, condition.text = int(saved["worst"]), str(saved["text"])
        condition.evidence = dict(saved["evidence"])
        condition.fresh = False
        return condition


FOLLOWS: dict[Kind, frozenset[Kind]] = {
    Kind.FALLBACK_ACTIVE: frozenset({Kind.NO_PRICE}),
    Kind.REDUNDANCY_DEGRADED: frozenset({Kind.NO_PRICE, Kind.FALLBACK_ACTIVE, Kind.SOURCE_STALE}),
    Kind.NOT_EXECUTABLE: frozenset({Kind.SOURCE_STALE}),
    Kind.PRIMARY_REJECTED: frozenset({Kind.SOURCE_CLAMPED, Kind.SOURCE_STALLED}),
    Kind.SOURCE_STALLED: frozenset({Kind.SOURCE_CLAMPED}),
}
"""What is not told beside something that says more: while one of these is open for the same feed."""

GROUP_GROWS_US = 10_000_000
"""What begins in the same way this soon after a group was told is part of it. What comes later is news: two feeds that
have been silent for a day must not keep it from being told that a third one lost its price."""


class Teller:
    """Which open conditions are alerts, and what was told of them."""

    __slots__ = ("_changed", "_ended", "_open_kinds", "_told", "_untold", "_worse", "changes", "settings")

    def __init__(self, settings: AlertSettings) -> None:
        self.settings = settings
        self._told: dict[Key, Alert] = {}
        self._untold: dict[Key, Condition] = {}
        """Open, and not told, or only as part of something larger."""
        self._open_kinds: dict[str | None, Counter[Kind]] = {}
        """Open conditions of each feed by kind, told or not."""
        self._worse: list[Condition] = []
        self._ended: list[Condition] = []
        self._changed = False
        self.changes = 0
        """Counts whatever must be remembered over a restart."""

    @property
    def open(self) -> list[Alert]:
        """What was told as firing and not as resolved."""
        return list(self._told.values())

    def opened(self, condition: Condition) -> None:
        """A condition lasted for its hold time."""
        self._untold[condition.key] = condition
        self._open_kinds.setdefault(condition.key.feed, Counter())[condition.key.kind] += 1
        self._changed = True

    def escalated(self, condition: Condition) -> None:
        """An open condition got worse."""
        self._worse.append(condition)
        self._changed = True

    def ended(self, condition: Condition) -> None:
        """An open condition is over."""
        self._untold.pop(condition.key, None)
        kinds = self._open_kinds[condition.key.feed]
        kinds[condition.key.kind] -= 1
        if not kinds.total():
            del self._open_kinds[condition.key.feed]
        self._ended.append(condition)
        self._changed = True

    def settle(self, now_us: int) -> list[Transition]:
        """Compare what is open with what was told, and tell the difference. To be called once an instant."""
        if not self._changed:
            return []
        self._changed = False
        self.changes += 1
        transitions = self._farewells(now_us) + self._escalations(now_us)
        waiting = [one for one in self._untold.values() if not self._follows(one)]
        if waiting or any(key.feed is None for key in self._told):
            self._groups(now_us, waiting, transitions)
            self._singles(now_us, waiting, transitions)
            self._storm(now_us, waiting, transitions)
        return transitions

    def _farewells(self, now_us: int) -> list[Transition]:
        ended, self._ended = self._ended, []
        transitions = []
        left: dict[Key, set[str]] = {}
        for condition in ended:
            alert = self._told.pop(condition.key, None)
            if alert is not None:
                over = msgspec.structs.replace(alert, ended_us=condition.ended_us or now_us)
                transitions.append(Transition(Change.RESOLVED, now_us, over))
            elif condition.key.feed is not None:
                left.setdefault(Key(condition.key.kind, None, condition.key.sources), set()).add(condition.key.feed)
        for group, feeds in left.items():
            self._leave(group, feeds)
        return transitions

    def _leave(self, group: Key, feeds: set[str]) -> None:
        """Members of a group are over: what begins again there while others are still wrong is told by itself."""
        alert = self._told.get(group)
        gone = feeds & _members(alert) if alert is not None else set()
        if alert is not None and gone:
            over = sorted({*alert.evidence.get("recovered", ()), *gone})
            self._told[group] = msgspec.structs.replace(alert, evidence={**alert.evidence, "recovered": over})

    def _escalations(self, now_us: int) -> list[Transition]:
        worse, self._worse = self._worse, []
        transitions = []
        for condition in worse:
            alert = self._told.get(condition.key)
            if alert is not None and alert.severity is not condition.severity:
                alert = self._told[condition.key] = self._alert(condition, told_us=alert.told_us)
                transitions.append(Transition(Change.ESCALATED, now_us, alert))
        return transitions

    def _groups(self, now_us: int, waiting: list[Condition], transitions: list[Transition]) -> None:
        """One alert for many feeds: what would be told one by one, of one kind and about the same sources."""
        members: dict[Key, list[Condition]] = {}
        for condition in waiting:
            if condition.key.feed is not None:
                members.setdefault(Key(condition.key.kind, None, condition.key.sources), []).append(condition)
        alone = Counter(Key(key.kind, None, key.sources) for key in self._told if key.feed is not None)
        live: set[Key] = set()
        grouped: set[int] = set()
        for key, group in members.items():
            if key in self._told:
                self._grow(key, group, now_us)
            elif len(group) + alone[key] >= self.settings.group_min:
                self._tell(now_us, key, self._group_alert(key, group, now_us), transitions)
            else:
                continue
            feeds = _members(self._told[key])
            inside = {id(condition) for condition in group if condition.key.feed in feeds}
            if inside:
                live.add(key)
            grouped |= inside
        for key in [key for key, alert in self._told.items() if _is_group(key, alert) and key not in live]:
            over = msgspec.structs.replace(self._told.pop(key), ended_us=now_us)
            transitions.append(Transition(Change.RESOLVED, now_us, over))
        waiting[:] = [condition for condition in waiting if id(condition) not in grouped]

    def _grow(self, key: Key, group: list[Condition], now_us: int) -> None:
        """Members that come soon are in the evidence of what is shown; that is no news of its own."""
        alert = self._told[key]
        if now_us - alert.told_us <= GROUP_GROWS_US:
            feeds = sorted({*alert.evidence["feeds"], *(one.key.feed for one in group if one.key.feed)})
            self._told[key] = msgspec.structs.replace(alert, evidence={**alert.evidence, "feeds": feeds})

    def _group_alert(self, key: Key, group: list[Condition], now_us: int) -> Alert:
        feeds = sorted(one.key.feed for one in group if one.key.feed)
        worst = Severity.CRITICAL if any(one.severity is Severity.CRITICAL for one in group) else Severity.WARNING
        about = f" ({', '.join(key.sources)})" if key.sources else ""
        shown = ", ".join(feeds[:5]) + (f" and {len(feeds) - 5} more" if len(feeds) > 5 else "")
        return Alert(
            id=key.id,
            kind=key.kind,
            feed=None,
            sources=key.sources,
            severity=worst,
            started_us=min(one.since_us for one in group),
            told_us=now_us,
            summary=f"{key.kind.value}{about} for {len(feeds)} feeds: {shown}",
            evidence={"feeds": feeds, "members": {one.key.feed: one.evidence for one in group[:10]}},
        )

    def _singles(self, now_us: int, waiting: list[Condition], transitions: list[Transition]) -> None:
        for condition in list(waiting):
            if len(self._told) >= self.settings.storm_cap:
                break
            waiting.remove(condition)
            del self._untold[condition.key]
            self._tell(now_us, condition.key, self._alert(condition, told_us=now_us), transitions)

    def _storm(self, now_us: int, waiting: list[Condition], transitions: list[Transition]) -> None:
        """What is over the cap is one alert, until all of it is over or was told."""
        key = Key(Kind.STORM, None)
        alert = self._told.get(key)
        if waiting and alert is None:
            storm = Alert(
                id=key.id,
                kind=Kind.STORM,
                feed=None,
                sources=(),
                severity=Severity.CRITICAL,
                started_us=now_us,
                told_us=now_us,
                summary=f"{len(waiting)} alerts beyond the {self.settings.storm_cap} that are told one by one",
                evidence={"untold": [one.key.id for one in waiting[:100]]},
            )
            self._tell(now_us, key, storm, transitions)
        elif alert is not None and not waiting:
            over = msgspec.structs.replace(self._told.pop(key), ended_us=now_us)
            transitions.append(Transition(Change.RESOLVED, now_us, over))

    def _follows(self, condition: Condition) -> bool:
        """Whether something that says more is open for the same feed."""
        stronger = FOLLOWS.get(condition.key.kind)
        if stronger is None:
            return False
        kinds = self._open_kinds[condition.key.feed]
        return any(kinds[kind] for kind in stronger)

    def _tell(self, now_us: int, key: Key, alert: Alert, transitions: list[Transition]) -> None:
        self._told[key] = alert
        transitions.append(Transition(Change.FIRING, now_us, alert))

    def _alert(self, condition: Condition, *, told_us: int) -> Alert:
        key = condition.key
        about = f"{', '.join(key.sources)}: " if key.sources else ""
        feed = f"{key.feed}: " if key.feed is not None else ""
        return Alert(
            id=key.id,
            kind=key.kind,
            feed=key.feed,
            sources=key.sources,
            severity=condition.severity,
            started_us=condition.since_us,
            told_us=told_us,
            summary=f"{feed}{key.kind.value}: {about}{condition.text or KINDS[key.kind].summary}",
            evidence=condition.evidence,
        )

    # Over a restart.

    def saved(self) -> list[dict[str, Any]]:
        """What was told and not ended, as JSON values."""
        return [dict(msgspec.to_builtins(alert)) for alert in self._told.values()]

    def restore(self, saved: list[Mapping[str, Any]], conditions: Iterable[Condition]) -> None:
        """Go on from :meth:`saved`, with the open conditions. Raises msgspec.ValidationError for anything else."""
        for raw in saved:
            alert = msgspec.convert(raw, Alert)
            self._told[Key(alert.kind, alert.feed, alert.sources)] = alert
        for condition in conditions:
            self.opened(condition)
            if condition.key in self._told:
                del self._untold[condition.key]


def _is_group(key: Key, alert: Alert) -> bool:
    return key.feed is None and "feeds" in alert.evidence


def _members(group: Alert) -> set[str]:
    """The feeds for which a group still stands."""
    return set(group.evidence.get("feeds", ())) - set(group.evidence.get("recovered", ()))
