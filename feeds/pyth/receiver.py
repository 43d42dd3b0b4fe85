"""Pyth's ``PriceUpdateV2``, which the Solana receivers (the old one and the new) keep for each feed.

The verification level is a Borsh enum of which only ``Partial`` has a payload, so that all later fields of a partial
update lie one byte further. An account is allocated for the longer form: 134 bytes both ways.
"""

from collections.abc import Mapping
from struct import Struct
from struct import error as StructError
from typing import ClassVar, Self

from feeds.addresses import PYTH_NEW_PUSH, PYTH_NEW_RECEIVER, PYTH_OLD_PUSH, PYTH_OLD_RECEIVER, known_feed_id, pyth_push
from feeds.layout import AccountLayout, check_size, refuse_head
from feeds.reader import Observation, PriceAccountReader, Refused
from oracle_hub.core.source import Account, Condition
from oracle_hub.errors import DecodeError

RECEIVERS = frozenset({PYTH_OLD_RECEIVER, PYTH_NEW_RECEIVER})

_FULL = Struct("<8s32sB32sqQiqqqQQ")
_PARTIAL = Struct("<8s32sBB32sqQiqqqQQ")
_LIVE_SIZE = 134
_PARTIAL_TAG, _FULL_TAG = 0, 1


class PriceUpdateV2(AccountLayout, frozen=True, gc=False):
    """One feed's price, as a receiver accepted it."""

    KIND: ClassVar[str] = "pyth.price_update_v2"
    DISCRIMINATOR: ClassVar[bytes] = bytes.fromhex("22f123639d7ef4cd")
    HEX: ClassVar[frozenset[str]] = frozenset({"feed_id"})

    write_authority: bytes
    """Who may write the account; its own address for a sponsored one."""
    feed_id: bytes
    price: int
    """Signed; ``price * 10**exponent``."""
    conf: int
    """Half-width of the confidence interval, same exponent."""
    exponent: int
    publish_time: int
    """Unix seconds."""
    prev_publish_time: int
    ema_price: int
    ema_conf: int
    posted_slot: int
    num_signatures: int | None = None
    """None: the full quorum was verified. Else only so many signatures: not to be trusted."""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an account of at least 133 bytes (full) or 134 (partial).

        Raises:
            DecodeError: another discriminator, an unknown verification level, or too short.
        """
        try:
            discriminator, authority, tag, *rest = _FULL.unpack_from(data)
        except StructError:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _FULL.size)
        if discriminator != cls.DISCRIMINATOR:
            refuse_head(cls.KIND, data, cls.DISCRIMINATOR, _FULL.size)
        if tag == _FULL_TAG:
            return cls(authority, *rest)
        if tag != _PARTIAL_TAG:
            raise DecodeError(f"{cls.KIND}: offset 40: expected verification level 0 or 1, found {tag}")
        check_size(cls.KIND, data, _PARTIAL.size)
        _, authority, _, signatures, *rest = _PARTIAL.unpack_from(data)
        rest.append(signatures)
        return cls(authority, *rest)

    def encode(self) -> bytes:
        """The account as it lies on the chain: 134 bytes, the last one unused in the full form."""
        tail = (
            self.feed_id,
            self.price,
            self.conf,
            self.exponent,
            self.publish_time,
            self.prev_publish_time,
            self.ema_price,
            self.ema_conf,
            self.posted_slot,
        )
        if self.num_signatures is None:
            return _FULL.pack(self.DISCRIMINATOR, self.write_authority, _FULL_TAG, *tail).ljust(_LIVE_SIZE, b"\0")
        return _PARTIAL.pack(self.DISCRIMINATOR, self.write_authority, _PARTIAL_TAG, self.num_signatures, *tail)

    def fields(self) -> dict[str, object]:
        """Every field under its own name; the verification level is ``"Full"`` or ``{"Partial": signatures}``."""
        out = super().fields()
        signatures = out.pop("num_signatures")
        level: object = "Full" if signatures is None else {"Partial": signatures}
        return {"write_authority": out.pop("write_authority"), "verification_level": level} | out


class PriceUpdateReader(PriceAccountReader):
    """Pyth's push accounts. Full verification only, of the feed that we expect, from either receiver.

    Args:
        source: the name under which its updates go.
        accounts: address by feed.
        expos: canonical exponent by feed; -8 where absent.
        feed_ids: Pyth's id (hex) by feed; the known one where absent; unchecked where none is known.
    """

    KIND: ClassVar[str] = PriceUpdateV2.KIND
    OWNERS: ClassVar[frozenset[str]] = RECEIVERS
    CONFIGURED: ClassVar[frozenset[str]] = PriceAccountReader.CONFIGURED | {"_feed_ids"}

    def __init__(
        self,
        source: str,
        accounts: Mapping[str, str],
        expos: Mapping[str, int] | None = None,
        feed_ids: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(source, accounts, expos)
        given = {feed: bytes.fromhex(text.removeprefix("0x")) for feed, text in (feed_ids or {}).items()}
        self._feed_ids = {feed: given.get(feed) or known_feed_id(feed) for feed in accounts}

    def _observe(self, feed: str, account: Account) -> Observation:
        update = PriceUpdateV2.decode(account.data)
        if update.num_signatures is not None:
            text = f"{account.pubkey}: verified partially ({update.num_signatures} signatures), not by the full quorum"
            raise Refused(Condition.INVALID, text)
        expected = self._feed_ids[feed]
        if expected is not None and update.feed_id != expected:
            text = f"{account.pubkey} holds Pyth feed {update.feed_id.hex()}, not {expected.hex()} of {feed}"
            raise Refused(Condition.INVALID, text)
        return update.price, update.exponent, update.publish_time, update.conf

    def _derived(self, feed: str) -> list[str]:
        feed_id = self._feed_ids[feed]
        if feed_id is None:
            return []
        return [pyth_push(feed_id.hex(), program=program) for program in (PYTH_NEW_PUSH, PYTH_OLD_PUSH)]
