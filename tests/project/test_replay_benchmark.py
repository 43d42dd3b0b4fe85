"""The benchmark of replay records a journal that proves itself, and keeps its bound."""

import json
from functools import partial

import pytest

from benchmarks import replay
from benchmarks.report import main


def test_replay(capsys: pytest.CaptureFixture[str]) -> None:
    main("replay", "", partial(replay.run, n_updates=600), ["--json", "--repetitions", "1"])
    told = json.loads(capsys.readouterr().out)
    assert told["figures"]["replay_hour_s"]["at_most"] == 3
    assert told["figures"]["replay_updates"]["value"] > 0
    counts = {row["what"]: row["count"] for row in told["tables"]["journal"]}
    assert counts["steps"] == 600 and counts["batches"] > 100
