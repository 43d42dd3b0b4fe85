"""The benchmark of bars runs, at sizes that take seconds, and reports what it promises. No time is judged."""

import json
from functools import partial
from itertools import pairwise

import pytest

from benchmarks import bars
from benchmarks.report import main


def test_bars(capsys: pytest.CaptureFixture[str]) -> None:
    main("bars", "", partial(bars.run, n_bars=12_000, n_feeds=40, n_seconds=6), ["--json", "--repetitions", "1"])
    report = json.loads(capsys.readouterr().out)
    bounds = {name: figure["at_most"] for name, figure in report["figures"].items()}
    assert bounds == {
        "page_bars": 150.0,
        "page_udf": 150.0,
        "all_bars": 3.0,
        "all_udf": 3.0,
        "keep_1hz": 25.0,
        "keep_4hz": 25.0,
        "bytes_per_bar": None,
    }
    assert all(figure["value"] > 0 for figure in report["figures"].values())
    kept = report["tables"]["40 feeds for 6 s"]
    assert [row["bars"] for row in kept] == [40 * (6 + 1), 40 * (6 + 1)]


def test_every_page_of_the_year_is_asked_for_once() -> None:
    spans = [url.split("?")[1].split("&") for url in bars.pages("?", 12_000)]
    bounds = [(int(first.removeprefix("from=")), int(to.removeprefix("to="))) for first, to in spans]
    assert bounds[0][1] == bars.BEGIN_US // 1_000_000
    assert [(to - first) // 60 for first, to in bounds] == [5_000, 5_000, 2_000]
    assert all(first == to for (first, _), (_, to) in pairwise(bounds))
