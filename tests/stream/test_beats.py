"""Heartbeats are put together from kept parts: they must say what a message encoded afresh would."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings

from oracle_hub.core.selector import State
from oracle_hub.stream import beats
from oracle_hub.stream.binary import decode_message
from oracle_hub.stream.board import Board
from oracle_hub.stream.groups import Group
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import BINARY_SUBPROTOCOL, SUBPROTOCOL, Heartbeat, digest, digest_line, recency_us, view
from oracle_hub.stream.session import Session
from tests.server.stream_service import HubService
from tests.stream.model_client import payloads, sized_frame
from tests.stream.test_session_properties import STEPS
from tests.stream.test_session_properties import Stage as BoardStage

SOL, BTC = "SOL/USD", "BTC/USD"
ALL = '{"type":"subscribe","feeds":["*"]}'


@pytest.fixture(autouse=True, scope="module")
def _one_line_at_a_time() -> Iterator[None]:
    """So that anything may happen between the lines of two feeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beats, "LINES_AT_A_TIME", 1)
        patch.setattr(beats, "RENEWED_LINES", 4)
        yield


def said_afresh(board: Board, group: Group, now_us: int) -> tuple[list[str], str]:
    """What is not live, and the digest, with nothing kept."""
    lines, not_live = [], []
    for decision in board.followed(group):
        shown = view(decision, now_us, group.key.max_age_us)
        state = decision.state if shown.ended is None else State.NONE
        if state is not State.LIVE:
            not_live.append(decision.feed)
        price = None if decision.mantissa is None or shown.ended is not None else str(decision.mantissa)
        lines.append(digest_line(decision.feed, state, price, shown.valid_until_us, now_us))
    return not_live, digest(lines)


class Stage:
    """A hub with two feeds, and sessions on its board."""

    def __init__(self) -> None:
        self.service = HubService(SOL, BTC)
        self.board = Board(
            self.service.decisions, History(self.service.epoch, self.service.seq), sized_frame, binary_frame=sized_frame
        )
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

    def swept(self, now_us: int) -> dict[Session, bytes]:
        """Heartbeats of a whole sweep of those in lanes, two at a time."""
        for session in self.sessions:
            self.board.beats.admit(session)
            session.reach(self.sessions.index(session) + 3)
        for _ in range(2):  # who enters a lane in a sweep is served there in the next one
            self.board.beats.begin()
            for _ in range(1 + len(self.board.decisions)):
                self.board.beats.take(0, now_us)
        frames: dict[Session, bytes] = {}
        while sweep := self.board.beats.take(2, now_us):
            assert [session.handle for session in sweep.sessions()] == list(sweep.handles)
            frames |= dict(zip(sweep.sessions(), sweep.frames, strict=True))
        return frames

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
    times += [start_us + 2, start_us + 1]  # the clock may be set back
    for now_us in times:
        beat = stage.swept(now_us)[session]
        assert beat == session.heartbeat(now_us, 0)
        (payload,) = payloads(beat)
        told = (
            decode_message(payload) if protocol == BINARY_SUBPROTOCOL else msgspec.json.decode(payload, type=Heartbeat)
        )
        assert told == stage.expected(now_us)
        if now_us == start_us:
            stage.tick(SOL, 151)
            assert stage.swept(now_us)[session] != beat


def test_only_who_is_in_step_is_served_in_step() -> None:
    stage = Stage()
    for request in (ALL[:-1] + ',"mode":"all"}', ALL[:-1] + ',"max_hz":5}'):
        stage.join(request)
    assert stage.swept(1) == {}
    two = stage.join()
    assert set(stage.swept(1)) == {two}
    two.receive(ALL, 0, stage.service.clock_us)
    assert stage.swept(1) == {}
    three = stage.join()
    three.receive('{"type":"subscribe","channel":"alerts","feeds":["*"]}', 0, stage.service.clock_us)
    assert stage.swept(1) == {}
    three.receive('{"type":"unsubscribe","sub":2}', 0, stage.service.clock_us)
    assert stage.swept(1) == {three: three.heartbeat(1, 0)}
    behind = stage.join()
    assert set(stage.swept(1)) == {three, behind}
    publication = stage.board.apply(stage.service.tick(SOL, 151), stage.service.clock_us)
    behind.publish(publication, 10_000)
    assert behind.dirty and set(stage.swept(1)) == {three}
    three.end()
    stage.sessions.remove(three)
    assert stage.swept(1) == {}


def test_nothing_of_a_session_that_ended_is_kept() -> None:
    stage = Stage()
    session = stage.join()
    assert stage.swept(1)
    session.end()
    beats = stage.board.beats
    left = (beats._apart, beats._offered, beats._stale, beats._shelves, *(lane.sessions for lane in beats._lanes))
    assert not any(left)


class Swept(BoardStage):
    """A board under any change, with sweeps that go on in between: each step "beat" is two of their heartbeats."""

    def __init__(self) -> None:
        super().__init__()
        self.owed: set[Session] = set()
        """Who has to be served before the sweep is over."""
        self.admitted: set[Session] = set()
        self.in_lanes = 0

    def run(self, kind: str, a: int, b: int, c: int) -> None:
        if kind == "beat":
            self.beat()
            return
        super().run(kind, a, b, c)
        alive = {each.session: each for each in self.subscribers}
        self.owed &= set(alive)
        for session, each in alive.items():
            if session not in self.admitted:
                self.board.beats.admit(session)
                self.admitted.add(session)
            if each.full:
                session.out_of_reach()
            elif session.handle is None:
                session.reach(len(self.admitted))

    def beat(self) -> None:
        beats, now_us = self.board.beats, self.service.clock_us
        if not self.owed:
            beats.begin()
            self.owed = {each.session for each in self.subscribers}
        sweep = beats.take(2, now_us)
        if sweep is not None:
            for handle, frame, session in zip(sweep.handles, sweep.frames, sweep.sessions(), strict=True):
                assert handle == session.handle and not session.peer.full
                assert frame == session.heartbeat(now_us, 0)
                assert session.lone is not None
                group = session.lone.group
                assert (group.not_live, group.digest) == said_afresh(self.board, group, now_us)
                session.peer.hear(frame)
                self.in_lanes += 1
            self.owed -= set(sweep.sessions())
            return
        apart = beats.next_apart()
        assert apart is not None or not self.owed, "a sweep forgot somebody"
        if apart is not None:
            apart.peer.hear(apart.heartbeat(now_us, apart.peer.unsent_bytes, 1))
            if not apart.beating:
                self.owed.discard(apart)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_a_sweep_says_what_each_session_would_say_and_forgets_nobody(steps: list[tuple[str, int, int, int]]) -> None:
    stage = Swept()
    for step in [("join", 0, 0, 0), ("join", 1, 0, 0), ("join", 1, 0, 1), ("beat", 0, 0, 0), *steps]:
        stage.run(*step)
        if step[0] != "beat":
            stage.run("beat", 0, 0, 0)
    for _ in range(100):
        stage.run("beat", 0, 0, 0)
    usual = any(
        not each.full and "max_hz" not in each.request and "all" not in each.request for each in stage.subscribers
    )
    assert stage.in_lanes or not usual or any(len(each.session._subscriptions) > 1 for each in stage.subscribers)
    assert not any(each.client.gaps or each.client.wrong_digests for each in stage.subscribers)


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


@pytest.mark.parametrize("later_us", [0, 6_000_000], ids=["a batch", "prices that are too old"])
def test_a_slice_of_a_sweep_makes_no_more_heartbeats_anew_than_it_writes(later_us: int) -> None:
    """Else everybody's stand before the first, and before a price, whenever the market moves."""
    stage = Stage()
    for max_age_ms in range(5_000, 5_006):  # a group each
        stage.join(f'{{"type":"subscribe","feeds":["*"],"max_age_ms":{max_age_ms}}}')
    assert len(stage.swept(stage.service.clock_us)) == 6
    if not later_us:
        stage.tick(SOL, 151)
    beats, now_us, groups, made = stage.board.beats, stage.service.clock_us + later_us, stage.board._groups, []
    beats.begin()
    while beats.take(2, now_us):
        made.append(sum(now_us < group.beat_until_us for group in groups.values()))
    assert made == [0, 0, 2, 4, 6]  # the lines of two feeds come first


def test_lines_of_thousands_of_feeds_are_made_before_the_heartbeats_that_need_them() -> None:
    """A few at a time, and only where a decision is another one: else all of them stand before a price."""
    stage = Stage()
    session = stage.join()
    stage.swept(stage.service.clock_us)
    sweeps, now_us = stage.board.beats, stage.service.clock_us
    held = dict(sweeps._lines)
    stage.tick(BTC, 60_001)
    sweeps.begin()
    assert sweeps.take(2, now_us) == ((), [], list) and sweeps._lines == held
    assert sweeps.take(2, now_us) == ((), [], list)
    assert sweeps._lines[SOL] is held[SOL] and sweeps._lines[BTC].decision is stage.board.decisions[BTC]
    (sweep,) = iter(lambda: sweeps.take(2, now_us), None)
    assert sweep.sessions() == [session]
    session.end()
    stage.board.apply(stage.service.tick(BTC, 60_002), now_us)
    sweeps.begin()
    assert sweeps.take(2, now_us) is None  # nobody needs them


def test_a_price_is_too_old_from_the_very_microsecond() -> None:
    stage = Stage()
    session = stage.join('{"type":"subscribe","feeds":["*"],"max_age_ms":2000}')
    assert session.lone is not None
    group = session.lone.group
    for feed in (SOL, BTC):  # SOL was told a price earlier
        end_us = recency_us(stage.service.decisions[feed]) + 2_000_001
        for now_us in (end_us - 1, end_us, end_us + 1):
            session.heartbeat(now_us, 0)
            assert (group.not_live, group.digest) == said_afresh(stage.board, group, now_us)
            assert (feed in group.not_live) is (now_us >= end_us)


def test_heartbeats_of_many_subscriptions_go_out_in_parts() -> None:
    """One client with 64 subscriptions to everything lets no price wait for all of them."""
    stage = Stage()
    session = stage.join()
    for _ in range(4):
        session.receive(ALL, 0, stage.service.clock_us)
    session.receive('{"type":"subscribe","channel":"alerts","feeds":["*"]}', 0, stage.service.clock_us)
    other = stage.join('{"type":"subscribe","feeds":["*"],"mode":"all"}')
    sweeps, now_us = stage.board.beats, stage.service.clock_us
    for each in (session, other):
        sweeps.admit(each)
    parts: dict[Session, list[list[int]]] = {session: [], other: []}
    sweeps.begin()
    while sweeps.take(2, now_us) is not None:
        pass
    while (served := sweeps.next_apart()) is not None:
        frames = served.heartbeat(now_us, 0, 2)
        parts[served].append([msgspec.json.decode(payload)["sub"] for payload in payloads(frames)])
        if parts[session] == [[1, 2]]:
            session.receive('{"type":"unsubscribe","sub":4}', 0, now_us)  # it may end meanwhile
    assert parts == {session: [[1, 2], [3, 5, 6]], other: [[1]]}
    sweeps.begin()
    while sweeps.take(2, now_us) is not None:
        pass
    assert sweeps.next_apart() is session and session.heartbeat(now_us, 0, 2) and session.beating
    session.end()
    assert sweeps.next_apart() is other and sweeps.next_apart() is None
