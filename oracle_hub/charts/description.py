"""What all doors take and answer, for machines: ``/openapi.json`` (HTTP) and ``/asyncapi.json`` (websockets).

Both are made of the structs that go on the wire, and of written schemas where a format is somebody else's; tests hold
real answers against them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import msgspec
from aiohttp import web

from oracle_hub.charts import bars_messages, hermes_description, hermes_socket, udf_description
from oracle_hub.charts.answers import ChartsCode, ErrorAnswer, json_answer
from oracle_hub.charts.bars_http import BarsAnswer, MarksAnswer
from oracle_hub.charts.context import Context
from oracle_hub.charts.dashboard import pages
from oracle_hub.charts.dashboard.hub_door import AlertsAnswer, HubReport
from oracle_hub.charts.health import Alive, Readiness
from oracle_hub.charts.hermes_shapes import Provenance
from oracle_hub.charts.operations import REFERENCE, Operation, Parameter, Schema, Text, described, reference, structs
from oracle_hub.charts.resolutions import RESOLUTIONS
from oracle_hub.charts.sse import SseHeartbeat, SseSnapshot, SseUpdate
from oracle_hub.charts.trends import KEPT_S, TrendAnswer
from oracle_hub.stream import messages as stream

_NUMBER = {"type": "integer", "minimum": 0}
_FEED = Parameter("feed", "path", "A feed as in SOL/USD, where - may stand for /.", {"type": "string"})
_FROM = Parameter("from", "query", "Unix seconds, inclusive.", _NUMBER)
_TO = Parameter("to", "query", "Unix seconds, exclusive; now where it is absent or later.", _NUMBER)
_BAD: dict[int, Any] = {400: ErrorAnswer, 404: ErrorAnswer, 503: ErrorAnswer}

NATIVE: tuple[Operation, ...] = (
    Operation("/livez", "livez", "The process answers.", {200: Alive}),
    Operation("/readyz", "readyz", "Whether the hub is heard, with the evidence.", {200: Readiness, 503: Readiness}),
    Operation("/metrics", "metrics", "Metrics for Prometheus.", {200: Text("text/plain")}),
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
    Operation(
        "/v1/trends/{feed}",
        "trends",
        "Divergence and age of each source, second by second.",
        {200: TrendAnswer, 400: ErrorAnswer, 404: ErrorAnswer},
        (_FEED, Parameter("seconds", "query", "So far back.", {"type": "integer", "minimum": 0, "maximum": KEPT_S})),
    ),
    Operation("/v1/hub", "hub", "What the hub says of its health.", {200: HubReport}),
    Operation("/v1/alerts", "alerts", "Open alerts of the hub; null where it can't be asked.", {200: AlertsAnswer}),
    Operation(
        "/v1/sse",
        "sse",
        "The stream as server-sent events: snapshot, update, heartbeat (schemas SseSnapshot, SseUpdate, SseHeartbeat).",
        {200: Text("text/event-stream"), 404: ErrorAnswer, 429: ErrorAnswer, 503: ErrorAnswer},
        (
            Parameter("feeds", "query", "Names with commas between; all without it.", {"type": "string"}),
            Parameter("Last-Event-ID", "header", "Replay what came after this event.", {"type": "string"}),
        ),
    ),
)


def _files() -> tuple[Operation, ...]:
    """The dashboard: each of its files."""
    return tuple(
        Operation(
            path,
            f"file_{file.name}",
            f"The dashboard: {file.name}.",
            {200: Text(pages.CONTENT_TYPES[file.suffix].partition(";")[0])},
        )
        for path, file in pages.served().items()
    )


OPERATIONS = (*NATIVE, *udf_description.OPERATIONS, *hermes_description.OPERATIONS, *_files())
"""Every path that is no websocket."""


def openapi(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the HTTP doors."""
    _, components = msgspec.json.schema_components(
        [*structs(OPERATIONS), Provenance, SseSnapshot, SseUpdate, SseHeartbeat], ref_template=REFERENCE
    )
    components["ErrorBody"]["properties"]["code"] = {"enum": [code.value for code in ChartsCode]}
    otherwise = {
        "description": "Refused before it reaches the door, or failed inside.",
        "content": {"application/json": {"schema": reference("ErrorAnswer")}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "oracle-hub charts",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {one.path: {"get": described(one, otherwise)} for one in OPERATIONS},
        "components": {"schemas": {**components, **udf_description.SCHEMAS, **hermes_description.SCHEMAS}},
    }


class Channel(NamedTuple):
    """A websocket, and what goes over it."""

    name: str
    address: str
    what: str
    server: tuple[type[msgspec.Struct], ...]
    client: tuple[type[msgspec.Struct], ...]
    written: Mapping[str, Schema] = MappingProxyType({})
    """Messages of the server that are no structs, by type."""


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
    *(
        Channel(
            name,
            f"{prefix}/ws",
            "Prices as Hermes tells them, at the charts process.",
            (),
            (hermes_socket.Subscribe, hermes_socket.Unsubscribe),
            hermes_description.SERVER_MESSAGES,
        )
        for prefix, name in hermes_description.CHANNELS.items()
    ),
)


def asyncapi(version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the websockets here, and of ``/v1/stream`` at the hub."""
    told = list(dict.fromkeys(struct for channel in CHANNELS for struct in (*channel.server, *channel.client)))
    schemas, components = msgspec.json.schema_components([*told, stream.FeedEntry, Provenance], ref_template=REFERENCE)
    references: dict[type, str] = {struct: schemas[at]["$ref"] for at, struct in enumerate(told)}
    for struct in (stream.Snapshot, stream.Update):  # kept raw until they are needed
        components[references[struct].rsplit("/", 1)[1]]["properties"]["feeds"]["items"] = reference("FeedEntry")
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


def _payloads(channel: Channel, side: str, references: Mapping[type, str]) -> dict[str, Schema]:
    """Schemas of what one side tells, by type."""
    told = channel.server if side == "server" else channel.client
    found = {str(struct.__struct_config__.tag): {"$ref": references[struct]} for struct in told}
    return {**found, **(channel.written if side == "server" else {})}


def _tags(channel: Channel, side: str) -> list[str]:
    told = channel.server if side == "server" else channel.client
    return [*(str(one.__struct_config__.tag) for one in told), *(channel.written if side == "server" else ())]


def _channel(channel: Channel, references: Mapping[type, str]) -> dict[str, Any]:
    messages = {
        f"{side}.{tag}": {"name": tag, "payload": payload}
        for side in ("server", "client")
        for tag, payload in _payloads(channel, side, references).items()
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
