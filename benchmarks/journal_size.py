"""What a day of journal weighs, sealed: five feeds, three sources, four updates a second of each.

Minutes of frames as they come on the wire go through the program's own writer and are sealed as a hub seals them; a day
is worked out from what they weigh. RPC endpoints tell every change of ten accounts (each in a text of its own: their
subscriptions have other numbers), a websocket message each, with slot notifications; Hermes sends an event with all
five feeds. With signed payloads, each event carries an accumulator update, of which the signatures and the proofs do
not compress: random bytes stand in for them.
"""

import base64
import random
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks import chain
from benchmarks.report import Figure, Report, Table, main
from feeds.addresses import ASSETS
from oracle_hub.core.source import Frame
from oracle_hub.journal.records import Published, Step
from oracle_hub.journal.segments import list_segments
from oracle_hub.journal.writer import JournalWriter

MINUTES = 10
PER_SECOND = 4
START_US = 1_790_000_000_000_000
DAY_S = 86_400
MB = 1_000_000
SLOT_US = 400_000
VAA_BYTES = 952
"""A Wormhole VAA with 13 signatures of 66 bytes each, and its body."""
PROOF_BYTES = 10 * 20
"""Ten hashes of 20 bytes lead from a price to the signed root."""


class Traffic:
    """What arrives, in order."""

    def __init__(self, journal: JournalWriter, *, endpoints: int, signed: bool) -> None:
        self._journal = journal
        self._rng = random.Random(11)
        self._signed = signed
        self._links = [journal.link(f"solana:{name}") for name in "abc"[:endpoints]]
        self._hermes = journal.link("hermes:1")
        self._prices = {feed: chain.start_price(feed) for feed in chain.FEEDS}
        self._places = [(feed, kind) for feed in chain.FEEDS for kind in (chain.AGGREGATE, chain.STORE)]
        self.frames = self.updates = self._seq = 0

    def turn(self, now_us: int) -> None:
        """A quarter of a second: every account changes once, and Hermes tells all feeds once."""
        rng = self._rng
        self._prices = {feed: price + price * rng.randint(-30, 30) // 1_000_000 for feed, price in self._prices.items()}
        rng.shuffle(self._places)
        at_us = now_us
        for number, (feed, kind) in enumerate(self._places):
            at_us = now_us + number * 20_000 + rng.randrange(9_000)
            self._account(feed, kind, at_us)
        self._event(at_us + 11_000)

    def _account(self, feed: str, kind: chain.Kind, at_us: int) -> None:
        seen = self._prices[feed] + self._prices[feed] * self._rng.randint(-200, 200) // 1_000_000
        slot = 428_000_000 + (at_us - START_US) // SLOT_US
        state = chain.value(kind, ASSETS[feed], seen, at_us // 1_000_000, slot)
        for endpoint, link_id in enumerate(self._links):
            subscription = 90_000 + 7_000 * endpoint + chain.FEEDS.index(feed) * 8 + (kind is chain.STORE)
            data = chain.notification(subscription, slot + endpoint % 2, state)
            self._frame(link_id, at_us + endpoint * self._rng.randrange(900, 4_000), Frame("websocket", data))
            if not self._rng.randrange(10):  # one for each slot
                told = {"slot": slot, "parent": slot - 1, "root": slot - 31}
                params = {"result": told, "subscription": 5 + endpoint}
                notice = orjson.dumps({"jsonrpc": "2.0", "method": "slotNotification", "params": params})
                self._frame(link_id, at_us + 4_500, Frame("websocket", notice))
        self.updates += 1
        self._step(at_us + 4_600)

    def _event(self, at_us: int) -> None:
        parsed = []
        for feed in chain.FEEDS:
            seen = self._prices[feed] + self._prices[feed] * self._rng.randint(-100, 100) // 1_000_000
            body = {"price": str(seen), "conf": str(seen // 3_000), "expo": -8, "publish_time": at_us // 1_000_000}
            ema = body | {"price": str(seen - seen // 9_000), "conf": str(seen // 2_900)}
            slot = 280_000_000 + (at_us - START_US) // SLOT_US
            seconds = at_us // 1_000_000
            told = {"slot": slot, "proof_available_time": seconds + 1, "prev_publish_time": seconds - 1}
            parsed.append({"id": ASSETS[feed].hermes_id, "price": body, "ema_price": ema, "metadata": told})
        size = VAA_BYTES + len(parsed) * (85 + PROOF_BYTES)
        data = [base64.b64encode(self._rng.randbytes(size)).decode()] if self._signed else []
        event = orjson.dumps({"binary": {"encoding": "base64", "data": data}, "parsed": parsed})
        self._frame(self._hermes, at_us, Frame("sse", event))
        self.updates += len(parsed)
        self._step(at_us + 100)

    def _frame(self, link_id: int, at_us: int, frame: Frame) -> None:
        self._journal.frame(link_id, at_us, frame)
        self.frames += 1

    def _step(self, at_us: int) -> None:
        self._seq += 1
        self._journal.append(Step(at_us))
        self._journal.append(Published(1_790_000_000, self._seq, self._rng.randbytes(16)))
        self._journal.commit()


def weigh(minutes: int, *, endpoints: int, signed: bool) -> dict[str, float]:
    """Megabytes of a sealed day, of a plain one, and processor seconds that sealing it takes."""
    with tempfile.TemporaryDirectory() as name:
        journal = JournalWriter(Path(name), instance="benchmark", epoch=1, disk_budget_bytes=None)
        traffic = Traffic(journal, endpoints=endpoints, signed=signed)
        turns = minutes * 60 * PER_SECOND
        for turn in range(turns):
            traffic.turn(START_US + turn * 1_000_000 // PER_SECOND)
        assert traffic.updates == turns * 15
        plain = journal.bytes_written
        if not journal.rotate():
            raise SystemExit(f"journal_size: {journal.last_error}")
        started = time.process_time()
        journal.seal_pending()
        sealing_s = time.process_time() - started
        sealed = sum(one.path.stat().st_size for one in list_segments(Path(name)) if one.sealed)
        journal.close()
    days = minutes * 60 / DAY_S
    return {
        "sealed": sealed / days / MB,
        "plain": plain / days / MB,
        "frames": traffic.frames / days,
        "seal_s": sealing_s / days,
    }


def run(repetitions: int, *, minutes: int = MINUTES) -> Report:
    """Weigh each kind of day once; the traffic is the same each time, so repetitions change nothing."""
    cases = {
        (endpoints, signed): weigh(minutes, endpoints=endpoints, signed=signed)
        for endpoints in (1, 2)
        for signed in (False, True)
    }
    rows = tuple(
        (endpoints, "yes" if signed else "no", one["frames"] / 1e6, one["plain"], one["sealed"], one["seal_s"])
        for (endpoints, signed), one in cases.items()
    )
    columns = ("endpoints", "signed payloads", "million frames", "plain, MB", "sealed, MB", "sealing, s")
    return Report(
        "journal_size",
        (
            Figure("journal_day_mb", cases[2, False]["sealed"], "MB", at_most=400.0),
            Figure("journal_day_signed_mb", cases[2, True]["sealed"], "MB", at_most=1_500.0),
            Figure("journal_seal_day_s", cases[2, True]["seal_s"], "s"),
        ),
        (Table("a day", columns, rows),),
        (f"worked out from {minutes} minutes of each kind",),
    )


if __name__ == "__main__":
    sys.exit(main("journal_size", str(__doc__), run, repetitions=1))
