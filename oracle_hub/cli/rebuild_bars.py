"""``oracle-hub rebuild-bars JOURNAL --database FILE``: bars anew from what the hub heard."""

import argparse
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import orjson

from oracle_hub.app.rebuild import rebuild
from oracle_hub.charts.store import Store, open_store
from oracle_hub.cli.console import console
from oracle_hub.cli.journals import open_journal

PROGRESS_STEPS = 5_000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs a journal through the rule and the builder of bars. Rows that differ become numbered revisions, gaps are "
        "filled; a store that is recorded into at the same time may be given."
    )
    parser.add_argument(
        "path", metavar="JOURNAL", nargs="+", type=Path, help="the journal's directory, or its segments in order"
    )
    parser.add_argument("--database", required=True, type=Path, metavar="FILE", help="store of charts; made if absent")
    parser.add_argument("--lenient", action="store_true", help="go on after damage, which is then a gap in the bars")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(options: argparse.Namespace) -> int:
    steps = 0

    def progress(now_us: int) -> None:
        nonlocal steps
        steps += 1
        if steps % PROGRESS_STEPS == 0 and sys.stderr.isatty():
            print(f"\r{_moment(now_us)}", end="", file=sys.stderr, flush=True)

    records = open_journal(options.path, lenient=options.lenient)
    with ExitStack() as stack:

        def store() -> Store:
            return stack.enter_context(open_store(options.database))

        is_there = options.database.exists()  # else a journal that gives nothing makes none either
        report = rebuild(records, store() if is_there else store, strict=not options.lenient, progress=progress)
    if steps >= PROGRESS_STEPS and sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(msgspec.to_builtins(report)) + b"\n")
        return 0
    out = console()
    out.print(
        f"{_moment(report.from_us)} to {_moment(report.to_us)}: {report.batches} batches, {report.points} decisions"
    )
    out.print(f"{report.bars} bars derived: {report.changed} new or corrected, {report.unchanged} as they were")
    if report.gaps or report.mismatches:
        out.print(f"{report.gaps} gap(s) in the journal, {report.mismatches} batch(es) differ from what was published")
    return 0


def _moment(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
