"""The whole middle of the program on a manual clock: what is decided when, and that the journal gives it again."""

from pathlib import Path

import msgspec
import pytest
from solders.pubkey import Pubkey

from feeds.addresses import ASSETS
from feeds.chainlink.store import Transmission, Transmissions
from oracle_hub.app.lineup import build_lineup, journaled_endpoints, lineup_from_text
from oracle_hub.app.replay import Replayer, ReplayReport, replay
from oracle_hub.config import Config, parse_config
from oracle_hub.core.hub import Batch, Decision
from oracle_hub.core.source import Frame
from oracle_hub.errors import JournalError
from oracle_hub.journal.reader import RecordParser, read_journal
from oracle_hub.journal.records import Cut, Published, StatePart, Step
from tests.app.rig import Rig, hermes_event

SOL, BTC = "SOL/USD", "BTC/USD"


def decision(rig: Rig, feed: str = SOL) -> Decision:
    return rig.pump.engine.hub.decisions[feed]


def outcome(rig: Rig, feed: str = SOL) -> tuple[str, str, str | None, int | None]:
    held = decision(rig, feed)
    return (held.state.value, held.reason.value, held.source, held.mantissa)


def live(rig: Rig) -> None:
    """Bring both feeds to live."""
    rig.connect()
    rig.tick(SOL, 100_00000000)
    rig.tick(BTC, 100_00000000)
    rig.pump.step()


def replayed(directory: Path) -> ReplayReport:
    return replay(read_journal(directory), lineup_from_text)


async def test_nothing_is_live_before_every_source_was_heard(rig: Rig) -> None:
    assert outcome(rig) == ("none", "warming", None, None)
    rig.connect()
    rig.pump.step()
    assert outcome(rig) == ("none", "warming", None, None)
    rig.tick(SOL, 100_00000000)
    rig.pump.step()
    assert outcome(rig) == ("live", "agreed", "doves", 100_00000000)
    assert outcome(rig, BTC) == ("none", "warming", None, None)


async def test_a_burst_is_one_batch_and_two_endpoints_are_one_price(rig: Rig) -> None:
    live(rig)
    before = len(rig.published)
    rig.manual.advance(1_000_000)
    for step in range(50):
        rig.tick(SOL, 100_00000000 + step)
    rig.pump.step()
    assert len(rig.published) == before + 1
    # Within one second only the slot orders what Doves says; equal stamps of Hermes with other values are conflicts.
    assert outcome(rig)[2:] == ("doves", 100_00000049)
    assert rig.pump.engine.applied["doves", "duplicate"] >= 50
    assert rig.pump.engine.applied["pyth", "conflict"] == 49


async def test_a_silent_primary_moves_the_feed_at_the_end_of_the_lease(rig: Rig) -> None:
    live(rig)
    now_s = rig.now_s
    for _ in range(12):
        rig.manual.advance(1_000_000)
        for name in ("solana:a", "solana:b"):
            address = rig.chain.store(SOL, 100_00000000, rig.now_s)
            rig.deliver(name, rig.chain.notification(name, address))
        from_hermes = {SOL: (100_00000000, rig.now_s)}
        rig.deliver("hermes:1", hermes_event(from_hermes))
        rig.pump.step()
        if rig.now_s - now_s <= 10:
            assert outcome(rig)[:3] == ("live", "agreed", "doves")
    assert outcome(rig)[:2] == ("degraded", "primary_unusable")
    batch = next(batch for batch in rig.published if batch.decisions[0].state.value == "degraded")
    assert batch.decisions[0].feed == SOL
    assert batch.now_us > (now_s + 10) * 1_000_000


async def test_with_no_update_arriving_the_timer_takes_the_price_away(rig: Rig) -> None:
    live(rig)
    held = decision(rig)
    assert held.valid_until_us is not None
    rig.run_out()
    assert rig.clock.now_us() == held.valid_until_us
    assert outcome(rig)[0] == "none"
    assert decision(rig).decided_us == held.valid_until_us


async def test_a_future_stamp_locks_nothing(rig: Rig) -> None:
    live(rig)
    rig.deliver("hermes:1", hermes_event({SOL: (100_00000000, rig.now_s + 3_600)}))
    rig.pump.step()
    assert outcome(rig)[1] == "verifier_unusable"
    rig.manual.advance(1_000_000)
    rig.deliver("hermes:1", hermes_event({SOL: (100_00000000, rig.now_s)}))
    rig.pump.step()
    assert outcome(rig)[0] == "live"


async def test_a_stepped_wall_clock_is_no_price_then_recovery(rig: Rig) -> None:
    live(rig)
    rig.manual.step_wall(3_600_000_000)
    rig.pump.check_clock()
    rig.pump.step()
    assert outcome(rig)[:2] == ("none", "clock_skew")
    rig.manual.step_wall(-3_600_000_000)
    rig.pump.check_clock()
    rig.pump.step()
    assert outcome(rig)[0] == "live"
    rig.manual.step_wall(3_600_000_000)
    for _ in range(25):
        rig.manual.advance(250_000)
        rig.pump.check_clock()
    rig.pump.step()
    assert outcome(rig)[:2] == ("none", "warming")
    rig.tick(SOL, 101_00000000)
    rig.pump.step()
    assert outcome(rig) == ("live", "agreed", "doves", 101_00000000)


async def test_replay_gives_the_same_batches_over_bursts_timers_clock_and_reload(rig: Rig, tmp_path: Path) -> None:
    live(rig)
    for second in range(5):
        rig.manual.advance(1_000_000)
        for price in range(20):
            rig.tick(SOL, 100_00000000 + second * 1000 + price)
        rig.pump.step()
        rig.tick(BTC, 100_00000000 + second)
        rig.pump.step()
    rig.run_out()
    text = rig.pump.engine.lineup.config_text.replace('"max_divergence_bps":50', '"max_divergence_bps":1')
    rig.pump.reload(lineup_from_text(text, rig.pump.engine.lineup))
    rig.pump.step()
    rig.manual.step_wall(3_600_000_000)
    for _ in range(25):
        rig.manual.advance(250_000)
        rig.pump.check_clock()
        rig.pump.step()
    rig.tick(SOL, 102_00000000)
    rig.pump.step()
    rig.deliver("solana:a", Frame("websocket", b"not json"))
    rig.pump.on_disconnect(rig.pump.engine.lineup.links["solana:a"], rig.clock.now_us(), "reset")
    rig.connect("solana:a")
    rig.pump.step()
    assert len({batch.config_hash for batch in rig.published}) == 2
    rig.close()
    report = replayed(tmp_path / "journal")
    assert report.mismatches == []
    assert (report.batches, report.published, report.unpublished) == (len(rig.published), len(rig.published), 0)
    assert report.proved
    assert replayed(tmp_path / "journal").digest == report.digest


async def test_replay_is_the_same_however_the_file_is_read(rig: Rig, tmp_path: Path) -> None:
    live(rig)
    rig.run_out()
    rig.close()
    whole = replayed(tmp_path / "journal")
    [segment] = (tmp_path / "journal").glob("*.ohj")
    data = segment.read_bytes()
    for size in (1, 7, 64, 4096):
        parser, replayer = RecordParser(), Replayer(lineup_from_text)
        for start in range(0, len(data), size):
            for record in parser.feed(data[start : start + size]):
                assert not isinstance(record, Cut | StatePart)
                replayer.take(record)
        report = replayer.finish()
        assert (report.digest, report.published) == (whole.digest, whole.published)


async def test_a_reload_that_changes_no_wiring_keeps_the_links(rig: Rig, simulation: Config) -> None:
    before = rig.pump.engine.lineup
    stricter = lineup_from_text(before.config_text.replace('"max_divergence_bps":50', '"max_divergence_bps":5'), before)
    assert stricter.links is before.links
    assert stricter.catalog.feeds[0].max_divergence_bps == 5
    fewer = before.config_text.replace('"warmup_ms":10000', '"warmup_ms":9000').replace("BTC/USD", "ETH/USD")
    rewired = lineup_from_text(fewer, before)
    assert rewired.links is not before.links


async def test_a_reload_that_mends_an_address_forgets_what_came_from_the_wrong_one(rig: Rig, tmp_path: Path) -> None:
    live(rig)
    engine = rig.pump.engine
    right = str(Pubkey(bytes([7] * 32)))
    owner, data = rig.chain.accounts[ASSETS[SOL].chainlink_store]
    written = Transmissions.decode(data)
    last = Transmission(rig.chain.slot, rig.now_s - 2, 101_00000000)  # a heartbeat's account: earlier than what is held
    rig.chain.put(right, owner, msgspec.structs.replace(written, ring=last.encode()).encode())
    before = engine.lineup.config
    feeds = before.feeds | {SOL: msgspec.structs.replace(before.feeds[SOL], accounts={"chainlink": right})}
    mended = msgspec.structs.replace(before, feeds=feeds)
    rig.pump.reload(build_lineup(mended, journaled_endpoints(mended), engine.lineup))
    rig.pump.step()
    assert outcome(rig) == ("none", "warming", None, None)
    assert outcome(rig, BTC) == ("live", "agreed", "doves", 100_00000000)
    rig.connect()
    rig.pump.step()
    chainlink = decision(rig).inputs[1].held
    assert chainlink is not None and (chainlink.account, chainlink.mantissa) == (right, 101_00000000)
    rig.close()
    assert replayed(tmp_path / "journal").proved


async def test_a_reload_under_way_takes_a_feed_out_with_a_last_word(rig: Rig) -> None:
    live(rig)
    text = rig.pump.engine.lineup.config_text
    config = parse_config(
        """
        [roles]
        primary = "doves"
        verifiers = ["chainlink", "pyth"]
        [sources.doves]
        kind = "doves.custody"
        [sources.chainlink]
        kind = "chainlink.store"
        max_age_ms = 5000
        [sources.pyth]
        kind = "pyth.hermes"
        [feeds."SOL/USD"]
        [emulator]
        """,
        origin="fewer",
    )
    rig.pump.reload(build_lineup(config, journaled_endpoints(config), lineup_from_text(text)))
    rig.pump.step()
    [gone] = [held for held in rig.published[-1].decisions if held.feed == BTC]
    assert (gone.state.value, gone.reason.value, gone.mantissa) == ("none", "removed", None)
    assert outcome(rig)[0] == "live"


async def test_a_replay_that_derives_something_else_says_so(rig: Rig, tmp_path: Path) -> None:
    live(rig)
    rig.close()
    records = list(read_journal(tmp_path / "journal"))
    last = max(index for index, record in enumerate(records) if isinstance(record, Published)) - 1
    assert isinstance(records[last], Step)
    records[last] = Step(rig.clock.now_us() + 1)
    report = replay(records, lineup_from_text)
    assert [mismatch.seq for mismatch in report.mismatches] == [rig.published[-1].seq]
    assert not report.proved


async def test_a_journal_without_its_beginning_is_refused_in_one_line(rig: Rig, tmp_path: Path) -> None:
    live(rig)
    rig.close()
    records = list(read_journal(tmp_path / "journal"))
    with pytest.raises(JournalError, match="neither the start of a run nor a checkpoint"):
        replay(records[2:], lineup_from_text)


async def test_replay_hands_over_every_batch_as_it_was(rig: Rig, tmp_path: Path) -> None:
    live(rig)
    rig.close()
    derived: list[Batch] = []
    replayer = Replayer(lineup_from_text, on_batch=derived.append)
    for record in read_journal(tmp_path / "journal"):
        replayer.take(record)
    assert derived == rig.published


async def test_a_journal_of_a_version_with_fewer_keys_still_proves(rig: Rig, tmp_path: Path) -> None:
    live(rig)
    text = rig.pump.engine.lineup.config_text
    older = text.replace('"max_conf_bps":0,', "", 1)
    assert older != text
    rig.pump.reload(lineup_from_text(older, rig.pump.engine.lineup))
    rig.tick(SOL, 100_00000001)
    rig.close()
    assert rig.published[-1].config_hash != rig.published[0].config_hash
    assert replayed(tmp_path / "journal").proved
