"""``oracle-hub migrate CONFIG``: the exchange's old and new oracles side by side; rewrites a configuration."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import orjson
from rich.console import Console
from rich.table import Table

from oracle_hub.app.accounts import AccountEndpoint
from oracle_hub.app.legacy import Mapping, legacy_accounts, rewritten, write_config
from oracle_hub.app.lineup import genesis_hash_of
from oracle_hub.app.migration import FeedMigration, Oracle, Verdict, examine
from oracle_hub.cli.console import console
from oracle_hub.clock import SystemClock
from oracle_hub.config import Config, load_config, parse_config
from oracle_hub.config_secrets import resolve_url
from oracle_hub.core.price import decimal_text
from oracle_hub.errors import ConfigError, SourceError

_NO_PROOF = (Verdict.UNREADABLE, Verdict.UNKNOWN, Verdict.WRONG_ADDRESS, Verdict.NO_PRICE)
"""Verdicts with which a feed's account is not replaced."""


class Findings(NamedTuple):
    """What was found, and what was or would be changed."""

    endpoint: str
    feeds: list[FeedMigration]
    warnings: list[str]
    changes: list[str]
    backup: Path | None
    simulated: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the configuration file")
    parser.add_argument("--rpc", metavar="URL", help="ask this endpoint (http; or env:NAME), not those of CONFIG")
    parser.add_argument(
        "--write", action="store_true", help="rewrite CONFIG, keeping comments, with a backup beside it"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(options: argparse.Namespace) -> int:
    findings = migrate(options.config, options.rpc, write=options.write)
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(as_json(findings), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _show(findings, console())
    return 0


def migrate(path: Path, rpc: str | None, *, write: bool) -> Findings:
    """Look at the chain, or at the emulator where the configuration is a simulation, and rewrite the file if asked to.

    Raises:
        ConfigError: the configuration cannot be used or rewritten.
        SourceError: no endpoint could be read.
    """
    load_config(path)  # says what is wrong with the file
    text = path.read_bytes().decode("utf-8-sig")  # line ends as they are
    config = parse_config(text, origin=str(path))
    mappings = legacy_accounts(config)
    endpoint, feeds, warnings = asyncio.run(_read(config, rpc))
    warnings += [one.text for one in mappings if one.old]
    changes: list[str] = []
    backup = None
    if mappings:
        try:
            after, changes = rewritten(text, config, mappings, origin=str(path))
            _refuse_unproved(path, mappings, feeds)
            backup = write_config(path, after) if write else None
        except ConfigError as error:
            if write:
                raise
            warnings.append(f"--write would refuse: {error}")
    return Findings(endpoint, feeds, warnings, changes, backup, config.emulator is not None)


async def _read(config: Config, rpc: str | None) -> tuple[str, list[FeedMigration], list[str]]:
    """From the first endpoint that answers: its name, what it says, and why those before it did not do."""
    refused: list[str] = []
    async with aiohttp.ClientSession() as session, _endpoints(config, rpc) as references:
        for name, reference in references.items():
            try:
                url = resolve_url(reference, ("http", "https"), key="--rpc" if rpc else f"solana.rpc.{name}.http_url")
                endpoint = AccountEndpoint(session, name, url, config.solana.commitment)
                await endpoint.prove_cluster(genesis_hash_of(config))
                return name, await examine(config, endpoint, SystemClock().wall_us()), refused
            except (SourceError, ConfigError) as error:
                refused.append(str(error))
    raise SourceError(f"nothing could be read: {'; '.join(refused) or 'no endpoint; add [[solana.rpc]] or give --rpc'}")


@asynccontextmanager
async def _endpoints(config: Config, rpc: str | None) -> AsyncIterator[dict[str, str]]:
    """URLs, or references to them, by name; in a simulation those of an emulator that lives as long as this."""
    if rpc is not None:
        yield {"--rpc": rpc}
    elif config.emulator is None:
        yield {one.name: one.http_url for one in config.solana.rpc}
    else:
        from feeds.emulator.emulator import Emulator  # with what it draws in, only where it is wanted
        from oracle_hub.app.simulation import emulator_settings

        settings = msgspec.structs.replace(emulator_settings(config), port_base=0)  # not in a running simulation's way
        emulator = Emulator(settings=settings, now_us=SystemClock().wall_us)
        try:
            urls = await emulator.start()
            yield {one.name: one.http for one in urls.solana}
        finally:
            await emulator.stop()


def _refuse_unproved(path: Path, mappings: list[Mapping], feeds: list[FeedMigration]) -> None:
    """An account is replaced by a custody only where that custody, as it is on the chain, leads somewhere."""
    by_feed = {one.feed: one for one in feeds}
    for mapping in mappings:
        found = by_feed[mapping.feed]
        if found.verdict in _NO_PROOF:
            raise ConfigError(f"{path}: not rewritten: {mapping.feed}: {found.text}")
        if mapping.old and found.old is not None and found.old.address not in (mapping.address, None):
            named = f"custody {found.custody} names {found.old.address} as its old oracle"
            raise ConfigError(f"{path}: not rewritten: {mapping.key} is {mapping.address}, but {named}")


def as_json(findings: Findings) -> dict[str, object]:
    """The findings as JSON values: prices as decimal text, times in microseconds, ages in milliseconds."""
    return {
        "endpoint": findings.endpoint,
        "simulated": findings.simulated,
        "feeds": {one.feed: _feed_json(one) for one in findings.feeds},
        "warnings": findings.warnings,
        "changes": findings.changes,
        "written": findings.backup is not None,
        "backup": str(findings.backup) if findings.backup is not None else None,
    }


def _feed_json(found: FeedMigration) -> dict[str, object]:
    return {
        "custody": found.custody,
        "old": _oracle_json(found.old, found.expo),
        "new": _oracle_json(found.new, found.expo),
        "divergence_bps": found.apart_bps,
        "reads": found.reads,
        "verdict": found.verdict.value,
        "text": found.text,
    }


def _oracle_json(oracle: Oracle | None, expo: int) -> dict[str, object] | None:
    if oracle is None:
        return None
    return {
        "address": oracle.address,
        "derived": oracle.derived,
        "matches_derived": oracle.matches_derived,
        "price": decimal_text(oracle.price, expo) if oracle.price is not None else None,
        "publish_time_us": oracle.publish_us,
        "age_ms": oracle.age_ms,
        "fault": oracle.fault,
    }


def _show(findings: Findings, out: Console) -> None:
    marked = "  [magenta]SIMULATED: not the market[/]" if findings.simulated else ""
    out.print(f"asked endpoint {findings.endpoint}{marked}")
    table = Table()
    for column in ("feed", "oracle", "address", "derived", "price", "age s", "apart bps", "read"):
        table.add_column(column, overflow="fold")
    for one in findings.feeds:
        for name, oracle in (("old", one.old), ("new", one.new)):
            if oracle is not None:
                apart = "" if one.apart_bps is None or name == "old" else f"{one.apart_bps:.2f}"
                table.add_row(*_row(one, name, oracle), apart, "yes" if oracle.address == one.reads else "")
        table.add_section()
    out.print(table)
    for one in findings.feeds:
        style = "green" if one.verdict is Verdict.NEW else "red" if one.verdict in _NO_PROOF else "yellow"
        out.print(f"{one.feed}  [{style}]{one.verdict.value}[/]  {one.text}")
    for warning in findings.warnings:
        out.print(f"warning: {warning}", style="yellow", markup=False)
    for change in findings.changes:
        out.print(f"{'changed' if findings.backup is not None else 'would change'}: {change}", markup=False)
    if findings.backup is not None:
        out.print(f"written; what was there is in {findings.backup}", markup=False)
    else:
        out.print("--write makes these changes" if findings.changes else "nothing to change in this configuration")


def _row(found: FeedMigration, name: str, oracle: Oracle) -> tuple[str, ...]:
    derived = {True: "the same", False: f"[red]{oracle.derived}[/]", None: oracle.derived or "—"}
    return (
        found.feed if name == "old" else "",
        name,
        oracle.address or "—",
        derived[oracle.matches_derived],
        decimal_text(oracle.price, found.expo) if oracle.price is not None else "—",
        f"{oracle.age_ms / 1000:.1f}" if oracle.age_ms is not None else "—",
    )
