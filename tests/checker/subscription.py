"""One subscription on one connection: every message against the run that the journal replays to."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

import orjson

from tests.checker.belief import digest_of
from tests.checker.expected import PRICE_STATES, Entry, differences, held_feed, merge_differences, shown
from tests.checker.findings import Report
from tests.checker.records import Believed, HeldFeed
from tests.checker.truth import Decided, Run

Message: TypeAlias = dict[str, Any]

STALL_US = 3_000_000
"""A merged update on a standing connection that spans so much is counted as the end of a stall."""


class Complain(Protocol):
    """Adds a finding about the message at hand."""

    def __call__(self, rule: str, message: str, **evidence: Any) -> None: ...


class Agreement:
    """Who was the first to be told what, by (instance, epoch, seq, feed)."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int, int, str], tuple[int, str]] = {}

    def differs(self, at: tuple[str, int, int, str], content: int, who: str) -> str | None:
        """Somebody who was told something else; None when nobody was."""
        first = self._told.setdefault(at, (content, who))
        return None if first[0] == content else first[1]


class SubscriptionCheck:
    """What one subscription must be sent, and what it was sent."""

    def __init__(
        self, at: tuple[str, int], request: Message, answer: Message, run: Run, report: Report, agreed: Agreement
    ) -> None:
        self._at = at
        self._run = run
        self._report = report
        self._agreed = agreed
        self._feeds: frozenset[str] | None = None if "*" in request["feeds"] else frozenset(answer["accepted"])
        self._full = request.get("detail") == "full"
        self._max_age_us = None if request.get("max_age_ms") is None else request["max_age_ms"] * 1000
        self._all = request.get("mode") == "all"
        resume = request.get("resume")
        self._held: int | None = resume["seq"] if answer["recovered"] and resume else None
        self._n_news = 0
        self._published_us: dict[tuple[str, str, int], int] = {}

    @property
    def feeds(self) -> Iterable[str]:
        return self._run.feeds if self._feeds is None else self._feeds

    @property
    def replays(self) -> bool:
        """Whether it is in mode ``all``."""
        return self._all

    def _follows(self, feed: str) -> bool:
        return self._feeds is None or feed in self._feeds

    def _there(self, seq: int) -> dict[str, Decided]:
        """What it follows and is in the configuration, after batch ``seq``."""
        found = ((feed, self._run.at(feed, seq)) for feed in self.feeds)
        return {feed: one for feed, one in found if one is not None and one.reason != "removed"}

    # Snapshots and updates.

    def news(self, message: Message, complain: Complain, who: str) -> None:
        """A snapshot or an update."""
        seq = message["seq"]
        self._n_news += 1
        for entry in message["feeds"]:
            self._check_entry(entry, message, complain)
        if not self._run.has(seq):
            complain("journal", "a sequence that the journal does not have", seq=seq, last=self._run.last_seq)
            self._held = seq
            return
        if message["type"] == "snapshot":
            self._snapshot(message, complain)
        else:
            self._in_order(message, complain)
            self._update(message, complain, who)
        self._held = seq

    def _check_entry(self, entry: Entry, message: Message, complain: Complain) -> None:
        """What an entry must be by itself, whatever the journal says."""
        self._report.checked["entries"] += 1
        until_us, price = entry["valid_until_us"], entry["price"]
        evidence = {"seq": message["seq"], "sent_us": message["sent_us"], "entry": entry}
        if (price is None) is (entry["state"] in PRICE_STATES):
            complain("content", "state and price contradict each other", **evidence)
        if price is not None:
            self._report.checked["prices"] += 1
            if not message.get("replayed") and until_us is not None and message["sent_us"] >= until_us:
                complain("lease", "a price that was over when it was sent", **evidence)
            if any(one["status"] == "warming" for one in entry.get("inputs", {}).values()):
                complain("warmup", "a price while a source was still waited for", **evidence)
            self._publish_time(entry, message["seq"], complain)

    def _publish_time(self, entry: Entry, seq: int, complain: Complain) -> None:
        if not self._run.has(seq):
            return
        generation = self._run.generation[seq - self._run.first_seq]
        at = (entry["feed"], entry["source"], generation)
        if entry["publish_time_us"] < self._published_us.get(at, 0):
            complain("publish_time", "a publish time went back", seq=seq, entry=entry, before=self._published_us[at])
        self._published_us[at] = entry["publish_time_us"]

    def _compare(self, entry: Entry, seq: int, at_us: int, complain: Complain) -> None:
        decided = self._run.at(entry["feed"], seq)
        if decided is None:
            complain("content", "a feed that was not decided", seq=seq, entry=entry)
            return
        other = differences(entry, decided, at_us, self._max_age_us, full=self._full)
        if other:
            complain("content", "not what the journal replays to ([received, replayed])", seq=seq, differences=other)
        self._report.checked["compared"] += 1

    def _feeds_are(self, message: Message, wanted: set[str], complain: Complain) -> None:
        found = [entry["feed"] for entry in message["feeds"]]
        if len(found) != len(set(found)) or set(found) != wanted:
            complain(
                "loss",
                f"{message['type']} tells of other feeds than those it concerns",
                seq=message["seq"],
                missing=sorted(wanted - set(found)),
                unasked=sorted(set(found) - wanted),
            )

    def _snapshot(self, message: Message, complain: Complain) -> None:
        seq = message["seq"]
        if self._held is not None and seq < self._held:
            complain("order", "a snapshot from before what is held", seq=seq, held=self._held)
        self._feeds_are(message, set(self._there(seq)), complain)
        for entry in message["feeds"]:
            self._compare(entry, seq, message["sent_us"], complain)

    def _in_order(self, message: Message, complain: Complain) -> None:
        seq, prev_seq, held = message["seq"], message["prev_seq"], self._held
        evidence = {"seq": seq, "prev_seq": prev_seq, "held": held}
        if held is None:
            complain("order", "an update before any snapshot", **evidence)
        elif prev_seq > held:
            complain("loss", "prev_seq is greater than what is held, on one connection", **evidence)
        elif prev_seq < held:
            complain("order", "prev_seq is before what is held", **evidence)
        same_allowed = message["conflated"] or all(entry["reason"] == "max_age" for entry in message["feeds"])
        if seq < prev_seq or (seq == prev_seq and not same_allowed):
            complain("order", "a sequence that was used before", **evidence)

    def _update(self, message: Message, complain: Complain, who: str) -> None:
        seq, prev_seq = message["seq"], message["prev_seq"]
        if message["conflated"]:
            if self._all:
                complain("protocol", "a merged update in mode all", seq=seq)
            self._merged(message, complain)
            return
        if seq == prev_seq:
            self._too_old(message, complain)
            return
        wanted = set(filter(self._follows, self._run.feeds_of[seq - self._run.first_seq]))
        self._feeds_are(message, wanted, complain)
        skipped = [feed for feed in self.feeds if self._run.between(feed, prev_seq, seq - 1)]
        if skipped:
            complain("loss", "batches between prev_seq and seq concern it too", seq=seq, prev_seq=prev_seq, of=skipped)
        for entry in message["feeds"]:
            at_us = entry["decided_us"] if message["replayed"] else message["sent_us"]
            self._compare(entry, seq, at_us, complain)
            self._agree(entry, seq, complain, who)

    def _merged(self, message: Message, complain: Complain) -> None:
        seq, prev_seq = message["seq"], message["prev_seq"]
        aged = {entry["feed"] for entry in message["feeds"] if self._max_age_us is not None and entry["n"] == 0}
        changed = {feed for feed in self.feeds if self._run.between(feed, prev_seq, seq)}
        self._feeds_are(message, changed | aged, complain)
        for entry in message["feeds"]:
            self._compare(entry, seq, message["sent_us"], complain)
            other = merge_differences(entry, self._run.between(entry["feed"], prev_seq, seq), self._max_age_us)
            if other:
                complain("content", "not what happened since prev_seq ([received, replayed])", seq=seq, other=other)
        self._report.checked["merged"] += 1
        first, last = (max(0, one - self._run.first_seq) for one in (prev_seq, seq))
        if self._n_news > 1 and self._run.now_us[last] - self._run.now_us[first] > STALL_US:
            self._report.checked["stalls"] += 1

    def _too_old(self, message: Message, complain: Complain) -> None:
        """An update without a sequence of its own: nothing but prices that are too old for this subscription."""
        for entry in message["feeds"]:
            decided = self._run.at(entry["feed"], message["seq"])
            if decided is None or shown(decided, message["sent_us"], self._max_age_us)[0] is None:
                complain("content", "told to be too old, and is not", seq=message["seq"], entry=entry)

    def _agree(self, entry: Entry, seq: int, complain: Complain, who: str) -> None:
        if self._max_age_us is not None or entry["reason"] in ("lease_over", "max_age"):
            return
        content = {key: value for key, value in entry.items() if key != "inputs"}
        hashed = hash(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
        other = self._agreed.differs((*self._at, seq, entry["feed"]), hashed, who)
        self._report.checked["agreed"] += 1
        if other is not None:
            complain("agreement", f"somebody else was told something else ({other})", seq=seq, entry=entry)

    # Heartbeats, and what the client made of it all.

    def _held_feeds(self, seq: int, at_us: int) -> dict[str, HeldFeed]:
        return {feed: held_feed(one, at_us, self._max_age_us) for feed, one in self._there(seq).items()}

    def heartbeat(self, message: Message, complain: Complain) -> None:
        """It names what was last sent, leaves out nothing that was decided before, and has the digest of all that."""
        seq, at_us, run = message["seq"], message["server_time_us"], self._run
        if seq != self._held:
            complain("loss", "a heartbeat of another seq than was last received", seq=seq, held=self._held)
        if not run.has(seq):
            complain("journal", "a heartbeat of a sequence that the journal does not have", seq=seq)
            return
        generation = run.generation[seq - run.first_seq]
        for feed in self.feeds:
            missed = run.next_change(feed, seq)
            if missed is not None:
                index = missed - run.first_seq
                late_us = at_us - run.now_us[index] if run.generation[index] == generation else 0
                if run.hop_us:
                    self._report.longest_hop_us = max(self._report.longest_hop_us, late_us)
                if late_us > run.hop_us:
                    complain(
                        "loss", "a batch from before this heartbeat was not sent", feed=feed, seq=seq, missed=missed
                    )
        feeds = self._held_feeds(seq, at_us)
        if message["digest"] != digest_of(feeds, at_us):
            complain("belief", "the heartbeat's digest is not that of what was published", seq=seq, heartbeat=message)
        not_live = {feed for feed, held in feeds.items() if held.state != "live"}
        if set(message["not_live"]) != not_live:
            complain("lease", "not_live is not what is not live", seq=seq, heartbeat=message, expected=sorted(not_live))

    def belief(self, believed: Believed, message: Message, complain: Complain) -> None:
        """A client that believes itself current must be right about every feed."""
        at_us = message.get("server_time_us") or message.get("sent_us", 0)
        if not believed.current:
            self._report.checked["gaps_known"] += 1
            return
        if believed.seq != self._held:
            complain("belief", "believes in another seq", believed=believed.seq, held=self._held)
            return
        if not self._run.has(believed.seq):
            return  # that the journal lacks it was said where it was received
        self._report.checked["beliefs"] += 1
        wrong = {}
        feeds = self._held_feeds(believed.seq, at_us)
        for feed in feeds.keys() | believed.feeds.keys():
            held = believed.feeds.get(feed, HeldFeed("absent", None, None))
            if held.valid_until_us is not None and held.valid_until_us <= at_us:
                held = HeldFeed("none", None, None)
            if held != feeds.get(feed):
                wrong[feed] = [str(held), str(feeds.get(feed))]
        if wrong:
            complain("belief", "believes itself current, and is not ([held, published])", seq=believed.seq, feeds=wrong)
