"""``oracle-hub whatif JOURNAL|TAPE --grid …``: how other limits would have fared on what really happened."""

import argparse
import sys
from pathlib import Path

import msgspec
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from oracle_hub.app.whatif import decoded_journal, decoded_tape, hold_times
from oracle_hub.cli.console import console
from oracle_hub.cli.moments import moment_text
from oracle_hub.cli.plots import Bar, Panel, bars_svg, check_plot_path, write_plot
from oracle_hub.cli.run import simulation_text
from oracle_hub.config import load_config, parse_config
from oracle_hub.errors import ConfigError
from oracle_hub.journal.decoded import Decoded
from oracle_hub.journal.grid import parse_grid
from oracle_hub.journal.segments import PLAIN_SUFFIX, SEALED_SUFFIX
from oracle_hub.journal.whatif import ALERTS, FeedFigures, WhatIf, what_if

ALL_FEEDS = "all feeds"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Decides a recorded history again under every combination of a grid of limits, and under the configuration as "
        "it was. The first call decodes the journal and keeps the columns beside it; later ones begin there."
    )
    parser.add_argument("path", metavar="JOURNAL|TAPE", type=Path, help="a journal's directory, one segment, or a CSV")
    parser.add_argument(
        "--grid",
        required=True,
        help="settings, as in 'max_divergence_bps=10,25,50 max_age_s=5,10 policy=strict,quorum'; also max_age_ms, "
        "max_conf_bps, max_age_s.SOURCE",
    )
    parser.add_argument("--feed", action="append", default=[], metavar="FEED", help="show this feed (may be repeated)")
    parser.add_argument("--by-feed", action="store_true", help="show every feed by itself, too")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the decoded columns there, not beside the file")
    parser.add_argument("--config", type=Path, metavar="FILE", help="of a tape: roles and limits (default: simulation)")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="of a tape: which column plays which oracle")
    parser.add_argument("--lenient", action="store_true", help="of a journal: go on after damage")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture (.svg or .html)")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(options: argparse.Namespace) -> int:
    settings = parse_grid(options.grid)
    if options.plot is not None:
        check_plot_path(options.plot)
    quiet = Console(stderr=True, quiet=not sys.stderr.isatty())
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[at]}"), TimeElapsedColumn())
    with Progress(*columns, console=quiet, transient=True) as bar:
        decoded = _decoded(options, bar)
        unknown = [feed for feed in options.feed if feed not in decoded.feeds]
        if unknown:
            raise ConfigError(f"--feed {unknown[0]}: not in it; there are {', '.join(decoded.feeds)}")
        deciding = bar.add_task(f"deciding {len(settings) + 1} settings", total=decoded.rows, at="")
        result = what_if(decoded, settings, hold_times(), lambda rows: bar.advance(deciding, rows))
    if options.plot is not None:
        title = f"What if: {options.path.name}"
        write_plot(options.plot, plot(title, result), title)
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(as_json(decoded, result, options.feed)) + b"\n")
    else:
        _print(decoded, result, options)
    return 0


def _decoded(options: argparse.Namespace, bar: Progress) -> Decoded:
    path: Path = options.path
    if not path.exists():
        raise ConfigError(f"{path}: no such file or directory")
    decoding = bar.add_task("decoding", total=None, at="")

    def progress(now_us: int) -> None:
        bar.update(decoding, at=moment_text(now_us) if now_us else "")

    if path.is_dir() or path.name.endswith((PLAIN_SUFFIX, SEALED_SUFFIX)):
        decoded = decoded_journal(path, options.cache, strict=not options.lenient, progress=progress)
    else:
        given = options.config
        config = parse_config(simulation_text(), origin="simulation") if given is None else load_config(given)
        decoded = decoded_tape(path, config, options.cache, manifest=options.manifest, progress=progress)
    bar.remove_task(decoding)
    return decoded


def summed(figures: list[FeedFigures]) -> FeedFigures:
    """All feeds as one: times and counts added, the longest and the worst of them."""
    total = FeedFigures(feed=ALL_FEEDS, alerts={kind: sum(one.alerts[kind] for one in figures) for kind in ALERTS})
    for one in figures:
        for name in ("live_us", "degraded_us", "none_us", "fallback_us", "outages", "transitions", "differs_us"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        total.longest_outage_us = max(total.longest_outage_us, one.longest_outage_us)
        total.worst_accepted_centibps = max(total.worst_accepted_centibps, one.worst_accepted_centibps)
    return total


def as_json(decoded: Decoded, result: WhatIf, feeds: list[str]) -> dict[str, object]:
    """Everything that was found; times in microseconds, shares between 0 and 1."""
    return {
        "frames": decoded.index.frames,
        "steps": decoded.index.steps,
        "rows": decoded.rows,
        "cells": result.cells,
        "gaps": decoded.index.gaps,
        "mismatches": decoded.index.mismatches,
        "feed_time_us": result.total_us,
        "settings": [
            {
                "label": one.setting.label,
                "setting": msgspec.to_builtins(one.setting) | {"source_age_us": dict(one.setting.source_age_us)},
                "all": _entry(summed(one.feeds)),
                "feeds": {figures.feed: _entry(figures) for figures in one.feeds if not feeds or figures.feed in feeds},
            }
            for one in result.settings
        ],
        "disagreement": [[_share(us, result.total_us) for us in row] for row in result.disagreement_us],
    }


def _entry(figures: FeedFigures) -> dict[str, object]:
    entry: dict[str, object] = msgspec.to_builtins(figures)
    del entry["feed"], entry["worst_accepted_centibps"]
    entry["availability"] = figures.availability
    entry["worst_accepted_bps"] = figures.worst_accepted_centibps / 100
    return entry


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _print(decoded: Decoded, result: WhatIf, options: argparse.Namespace) -> None:
    out = console()
    feeds = options.feed or (list(decoded.feeds) if options.by_feed else [])
    if not options.feed:
        out.print(_table(ALL_FEEDS, [(one.setting.label, summed(one.feeds)) for one in result.settings]))
    for feed in feeds:
        rows = [
            (one.setting.label, figures) for one in result.settings for figures in one.feeds if figures.feed == feed
        ]
        out.print(_table(feed, rows))
    out.print(
        f"{result.cells} cells from {decoded.index.frames} frames and {decoded.index.steps} steps, "
        f"{len(result.settings)} settings; {result.total_us / 3.6e9:.2f} hours of feeds"
    )
    if decoded.index.gaps:
        out.print(f"{decoded.index.gaps} gap(s): what follows one is not certain", style="yellow")
    if decoded.index.mismatches:
        out.print(
            f"{decoded.index.mismatches} published batches were not derived again: see oracle-hub replay", style="red"
        )


def _table(title: str, rows: list[tuple[str, FeedFigures]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("setting")
    names = ("available", "live", "fallback", "none", "longest outage", "worst accepted", "alerts", "differs")
    for name in names:
        table.add_column(name, justify="right")
    for label, one in rows:
        alerts = " + ".join(str(one.alerts[kind]) for kind in ALERTS)
        table.add_row(
            label,
            _percent(one.live_us + one.degraded_us, one.total_us),
            _percent(one.live_us, one.total_us),
            _percent(one.fallback_us, one.total_us),
            _percent(one.none_us, one.total_us),
            f"{one.longest_outage_us / 1e6:.1f} s",
            f"{one.worst_accepted_centibps / 100:.2f} bps",
            alerts,
            _percent(one.differs_us, one.total_us),
        )
    table.caption = f"alerts: {' + '.join(ALERTS)}; differs: time in which state or price is another than as configured"
    table.caption_justify = "left"
    return table


def _percent(part: int, whole: int) -> str:
    return f"{100 * _share(part, whole):.3f} %"


def plot(title: str, result: WhatIf) -> str:
    """The comparison as a picture."""
    rows = [summed(one.feeds) for one in result.settings]
    states = Panel("state, share of time", tuple(_states(one) for one in rows))
    outage = _plain("longest outage", [(one.longest_outage_us / 1e6, " s") for one in rows])
    worst = _plain("worst accepted", [(one.worst_accepted_centibps / 100, " bps") for one in rows])
    alerts = _plain("alerts", [(float(sum(one.alerts.values())), "") for one in rows])
    differs = _plain("differs", [(100 * _share(one.differs_us, one.total_us), " %") for one in rows])
    return bars_svg(
        title,
        f"{result.cells} cells, {result.total_us / 3.6e9:.2f} hours of feeds, all feeds together",
        [one.setting.label for one in result.settings],
        [states, outage, worst, alerts, differs],
        ("live", "degraded", "fallback", "none"),
    )


def _states(one: FeedFigures) -> Bar:
    parts = (
        ("live", _share(one.live_us, one.total_us)),
        ("degraded", _share(one.degraded_us - one.fallback_us, one.total_us)),
        ("fallback", _share(one.fallback_us, one.total_us)),
        ("none", _share(one.none_us, one.total_us)),
    )
    return Bar(parts, f"{100 * one.availability:.2f} %")


def _plain(title: str, values: list[tuple[float, str]]) -> Panel:
    return Panel(title, tuple(Bar((("plain", value),), f"{value:.4g}{unit}") for value, unit in values))
