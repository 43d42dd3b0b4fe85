"""What survives a restart beside the journal: who this instance is, and how many lives it has had."""

import os
import uuid
from pathlib import Path

import msgspec

from oracle_hub.errors import ConfigError

NO_RUN_BEFORE = 1
"""The least epoch after a journal that holds none."""


class Identity(msgspec.Struct, frozen=True):
    """``instance`` is a UUID made once per state directory; ``epoch`` grows with every start."""

    instance: str
    epoch: int
    first_epoch: int | None = None
    """The epoch of the first start; None where that was not written down, or a journal tells of runs before it."""


def instance_of(directory: Path) -> str:
    """The instance that has this state directory; empty if none was started there yet."""
    try:
        return msgspec.json.decode((directory / "identity.json").read_bytes(), type=Identity).instance
    except (OSError, msgspec.MsgspecError):
        return ""


def begin_epoch(directory: Path, wall_us: int, *, at_least: int = 0) -> Identity:
    """Load the instance, take the next epoch, and have both on disk before anything is published.

    ``epoch = max(stored + 1, unix seconds, at_least)``: it grows over ``kill -9`` and, since time goes on, over a lost
    directory. ``at_least`` is what the journal knows, should the identity alone be lost; 1 where it is empty.

    Raises:
        ConfigError: the directory cannot be used, or the file in it is not ours.
    """
    path = directory / "identity.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stored = msgspec.json.decode(path.read_bytes(), type=Identity) if path.exists() else None
        epoch = max(stored.epoch + 1 if stored else 0, wall_us // 1_000_000, at_least)
        identity = Identity(
            instance=stored.instance if stored else str(uuid.uuid4()),
            epoch=epoch,
            first_epoch=stored.first_epoch if stored else (epoch if at_least <= NO_RUN_BEFORE else None),
        )
        replace_durably(path, msgspec.json.encode(identity))
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: not an identity file ({error}); move it away to start as a new instance") from None
    except OSError as error:
        why = "it is no directory" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(f"state.directory: {directory} cannot be used ({why})") from None
    return identity


def replace_durably(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Put a file in place of another as a whole. Without ``sync`` it survives the process, not a loss of power."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    temporary.replace(path)
    if not sync:
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
