"""VAA, Wormhole's signed message: some of a set of signers vouch for what an emitter said.

Source: Wormhole's specification of VAA version 1. Pyth uses it twice: signed by Wormhole's guardians (until the upgrade
of 2026-08-26) and, in the same form from an emitter of its own, by Pyth's routers.
"""

import struct

import msgspec

from feeds.signatures import keccak256, recover
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Signer, Verdict, Why
from oracle_hub.errors import DecodeError

_HEAD = struct.Struct(">BIB")
_BODY = struct.Struct(">IIH32sQB")
_SIGNATURE_BYTES = 66
_VERSION = 1


class Signature(msgspec.Struct, frozen=True, gc=False):
    """One signature over the digest."""

    index: int
    """Place of the signer in its set."""
    r_s: bytes
    recovery_id: int


class Vaa(msgspec.Struct, frozen=True, gc=False):
    """One VAA, field by field. ``digest`` is what was signed."""

    set_index: int
    signatures: tuple[Signature, ...]
    timestamp: int
    nonce: int
    emitter_chain: int
    emitter_address: bytes
    sequence: int
    consistency_level: int
    payload: bytes
    digest: bytes

    @property
    def emitter(self) -> str:
        """``chain:address``, by which signer sets are grouped."""
        return f"{self.emitter_chain}:{self.emitter_address.hex()}"


def decode_vaa(kind: str, data: bytes, at: int = 0) -> Vaa:
    """Read a VAA that fills ``data``. ``kind`` and ``at`` (its offset in what it came in) are for messages of errors.

    Raises:
        DecodeError: cut short, or of another version.
    """
    if len(data) < _HEAD.size:
        raise DecodeError(f"{kind}: offset {at + len(data)}: expected a VAA of at least {_HEAD.size} bytes")
    version, set_index, count = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise DecodeError(f"{kind}: offset {at}: expected VAA version {_VERSION}, found {version}")
    start = _HEAD.size + count * _SIGNATURE_BYTES
    if len(data) < start + _BODY.size:
        wanted = f"{count} signatures and a body of at least {_BODY.size} bytes"
        raise DecodeError(f"{kind}: offset {at + len(data)}: expected {wanted} (to offset {at + start + _BODY.size})")
    signatures = tuple(
        Signature(data[place], data[place + 1 : place + 65], data[place + 65])
        for place in range(_HEAD.size, start, _SIGNATURE_BYTES)
    )
    timestamp, nonce, chain, address, sequence, consistency = _BODY.unpack_from(data, start)
    body = data[start:]
    return Vaa(
        set_index=set_index,
        signatures=signatures,
        timestamp=timestamp,
        nonce=nonce,
        emitter_chain=chain,
        emitter_address=address,
        sequence=sequence,
        consistency_level=consistency,
        payload=body[_BODY.size :],
        digest=keccak256(keccak256(body)),
    )


def check_signatures(kind: str, vaa: Vaa, sets: SignerSets) -> tuple[Verdict, SignerSet | None]:
    """Whether enough of the set that a VAA names have signed it. Says nothing about when that set is in force.

    As on chain, one wrong signature spoils all: none is needed to be there that does not hold.
    """
    if not sets.knows(kind, vaa.emitter):
        text = f"no signers are known for emitter {vaa.emitter}"
        return _of_no_set(vaa, Why.UNKNOWN_SIGNER, text), None
    signer_set = sets.get(kind, vaa.emitter, vaa.set_index)
    if signer_set is None:
        text = f"signer set {vaa.set_index} of emitter {vaa.emitter} is not known: is there a rotation to take over?"
        return _of_no_set(vaa, Why.UNKNOWN_SET, text), None
    signers: list[Signer] = []
    wrong = 0
    for signature in vaa.signatures:
        if signers and wrong == len(signers) >= signer_set.quorum:
            break  # nothing that was signed by these
        address = recover(vaa.digest, signature.r_s, signature.recovery_id)
        place = signature.index
        known = address is not None and place < len(signer_set.keys) and address == signer_set.keys[place]
        wrong += not known
        signers.append(Signer(address, known, place))
        if wrong and wrong < len(signers):
            break  # the message is right, this signature is not
    why, detail = _judge(vaa, signer_set, signers, wrong)
    until_us = None if signer_set.until_s is None else signer_set.until_s * 1_000_000
    verdict = Verdict(
        why, detail, set_name=signer_set.name, set_until_us=until_us, quorum=signer_set.quorum, signers=tuple(signers)
    )
    return verdict, signer_set


def _of_no_set(vaa: Vaa, why: Why, detail: str) -> Verdict:
    signers = (
        Signer(recover(vaa.digest, one.r_s, one.recovery_id), known=False, index=one.index) for one in vaa.signatures
    )
    return Verdict(why, detail, set_name=f"{vaa.emitter}#{vaa.set_index}", signers=tuple(signers))


def _judge(vaa: Vaa, signer_set: SignerSet, signers: list[Signer], wrong: int) -> tuple[Why | None, str]:
    places = [signature.index for signature in vaa.signatures]
    size = len(signer_set.keys)
    if not signers:
        return Why.UNSIGNED, "the VAA has no signature"
    if places != sorted(set(places)):
        return Why.BAD_SIGNATURE, "the signers' places don't ascend"
    if wrong:
        bad = next(signer for signer in signers if not signer.known)
        made_by = "by nobody" if bad.key is None else f"by {bad.key.hex()}"
        if wrong < len(signers):
            return Why.BAD_SIGNATURE, f"signature {bad.index} is {made_by}, not by that place of set {signer_set.name}"
        detail = f"signature {bad.index} is {made_by}, as none by its place of set {signer_set.name} ({size} keys): "
        return Why.UNKNOWN_SIGNER, detail + "changed, or signed by others"
    if len(signers) < signer_set.quorum:
        return Why.NO_QUORUM, f"{len(signers)} of {size} have signed, {signer_set.quorum} are needed"
    if not signer_set.proved:
        return Why.SIGNER_UNPROVED, f"nobody vouches for set {signer_set.name}"
    return None, f"{len(signers)} of {size} have signed, {signer_set.quorum} are needed"
