"""Whatever happens between hub and client: the client equals the hub's published state or knows that it does not.

Frames are dropped and doubled, wait in buffers, connections break, hubs restart with the same or another instance,
while sessions group, throttle and merge. No price is ever handed out past its lease, and no gap is reported that is
none.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.client.price import NoPrice, Refusal
from oracle_hub.client.state import ClientState, Effect, GiveUp, Reconnect, Send, Wanted
from oracle_hub.stream import messages as wire
from oracle_hub.stream.board import Board
from oracle_hub.stream.history import History
from oracle_hub.stream.session import Session, SessionLimits
from tests.server.stream_service import HubService
from tests.stream.model_client import payloads, sized_frame
from tests.stream.test_session_properties import FEEDS, PROTOCOLS, Stage, Subscriber

HEARTBEAT_MS = 500
OTHER_INSTANCE = "6f1c2d3e-0000-4000-8000-000000000002"
WANTED = (
    Wanted(feeds=("*",)),
    Wanted(feeds=("SOL/USD",), max_hz=20),
    Wanted(feeds=("BTC/USD", "ETH/USD", "NO/USD"), max_age_ms=4_000),
    Wanted(feeds=("*",), mode="all"),
    Wanted(feeds=("ETH/USD", "SOL/USD"), detail="full", max_hz=5, max_age_ms=2_500),
    Wanted(feeds=("SOL/USD",), mode="all", max_age_ms=3_000),
)

FORMS = st.integers(0, 2 ** len(WANTED) - 1)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(0, 2), st.integers(9_000, 9_100), st.integers(1, 7)),
        st.tuples(st.just("tick"), st.integers(0, 2), st.integers(9_000, 9_100), st.just(7)),
        st.tuples(st.just("wait"), st.integers(1, 12_000_000), st.just(0), st.just(0)),
        st.tuples(st.just("beat"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("return"), st.integers(0, 5), st.just(0), st.just(0)),
        st.tuples(st.just("stall"), st.integers(0, 5), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("drop"), st.integers(0, 5), st.just(0), st.just(0)),
        st.tuples(st.just("double"), st.integers(0, 5), st.just(0), st.just(0)),
        st.tuples(st.just("buffer"), st.integers(0, 5), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("restart"), st.integers(0, 1), st.just(0), st.just(0)),
    ),
    min_size=8,
    max_size=50,
)


class Keeper(Subscriber):
    """A session whose client is the library's, with a wire between that can fail."""

    def __init__(self, stage: "Wire", wanted: Wanted, protocol: str) -> None:
        self.stage = stage
        self.state = ClientState(wanted)
        self.dropped = False
        """Something was lost inside a connection, so a gap is a true one."""
        self.drop_next = self.double_next = False
        self.waiting: list[bytes] | None = None
        """Frames in a buffer that the client does not read now; None while it reads."""
        super().__init__(stage.board, "[]", "", protocol)
        self.join(0)

    def now_us(self) -> int:
        return self.stage.service.clock_us - 1_700_000_000_000_000

    def join(self, now_us: int) -> None:
        """Connect, whatever was before."""
        service = self.stage.service
        self.board = self.stage.board
        self.session = Session(self.board, SessionLimits(conflate_above_bytes=100), self, protocol=self.protocol)
        self.waiting, self.full = None, False
        self.state.connected(self.now_us())
        hello = wire.Hello(
            protocol=self.protocol,
            instance=self.board.instance,
            epoch=self.board.epoch,
            seq=self.board.seq,
            server_time_us=service.clock_us,
            heartbeat_ms=HEARTBEAT_MS,
            feeds=list(self.board.decisions),
            policy="strict",
            config_hash="",
            simulated=None,
            limits={},
        )
        self.take(wire.encode(hello))

    def come_back(self, now_us: int) -> None:
        self.session.end()
        self.state.disconnected(self.now_us())
        self.join(now_us)

    def hear(self, data: bytes) -> None:
        for line in payloads(data):
            asked = b'"type":"subscribed"' in line or b'"type":"hello"' in line
            if self.drop_next and not asked:
                self.drop_next, self.dropped = False, True
                continue
            copies = 2 if self.double_next and not asked else 1
            self.double_next = self.double_next and asked
            for _ in range(copies):
                if self.waiting is None:
                    self.take(line)
                else:
                    self.waiting.append(line)

    def take(self, line: bytes) -> None:
        for effect in self.state.receive(line, self.now_us()):
            self.carry_out(effect)
        self.state.turns(self.now_us())

    def carry_out(self, effect: Effect) -> None:
        assert not isinstance(effect, GiveUp)
        if isinstance(effect, Reconnect):
            self.come_back(0)
        if isinstance(effect, Send):
            clock_us = self.stage.service.clock_us
            self.hear(self.session.receive(effect.data.decode(), clock_us, clock_us))

    def read_on(self) -> None:
        """Read everything that waits, in the order in which it came."""
        while self.waiting:
            waiting, self.waiting = self.waiting, []
            for line in waiting:
                session = self.session
                self.take(line)
                if self.session is not session:
                    return  # it came back on another connection; what waited is gone
        self.waiting = None


class Wire(Stage):
    """Hub, keepers and what lies between."""

    def __init__(self, binary: int = 0) -> None:
        """``binary``: a bit for each keeper, whether it reads the binary form."""
        super().__init__()
        self.board.instance = HubService.instance
        self.keepers = [Keeper(self, wanted, PROTOCOLS[binary >> number & 1]) for number, wanted in enumerate(WANTED)]
        self.subscribers = list(self.keepers)

    def run(self, kind: str, a: int, b: int, c: int) -> None:
        keeper = self.keepers[a % len(self.keepers)]
        match kind:
            case "drop":
                keeper.drop_next = True
            case "double":
                keeper.double_next = True
            case "buffer" if b and keeper.waiting is None:
                keeper.waiting = []
            case "buffer":
                keeper.read_on()
            case "restart":
                self.restart(OTHER_INSTANCE if a else HubService.instance)
            case _:
                super().run(kind, a, b, c)

    def restart(self, instance: str) -> None:
        before = self.service
        self.service = HubService(*FEEDS, epoch=before.epoch + 1)
        self.service.wait(before.clock_us + 1_000_000)
        self.board = Board(
            self.service.decisions,
            History(self.service.epoch, self.service.seq, max_batches=6),
            sized_frame,
            binary_frame=sized_frame,
            instance=instance,
        )
        for keeper in self.keepers:
            keeper.state.disconnected(keeper.now_us())
            keeper.join(0)

    def check_leases(self) -> None:
        """Nobody is handed a price whose lease is over on the hub's own clock, or one that it did not publish."""
        for keeper in self.keepers:
            for feed in FEEDS:
                try:
                    price = keeper.state.get(feed, keeper.now_us())
                except NoPrice:
                    continue
                assert price.valid_until_us is None or self.service.clock_us < price.valid_until_us
                assert price.mantissa > 0 and price.state in ("live", "degraded")

    def check_equal(self, keeper: Keeper) -> None:
        """Whoever is up to date holds exactly what the hub has published."""
        now_us = self.service.clock_us
        max_age_ms = keeper.state.wanted.max_age_ms
        for feed in FEEDS:
            decision = self.board.decisions[feed]
            shown = wire.feed_entry(
                decision, wire.view(decision, now_us, None if max_age_ms is None else max_age_ms * 1000)
            )
            try:
                price = keeper.state.get(feed, keeper.now_us())
            except NoPrice as refusal:
                followed = feed in keeper.state.wanted.feeds or "*" in keeper.state.wanted.feeds
                held_back = refusal.reason is Refusal.TOO_OLD and keeper.state.counters.held_back > 0
                assert shown.price is None or held_back or not followed
            else:
                assert (str(price.mantissa), price.source, price.decided_us) == (
                    shown.price,
                    shown.source,
                    shown.decided_us,
                )


@settings(max_examples=150, deadline=None)
@given(STEPS, FORMS)
def test_the_client_equals_the_hub_or_knows_that_it_does_not(
    steps: list[tuple[str, int, int, int]], binary: int
) -> None:
    stage = Wire(binary)
    for step in steps:
        stage.run(*step)
        stage.check_leases()
    now_us = stage.service.clock_us
    for keeper in stage.keepers:
        keeper.drop_next = keeper.full = False
        keeper.read_on()
        keeper.hear(keeper.session.flush(now_us + 10**9, 0))
        keeper.hear(keeper.session.heartbeat(now_us, 0))
        keeper.hear(keeper.session.heartbeat(now_us, 0))
        assert keeper.state.caught_up
        counters = keeper.state.counters
        if not keeper.dropped:
            assert (counters.gaps, counters.digest_mismatches) == (0, 0)
        stage.check_equal(keeper)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 50), FORMS)
def test_news_tell_the_same_as_asking_and_stay_bounded(
    steps: list[tuple[str, int, int, int]], pace: int, binary: int
) -> None:
    stage = Wire(binary)
    told: list[dict[str, int | None]] = [{} for _ in stage.keepers]
    for number, step in enumerate(steps):
        stage.run(*step)
        if number % pace == 0:
            drain(stage, told)
    for keeper in stage.keepers:
        assert len(keeper.state._news) <= len(FEEDS) + 1
    drain(stage, told)
    for keeper, prices in zip(stage.keepers, told, strict=True):
        for feed, mantissa in prices.items():
            try:
                assert keeper.state.get(feed, keeper.now_us()).mantissa == mantissa
            except NoPrice:
                assert mantissa is None


def drain(stage: Wire, told: list[dict[str, int | None]]) -> None:
    """Take all news of all keepers."""
    for keeper, prices in zip(stage.keepers, told, strict=True):
        keeper.state.turns(keeper.now_us())
        while (update := keeper.state.next_update(keeper.now_us())) is not None:
            prices[update.feed] = None if update.price is None else update.price.mantissa
