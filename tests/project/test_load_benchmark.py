"""The benchmark of thousands of feeds runs, at a size that takes seconds, and loses nothing. No time is judged."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from benchmarks import catalogue, load
from benchmarks.load_processes import Measured, Plan, Sent
from benchmarks.report import main
from oracle_hub.config import parse_config

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs_and_its_figures_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    small = partial(load.run, n_feeds=120, seconds=0.5)
    main("load", "", small, ["--json", "--repetitions", "1"])
    report = json.loads(capsys.readouterr().out)
    figures = report["figures"]
    assert {name: one["at_most"] for name, one in figures.items() if one["at_most"] is not None} == {
        f"load_{what}_{name}": bound
        for name in ("accounts", "hermes", "subscriber")
        for what, bound in (("wait_p99", 25.0), ("lost", 0))
    }
    assert [figures[f"load_lost_{name}"]["value"] for name in ("accounts", "hermes", "subscriber")] == [0, 0, 0]
    rows, parts = report["tables"].values()
    assert [(row["what"], row["updates per s"]) for row in rows] == [
        ("accounts", 1_440.0),
        ("hermes", 1_440.0),
        ("subscriber", 1_440.0),
    ]
    assert all(row["decisions per s"] >= 120 / 0.5 for row in rows)  # what comes late is decided at once
    assert all(row["frames"] > 0 and row["decide"] > 0 and row["alerts"] > 0 for row in parts)
    told = set(re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")))
    assert set(figures) - told == set()


def test_notifications_are_told_apart_by_their_order() -> None:
    plan = Plan(1, 4, 1.0, False)
    sent = Sent([1_000, 2_000, 3_000], 0, 0.1)
    hub = Measured({}, 0, 0, [], [1_900, 2_100, 3_400], 0.0, 0.0, 1.0, 0.0, {}, [], 0.0)
    assert load.due_to_decided(plan, sent, hub) == [100, 400, 900]
    sent.due_us.append(4_000)  # one did not come: nobody knows which
    assert load.due_to_decided(plan, sent, hub) == []


def test_a_made_catalogue_is_a_configuration() -> None:
    config = parse_config(catalogue.made_config(300, "var", "127.0.0.1:1", hermes=True), origin="made")
    assert list(config.feeds)[:2] == ["F0000/USD", "F0001/USD"]
    addresses = [address for section in config.feeds.values() for address in section.accounts.values()]
    assert len(set(addresses)) == 900
