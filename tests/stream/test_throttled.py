"""Who is held back by ``max_hz``: told neither less nor otherwise, at no cost for the batches in between."""

from typing import Any

import orjson

from oracle_hub.core.hub import Batch
from oracle_hub.stream.board import Board, Publication
from oracle_hub.stream.groups import MAX_KEPT
from oracle_hub.stream.history import History
from oracle_hub.stream.session import DEFAULT_LIMITS, Session
from tests.server.stream_service import HubService
from tests.stream.model_client import sized_frame, unframed

SOL, BTC = "SOL/USD", "BTC/USD"
FULL = DEFAULT_LIMITS.conflate_above_bytes + 1


class Stage:
    """A hub, its board, and sessions that are told of batches as a server tells them: by publications alone."""

    def __init__(self) -> None:
        self.service = HubService(SOL, BTC)
        self.board = Board(
            self.service.decisions, History(self.service.epoch, self.service.seq, max_batches=3), sized_frame
        )
        self.sent: dict[Session, list[bytes]] = {}
        self.tick(SOL, 150)
        self.tick(BTC, 60_000)

    @property
    def clock_us(self) -> int:
        return self.service.clock_us

    def join(self, **options: Any) -> Session:
        session = Session(self.board)
        self.sent[session] = []
        request = {"type": "subscribe", "feeds": ["*"], **options}
        session.receive(orjson.dumps(request).decode(), self.clock_us, self.clock_us)
        return session

    def publish(self, batch: Batch) -> Publication:
        publication = self.board.apply(batch, self.clock_us)
        for session in publication.apart:
            self.note(session, session.publish(publication, 0))
        return publication

    def tick(self, feed: str, mantissa: int) -> Publication:
        return self.publish(self.service.tick(feed, mantissa))

    def note(self, session: Session, data: bytes) -> list[dict[str, Any]]:
        if data:
            self.sent[session].append(data)
        return unframed(data)

    def flush(self, session: Session, unsent_bytes: int = 0) -> list[dict[str, Any]]:
        return self.note(session, session.flush(self.clock_us, unsent_bytes))


def test_nobody_looks_at_who_waits_until_a_state_changes() -> None:
    stage = Stage()
    session = stage.join(max_hz=2)
    assert session in stage.tick(SOL, 151).apart  # told
    assert session in stage.tick(SOL, 152).apart  # held back from here
    due_us = session.due_us
    for mantissa in (149, 153, 151):
        assert stage.tick(SOL, mantissa).apart == []
    assert (session.dirty, session.due_us, len(stage.sent[session])) == (True, due_us, 1)
    batch = stage.service.wait(stage.clock_us + 30_000_000)
    assert batch is not None
    assert stage.publish(batch).apart == [session]
    (sol, btc) = sorted(unframed(stage.sent[session][1])[0]["feeds"], key=lambda entry: entry["feed"], reverse=True)
    assert (sol["state"], sol["n"], sol["low"], sol["high"], sol["was_none"]) == ("none", 5, "149", "153", True)
    assert (btc["state"], btc["n"]) == ("none", 1)


def test_what_happened_is_told_to_the_digit_however_much_it_was() -> None:
    stage = Stage()
    session = stage.join(max_hz=1)
    stage.tick(SOL, 1_000)
    count = 2 * MAX_KEPT + 50
    for number in range(count):
        stage.tick(SOL, 2_000 + number)
    group = next(iter(session._subscriptions.values())).group
    assert len(group._kept) <= MAX_KEPT
    stage.service.clock_us = session.due_us
    (update,) = stage.flush(session)
    (entry,) = update["feeds"]
    assert (entry["n"], entry["low"], entry["high"]) == (count, "2000", str(1_999 + count))
    assert update["seq"] - update["prev_seq"] == count
    assert not session.dirty
    stage.tick(SOL, 999)
    assert stage.flush(session) == []
    stage.tick(SOL, 998)
    assert len(group._kept) == 2  # and nothing of what was told


def test_who_waits_together_shares_one_frame_and_others_get_their_own() -> None:
    stage = Stage()
    first, second = (stage.join(max_hz=4) for _ in range(2))
    stage.tick(SOL, 151)
    stage.tick(SOL, 152)
    later = stage.join(max_hz=4)
    stage.tick(SOL, 153)
    stage.tick(SOL, 154)
    stage.service.clock_us += 300_000
    told = [stage.flush(session)[0] for session in (first, second, later)]
    assert stage.sent[first][1] is stage.sent[second][1]
    assert [(one["prev_seq"], one["feeds"][0]["n"], one["feeds"][0]["low"]) for one in told] == [
        (told[0]["prev_seq"], 3, "152"),
        (told[0]["prev_seq"], 3, "152"),
        (told[0]["prev_seq"] + 2, 1, "154"),
    ]
    assert stage.board.conflated == 3


def test_who_is_due_and_does_not_read_is_told_all_when_it_reads() -> None:
    stage = Stage()
    session = stage.join(max_hz=4)
    for mantissa in (151, 152):
        stage.tick(SOL, mantissa)
    stage.service.clock_us += 300_000
    assert stage.flush(session, FULL) == []
    stage.tick(SOL, 150)
    assert session.dirty and session.due_us <= stage.clock_us
    (entry,) = stage.flush(session)[0]["feeds"]
    assert (entry["price"], entry["n"], entry["high"]) == ("150", 2, "152")


def test_what_is_too_old_for_who_waits_when_it_is_decided_is_none_to_it() -> None:
    stage = Stage()
    limited, session = stage.join(max_hz=20, max_age_ms=60), stage.join(max_hz=20)
    for mantissa in (151, 152):
        stage.tick(SOL, mantissa)
    old = stage.service.try_tick(SOL, 999, after_us=70_000, age_us=65_000)
    assert old is not None
    stage.publish(old)
    stage.tick(SOL, 153)
    told = [stage.flush(each)[0]["feeds"][0] for each in (limited, session)]
    assert [(one["price"], one["n"], one["low"], one["high"], one["was_none"]) for one in told] == [
        ("153", 3, "152", "153", True),
        ("153", 3, "152", "999", False),
    ]


def test_who_leaves_while_it_waits_leaves_nothing_behind() -> None:
    stage = Stage()
    stays, leaves = stage.join(max_hz=4), stage.join(max_hz=4)
    for mantissa in (151, 152, 153):
        stage.tick(SOL, mantissa)
    leaves.end()
    stage.tick(SOL, 154)
    stage.service.clock_us += 300_000
    assert stage.flush(leaves) == []
    assert stage.flush(stays)[0]["feeds"][0]["n"] == 3
    stays.end()
    assert stage.tick(SOL, 155).parts == {}


def test_a_clock_that_is_set_back_makes_nobody_wait_for_longer_than_its_rate() -> None:
    stage = Stage()
    session = stage.join(max_hz=4)
    stage.tick(SOL, 151)
    stage.tick(SOL, 152)
    session.flush(stage.clock_us - 3_600_000_000, 0)
    assert not session.dirty


def test_every_rate_that_is_taken_can_be_kept_and_none_leaves_its_group_behind() -> None:
    stage = Stage()
    for rate in (5e-324, 1e-310, 1e-4, 0.001, 1000):
        session = stage.join(max_hz=rate, max_age_ms=5_000)
        taken = session.subscriptions == 1
        assert (taken, session.errors) == ((True, 0) if rate >= 0.001 else (False, 1))
        assert len(stage.board._groups) == int(taken)
        session.end()
    assert not stage.board._groups
