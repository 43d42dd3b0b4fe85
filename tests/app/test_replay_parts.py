"""A journal in parts gives the report of a journal in one piece, and a seam is no blind spot."""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.app import replay_parts
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import ReplayReport, replay
from oracle_hub.app.replay_parts import parts_of, replay_in_parts
from oracle_hub.core.hub import Batch, Decision, DecisionInput, batch_digest
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import InputStatus
from oracle_hub.errors import JournalError
from oracle_hub.journal.reader import read_journal, read_segment
from oracle_hub.journal.records import Checkpoint, Record
from oracle_hub.journal.segments import list_segments
from tests.whatif.whatif_stage import write_history


def paths_of(directory: Path) -> list[Path]:
    return [segment.path for segment in list_segments(directory)]


def whole(directory: Path) -> ReplayReport:
    return replay(read_journal(directory), lineup_from_text)


@pytest.fixture
async def journal(tmp_path: Path) -> Path:
    directory = tmp_path / "journal"
    write_history(directory, turns=120, max_segment_bytes=40_000)
    assert len(parts_of(paths_of(directory), strict=True)) > 3
    return directory


@pytest.mark.parametrize("jobs", [2, 3])
def test_parts_give_one_report(journal: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    monkeypatch.setattr(replay_parts, "MIN_PARALLEL_BYTES", 0)
    report = replay_in_parts(paths_of(journal), strict=True, jobs=jobs)
    assert report == whole(journal)
    assert report.proved and report.checkpoints > 3 and report.batches >= 50


def test_a_small_journal_is_replayed_in_one_piece(journal: Path) -> None:
    assert replay_in_parts(paths_of(journal), strict=True) == whole(journal)


def test_what_retention_left_begins_at_a_checkpoint(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_parts, "MIN_PARALLEL_BYTES", 0)
    paths_of(journal)[0].unlink()
    report = replay_in_parts(paths_of(journal), strict=True, jobs=2)
    assert report == whole(journal)
    assert report.began_at_checkpoint and report.proved


def test_a_missing_segment_at_a_seam_is_found(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_parts, "MIN_PARALLEL_BYTES", 0)
    paths_of(journal)[2].unlink()
    with pytest.raises(JournalError, match="a segment is missing or cut"):
        replay_in_parts(paths_of(journal), strict=True, jobs=2)


def test_a_checkpoint_of_another_state_is_a_mismatch_of_the_part_before(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_parts, "MIN_PARALLEL_BYTES", 0)
    paths = paths_of(journal)
    parts = parts_of(paths, strict=True)
    part = parts[1]
    assert replay_parts.replay_part(part, strict=True).report.proved

    def forged(part: replay_parts.Part, strict: bool) -> Iterator[Record]:
        for record in replay_parts._with_head(part, strict):
            last = isinstance(record, Checkpoint) and record.now_us > first_us
            yield msgspec.structs.replace(record, digest=bytes(16)) if last else record

    first = next(read_segment(part.paths[0]))
    assert isinstance(first, Checkpoint)
    first_us = first.now_us
    monkeypatch.setattr(replay_parts, "_records", forged)
    report = replay_parts.replay_part(part, strict=True).report
    assert [one.published for one in report.mismatches] == [bytes(16).hex()]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None)
@given(TEXTS, TEXTS, INTEGERS, st.one_of(st.none(), INTEGERS), st.booleans())
def test_a_digest_is_over_the_same_bytes_as_ever(
    source: str, transport: str, number: int, maybe: int | None, flag: bool
) -> None:
    """Digests in old journals were taken of what orjson printed."""
    update = PriceUpdate(source, transport, "SOL/USD", 1, number, number, maybe, 0, flag, transport or None)
    inputs = (
        DecisionInput(source, "primary", InputStatus.OK, update),
        DecisionInput("b", "verifier", InputStatus.STALE, None),
    )
    decision = Decision(
        "SOL/USD", -8, State.LIVE, Rule.R1, Reason.AGREED, source, maybe, None, maybe, number, maybe, inputs
    )
    batch = Batch(1, 2, number, transport, (decision,))
    printed = orjson.dumps(msgspec.to_builtins(batch))
    assert msgspec.json.encode(batch) == printed
    assert batch_digest(batch) == blake2b(printed, digest_size=16).digest()
