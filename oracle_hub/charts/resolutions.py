"""The sixteen resolutions of bars, and where their buckets begin and end. All in UTC.

A bucket is ``[start, end)``. Up to a day it begins at a multiple of its length since 1970-01-01; weeks begin on Monday,
months on the 1st. Every bucket is a whole number of buckets of its parent, from whose final bars its bar is derived.
"""

from datetime import UTC, datetime
from enum import StrEnum

from oracle_hub.errors import ChartsError

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
_MONDAY_US = 4 * DAY_US  # 1970-01-01 was a Thursday


class Resolution(StrEnum):
    """A resolution. Its value is its code in UDF and everywhere else: minutes, or a number with S, D, W or M."""

    S1 = "1S"
    S5 = "5S"
    S15 = "15S"
    M1 = "1"
    M3 = "3"
    M5 = "5"
    M15 = "15"
    M30 = "30"
    H1 = "60"
    H2 = "120"
    H4 = "240"
    H6 = "360"
    H12 = "720"
    D1 = "1D"
    W1 = "1W"
    MO1 = "1M"

    @property
    def length_us(self) -> int | None:
        """Length of every bucket; None for months, which differ."""
        return _LENGTH_US[self]

    @property
    def parent(self) -> "Resolution | None":
        """The resolution whose final bars make up this one's; None for one second, which is made of points."""
        return _PARENT[self]

    @property
    def label(self) -> str:
        """For people: ``5 s``, ``15 min``, ``4 h``, ``1 month``."""
        return _LABEL[self]

    def start_us(self, at_us: int) -> int:
        """Start of the bucket that holds this instant."""
        length = _LENGTH_US[self]
        if length is None:
            return _month_start_us(at_us, 0)
        if length == WEEK_US:
            return at_us - (at_us - _MONDAY_US) % WEEK_US
        return at_us - at_us % length

    def end_us(self, start_us: int) -> int:
        """End (exclusive) of the bucket that starts, or that holds, this instant."""
        length = _LENGTH_US[self]
        if length is None:
            return _month_start_us(start_us, 1)
        return self.start_us(start_us) + length

    def is_start(self, at_us: int) -> bool:
        """Whether a bucket starts at this instant."""
        return self.start_us(at_us) == at_us


def _month_start_us(at_us: int, months_later: int) -> int:
    moment = datetime.fromtimestamp(at_us // SECOND_US, UTC)
    month = moment.year * 12 + moment.month - 1 + months_later
    return int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()) * SECOND_US


RESOLUTIONS: tuple[Resolution, ...] = tuple(Resolution)
"""All, finest first."""

_LENGTH_US: dict[Resolution, int | None] = {
    Resolution.S1: SECOND_US,
    Resolution.S5: 5 * SECOND_US,
    Resolution.S15: 15 * SECOND_US,
    Resolution.M1: MINUTE_US,
    Resolution.M3: 3 * MINUTE_US,
    Resolution.M5: 5 * MINUTE_US,
    Resolution.M15: 15 * MINUTE_US,
    Resolution.M30: 30 * MINUTE_US,
    Resolution.H1: HOUR_US,
    Resolution.H2: 2 * HOUR_US,
    Resolution.H4: 4 * HOUR_US,
    Resolution.H6: 6 * HOUR_US,
    Resolution.H12: 12 * HOUR_US,
    Resolution.D1: DAY_US,
    Resolution.W1: WEEK_US,
    Resolution.MO1: None,
}

_PARENT: dict[Resolution, Resolution | None] = {
    Resolution.S1: None,
    Resolution.S5: Resolution.S1,
    Resolution.S15: Resolution.S5,
    Resolution.M1: Resolution.S15,
    Resolution.M3: Resolution.M1,
    Resolution.M5: Resolution.M1,
    Resolution.M15: Resolution.M5,
    Resolution.M30: Resolution.M15,
    Resolution.H1: Resolution.M30,
    Resolution.H2: Resolution.H1,
    Resolution.H4: Resolution.H2,
    Resolution.H6: Resolution.H2,
    Resolution.H12: Resolution.H6,
    Resolution.D1: Resolution.H12,
    Resolution.W1: Resolution.D1,
    Resolution.MO1: Resolution.D1,
}

_LABEL: dict[Resolution, str] = {
    Resolution.S1: "1 s",
    Resolution.S5: "5 s",
    Resolution.S15: "15 s",
    Resolution.M1: "1 min",
    Resolution.M3: "3 min",
    Resolution.M5: "5 min",
    Resolution.M15: "15 min",
    Resolution.M30: "30 min",
    Resolution.H1: "1 h",
    Resolution.H2: "2 h",
    Resolution.H4: "4 h",
    Resolution.H6: "6 h",
    Resolution.H12: "12 h",
    Resolution.D1: "1 day",
    Resolution.W1: "1 week",
    Resolution.MO1: "1 month",
}

_FORMS: dict[str, Resolution] = {resolution.value: resolution for resolution in RESOLUTIONS} | {
    "S": Resolution.S1,
    "D": Resolution.D1,
    "W": Resolution.W1,
    "M": Resolution.MO1,
    "1H": Resolution.H1,
    "H": Resolution.H1,
    "2H": Resolution.H2,
    "4H": Resolution.H4,
    "6H": Resolution.H6,
    "12H": Resolution.H12,
    "1440": Resolution.D1,
}


def parse_resolution(text: str) -> Resolution:
    """The resolution of a code as chart clients write it: ``1S``, ``5`` or ``5m``, ``60`` or ``1H``, ``D`` or ``1D``.

    Raises:
        ChartsError: unknown; the message lists what there is.
    """
    code = text.strip()
    if code.endswith("m"):  # minutes, where others write them out; months have a capital letter
        code = code[:-1]
    found = _FORMS.get(code.upper())
    if found is None:
        raise ChartsError(f"no resolution {text[:16]!r}: there are {', '.join(RESOLUTIONS)}")
    return found
