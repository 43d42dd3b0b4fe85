"""Proving Hermes' ``binary``: each update once, however many hosts deliver it, and kept for those who want it on."""

import binascii
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache, partial

import msgspec

from feeds.pyth.accumulator import Accumulator, PriceMessage, Update, excerpt, in_force, unaged
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Verdict, Why
from oracle_hub.errors import DecodeError

_MOST_BLOBS = 64
"""A host sends one for each 255 prices; what is beyond is not looked at."""
_KEPT_BYTES = 2**17
"""A longer update is not remembered: 255 prices are 70 kB, and what a host makes up must not fill the memory."""
_KEPT_PER_FEED = 16
"""Signed prices of a feed that can be handed on: so many seconds of them, as a rule."""


class Binary(msgspec.Struct, frozen=True):
    """Hermes' ``binary``: updates in hex or base64."""

    encoding: str = ""
    data: list[str] = []


class ProvedPrice(msgspec.Struct, frozen=True, gc=False):
    """A price that was signed, and the slot that was signed with it."""

    price: PriceMessage
    slot: int


class Proved(msgspec.Struct, frozen=True):
    """What a body's ``binary`` gave."""

    prices: dict[str, list[ProvedPrice]]
    """By feed id in hex, in the order in which they came."""
    refused: list[Verdict]
    """One for each update that is not verified."""


_binary = msgspec.json.Decoder(Binary).decode


class Prover:
    """Checks updates against signer sets, and remembers what no time can change of the last ``capacity`` ones.

    One serves all links of a source. What it remembers is no state: asked again, it would find the same.

    Args:
        sets: who may sign.
        capacity: updates to remember. Hosts are seconds apart at most, with a few updates a second.
    """

    def __init__(self, sets: SignerSets, *, capacity: int = 512) -> None:
        self._known = lru_cache(capacity)(partial(_looked_at, sets=sets))
        self._kept: dict[bytes, OrderedDict[tuple[int, int], tuple[bytes, Update]]] = {}
        """By feed id, then publish time (s) and price: the update that proved it, and its place in there."""

    @property
    def checked(self) -> int:
        """Updates that were looked at, not remembered."""
        return self._known.cache_info().misses

    def keep(self, feed_id: str) -> None:
        """Keep the newest proved prices of this feed (64 hex digits), for :meth:`signed`."""
        self._kept.setdefault(bytes.fromhex(feed_id), OrderedDict())

    def signed(self, feed_id: str, publish_s: int) -> list[tuple[PriceMessage, bytes]]:
        """The proved prices of a feed at a publish time, each with a signed update of it and of no other price.

        Empty where none is kept.
        """
        kept = self._kept.get(bytes.fromhex(feed_id), OrderedDict())
        return [
            (update.message, excerpt(data, [update]))
            for (published_s, _), (data, update) in kept.items()
            if published_s == publish_s and isinstance(update.message, PriceMessage)
        ]

    def _keep(self, update: Update, data: bytes) -> None:
        price = update.message
        if not isinstance(price, PriceMessage) or (kept := self._kept.get(price.feed_id)) is None:
            return
        key = price.publish_time, price.price
        if key not in kept:
            kept[key] = data, update
            if len(kept) > _KEPT_PER_FEED:
                kept.popitem(last=False)

    def prove(self, raw: msgspec.Raw, at_us: int) -> Proved:
        """Prove the ``binary`` of a body as it stood in the JSON (empty: not there), at a time (us).

        Never raises on what a host sent.
        """
        prices: dict[str, list[ProvedPrice]] = {}
        refused: list[Verdict] = []
        for data in self._blobs(raw):
            update, verdict = self._one(data, at_us)
            if update is None or not verdict.verified:
                refused.append(verdict)
                continue
            for price in update.prices:
                prices.setdefault(price.feed_id.hex(), []).append(ProvedPrice(price, update.slot))
            for one in update.updates:
                self._keep(one, data)
        if not prices and not refused:
            refused.append(Verdict(Why.UNSIGNED, "no signed update beside it"))
        return Proved(prices, refused)

    def _blobs(self, raw: msgspec.Raw) -> Iterator[bytes]:
        """The updates; one that can't be read as text gives empty bytes, which are refused like any other nonsense."""
        if not bytes(raw):
            return
        try:
            binary = _binary(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield b""
            return
        for text in binary.data[:_MOST_BLOBS]:
            try:
                yield bytes.fromhex(text) if binary.encoding == "hex" else b64decode(text, validate=True)
            except (ValueError, binascii.Error):
                yield b""

    def _one(self, data: bytes, at_us: int) -> tuple[Accumulator | None, Verdict]:
        look = self._known if len(data) <= _KEPT_BYTES else self._known.__wrapped__
        update, verdict, signer_set = look(data)
        return update, in_force(verdict, signer_set, at_us)


def _looked_at(data: bytes, sets: SignerSets) -> tuple[Accumulator | None, Verdict, SignerSet | None]:
    try:
        update = Accumulator.decode(data)
    except DecodeError as error:
        return None, Verdict(Why.MALFORMED, str(error)), None
    return update, *unaged(update, sets, Mode.STRICT)
