"""Metrics: one table of names, and a renderer. Values are read at scrape time from the parts that already count them.

Base units and bounded labels only: sources, transports and feeds come from the configuration, never from a client.
``docs/metrics.md`` describes each; a test compares the two.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry


class MetricSpec(NamedTuple):
    """A metric that is read, not kept. Prometheus adds ``_total`` to counters."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


SPECS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "oraclehub_info", "gauge", "Always 1; the labels say who this is.", ("instance", "version", "simulated")
    ),
    MetricSpec("oraclehub_epoch", "gauge", "Epoch of this run."),
    MetricSpec("oraclehub_sequence", "gauge", "Sequence of the last published batch."),
    MetricSpec("oraclehub_feed_state", "gauge", "1 for the state the feed is in, else 0.", ("feed", "state")),
    MetricSpec(
        "oraclehub_source_age_seconds", "gauge", "Age of the held update of a source for a feed.", ("feed", "source")
    ),
    MetricSpec("oraclehub_source_usable", "gauge", "1 if the source's input for the feed is ok.", ("feed", "source")),
    MetricSpec("oraclehub_decisions", "counter", "Published decisions.", ("feed", "rule", "source")),
    MetricSpec("oraclehub_updates", "counter", "Updates by what became of them.", ("source", "applied")),
    MetricSpec("oraclehub_malformed_frames", "counter", "Frames that could not be used.", ("source", "transport")),
    MetricSpec("oraclehub_link_up", "gauge", "1 if the link is connected.", ("link",)),
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
    MetricSpec("oraclehub_journal_ok", "gauge", "1 if the last write to the journal succeeded."),
    MetricSpec("oraclehub_clock_skew_seconds", "gauge", "Wall clock minus ours."),
)

Sample = tuple[str, Sequence[str], float]
"""Metric name, label values in the order of its spec, value."""


class Latencies:
    """Histograms, the only metrics that are kept rather than read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        buckets = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
        self.receive_to_publish = Histogram(
            "oraclehub_receive_to_publish_seconds",
            "From the receipt of the first frame of a burst to the hand-over of its batch to the sockets.",
            buckets=buckets,
            registry=self.registry,
        )
        self.lease_overrun = Histogram(
            "oraclehub_lease_overrun_seconds",
            "How long after the end of a lease the decision that follows from it was made.",
            buckets=buckets,
            registry=self.registry,
        )


HISTOGRAMS = ("oraclehub_receive_to_publish_seconds", "oraclehub_lease_overrun_seconds")


def render(samples: Iterable[Sample], latencies: Latencies) -> bytes:
    """Prometheus text of these samples and histograms. A sample of an unknown metric is a KeyError: a bug."""
    families: dict[str, Metric] = {}
    for spec in SPECS:
        family = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
        families[spec.name] = family(spec.name, spec.help, labels=spec.labels)
    for name, labels, value in samples:
        metric = families[name]
        assert isinstance(metric, CounterMetricFamily | GaugeMetricFamily)
        metric.add_metric(list(labels), value)

    class _Collector:
        def collect(self) -> Iterable[Metric]:
            return families.values()

    registry = CollectorRegistry()
    registry.register(_Collector())
    return generate_latest(registry) + generate_latest(latencies.registry)
