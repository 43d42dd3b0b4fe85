"""The layout of a checkpoint's state: sections by number, each in any number of entries, in any order. Pure.

``4f 48 53 01``, then entries: number of the section u32, length *n* u32, *n* bytes; little-endian. What an entry holds
is the business of whoever reads the section. States of earlier versions are one pickle, which begins otherwise.
"""

import struct
from collections.abc import Iterator

MAGIC = b"OHS\x01"
_ENTRY = struct.Struct("<II")
PIECE_BYTES = 2**17
"""What is compressed in one piece of work."""


class Entries(list[bytes]):
    """The entries of one section, in their order."""


def entry(number: int, data: bytes) -> bytes:
    """One entry of a section."""
    return _ENTRY.pack(number, len(data)) + data


def cut_up(data: bytes) -> Iterator[bytes]:
    """The same in pieces of at most :data:`PIECE_BYTES`."""
    if len(data) <= PIECE_BYTES:
        yield data
        return
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def read_sections(data: bytes) -> dict[int, Entries]:
    """The sections of a state, the magic in front.

    Raises:
        ValueError: an entry is cut off.
    """
    sections: dict[int, Entries] = {}
    at = len(MAGIC)
    while at < len(data):
        if at + _ENTRY.size > len(data):
            raise ValueError(f"an entry is cut off at {at}")
        number, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        if at + length > len(data):
            raise ValueError(f"section {number} is cut off at {at}")
        sections.setdefault(number, Entries()).append(data[at : at + length])
        at += length
    return sections
