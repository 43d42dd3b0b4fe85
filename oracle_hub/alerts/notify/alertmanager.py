"""Alertmanager's API, version 2: ``POST /api/v2/alerts`` with a list of alerts (``postableAlerts`` of its OpenAPI).

An Alertmanager forgets: an alert ends when nobody speaks of it until its ``endsAt``, and when it is restarted. So what
fires is sent again and again, and the same way the hub says that it lives. The absence of ``HubAlive`` is an alarm
that an Alertmanager can't raise itself: route it to something that expects it.

It also judges by its own clock: an end that is still ahead of it is no end, and the later of two ends counts. So
what is over is sent again for a while as well, which outlasts a difference of clocks.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from oracle_hub.alerts.alert import Alert, Change, Kind
from oracle_hub.alerts.notify.message import Message, Sender, alert_name, annotations, labels
from oracle_hub.alerts.notify.posting import US_PER_S, Poster
from oracle_hub.alerts.notify.settings import AlertmanagerSettings

ALIVE_RESENDS = 3
"""``HubAlive`` ends so many re-sends after the last."""

REPEAT_ENDS_US = 900 * US_PER_S
"""For so long an end is sent again, as Prometheus does."""
MAX_ENDS = 1_000


class Alertmanager:
    """Tells one Alertmanager. Of several that form a cluster each is a channel: they sort out duplicates."""

    def __init__(self, settings: AlertmanagerSettings, sender: Sender) -> None:
        self.settings = settings
        self._sender = sender
        self._started_us: int | None = None
        self._ends: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        """By id and severity, which tell its alerts apart: when an end was sent first, and the end."""
        self._headers = {"Authorization": f"Bearer {settings.bearer.reveal()}"} if settings.bearer else {}
        self._poster = Poster(f"{settings.url.reveal().rstrip('/')}/api/v2/alerts", settings.timeout_s)

    @property
    def every_s(self) -> float:
        """How often what fires is sent again."""
        return self.settings.resend_s

    async def send(self, message: Message, now_us: int) -> None:
        """Send a transition. The severity is a label, so an escalation ends one alert there and begins another."""
        alert, before = message.alert, message.before
        ends = []
        if message.change is Change.RESOLVED:
            ends.append(alert)
        if before is not None and before.severity is not alert.severity:
            ends.append(before)
        firing = [] if message.change is Change.RESOLVED else [alert]
        over = {_identity(one): self._post(message.kind, one, now_us, over=True) for one in ends}
        posts = [self._post(message.kind, one, now_us, over=False) for one in firing]
        await self._send([*posts, *over.values()], now_us)
        for one in firing:
            self._ends.pop(_identity(one), None)
        self._ends.update({identity: (now_us, post) for identity, post in over.items()})
        while len(self._ends) > MAX_ENDS:
            del self._ends[next(iter(self._ends))]

    async def again(self, firing: Sequence[Alert], alive: bool, now_us: int) -> None:
        """Send all that fires, what ended lately, and ``HubAlive``."""
        self._ends = {one: end for one, end in self._ends.items() if now_us - end[0] <= REPEAT_ENDS_US}
        for alert in firing:
            self._ends.pop(_identity(alert), None)
        posts = [self._post(alert.kind.value, alert, now_us, over=False) for alert in firing]
        posts += [post for _, post in self._ends.values()]
        if alive and self.settings.hub_alive:
            posts.append(self._hub_alive(now_us))
        if posts:
            await self._send(posts, now_us)

    async def close(self) -> None:
        """Close the connection. What fires is left to fire: that the hub ends resolves nothing."""
        await self._poster.close()

    async def _send(self, posts: list[dict[str, Any]], now_us: int) -> None:
        await self._poster.post(msgspec.json.encode(posts), self._headers, now_us)

    def _post(self, kind: str, alert: Alert, now_us: int, *, over: bool) -> dict[str, Any]:
        ends_us = (alert.ended_us or now_us) if over else now_us + int(self.settings.expire_s * US_PER_S)
        return {
            "labels": labels(kind, alert, self._sender),
            "annotations": annotations(kind, alert, self._sender),
            "startsAt": rfc3339(alert.started_us),
            # It refuses what ends before it began.
            "endsAt": rfc3339(max(ends_us, alert.started_us)),
        }

    def _hub_alive(self, now_us: int) -> dict[str, Any]:
        self._started_us = self._started_us or now_us
        kind = Kind.HUB_ALIVE.value
        named = {"alertname": alert_name(kind), "kind": kind, "severity": "none", "instance": self._sender.instance}
        runbook = self._sender.runbook(kind)
        return {
            "labels": named | ({"simulated": "true"} if self._sender.simulated else {}),
            "annotations": {"summary": "the hub lives; the absence of this alert is the alarm"}
            | ({"runbook_url": runbook} if runbook else {}),
            "startsAt": rfc3339(self._started_us),
            "endsAt": rfc3339(now_us + int(ALIVE_RESENDS * self.settings.resend_s * US_PER_S)),
        }


def _identity(alert: Alert) -> tuple[str, str]:
    return alert.id, alert.severity.value


def rfc3339(us: int) -> str:
    """A time as Alertmanager reads it, to the microsecond."""
    seconds, fraction = divmod(us, US_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:06d}Z"
