"""Checkpoints: the whole state of the middle of the program, so that a journal can be read from any segment on.

A segment that begins with a checkpoint needs none of the segments before it. That is what lets retention delete old
ones from a run that never ends, and what makes a proof of one price a matter of seconds.

The state is everything that links, readers, hub and engine do not have from the configuration (``CONFIGURED`` names
that part, which may hold keys and is never written). How it is turned into bytes: :mod:`oracle_hub.app.capture`. A
checkpoint is derived, never evidence: a replay that passes one compares it with its own state.
"""

import io
from collections.abc import Mapping
from itertools import chain
from typing import Any

import msgspec
import zstandard

import oracle_hub
from oracle_hub.alerts.former import watches_of
from oracle_hub.alerts.memory import WatchesState
from oracle_hub.app.capture import Capture, Flat, Stateful, digest, state_of
from oracle_hub.app.engine import Engine, Lineup
from oracle_hub.app.plain_pickle import PlainUnpickler, Shapes, check_shapes
from oracle_hub.app.state_sections import MAGIC, Entries, read_sections
from oracle_hub.core.hub import Decision
from oracle_hub.core.table import TableState
from oracle_hub.core.ways import WayRecord
from oracle_hub.errors import JournalError
from oracle_hub.ingest.rpc_watch import put_together
from oracle_hub.journal.records import Checkpoint, RunStart

MAX_STATE_BYTES = 2**28
"""A state that unpacks to more than this is no state of ours."""
_READ_BYTES = 2**20
_LATER = {
    "AlertEngine": frozenset({"_resting"}),
    "Engine": frozenset({"published"}),
    "HermesLink": frozenset({"_streamed"}),
}
"""Attributes that checkpoints of earlier versions lack, and that stay as they are made then."""


def checkpoint(engine: Engine, run: RunStart, now_us: int) -> Checkpoint:
    """What to write at the beginning of a segment, right after a step: all at once.

    Raises:
        JournalError: a part holds something that is no plain data. A defect of ours.
    """
    capture = Capture(engine, run, now_us)
    for _ in capture.digested():
        pass
    return msgspec.structs.replace(capture.record, state=b"".join(capture.state()))


def restore(written: Checkpoint, lineup: Lineup) -> Engine:
    """The engine as it stood. ``lineup`` is built from the checkpoint's own configuration.

    Raises:
        JournalError: damaged, of a version that kept its state otherwise, or not what its digest says.
    """
    try:
        data = unpacked(written.state)
        reading = _Reading(data, lineup) if data.startswith(MAGIC) else _Former(data, lineup)
        engine = _restored(written, reading, lineup)
    except Exception as error:  # whatever bytes can do to an unpickler
        raise JournalError(
            f"the checkpoint at batch {written.epoch}, {written.seq} was written by version {written.version} and "
            f"can't be read by {oracle_hub.__version__} ({error}): replay from the start of the run, or with "
            "that version"
        ) from None
    if digest(engine) != written.digest:
        raise JournalError(
            f"the checkpoint at batch {written.epoch}, {written.seq} is not the state that its digest names"
        )
    return engine


def unpacked(state: bytes) -> bytes:
    """What is in a state, no longer compressed.

    Raises:
        ValueError: more than :data:`MAX_STATE_BYTES`.
        zstandard.ZstdError: damaged.
    """
    # Written piece by piece, so its size is not in front.
    reader = zstandard.ZstdDecompressor().stream_reader(state)
    data = bytearray()
    while piece := reader.read(_READ_BYTES):
        data += piece
        if len(data) > MAX_STATE_BYTES:
            raise ValueError(f"a state of more than {MAX_STATE_BYTES} bytes")
    return bytes(data)


class _Former:
    """A state of format versions 1 and 2 of the journal: one pickle."""

    def __init__(self, data: bytes, lineup: Lineup) -> None:
        self._lineup = lineup
        self.parts: dict[str, Any] = PlainUnpickler(io.BytesIO(data), _named(lineup)).load()

    def part(self, name: str, part: Flat) -> dict[str, Any]:
        """The state of hub, engine or alerts, by name."""
        state: dict[str, Any] = self.parts[name]
        for field, decoder in _RECORDS.items():
            packed = state.get(field)
            if isinstance(packed, bytes):
                state[field] = dict(decoder.decode(packed))
        return state

    def table(self) -> TableState:
        """What the table held."""
        table: TableState = self.parts["table"]
        return table

    def watches(self) -> WatchesState:
        """What alerts remember. To be asked for before the state of alerts."""
        former = self.parts["alerts"].pop("_watches", {})
        found = self.parts.get("watches")
        return found if found is not None else watches_of(former, self._lineup.alerts)

    def link(self, name: str) -> dict[str, Any]:
        """The state of a link."""
        state: dict[str, Any] = self.parts["links"][name]
        return state


class _Reading(_Former):
    """A state in sections."""

    def __init__(self, data: bytes, lineup: Lineup) -> None:
        self._lineup = lineup
        sections = read_sections(data)
        check_shapes(msgspec.msgpack.decode(sections[max(sections)][0], type=Shapes))
        self._named = _named(lineup) | {("section", number): entries for number, entries in sections.items()}
        for number in range(max(sections)):  # one without entries stands nowhere
            self._named.setdefault(("section", number), Entries())
        self.parts = self._unpickled(sections[0][0])

    def _unpickled(self, data: bytes) -> Any:
        return PlainUnpickler(io.BytesIO(data), self._named).load()

    def part(self, name: str, part: Flat) -> dict[str, Any]:
        state: dict[str, Any] = self.parts[name]
        for field in part.FLAT & state.keys():
            members = chain.from_iterable(map(self._unpickled, state[field]))
            state[field] = type(vars(part)[field])(members)
        if name == "hub":
            decisions = chain.from_iterable(map(_DECISIONS.decode, state["decisions"]))
            state["decisions"] = {decision.feed: decision for decision in decisions}
        elif name == "engine":
            state["ways"] = dict(chain.from_iterable(map(_WAYS.decode, state["ways"])))
        return state

    def table(self) -> TableState:
        return msgspec.msgpack.decode(self.parts["table"][0], type=TableState)

    def watches(self) -> WatchesState:
        watches = msgspec.msgpack.decode(self.parts["watches"][0], type=WatchesState)
        memory = msgspec.structs.replace(watches.memory, columns=list(self.parts["columns"]))
        return msgspec.structs.replace(watches, memory=memory)

    def link(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = self.parts["links"][name]
        if "watched" in state:
            rows = {
                table: list(chain.from_iterable(map(msgspec.msgpack.decode, entries)))
                for table, entries in state.pop("watched").items()
            }
            state |= put_together(state.pop("fields"), rows, self._lineup.readers)
        return state


def _restored(written: Checkpoint, reading: _Former, lineup: Lineup) -> Engine:
    warmup_us = reading.parts["hub"]["warmup_us"]
    engine = Engine(lineup, epoch=written.epoch, started_us=written.now_us, warmup_us=warmup_us)
    engine.hub.table.restore(reading.table())
    _fill(engine, reading.part("engine", engine))
    engine.limit_again()
    _fill(engine.hub, reading.part("hub", engine.hub))
    watches = reading.watches()
    _fill(engine.alerts, reading.part("alerts", engine.alerts))
    engine.alerts.recall(watches, engine.hub)
    parts = reading.parts
    if parts["links"].keys() != lineup.links.keys() or parts["readers"].keys() != lineup.readers.keys():
        raise ValueError("links or readers of another configuration")
    for name, link in lineup.links.items():
        _fill(link, reading.link(name))
    for name, reader in lineup.readers.items():
        _fill(reader, parts["readers"][name])
    return engine


def _named(lineup: Lineup) -> dict[tuple[str, str | int], object]:
    """What stands for the names that a pickle has in place of what the configuration gives."""
    named: dict[tuple[str, str | int], object] = {("catalog", ""): lineup.catalog}
    named |= {("reader", name): reader for name, reader in lineup.readers.items()}
    return named | {("link", name): link for name, link in lineup.links.items()}


def _fill(part: Stateful, state: Mapping[str, Any]) -> None:
    """Give a part its state. What it has from the configuration today stays so, if it was state once."""
    state = {name: value for name, value in state.items() if name not in part.CONFIGURED}
    expected = set(state_of(part))
    if not expected - _LATER.get(type(part).__name__, frozenset()) <= set(state) <= expected:
        different = ", ".join(sorted(expected ^ set(state)))
        raise ValueError(f"{type(part).__name__} holds other things: {different}")
    vars(part).update(state)


_RECORDS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "decisions": msgspec.msgpack.Decoder(list[tuple[str, Decision]]),
    "ways": msgspec.msgpack.Decoder(list[tuple[tuple[str, str], WayRecord]]),
}
"""As they stood in states of format version 2."""
_DECISIONS, _WAYS = msgspec.msgpack.Decoder(list[Decision]), _RECORDS["ways"]
