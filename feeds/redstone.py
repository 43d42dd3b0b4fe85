"""RedStone's price accounts on Solana: the median that a quorum of its signers gave, as its program accepted it.

The layout is that of the program's own source (Anchor, Borsh) and of a second reader's; no raw dump of one is public.
Three traps in it: the value is **big-endian**, times are **milliseconds**, and an optional field moves what follows.
Freshness is that of the signed packages (``timestamp``), not of the write.
"""

from collections.abc import Mapping
from struct import Struct
from typing import ClassVar, Self

import msgspec

from feeds import addresses
from feeds.layout import AccountLayout, check_size, pad32, padded_text, refuse_head
from feeds.reader import MILLISECOND_US, Observation, PriceAccountReader, Refused
from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.source import Account, Condition
from oracle_hub.errors import DecodeError

PROGRAM = addresses.REDSTONE
DEFAULT_DECIMALS = 8
"""Of accounts that an older program wrote, which say nothing of it."""

_HEAD = Struct("<8s32s32sQB")  # discriminator, feed_id, value@40 (big-endian), timestamp@72, tag of the option@80
_TIME = Struct("<Q")
_TAIL = Struct("<QB")  # write_slot, decimals
_RESERVED = bytes(64)


class PriceData(AccountLayout, frozen=True, gc=False):
    """One price. ``decimals`` and ``write_slot`` are None in accounts of an older program."""

    KIND: ClassVar[str] = "redstone.price"
    DISCRIMINATOR: ClassVar[bytes] = bytes.fromhex("e871c1e785d1ce9a")
    TEXT: ClassVar[frozenset[str]] = frozenset({"feed_id"})

    feed_id: bytes
    """Zero-padded ASCII: ``SOL``."""
    value: int
    """Unsigned, 256 bits: USD price as ``value * 10**-decimals``."""
    timestamp: int
    """Unix milliseconds, of the signed packages."""
    write_timestamp: int | None = None
    """Unix milliseconds, of the write."""
    write_slot: int | None = None
    decimals: int | None = None

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an account of at least 81 bytes, or 89 with a time of its write.

        Slot and decimals follow, or not: they are absent where the bytes end before both, and where both are zero,
        since a program that writes them writes in a slot.

        Raises:
            DecodeError: another discriminator, an option that is neither there nor absent, or too short.
        """
        if len(data) < _HEAD.size or data[:8] != cls.DISCRIMINATOR:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _HEAD.size)
        _, feed_id, value, timestamp, tag = _HEAD.unpack_from(data)
        if tag > 1:
            raise DecodeError(f"{cls.KIND}: offset 80: expected 0 or 1 for the presence of a time, found {tag}")
        end, written = _HEAD.size, None
        if tag:
            check_size(cls.KIND, data, end + _TIME.size)
            (written,) = _TIME.unpack_from(data, end)
            end += _TIME.size
        price = cls(feed_id, int.from_bytes(value, "big"), timestamp, written)
        if len(data) < end + _TAIL.size:
            return price
        slot, decimals = _TAIL.unpack_from(data, end)
        if slot == decimals == 0:
            return price
        return msgspec.structs.replace(price, write_slot=slot, decimals=decimals)

    @property
    def expo(self) -> int:
        """Exponent of the value."""
        return -(DEFAULT_DECIMALS if self.decimals is None else self.decimals)

    def encode(self) -> bytes:
        """The account as it lies on the chain; in the older form when it has no ``decimals``."""
        written = self.write_timestamp
        tag = 0 if written is None else 1
        value = self.value.to_bytes(32, "big")
        head = _HEAD.pack(self.DISCRIMINATOR, self.feed_id, value, self.timestamp, tag)
        head += b"" if written is None else _TIME.pack(written)
        return head if self.decimals is None else head + _TAIL.pack(self.write_slot or 0, self.decimals) + _RESERVED


def symbol_of(feed: str) -> str | None:
    """RedStone's id of a feed in dollars: ``SOL`` of ``SOL/USD``; None of any other."""
    base, _, quote = feed.partition("/")
    return base if quote == "USD" and base.isascii() and 0 < len(base) <= 32 else None


class PriceDataReader(PriceAccountReader):
    """RedStone's accounts, of the feed that we expect. They hold no signatures: the program has checked those.

    Args:
        source: the name under which its updates go.
        accounts: address by feed.
        expos: canonical exponent by feed; -8 where absent.
    """

    KIND: ClassVar[str] = PriceData.KIND
    OWNERS: ClassVar[frozenset[str]] = frozenset({PROGRAM})
    TICK_US: ClassVar[int] = MILLISECOND_US
    CONFIGURED: ClassVar[frozenset[str]] = PriceAccountReader.CONFIGURED | {"_symbols"}

    def __init__(self, source: str, accounts: Mapping[str, str], expos: Mapping[str, int] | None = None) -> None:
        super().__init__(source, accounts, expos)
        self._symbols = {feed: symbol_of(feed) for feed in accounts}

    def _observe(self, feed: str, account: Account) -> Observation:
        price = PriceData.decode(account.data)
        symbol = self._symbols[feed]
        if symbol is not None and price.feed_id != pad32(symbol):
            text = f"{account.pubkey} holds RedStone's {padded_text(price.feed_id)}, not {symbol} of {feed}"
            raise Refused(Condition.INVALID, text)
        return price.value, price.expo, price.timestamp, None

    def _derived(self, feed: str) -> list[str]:
        symbol = self._symbols[feed]
        return [] if symbol is None else [addresses.redstone_price(symbol)]


def check_price_data(price: PriceData) -> None:
    """Refuse what is laid out well but is no price.

    Raises:
        DecodeError: value or timestamp is zero, or the timestamp is out of range.
    """
    for name, offset, number in (("timestamp", 72, price.timestamp), ("value", 40, price.value)):
        if number == 0:
            raise DecodeError(f"{PriceData.KIND}: offset {offset}: {name} is 0, so the account was never updated")
    if price.timestamp > INT64_MAX // MILLISECOND_US:
        raise DecodeError(f"{PriceData.KIND}: offset 72: expected unix milliseconds, found {price.timestamp}")
