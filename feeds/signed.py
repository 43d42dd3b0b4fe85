"""Signed messages that can be decoded and checked, by kind. A new kind adds one line to :data:`SIGNED`.

What a kind needs: a function that decodes bytes into fields for JSON, one that checks them against signer sets, and the
known signer sets by name. How signers are written down, and what a check answers, is the same for all
(:mod:`feeds.signers`, :mod:`feeds.verdict`).
"""

from collections.abc import Callable, Mapping

import msgspec

from feeds.chainlink import report
from feeds.chainlink.signers import KNOWN as CHAINLINK_SIGNERS
from feeds.edge import messages as edge
from feeds.edge.signers import KNOWN as EDGE_SIGNERS
from feeds.pyth import accumulator, lazer
from feeds.pyth.signers import KNOWN as PYTH_SIGNERS
from feeds.signers import SignerSets
from feeds.verdict import Mode, Verdict
from oracle_hub.errors import DecodeError


class SignedKind(msgspec.Struct, frozen=True):
    """One kind of signed message."""

    decode: Callable[[bytes], dict[str, object]]
    """Fields for JSON with ``kind`` first. Raises DecodeError."""
    check: Callable[[bytes, SignerSets, int | None, Mode], Verdict]
    """Whether the bytes are signed by those who may: bytes, sets, time (us; None: the message's own), mode. Raises
    DecodeError."""
    signers: Mapping[str, SignerSets]
    """Known sets by name; ``production`` is among them."""
    summary: str
    json: bool = False
    """The bytes may also be JSON text."""


def _decode_accumulator(data: bytes) -> dict[str, object]:
    return accumulator.Accumulator.decode(data).fields()


def _check_accumulator(data: bytes, sets: SignerSets, at_us: int | None, mode: Mode) -> Verdict:
    return accumulator.check(accumulator.Accumulator.decode(data), sets, at_us=at_us, mode=mode)


def _decode_lazer(data: bytes) -> dict[str, object]:
    return lazer.Lazer.decode(data).fields()


def _check_lazer(data: bytes, sets: SignerSets, at_us: int | None, mode: Mode) -> Verdict:
    return lazer.check(lazer.Lazer.decode(data), sets, at_us=at_us, mode=mode)


def _decode_report(data: bytes) -> dict[str, object]:
    return report.Report.decode(data).fields()


def _check_report(data: bytes, sets: SignerSets, at_us: int | None, mode: Mode) -> Verdict:
    return report.check(report.Report.decode(data), sets, at_us=at_us, mode=mode)


def _edge(kind: edge.Kind) -> SignedKind:
    forms = {"edge.svm": "Edge's prices and batches for Solana", "edge.evm": "Edge's prices for EVM chains"}
    return SignedKind(
        lambda data: edge.fields(edge.decode(kind, data)),
        lambda data, sets, at_us, mode: edge.check(edge.decode(kind, data), sets, at_us=at_us, mode=mode),
        EDGE_SIGNERS,
        forms[kind],
        json=True,
    )


SIGNED: Mapping[str, SignedKind] = {
    accumulator.KIND: SignedKind(
        _decode_accumulator, _check_accumulator, PYTH_SIGNERS, "Pyth's accumulator updates (Hermes' binary)"
    ),
    lazer.KIND: SignedKind(_decode_lazer, _check_lazer, PYTH_SIGNERS, "Pyth Pro's signed payloads"),
    report.KIND: SignedKind(
        _decode_report, _check_report, CHAINLINK_SIGNERS, "Chainlink Data Streams' full reports", json=True
    ),
    edge.SVM: _edge(edge.SVM),
    edge.EVM: _edge(edge.EVM),
}
"""Kind of message to what can be done with it."""


def decode_signed(
    kind: str, data: bytes, sets: SignerSets | None = None, *, at_us: int | None = None, mode: Mode = Mode.STRICT
) -> dict[str, object]:
    """Decode a message; with ``sets``, check it too and add the verdict's keys (:meth:`Verdict.fields`).

    Raises:
        DecodeError: the bytes are no such message.
    """
    known = SIGNED.get(kind)
    if known is None:
        raise DecodeError(f"unknown kind of signed message {kind}; known: {', '.join(sorted(SIGNED))}")
    fields = known.decode(data)
    if sets is None:
        return fields
    return fields | known.check(data, sets, at_us, mode).fields() | {"mode": str(mode)}
