"""Configurations from before the migration: an old oracle's account as primary, mapped to the custody that names it.

An old account (``dovesOracle``) goes on existing when the exchange has left it, with a price that stands still. A
custody is followed to whatever it names. A feed of such a configuration goes on working; it is pointed out, and
rewritten when that is asked for.
"""

import contextlib
import os
import shutil
from pathlib import Path

import msgspec
import tomlkit

from feeds.addresses import asset_of
from oracle_hub.app.lineup import addresses_of, all_addresses, readers_of
from oracle_hub.app.mapped import successor_of
from oracle_hub.config import Config, FeedSection, feed_roles, parse_config, ways_of
from oracle_hub.errors import ConfigError

CUSTODY = "doves.custody"
_EDGE = "doves.edge"
_MAPPED_KINDS = frozenset({_EDGE, "doves.aggregate", CUSTODY})
_MAPPED_ROLES = frozenset({"edge", "ag", "custody"})
_MAX_BACKUPS = 1_000


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """A feed whose primary reads a price account by its address, and the custody to be followed instead."""

    feed: str
    source: str
    kind: str
    """Of the source, as it is."""
    address: str
    """What it reads."""
    old: bool
    """It is an old oracle; else it stands here because its source reads another feed's old one."""
    written: bool
    """The address is in the configuration; else it is the known one."""
    custody: str | None
    """None where it is not known, or would be another feed's."""
    why: str = ""
    """Why there is no custody to map it to."""
    way: str = ""
    """Of the source; empty for the first one."""

    @property
    def key(self) -> str:
        """The key that names the account."""
        return _account_key(self.feed, self.source, self.way)

    @property
    def text(self) -> str:
        """The warning, in a line."""
        reads = successor_of(self.kind, self.feed, self.address)
        if reads is not None:
            return _read_as(self.key, self.address, reads)
        named = f"{self.key}: {self.address} is an old oracle (dovesOracle), which the exchange may have left"
        return f"{named}; follow custody {self.custody}" if self.custody is not None else f"{named}; {self.why}"


def legacy_notes(config: Config) -> dict[str, tuple[str, ...]]:
    """Per feed and in words: addresses of accounts that were replaced, and what is read in their place.

    Raises:
        ConfigError: a source has no address for one of its feeds.
    """
    found: dict[str, list[str]] = {}
    for one in legacy_accounts(config):
        if one.old:
            found.setdefault(one.feed, []).append(one.text)
    said = {one.key for one in legacy_accounts(config) if one.old}
    for way in ways_of(config).values():
        for feed, section in config.feeds.items():
            address = way.accounts.get(feed) if way.way else section.accounts.get(way.source)
            reads = successor_of(way.section.kind, feed, address) if address is not None else None
            key = _account_key(feed, way.source, way.way)
            if address is not None and reads is not None and key not in said and way.source in _asked(config, section):
                found.setdefault(feed, []).append(_read_as(key, address, reads))
    return {feed: tuple(lines) for feed, lines in found.items()}


def _account_key(feed: str, source: str, way: str) -> str:
    return f"sources.{source}.ways.{way}.accounts.{feed}" if way else f"feeds.{feed}.accounts.{source}"


def _asked(config: Config, section: FeedSection) -> tuple[str | None, ...]:
    roles = feed_roles(config, section)
    return (roles.primary, *roles.verifiers, *roles.references)


def _read_as(key: str, address: str, reads: str) -> str:
    known = asset_of(address)
    what = "an old oracle (dovesOracle)" if known is not None and known[1] == "edge" else "not what this kind reads"
    return f"{key}: {address} is {what}; {reads} is read in its place"


def legacy_accounts(config: Config) -> list[Mapping]:
    """Feeds whose primary names an old oracle by one of its ways, and those that share this way with them.

    Edge's own account as a further way is none: beside Edge's API it is the same oracle.

    Raises:
        ConfigError: a source has no address for one of its feeds.
    """
    found = []
    for name, way in ways_of(config).items():
        kind = way.section.kind
        if kind not in _MAPPED_KINDS or (way.way and kind == _EDGE):
            continue
        addresses = addresses_of(config, name)
        for feed, section in config.feeds.items():
            given = way.accounts.get(feed) if way.way else section.accounts.get(name)
            address = given or addresses.get(feed)
            if feed_roles(config, section).primary != way.source or address is None:
                continue
            custody, why, role = _custody_of(feed, address)
            found.append(
                Mapping(
                    feed=feed,
                    source=way.source,
                    kind=kind,
                    address=address,
                    old=kind == _EDGE or role == "edge",
                    written=given is not None,
                    custody=custody,
                    why=why,
                    way=way.way,
                )
            )
    concerned = {(one.source, one.way) for one in found if one.old}
    return [one for one in found if (one.source, one.way) in concerned and one.address != one.custody]


def _custody_of(feed: str, address: str) -> tuple[str | None, str, str | None]:
    """The custody behind an oracle's address, why there is none, and what the address is known as."""
    known = asset_of(address)
    if known is None or known[1] not in _MAPPED_ROLES:
        return None, "no custody of it is known: write the custody's address and kind doves.custody", None
    asset, role = known
    if asset.feed != feed:
        return None, f"it belongs to {asset.feed}, not to {feed}: correct the address", role
    return asset.custody, "", role


def rewritten(text: str, config: Config, mappings: list[Mapping], *, origin: str) -> tuple[str, list[str]]:
    """The text of a configuration with old oracles mapped to custodies: everything else stays, comments and order too.

    Args:
        text: the configuration, as it is.
        config: what it says.
        mappings: from :func:`legacy_accounts`.
        origin: the file, for messages.

    Returns:
        The new text, which is valid, and each change in a line.

    Raises:
        ConfigError: a feed cannot be mapped, or the result would not be valid. The message says what to do by hand.
    """
    document = tomlkit.parse(text)
    changes: list[str] = []
    for one in mappings:
        if one.custody is None:
            raise ConfigError(f"{origin}: {one.text}")
    for source, way, kind in dict.fromkeys((one.source, one.way, one.kind) for one in mappings):
        if kind != CUSTODY:
            _refuse_other_roles(config, source, origin)
            section = document["sources"][source]["ways"][way] if way else document["sources"][source]
            section["kind"] = CUSTODY
            changes.append(f"sources.{source}.{f'ways.{way}.' if way else ''}kind: {kind} -> {CUSTODY}")
    for one in mappings:
        if one.written and one.way:
            document["sources"][one.source]["ways"][one.way]["accounts"][one.feed] = one.custody
        elif one.written:
            document["feeds"][one.feed]["accounts"][one.source] = one.custody
        if one.written:
            changes.append(f"{one.key}: {one.address} -> {one.custody}")
    result = tomlkit.dumps(document)
    after = parse_config(result, origin=f"{origin}, rewritten")
    all_addresses(after)
    readers_of(after)
    return result, changes


def _refuse_other_roles(config: Config, source: str, origin: str) -> None:
    """Whoever lets Edge's own leg verify another feed means that leg."""
    for feed, section in config.feeds.items():
        roles = feed_roles(config, section)
        if source in (*roles.verifiers, *roles.references):
            raise ConfigError(
                f"{origin}: sources.{source} is a primary's old oracle and also compared for {feed}: give the feeds "
                f'where it is primary a source of their own of kind "{CUSTODY}", by hand'
            )


def write_config(path: Path, text: str) -> Path:
    """Replace a configuration in one step, keeping what was there beside it. Returns where that is kept.

    Raises:
        ConfigError: it cannot be written; the configuration is then as it was.
    """
    path = path.resolve()
    fresh = path.with_name(f".{path.name}.new")
    try:
        backup = _backup(path)
        with fresh.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, fresh)
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise ConfigError(f"{path}: cannot be rewritten ({error.strerror}); it is as it was") from None
    return backup


def _backup(path: Path) -> Path:
    """Copy a file to ``NAME.bak``, or ``NAME.bak.2`` and so on: no backup is ever overwritten."""
    for number in range(1, _MAX_BACKUPS + 1):
        backup = path.with_name(f"{path.name}.bak" if number == 1 else f"{path.name}.bak.{number}")
        try:
            with backup.open("xb") as file:
                file.write(path.read_bytes())
        except FileExistsError:
            continue
        shutil.copystat(path, backup)
        return backup
    raise ConfigError(f"{path}: has {_MAX_BACKUPS} backups beside it; remove some")
