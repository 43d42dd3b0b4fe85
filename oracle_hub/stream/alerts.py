"""The channel of alerts: what is open, and every change of it. Pure.

Small and rare beside prices: no groups, no conflation. A subscriber that does not read is not sent changes; when it
reads again it is told all that is open, which replaces what it held.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from oracle_hub.stream.messages import AlertChange, AlertMessage, Alerts, Heartbeat, digest, encode

if TYPE_CHECKING:
    from oracle_hub.stream.session import Session

MAX_RECENT = 1_000
"""Changes that are kept to be shown."""


class AlertBoard:
    """What is open, what changed lately, and who follows it."""

    def __init__(self, epoch: int, frame: Callable[[bytes], bytes]) -> None:
        self.epoch = epoch
        self.n = 0
        """Changes told in this run."""
        self.open: dict[str, AlertChange] = {}
        """By id, with what was told of it last."""
        self.recent: deque[AlertChange] = deque(maxlen=MAX_RECENT)
        self.sessions: dict[Session, None] = {}
        """Those with a subscription to this channel."""
        self._frame = frame

    def take(self, change: AlertChange) -> None:
        """Note one change; every follower is to be told before the next."""
        if change.change == "resolved":
            self.open.pop(change.alert.id, None)
        else:
            self.open[change.alert.id] = change
        self.recent.append(change)
        self.n += 1

    def snapshot(self, sub: "AlertSubscription", now_us: int) -> bytes:
        """All that is open for a subscription."""
        sub.n, sub.behind = self.n, False
        entries = [msgspec.Raw(encode(change.alert)) for change in self.open.values() if sub.follows(change)]
        message = Alerts(sub=sub.number, epoch=self.epoch, n=self.n, sent_us=now_us, open=entries)
        return self._frame(encode(message))

    def change(self, sub: "AlertSubscription", change: AlertChange, now_us: int) -> bytes:
        """The latest change, for one subscription; empty where it does not concern it."""
        if not sub.follows(change):
            return b""
        message = AlertMessage(
            sub=sub.number,
            epoch=self.epoch,
            n=self.n,
            prev_n=sub.n,
            sent_us=now_us,
            at_us=change.at_us,
            change=change.change,
            alert=msgspec.Raw(encode(change.alert)),
        )
        sub.n = self.n
        return self._frame(encode(message))

    def heartbeat(self, sub: "AlertSubscription", now_us: int) -> bytes:
        """That nothing else is open: ``seq`` is the last ``n`` told, the digest is over the ids that are open."""
        told = digest(f"{change.alert.id}\n" for change in self.open.values() if sub.follows(change))
        message = Heartbeat(
            sub=sub.number, epoch=self.epoch, seq=sub.n, server_time_us=now_us, not_live=[], digest=told
        )
        return self._frame(encode(message))


class AlertSubscription:
    """One session's interest in alerts: of some feeds, or of all. What is no feed's concerns everybody."""

    __slots__ = ("behind", "feeds", "n", "number")

    def __init__(self, number: int, feeds: frozenset[str] | None) -> None:
        self.number = number
        self.feeds = feeds
        self.n = 0
        """The last change that it was told."""
        self.behind = False
        """It did not read when something changed."""

    def follows(self, change: AlertChange) -> bool:
        """Whether a change concerns it. One alert for many feeds concerns everybody."""
        return self.feeds is None or change.alert.feed is None or change.alert.feed in self.feeds


def envelope(board: AlertBoard) -> Mapping[str, object]:
    """``GET /v1/alerts``: what is open, and what changed lately, newest last."""
    return {
        "epoch": board.epoch,
        "n": board.n,
        "open": [change.alert for change in board.open.values()],
        "recent": list(board.recent),
    }
