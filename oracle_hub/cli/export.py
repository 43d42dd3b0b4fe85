"""``oracle-hub export bars|points``: what charts hold, as CSV or Parquet."""

import argparse
import sys
from pathlib import Path

import orjson

from oracle_hub.charts.export import BAR_FIELDS, POINT_FIELDS, bar_rows, point_rows, write_csv, write_parquet
from oracle_hub.charts.resolutions import parse_resolution
from oracle_hub.charts.store import open_store
from oracle_hub.cli.moments import moment_us
from oracle_hub.errors import ChartsError

FOREVER_US = 2**62


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prices are exact: decimal text in CSV, decimal128 in Parquet. The store may be in use."
    parser.add_argument("what", choices=("bars", "points"), help="bars, or the decisions that they are made of")
    parser.add_argument("feed", metavar="FEED", nargs="*", help="feeds (default: all)")
    parser.add_argument("--resolution", default="1", help="of bars (default: 1, a minute)")
    parser.add_argument("--from", dest="from_us", type=moment_us, default=0, metavar="WHEN", help="inclusive (UTC)")
    parser.add_argument("--to", dest="to_us", type=moment_us, default=FOREVER_US, metavar="WHEN", help="exclusive")
    parser.add_argument("--format", choices=("csv", "parquet"), help="default: by the file's name, else csv")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to (default: standard output, CSV only)")
    parser.add_argument("--json", action="store_true", help="say what was written as JSON, on standard error")
    parser.add_argument("--database", required=True, type=Path, metavar="FILE", help="the store of charts")


def run(options: argparse.Namespace) -> int:
    output: Path | None = options.output
    form = options.format or ("parquet" if output is not None and output.suffix == ".parquet" else "csv")
    if form == "parquet" and output is None:
        raise ChartsError("Parquet needs a file: give --output FILE")
    if not options.database.exists():
        raise ChartsError(f"{options.database}: no such file; give the store of charts with --database")
    if options.database.is_file() and not options.database.stat().st_size:  # opening it would make it a store
        raise ChartsError(f"{options.database}: is empty; give the store of charts with --database")
    if output is not None and output.exists() and output.samefile(options.database):
        raise ChartsError(f"--output {output}: is the store itself; give another file")
    resolution = parse_resolution(options.resolution)
    with open_store(options.database) as store:
        held = store.feeds()
        unknown = [feed for feed in options.feed if feed not in held]
        if unknown:
            raise ChartsError(
                f"{options.database} holds no feed {', '.join(unknown)}; it has {', '.join(held) or 'none'}"
            )
        span = (options.from_us, options.to_us)
        fields = BAR_FIELDS if options.what == "bars" else POINT_FIELDS
        pieces = (
            piece
            for feed in options.feed or held
            for piece in (
                bar_rows(store, feed, resolution, *span) if options.what == "bars" else point_rows(store, feed, *span)
            )
        )
        if output is None:
            written = write_csv(sys.stdout, fields, pieces)
        elif form == "parquet":
            written = write_parquet(output, fields, pieces)
        else:
            try:
                with output.open("w", newline="", encoding="utf-8") as file:
                    written = write_csv(file, fields, pieces)
            except OSError as error:
                raise ChartsError(f"{output}: cannot be written ({error.strerror})") from None
    if options.json:
        print(orjson.dumps({"rows": written, "format": form}).decode(), file=sys.stderr)
    else:
        print(f"{written} {options.what} written", file=sys.stderr)
    return 0
