"""The keys that are known to sign Edge's messages. Edge gives each customer a key of its own, in private.

Sources: Adrena's program (``chaos_labs_oracle``: production and staging) and GMX's configuration and tests. A customer
gives its own key in a file of signer sets: for ``edge.svm`` the compressed public key (33 bytes), for ``edge.evm`` the
address (20 bytes); the group is any name.
"""

from collections.abc import Mapping
from types import MappingProxyType

from feeds.edge.messages import EVM, SVM
from feeds.signers import SignerSet, SignerSets


def _set(kind: str, group: str, key: str, *, proved: bool = True) -> SignerSet:
    return SignerSet(kind, group, 0, (bytes.fromhex(key),), 1, proved=proved)


_ADRENA = "03e288ccf67da826e6b89d6e6927be9e3a3d08e019592df2b3ebb5766370fd5c2e"
_ADRENA_STAGING = "033bee1dec5f1bfcbcd43a2c50fb467f2b12bc5e04a32dc4287f53332b287618eb"
_DOCUMENTATION = "03ebe7205a3a787eea0085e0581b35f1a5479ba3503483ac0ef56e3d5b343188f4"
"""Recovered from the sample in Edge's documentation, if names are laid out as presumed. No one says whose it is."""
_GMX = "f09229eb438ba30395bde5cb088e775b4895596a"
_GMX_TEST = "1c498e2fe362e489a5aac71690f9121914e0d55e"

PRODUCTION = SignerSets(
    [
        _set(SVM, "adrena", _ADRENA),
        _set(SVM, "adrena-staging", _ADRENA_STAGING, proved=False),
        _set(SVM, "documentation", _DOCUMENTATION, proved=False),
        _set(EVM, "gmx", _GMX),
        _set(EVM, "gmx-test", _GMX_TEST, proved=False),
    ]
)
STAGING = SignerSets([_set(SVM, "adrena-staging", _ADRENA_STAGING), _set(EVM, "gmx-test", _GMX_TEST)])
KNOWN: Mapping[str, SignerSets] = MappingProxyType({"production": PRODUCTION, "staging": STAGING})
"""Signer sets by name, as ``--signers`` and configuration name them."""
