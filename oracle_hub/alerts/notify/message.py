"""What is told of an alert: the JSON of webhooks, the lines for people, the labels of an Alertmanager. Pure."""

from typing import Any

import msgspec

from oracle_hub.alerts.alert import Alert, Change, Kind, Severity

US_PER_S = 1_000_000


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """Who tells, and what everything that is told bears."""

    instance: str
    """UUID of the hub."""
    simulated: bool = False
    runbook_url: str = ""
    """With ``{kind}`` where the kind belongs; empty for none."""

    def runbook(self, kind: str) -> str | None:
        """Where to read what to do about a kind."""
        return self.runbook_url.replace("{kind}", kind) or None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One transition on its way to one channel."""

    key: str
    """For deduplication: of the occurrence and the change, the same at every attempt and over restarts."""
    change: Change
    at_us: int
    alert: Alert
    before: Alert | None = None
    """As the channel was told it last; None if it was not."""
    test: bool = False
    """Sent by hand, to see whether it arrives. Nothing is wrong."""

    @property
    def kind(self) -> str:
        """The kind of alert, or ``test``."""
        return "test" if self.test else self.alert.kind.value


def test_messages(now_us: int) -> tuple[Message, Message]:
    """A pair, firing and resolved, that says of itself that it is a test."""
    alert = Alert(
        id="0000000000007e57",
        kind=Kind.HUB_ALIVE,
        feed=None,
        sources=(),
        severity=Severity.CRITICAL,
        started_us=now_us,
        told_us=now_us,
        summary="a test of oracle-hub's alerts: nothing is wrong",
        evidence={},
    )
    over = msgspec.structs.replace(alert, ended_us=now_us)
    return (
        Message(key=f"{alert.occurrence}-firing", change=Change.FIRING, at_us=now_us, alert=alert, test=True),
        Message(
            key=f"{alert.occurrence}-resolved",
            change=Change.RESOLVED,
            at_us=now_us,
            alert=over,
            before=alert,
            test=True,
        ),
    )


def document(message: Message, sender: Sender) -> dict[str, Any]:
    """The body of a webhook. Times are unix microseconds, as everywhere in the hub."""
    alert = msgspec.to_builtins(message.alert)
    alert["occurrence"] = message.alert.occurrence
    alert["kind"] = message.kind
    runbook = sender.runbook(message.kind)
    return {
        "type": "alert",
        "key": message.key,
        "change": message.change.value,
        "at_us": message.at_us,
        "instance": sender.instance,
        "simulated": sender.simulated,
        "alert": alert | ({"runbook_url": runbook} if runbook else {}),
    }


def heartbeat(now_us: int, every_s: float, sender: Sender) -> dict[str, Any]:
    """The body of a sign of life: when none came for a while, that is the alarm."""
    return {
        "type": "heartbeat",
        "key": f"hub_alive-{sender.instance}-{now_us}",
        "at_us": now_us,
        "every_s": every_s,
        "instance": sender.instance,
        "simulated": sender.simulated,
    }


def lines(message: Message, sender: Sender) -> tuple[str, str]:
    """Title and text for people."""
    alert = message.alert
    resolved = message.change is Change.RESOLVED
    state = "RESOLVED" if resolved else f"{alert.severity.value.upper()}"
    about = " ".join(filter(None, (message.kind, alert.feed, "/".join(alert.sources))))
    title = f"{'[simulated] ' if sender.simulated else ''}[{state}] {about}"
    rows = [alert.summary]
    if resolved and alert.ended_us is not None:
        rows.append(f"lasted {(alert.ended_us - alert.started_us) / US_PER_S:.1f} s")
    elif message.change is Change.ESCALATED:
        rows.append(f"escalated after {(message.at_us - alert.started_us) / US_PER_S:.1f} s")
    runbook = sender.runbook(message.kind)
    if runbook and not resolved:
        rows.append(runbook)
    rows.append(f"{alert.occurrence} hub {sender.instance}")
    return title, "\n".join(rows)


# Alertmanager.


def alert_name(kind: str) -> str:
    """``pair_diverged`` as Prometheus writes it: ``PairDiverged``."""
    return "".join(word.capitalize() for word in kind.split("_"))


def labels(message_kind: str, alert: Alert, sender: Sender) -> dict[str, str]:
    """What identifies the alert at an Alertmanager. All are of bounded variety; empty ones are left out there."""
    named = {
        "alertname": "OracleHubTest" if message_kind == "test" else alert_name(message_kind),
        "id": alert.id,
        "kind": message_kind,
        "feed": alert.feed or "",
        "sources": ",".join(alert.sources),
        "severity": alert.severity.value,
        "instance": sender.instance,
        "simulated": "true" if sender.simulated else "",
    }
    return {name: value for name, value in named.items() if value}


def annotations(kind: str, alert: Alert, sender: Sender) -> dict[str, str]:
    """What is told of the alert and does not identify it."""
    runbook = sender.runbook(kind)
    return {"summary": alert.summary, "occurrence": alert.occurrence} | ({"runbook_url": runbook} if runbook else {})
