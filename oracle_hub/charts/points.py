"""A point: one decision of one feed as the stream told it. Bars are made of nothing else."""

import msgspec

from oracle_hub.stream.messages import FeedEntry, ViewReason

VIEWS = frozenset(reason.value for reason in ViewReason)
"""Reasons that are not the hub's decision but a view of one that is over: its price counted until its lease ended."""


class Point(msgspec.Struct, frozen=True, gc=False):
    """One decision of one feed. Its price is *in force* from ``decided_us`` until the earlier of the feed's next point
    and ``valid_until_us`` (exclusive). Times in µs of the hub's clock."""

    feed: str
    instance: str
    epoch: int
    seq: int
    """Batch in which it was told. After a snapshot that is the snapshot's, not the batch that decided it."""
    decided_us: int
    state: str
    """``live``, ``degraded`` or ``none``."""
    mantissa: int | None
    """The price at ``expo``; None exactly when the state is none."""
    expo: int
    conf: int | None
    """Confidence interval at ``expo``; None where the source gives none."""
    source: str | None
    rule: str
    reason: str
    publish_time_us: int | None
    valid_until_us: int | None
    """End of the lease, exclusive; None: never by itself."""

    @property
    def is_view(self) -> bool:
        """Whether it only says that an earlier decision is over."""
        return self.reason in VIEWS


def point_from_entry(entry: FeedEntry, instance: str, epoch: int, seq: int) -> Point:
    """The point that an entry of the stream (or of a replayed batch) tells."""
    return Point(
        entry.feed,
        instance,
        epoch,
        seq,
        entry.decided_us,
        entry.state,
        None if entry.price is None else int(entry.price),
        entry.expo,
        None if entry.conf is None else int(entry.conf),
        entry.source,
        entry.rule,
        entry.reason,
        entry.publish_time_us,
        entry.valid_until_us,
    )
