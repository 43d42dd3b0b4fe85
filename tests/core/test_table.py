"""What one cell holds after which updates, by value, on literal times."""

import msgspec
import pytest

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.selector import ABSENT
from oracle_hub.core.source import Condition, PriceUpdate, Status
from oracle_hub.core.table import Applied, InputStatus, Table

T = 1_760_000_000_000_000
"""2025-10-09 08:53:20 UTC, as our clock at the start of each test."""
S = 1_000_000
SOURCES = ("doves", "chainlink", "pyth")


def spec(
    feed: str = "SOL/USD",
    *,
    max_age_us: int = 5 * S,
    max_conf_bps: int = 0,
    references: tuple[str, ...] = (),
    expo: int = -8,
) -> FeedSpec:
    return FeedSpec(
        feed=feed,
        expo=expo,
        primary="doves",
        verifiers=("chainlink", "pyth"),
        references=references,
        max_conf_bps=max_conf_bps,
        max_age_us=dict.fromkeys((*SOURCES, *references), max_age_us),
    )


def update(
    mantissa: int = 150,
    publish_us: int = T,
    *,
    received_us: int = T,
    transport: str = "solana:a",
    slot: int = 0,
    verified: bool = False,
    conf: int | None = None,
    source: str = "pyth",
    feed: str = "SOL/USD",
    account: str | None = None,
) -> PriceUpdate:
    return PriceUpdate(source, transport, feed, mantissa, publish_us, received_us, conf, slot, verified, account)


def condition(what: Condition, *, feed: str | None = "SOL/USD", transport: str = "solana:a") -> Status:
    return Status("pyth", transport, feed, what, "as told", T)


class Cell:
    """One cell of a table with one feed, and its life told in updates."""

    def __init__(self, *, max_conf_bps: int = 0) -> None:
        self.spec = spec(max_conf_bps=max_conf_bps)
        self.table = Table(Catalog([self.spec]))
        cell = self.table.cell_of("pyth", "SOL/USD")
        assert cell is not None
        self.cell = cell

    def apply(self, change: PriceUpdate, now_us: int = T) -> Applied:
        return self.table.apply(change, now_us)

    @property
    def value(self) -> tuple[int, int] | None:
        """Mantissa and publish time held."""
        held = self.table.held(self.cell)
        return None if held is None else (held.mantissa, held.publish_us)

    def status(self, now_us: int = T, *, warming: bool = False) -> InputStatus:
        return self.table.status(self.cell, self.spec, now_us, warming=warming)

    def usable(self, now_us: int = T) -> bool:
        usable_from, usable_until, _, _ = self.table.input(self.cell, self.spec)
        return usable_from <= now_us <= usable_until


@pytest.fixture
def cell() -> Cell:
    return Cell()


def test_an_empty_cell_holds_nothing_and_is_warming_then_missing(cell: Cell) -> None:
    assert cell.value is None
    assert cell.table.input(cell.cell, cell.spec) == ABSENT
    assert cell.status(warming=True) is InputStatus.WARMING
    assert cell.status(warming=False) is InputStatus.MISSING
    assert not cell.table.heard(cell.cell)


def test_the_held_update_comes_back_as_it_was_taken(cell: Cell) -> None:
    told = update(150, T - S, slot=7, verified=True, conf=3, account="Acc")
    assert cell.apply(told) is Applied.TAKEN
    assert cell.table.held(cell.cell) == told
    assert cell.table.conf(cell.cell) == 3
    assert cell.table.publish_us(cell.cell) == T - S
    assert cell.table.input(cell.cell, cell.spec) == (0, T - S + 5 * S, 150, T - S)


def test_an_update_that_nobody_asked_for_is_unknown(cell: Cell) -> None:
    assert cell.apply(update(source="redstone")) is Applied.UNKNOWN
    assert cell.apply(update(feed="DOGE/USD")) is Applied.UNKNOWN
    assert cell.value is None


def test_a_source_of_another_feed_has_no_cell_here() -> None:
    other = FeedSpec(
        feed="BTC/USD",
        primary="edge",
        verifiers=("chainlink", "pyth"),
        max_age_us={"edge": S, "chainlink": S, "pyth": S},
    )
    table = Table(Catalog([spec(), other]))
    assert table.cell_of("edge", "SOL/USD") is None
    assert table.cell_of("doves", "BTC/USD") is None
    assert table.cell_of("edge", "BTC/USD") == 7  # feed 1 of 4 sources, the fourth named
    assert table.apply(update(source="edge"), T) is Applied.UNKNOWN


@pytest.mark.parametrize(
    ("second", "applied", "value"),
    [
        pytest.param(update(151, T + 1), Applied.TAKEN, (151, T + 1), id="newer"),
        pytest.param(update(150, T + 1), Applied.TAKEN, (150, T + 1), id="newer, same price"),
        pytest.param(update(151, T + 1, slot=9), Applied.TAKEN, (151, T + 1), id="newer time beats a lower slot"),
        pytest.param(update(151, T - 1), Applied.OLDER, (150, T), id="older"),
        pytest.param(update(151, T - 1, slot=11), Applied.OLDER, (150, T), id="older time loses with a higher slot"),
        pytest.param(update(150, T, slot=10), Applied.DUPLICATE, (150, T), id="the same again"),
        pytest.param(update(150, T, transport="solana:b"), Applied.DUPLICATE, (150, T), id="the same by another way"),
        pytest.param(update(151, T, slot=11), Applied.TAKEN, (151, T), id="equal time, higher slot"),
        pytest.param(
            update(151, T, slot=11, transport="solana:b"), Applied.TAKEN, (151, T), id="higher slot, other RPC"
        ),
        pytest.param(update(151, T, slot=9), Applied.OLDER, (150, T), id="equal time, lower slot"),
        pytest.param(update(151, T, slot=10), Applied.CONFLICT, (150, T), id="equal time and slot"),
        pytest.param(update(151, T, slot=0), Applied.CONFLICT, (150, T), id="equal time, no slot"),
        pytest.param(
            update(151, T, slot=11, transport="hermes:1"), Applied.CONFLICT, (150, T), id="slots of different kinds"
        ),
        pytest.param(
            update(151, T, slot=9, transport="hermes:1"), Applied.CONFLICT, (150, T), id="lower slot of another kind"
        ),
    ],
)
def test_the_order_key(cell: Cell, second: PriceUpdate, applied: Applied, value: tuple[int, int]) -> None:
    assert cell.apply(update(150, T, slot=10)) is Applied.TAKEN
    assert cell.apply(second) is applied
    assert cell.value == value


def test_a_conflict_is_the_same_whoever_comes_first() -> None:
    for first, second in ((150, 151), (151, 150)):
        cell = Cell()
        cell.apply(update(first, T))
        assert cell.apply(update(second, T, transport="solana:b")) is Applied.CONFLICT
        assert cell.value == (first, T)
        assert cell.apply(update(160, T + 1)) is Applied.TAKEN


def test_a_source_that_moves_to_another_account_does_not_contradict_itself() -> None:
    cell = Cell()
    cell.apply(update(150, T, slot=10, account="old"))
    assert cell.apply(update(151, T, slot=10, account="new")) is Applied.OLDER
    assert cell.apply(update(151, T, slot=10, account="old")) is Applied.CONFLICT
    assert cell.apply(update(151, T, slot=10, account="new", transport="solana/doves:a")) is Applied.CONFLICT
    assert cell.value == (150, T)


class TestVerified:
    """An unverified way never replaces what a verified way brought."""

    @pytest.fixture
    def cell(self) -> Cell:
        cell = Cell()
        assert cell.apply(update(150, T, verified=True, slot=10)) is Applied.TAKEN
        return cell

    def test_newer_but_unverified_is_not_taken(self, cell: Cell) -> None:
        assert cell.apply(update(151, T + 1, slot=11)) is Applied.UNVERIFIED
        assert cell.value == (150, T)

    def test_newer_and_verified_is_taken(self, cell: Cell) -> None:
        assert cell.apply(update(151, T + 1, verified=True)) is Applied.TAKEN
        assert cell.value == (151, T + 1)

    def test_older_is_older_whoever_says_it(self, cell: Cell) -> None:
        assert cell.apply(update(151, T - 1)) is Applied.OLDER

    def test_the_same_news_without_proof_is_a_duplicate(self, cell: Cell) -> None:
        assert cell.apply(update(150, T)) is Applied.DUPLICATE
        held = cell.table.held(cell.cell)
        assert held is not None and held.verified

    def test_another_value_at_the_same_time_is_a_conflict_even_with_a_higher_slot(self, cell: Cell) -> None:
        assert cell.apply(update(151, T, slot=11)) is Applied.CONFLICT
        assert cell.value == (150, T)

    def test_a_verified_way_replaces_an_unverified_one_only_with_newer_news(self) -> None:
        cell = Cell()
        cell.apply(update(150, T))
        assert cell.apply(update(151, T, verified=True)) is Applied.CONFLICT
        assert cell.apply(update(151, T + 1, verified=True)) is Applied.TAKEN
        assert cell.apply(update(152, T + 2)) is Applied.UNVERIFIED

    def test_a_late_proof_is_noted_and_makes_nothing_younger(self) -> None:
        cell = Cell()
        cell.apply(update(150, T + S, received_us=T))
        before = cell.table.input(cell.cell, cell.spec)
        proof = update(150, T + S, received_us=T + S, verified=True, transport="hermes:1")
        assert cell.apply(proof, T + S) is Applied.DUPLICATE
        assert cell.table.input(cell.cell, cell.spec) == before == (0, T + 5 * S, 150, T)
        held = cell.table.held(cell.cell)
        assert held is not None and held.verified and held.transport == "hermes:1"

    def test_a_late_proof_does_not_clear_invalid(self) -> None:
        cell = Cell()
        cell.apply(update(150, T))
        cell.table.mark(condition(Condition.INVALID))
        cell.apply(update(150, T, verified=True))
        assert cell.status() is InputStatus.INVALID


class TestFuture:
    """A stamp beyond our clock plus two seconds never enters the cell and never moves the watermark."""

    def test_the_limit_is_inclusive(self, cell: Cell) -> None:
        assert cell.apply(update(150, T + 2 * S)) is Applied.TAKEN
        assert cell.value == (150, T + 2 * S)

    def test_one_microsecond_more_is_future(self, cell: Cell) -> None:
        assert cell.apply(update(150, T + 2 * S + 1)) is Applied.FUTURE
        assert cell.value is None
        assert cell.status() is InputStatus.FUTURE
        assert cell.table.heard(cell.cell)

    def test_the_held_price_stays_unused_until_the_next_plausible_one(self, cell: Cell) -> None:
        cell.apply(update(150, T))
        assert cell.apply(update(999, T + 3600 * S, slot=99)) is Applied.FUTURE
        assert cell.value == (150, T)
        assert cell.status() is InputStatus.FUTURE
        assert cell.table.input(cell.cell, cell.spec) == ABSENT
        assert cell.apply(update(151, T + S), T + S) is Applied.TAKEN  # an hour older than the future one
        assert cell.value == (151, T + S)
        assert cell.status(T + S) is InputStatus.OK

    def test_a_duplicate_of_the_honest_price_clears_it_too(self, cell: Cell) -> None:
        cell.apply(update(150, T))
        cell.apply(update(999, T + 3600 * S))
        assert cell.apply(update(150, T)) is Applied.DUPLICATE
        assert cell.status() is InputStatus.OK

    def test_the_same_stamp_is_believed_once_our_clock_gets_there(self, cell: Cell) -> None:
        early = update(150, T + 10 * S)
        assert cell.apply(early) is Applied.FUTURE
        assert cell.apply(early, T + 8 * S - 1) is Applied.FUTURE
        assert cell.apply(early, T + 8 * S) is Applied.TAKEN

    def test_it_does_not_clear_invalid_when_it_goes(self, cell: Cell) -> None:
        cell.apply(update(150, T))
        cell.table.mark(condition(Condition.INVALID))
        cell.apply(update(999, T + 3600 * S))
        assert cell.status() is InputStatus.INVALID  # the first in precedence
        cell.apply(update(150, T))
        assert cell.status() is InputStatus.INVALID


class TestCondition:
    """INVALID and HALTED hold until a newer price."""

    @pytest.mark.parametrize(
        ("what", "status"),
        [(Condition.INVALID, InputStatus.INVALID), (Condition.HALTED, InputStatus.HALTED)],
    )
    def test_it_holds_until_a_newer_price(self, cell: Cell, what: Condition, status: InputStatus) -> None:
        cell.apply(update(150, T))
        assert cell.table.mark(condition(what)) is True
        assert cell.status() is status
        assert cell.table.input(cell.cell, cell.spec) == ABSENT
        assert cell.table.mark(condition(what)) is False  # nothing new in it
        for lagging in (update(150, T, transport="solana:b"), update(149, T - S, transport="solana:b")):
            assert cell.apply(lagging) in (Applied.DUPLICATE, Applied.OLDER)
            assert cell.status() is status
        assert cell.apply(update(151, T, transport="hermes:1")) is Applied.CONFLICT
        assert cell.status() is status
        assert cell.apply(update(151, T + 1)) is Applied.TAKEN
        assert cell.status() is InputStatus.OK

    def test_invalid_comes_before_halted(self, cell: Cell) -> None:
        cell.apply(update(150, T))
        cell.table.mark(condition(Condition.HALTED))
        assert cell.table.mark(condition(Condition.INVALID)) is True
        assert cell.status() is InputStatus.INVALID

    @pytest.mark.parametrize("what", sorted(set(Condition) - {Condition.INVALID, Condition.HALTED, Condition.RESUMED}))
    def test_other_conditions_say_nothing_of_the_price(self, cell: Cell, what: Condition) -> None:
        cell.apply(update(150, T))
        cell.table.mark(condition(Condition.INVALID))
        assert cell.table.mark(condition(what)) is False
        assert cell.status() is InputStatus.INVALID

    def test_what_counts_again_is_as_old_as_it_is(self, cell: Cell) -> None:
        assert cell.table.mark(condition(Condition.RESUMED)) is False  # there was nothing to end
        cell.apply(update(150, T))
        for what in (Condition.INVALID, Condition.HALTED):
            cell.table.mark(condition(what))
        assert cell.table.mark(condition(Condition.RESUMED)) is True
        assert cell.status() is InputStatus.OK
        assert cell.table.input(cell.cell, cell.spec)[2:] == (150, T)
        assert cell.table.mark(condition(Condition.RESUMED, feed=None)) is False  # it is said feed by feed

    def test_one_that_never_gave_a_price_has_been_heard(self, cell: Cell) -> None:
        assert cell.table.mark(condition(Condition.INVALID)) is True
        assert cell.table.heard(cell.cell)
        assert cell.status(warming=True) is InputStatus.INVALID

    def test_without_a_feed_it_is_for_all_feeds_of_the_source(self) -> None:
        table = Table(Catalog([spec("SOL/USD"), spec("BTC/USD")]))
        assert table.mark(condition(Condition.HALTED, feed=None)) is True
        assert [
            table.heard(cell)
            for feed in ("SOL/USD", "BTC/USD")
            for source in SOURCES
            if (cell := table.cell_of(source, feed)) is not None
        ] == [False, False, True, False, False, True]

    def test_of_an_unknown_feed_or_source_it_is_ignored(self, cell: Cell) -> None:
        assert cell.table.mark(condition(Condition.INVALID, feed="DOGE/USD")) is False
        assert cell.table.mark(Status("redstone", "r", None, Condition.INVALID, "", T)) is False


class TestConfidence:
    @pytest.mark.parametrize(
        ("conf", "status"),
        [(None, InputStatus.OK), (0, InputStatus.OK), (150, InputStatus.OK), (151, InputStatus.UNCERTAIN)],
    )
    def test_the_limit_is_inclusive(self, conf: int | None, status: InputStatus) -> None:
        cell = Cell(max_conf_bps=100)  # 1 % of 15,000 is 150
        cell.apply(update(15_000, T, conf=conf))
        assert cell.status() is status
        assert cell.usable() is (status is InputStatus.OK)
        assert cell.table.conf(cell.cell) == conf

    def test_no_limit_by_default(self, cell: Cell) -> None:
        cell.apply(update(15_000, T, conf=INT64_MAX))
        assert cell.usable()

    def test_the_widest_and_the_largest_do_not_overflow(self) -> None:
        cell = Cell(max_conf_bps=10_000)
        cell.apply(update(INT64_MAX, T, conf=INT64_MAX))
        assert cell.usable()

    def test_stale_comes_before_uncertain(self) -> None:
        cell = Cell(max_conf_bps=100)
        cell.apply(update(15_000, T, conf=151))
        assert cell.status(T + 5 * S + 1) is InputStatus.STALE


class TestAge:
    """From the earlier of publish and receipt; usable at exactly the limit, not a microsecond longer."""

    @pytest.mark.parametrize(
        ("publish_us", "received_us", "until_us"),
        [
            (T, T, T + 5 * S),
            (T - S, T, T + 4 * S),
            (T + S, T, T + 5 * S),  # a stamp ahead of our clock earns no extra life
        ],
    )
    def test_max_age(self, cell: Cell, publish_us: int, received_us: int, until_us: int) -> None:
        cell.apply(update(150, publish_us, received_us=received_us))
        assert cell.table.age_us(cell.cell, until_us) == 5 * S
        assert cell.status(until_us) is InputStatus.OK and cell.usable(until_us)
        assert cell.status(until_us + 1) is InputStatus.STALE and not cell.usable(until_us + 1)

    def test_it_may_arrive_stale(self, cell: Cell) -> None:
        assert cell.apply(update(150, T - 111 * 86_400 * S)) is Applied.TAKEN
        assert cell.status() is InputStatus.STALE

    def test_hearing_the_same_again_makes_it_no_younger(self, cell: Cell) -> None:
        cell.apply(update(150, T))
        cell.apply(update(150, T, received_us=T + 4 * S), T + 4 * S)
        assert cell.usable(T + 5 * S) and not cell.usable(T + 5 * S + 1)


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(update(0), id="zero"),
        pytest.param(update(-1), id="negative"),
        pytest.param(update(INT64_MAX + 1), id="price beyond int64"),
        pytest.param(update(150, -(2**63) * S), id="publish time before int64"),
        pytest.param(update(150, slot=2**63), id="slot beyond int64"),
        pytest.param(update(150, slot=-1), id="negative slot"),
        pytest.param(update(150, conf=2**63), id="confidence beyond int64"),
        pytest.param(update(150, conf=-1), id="negative confidence"),
    ],
)
def test_what_no_column_can_hold_is_refused(cell: Cell, refused: PriceUpdate) -> None:
    cell.apply(update(149, T - S))
    assert cell.apply(refused) is Applied.REFUSED
    assert cell.value == (149, T - S)
    assert cell.status() is InputStatus.OK


def test_a_publish_time_beyond_int64_is_future(cell: Cell) -> None:
    assert cell.apply(update(150, 2**63 * S)) is Applied.FUTURE
    assert cell.value is None


class TestCarryOver:
    """A reload forgets nothing that still counts."""

    def test_cells_move_to_their_new_numbers_with_everything(self) -> None:
        old = Table(Catalog([spec("SOL/USD"), spec("BTC/USD")]))
        told = update(150, T, slot=7, verified=True, conf=3, account="Acc", feed="BTC/USD")
        old.apply(told, T)
        old.mark(condition(Condition.HALTED, feed="BTC/USD"))
        new = Table(Catalog([spec("ETH/USD"), spec("BTC/USD", references=("redstone",), max_age_us=S)]))
        new.carry_over(old)
        cell = new.cell_of("pyth", "BTC/USD")
        assert cell is not None
        assert new.held(cell) == told
        assert new.status(cell, new.catalog.feeds[1], T, warming=False) is InputStatus.HALTED
        assert new.apply(update(151, T - 1, feed="BTC/USD"), T) is Applied.OLDER
        assert new.apply(update(151, T + 1, feed="BTC/USD", verified=True), T) is Applied.TAKEN
        assert new.input(cell, new.catalog.feeds[1]) == (0, T + S, 151, T)  # by the new max age

    def test_what_is_held_is_the_update_that_came(self) -> None:
        catalog = Catalog([spec("SOL/USD"), spec("BTC/USD")])
        old, new = Table(catalog), Table(Catalog([spec("BTC/USD"), spec("SOL/USD", max_age_us=S)]))
        told, proved = update(150, slot=7, conf=3), update(160, feed="BTC/USD")
        for one in (told, proved, msgspec.structs.replace(proved, verified=True)):
            old.apply(one, T)
        new.carry_over(old)
        assert new.held(new.catalog.layout.cells["pyth", "SOL/USD"]) is told
        held = new.held(new.catalog.layout.cells["pyth", "BTC/USD"])  # its proof came later: no update was like it
        assert held == msgspec.structs.replace(proved, verified=True)

    def test_another_exponent_is_another_price(self) -> None:
        old = Table(Catalog([spec()]))
        old.apply(update(150, T), T)
        new = Table(Catalog([spec(expo=-10)]))
        new.carry_over(old)
        cell = new.cell_of("pyth", "SOL/USD")
        assert cell is not None and new.held(cell) is None
