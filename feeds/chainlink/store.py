"""Chainlink's store program on Solana: a feed's ``Transmissions``, a header and a ring of answers.

The layout is that of the program's own state (C order, not Borsh) and of Chainlink's Go reader. The ``state`` byte is
1 on live mainnet feeds: it is no reason to doubt them. There is no confidence value.
"""

from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import ClassVar, Self

import msgspec

from feeds.addresses import ASSETS, CHAINLINK_STORE
from feeds.layout import AccountLayout, check_size, json_value, padded_text, refuse_head
from feeds.reader import Observation, PriceAccountReader, Refused
from oracle_hub.core.source import Account, Condition
from oracle_hub.errors import DecodeError

PROGRAM = CHAINLINK_STORE

_HEADER = Struct("<8sBB32s32s32s32sBIIBIII")  # to offset 160; zeros up to the ring at 200
_VERSION = 2
_RING_OFFSET = 200
_ENTRY = Struct("<QI4x16s16x")  # slot, timestamp, answer (i128)


class Transmission(msgspec.Struct, frozen=True, gc=False):
    """One answer."""

    slot: int
    timestamp: int
    """Unix seconds."""
    answer: int
    """Signed; ``answer * 10**-decimals``."""

    def encode(self) -> bytes:
        """The 48 bytes of a ring's entry."""
        return _ENTRY.pack(self.slot, self.timestamp, self.answer.to_bytes(16, "little", signed=True))


class Transmissions(AccountLayout, frozen=True, gc=False):
    """One feed: who writes it, and its latest answers.

    ``live_cursor`` is the next entry to be written, so that the latest is the one before it, round the ring.
    """

    KIND: ClassVar[str] = "chainlink.transmissions"
    DISCRIMINATOR: ClassVar[bytes] = bytes.fromhex("60b3454280814975")
    TEXT: ClassVar[frozenset[str]] = frozenset({"description"})

    version: int
    state: int
    """0 normal, 1 flagged."""
    owner: bytes
    proposed_owner: bytes
    writer: bytes
    description: bytes
    """Zero-padded ASCII: ``SOL / USD``."""
    decimals: int
    flagging_threshold: int
    latest_round_id: int
    """0: nothing was written yet."""
    granularity: int
    live_length: int
    """Entries of the live ring; 1 on mainnet."""
    live_cursor: int
    historical_cursor: int
    ring: bytes
    """The live ring and, after it, the historical one: 48 bytes an entry."""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a feed with its whole live ring.

        Raises:
            DecodeError: another discriminator or version, too short for its ring, or a cursor outside it.
        """
        try:
            discriminator, *values = _HEADER.unpack_from(data)
        except StructError:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _RING_OFFSET + _ENTRY.size)
        if discriminator != cls.DISCRIMINATOR:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _RING_OFFSET + _ENTRY.size)
        if values[0] != _VERSION:
            raise DecodeError(f"{cls.KIND}: offset 8: expected version {_VERSION}, found {values[0]}")
        length, cursor = values[10], values[11]
        if not 0 <= cursor < length:
            raise DecodeError(f"{cls.KIND}: offset 148: expected a cursor within the ring, found {cursor} of {length}")
        check_size(cls.KIND, data, _RING_OFFSET + _ENTRY.size * length)
        values.append(data[_RING_OFFSET:])
        return cls(*values)

    @property
    def latest_index(self) -> int:
        """Where in the live ring the latest answer is."""
        return (self.live_cursor + self.live_length - 1) % self.live_length

    @property
    def latest(self) -> Transmission:
        """The latest answer; all zeros when nothing was written yet."""
        return self.entry(self.latest_index)

    def entry(self, index: int) -> Transmission:
        """One entry, counted over both rings."""
        slot, timestamp, answer = _ENTRY.unpack_from(self.ring, _ENTRY.size * index)
        return Transmission(slot, timestamp, int.from_bytes(answer, "little", signed=True))

    @property
    def transmissions(self) -> tuple[Transmission, ...]:
        """Every whole entry of both rings, as they lie."""
        return tuple(self.entry(index) for index in range(len(self.ring) // _ENTRY.size))

    def encode(self) -> bytes:
        """The account as it lies on the chain: 200 bytes and the rings (248 in all with one entry)."""
        head = _HEADER.pack(
            self.DISCRIMINATOR,
            self.version,
            self.state,
            self.owner,
            self.proposed_owner,
            self.writer,
            self.description,
            self.decimals,
            self.flagging_threshold,
            self.latest_round_id,
            self.granularity,
            self.live_length,
            self.live_cursor,
            self.historical_cursor,
        )
        return head.ljust(_RING_OFFSET, b"\0") + self.ring

    def fields(self) -> dict[str, object]:
        """Every field under its own name, entries one by one, and which of them is the latest."""
        out = super().fields()
        del out["ring"]
        out["transmissions"] = json_value(self.transmissions)
        out["latest_index"] = self.latest_index
        out["latest"] = json_value(self.latest)
        return out


@lru_cache(maxsize=16_384)  # asked with each update, and hardly ever new
def description_feed(description: bytes) -> str | None:
    """``SOL / USD`` of a description as a feed's name, ``SOL/USD``; None when it does not name a pair."""
    base, slash, quote = padded_text(description).partition("/")
    return f"{base.strip()}/{quote.strip()}".upper() if slash else None


class TransmissionsReader(PriceAccountReader):
    """Chainlink's public feeds on Solana. The program's description of a feed must name the feed that we expect."""

    KIND: ClassVar[str] = Transmissions.KIND
    OWNERS: ClassVar[frozenset[str]] = frozenset({PROGRAM})

    def _observe(self, feed: str, account: Account) -> Observation:
        transmissions = Transmissions.decode(account.data)
        described = description_feed(transmissions.description)
        if described is not None and described != feed.upper():
            raise Refused(Condition.INVALID, f"{account.pubkey} is the feed of {described}, not of {feed}")
        if transmissions.latest_round_id == 0:
            raise Refused(Condition.INVALID, f"{account.pubkey}: nothing was written yet")
        latest = transmissions.latest
        return latest.answer, -transmissions.decimals, latest.timestamp, None

    def _derived(self, feed: str) -> list[str]:
        # Store accounts are made from keypairs: there is no rule, only the table of known ones.
        return [ASSETS[feed].chainlink_store] if feed in ASSETS else []
