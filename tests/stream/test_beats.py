"""Heartbeats are put together from kept parts: they must say what a message encoded afresh would."""

import msgspec
import pytest

from oracle_hub.core.selector import State
from oracle_hub.stream.binary import decode_message
from oracle_hub.stream.board import Board
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import BINARY_SUBPROTOCOL, SUBPROTOCOL, Heartbeat, digest, digest_line
from oracle_hub.stream.session import Session
from tests.server.stream_service import HubService

SOL, BTC = "SOL/USD", "BTC/USD"
ALL = '{"type":"subscribe","feeds":["*"]}'


class Stage:
    """A hub with two feeds, and sessions on its board."""

    def __init__(self) -> None:
        self.service = HubService(SOL, BTC)
        self.board = Board(self.service.decisions, History(self.service.epoch, self.service.seq))
        self.sessions: list[Session] = []
        self.tick(SOL, 150)
        self.tick(BTC, 60_000)

    def join(self, request: str = ALL, protocol: str = SUBPROTOCOL) -> Session:
        session = Session(self.board, protocol=protocol)
        session.receive(request, 0, self.service.clock_us)
        self.sessions.append(session)
        return session

    def tick(self, feed: str, mantissa: int) -> None:
        publication = self.board.apply(self.service.tick(feed, mantissa), self.service.clock_us)
        for session in self.sessions:
            session.publish(publication, 0)

    def expected(self, now_us: int) -> Heartbeat:
        """What stands in a heartbeat of everything, from the hub's own decisions."""
        lines, not_live = [], []
        for feed, decision in self.service.decisions.items():
            until_us, price = decision.valid_until_us, None if decision.mantissa is None else str(decision.mantissa)
            if decision.state is not State.LIVE or (until_us is not None and now_us >= until_us):
                not_live.append(feed)
            lines.append(digest_line(feed, decision.state, price, until_us, now_us))
        return Heartbeat(
            sub=1, epoch=self.board.epoch, seq=self.board.seq, server_time_us=now_us, not_live=not_live,
            digest=digest(lines),
        )  # fmt: skip


@pytest.mark.parametrize("protocol", [SUBPROTOCOL, BINARY_SUBPROTOCOL])
def test_every_heartbeat_says_how_things_stand_at_its_own_time(protocol: str) -> None:
    stage = Stage()
    session = stage.join(protocol=protocol)
    start_us, lease_us = stage.service.clock_us, stage.service.decisions[BTC].valid_until_us
    assert lease_us is not None
    times = [9, 10**15 - 1, 10**15, start_us, start_us + 1, lease_us - 1, lease_us, lease_us + 10**16]
    for now_us in times:
        beat = session.beat_in_step(now_us)
        assert beat is not None and beat == session.heartbeat(now_us, 0)
        told = decode_message(beat) if protocol == BINARY_SUBPROTOCOL else msgspec.json.decode(beat, type=Heartbeat)
        assert told == stage.expected(now_us)
        if now_us == start_us:
            stage.tick(SOL, 151)
            moved = session.beat_in_step(now_us)
            assert moved is not None and moved != beat


def test_only_who_is_in_step_is_served_in_step() -> None:
    stage = Stage()
    assert Session(stage.board).beat_in_step(1) is None
    for request in (ALL[:-1] + ',"mode":"all"}', ALL[:-1] + ',"max_hz":5}'):
        assert stage.join(request).beat_in_step(1) is None
    two = stage.join()
    assert two.beat_in_step(1) is not None
    two.receive(ALL, 0, stage.service.clock_us)
    assert two.beat_in_step(1) is None
    three = stage.join()
    three.receive('{"type":"subscribe","channel":"alerts","feeds":["*"]}', 0, stage.service.clock_us)
    assert three.beat_in_step(1) is None
    three.receive('{"type":"unsubscribe","sub":2}', 0, stage.service.clock_us)
    assert three.beat_in_step(1) == three.heartbeat(1, 0)
    behind = stage.join()
    stage.sessions.remove(behind)
    publication = stage.board.apply(stage.service.tick(SOL, 151), stage.service.clock_us)
    behind.publish(publication, 10_000)
    assert behind.dirty and behind.beat_in_step(1) is None


def test_kept_parts_are_as_few_as_subscribers() -> None:
    stage = Stage()
    session = stage.join()
    for number in range(1, 50):
        session.heartbeat(1, 0)
        session.receive(f'{{"type":"unsubscribe","sub":{number}}}', 0, stage.service.clock_us + number * 10**6)
        session.receive(ALL, 0, stage.service.clock_us + number * 10**6)
        keeper = stage.join()
        assert keeper.heartbeat(1, 0)
        keeper.end()
    (group,) = stage.board._groups.values()
    assert len(group.beats) <= group.members + 1
