"""``oracle-hub check CONFIG``: is it valid, and what does it give."""

import argparse
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
from oracle_hub.cli.console import console
from oracle_hub.config import Config, config_hash, load_config, redistribute_of
from oracle_hub.core.catalog import Catalog
from oracle_hub.core.selector import BIT_A_BARRED, BIT_B_BARRED
from oracle_hub.errors import ConfigError

_RESOLVED = ("doves.custody", "doves.pool")
"""Kinds whose price account is known only once the chain was read."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the configuration file")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    findings = examine(config)
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(findings, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _show(findings, console())
    return 0


def examine(config: Config) -> dict[str, object]:
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
            address = addresses[source][spec.feed]
            reader = readers.get(source)
            described = reader.describe(spec.feed) if reader is not None else {}
            kind = config.sources[source].kind
            inputs[source] = {
                "role": ("primary", "verifier", "verifier")[position] if position < 3 else "reference",
                "kind": kind,
                "reads": address,
                "matches_derived": None
                if kind in ("doves.custody", "doves.pool")
                else described.get("matches_derived"),
                "max_age_ms": spec.max_age_us[source] // 1_000,
                "redistribute": redistribute_of(config, source).value,
            }
        feeds[spec.feed] = {
            "policy": spec.policy,
            "max_divergence_bps": spec.max_divergence_bps,
            "max_conf_bps": spec.max_conf_bps,
            "inputs": inputs,
        }
    return {
        "valid": True,
        "config_hash": config_hash(config),
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
    if config.journal.mode == "off":
        warnings.append("journal.mode: off; no price can be proved afterwards")
    if not os.access(Path(config.state.directory).absolute().parent, os.W_OK):
        warnings.append(f"state.directory: {config.state.directory} cannot be made here")
    return warnings


def _show(findings: dict[str, object], out: Console) -> None:
    marked = "  [magenta]SIMULATED[/]" if findings["simulated"] else ""
    out.print(f"valid, config {findings['config_hash']}{marked}")
    table = Table()
    for column in (
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
    ):
        table.add_column(column)
    feeds = findings["feeds"]
    assert isinstance(feeds, dict)
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
        table.add_section()
    out.print(table)
    dependent = findings["not_independent"]
    assert isinstance(dependent, dict)
    for feed, lines in dependent.items():
        for line in lines:
            out.print(f"not independent: {feed}: {line}", style="yellow")
    warnings = findings["warnings"]
    assert isinstance(warnings, list)
    for warning in warnings:
        out.print(f"warning: {warning}", style="yellow")
