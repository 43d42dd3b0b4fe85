"""Pictures over time as SVG of our own, beside :mod:`oracle_hub.cli.plots`: lines, a band of states, marks."""

from collections.abc import Callable, Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 1_000, 420
LEFT, RIGHT, TOP, BOTTOM = 90, 20, 50, 70


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One series."""

    name: str
    color: str
    points: Sequence[tuple[float, float | None]]
    """(x, y); None interrupts it."""
    step: bool = False
    """Values stay until the next one."""


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of x in one colour, below the lines."""

    begin: float
    end: float
    color: str
    name: str


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """An instant, above the lines."""

    x: float
    color: str
    name: str


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """What is on one picture."""

    title: str
    x_name: str
    y_name: str
    lines: Sequence[Line]
    bands: Sequence[Band] = ()
    marks: Sequence[Mark] = ()


def lines_svg(plot: Plot) -> str:
    """The picture as text; names of bands and marks show when pointed at."""
    xs = [x for line in plot.lines for x, _ in line.points] or [0.0]
    ys = [y for line in plot.lines for _, y in line.points if y is not None] or [0.0]
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1e-9)
    margin = (max(ys) - min(ys)) * 0.05 or abs(max(ys)) * 0.001 or 1.0
    low_y, high_y = min(ys) - margin, max(ys) + margin

    def at_x(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - low_x) / (high_x - low_x)

    def at_y(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high_y - y) / (high_y - low_y)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 20, plot.title, size=15),
    ]
    for step in range(5):
        y = low_y + (high_y - low_y) * step / 4
        x = low_x + (high_x - low_x) * step / 4
        parts.append(
            f'<path d="M{LEFT} {at_y(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            + _text(LEFT - 6, at_y(y) + 4, f"{y:.6g}", anchor="end")
            + _text(at_x(x), HEIGHT - BOTTOM + 34, f"{x:.6g}", anchor="middle")
        )
    parts.append(_text(LEFT, HEIGHT - 12, f"{plot.x_name}; {plot.y_name}"))
    parts += [_band(band, at_x(band.begin), at_x(band.end)) for band in plot.bands]
    for mark in plot.marks:
        parts.append(
            f'<path d="M{at_x(mark.x):.1f} {TOP - 4}l-4 -8h8z" fill="{mark.color}">'
            f"<title>{escape(mark.name)}</title></path>"
        )
    for number, line in enumerate(plot.lines):
        parts.append(f'<path d="{_path(line, at_x, at_y)}" fill="none" stroke="{line.color}" stroke-width="1.5"/>')
        parts.append(_text(WIDTH - RIGHT - 110 * (len(plot.lines) - number - 1), 20, line.name, line.color, "end"))
    return "\n".join([*parts, "</svg>\n"])


def _band(band: Band, begin: float, end: float) -> str:
    return (
        f'<rect x="{begin:.1f}" y="{HEIGHT - BOTTOM + 4}" width="{max(0.5, end - begin):.1f}" height="12" '
        f'fill="{band.color}"><title>{escape(band.name)}</title></rect>'
    )


def _path(line: Line, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> str:
    path, drawing = [], False
    for x, y in line.points:
        if y is None:
            if drawing and line.step:
                path.append(f"H{at_x(x):.1f}")
            drawing = False
            continue
        if not drawing:
            path.append(f"M{at_x(x):.1f} {at_y(y):.1f}")
        elif line.step:
            path.append(f"H{at_x(x):.1f}V{at_y(y):.1f}")
        else:
            path.append(f"L{at_x(x):.1f} {at_y(y):.1f}")
        drawing = True
    return "".join(path)


def _text(x: float, y: float, text: str, color: str = "#333", anchor: str = "start", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{color}" font-size="{size}">{escape(text)}</text>'
