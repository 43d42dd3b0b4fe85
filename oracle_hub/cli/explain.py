"""``oracle-hub explain FEED``: inputs, accounts, slots, transports, ages, divergences, and the rule that decided."""

import argparse
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from rich.console import Console
from rich.table import Table

from oracle_hub.cli.asking import WANTED, hub_address, token_headers
from oracle_hub.cli.console import console
from oracle_hub.core.price import decimal_text
from oracle_hub.errors import SourceError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feed", metavar="FEED", help="as in SOL/USD")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the hub is (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the hub's answer as it is")


def run(options: argparse.Namespace) -> int:
    answer = fetch_json(options.url, f"/v1/explain/{quote(options.feed, safe='')}")
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _show(answer, console())
    return 0


def fetch_json(url: str, path: str) -> dict[str, Any]:
    """GET a JSON object from a hub.

    Raises:
        ConfigError: no address.
        SourceError: no hub there, or it refused; one line with the hub's own words.
    """
    full = hub_address(url, "--url").rstrip("/") + path
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = token_headers()
    try:
        request = urllib.request.Request(full)
        for name, value in headers.items():
            request.add_unredirected_header(name, value)  # for this hub, and not for where it may send us
        with opener.open(request, timeout=5) as response:
            answer = orjson.loads(response.read())
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            raise SourceError(f"{full}: {WANTED}") from None
        try:
            message = orjson.loads(error.read())["error"]["message"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            message = error.reason
        raise SourceError(f"{full}: {message}") from None
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise SourceError(f"{full}: no hub there ({reason}); start one with: oracle-hub run") from None
    if not isinstance(answer, dict):
        raise SourceError(f"{full}: not a hub's answer")
    return answer


def _show(answer: dict[str, Any], out: Console) -> None:
    feed, expo = answer["feed"], answer["expo"]
    price = decimal_text(int(answer["price"]), expo) if answer["price"] else "no price"
    marked = "  [magenta]SIMULATED: not the market[/]" if answer.get("simulated") else ""
    out.print(f"[bold]{feed}[/]  {answer['state']}  [bold]{price}[/]{marked}")
    out.print(
        f"decided by {answer['rule']} ({answer['reason']}), policy {answer['policy']}, threshold "
        f"{answer['max_divergence_bps']} bps, source {answer['source'] or 'none'}"
    )
    table = Table()
    for column in (
        "source",
        "role",
        "status",
        "price",
        "age s",
        "max s",
        "from primary bps",
        "transport",
        "slot",
        "account",
    ):
        table.add_column(column)
    for name, entry in answer["inputs"].items():
        table.add_row(
            name,
            entry["role"],
            entry["status"],
            f"withheld: {entry['withheld']}"
            if entry.get("withheld")
            else (decimal_text(int(entry["price"]), expo) if entry["price"] else "—"),
            "—" if entry["age_ms"] is None else f"{entry['age_ms'] / 1000:.1f}",
            f"{entry['max_age_ms'] / 1000:g}",
            "—" if entry["divergence_bps"] is None else f"{entry['divergence_bps']:.2f}",
            entry["transport"] or "—",
            str(entry["slot"] or "—"),
            entry["account"] or "—",
        )
    out.print(table)
    _show_ways(answer["inputs"], expo, out)
    for note in answer.get("notes", ()):
        out.print(f"note: {note}", style="yellow")


def _show_ways(inputs: dict[str, Any], expo: int, out: Console) -> None:
    """What came by each way, where a source has several. None of a way: it told nothing of this feed yet."""
    table = Table(title="ways")
    for column in ("source", "transport", "kind", "price", "age s", "behind ms", "late ms", "verified"):
        table.add_column(column)
    for name, entry in inputs.items():
        for transport, told in entry["ways"].items() if len(entry["ways"]) > 1 else ():
            if told is None:
                table.add_row(name, transport, *["—"] * 6)
                continue
            table.add_row(
                name,
                transport,
                told["kind"],
                decimal_text(int(told["price"]), expo) if told["price"] else "—",
                f"{told['age_ms'] / 1000:.1f}",
                str(told["behind_ms"]),
                f"{told['mean_late_ms']:.1f}",
                "yes" if told["verified"] else "no",
            )
    if table.row_count:
        out.print(table)
