"""Metrics that are read from the parts of the program when somebody asks. Nothing here runs with a tick."""

from collections import Counter
from collections.abc import Iterator, Sequence

from oracle_hub.alerts.alert import Change, Kind, Severity
from oracle_hub.app.alerting import Alerting
from oracle_hub.app.engine import Engine
from oracle_hub.app.parity import whole_bps
from oracle_hub.app.pump import Pump
from oracle_hub.app.way_health import way_health
from oracle_hub.core.catalog import FeedSpec
from oracle_hub.core.hub import Decision, DecisionInput
from oracle_hub.core.licence import told_ratio
from oracle_hub.core.selector import State
from oracle_hub.core.table import InputStatus
from oracle_hub.ingest.supervisor import Supervisor
from oracle_hub.journal.writer import JournalWriter
from oracle_hub.metrics import Sample

LINK_STATES = ("waiting", "connecting", "open", "stopped")
OTHER_FEEDS = "*"
"""The label of feeds without series of their own, where a count goes on for all of them."""
N_ROLES = 3
"""Primary and two verifiers come first among the inputs of a feed; references follow."""


def of_pump(pump: Pump, now_us: int, *, max_feeds: int | None = None) -> Iterator[Sample]:
    """What was decided, and from what. The first ``max_feeds`` (None: all) have series of their own."""
    engine = pump.engine
    yield "oraclehub_config_info", (engine.hub.config_hash,), 1
    yield "oraclehub_epoch", (), engine.hub.epoch
    yield "oraclehub_sequence", (), engine.hub.seq
    yield from of_catalog(engine, now_us)
    own = engine.hub.catalog.feeds[:max_feeds]
    yield from of_feeds(engine, now_us, own)
    yield from of_chain(engine, now_us, own)
    names, others = {spec.feed for spec in own}, Counter[tuple[str, str, str]]()
    for (feed, rule, source), count in pump.decisions.items():
        others[feed if feed in names or max_feeds is None else OTHER_FEEDS, rule, source] += count
    for labels, count in others.items():
        yield "oraclehub_decisions", labels, count
    for applied, count in engine.applied.items():
        yield "oraclehub_updates", applied, count
    for malformed, count in engine.malformed.items():
        yield "oraclehub_malformed_frames", malformed, count
    for condition, count in engine.conditions.items():
        yield "oraclehub_source_conditions", condition, count
    yield "oraclehub_clock_skew_seconds", (), pump.skew_us / 1e6


def of_catalog(engine: Engine, now_us: int) -> Iterator[Sample]:
    """All feeds together: as many series as there are states and sources, however many feeds there are."""
    hub = engine.hub
    states = Counter(decision.state for decision in hub.decisions.values())
    for state in State:
        yield "oraclehub_feeds", (state.value,), states[state]
    for source, count in hub.usable_counts(now_us).items():
        yield "oraclehub_feeds_usable", (source,), count


def of_chain(engine: Engine, now_us: int, feeds: Sequence[FeedSpec]) -> Iterator[Sample]:
    """The exchange's aggregates beside what was decided, for the first feeds of the catalog."""
    for index, spec in enumerate(feeds):
        for source, _, one in engine.chain.standing(engine.hub, index, now_us):
            labels = (spec.feed, source)
            distance_bps = whole_bps(one.apart)
            if distance_bps is not None:
                yield "oraclehub_parity_bps", labels, distance_bps
            yield "oraclehub_chain_executable", labels, one.executable
            for leg, count in engine.chain.used[spec.feed, source].items():
                yield "oraclehub_chain_prices", (spec.feed, source, leg), count


def of_feeds(engine: Engine, now_us: int, feeds: Sequence[FeedSpec]) -> Iterator[Sample]:
    """The first feeds of the catalog as they stand, one by one."""
    for index, spec in enumerate(feeds):
        feed, decision = (spec.feed,), engine.hub.decisions.get(spec.feed)
        for state in State:
            yield "oraclehub_feed_state", (spec.feed, state.value), decision is not None and decision.state is state
        if decision is not None and decision.mantissa is not None and decision.valid_until_us is not None:
            yield "oraclehub_lease_remaining_seconds", feed, (decision.valid_until_us - now_us) / 1e6
        inputs = engine.hub.inputs(index, now_us)
        usable = sum(entry.status is InputStatus.OK for entry in inputs[:N_ROLES])
        yield "oraclehub_usable_sources", feed, usable
        for entry in inputs:
            labels = (spec.feed, entry.source)
            yield "oraclehub_source_usable", labels, entry.status is InputStatus.OK
            if entry.held is not None:
                age_us = now_us - min(entry.held.publish_us, entry.held.received_us)
                yield "oraclehub_source_age_seconds", labels, age_us / 1e6
        for source, ratio in deviations(spec, decision, inputs):
            yield "oraclehub_source_deviation_ratio", (spec.feed, source), ratio


def deviations(
    spec: FeedSpec, decision: Decision | None, inputs: Sequence[DecisionInput]
) -> Iterator[tuple[str, float]]:
    """How far each usable source is from the chosen price, as a part of that; from the first usable one without it.

    For people to look at. The rule itself compares integers, relative to the smaller. To whole basis points where
    either may not be told.
    """
    usable = [(entry.source, entry.held.mantissa) for entry in inputs if entry.held and entry.status is InputStatus.OK]
    chosen = None if decision is None else decision.mantissa
    exact = True
    if chosen is None and usable:
        chosen, exact = usable[0][1], spec.shows(usable[0][0])
    for source, mantissa in usable:
        if chosen is not None:
            yield source, told_ratio(mantissa, chosen, exact=exact and spec.shows(source))


def of_alerts(alerting: Alerting) -> Iterator[Sample]:
    """Alerts by kind. Each series is there from the start: one that comes and goes looks like an end that was none."""
    still = Counter((alert.kind, alert.severity) for alert in alerting.open)
    for kind in Kind:
        for severity in Severity:
            yield "oraclehub_alerts_open", (kind.value, severity.value), still[kind, severity]
        for change in Change:
            yield "oraclehub_alert_transitions", (kind.value, change.value), alerting.told[kind, change]


def of_links(supervisor: Supervisor, now_us: int) -> Iterator[Sample]:
    """Every link's health, and what waits in it."""
    for name, health in supervisor.health().items():
        link = (name,)
        yield "oraclehub_link_up", link, health.state == "open"
        for state in LINK_STATES:
            yield "oraclehub_link_state", (name, state), health.state == state
        if health.last_frame_us:
            yield "oraclehub_link_last_frame_age_seconds", link, (now_us - health.last_frame_us) / 1e6
        yield "oraclehub_link_reconnects", link, health.reconnects
        yield "oraclehub_link_received_frames", link, health.frames
        yield "oraclehub_link_received_bytes", link, health.bytes
        yield "oraclehub_link_failed_fetches", link, health.failed_fetches
    for name, waiting in supervisor.waiting().items():
        yield "oraclehub_link_waiting_sends", (name,), waiting.sends
        yield "oraclehub_link_open_fetches", (name,), waiting.fetches


def of_ways(engine: Engine, supervisor: Supervisor, now_us: int) -> Iterator[Sample]:
    """Every way to every source: as many series as there are ways, however many feeds they bring."""
    for way in way_health(engine, supervisor.health(), now_us):
        labels = (way.source, way.transport)
        yield "oraclehub_way_up", labels, way.up
        yield "oraclehub_way_silent", labels, way.silent
        if way.last_update_ms_ago is not None:
            yield "oraclehub_way_age_seconds", labels, way.last_update_ms_ago / 1e3
        yield "oraclehub_way_behind_seconds", labels, way.behind_ms / 1e3
        yield "oraclehub_way_firsts", labels, way.firsts
        yield "oraclehub_way_duplicates", labels, way.duplicates
        yield "oraclehub_way_disagreements", labels, way.disagreements
        yield "oraclehub_way_late_updates", labels, way.late
        yield "oraclehub_way_late_seconds", labels, way.mean_late_ms * way.late / 1e3
        yield "oraclehub_way_most_late_seconds", labels, way.most_late_ms / 1e3


def of_journal(journal: JournalWriter | None) -> Iterator[Sample]:
    """The journal; without one only that it is not ok."""
    yield "oraclehub_journal_ok", (), journal is not None and not journal.failing
    if journal is None:
        return
    yield "oraclehub_journal_written_bytes", (), journal.bytes_written
    yield "oraclehub_journal_lost_records", (), journal.records_lost
    yield "oraclehub_journal_lost_bytes", (), journal.bytes_lost
    yield "oraclehub_journal_buffered_bytes", (), journal.buffered_bytes
    yield "oraclehub_journal_lag_seconds", (), journal.lag_us / 1e6
    yield "oraclehub_journal_sync_age_seconds", (), journal.sync_age_us / 1e6
    yield "oraclehub_journal_segments", (), journal.upkeep.segments
    yield "oraclehub_journal_failures", ("write",), journal.write_failures
    yield "oraclehub_journal_failures", ("sync",), journal.sync_failures
    yield "oraclehub_journal_failures", ("seal",), journal.upkeep.seal_failures
    yield "oraclehub_journal_failures", ("delete",), journal.upkeep.delete_failures
