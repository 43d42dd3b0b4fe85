"""The ``doves`` source: whatever oracle account the exchange's custody names, followed while it changes.

A custody names an old oracle (``dovesOracle``, Edge's own PriceFeed) and, since April 2025, a new one
(``dovesAgOracle``, an aggregate). The new one is read as soon as it has a price; until then the old one is, and the
reader says so. Once the new one had a price there is no way back: an aggregate that falls silent is stale, and a
stale price is no reason to believe another account that the exchange no longer looks at.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import ClassVar, TypeAlias

from feeds.addresses import known_mint, known_pair
from feeds.doves import PROGRAM as DOVES
from feeds.doves import (
    AgLegs,
    AgLimits,
    AgMemory,
    AgPriceFeed,
    PriceFeed,
    check_mint,
    doves_address,
)
from feeds.jupiter import PROGRAM as PERPS
from feeds.jupiter import Custody, Pool
from feeds.layout import pubkey_bytes, pubkey_text
from feeds.reader import CANONICAL_EXPO, Refused, foreign_owner, missing_account, normalise
from feeds.slots import SlotOrder
from oracle_hub.core.source import Account, Condition, Event, Malformed, PriceUpdate, Rewatch, Status
from oracle_hub.errors import ConfigError, DecodeError

_DOVES = frozenset({DOVES})
_PERPS = frozenset({PERPS})
Out: TypeAlias = list[Event | Rewatch]


class _Line:
    """What one feed is read from now, and what it will be read from next."""

    __slots__ = (
        "active",
        "ag_live",
        "custody",
        "custody_slots",
        "expo",
        "fallback",
        "feed",
        "mint",
        "pending",
        "pending_is_ag",
        "published_us",
        "said",
        "seen",
    )

    def __init__(self, feed: str, custody: str | None, expo: int, mint: bytes | None) -> None:
        self.feed = feed
        self.custody = custody
        self.expo = expo
        self.mint = mint
        self.custody_slots = SlotOrder()
        """Slots of the custody states that were followed: a lagging node's older one is not."""
        self.active: str | None = None
        """The account that updates come from."""
        self.pending: str | None = None
        """The account that custody names, while it has no price yet."""
        self.pending_is_ag = False
        self.fallback: str | None = None
        """The old oracle, for as long as the new one never had a price."""
        self.ag_live = False
        """The new oracle had a price once."""
        self.published_us = 0
        """Latest publish time that was handed on, not believed beyond its receipt."""
        self.said = ""
        """What was last said of a pending account: not to be repeated with each state of it."""
        self.seen: PriceFeed | AgPriceFeed | None = None
        """The latest state of the active account."""

    def watched(self) -> Iterable[str]:
        return (address for address in (self.custody, self.active, self.pending) if address is not None)


def decode_doves(account: Account) -> PriceFeed | AgPriceFeed:
    """Read either kind of Doves account, by its discriminator.

    Raises:
        DecodeError: another owner, another discriminator, or too short.
    """
    if account.owner != DOVES:
        raise foreign_owner("doves.price_feed or doves.ag_price_feed", account, _DOVES)
    if account.data[:8] == PriceFeed.DISCRIMINATOR:
        return PriceFeed.decode(account.data)
    return AgPriceFeed.decode(account.data)


class CustodyReader:
    """Prices by custody: what the exchange itself would read.

    Args:
        source: the name under which its updates go.
        custodies: address of the custody by feed.
        expos: canonical exponent by feed; -8 where absent.
        mints: token (base58) that custody and aggregate must name, by feed; the known one where absent.

    Raises:
        ConfigError: two feeds name the same custody.
    """

    CONFIGURED: ClassVar[frozenset[str]] = frozenset({"source", "_pairs", "_accounts", "_moved"})

    def __init__(
        self,
        source: str,
        custodies: Mapping[str, str],
        expos: Mapping[str, int] | None = None,
        mints: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        given = {feed: pubkey_bytes(mint) for feed, mint in (mints or {}).items()}
        self._lines = {
            feed: _Line(feed, custody, (expos or {}).get(feed, CANONICAL_EXPO), given.get(feed) or known_mint(feed))
            for feed, custody in custodies.items()
        }
        if len(set(custodies.values())) != len(custodies):
            raise ConfigError(f"source {source}: two feeds name the same custody")
        self._memory = AgMemory()
        self._pairs: dict[str, bytes | None] = {}
        """Pair that an old oracle must hold, by address: deriving it takes too long to be done for each update."""
        self._by_address: dict[str, tuple[_Line, ...]] = {}
        self._accounts: frozenset[str] | None = None
        """Of :meth:`accounts`; None where it has to be worked out again."""
        self._moved: set[str] = set()
        """Addresses that came or went since somebody asked; none between two frames."""
        self._index()
        self._moved.clear()
        self._accounts = None

    def limits_of(self, feed: str) -> AgLimits | None:
        """Limits of the aggregate that a feed is read from; None where it is read from none."""
        return self._memory.limits_of(feed)

    def legs_of(self, feed: str) -> AgLegs | None:
        """Accounts that the aggregate of a feed is made of; None where it is read from none."""
        return self._memory.legs_of(feed)

    def accounts(self) -> frozenset[str]:
        """Custodies, and the oracle accounts that they led to so far."""
        if self._accounts is None:
            self._accounts = self._own_accounts() | self._by_address.keys()
        return self._accounts

    def drain_moved(self) -> set[str]:
        """Hand over the addresses that came to :meth:`accounts` or went since the last time, for those who watch."""
        moved, self._moved = self._moved, set()
        return moved

    def read(self, account: Account, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """Take a state of a custody or of an oracle account; nothing for an account that was left."""
        out: Out = []
        for line in self._by_address.get(account.pubkey, ()):
            if account.pubkey == line.custody:
                self._read_custody(line, account, transport, received_us, out)
            else:
                self._read_oracle(line, account, transport, received_us, out)
        return out

    def missing(self, pubkey: str, slot: int, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """Take the news that a custody or an oracle account does not exist."""
        out: Out = []
        for line in self._by_address.get(pubkey, ()):
            kind = "jupiter.custody" if pubkey == line.custody else "doves"
            status = missing_account(self.source, line.feed, kind, pubkey, slot, transport, received_us)
            if pubkey == line.pending:
                self._not_ready(line, "it does not exist", status, transport, received_us, out)
            else:
                out.append(status)
        return out

    def describe(self, feed: str) -> dict[str, object]:
        """What a feed is read from, for ``explain``.

        ``account`` is the one read, or waited for; ``pending`` the one that custody names and that has no price yet;
        ``matches_derived`` whether the address is the one that its pair or token derives.

        Raises:
            KeyError: no such feed here.
        """
        line = self._lines[feed]
        account = line.active or line.pending
        derived = [doves_address(line.seen)] if line.seen is not None else []
        return {
            "account": account,
            "kind": line.seen.KIND if line.seen is not None else None,
            "custody": line.custody,
            "pending": line.pending if line.active is not None else None,
            "derived": derived,
            "matches_derived": account in derived,
        }

    # -- custody

    def _read_custody(self, line: _Line, account: Account, transport: str, received_us: int, out: Out) -> None:
        try:
            if line.custody_slots.outdated(transport, account.slot):
                return
            custody = self._custody(account)
        except DecodeError as error:
            reason = f"{account.pubkey}: {error}"
            out.append(Malformed(self.source, transport, line.feed, reason, received_us))
            return
        if line.mint is not None and custody.mint != line.mint:
            text = f"custody {account.pubkey} holds the token {pubkey_text(custody.mint)}, not that of {line.feed}"
            out.append(self._status(line, Condition.INVALID, text, transport, received_us))
            return
        line.custody_slots.note(transport, account.slot)
        before = tuple(line.watched())
        self._follow(line, custody, transport, received_us, out)
        self._reindex(line, before, out)

    def _custody(self, account: Account) -> Custody:
        if account.owner != PERPS:
            raise foreign_owner(Custody.KIND, account, _PERPS)
        return Custody.decode(account.data)

    def _follow(self, line: _Line, custody: Custody, transport: str, received_us: int, out: Out) -> None:
        """Take over what custody names."""
        new = pubkey_text(custody.doves_ag_oracle) if custody.doves_ag_oracle is not None else None
        old = pubkey_text(custody.doves_oracle) if custody.doves_oracle is not None else None
        line.fallback = old if new is not None and not line.ag_live else None
        target = new or old
        if target is None or (new is None and line.ag_live):
            line.pending = None
            if line.active is None:
                text = f"custody {line.custody} names no oracle"
                out.append(self._status(line, Condition.INVALID, text, transport, received_us))
            else:
                text = f"custody {line.custody} names no aggregate any more: staying with {line.active}"
                self._say(line, text, transport, received_us, out)
        elif target == line.active:
            line.pending = None
            line.ag_live = line.ag_live or new is not None
        elif target != line.pending:
            line.pending, line.pending_is_ag = target, new is not None
            if line.active is not None:
                text = f"custody {line.custody} names {target}: reading {line.active} until that has a price"
                self._say(line, text, transport, received_us, out)

    # -- oracle accounts

    def _read_oracle(self, line: _Line, account: Account, transport: str, received_us: int, out: Out) -> None:
        fault: Event
        try:
            state = decode_doves(account)
            self._check(line, state, account)
            observation = (state.price, state.expo, state.timestamp, None)
            update = normalise(self.source, line.feed, line.expo, observation, account, transport, received_us)
        except DecodeError as error:
            fault = Malformed(self.source, transport, line.feed, f"{account.pubkey}: {error}", received_us)
            self._fault(line, account, fault, str(error), transport, received_us, out)
        except Refused as refused:
            fault = self._status(line, refused.condition, str(refused), transport, received_us)
            self._fault(line, account, fault, str(refused), transport, received_us, out)
        else:
            self._take(line, account, state, update, out)

    def _check(self, line: _Line, state: PriceFeed | AgPriceFeed, account: Account) -> None:
        if isinstance(state, AgPriceFeed):
            check_mint(line.feed, state, line.mint, account)
            return
        if account.pubkey not in self._pairs:
            self._pairs[account.pubkey] = known_pair(line.feed, account.pubkey)
        expected = self._pairs[account.pubkey]
        if expected is not None and state.pair != expected:
            raise Refused(Condition.INVALID, f"{account.pubkey} holds another pair than that of {line.feed}")

    def _fault(
        self, line: _Line, account: Account, fault: Event, reason: str, transport: str, received_us: int, out: Out
    ) -> None:
        if account.pubkey == line.pending:
            self._not_ready(line, reason, fault, transport, received_us, out)
        else:
            out.append(fault)

    def _take(
        self, line: _Line, account: Account, state: PriceFeed | AgPriceFeed, update: PriceUpdate, out: Out
    ) -> None:
        """Hand a price on, changing to the new account when it is the first one from there."""
        promoted = account.pubkey == line.pending
        before = tuple(line.watched()) if promoted else ()
        if promoted:
            if update.publish_us < line.published_us:
                reason = f"its price is older than what {line.active} gave"
                self._not_ready(line, reason, None, update.transport, update.received_us, out)
                return
            left, line.active, line.pending = line.active, line.pending, None
            line.ag_live = line.ag_live or line.pending_is_ag
            line.fallback = None if line.ag_live else line.fallback
            if left is not None:
                text = f"now reading {line.active}, as custody {line.custody} says, instead of {left}"
                self._say(line, text, update.transport, update.received_us, out)
        line.seen = state
        line.published_us = max(line.published_us, min(update.publish_us, update.received_us))
        if isinstance(state, AgPriceFeed):
            self._memory.note(state, update)
        out.append(update)
        if promoted:
            self._reindex(line, before, out)

    def _not_ready(
        self, line: _Line, reason: str, fault: Event | None, transport: str, received_us: int, out: Out
    ) -> None:
        """The account that custody names has no price: keep the old one, and say so once."""
        if line.active is None and line.fallback is not None and line.pending_is_ag:
            before = tuple(line.watched())
            line.active = line.fallback
            self._reindex(line, before, out)
        if isinstance(fault, Malformed) or (fault is not None and line.active is None):
            out.append(fault)
        if line.active is not None:
            text = f"{line.pending}, which custody {line.custody} names, is not ready ({reason}): reading {line.active}"
            self._say(line, text, transport, received_us, out)

    # -- bookkeeping

    def _status(self, line: _Line, condition: Condition, text: str, transport: str, received_us: int) -> Status:
        return Status(self.source, transport, line.feed, condition, text, received_us)

    def _say(self, line: _Line, text: str, transport: str, received_us: int, out: Out) -> None:
        if text != line.said:
            line.said = text
            out.append(self._status(line, Condition.CHANGED, text, transport, received_us))

    def _index(self, out: Out | None = None) -> None:
        """Work out anew who watches what; add Rewatch when the set of accounts changed."""
        before = self.accounts()
        by_address: dict[str, tuple[_Line, ...]] = {}
        for line in self._lines.values():
            for address in line.watched():
                by_address[address] = (*by_address.get(address, ()), line)
        self._by_address, self._accounts = by_address, None
        self._tell_moved(before ^ self.accounts(), out)

    def _reindex(self, line: _Line, before: tuple[str, ...], out: Out) -> None:
        """The same for one of thousands, which watched other addresses ``before``."""
        after = dict.fromkeys(line.watched())
        moved = set()
        for address in {*before, *after}:
            lines = [other for other in self._by_address.get(address, ()) if other is not line]
            if not lines and (address in after) is not (address in before):
                moved.add(address)
            if address in after:
                lines.append(line)
            if len(lines) > 1:  # as :meth:`_index` has them
                order = list(self._lines.values())
                lines.sort(key=order.index)
            if lines:
                self._by_address[address] = tuple(lines)
            else:
                del self._by_address[address]
        self._tell_moved(moved - self._own_accounts(), out)

    def _tell_moved(self, moved: Set[str], out: Out | None) -> None:
        if moved:
            self._accounts = None
            self._moved |= moved
            if out is not None:
                out.append(Rewatch())

    def _own_accounts(self) -> frozenset[str]:
        """Addresses to watch beside those of the feeds."""
        return frozenset()


class PoolReader(CustodyReader):
    """Prices by pool: its custodies are found by their tokens, then read as :class:`CustodyReader` does.

    Args:
        source: the name under which its updates go.
        pool: address of the pool.
        mints: token (base58) by feed.
        expos: canonical exponent by feed; -8 where absent.

    Raises:
        ConfigError: two feeds name the same token.
    """

    CONFIGURED: ClassVar[frozenset[str]] = CustodyReader.CONFIGURED | {"_pool"}

    def __init__(
        self, source: str, pool: str, mints: Mapping[str, str], expos: Mapping[str, int] | None = None
    ) -> None:
        self._pool = pool
        self._pool_slots = SlotOrder()
        self._unknown: set[str] = set()
        """Custodies of the pool whose token is not known yet."""
        self._others: set[str] = set()
        """Custodies of tokens that no feed asks for."""
        super().__init__(source, {}, expos, mints)
        for feed, mint in mints.items():
            line = _Line(feed, None, (expos or {}).get(feed, CANONICAL_EXPO), pubkey_bytes(mint))
            self._lines[feed] = line
        if len(set(mints.values())) != len(mints):
            raise ConfigError(f"source {source}: two feeds name the same token")

    def read(self, account: Account, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """Take a state of the pool, of a custody or of an oracle account."""
        out: Out = []
        if account.pubkey == self._pool:
            self._read_pool(account, transport, received_us, out)
            return out
        if account.pubkey in self._unknown:
            self._claim(account, transport, received_us, out)
        out.extend(super().read(account, transport, received_us))
        return out

    def missing(self, pubkey: str, slot: int, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """Take the news that the pool, a custody or an oracle account does not exist."""
        if pubkey == self._pool or pubkey in self._unknown:
            text = f"account {pubkey} does not exist at slot {slot}: check address and cluster"
            return [Status(self.source, transport, None, Condition.MISSING_ACCOUNT, text, received_us)]
        return super().missing(pubkey, slot, transport, received_us)

    def _read_pool(self, account: Account, transport: str, received_us: int, out: Out) -> None:
        try:
            if self._pool_slots.outdated(transport, account.slot):
                return
            if account.owner != PERPS:
                raise foreign_owner(Pool.KIND, account, _PERPS)
            pool = Pool.decode(account.data)
        except DecodeError as error:
            out.append(Malformed(self.source, transport, None, f"{account.pubkey}: {error}", received_us))
            return
        self._pool_slots.note(transport, account.slot)
        claimed = {line.custody for line in self._lines.values()}
        named = {pubkey_text(custody) for custody in pool.custodies}
        self._others &= named
        self._unknown = named - claimed - self._others
        self._index(out)

    def _claim(self, account: Account, transport: str, received_us: int, out: Out) -> None:
        """Give a custody to the feed of its token."""
        try:
            custody = self._custody(account)
        except DecodeError as error:
            out.append(Malformed(self.source, transport, None, f"{account.pubkey}: {error}", received_us))
            return
        self._unknown.discard(account.pubkey)
        line = next((line for line in self._lines.values() if line.mint == custody.mint), None)
        if line is None:
            self._others.add(account.pubkey)
        else:
            line.custody, line.custody_slots = account.pubkey, SlotOrder()
        if not self._unknown:
            for lacking in self._lines.values():
                if lacking.custody is None:
                    text = f"pool {self._pool} has no custody for the token of {lacking.feed}"
                    out.append(self._status(lacking, Condition.MISSING_ACCOUNT, text, transport, received_us))
        self._index(out)

    def _own_accounts(self) -> frozenset[str]:
        return frozenset({self._pool, *self._unknown})
