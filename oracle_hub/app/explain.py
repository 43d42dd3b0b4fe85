"""Answers about a running hub, in JSON: why a feed has the price it has, and whether the hub can serve the truth."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, islice

import msgspec

from oracle_hub.app.engine import Engine
from oracle_hub.app.pump import Pump
from oracle_hub.app.way_health import feed_ways, unproved, way_health
from oracle_hub.core.catalog import Redistribute
from oracle_hub.core.hub import Decision
from oracle_hub.core.licence import WITHHELD, told_inputs
from oracle_hub.core.price import divergence_bps
from oracle_hub.core.selector import Reason, State
from oracle_hub.ingest.driver import LinkHealth


def explain_feed(engine: Engine, feed: str, now_us: int) -> dict[str, object] | None:
    """Everything behind the decision in force: inputs as they stand at ``now_us``, limits, transports, conditions.

    None for a feed that is not in the catalog, or was not decided yet.
    """
    hub = engine.hub
    index = hub.catalog.feed_index.get(feed)
    decision = hub.decisions.get(feed)
    if index is None or decision is None:
        return None
    spec = hub.catalog.feeds[index]
    return {
        "feed": feed,
        "expo": spec.expo,
        "state": decision.state,
        "price": None if decision.mantissa is None else str(decision.mantissa),
        "source": decision.source,
        "rule": decision.rule,
        "reason": decision.reason,
        "policy": spec.policy,
        "max_divergence_bps": spec.max_divergence_bps,
        "max_conf_bps": spec.max_conf_bps,
        "limits": _limits(engine, feed),
        "publish_time_us": decision.publish_us,
        "decided_us": decision.decided_us,
        "valid_until_us": decision.valid_until_us,
        "now_us": now_us,
        "epoch": hub.epoch,
        "seq": hub.seq,
        "config_hash": hub.config_hash,
        "inputs": _inputs(engine, index, now_us),
        "parity": engine.chain.of_feed(engine.hub, index, now_us),
        "notes": notes(engine, feed, now_us),
    }


def _limits(engine: Engine, feed: str) -> list[dict[str, object]]:
    """Limits in force that an account publishes: which ones, by which account, since which slot."""
    return [
        {
            "source": one.source,
            "account": one.account,
            "slot": one.slot,
            "since_us": one.since_us,
            "max_age_s": one.max_age_s,
            "max_leg_age_s": one.max_leg_age_s,
            "max_divergence_bps": one.max_divergence_bps,
        }
        for (of_feed, _), one in engine.published.items()
        if of_feed == feed
    ]


def _inputs(engine: Engine, index: int, now_us: int) -> dict[str, object]:
    hub = engine.hub
    spec = hub.catalog.feeds[index]
    inputs = told_inputs(hub.inputs(index, now_us), spec)
    primary = inputs[0].held
    answer: dict[str, object] = {}
    for entry in inputs:
        update, held = entry.held, entry.held or entry.withheld
        distance: float | None = None
        if entry.role != "primary":
            distance = entry.apart_bps
            if distance is None and update is not None and primary is not None:
                distance = divergence_bps(update.mantissa, primary.mantissa)
        answer[entry.source] = {
            "role": entry.role,
            "status": entry.status,
            "redistribute": spec.redistribute.get(entry.source, Redistribute.FULL),
            "withheld": None if entry.withheld is None else WITHHELD,
            "price": None if update is None else str(update.mantissa),
            "conf": None if update is None or update.conf is None else str(update.conf),
            "publish_time_us": None if held is None else held.publish_us,
            "received_us": None if held is None else held.received_us,
            "age_ms": None if held is None else (now_us - min(held.publish_us, held.received_us)) // 1_000,
            "max_age_ms": spec.max_age_us[entry.source] // 1_000,
            "divergence_bps": distance,
            "transport": None if held is None else held.transport,
            "slot": None if held is None else held.slot,
            "account": None if held is None else held.account,
            "verified": held is not None and held.verified,
            "ways": feed_ways(engine, spec.feed, entry.source, now_us),
            "reads": engine.lineup.describe(entry.source, spec.feed),
        }
    return answer


def notes(engine: Engine, feed: str, now_us: int) -> list[str]:
    """What a person should know at ``now_us`` about a feed beside its numbers."""
    lines = [f"not_independent: {line}" for line in engine.lineup.witnesses.of(feed)]
    lines.extend(f"legacy: {line}" for line in engine.lineup.legacy.get(feed, ()))
    lines.extend(unproved(engine, feed, now_us))
    known = engine.hub.catalog.source_index
    lines.extend(
        f"{status.source} by {status.transport}: {status.condition}: {engine.tell(status.source, status.text)}"
        for status in engine.standing(now_us)
        if status.feed in (None, feed) and status.source in known
    )
    return lines


READINESS_ENTRIES = 256
"""So many feeds, conditions and notes are in the evidence of readiness, each; what is left out is counted."""


class _Shown:
    """The first of many entries, and how many more there are."""

    def __init__(self) -> None:
        self.omitted: dict[str, int] = {}

    def some(self, name: str, entries: Mapping[str, object]) -> dict[str, object]:
        if len(entries) > READINESS_ENTRIES:
            self.omitted[name] = len(entries) - READINESS_ENTRIES
        return dict(islice(entries.items(), READINESS_ENTRIES))

    def first(self, name: str, entries: Sequence[object]) -> list[object]:
        if len(entries) > READINESS_ENTRIES:
            self.omitted[name] = len(entries) - READINESS_ENTRIES
        return list(entries[:READINESS_ENTRIES])


def _feeds(decisions: Collection[Decision]) -> dict[str, object]:
    """State and reason of each feed; of many, those first that are worse."""
    order: Iterable[Decision] = decisions
    if len(decisions) > READINESS_ENTRIES:
        by_state: dict[State, list[Decision]] = {State.NONE: [], State.DEGRADED: [], State.LIVE: []}
        for decision in decisions:
            by_state[decision.state].append(decision)
        order = chain.from_iterable(by_state.values())
    return {decision.feed: {"state": decision.state, "reason": decision.reason} for decision in order}


def _names(feeds: Sequence[str]) -> str:
    more = f" and {len(feeds) - 20} more" if len(feeds) > 20 else ""
    return ", ".join(feeds[:20]) + more


def readiness(
    pump: Pump, health: Mapping[str, LinkHealth], *, started: bool, now_us: int
) -> tuple[bool, dict[str, object]]:
    """Whether the hub can serve the truth (``none`` is the truth too), and the evidence."""
    engine = pump.engine
    decisions = engine.hub.decisions.values()
    warming = [decision.feed for decision in decisions if decision.reason is Reason.WARMING]
    journal = pump.journal
    journal_ok = journal is None or not journal.failing
    missing: list[str] = []
    if not started or not decisions:
        missing.append("not started")
    if warming:
        missing.append(f"warming up: {_names(warming)}")
    if pump.skewed:
        missing.append(f"clock skew of {pump.skew_us / 1e6:+.3f} s")
    if not journal_ok and pump.journal_required:
        missing.append(f"journal: {pump.journal_error}")
    shown = _Shown()
    evidence: dict[str, object] = {
        "ready": not missing,
        "missing": missing,
        "now_us": now_us,
        "epoch": engine.hub.epoch,
        "seq": engine.hub.seq,
        "config_hash": engine.hub.config_hash,
        "states": Counter(decision.state for decision in decisions),
        "feeds": shown.some("feeds", _feeds(decisions)),
        "links": {name: _link(one, now_us) for name, one in health.items()},
        "ways": [msgspec.to_builtins(way) for way in way_health(engine, health, now_us)],
        "conditions": shown.first("conditions", conditions(engine, now_us)),
        "refused": refused(engine),
        "not_independent": shown.some("not_independent", engine.lineup.witnesses.all()),
        "legacy": shown.some("legacy", engine.lineup.legacy),
        "omitted": shown.omitted,
        "clock": {"skew_us": pump.skew_us, "skewed": pump.skewed},
        "journal": {
            "on": journal is not None,
            "ok": journal_ok,
            "error": None if journal_ok else pump.journal_error,
            "buffered_bytes": 0 if journal is None else journal.buffered_bytes,
            "lost_records": 0 if journal is None else journal.records_lost,
        },
    }
    return not missing, evidence


def conditions(engine: Engine, now_us: int) -> Sequence[dict[str, object]]:
    """What sources say of themselves at ``now_us`` that is not ok, by source and transport."""
    return [
        {
            "source": status.source,
            "transport": status.transport,
            "feed": status.feed,
            "condition": status.condition,
            "text": engine.tell(status.source, status.text),
            "since_us": status.received_us,
        }
        for status in engine.standing(now_us)
    ]


def refused(engine: Engine) -> dict[str, dict[str, object]]:
    """Frames, or parts of frames, that could not be believed, by transport: how many, and what the last one was."""
    counts: Counter[str] = Counter()
    for (_, transport), count in engine.malformed.items():
        counts[transport] += count
    return {
        transport: {
            "count": counts[transport],
            "source": last.source,
            "feed": last.feed,
            "reason": last.reason,
            "received_us": last.received_us,
        }
        for transport, last in engine.last_malformed.items()
    }


def _link(health: LinkHealth, now_us: int) -> dict[str, object]:
    return {
        "state": health.state,
        "connected_since_us": health.connected_since_us,
        "last_frame_ms_ago": (now_us - health.last_frame_us) // 1_000 if health.last_frame_us else None,
        "reconnects": health.reconnects,
        "failed_fetches": health.failed_fetches,
        "last_error": health.last_error,
    }
