"""Pyth's first push accounts: C structs with a magic number, written by publishers until June 2024 on Solana.

The same keys live on Pythnet, where accounts are larger: 12,576 bytes with room for 128 publishers against 3,312 with
32. The layout is that of the program's ``oracle.h``. The header's ``size`` says how many bytes are in use, which may
be fewer than the account has.
"""

from struct import Struct
from typing import ClassVar, Self

import msgspec

from feeds.addresses import ASSETS, PYTH_LEGACY, PYTH_LEGACY_DEVNET
from feeds.layout import UNSET_KEY, AccountLayout, check_size, json_value, pubkey_text
from feeds.reader import Observation, PriceAccountReader, Refused
from oracle_hub.core.source import Account, Condition
from oracle_hub.errors import DecodeError

PROGRAMS = frozenset({PYTH_LEGACY, PYTH_LEGACY_DEVNET})
TRADING = 1
STATUS_NAMES = ("unknown", "trading", "halted", "auction", "ignored")

_MAGIC = 0xA1B2C3D4
_VERSION = 2
_TYPES = {1: "mapping", 2: "product", 3: "price"}
_HEADER = Struct("<4I")  # magic, version, type, size
_PRICE = Struct("<4IIiIIQQ6qqBBBbi32s32sQqQqqQIIQ")
_TYPE_EXPO = Struct("<Ii")  # @16
_AGGREGATE = Struct("<qQI")  # @208: price, conf, status
_COMPONENT = Struct("<32sqQIIQqQIIQ")
_COMPONENTS_OFFSET = 240
SOLANA_SIZE = 3312
PYTHNET_SIZE = 12576


class Ema(msgspec.Struct, frozen=True, gc=False):
    """A moving average: its value, and the fraction that it is updated from."""

    val: int = 0
    numer: int = 0
    denom: int = 0


class PriceInfo(msgspec.Struct, frozen=True, gc=False):
    """A price with its confidence, status and slot; the aggregate's, or one publisher's."""

    price: int
    conf: int
    status: int = TRADING
    """0 unknown, 1 trading, 2 halted, 3 auction, 4 ignored."""
    corp_act: int = 0
    pub_slot: int = 0


class Component(msgspec.Struct, frozen=True, gc=False):
    """One publisher: its price as aggregated last, and its latest."""

    publisher: bytes
    agg: PriceInfo
    latest: PriceInfo


class PriceAccount(AccountLayout, frozen=True, gc=False, kw_only=True):
    """One feed's aggregate and its publishers."""

    KIND: ClassVar[str] = "pyth.legacy_price"

    size: int = SOLANA_SIZE
    """Bytes in use, as the header says."""
    price_type: int = 1
    exponent: int
    num_components: int = 0
    num_qt: int = 0
    """Publishers that the aggregate is made of."""
    last_slot: int = 0
    valid_slot: int = 0
    ema_price: Ema = Ema()
    ema_conf: Ema = Ema()
    timestamp: int
    """Unix seconds of the aggregate. Accounts from before 2022 hold other things here and in ``prev_*``."""
    min_pub: int = 0
    message_sent: int = 0
    max_latency: int = 0
    """In slots; 0 stands for 25."""
    drv3: int = 0
    drv4: int = 0
    product: bytes = UNSET_KEY
    next: bytes | None = None
    prev_slot: int = 0
    prev_price: int = 0
    prev_conf: int = 0
    prev_timestamp: int = 0
    agg: PriceInfo
    tail: bytes = bytes(SOLANA_SIZE - _COMPONENTS_OFFSET)
    """Everything from offset 240 on: 96 bytes for each publisher, then unused room (and sums, on Pythnet)."""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an account of either size.

        Raises:
            DecodeError: another magic, version or type of account, or fewer bytes than the header says.
        """
        check_header(cls.KIND, data, 3)
        check_size(cls.KIND, data, _COMPONENTS_OFFSET)
        v = _PRICE.unpack_from(data)
        size, count = v[3], v[6]
        used = _COMPONENTS_OFFSET + _COMPONENT.size * count
        if size < used:
            raise DecodeError(f"{cls.KIND}: offset 12: expected at least {used} for {count} publishers, found {size}")
        check_size(cls.KIND, data, size)
        return cls(
            size=size,
            price_type=v[4],
            exponent=v[5],
            num_components=count,
            num_qt=v[7],
            last_slot=v[8],
            valid_slot=v[9],
            ema_price=Ema(*v[10:13]),
            ema_conf=Ema(*v[13:16]),
            timestamp=v[16],
            min_pub=v[17],
            message_sent=v[18],
            max_latency=v[19],
            drv3=v[20],
            drv4=v[21],
            product=v[22],
            next=None if v[23] == UNSET_KEY else v[23],
            prev_slot=v[24],
            prev_price=v[25],
            prev_conf=v[26],
            prev_timestamp=v[27],
            agg=PriceInfo(*v[28:33]),
            tail=data[_COMPONENTS_OFFSET:],
        )

    @property
    def components(self) -> tuple[Component, ...]:
        """The publishers that the header counts."""
        entries = (_COMPONENT.unpack_from(self.tail, _COMPONENT.size * i) for i in range(self.num_components))
        return tuple(Component(e[0], PriceInfo(*e[1:6]), PriceInfo(*e[6:11])) for e in entries)

    def encode(self) -> bytes:
        """The account as it lies on the chain: 3,312 bytes, or 12,576 with Pythnet's ``tail``."""
        head = _PRICE.pack(
            _MAGIC,
            _VERSION,
            3,
            self.size,
            self.price_type,
            self.exponent,
            self.num_components,
            self.num_qt,
            self.last_slot,
            self.valid_slot,
            *msgspec.structs.astuple(self.ema_price),
            *msgspec.structs.astuple(self.ema_conf),
            self.timestamp,
            self.min_pub,
            self.message_sent,
            self.max_latency,
            self.drv3,
            self.drv4,
            self.product,
            self.next or UNSET_KEY,
            self.prev_slot,
            self.prev_price,
            self.prev_conf,
            self.prev_timestamp,
            *msgspec.structs.astuple(self.agg),
        )
        return head + self.tail

    def fields(self) -> dict[str, object]:
        """Every field under its own name, the publishers one by one."""
        out = {"magic": hex(_MAGIC), "version": _VERSION, "type": 3} | super().fields()
        del out["tail"]
        out["components"] = json_value(self.components)
        return out


def check_header(kind: str, data: bytes, account_type: int) -> None:
    """Refuse an account whose magic, version or type is another; the error names the kind that it is.

    Raises:
        DecodeError: as above, or fewer than 16 bytes.
    """
    check_size(kind, data, _HEADER.size)
    magic, version, found, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise DecodeError(f"{kind}: offset 0: expected magic {_MAGIC:#x}, found {magic:#x}")
    if version != _VERSION:
        raise DecodeError(f"{kind}: offset 4: expected version {_VERSION}, found {version}")
    if found != account_type:
        what = f"{_TYPES.get(found, 'unknown')} account{_summary(data, found)}"
        raise DecodeError(f"{kind}: offset 8: expected type {account_type}, found {found}: {what}")


def _summary(data: bytes, account_type: int) -> str:
    """A few words on a mapping or product account, for the error that refuses it."""
    if account_type == 2 and len(data) >= 48:
        return f" of price {pubkey_text(data[16:48])}"
    if account_type == 1 and len(data) >= 20:
        return f" of {int.from_bytes(data[16:20], 'little')} products"
    return ""


def status_name(status: int) -> str:
    """A status in words."""
    return STATUS_NAMES[status] if status < len(STATUS_NAMES) else f"status {status}"


class PriceReader(PriceAccountReader):
    """Legacy price accounts. The feed id is the address, so that there is no id inside to compare.

    An aggregate that no longer trades is ``halted``. One that is no longer written (the program's rule: ``pub_slot``
    further back than ``max_latency``) keeps its old timestamp, and is stale by its age.
    """

    KIND: ClassVar[str] = PriceAccount.KIND
    OWNERS: ClassVar[frozenset[str]] = PROGRAMS

    def _observe(self, feed: str, account: Account) -> Observation:
        check_header(self.KIND, account.data, 3)
        check_size(self.KIND, account.data, _COMPONENTS_OFFSET)
        price_type, expo = _TYPE_EXPO.unpack_from(account.data, 16)
        price, conf, status = _AGGREGATE.unpack_from(account.data, 208)
        if price_type != 1:
            raise Refused(Condition.INVALID, f"{account.pubkey}: price type {price_type} is no price")
        if status != TRADING:
            raise Refused(Condition.HALTED, f"{account.pubkey}: the aggregate of {feed} is {status_name(status)}")
        return price, expo, int.from_bytes(account.data[96:104], "little", signed=True), conf

    def _derived(self, feed: str) -> list[str]:
        return [ASSETS[feed].pyth_legacy] if feed in ASSETS else []
