"""Whether a client was right to act on a price when it did."""

from collections.abc import Sequence

from tests.checker.records import Acted, ClockAnchor
from tests.checker.subscription import Complain
from tests.checker.truth import Decided, Truth

ACT_SLACK_US = 500_000
"""A client's estimate of the hub's clock is late by the fastest message of its connection: at most the proxies' delay,
twice (a chunk waits for the one before), and what a busy machine adds."""


def offset_us(anchors: Sequence[ClockAnchor], instance: str, epoch: int, decided_us: int) -> int | None:
    """What the hub's clock was ahead of the monotonic clock when it decided; None when nobody wrote it down."""
    found = None
    for anchor in sorted(anchors, key=lambda one: one.since_us):
        # An anchor is noticed some milliseconds after it was set.
        at_monotonic_us = decided_us - anchor.offset_us
        if (anchor.instance, anchor.epoch) == (instance, epoch) and at_monotonic_us >= anchor.since_us - 1_000_000:
            found = anchor.offset_us
    return found


def check_act(act: Acted, truth: Truth, anchors: Sequence[ClockAnchor], complain: Complain) -> int | None:
    """The price was published at (instance, epoch, seq), and its lease was not over when the client asked for it.

    Returns how long after the end of the lease that was, in µs (before it: negative); None where that is not known.
    """
    run = truth.runs.get((act.instance, act.epoch))
    if run is None or not run.has(act.seq):
        complain("acted", "acted on a batch that no journal has", epoch=act.epoch, seq=act.seq, instance=act.instance)
        return None
    decided = run.at(act.feed, act.seq)
    if decided is None or not _same(act, decided):
        complain("acted", "acted on what was not published", act=str(act), published=str(decided))
        return None
    ahead_us = offset_us(anchors, act.instance, act.epoch, decided.decided_us)
    if ahead_us is None or act.valid_until_us is None:
        return None
    late_us = act.at_us + ahead_us - act.valid_until_us
    if late_us >= ACT_SLACK_US:
        evidence = {"act": str(act), "published": str(decided)}
        complain("acted", f"acted {late_us / 1000:.1f} ms after the end of the lease", **evidence)
    return late_us


def _same(act: Acted, decided: Decided) -> bool:
    return (act.state, act.price, act.publish_time_us) == (decided.state, decided.price, decided.publish_time_us)
