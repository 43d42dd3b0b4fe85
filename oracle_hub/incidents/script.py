"""What an incident is, as data: who published what and when, what was true, and which of that is history. Pure.

A script is TOML. Every number in it is labelled: ``published`` (with the index of the source that published it) or
``constructed`` (ours, to connect the published ones). :func:`parse` refuses a script that leaves a label out, that
names no source for a published number, or that claims that a role *was* one of today's oracles: series are **role
played by** somebody.
"""

import re
import tomllib
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

import msgspec

from oracle_hub.errors import IncidentError

Role = Literal["primary", "verifier_1", "verifier_2"]
ROLES: tuple[Role, ...] = ("primary", "verifier_1", "verifier_2")
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Label = Literal["published", "constructed"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Point(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value at one instant."""

    at_s: Seconds
    price: str
    """Decimal text."""
    conf: str | None = None
    """Half-width of the confidence interval from here on; None: the series' own ``conf_bps``."""
    label: Label
    source: int | None = None
    """Index into the script's ``sources``; needed where the label is ``published``."""


class Fault(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wrong with a series within its windows."""

    kind: Literal["silent", "carry", "scale", "floor", "cap", "zero", "delay", "ahead"]
    """``silent``: publishes nothing. ``carry``: repeats its last value under new times. ``scale``: value times
    ``factor``. ``floor``, ``cap``: a guard that clamps at ``value``. ``zero``: publishes what is no price. ``delay``:
    arrives ``by_s`` late. ``ahead``: stamped ``by_s`` ahead of its time."""
    windows: tuple[tuple[Seconds, Seconds], ...]
    """From and until, in seconds; the end is outside."""
    factor: str = "1"
    value: str = "0"
    by_s: Seconds = 0
    label: Label
    source: int | None = None


class Tape(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Recorded rows that a series takes its points from (:mod:`oracle_hub.incidents.tapes`). Never shipped."""

    file: str
    stamp_ms: str
    """Column of the observation's own time, unix ms."""
    price: str
    """Column of the price."""
    rows: bool
    """One update for each observation, at its own time. Else each value is told at the series' cadence."""


class Series(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one role publishes for one feed, as one way brings it."""

    role: Role
    played_by: str
    """Begins with "role played by"."""
    way: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]{0,20}$")] = ""
    """A further way by which the role's source is read; empty for the first one. At the same
    cadence its values are those of the first, where nothing else is said."""
    proves: bool = False
    """Signatures are checked on this way. Of a source that has another way, only what is proved is taken then."""
    points: tuple[Point, ...] = ()
    """Values of its own. Empty: it follows the truth."""
    shape: Literal["step", "linear"] = "linear"
    """Between points: stays, or moves evenly."""
    cadence_ms: Annotated[int, msgspec.Meta(ge=50, le=3_600_000)] = 500
    phase_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0
    lag_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 120
    """From its publish time until we have it."""
    offset_bps: Annotated[int, msgspec.Meta(ge=-9_999, le=10_000)] = 0
    """Constant distance from its values: another venue."""
    wobble_bps: Annotated[int, msgspec.Meta(ge=0, le=100)] = 1
    """Constructed noise, at most so far: no two observations of a live market are the same."""
    conf_bps: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    faults: tuple[Fault, ...] = ()
    tape: Tape | None = None
    only_points: bool = False
    """Publishes at its points and at no other time, whatever the cadence."""


class Feed(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feed: what was true, and what the three roles said."""

    truth: tuple[Point, ...]
    truth_shape: Literal["step", "linear"] = "linear"
    truth_of: Role | None = None
    """For tapes: whose rows count as the truth."""
    peg: str | None = None
    """Where it is a stable asset, its peg."""
    series: tuple[Series, ...]


class Restart(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hub itself is killed, and starts again."""

    at_s: Seconds
    down_s: Seconds
    label: Label = "constructed"


class Sees(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What should be seen, by policy, in words."""

    strict: str
    quorum: str


class Script(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole incident."""

    id: Annotated[str, msgspec.Meta(pattern="^[a-z0-9-]{3,40}$")]
    kind: Literal["incident", "drill", "tape"] = "incident"
    """A tape takes its numbers from recorded rows that are not shipped. A drill is constructed from end to end: a case
    of the rule that no known incident shows alone."""
    title: str
    date: Annotated[str, msgspec.Meta(pattern=r"^20\d\d-\d\d-\d\d$")]
    start: datetime
    """The first second of the script, with a zone."""
    asset: str
    what: str
    """What happened, as published."""
    constructed: str
    """What the script adds, and how time is compressed."""
    teaches: str
    sources: tuple[str, ...]
    duration_s: Seconds
    calm_after_s: Seconds
    """From here on everything is well again, or as it stays: what fires must be over by the end, but for what is
    named in ``stays``."""
    stays: tuple[str, ...] = ()
    """Kinds of alert that are rightly open at the end."""
    sees: Sees
    restarts: tuple[Restart, ...] = ()
    feeds: dict[str, Feed]

    @property
    def start_us(self) -> int:
        """Unix time of the first second."""
        return round(self.start.timestamp()) * 1_000_000


def decimal(text: str) -> Decimal:
    """Decimal text as a number. Raises ValueError for anything else."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no decimal number") from None
    if not value.is_finite():
        raise ValueError(f"{text!r} is no finite number")
    return value


def parse(text: str, *, origin: str) -> Script:
    """Read and check a script.

    Raises:
        IncidentError: one line that names the file, the place and what is wrong.
    """
    try:
        script = msgspec.convert(tomllib.loads(text.removeprefix("\ufeff")), Script)  # as editors of Windows write it
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise IncidentError(f"{origin}: {error}") from None
    try:
        _check(script)
    except ValueError as error:
        raise IncidentError(f"{origin}: {error}") from None
    return script


_CLAIM = re.compile(r"\b(edge|doves)\b[^.]*\bpublished\b", re.IGNORECASE)


def _check(script: Script) -> None:
    if script.kind == "incident" and not script.sources:
        raise ValueError("sources: none given; an incident names who published it")
    if any(not source.startswith(("https://", "http://")) for source in script.sources):
        raise ValueError("sources: each is a URL")
    if script.start.tzinfo is None or script.start.date().isoformat() != script.date:
        raise ValueError("start: has a zone, and the script's date")
    if not script.calm_after_s < script.duration_s:
        raise ValueError("calm_after_s: must lie before duration_s")
    if not script.feeds:
        raise ValueError("feeds: none given")
    for name, feed in script.feeds.items():
        _check_points(script, f"feeds.{name}.truth", feed.truth)
        if not feed.truth:
            raise ValueError(f"feeds.{name}.truth: no points")
        if sorted(one.role for one in feed.series if not one.way) != sorted(ROLES):
            raise ValueError(f"feeds.{name}.series: one for each of {', '.join(ROLES)}, beside further ways")
        if len({(one.role, one.way) for one in feed.series}) != len(feed.series):
            raise ValueError(f"feeds.{name}.series: a way is there twice")
        for one in feed.series:
            _check_series(script, f"feeds.{name}.{one.role}{f'.{one.way}' if one.way else ''}", one)
    labels = [point.label for feed in script.feeds.values() for point in _points(feed)]
    if script.kind == "drill" and "published" in labels:
        raise ValueError("a drill has no published numbers")
    if script.kind == "incident" and "published" not in labels:
        raise ValueError("not one number is labelled published: that would be a drill")


def _points(feed: Feed) -> list[Point | Fault]:
    parts: list[Point | Fault] = list(feed.truth)
    for one in feed.series:
        parts += [*one.points, *one.faults]
    return parts


def _check_series(script: Script, where: str, one: Series) -> None:
    if not one.played_by.startswith("role played by "):
        raise ValueError(f'{where}.played_by: begins with "role played by"')
    if _CLAIM.search(one.played_by):
        raise ValueError(f"{where}.played_by: says that Edge or Doves published this; they only lend their role")
    _check_points(script, f"{where}.points", one.points)
    for index, fault in enumerate(one.faults):
        _check_label(script, f"{where}.faults[{index}]", fault)
        decimal(fault.factor), decimal(fault.value)
        if not fault.windows or any(begin >= end for begin, end in fault.windows):
            raise ValueError(f"{where}.faults[{index}].windows: pairs of from and until")


def _check_points(script: Script, where: str, points: tuple[Point, ...]) -> None:
    for index, point in enumerate(points):
        _check_label(script, f"{where}[{index}]", point)
        if decimal(point.price) < 0 or (point.conf is not None and decimal(point.conf) < 0):
            raise ValueError(f"{where}[{index}]: negative")
        if index and point.at_s <= points[index - 1].at_s:
            raise ValueError(f"{where}[{index}].at_s: not after the one before")
    if points and points[0].at_s != 0:
        raise ValueError(f"{where}[0].at_s: the first point is at 0")


def _check_label(script: Script, where: str, part: Point | Fault) -> None:
    if part.label == "published" and (part.source is None or not 0 <= part.source < len(script.sources)):
        raise ValueError(f"{where}.source: which of the {len(script.sources)} sources published this?")
    if part.label == "constructed" and part.source is not None:
        raise ValueError(f"{where}.source: what is constructed has none")
