"""Pyth Pro's payloads signed with test keys: ed25519 for Solana, secp256k1 for EVM and other chains."""

from collections.abc import Sequence
from functools import cache, lru_cache

import msgspec
from coincurve import PrivateKey
from solders.keypair import Keypair

from feeds.pyth.lazer import Format, Lazer, LazerFeed, encode, encode_payload
from feeds.pyth.signers import ED25519, LAZER, SECP256K1
from feeds.signatures import address_of, keccak256
from feeds.signers import SignerSet, SignerSets

_KEPT = 64


class ProSigner:
    """Keys of our own in place of Pyth's. Other seeds give other keys."""

    def __init__(self, seed: int = 0) -> None:
        self._ed25519 = Keypair.from_seed(keccak256(f"test ed25519 key of Pyth Pro {seed}".encode()))
        self._secp256k1 = PrivateKey(keccak256(f"test secp256k1 key of Pyth Pro {seed}".encode()))
        self._signed = lru_cache(_KEPT)(self._sign)

    @property
    def public_key(self) -> bytes:
        """The ed25519 key, 32 bytes."""
        return bytes(self._ed25519.pubkey())

    @property
    def address(self) -> bytes:
        """The address of the secp256k1 key, 20 bytes."""
        return address_of(self._secp256k1.public_key.format(compressed=False)[1:])

    @property
    def sets(self) -> SignerSets:
        """Who has to have signed, for those who check."""
        keys = ((ED25519, self.public_key), (SECP256K1, self.address))
        return SignerSets(SignerSet(LAZER, group, 0, (key,), 1) for group, key in keys)

    def message(self, form: Format, timestamp_us: int, channel: int, feeds: Sequence[LazerFeed]) -> bytes:
        """A message of a format. Hosts that tell the same are given the same bytes, signed once."""
        payload = encode_payload(timestamp_us, channel, feeds, big_endian=form == "evm")
        return self._signed(form, payload)

    def _sign(self, form: Format, payload: bytes) -> bytes:
        message = Lazer(form, payload, 0, 0, ())
        if form == "solana":
            signature = bytes(self._ed25519.sign_message(payload))
            return encode(msgspec.structs.replace(message, signature=signature, public_key=self.public_key))
        if form in ("evm", "leEcdsa"):
            made = self._secp256k1.sign_recoverable(keccak256(payload), hasher=None)
            return encode(msgspec.structs.replace(message, signature=made[:64], recovery_id=made[64]))
        return encode(message)


@cache
def simulated_signer() -> ProSigner:
    """The signer of every emulated host: hosts of one world deliver the same bytes, as real ones do."""
    return ProSigner()


@cache
def stranger() -> ProSigner:
    """A signer with keys that nobody expects."""
    return ProSigner(seed=1)
