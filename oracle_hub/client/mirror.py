"""What the hub has told of one subscription, and whether anything of it was missed. Pure."""

from enum import Enum

import msgspec

from oracle_hub.client.decoding import ReadEntry, read_json_entry
from oracle_hub.client.price import Price
from oracle_hub.stream.messages import FeedEntry, Heartbeat, Snapshot, Update, digest, digest_line

REMOVED = "removed"


class Verdict(Enum):
    """What became of an update."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    """Held already: nothing changed."""
    GAP = "gap"
    """Something before it was missed: nothing changed."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """One feed as it was last told, and by whom."""

    entry: FeedEntry
    mantissa: int | None
    instance: str
    epoch: int
    seq: int

    def price(self, mantissa: int, lease_left_us: int | None) -> Price:
        """The price that it tells, which is ``mantissa``, with what is left of its lease."""
        entry = self.entry
        return Price(
            feed=entry.feed,
            mantissa=mantissa,
            expo=entry.expo,
            state=entry.state,
            conf=None if entry.conf is None else int(entry.conf),
            source=entry.source,
            rule=entry.rule,
            reason=entry.reason,
            publish_time_us=entry.publish_time_us,
            decided_us=entry.decided_us,
            valid_until_us=entry.valid_until_us,
            lease_left_us=lease_left_us,
            instance=self.instance,
            epoch=self.epoch,
            seq=self.seq,
            inputs=None if isinstance(entry.inputs, msgspec.UnsetType) else entry.inputs,
        )


class Mirror:
    """Copy of the hub's state for one subscription, after batch ``seq``."""

    def __init__(self) -> None:
        self.instance = ""
        self.epoch = 0
        self.seq: int | None = None
        """None: nothing that could be resumed from."""
        self.feeds: dict[str, Held] = {}

    def snapshot(
        self, message: Snapshot, instance: str, read: ReadEntry = read_json_entry
    ) -> tuple[list[Held], list[str]]:
        """Replace everything. Returns what is new or different, and the names of feeds that are there no more.

        Raises what ``read`` raises, or ``ValueError``, for entries that can't be read; then nothing has changed.
        """
        fresh = [_held(read(raw), instance, message.epoch, message.seq) for raw in message.feeds]
        before = self.feeds
        self.feeds = {held.entry.feed: held for held in fresh if held.entry.reason != REMOVED}
        same_hub = (self.instance, self.epoch) == (instance, message.epoch)
        self.instance, self.epoch, self.seq = instance, message.epoch, message.seq
        changed = [held for held in fresh if not (same_hub and _same(before.get(held.entry.feed), held))]
        return changed, [feed for feed in before if feed not in self.feeds]

    def update(self, message: Update, read: ReadEntry = read_json_entry) -> tuple[Verdict, list[Held]]:
        """Apply an update: something was lost exactly when its ``prev_seq`` is greater than what is held.

        Raises what ``read`` raises, or ``ValueError``, for entries that can't be read; then nothing has changed.
        """
        if self.seq is None or message.epoch != self.epoch or message.prev_seq > self.seq:
            return Verdict.GAP, []
        # Equal to both: a price became too old for our own max age, which is news without a new sequence.
        if message.seq < self.seq or (message.seq == self.seq and message.prev_seq < self.seq):
            return Verdict.DUPLICATE, []
        changed = [_held(read(raw), self.instance, message.epoch, message.seq) for raw in message.feeds]
        for held in changed:
            if held.entry.reason == REMOVED:
                self.feeds.pop(held.entry.feed, None)
            else:
                self.feeds[held.entry.feed] = held
        self.seq = message.seq
        return Verdict.APPLIED, changed

    def agrees(self, beat: Heartbeat) -> bool:
        """Whether digest and epoch of a heartbeat are ours: then what is held is what the hub has."""
        return beat.epoch == self.epoch and beat.digest == self.digest(beat.server_time_us)

    def digest(self, now_us: int) -> str:
        """The digest of what is held, at a time of the hub's clock."""
        return digest(
            digest_line(held.entry.feed, held.entry.state, held.entry.price, held.entry.valid_until_us, now_us)
            for held in self.feeds.values()
        )


def _held(entry: FeedEntry, instance: str, epoch: int, seq: int) -> Held:
    for text in (entry.price, entry.conf, entry.low, entry.high):
        if isinstance(text, str) and not (text.isascii() and text.isdigit()):
            raise ValueError(f"{entry.feed[:64]!r}: {text[:32]!r} is not digits")
    mantissa = None if entry.price is None else int(entry.price)
    if mantissa == 0:
        raise ValueError(f"{entry.feed[:64]!r}: a price of zero")
    return Held(entry, mantissa, instance, epoch, seq)


def _same(before: Held | None, after: Held) -> bool:
    return before is not None and before.entry == after.entry
