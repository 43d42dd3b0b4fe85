"""Adding feeds to a configuration: the right account or id for each source, comments kept, refused whole if wrong."""

import difflib
from collections.abc import Mapping, Sequence

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError

from feeds.emulator.catalogue import Catalogue, made_id
from oracle_hub.app.lineup import build_lineup, journaled_endpoints
from oracle_hub.app.offers import HERMES, derived_id, is_feed_name, known_id
from oracle_hub.app.simulation import read_at
from oracle_hub.config import Config, FeedSection, feed_roles, parse_config
from oracle_hub.errors import ConfigError

NEEDS_HERMES_ID = frozenset({HERMES, "pyth.receiver", "pyth.legacy"})


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A feed to be added, and what is said of it."""

    feed: str
    primary: str | None = None
    verifiers: tuple[str, ...] | None = None
    references: tuple[str, ...] | None = None
    accounts: Mapping[str, str] = {}
    """Address or id by source, where it is given."""
    derived: bool = False
    """Whether an address that only a rule gives will do; in a simulation, one that the emulator makes up."""


def sources_without_id(config: Config, wanted: Wanted) -> list[str]:
    """The feed's sources that need Pyth's id of it, which neither the program nor the caller has.

    Raises:
        ConfigError: as :func:`added` does for roles.
    """
    roles = _roles(config, wanted)
    sections = {source: config.sources[source] for source in roles if source not in wanted.accounts}
    if config.emulator is not None and wanted.derived:
        return []
    needs = {HERMES} | (NEEDS_HERMES_ID if wanted.derived else frozenset())
    return [name for name, one in sections.items() if one.kind in needs and known_id(one, wanted.feed) is None]


def added(
    text: str, config: Config, feeds: Sequence[Wanted], hermes_ids: Mapping[str, str], *, origin: str
) -> tuple[str, list[str]]:
    """The text of a configuration with feeds added: everything else stays, comments and order too.

    Args:
        text: the configuration, as it is.
        config: what it says.
        feeds: what is to be added.
        hermes_ids: Pyth's id by feed, for those that were looked up.
        origin: the file, for messages.

    Returns:
        The new text, which is valid, and what differs, as lines of a unified diff.

    Raises:
        ConfigError: a feed is there already or has no name of one; a source cannot serve it; the result would not be
            valid. Nothing is added then.
    """
    document = tomlkit.parse(text)
    refuse_known(config, feeds, origin=origin)
    for wanted in feeds:
        try:
            document["feeds"][wanted.feed] = _table(config, wanted, hermes_ids.get(wanted.feed))
        except TOMLKitError as error:
            raise ConfigError(f"{origin}: feeds: cannot be extended ({error}); add a table by hand") from None
    result = tomlkit.dumps(document)
    if "\r\n" in text:
        result = result.replace("\r\n", "\n").replace("\n", "\r\n")
    _check(result, config, [one.feed for one in feeds], f"{origin}, with {', '.join(one.feed for one in feeds)}")
    lines = difflib.unified_diff(text.splitlines(), result.splitlines(), origin, origin, lineterm="", n=1)
    return result, list(lines)


def refuse_known(config: Config, feeds: Sequence[Wanted], *, origin: str) -> None:
    """Refuse feeds that are there already, before anybody is asked for their ids.

    Raises:
        ConfigError: one is there, be it in other letters (``sol/usd`` beside ``SOL/USD`` would be two feeds of one
            name), or is named twice.
    """
    there = {feed.upper(): feed for feed in config.feeds}
    for wanted in feeds:
        name = wanted.feed.upper()
        if name in there:
            raise ConfigError(f"{origin}: feeds.{there[name]}: is there already")
        if [one.feed.upper() for one in feeds].count(name) > 1:
            raise ConfigError(f"{wanted.feed}: named twice")


def _check(text: str, before: Config, feeds: Sequence[str], origin: str) -> None:
    """Refuse a text that is not the configuration of before and these feeds, or one that no hub could be made of."""
    after = parse_config(text, origin=origin)
    kept = msgspec.structs.replace(after, feeds={name: one for name, one in after.feeds.items() if name not in feeds})
    if kept != before or list(kept.feeds) != list(before.feeds):
        raise ConfigError(f"{origin}: something else would change too; add the tables by hand")
    build_lineup(after, journaled_endpoints(after))
    if after.emulator is not None:
        Catalogue(after.feeds, read_at(after))


def _roles(config: Config, wanted: Wanted) -> tuple[str, ...]:
    """The sources of a feed: primary, verifiers, references."""
    if not is_feed_name(wanted.feed):
        raise ConfigError(f"{wanted.feed!r} is no name of a feed; write it as BASE/QUOTE (SOL/USD)")
    roles = feed_roles(
        config, FeedSection(primary=wanted.primary, verifiers=wanted.verifiers, references=wanted.references)
    )
    names = tuple(name for name in (roles.primary, *roles.verifiers, *roles.references) if name is not None)
    unknown = next((name for name in (*names, *wanted.accounts) if name not in config.sources), None)
    if unknown is not None:
        raise ConfigError(f"{wanted.feed}: no [sources.{unknown}]; defined: {', '.join(config.sources)}")
    idle = next((name for name in wanted.accounts if name not in names), None)
    if idle is not None:
        raise ConfigError(f"{wanted.feed}: {idle} has no role in it; its sources are {', '.join(names)}")
    return names


def _table(config: Config, wanted: Wanted, hermes_id: str | None) -> tomlkit.items.Table:
    """The feed's table: its own roles, and the accounts that the program would not find by itself."""
    accounts = tomlkit.inline_table()
    missing: list[str] = []
    for source in _roles(config, wanted):
        section = config.sources[source]
        if source in wanted.accounts:
            accounts[source] = wanted.accounts[source]
        elif known_id(section, wanted.feed) is None:
            found = hermes_id if section.kind == HERMES else None
            if found is None and wanted.derived and config.emulator is not None:
                found = made_id(section.kind, wanted.feed)
            elif found is None and wanted.derived:
                found = derived_id(section.kind, wanted.feed, hermes_id, receiver=section.receiver)
            if found is None:
                missing.append(f"{source} ({section.kind})")
            else:
                accounts[source] = found
    if missing:
        raise ConfigError(
            f"{wanted.feed}: nothing is known that {' and '.join(missing)} could read it by; give --account "
            f"{missing[0].partition(' ')[0]}=ADDRESS, or sources that have it (--primary, --verifiers, --references)"
        )
    table = tomlkit.table()
    for name, value in (
        ("primary", wanted.primary),
        ("verifiers", wanted.verifiers),
        ("references", wanted.references),
    ):
        if value is not None:
            table[name] = list(value) if isinstance(value, tuple) else value
    if accounts:
        table["accounts"] = accounts
    return table
