"""Pyth's Merkle trees: keccak160, pairs sorted, so that a proof is the hashes beside the way and no positions.

Source: pythnet's accumulator (``leaf = H(00 ‖ message)``, ``node = H(01 ‖ smaller ‖ larger)``; empty places up to the
next power of two hold ``H(02)``, with H the first 20 bytes of Keccak-256).
"""

from collections.abc import Sequence

from feeds.signatures import keccak160

HASH_BYTES = 20
EMPTY = keccak160(b"\x02")


def leaf(message: bytes) -> bytes:
    """The hash of a message."""
    return keccak160(b"\x00" + message)


def node(one: bytes, other: bytes) -> bytes:
    """The hash of two hashes, in whichever order they come."""
    return keccak160(b"\x01" + one + other if one <= other else b"\x01" + other + one)


def proves(root: bytes, message: bytes, proof: bytes) -> bool:
    """Whether a message is in the tree of a root. ``proof`` is the hashes beside its way up, one after the other."""
    reached = leaf(message)
    for start in range(0, len(proof), HASH_BYTES):
        reached = node(reached, proof[start : start + HASH_BYTES])
    return reached == root


def tree(messages: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """The root over messages, and the proof of each. At least one message is needed."""
    row = [leaf(message) for message in messages]
    row += [EMPTY] * ((1 << (len(row) - 1).bit_length()) - len(row))
    proofs = [b""] * len(messages)
    places = list(range(len(messages)))
    while len(row) > 1:
        for number, place in enumerate(places):
            proofs[number] += row[place ^ 1]
            places[number] = place >> 1
        row = [node(row[place], row[place + 1]) for place in range(0, len(row), 2)]
    return row[0], proofs
