"""Whose signatures count, by key.

A configuration names signers (``production``, a file, keys of one's own). :func:`settled` writes the very keys into it,
before anything is built of it: so the journal holds them, the configuration's hash covers them, and a replay years
later proves updates against the signers of then, whatever a newer program knows.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from feeds.chainlink.report import ANY_DIGEST
from feeds.chainlink.report import KIND as REPORT
from feeds.chainlink.signers import KNOWN as DON_SIGNERS
from feeds.edge.messages import SVM
from feeds.edge.signers import KNOWN as EDGE_SIGNERS
from feeds.emulator.edge_signing import EdgeSigner
from feeds.emulator.pro_signing import simulated_signer as simulated_pro_signer
from feeds.emulator.pyth_signing import simulated_signer
from feeds.emulator.report_signing import DonSigner
from feeds.pyth.signers import ACCUMULATOR, ED25519, LAZER, SECP256K1, rotated_by_text
from feeds.pyth.signers import KNOWN as PYTH_SIGNERS
from feeds.signers import SignerSet, SignerSets, read_sets
from oracle_hub.config import Config, SourceSection, TrustedSet, WaySection
from oracle_hub.errors import ConfigError

ReadSection: TypeAlias = SourceSection | WaySection
Section = TypeVar("Section", SourceSection, WaySection)
_MAX_FILE_BYTES = 1 << 20


class _Trust(msgspec.Struct, frozen=True):
    """How a kind of source is signed."""

    message: str
    """The kind of message, as signer sets name it."""
    known: Mapping[str, SignerSets]
    """Sets by name."""
    simulated: Callable[[], SignerSets]
    own: Callable[[str, ReadSection], SignerSets] | None = None
    """The set that ``signer_keys`` of a source stand for, by its name."""


def _own_edge(name: str, section: ReadSection) -> SignerSets:
    return SignerSets(SignerSet(SVM, name, number, (key,), 1) for number, key in enumerate(_keys(section)))


def _own_don(name: str, section: ReadSection) -> SignerSets:
    keys = _keys(section)
    return SignerSets([SignerSet(REPORT, ANY_DIGEST, 0, keys, section.signer_quorum or len(keys))])


def _own_pro(name: str, section: ReadSection) -> SignerSets:
    group = ED25519 if section.envelope == "solana" else SECP256K1
    return SignerSets([SignerSet(LAZER, group, 0, _keys(section), 1)])


def _keys(section: ReadSection) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(text.removeprefix("0x")) for text in section.signer_keys)


_TRUST: Mapping[str, _Trust] = {
    "pyth.hermes": _Trust(ACCUMULATOR, PYTH_SIGNERS, lambda: simulated_signer().sets),
    "pyth.pro": _Trust(LAZER, PYTH_SIGNERS, lambda: simulated_pro_signer().sets, _own_pro),
    "edge.rest": _Trust(SVM, EDGE_SIGNERS, lambda: EdgeSigner().sets, _own_edge),
    "chainlink.streams": _Trust(REPORT, DON_SIGNERS, lambda: DonSigner().sets, _own_don),
}
"""By kind of source. A kind that is not here is not signed."""
SIGNED_KINDS = frozenset(_TRUST)
"""Kinds of sources whose prices are signed."""


def settled(config: Config) -> Config:
    """The configuration with the signers of every signed source, and way to one, written out where they are not yet.

    Raises:
        ConfigError: a file of signers that can't be read or names none for the source, or a rotation that is none.
    """
    simulated = config.emulator is not None
    sources = {}
    for name, source in config.sources.items():
        ways = {
            way: _settled(f"{name}.ways.{way}", section, simulated=simulated) for way, section in source.ways.items()
        }
        sources[name] = msgspec.structs.replace(_settled(name, source, simulated=simulated), ways=ways)
    return msgspec.structs.replace(config, sources=sources)


def _settled(name: str, section: Section, *, simulated: bool) -> Section:
    if section.kind not in _TRUST or section.verify == "off" or section.trusted:
        return section
    return msgspec.structs.replace(section, trusted=_written(name, section, simulated=simulated))


def trusted(section: ReadSection) -> SignerSets:
    """The signers of a source of a settled configuration; none where signatures are not checked."""
    return SignerSets(
        SignerSet(
            one.kind,
            one.group,
            one.index,
            tuple(map(bytes.fromhex, one.keys)),
            one.quorum,
            one.from_s,
            one.until_s,
            one.proved,
        )
        for one in section.trusted
    )


def sets_named(message: str, known: Mapping[str, SignerSets]) -> Mapping[str, SignerSets]:
    """The sets of a kind of message that have a name: those that are known, and whom the emulator signs as."""
    simulated = [trust.simulated() for trust in _TRUST.values() if trust.message == message]
    return {**known, "simulated": simulated[0]} if simulated else known


def sets_by_name(name: str, known: Mapping[str, SignerSets], *, key: str) -> SignerSets:
    """Signer sets that are known by a name, or else of the file at this path.

    Raises:
        ConfigError: neither; ``key`` says where the name was given.
    """
    if name in known:
        return known[name]
    path = Path(name)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(f"{key}: {name}: larger than {_MAX_FILE_BYTES} bytes")
        return read_sets(path.read_bytes(), name)
    except OSError as error:
        names = ", ".join(sorted(known))
        raise ConfigError(f"{key}: {name}: neither a known set ({names}) nor a file: {error.strerror}") from None


def _written(name: str, section: ReadSection, *, simulated: bool) -> tuple[TrustedSet, ...]:
    trust = _TRUST[section.kind]
    key = f"sources.{name}.signers"
    if section.signer_keys and trust.own is not None:
        sets = trust.own(name, section)
    else:
        given = section.signers or ("simulated" if simulated else "production")
        sets = sets_by_name(given, {**trust.known, "simulated": trust.simulated()}, key=key)
    if section.rotations:
        sets = rotated_by_text(sets, section.rotations, f"sources.{name}.rotations")
    written = tuple(
        TrustedSet(
            kind=one.kind,
            group=one.group,
            index=one.index,
            keys=tuple(signer.hex() for signer in one.keys),
            quorum=one.quorum,
            from_s=one.from_s,
            until_s=one.until_s,
            proved=one.proved,
        )
        for one in sets
        if one.kind == trust.message
    )
    if not written:
        raise ConfigError(f"{key}: {section.signers} names nobody for {trust.message}, which is what {name} sends")
    return written
