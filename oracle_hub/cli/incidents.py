"""``oracle-hub incidents``: oracle disasters of the past, played through the hub; also with one's own configuration."""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from oracle_hub.alerts.alert import Change, Severity
from oracle_hub.app.alert_settings import alert_settings
from oracle_hub.app.lineup import catalog_of
from oracle_hub.cli.console import console
from oracle_hub.cli.plots import COLOURS, check_plot_path, write_plot
from oracle_hub.cli.timeplots import Band, Line, Mark, Plot, lines_svg
from oracle_hub.config import Config, load_config
from oracle_hub.core.selector import Policy
from oracle_hub.core.stall import StallRule
from oracle_hub.errors import IncidentError
from oracle_hub.incidents.library import incident, library, tape_library
from oracle_hub.incidents.player import Conditions, Played, play
from oracle_hub.incidents.script import Fault, Feed, Point, Script
from oracle_hub.incidents.tapes import loaded
from oracle_hub.incidents.verdict import alert_counts, alert_lines, decision_lines, figures


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="which there are", allow_abbrev=False)
    show = actions.add_parser("show", help="what one is: history and construction", allow_abbrev=False)
    show.add_argument("name", metavar="NAME")
    runner = actions.add_parser("run", help="play one, or all", allow_abbrev=False)
    runner.add_argument("name", metavar="NAME", help="one of the list, or all")
    runner.add_argument("--policy", choices=[policy.value for policy in Policy], help="default: both, or the config's")
    runner.add_argument("--config", metavar="FILE", type=Path, help="thresholds, ages, roles and alerts of your own")
    runner.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw prices, truth, states and alerts (.svg or .html)"
    )
    runner.add_argument(
        "--tape-dir", metavar="DIR", type=Path, help="folder of recorded rows, for what is played from them"
    )
    for each in (listing, show, runner):
        each.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    if options.action == "list":
        _list({**library(), **tape_library()}, options.json)
        return 0
    if options.action == "show":
        _show(tape_library().get(options.name) or incident(options.name), options.json)
        return 0
    if options.plot is not None:
        check_plot_path(options.plot)
    scripts = _scripts(options)
    results = [play(script, conditions) for script in scripts for conditions in _conditions(options)]
    if options.plot is not None:
        _plot(results, options.plot)
    if options.json:
        _print_json([as_json(one) for one in results])
    else:
        _show_results(results, console(), whole=options.name != "all")
    return 0


def _scripts(options: argparse.Namespace) -> list[Script]:
    """What is to be played. Tapes come along where their folder is named."""
    tapes = tape_library()
    if options.name in tapes:
        if options.tape_dir is None:
            raise IncidentError(f"{options.name} is played from recorded rows; name their folder by --tape-dir")
        return [loaded(tapes[options.name], options.tape_dir)]
    if options.name != "all":
        return [incident(options.name)]
    extra = [] if options.tape_dir is None else [loaded(script, options.tape_dir) for script in tapes.values()]
    return [*library().values(), *extra]


def _conditions(options: argparse.Namespace) -> list[Conditions]:
    policy = None if options.policy is None else Policy(options.policy)
    if options.config is None:
        return [Conditions(policy=one) for one in ((policy,) if policy is not None else Policy)]
    return [msgspec.structs.replace(conditions_of(load_config(options.config)), policy=policy)]


def conditions_of(config: Config) -> Conditions:
    """What an incident meets under a configuration: a feed that it names has its limits; others those of the first.

    Raises:
        ConfigError: the configuration has no catalog.
    """
    catalog = catalog_of(config)
    first, hub = catalog.feeds[0], config.hub
    ages = [first.max_age_us[source] for source in first.roles]
    return Conditions(
        policy=None,
        default_policy=hub.policy,
        roles=first.roles,
        max_age_us=(ages[0], ages[1], ages[2]),
        max_divergence_bps=hub.max_divergence_bps,
        max_conf_bps=hub.max_conf_bps,
        max_future_us=catalog.max_future_us,
        stall=StallRule(catalog.stall.after_us, catalog.stall.bps),
        warmup_us=hub.warmup_ms * 1_000,
        alerts=alert_settings(config),
        feeds={spec.feed: spec for spec in catalog.feeds},
    )


def _list(scripts: dict[str, Script], as_lines: bool) -> None:
    if as_lines:
        shown = ("id", "kind", "date", "asset", "title", "teaches")
        _print_json([{name: getattr(script, name) for name in shown} for script in scripts.values()])
        return
    table = Table()
    for column in ("name", "date", "asset", "what"):
        table.add_column(column)
    for script in scripts.values():
        when = "a drill" if script.kind == "drill" else script.date
        table.add_row(script.id, when, script.asset, script.title)
    console().print(table)


def labels(feed: Feed) -> list[tuple[str, str, str]]:
    """Every labelled number of a feed: where it stands, what it is, and its label with its source."""
    found = [("truth", _point(point), _label(point)) for point in feed.truth]
    for one in feed.series:
        found += [(one.role, _point(point), _label(point)) for point in one.points]
        found += [(one.role, _fault(fault), _label(fault)) for fault in one.faults]
    return found


def _label(part: Point | Fault) -> str:
    return part.label if part.source is None else f"{part.label} [{part.source}]"


def _point(point: Point) -> str:
    return f"{point.at_s:g} s: {point.price}" + ("" if point.conf is None else f" ± {point.conf}")


def _fault(fault: Fault) -> str:
    how = {"scale": f" by {fault.factor}", "floor": f" at {fault.value}", "cap": f" at {fault.value}"}
    by = how.get(fault.kind, f" by {fault.by_s:g} s" if fault.by_s else "")
    return f"{fault.kind}{by}, " + ", ".join(f"{begin:g} to {end:g} s" for begin, end in fault.windows)


def _show(script: Script, as_lines: bool) -> None:
    if as_lines:
        _print_json(script)
        return
    out = console()
    out.print(f"[bold]{escape(script.title)}[/]  ({script.id}, {script.date}, {script.asset})\n")
    for name, text in (
        ("What happened", script.what),
        ("Constructed", script.constructed),
        ("It teaches", script.teaches),
        ("Strict should give", script.sees.strict),
        ("Quorum should give", script.sees.quorum),
    ):
        out.print(f"[cyan]{name}:[/] {escape(text)}")
    for number, source in enumerate(script.sources):
        out.print(f"  \\[{number}] {escape(source)}")
    for name, feed in script.feeds.items():
        table = Table(title=name, title_justify="left")
        for column in ("series", "value", "label"):
            table.add_column(column)
        for one in feed.series:
            cadence = f"every {one.cadence_ms} ms, {one.lag_ms} ms to us, noise {one.wobble_bps} bps (constructed)"
            table.add_row(one.role, escape(one.played_by), cadence)
        for row in labels(feed):
            table.add_row(*(escape(cell) for cell in row))
        out.print(table)


def as_json(played: Played) -> dict[str, Any]:
    """What became of one incident, as JSON values."""
    return {
        "incident": played.script.id,
        "policy": {feed: spec.policy.value for feed, spec in played.specs.items()},
        "feeds": [{name: _plain(getattr(one, name)) for name in one.__struct_fields__} for one in figures(played)],
        "alerts": alert_counts(played),
        "decisions": decision_lines(played),
        "told": alert_lines(played),
    }


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str) else str(value)


def _show_results(results: list[Played], out: Console, *, whole: bool) -> None:
    table = Table()
    for column in ("incident", "feed", "policy", "priced %", "fallback %", "longest outage s", "worst bps", "alerts"):
        table.add_column(column, justify="left" if column in ("incident", "feed", "policy", "alerts") else "right")
    for played in results:
        counts = alert_counts(played)
        critical = counts.pop("critical")
        told = f"{sum(counts.values())}, {critical} critical"
        for one in figures(played):
            policy = played.specs[one.feed].policy.value
            worst = "—" if one.worst_bps is None else str(one.worst_bps)
            outage = str(one.longest_outage_s)
            cells = (str(one.available_percent), str(one.fallback_percent), outage, worst, told)
            table.add_row(played.script.id, one.feed, policy, *cells)
            told = ""
    out.print(table)
    if whole:
        for played in results:
            policy = next(iter(played.specs.values())).policy.value
            out.print(f"\n[bold]{policy}[/]: {escape(getattr(played.script.sees, policy))}")
            out.print("\n".join([*decision_lines(played), "", *alert_lines(played)]), markup=False)


def _plot(results: list[Played], path: Path) -> None:
    if len({played.script.id for played in results}) > 1:
        raise IncidentError("--plot: one incident at a time; name it")
    played = results[-1]
    feed, samples = next(iter(played.samples.items()))
    scale = 10.0 ** played.specs[feed].expo
    policy = played.specs[feed].policy.value
    told = [one for one in played.alerts if one.change is Change.FIRING]
    start_us = played.script.start_us
    drawn = Plot(
        title=f"{played.script.id}: {feed}, {policy}",
        x_name="seconds",
        y_name="below: live green, degraded amber, none red; above: alerts that begin",
        lines=[
            Line(name="true", color="#888", points=[(at / 1e6, truth * scale) for at, _, truth in samples]),
            Line(
                name="given",
                color="#1f5fd0",
                points=[(at / 1e6, None if price is None else price * scale) for at, price, _ in samples],
            ),
        ],
        bands=[
            Band(begin=one.from_us / 1e6, end=one.until_us / 1e6, color=COLOURS[one.state.value], name=one.reason.value)
            for one in played.stretches[feed]
        ],
        marks=[
            Mark(
                x=(one.at_us - start_us) / 1e6,
                color=COLOURS["none" if one.alert.severity is Severity.CRITICAL else "degraded"],
                name=one.alert.summary,
            )
            for one in told
        ],
    )
    write_plot(path, lines_svg(drawn), drawn.title)


def _print_json(value: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(msgspec.to_builtins(value), option=orjson.OPT_INDENT_2) + b"\n")
