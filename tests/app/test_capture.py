"""Checkpoints of hundreds of feeds: captured at one instant, written while prices go on."""

from pathlib import Path

import msgspec
import pytest
import zstandard

from oracle_hub.app.capture import AT_ONCE, Capture, Flat, digest, state_of
from oracle_hub.app.checkpoint import checkpoint, restore, unpacked
from oracle_hub.app.checkpoints import Checkpoints
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.prove import Prover
from oracle_hub.app.replay import Replayer, ReplayReport, replay
from oracle_hub.app.state_sections import MAGIC, entry, read_sections
from oracle_hub.core.hub import Batch
from oracle_hub.errors import JournalError
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import Checkpoint, RecordType, Step
from oracle_hub.journal.segments import list_segments
from tests.app.many import RUN, Many

N_FEEDS = AT_ONCE + 44
HERE = Path(__file__).parent


def finished(capture: Capture) -> tuple[bytes, bytes]:
    """Digest and state."""
    for _ in capture.digested():
        pass
    return capture.record.digest, unpacked(b"".join(capture.state()))


def spread(many: Many) -> Checkpoints:
    """The writer of checkpoints, which does one piece of work at a time from here on."""
    found = many.pump._checkpoints
    assert found is not None
    found._slice_us = 0
    return found


def derived(paths: list[Path]) -> tuple[list[Batch], ReplayReport]:
    batches: list[Batch] = []
    replayer = Replayer(lineup_from_text, on_batch=batches.append)
    for record in read_journal(paths):
        replayer.take(record)
    return batches, replayer.finish()


async def test_what_was_captured_is_no_longer_touched_by_what_follows(tmp_path: Path) -> None:
    many = Many(tmp_path, N_FEEDS)
    many.turn(N_FEEDS)
    many.turn(7)
    at_once = checkpoint(many.engine, RUN, 5)
    capture = Capture(many.engine, RUN, 5)
    many.turn(N_FEEDS)
    many.engine.disconnect("solana:a", many.clock.now_us(), "gone")
    many.engine.connect("solana:a", many.clock.now_us())
    many.manual.advance(120_000_000)
    many.pump.step()
    assert digest(many.engine) != at_once.digest
    assert finished(capture) == (at_once.digest, unpacked(at_once.state))
    assert capture.record == msgspec.structs.replace(at_once, state=b"")
    many.close()


async def test_a_restored_engine_is_the_one_that_was_captured(tmp_path: Path) -> None:
    many = Many(tmp_path, N_FEEDS)
    many.turn(N_FEEDS)
    written = checkpoint(many.engine, RUN, 5)
    again = restore(written, lineup_from_text(written.config_text))
    ours, theirs = many.engine, again
    assert written.digest == digest(ours) == digest(theirs)
    for part in ("hub", "alerts"):
        mine, its = state_of(getattr(ours, part)), state_of(getattr(theirs, part))
        assert {name: value for name, value in mine.items() if name != "_teller"} == {
            name: value for name, value in its.items() if name != "_teller"
        }
    assert state_of(ours) == state_of(theirs)
    watches, again_watches = ours.alerts.watches(), theirs.alerts.watches()
    glanced = 8  # of what a feed's facts are made anew: of no consequence, and none is glanced at after a restart
    for held in (watches, again_watches):
        del held.memory.columns[glanced]
    assert watches == again_watches
    for name, link in ours.lineup.links.items():
        mine, its = state_of(link), state_of(theirs.lineup.links[name])
        assert mine.keys() == its.keys()
        for table in ("_watches", "_by_subscription", "_by_request"):
            assert list(mine[table]) == list(its[table])
        for pubkey, watch in mine["_watches"].items():
            twin = its["_watches"][pubkey]
            assert its["_by_subscription"][watch.subscription] is twin
            same = set(watch.__slots__) - {"readers"}
            assert {one: getattr(watch, one) for one in same} == {one: getattr(twin, one) for one in same}
            assert [reader.source for reader in twin.readers] == [reader.source for reader in watch.readers]
            assert all(reader in theirs.lineup.readers.values() for reader in twin.readers)
    many.close()


async def test_what_is_pickled_as_prices_wait_does_not_grow_with_the_catalogue(tmp_path: Path) -> None:
    sizes = []
    for n_feeds in (20, 200):
        many = Many(tmp_path / str(n_feeds), n_feeds)
        many.turn(n_feeds)
        state = read_sections(unpacked(checkpoint(many.engine, RUN, 5).state))
        sizes.append(len(state[0][0]))
        assert sum(len(one) for entries in state.values() for one in entries) > 400 * n_feeds
        many.close()
    assert abs(sizes[1] - sizes[0]) < 200


async def test_a_checkpoint_in_parts_stands_where_it_was_captured(tmp_path: Path) -> None:
    many = Many(tmp_path / "journal", N_FEEDS)
    many.turn(N_FEEDS)
    many.begin_segment()
    writer, turns = spread(many), 0
    assert writer.under_way()
    captured, before = digest(many.engine), len(many.published)
    while writer.under_way():
        many.turn(3, step=turns % 3 > 0)
        writer.go_on()
        turns += 1
    many.turn(3)
    many.close()
    assert turns > 20
    paths = [segment.path for segment in list_segments(tmp_path / "journal")]
    whole, report = derived(paths)
    assert report.proved and report.checkpoints == 1 and whole == many.published
    part, report = derived(paths[1:])
    assert report.proved and report.began_at_checkpoint and report.skipped == 1
    assert part == many.published[before:]
    step, first, *_ = read_journal(paths[1:])
    assert isinstance(step, Step) and isinstance(first, Checkpoint) and first.digest == captured
    proof = Prover(tmp_path / "journal").batch(RUN.epoch, many.published[-1].seq)
    assert proof.proved and proof.began_at == paths[1].name


async def test_a_segment_too_short_for_it_has_none_and_the_next_has_it_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = Many(tmp_path / "journal", N_FEEDS)
    many.turn(N_FEEDS)
    writer = spread(many)
    for _ in range(3):
        many.begin_segment()
        many.turn(5)
        writer.go_on()
    assert writer.under_way()  # anew: the one before was written
    many.close()
    assert [record.getMessage() for record in caplog.records] == [
        "journal: segment 1 has no checkpoint: it ended before its checkpoint was written"
    ]
    paths = [segment.path for segment in list_segments(tmp_path / "journal")]
    assert [any(isinstance(one, Checkpoint) for one in read_journal([path])) for path in paths[1:]] == [
        False,
        True,
        False,
    ]
    whole, report = derived(paths)
    assert report.proved and report.checkpoints == 1 and whole == many.published
    assert derived(paths[2:])[1].proved


async def test_a_full_disk_ends_a_checkpoint_that_is_under_way(tmp_path: Path) -> None:
    many = Many(tmp_path / "journal", N_FEEDS)
    many.turn(N_FEEDS)
    many.begin_segment()
    writer = spread(many)
    writer.go_on()
    many.journal.failing = True
    assert writer.under_way()
    writer.go_on()
    assert not writer.under_way()
    many.journal.failing = False
    many.close()
    assert derived([segment.path for segment in list_segments(tmp_path / "journal")])[1].proved


async def test_few_feeds_are_written_in_one_record(tmp_path: Path) -> None:
    many = Many(tmp_path / "journal", 3)
    many.begin_segment()
    many.close()
    data = list_segments(tmp_path / "journal")[1].path.read_bytes()
    assert bytes([0, RecordType.CHECKPOINT]) in data
    assert derived([list_segments(tmp_path / "journal")[1].path])[1].proved


async def test_a_class_with_other_fields_is_named(tmp_path: Path) -> None:
    """Fields of records are pickled by position: another version's would be taken for ours."""
    many = Many(tmp_path, 3)
    many.turn(3)
    written = checkpoint(many.engine, RUN, 5)
    sections = read_sections(unpacked(written.state))
    *_, shapes = sections
    noted = msgspec.msgpack.decode(sections[shapes][0])
    assert noted["oracle_hub.ingest.cluster_proof:ClusterProof"] == sorted(
        ("_at_us", "_held", "_right", "_slot", "_wanted", "sure")
    )
    name = "oracle_hub.alerts.engine:_Timer"
    for fields, told in (
        (["at_us", "number", "key", "feed", "colour"], "_Timer holds other things: colour"),
        (["number", "at_us", "key", "feed"], "_Timer holds other things: in another order"),
    ):
        assert noted[name] != fields
        sections[shapes][0] = msgspec.msgpack.encode(noted | {name: fields})
        data = MAGIC + b"".join(entry(number, one) for number, entries in sections.items() for one in entries)
        other = msgspec.structs.replace(written, state=zstandard.compress(data))
        with pytest.raises(JournalError, match=told):
            restore(other, lineup_from_text(written.config_text))
    many.close()


async def test_a_state_that_unpacks_to_more_than_any_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Many(tmp_path, 3)
    written = checkpoint(many.engine, RUN, 5)
    monkeypatch.setattr("oracle_hub.app.checkpoint.MAX_STATE_BYTES", 1_000)
    with pytest.raises(JournalError, match="a state of more than 1000 bytes"):
        restore(written, lineup_from_text(written.config_text))
    many.close()


def test_a_segment_of_format_version_2_is_proved_from_its_checkpoint(tmp_path: Path) -> None:
    """As version 0.1 wrote it: one pickle, and pairs of accounts, which are configuration, among the state."""
    path = tmp_path / "001790000000-000007-20260921T141338Z.ohj"
    path.write_bytes(zstandard.ZstdDecompressor().decompress((HERE / "format2_segment.ohj.zst").read_bytes()))
    assert path.read_bytes()[8:10] == b"\x02\x00"
    first = next(iter(read_journal(path)))
    assert isinstance(first, Checkpoint) and b"_pairs" in unpacked(first.state)
    report = replay(read_journal(path), lineup_from_text)
    assert (report.batches, report.published, report.mismatches, report.began_at_checkpoint) == (3, 3, [], True)


async def test_what_is_called_flat_is_state(tmp_path: Path) -> None:
    many = Many(tmp_path, 3)
    parts: tuple[Flat, ...] = (many.engine.hub, many.engine, many.engine.alerts)
    for part in parts:
        assert state_of(part).keys() >= part.FLAT
    many.close()


async def test_readers_of_accounts_keep_their_configuration_out(tmp_path: Path) -> None:
    many = Many(tmp_path, 3)
    many.turn(3)
    assert {name: state_of(reader) for name, reader in many.engine.lineup.readers.items()} == {
        "lazer": {},
        "chainlink": {},
        "pyth": {},
    }
    many.close()
