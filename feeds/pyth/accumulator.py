"""Pyth's accumulator updates (PNAU): prices, the Merkle proof of each, and the signed root that they lead to.

Source: pythnet-sdk's wire format, version 1, and its messages (big endian, later versions may only add at the end).
A check looks at everything that can be wrong, cheapest first: each message is in the tree, the root is what was signed,
enough of the named set have signed, and that set is in force. Which sets may sign is data (:mod:`feeds.pyth.signers`).
"""

import struct
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

import msgspec

from feeds.layout import json_value
from feeds.pyth.merkle import HASH_BYTES, proves
from feeds.pyth.signers import ACCUMULATOR
from feeds.pyth.vaa import Vaa, check_signatures, decode_vaa
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Verdict, Why
from oracle_hub.errors import DecodeError

KIND = ACCUMULATOR
MAGIC = b"PNAU"
MAJOR = 1
PAYLOAD_MAGIC = b"AUWV"
MAX_BYTES = 2**20
"""An update is at most 255 messages with proofs, some 80 KB."""
_PAYLOAD = struct.Struct(">4sBQI20s")
_PRICE = struct.Struct(">B32sqQiqqqQ")
_TWAP = struct.Struct(">B32s16s16sQiqqQ")
_CAPS = struct.Struct(">BqH")
_CAP = struct.Struct(">32sQ")
_WORMHOLE_MERKLE = 0


class PriceMessage(msgspec.Struct, frozen=True, gc=False):
    """One price, at ``exponent``. Times are unix seconds."""

    feed_id: bytes
    price: int
    conf: int
    exponent: int
    publish_time: int
    prev_publish_time: int
    ema_price: int
    ema_conf: int


class TwapMessage(msgspec.Struct, frozen=True, gc=False):
    """Sums since the beginning, of which two give a time-weighted price. Not published since 2026-02-03."""

    feed_id: bytes
    cumulative_price: int
    cumulative_conf: int
    num_down_slots: int
    exponent: int
    publish_time: int
    prev_publish_time: int
    publish_slot: int


class StakeCaps(msgspec.Struct, frozen=True, gc=False):
    """How much may be staked on each publisher: key and cap."""

    publish_time: int
    caps: tuple[tuple[bytes, int], ...]


Message: TypeAlias = PriceMessage | TwapMessage | StakeCaps


class Update(msgspec.Struct, frozen=True, gc=False):
    """A message, the bytes of it that the tree holds, and its proof (hashes of 20 bytes, one after the other)."""

    message: Message
    data: bytes
    proof: bytes


class Accumulator(msgspec.Struct, frozen=True):
    """A whole update. ``slot``, ``ring_size`` and ``root`` are what the VAA's signers vouch for."""

    minor: int
    vaa: Vaa
    slot: int
    ring_size: int
    root: bytes
    updates: tuple[Update, ...]
    trailing_bytes: int

    @classmethod
    def decode(cls, data: bytes) -> "Accumulator":
        """Read an update.

        Raises:
            DecodeError: foreign or cut bytes, another major version, or a message of an unknown type.
        """
        return _Reader(data).accumulator()

    @property
    def prices(self) -> list[PriceMessage]:
        """The prices among the messages."""
        return [update.message for update in self.updates if isinstance(update.message, PriceMessage)]

    def fields(self) -> dict[str, object]:
        """Everything, ready for JSON. A single price has its keys at the top as well, as price accounts have."""
        vaa = self.vaa
        messages = [message_fields(update.message) for update in self.updates]
        prices = [one for one in messages if one["type"] == "price"]
        return {
            "kind": KIND,
            **({key: prices[0][key] for key in _HEADLINE} if len(prices) == 1 else {}),
            "slot": json_value(self.slot),
            "messages": messages,
            "root": self.root.hex(),
            "ring_size": self.ring_size,
            "proof_lengths": [len(update.proof) // HASH_BYTES for update in self.updates],
            "minor": self.minor,
            "trailing_bytes": self.trailing_bytes,
            "vaa": {
                "signer_set_index": vaa.set_index,
                "signatures": len(vaa.signatures),
                "timestamp": vaa.timestamp,
                "nonce": vaa.nonce,
                "emitter_chain": vaa.emitter_chain,
                "emitter_address": vaa.emitter_address.hex(),
                "sequence": json_value(vaa.sequence),
                "consistency_level": vaa.consistency_level,
            },
        }


_HEADLINE = ("price", "expo", "publish_time_us", "conf", "feed_id")


def message_fields(message: Message) -> dict[str, object]:
    """A message, ready for JSON: prices and their like as text, times as the message has them and in microseconds."""
    if isinstance(message, StakeCaps):
        caps = [{"publisher": key.hex(), "cap": str(cap)} for key, cap in message.caps]
        return {"type": "stake_caps", "publish_time": json_value(message.publish_time), "caps": caps}
    times: dict[str, object] = {
        "publish_time_us": json_value(message.publish_time * 1_000_000),
        "publish_time": json_value(message.publish_time),
        "prev_publish_time": json_value(message.prev_publish_time),
    }
    if isinstance(message, TwapMessage):
        return {
            "type": "twap",
            "feed_id": message.feed_id.hex(),
            "cumulative_price": str(message.cumulative_price),
            "cumulative_conf": str(message.cumulative_conf),
            "num_down_slots": json_value(message.num_down_slots),
            "expo": message.exponent,
            **times,
            "publish_slot": json_value(message.publish_slot),
        }
    return {
        "type": "price",
        "feed_id": message.feed_id.hex(),
        "price": str(message.price),
        "conf": str(message.conf),
        "expo": message.exponent,
        **times,
        "ema_price": str(message.ema_price),
        "ema_conf": str(message.ema_conf),
    }


class _Reader:
    """Reads an update from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, size: int, what: str) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            self._refuse(len(self._data), f"expected {what} ({size} bytes from offset {start})")
        return self._data[start : self._at]

    def _number(self, size: int, what: str) -> int:
        return int.from_bytes(self._take(size, what), "big")

    def _refuse(self, offset: int, text: str) -> NoReturn:
        raise DecodeError(f"{KIND}: offset {offset}: {text}")

    def accumulator(self) -> Accumulator:
        if len(self._data) > MAX_BYTES:
            self._refuse(0, f"expected at most {MAX_BYTES} bytes, found {len(self._data)}")
        magic = self._take(4, "PNAU")
        if magic != MAGIC:
            self._refuse(0, f"expected {MAGIC.hex()} (PNAU), found {magic.hex()}")
        major = self._number(1, "major version")
        if major != MAJOR:
            self._refuse(4, f"expected major version {MAJOR}, found {major}")
        minor = self._number(1, "minor version")
        self._take(self._number(1, "length of the header's tail"), "the header's tail")
        proof_type = self._number(1, "type of proof")
        if proof_type != _WORMHOLE_MERKLE:
            self._refuse(self._at - 1, f"expected proof type {_WORMHOLE_MERKLE} (Wormhole, Merkle), found {proof_type}")
        size = self._number(2, "length of the VAA")
        at = self._at
        vaa = decode_vaa(KIND, self._take(size, "VAA"), at)
        magic, payload_type, slot, ring_size, root = self._payload(vaa.payload)
        if magic != PAYLOAD_MAGIC:
            self._refuse(self._at - len(vaa.payload), f"expected a VAA that says AUWV, found {magic.hex()}")
        if payload_type != _WORMHOLE_MERKLE:
            self._refuse(self._at - len(vaa.payload) + 4, f"expected payload type 0 (Merkle), found {payload_type}")
        count = self._number(1, "number of messages")
        if not count:
            self._refuse(self._at - 1, "expected at least one message, found none")
        updates = tuple(self._update() for _ in range(count))
        return Accumulator(minor, vaa, slot, ring_size, root, updates, len(self._data) - self._at)

    def _payload(self, payload: bytes) -> tuple[bytes, int, int, int, bytes]:
        if len(payload) < _PAYLOAD.size:
            self._refuse(self._at, f"expected a VAA payload of at least {_PAYLOAD.size} bytes, found {len(payload)}")
        return _PAYLOAD.unpack_from(payload)

    def _update(self) -> Update:
        size = self._number(2, "length of a message")
        at = self._at
        data = self._take(size, "message")
        message = self._message(data, at)
        hashes = self._number(1, "number of a proof's hashes")
        return Update(message, data, self._take(hashes * HASH_BYTES, f"proof of {hashes} hashes"))

    def _message(self, data: bytes, at: int) -> Message:
        match data[0] if data else None:
            case 0:
                self._long_enough(data, at, _PRICE.size)
                _, *values = _PRICE.unpack_from(data)
                return PriceMessage(*values)
            case 1:
                self._long_enough(data, at, _TWAP.size)
                _, feed_id, price, conf, *values = _TWAP.unpack_from(data)
                sums = int.from_bytes(price, "big", signed=True), int.from_bytes(conf, "big")
                return TwapMessage(feed_id, *sums, *values)
            case 2:
                self._long_enough(data, at, _CAPS.size)
                _, publish_time, count = _CAPS.unpack_from(data)
                end = _CAPS.size + count * _CAP.size
                self._long_enough(data, at, end)
                return StakeCaps(publish_time, tuple(_CAP.iter_unpack(data[_CAPS.size : end])))
            case None:
                raise DecodeError(f"{KIND}: offset {at}: expected a message, found an empty one")
            case unknown:
                raise DecodeError(f"{KIND}: offset {at}: expected a message of type 0, 1 or 2, found type {unknown}")

    def _long_enough(self, data: bytes, at: int, size: int) -> None:
        if len(data) < size:
            self._refuse(at + len(data), f"expected a message of at least {size} bytes, found {len(data)}")


def check(update: Accumulator, sets: SignerSets, *, at_us: int | None = None, mode: Mode = Mode.STRICT) -> Verdict:
    """Check an update against signer sets.

    Args:
        update: the decoded update.
        sets: who may sign.
        at_us: when the set has to be in force: the time of the check, live. Absent: when the VAA says it was signed,
            which is what a look into an archive wants, and what a forger with retired keys would choose too.
        mode: how strict.
    """
    return in_force(*unaged(update, sets, mode), update.vaa.timestamp * 1_000_000 if at_us is None else at_us)


def unaged(update: Accumulator, sets: SignerSets, mode: Mode) -> tuple[Verdict, SignerSet | None]:
    """The part of :func:`check` that no time can change, so that it may be remembered; and the set that signed."""
    vaa = update.vaa
    for number, one in enumerate(update.updates, 1):
        if not proves(update.root, one.data, one.proof):
            text = f"message {number} of {len(update.updates)} is not under the root that was signed"
            return Verdict(Why.BAD_PROOF, text, set_name=f"{vaa.emitter}#{vaa.set_index}"), None
    verdict, signer_set = check_signatures(KIND, vaa, sets)
    if mode is Mode.LENIENT and verdict.why is Why.SIGNER_UNPROVED:
        verdict = msgspec.structs.replace(verdict, why=None)
    if mode is Mode.STRICT and verdict.verified and update.trailing_bytes:
        text = f"{update.trailing_bytes} bytes follow the last message"
        verdict = msgspec.structs.replace(verdict, why=Why.TRAILING_BYTES, detail=text)
    return verdict, signer_set


def in_force(verdict: Verdict, signer_set: SignerSet | None, at_us: int) -> Verdict:
    """A verdict of :func:`unaged` at a time: the set must have begun, and must not be over."""
    if signer_set is None:
        return verdict
    why, detail = verdict.why, verdict.detail
    if why is None and at_us < signer_set.from_s * 1_000_000:
        why, detail = Why.EARLY_SET, f"set {signer_set.name} begins at unix second {signer_set.from_s}"
    if why is None and signer_set.until_s is not None and at_us >= signer_set.until_s * 1_000_000:
        why, detail = Why.EXPIRED_SET, f"set {signer_set.name} ended at unix second {signer_set.until_s}"
    return msgspec.structs.replace(verdict, why=why, detail=detail, judged_at_us=at_us)


def encode_price(price: PriceMessage) -> bytes:
    """The bytes of a price message, as the tree holds them."""
    return _PRICE.pack(0, *msgspec.structs.astuple(price))


def encode_payload(slot: int, ring_size: int, root: bytes) -> bytes:
    """What the VAA of an update says."""
    return _PAYLOAD.pack(PAYLOAD_MAGIC, _WORMHOLE_MERKLE, slot, ring_size, root)


def encode(vaa: bytes, messages: Sequence[bytes], proofs: Sequence[bytes]) -> bytes:
    """An update of messages and proofs under a VAA; at most 255 messages."""
    head = [MAGIC, bytes((MAJOR, 0, 0, _WORMHOLE_MERKLE)), len(vaa).to_bytes(2, "big"), vaa]
    return b"".join(
        (*head, bytes((len(messages),)), *(_encode_update(*one) for one in zip(messages, proofs, strict=True)))
    )


def excerpt(data: bytes, kept: Sequence[Update]) -> bytes:
    """An update with some of its messages (1 to 255) and nothing else: as good as the whole to whoever checks it.

    What was signed is the root of the tree, to which each message has a proof of its own. A proof tells hashes of
    other messages, and no price.

    Args:
        data: an update that :meth:`Accumulator.decode` reads.
        kept: some of its ``updates``.
    """
    size_at = len(MAGIC) + 4 + data[len(MAGIC) + 2]  # behind the versions, the header's tail and the type of proof
    end = size_at + 2 + int.from_bytes(data[size_at : size_at + 2], "big")
    return b"".join((data[:end], bytes((len(kept),)), *(_encode_update(one.data, one.proof) for one in kept)))


def _encode_update(message: bytes, proof: bytes) -> bytes:
    return b"".join((len(message).to_bytes(2, "big"), message, bytes((len(proof) // HASH_BYTES,)), proof))
