"""What each hub published, derived again from its journals by replay."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import msgspec
import orjson

from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.core.hub import Batch
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import RunStart
from oracle_hub.stream.messages import encode, feed_entry, view


class Decided(msgspec.Struct, frozen=True, gc=False):
    """One decision, with its wire values as they are when nothing of it is over."""

    feed: str
    state: str
    price: str | None
    expo: int
    conf: str | None
    source: str | None
    rule: str
    reason: str
    publish_time_us: int | None
    decided_us: int
    valid_until_us: int | None
    recency_us: int
    """The earlier of publish time and receipt of the chosen update."""
    inputs_digest: bytes
    published_us: dict[str, int]
    """Publish time of each source's held update."""
    warming: bool
    """Whether a source is still waited for."""


def inputs_digest(inputs: object) -> bytes:
    """8 bytes over the inputs of an entry, whatever the order of their keys."""
    return blake2b(orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS), digest_size=8).digest()


def decided_of(entry: dict[str, object]) -> Decided:
    """From the JSON object that ``oracle-hub replay --batches`` prints for a feed."""
    inputs: dict[str, dict[str, object]] = entry["inputs"]  # type: ignore[assignment]
    chosen = inputs.get(str(entry["source"]), {})
    times = [value for key in ("publish_time_us", "received_us") if isinstance(value := chosen.get(key), int)]
    published = {name: at for name, one in inputs.items() if isinstance(at := one["publish_time_us"], int)}
    return msgspec.convert(
        {
            **{key: value for key, value in entry.items() if key != "inputs"},
            "recency_us": min(times, default=0),
            "inputs_digest": b"",
            "published_us": published,
            "warming": any(one["status"] == "warming" for one in inputs.values()),
        },
        Decided,
    )


class Run:
    """All batches of one epoch of one instance, from sequence 1 on."""

    def __init__(self, hop_us: int = 0) -> None:
        self.hop_us = hop_us
        """How long a batch may be on its way to who serves it."""
        self.first_seq = 0
        self.now_us: list[int] = []
        self.generation: list[int] = []
        """Grows where the hub's clock was set back: only within one are times in order."""
        self.feeds_of: list[tuple[str, ...]] = []
        self.config_hash: list[str] = []
        """Of the configuration under which each batch was decided."""
        self._seqs: dict[str, list[int]] = {}
        self._decided: dict[str, list[Decided]] = {}

    def add(self, batch: Batch) -> None:
        """Take the next batch."""
        if not self.now_us:
            self.first_seq = batch.seq
        back = bool(self.now_us) and batch.now_us < self.now_us[-1]
        self.generation.append((self.generation[-1] if self.generation else 0) + back)
        self.now_us.append(batch.now_us)
        self.feeds_of.append(tuple(decision.feed for decision in batch.decisions))
        self.config_hash.append(batch.config_hash)
        for decision in batch.decisions:
            entry = orjson.loads(encode(feed_entry(decision, view(decision, batch.now_us), full=True)))
            decided = msgspec.structs.replace(decided_of(entry), inputs_digest=inputs_digest(entry["inputs"]))
            self._seqs.setdefault(decision.feed, []).append(batch.seq)
            self._decided.setdefault(decision.feed, []).append(decided)

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.now_us) - 1

    @property
    def feeds(self) -> Iterable[str]:
        """Every feed that was ever decided."""
        return self._seqs.keys()

    def has(self, seq: int) -> bool:
        """Whether this batch was derived."""
        return bool(self.now_us) and self.first_seq <= seq <= self.last_seq

    def at(self, feed: str, seq: int) -> Decided | None:
        """The decision in force after batch ``seq``."""
        index = bisect_right(self._seqs.get(feed, []), seq)
        return self._decided[feed][index - 1] if index else None

    def between(self, feed: str, after_seq: int, to_seq: int) -> Sequence[Decided]:
        """Decisions of batches in (after_seq, to_seq]."""
        seqs = self._seqs.get(feed, [])
        return self._decided.get(feed, [])[bisect_right(seqs, after_seq) : bisect_right(seqs, to_seq)]

    def next_change(self, feed: str, after_seq: int) -> int | None:
        """Sequence of the first batch after that one in which the feed was decided."""
        seqs = self._seqs.get(feed, [])
        index = bisect_left(seqs, after_seq + 1)
        return seqs[index] if index < len(seqs) else None

    def history(self, feed: str) -> Sequence[Decided]:
        """All decisions on a feed, in order."""
        return self._decided.get(feed, [])


class Truth:
    """Runs by (instance, epoch), and what replay itself objected to."""

    def __init__(self, hop_us: int = 0) -> None:
        """``hop_us``: how long a batch may be on its way from the hub to a worker."""
        self._hop_us = hop_us
        self.runs: dict[tuple[str, int], Run] = {}
        self.objections: list[str] = []
        self.published = 0

    def take(self, instance: str, batch: Batch) -> None:
        """One batch of an instance."""
        self.runs.setdefault((instance, batch.epoch), Run(self._hop_us)).add(batch)

    def replay(self, journal: Path) -> None:
        """Derive everything that a journal's directory holds."""
        instance = ""

        def on_batch(batch: Batch) -> None:
            self.take(instance, batch)

        replayer = Replayer(lineup_from_text, on_batch=on_batch)
        for record in read_journal(journal, strict=False):
            if isinstance(record, RunStart):
                instance = record.instance
            replayer.take(record)
        report = replayer.finish()
        self.published += report.published
        self.objections += [
            f"{journal}: ({one.epoch}, {one.seq}) was published as {one.published}, and replays as {one.derived}"
            for one in report.mismatches
        ]
        if report.gaps:
            self.objections.append(f"{journal}: {report.gaps} gap(s): records are missing")
        if report.unpublished > report.runs:
            self.objections.append(
                f"{journal}: {report.unpublished} batches without a word of publication in {report.runs} runs"
            )
