"""Pyth's ``PriceUpdateV2``, which the Solana receivers (the old one and the new) keep for each feed.

The verification level is a Borsh enum of which only ``Partial`` has a payload, so that all later fields of a partial
update lie one byte further. An account is allocated for the longer form: 134 bytes both ways.
"""

from struct import Struct
from struct import error as StructError
from typing import ClassVar, Self

from feeds.layout import AccountLayout, check_size, refuse_head
from oracle_hub.errors import DecodeError

OLD_RECEIVER = "rec5EKMGg6MxZYaMdyBfgwp4d5rB9T1VQH5pJv5LtFJ"
NEW_RECEIVER = "rec2HHDDnjLfj4kE7VyEtFA1HPGQLK33259532cRyHp"
RECEIVERS = frozenset({OLD_RECEIVER, NEW_RECEIVER})

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
