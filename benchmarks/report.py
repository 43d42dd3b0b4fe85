"""What every benchmark shares: timing, facts about the machine, and a report as tables or JSON."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table as RichTable

Value: TypeAlias = str | int | float | None


class Timing(msgspec.Struct, frozen=True):
    """Seconds per call, over several repetitions."""

    median_s: float
    minimum_s: float
    """What the code costs when nothing else wants the machine."""

    @property
    def us(self) -> float:
        """Median, in microseconds."""
        return self.median_s * 1e6


def measure(function: Callable[[], object], *, repetitions: int = 7, at_least_s: float = 0.02) -> Timing:
    """Time a call. Each repetition loops until it has run for ``at_least_s``; the first call is not counted."""
    function()
    loops = 1
    while True:
        elapsed_s = _loop(function, loops)
        if elapsed_s >= at_least_s:
            break
        loops = max(loops * 2, int(loops * at_least_s / max(elapsed_s, 1e-9)))
    seconds = [_loop(function, loops) / loops for _ in range(repetitions)]
    return Timing(statistics.median(seconds), min(seconds))


def _loop(function: Callable[[], object], loops: int) -> float:
    started = time.perf_counter()
    for _ in range(loops):
        function()
    return time.perf_counter() - started


class Figure(msgspec.Struct, frozen=True):
    """A headline number, and the bound that it is held to, where there is one."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


class Table(msgspec.Struct, frozen=True):
    """Rows under named columns; None prints as a dash."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


class Report(msgspec.Struct, frozen=True):
    """The outcome of one benchmark."""

    benchmark: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()


def progress(line: str) -> None:
    """Say on standard error how far a benchmark is, where somebody looks on."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def environment() -> dict[str, Value]:
    """Facts that a figure means nothing without."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def main(
    name: str,
    description: str,
    run: Callable[[int], Report],
    argv: Sequence[str] | None = None,
    *,
    repetitions: int = 7,
) -> int:
    """Run a benchmark from the command line and print its report. Returns 1 if a figure missed its bound."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--repetitions", type=int, default=repetitions, help="repetitions (default: %(default)s)")
    parser.add_argument(
        "--markdown", action="store_true", help="print tables and figures as rows for the documentation"
    )
    arguments = parser.parse_args(argv)
    if arguments.json and arguments.markdown:
        parser.error("--json, --markdown: one of them")
    if arguments.repetitions < 1:
        parser.error("--repetitions: at least 1 is needed")
    facts = environment()
    report = run(arguments.repetitions)
    if arguments.json:
        print(json.dumps(as_json(report, facts), indent=2))
    elif arguments.markdown:
        print(as_markdown(report))
    else:
        _print(report, facts)
    return 1 if any(figure.met is False for figure in report.figures) else 0


def as_json(report: Report, facts: Mapping[str, Value]) -> dict[str, object]:
    """``{benchmark, environment, figures: {name: {value, unit, …}}, tables: {title: [row by column]}, notes}``."""
    return {
        "benchmark": report.benchmark,
        "environment": dict(facts),
        "figures": {
            figure.name: {
                "value": _rounded(figure.value),
                "unit": figure.unit,
                "at_most": figure.at_most,
                "at_least": figure.at_least,
                "met": figure.met,
            }
            for figure in report.figures
        },
        "tables": {
            table.title: [dict(zip(table.columns, map(_rounded, row), strict=True)) for row in table.rows]
            for table in report.tables
        },
        "notes": list(report.notes),
    }


def as_markdown(report: Report) -> str:
    """The report's tables, and one of its figures with their bounds, as docs/performance*.md have them."""
    figures = Table(
        "Figures",
        ("figure", "value", "unit", "bound", "met"),
        tuple(
            (
                f"`{figure.name}`",
                figure.value,
                figure.unit,
                _bound(figure),
                {None: "", True: "yes", False: "**no**"}[figure.met],
            )
            for figure in report.figures
        ),
    )
    parts = []
    for table in (*report.tables, figures):
        lines = [table.columns, ("---",) * len(table.columns), *(tuple(map(_text, row)) for row in table.rows)]
        parts.append("\n".join([f"{table.title}:", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(parts)


def _bound(figure: Figure) -> str:
    bounds = (("at most", figure.at_most), ("at least", figure.at_least))
    return ", ".join(f"{name} {_text(bound)}" for name, bound in bounds if bound is not None)


def _rounded(value: Value) -> Value:
    """To four significant digits: more would be noise."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _text(value: Value) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value


def _print(report: Report, facts: Mapping[str, Value]) -> None:
    console = Console()
    console.print(f"[bold]{report.benchmark}[/bold]  " + " · ".join(f"{key} {value}" for key, value in facts.items()))
    for table in report.tables:
        shown = RichTable(title=table.title, title_justify="left")
        for column in table.columns:
            shown.add_column(column, justify="right")
        for row in table.rows:
            shown.add_row(*map(_text, row))
        console.print(shown)
    for figure in report.figures:
        bound = "" if figure.at_most is None else f"  (at most {figure.at_most:g})"
        bound = bound if figure.at_least is None else f"  (at least {figure.at_least:g})"
        verdict = {None: "", True: "  [green]met[/green]", False: "  [red]MISSED[/red]"}[figure.met]
        console.print(f"{figure.name}: {_text(figure.value)} {figure.unit}{bound}{verdict}", highlight=False)
    for note in report.notes:
        console.print(f"[dim]{note}[/dim]", highlight=False)
