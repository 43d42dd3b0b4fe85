"""``oracle-hub parity``: the exchange's own aggregate beside our prices, in a running hub or over a journal."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson
from rich.console import Console
from rich.table import Table

from oracle_hub.app.parity_table import ParityRow, parity_of
from oracle_hub.cli.console import console
from oracle_hub.cli.explain import fetch_json
from oracle_hub.cli.journals import open_journal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the hub is (default %(default)s)")
    parser.add_argument(
        "--journal", metavar="FILE", nargs="+", type=Path, help="segments in order, or a directory: replay them instead"
    )
    parser.add_argument("--lenient", action="store_true", help="go on after damage in the journal")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(options: argparse.Namespace) -> int:
    if options.journal is None:
        _live(fetch_json(options.url, "/v1/parity"), as_json=options.json)
        return 0
    rows, report = parity_of(open_journal(options.journal, lenient=options.lenient))
    if options.json:
        found = {"proved": report.proved, "gaps": report.gaps, "feeds": msgspec.to_builtins(rows)}
        sys.stdout.buffer.write(orjson.dumps(found) + b"\n")
    else:
        out = console()
        _past(rows, out)
        if not report.proved:
            out.print("not proved: oracle-hub replay says what differs or is missing", style="red")
    return 0 if report.proved else 1


def _live(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n")
        return
    out = console()
    if not _any(answer["feeds"], out):
        return
    if answer.get("simulated"):
        out.print("[magenta]SIMULATED: not the market[/]")
    table = Table()
    for column in ("feed", "source", "role", "apart bps", "executable", "age s", "at most s", "leg", "legs so far"):
        table.add_column(column)
    for one in answer["feeds"]:
        prices = sum(one["legs"].values())
        table.add_row(
            one["feed"],
            one["source"],
            one["role"],
            "—" if one["parity_bps"] is None else str(one["parity_bps"]),
            "yes" if one["executable"] else "[red]no[/]",
            "—" if one["age_ms"] is None else f"{one['age_ms'] / 1000:.1f}",
            f"{one['max_age_ms'] / 1000:g}",
            one["leg"],
            _shares({leg: count / prices for leg, count in one["legs"].items()}),
        )
    out.print(table)


def _past(rows: Sequence[ParityRow], out: Console) -> None:
    if not _any(rows, out):
        return
    table = Table()
    for column in ("feed", "source", "time s", "executable", "compared s", "mean bps", "most bps", "prices", "legs"):
        table.add_column(column)
    for one in rows:
        table.add_row(
            one.feed,
            one.source,
            f"{one.seconds:.1f}",
            "—" if one.executable_share is None else f"{one.executable_share:.2%}",
            f"{one.compared_seconds:.1f}",
            "—" if one.mean_parity_bps is None else f"{one.mean_parity_bps:.2f}",
            "—" if one.max_parity_bps is None else str(one.max_parity_bps),
            str(one.prices),
            _shares(one.legs),
        )
    out.print(table)


def _any(rows: Sequence[object], out: Console) -> bool:
    if not rows:
        out.print("no source is the exchange's aggregate (doves.custody, doves.pool, doves.aggregate)")
    return bool(rows)


def _shares(legs: dict[str, float]) -> str:
    return ", ".join(f"{leg} {share:.0%}" for leg, share in legs.items()) or "—"
