"""The benchmark of alerts runs at a small size and reports what it promises. No time is judged."""

import pytest

from benchmarks import alert_latency


def test_alerts_reach_both_though_channels_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_latency, "ALERTS", 2)
    report = alert_latency.run(1)
    assert [(figure.name, figure.at_most) for figure in report.figures] == [
        ("frame to subscriber, p99, alone", 10.0),
        ("frame to webhook, p99, alone", 100.0),
        ("frame to subscriber, p99, beside 3 webhooks that hang", 10.0),
        ("frame to webhook, p99, beside 3 webhooks that hang", 100.0),
    ]
    assert all(figure.value > 0 for figure in report.figures)
