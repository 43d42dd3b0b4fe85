"""Data Streams reports signed with test keys, in the form and by the rules of a real DON.

The config digest is one of our own, so that nobody who knows the real DONs takes a simulated price for a real one.
"""

from collections.abc import Mapping, Sequence

from coincurve import PrivateKey

from feeds.chainlink.report import KIND, Signature, encode, encode_blob
from feeds.signatures import address_of, keccak256
from feeds.signers import SignerSet, SignerSets

FAULTY = 1
"""f of the test DON: as many oracles may be wrong."""
_LIFE_S = 30 * 86_400


class DonSigner:
    """The oracles of a DON, with test keys.

    Args:
        faulty: f; 3 f + 1 oracles, of which f + 1 sign.
        seed: other seeds give other keys and another digest.
    """

    def __init__(self, faulty: int = FAULTY, *, seed: int = 0) -> None:
        self._keys = [PrivateKey(keccak256(f"test oracle {seed} {place}".encode())) for place in range(3 * faulty + 1)]
        self.quorum = faulty + 1
        self.digest = keccak256(f"simulated DON {seed}".encode())

    @property
    def sets(self) -> SignerSets:
        """Who has to have signed, for those who check."""
        keys = tuple(address_of(key.public_key.format(compressed=False)[1:]) for key in self._keys)
        return SignerSets([SignerSet(KIND, self.digest.hex(), 0, keys, self.quorum)])

    def signed(self, blob: bytes, epoch_and_round: int, places: Sequence[int] | None = None) -> bytes:
        """A full report of a blob, signed by the oracles at ``places`` (as many as make a quorum, in turn)."""
        context = self.digest + epoch_and_round.to_bytes(32, "big") + bytes(32)
        digest = keccak256(keccak256(blob) + context)
        count = len(self._keys)
        signing = places if places is not None else [(epoch_and_round + n) % count for n in range(self.quorum)]
        recoverable = (self._keys[place].sign_recoverable(digest, hasher=None) for place in signing)
        return encode(context, blob, [Signature(one[:64], one[64]) for one in recoverable])

    def report(self, feed_id: bytes, observed_s: int, values: Mapping[str, int], sequence: int = 1) -> bytes:
        """A full report of the schema that the feed id names.

        Args:
            feed_id: 32 bytes.
            observed_s: unix second of the observation.
            values: the fields of the schema that come after its head.
            sequence: epoch and round.
        """
        head: dict[str, int | bytes] = {
            "feedId": feed_id,
            "validFromTimestamp": observed_s,
            "observationsTimestamp": observed_s,
            "nativeFee": 0,
            "linkFee": 0,
            "expiresAt": observed_s + _LIFE_S,
        }
        return self.signed(encode_blob(int.from_bytes(feed_id[:2], "big"), head | dict(values)), sequence)
