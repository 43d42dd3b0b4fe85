"""``oracle-hub feeds``: find a feed over the known sources, and add it to a configuration."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from oracle_hub.app.adding import Wanted, added, refuse_known, sources_without_id
from oracle_hub.app.hosted import HOSTED, Host
from oracle_hub.app.legacy import write_config
from oracle_hub.app.offers import HERMES, Listed, Offer, known_offers, listed_by, matching, offers_of
from oracle_hub.cli.console import console
from oracle_hub.config import Config, load_config, parse_config
from oracle_hub.config_secrets import resolve_secret, resolve_url
from oracle_hub.errors import ConfigError, SourceError

SHOWN = 50


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    search = actions.add_parser("search", help="which ways there are to read it", allow_abbrev=False)
    search.add_argument("query", metavar="QUERY", help="part of a feed's name, description, address or id")
    search.add_argument("--config", metavar="FILE", type=Path, help="also ask the Hermes servers of this configuration")
    search.add_argument("--asset-type", metavar="TYPE", help="crypto, fx, equity, metal, rates …")
    search.add_argument("--limit", metavar="N", type=int, default=SHOWN, help=f"rows to show (default {SHOWN})")
    add = actions.add_parser("add", help="add it to a configuration", allow_abbrev=False)
    add.add_argument("feeds", metavar="FEED", nargs="+", help="as in SOL/USD")
    add.add_argument("--config", metavar="FILE", type=Path, required=True, help="the configuration file")
    add.add_argument("--primary", metavar="SOURCE", help="instead of [roles]")
    add.add_argument("--verifiers", metavar="A,B", help="instead of [roles]")
    add.add_argument("--references", metavar="A,…", help="instead of [roles]; empty for none")
    add.add_argument(
        "--account", metavar="SOURCE=ID", action="append", default=[], help="what this source reads it by (repeatable)"
    )
    add.add_argument("--derived", action="store_true", help="accept addresses that only a rule gives")
    add.add_argument("--write", action="store_true", help="rewrite FILE, keeping comments, with a backup beside it")
    for each in (search, add):
        each.add_argument("--hermes", metavar="URL", help="ask this Hermes server (http; or env:NAME)")
        each.add_argument("--key", metavar="env:NAME", help="its key, where it wants one")
        each.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    if options.action == "search":
        _search(options)
    else:
        _add(options)
    return 0


# Search.


def _search(options: argparse.Namespace) -> None:
    if options.limit < 1:
        raise ConfigError(f"--limit {options.limit}: at least one row")
    hosts = _hosts(options, load_config(options.config) if options.config else None)
    offers = matching(list(known_offers()), options.query, options.asset_type)
    if hosts:
        listed = asyncio.run(_ask(hosts, options.query, options.asset_type))
        known = {(one.kind, one.id) for one in offers}
        offers += [one for each in listed for one in offers_of(each) if (one.kind, one.id) not in known]
    if options.json:
        answer = {"offers": msgspec.to_builtins(offers), "asked": ["tables", *(["hermes"] if hosts else [])]}
        sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.buffer.flush()
    if not offers:
        more = "" if hosts else "; --hermes URL also asks a Hermes server"
        raise SourceError(f"nothing found for {options.query!r}{more}")
    if not options.json:
        _show(offers, options, console())


def _show(offers: list[Offer], options: argparse.Namespace, out: Console) -> None:
    table = Table()
    for column in ("feed", "source kind", "address or id", "origin", "asset type", "description"):
        table.add_column(column, overflow="fold")
    for one in offers[: options.limit]:
        table.add_row(*map(escape, (one.feed, one.kind, one.id, one.origin, one.asset_type, one.description)))
    out.print(table)
    if len(offers) > options.limit:
        out.print(f"{len(offers) - options.limit} more: narrow the query, or raise --limit")
    if any(one.origin == "derived" for one in offers[: options.limit]):
        out.print("derived: a rule gives this address; look whether the account exists before you rely on it")


# Add.


def _add(options: argparse.Namespace) -> None:
    path: Path = options.config
    load_config(path)  # says what is wrong with the file
    text = path.read_bytes().decode("utf-8-sig")  # line ends as they are
    config = parse_config(text, origin=str(path))
    wanted = [_wanted(options, feed) for feed in options.feeds]
    refuse_known(config, wanted, origin=str(path))
    ids = asyncio.run(_look_up(options, config, wanted))
    after, changes = added(text, config, wanted, ids, origin=str(path))
    backup = write_config(path, after) if options.write else None
    if options.json:
        answer = {
            "feeds": [one.feed for one in wanted],
            "changes": changes,
            "written": backup is not None,
            "backup": str(backup) if backup is not None else None,
        }
        sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n")
        return
    out = console()
    for line in changes:
        out.print(line, markup=False, style="green" if line.startswith("+") else None, soft_wrap=True)
    if backup is not None:
        out.print(f"written; what was there is in {backup}", markup=False)
    else:
        out.print("--write makes these changes")


def _wanted(options: argparse.Namespace, feed: str) -> Wanted:
    accounts: dict[str, str] = {}
    for given in options.account:
        source, equals, address = given.partition("=")
        if not equals or not source or not address or source in accounts:
            raise ConfigError(f"--account {given}: write SOURCE=ID, once for each source")
        if len(options.feeds) > 1:
            raise ConfigError("--account: for one FEED at a time")
        accounts[source] = address
    return Wanted(
        feed=feed,
        primary=options.primary,
        verifiers=_names(options.verifiers),
        references=_names(options.references),
        accounts=accounts,
        derived=options.derived,
    )


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


async def _look_up(options: argparse.Namespace, config: Config, feeds: Sequence[Wanted]) -> dict[str, str]:
    """Pyth's ids of the feeds that need one, from the first Hermes server that answers."""
    found: dict[str, str] = {}
    for wanted in feeds:
        sources = sources_without_id(config, wanted)
        if not sources or wanted.feed in config.feeds:
            continue
        hosts = _hosts(options, config)
        if not hosts:
            raise ConfigError(f"{wanted.feed}: {sources[0]} needs Pyth's id of it; give --hermes URL, or --account")
        listed = [one for one in await _ask(hosts, wanted.feed, None) if one.feed == wanted.feed]
        if len(listed) > 1:
            ids = ", ".join(one.id for one in listed)
            raise ConfigError(f"{wanted.feed}: Hermes lists it more than once ({ids}); choose with --account")
        if not listed:
            raise ConfigError(f"{wanted.feed}: Hermes lists no such feed; see oracle-hub feeds search")
        found[wanted.feed] = listed[0].id
    return found


# Hermes.


def _hosts(options: argparse.Namespace, config: Config | None) -> list[Host]:
    """The servers to be asked: the one that is named, else those of the configuration."""
    if options.key is not None and (options.hermes is None or not options.key.startswith("env:")):
        raise ConfigError('--key: goes with --hermes; write "env:NAME" and put the key in the environment')
    if options.hermes is not None:
        url = resolve_url(options.hermes, ("http", "https"), key="--hermes")
        return [Host(url, None if options.key is None else resolve_secret(options.key, key="--key"))]
    if config is None or config.emulator is not None:
        return []
    sections = {name: one for name, one in config.sources.items() if one.kind == HERMES and one.hosts}
    found: list[Host] = []
    for name, section in sections.items():
        try:
            found += HOSTED[HERMES].hosts(name, section)
        except ConfigError:  # no key in this environment: lists are open without one
            found += HOSTED[HERMES].hosts(name, msgspec.structs.replace(section, api_key=None))
    return found


async def _ask(hosts: list[Host], query: str, asset_type: str | None) -> list[Listed]:
    refused: list[str] = []
    for host in hosts:
        try:
            return await listed_by(host, query, asset_type)
        except SourceError as error:
            refused.append(str(error))
    raise SourceError("; ".join(dict.fromkeys(refused)))
