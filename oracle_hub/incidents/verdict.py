"""What became of an incident, for reading: transitions as text, and figures by which to compare. Pure."""

from collections import Counter
from decimal import Decimal

import msgspec

from oracle_hub.alerts.alert import Change, Severity
from oracle_hub.core.price import decimal_text
from oracle_hub.core.selector import Reason, State
from oracle_hub.incidents.player import Played, Stretch, percent


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How one feed fared. Time counts from the first decision after the first warm-up."""

    feed: str
    available_percent: Decimal
    """Time with a price."""
    fallback_percent: Decimal
    """Time with a degraded one."""
    longest_outage_s: Decimal
    worst_bps: Decimal | None
    """The price in force that was furthest from the truth; None where there never was one."""
    worst_at_s: Decimal | None
    worst_price: str | None
    worst_truth: str | None


def figures(played: Played) -> list[Figures]:
    """One line for each feed."""
    return [_figures(played, feed) for feed in played.stretches]


def _figures(played: Played, feed: str) -> Figures:
    stretches = list(played.stretches[feed])
    while stretches and stretches[0].reason is Reason.WARMING and not stretches[0].down:
        stretches.pop(0)
    whole_us = sum(one.until_us - one.from_us for one in stretches)
    with_price_us = sum(one.until_us - one.from_us for one in stretches if one.state is not State.NONE)
    degraded_us = sum(one.until_us - one.from_us for one in stretches if one.state is State.DEGRADED)
    worst, expo = played.worst[feed], played.specs[feed].expo
    return Figures(
        feed=feed,
        available_percent=percent(with_price_us, whole_us),
        fallback_percent=percent(degraded_us, whole_us),
        longest_outage_s=_seconds(_longest(stretches)),
        worst_bps=None if worst is None else (Decimal(worst.off_centibps) / 100).quantize(Decimal("0.01")),
        worst_at_s=None if worst is None else _seconds(worst.at_us),
        worst_price=None if worst is None else decimal_text(worst.price, expo),
        worst_truth=None if worst is None else decimal_text(worst.truth, expo),
    )


def _longest(stretches: list[Stretch]) -> int:
    longest = running = 0
    for one in stretches:
        running = running + one.until_us - one.from_us if one.state is State.NONE else 0
        longest = max(longest, running)
    return longest


def alert_counts(played: Played) -> dict[str, int]:
    """How many were told, by kind, and ``critical`` among them at any time."""
    fired = Counter(one.alert.kind.value for one in played.alerts if one.change is Change.FIRING)
    critical = {
        one.alert.occurrence
        for one in played.alerts
        if one.change is not Change.RESOLVED and one.alert.severity is Severity.CRITICAL
    }
    return {**dict(sorted(fired.items())), "critical": len(critical)}


def decision_lines(played: Played) -> list[str]:
    """The decisions, run-length encoded: one line for each stretch of one state, rule, reason and source."""
    found = [one for stretches in played.stretches.values() for one in stretches]
    return [_stretch_line(played, one) for one in sorted(found, key=lambda one: one.from_us)]


def _stretch_line(played: Played, one: Stretch) -> str:
    about = f"{_clock(one.from_us)}  {one.feed:<9} "
    if one.down:
        return f"{about} -- the hub is down --"
    line = f"{about} {one.state.value:<8} {one.rule.value} {one.reason.value}"
    if one.first is None or one.lowest is None or one.highest is None:
        return line
    expo = played.specs[one.feed].expo
    span = f"{decimal_text(one.lowest, expo)} to {decimal_text(one.highest, expo)}"
    by = ", ".join(f"{source} {count}" for source, count in sorted(one.sources.items()))
    return f"{line}: {decimal_text(one.first, expo)} ({span}; decisions by {by})"


def alert_lines(played: Played) -> list[str]:
    """What was told, in order."""
    lines = []
    for one in played.alerts:
        alert = one.alert
        about = " ".join(filter(None, (alert.feed or "(all)", ",".join(alert.sources))))
        feeds = f" {len(alert.evidence['feeds'])} feeds" if "feeds" in alert.evidence else ""
        since_us = one.at_us - played.script.start_us
        severity = "" if one.change is Change.RESOLVED else f" {alert.severity.value}"
        lines.append(f"{_clock(since_us)}  {one.change.value:<9} {alert.kind.value} {about}{feeds}{severity}")
    return lines


def _clock(since_us: int) -> str:
    return f"+{since_us // 1_000_000:>5}.{since_us % 1_000_000 // 1_000:03}"


def _seconds(duration_us: int) -> Decimal:
    return (Decimal(duration_us) / 1_000_000).quantize(Decimal("0.001"))
