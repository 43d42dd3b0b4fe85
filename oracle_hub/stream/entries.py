"""Feed entries as they were encoded for a snapshot, kept for the next one who asks.

An entry follows from a decision, from what of it is shown (:func:`~oracle_hub.stream.messages.view`) and from its kind
alone. So it can be told again while both are the same, also after batches that were about other feeds: whoever
subscribes to thousands of feeds soon after somebody else costs a look at each of them, not an encoding.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from oracle_hub.core.hub import Decision
from oracle_hub.stream.messages import Merge, View, view

MAX_AGES = 2
"""So many max ages have entries of their own, those that were asked for last, in each form and detail."""
MANY_FEEDS = 64
"""Who follows fewer feeds with a max age of its own is not worth a place among them."""

Encoder = Callable[[Decision, View, bool, Merge | None], msgspec.Raw]


class Kind(NamedTuple):
    """What makes two entries of one decision the same."""

    full: bool
    binary: bool
    max_age_us: int | None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One feed, encoded. Thousands are held: the garbage collector has nothing to look for in them."""

    decision: Decision
    shown: View
    until_us: int
    """While our clock is before this, nothing else is shown. 0: to be looked at whenever it is asked for."""
    encoded: msgspec.Raw


_FOREVER_US = 2**63


class Entries:
    """Encoded entries by kind and feed. Bounded: one for each feed of each kind, and few kinds."""

    def __init__(self) -> None:
        self._kinds: dict[Kind, dict[str, Entry]] = {}
        """Those with a max age in the order in which they were asked for."""

    def of(self, kind: Kind, encode: Encoder, decisions: Sequence[Decision], now_us: int) -> list[msgspec.Raw]:
        """These decisions as they are shown at ``now_us``, in their order: what ``encode`` gives for each."""
        if kind.max_age_us is not None and len(decisions) < MANY_FEEDS:
            return [
                encode(decision, view(decision, now_us, kind.max_age_us), kind.full, None) for decision in decisions
            ]
        held, encoded = self._held(kind), []
        for decision in decisions:
            entry = held.get(decision.feed)
            if entry is None or entry.decision is not decision or now_us >= entry.until_us:
                entry = held[decision.feed] = _entry(kind, encode, decision, now_us, entry)
            encoded.append(entry.encoded)
        return encoded

    def _held(self, kind: Kind) -> dict[str, Entry]:
        held = self._kinds.pop(kind, None)
        if held is None:
            held = {}
            if kind.max_age_us is not None:
                like = [one for one in self._kinds if one.max_age_us is not None and one[:2] == kind[:2]]
                if len(like) >= MAX_AGES:
                    del self._kinds[like[0]]
        self._kinds[kind] = held
        return held

    def forget(self, feeds: Iterable[str]) -> None:
        """They left."""
        for held in self._kinds.values():
            for feed in feeds:
                held.pop(feed, None)


def _entry(kind: Kind, encode: Encoder, decision: Decision, now_us: int, before: Entry | None) -> Entry:
    shown = view(decision, now_us, kind.max_age_us)
    if before is not None and before.decision is decision and before.shown == shown:
        return before  # it ended, and that was told before
    # What holds until its end held before it too, wherever a clock is set back to; what ended may not have.
    until_us = 0 if shown.ended is not None else _FOREVER_US if shown.valid_until_us is None else shown.valid_until_us
    return Entry(decision, shown, until_us, encode(decision, shown, kind.full, None))
