"""Every benchmark runs, at sizes that take seconds, and reports the figures that it promises. No time is judged."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ingest, latency, relay, selector
from benchmarks.report import Figure, Report, Table, as_json, main, measure

ROOT = Path(__file__).resolve().parents[2]


def figures_of(printed: str) -> dict[str, Any]:
    """The figures of a printed JSON report, each positive and with its verdict."""
    report = json.loads(printed)
    assert {"benchmark", "environment", "figures", "tables", "notes"} == set(report)
    assert {"python", "numpy", "cpu", "cores", "commit"} <= set(report["environment"])
    for name, figure in report["figures"].items():
        assert figure["value"] > 0, name
        assert (figure["met"] is None) is (figure["at_most"] is None and figure["at_least"] is None), name
    assert all(rows for rows in report["tables"].values())
    figures: dict[str, Any] = report["figures"]
    return figures


def bounds(figures: dict[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    return {name: (one["at_least"], one["at_most"]) for name, one in figures.items() if one["met"] is not None}


def test_selector(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(selector, "SIZES", (5, 64))
    monkeypatch.setattr(selector, "measure", lambda work, **_: measure(work, repetitions=1, at_least_s=1e-6))
    main("selector", "", selector.run, ["--json", "--repetitions", "1"])
    figures = figures_of(capsys.readouterr().out)
    assert bounds(figures) == {
        "tick_one_feed_of_five": (None, 10.0),
        "columnar_rate": (12.0, None),
    } | ({"columnar_to_c": (None, 8.0)} if "columnar_to_c" in figures else {})
    assert {"tick_update_to_decision", "columnar_rate_with_leases"} <= set(figures)


def test_ingest(capsys: pytest.CaptureFixture[str]) -> None:
    main("ingest", "", partial(ingest.run, n_ticks=4), ["--json", "--repetitions", "1"])
    figures = figures_of(capsys.readouterr().out)
    assert bounds(figures) == {
        "notifications_to_table": (100_000, None),
        "notifications_to_table_with_journal": (100_000, None),
        "to_solana_py": (2.5, None),
    }
    assert "notifications_to_decisions_with_journal" in figures
    assert {"legacy_reader_to_pythclient", "legacy_decoder_to_pythclient"} <= set(figures)


def test_ingest_refuses_to_time_updates_that_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    true_traffic = ingest.traffic

    def stale(subscriptions: dict[str, int], n_ticks: int) -> ingest.Traffic:
        sent = true_traffic(subscriptions, n_ticks)
        return ingest.Traffic(sent.data[:1] * 2, sent.texts[:1] * 2, sent.received_us[:2])

    monkeypatch.setattr(ingest, "traffic", stale)
    with pytest.raises(SystemExit, match="1 of 2 updates were taken"):
        ingest.run(1, n_ticks=1)


def test_latency(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = latency.Sizes(n_messages=12, n_dropped=2, interval_s=0.005)
    small = partial(latency.run, sizes=sizes, n_clients=(1, 3))
    main("latency", "", small, ["--json", "--repetitions", "1"])
    figures = figures_of(capsys.readouterr().out)
    assert bounds(figures) == {"p50_ratio": (None, 2.5)}
    names = {"p50_ratio", "p99_ratio", "hub_p50", "hub_p99", "relay_p50", "relay_p99"}
    assert set(figures) == names | {f"{name}_3_clients" for name in names}


def test_latency_compares_the_stamps_of_the_same_message() -> None:
    sent_ns = [0, 1_000_000, 2_000_000, 3_000_000]
    first = {0: 9_000_000, 1: 1_200_000, 2: 2_100_000, 3: 3_300_000}
    second = {1: 1_400_000, 3: 3_500_000}
    found = latency.spread(sent_ns, [first, second], 1)
    assert (found.p50, found.p99, found.lost) == (300.0, 500.0, 1)


def test_latency_finds_the_notification_behind_an_update() -> None:
    update = b'{"type":"update","sub":1,"feeds":[{"feed":"SOL/USD","state":"%s","price":"%d","expo":-8}]}'
    messages = [
        (5, update % (b"live", 15_000_000_007)),
        (6, update % (b"live", 15_000_000_007)),
        (7, update % (b"degraded", 15_000_000_008)),
        (8, b'{"type":"snapshot","feeds":[{"feed":"SOL/USD","state":"live","price":"15000000009"}]}'),
        (9, b'{"type":"heartbeat"}'),
    ]
    assert latency.hub_numbers(messages, 4) == {3: 5}


def test_a_subscriber_takes_frames_apart_however_they_come() -> None:
    stream = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    payloads = [b"a" * size for size in (0, 1, 125, 126, 1_000)]
    stream += b"".join(map(relay.text_frame, payloads))
    for step in (1, 7, 300, len(stream)):
        subscriber = relay.Subscriber()
        got: list[bytes] = []
        for start in range(0, len(stream), step):
            subscriber.data_received(stream[start : start + step])
            got += [payload for _, payload in subscriber.drain()]
        assert got == payloads


def test_verdicts_and_rounding_of_a_report() -> None:
    figures = (Figure("a", 1.23456, "x", at_most=1.0), Figure("b", 2.0, "x", at_least=2.0), Figure("c", 1.0, "s"))
    told = as_json(Report("one", figures, (Table("t", ("n", "us"), ((1, None),)),)), {"cores": 2})
    assert told["figures"] == {
        "a": {"value": 1.235, "unit": "x", "at_most": 1.0, "at_least": None, "met": False},
        "b": {"value": 2.0, "unit": "x", "at_most": None, "at_least": 2.0, "met": True},
        "c": {"value": 1.0, "unit": "s", "at_most": None, "at_least": None, "met": None},
    }
    assert told["tables"] == {"t": [{"n": 1, "us": None}]}


def test_the_documentation_tells_every_figure() -> None:
    told = set(re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")))
    sources = [(ROOT / "benchmarks" / f"{name}.py").read_text("utf-8") for name in ("selector", "ingest", "latency")]
    named = {name for source in sources for name in re.findall(r'Figure\(f?"([a-z0-9_]+)', source)}
    assert {"to_solana_py", "columnar_to_c", "p50_ratio"} <= named
    assert (named | {"crossing", "crossing_with_leases"}) - told == set()
