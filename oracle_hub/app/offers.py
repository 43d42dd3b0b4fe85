"""Where feeds can be read: the program's own tables of addresses, what a Hermes server lists, and what rules derive."""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

import aiohttp
import msgspec

from feeds.addresses import (
    ASSETS,
    PYTH_NEW_PUSH,
    PYTH_OLD_PUSH,
    doves_feed,
    pyth_legacy_price,
    pyth_push,
    redstone_price,
)
from feeds.evm_addresses import CHAINS
from feeds.layout import pad32
from feeds.registry import SOURCES, default_account
from oracle_hub.app.hosted import HOSTED, Host
from oracle_hub.clock import SystemClock
from oracle_hub.config import KINDS, SourceSection
from oracle_hub.core.source import Fetch
from oracle_hub.errors import DecodeError, SourceError
from oracle_hub.ingest.http import fetch_frame

MAX_ANSWER_BYTES = 32 << 20
"""A server's whole list has some thousands of feeds of half a kilobyte."""
TIMEOUT_MS = 10_000
HERMES = "pyth.hermes"
EVM = "chainlink.evm"
_NAME = re.compile(r"[A-Za-z0-9._+-]{1,40}/[A-Za-z0-9._+-]{1,40}")


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One way to read one feed."""

    feed: str
    kind: str
    """Of source, as in ``sources.NAME.kind``."""
    id: str
    """Account, or id at the oracle: what ``feeds.FEED.accounts.NAME`` takes."""
    origin: str
    """``known`` (a table of the program), ``hermes`` (a server lists it), or ``derived`` (a rule gives the address:
    whether the account exists is not known)."""
    asset_type: str
    description: str


class Listed(msgspec.Struct, frozen=True):
    """A feed that a Hermes server lists."""

    feed: str
    id: str
    asset_type: str
    description: str


class _Attributes(msgspec.Struct):
    """Those that are read; whatever else a server says of a feed is its own affair."""

    symbol: object = ""
    asset_type: object = ""
    description: object = ""


class _Metadata(msgspec.Struct):
    id: object = ""
    attributes: _Attributes | None = None


def known_offers() -> Iterator[Offer]:
    """Every address and id that the program knows by itself."""
    for feed in ASSETS:
        for kind in KINDS:
            hosted = HOSTED.get(kind)
            if hosted is None:
                places = {SOURCES[kind].summary: default_account(kind, feed)}
            elif kind == EVM:
                sections = {name: SourceSection(kind=kind, chain_id=chain_id) for chain_id, name in CHAINS.items()}
                places = {f"proxy on {name}": hosted.known_id(section, feed) for name, section in sections.items()}
            else:
                places = {hosted.an_id.partition(" (")[0]: hosted.known_id(SourceSection(kind=kind), feed)}
            for what, known in places.items():
                if known is not None:
                    text = f"{kind}: {what}"
                    yield Offer(feed=feed, kind=kind, id=known, origin="known", asset_type="crypto", description=text)


def offers_of(listed: Listed) -> Iterator[Offer]:
    """What a feed of Hermes is read by: the server itself, and the accounts that rules derive."""
    common = {"feed": listed.feed, "asset_type": listed.asset_type, "description": listed.description}
    yield Offer(kind=HERMES, id=listed.id, origin="hermes", **common)
    if listed.feed not in ASSETS:
        for kind in ("pyth.receiver", "pyth.legacy"):
            yield Offer(kind=kind, id=derived_id(kind, listed.feed, listed.id) or "", origin="derived", **common)


def known_id(section: SourceSection, feed: str) -> str | None:
    """What a source reads a feed by when the feed's configuration says nothing; None if it must say."""
    hosted = HOSTED.get(section.kind)
    if hosted is None:
        return default_account(section.kind, feed, receiver=section.receiver)
    return hosted.known_id(section, feed)


def derived_id(kind: str, feed: str, hermes_id: str | None, *, receiver: str = "new") -> str | None:
    """The address that a rule gives for a feed, from its name or from its id at Pyth; None where there is no rule.

    Nobody has said that the account exists.
    """
    symbol, _, quote = feed.partition("/")
    try:
        if kind == "pyth.receiver" and hermes_id is not None:
            return pyth_push(hermes_id, program=PYTH_OLD_PUSH if receiver == "old" else PYTH_NEW_PUSH)
        if kind == "pyth.legacy" and hermes_id is not None:
            return pyth_legacy_price(hermes_id)
        if quote != "USD":
            return None
        if kind == "doves.edge":
            return doves_feed(pad32(f"{symbol}USD"))
        if kind == "doves.lazer":
            return doves_feed(pad32(f"{symbol}USD-PYTH"))
        return redstone_price(symbol) if kind == "redstone" else None
    except (DecodeError, ValueError):  # a name too long for the rule
        return None


def matching(offers: Sequence[Offer], query: str, asset_type: str | None = None) -> list[Offer]:
    """The offers whose feed, kind, description or id contains the query, in any case."""
    wanted, kind = query.casefold(), (asset_type or "").casefold()
    return [
        one
        for one in offers
        if any(wanted in text.casefold() for text in (one.feed, one.kind, one.description, one.id))
        and (not kind or one.asset_type.casefold() == kind)
    ]


def is_feed_name(name: str) -> bool:
    """Whether a name can be a feed's, as in ``SOL/USD``."""
    return _NAME.fullmatch(name) is not None


async def listed_by(host: Host, query: str, asset_type: str | None = None) -> list[Listed]:
    """What a Hermes server lists: ``GET /v2/price_feeds``, which looks for the query within symbols.

    Raises:
        SourceError: no answer, or one that is no list. The message holds neither URL nor key.
    """
    parameters = {"query": query} | ({"asset_type": asset_type} if asset_type else {})
    url = f"{host.url.rstrip('/')}/v2/price_feeds?{urlencode(parameters)}"
    headers = {"Authorization": f"Bearer {host.key}"} if host.key else {}
    async with aiohttp.ClientSession() as session:
        fetch = Fetch("list", url, headers=headers, timeout_ms=TIMEOUT_MS)
        frame, _ = await fetch_frame(session, fetch, MAX_ANSWER_BYTES, SystemClock().wall_us)
    if frame.status != 200:
        said = " ".join(frame.data[:200].decode("utf-8", "replace").split())
        raise SourceError(f"Hermes: {f'HTTP {frame.status}' if frame.status else 'no answer'}: {said}")
    try:
        entries = msgspec.json.decode(frame.data, type=list[_Metadata])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"Hermes: no list of feeds: {error}") from None
    return [found for entry in entries if (found := _listed(entry)) is not None]


def _listed(entry: _Metadata) -> Listed | None:
    """``Crypto.SOL/USD`` is SOL/USD here, ``Equity.US.AAPL/USD`` is US.AAPL/USD; what is no pair is left out."""
    symbol, kind, description = (
        value if isinstance(value, str) else "" for value in msgspec.structs.astuple(entry.attributes or _Attributes())
    )
    prefix, _, name = symbol.partition(".")
    price_id = entry.id.lower().removeprefix("0x") if isinstance(entry.id, str) else ""
    if not is_feed_name(name) or not HOSTED[HERMES].accepts.fullmatch(price_id):
        return None
    return Listed(name, price_id, (kind or prefix).lower().replace(" ", "_"), description)
