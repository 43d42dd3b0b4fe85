"""What a check of a signed message says, the same for every kind of message."""

from enum import StrEnum

import msgspec


class Mode(StrEnum):
    """How much is asked of a signed message."""

    STRICT = "strict"
    """Signers that are vouched for, a set in force, and not a byte beside the message."""
    LENIENT = "lenient"
    """Bytes after the message, and signers that were seen but that nobody vouches for, are let pass. A wrong
    signature, a wrong proof, too few signers or a set that is over never are."""


class Why(StrEnum):
    """Why a message is not verified. A closed list: docs/signatures.md explains each."""

    MALFORMED = "malformed"
    UNSIGNED = "unsigned"
    INCOMPLETE = "incomplete"
    BAD_PROOF = "bad_proof"
    UNKNOWN_SET = "unknown_set"
    UNKNOWN_SIGNER = "unknown_signer"
    BAD_SIGNATURE = "bad_signature"
    DUPLICATE_SIGNER = "duplicate_signer"
    NO_QUORUM = "no_quorum"
    SIGNER_UNPROVED = "signer_unproved"
    EARLY_SET = "early_set"
    EXPIRED_SET = "expired_set"
    EARLY = "early"
    EXPIRED = "expired"
    TRAILING_BYTES = "trailing_bytes"


class Signer(msgspec.Struct, frozen=True, gc=False):
    """One signature: who made it, and whether that is who should have."""

    key: bytes | None
    """Address (20 bytes) or public key (32 bytes, compressed secp256k1 33); None when nobody can have made it."""
    known: bool
    """It is in the signer set, at the place where it says to be."""
    index: int | None = None
    """Its place in the set, where the message names one."""


class Verdict(msgspec.Struct, frozen=True):
    """The outcome of a check."""

    why: Why | None
    """None: verified."""
    detail: str
    """One line in words."""
    judged_at_us: int | None = None
    """The time at which the signer set had to be in force; None when it did not come to that."""
    set_name: str | None = None
    """The set that the message claims to be signed by."""
    set_until_us: int | None = None
    """When that set ends, where it is known to."""
    quorum: int = 0
    """Signatures that are needed."""
    signers: tuple[Signer, ...] = ()

    @property
    def verified(self) -> bool:
        """Signed by enough of those who may, unchanged, and in time."""
        return self.why is None

    @property
    def valid(self) -> int:
        """Signers whose signatures are right; one who signs twice counts once."""
        return len({signer.key for signer in self.signers if signer.known})

    def fields(self) -> dict[str, object]:
        """The verdict as it is printed: keys in hex, every key always there."""
        return {
            "verified": self.verified,
            "why": None if self.why is None else str(self.why),
            "detail": self.detail,
            "signer_set": self.set_name,
            "set_until_us": self.set_until_us,
            "judged_at_us": self.judged_at_us,
            "quorum": self.quorum,
            "valid_signatures": self.valid,
            "quorum_met": bool(self.quorum) and self.valid >= self.quorum,
            "signers": [
                {"index": one.index, "key": None if one.key is None else one.key.hex(), "known": one.known}
                for one in self.signers
            ],
        }
