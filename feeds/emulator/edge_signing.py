"""Edge's messages signed with a test key, in the JSON of its REST API."""

from collections.abc import Sequence

import orjson
from coincurve import PrivateKey

from feeds.edge.messages import EVM, SVM, EdgePrice, signed_evm, signed_svm
from feeds.signatures import address_of, keccak256
from feeds.signers import SignerSet, SignerSets


class EdgeSigner:
    """A customer's key at Edge. Other seeds give other keys."""

    def __init__(self, seed: int = 0) -> None:
        self._key = PrivateKey(keccak256(f"test customer {seed}".encode()))

    @property
    def sets(self) -> SignerSets:
        """Who has to have signed, for those who check: of both kinds."""
        public = self._key.public_key
        address = address_of(public.format(compressed=False)[1:])
        return SignerSets(
            [
                SignerSet(SVM, "simulated", 0, (public.format(),), 1),
                SignerSet(EVM, "simulated", 0, (address,), 1),
            ]
        )

    def batch(self, prices: Sequence[EdgePrice]) -> bytes:
        """The answer of ``/prices/batch``: one signature over all."""
        answer = {"prices": [_entry(price) for price in prices]}
        return orjson.dumps(answer | self._svm(prices))

    def single(self, price: EdgePrice) -> bytes:
        """The answer of ``/prices/{feedId}/latest``."""
        return orjson.dumps(_entry(price) | self._svm([price]))

    def each(self, prices: Sequence[EdgePrice]) -> bytes:
        """The answer of ``/prices``: each with a signature of its own."""
        return orjson.dumps({"prices": [_entry(price) | self._svm([price]) for price in prices]})

    def evm(self, price: EdgePrice) -> bytes:
        """One price for EVM chains, with round, bid and ask.

        Raises:
            ValueError: the price has none of these.
        """
        signed = signed_evm(price)
        if signed is None:
            raise ValueError("round, bid and ask are signed: give them")
        made = self._key.sign_recoverable(keccak256(signed), hasher=None)
        quotes = {"roundId": price.round_id, "bid": price.bid, "ask": price.ask}
        return orjson.dumps(_entry(price) | quotes | {"signature": "0x" + made[:64].hex() + f"{made[64] + 27:02x}"})

    def _svm(self, prices: Sequence[EdgePrice]) -> dict[str, object]:
        made = self._key.sign_recoverable(keccak256(signed_svm(prices)), hasher=None)
        return {"signature": made[:64].hex(), "recoveryId": made[64]}


def _entry(price: EdgePrice) -> dict[str, object]:
    return {"feedId": price.feed_id, "price": price.price, "expo": price.expo, "ts": price.ts}
