"""What one feed's rounds amount to: which answer is news, under which time, and what a reorganised chain takes back.

Pure arithmetic over rounds, without a word of JSON. Two orders meet here. A *round id* orders the answers of a proxy,
phase by phase. The *publish time* orders prices for the hub, and it must never go back, although it does so on the
chain: a new phase may begin with an older answer, and a reorganised chain ends in an older one.
"""

from enum import Enum

import msgspec

from feeds.chainlink.contracts import Round
from feeds.host_link import PLAUSIBLE_US
from feeds.layout import MAX_TIMESTAMP_S
from oracle_hub.core.price import rescale
from oracle_hub.errors import PriceError

_KEPT_KEYS = 256
_KEPT_OBSERVED = 32
_S = 1_000_000


class News(Enum):
    """What an answer is to what was told before."""

    TOLD = "told"
    """A new price: tell it."""
    SAME = "same"
    """The round that is held, with its answer."""
    OLDER = "older"
    """A round before the one that is held."""
    OTHER = "other"
    """The round that is held, with another answer: somebody is wrong."""
    BACKWARD = "backward"
    """A later round with an earlier time: not told."""
    RESTORED = "restored"
    """What was taken back stands again, as it was told."""


class Answer(msgspec.Struct, frozen=True):
    """A round as it came."""

    round: Round
    block: int
    """Whose log it is, or at which height it was called for."""
    observed_at: int | None = None
    """Unix seconds, where the report told them."""
    key: tuple[str, str] = ("", "")
    """Of the log; empty where a call brought it."""


class Rounds(msgspec.Struct):
    """The rounds of one feed as one link saw them. Prices are at the canonical exponent, times in unix us."""

    expo: int
    decimals: int = 8
    held: Round | None = None
    """The latest answer of the chain as it stands now."""
    log_key: tuple[str, str] = ("", "")
    """Which log brought it; empty where a call did."""
    told_us: int = 0
    """Publish time of the last price that was told; none is told with an earlier one."""
    told: int = 0
    publish_us: int = 0
    """Of the price that :meth:`take` says to tell."""
    taken_back: bool = False
    """The last price that was told is no longer on the chain."""
    seen: dict[tuple[str, str], None] = {}
    """Keys of the latest logs."""
    observed_s: dict[tuple[str, int], int] = {}
    """Times of observation, by transaction and round of the aggregator: a report tells them before its answer."""

    def first_seen(self, key: tuple[str, str]) -> bool:
        """Whether a log was not told before. Remembers it."""
        if key in self.seen:
            return False
        self.seen[key] = None
        if len(self.seen) > _KEPT_KEYS:
            del self.seen[next(iter(self.seen))]
        return True

    def observe(self, transaction: str, number: int, observed_at: int) -> None:
        """Keep when the answer of a round was observed, until it comes."""
        self.observed_s[transaction, number] = observed_at
        if len(self.observed_s) > _KEPT_OBSERVED:
            del self.observed_s[next(iter(self.observed_s))]

    def take(self, came: Answer, received_us: int) -> News:
        """Take an answer. For :attr:`News.TOLD`, ``told`` and ``publish_us`` are the price to tell.

        The publish time is that of the observation where the report gave one, and never after its block. Where that
        would not be later than what was told (one block of a reorganised chain instead of another), it is the block's,
        and nothing is told where that is earlier too.

        Raises:
            PriceError: the answer is no price (zero, negative, too large), or its time none. It is held all the same.
        """
        new, held = came.round, self.held
        if held is not None and new.round_id <= held.round_id:
            if new.round_id < held.round_id:
                return News.OLDER
            if new.answer != held.answer:
                return News.OTHER
            self.log_key = came.key if came.key[0] else self.log_key
            return News.SAME
        self.held, self.log_key = new, came.key
        mantissa = rescale(new.answer, -self.decimals, self.expo)
        if new.updated_at > MAX_TIMESTAMP_S:
            raise PriceError(f"time {new.updated_at} of an answer is no unix second")
        block_us = new.updated_at * _S
        observed_us = block_us if came.observed_at is None else min(came.observed_at * _S, block_us)
        if self.taken_back and mantissa == self.told and self.told_us in (observed_us, block_us):
            self.taken_back = False
            return News.RESTORED
        self.publish_us = observed_us if observed_us > self.told_us else block_us
        if self.publish_us < self.told_us:  # the same second is for the hub, which knows the blocks
            return News.OLDER if held is None else News.BACKWARD
        self.taken_back = False
        self.told = mantissa
        if self.publish_us <= received_us + PLAUSIBLE_US:  # else one wrong clock would silence the feed
            self.told_us = self.publish_us
        return News.TOLD

    def take_back(self) -> bool:
        """Forget the answer that is held: it is not on the chain. Whether a price had been told from this chain."""
        self.held, self.log_key = None, ("", "")
        was_told = bool(self.told_us) and not self.taken_back
        self.taken_back = self.taken_back or was_told
        return was_told
