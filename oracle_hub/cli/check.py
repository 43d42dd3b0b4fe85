"""``oracle-hub check CONFIG``: is it valid, and what does it give."""

import argparse
import difflib
import os
import sys
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from oracle_hub.app.alert_channels import delivery_settings
from oracle_hub.app.alert_settings import alert_settings
from oracle_hub.app.doors import server_settings
from oracle_hub.app.independence import dependent_verifiers
from oracle_hub.app.legacy import legacy_notes
from oracle_hub.app.lineup import all_addresses, catalog_of, endpoints_of, readers_of
from oracle_hub.app.trust import SIGNED_KINDS, settled
from oracle_hub.cli.console import console
from oracle_hub.config import Config, config_hash, load_config, redistribute_of, ways_of
from oracle_hub.core.catalog import Catalog
from oracle_hub.core.selector import BIT_A_BARRED, BIT_B_BARRED
from oracle_hub.errors import ConfigError

_RESOLVED = ("doves.custody", "doves.pool")
"""Kinds whose price account is known only once the chain was read."""
SHOWN = 20
"""Feeds, and lines about feeds, that are shown one by one."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the configuration file")
    parser.add_argument(
        "--feed", metavar="FEED", action="append", help=f"show this feed (repeatable); more than {SHOWN} are summed up"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    findings = examine(config)
    if options.feed:
        findings = only(findings, options.feed)
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(findings, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _show(findings, console(), whole=bool(options.feed))
    return 0


def only(findings: dict[str, Any], feeds: list[str]) -> dict[str, Any]:
    """The findings about some feeds; what is about none of them stays.

    Raises:
        ConfigError: a feed that is not in the configuration.
    """
    unknown = next((feed for feed in feeds if feed not in findings["feeds"]), None)
    if unknown is not None:
        nearest = difflib.get_close_matches(unknown, findings["feeds"], n=1, cutoff=0.4)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"--feed {unknown}: not in the configuration{hint}")
    others = tuple(f"feeds.{feed}." for feed in findings["feeds"] if feed not in feeds)
    return findings | {
        "feeds": {feed: findings["feeds"][feed] for feed in findings["feeds"] if feed in feeds},
        "not_independent": {feed: lines for feed, lines in findings["not_independent"].items() if feed in feeds},
        "warnings": [line for line in findings["warnings"] if not line.startswith(others)],
    }


def examine(config: Config) -> dict[str, Any]:
    """Everything that can be said of a configuration without going anywhere.

    Raises:
        ConfigError: it cannot be used.
    """
    catalog = catalog_of(config)
    alert_settings(config)
    delivery_settings(config)
    addresses = all_addresses(config)
    readers = readers_of(config)
    feeds: dict[str, object] = {}
    for spec in catalog.feeds:
        inputs: dict[str, object] = {}
        for position, source in enumerate(spec.sources):
            address, kind = addresses[source][spec.feed], config.sources[source].kind
            reader = readers.get(source)
            described = reader.describe(spec.feed) if reader is not None else {}
            comparable = kind not in _RESOLVED and bool(described.get("derived"))
            inputs[source] = {
                "role": ("primary", "verifier", "verifier")[position] if position < 3 else "reference",
                "kind": kind,
                "reads": address,
                "matches_derived": described.get("matches_derived") if comparable else None,
                "max_age_ms": spec.max_age_us[source] // 1_000,
                "redistribute": redistribute_of(config, source).value,
                "ways": further_ways(config, source, spec.feed, addresses),
                "proof": catalog.proof[source].value,
            }
        feeds[spec.feed] = {
            "policy": spec.policy,
            "max_divergence_bps": spec.max_divergence_bps,
            "max_conf_bps": spec.max_conf_bps,
            "inputs": inputs,
        }
    return {
        "valid": True,
        "config_hash": config_hash(settled(config)),
        "simulated": config.emulator is not None,
        "feeds": feeds,
        "not_independent": dependent_verifiers(config, addresses),
        "warnings": _warnings(config)
        + _foreign_addresses(feeds)
        + _without_choice(catalog)
        + [f"{line}: oracle-hub migrate" for lines in legacy_notes(config).values() for line in lines],
    }


def _without_choice(catalog: Catalog) -> list[str]:
    """Feeds whose verifiers may agree and yet give no price."""
    warnings = []
    for spec in catalog.feeds:
        first, second = spec.verifiers
        if spec.barred == BIT_A_BARRED | BIT_B_BARRED:
            warnings.append(
                f"feeds.{spec.feed}.verifiers: neither {first} nor {second} may be told (redistribute): without the "
                f"primary there is no price (not_redistributable)"
            )
        elif spec.barred:
            barred, other = (first, second) if spec.barred == BIT_A_BARRED else (second, first)
            warnings.append(
                f"feeds.{spec.feed}.verifiers: {barred} may not be told (redistribute): the fallback is {other} alone, "
                f"the older one too"
            )
    return warnings


def further_ways(
    config: Config, source: str, feed: str, addresses: dict[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """The ways beside the first one in which a source reads a feed: kind, and what it reads."""
    return {
        name: {"kind": way.section.kind, "reads": addresses[name][feed]}
        for name, way in ways_of(config).items()
        if way.source == source and way.way and feed in addresses[name]
    }


def _foreign_addresses(feeds: dict[str, Any]) -> list[str]:
    return [
        f"feeds.{feed}.accounts.{source}: {entry['reads']} is not the address that is derived or known for {feed}"
        for feed, spec in feeds.items()
        for source, entry in spec["inputs"].items()
        if entry["matches_derived"] is False
    ]


def _warnings(config: Config) -> list[str]:
    warnings = []
    if config.emulator is None:
        try:
            endpoints = endpoints_of(config)
        except ConfigError as error:
            warnings.append(f"cannot start here: {error}")
        else:
            if len(endpoints.rpc) == 1:
                warnings.append("solana.rpc: one endpoint only; a second one makes its loss harmless")
    try:
        server_settings(config)
    except ConfigError as error:
        warnings.append(f"cannot start here: {error}")
    if config.server.host not in ("127.0.0.1", "::1", "localhost"):
        bare = [] if config.server.tls_certificate is not None else ["encryption"]
        bare += [] if config.server.require_token else ["a token"]
        if bare:
            where = f"server.host: {config.server.host} can be reached from other machines"
            warnings.append(f"{where}, without {' and without '.join(bare)}")
    for way in ways_of(config).values():
        section = way.section
        if config.emulator is None and section.signers == "simulated":
            warnings.append(f"sources.{way.key}.signers: simulated; anybody can sign with the test keys")
        if section.kind in SIGNED_KINDS and section.verify != "strict":
            warnings.append(f"sources.{way.key}.verify: {section.verify}; prices that nobody signed may be chosen")
    if config.journal.mode == "off":
        warnings.append("journal.mode: off; no price can be proved afterwards")
    if not os.access(Path(config.state.directory).absolute().parent, os.W_OK):
        warnings.append(f"state.directory: {config.state.directory} cannot be made here")
    return warnings


def _show(findings: dict[str, Any], out: Console, *, whole: bool) -> None:
    marked = "  [magenta]SIMULATED[/]" if findings["simulated"] else ""
    feeds = findings["feeds"]
    out.print(f"valid, config {findings['config_hash']}{marked}")
    if whole or len(feeds) <= SHOWN:
        out.print(_one_by_one(feeds))
    else:
        out.print(_summed_up(feeds))
        out.print(f"{len(feeds):,} feeds; --feed FEED shows one with its addresses, --json all of them")
    lines = [f"not independent: {feed}: {line}" for feed, told in findings["not_independent"].items() for line in told]
    lines += [f"warning: {warning}" for warning in findings["warnings"]]
    # What is about the whole comes first: it must not drown among thousands of feeds.
    lines.sort(key=lambda line: line.startswith(("not independent: ", "warning: feeds.")))
    for line in lines if whole else lines[:SHOWN]:
        out.print(line, style="yellow", markup=False)
    if not whole and len(lines) > SHOWN:
        out.print(f"{len(lines) - SHOWN:,} more lines like these: --json has them all", style="yellow")


def _one_by_one(feeds: dict[str, Any]) -> Table:
    table = Table()
    columns = (
        "feed",
        "role",
        "source",
        "kind",
        "reads",
        "address derived",
        "max age s",
        "told",
        "threshold bps",
        "policy",
    )
    for column in columns:
        table.add_column(column)
    for feed, spec in feeds.items():
        for source, entry in spec["inputs"].items():
            first = entry["role"] == "primary"
            derived = {True: "yes", False: "[red]no[/]", None: "—"}[entry["matches_derived"]]
            table.add_row(
                feed if first else "",
                entry["role"],
                source,
                entry["kind"],
                entry["reads"],
                derived,
                f"{entry['max_age_ms'] / 1000:g}",
                entry["redistribute"],
                str(spec["max_divergence_bps"]) if first else "",
                str(spec["policy"]) if first else "",
            )
            for way, further in entry["ways"].items():
                table.add_row("", "way", way, further["kind"], further["reads"], "—", "", "", "")
        table.add_section()
    return table


def _summed_up(feeds: dict[str, Any]) -> Table:
    """One row for all feeds that are read and decided alike."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for feed, spec in feeds.items():
        inputs = spec["inputs"].items()
        sources = []
        for source, entry in inputs:
            limits = f"{entry['max_age_ms'] / 1000:g} s, told: {entry['redistribute']}"
            sources.append(f"{entry['role']} {source} ({entry['kind']}, {limits})")
        matches = {entry["matches_derived"] for _, entry in inputs}
        derived = "[red]no[/]" if False in matches else "—" if None in matches else "yes"
        key = ("\n".join(sources), derived, str(spec["max_divergence_bps"]), str(spec["policy"]))
        alike.setdefault(key, []).append(feed)
    table = Table()
    for column in ("feeds", "which", "sources", "addresses derived", "threshold bps", "policy"):
        table.add_column(column)
    for key, names in alike.items():
        which = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        table.add_row(f"{len(names):,}", which, *key)
        table.add_section()
    return table
