"""What becomes of segments once they are written: checked, compressed, and deleted when they are too old or too much.

All of it waits for the disk, so it is for a thread beside the one that writes. What the disk refuses is counted, said,
and tried again at the next call; nothing here raises for it.
"""

from collections.abc import Callable
from pathlib import Path

from oracle_hub.errors import JournalError
from oracle_hub.journal.segments import expired, list_segments, seal_segment
from oracle_hub.journal.soundness import check_segment


class Upkeep:
    """Of one journal's directory. One call at a time.

    ``retention_s`` and ``disk_budget_bytes`` are what :meth:`delete` keeps to; None means no limit. ``wall_clock``
    gives Unix time in microseconds.
    """

    segments: int = 0
    """In the directory, as of the last opening, sealing or deletion."""
    segments_deleted: int = 0
    seal_failures: int = 0
    delete_failures: int = 0
    seal_error: str | None = None
    delete_error: str | None = None

    def __init__(
        self,
        directory: Path,
        *,
        retention_s: int | None,
        disk_budget_bytes: int | None,
        wall_clock: Callable[[], int],
    ) -> None:
        self._directory = directory
        self._retention_s = retention_s
        self._disk_budget_bytes = disk_budget_bytes
        self._wall_clock = wall_clock
        self._unsound: set[Path] = set()

    def count(self) -> None:
        """Count the segments that are there. Raises OSError."""
        self.segments = len(list_segments(self._directory))

    def seal(self, open_from: tuple[int, int]) -> int:
        """Check and compress every segment before this epoch and number; return how many were.

        One that is damaged stays as it is. One that the disk does not let be sealed stays plain and is tried again.
        """
        sealed = 0
        try:
            for segment in list_segments(self._directory):
                closed = (segment.epoch, segment.number) < open_from
                if closed and not segment.sealed and segment.path not in self._unsound:
                    sealed += self._seal(segment.path)
            self.count()
        except OSError as error:
            self._not_sealed(self._directory, error)
        return sealed

    def _seal(self, path: Path) -> bool:
        try:
            check_segment(path)
            seal_segment(path)
        except (OSError, JournalError) as error:
            if isinstance(error, JournalError):
                self._unsound.add(path)  # kept plain, as it is, and not looked at again
            self._not_sealed(path, error)
            return False
        return True

    def _not_sealed(self, path: Path, error: Exception) -> None:
        self.seal_failures += 1
        self.seal_error = f"sealing {path}: {error}"

    def delete(self) -> int:
        """Delete the oldest segments beyond the retention or the disk budget; return how many. Never the newest."""
        deleted = 0
        try:
            segments = list_segments(self._directory)
            doomed = expired(segments, self._wall_clock(), self._retention_s, self._disk_budget_bytes)
            for segment in doomed:
                segment.path.unlink(missing_ok=True)
                deleted += 1
            self.segments = len(segments) - deleted
        except OSError as error:
            self.delete_failures += 1
            self.delete_error = f"{error.filename or self._directory}: {error.strerror}"
        self.segments_deleted += deleted
        return deleted
