"""Manifests of tapes: which column of a recorded series is which feed, by which oracle, in which unit of time.

A tape is looked up in this order: the manifest that is named; ``FILE.toml`` beside the tape; a shipped manifest of the
same name; a shipped one that lists the file by a pattern; a shipped one whose header is the tape's, or is contained in
it. Shipped manifests are in ``feeds/emulator/tapes``. The tapes themselves are other people's data and are not.
"""

import re
import tomllib
from collections.abc import Collection
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from feeds.addresses import ASSETS
from oracle_hub.errors import ConfigError, in_words

SHIPPED = Path(__file__).parent / "tapes"
Unit: TypeAlias = Literal["s", "ms", "us", "ns"]
UNIT_DIGITS: dict[Unit, int] = {"s": 6, "ms": 3, "us": 0, "ns": -3}
"""Powers of ten from a unit to microseconds."""


class SeriesSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column, and what it plays."""

    sources: tuple[str, ...]
    """Oracles or groups of them (see ``oracles``) that publish this series: roles that it plays."""
    price: str
    """Column of the price: decimal text, or an integer that ``price_expo`` scales."""
    price_expo: int = 0
    time: str
    """Column of the observation's unix time. Unit: its suffix (``_s``, ``_ms``, ``_us``, ``_ns``), or ``unit``."""
    unit: Unit | None = None
    feed: str | None = None
    """``BTC/USD``; absent: read from the file's name, else from its first comment."""
    feed_from: str | None = None
    """Column that names the feed of each row (``BTC/USD``, ``btc-usd``, ``BTCUSD``); other rows are left out."""
    receive: str | None = None
    """Column of the time at which the observation was seen; absent: at once."""
    receive_unit: Unit | None = None
    receive_lag: str | None = None
    """Column of the delay until it was seen, with the unit in its suffix or ``receive_unit``."""
    conf: str | None = None
    """Column of the confidence; absent: 3.26 bps of the price where the wire wants one (an assumption)."""
    where: dict[str, str] = {}
    """Rows that count: column and the text that it must hold."""
    shift_ms: int = 0
    """Added to the time: 60000 for the close of a bar of one minute that is stamped with its opening."""
    republish_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    """The value is published again this often until the next one, as an oracle with a heartbeat does; 0: never."""
    republish_for_s: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)] = 0
    """For how long at most: a longer gap in the data stays a gap."""
    note: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file's columns and the roles that they play."""

    title: str
    series: tuple[SeriesSpec, ...]
    files: tuple[str, ...] = ()
    """Patterns of file names (``*_trades.csv``)."""
    header: tuple[str, ...] = ()
    """The exact header by which an unknown file is recognised."""


def load_manifest(path: Path, feeds: Collection[str] = tuple(ASSETS)) -> Manifest:
    """Read a manifest that may name these feeds.

    Raises:
        ConfigError: one line that names the file, the key, and what it accepts.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        manifest = msgspec.convert(raw, Manifest)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such manifest") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{path}: not a manifest of a tape: {in_words(error)}") from None
    if not manifest.series:
        raise ConfigError(f"{path}: no [[series]]: nothing of the tape would be played")
    for spec in manifest.series:
        if not spec.sources:
            raise ConfigError(f"{path}: sources is empty: nothing would play the column {spec.price!r}")
        if spec.feed is not None and spec.feed not in feeds:
            raise ConfigError(
                f"{path}: unknown feed {spec.feed!r}; known: {', '.join(ASSETS)}, and the feeds of the configuration"
            )
        if 0 < spec.republish_ms < 1_000:
            raise ConfigError(f"{path}: republish_ms = {spec.republish_ms}: the wires carry seconds; 1000 at least")
    return manifest


def shipped_manifests() -> dict[str, Manifest]:
    """All manifests that come with the package, by name."""
    return {path.stem: load_manifest(path) for path in sorted(SHIPPED.glob("*.toml"))}


def find_manifest(
    tape: Path, header: tuple[str, ...], named: Path | None = None, feeds: Collection[str] = tuple(ASSETS)
) -> tuple[Manifest, str]:
    """The manifest of a tape, and where it was found.

    ``named`` is a file, or the name of a shipped manifest; ``feeds`` are those that one may name.

    Raises:
        ConfigError: there is none; the line says how to write one.
    """
    if named is not None:
        shipped = SHIPPED / f"{named.name.removesuffix('.toml')}.toml"
        path = shipped if not named.exists() and named.parent == Path() and shipped.exists() else named
        return load_manifest(path, feeds), str(path.name)
    beside = tape.with_name(f"{tape.name}.toml")
    for path in (beside, tape.with_suffix(".toml")):
        if path.exists():
            return load_manifest(path, feeds), path.name
    known = shipped_manifests()
    if tape.stem in known:
        return known[tape.stem], f"shipped: {tape.stem}"
    for name, manifest in known.items():
        if any(fnmatch(tape.name, pattern) for pattern in manifest.files):
            return manifest, f"shipped: {name}"
    for name, manifest in known.items():
        if manifest.header == header:
            return manifest, f"shipped: {name}, by its header"
    wider = [name for name, manifest in known.items() if _covers(header, manifest.header)]
    if wider:
        name = max(wider, key=lambda one: len(known[one].header))
        return known[name], f"shipped: {name}, by the columns of its header"
    raise ConfigError(
        f'{tape.name}: no manifest for this tape; write {beside.name} beside it: title = "…" and for each column '
        f'[[series]] feed = "BTC/USD", sources = ["doves", "chainlink", "pyth"], price = COLUMN, time = COLUMN '
        f"(columns here: {', '.join(header)}; see docs/emulator.md)"
    )


_TELLS_ROWS_APART = frozenset({"exchange", "feed", "market", "oracle", "pair", "source", "symbol", "venue"})


def _covers(header: tuple[str, ...], known: tuple[str, ...]) -> bool:
    """Whether a tape has all columns of a known kind, and no further one that would tell its rows apart."""
    return bool(known) and set(known) <= set(header) and not (set(header) - set(known)) & _TELLS_ROWS_APART


_PAIR = re.compile(
    r"(?<![a-z0-9])(sol|btc|eth|usdc|usdt)[-_/ ]?(usd|usdt|usdc)(?:\W|_|$)",
    re.IGNORECASE,
)


def feed_in_text(text: str) -> str | None:
    """The feed that a text names (``oct10_gemini_btcusd_trades``, ``BTC-USD``), with USDT or USDC taken for USD; or
    None when it names none, or more than one."""
    found = {f"{match[1].upper()}/USD" for match in _PAIR.finditer(text.replace("_", " "))}
    return found.pop() if len(found) == 1 else None


def row_feed(text: str, feeds: Collection[str] = tuple(ASSETS)) -> str | None:
    """The feed that a row's own column names: quoted as the feed is and in nothing else."""
    return _by_letters(tuple(feeds)).get(re.sub(r"[^A-Z0-9]", "", text.upper()))


@lru_cache(maxsize=4)
def _by_letters(feeds: tuple[str, ...]) -> dict[str, str]:
    return {re.sub(r"[^A-Z0-9]", "", feed.upper()): feed for feed in reversed(feeds)}
