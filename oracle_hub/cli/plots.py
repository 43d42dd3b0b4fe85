"""Plots that commands write: SVG of our own, alone or within a page of HTML. No library, no script, no network.

The pictures are rows of bars under named columns, which is all that a comparison of settings needs, and they stay text:
they can be searched, compared by a test, and opened by any browser (``docs/adr/0042-plots.md``).
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec

from oracle_hub.errors import ConfigError

ROW_HEIGHT = 20
LABEL_WIDTH = 380
PANEL_WIDTH = 190
GAP = 24
HEAD_HEIGHT = 64
FOOT_HEIGHT = 34
COLOURS = {"live": "#2a9d6f", "degraded": "#e0a526", "fallback": "#c9701f", "none": "#c2394a", "plain": "#4a6fa5"}
"""Told apart in grey as well; the key below the rows names them."""


class Bar(msgspec.Struct, frozen=True):
    """One value of one row: parts side by side, and what is written behind them."""

    parts: tuple[tuple[str, float], ...]
    """Colour (a key of :data:`COLOURS`) and length in the panel's unit."""
    text: str


class Panel(msgspec.Struct, frozen=True):
    """One column of bars."""

    title: str
    bars: tuple[Bar, ...]
    """One for each row."""


def bars_svg(title: str, subtitle: str, rows: Sequence[str], panels: Sequence[Panel], key: Sequence[str] = ()) -> str:
    """Rows of bars. Each panel is scaled to its own longest bar; ``key`` names colours to be explained.

    Raises:
        ValueError: a panel has another number of bars than there are rows.
    """
    width = LABEL_WIDTH + len(panels) * (PANEL_WIDTH + GAP) + GAP
    height = HEAD_HEIGHT + len(rows) * ROW_HEIGHT + FOOT_HEIGHT
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{GAP}" y="22" font-size="15" font-weight="600">{escape(title)}</text>',
        f'<text x="{GAP}" y="40" fill="#555">{escape(subtitle)}</text>',
    ]
    for number, label in enumerate(rows):
        y = HEAD_HEIGHT + number * ROW_HEIGHT
        if number % 2 == 0:
            out.append(f'<rect x="0" y="{y}" width="{width}" height="{ROW_HEIGHT}" fill="#f4f5f7"/>')
        out.append(f'<text x="{GAP}" y="{y + 14}">{escape(label)}</text>')
    for number, panel in enumerate(panels):
        if len(panel.bars) != len(rows):
            raise ValueError(f"panel {panel.title}: {len(panel.bars)} bars for {len(rows)} rows")
        out.extend(_panel(panel, LABEL_WIDTH + number * (PANEL_WIDTH + GAP)))
    x = GAP
    for name in key:
        y = HEAD_HEIGHT + len(rows) * ROW_HEIGHT + 12
        out.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[name]}"/>')
        out.append(f'<text x="{x + 17}" y="{y + 10}">{escape(name)}</text>')
        x += 40 + 7 * len(name)
    return "\n".join((*out, "</svg>", ""))


def _panel(panel: Panel, left: int) -> list[str]:
    longest = max((sum(length for _, length in bar.parts) for bar in panel.bars), default=0.0) or 1.0
    room = PANEL_WIDTH - 70
    out = [f'<text x="{left}" y="{HEAD_HEIGHT - 8}" font-weight="600">{escape(panel.title)}</text>']
    for number, bar in enumerate(panel.bars):
        y, x = HEAD_HEIGHT + number * ROW_HEIGHT, float(left)
        for colour, length in bar.parts:
            wide = length / longest * room
            if wide > 0:
                fill = COLOURS[colour]
                out.append(f'<rect x="{x:.1f}" y="{y + 4}" width="{max(wide, 0.5):.1f}" height="12" fill="{fill}"/>')
            x += wide
        out.append(f'<text x="{x + 4:.1f}" y="{y + 14}" fill="#333">{escape(bar.text)}</text>')
    return out


def check_plot_path(path: Path) -> None:
    """Refuse a name that is no kind of plot, before the work is done.

    Raises:
        ConfigError: neither ``.svg`` nor ``.html``.
    """
    if path.suffix.lower() not in (".svg", ".html"):
        raise ConfigError(f"--plot {path}: plots are written as .svg or .html; a browser makes a PNG of either")


def write_plot(path: Path, svg: str, title: str) -> None:
    """Write a picture, by the name's ending alone or as a page.

    Raises:
        ConfigError: another ending, or it can't be written there.
    """
    check_plot_path(path)
    text = svg
    if path.suffix.lower() == ".html":
        head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        text = f"{head}<body>\n{svg}</body>\n</html>\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--plot {path}: cannot be written ({error.strerror})") from None
