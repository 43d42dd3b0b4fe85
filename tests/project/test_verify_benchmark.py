"""The benchmark of signatures runs and reports the figures that it promises, and performance.md tells them."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import verify
from benchmarks.report import main, measure

ROOT = Path(__file__).resolve().parents[2]


def test_verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(verify, "measure", lambda work, **_: measure(work, repetitions=1, at_least_s=1e-6))
    monkeypatch.setattr(verify, "MESSAGES", 16)
    main("verify", "", verify.run, ["--json", "--repetitions", "1"])
    report = json.loads(capsys.readouterr().out)
    figures = report["figures"]
    assert all(figure["value"] > 0 for figure in figures.values())
    assert {name: one["at_least"] for name, one in figures.items() if one["met"] is not None} == {
        "updates_of_13_signatures": 1_000
    }
    told = set(re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")))
    assert set(figures) - told == set()
