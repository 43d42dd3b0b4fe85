"""Signed updates of several prices as Hermes gives them: one for each signed message, with all prices under it. Pure.

The hub hands on an update for each price. Where Pyth signed several in one message, clients expect one update of all:
many a program submits the first of ``binary.data`` only, and every further one costs a contract another check of all
signatures. Source of the layout: pythnet-sdk's wire format, version 1 (big endian).
"""

from collections.abc import Sequence
from typing import NamedTuple

_MAGIC = b"PNAU\x01"
_TRAILING_LENGTH_AT = 6
"""Behind the magic and the two versions: how many bytes follow that later versions added."""
_SIGNATURES_AT = 6
"""In the signed message: behind its version and the number of the set; how many there are, then the signatures."""
_SIGNATURE_BYTES = 66
_HASH_BYTES = 20
MAX_PRICES = 255
"""In one update: their count is a byte."""


class _Signed(NamedTuple):
    head: bytes
    """Up to the count of prices: the versions and the signed message."""
    said: tuple[bytes, bytes]
    """What was signed, and by which set: messages that differ in the choice of signatures only are the same."""
    n_prices: int
    prices: bytes
    """Each with its proof."""


def together(updates: Sequence[bytes]) -> list[bytes]:
    """These updates, those under one signed message joined, in the order of the first of each.

    Args:
        updates: accumulator updates, each with one or more prices. One that can't be read is passed on as it is.
    """
    joined: list[_Signed | bytes] = []
    places: dict[tuple[bytes, bytes], int] = {}
    for update in updates:
        signed = _parse(update)
        if signed is None:
            joined.append(update)
            continue
        place = places.get(signed.said)
        held = None if place is None else joined[place]
        if place is not None and isinstance(held, _Signed) and held.n_prices + signed.n_prices <= MAX_PRICES:
            joined[place] = held._replace(n_prices=held.n_prices + signed.n_prices, prices=held.prices + signed.prices)
        else:
            places[signed.said] = len(joined)
            joined.append(signed)
    return [one if isinstance(one, bytes) else one.head + bytes((one.n_prices,)) + one.prices for one in joined]


def _parse(update: bytes) -> _Signed | None:
    """The parts of an update; None for anything that is not exactly one."""
    try:
        if not update.startswith(_MAGIC):
            return None
        size_at = _TRAILING_LENGTH_AT + 2 + update[_TRAILING_LENGTH_AT]  # behind the type of proof
        vaa_at = size_at + 2
        count_at = vaa_at + int.from_bytes(update[size_at:vaa_at], "big")
        count, end = update[count_at], count_at + 1
        for _ in range(count):
            proof_at = end + 2 + int.from_bytes(update[end : end + 2], "big")
            end = proof_at + 1 + update[proof_at] * _HASH_BYTES
    except IndexError:
        return None
    vaa = update[vaa_at:count_at]
    body = vaa[_SIGNATURES_AT + vaa[_SIGNATURES_AT - 1] * _SIGNATURE_BYTES :] if len(vaa) >= _SIGNATURES_AT else b""
    if end != len(update) or not count or not body:
        return None
    said = (update[:size_at] + vaa[: _SIGNATURES_AT - 1], body)
    return _Signed(update[:count_at], said, count, update[count_at + 1 :])
