"""What the native doors take and answer, for machines: ``/openapi.json`` (HTTP) and ``/asyncapi.json`` (websockets).

Both are made of the structs that go on the wire; tests hold real answers against them.
"""

from http import HTTPStatus
from typing import Any, NamedTuple, get_args

import msgspec
from aiohttp import web

from oracle_hub.charts import bars_messages
from oracle_hub.charts.answers import ChartsCode, ErrorAnswer, json_answer
from oracle_hub.charts.bars_http import BarsAnswer, MarksAnswer
from oracle_hub.charts.context import Context
from oracle_hub.charts.dashboard.hub_door import AlertsAnswer, HubReport
from oracle_hub.charts.health import Alive, Readiness
from oracle_hub.charts.resolutions import RESOLUTIONS
from oracle_hub.charts.sse import SseHeartbeat, SseSnapshot, SseUpdate
from oracle_hub.stream import messages as stream

REFERENCE = "#/components/schemas/{name}"


class Parameter(NamedTuple):
    """A parameter of an operation."""

    name: str
    where: str
    what: str
    schema: dict[str, Any]


class Operation(NamedTuple):
    """One path, which answers to GET."""

    path: str
    name: str
    summary: str
    answers: dict[int, Any]
    """Struct by status; text where it is a media type."""
    parameters: tuple[Parameter, ...] = ()


_NUMBER = {"type": "integer", "minimum": 0}
_FEED = Parameter("feed", "path", "A feed as in SOL/USD, where - may stand for /.", {"type": "string"})
_FROM = Parameter("from", "query", "Unix seconds, inclusive.", _NUMBER)
_TO = Parameter("to", "query", "Unix seconds, exclusive; now where it is absent or later.", _NUMBER)
_BAD: dict[int, Any] = {400: ErrorAnswer, 404: ErrorAnswer, 503: ErrorAnswer}

OPERATIONS: tuple[Operation, ...] = (
    Operation("/livez", "livez", "The process answers.", {200: Alive}),
    Operation("/readyz", "readyz", "Whether the hub is heard, with the evidence.", {200: Readiness, 503: Readiness}),
    Operation("/metrics", "metrics", "Metrics for Prometheus.", {200: "text/plain"}),
    Operation("/openapi.json", "openapi", "This document.", {200: dict[str, Any]}),
    Operation("/asyncapi.json", "asyncapi", "The messages of the websockets.", {200: dict[str, Any]}),
    Operation(
        "/v1/bars/{feed}",
        "bars",
        "Bars of one feed, ascending; the last one may be open.",
        {200: BarsAnswer, **_BAD},
        (
            _FEED,
            Parameter(
                "resolution", "query", "Minutes, or with S, D, W, M.", {"enum": [one.value for one in RESOLUTIONS]}
            ),
            _FROM,
            _TO,
            Parameter("countback", "query", "So many before `to`; wins over `from`.", _NUMBER),
            Parameter("fill", "query", "Carry the last close where there is no price.", {"enum": ["none", "prev"]}),
        ),
    ),
    Operation("/v1/marks/{feed}", "marks", "Changes of state.", {200: MarksAnswer, **_BAD}, (_FEED, _FROM, _TO)),
    Operation("/v1/hub", "hub", "What the hub says of its health.", {200: HubReport}),
    Operation("/v1/alerts", "alerts", "Open alerts of the hub; null where it can't be asked.", {200: AlertsAnswer}),
    Operation(
        "/v1/sse",
        "sse",
        "The stream as server-sent events: snapshot, update, heartbeat (schemas SseSnapshot, SseUpdate, SseHeartbeat).",
        {200: "text/event-stream", 404: ErrorAnswer, 429: ErrorAnswer, 503: ErrorAnswer},
        (
            Parameter("feeds", "query", "Names with commas between; all without it.", {"type": "string"}),
            Parameter("Last-Event-ID", "header", "Replay what came after this event.", {"type": "string"}),
        ),
    ),
)


def openapi(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the native HTTP doors."""
    structs = [answer for one in OPERATIONS for answer in one.answers.values() if not isinstance(answer, str)]
    _, components = msgspec.json.schema_components(
        [*structs, SseSnapshot, SseUpdate, SseHeartbeat], ref_template=REFERENCE
    )
    components["ErrorBody"]["properties"]["code"] = {"enum": [code.value for code in ChartsCode]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "oracle-hub charts",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {one.path: {"get": _operation(one)} for one in OPERATIONS},
        "components": {"schemas": components},
    }


def _operation(one: Operation) -> dict[str, Any]:
    return {
        "operationId": one.name,
        "summary": one.summary,
        "parameters": [
            {
                "name": parameter.name,
                "in": parameter.where,
                "description": parameter.what,
                "required": parameter.where == "path",
                "schema": parameter.schema,
            }
            for parameter in one.parameters
        ],
        "responses": {
            str(status): {"description": HTTPStatus(status).phrase, "content": _content(answer)}
            for status, answer in one.answers.items()
        },
    }


def _content(answer: Any) -> dict[str, Any]:
    if isinstance(answer, str):
        return {answer: {"schema": {"type": "string"}}}
    (schema,), _ = msgspec.json.schema_components([answer], ref_template=REFERENCE)
    return {"application/json": {"schema": schema}}


class Channel(NamedTuple):
    """A websocket, and what goes over it."""

    name: str
    address: str
    what: str
    server: tuple[type[msgspec.Struct], ...]
    client: tuple[type[msgspec.Struct], ...]


CHANNELS: tuple[Channel, ...] = (
    Channel(
        "bars",
        "/v1/bars",
        "Live bars, at the charts process.",
        get_args(bars_messages.ServerMessage),
        get_args(bars_messages.ClientMessage),
    ),
    Channel(
        "prices",
        "/v1/stream",
        "Prices, at the hub, and relayed by the charts process; subprotocol oraclehub.v1.",
        get_args(stream.ServerMessage),
        get_args(stream.ClientMessage),
    ),
)


def asyncapi(version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of ``/v1/bars`` here and of ``/v1/stream`` at the hub."""
    structs = [struct for channel in CHANNELS for struct in (*channel.server, *channel.client)]
    schemas, components = msgspec.json.schema_components([*structs, stream.FeedEntry], ref_template=REFERENCE)
    references: dict[type, str] = {struct: schemas[at]["$ref"] for at, struct in enumerate(structs)}
    entry = {"$ref": REFERENCE.format(name="FeedEntry")}
    for struct in (stream.Snapshot, stream.Update):  # kept raw until they are needed
        components[references[struct].rsplit("/", 1)[1]]["properties"]["feeds"]["items"] = entry
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "oracle-hub streams", "version": version, "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "channels": {channel.name: _channel(channel, references) for channel in CHANNELS},
        "operations": {
            f"{channel.name}.{action}": _sending(channel, action, side)
            for channel in CHANNELS
            for action, side in (("receive", "server"), ("send", "client"))
        },
        "components": {"schemas": components},
    }


def _tags(channel: Channel, side: str) -> dict[str, type[msgspec.Struct]]:
    structs = channel.server if side == "server" else channel.client
    return {str(struct.__struct_config__.tag): struct for struct in structs}


def _channel(channel: Channel, references: dict[type, str]) -> dict[str, Any]:
    messages = {
        f"{side}.{tag}": {"name": tag, "payload": {"$ref": references[struct]}}
        for side in ("server", "client")
        for tag, struct in _tags(channel, side).items()
    }
    return {"address": channel.address, "description": channel.what, "messages": messages}


def _sending(channel: Channel, action: str, side: str) -> dict[str, Any]:
    at = f"#/channels/{channel.name}"
    messages = [{"$ref": f"{at}/messages/{side}.{tag}"} for tag in _tags(channel, side)]
    return {"action": action, "channel": {"$ref": at}, "messages": messages}


def routes(context: Context) -> list[web.RouteDef]:
    """``/openapi.json`` and ``/asyncapi.json``."""
    version = context.settings.version
    documents = {"/openapi.json": openapi(version), "/asyncapi.json": asyncapi(version)}

    async def answer(request: web.Request) -> web.Response:
        return json_answer(documents[request.path])

    return [web.get(path, answer) for path in documents]
