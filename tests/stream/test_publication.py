"""A batch costs those who follow it, keepers come first, and nobody is always last."""

from collections.abc import Callable

import pytest

from oracle_hub.core.hub import Batch
from oracle_hub.stream.board import Board, Publication
from oracle_hub.stream.groups import Row
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import BINARY_SUBPROTOCOL, SUBPROTOCOL
from oracle_hub.stream.session import Session
from tests.server.stream_service import START_US, HubService
from tests.stream.model_client import sized_frame, unframed

SOL, BTC, ETH = "SOL/USD", "BTC/USD", "ETH/USD"


class Stage:
    def __init__(self, frame: Callable[[bytes], bytes] = sized_frame) -> None:
        self.service = HubService(SOL, BTC, ETH)
        history = History(self.service.epoch, self.service.seq)
        self.board = Board(self.service.decisions, history, frame, binary_frame=frame)

    def session(self, name: str, *requests: str, protocol: str = SUBPROTOCOL) -> Session:
        session = Session(self.board, peer=name, protocol=protocol)
        for request in requests:
            answer = session.receive(f'{{"type":"subscribe",{request}}}', START_US, START_US)
            assert unframed(answer)[0]["sub"]
        return session

    def apply(self, batch: Batch) -> Publication:
        return self.board.apply(batch, self.service.clock_us)

    def tick(self, feed: str, mantissa: int) -> Publication:
        return self.apply(self.service.tick(feed, mantissa))


def peers(publication: Publication) -> tuple[list[str], list[str]]:
    """Who is served with the row's frame, and who by its own session, each in order."""
    orders = [row.order(publication.turn) for _, _, row in publication.in_step]
    in_step = [session.peer for order in orders for session in (*order.reached(), *order.unreached)]
    assert all(list(order.handles) == [session.handle for session in order.reached()] for order in orders)
    return in_step, [session.peer for session in publication.apart]


def test_only_those_who_follow_a_feed_of_the_batch_are_concerned() -> None:
    stage = Stage()
    stage.session("sol", f'"feeds":["{SOL}"]')
    stage.session("sol+btc", f'"feeds":["{SOL}","{BTC}"]')
    stage.session("all", '"feeds":["*"]')
    stage.session("chart", f'"feeds":["{BTC}"],"max_hz":4')
    in_step, apart = peers(stage.tick(SOL, 150))
    assert (set(in_step), apart) == ({"sol", "sol+btc", "all"}, [])
    in_step, apart = peers(stage.tick(BTC, 60_000))
    assert (set(in_step), apart) == ({"sol+btc", "all"}, ["chart"])
    in_step, apart = peers(stage.tick(ETH, 4_000))
    assert (in_step, apart) == (["all"], [])


def test_keepers_come_before_the_throttled_and_the_replaying() -> None:
    stage = Stage()
    stage.session("chart", '"feeds":["*"],"max_hz":4')
    stage.session("recorder", '"feeds":["*"],"mode":"all"')
    stage.session("two", f'"feeds":["{SOL}"]', f'"feeds":["{SOL}"],"detail":"full"')
    stage.session("keeper", '"feeds":["*"]')
    stage.session("mixed", f'"feeds":["{SOL}"],"max_hz":1', '"feeds":["*"]')
    for mantissa in range(150, 156):
        in_step, apart = peers(stage.tick(SOL, mantissa))
        assert in_step == ["keeper"]
        assert (set(apart[:2]), set(apart[2:])) == ({"two", "mixed"}, {"chart", "recorder"})


@pytest.mark.parametrize("reached", [True, False])
def test_the_order_within_a_class_rotates_and_leaves_nobody_out(reached: bool) -> None:
    stage = Stage()
    for number in range(7):
        keeper = stage.session(f"keeper {number}", '"feeds":["*"]')
        if reached:
            keeper.reach(number + 3)
        stage.session(f"chart {number}", '"feeds":["*"],"max_hz":9')
    firsts: set[str] = set()
    lasts: set[str] = set()
    for mantissa in range(150, 157):
        for order in peers(stage.tick(SOL, mantissa)):
            assert len(set(order)) == 7
            firsts.add(order[0])
            lasts.add(order[-1])
    assert len(firsts) == len(lasts) == 14


def test_who_joins_later_gets_a_frame_of_its_own_and_is_then_in_step() -> None:
    stage = Stage()
    stage.session("old", f'"feeds":["{SOL}"]')
    stage.tick(SOL, 150)
    stage.tick(BTC, 60_000)
    late = stage.session("late", f'"feeds":["{SOL}"]')
    publication = stage.tick(SOL, 151)
    assert peers(publication) == (["old"], ["late"])
    ((group, number, _),) = publication.in_step
    (old,) = unframed(publication.step_frame(group, number))
    (own,) = unframed(late.publish(publication, 0))
    assert (old["prev_seq"], own["prev_seq"], own["seq"]) == (2, 3, 4)
    assert set(peers(stage.tick(SOL, 152))[0]) == {"old", "late"}


def test_it_is_time_to_ask_each_time_that_so_many_bytes_were_written() -> None:
    row = Row()
    assert [row.wrote(40, 100) for _ in range(7)] == [False, False, True, False, False, True, False]
    assert row.written_bytes == 280


def test_a_frame_is_encoded_once_for_a_row_and_form() -> None:
    frames: list[bytes] = []

    def frame(payload: bytes) -> bytes:
        frames.append(payload)
        return sized_frame(payload)

    stage = Stage(frame)
    for protocol in (SUBPROTOCOL, BINARY_SUBPROTOCOL):
        for number in range(5):
            wanted = f'"feeds":["{SOL}","{BTC}"]' if number % 2 else '"feeds":["*"]'
            stage.session(f"{protocol} {number}", wanted, protocol=protocol)
    frames.clear()
    publication = stage.tick(SOL, 150)
    for group, number, row in publication.in_step:
        for _ in row.sessions:
            publication.step_frame(group, number)
    assert len(frames) == 4


def test_an_ended_session_is_served_no_more() -> None:
    stage = Stage()
    gone, kept = stage.session("gone", '"feeds":["*"]'), stage.session("kept", '"feeds":["*"]')
    stage.session("chart", '"feeds":["*"],"max_hz":2').end()
    gone.end()
    gone.end()
    assert peers(stage.tick(SOL, 150)) == (["kept"], [])
    kept.end()
    assert peers(stage.tick(SOL, 151)) == ([], [])
    assert stage.board._groups == {}
