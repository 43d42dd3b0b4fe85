"""The benchmarks of the stream run at small sizes and report the figures that they promise. No time is judged."""

import json
import shutil
from functools import partial
from typing import Any

import pytest

from benchmarks import broadcasters, fanout, latency, stall, workers
from benchmarks.report import main

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="the sink is in C, and there is no C compiler (cc)")


def figures_of(printed: str) -> dict[str, Any]:
    report = json.loads(printed)
    assert all(rows for rows in report["tables"].values())
    figures: dict[str, Any] = report["figures"]
    assert all(figure["value"] > 0 for figure in figures.values())
    return figures


@needs_cc
def test_fanout(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "CASES", fanout.CASES[:1] * 3)
    main("fanout", "", partial(fanout.run, n_clients=5, n_bursts=2), ["--json", "--repetitions", "1"])
    figures = figures_of(capsys.readouterr().out)
    assert {name: figure["at_least"] for name, figure in figures.items() if figure["at_least"] is not None} == {
        "part_of_floor": 65.0,
        "to_websockets_broadcast": 1.5,
        "to_best_peer": 1.0,
        "feed_updates_per_second_ten_feeds": 2e6,
    }


def test_the_compared_frames_have_the_promised_size() -> None:
    assert len(broadcasters.message(1, 214)) + 4 == 214
    assert broadcasters.message(10, None).count(b'"feed":') == 10


@needs_cc
def test_stall(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = stall.Scenario("few", 3, 400, 0.25)
    main("stall", "", partial(stall.run, scenarios=(scenario,)), ["--json", "--repetitions", "1"])
    printed = capsys.readouterr().out
    (ours, peer) = json.loads(printed)["tables"]["One client stops reading"]
    assert (ours["server"], peer["server"]) == ("oracle-hub", "websockets.broadcast")
    assert peer["messages on waking"] == 100
    assert {"p99_ratio_0", "stale_kib_0", "memory_for_stalled_kib_0"} <= set(json.loads(printed)["figures"])


def test_workers(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = latency.Sizes(n_messages=12, n_dropped=2, interval_s=0.005)
    small = partial(workers.run, sizes=sizes, n_clients=(1, 3))
    main("workers", "", small, ["--json", "--repetitions", "1"])
    printed = capsys.readouterr().out
    assert {"p50_ratio", "p99_ratio", "p50_ratio_3_clients", "p99_ratio_3_clients"} <= set(figures_of(printed))
    (rows,) = json.loads(printed)["tables"].values()
    assert [row["clients"] for row in rows] == [1, 3]
