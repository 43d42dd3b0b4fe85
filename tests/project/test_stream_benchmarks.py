"""The benchmarks of the stream run at small sizes and report the figures that they promise. No time is judged."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import broadcasters, connections, fanout, heartbeats, latency, stall, throttled, tick_to_send, workers
from benchmarks.report import Figure, Report, Table, main

ROOT = Path(__file__).resolve().parents[2]
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
    (ours, _, peer) = json.loads(printed)["tables"]["One client stops reading"]
    assert (ours["server"], peer["server"]) == ("oracle-hub", "websockets.broadcast")
    assert peer["messages on waking"] == 100
    assert {"p99_ratio_0", "stale_kib_0", "stale_kib_buffer_left_alone_0", "memory_for_stalled_kib_0"} <= set(
        json.loads(printed)["figures"]
    )


def test_workers(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = latency.Sizes(n_messages=12, n_dropped=2, interval_s=0.005)
    small = partial(workers.run, sizes=sizes, n_clients=(1, 3))
    main("workers", "", small, ["--json", "--repetitions", "1"])
    printed = capsys.readouterr().out
    assert {"p50_ratio", "p99_ratio", "p50_ratio_3_clients", "p99_ratio_3_clients"} <= set(figures_of(printed))
    (rows,) = json.loads(printed)["tables"].values()
    assert [row["clients"] for row in rows] == [1, 3]


def test_connections(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: broadcasters.SERVERS[name] for name in ("oracle-hub", "websockets.broadcast")}
    monkeypatch.setattr(broadcasters, "SERVERS", few)
    sizes = connections.Sizes(30, 1.2, 3, 50, 40, 0.5)
    main("connections", "", partial(connections.run, sizes=sizes), ["--json", "--repetitions", "1"])
    report = json.loads(capsys.readouterr().out)
    assert {name: (figure["at_most"], figure["at_least"]) for name, figure in report["figures"].items()} == {
        "kib_per_connection": (24.0, None),
        "idle_heartbeats": (None, None),
        "idle_late": (0.0, None),
        "idle_cpu": (None, None),
        "p99_ratio_with_arrivals": (2.0, None),
        "arrived_per_second": (None, 38.0),
    }
    ours, peer = report["tables"]["30 idle connections"]
    assert (ours["server"], peer["server"]) == ("oracle-hub as run", "websockets.broadcast")
    assert 20 <= ours["heartbeats"] <= 80  # two or three for each of the twenty that are looked at
    arrivals, peer = report["tables"]["3 keepers, 50 batches a second"]
    assert arrivals["arrived per s"] == peer["arrived per s"] == 40


def test_heartbeats(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "CASES", heartbeats.CASES[1:2])
    run = partial(heartbeats.run, n_clients=5, n_feeds=1_000, seconds=0.6)
    main("heartbeats", "", run, ["--json", "--repetitions", "1"])
    report = json.loads(capsys.readouterr().out)
    bounds = {name: figure["at_most"] for name, figure in report["figures"].items() if figure["at_most"] is not None}
    assert bounds == {"heartbeats_cpu_while_prices_change": 1.0, "late_while_prices_change": 0.0}
    (changing,) = report["tables"]["Cost of heartbeats"]
    assert 0 < changing["frames/s"] <= 30
    assert changing["floor %"] > 0
    assert changing["timer %"] > 0
    assert changing["kernel us"] + changing["user us"] == pytest.approx(changing["us each"], abs=0.2, rel=0.01)


ELSEWHERE = """
import os, socket
from benchmarks.elsewhere import Loopback
try:
    loopback = Loopback()
except OSError:
    raise SystemExit("not permitted")
steering = "/sys/class/net/lo/queues/rx-0/rps_cpus"
masks = []
for elsewhere in (True, False):
    loopback.receive_elsewhere(elsewhere)
    masks.append(int(open(steering).read().replace(",", ""), 16))
assert masks == [1 << sorted(os.sched_getaffinity(0))[1], 0], masks
loopback.receive_elsewhere(True)
listener = socket.create_server(("127.0.0.1", 0))
sender, _ = socket.create_connection(listener.getsockname()), listener.accept()
"""


def test_a_loopback_that_receives_elsewhere_ends_with_its_process() -> None:
    steering = Path("/sys/class/net/lo/queues/rx-0/rps_cpus")
    before = steering.read_text()
    ended = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=60, cwd=ROOT)
    if "not permitted" in ended.stderr:
        pytest.skip("a network namespace of one's own takes root and two cores")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert steering.read_text() == before


def test_a_report_as_rows_for_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    figures = (
        Figure("cpu", 1.25, "%", at_most=1.0),
        Figure("rate", 3e6, "1/s", at_least=2e6),
        Figure("late", 0.0, "gaps"),
    )
    report = Report("some", figures, (Table("Cost", ("case", "us"), (("calm", 6.789), ("busy", None))),), ())
    assert main("some", "", lambda repetitions: report, ["--markdown"]) == 1
    assert capsys.readouterr().out == (
        "Cost:\n\n| case | us |\n| --- | --- |\n| calm | 6.79 |\n| busy | – |\n\n"
        "Figures:\n\n| figure | value | unit | bound | met |\n| --- | --- | --- | --- | --- |\n"
        "| `cpu` | 1.25 | % | at most 1 | **no** |\n| `rate` | 3,000,000 | 1/s | at least 2,000,000 | yes |\n"
        "| `late` | 0 | gaps |  |  |\n"
    )


def test_throttled(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttled, "CASES", throttled.CASES[2:])
    main("throttled", "", partial(throttled.run, n_clients=4, seconds=0.5), ["--json", "--repetitions", "1"])
    report = json.loads(capsys.readouterr().out)
    assert set(report["figures"]) == {"throttled_cpu_apart", "throttled_us_each_apart"}
    (row,) = report["tables"]["Cost of subscribers with max_hz"]
    assert 16 <= row["updates/s"] <= 60  # ten each, and not the hundred batches


def test_subscribers_of_heartbeats_share_no_group() -> None:
    asked = heartbeats.requests(1_000, 2_000).splitlines()
    assert len({tuple(sorted(json.loads(line)["feeds"])) for line in asked}) == 1_000
    assert max(map(len, asked)) <= 125


def test_tick_to_send(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick_to_send, "N_DROPPED", 2)
    run = partial(tick_to_send.run, n_clients=(3,), n_messages=10)
    main("tick_to_send", "", run, ["--json", "--repetitions", "1"])
    printed = capsys.readouterr().out
    assert {"first_p50_3", "last_p50_3", "last_p99_3", "publish_to_relay_3"} <= set(figures_of(printed))
    (p50, p99) = json.loads(printed)["tables"]["Microseconds from a notification's bytes"]
    assert (p50[""], p99[""]) == ("p50", "p99")
    assert all(p50[part] > 0 for part in tick_to_send.NAMES)
    assert p50["last"] > p50["decode"] + p50["decide"]
