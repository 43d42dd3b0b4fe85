"""Doves, the exchange's price accounts: one feed of one oracle (``PriceFeed``) and the aggregate (``AgPriceFeed``).

Layouts follow the public interface description of the program and mainnet accounts of 2026-09, which are longer than
it says. All integers are little-endian, packed, with no padding.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import ClassVar, Self

import msgspec

from feeds import addresses
from feeds.host_link import PLAUSIBLE_US
from feeds.layout import UNSET_KEY, AccountLayout, key_or_none, padded_text, pubkey_bytes, pubkey_text, refuse_head
from feeds.reader import Observation, PriceAccountReader, Refused
from oracle_hub.core.source import Account, Condition, Event, PriceUpdate, Rewatch

PROGRAM = addresses.DOVES

_FEED = Struct("<8s32s33sQbqB")  # discriminator, pair, signer, price@73, expo@81, timestamp@82, bump@90
_FEED_SIZE = 283
_AG = Struct("<8s32s32s32s32s32sQbqIIQB")  # …, price@168, expo@176, timestamp@177, limits@185, bump@201
_AG_LEGS = Struct("<32s32s")  # @202
_AG_SIZE = 394


class PriceFeed(AccountLayout, frozen=True, gc=False):
    """One oracle's price of one pair: Edge's own leg, and the legs that Chainlink and Pyth Lazer write.

    The program lets ``timestamp`` only grow: a smaller one is a fork or a lagging node, never news.
    """

    KIND: ClassVar[str] = "doves.price_feed"
    DISCRIMINATOR: ClassVar[bytes] = bytes.fromhex("bd67fc179823f39c")
    HEX: ClassVar[frozenset[str]] = frozenset({"signer"})
    TEXT: ClassVar[frozenset[str]] = frozenset({"pair"})

    pair: bytes
    """Zero-padded ASCII (``SOLUSD``, ``SOLUSD-PYTH``), or a raw Data Streams feed id."""
    signer: bytes
    """Compressed secp256k1 key (33 bytes) whose signatures update the account."""
    price: int
    """USD price as ``price * 10**expo``; 0 before the first update."""
    expo: int
    timestamp: int
    """Unix seconds."""
    bump: int = 0

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an account of at least 91 bytes.

        Raises:
            DecodeError: another discriminator, or too short.
        """
        try:
            discriminator, *values = _FEED.unpack_from(data)
        except StructError:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _FEED.size)
        if discriminator != cls.DISCRIMINATOR:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _FEED.size)
        return cls(*values)

    def encode(self) -> bytes:
        """The account as it lies on the chain: 283 bytes, the last 192 reserved."""
        head = _FEED.pack(self.DISCRIMINATOR, self.pair, self.signer, self.price, self.expo, self.timestamp, self.bump)
        return head.ljust(_FEED_SIZE, b"\0")


class AgPriceFeed(AccountLayout, frozen=True, gc=False, rename="camel"):
    """The aggregate that the exchange executes on. It names its legs and limits, not which leg won."""

    KIND: ClassVar[str] = "doves.ag_price_feed"
    DISCRIMINATOR: ClassVar[bytes] = bytes.fromhex("70f98bd9d7d0f936")

    mint: bytes
    edge_feed: bytes
    cl_feed: bytes
    pyth_feed: bytes
    pyth_feed_id: bytes
    price: int
    """USD price as ``price * 10**expo``; 0 before the first update."""
    expo: int
    timestamp: int
    """Unix seconds."""
    max_ag_price_age_sec: int = 10
    max_price_feed_age_sec: int = 60
    max_price_diff_bps: int = 50
    bump: int = 0
    lazer_feed: bytes | None = None
    """Not in the public description (offset 202): the Pyth Lazer leg, a Doves PriceFeed; None when unset."""
    redstone_feed: bytes | None = None
    """Not in the public description (offset 234): the RedStone leg; None when unset."""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an account of at least 202 bytes; the two legs that follow are optional.

        Raises:
            DecodeError: another discriminator, or too short.
        """
        try:
            discriminator, *values = _AG.unpack_from(data)
        except StructError:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _AG.size)
        if discriminator != cls.DISCRIMINATOR:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _AG.size)
        if len(data) >= _AG.size + _AG_LEGS.size:
            lazer, redstone = _AG_LEGS.unpack_from(data, _AG.size)
            values += (key_or_none(lazer), key_or_none(redstone))
        elif len(data) >= _AG.size + 32:
            values.append(key_or_none(data[_AG.size : _AG.size + 32]))
        return cls(*values)

    def encode(self) -> bytes:
        """The account as it lies on the chain: 394 bytes, the last 128 reserved."""
        head = _AG.pack(
            self.DISCRIMINATOR,
            self.mint,
            self.edge_feed,
            self.cl_feed,
            self.pyth_feed,
            self.pyth_feed_id,
            self.price,
            self.expo,
            self.timestamp,
            self.max_ag_price_age_sec,
            self.max_price_feed_age_sec,
            self.max_price_diff_bps,
            self.bump,
        )
        legs = _AG_LEGS.pack(self.lazer_feed or UNSET_KEY, self.redstone_feed or UNSET_KEY)
        return (head + legs).ljust(_AG_SIZE, b"\0")

    def fields(self) -> dict[str, object]:
        """Every field under its own name; the three limits within ``config``, as the program nests them."""
        out = super().fields()
        limits = ("maxAgPriceAgeSec", "maxPriceFeedAgeSec", "maxPriceDiffBps")
        config = {name: out.pop(name) for name in limits}
        return out | {"pythFeedId": self.pyth_feed_id.hex(), "config": config}


def doves_address(value: PriceFeed | AgPriceFeed) -> str:
    """The address that an account with this pair or mint has."""
    if isinstance(value, PriceFeed):
        return addresses.doves_feed(value.pair)
    return addresses.doves_ag_feed(pubkey_text(value.mint))


class PriceFeedReader(PriceAccountReader):
    """One leg of the aggregate: Edge's own, Chainlink's or Pyth Lazer's. All three have the same layout.

    Args:
        source: the name under which its updates go.
        accounts: address by feed.
        expos: canonical exponent by feed; -8 where absent.
        pairs: the 32 bytes that the account must hold, by feed. Where absent, the known pair that the address
            derives from; unchecked where it derives from none.
    """

    KIND: ClassVar[str] = PriceFeed.KIND
    OWNERS: ClassVar[frozenset[str]] = frozenset({PROGRAM})
    CONFIGURED: ClassVar[frozenset[str]] = PriceAccountReader.CONFIGURED | {"_pairs"}

    def __init__(
        self,
        source: str,
        accounts: Mapping[str, str],
        expos: Mapping[str, int] | None = None,
        pairs: Mapping[str, bytes] | None = None,
    ) -> None:
        super().__init__(source, accounts, expos)
        given = pairs or {}
        self._pairs = {feed: given.get(feed) or addresses.known_pair(feed, at) for feed, at in accounts.items()}

    def _observe(self, feed: str, account: Account) -> Observation:
        leg = PriceFeed.decode(account.data)
        expected = self._pairs[feed]
        if expected is not None and leg.pair != expected:
            text = f"{account.pubkey} holds the pair {padded_text(leg.pair)}, not {padded_text(expected)} of {feed}"
            raise Refused(Condition.INVALID, text)
        return leg.price, leg.expo, leg.timestamp, None

    def _derived(self, feed: str) -> list[str]:
        pair = self._pairs[feed]
        return [addresses.doves_feed(pair)] if pair is not None else []


class AgLimits(msgspec.Struct, frozen=True, gc=False):
    """What the aggregate publishes as its own limits."""

    max_ag_price_age_sec: int
    max_price_feed_age_sec: int
    max_price_diff_bps: int


class AgLegs(msgspec.Struct, frozen=True, gc=False):
    """The accounts that an aggregate is made of, in base58; None where it names none."""

    edge: str | None
    chainlink: str | None
    pyth: str | None
    lazer: str | None
    redstone: str | None


class AgMemory:
    """The latest state of each feed's aggregate, by its own timestamp: a lagging node takes nothing back.

    One that is stamped ahead of our clock is not remembered, or it would keep its place for good.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, AgPriceFeed] = {}

    def note(self, state: AgPriceFeed, update: PriceUpdate) -> None:
        """Remember the state that an update was read from, unless a later one is known."""
        seen = self._seen.get(update.feed)
        plausible = update.publish_us <= update.received_us + PLAUSIBLE_US
        if plausible and (seen is None or seen.timestamp <= state.timestamp):
            self._seen[update.feed] = state

    def limits_of(self, feed: str) -> AgLimits | None:
        """Limits that a feed's aggregate published last; None before it was read."""
        state = self._seen.get(feed)
        if state is None:
            return None
        return AgLimits(state.max_ag_price_age_sec, state.max_price_feed_age_sec, state.max_price_diff_bps)

    def legs_of(self, feed: str) -> AgLegs | None:
        """Accounts that a feed's aggregate is made of; None before it was read."""
        state = self._seen.get(feed)
        if state is None:
            return None
        return _legs_of(state.edge_feed, state.cl_feed, state.pyth_feed, state.lazer_feed, state.redstone_feed)


@lru_cache(maxsize=4_096)
def _legs_of(*keys: bytes | None) -> AgLegs:
    return AgLegs(*(None if key is None or key == UNSET_KEY else pubkey_text(key) for key in keys))


class AgPriceFeedReader(PriceAccountReader):
    """The aggregate itself, and what it says of its limits and legs.

    Args:
        source: the name under which its updates go.
        accounts: address by feed.
        expos: canonical exponent by feed; -8 where absent.
        mints: the token (base58) that the account must name, by feed; the known one where absent.
    """

    KIND: ClassVar[str] = AgPriceFeed.KIND
    OWNERS: ClassVar[frozenset[str]] = frozenset({PROGRAM})

    def __init__(
        self,
        source: str,
        accounts: Mapping[str, str],
        expos: Mapping[str, int] | None = None,
        mints: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(source, accounts, expos)
        given = {feed: pubkey_bytes(mint) for feed, mint in (mints or {}).items()}
        self._mints = {feed: given.get(feed) or addresses.known_mint(feed) for feed in accounts}
        self._memory = AgMemory()

    def limits_of(self, feed: str) -> AgLimits | None:
        """Limits that a feed's account published last; None before it was read."""
        return self._memory.limits_of(feed)

    def legs_of(self, feed: str) -> AgLegs | None:
        """Accounts that a feed's aggregate is made of; None before it was read."""
        return self._memory.legs_of(feed)

    def read(self, account: Account, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """One event for a state of one of the accounts; its limits and legs are remembered if it holds a price."""
        events = super().read(account, transport, received_us)
        for event in events:
            if isinstance(event, PriceUpdate):
                self._memory.note(AgPriceFeed.decode(account.data), event)
        return events

    def _observe(self, feed: str, account: Account) -> Observation:
        state = AgPriceFeed.decode(account.data)
        check_mint(feed, state, self._mints[feed], account)
        return state.price, state.expo, state.timestamp, None

    def _derived(self, feed: str) -> list[str]:
        mint = self._mints[feed]
        return [addresses.doves_ag_feed(pubkey_text(mint))] if mint is not None else []


def check_mint(feed: str, state: AgPriceFeed, expected: bytes | None, account: Account) -> None:
    """Raises Refused when an aggregate prices another token than the feed's."""
    if expected is not None and state.mint != expected:
        text = f"{account.pubkey} prices the token {pubkey_text(state.mint)}, not {pubkey_text(expected)} of {feed}"
        raise Refused(Condition.INVALID, text)
