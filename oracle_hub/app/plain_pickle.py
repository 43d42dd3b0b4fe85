"""Pickle for plain data only, and bound to the shape of the classes that it holds.

Links share the objects of what they watch, and ``pickle`` keeps that. It is read back by an unpickler that knows our
classes of plain data and nothing else: a journal from elsewhere can name nothing that does anything. Which fields each
class had goes with it, since a state of other fields would otherwise be taken for one of ours, by position.
"""

import io
import pickle
from collections import Counter, deque
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from oracle_hub.alerts.former import FormerSeen, FormerWatch

_PROTOCOL = 5
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

Shapes = dict[str, tuple[str, ...]]
"""Fields by ``module:class``."""


class Section(NamedTuple):
    """Stands for data that is kept beside the pickle, under a number."""

    number: int


def named(kind: str, key: str | int) -> object:
    """In a pickle, what has a name instead of being written; the unpickler puts its own in place of this.

    Raises:
        pickle.UnpicklingError: always.
    """
    raise pickle.UnpicklingError(f"{kind} {key} can only be read by a PlainUnpickler")


class PlainPickler(pickle.Pickler):
    """Names some objects instead of writing them, and notes the shapes of all classes that it meets.

    Args:
        names: what is named, as (kind, name), by the object's ``id``.
        shapes: where shapes are noted.
    """

    def __init__(self, file: io.BytesIO, names: Mapping[int, tuple[str, str]], shapes: Shapes) -> None:
        super().__init__(file, _PROTOCOL)
        self._names = names
        self._shapes = shapes
        self._met: set[type] = set()

    # Not ``persistent_id``, which is asked about every number and every text: this only about objects of our classes.
    def reducer_override(self, part: object) -> Any:
        if isinstance(part, Section):
            return named, ("section", part.number)
        kind = type(part)
        name = self._names.get(id(part))
        if name is not None:
            return named, name
        if kind not in self._met:
            self._met.add(kind)
            fields = shape_of(kind)
            if fields is not None:
                self._shapes[f"{kind.__module__}:{kind.__qualname__}"] = fields
        return NotImplemented


class PlainUnpickler(pickle.Unpickler):
    """Makes plain data only.

    Args:
        named: what stands for (kind, name).
    """

    def __init__(self, file: io.BytesIO, named: Mapping[tuple[str, str | int], object]) -> None:
        super().__init__(file)
        self._named = named

    def persistent_load(self, name: tuple[str, str | int]) -> object:
        return self._named[name]  # how states of earlier versions name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (named.__module__, named.__name__):
            return lambda kind, key: self._named[kind, key]
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


def shape_of(kind: type) -> tuple[str, ...] | None:
    """The names of a class's fields, in the order in which they are pickled; None where it has none of its own."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if issubclass(kind, Enum) or "__slots__" not in vars(kind):
        return None
    return tuple(sorted(vars(kind)["__slots__"]))


def check_shapes(shapes: Shapes) -> None:
    """Compare shapes that were noted with those of today.

    Raises:
        ValueError: a class has other fields now.
        pickle.UnpicklingError: a class is none of a state.
    """
    unpickler = PlainUnpickler(io.BytesIO(), {})
    for name, fields in shapes.items():
        module, _, kind = name.partition(":")
        now = shape_of(unpickler.find_class(module, kind))
        if now != tuple(fields):
            different = ", ".join(sorted(set(now or ()) ^ set(fields))) or "in another order"
            raise ValueError(f"{kind} holds other things: {different}")


def _rebuilt(kind: type[msgspec.Struct], fields: dict[str, Any]) -> msgspec.Struct:
    if not issubclass(kind, msgspec.Struct):
        raise pickle.UnpicklingError(f"{kind!r} is no record of a state")
    return kind(**fields)


def _is_plain(kind: type) -> bool:
    """Records, enumerations, and classes that are nothing but their slots."""
    return issubclass(kind, msgspec.Struct | Enum) or ("__slots__" in vars(kind) and not kind.__dictoffset__)
