"""Incidents from recorded rows. The rows are nobody's to ship: they are read from a folder that the user names."""

import csv
from pathlib import Path

import msgspec

from oracle_hub.errors import IncidentError, in_words
from oracle_hub.incidents.script import Feed, Point, Script, Series, Tape, decimal


def loaded(script: Script, directory: Path) -> Script:
    """The script with its rows in place of points.

    Raises:
        IncidentError: a file is not there, or a row can't be read; the message names file and line.
    """
    return msgspec.structs.replace(
        script, feeds={name: _feed(script, feed, directory) for name, feed in script.feeds.items()}
    )


def _feed(script: Script, feed: Feed, directory: Path) -> Feed:
    series = tuple(one if one.tape is None else _series(script, one, one.tape, directory) for one in feed.series)
    true = next((one.points for one in series if one.role == feed.truth_of), feed.truth)
    return msgspec.structs.replace(feed, series=series, truth=true, truth_shape="step")


def _series(script: Script, one: Series, tape: Tape, directory: Path) -> Series:
    path = directory / tape.file
    points: list[Point] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(line for line in file if not line.startswith("#"))
            for row in rows:
                at_s = (int(row[tape.stamp_ms]) * 1_000 - script.start_us) / 1e6
                if not 0 <= at_s < script.duration_s or (points and at_s <= points[-1].at_s):
                    continue  # outside, or an observation that the row before had
                decimal(row[tape.price])
                points.append(Point(at_s=at_s, price=row[tape.price], label="published", source=0))
    except FileNotFoundError:
        raise IncidentError(f"{path}: no such tape; --tape-dir names the folder of recorded rows") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IncidentError(f"{path}: cannot be read ({in_words(error)})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise IncidentError(f"{path}, line {rows.line_num + 1}: not a row of this tape ({error})") from None
    if not points:
        raise IncidentError(f"{path}: no row within the {script.duration_s:g} s from {script.start.isoformat()}")
    return msgspec.structs.replace(one, points=tuple(points), shape="step", wobble_bps=0, only_points=tape.rows)
