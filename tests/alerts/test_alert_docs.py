"""docs/alerts.md keeps up with the table of kinds."""

import re
from pathlib import Path

from oracle_hub.alerts.alert import KINDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")


def seconds(time_us: int | None) -> str:
    return "—" if time_us is None else f"{time_us / 1e6:g} s"


def test_every_kind_is_described_with_its_times() -> None:
    described = {
        row[0]: row[2:6] for row in (line.strip("| ").split(" | ") for line in PAGE.splitlines()) if len(row) == 7
    }
    expected = {
        f"`{kind.value}`": [
            spec.severity.value,
            seconds(spec.hold_on_us) + (" on the grid" if spec.grid_us else ""),
            seconds(spec.hold_off_us),
            seconds(spec.escalate_us),
        ]
        for kind, spec in KINDS.items()
    }
    assert {kind: row for kind, row in described.items() if re.fullmatch(r"`\w+`", kind)} == expected
