"""Signed updates behind prices that were chosen, for those who take a price to a chain: ``/v1/signed/{feed}``."""

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Protocol, runtime_checkable

from oracle_hub.app.engine import Lineup
from oracle_hub.core.hub import Batch
from oracle_hub.server.service import SignedAnswer, SignedQuery, SignedUpdate

KEPT_PER_FEED = 32
"""Chosen prices of a feed whose signed updates are kept."""
FORMAT = "pyth.accumulator"

Key = tuple[str, int, int]


@runtime_checkable
class SigningLink(Protocol):
    """A link whose prices were proved by signatures that others can check as well."""

    source: str

    def proves(self) -> Collection[str]:
        """The feeds whose prices it reads."""
        ...

    def signed(self, feed: str, publish_us: int, mantissa: int) -> bytes | None:
        """What was signed of this very price and of no other; None where it is not at hand."""
        ...


class ChosenUpdates:
    """Keeps the signed updates of chosen prices. No state: nothing follows from it, and no replay needs it.

    Only what was chosen is kept, so whoever asks here learns no price that the stream did not tell.
    """

    def __init__(self, lineup: Callable[[], Lineup]) -> None:
        self._lineup = lineup
        self._known: Lineup | None = None
        self._links: dict[tuple[str, str], SigningLink] = {}
        """By source and feed. A large catalogue has several links to each host, of some feeds each."""
        self._sources: frozenset[str] = frozenset()
        self._kept: dict[str, OrderedDict[Key, bytes]] = {}

    def _signing(self) -> dict[tuple[str, str], SigningLink]:
        """One link for each feed of a source: all that read it share what they have proved."""
        lineup = self._lineup()
        if lineup is not self._known:
            self._known = lineup
            signing = [link for link in lineup.links.values() if isinstance(link, SigningLink)]
            self._links = {(link.source, feed): link for link in signing for feed in link.proves()}
            self._sources = frozenset(link.source for link in signing)
        return self._links

    def note(self, batch: Batch) -> None:
        """A batch was published: keep what is behind its prices."""
        links = self._signing()
        if not links:
            return
        for decision in batch.decisions:
            source, mantissa, publish_us = decision.source, decision.mantissa, decision.publish_us
            if source is None or mantissa is None or publish_us is None:
                continue
            link = links.get((source, decision.feed))
            if link is None:
                continue
            kept = self._kept.setdefault(decision.feed, OrderedDict())
            key = source, publish_us, mantissa
            if key not in kept and (data := link.signed(decision.feed, publish_us, mantissa)) is not None:
                kept[key] = data
                if len(kept) > KEPT_PER_FEED:
                    kept.popitem(last=False)

    def forget(self) -> None:
        """Let go of everything: a licence lets less leave than before."""
        self._kept.clear()

    def answer(self, asked: SignedQuery) -> SignedAnswer:
        """The update behind a price; none where it was not chosen, came without one, or is too long ago."""
        self._signing()
        kept = self._kept.get(asked.feed, OrderedDict())
        data = kept.get((asked.source, asked.publish_time_us, asked.price))
        update = None if data is None else SignedUpdate(format=FORMAT, data=b64encode(data).decode())
        return SignedAnswer(
            feed=asked.feed,
            source=asked.source,
            price=str(asked.price),
            publish_time_us=asked.publish_time_us,
            signing=asked.source in self._sources,
            update=update,
        )
