"""``/marks`` and ``/timescale_marks`` of UDF: where a feed changed its state. Pure.

A charting library draws a mark only at the time of a bar, and at most ten on one. So the changes within a bucket are
one mark for each state, on the bucket's bar; a change in a bucket that has no bar stands on the last bar before it.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from oracle_hub.charts.bars import Mark
from oracle_hub.charts.resolutions import SECOND_US, Resolution

COLORS = {"live": "#2e9e5b", "degraded": "#d9960a", "none": "#d33b3b"}
_LABELS = {"live": "L", "degraded": "D", "none": "N"}
_GRAVITY = ("live", "degraded", "none")
_FONT_COLOR = "#ffffff"
_MIN_SIZE = 14
MAX_LINES = 8
"""Changes that one mark tells one by one; beyond it, how many more there were."""


Groups = dict[int, list[Mark]]


def by_bar(changes: Iterable[Mark], resolution: Resolution, bar_at: Callable[[int], int | None]) -> Groups:
    """Changes by the start of the bar that they stand on, both ascending.

    ``bar_at`` gives the start of the last bar that starts at or before the start of a bucket, None if there is none:
    then there is nothing that a mark could stand on, and the change is left out.
    """
    starts: dict[int, int | None] = {}
    groups: Groups = {}
    for change in changes:
        bucket_us = resolution.start_us(change.at_us)
        if bucket_us not in starts:
            starts[bucket_us] = bar_at(bucket_us)
        start_us = starts[bucket_us]
        if start_us is not None:
            groups.setdefault(start_us, []).append(change)
    return groups


def marks(groups: Groups) -> dict[str, object]:
    """On each bar one mark for every state that was entered: columns, as UDF has them."""
    rows = [
        (start_us, state, [change for change in group if change.state == state])
        for start_us, group in groups.items()
        for state in _GRAVITY
    ]
    rows = [row for row in rows if row[2]]
    return {
        "id": [f"{start_us // SECOND_US}-{state}" for start_us, state, _ in rows],
        "time": [start_us // SECOND_US for start_us, _, _ in rows],
        "color": [COLORS[state] for _, state, _ in rows],
        "text": ["\n".join(_lines(found)) for _, _, found in rows],
        "label": [_LABELS[state] for _, state, _ in rows],
        "labelFontColor": [_FONT_COLOR for _ in rows],
        "minSize": [_MIN_SIZE for _ in rows],
    }


def timescale_marks(groups: Groups) -> list[dict[str, object]]:
    """Under each bar in which the feed went degraded or lost its price: one mark, in the colour of the worse."""
    found: list[dict[str, object]] = []
    for start_us, group in groups.items():
        worst = max((change.state for change in group), key=_GRAVITY.index)
        if worst != "live":
            found.append(
                {
                    "id": f"{start_us // SECOND_US}-{worst}",
                    "time": start_us // SECOND_US,
                    "color": COLORS[worst],
                    "label": _LABELS[worst],
                    "tooltip": _lines(group),
                }
            )
    return found


def _lines(changes: list[Mark]) -> list[str]:
    lines = [_line(change) for change in changes[:MAX_LINES]]
    more = len(changes) - len(lines)
    return [*lines, f"and {more} more"] if more else lines


def _line(change: Mark) -> str:
    """As in ``12:00:04.250 UTC degraded: R2, chainlink (diverged)``."""
    moment = datetime.fromtimestamp(change.at_us // SECOND_US, UTC)
    clock = f"{moment:%H:%M:%S}.{change.at_us % SECOND_US // 1000:03d} UTC"
    if change.source is None:
        return f"{clock} {change.state}: {change.reason}"
    return f"{clock} {change.state}: {change.rule}, {change.source} ({change.reason})"
