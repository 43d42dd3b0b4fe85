"""Hashes and signatures that signed prices rest on: keccak, secp256k1 recovery, ed25519.

The mathematics is that of well-kept libraries (libsecp256k1 by coincurve, keccak by pycryptodome, ed25519 by solders);
docs/adr/0032-signatures.md says why these. Nothing here knows who may sign what.
"""

from functools import lru_cache

from coincurve import PublicKey
from Crypto.Hash import keccak
from solders.pubkey import Pubkey
from solders.signature import Signature

_KNOWN_KEYS = 1_024


def keccak256(data: bytes) -> bytes:
    """The 32 bytes of Keccak-256 (Ethereum's, not SHA3's padding)."""
    return keccak.new(digest_bits=256, data=data).digest()


def keccak160(data: bytes) -> bytes:
    """The first 20 bytes of :func:`keccak256`, of which Pyth's Merkle trees are made."""
    return keccak.new(digest_bits=256, data=data).digest()[:20]


@lru_cache(maxsize=_KNOWN_KEYS)
def address_of(public_key: bytes) -> bytes:
    """The 20-byte address of an uncompressed public key (64 bytes, without its leading 04), as Ethereum forms it.

    Remembered for the keys seen last: signers are few and sign all day.
    """
    return keccak256(public_key)[-20:]


def recover(digest: bytes, signature: bytes, recovery_id: int) -> bytes | None:
    """The address whose key made a recoverable secp256k1 signature.

    Args:
        digest: the 32 bytes that were signed.
        signature: r and s, 32 bytes each, big endian.
        recovery_id: 0 to 3; some formats write it with 27 added, which the caller takes off.

    Returns:
        The 20-byte address, or None when no key can have made it. A changed message or signature usually recovers to
        *some* address: what proves is that the address is an expected one.
    """
    key = _recovered(digest, signature, recovery_id)
    return None if key is None else address_of(key.format(compressed=False)[1:])


def recover_key(digest: bytes, signature: bytes, recovery_id: int) -> bytes | None:
    """As :func:`recover`, for those who know signers by their compressed public keys (33 bytes)."""
    key = _recovered(digest, signature, recovery_id)
    return None if key is None else key.format()


def _recovered(digest: bytes, signature: bytes, recovery_id: int) -> PublicKey | None:
    if len(signature) != 64 or not 0 <= recovery_id <= 3:
        return None
    try:
        return PublicKey.from_signature_and_message(signature + bytes((recovery_id,)), digest, hasher=None)
    except Exception:  # coincurve raises ValueError and a bare Exception for what libsecp256k1 refuses
        return None


def ed25519_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an ed25519 signature (64 bytes) over a message is by that key (32 bytes)."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    return bool(Signature(signature).verify(Pubkey(public_key), message))
