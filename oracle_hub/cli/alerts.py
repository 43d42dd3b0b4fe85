"""``oracle-hub alerts open|history|test``: what is wrong now, what was, and whether those who must hear of it do."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
from rich.table import Table

from oracle_hub.alerts.notify.deliveries import Deliveries, TestResult
from oracle_hub.app.alert_channels import delivery_settings
from oracle_hub.app.alerting import entry_of
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.cli.console import console
from oracle_hub.cli.explain import fetch_json
from oracle_hub.clock import SystemClock
from oracle_hub.config import load_config
from oracle_hub.errors import ConfigError, JournalError
from oracle_hub.journal.reader import read_journal
from oracle_hub.state import instance_of
from oracle_hub.stream.messages import AlertChange


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=("open", "history", "test"),
        help="open: firing now; history: what began and ended; test: send a test by the channels of CONFIG",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, nargs="?", help="test: the configuration file")
    parser.add_argument("--channel", metavar="NAME", help="test: this channel only")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the hub is (default %(default)s)")
    parser.add_argument("--journal", metavar="DIR", type=Path, help="history: derive it from a journal, without a hub")
    parser.add_argument("--json", action="store_true", help="print JSON lines, one for each alert or change")


def run(options: argparse.Namespace) -> int:
    if options.what == "test":
        return _test(options)
    if options.config is not None or options.channel is not None:
        raise ConfigError("CONFIG and --channel go with alerts test")
    if options.what == "open":
        if options.journal is not None:
            raise JournalError("--journal goes with history; what is open now is the hub's to say")
        _show_open(fetch_json(options.url, "/v1/alerts")["open"], as_json=options.json)
    else:
        _show_history(_history(options), as_json=options.json)
    return 0


def _test(options: argparse.Namespace) -> int:
    if options.config is None:
        raise ConfigError("alerts test: name the configuration file: oracle-hub alerts test CONFIG")
    config = load_config(options.config)
    settings = delivery_settings(config)
    if not settings.channels:
        raise ConfigError(f"{options.config}: alerts: no channel to test; add [[alerts.webhook]] or another")
    state = Path(config.state.directory)
    results = asyncio.run(_send_tests(Deliveries(settings, state, instance_of(state), _Clock()), options.channel))
    if options.json:
        _print_lines([msgspec.to_builtins(result) for result in results])
    else:
        table = Table()
        for column in ("channel", "way", "result", "ms"):
            table.add_column(column)
        for result in results:
            shown = "[green]arrived[/]" if result.ok else f"[red]{result.error}[/]"
            table.add_row(result.channel, result.way, shown, f"{result.elapsed_ms:.0f}")
        console().print(table)
    return 0 if all(result.ok for result in results) else 1


async def _send_tests(deliveries: Deliveries, channel: str | None) -> list[TestResult]:
    try:
        return await deliveries.test(channel)
    finally:
        await deliveries.stop(0)


class _Clock(SystemClock):
    def now_us(self) -> int:
        return self.wall_us()


def _history(options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.journal is None:
        recent: list[dict[str, Any]] = fetch_json(options.url, "/v1/alerts")["recent"]
        return recent
    changes: list[dict[str, Any]] = []
    replayer = Replayer(
        lineup_from_text,
        on_alert=lambda one: changes.append(
            msgspec.to_builtins(AlertChange(one.change.value, one.at_us, entry_of(one.alert)))
        ),
    )
    for record in read_journal(options.journal, strict=False):
        replayer.take(record)
    replayer.finish()
    return changes


def _show_open(alerts: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        _print_lines(alerts)
        return
    out = console()
    if not alerts:
        out.print("no alert is open", style="green")
        return
    table = Table()
    for column in ("since", "severity", "kind", "feed", "sources", "what"):
        table.add_column(column)
    for alert in alerts:
        table.add_row(_time(alert["started_us"]), *_about(alert))
    out.print(table)


def _show_history(changes: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        _print_lines(changes)
        return
    out = console()
    if not changes:
        out.print("nothing was told", style="green")
        return
    table = Table()
    for column in ("at", "change", "lasted", "severity", "kind", "feed", "sources", "what"):
        table.add_column(column)
    for change in changes:
        alert = change["alert"]
        lasted = "" if alert["ended_us"] is None else f"{(alert['ended_us'] - alert['started_us']) / 1e6:.1f} s"
        table.add_row(_time(change["at_us"]), change["change"], lasted, *_about(alert))
    out.print(table)


def _about(alert: dict[str, Any]) -> tuple[str, ...]:
    style = "red" if alert["severity"] == "critical" else "yellow"
    severity = f"[{style}]{alert['severity']}[/]"
    return severity, alert["kind"], alert["feed"] or "—", ", ".join(alert["sources"]) or "—", alert["summary"]


def _print_lines(lines: Sequence[dict[str, Any]]) -> None:
    for line in lines:
        sys.stdout.buffer.write(orjson.dumps(line) + b"\n")


def _time(instant_us: int) -> str:
    return datetime.fromtimestamp(instant_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
