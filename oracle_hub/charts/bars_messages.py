"""Every message of ``/v1/bars``, in both directions. ``docs/charts.md`` describes them; a test compares the two."""

from typing import Annotated, Any, TypeAlias

import msgspec

from oracle_hub.charts.bars_http import BarEntry
from oracle_hub.stream.messages import RequestId

MAX_SAFE_INTEGER = 2**53 - 1


class _Message(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    pass


# From a client.


class Subscribe(_Message, frozen=True, kw_only=True, gc=False, tag="subscribe"):
    """Ask for bars. With ``from_us`` those that start at or after it, else the last ``count``, and then all to come."""

    feeds: list[str]
    """Names, or ``["*"]`` for all that the hub has now."""
    resolution: str
    id: RequestId = None
    channel: str = "bars"
    from_us: Annotated[int, msgspec.Meta(ge=0, le=MAX_SAFE_INTEGER)] | None = None
    """To go on after a reconnect: the start of the last final bar that is held. It is told again."""
    count: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None


class Unsubscribe(_Message, frozen=True, kw_only=True, gc=False, tag="unsubscribe"):
    sub: int
    id: RequestId = None


class Ping(_Message, frozen=True, kw_only=True, gc=False, tag="ping"):
    id: RequestId = None


ClientMessage: TypeAlias = Subscribe | Unsubscribe | Ping
client_message_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)


# From the server.


class Hello(_Message, frozen=True, kw_only=True, gc=False, tag="hello"):
    """The first message of every connection."""

    server_time_us: int
    heartbeat_ms: int
    feeds: list[str]
    resolutions: list[str]
    simulated: Any
    limits: dict[str, int]


class Rejected(msgspec.Struct, frozen=True, gc=False):
    feed: str
    code: str


class Subscribed(_Message, frozen=True, kw_only=True, gc=False, tag="subscribed"):
    """Answer to ``subscribe``. ``sub`` is null when no feed was accepted."""

    id: RequestId
    sub: int | None
    channel: str
    resolution: str
    accepted: list[str]
    rejected: list[Rejected]


class Unsubscribed(_Message, frozen=True, kw_only=True, gc=False, tag="unsubscribed"):
    id: RequestId
    sub: int


class Snapshot(_Message, frozen=True, kw_only=True, gc=False, tag="snapshot"):
    """The history of one feed, ascending; the last bar may be open. Sent before any ``bars`` of the feed."""

    sub: int
    feed: str
    resolution: str
    expo: int | None
    server_time_us: int
    bars: list[BarEntry]


class FeedBars(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    feed: str
    expo: int
    bars: list[BarEntry]


class Bars(_Message, frozen=True, kw_only=True, gc=False, tag="bars"):
    """What changed: final bars, each once and in order, and open ones as they stand. Replace by ``start_us``."""

    sub: int
    server_time_us: int
    feeds: list[FeedBars]


class Revisions(_Message, frozen=True, kw_only=True, gc=False, tag="revisions"):
    """Final bars that were told, or would have been, and are others now: corrected, or added where there was none.

    Each replaces the one with its ``start_us``, or goes between its neighbours. Some may be as they were.
    """

    sub: int
    server_time_us: int
    feed: str
    expo: int
    bars: list[BarEntry]


class Heartbeat(_Message, frozen=True, kw_only=True, gc=False, tag="heartbeat"):
    """At a fixed cadence. Bars stand still while the hub is not heard: ``connected``, and until when it was."""

    server_time_us: int
    connected: bool
    heard_us: int | None


class Pong(_Message, frozen=True, kw_only=True, gc=False, tag="pong"):
    id: RequestId
    server_time_us: int


class Error(_Message, frozen=True, kw_only=True, gc=False, tag="error"):
    id: RequestId
    code: str
    message: str


ServerMessage: TypeAlias = Hello | Subscribed | Unsubscribed | Snapshot | Bars | Revisions | Heartbeat | Pong | Error
server_message_decoder: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
