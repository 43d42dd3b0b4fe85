"""``/history`` of UDF: which bars answer a request, and the answer as text. Pure but for the store that it reads.

Prices go into the JSON text digit by digit from their mantissas. A float never comes near them, so that what a reader
parses is the nearest that its own numbers can hold to the price that keepers got.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from oracle_hub.charts.bars import Bar
from oracle_hub.charts.resolutions import DAY_US, SECOND_US, Resolution, parse_resolution
from oracle_hub.charts.store_reads import Reads
from oracle_hub.core.price import decimal_text
from oracle_hub.errors import ChartsError

MAX_TIME_S = 100_000_000_000
"""Times beyond this (year 5138) are taken for milliseconds, and refused."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request for bars, times in µs."""

    resolution: Resolution
    from_us: int
    """Inclusive, the start of a bar."""
    to_us: int
    """Exclusive."""
    countback: int | None = None
    """Exactly this many bars before ``to_us``, whatever ``from_us`` says."""

    @property
    def most_bars(self) -> int:
        """No more bars than this can answer it. Months are taken for 28 days."""
        if self.countback is not None:
            return self.countback
        length_us = self.resolution.length_us or 28 * DAY_US
        return max(0, (self.to_us - self.from_us) // length_us + 1)


class Page(msgspec.Struct, frozen=True):
    """Bars that answer a request, ascending; where there are none, when the one before them starts."""

    bars: Sequence[Bar]
    next_us: int | None = None
    """Start of the last bar before the range that was asked for. None with no bars: nothing earlier exists."""


def asked(query: Mapping[str, str]) -> Asked:
    """Read ``resolution``, ``from``, ``to`` (seconds) and ``countback``. A countback of 0 counts as none.

    Raises:
        ChartsError: one is missing or can't be used; the message names it.
    """
    countback = integer(query, "countback", default=0) or None
    if countback is not None and countback < 0:
        raise ChartsError(f"countback: {countback} is below 0")
    to_us = seconds(query, "to") * SECOND_US
    from_us = to_us if countback is not None and "from" not in query else seconds(query, "from") * SECOND_US
    return Asked(resolution=resolution_of(query), from_us=from_us, to_us=to_us, countback=countback)


def resolution_of(query: Mapping[str, str]) -> Resolution:
    """The resolution of a request. Minutes are bare numbers and ``M`` is a month: a small ``m`` would be taken for one.

    Raises:
        ChartsError: missing or unknown; the message lists what there is.
    """
    text = query.get("resolution", "")
    if text.endswith("m"):
        raise ChartsError(f"resolution: {text[:16]!r} is no code: minutes are bare numbers, a month is 1M")
    return parse_resolution(text)


def seconds(query: Mapping[str, str], key: str) -> int:
    """A time in whole seconds since 1970. Libraries page back beyond it, so it may be negative.

    Raises:
        ChartsError: missing, not whole, or milliseconds.
    """
    value = integer(query, key)
    if abs(value) > MAX_TIME_S:
        raise ChartsError(f"{key}: {value} is not a time in seconds")
    return value


def integer(query: Mapping[str, str], key: str, *, default: int | None = None) -> int:
    """A whole number of a request.

    Raises:
        ChartsError: missing without a default, or not a whole number.
    """
    text = query.get(key, "")
    if not text and default is not None:
        return default
    try:
        return int(text[:32])
    except ValueError:
        raise ChartsError(f"{key}: a whole number is needed, not {text[:32]!r}") from None


def read_page(store: Reads, feed: str, wanted: Asked, now_us: int, max_bars: int) -> Page:
    """The bars that answer a request at ``now_us``. No bar that starts later than that is among them.

    Raises:
        ChartsError: there are more than ``max_bars``. They are never cut in silence.
    """
    to_us = min(wanted.to_us, now_us + 1)
    if wanted.countback is not None:
        if wanted.countback > max_bars:
            raise ChartsError(f"countback: {wanted.countback} is more than the {max_bars} bars of one answer")
        return Page(store.last_bars(feed, wanted.resolution, to_us, wanted.countback))
    bars: Sequence[Bar] = ()
    if wanted.from_us < to_us:
        bars = store.bars(feed, wanted.resolution, wanted.from_us, to_us, limit=max_bars + 1)
    if len(bars) > max_bars:
        raise ChartsError(f"from, to: the range has more than the {max_bars} bars of one answer; ask for less at once")
    if bars:
        return Page(bars)
    return Page((), store.previous_start_us(feed, wanted.resolution, min(wanted.from_us, to_us)))


def page_text(page: Page) -> str:
    """A page as UDF has it: columns, times in seconds, and no volume, which is 0 as the retired endpoint had it."""
    bars = page.bars
    if not bars:
        earlier = "" if page.next_us is None else f',"nextTime":{page.next_us // SECOND_US}'
        return f'{{"s":"no_data"{earlier}}}'
    expos = {bar.expo for bar in bars}
    text = number(expos.pop()) if len(expos) == 1 else None
    columns = (
        ("t", [str(bar.start_us // SECOND_US) for bar in bars]),
        ("o", [text(bar.open) if text else decimal_text(bar.open, bar.expo) for bar in bars]),
        ("h", [text(bar.high) if text else decimal_text(bar.high, bar.expo) for bar in bars]),
        ("l", [text(bar.low) if text else decimal_text(bar.low, bar.expo) for bar in bars]),
        ("c", [text(bar.close) if text else decimal_text(bar.close, bar.expo) for bar in bars]),
        ("v", ["0"] * len(bars)),
    )
    return '{"s":"ok",' + ",".join(f'"{name}":[{",".join(values)}]' for name, values in columns) + "}"


def number(expo: int) -> Callable[[int], str]:
    """Prints positive mantissas at one exponent as ``decimal_text`` does, for thousands of them at once."""
    if expo >= 0:
        return lambda mantissa: decimal_text(mantissa, expo)

    def exact(mantissa: int) -> str:
        digits = str(mantissa)
        if len(digits) + expo > 0:
            return f"{digits[:expo]}.{digits[expo:]}"
        return decimal_text(mantissa, expo)

    return exact
