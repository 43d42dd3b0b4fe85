"""Who is connected, how far behind they are, and how those who are not any more were ended: for metrics."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias, get_args

import msgspec

from oracle_hub.stream.session import Kind


class Kindred(msgspec.Struct):
    """All subscribers of one kind."""

    clients: int = 0
    unsent_bytes: int = 0
    """Written to them, and not yet taken by the kernel: the sum."""
    most_unsent_bytes: int = 0
    """The same of the one who is furthest behind."""


Standing: TypeAlias = Mapping[Kind, Kindred]


def standing(subscribers: Iterable[tuple[Kind, int]]) -> Standing:
    """Sum up subscribers, given as kind and unsent bytes. Every kind is there."""
    found: dict[Kind, Kindred] = {kind: Kindred() for kind in get_args(Kind)}
    for kind, unsent_bytes in subscribers:
        kindred = found[kind]
        kindred.clients += 1
        kindred.unsent_bytes += unsent_bytes
        kindred.most_unsent_bytes = max(kindred.most_unsent_bytes, unsent_bytes)
    return found


_OF_THE_PROTOCOL = (1002, 1006, 1007, 1008, 1009)
"""A bad frame, no goodbye, no UTF-8, too many, too long."""


def close_label(ours: int | None, seen: int | None) -> str:
    """What a websocket ended with: our own code, else one of the protocol's for a fault, else ``peer``.

    A client can send any code that it likes, so its codes are no labels.
    """
    if ours is not None:
        return str(int(ours))
    return str(seen) if seen in _OF_THE_PROTOCOL else "peer"
