"""Who may sign: sets of keys as data, with the time in which each is in force.

A set belongs to a kind of message (``pyth.accumulator``), within it to a group (for Pyth an emitter, for other
networks whatever names the signers), and has a number there. A rotation is one more set with the next number. Sets can
be read from a file of TOML or JSON:

    [[set]]
    kind = "pyth.accumulator"
    group = "26:507974686e6574507974686e6574507974686e6574507974686e657450797468"
    index = 1
    keys = ["41534bb176e461a3fb30479400f210549ecce638"]
    quorum = 1
    from_s = 0              # unix seconds; absent: always was
    until_s = 1_790_000_000 # absent: no end is known
    proved = true           # false: seen, but nobody vouches for it
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from oracle_hub.errors import ConfigError

_MAX_KEYS = 256
_MAX_SECOND = 2**40
Key: TypeAlias = tuple[str, str, int]
_FORMS: Mapping[str, tuple[tuple[re.Pattern[str], int], ...]] = {
    "pyth.accumulator": ((re.compile(r"[0-9]{1,5}:[0-9a-f]{64}"), 20),),
    "pyth.lazer": ((re.compile("ed25519"), 32), (re.compile("secp256k1"), 20)),
    "chainlink.report": ((re.compile(r"[0-9a-f]{64}|\*"), 20),),
    "edge.svm": ((re.compile(r".*"), 33),),
    "edge.evm": ((re.compile(r".*"), 20),),
}
"""What groups of a kind look like, and how long their keys are. A set of another form could match no message."""


class SignerSet(msgspec.Struct, frozen=True):
    """Keys that sign together, and how many of them are needed."""

    kind: str
    group: str
    index: int
    keys: tuple[bytes, ...]
    """Addresses of 20 bytes or compressed keys of 33 (secp256k1), or keys of 32 (ed25519), in the order in which
    messages number them."""
    quorum: int
    from_s: int = 0
    until_s: int | None = None
    """Unix second from which it is no longer accepted."""
    proved: bool = True
    """Somebody who can know says that these are the signers; else the set was only inferred from data."""

    @property
    def name(self) -> str:
        """``group#index``, as it is printed."""
        return f"{self.group}#{self.index}"


class SignerSets:
    """Signer sets by kind, group and index.

    Raises:
        ConfigError: two sets under one name.
    """

    def __init__(self, sets: Iterable[SignerSet]) -> None:
        self._sets: dict[Key, SignerSet] = {}
        self._groups: set[tuple[str, str]] = set()
        for one in sets:
            key = (one.kind, one.group, one.index)
            if key in self._sets:
                raise ConfigError(f"signer set {one.kind} {one.name} is there twice")
            self._sets[key] = one
            self._groups.add((one.kind, one.group))

    def __iter__(self) -> Iterator[SignerSet]:
        return iter(self._sets.values())

    def get(self, kind: str, group: str, index: int) -> SignerSet | None:
        """A set, or None."""
        return self._sets.get((kind, group, index))

    def knows(self, kind: str, group: str) -> bool:
        """Whether there is any set of the group."""
        return (kind, group) in self._groups

    def of_group(self, kind: str, group: str) -> tuple[SignerSet, ...]:
        """All sets of a group."""
        return tuple(one for one in self._sets.values() if (one.kind, one.group) == (kind, group))

    def having(self, *more: SignerSet) -> "SignerSets":
        """These sets with others put in; one with the same name is replaced."""
        replaced = {(one.kind, one.group, one.index): one for one in more}
        return SignerSets((self._sets | replaced).values())


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    group: str
    keys: list[str]
    quorum: int
    index: int = 0
    from_s: int = 0
    until_s: int | None = None
    proved: bool = True


class _File(msgspec.Struct, forbid_unknown_fields=True):
    set: list[_Entry]


def read_sets(data: bytes, origin: str) -> SignerSets:
    """Signer sets from the bytes of a file: TOML, or JSON when it begins with ``{``.

    Raises:
        ConfigError: one line that names the file, the set and what is wrong.
    """
    try:
        text = data.decode("utf-8-sig")  # with the mark that editors of Windows put first, or without
        decode = msgspec.json.decode if text.lstrip().startswith("{") else msgspec.toml.decode
        entries = decode(text, type=_File).set
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"signers {origin}: {' '.join(str(error).split())}") from None
    return SignerSets(_checked(entry, f"signers {origin}: set {number}") for number, entry in enumerate(entries, 1))


def _key_bytes(kind: str, group: str, where: str) -> int:
    """How long the keys of a group are."""
    forms = _FORMS.get(kind)
    if forms is None:
        raise ConfigError(f"{where}: kind {kind[:80]!r} is unknown; known: {', '.join(_FORMS)}")
    found = next((length for form, length in forms if form.fullmatch(group)), None)
    if found is None:
        raise ConfigError(f"{where}: group {group[:80]!r} is none of {kind}; see docs/signatures.md")
    return found


def _checked(entry: _Entry, where: str) -> SignerSet:
    group = entry.group.lower().removeprefix("0x")
    key_bytes = _key_bytes(entry.kind, group, where)
    keys = []
    for text in entry.keys:
        try:
            key = bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            key = b""
        if len(key) not in (20, 32, 33):
            raise ConfigError(
                f"{where}: {text[:80]!r} is no key: 40 or 66 hex digits (secp256k1 address or key) or 64 (ed25519)"
            )
        if len(key) != key_bytes:
            raise ConfigError(
                f"{where}: {text[:80]!r} is no key of {entry.kind}, group {group[:80]}: "
                f"{2 * key_bytes} hex digits are needed"
            )
        keys.append(key)
    if not 1 <= len(keys) <= _MAX_KEYS or len(set(keys)) != len(keys):
        raise ConfigError(f"{where}: keys: 1 to {_MAX_KEYS} different ones are needed")
    if not 1 <= entry.quorum <= len(keys):
        raise ConfigError(f"{where}: quorum: {entry.quorum} of {len(keys)} keys can't be")
    until = entry.until_s if entry.until_s is not None else _MAX_SECOND
    if not 0 <= entry.from_s < until <= _MAX_SECOND:
        raise ConfigError(f"{where}: from_s and until_s: unix seconds in this order are needed")
    return SignerSet(
        entry.kind,
        group,
        entry.index,
        tuple(keys),
        entry.quorum,
        entry.from_s,
        entry.until_s,
        entry.proved,
    )
