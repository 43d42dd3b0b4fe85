"""Whatever happens: a client that reads what it is sent equals the board, and no gap is reported that is none."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.hub import Batch
from oracle_hub.stream.board import Board
from oracle_hub.stream.groups import Row
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import BINARY_SUBPROTOCOL, SUBPROTOCOL, feed_entry, view
from oracle_hub.stream.session import Session, SessionLimits
from tests.server.stream_service import HubService
from tests.stream.model_client import ModelClient, sized_frame, unframed

FEEDS = ("SOL/USD", "BTC/USD", "ETH/USD")
WANTED = ('["*"]', '["SOL/USD"]', '["BTC/USD","ETH/USD","NO/USD"]')
OPTIONS = (
    "",
    ',"mode":"all"',
    ',"max_hz":20',
    ',"max_age_ms":4000',
    ',"detail":"full"',
    ',"max_hz":5,"max_age_ms":2500',
)
PROTOCOLS = (SUBPROTOCOL, BINARY_SUBPROTOCOL)
SECOND = ("", '{"type":"subscribe","feeds":["SOL/USD"]}', '{"type":"subscribe","feeds":["ETH/USD"],"max_hz":3}')
"""What a session may ask for beside; its client does not look at it."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(0, 2), st.integers(9_000, 9_100), st.integers(1, 7)),
        st.tuples(st.just("wait"), st.integers(1, 12_000_000), st.just(0), st.just(0)),
        st.tuples(st.just("join"), st.integers(0, 2), st.integers(0, len(OPTIONS) - 1), st.integers(0, 1)),
        st.tuples(st.just("return"), st.integers(0, 5), st.just(0), st.just(0)),
        st.tuples(st.just("lose"), st.integers(0, 5), st.just(0), st.just(0)),
        st.tuples(st.just("stall"), st.integers(0, 5), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("company"), st.integers(0, 5), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("beat"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class Subscriber:
    """A session, its client, and whether its socket takes bytes."""

    def __init__(self, board: Board, wanted: str, options: str, protocol: str = SUBPROTOCOL) -> None:
        self.board = board
        self.protocol = protocol
        self.request = f'{{"type":"subscribe","feeds":{wanted}{options}'
        self.session = Session(board, SessionLimits(conflate_above_bytes=100), self, protocol=protocol)
        self.client = ModelClient()
        self.full = False
        self.lost = False
        """What is sent no longer arrives, until it comes back."""

    @property
    def unsent_bytes(self) -> int:
        return 101 if self.full else 0

    def hear(self, data: bytes) -> None:
        if not self.lost:
            for message in unframed(data):
                if message.get("sub") == 1:
                    self.client.take(message)

    def change_company(self, second: str, now_us: int) -> None:
        """Subscribe to something else as well, or to nothing else any more."""
        for number in [number for number in self.session._subscriptions if number != 1]:
            self.session.receive(f'{{"type":"unsubscribe","sub":{number}}}', now_us, now_us)
        if second:
            self.session.receive(second, now_us, now_us)

    def join(self, now_us: int) -> None:
        self._answered(self.session.receive(self.request + "}", now_us, now_us))

    def come_back(self, now_us: int) -> None:
        """The connection broke and is made again: resume from what the client holds."""
        self.session.end()
        self.lost = False
        self.session = Session(self.board, SessionLimits(conflate_above_bytes=100), self, protocol=self.protocol)
        resume = f',"resume":{{"epoch":{self.board.epoch},"seq":{self.client.seq}}}}}'
        self._answered(self.session.receive(self.request + resume, now_us, now_us))

    def _answered(self, data: bytes) -> None:
        subscribed, *rest = unframed(data)
        assert subscribed["type"] == "subscribed"
        for message in rest:
            self.client.take(message)


class Stage:
    def __init__(self) -> None:
        self.service = HubService(*FEEDS)
        self.board = Board(
            self.service.decisions,
            History(self.service.epoch, self.service.seq, max_batches=6),
            sized_frame,
            binary_frame=sized_frame,
        )
        self.subscribers: list[Subscriber] = []
        self.row_bytes: Counter[Session] = Counter()
        """What went to rows in which a session stood."""

    def run(self, kind: str, a: int, b: int, c: int) -> None:
        service = self.service
        if kind == "tick":
            sources = [name for bit, name in enumerate(("doves", "chainlink", "pyth")) if c >> bit & 1]
            self.advance(service.clock_us + 40_000)
            self.publish(service.try_tick(FEEDS[a], b, *sources))
        elif kind == "wait":
            self.advance(service.clock_us + a)
        elif kind == "join":
            self.subscribers.append(Subscriber(self.board, WANTED[a], OPTIONS[b], PROTOCOLS[c]))
            self.subscribers[-1].join(service.clock_us)
        elif kind == "beat":
            for each in self.subscribers:
                each.hear(each.session.heartbeat(service.clock_us, each.unsent_bytes))
        elif self.subscribers:
            subscriber = self.subscribers[a % len(self.subscribers)]
            if kind == "return":
                subscriber.come_back(service.clock_us)
            elif kind == "company":
                subscriber.change_company(SECOND[b], service.clock_us)
            elif kind == "lose":
                subscriber.lost = True
            else:
                subscriber.full = bool(b)

    def publish(self, batch: Batch | None) -> None:
        if batch is not None:
            publication = self.board.apply(batch, self.service.clock_us)
            late = []
            for group, number, row in publication.in_step:
                frame = publication.step_frame(group, number)
                for session in self.served(row, len(frame), publication.turn):
                    if session.peer.full:
                        late.append(session)
                    else:
                        session.peer.hear(frame)
            for session in (*late, *publication.apart):
                session.peer.hear(session.publish(publication, session.peer.unsent_bytes))
            for each in self.subscribers:
                assert each.session.row_bytes == self.row_bytes[each.session]

    def served(self, row: Row, size_bytes: int, turn: int) -> list[Session]:
        """Whom a frame of a row goes to: each of them once, and who can be reached by a handle at its own."""
        order = row.order(turn)
        assert list(order.handles) == [session.handle for session in order.reached()]
        assert not any(session.handle for session in order.unreached)
        sessions = [*order.reached(), *order.unreached]
        assert len(sessions) == len(set(sessions)) and set(sessions) == set(row.sessions)
        row.wrote(size_bytes, 1)
        self.row_bytes.update(dict.fromkeys(sessions, size_bytes))
        return sessions

    def advance(self, to_us: int) -> None:
        """Let time pass, with every timer fired at its instant."""
        service, board = self.service, self.board
        while True:
            lease_us, end_us = service.hub.next_deadline(), board.next_end_us()
            due_us = min(us for us in (lease_us, end_us, to_us) if us is not None)
            service.clock_us = max(service.clock_us, due_us)
            self.publish(service.hub.step(service.clock_us))
            ended = board.pop_ended(service.clock_us)
            for each in self.subscribers:
                each.hear(each.session.expire(ended, service.clock_us, each.unsent_bytes))
                each.hear(each.session.flush(service.clock_us, each.unsent_bytes))
            if due_us >= to_us:
                return


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_a_client_equals_the_board_and_sees_no_false_gap(steps: list[tuple[str, int, int, int]]) -> None:
    stage = Stage()
    for step in steps:
        stage.run(*step)
    now_us = stage.service.clock_us
    for each in stage.subscribers:
        if each.lost:
            each.come_back(now_us)
        each.hear(each.session.heartbeat(now_us, 0))
        assert (each.client.gaps, each.client.wrong_digests) == (0, 0)
        assert each.session.flush(now_us + 10**9, 0) == b""
        assert not each.session.dirty
        subscription = each.session._subscriptions[1]
        group = subscription.group
        wanted = {
            held.feed: feed_entry(held, view(held, now_us, group.key.max_age_us))
            for held in stage.board.followed(group)
        }
        assert set(each.client.feeds) == set(wanted)
        for feed, entry in wanted.items():
            seen = each.client.feeds[feed]
            over = seen["valid_until_us"] is not None and seen["valid_until_us"] <= now_us
            assert ("none" if over else seen["state"], None if over else seen["price"]) == (entry.state, entry.price)
