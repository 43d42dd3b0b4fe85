"""The exchange's change of oracles, looked at once: what each custody names, old and new side by side.

Old is ``dovesOracle``, new is ``dovesAgOracle``. Which of them the hub would read is not guessed: the states are
shown to the reader that the hub itself has, and it says.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TypeAlias

import msgspec

from feeds.addresses import ASSETS, POOL, jupiter_custody, known_mint
from feeds.custody import CustodyReader
from feeds.doves import AgPriceFeedReader, PriceFeed, PriceFeedReader, doves_address
from feeds.jupiter import PROGRAM as PERPS
from feeds.jupiter import Custody
from feeds.layout import pubkey_text
from oracle_hub.app.accounts import AccountEndpoint
from oracle_hub.app.legacy import CUSTODY, legacy_accounts
from oracle_hub.app.lineup import addresses_of
from oracle_hub.config import KINDS, Config, Way, feed_roles, ways_of
from oracle_hub.core.price import divergence_bps
from oracle_hub.core.source import Account, Event, Malformed, PriceUpdate, Rewatch, Status
from oracle_hub.errors import DecodeError

_POOL = "doves.pool"
States: TypeAlias = Mapping[str, Account | None]


class Verdict(Enum):
    """Where a feed stands."""

    NEW = "new"
    """Custody names the new oracle, and it is live: done."""
    STALE = "stale"
    """The new oracle is read and older than its limit: the feed has no price from here, and no way back."""
    NOT_READY = "not_ready"
    """Custody names the new oracle, which cannot be read yet: the old one is."""
    OLD = "old"
    """Custody names no new oracle: the old one is read."""
    WRONG_ADDRESS = "wrong_address"
    """Custody names an account that its pair or token does not derive: look before you follow."""
    NO_PRICE = "no_price"
    """Neither can be read."""
    UNREADABLE = "unreadable"
    """The custody is none, or another token's."""
    UNKNOWN = "unknown"
    """No custody of this feed is known."""


class Oracle(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two accounts that a custody names."""

    address: str | None
    """None: custody does not name one."""
    derived: str | None
    """What pair or token derive; None where neither is known."""
    price: int | None = None
    """At the feed's exponent."""
    publish_us: int | None = None
    age_ms: int | None = None
    fault: str | None = None
    """Why there is no price."""

    @property
    def matches_derived(self) -> bool | None:
        """None where one of the two is not there to be compared."""
        return None if self.address is None or self.derived is None else self.address == self.derived


class FeedMigration(msgspec.Struct, frozen=True, kw_only=True):
    """A feed: its custody, both oracles, and what follows."""

    feed: str
    expo: int
    custody: str | None
    old: Oracle | None
    """None where no custody could be read."""
    new: Oracle | None
    apart_bps: float | None
    """How far the prices of both are apart."""
    reads: str | None
    """The account whose price the hub takes, following this custody."""
    verdict: Verdict
    text: str
    """The verdict in a line."""


async def examine(config: Config, endpoint: AccountEndpoint, now_us: int) -> list[FeedMigration]:
    """Look at every feed of a configuration.

    Args:
        config: whatever it reads now; a feed's custody is the one it follows, or the one behind its old oracle, or the
            known one.
        endpoint: of the right cluster.
        now_us: what ages are counted to.

    Raises:
        SourceError: the endpoint does not answer.
        ConfigError: a source has no address for one of its feeds.
    """
    custodies = custodies_of(config)
    states: dict[str, Account | None] = {}
    states |= await endpoint.read(list(dict.fromkeys(custody for custody in custodies.values() if custody)))
    decoded = {feed: _custody(feed, states.get(custody or "")) for feed, custody in custodies.items()}
    named = [key for custody in decoded.values() if isinstance(custody, Custody) for key in _named(custody) if key]
    states |= await endpoint.read(list(dict.fromkeys(named)))
    found = []
    for feed, address in custodies.items():
        custody = decoded[feed]
        if address is None:
            text = f"no custody is known: write it as feeds.{feed}.accounts of a source of kind {CUSTODY}"
            found.append(_unread(config, feed, None, Verdict.UNKNOWN, text))
        elif isinstance(custody, str):
            found.append(_unread(config, feed, address, Verdict.UNREADABLE, f"custody {address} {custody}"))
        else:
            found.append(_compared(config, feed, address, custody, states, now_us))
    return found


def custodies_of(config: Config) -> dict[str, str | None]:
    """The custody of each feed, None where nothing leads to one.

    Raises:
        ConfigError: a source has no address for one of its feeds.
    """
    mapped: dict[str, str | None] = {}
    for one in legacy_accounts(config):
        mapped.setdefault(one.feed, one.custody)  # the first way before further ones
    found: dict[str, str | None] = {}
    for feed, section in config.feeds.items():
        roles = feed_roles(config, section)
        custody = mapped.get(feed)
        for name, way in _followers(config, (roles.primary or "", *roles.verifiers, *roles.references)):
            address = addresses_of(config, name).get(feed)
            if feed not in mapped and custody is None and address is not None:
                kind, pool = way.section.kind, way.section.pool
                custody = address if kind == CUSTODY else jupiter_custody(pool or POOL, address)
        if feed not in mapped and custody is None and feed in ASSETS:
            custody = ASSETS[feed].custody
        found[feed] = custody
    return found


def _followers(config: Config, sources: Iterable[str]) -> list[tuple[str, Way]]:
    """The ways of these sources that follow a custody, in their order."""
    ways = ways_of(config).items()
    return [
        (name, way)
        for source in sources
        for name, way in ways
        if way.source == source and way.section.kind in (CUSTODY, _POOL)
    ]


def _custody(feed: str, account: Account | None) -> Custody | str:
    """What a custody says, or why it is none of this feed's."""
    if account is None:
        return "does not exist: check address and cluster"
    if account.owner != PERPS:
        return f"belongs to {account.owner}, not to the exchange's program {PERPS}"
    try:
        custody = Custody.decode(account.data)
    except DecodeError as error:
        return f"is none: {error}"
    mint = known_mint(feed)
    if mint is not None and custody.mint != mint:
        return f"holds the token {pubkey_text(custody.mint)}, not that of {feed}"
    return custody


def _named(custody: Custody) -> tuple[str | None, str | None]:
    """The old and the new oracle."""
    old, new = custody.doves_oracle, custody.doves_ag_oracle
    return (pubkey_text(old) if old is not None else None, pubkey_text(new) if new is not None else None)


def _unread(config: Config, feed: str, custody: str | None, verdict: Verdict, text: str) -> FeedMigration:
    return FeedMigration(
        feed=feed,
        expo=config.feeds[feed].expo,
        custody=custody,
        old=None,
        new=None,
        apart_bps=None,
        reads=None,
        verdict=verdict,
        text=text,
    )


def _compared(config: Config, feed: str, address: str, custody: Custody, states: States, now_us: int) -> FeedMigration:
    expo = config.feeds[feed].expo
    first, second = _named(custody)
    old = _old(feed, expo, first, states, now_us)
    new = _new(feed, expo, second, pubkey_text(custody.mint), states, now_us)
    reads = _what_the_hub_reads(feed, expo, address, pubkey_text(custody.mint), (second, first), states, now_us)
    max_age_ms = _max_age_ms(config, feed)
    verdict, text = _judge(old, new, reads, max_age_ms)
    return FeedMigration(
        feed=feed,
        expo=expo,
        custody=address,
        old=old,
        new=new,
        apart_bps=divergence_bps(old.price, new.price) if old.price is not None and new.price is not None else None,
        reads=reads,
        verdict=verdict,
        text=text,
    )


def _old(feed: str, expo: int, address: str | None, states: States, now_us: int) -> Oracle:
    asset = ASSETS.get(feed)
    if address is None:
        return Oracle(address=None, derived=asset.edge if asset else None, fault="custody names none")
    pairs = {feed: asset.edge_pair} if asset else None
    reader = PriceFeedReader("old", {feed: address}, {feed: expo}, pairs)
    return _oracle(reader, feed, address, states.get(address), now_us)


def _new(feed: str, expo: int, address: str | None, mint: str, states: States, now_us: int) -> Oracle:
    reader = AgPriceFeedReader("new", {feed: address or ""}, {feed: expo}, {feed: mint})
    if address is None:
        return Oracle(address=None, derived=_derived(reader, feed, None), fault="custody names none")
    return _oracle(reader, feed, address, states.get(address), now_us)


def _oracle(
    reader: PriceFeedReader | AgPriceFeedReader, feed: str, address: str, account: Account | None, now_us: int
) -> Oracle:
    derived = _derived(reader, feed, account)
    if account is None:
        return Oracle(address=address, derived=derived, fault="it does not exist")
    update, fault = _outcome(reader.read(account, "rpc", now_us))
    if update is None:
        return Oracle(address=address, derived=derived, fault=fault)
    age_ms = (now_us - update.publish_us) // 1_000
    return Oracle(address=address, derived=derived, price=update.mantissa, publish_us=update.publish_us, age_ms=age_ms)


def _derived(reader: PriceFeedReader | AgPriceFeedReader, feed: str, account: Account | None) -> str | None:
    """By the known pair or token; for a feed that is not known by the pair that the account itself holds."""
    derived = reader.describe(feed)["derived"]
    if isinstance(derived, list) and derived:
        return str(derived[0])
    try:
        return doves_address(PriceFeed.decode(account.data)) if account is not None else None
    except DecodeError:
        return None


def _outcome(events: Sequence[Event | Rewatch]) -> tuple[PriceUpdate | None, str]:
    update, fault = None, ""
    for event in events:
        if isinstance(event, PriceUpdate):
            update = event
        elif isinstance(event, Status):
            fault = event.text
        elif isinstance(event, Malformed):
            fault = event.reason
    return update, fault


def _what_the_hub_reads(
    feed: str, expo: int, custody: str, mint: str, oracles: Sequence[str | None], states: States, now_us: int
) -> str | None:
    """Show the states to the hub's own reader; the account of the last price that it took."""
    reader = CustodyReader("doves", {feed: custody}, {feed: expo}, {feed: mint})
    reads = None
    for address in (custody, *oracles):
        account = states.get(address or "")
        if address is None:
            continue
        events = reader.read(account, "rpc", now_us) if account else reader.missing(address, 0, "rpc", now_us)
        update, _ = _outcome(events)
        reads = update.account if update is not None else reads
    return reads


def _max_age_ms(config: Config, feed: str) -> int:
    """The limit of the source that follows the feed's custody; without one, the default of that kind."""
    section = config.feeds[feed]
    roles = feed_roles(config, section)
    for _, way in _followers(config, (roles.primary or "", *roles.verifiers, *roles.references)):
        return section.max_age_ms.get(way.source) or config.sources[way.source].age_ms
    return KINDS[CUSTODY].max_age_ms


def _judge(old: Oracle, new: Oracle, reads: str | None, max_age_ms: int) -> tuple[Verdict, str]:
    for one, name in ((new, "dovesAgOracle"), (old, "dovesOracle")):
        if one.matches_derived is False:
            text = f"{name} is {one.address}, and {one.derived} is derived: look before you follow this custody"
            return Verdict.WRONG_ADDRESS, text
    if reads is None:
        return Verdict.NO_PRICE, f"neither has a price: old: {old.fault}; new: {new.fault}"
    if reads == new.address:
        age_ms = new.age_ms or 0
        if age_ms > max_age_ms:
            limit = f"limit {max_age_ms / 1000:g} s"
            return Verdict.STALE, f"the new oracle has stood still for {age_ms / 1000:.0f} s ({limit}); no way back"
        return Verdict.NEW, f"the new oracle is live and read; {_state(old, max_age_ms)}"
    if new.address is None:
        return Verdict.OLD, f"custody names no new oracle: the old one is read; {_state(old, max_age_ms)}"
    why = new.fault or "its price is older than the old one's"
    return Verdict.NOT_READY, f"the new oracle cannot be read yet ({why}): the old one is; {_state(old, max_age_ms)}"


def _state(old: Oracle, max_age_ms: int) -> str:
    if old.price is None:
        return f"the old one has no price ({old.fault})"
    age_ms = old.age_ms or 0
    if age_ms > max_age_ms:
        return f"the old one has stood still for {age_ms / 1000:.0f} s"
    return "the old one is live too"
