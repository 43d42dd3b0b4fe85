"""``oracle-hub replay FILE``: a journal through the same code, compared with what it published."""

import argparse
import gc
import sys
from pathlib import Path

import msgspec
import orjson

from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer, ReplayReport
from oracle_hub.app.replay_parts import replay_in_parts
from oracle_hub.cli.console import console
from oracle_hub.cli.journals import open_journal
from oracle_hub.core.hub import Batch
from oracle_hub.stream.messages import feed_entry, view


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", metavar="FILE", nargs="+", type=Path, help="segments in order, or the journal's directory"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes; each takes the segments from one checkpoint to the next (default: one per processor)",
    )
    parser.add_argument("--batches", action="store_true", help="print every derived batch as a JSON line")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--lenient", action="store_true", help="go on after damage, which is then reported as a gap")


def run(options: argparse.Namespace) -> int:
    # Nearly nothing that lives long is made here, so looking for it often is a waste of time.
    gc.freeze()
    gc.set_threshold(100_000)
    report = _replayed(options)
    if options.json:
        sys.stdout.buffer.write(orjson.dumps({**msgspec.to_builtins(report), "proved": report.proved}) + b"\n")
    else:
        out = console()
        seconds = (report.last_us - report.first_us) / 1e6
        out.print(
            f"{report.runs} run(s), {report.records} records, {report.frames} frames, {report.steps} steps over "
            f"{seconds:.1f} s of time"
        )
        out.print(f"{report.batches} batches derived, {report.published} published, {len(report.mismatches)} differ")
        if report.gaps:
            out.print(f"{report.gaps} gap(s): records are missing there", style="yellow")
        for mismatch in report.mismatches[:10]:
            out.print(
                f"({mismatch.epoch}, {mismatch.seq}): published {mismatch.published}, derived {mismatch.derived}",
                style="red",
            )
        out.print(f"digest {report.digest}")
    return 0 if report.proved else 1


def _replayed(options: argparse.Namespace) -> ReplayReport:
    journal = open_journal(options.path, lenient=options.lenient)
    if not options.batches:
        return replay_in_parts(journal.paths, strict=not options.lenient, jobs=options.jobs)
    replayer = Replayer(lineup_from_text, on_batch=_print)
    for record in journal:
        replayer.take(record)
    return replayer.finish()


def _print(batch: Batch) -> None:
    line = {
        "epoch": batch.epoch,
        "seq": batch.seq,
        "now_us": batch.now_us,
        "feeds": [feed_entry(decision, view(decision, batch.now_us), full=True) for decision in batch.decisions],
    }
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
