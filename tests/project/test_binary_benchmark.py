"""The benchmark of the binary form runs, and its figures are documented. No time is judged."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import binary
from benchmarks.broadcasters import Source
from benchmarks.report import main

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs_and_its_figures_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    main("binary", "", binary.run, ["--json", "--repetitions", "1"])
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert all(one["value"] > 0 for one in figures.values())
    assert figures["bytes_ratio_1"]["value"] < 0.4
    told = re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs" / "performance-stream.md").read_text(encoding="utf-8"))
    assert set(figures) - set(told) == set()


def test_both_forms_of_a_frame_give_the_same_price_and_lease() -> None:
    batch = Source(3).next_batch()
    first = batch.decisions[0]
    picked = binary.pick_json(binary.encode_json(batch)), binary.pick_binary(binary.encode_binary(batch))
    assert picked == ((first.mantissa, first.valid_until_us),) * 2
