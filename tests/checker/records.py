"""What recorders write down: one JSON line for each thing that happened to one of their clients.

``at_us`` is the machine's monotonic clock, which recorders and hubs of one machine share and which nobody can step.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec


class _Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="record"):
    client: str
    connection: int
    """Counts the client's connections, from 1."""
    at_us: int


class Opened(_Record, frozen=True, kw_only=True, gc=False, tag="opened"):
    """The handshake was done."""

    url: str


class Asked(_Record, frozen=True, kw_only=True, gc=False, tag="asked"):
    """The client is about to send a request."""

    text: str


class HeldFeed(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One feed as a client holds it: ``price`` is a mantissa as text, or None."""

    state: str
    price: str | None
    valid_until_us: int | None


class Believed(msgspec.Struct, frozen=True, gc=False):
    """What a client takes for the truth, for one subscription, after a message."""

    sub: int
    epoch: int
    seq: int
    current: bool
    """Whether it believes that it has missed nothing up to ``seq``."""
    feeds: dict[str, HeldFeed]


class Received(_Record, frozen=True, kw_only=True, gc=False, tag="received"):
    """A message as it came; one in the binary form as its JSON would be."""

    text: str
    believed: Believed | None = None
    """Told after snapshots and heartbeats."""


class Woke(_Record, frozen=True, kw_only=True, gc=False, tag="woke"):
    """The client reads again, after it did not for so long."""

    stuck_us: int


class Closed(_Record, frozen=True, kw_only=True, gc=False, tag="closed"):
    """The connection is no more, or could not be had."""

    why: str
    by_peer: bool = False
    """Whether the other side ended it."""
    code: int | None = None
    """Of the close frame that came from there, if one came."""


class Acted(_Record, frozen=True, kw_only=True, gc=False, tag="acted"):
    """The client took a price to act on. ``at_us`` was read before it asked for the price."""

    feed: str
    state: str
    price: str
    publish_time_us: int | None
    valid_until_us: int | None
    instance: str
    epoch: int
    seq: int


LogRecord: TypeAlias = Opened | Asked | Received | Woke | Closed | Acted


class ClockAnchor(msgspec.Struct, frozen=True, gc=False):
    """From ``since_us`` (monotonic) on, a hub's clock was the monotonic clock plus ``offset_us``."""

    instance: str
    epoch: int
    since_us: int
    offset_us: int


_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[LogRecord] = msgspec.json.Decoder(LogRecord)
_anchor_decoder = msgspec.json.Decoder(ClockAnchor)


class Log:
    """Writes records to a file. ``flush`` when the process may be ended."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, record: LogRecord | ClockAnchor) -> None:
        """Append one record."""
        self._file.write(_encode(record) + b"\n")

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._file.flush()


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):  # a process that was killed leaves a torn last line
                yield line


def read_log(path: Path) -> Iterator[LogRecord]:
    """The records of a file, in order."""
    return map(_decoder.decode, _whole_lines(path))


def read_anchors(paths: Iterable[Path]) -> list[ClockAnchor]:
    """All clock anchors of these files."""
    return [_anchor_decoder.decode(line) for path in paths for line in _whole_lines(path)]
