"""Checkpoints: the whole state of the middle of the program, so that a journal can be read from any segment on.

A segment that begins with a checkpoint needs none of the segments before it. That is what lets retention delete old
ones from a run that never ends, and what makes a proof of one price a matter of seconds.

The state is everything that links, readers, hub and engine do not have from the configuration (``CONFIGURED`` names
that part, which may hold keys and is never written). It is pickled, because links share the objects of what they
watch; it is read back by an unpickler that knows our classes of plain data and nothing else. A checkpoint is derived,
never evidence: a replay that passes one compares it with its own state.
"""

import io
import pickle
from collections import Counter, deque
from collections.abc import Mapping
from enum import Enum
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
import zstandard

import oracle_hub
from oracle_hub.alerts.former import FormerSeen, FormerWatch, watches_of
from oracle_hub.app.engine import Engine, Lineup
from oracle_hub.core.catalog import Catalog
from oracle_hub.core.hub import Decision
from oracle_hub.core.table import TableState
from oracle_hub.core.ways import WayRecord
from oracle_hub.errors import JournalError
from oracle_hub.journal.records import Checkpoint, RunStart

_PROTOCOL = 5
_LEVEL = 1  # written on the hub's loop
MAX_STATE_BYTES = 2**28
"""A state that unpacks to more than this is no state of ours."""
_ROOMS = ("oracle_hub.core.", "oracle_hub.ingest.", "oracle_hub.alerts.", "feeds.")
_CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "Counter"): Counter,
    ("collections", "deque"): deque,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
}


_FORMER: dict[tuple[str, str], type] = {
    ("oracle_hub.alerts.detectors", "FeedWatch"): FormerWatch,
    ("oracle_hub.alerts.detectors", "_Seen"): FormerSeen,
}
"""Classes that checkpoints of earlier versions name."""
_LATER = {"Engine": frozenset({"published"}), "AlertEngine": frozenset({"_resting"})}
"""Attributes that checkpoints of earlier versions lack, and that stay as they are made then."""


class _Stateful(Protocol):
    @property
    def CONFIGURED(self) -> frozenset[str]: ...


def _state(part: _Stateful) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name not in part.CONFIGURED}


def checkpoint(engine: Engine, run: RunStart, now_us: int) -> Checkpoint:
    """What to write at the beginning of a segment, right after a step.

    Raises:
        JournalError: a part holds something that is no plain data. A defect of ours.
    """
    lineup = engine.lineup
    parts = {
        "hub": _packed(_state(engine.hub), "decisions"),
        "table": engine.hub.table.state(),
        "engine": _packed(_state(engine), "ways"),
        "alerts": _state(engine.alerts),
        "watches": engine.alerts.watches(),
        "links": {name: _state(link) for name, link in lineup.links.items()},
        "readers": {name: _state(reader) for name, reader in lineup.readers.items()},
    }
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, lineup).dump(parts)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise JournalError(f"the state can't be written as a checkpoint: {error}") from error
    return Checkpoint(
        now_us=now_us,
        epoch=engine.hub.epoch,
        seq=engine.hub.seq,
        simulated=run.simulated,
        digest=digest(engine),
        instance=run.instance,
        version=run.version,
        config_hash=lineup.config_hash,
        config_text=lineup.config_text,
        state=zstandard.compress(buffer.getvalue(), _LEVEL),
    )


def restore(written: Checkpoint, lineup: Lineup) -> Engine:
    """The engine as it stood. ``lineup`` is built from the checkpoint's own configuration.

    Raises:
        JournalError: damaged, of a version that kept its state otherwise, or not what its digest says.
    """
    try:
        data = zstandard.ZstdDecompressor().decompress(written.state, max_output_size=MAX_STATE_BYTES)
        parts = _Unpickler(io.BytesIO(data), lineup).load()
        engine = Engine(lineup, epoch=written.epoch, started_us=written.now_us, warmup_us=parts["hub"]["warmup_us"])
        table: TableState = parts["table"]
        engine.hub.table.restore(table)
        _fill(engine, _unpacked(parts["engine"], "ways"))
        engine.limit_again()
        _fill(engine.hub, _unpacked(parts["hub"], "decisions"))
        alerts: dict[str, Any] = parts["alerts"]
        former = alerts.pop("_watches", {})
        _fill(engine.alerts, alerts)
        watches = parts["watches"] if "watches" in parts else watches_of(former, engine.alerts.settings)
        engine.alerts.recall(watches, engine.hub)
        _fill_all(lineup.links, parts["links"])
        _fill_all(lineup.readers, parts["readers"])
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


def digest(engine: Engine) -> bytes:
    """16 bytes (BLAKE2b) over what decides: held updates, decisions in force, warm-up, sequence."""
    hub = engine.hub
    state = {
        "epoch": hub.epoch,
        "seq": hub.seq,
        "config_hash": hub.config_hash,
        "decisions": list(hub.decisions.values()),
        "blocked": hub.blocked,
        "table": hub.table.state(),
    }
    return blake2b(msgspec.msgpack.encode(state), digest_size=16).digest()


def _packed(state: dict[str, Any], name: str) -> dict[str, Any]:
    """With thousands of records of one kind as one text: pickle would take ten times as long."""
    return state | {name: _encode(list(state[name].items()))}


def _unpacked(state: dict[str, Any], name: str) -> dict[str, Any]:
    """The opposite; checkpoints of earlier versions have the records themselves."""
    packed = state[name]
    return state | {name: dict(_DECODERS[name].decode(packed))} if isinstance(packed, bytes) else state


_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "decisions": msgspec.msgpack.Decoder(list[tuple[str, Decision]]),
    "ways": msgspec.msgpack.Decoder(list[tuple[tuple[str, str], WayRecord]]),
}


def _fill(part: _Stateful, state: Mapping[str, Any]) -> None:
    expected = set(_state(part))
    if not expected - _LATER.get(type(part).__name__, frozenset()) <= set(state) <= expected:
        different = ", ".join(sorted(expected ^ set(state)))
        raise ValueError(f"{type(part).__name__} holds other things: {different}")
    vars(part).update(state)


def _fill_all(parts: Mapping[str, _Stateful], states: Mapping[str, Mapping[str, Any]]) -> None:
    if set(parts) != set(states):
        raise ValueError("links or readers of another configuration")
    for name, part in parts.items():
        _fill(part, states[name])


class _Pickler(pickle.Pickler):
    """Names what the configuration gives instead of writing it."""

    def __init__(self, file: io.BytesIO, lineup: Lineup) -> None:
        super().__init__(file, _PROTOCOL)
        self._names: dict[int, tuple[str, str]] = {id(lineup.catalog): ("catalog", "")}
        self._names |= {id(reader): ("reader", name) for name, reader in lineup.readers.items()}
        self._names |= {id(link): ("link", name) for name, link in lineup.links.items()}

    def persistent_id(self, part: object) -> tuple[str, str] | None:
        return self._names.get(id(part))


class _Unpickler(pickle.Unpickler):
    """Makes plain data only: a journal from elsewhere can name nothing that does anything."""

    def __init__(self, file: io.BytesIO, lineup: Lineup) -> None:
        super().__init__(file)
        self._lineup = lineup

    def persistent_load(self, name: tuple[str, str]) -> object:
        kind, key = name
        if kind == "catalog":
            catalog: Catalog = self._lineup.catalog
            return catalog
        return self._lineup.readers[key] if kind == "reader" else self._lineup.links[key]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("msgspec._utils", "rebuild"):  # how records with keyword arguments only are pickled
            return _rebuilt
        former = _FORMER.get((module, name))
        if former is not None:
            return former
        container = _CONTAINERS.get((module, name))
        if container is not None:
            return container
        if module.startswith(_ROOMS) and not module.startswith("feeds.emulator"):
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module and _is_plain(found):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no class of a state")


def _rebuilt(kind: type[msgspec.Struct], fields: dict[str, Any]) -> msgspec.Struct:
    if not issubclass(kind, msgspec.Struct):
        raise pickle.UnpicklingError(f"{kind!r} is no record of a state")
    return kind(**fields)


def _is_plain(kind: type) -> bool:
    """Records, enumerations, and classes that are nothing but their slots."""
    return issubclass(kind, msgspec.Struct | Enum) or ("__slots__" in vars(kind) and not kind.__dictoffset__)
