"""What a subscriber believes, by the rules of docs/protocol.md and nothing else.

It shares no code with the product's client: where both keep the same rules, each proves the other.
"""

from hashlib import blake2b
from typing import Any, TypeAlias

from tests.checker.records import Believed, HeldFeed

Message: TypeAlias = dict[str, Any]


def digest_of(feeds: dict[str, HeldFeed], server_time_us: int) -> str:
    """The digest of a heartbeat over what is held, as the protocol describes it."""
    lines = []
    for name, held in feeds.items():
        over = held.valid_until_us is not None and held.valid_until_us <= server_time_us
        state, price, until_us = ("none", None, None) if over else (held.state, held.price, held.valid_until_us)
        lines.append(f"{name}\0{state}\0{price or ''}\0{'' if until_us is None else until_us}\n")
    return blake2b("".join(sorted(lines)).encode(), digest_size=8).hexdigest()


class Belief:
    """One subscription: what is held, and whether it is known to be whole."""

    def __init__(self, before: "Belief | None" = None) -> None:
        """Start with what an earlier connection held, if the subscription resumes it."""
        self.sub: int | None = None
        self.instance: str = before.instance if before else ""
        self.epoch: int = before.epoch if before else 0
        self.seq: int = before.seq if before else 0
        self.feeds: dict[str, HeldFeed] = dict(before.feeds) if before else {}
        self.current = False
        """Whether nothing was missed up to ``seq``. It takes a snapshot, or a complete resume, to become true."""
        self.recovering = False

    @property
    def resume(self) -> dict[str, object]:
        """The resume point to send."""
        return {"epoch": self.epoch, "seq": self.seq, "instance": self.instance}

    def believed(self) -> Believed:
        """A copy for the log."""
        return Believed(self.sub or 0, self.epoch, self.seq, self.current, dict(self.feeds))

    def subscribed(self, message: Message, instance: str) -> None:
        """The answer to the request."""
        self.sub, self.instance = message["sub"], instance
        self.recovering = message["recovered"] is True
        self.current = self.recovering
        for rejected in message["rejected"]:  # one that was removed meanwhile
            self.feeds.pop(rejected["feed"], None)

    def take(self, message: Message) -> None:
        """A snapshot, update or heartbeat for this subscription."""
        kind = message["type"]
        if kind == "snapshot":
            self.epoch, self.seq, self.feeds, self.current = message["epoch"], message["seq"], {}, True
            self._hold(message["feeds"])
        elif kind == "update":
            if (message["epoch"], message["prev_seq"]) != (self.epoch, self.seq):
                self.current = self.current and message["prev_seq"] < self.seq and message["epoch"] == self.epoch
            self.epoch, self.seq = message["epoch"], message["seq"]
            self._hold(message["feeds"])
        elif kind == "heartbeat":
            same = digest_of(self.feeds, message["server_time_us"]) == message["digest"]
            if message["seq"] != self.seq or not same:
                self.current = False

    def _hold(self, entries: list[Message]) -> None:
        for entry in entries:
            if entry["reason"] == "removed":
                self.feeds.pop(entry["feed"], None)
            else:
                self.feeds[entry["feed"]] = HeldFeed(entry["state"], entry["price"], entry["valid_until_us"])
