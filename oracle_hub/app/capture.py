"""The state of the middle of the program at one instant: captured in one go, turned into bytes piece by piece.

Thousands of feeds are megabytes of state, which take longer to write than prices may wait. Only what can change has to
be captured at once, and most of it is columns, and containers whose members never change (``FLAT`` names them): copies
of those are quick. The rest of the work is done between the turns of the loop, and means the same instant.
"""

import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, Protocol

import msgspec
import zstandard

from oracle_hub.alerts.memory import WatchesState
from oracle_hub.app.engine import Engine, Lineup
from oracle_hub.app.plain_pickle import PlainPickler, Section, Shapes
from oracle_hub.app.state_sections import MAGIC, cut_up, entry
from oracle_hub.core.source import Link
from oracle_hub.errors import JournalError
from oracle_hub.ingest.rpc_watch import FIELDS, taken_apart
from oracle_hub.ingest.solana_rpc import SolanaRpc
from oracle_hub.journal.records import Checkpoint, RunStart

AT_ONCE = 256
"""So many records are turned into bytes in one piece of work."""
DIGEST_BYTES = 16
_LEVEL = 1  # compressed on the hub's loop


class Stateful(Protocol):
    """A part with state."""

    @property
    def CONFIGURED(self) -> frozenset[str]: ...


class Flat(Stateful, Protocol):
    """One with much of it."""

    @property
    def FLAT(self) -> frozenset[str]:
        """Names of lists, sets and dicts whose members never change, so that a copy of the container is one of all."""
        ...


def state_of(part: Stateful) -> dict[str, Any]:
    """What a part does not have from the configuration, by name."""
    return {name: value for name, value in vars(part).items() if name not in part.CONFIGURED}


class Capture:
    """The state right after a step. To be made then; its bytes may be asked for at any time after.

    >>> capture = Capture(engine, run, now_us)
    >>> for _ in capture.digested(): ...           # whenever there is time
    >>> for some in capture.state(): ...
    >>> capture.record                             # all of the checkpoint but its state

    Raises:
        JournalError: a part holds something that is no plain data. A defect of ours. Also from both iterators.
    """

    def __init__(self, engine: Engine, run: RunStart, now_us: int) -> None:
        lineup, hub = engine.lineup, engine.hub
        self._record = Checkpoint(
            now_us=now_us,
            epoch=hub.epoch,
            seq=hub.seq,
            simulated=run.simulated,
            digest=b"",
            instance=run.instance,
            version=run.version,
            config_hash=lineup.config_hash,
            config_text=lineup.config_text,
            state=b"",
        )
        self._shapes: Shapes = {}
        self._names = _names(lineup)
        self._sections: list[Iterator[bytes]] = []
        """What is still to be turned into bytes. Section 0 is the pickle of all that is small."""
        self._decisions = list(hub.decisions.values())
        self._table = hub.table.state()
        self._hub_says = (hub.config_hash, hub.blocked)
        self._encoded: list[bytes] = []
        """Decisions, then the table, once they were encoded for the digest."""
        self._small = self._pickled(self._parts(engine))

    def _parts(self, engine: Engine) -> dict[str, Any]:
        lineup, watches = engine.lineup, engine.alerts.watches()
        return {
            "hub": self._flat(engine.hub) | {"decisions": self._section(_lazily(lambda: self._encoded[:-1]))},
            "table": self._section(_lazily(lambda: self._encoded[-1:])),
            "engine": self._flat(engine) | {"ways": self._ways(engine)},
            "alerts": self._flat(engine.alerts),
            "watches": self._section(_lazily(lambda: [_encode(_without_columns(watches))])),
            "columns": self._section(iter(watches.memory.columns)),
            "links": {name: self._link(link, lineup) for name, link in lineup.links.items()},
            "readers": {name: state_of(reader) for name, reader in lineup.readers.items()},
        }

    def _section(self, entries: Iterator[bytes]) -> Section:
        self._sections.append(entries)
        return Section(len(self._sections))

    def _flat(self, part: Flat) -> dict[str, Any]:
        state = state_of(part)
        for name in part.FLAT & state.keys():
            held = state[name]
            copied = list(held.items() if isinstance(held, dict) else held)
            state[name] = self._section(self._pickled(some) for some in _some(copied))
        return state

    def _ways(self, engine: Engine) -> Section:
        replace = msgspec.structs.replace
        ways = [(way, replace(one, last=dict(one.last), counts=dict(one.counts))) for way, one in engine.ways.items()]
        return self._section(_encode([way]) for way in ways)

    def _link(self, link: Link, lineup: Lineup) -> dict[str, Any]:
        state = state_of(link)
        if not isinstance(link, SolanaRpc):
            return state
        state, tables = taken_apart(state)
        names = {id(reader): name for name, reader in lineup.readers.items()}
        encode = msgspec.msgpack.Encoder(enc_hook=lambda reader: names[id(reader)]).encode
        watched = {name: self._section(encode(some) for some in _some(rows)) for name, rows in tables.items()}
        return state | {"watched": watched, "fields": FIELDS}

    def _pickled(self, part: object) -> bytes:
        buffer = io.BytesIO()
        try:
            PlainPickler(buffer, self._names, self._shapes).dump(part)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise JournalError(f"the state can't be written as a checkpoint: {error}") from error
        return buffer.getvalue()

    @property
    def record(self) -> Checkpoint:
        """The checkpoint without its state; with its digest once that is known."""
        return self._record

    def digested(self) -> Iterator[None]:
        """Work out the digest, a piece of work for each step of the iteration. To be gone through first."""
        config_hash, blocked = self._hub_says
        hashed = blake2b(digest_size=DIGEST_BYTES)
        # The bytes of one map, as :func:`digest` encodes it.
        hashed.update(b"\x86" + _pair("epoch", self._record.epoch) + _pair("seq", self._record.seq))
        hashed.update(_pair("config_hash", config_hash) + _encode("decisions") + _array_head(len(self._decisions)))
        for some in _some(self._decisions):
            self._encoded.append(_encode(some))
            hashed.update(self._encoded[-1][len(_array_head(len(some))) :])
            yield
        self._encoded.append(_encode(self._table))
        hashed.update(_pair("blocked", blocked) + _encode("table") + self._encoded[-1])
        self._record = msgspec.structs.replace(self._record, digest=hashed.digest())
        yield

    def state(self) -> Iterator[bytes]:
        """The state, compressed, in pieces (some of them empty). To be gone through once, after :meth:`digested`."""
        compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        for piece in chain((MAGIC,), cut_up(entry(0, self._small)), self._entries()):
            yield compressor.compress(piece)
        # Last, since everything that is pickled has been met by now.
        yield compressor.compress(entry(len(self._sections) + 1, _encode(self._shapes)))
        yield compressor.flush()

    def _entries(self) -> Iterator[bytes]:
        for number, entries in enumerate(self._sections, 1):
            for one in entries:
                yield from cut_up(entry(number, one))


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
    return blake2b(_encode(state), digest_size=DIGEST_BYTES).digest()


def _names(lineup: Lineup) -> dict[int, tuple[str, str]]:
    """What the configuration gives, by ``id``: named instead of written."""
    names = {id(lineup.catalog): ("catalog", "")}
    names |= {id(reader): ("reader", name) for name, reader in lineup.readers.items()}
    return names | {id(link): ("link", name) for name, link in lineup.links.items()}


def _some(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


def _lazily(made: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
    yield from made()


def _without_columns(watches: WatchesState) -> WatchesState:
    return msgspec.structs.replace(watches, memory=msgspec.structs.replace(watches.memory, columns=[]))


def _pair(name: str, value: object) -> bytes:
    return _encode(name) + _encode(value)


def _array_head(length: int) -> bytes:
    """How MessagePack begins an array."""
    return _encode([None] * length)[: -length or None]


_encode = msgspec.msgpack.Encoder().encode
