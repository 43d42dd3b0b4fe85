"""What the hub and its workers say to each other: the messages of the pipe between them, and their framing.

A message is four bytes of length (unsigned, little endian), then MessagePack of one of these structs with its tag.
Both ends are the same version of this program, so nothing here is a contract with anybody else.

In order, the hub sends :class:`Start`, the batches that it still has (:class:`Published`), :class:`Live`, and from then
on each batch as it is journaled, :class:`Changed` and :class:`Renew` where something else changed, and a :class:`Tick`
twice a second. A worker answers ``Live`` with :class:`Listening` and every ``Tick`` with a :class:`Report`.
"""

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from oracle_hub.core.hub import Batch, Decision
from oracle_hub.errors import PipeError
from oracle_hub.server.service import ServerSettings, Service, SignedQuery
from oracle_hub.stream.messages import AlertChange

LENGTH_BYTES = 4
MAX_MESSAGE_BYTES = 64 << 20
"""More is no message but a fault: a snapshot of ten thousand feeds in full detail has a quarter of it."""


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What is true of the hub beside its decisions."""

    instance: str
    epoch: int
    policy: str
    config_hash: str
    simulated: dict[str, Any] | None
    limits: dict[str, Any]
    feeds: tuple[str, ...]
    """All of them, in catalog order."""
    first_epoch: int | None = None


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first message to a worker: who it is."""

    worker: int
    """Its number, from 1."""
    log_level: int
    offset_us: int


class Published(msgspec.Struct, frozen=True, gc=False, tag="batch"):
    """A batch that was journaled just now, or that could not be."""

    batch: Batch
    journaled: bool


class Live(msgspec.Struct, frozen=True, gc=False, tag="live"):
    """All that was published before has been said; serve from now on."""

    settings: ServerSettings
    """With its share of the limits. Of tokens it has digests only."""
    facts: Facts
    seq: int
    decisions: tuple[Decision, ...]
    """Every feed as it stands after batch ``seq``, in catalog order."""


class Alerted(msgspec.Struct, frozen=True, gc=False, tag="alert"):
    """An alert began, got worse or ended."""

    change: AlertChange


class Changed(msgspec.Struct, frozen=True, gc=False, tag="facts"):
    """Other facts from now on."""

    facts: Facts
    reloaded: bool
    """Whether subscribers are to be told: the configuration was read again."""
    forget_past: bool = False
    """Whether what was published before must not be told again."""


class Renew(msgspec.Struct, frozen=True, gc=False, tag="renew"):
    """Other tokens from now on, and certificates to be read again."""

    settings: ServerSettings


class Tick(msgspec.Struct, frozen=True, gc=False, tag="tick"):
    """The hub lives. ``offset_us`` is its clock minus the machine's monotonic clock, which all processes share."""

    offset_us: int
    sent_us: int
    """By the hub's clock: how late it is read tells how far behind the worker is."""


class Answer(msgspec.Struct, frozen=True, gc=False, tag="answer"):
    """To the :class:`Ask` with this number."""

    number: int
    answered: bool
    """False where the hub failed to."""
    ready: bool = False
    body: bytes | None = None


class Stop(msgspec.Struct, frozen=True, gc=False, tag="stop"):
    """Say goodbye and end."""

    reason: str


class Listening(msgspec.Struct, frozen=True, gc=False, tag="listening"):
    """The worker takes connections."""


class Report(msgspec.Struct, frozen=True, gc=False, tag="report"):
    """The worker lives, and has counted this: name of a metric, label values, value."""

    samples: tuple[tuple[str, tuple[str, ...], float], ...]


Question: TypeAlias = Literal["explain", "signed", "parity", "ready", "metrics"]


class Ask(msgspec.Struct, frozen=True, gc=False, tag="ask"):
    """Something that only the hub knows."""

    number: int
    what: Question
    feed: str = ""
    signed: SignedQuery | None = None


ToWorker: TypeAlias = Start | Published | Live | Alerted | Changed | Renew | Tick | Answer | Stop
ToHub: TypeAlias = Listening | Report | Ask

_encoder = msgspec.msgpack.Encoder()
T = TypeVar("T")


def pack(message: ToWorker | ToHub) -> bytes:
    """A message as it goes over the pipe."""
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


class Unpacker(Generic[T]):
    """Makes messages of a stream of bytes."""

    def __init__(self, kind: Any) -> None:
        """``kind`` is :data:`ToWorker` or :data:`ToHub`."""
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)
        self._rest = b""

    def feed(self, data: bytes) -> list[T]:
        """All messages that are whole now. Raises PipeError for bytes that are none."""
        if self._rest:
            data = self._rest + data
        messages: list[T] = []
        at = 0
        while len(data) - at >= LENGTH_BYTES:
            size = int.from_bytes(data[at : at + LENGTH_BYTES], "little")
            if size > MAX_MESSAGE_BYTES:
                raise PipeError(f"pipe: a message of {size} bytes, more than {MAX_MESSAGE_BYTES}")
            end = at + LENGTH_BYTES + size
            if end > len(data):
                break
            try:
                messages.append(self._decoder.decode(memoryview(data)[at + LENGTH_BYTES : end]))
            except msgspec.MsgspecError as error:
                raise PipeError(f"pipe: {error}") from None
            at = end
        self._rest = data[at:]
        return messages


class Recent:
    """The latest batches as they went over the pipe, for workers that start later: encoded once, for all of them.

    Bounded as :class:`~oracle_hub.stream.history.History` is, so that a worker can resume what the hub could.
    """

    def __init__(
        self, seq: int, *, max_batches: int = 8_192, max_bytes: int = 32 << 20, max_age_us: int = 120_000_000
    ) -> None:
        """Start empty after batch ``seq``."""
        self.first_seq = self.last_seq = seq
        """``first_seq`` is the one before the oldest frame that is held."""
        self.size_bytes = 0
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self._max_age_us = max_age_us
        self._frames: deque[tuple[int, bytes]] = deque()

    def append(self, batch: Batch, frame: bytes) -> None:
        """Keep the frame of the next batch, and let go of what is over a bound."""
        self._frames.append((batch.now_us, frame))
        self.size_bytes += len(frame)
        self.last_seq = batch.seq
        oldest_us = batch.now_us - self._max_age_us
        while self._frames and (
            len(self._frames) > self._max_batches or self.size_bytes > self._max_bytes or self._frames[0][0] < oldest_us
        ):
            self.size_bytes -= len(self._frames.popleft()[1])
        self.first_seq = self.last_seq - len(self._frames)

    def forget(self) -> None:
        """Let go of everything: what was told must not be told again."""
        self._frames.clear()
        self.size_bytes = 0
        self.first_seq = self.last_seq

    def after(self, seq: int, max_bytes: int) -> tuple[int, bytes] | None:
        """Some frames after ``seq``: the sequence that they end with, and their bytes (one frame, or as many as fit).

        None where the next one is not held any more.
        """
        if seq < self.first_seq:
            return None
        found: list[bytes] = []
        size = 0
        for _, frame in islice(self._frames, seq - self.first_seq, None):
            if found and size + len(frame) > max_bytes:
                break
            found.append(frame)
            size += len(frame)
        return seq + len(found), b"".join(found)


def facts_of(service: Service) -> Facts:
    """The facts as a service has them now."""
    simulated: Mapping[str, Any] | None = service.simulated
    return Facts(
        instance=service.instance,
        epoch=service.epoch,
        policy=service.policy,
        config_hash=service.config_hash,
        simulated=None if simulated is None else dict(simulated),
        limits=dict(service.limits),
        feeds=tuple(service.decisions),
        first_epoch=service.first_epoch,
    )
