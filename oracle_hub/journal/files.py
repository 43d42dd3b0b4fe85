"""The file operations that the writer needs, and the lock that keeps a second writer out of a directory."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol

from oracle_hub.errors import JournalError

LOCK_NAME = "journal.lock"


class SegmentFile(Protocol):
    """The file operations that the writer needs. A test gives it a disk that fills up."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write at ``offset`` and return how many bytes were taken, as ``pwrite(2)`` does. Raises OSError."""
        ...

    def truncate(self, length: int) -> None:
        """Cut the file. Raises OSError."""
        ...

    def sync(self) -> None:
        """Wait until the data is on disk. Raises OSError."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class OsSegmentFile:
    """A :class:`SegmentFile` on a file descriptor."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def truncate(self, length: int) -> None:
        os.ftruncate(self._descriptor, length)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def write_some(file: SegmentFile, data: bytes | memoryview, offset: int) -> int:
    """Write at ``offset`` and return how many bytes were taken, at least one.

    Raises:
        OSError: the file took none.
    """
    taken = file.pwrite(data, offset)
    if taken <= 0:
        raise OSError(errno.EIO, "the file took no bytes")
    return taken


def lock_directory(directory: Path) -> int:
    """Create the directory where needed, take its lock, and return the descriptor that holds it until it is closed.

    The kernel frees the lock when the process ends, however it ends.

    Raises:
        JournalError: another process (or another writer of this one) holds it, or the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise JournalError(f"cannot write the journal in {directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise JournalError(
            f"journal directory {directory} is in use by process {holder}: give each hub one of its own (--state)"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise JournalError(f"cannot lock the journal in {directory}: {error.strerror}") from error
    return descriptor
