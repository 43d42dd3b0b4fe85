"""The benchmark of the journal's size weighs what it says, and keeps its bounds."""

import json
from functools import partial

import pytest

from benchmarks import journal_size
from benchmarks.report import main


def test_journal_size(capsys: pytest.CaptureFixture[str]) -> None:
    main("journal_size", "", partial(journal_size.run, minutes=1), ["--json", "--repetitions", "1"])
    told = json.loads(capsys.readouterr().out)
    figures = told["figures"]
    assert figures["journal_day_mb"]["at_most"] == 400
    assert figures["journal_day_signed_mb"]["at_most"] == 1_500
    assert figures["journal_day_mb"]["value"] < figures["journal_day_signed_mb"]["value"]
    rows = told["tables"]["a day"]
    assert [(row["endpoints"], row["signed payloads"]) for row in rows] == [
        (1, "no"),
        (1, "yes"),
        (2, "no"),
        (2, "yes"),
    ]
    assert all(row["sealed, MB"] < row["plain, MB"] / 3 for row in rows)
