"""How many accumulator updates one core proves: 13 of 19 signatures, Merkle proofs, decoding; and the library's limit.

Updates are signed here with test keys, in the form of Wormhole's guardians (13 signatures) and of Pyth's routers (3).
Each pass decodes and proves the whole anew.
"""

import sys

from coincurve import PublicKey

from benchmarks.report import Figure, Report, Table, Timing, main, measure
from feeds.emulator.pyth_signing import PythSigner
from feeds.pyth.accumulator import Accumulator, PriceMessage, check
from feeds.pyth.lazer import Lazer
from feeds.pyth.lazer import check as check_lazer
from feeds.pyth.merkle import proves
from feeds.pyth.signers import PRODUCTION
from feeds.signatures import ed25519_holds, keccak256
from feeds.verdict import Mode

GUARDIANS, QUORUM = 19, 13
MESSAGES = 1_024
"""In the tree; about as many feeds as there were on Pythnet, so a proof has 10 hashes."""
TIMESTAMP = 1_789_248_348
_LAZER = (
    "b9011a82036df6ced259a33949ab9b2c48a61a2d3b0b9436cba24c3ef8a600b72767927d14a459fcc3abce280b3f8194e16e8b32f9322ac0"
    "b84a9c0b792e19857962a60180efc1f480c5615af3fb673d42287e993da9fbc3506b6e41dfa32950820c2e6c2a0075d3c79300a3fa30ec3e"
    "060003020100000001009053802f790a00000200000001004234106d67000000"
)
"""A message of two feeds from Pyth Pro's public documentation (getting-started.mdx)."""


def signed(signer: PythSigner, n_feeds: int) -> bytes:
    """An update of a tree of :data:`MESSAGES` that carries ``n_feeds`` of them."""
    prices = [
        PriceMessage(n.to_bytes(32, "big"), 10**10 + n, 5, -8, TIMESTAMP, TIMESTAMP, 1, 1) for n in range(MESSAGES)
    ]
    whole = signer.updates(prices, TIMESTAMP)[0]
    update = Accumulator.decode(whole)
    head = whole.index(update.vaa.payload) + len(update.vaa.payload)
    body = b"".join(
        len(one.data).to_bytes(2, "big") + one.data + bytes((len(one.proof) // 20,)) + one.proof
        for one in update.updates[:n_feeds]
    )
    return whole[:head] + bytes((n_feeds,)) + body


def proving(signer: PythSigner, n_feeds: int, repetitions: int) -> Timing:
    """Decode and check one update, over and over: nothing of it is remembered but the signers' addresses."""
    data, sets = signed(signer, n_feeds), signer.sets

    def prove() -> None:
        if not check(Accumulator.decode(data), sets).verified:
            raise SystemExit("benchmarks.verify: an update that should be verified is not")

    return measure(prove, repetitions=repetitions, at_least_s=0.1)


def parts(signer: PythSigner, repetitions: int) -> tuple[tuple[str, Timing], ...]:
    """What the time goes to, each for the whole of an update with one feed."""
    data = signed(signer, 1)
    update = Accumulator.decode(data)
    signatures = [one.r_s + bytes((one.recovery_id,)) for one in update.vaa.signatures]
    digest, first = update.vaa.digest, update.updates[0]

    def recovered() -> None:
        for signature in signatures:
            PublicKey.from_signature_and_message(signature, digest, hasher=None)

    def timed(work: object) -> Timing:
        assert callable(work)
        return measure(work, repetitions=repetitions)

    return (
        (f"{len(signatures)} recoveries, coincurve alone", timed(recovered)),
        ("Merkle proof of one message", timed(lambda: proves(update.root, first.data, first.proof))),
        ("decoding", timed(lambda: Accumulator.decode(data))),
        ("keccak of 200 bytes", timed(lambda: keccak256(data[:200]))),
    )


def _per_s(timing: Timing) -> float:
    """Of the quickest repetition: what a core does when nothing else wants it."""
    return 1 / timing.minimum_s


def run(repetitions: int) -> Report:
    """Measure everything."""
    guardians = PythSigner(GUARDIANS, quorum=QUORUM)
    routers = PythSigner()
    one, five = (proving(guardians, n, repetitions) for n in (1, 5))
    by_routers = proving(routers, 5, repetitions)
    (limit_name, limit), *rest = parts(guardians, repetitions)
    message = Lazer.decode(bytes.fromhex(_LAZER))
    if not check_lazer(message, PRODUCTION, mode=Mode.LENIENT).verified:
        raise SystemExit("benchmarks.verify: the message of Pyth Pro is not verified")
    ed25519 = measure(
        lambda: ed25519_holds(message.public_key, message.signature, message.payload), repetitions=repetitions
    )
    pro = measure(
        lambda: check_lazer(Lazer.decode(bytes.fromhex(_LAZER)), PRODUCTION), repetitions=repetitions, at_least_s=0.05
    )
    rows = [
        ("13 signatures, 1 feed", one.minimum_s * 1e6, _per_s(one)),
        ("13 signatures, 5 feeds", five.minimum_s * 1e6, _per_s(five)),
        ("3 signatures (routers), 5 feeds", by_routers.minimum_s * 1e6, _per_s(by_routers)),
        ("Pyth Pro, ed25519, 2 feeds", pro.minimum_s * 1e6, _per_s(pro)),
    ]
    figures = (
        Figure("updates_of_13_signatures", _per_s(one), "updates/s", at_least=1_000),
        Figure("updates_of_13_signatures_5_feeds", _per_s(five), "updates/s"),
        Figure("updates_of_routers", _per_s(by_routers), "updates/s"),
        Figure("recovery_limit", _per_s(limit), "updates/s"),
        Figure("share_of_recovery", limit.minimum_s / one.minimum_s * 100, "%"),
        Figure("lazer_messages", _per_s(pro), "messages/s"),
    )
    tables = (
        Table("Decoded and proved, one core", ("message", "us", "per second"), tuple(rows)),
        Table(
            "Of which",
            ("part", "us"),
            (
                (limit_name, limit.minimum_s * 1e6),
                *((name, timing.minimum_s * 1e6) for name, timing in rest),
                ("ed25519, solders", ed25519.minimum_s * 1e6),
            ),
        ),
    )
    return Report(
        "verify", figures, tables, ("quickest repetition of each; recovery_limit: 13 recoveries and nothing else",)
    )


if __name__ == "__main__":
    sys.exit(main("verify", __doc__ or "", run))
