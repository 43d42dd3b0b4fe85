"""Ways under watch: silence is told and ended, values that disagree are counted, and a replay says the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from oracle_hub.alerts.alert import Kind, Transition
from oracle_hub.app.checkpoint import checkpoint, restore
from oracle_hub.app.explain import explain_feed
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.app.way_health import WayHealth, way_health
from oracle_hub.config import Config, parse_config
from oracle_hub.core.source import Frame, PriceUpdate
from oracle_hub.ingest.driver import LinkHealth
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import RunStart
from oracle_hub.journal.segments import list_segments
from tests.app.rig import SIMULATION, Rig, hermes_event

SOL = "SOL/USD"
S = 1_000_000
BOTH = ("hermes:1", "hermes:2")
SILENT = "redundancy_degraded", None, ("pyth", "hermes:2")


@pytest.fixture
def simulation() -> Config:
    text = SIMULATION.replace('[feeds."BTC/USD"]\n', "")
    ways = '[sources.pyth.ways.store]\nkind = "chainlink.store"\n'.replace("chainlink.store", "pyth.receiver")
    return parse_config(text.replace('[feeds."SOL/USD"]', ways + '[feeds."SOL/USD"]'), origin="simulation")


class Watched:
    """A rig, what it tells, and a walk of its prices."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.rig = Rig(directory, config)
        self.rig.hermes = BOTH
        self.told: list[Transition] = []
        self.rig.pump.tell = self.told.extend
        self.rig.chain.custody(SOL)
        self.rig.chain.aggregate(SOL, 100_00000000, self.rig.now_s)
        self.rig.chain.store(SOL, 100_00000000, self.rig.now_s)
        self.rig.connect()

    def go_on(self, seconds: int, each: Callable[[], None] = lambda: None) -> None:
        for second in range(seconds):
            self.rig.manual.advance(S)
            self.rig.tick(SOL, 100_00000000 + second)
            each()
            self.rig.pump.step()

    def lines(self) -> list[tuple[str, str, str | None, tuple[str, ...]]]:
        redundancy = [one for one in self.told if one.alert.kind is Kind.REDUNDANCY_DEGRADED]
        return [(one.change.value, one.alert.kind.value, one.alert.feed, one.alert.sources) for one in redundancy]

    def ways(self) -> dict[str, WayHealth]:
        links = {name: LinkHealth() for name in self.rig.pump.engine.lineup.links}
        links["hermes:1"].state = "open"
        now_us = self.rig.clock.now_us()
        return {f"{way.source} {way.transport}": way for way in way_health(self.rig.pump.engine, links, now_us)}


@pytest.fixture
async def watched(tmp_path: Path, simulation: Config) -> Watched:
    return Watched(tmp_path / "journal", simulation)


def replayed(directory: Path) -> list[Transition]:
    transitions: list[Transition] = []
    replayer = Replayer(lineup_from_text, on_alert=transitions.append)
    for record in read_journal([segment.path for segment in list_segments(directory)]):
        replayer.take(record)
    replayer.finish()
    return transitions


async def test_a_silent_way_is_told_and_its_end_too_and_a_replay_tells_the_same(
    watched: Watched, tmp_path: Path
) -> None:
    watched.go_on(12)
    assert watched.lines() == []  # a sponsored account that told nothing for a while is no loss: it is slow
    watched.rig.hermes = ("hermes:1",)
    watched.go_on(5)
    assert watched.lines() == []
    watched.go_on(6)
    assert watched.lines() == [("firing", *SILENT)]
    (alert,) = [one.alert for one in watched.told if one.alert.sources == ("pyth", "hermes:2")]
    assert "hermes:2 is" in str(alert.evidence["text"]) and "behind hermes:1 for SOL/USD" in str(alert.evidence["text"])
    assert watched.ways()["pyth hermes:2"].silent
    assert all(decision.state == "live" for decision in watched.rig.pump.engine.hub.decisions.values())
    watched.rig.hermes = BOTH
    watched.go_on(33)
    assert watched.lines() == [("firing", *SILENT), ("resolved", *SILENT)]
    watched.rig.close()
    assert replayed(tmp_path / "journal") == watched.told


async def test_a_way_whose_link_is_lost_is_told_as_that_link(watched: Watched) -> None:
    watched.go_on(2)
    link = watched.rig.pump.engine.lineup.links["hermes:2"]
    watched.rig.pump.on_disconnect(link, watched.rig.clock.now_us(), "gone")
    watched.rig.hermes = ("hermes:1",)
    watched.go_on(20)
    assert watched.lines() == [("firing", "redundancy_degraded", None, ("hermes:2",))]


async def test_a_slow_way_is_missed_once_it_is_behind_by_its_own_age(watched: Watched) -> None:
    watched.go_on(89)
    assert watched.lines() == []
    watched.go_on(5)
    assert {line[3] for line in watched.lines()} == {("pyth", "solana/store:a"), ("pyth", "solana/store:b")}


async def test_who_was_first_and_how_late_the_others_were(watched: Watched) -> None:
    watched.rig.hermes = ("hermes:1",)

    def second_host() -> None:
        watched.rig.manual.advance(30_000)
        watched.rig.deliver("hermes:2", hermes_event({SOL: (seen[0].mantissa, seen[0].publish_us // S)}))
        watched.rig.deliver("hermes:2", hermes_event({SOL: (seen[0].mantissa, seen[0].publish_us // S)}))
        watched.rig.manual.advance(-30_000)

    seen: list[PriceUpdate] = [PriceUpdate("", "", "", 1, 0, 0)]

    def each() -> None:
        seen[0] = watched.rig.pump.engine.ways["pyth", "hermes:1"].last[SOL]
        second_host()

    watched.go_on(4, each)
    ways = watched.ways()
    first, second = ways["pyth hermes:1"], ways["pyth hermes:2"]
    assert (first.firsts, first.duplicates, first.late, first.up) == (4, 0, 0, True)
    assert (second.firsts, second.duplicates, second.late, second.up) == (0, 8, 4, False)  # a repeat is not late again
    assert (second.mean_late_ms, second.most_late_ms) == (30.0, 30.0)
    assert second.behind_ms == 0 and second.last_update_ms_ago == -30


async def test_values_that_disagree_are_counted_and_both_are_named(watched: Watched) -> None:
    watched.go_on(2)
    held = watched.rig.pump.engine.ways["pyth", "hermes:1"].last[SOL]
    watched.rig.manual.advance(S)
    time_s = held.publish_us // S + 1
    watched.rig.deliver("hermes:1", hermes_event({SOL: (101_00000000, time_s)}))
    watched.rig.deliver("hermes:2", hermes_event({SOL: (102_00000000, time_s)}))
    ways = watched.ways()
    assert ways["pyth hermes:1"].disagreements == 0
    assert ways["pyth hermes:2"].disagreements == 1
    said = ways["pyth hermes:2"].last_disagreement
    assert said == f"SOL/USD at {time_s * S}: 102.00000000, and 101.00000000 by hermes:1"
    # What could not be held, since it has no proof, counts when the proved one comes.
    engine = watched.rig.pump.engine
    bare = PriceUpdate("pyth", "solana/store:a", SOL, 5, (time_s + 1) * S, engine.hub.table.received_us(0))
    engine._take([bare], watched.rig.clock.now_us())
    watched.rig.manual.advance(S)
    watched.rig.deliver("hermes:1", hermes_event({SOL: (103_00000000, time_s + 1)}))
    assert watched.ways()["pyth solana/store:a"].disagreements == 1


async def test_an_unproved_way_left_alone_is_named_and_not_taken(watched: Watched) -> None:
    watched.go_on(3)
    engine, rig = watched.rig.pump.engine, watched.rig
    rig.hermes = ()
    for _ in range(8):
        rig.manual.advance(S)
        rig.tick(SOL, 100_00000000)
        bare = PriceUpdate("pyth", "solana/store:a", SOL, 99_00000000, rig.clock.now_us(), rig.clock.now_us())
        engine._take([bare], rig.clock.now_us())
        rig.pump.step()
    answer = explain_feed(engine, SOL, rig.clock.now_us())
    assert answer is not None
    assert (answer["state"], answer["reason"]) == ("none", "verifier_unusable")
    inputs, notes = answer["inputs"], answer["notes"]
    assert isinstance(inputs, dict) and isinstance(notes, list)
    assert inputs["pyth"]["status"] == "stale"
    assert inputs["pyth"]["ways"]["hermes:1"]["behind_ms"] == 8_000
    assert inputs["pyth"]["ways"]["hermes:1"]["verified"] is True
    assert inputs["pyth"]["ways"]["solana/store:a"]["verified"] is False
    assert inputs["pyth"]["ways"]["solana/store:b"] is None
    (note,) = [note for note in notes if note.startswith("pyth is stale")]
    assert "solana/store:a tells 99.00000000" in note and "8.0 s newer, which is not proved and not taken" in note


async def test_the_state_of_ways_goes_through_a_checkpoint(watched: Watched) -> None:
    watched.go_on(12)
    watched.rig.hermes = ("hermes:1",)
    watched.go_on(12)
    engine, now_us = watched.rig.pump.engine, watched.rig.clock.now_us()
    written = checkpoint(engine, RunStart("i", 1, "v", True, now_us, 0), now_us)
    again = restore(written, lineup_from_text(engine.lineup.config_text))
    assert again.ways == engine.ways
    assert again.applied == engine.applied and again.applied["pyth", "taken"] == 24
    lags = []
    for one in (engine, again):
        compared, limits_us = one.compare_ways("pyth", now_us)
        lags.append(compared.lags(limits_us))
    assert lags[0] == lags[1] != []


async def test_a_reload_with_other_links_begins_anew_and_ends_what_is_gone(watched: Watched) -> None:
    watched.go_on(2)
    watched.rig.hermes = ("hermes:1",)
    watched.go_on(12)
    assert watched.lines() == [("firing", *SILENT)]
    text = watched.rig.pump.engine.lineup.config_text
    before = watched.rig.pump.engine.lineup
    lineup = lineup_from_text(text.replace("pyth.receiver", "redstone"), before)
    watched.rig.pump.reload(lineup)
    assert ("pyth", "hermes:1") in watched.rig.pump.engine.ways
    assert watched.rig.pump.engine.ways["pyth", "hermes:1"].last == {}
    for _ in range(35):
        watched.rig.manual.advance(S)
        watched.rig.pump.step()
    assert watched.lines()[-1] == ("resolved", *SILENT)


async def test_a_comment_is_no_news(watched: Watched) -> None:
    """The host lives and tells nothing: its transport is well, its data is not."""
    watched.go_on(2)
    watched.rig.hermes = ("hermes:1",)
    watched.go_on(12, lambda: watched.rig.deliver("hermes:2", Frame("sse", b"")))
    assert watched.lines() == [("firing", *SILENT)]
