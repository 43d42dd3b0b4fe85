"""What a program gets from the client: a price that holds, an update, or a refusal that says why there is none."""

from decimal import Decimal
from enum import StrEnum

import msgspec

from oracle_hub.errors import OracleHubError
from oracle_hub.stream.messages import FeedEntry, InputEntry


class Refusal(StrEnum):
    """Why there is no price to act on."""

    NONE = "none"
    """The hub says so; its own reason is in ``NoPrice.hub_reason``."""
    LEASE_OVER = "lease_over"
    """The last decision no longer holds, and no newer one was heard."""
    GAP = "gap"
    """Something was missed; the newest state is asked for."""
    DISCONNECTED = "disconnected"
    """Not connected, not caught up yet, or nothing recent was heard from the hub."""
    TOO_OLD = "too_old"
    """Older than the caller accepts, or than what another hub told before."""
    UNKNOWN_FEED = "unknown_feed"
    """Not subscribed, refused by the hub, or removed from its configuration."""


class NoPrice(OracleHubError):
    """There is no price to act on. ``reason`` says why; do not trade this feed until there is one again."""

    def __init__(self, feed: str, reason: Refusal, message: str, hub_reason: str | None = None) -> None:
        super().__init__(f"{feed}: {message}")
        self.feed = feed
        self.reason = reason
        self.hub_reason = hub_reason
        """The hub's reason, where it is the hub that has no price."""


class HubUnreachable(OracleHubError):
    """No hub answered in time with the state of a feed. The message has the last error of each address."""


class Price(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A price that held at the moment when it was handed out: ``mantissa * 10**expo``. Times in µs, the hub's clock."""

    feed: str
    mantissa: int
    expo: int
    state: str
    """``live`` or ``degraded``."""
    conf: int | None
    """Confidence interval at ``expo``; None where the source gives none."""
    source: str | None
    rule: str
    reason: str
    publish_time_us: int | None
    decided_us: int
    valid_until_us: int | None
    """End of the lease, exclusive. None: does not end by itself while the hub is heard."""
    lease_left_us: int | None
    """What is left of the lease, by the latest time that the hub's clock can show now."""
    instance: str
    epoch: int
    seq: int
    """Batch in which this was heard: with it the hub's journal proves the price."""
    inputs: dict[str, InputEntry] | None
    """With detail ``full``: every source as it stood."""

    @property
    def decimal(self) -> Decimal:
        """The exact value, for people. Compute with ``mantissa`` and ``expo``."""
        return Decimal(self.mantissa).scaleb(self.expo)


class Merged(msgspec.Struct, gc=False):
    """What a feed went through since the update before, as far as it was heard."""

    n: int = 0
    """Decisions."""
    low: int | None = None
    high: int | None = None
    was_none: bool = False

    def add(self, entry: FeedEntry, mantissa: int | None) -> None:
        """Take in one entry, which may stand for several decisions."""
        self.n += 1 if isinstance(entry.n, msgspec.UnsetType) else entry.n
        self.was_none |= mantissa is None or entry.was_none is True
        for text in (entry.low, entry.high):
            if isinstance(text, str):
                self._stretch(int(text))
        if mantissa is not None:
            self._stretch(mantissa)

    def _stretch(self, mantissa: int) -> None:
        self.low = mantissa if self.low is None else min(self.low, mantissa)
        self.high = mantissa if self.high is None else max(self.high, mantissa)


class Update(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """News of one feed: ``price`` to act on, or None and ``refusal``."""

    feed: str
    price: Price | None
    refusal: NoPrice | None
    entry: FeedEntry | None
    """What the hub sent, as a record (mode ``all``: every entry). None where the news is not the hub's: a lease that is
    over, a lost connection. Act on ``price`` only."""
    merged: Merged
    instance: str
    epoch: int
    seq: int
    replayed: bool = False
    """Mode ``all``: sent again after a reconnect, as it was decided then."""
    lost: bool = False
    """Decisions between the update before and this one were missed and can't be had from the stream."""


class Taken(msgspec.Struct, frozen=True, gc=False):
    """Mode ``all``: what came since the last call, in order, and how far that goes."""

    updates: list[Update]
    heard_us: int | None
    """The hub's time until which these and the updates before them are all that it decided; None where unknown."""
