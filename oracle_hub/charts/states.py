"""How the native doors show a feed: what holds now, with its lease, or why there is nothing."""

import msgspec

from oracle_hub.charts.live import Live, Update
from oracle_hub.charts.points import Point


class FeedState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One feed. ``price`` and ``conf`` are mantissas at ``expo``, as text; times are the hub's clock."""

    feed: str
    state: str
    """``live``, ``degraded`` or ``none``."""
    price: str | None
    """None exactly when the state is ``none``."""
    expo: int | None
    conf: str | None
    source: str | None
    rule: str | None
    reason: str
    """Of the hub, or of the client library where it is the one that refuses: ``disconnected``, ``lease_over``, …"""
    publish_time_us: int | None
    decided_us: int | None
    valid_until_us: int | None
    """End of the lease, exclusive. None: it does not end by itself while the hub is heard."""
    lease_left_us: int | None
    instance: str | None
    epoch: int | None
    seq: int | None


def state_of(update: Update) -> FeedState:
    """A feed as it stood when the update was taken. Nothing of a price that is over is in it."""
    price, point = update.price, update.point
    if price is not None:
        return FeedState(
            feed=price.feed,
            state=price.state,
            price=str(price.mantissa),
            expo=price.expo,
            conf=None if price.conf is None else str(price.conf),
            source=price.source,
            rule=price.rule,
            reason=price.reason,
            publish_time_us=price.publish_time_us,
            decided_us=price.decided_us,
            valid_until_us=price.valid_until_us,
            lease_left_us=price.lease_left_us,
            instance=price.instance,
            epoch=price.epoch,
            seq=price.seq,
        )
    refusal = update.refusal
    return FeedState(
        feed=update.feed,
        state="none",
        price=None,
        expo=None if point is None else point.expo,
        conf=None,
        source=None,
        rule=None if point is None else "R3",
        reason="unknown_feed" if refusal is None else refusal.hub_reason or refusal.reason.value,
        publish_time_us=None,
        decided_us=None if point is None else point.decided_us,
        valid_until_us=None,
        lease_left_us=None,
        instance=None if point is None else point.instance,
        epoch=None if point is None else point.epoch,
        seq=None if point is None else point.seq,
    )


def recorded(point: Point) -> FeedState:
    """A decision as it was made, for replays: a record, whose lease may be over."""
    return FeedState(
        feed=point.feed,
        state=point.state,
        price=None if point.mantissa is None else str(point.mantissa),
        expo=point.expo,
        conf=None if point.conf is None else str(point.conf),
        source=point.source,
        rule=point.rule,
        reason=point.reason,
        publish_time_us=point.publish_time_us,
        decided_us=point.decided_us,
        valid_until_us=point.valid_until_us,
        lease_left_us=None,
        instance=point.instance,
        epoch=point.epoch,
        seq=point.seq,
    )


def states_now(live: Live, feeds: list[str] | None = None) -> list[FeedState]:
    """These feeds (None: all) as they stand now."""
    return [state_of(live.update(feed)) for feed in (live.feeds if feeds is None else feeds)]
