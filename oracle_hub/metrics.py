"""Metrics: one table of names, and a renderer. Values are read at scrape time from the parts that already count them.

Base units and bounded labels only: sources, transports and feeds come from the configuration, never from a client.
``docs/metrics.md`` describes each; a test compares the two.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry


class MetricSpec(NamedTuple):
    """A metric that is read, not kept. Prometheus adds ``_total`` to counters."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


_WAY = ("source", "transport")

SPECS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "oraclehub_info", "gauge", "Always 1; the labels say who this is.", ("instance", "version", "simulated")
    ),
    MetricSpec("oraclehub_config_info", "gauge", "Always 1; which configuration is in force.", ("config_hash",)),
    MetricSpec("oraclehub_epoch", "gauge", "Epoch of this run."),
    MetricSpec("oraclehub_sequence", "gauge", "Sequence of the last published batch."),
    MetricSpec("oraclehub_feeds", "gauge", "All feeds, by the state they are in.", ("state",)),
    MetricSpec("oraclehub_feeds_usable", "gauge", "All feeds for which the source's input is ok.", ("source",)),
    MetricSpec("oraclehub_feed_state", "gauge", "1 for the state the feed is in, else 0.", ("feed", "state")),
    MetricSpec(
        "oraclehub_source_age_seconds", "gauge", "Age of the held update of a source for a feed.", ("feed", "source")
    ),
    MetricSpec("oraclehub_source_usable", "gauge", "1 if the source's input for the feed is ok.", ("feed", "source")),
    MetricSpec(
        "oraclehub_source_deviation_ratio",
        "gauge",
        "Signed distance of a usable source from the chosen price, or from the first usable one while none is chosen.",
        ("feed", "source"),
    ),
    MetricSpec("oraclehub_usable_sources", "gauge", "Primary and verifiers whose input is ok.", ("feed",)),
    MetricSpec("oraclehub_lease_remaining_seconds", "gauge", "Until the price in force ends by itself.", ("feed",)),
    MetricSpec("oraclehub_decisions", "counter", "Published decisions.", ("feed", "rule", "source")),
    MetricSpec("oraclehub_updates", "counter", "Updates by what became of them.", ("source", "applied")),
    MetricSpec("oraclehub_malformed_frames", "counter", "Frames that could not be used.", ("source", "transport")),
    MetricSpec(
        "oraclehub_source_conditions",
        "counter",
        "How often a source began to tell of a condition.",
        ("source", "condition"),
    ),
    MetricSpec("oraclehub_way_up", "gauge", "1 if the link of a way is connected.", _WAY),
    MetricSpec("oraclehub_way_silent", "gauge", "1 if a way is behind another by more than the max age.", _WAY),
    MetricSpec("oraclehub_way_age_seconds", "gauge", "Since the latest update by a way was received.", _WAY),
    MetricSpec(
        "oraclehub_way_behind_seconds", "gauge", "How far a way's publish time is behind the newest way's.", _WAY
    ),
    MetricSpec("oraclehub_way_firsts", "counter", "Updates that no other way had told before.", _WAY),
    MetricSpec("oraclehub_way_duplicates", "counter", "Updates that were held already.", _WAY),
    MetricSpec("oraclehub_way_disagreements", "counter", "Other values for one publish time.", _WAY),
    MetricSpec("oraclehub_way_late_updates", "counter", "Publish times that another way told before.", _WAY),
    MetricSpec("oraclehub_way_late_seconds", "counter", "How much later they came, all together.", _WAY),
    MetricSpec("oraclehub_way_most_late_seconds", "gauge", "How much later one of them came at most.", _WAY),
    MetricSpec("oraclehub_link_up", "gauge", "1 if the link is connected.", ("link",)),
    MetricSpec("oraclehub_link_state", "gauge", "1 for the state the link is in, else 0.", ("link", "state")),
    MetricSpec(
        "oraclehub_link_last_frame_age_seconds", "gauge", "Since the last frame of a link, heartbeats too.", ("link",)
    ),
    MetricSpec(
        "oraclehub_parity_bps", "gauge", "Distance of the exchange's aggregate from our price.", ("feed", "source")
    ),
    MetricSpec(
        "oraclehub_chain_executable", "gauge", "1 if the exchange could execute with its aggregate.", ("feed", "source")
    ),
    MetricSpec(
        "oraclehub_chain_prices",
        "counter",
        "Prices of the aggregate by the leg they came from.",
        ("feed", "source", "leg"),
    ),
    MetricSpec("oraclehub_link_received_frames", "counter", "Frames received on a link.", ("link",)),
    MetricSpec("oraclehub_link_failed_fetches", "counter", "Requests of a link without an answer.", ("link",)),
    MetricSpec("oraclehub_link_waiting_sends", "gauge", "Messages that the link's peer has not taken.", ("link",)),
    MetricSpec("oraclehub_link_open_fetches", "gauge", "Requests of a link that wait for an answer.", ("link",)),
    MetricSpec("oraclehub_link_reconnects", "counter", "Connections of a link after its first.", ("link",)),
    MetricSpec("oraclehub_link_received_bytes", "counter", "Bytes received on a link.", ("link",)),
    MetricSpec("oraclehub_clients", "gauge", "Connected stream clients."),
    MetricSpec("oraclehub_sent_frames", "counter", "Frames written to stream clients."),
    MetricSpec("oraclehub_sent_bytes", "counter", "Bytes written to stream clients."),
    MetricSpec("oraclehub_clients_by_kind", "gauge", "Connected stream clients by what they follow.", ("kind",)),
    MetricSpec("oraclehub_token_clients", "gauge", "Connected stream clients by the name of their token.", ("token",)),
    MetricSpec(
        "oraclehub_unsent_bytes", "gauge", "Bytes that clients' sockets have not taken, all together.", ("kind",)
    ),
    MetricSpec("oraclehub_most_unsent_bytes", "gauge", "The same of the client who is furthest behind.", ("kind",)),
    MetricSpec("oraclehub_held_back_clients", "gauge", "Clients who are owed news and can't have it now."),
    MetricSpec("oraclehub_history_batches", "gauge", "Batches kept for clients who come back."),
    MetricSpec("oraclehub_history_bytes", "gauge", "About what these hold of memory."),
    MetricSpec("oraclehub_conflated_entries", "counter", "Feed entries that were sent merged."),
    MetricSpec("oraclehub_closed_clients", "counter", "Ended streams by close code.", ("code",)),
    MetricSpec("oraclehub_refused_clients", "counter", "Handshakes and requests refused.", ("reason",)),
    MetricSpec("oraclehub_send_buffer_unlimited", "gauge", "1 if the platform does not honour TCP_NOTSENT_LOWAT."),
    MetricSpec("oraclehub_cut_off_connections", "counter", "Connections that sent no whole request in time."),
    MetricSpec("oraclehub_client_errors", "counter", "Error messages sent to clients."),
    MetricSpec("oraclehub_worker_up", "gauge", "1 if the worker takes connections.", ("worker",)),
    MetricSpec("oraclehub_worker_clients", "gauge", "Stream clients of one worker.", ("worker",)),
    MetricSpec("oraclehub_worker_restarts", "counter", "How often a worker was started again.", ("worker",)),
    MetricSpec("oraclehub_worker_unread_bytes", "gauge", "Bytes of its feed that a worker has not read.", ("worker",)),
    MetricSpec("oraclehub_journal_written_bytes", "counter", "Bytes written to the journal."),
    MetricSpec("oraclehub_journal_lost_records", "counter", "Records lost while the disk refused them."),
    MetricSpec("oraclehub_journal_buffered_bytes", "gauge", "Bytes waiting to be written to the journal."),
    MetricSpec("oraclehub_journal_lost_bytes", "counter", "Bytes of these records."),
    MetricSpec("oraclehub_journal_lag_seconds", "gauge", "For how long the disk has refused to be written."),
    MetricSpec("oraclehub_journal_sync_age_seconds", "gauge", "Since the journal was last known to be on the disk."),
    MetricSpec("oraclehub_journal_segments", "gauge", "Segments in the journal's directory."),
    MetricSpec("oraclehub_journal_failures", "counter", "Failed operations on the journal.", ("operation",)),
    MetricSpec("oraclehub_journal_ok", "gauge", "1 if the last write to the journal succeeded."),
    MetricSpec("oraclehub_alerts_open", "gauge", "Alerts that were told and have not ended.", ("kind", "severity")),
    MetricSpec("oraclehub_alert_transitions", "counter", "What was told of alerts.", ("kind", "change")),
    MetricSpec("oraclehub_alert_channel_ok", "gauge", "1 if the last attempt to send alerts succeeded.", ("channel",)),
    MetricSpec("oraclehub_alert_messages_waiting", "gauge", "Alert messages that wait to be sent.", ("channel",)),
    MetricSpec("oraclehub_alert_messages_sent", "counter", "Acknowledged alert messages.", ("channel", "change")),
    MetricSpec("oraclehub_alert_send_failures", "counter", "Attempts to send alerts that failed.", ("channel",)),
    MetricSpec("oraclehub_alerts_dropped", "counter", "Alerts dropped since too many waited.", ("channel",)),
    MetricSpec("oraclehub_alert_messages_given_up", "counter", "Alert messages refused for good.", ("channel",)),
    MetricSpec(
        "oraclehub_alert_last_success_timestamp_seconds", "gauge", "When a channel last took something.", ("channel",)
    ),
    MetricSpec("oraclehub_clock_skew_seconds", "gauge", "Wall clock minus ours."),
)

Sample = tuple[str, Sequence[str], float]
"""Metric name, label values in the order of its spec, value."""


_FAST_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000)
"""For what happens inside the hub."""
_FAR_US = (
    *(10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000),
    *(60_000_000, 600_000_000, 3_600_000_000),
)
"""For what happens before it: from a fast stream to an account that is written once an hour."""


class HistogramSpec(NamedTuple):
    """A metric that is kept."""

    name: str
    help: str
    bounds_us: tuple[int, ...]
    """Upper bounds of the buckets, inclusive, without the last one that has none."""
    labels: tuple[str, ...] = ()


class LatencyHistogram:
    """Counts durations. Integers, no lock, one thread: about 0.14 us each; prometheus-client's takes 0.6 to 0.8."""

    __slots__ = ("bounds_us", "counts", "total_us")

    def __init__(self, bounds_us: tuple[int, ...]) -> None:
        self.bounds_us = bounds_us
        self.counts = [0] * (len(bounds_us) + 1)
        self.total_us = 0

    def observe_us(self, duration_us: int) -> None:
        """Count one. Clocks that disagree can make it negative: counted as 0."""
        if duration_us < 0:
            duration_us = 0
        self.counts[bisect_left(self.bounds_us, duration_us)] += 1
        self.total_us += duration_us

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds in seconds, and how many were at most that."""
        names = [*(repr(bound_us / 1e6) for bound_us in self.bounds_us), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


PUBLISH_TO_RECEIVE = HistogramSpec(
    "oraclehub_publish_to_receive_seconds",
    "From a source's own time of an observation to its receipt, of updates that were taken.",
    _FAR_US,
    ("source",),
)
RECEIVE_TO_DECIDE = HistogramSpec(
    "oraclehub_receive_to_decide_seconds",
    "From the receipt of the first frame of a burst to the decision that follows from it.",
    _FAST_US,
)
DECIDE_TO_SOCKET = HistogramSpec(
    "oraclehub_decide_to_socket_seconds",
    "From a decision to the hand-over of its batch to the sockets: the journal's write and the encoding are in it.",
    _FAST_US,
)
TICK_TO_SEND = HistogramSpec(
    "oraclehub_tick_to_send_seconds",
    "From the receipt of the first frame of a burst to the hand-over of its batch to the sockets.",
    _FAST_US,
)
LEASE_OVERRUN = HistogramSpec(
    "oraclehub_lease_overrun_seconds",
    "How long after the end of a lease the decision that follows from it was made.",
    _FAST_US,
)
HISTOGRAMS = (PUBLISH_TO_RECEIVE, RECEIVE_TO_DECIDE, DECIDE_TO_SOCKET, TICK_TO_SEND, LEASE_OVERRUN)


class Latencies:
    """Histograms, the only metrics that are kept rather than read."""

    def __init__(self) -> None:
        self.receive_to_decide = LatencyHistogram(RECEIVE_TO_DECIDE.bounds_us)
        self.decide_to_socket = LatencyHistogram(DECIDE_TO_SOCKET.bounds_us)
        self.tick_to_send = LatencyHistogram(TICK_TO_SEND.bounds_us)
        self.lease_overrun = LatencyHistogram(LEASE_OVERRUN.bounds_us)
        self._by_source: dict[str, LatencyHistogram] = {}

    def received(self, source: str, delay_us: int) -> None:
        """An update of a source was taken, so long after its publish time."""
        held = self._by_source.get(source)
        if held is None:
            held = self._by_source[source] = LatencyHistogram(PUBLISH_TO_RECEIVE.bounds_us)
        held.observe_us(delay_us)

    def families(self) -> Iterator[Metric]:
        """All of them, as they stand."""
        by_source = [((source,), held) for source, held in self._by_source.items()]
        for spec, series in (
            (PUBLISH_TO_RECEIVE, by_source),
            (RECEIVE_TO_DECIDE, [((), self.receive_to_decide)]),
            (DECIDE_TO_SOCKET, [((), self.decide_to_socket)]),
            (TICK_TO_SEND, [((), self.tick_to_send)]),
            (LEASE_OVERRUN, [((), self.lease_overrun)]),
        ):
            family = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
            for labels, held in series:
                family.add_metric(list(labels), held.buckets(), held.total_us / 1e6)
            yield family


def families_of(samples: Iterable[Sample], latencies: Latencies) -> list[Metric]:
    """These samples and histograms as they stand: nothing that happens later changes them.

    Raises:
        KeyError: a sample of an unknown metric, which is a bug.
    """
    families: dict[str, Metric] = {}
    for spec in SPECS:
        family = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
        families[spec.name] = family(spec.name, spec.help, labels=spec.labels)
    for name, labels, value in samples:
        metric = families[name]
        assert isinstance(metric, CounterMetricFamily | GaugeMetricFamily)
        metric.add_metric(list(labels), value)

    return [*families.values(), *latencies.families()]


def text_of(families: Iterable[Metric]) -> bytes:
    """Prometheus text. May be asked for in a thread: with thousands of samples it takes longer than prices may wait."""

    class _Collector:
        def collect(self) -> Iterable[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(_Collector())
    return generate_latest(registry)
