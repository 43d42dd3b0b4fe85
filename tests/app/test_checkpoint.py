"""Checkpoints: a journal read from any segment on gives the same batches as the whole of it."""

import io
import pickle
from pathlib import Path

import msgspec
import pytest
import zstandard

from feeds.pyth.hermes import HermesFeed, HermesLink
from oracle_hub.alerts.former import watches_of
from oracle_hub.alerts.memory import Memory
from oracle_hub.app.checkpoint import MAX_STATE_BYTES, checkpoint, restore, unpacked
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.plain_pickle import PlainUnpickler
from oracle_hub.app.replay import Replayer, ReplayReport, replay
from oracle_hub.config import Config
from oracle_hub.core.hub import Batch
from oracle_hub.errors import JournalError
from oracle_hub.ingest.solana_rpc import SolanaRpc
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import Checkpoint, RunStart
from oracle_hub.journal.segments import list_segments
from tests.app.rig import Rig

SOL, BTC = "SOL/USD", "BTC/USD"
SEGMENT_BYTES = 24_000
RUN = RunStart("test", 1, "0.0.9", True, 0, 0)


@pytest.fixture
async def long_run(tmp_path: Path, simulation: Config) -> Rig:
    """Half a minute in which everything moves: updates, silence, a reconnect."""
    rig = Rig(tmp_path / "journal", simulation, max_segment_bytes=SEGMENT_BYTES)
    for feed in simulation.feeds:
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, 100_00000000, rig.now_s)
        rig.chain.store(feed, 100_00000000, rig.now_s)
    rig.connect()
    for second in range(45):
        rig.manual.advance(1_000_000)
        if not 8 <= second < 24:
            rig.tick(SOL, 100_00000000 + second * 1_000_000)
        rig.tick(BTC, 100_00000000 - second)
        if second == 30:
            rig.connect("solana:a")
        rig.pump.step()
    rig.close()
    return rig


def derived(paths: list[Path]) -> tuple[list[Batch], ReplayReport]:
    batches: list[Batch] = []
    replayer = Replayer(lineup_from_text, on_batch=batches.append)
    for record in read_journal(paths):
        replayer.take(record)
    return batches, replayer.finish()


async def test_every_later_segment_can_be_read_alone(long_run: Rig, tmp_path: Path) -> None:
    paths = [segment.path for segment in list_segments(tmp_path / "journal")]
    assert len(paths) > 4
    whole, report = derived(paths)
    assert whole == long_run.published
    assert report.proved
    assert report.checkpoints >= len(paths) - 2
    assert {decision.state.value for batch in whole for decision in batch.decisions} == {"live", "none"}
    for start in range(1, len(paths) - 1):
        part, report = derived(paths[start:])
        assert report.proved
        assert part
        assert part == whole[-len(part) :]
        assert report.skipped == 0


async def test_a_checkpoint_of_another_state_is_a_mismatch(long_run: Rig, tmp_path: Path) -> None:
    records = list(read_journal(tmp_path / "journal"))
    at = next(index for index, record in enumerate(records) if isinstance(record, Checkpoint))
    written = records[at]
    assert isinstance(written, Checkpoint)
    records[at] = msgspec.structs.replace(written, digest=bytes(16))
    report = replay(records, lineup_from_text)
    found = [(mismatch.epoch, mismatch.seq, mismatch.published) for mismatch in report.mismatches]
    assert found == [(written.epoch, written.seq, "00" * 16)]
    with pytest.raises(JournalError, match="not the state that its digest names"):
        replay(records[at:], lineup_from_text)


async def test_after_a_gap_the_next_checkpoint_is_certain_again(long_run: Rig, tmp_path: Path) -> None:
    paths = [segment.path for segment in list_segments(tmp_path / "journal")]
    replayer = Replayer(lineup_from_text)
    for record in read_journal([*paths[:2], *paths[3:]], strict=False):
        replayer.take(record)
    report = replayer.finish()
    assert report.gaps == 1
    assert report.mismatches == []
    assert not report.proved


async def test_another_version_that_keeps_another_state_is_named(long_run: Rig) -> None:
    engine = long_run.pump.engine
    written = checkpoint(engine, RUN, 5)
    assert restore(written, lineup_from_text(written.config_text)).hub.decisions == engine.hub.decisions
    parts = pickle.dumps({"hub": {"warmup_us": 1}, "table": None})
    for state in (b"", b"no zstd", zstandard.compress(b"no pickle"), zstandard.compress(parts)):
        damaged = msgspec.structs.replace(written, state=state)
        with pytest.raises(JournalError, match=r"written by version 0\.0\.9") as caught:
            restore(damaged, lineup_from_text(written.config_text))
        assert "\n" not in str(caught.value)


async def test_watches_of_before_they_were_columns_can_be_read(tmp_path: Path) -> None:
    """From a segment of the run above as it was written then, from its second 7 on."""
    path = tmp_path / "001790000000-000004-20260921T141327Z.ohj"
    packed = Path(__file__).with_name("former_checkpoint.ohj.zst").read_bytes()
    path.write_bytes(zstandard.ZstdDecompressor().decompress(packed))
    written = next(iter(read_journal([path])))
    assert isinstance(written, Checkpoint)
    lineup = lineup_from_text(written.config_text)
    state = zstandard.ZstdDecompressor().decompress(written.state)
    named: dict[tuple[str, str | int], object] = {
        ("catalog", ""): lineup.catalog,
        **{("reader", name): one for name, one in lineup.readers.items()},
    }
    named |= {("link", name): one for name, one in lineup.links.items()}
    former = PlainUnpickler(io.BytesIO(state), named).load()["alerts"]["_watches"]
    memory = Memory.restored(watches_of(former, lineup.alerts).memory)
    assert sorted(former) == [BTC, SOL]
    seen = memory.seen(memory.cell(BTC, "chainlink"))
    assert seen == (100_00000000 - 6, 1_790_000_007_000_000, 100_00000000 - 6, 100_00000000)
    assert memory.extremes(memory.row(SOL), written.now_us) == (100_00000000, 100_06000000)
    assert memory.told_us(memory.row(SOL)) == written.now_us


async def test_watches_survive_a_checkpoint(long_run: Rig) -> None:
    engine = long_run.pump.engine
    written = checkpoint(engine, RUN, 5)
    again = restore(written, lineup_from_text(written.config_text))
    assert again.alerts.watches() == engine.alerts.watches()
    assert again.alerts.state() == engine.alerts.state()
    assert again.ways == engine.ways
    for feed in (SOL, BTC):
        ours, theirs = again.alerts._watches[feed], engine.alerts._watches[feed]
        assert ours.facts == theirs.facts
        assert ours.conflicts_us == theirs.conflicts_us


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, ("never made",))


@pytest.mark.parametrize("thing", [Evil(), Path("x"), io.StringIO, SolanaRpc, print, eval])
async def test_a_state_from_elsewhere_can_name_nothing_that_does_anything(thing: object, long_run: Rig) -> None:
    written = checkpoint(long_run.pump.engine, RUN, 5)
    state = zstandard.compress(pickle.dumps(thing, 5))
    with pytest.raises(JournalError, match="is no class of a state"):
        restore(msgspec.structs.replace(written, state=state), lineup_from_text(written.config_text))


@pytest.mark.parametrize("says_its_size", [True, False])
async def test_a_state_that_unpacks_to_too_much_is_refused(says_its_size: bool, long_run: Rig) -> None:
    written = checkpoint(long_run.pump.engine, RUN, 5)
    packer = zstandard.ZstdCompressor(1, write_content_size=says_its_size)
    state = packer.compress(bytes(MAX_STATE_BYTES + 1))
    assert len(state) < 2**16
    with pytest.raises(JournalError, match=r"can't be read by .*a state of more than 268435456 bytes"):
        restore(msgspec.structs.replace(written, state=state), lineup_from_text(written.config_text))


async def test_no_key_and_no_address_of_an_endpoint_is_written(long_run: Rig) -> None:
    secret = "s3cr3t-0123456789"
    url = f"https://rpc.example/{secret}"
    engine = long_run.pump.engine
    links = engine.lineup.links
    readers = tuple(engine.lineup.readers.values())
    links["solana:a"] = SolanaRpc("solana:a", url, url, readers, headers={"X-Key": secret})
    feeds = {SOL: HermesFeed("ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d")}
    links["hermes:1"] = HermesLink("hermes:1", url, feeds, key=secret)
    for link in links.values():
        link.connect(0)
    state = unpacked(checkpoint(engine, RUN, 5).state)
    assert secret.encode() not in state
    assert b"hermes:1" in state


def test_what_links_have_from_the_configuration_exists() -> None:
    """A name that is misspelt in CONFIGURED would leave a key among the state."""
    for link in (SolanaRpc("solana:a", "https://x.example", "wss://x.example", ()), HermesLink("h", "https://x", {})):
        assert set(vars(link)) >= link.CONFIGURED
