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
from oracle_hub.config import Config, FeedSection, feed_roles, parse_config
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

    @property
    def key(self) -> str:
        """The key that names the account."""
        return f"feeds.{self.feed}.accounts.{self.source}"

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
    found: dict[str, list[str]] = {one.feed: [one.text] for one in legacy_accounts(config) if one.old}
    primaries = {(one.feed, one.source) for one in legacy_accounts(config) if one.old}
    for feed, section in config.feeds.items():
        for source, address in section.accounts.items():
            reads = successor_of(config.sources[source].kind, feed, address)
            if reads is not None and (feed, source) not in primaries and source in _asked(config, section):
                found.setdefault(feed, []).append(_read_as(f"feeds.{feed}.accounts.{source}", address, reads))
    return {feed: tuple(lines) for feed, lines in found.items()}


def _asked(config: Config, section: FeedSection) -> tuple[str | None, ...]:
    roles = feed_roles(config, section)
    return (roles.primary, *roles.verifiers, *roles.references)


def _read_as(key: str, address: str, reads: str) -> str:
    known = asset_of(address)
    what = "an old oracle (dovesOracle)" if known is not None and known[1] == "edge" else "not what this kind reads"
    return f"{key}: {address} is {what}; {reads} is read in its place"


def legacy_accounts(config: Config) -> list[Mapping]:
    """Feeds whose primary names an old oracle, and those that share a source with them.

    Raises:
        ConfigError: a source has no address for one of its feeds.
    """
    found = []
    addresses: dict[str, dict[str, str]] = {}
    for feed, section in config.feeds.items():
        source = feed_roles(config, section).primary
        assert source is not None  # checked when the configuration was read
        kind = config.sources[source].kind
        if kind not in _MAPPED_KINDS:
            continue
        if source not in addresses:
            addresses[source] = addresses_of(config, source)
        address = section.accounts.get(source) or addresses[source][feed]
        custody, why, role = _custody_of(feed, address)
        found.append(
            Mapping(
                feed=feed,
                source=source,
                kind=kind,
                address=address,
                old=kind == _EDGE or role == "edge",
                written=source in section.accounts,
                custody=custody,
                why=why,
            )
        )
    concerned = {one.source for one in found if one.old}
    return [one for one in found if one.source in concerned and one.address != one.custody]


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
    for source in dict.fromkeys(one.source for one in mappings):
        kind = config.sources[source].kind
        if kind != CUSTODY:
            _refuse_other_roles(config, source, origin)
            document["sources"][source]["kind"] = CUSTODY
            changes.append(f"sources.{source}.kind: {kind} -> {CUSTODY}")
    for one in mappings:
        if one.written:
            document["feeds"][one.feed]["accounts"][one.source] = one.custody
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
