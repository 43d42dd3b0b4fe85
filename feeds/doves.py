"""Doves, the exchange's price accounts: one feed of one oracle (``PriceFeed``) and the aggregate (``AgPriceFeed``).

Layouts follow the public interface description of the program and mainnet accounts of 2026-09, which are longer than
it says. All integers are little-endian, packed, with no padding.
"""

from struct import Struct
from struct import error as StructError
from typing import ClassVar, Self

from feeds.layout import UNSET_KEY, AccountLayout, key_or_none, refuse_head

PROGRAM = "DoVEsk76QybCEHQGzkvYPWLQu9gzNoZZZt3TPiL597e"

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
