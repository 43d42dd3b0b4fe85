"""What the hub tells Prometheus of itself, read back with Prometheus's own text parser."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from oracle_hub.alerts.alert import Kind
from oracle_hub.app import samples
from oracle_hub.app.alerting import Alerting
from oracle_hub.core.source import Frame
from oracle_hub.metrics import LatencyHistogram, Sample, families_of, text_of
from tests.app.rig import Rig, hermes_event

SOL, BTC = "SOL/USD", "BTC/USD"


def scrape(rig: Rig, more: Iterable[Sample] = ()) -> dict[tuple[str, ...], float]:
    """All samples by name and label values (in the order of the labels' names)."""
    parts = [*samples.of_pump(rig.pump, rig.clock.now_us()), *samples.of_journal(rig.journal), *more]
    families = text_string_to_metric_families(text_of(families_of(parts, rig.pump.latencies)).decode())
    return {
        (one.name, *(one.labels[label] for label in sorted(one.labels))): one.value
        for family in families
        for one in family.samples
    }


def live(rig: Rig) -> None:
    rig.connect()
    rig.tick(SOL, 100_00000000)
    rig.tick(BTC, 100_00000000)
    rig.pump.step()


async def test_distances_are_signed_and_from_the_chosen_price(rig: Rig) -> None:
    live(rig)
    rig.manual.advance(1_000_000)
    rig.deliver("hermes:1", hermes_event({SOL: (100_20000000, rig.now_s)}))
    rig.pump.step()
    told = scrape(rig)
    assert told["oraclehub_config_info", rig.pump.engine.lineup.config_hash] == 1
    assert told["oraclehub_source_deviation_ratio", SOL, "doves"] == 0
    assert told["oraclehub_source_deviation_ratio", SOL, "pyth"] == pytest.approx(0.002)
    assert told["oraclehub_usable_sources", SOL] == 3
    assert told["oraclehub_feed_state", SOL, "live"] == 1
    assert told["oraclehub_lease_remaining_seconds", SOL] == pytest.approx(
        4, abs=2e-6
    )  # chainlink's five seconds, one of them gone


async def test_without_a_price_distances_are_from_the_first_usable_source(rig: Rig) -> None:
    live(rig)
    rig.manual.advance(1_000_000)
    rig.deliver("hermes:1", hermes_event({SOL: (99_00000000, rig.now_s)}))
    rig.pump.step()
    told = scrape(rig)
    assert told["oraclehub_feed_state", SOL, "none"] == 1
    assert told["oraclehub_source_deviation_ratio", SOL, "pyth"] == pytest.approx(-0.01)
    assert told["oraclehub_source_deviation_ratio", SOL, "chainlink"] == 0
    assert ("oraclehub_lease_remaining_seconds", SOL) not in told
    rig.manual.advance(60_000_000)
    rig.pump.step()
    told = scrape(rig)
    assert told["oraclehub_usable_sources", SOL] == 0
    assert told["oraclehub_source_age_seconds", SOL, "doves"] == 61
    assert ("oraclehub_source_deviation_ratio", SOL, "pyth") not in told


async def test_alerts_are_counted_by_kind_and_each_series_is_there_before_them(rig: Rig, tmp_path: Path) -> None:
    alerting = Alerting(tmp_path, rig.pump.engine.alerts, show=lambda change: None)
    rig.pump.tell = alerting.tell
    told = scrape(rig, samples.of_alerts(alerting))
    assert told["oraclehub_alert_transitions_total", "firing", "no_price"] == 0
    assert told["oraclehub_alerts_open", "no_price", "critical"] == 0
    live(rig)
    rig.manual.advance(60_000_000)
    rig.pump.step()
    rig.manual.advance(10_000_000)
    rig.pump._alerts_due()
    alerting.condition(rig.clock.now_us(), Kind.JOURNAL_LAG, "write", True, "the disk is full")  # no journal tells it
    told = scrape(rig, samples.of_alerts(alerting))
    assert told["oraclehub_alert_transitions_total", "firing", "journal_lag"] == 1
    assert told["oraclehub_alerts_open", "journal_lag", "critical"] == 1
    assert told["oraclehub_alert_transitions_total", "firing", "no_price"] >= 1
    assert told["oraclehub_alerts_open", "no_price", "critical"] >= 1
    assert told["oraclehub_alert_transitions_total", "resolved", "no_price"] == 0


async def test_every_way_to_lose_an_update_is_counted_by_its_reason(rig: Rig) -> None:
    live(rig)
    rig.deliver("hermes:1", hermes_event({SOL: (99_00000000, rig.now_s)}))
    rig.deliver("hermes:1", hermes_event({SOL: (100_00000000, rig.now_s - 1)}))
    rig.deliver("hermes:1", hermes_event({SOL: (100_00000000, rig.now_s + 3_600)}))
    rig.deliver("hermes:1", Frame("sse", b"{"))
    told = scrape(rig)
    for applied in ("conflict", "older", "future"):
        assert told["oraclehub_updates_total", applied, "pyth"] == 1, applied
    assert told["oraclehub_updates_total", "taken", "pyth"] == 2
    assert told["oraclehub_malformed_frames_total", "pyth", "hermes:1"] == 1


async def test_each_part_of_the_way_is_timed(rig: Rig) -> None:
    live(rig)
    before = scrape(rig)
    rig.manual.advance(1_250_000)  # the oracles' stamps are whole seconds: these are a quarter old
    rig.tick(SOL, 100_10000000)
    rig.manual.advance(3_000)
    rig.pump.step()
    after = scrape(rig)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    assert grown["oraclehub_publish_to_receive_seconds_count", "pyth"] == 1
    assert grown["oraclehub_publish_to_receive_seconds_sum", "pyth"] == pytest.approx(0.25)
    assert grown["oraclehub_publish_to_receive_seconds_bucket", "0.1", "pyth"] == 0
    assert grown["oraclehub_publish_to_receive_seconds_bucket", "0.25", "pyth"] == 1
    for name in ("receive_to_decide", "tick_to_send"):
        assert grown[f"oraclehub_{name}_seconds_count",] == 1
        assert grown[f"oraclehub_{name}_seconds_sum",] == pytest.approx(0.003)
    assert grown["oraclehub_decide_to_socket_seconds_count",] == 1
    assert grown["oraclehub_decide_to_socket_seconds_sum",] == 0


async def test_a_late_decision_shows(rig: Rig) -> None:
    live(rig)
    rig.manual.advance(7_000_000)  # chainlink's lease ended two seconds ago, and the loop was somewhere else
    assert scrape(rig)["oraclehub_lease_remaining_seconds", SOL] == pytest.approx(-2, abs=2e-6)
    rig.pump.step()
    told = scrape(rig)
    assert told["oraclehub_lease_overrun_seconds_bucket", "1.0"] == 0
    assert told["oraclehub_lease_overrun_seconds_bucket", "5.0"] == 1


async def test_the_journal_says_how_far_it_lags(rig: Rig) -> None:
    live(rig)
    assert rig.journal.sync()
    rig.manual.advance(1_500_000)
    told = scrape(rig)
    assert told["oraclehub_journal_sync_age_seconds",] == 1.5
    assert told["oraclehub_journal_lag_seconds",] == 0
    assert told["oraclehub_journal_segments",] == 1
    assert told["oraclehub_journal_failures_total", "write"] == 0
    assert rig.journal.sync()
    assert scrape(rig)["oraclehub_journal_sync_age_seconds",] == 0


@given(st.lists(st.integers(-(10**9), 10**9), max_size=40))
def test_a_histogram_counts_what_is_at_most_each_bound(durations_us: list[int]) -> None:
    histogram = LatencyHistogram((100, 5_000, 1_000_000))
    for duration_us in durations_us:
        histogram.observe_us(duration_us)
    assert histogram.buckets() == [
        ("0.0001", sum(one <= 100 for one in durations_us)),
        ("0.005", sum(one <= 5_000 for one in durations_us)),
        ("1.0", sum(one <= 1_000_000 for one in durations_us)),
        ("+Inf", len(durations_us)),
    ]
    assert histogram.total_us == sum(max(0, one) for one in durations_us)


async def test_feeds_beyond_the_limit_are_counted_together(rig: Rig) -> None:
    live(rig)
    rig.manual.advance(1_000_000)
    rig.deliver("hermes:1", hermes_event({SOL: (99_00000000, rig.now_s)}))
    rig.pump.step()
    feeds = [spec.feed for spec in rig.pump.engine.hub.catalog.feeds]

    def of(limit: int | None) -> dict[tuple[str, ...], float]:
        pump = rig.pump
        told = samples.of_pump(pump, rig.clock.now_us(), max_feeds=limit)
        return {(name, *labels): value for name, labels, value in told}

    whole, bounded = of(None), of(1)
    per_feed = {key for key in whole if len(key) > 1 and key[1] in feeds}
    assert {key[1] for key in per_feed} == set(feeds)
    assert {key for key in bounded if len(key) > 1 and key[1] in feeds} == {
        key for key in per_feed if key[1] == feeds[0]
    }
    states = {state: whole["oraclehub_feeds", state] for state in ("live", "degraded", "none")}
    assert states == {"live": 1, "degraded": 0, "none": 1} and sum(states.values()) == len(feeds)
    assert all(whole["oraclehub_feeds_usable", source] == len(feeds) for source in ("doves", "chainlink", "pyth"))
    for one in (whole, bounded):
        counts = [value for key, value in one.items() if key[0] == "oraclehub_decisions"]
        assert sum(counts) == sum(rig.pump.decisions.values())
    assert any(key[1] == "*" for key in bounded if key[0] == "oraclehub_decisions")
