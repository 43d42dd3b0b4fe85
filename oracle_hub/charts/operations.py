"""What descriptions for machines are made of: operations, parameters, and schemas of answers that are no structs.

A door with a format of somebody else's writes its answers as dicts, so its schemas are written by hand; tests hold
every real answer against them.
"""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias

import msgspec

REFERENCE = "#/components/schemas/{name}"

Schema: TypeAlias = dict[str, Any]


class Parameter(NamedTuple):
    """A parameter of an operation."""

    name: str
    where: str
    what: str
    schema: Schema
    required: bool = False
    """Parts of paths always are."""


class Named(NamedTuple):
    """A JSON answer whose schema stands under this name."""

    name: str


class Text(NamedTuple):
    """An answer that is not JSON as a whole, with the schema of each of its events or lines where it has such."""

    media_type: str
    events: str | None = None


Answer: TypeAlias = Any
"""A struct that goes on the wire, a :class:`Named` schema, or a :class:`Text`."""


class Operation(NamedTuple):
    """One path, which answers to GET."""

    path: str
    name: str
    summary: str
    answers: Mapping[int, Answer]
    """By status."""
    parameters: tuple[Parameter, ...] = ()


STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
SECONDS: Schema = {"type": "integer", "description": "Unix seconds."}
DIGITS: Schema = {"type": "string", "pattern": "^[1-9][0-9]*$"}
"""A positive integer as text: a mantissa."""


def reference(name: str) -> Schema:
    """Points at a schema by its name."""
    return {"$ref": REFERENCE.format(name=name)}


def constant(value: object) -> Schema:
    """This value and no other."""
    return {"const": value}


def array(items: Schema, **more: object) -> Schema:
    """A list of such items."""
    return {"type": "array", "items": items, **more}


def record(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """An object with these keys and no others; all of them but the optional ones are there."""
    required = [key for key in properties if key not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def under(prefix: str, name: str, door: str, operations: Sequence[Operation]) -> Iterator[Operation]:
    """The operations of a door at one of its prefixes: ``name`` begins their names there, ``door`` their summaries."""
    for one in operations:
        yield one._replace(path=prefix + one.path, name=f"{name}_{one.name}", summary=f"{door}: {one.summary}")


def structs(operations: Sequence[Operation]) -> list[Any]:
    """Every struct that is an answer."""
    answers = (answer for one in operations for answer in one.answers.values())
    return [answer for answer in answers if not isinstance(answer, Named | Text)]


def described(one: Operation, otherwise: Schema) -> Schema:
    """An operation as OpenAPI has it. ``otherwise``: the response of every status that is not listed."""
    return {
        "operationId": one.name,
        "summary": one.summary,
        "parameters": [
            {
                "name": parameter.name,
                "in": parameter.where,
                "description": parameter.what,
                "required": parameter.required or parameter.where == "path",
                "schema": parameter.schema,
            }
            for parameter in one.parameters
        ],
        "responses": {
            **{
                str(status): {"description": HTTPStatus(status).phrase, "content": _content(answer)}
                for status, answer in one.answers.items()
            },
            "default": otherwise,
        },
    }


def _content(answer: Answer) -> Schema:
    if isinstance(answer, Text):
        events = {} if answer.events is None else {"x-events": reference(answer.events)}
        return {answer.media_type: {"schema": {"type": "string"}, **events}}
    if isinstance(answer, Named):
        return {"application/json": {"schema": reference(answer.name)}}
    (schema,), _ = msgspec.json.schema_components([answer], ref_template=REFERENCE)
    return {"application/json": {"schema": schema}}
