"""Bars and decisions out of the store, as CSV or Parquet. Prices are exact in both: decimal text, decimal128."""

import csv
import importlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from oracle_hub.charts.bars import Bar
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import SECOND_US, Resolution
from oracle_hub.charts.store_reads import Reads
from oracle_hub.core.price import decimal_text
from oracle_hub.errors import ChartsError, in_words

ROWS_PER_READ = 20_000
PARQUET_SCALE = 18
"""Digits behind the point in Parquet: no feed has a finer exponent."""

BAR_FIELDS: dict[str, str] = {
    "feed": "text",
    "resolution": "text",
    "time": "int",
    "open": "price",
    "high": "price",
    "low": "price",
    "close": "price",
    "expo": "int",
    "updates": "int",
    "degraded_us": "int",
    "none_us": "int",
    "closed": "bool",
    "revision": "int",
    "imported": "bool",
    "gap": "bool",
}
"""Columns of bars; ``time`` is the start in seconds, as ``import-bars`` reads it."""

POINT_FIELDS: dict[str, str] = {
    "feed": "text",
    "decided_us": "int",
    "instance": "text",
    "epoch": "int",
    "seq": "int",
    "state": "text",
    "price": "price",
    "expo": "int",
    "conf": "price",
    "source": "text",
    "rule": "text",
    "reason": "text",
    "publish_time_us": "int",
    "valid_until_us": "int",
}

Row = tuple[Any, ...]


def bar_rows(store: Reads, feed: str, resolution: Resolution, from_us: int, to_us: int) -> Iterator[list[Row]]:
    """Rows of :data:`BAR_FIELDS`, in pieces."""
    while bars := store.bars(feed, resolution, from_us, to_us, ROWS_PER_READ):
        yield [_bar_row(bar) for bar in bars]
        from_us = bars[-1].start_us + 1


def _bar_row(bar: Bar) -> Row:
    return (
        bar.feed,
        bar.resolution.value,
        bar.start_us // SECOND_US,
        *(decimal_text(price, bar.expo) for price in (bar.open, bar.high, bar.low, bar.close)),
        bar.expo,
        bar.updates,
        bar.degraded_us,
        bar.none_us,
        bar.closed,
        bar.revision,
        bar.imported,
        bar.gap,
    )


def point_rows(store: Reads, feed: str, from_us: int, to_us: int) -> Iterator[list[Row]]:
    """Rows of :data:`POINT_FIELDS`, in pieces."""
    while points := store.points(feed, from_us, to_us, ROWS_PER_READ):
        if len(points) == ROWS_PER_READ:  # the last instant may go on behind the limit: it comes with the next piece
            last_us = points[-1].decided_us
            points = [point for point in points if point.decided_us < last_us] or points
        yield [_point_row(point) for point in points]
        from_us = points[-1].decided_us + 1


def _point_row(point: Point) -> Row:
    return (
        point.feed,
        point.decided_us,
        point.instance,
        point.epoch,
        point.seq,
        point.state,
        None if point.mantissa is None else decimal_text(point.mantissa, point.expo),
        point.expo,
        None if point.conf is None else decimal_text(point.conf, point.expo),
        point.source,
        point.rule,
        point.reason,
        point.publish_time_us,
        point.valid_until_us,
    )


def write_csv(file: TextIO, fields: dict[str, str], pieces: Iterator[list[Row]]) -> int:
    """Write a header and all rows; returns how many. None is an empty field, truth is 1 or 0."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(fields)
    written = 0
    for rows in pieces:
        writer.writerows([int(value) if value is True or value is False else value for value in row] for row in rows)
        written += len(rows)
    return written


def write_parquet(path: Path, fields: dict[str, str], pieces: Iterator[list[Row]]) -> int:
    """Write a Parquet file (zstd); returns how many rows.

    Raises:
        ChartsError: pyarrow is not installed, or the file can't be written.
    """
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ChartsError("Parquet needs pyarrow: pip install 'oracle-hub[parquet]', or give --format csv") from None
    kinds = {
        "text": arrow.dictionary(arrow.int32(), arrow.string()),
        "int": arrow.int64(),
        "bool": arrow.bool_(),
        "price": arrow.decimal128(38, PARQUET_SCALE),
    }
    schema = arrow.schema([(name, kinds[kind]) for name, kind in fields.items()])
    written = 0
    try:
        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            for rows in pieces:
                columns = [
                    [None if value is None else Decimal(value) for value in column] if kind == "price" else list(column)
                    for column, kind in zip(zip(*rows, strict=True), fields.values(), strict=True)
                ]
                writer.write_table(arrow.table(columns, schema=schema))
                written += len(rows)
    except OSError as error:
        raise ChartsError(f"{path}: cannot be written ({in_words(error)})") from None
    return written
