"""The benchmark of what-if runs, keeps its bounds' names, and compares before it times."""

import json
from functools import partial

import pytest

from benchmarks import whatif
from benchmarks.report import main


def test_whatif(capsys: pytest.CaptureFixture[str]) -> None:
    main("whatif", "", partial(whatif.run, n_rows=5_000), ["--json", "--repetitions", "1"])
    told = json.loads(capsys.readouterr().out)
    figures = told["figures"]
    assert figures["whatif_s"]["at_most"] == 60
    assert figures["whatif_peak_rss"]["at_most"] == 256
    assert {"whatif_rate", "cache_open_s"} <= set(figures)
    assert told["tables"]["history"][0]["count"] >= 5_000
