"""The benchmark of charts beside keepers runs, small, and says what it must."""

from benchmarks import charts_beside
from benchmarks.report import as_json


def test_keepers_are_measured_without_and_with_charts() -> None:
    setting = charts_beside.Setting(n_keepers=20, n_charts=5, minutes=12_000, seconds=0.5)
    report = charts_beside.run(1, setting=setting)
    found = {figure.name: figure.value for figure in report.figures}
    assert set(found) == {"keepers_p99_ratio", "keepers_p99_noise", "chart_pages_per_second"}
    assert found["chart_pages_per_second"] > 0
    (table,) = report.tables
    assert [row[0] for row in table.rows] == ["nobody looks at charts", "5 page back"]
    assert as_json(report, {})["benchmark"] == "charts_beside"
