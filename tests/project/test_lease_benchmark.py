"""The benchmark of leases runs, at a size that takes seconds, and finds the ends that it times. No time is judged."""

import json
import re
from functools import partial
from pathlib import Path

import orjson
import pytest

from benchmarks import lease
from benchmarks.report import main

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs_and_its_figures_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    small = partial(lease.run, n_seconds=2, flood=200, n_clients=3)
    main("lease", "", small, ["--json", "--repetitions", "1"])
    report = json.loads(capsys.readouterr().out)
    figures = report["figures"]
    assert {name: one["at_most"] for name, one in figures.items() if one["at_most"]} == {
        "decided_p99_idle": 5.0,
        "read_p99_idle": 5.0,
        "decided_p99_load": 25.0,
        "read_p99_load": 25.0,
    }
    assert figures["notifications_under_load"]["value"] > 15 * 2
    (rows,) = report["tables"].values()
    assert {(row["round"], row["to"]) for row in rows} == {(a, b) for a in ("idle", "load") for b in ("R2", "none")}
    assert all(row["ends"] >= 3 for row in rows)
    told = set(re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")))
    assert set(figures) - told == set()


def update(feed: str, price: str | None, decided_us: int, until_us: int | None, sent_us: int = 0) -> bytes:
    entry = {"feed": feed, "price": price, "decided_us": decided_us, "valid_until_us": until_us}
    return orjson.dumps({"type": "update", "sent_us": sent_us or decided_us, "feeds": [entry]})


def test_it_finds_the_ends_of_leases() -> None:
    watch = lease.Watch(offset_us=1_000)
    watch.take(1_000_000, update("SOL/USD", "5", 1_500, 3_000))
    watch.take(1_500_000, update("SOL/USD", "6", 2_000, 4_000))  # news: not an end
    watch.take(3_500_000, update("SOL/USD", "7", 4_020, 5_000))  # the end at 4,000, decided 20 later, read at 4,500
    watch.take(4_600_000, update("SOL/USD", None, 5_001, None))
    watch.take(5_000_000, update("SOL/USD", "8", 9_000, 9_500))  # recovery: nothing had ended
    watch.take(5_000_000, update("USDC/USD", "8", 9_000, 9_100))
    watch.take(5_000_000, update("USDC/USD", None, 9_100, None))  # flooded, not measured
    watch.take(5_000_000, b'{"type":"heartbeat"}')
    assert watch.ends == [lease.End(False, 20, 500), lease.End(True, 1, 600)]
    assert (watch.n_updates, watch.outlived) == (7, 0)
    watch.take(6_000_000, update("SOL/USD", "8", 9_400, 9_700, sent_us=9_700))
    assert watch.outlived == 1
