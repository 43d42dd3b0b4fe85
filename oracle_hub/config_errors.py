"""What is wrong with a configuration, in our own words: which key, of which entry, and what it accepts."""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import inspect

_AT = re.compile(r"^(?P<what>.*) - at `\$(?P<path>.*)`$", re.DOTALL)
_STEPS = re.compile(r"\[\.\.\.\]|\[\d+\]|\.[^.\[]+")
_ANY_ENTRY = "[...]"
"""How msgspec names an entry of a table: it does not say which."""
_TYPES = {"int": "an integer", "float": "a number", "str": "text", "bool": "true or false", "array": "a list"}
_TYPES |= {"object": "a table", "null": "nothing"}
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^Expected `\w+` <= (?P<bound>[\d.]+)$"), "is {value}, and can be at most {bound}"),
    (re.compile(r"^Expected `\w+` >= (?P<bound>[\d.]+)$"), "is {value}, and must be at least {bound}"),
    (re.compile(r"^Expected `\w+` > (?P<bound>[\d.]+)$"), "is {value}, and must be more than {bound}"),
    (re.compile(r"^Expected `str` matching regex '(?P<bound>.*)'$"), "must match {bound}"),
    (re.compile(r"^Object missing required field `(?P<bound>.*)`$"), "{bound} is missing"),
    (re.compile(r"^Expected `(?P<wanted>[\w |]+)`, got `(?P<got>\w+)`$"), "must be {wanted}, not {got}"),
)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<key>.*)`$", re.DOTALL)
_ENUM = re.compile(r"^Invalid enum value .*$")


def explained(
    raw: dict[str, Any], whole: type[msgspec.Struct], message: str, known_keys: Callable[[str], Sequence[str]]
) -> str:
    """One line for the message of msgspec's that refused ``raw`` as a ``whole``.

    ``known_keys`` gives the keys of a section by its path without entries, as in ``sources``.
    """
    at = _AT.match(message)
    what, path = (at["what"], at["path"]) if at else (message, "")
    found = _entries(raw, whole, message, _STEPS.findall(path))
    where = ".".join(map(_printed, found))
    unknown = _UNKNOWN.match(what)
    if unknown:
        key, known = unknown["key"], known_keys(re.sub(r"\[.*?\]", "", path).lstrip("."))
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(sorted(known))}"
        return f"{f'{where}: ' if where else ''}unknown key {_printed(key)}; {hint}"
    if _ENUM.match(what):
        return f"{where}: {_printed(str(_value(raw, found)))} is none of {', '.join(_accepted(whole, found))}"
    return f"{where}: {_in_words(what, _value(raw, found))}" if where else _in_words(what, raw)


def _printed(key: str) -> str:
    """A key on one line, whatever it holds."""
    return key if key.isprintable() else repr(key)[1:-1]


def _in_words(what: str, value: object) -> str:
    for pattern, words in _WORDS:
        match = pattern.match(what)
        if match:
            groups = match.groupdict().items()
            return words.format(
                value=value,
                **{key: _named_types(text) if key in ("wanted", "got") else text for key, text in groups},
            )
    return f"{what[0].lower()}{what[1:]}"


def _accepted(whole: type[msgspec.Struct], steps: Sequence[str]) -> list[str]:
    """The values that the key at these steps can have, where they are a closed set."""
    kinds: list[inspect.Type] = [inspect.type_info(whole)]
    for step in steps:
        inside: list[inspect.Type] = []
        for kind in kinds:
            if isinstance(kind, inspect.StructType):
                inside += [field.type for field in kind.fields if field.encode_name == step]
            elif isinstance(kind, inspect.DictType):
                inside.append(kind.value_type)
            elif isinstance(kind, inspect.VarTupleType):
                inside.append(kind.item_type)
        kinds = [one for kind in inside for one in (kind.types if isinstance(kind, inspect.UnionType) else (kind,))]
    values: list[str] = []
    for kind in kinds:
        if isinstance(kind, inspect.EnumType):
            values += [str(member.value) for member in kind.cls]
        elif isinstance(kind, inspect.LiteralType):
            values += map(str, kind.values)
    return values


def _named_types(names: str) -> str:
    return " or ".join(_TYPES.get(name, name) for name in names.split(" | ") if name != "null" or names == "null")


def _entries(raw: Any, whole: type[msgspec.Struct], message: str, steps: Sequence[str]) -> list[str]:
    """The steps with every ``[...]`` replaced by the name of the entry that was refused.

    It is the one with which alone in its table the same refusal comes.
    """
    found: list[str] = []
    for step in steps:
        if step != _ANY_ENTRY:
            found.append(step.lstrip(".") if step.startswith(".") else step.strip("[]"))
            continue
        names = list(_value(raw, found))
        found.append(next((name for name in names if _refused(_only(raw, found, name), whole) == message), "*"))
        if found[-1] != "*":
            raw = _only(raw, found[:-1], found[-1])
    return found


def _value(raw: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        if isinstance(raw, list | tuple):
            raw = raw[int(step)]
        elif isinstance(raw, dict) and step in raw:
            raw = raw[step]
        else:
            return None
    return raw


def _only(raw: Any, steps: Sequence[str], name: str) -> Any:
    """A copy in which the table at these steps has this one entry."""
    if not steps:
        return {name: raw[name]}
    if isinstance(raw, list | tuple):
        index = int(steps[0])
        return [_only(each, steps[1:], name) if place == index else each for place, each in enumerate(raw)]
    return {key: _only(each, steps[1:], name) if key == steps[0] else each for key, each in raw.items()}


def _refused(raw: Any, whole: type[msgspec.Struct]) -> str | None:
    try:
        msgspec.convert(raw, whole)
    except msgspec.ValidationError as error:
        return str(error)
    return None
