"""Limits that an aggregate publishes, followed: at once, and in a replay from any checkpoint."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from feeds.addresses import ASSETS, DOVES
from feeds.doves import PriceFeed
from oracle_hub.app.capture import state_of
from oracle_hub.app.checkpoint import checkpoint, restore
from oracle_hub.app.explain import explain_feed
from oracle_hub.app.lineup import build_lineup, journaled_endpoints, lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.config import parse_config
from oracle_hub.core.hub import Batch
from oracle_hub.errors import ConfigError
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import RunStart
from oracle_hub.journal.segments import list_segments
from tests.app.rig import SIMULATION, Rig

SOL, BTC = "SOL/USD", "BTC/USD"
PRICE = 100_00000000
ONCHAIN = SIMULATION.replace('"doves.custody"', '"doves.custody"\nlimits = "onchain"\nmax_age_ms = 3000')


def make_rig(directory: Path, text: str = ONCHAIN, limits: tuple[int, int, int] = (10, 60, 50)) -> Rig:
    rig = Rig(directory / "journal", parse_config(text, origin="test"), max_segment_bytes=24_000)
    for feed in (SOL, BTC):
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, PRICE, rig.now_s, limits)
        rig.chain.store(feed, PRICE, rig.now_s)
    rig.connect()
    second(rig)
    return rig


def second(rig: Rig, price: int = PRICE) -> None:
    rig.manual.advance(1_000_000)
    for feed in (SOL, BTC):
        rig.tick(feed, price)
    rig.pump.step()


def publish(rig: Rig, feed: str, limits: tuple[int, int, int], price: int = PRICE) -> None:
    """The aggregate alone moves, with these limits."""
    rig.manual.advance(1_000_000)
    address = rig.chain.aggregate(feed, price, rig.now_s, limits)
    for name in ("solana:a", "solana:b"):
        rig.deliver(name, rig.chain.notification(name, address))
    rig.pump.step()


def explained(rig: Rig, feed: str = SOL) -> dict[str, Any]:
    answer = explain_feed(rig.pump.engine, feed, rig.clock.now_us())
    assert answer is not None
    return answer


def in_force(rig: Rig, feed: str = SOL) -> tuple[int, int, int]:
    answer = explained(rig, feed)
    inputs = answer["inputs"]
    return (inputs["doves"]["max_age_ms"], inputs["chainlink"]["max_age_ms"], answer["max_divergence_bps"])


async def test_a_change_counts_at_once_and_is_said(tmp_path: Path) -> None:
    rig = make_rig(tmp_path, limits=(8, 60, 40))
    assert in_force(rig) == (8_000, 5_000, 40)
    lease_us = rig.published[-1].decisions[0].valid_until_us
    publish(rig, SOL, (3, 60, 7))
    assert in_force(rig) == (3_000, 5_000, 7) and in_force(rig, BTC) == (8_000, 5_000, 40)
    (one,) = explained(rig)["limits"]
    assert (one["source"], one["account"], one["slot"]) == ("doves", ASSETS[SOL].ag, rig.chain.slot)
    assert (one["max_age_s"], one["max_leg_age_s"], one["max_divergence_bps"]) == (3, 60, 7)
    (note,) = explained(rig)["notes"]
    assert note.endswith(f"publishes 3 s, legs 60 s, 7 bps since slot {rig.chain.slot}; it was 8 s, legs 60 s, 40 bps")
    decision = rig.pump.engine.hub.decisions[SOL]
    assert decision.valid_until_us == rig.now_s * 1_000_000 + 3_000_001 != lease_us
    publish(rig, SOL, (3, 60, 7), PRICE + PRICE // 1_000)  # 10 bps: near by the limits before, far by these
    assert rig.pump.engine.hub.decisions[SOL].rule == "R2"
    rig.manual.advance(601_000_000)
    assert not any("limits" in line for line in explained(rig)["notes"])
    rig.close()


async def test_limits_of_a_further_way_are_followed_and_no_other_way_gives_any(tmp_path: Path) -> None:
    further = '"doves.edge"\nlimits = "onchain"\nmax_age_ms = 3000\n[sources.doves.ways.chain]\nkind = "doves.custody"'
    rig = make_rig(tmp_path, SIMULATION.replace('"doves.custody"', further), limits=(8, 60, 40))
    assert in_force(rig) == (8_000, 5_000, 40)
    publish(rig, SOL, (3, 60, 7))
    assert in_force(rig) == (3_000, 5_000, 7)
    (one,) = explained(rig)["limits"]
    assert (one["account"], one["slot"]) == (ASSETS[SOL].ag, rig.chain.slot)
    rig.manual.advance(1_000_000)
    edge = ASSETS[SOL]
    rig.chain.put(edge.edge, DOVES, PriceFeed(edge.edge_pair, bytes(33), PRICE, -8, rig.now_s).encode())
    rig.deliver("solana:a", rig.chain.notification("solana:a", edge.edge))
    rig.pump.step()
    held = rig.pump.engine.hub.table
    cell = held.cell_of("doves", SOL)
    assert cell is not None and held.transports[cell] == "solana:a"  # the first way's is the newest
    (one,) = explained(rig)["limits"]
    assert (one["account"], one["max_age_s"]) == (ASSETS[SOL].ag, 3)
    rig.close()


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ((0, 60, 50), "age of 0 s is not within 1 to 3600"),
        ((10, 90_000, 50), "age of legs of 90000 s is not within 1 to 3600"),
        ((10, 60, 0), "distance of 0 bps is not within 1 to 10000"),
        ((10, 60, 10_001), "distance of 10001 bps is not within 1 to 10000"),
    ],
)
async def test_what_is_no_limit_is_refused_and_named(limits: tuple[int, int, int], why: str, tmp_path: Path) -> None:
    rig = make_rig(tmp_path, limits=limits)
    assert in_force(rig) == (3_000, 5_000, 50) and explained(rig)["limits"] == []  # the configured ones
    (note,) = explained(rig)["notes"]
    assert "limits_refused" in note and note.endswith(f"publishes limits that are none ({why}): configured stay")
    publish(rig, SOL, (6, 60, 30))
    assert in_force(rig) == (6_000, 5_000, 30) and explained(rig)["notes"] == []
    publish(rig, SOL, limits)
    assert in_force(rig) == (6_000, 5_000, 30)
    assert explained(rig)["notes"][0].endswith(f"({why}): 6 s, legs 60 s, 30 bps stay")
    rig.close()


async def test_a_lagging_node_does_not_bring_old_limits_back(tmp_path: Path) -> None:
    rig = make_rig(tmp_path, limits=(8, 60, 40))
    publish(rig, SOL, (3, 60, 7))
    rig.chain.slot -= 40
    address = rig.chain.aggregate(SOL, PRICE, rig.now_s, (8, 60, 40))
    rig.deliver("solana:b", rig.chain.notification("solana:b", address))
    rig.pump.step()
    assert in_force(rig) == (3_000, 5_000, 7)
    rig.close()


async def test_what_comes_with_a_price_of_the_future_is_not_followed(tmp_path: Path) -> None:
    rig = make_rig(tmp_path)
    for feed in (SOL, BTC):
        address = rig.chain.aggregate(feed, PRICE, rig.now_s + 3_600, (3_600, 3_600, 10_000))
        rig.deliver("solana:a", rig.chain.notification("solana:a", address))
        rig.pump.step()
        assert in_force(rig, feed) == (10_000, 5_000, 50)
    publish(rig, SOL, (9, 60, 40))
    assert in_force(rig) == (9_000, 5_000, 40)
    rig.close()


async def test_what_is_written_for_the_feed_stands_and_legs_have_their_age(tmp_path: Path) -> None:
    text = ONCHAIN.replace(
        '[feeds."SOL/USD"]', '[feeds."SOL/USD"]\nmax_divergence_bps = 20\nreferences = ["edge", "lazer"]'
    )
    text += '[sources.edge]\nkind = "doves.edge"\n[sources.lazer]\nkind = "doves.lazer"\n'
    rig = make_rig(tmp_path, text, (9, 45, 30))
    ages = {source: one["max_age_ms"] for source, one in explained(rig)["inputs"].items()}
    # The aggregate names Edge's account as a leg, and in this rig no account of Lazer's.
    assert ages == {"doves": 9_000, "chainlink": 5_000, "pyth": 5_000, "edge": 45_000, "lazer": 5_000}
    assert explained(rig)["max_divergence_bps"] == 20 and explained(rig, BTC)["max_divergence_bps"] == 30
    rig.close()
    own = text.replace("max_divergence_bps = 20", "max_age_ms = {doves = 2000, edge = 2500}")
    rig = make_rig(tmp_path / "own", own, (9, 45, 30))
    ages = {source: one["max_age_ms"] for source, one in explained(rig)["inputs"].items()}
    assert ages == {"doves": 2_000, "chainlink": 5_000, "pyth": 5_000, "edge": 2_500, "lazer": 5_000}
    rig.close()


async def test_a_reload_keeps_what_is_followed_and_drops_what_is_not(tmp_path: Path) -> None:
    rig = make_rig(tmp_path, limits=(8, 60, 40))
    for text, expected in (
        (ONCHAIN.replace("[roles]", "[hub]\nmax_divergence_bps = 12\n[roles]"), (8_000, 5_000, 40)),
        (SIMULATION.replace("[roles]", "[hub]\nmax_divergence_bps = 12\n[roles]"), (10_000, 5_000, 12)),
        (ONCHAIN, (3_000, 5_000, 50)),
    ):
        config = parse_config(text, origin="test")
        before = rig.pump.engine.lineup
        rig.pump.reload(build_lineup(config, journaled_endpoints(config), before))
        assert rig.pump.engine.lineup.links is before.links
        rig.pump.step()
        assert in_force(rig) == expected
    second(rig)
    assert in_force(rig) == (8_000, 5_000, 40)
    rig.close()
    assert derived(tmp_path)[0] == rig.published


async def test_a_replay_follows_them_from_every_checkpoint(tmp_path: Path) -> None:
    rig = make_rig(tmp_path, limits=(8, 60, 40))
    for number in range(40):
        second(rig, PRICE + number * 10_000)
        if number % 7 == 3:
            publish(rig, SOL, (3 + number % 5, 60, 5 + number))
        if number % 7 == 5:
            publish(rig, BTC, (0, 0, 0))
    rig.close()
    whole, paths = derived(tmp_path)
    assert whole == rig.published and len(paths) > 4
    for start in range(1, len(paths) - 1):
        part, _ = derived(tmp_path, start)
        assert part and part == whole[-len(part) :]


def derived(directory: Path, start: int = 0) -> tuple[list[Batch], list[Path]]:
    paths = [segment.path for segment in list_segments(directory / "journal")]
    batches: list[Batch] = []
    replayer = Replayer(lineup_from_text, on_batch=batches.append)
    for record in read_journal(paths[start:]):
        replayer.take(record)
    assert replayer.finish().proved
    return batches, paths


async def test_a_checkpoint_of_before_they_were_followed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(tmp_path, SIMULATION)
    engine = rig.pump.engine
    earlier = {"CONFIGURED": engine.CONFIGURED | {"published"}}
    monkeypatch.setattr(type(engine), "CONFIGURED", earlier["CONFIGURED"])
    assert "published" not in state_of(engine)
    written = checkpoint(engine, RunStart("test", 1, "0.0.9", True, 0, 0), rig.clock.now_us())
    monkeypatch.undo()
    restored = restore(written, lineup_from_text(written.config_text))
    assert restored.published == {} and restored.hub.decisions == engine.hub.decisions
    rig.close()


def test_only_an_aggregate_publishes_limits() -> None:
    text = SIMULATION.replace('"chainlink.store"', '"chainlink.store"\nlimits = "onchain"')
    with pytest.raises(ConfigError, match=r"sources\.chainlink\.limits: only doves\.custody, doves\.pool, "):
        parse_config(text, origin="test")
    assert msgspec.json.encode(parse_config(SIMULATION, origin="test").sources["doves"].limits) == b'"configured"'
