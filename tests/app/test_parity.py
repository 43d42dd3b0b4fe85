"""The exchange's aggregate beside our decisions: which leg it used, and a table over a journal that adds up by hand."""

import json
from pathlib import Path

import pytest

from oracle_hub.alerts.alert import Kind
from oracle_hub.app.alert_settings import alert_settings
from oracle_hub.app.lineup import build_lineup, journaled_endpoints
from oracle_hub.app.parity import LEG_OF_KIND
from oracle_hub.app.parity_table import ParityRow, parity_of
from oracle_hub.cli import main
from oracle_hub.config import AGGREGATES, KINDS, parse_config
from oracle_hub.journal.reader import read_journal
from tests.app.rig import Rig, hermes_event

SOL = "SOL/USD"
PRICE = 100_00000000
LEGS = """
[roles]
primary = "edge"
verifiers = ["chainlink", "pyth"]
references = ["aggregate", "lazer"]
[sources.edge]
kind = "doves.edge"
[sources.chainlink]
kind = "doves.chainlink"
[sources.pyth]
kind = "pyth.hermes"
[sources.aggregate]
kind = "doves.aggregate"
[sources.lazer]
kind = "doves.lazer"
[feeds."SOL/USD"]
[emulator]
"""


class Legs:
    """A hub over the aggregate and its legs. The aggregate of this chain names Edge and Chainlink, not Lazer."""

    def __init__(self, directory: Path, text: str = LEGS) -> None:
        self.rig = Rig(directory / "journal", parse_config(text, origin="test"))
        self.put(PRICE, PRICE, PRICE, PRICE)
        self.rig.connect()

    def put(self, edge: int, chainlink: int, lazer: int, aggregate: int | None) -> list[str]:
        chain, now_s = self.rig.chain, self.rig.now_s
        told = [chain.leg(SOL, "edge", edge, now_s), chain.leg(SOL, "chainlink", chainlink, now_s)]
        told.append(chain.leg(SOL, "lazer", lazer, now_s))
        return told if aggregate is None else [*told, chain.aggregate(SOL, aggregate, now_s)]

    def second(self, edge: int, chainlink: int, lazer: int, aggregate: int | None) -> None:
        """A second later all legs have these prices, and the aggregate this one (None: it is silent)."""
        self.rig.manual.advance(1_000_000)
        self.rig.tell(*self.put(edge, chainlink, lazer, aggregate))
        self.rig.deliver("hermes:1", hermes_event({SOL: (PRICE + 77, self.rig.now_s)}))
        self.rig.pump.step()

    def seen(self) -> dict[str, object]:
        engine = self.rig.pump.engine
        (entry,) = engine.chain.view(engine.hub, self.rig.clock.now_us())
        return entry


@pytest.fixture
async def legs(tmp_path: Path) -> Legs:
    return Legs(tmp_path)


async def test_the_leg_is_named_where_one_alone_has_the_price(legs: Legs) -> None:
    seen = []
    for prices in (
        (PRICE + 1, PRICE + 2, PRICE + 3, PRICE + 1),  # Edge's
        (PRICE + 4, PRICE + 5, PRICE + 6, PRICE + 5),  # Chainlink's
        (PRICE + 7, PRICE + 8, PRICE + 9, PRICE + 9),  # Lazer's, which this aggregate does not name
        (PRICE + 10, PRICE + 10, PRICE + 11, PRICE + 10),  # two have it, in the same second
        (PRICE + 12, PRICE + 13, PRICE + 14, PRICE + 15),  # nobody has it
        (PRICE + 13, PRICE + 16, PRICE + 17, PRICE + 13),  # both had it, Edge in this very second
    ):
        legs.second(*prices)
        seen.append(legs.seen()["leg"])
    assert seen == ["edge", "chainlink", "unknown", "unknown", "unknown", "edge"]
    # The first of all prices was the same everywhere, and the last is still the present one.
    assert legs.seen()["legs"] == {"chainlink": 1, "edge": 1, "unknown": 4}
    legs.rig.close()


async def test_every_way_of_a_source_counts_for_what_it_is(tmp_path: Path) -> None:
    """The aggregate by a further way, and a leg of which the chain is the further way to a host."""
    ways = LEGS.replace(
        'kind = "doves.aggregate"', 'kind = "chainlink.store"\n[sources.aggregate.ways.chain]\nkind = "doves.aggregate"'
    )
    ways = ways.replace(
        'kind = "doves.lazer"', 'kind = "pyth.legacy"\n[sources.lazer.ways.chain]\nkind = "doves.lazer"'
    )
    config = parse_config(ways, origin="test")
    assert alert_settings(config).aggregates == {"aggregate"}
    legs = Legs(tmp_path, ways)
    seen = []
    for prices in ((PRICE + 1, PRICE + 2, PRICE + 3, PRICE + 2), (PRICE + 4, PRICE + 5, PRICE + 6, PRICE + 6)):
        legs.second(*prices)
        seen.append((legs.seen()["source"], legs.seen()["leg"]))
    assert seen == [("aggregate", "chainlink"), ("aggregate", "unknown")]  # it names no Lazer
    legs.second(PRICE, PRICE, PRICE, PRICE + PRICE // 500)
    assert (legs.seen()["parity_bps"], legs.seen()["executable"]) == (20, True)
    for _ in range(11):
        legs.second(PRICE, PRICE, PRICE, None)
    assert legs.seen()["executable"] is False
    assert Kind.NOT_EXECUTABLE in {key.kind for key in legs.rig.pump.engine.alerts._by_feed[SOL]}
    legs.rig.close()


async def test_a_leg_that_is_heard_after_the_aggregate_counts(legs: Legs) -> None:
    legs.rig.manual.advance(1_000_000)
    edge, _, _, aggregate = legs.put(PRICE + 5, PRICE + 1, PRICE + 2, PRICE + 5)
    legs.rig.tell(aggregate)
    assert legs.seen()["leg"] == "unknown"
    legs.rig.tell(edge)
    assert legs.seen()["leg"] == "edge"
    legs.rig.close()


async def test_distance_age_and_whether_the_chain_could_execute(legs: Legs) -> None:
    legs.second(PRICE, PRICE, PRICE, PRICE + PRICE // 500)  # 20 bps
    seen = legs.seen()
    assert (seen["parity_bps"], seen["executable"], seen["age_ms"], seen["role"]) == (20, True, 0, "reference")
    for _ in range(10):
        legs.second(PRICE, PRICE, PRICE, None)
    assert (legs.seen()["executable"], legs.seen()["age_ms"], legs.seen()["max_age_ms"]) == (True, 10_000, 10_000)
    legs.second(PRICE, PRICE, PRICE, None)
    seen = legs.seen()
    assert (seen["parity_bps"], seen["executable"], seen["age_ms"]) == (None, False, 11_000)
    legs.rig.close()


async def test_the_table_over_a_journal_adds_up(legs: Legs, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    legs.second(PRICE, PRICE + 1, PRICE + 2, PRICE)
    for number in range(4):  # 4 s at 20 bps, by Edge's price of then
        legs.second(PRICE + number, PRICE - 1, PRICE - 2, PRICE + PRICE // 500)
    for _ in range(16):  # silent: executable for 10 s more, then not
        legs.second(PRICE, PRICE, PRICE, None)
    legs.second(PRICE, PRICE, PRICE, PRICE)
    legs.rig.close()
    rows, report = parity_of(read_journal(tmp_path / "journal"))
    (row,) = rows
    assert report.proved and row == parity_of(read_journal(tmp_path / "journal"))[0][0]
    # From the run's start to its end: 1 s without a second tick, 1 at 0 bps, 4 + 16 at 20 bps, of which 13 count.
    assert (row.feed, row.source, row.seconds) == (SOL, "aggregate", 22.0)
    assert row.executable_share == pytest.approx((1 + 1 + 3 + 10) / 22)
    assert (row.compared_seconds, row.max_parity_bps) == (14.0, 20)
    assert row.mean_parity_bps == pytest.approx(20 * 13 / 14, abs=0.01)
    assert row.prices == 6 and row.legs == {"unknown": 5 / 6, "edge": 1 / 6}
    assert main(["parity", "--journal", str(tmp_path / "journal"), "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["proved"] is True and printed["feeds"][0]["executable_share"] == row.executable_share
    assert main(["parity", "--journal", str(tmp_path / "journal")]) == 0
    assert "unknown 83%" in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize("licence", ["no", "chosen"])
async def test_a_leg_whose_price_is_withheld_is_not_named(tmp_path: Path, licence: str) -> None:
    kept = 'kind = "doves.chainlink"\nredistribute = '
    legs = Legs(tmp_path, LEGS.replace('kind = "doves.chainlink"', f'{kept}"{licence}"'))
    legs.second(PRICE + 4, PRICE + 5, PRICE + 6, PRICE + 5)  # its name would say what its price is
    assert legs.seen()["leg"] == "unknown"
    legs.second(PRICE + 7, PRICE + 8, PRICE + 9, PRICE + 7)
    assert legs.seen()["leg"] == "edge"
    legs.second(PRICE + 11, PRICE + 11, PRICE + 12, PRICE + 11)  # it counts for whether another stands alone
    assert legs.seen()["leg"] == "unknown"
    assert legs.seen()["legs"] == {"edge": 1, "unknown": 2}
    legs.rig.close()


async def test_a_reload_goes_on_counting(legs: Legs, tmp_path: Path) -> None:
    legs.second(PRICE + 1, PRICE + 2, PRICE + 3, PRICE + 1)
    config = parse_config(LEGS.replace("[roles]", "[hub]\nmax_divergence_bps = 40\n[roles]"), origin="test")
    legs.rig.pump.reload(build_lineup(config, journaled_endpoints(config), legs.rig.pump.engine.lineup))
    legs.rig.pump.step()
    legs.second(PRICE + 4, PRICE + 5, PRICE + 6, PRICE + 5)
    assert (legs.seen()["leg"], legs.seen()["legs"]) == ("chainlink", {"edge": 1, "unknown": 1})
    gone = parse_config(LEGS.replace('"aggregate", "lazer"', '"lazer"'), origin="test")
    legs.rig.pump.reload(build_lineup(gone, journaled_endpoints(gone), legs.rig.pump.engine.lineup))
    legs.rig.pump.step()
    legs.rig.close()
    ((row,), report) = parity_of(read_journal(tmp_path / "journal"))
    assert report.proved and isinstance(row, ParityRow)
    assert (row.prices, row.seconds) == (2, 2.0)  # what was counted before it went stays


def test_a_journal_that_is_not_there_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", "--journal", "/nowhere/journal"]) == 1
    assert capfd.readouterr().err == "oracle-hub parity: /nowhere/journal: no such file or directory\n"


def test_every_kind_carries_a_leg_or_is_none_of_the_aggregates() -> None:
    no_leg = {"chainlink.store", "chainlink.evm", "pyth.legacy"}
    assert set(LEG_OF_KIND) == set(KINDS) - set(AGGREGATES) - no_leg
