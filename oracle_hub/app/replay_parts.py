"""A journal replayed in parts, several at once: each begins at a run or a checkpoint and ends at the next.

The induction stays whole: the part before a checkpoint derives its state and compares it with what the checkpoint says,
as a replay in one piece does, and the part behind it begins only from a checkpoint whose state has that digest. The
digest covers what decides: held updates, decisions, sequence. ``jobs=1`` takes nothing from a checkpoint at all.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path

import msgspec

from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer, ReplayReport
from oracle_hub.core.hub import DIGEST_BYTES
from oracle_hub.journal.reader import read_journal, read_segment
from oracle_hub.journal.records import Checkpoint, Record, RunStart

MIN_PARALLEL_BYTES = 2**20
"""Smaller journals are replayed before another process has started."""


class Part(msgspec.Struct, frozen=True):
    """Consecutive segments that can be replayed without those before them."""

    paths: tuple[Path, ...]
    next_path: Path | None
    """The segment that the next part begins with: where this one's state is compared."""


class PartReport(msgspec.Struct):
    """What one part gave."""

    report: ReplayReport
    digests: bytes
    """Of all derived batches, :data:`~oracle_hub.core.hub.DIGEST_BYTES` each."""


def parts_of(paths: Sequence[Path], *, strict: bool) -> list[Part]:
    """Cut a journal before every segment that begins with a run or a checkpoint. The first part begins anyhow."""
    groups: list[list[Path]] = []
    for path in paths:
        if not groups or isinstance(next(read_segment(path, strict=strict), None), RunStart | Checkpoint):
            groups.append([])
        groups[-1].append(path)
    following = [group[0] for group in groups[1:]]
    return [Part(tuple(group), after) for group, after in zip(groups, [*following, None], strict=True)]


def replay_part(part: Part, *, strict: bool) -> PartReport:
    """Replay one part, and compare its end with the checkpoint that the next one begins with.

    Raises:
        JournalError: as a replay does.
    """
    replayer = Replayer(lineup_from_text, keep_digests=True)
    for record in _records(part, strict):
        replayer.take(record)
    return PartReport(replayer.finish(), bytes(replayer.digests or b""))


def _records(part: Part, strict: bool) -> Iterator[Record]:
    yield from read_journal(part.paths, strict=strict) if part.next_path is None else _with_head(part, strict)


def _with_head(part: Part, strict: bool) -> Iterator[Record]:
    # Read as one journal, so that a missing or cut segment at the seam is found as within a part.
    reader = read_journal([*part.paths, part.next_path or part.paths[-1]], strict=strict)
    for record in reader:
        at_seam = reader.path == part.next_path
        if at_seam and isinstance(record, RunStart):
            return
        yield record
        if at_seam and isinstance(record, Checkpoint):
            return


def replay_in_parts(paths: Sequence[Path], *, strict: bool, jobs: int | None = None) -> ReplayReport:
    """Replay a journal with so many processes (by default as many as there are processors); one report.

    Raises:
        JournalError: as a replay does.
    """
    jobs = jobs or os.cpu_count() or 1
    large = sum(path.stat().st_size for path in paths) >= MIN_PARALLEL_BYTES
    parts = parts_of(paths, strict=strict) if jobs > 1 and large else [Part(tuple(paths), None)]
    if len(parts) == 1:
        return _joined([replay_part(parts[0], strict=strict)])
    workers = min(jobs, len(parts)) - 1  # this process takes parts as well
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            waiting = [pool.submit(replay_part, part, strict=strict) for part in parts[1:]]
            done = {0: replay_part(parts[0], strict=strict)}
            for number, future in enumerate(waiting, 1):
                if future.cancel():
                    done[number] = replay_part(parts[number], strict=strict)
            for number, future in enumerate(waiting, 1):
                if number not in done:
                    done[number] = future.result()
            return _joined([done[number] for number in sorted(done)])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _joined(found: Sequence[PartReport]) -> ReplayReport:
    """One report as of a replay in one piece: checkpoints at seams are passed by two parts and counted once."""
    total = ReplayReport(mismatches=[])
    rolling = blake2b(digest_size=DIGEST_BYTES)
    for number, part in enumerate(found):
        one = part.report
        for name in ("runs", "frames", "steps", "batches", "published", "unpublished", "gaps", "skipped"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        seam = int(number > 0 and one.began_at_checkpoint)
        total.records += one.records - seam
        total.checkpoints += one.checkpoints - seam
        total.mismatches += one.mismatches
        total.first_us = total.first_us or one.first_us
        total.last_us = one.last_us or total.last_us
        total.began_at_checkpoint = total.began_at_checkpoint or (number == 0 and one.began_at_checkpoint)
        rolling.update(part.digests)
    total.digest = rolling.hexdigest()
    return total
