"""Many feeds looked at over columns: the same alerts as one by one, whatever happens."""

from collections import deque
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.alerts import engine as engine_module
from oracle_hub.alerts.alert import Kind, Transition
from oracle_hub.alerts.engine import AlertEngine, facts_after
from oracle_hub.alerts.glance import Glance
from oracle_hub.alerts.memory import Memory, Said
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Hub
from oracle_hub.core.selector import Reason
from oracle_hub.core.source import Condition, PriceUpdate, Status
from tests.alerts.rig import SOURCES, START_US, spec

PRICE = 100_00000000
SPECS = (
    spec("A/USD"),
    spec("B/USD", max_conf_bps=30),
    spec("C/USD", references=("aggregate",)),
    spec("D/USD", references=("mirror", "aggregate"), max_conf_bps=30),
    spec("PEG/USD"),
    spec("E/USD"),
)
FEEDS = tuple(one.feed for one in SPECS)
TUNED = AlertSettings(
    pegs={"PEG/USD": PRICE}, velocity_bps=60, velocity_window_us=3_000_000, chain_max_age_us=2_000_000,
    aggregates=frozenset({"aggregate", "pyth"}), group_min=3, storm_cap=6,
)  # fmt: skip
GAPS_US = (0, 1, 100_000, 250_000, 700_000, 2_500_000, 7_000_000)
EVENTS = (*["nothing"] * 30, "block", "unblock", "unblock", "halt", "limit", "settings", "reload")
APART = (*range(-3, 4), 5_000_000, 20_000_000, 60_000_000, -400_000_000, 2_000_000_000_000_000)
CONFS = (None, None, None, 1, 10_000_000, 40_000_000, 200_000_000)
LATE_US = (*[0] * 8, 1_500_000, 6_000_000, -4_000_000)


class Both:
    """One hub, and an engine for each way of looking at it."""

    def __init__(self) -> None:
        self.now_us = START_US
        self.specs: tuple[FeedSpec, ...] = SPECS
        self.hub = Hub(Catalog(SPECS), epoch=1, config_hash="", started_us=START_US, warmup_us=1_000_000)
        self.glancing, self.looking = AlertEngine(TUNED), AlertEngine(TUNED)
        self.told: list[Transition] = []
        self.chain_max_age_us = 1_000_000
        """As an aggregate publishes it; :data:`TUNED` says otherwise."""

    def everything_ok(self) -> None:
        for one in self.hub.catalog.feeds:
            for source in one.sources:
                self.hub.apply(PriceUpdate(source, "t:1", one.feed, PRICE, self.now_us, self.now_us), self.now_us)
        self.step([])

    def step(self, conflicts: list[tuple[str, str]]) -> None:
        hub, now_us = self.hub, self.now_us
        hub.step(now_us)
        told = self.glancing.look(now_us, hub, conflicts)
        assert told == self.looking.observe(now_us, facts_after(hub, now_us), conflicts)
        assert self.glancing.state() == self.looking.state()
        assert self.glancing.next_deadline() == self.looking.next_deadline()
        self.told += told

    def until(self, at_us: int) -> None:
        while (due_us := self.hub.next_deadline()) is not None and due_us <= at_us:
            self.now_us = max(self.now_us, due_us)
            self.step([])
        self.now_us = at_us

    def happen(self, event: str) -> None:
        if event == "block":
            self.hub.block(Reason.CLOCK_SKEW)
        elif event == "unblock":
            self.hub.unblock(Reason.CLOCK_SKEW)
        elif event == "halt":
            self.hub.apply(Status("pyth", "t:1", "A/USD", Condition.HALTED, "", self.now_us), self.now_us)
        elif event == "limit":
            published = {"max_divergence_bps": 10, "chain_max_age_us": self.chain_max_age_us}
            self.hub.limit(msgspec.structs.replace(spec("E/USD"), **published))
        elif event == "settings":
            for engine in (self.glancing, self.looking):
                engine.change(AlertSettings(velocity_bps=60, velocity_window_us=5_000_000, wide_conf_bps=20))
        elif event == "reload":
            turned = msgspec.structs.replace(spec("A/USD"), primary="chainlink", verifiers=("doves", "pyth"))
            self.specs = (turned, *SPECS[2:])
            self.hub.reload(Catalog(self.specs), "other")
            for engine in (self.glancing, self.looking):
                self.told += engine.forget(self.now_us, self.hub.catalog.feed_index)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_a_glance_tells_what_looking_one_by_one_tells(seed: int) -> None:
    rng = Random(seed)
    before, engine_module.GLANCE_CROSSING = engine_module.GLANCE_CROSSING, 0
    try:
        both = Both()
        both.everything_ok()
        for _ in range(40):
            both.until(both.now_us + rng.choice(GAPS_US))
            both.happen(rng.choice(EVENTS))
            calm = rng.random() < 0.7  # most steps bring ordinary news of everything, the others anything
            asked = [(one.feed, source) for one in both.hub.catalog.feeds for source in one.sources]
            base = PRICE + (80_000_000 if calm and rng.random() < 0.1 else 0)  # for once all of them move
            conflicts = []
            for feed, source in asked if calm else rng.choices(asked, k=rng.randint(0, 6)):
                publish_us = both.now_us - (0 if calm else rng.choice(LATE_US))
                mantissa = base + rng.choice(APART[:7] if calm else APART)
                update = PriceUpdate(
                    source, "t:1", feed, mantissa, publish_us, both.now_us, None if calm else rng.choice(CONFS)
                )
                if both.hub.apply(update, both.now_us) == "conflict":
                    conflicts.append((source, feed))
            both.step(conflicts)
        both.until(both.now_us + 60_000_000)
    finally:
        engine_module.GLANCE_CROSSING = before


@pytest.mark.parametrize("chain_max_age_us", [1_000_000, 3_000_000])
def test_the_published_age_of_the_chain_counts_at_a_glance(chain_max_age_us: int) -> None:
    before, engine_module.GLANCE_CROSSING = engine_module.GLANCE_CROSSING, 0
    try:
        both = Both()
        both.chain_max_age_us = chain_max_age_us
        both.everything_ok()
        both.until(both.now_us + 1_500_000)  # less than is configured
        both.happen("limit")
        both.step([])
        watched = [key for engine in (both.glancing, both.looking) for key in engine._by_feed.get("E/USD", ())]
        late = [Kind.NOT_EXECUTABLE] * 2 if chain_max_age_us < 1_500_000 else []
        assert [key.kind for key in watched] == late
    finally:
        engine_module.GLANCE_CROSSING = before


def test_limits_that_an_account_publishes_let_the_rest_of_a_catalogue_rest() -> None:
    """Thousands of accounts publish limits of their own: one of them changes, and one feed is looked at."""
    hub = Hub(Catalog(SPECS), epoch=1, config_hash="", started_us=START_US, warmup_us=1_000_000)
    engine = AlertEngine(TUNED)
    before, engine_module.GLANCE_CROSSING = engine_module.GLANCE_CROSSING, 0
    try:
        looked_at = []
        for turn in range(5):
            now_us = START_US + turn * 250_000
            for one in hub.catalog.feeds:
                for source in one.sources:
                    hub.apply(PriceUpdate(source, "t:1", one.feed, PRICE + turn, now_us, now_us), now_us)
            if turn >= 2:
                published = {"max_age_us": dict.fromkeys(SOURCES, 9_000_000) | {"mirror": 1, "aggregate": 8_000_000}}
                limits = {"max_divergence_bps": 40, "chain_max_age_us": 1_500_000, "max_conf_bps": 20} | published
                hub.limit(msgspec.structs.replace(hub.catalog.feeds[turn], **limits))
            hub.step(now_us)
            engine.look(now_us, hub)
            memory = engine._memory
            looked_at.append([feed for feed, row in memory.rows.items() if memory.glanced_us(row) != now_us])
        assert looked_at == [list(FEEDS), [], ["C/USD"], ["D/USD"], ["PEG/USD"]]
        followed, made = engine._glance, Glance(hub.catalog, TUNED, Memory(1))
        assert followed is not None and followed.catalog is hub.catalog
        for name in ("_max_age_us", "_max_divergence_bps", "_max_conf_bps", "_pegs"):
            assert getattr(followed, name).tolist() == getattr(made, name).tolist(), name
        for ours, theirs in zip(followed._references, made._references, strict=True):
            for name in ("_max_age_us", "_chain_max_age_us"):
                assert getattr(ours, name).tolist() == getattr(theirs, name).tolist(), name
        assert followed.follow(Catalog(SPECS)) is None
    finally:
        engine_module.GLANCE_CROSSING = before


@pytest.mark.parametrize("references", [(), ("aggregate",), ("mirror", "aggregate")], ids=["none", "one", "two"])
def test_most_of_a_calm_catalogue_is_only_glanced_at(references: tuple[str, ...]) -> None:
    catalog = Catalog([spec(f"F{number}/USD", references=references) for number in range(40)])
    hub = Hub(catalog, epoch=1, config_hash="", started_us=START_US, warmup_us=1_000_000)
    engine = AlertEngine()
    for turn in range(3):
        now_us = START_US + turn * 250_000
        for one in catalog.feeds:
            apart = 3 * PRICE // 100 if turn == 2 and one.feed == "F7/USD" else turn
            for source in (*SOURCES[: 1 if apart > 2 else 3], *references):
                hub.apply(PriceUpdate(source, "t:1", one.feed, PRICE + apart, now_us, now_us), now_us)
        hub.step(now_us)
        engine.look(now_us, hub)
        memory = engine._memory
        looked_at = [feed for feed, row in memory.rows.items() if memory.glanced_us(row) != now_us]
        # Once each, so that its timer runs; then those that are not calm.
        assert looked_at == ([one.feed for one in catalog.feeds], [], ["F7/USD"])[turn]


def test_a_reference_is_glanced_at_whatever_its_age_and_looked_at_when_it_parts() -> None:
    """Silent ones, old ones and young ones; then one that tells its first price, and one that is no longer near."""
    references = ("mirror", "aggregate")
    catalog = Catalog([spec(f"F{number}/USD", references=references) for number in range(40)])
    hub = Hub(catalog, epoch=1, config_hash="", started_us=START_US, warmup_us=1_000_000)
    engine = AlertEngine(AlertSettings(aggregates=frozenset({"aggregate"})))
    for turn in range(4):
        now_us = START_US + turn * 250_000
        for number, one in enumerate(catalog.feeds):
            told = [(source, PRICE + turn) for source in SOURCES]
            if number < 20:
                told.append(("aggregate", PRICE * (11 if (number, turn) == (3, 3) else 10) // 10))
            if turn == 0 and number % 2:
                hub.apply(PriceUpdate("mirror", "t:1", one.feed, PRICE * 2, now_us - 3_600_000_000, now_us), now_us)
            if (number, turn) == (30, 2):
                told.append(("mirror", PRICE))
            for source, mantissa in told:
                hub.apply(PriceUpdate(source, "t:1", one.feed, mantissa, now_us, now_us), now_us)
        hub.step(now_us)
        engine.look(now_us, hub)
        memory = engine._memory
        looked_at = [feed for feed, row in memory.rows.items() if memory.glanced_us(row) != now_us]
        assert looked_at == ([one.feed for one in catalog.feeds], [], ["F30/USD"], ["F3/USD"])[turn]
    assert engine.next_deadline() is not None and not engine.open


PRICES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 300_000, 1_000_000, 2_200_000, 9_000_000]), st.lists(st.integers(1, 9), max_size=3)
    ),
    max_size=30,
)


@given(PRICES, st.sampled_from([1_000_000, 2_500_000, 5_000_000]))
def test_a_memory_knows_the_extremes_of_its_window(script: list[tuple[int, list[int]]], window_us: int) -> None:
    one, many = Memory(window_us), Memory(window_us)
    rows = [(one.row(feed), many.row(feed)) for feed in "abc"]
    told: dict[int, deque[tuple[int, int]]] = {row: deque() for row in range(3)}
    now_us = START_US
    for gap_us, mantissas in script:
        now_us += gap_us
        for row, mantissa in enumerate(mantissas):
            one.move(rows[row][0], now_us, mantissa)
            told[row].append((now_us // 1_000_000, mantissa))
        n = len(mantissas)
        many.move_all(np.arange(n), now_us, np.array(mantissas, np.int64))
        for row in range(3):
            within = [mantissa for second, mantissa in told[row] if second >= (now_us - window_us) // 1_000_000]
            expected = (min(within), max(within)) if within else None
            assert one.extremes(row, now_us) == many.extremes(row, now_us) == expected
            assert one.span(row) == many.span(row)
            assert one.next_us(row) == many.next_us(row)
    again = Memory.restored(many.state())
    assert again.state() == many.state() == one.state()


def test_a_memory_takes_one_and_many_alike_and_forgets() -> None:
    one, many = Memory(1_000_000), Memory(1_000_000)
    values = ((5, 3, 9), (5, 4, 1), (7, 4, 20))
    for turn, row in enumerate(values):
        for number, mantissa in enumerate(row):
            one.see(one.cell("f", str(number)), mantissa, turn)
        cells = np.array([[many.cell("f", str(number))] for number in range(3)])
        column = np.array(row).reshape(3, 1)
        many.see_all(cells, Said(column, np.full((3, 1), turn), np.full((3, 1), turn + 1), np.full((3, 1), -1)))
    assert [one.seen(cell) for cell in range(3)] == [many.seen(cell) for cell in range(3)]
    assert [one.seen(cell) for cell in range(3)] == [(7, 2, 5, 7), (4, 1, 3, 4), (20, 2, 1, 20)]
    assert many.update(2) == (20, 2, 3, None)
    many.forget("f")
    assert many.seen(2) == (0, 0, 0, 0)
