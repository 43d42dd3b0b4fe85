"""Accumulator updates signed with test keys, in the form and by the rules of the real signers.

The emitter is one of our own, so that nobody who knows the real signers takes a simulated price for a real one.
"""

from collections.abc import Sequence
from functools import cache

from coincurve import PrivateKey

from feeds.pyth.accumulator import KIND, PriceMessage, encode, encode_payload, encode_price
from feeds.pyth.merkle import tree
from feeds.pyth.signers import majority
from feeds.signatures import address_of, keccak256
from feeds.signers import SignerSet, SignerSets

CHAIN = 26
EMITTER = b"oracle-hub simulated Pyth prices"
ROUTERS = 5
"""As many as sign Pyth's real updates since 2026-08-26; a majority of them does."""
_TICKS_PER_S = 20
_MAX_MESSAGES = 255


class PythSigner:
    """A set of test keys and the emitter for which they sign.

    Args:
        size: keys in the set.
        quorum: how many sign; a majority when absent.
        index: number of the set.
        seed: other seeds give other keys.
        emitter: the 32 bytes that say who speaks.
    """

    def __init__(
        self, size: int = ROUTERS, *, quorum: int | None = None, index: int = 0, seed: int = 0, emitter: bytes = EMITTER
    ) -> None:
        self._keys = [PrivateKey(keccak256(f"test key {index} {seed} {place}".encode())) for place in range(size)]
        self._quorum = majority(size) if quorum is None else quorum
        self._index = index
        self._emitter = emitter

    @property
    def sets(self) -> SignerSets:
        """Who has to have signed, for those who check."""
        keys = tuple(address_of(key.public_key.format(compressed=False)[1:]) for key in self._keys)
        return SignerSets([SignerSet(KIND, f"{CHAIN}:{self._emitter.hex()}", self._index, keys, self._quorum)])

    def vaa(self, payload: bytes, timestamp: int, sequence: int, places: Sequence[int] | None = None) -> bytes:
        """A VAA that says ``payload``, signed by the keys at ``places`` (the first ones that make a quorum)."""
        body = timestamp.to_bytes(4, "big") + bytes(4) + CHAIN.to_bytes(2, "big") + self._emitter
        body += sequence.to_bytes(8, "big") + bytes(1) + payload
        digest = keccak256(keccak256(body))
        signing = range(self._quorum) if places is None else places
        head = bytes((1,)) + self._index.to_bytes(4, "big") + bytes((len(signing),))
        signed = (bytes((place,)) + self._keys[place].sign_recoverable(digest, hasher=None) for place in signing)
        return head + b"".join(signed) + body

    def updates(self, prices: Sequence[PriceMessage], timestamp: int, slot: int | None = None) -> list[bytes]:
        """Signed updates of prices of one instant: one for each 255 of them.

        Args:
            prices: at least one.
            timestamp: unix second at which it is signed.
            slot: counts the instants; 20 for each second, as the real one, when absent.
        """
        slot = timestamp * _TICKS_PER_S if slot is None else slot
        messages = [encode_price(price) for price in prices]
        root, proofs = tree(messages)
        vaa = self.vaa(encode_payload(slot, 0, root), timestamp, slot)
        starts = range(0, len(messages), _MAX_MESSAGES)
        return [
            encode(vaa, messages[start : start + _MAX_MESSAGES], proofs[start : start + _MAX_MESSAGES])
            for start in starts
        ]


@cache
def simulated_signer() -> PythSigner:
    """The signer of every emulated Hermes host: hosts of one world deliver the same bytes, as real ones do."""
    return PythSigner()


@cache
def stranger() -> PythSigner:
    """A signer with keys that nobody expects."""
    return PythSigner(seed=1)
