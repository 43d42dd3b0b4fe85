"""The benchmark of pages runs at a small size and reports the figures that it promises. No time is judged."""

from benchmarks import charts_pages
from benchmarks.report import as_json


def test_it_walks_through_all_bars_and_reports() -> None:
    report = charts_pages.run(2, minutes=12_000)
    figures = {figure.name: figure for figure in report.figures}
    assert set(figures) == {"page_ms_p99", "year_in_pages_s", "year_in_one_answer_s"}
    assert (figures["page_ms_p99"].at_most, figures["year_in_pages_s"].at_most) == (150, 3)
    assert all(figure.value > 0 for figure in figures.values())
    (table,) = report.tables
    (row,) = table.rows
    assert len(row) == 4 and None not in row
    assert as_json(report, {})["benchmark"] == "charts_pages"
