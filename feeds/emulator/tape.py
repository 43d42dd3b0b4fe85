"""Tapes: recorded price series, read exactly and played again in today's time.

Prices are decimal text and become integers at exponent -8, which is what the wires carry: exact where they have no
more digits, else rounded half to even (how many were rounded is told). No float touches them. Times are moved by a
whole number of seconds: what was observed at 21:13:57.250 is published at some :57.250 today. The offset is told.
"""

import csv
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import TypeAlias

import msgspec

from feeds.addresses import ASSETS
from feeds.emulator.manifest import UNIT_DIGITS, Manifest, SeriesSpec, Unit, feed_in_text, find_manifest, row_feed
from feeds.emulator.oracles import select_oracles
from feeds.emulator.walk import CONF_CENTIBPS, MANNERS, Point, noise_ppb_of, observed
from oracle_hub.core.price import rescale, rescale_conf
from oracle_hub.errors import ConfigError, PriceError, in_words

_SECOND_US = 1_000_000
_GZIP = b"\x1f\x8b"
_LATEST_US = 7_258_118_400 * _SECOND_US  # the year 2200
_LONGEST_EXPONENT = 40
_MISLABELLED_US = range(10**12, 5 * 10**12)  # January and February of 1970: seconds of our days, taken for ms
Row: TypeAlias = tuple[int, int, int, int]
"""Time seen and time of the observation in the tape's own microseconds, price and confidence at exponent -8."""
FeedRows: TypeAlias = dict[str, list[Row]]


class Series(msgspec.Struct, frozen=True):
    """What one oracle publishes of one feed."""

    rows: list[Row]
    """In the order in which they were seen."""
    spec: SeriesSpec


class Tape(msgspec.Struct, frozen=True):
    """A file, read and mapped."""

    name: str
    title: str
    manifest: str
    """Where the manifest was found."""
    series: dict[tuple[str, str], Series]
    """By feed and oracle. What is not here is not played."""
    first_us: int
    last_us: int
    rounded: int
    """Prices that had more than eight decimals."""

    @property
    def feeds(self) -> tuple[str, ...]:
        """The feeds that it plays."""
        played = dict.fromkeys(feed for feed, _ in self.series)
        return (*(feed for feed in ASSETS if feed in played), *(feed for feed in played if feed not in ASSETS))

    def roles(self) -> list[dict[str, object]]:
        """Which column plays which oracle, for people to read."""
        found: dict[tuple[str, int], dict[str, object]] = {}
        for (feed, oracle), series in self.series.items():
            entry = found.setdefault(
                (feed, id(series.rows)),
                {"feed": feed, "column": series.spec.price, "rows": len(series.rows), "plays": []},
            )
            plays = entry["plays"]
            assert isinstance(plays, list)
            plays.append(oracle)
            if series.spec.note:
                entry["note"] = series.spec.note
        return list(found.values())


def read_tape(path: Path, manifest: Path | None = None, feeds: tuple[str, ...] = tuple(ASSETS)) -> Tape:
    """Read a CSV file with its manifest, which may name these feeds.

    Raises:
        ConfigError: no such file, no manifest, a column that is not there, a number that is none (with its line).
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, file, manifest, feeds)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        zipped = isinstance(error, UnicodeDecodeError) and error.object.startswith(_GZIP)
        why = "it is compressed; unpack it with gunzip" if zipped else in_words(error)
        raise ConfigError(f"{path}: cannot be read as a tape ({why})") from None


def _read(path: Path, file: Iterator[str], named: Path | None, feeds: tuple[str, ...]) -> Tape:
    comment, line = "", 0
    header: tuple[str, ...] = ()
    for text in file:
        line += 1
        if text.startswith("#"):
            comment = comment or text
            continue
        if not text.strip():
            continue
        header = tuple(column.strip() for column in next(csv.reader([text]), []))
        break
    if not header:
        raise ConfigError(f"{path}: is empty; a tape begins with a header that names its columns")
    manifest, origin = find_manifest(path, header, named, feeds)
    reader = _TapeReader(path.name, comment, header, manifest, feeds)
    for number, values in enumerate(csv.reader(file), line + 1):
        if values and not values[0].startswith("#"):
            reader.take(number, values)
    return reader.finish(origin)


class _Column:
    """One series being read: column numbers, factors, and the rows so far by feed."""

    def __init__(self, tape: str, comment: str, header: tuple[str, ...], spec: SeriesSpec) -> None:
        def at(column: str) -> int:
            if header.count(column) != 1:
                found = "has it twice" if column in header else f"has {', '.join(header)}"
                raise ConfigError(f"{tape}: the manifest names column {column!r}; the tape {found}")
            return header.index(column)

        def digits(column: str | None, unit: Unit | None) -> int:
            suffix = (column or "").rpartition("_")[2]
            named = unit or next((one for one in UNIT_DIGITS if one == suffix), None)
            if column is not None and named is None:
                raise ConfigError(f'{tape}: column {column!r} has no unit in its name; give unit = "ms" or the like')
            return UNIT_DIGITS[named] if named else 0

        self.spec = spec
        self.price = at(spec.price)
        self.time, self.time_digits = at(spec.time), digits(spec.time, spec.unit)
        self.receive = at(spec.receive) if spec.receive else None
        self.receive_digits = digits(spec.receive, spec.receive_unit)
        self.lag = at(spec.receive_lag) if spec.receive_lag else None
        self.lag_digits = digits(spec.receive_lag, spec.receive_unit)
        self.conf = at(spec.conf) if spec.conf else None
        self.where = [(at(column), text) for column, text in spec.where.items()]
        self.feed_from = at(spec.feed_from) if spec.feed_from else None
        self.feed = spec.feed
        if self.feed is None and self.feed_from is None:
            self.feed = feed_in_text(tape.rpartition(".")[0]) or feed_in_text(comment)
            if self.feed is None:
                raise ConfigError(
                    f"{tape}: neither its name nor its first line says which known feed it is; write a manifest "
                    f'{tape}.toml beside it with feed = "BTC/USD" (see docs/emulator.md)'
                )
        self.rows: FeedRows = {}


class _TapeReader:
    def __init__(
        self, name: str, comment: str, header: tuple[str, ...], manifest: Manifest, feeds: tuple[str, ...]
    ) -> None:
        self.name = name
        self.feeds = feeds
        self.header = header
        self.manifest = manifest
        self.columns = [_Column(name, comment, header, spec) for spec in manifest.series]
        self.rounded = 0

    def take(self, line: int, values: list[str]) -> None:
        if len(values) != len(self.header):
            raise ConfigError(f"{self.name}: line {line}: expected {len(self.header)} values, found {len(values)}")
        for column in self.columns:
            if any(values[at] != text for at, text in column.where):
                continue
            feed = column.feed if column.feed_from is None else row_feed(values[column.feed_from], self.feeds)
            if feed is None or not values[column.price].strip() or not values[column.time].strip():
                continue  # no observation: nothing is put in its place
            column.rows.setdefault(feed, []).append(self._row(column, line, values))

    def _row(self, column: _Column, line: int, values: list[str]) -> Row:
        at = column.time
        try:
            seen_us = time_us = tape_us(values[at], column.time_digits, column.spec.shift_ms)
            if column.receive is not None and values[column.receive].strip():
                at = column.receive
                seen_us = max(time_us, tape_us(values[at], column.receive_digits))
            elif column.lag is not None and values[column.lag].strip():
                at = column.lag
                seen_us += max(0, scaled_us(values[at], column.lag_digits))
                if seen_us >= _LATEST_US:
                    raise ValueError(f"{values[at].strip()[:80]} is no delay: it would be seen after 2200")
            at = column.price
            number, exponent = decimal_parts(values[at])
            exponent += column.spec.price_expo
            price = rescale(number, exponent, -8)
            self.rounded += exponent < -8 and number % 10 ** (-8 - exponent) != 0
            if column.conf is None or not values[column.conf].strip():
                return seen_us, time_us, price, price * CONF_CENTIBPS // 1_000_000
            at = column.conf
            number, exponent = decimal_parts(values[at])
            return seen_us, time_us, price, rescale_conf(number, exponent + column.spec.price_expo, -8)
        except (PriceError, ValueError) as error:
            raise ConfigError(f"{self.name}: line {line}: column {self.header[at]}: {error}") from None

    def finish(self, origin: str) -> Tape:
        series: dict[tuple[str, str], Series] = {}
        for column in self.columns:
            for rows in column.rows.values():
                rows.sort(key=lambda row: row[:2])
                rows[:] = [row for row, before in zip(rows, [None, *rows], strict=False) if _is_news(row, before)]
            for feed, rows in column.rows.items():
                for oracle in (oracle for name in column.spec.sources for oracle in select_oracles(name)):
                    if (feed, oracle) in series:
                        raise ConfigError(f"{self.name}: the manifest gives {oracle} of {feed} more than one series")
                    series[feed, oracle] = Series(rows, column.spec)
        if not series:
            raise ConfigError(f"{self.name}: no row of it is a price that its manifest maps")
        first = min(one.rows[0][0] for one in series.values())
        last = max(one.rows[-1][0] for one in series.values())
        if first in _MISLABELLED_US:
            raise ConfigError(
                f"{self.name}: begins at {utc_text(first)}; are its times in seconds? A manifest says so (unit)"
            )
        return Tape(self.name, self.manifest.title, origin, series, first, last, self.rounded)


def _is_news(row: Row, before: Row | None) -> bool:
    """Whether a row is more than the one before it, carried on to a later time (as in a join on a grid)."""
    return before is None or row[1:] != before[1:]


def decimal_parts(text: str) -> tuple[int, int]:
    """A decimal number as integer and power of ten, exactly. Raises ValueError for no number."""
    whole, _, fraction = text.partition(".")
    if text.isascii() and (whole + fraction).isdigit():  # nearly always
        return int(whole + fraction), -len(fraction)
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(f"{text[:80]!r} is no number") from None
    if not number.is_finite():
        raise ValueError(f"{text[:80]!r} is no number")
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    value = int("".join(map(str, digits)) or "0")
    return (-value if sign else value), exponent


def scaled_us(text: str, digits: int) -> int:
    """A time in some unit, ``10**digits`` microseconds each, in whole microseconds (rounded down).

    Raises:
        ValueError: no number, or one with an exponent that no time has.
    """
    number, exponent = decimal_parts(text)
    power = exponent + digits
    if abs(power) > _LONGEST_EXPONENT:
        raise ValueError(f"{text[:80]!r} is no time")
    return number * int(10**power) if power >= 0 else number // int(10**-power)


def tape_us(text: str, digits: int, shift_ms: int = 0) -> int:
    """A unix time of a tape in microseconds, moved by a manifest's shift.

    Raises:
        ValueError: no number, or no time from 1970 to 2200 (most likely another unit's), before or after the shift.
    """
    time_us = scaled_us(text, digits)
    if not 0 <= time_us < _LATEST_US:
        raise ValueError(
            f"{text.strip()[:80]} is no unix time from 1970 to 2200 in this unit; a manifest gives another"
        )
    if not 0 <= time_us + shift_ms * 1_000 < _LATEST_US:
        raise ValueError(f"shift_ms = {shift_ms} moves {text.strip()[:80]} out of the years 1970 to 2200")
    return time_us + shift_ms * 1_000


def parse_start(text: str | None, tape: Tape) -> int:
    """Where to begin, in the tape's own microseconds: seconds after its first row, or a time in UTC.

    Raises:
        ConfigError: neither, or not within the tape.
    """
    if text is None:
        return tape.first_us
    try:
        at_us = tape.first_us + scaled_us(text.removeprefix("+"), 6)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(f"start = {text!r}: give seconds (600) or a UTC time (2025-10-10T21:13:00)") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        at_us = round(moment.timestamp() * 1_000) * 1_000
    if not tape.first_us <= at_us <= tape.last_us:
        raise ConfigError(
            f"start = {text!r} is outside the tape ({utc_text(tape.first_us)} to {utc_text(tape.last_us)})"
        )
    return at_us


def utc_text(time_us: int) -> str:
    """Microseconds as text, whole seconds."""
    return datetime.fromtimestamp(time_us // _SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Playback:
    """A tape in today's time: ``begin`` on the tape is at most one second before ``start_us`` here.

    ``offset_us`` is a whole number of seconds: today's time of ``begin`` minus its time on the tape. At ``speed`` 1 it
    holds for all rows.
    """

    def __init__(
        self,
        tape: Tape,
        start_us: int,
        *,
        seed: int = 1,
        speed: float = 1.0,
        begin: str | None = None,
        loop: bool = False,
        noise_bps: float | None = None,
    ) -> None:
        self.tape = tape
        self.begin_us = parse_start(begin, tape)
        self.offset_us = (start_us - self.begin_us) // _SECOND_US * _SECOND_US
        self.speed = Fraction(str(speed))
        self._seed = seed
        self._loop = loop
        self._noise_bps = noise_bps
        lasted_us = self.wall_us(tape.last_us) - self.wall_us(self.begin_us)
        self.period_us = (lasted_us // _SECOND_US + 2) * _SECOND_US
        self.end_us: int | None = None if loop else self.wall_us(tape.last_us)

    def wall_us(self, tape_us: int) -> int:
        """Today's time of an instant on the tape."""
        passed = (tape_us - self.begin_us) * self.speed.denominator // self.speed.numerator
        return self.begin_us + self.offset_us + passed

    def points(self, feed: str, oracle: str) -> Iterator[Point]:
        """What an oracle publishes of a feed, in the order of its becoming visible.

        Wires carry seconds: of several observations within one second of today's time the last is played (if it was
        seen within a second after the one before). What was observed before ``begin`` stands at the beginning, with
        its true age.
        """
        series = self.tape.series.get((feed, oracle))
        if series is None:
            return
        noise_ppb = noise_ppb_of(oracle, self._noise_bps)
        delay_us = (
            0 if self._noise_bps == 0 or series.spec.receive or series.spec.receive_lag else MANNERS[oracle].delay_us
        )
        random = Random(f"{self._seed}/{feed}/{oracle}")
        every_us = series.spec.republish_ms * 1_000
        for_us = self.wall_us(self.begin_us + series.spec.republish_for_s * _SECOND_US) - self.wall_us(self.begin_us)
        for point in _republished(self._last_of_second(series, delay_us), every_us, for_us):
            yield msgspec.structs.replace(point, mantissa=observed(point.mantissa, noise_ppb, random))

    def _rows(self, rows: list[Row]) -> Iterator[Point]:
        cycle_us = 0
        while True:
            first = max(0, bisect_right(rows, self.begin_us, key=lambda row: row[0]) - 1)
            for index in range(first, len(rows)):
                seen_us, time_us, mantissa, conf = rows[index]
                emit_us = self.wall_us(max(seen_us, self.begin_us)) + cycle_us
                yield Point(mantissa, conf, self.wall_us(time_us) + cycle_us, emit_us)
            if not self._loop:
                return
            cycle_us += self.period_us

    def _last_of_second(self, series: Series, delay_us: int) -> Iterator[Point]:
        held: Point | None = None
        for point in self._rows(series.rows):
            if held is not None and (
                held.publish_us // _SECOND_US != point.publish_us // _SECOND_US
                or point.emit_us + delay_us - held.emit_us > _SECOND_US
            ):
                yield held
            held = msgspec.structs.replace(point, emit_us=point.emit_us + delay_us) if delay_us else point
        if held is not None:
            yield held


def _republished(points: Iterator[Point], every_us: int, for_us: int) -> Iterator[Point]:
    """Points, each told again by its oracle's heartbeat (0: it has none) until the next, for so long at most.

    A value that is older than a heartbeat when it becomes visible has been told again meanwhile.
    """
    if not every_us:
        yield from points
        return
    held = next(points, None)
    while held is not None:
        following = next(points, None)
        passed_us = min(held.emit_us - held.publish_us, for_us) // every_us * every_us
        publish_us, emit_us = held.publish_us + passed_us, held.emit_us
        if not _precedes(publish_us, emit_us, following):
            yield held
        while _precedes(publish_us, emit_us, following) and publish_us <= held.publish_us + for_us:
            yield Point(held.mantissa, held.conf, publish_us, emit_us)
            publish_us, emit_us = publish_us + every_us, emit_us + every_us
        held = following


def _precedes(publish_us: int, emit_us: int, following: Point | None) -> bool:
    """Whether a value can be told before the next one without taking its place."""
    if following is None:
        return True
    return publish_us // _SECOND_US < following.publish_us // _SECOND_US and emit_us <= following.emit_us
