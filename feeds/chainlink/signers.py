"""The oracles that are known to sign Data Streams reports, and how a configuration names others.

A DON's signers are in the ``ConfigSet`` event of Chainlink's verifier: config digest, addresses, f. What is built in
was recovered from reports that Chainlink's own documentation prints: nobody vouches for it, so only those accept it who
say ``staging``, or are lenient. Whoever trades on reports gives the sets in a file: ``group`` is the config digest in
hex, ``keys`` are the addresses, ``quorum`` is f + 1.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from feeds.chainlink.report import ANY_DIGEST, KIND
from feeds.signers import SignerSet, SignerSets

_TESTNET = """
6b23132dece4da06571ba9149e2986549cb5fb30 dd3210a31d062cada9f37c69305032b7e5594e25
72cce7298ae2f6e516be2f2343ebedf863548d12 87abf51625b8587a8b331b305d026bb48772a20c
"""
"""All 25 public reports of the testnet, from 2024-07 to 2026-04 and under four digests, are by two of these four."""
_MAINNET_2024_DIGEST = "0006bd87830d5f336e205cf5c63329a1dab8f5d56812eaeb7c69300e66ab8e22"
_MAINNET_2024 = """
0fc9e43f343be5190131e88bb1de15fab6a5c9cf 3aceb84a335051009baaa1dc1f1b0fc65caffc5e
26eb8dea43b66dd285642487d79067a0c8195a6e 50a0ce1a108cc8cc36b2ca7d9cb1465aa10aad9e
9d0fb8544fba0a9e5890f831f896f79865d67bb5 59337c5ea05e8902781131ff85cccbf3e62b8b99
"""
"""Who signed the one public report of mainnet (2024-07-30), which has six signatures; the set is larger."""


def _keys(text: str) -> tuple[bytes, ...]:
    return tuple(map(bytes.fromhex, text.split()))


TESTNET = SignerSet(KIND, ANY_DIGEST, 0, _keys(_TESTNET), 2)
PRODUCTION = SignerSets(
    [
        SignerSet(KIND, _MAINNET_2024_DIGEST, 0, _keys(_MAINNET_2024), 6, proved=False),
        msgspec.structs.replace(TESTNET, proved=False),
    ]
)
STAGING = SignerSets([TESTNET])
KNOWN: Mapping[str, SignerSets] = MappingProxyType({"production": PRODUCTION, "staging": STAGING})
"""Signer sets by name, as ``--signers`` and configuration name them."""
