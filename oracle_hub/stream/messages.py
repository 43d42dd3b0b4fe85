"""Every message of the stream, in both directions, as data: what goes on the wire is these structs as JSON.

``docs/protocol.md`` describes them for subscribers; a test fails when a message, a field or a code is missing there.
Shapes grow by addition only: a client must ignore keys that it does not know, and so does the server.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum, StrEnum
from hashlib import blake2b
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from oracle_hub.core.hub import Decision
from oracle_hub.core.licence import WITHHELD
from oracle_hub.core.price import divergence_bps
from oracle_hub.core.selector import Reason, State
from oracle_hub.errors import StreamError

SUBPROTOCOL = "oraclehub.v1"
BINARY_SUBPROTOCOL = "oraclehub.v1.bin"
"""The same messages, with snapshots, updates and heartbeats in the form of :mod:`oracle_hub.stream.binary`."""
MAX_NAME_LENGTH = 64
"""Longest request id, and the longest part of an unknown feed id that is sent back."""
MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""


class ErrorCode(StrEnum):
    """Why a subscriber's message was refused. The session goes on."""

    BAD_JSON = "bad_json"
    """Not JSON, or nested too deeply."""
    BAD_MESSAGE = "bad_message"
    """A field is missing, of another type, or out of range."""
    BINARY_MESSAGE = "binary_message"
    """This subprotocol takes text messages only."""
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_CHANNEL = "unknown_channel"
    UNKNOWN_SUBSCRIPTION = "unknown_subscription"
    """No subscription has this number in this session."""
    UNSUPPORTED_OPTION = "unsupported_option"
    """Options that contradict each other. An option is never ignored in silence."""
    TOO_MANY_FEEDS = "too_many_feeds"
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    RATE_LIMITED = "rate_limited"
    """More requests than the session's allowance; the message was not carried out."""
    AUTH_NOT_EXPECTED = "auth_not_expected"
    """A token in a message where none is waited for: none is required, or the connection has shown one."""


class FeedRejection(StrEnum):
    """Why one feed of a subscription was refused. The others are accepted."""

    UNKNOWN_FEED = "unknown_feed"
    BAD_FEED_ID = "bad_feed_id"
    """Not a string, or longer than 64 characters."""


class CloseCode(IntEnum):
    """Why the server closed a websocket. 4000 to 4499: come back. 4500 to 4999: do not, until something is changed."""

    SHUTDOWN = 4000
    """The server is going away; ``goaway`` said why and when to come back."""
    TOO_SLOW = 4001
    """A subscription of mode ``all`` could not keep up with its stream."""
    INTERNAL_ERROR = 4002
    """This session failed inside the server. Others go on."""
    NO_SUBSCRIPTION = 4003
    """The client asked for nothing for as long as the server waits."""
    TOO_MANY_FOR_TOKEN = 4004
    """The token of the first message has as many connections as it may have."""
    TOO_MANY_ERRORS = 4500
    """The client kept sending messages that can't be accepted."""
    UNAUTHORIZED = 4501
    """A token is required and the first message showed none that is known; or it is known no longer."""


class ViewReason(StrEnum):
    """Reasons for ``none`` that are given where a decision is shown, beside those of the hub."""

    LEASE_OVER = "lease_over"
    """The decision's lease is over and the next decision is not made yet."""
    MAX_AGE = "max_age"
    """The price is older than the subscription's own ``max_age_ms``."""


# What the server sends.


class InputEntry(msgspec.Struct, frozen=True, gc=False):
    """One source as it stood when the decision was made; fields are null where it holds nothing."""

    role: str
    status: str
    price: str | None
    publish_time_us: int | None
    received_us: int | None
    age_ms: int | None
    """At the time of the decision, from the earlier of publish time and receipt."""
    divergence_bps: float | None
    """To the chosen price, or to the primary's where none was chosen."""
    account: str | None
    slot: int | None
    transport: str | None
    verified: bool
    withheld: str | msgspec.UnsetType = msgspec.UNSET
    """``licence``: there is a price, which may not be told. Absent otherwise."""


class FeedEntry(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One feed as a subscriber sees it. ``price``, ``conf``, ``low`` and ``high`` are mantissas at ``expo``."""

    feed: str
    state: str
    price: str | None
    expo: int
    conf: str | None
    source: str | None
    rule: str
    reason: str
    publish_time_us: int | None
    decided_us: int
    valid_until_us: int | None
    n: int | msgspec.UnsetType = msgspec.UNSET
    """In a merged entry: decisions since ``prev_seq``, this one included."""
    low: str | msgspec.UnsetType | None = msgspec.UNSET
    high: str | msgspec.UnsetType | None = msgspec.UNSET
    was_none: bool | msgspec.UnsetType = msgspec.UNSET
    """In a merged entry: whether any of them was ``none``."""
    inputs: dict[str, InputEntry] | msgspec.UnsetType = msgspec.UNSET
    """With detail ``full``: by source, roles first."""


RequestId: TypeAlias = (
    Annotated[int, msgspec.Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
    | Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
    | None
)
"""Chosen by the client and sent back with the answer."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    pass


class Hello(_Message, frozen=True, kw_only=True, gc=False, tag="hello"):
    """The first message of every connection."""

    protocol: str
    instance: str
    epoch: int
    seq: int
    server_time_us: int
    heartbeat_ms: int
    feeds: list[str]
    policy: str
    config_hash: str
    simulated: Mapping[str, Any] | None
    limits: Mapping[str, Any]
    worker: int | msgspec.UnsetType = msgspec.UNSET
    """Which of several processes on this port it came from; absent where there is one."""
    first_epoch: int | msgspec.UnsetType = msgspec.UNSET
    """In which the instance began: before its sequence 1 nothing was decided. Absent where not known."""


class AuthRequired(_Message, frozen=True, kw_only=True, gc=False, tag="auth_required"):
    """Before ``hello``: the client has shown no token, and must do so with its first message, ``auth``."""

    timeout_ms: int


class Rejected(msgspec.Struct, frozen=True, gc=False):
    feed: str
    code: str


class Subscribed(_Message, frozen=True, kw_only=True, gc=False, tag="subscribed"):
    """Answer to ``subscribe``. ``sub`` is null when no feed was accepted: then there is no subscription."""

    id: RequestId
    sub: int | None
    channel: str
    accepted: list[str]
    rejected: list[Rejected]
    recovered: bool | None
    """Whether a resume was complete; null when none was asked for."""
    received_us: int
    sent_us: int


class Unsubscribed(_Message, frozen=True, kw_only=True, gc=False, tag="unsubscribed"):
    id: RequestId
    sub: int


class Snapshot(_Message, frozen=True, kw_only=True, gc=False, tag="snapshot"):
    """All feeds of a subscription as they stand after batch ``seq``. Replaces whatever the client held."""

    sub: int
    epoch: int
    seq: int
    sent_us: int
    feeds: list[msgspec.Raw]


class Update(_Message, frozen=True, kw_only=True, gc=False, tag="update"):
    """What changed for a subscription. Something was lost exactly when ``prev_seq`` is greater than what is held."""

    sub: int
    epoch: int
    seq: int
    prev_seq: int
    sent_us: int
    conflated: bool
    replayed: bool
    feeds: list[msgspec.Raw]
    journaled: bool | msgspec.UnsetType = msgspec.UNSET
    """Present, and false, when something in it could not be written to the journal."""


class Heartbeat(_Message, frozen=True, kw_only=True, gc=False, tag="heartbeat"):
    """Sent at a fixed cadence for every subscription. ``seq`` is the last one sent to it."""

    sub: int
    epoch: int
    seq: int
    server_time_us: int
    not_live: list[str]
    digest: str


class Config(_Message, frozen=True, kw_only=True, gc=False, tag="config"):
    """The configuration was reloaded."""

    epoch: int
    seq: int
    policy: str
    config_hash: str
    feeds: list[str]
    simulated: Mapping[str, Any] | None


class Pong(_Message, frozen=True, kw_only=True, gc=False, tag="pong"):
    id: RequestId
    received_us: int
    sent_us: int


class Error(_Message, frozen=True, kw_only=True, gc=False, tag="error"):
    id: RequestId
    code: str
    message: str


class GoAway(_Message, frozen=True, kw_only=True, gc=False, tag="goaway"):
    """The server will close this connection at once; come back after ``retry_after_ms``."""

    reason: str
    retry_after_ms: int


class AlertEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One alert. Channel ``alerts``; ``docs/alerts.md`` has the kinds."""

    id: str
    """Of kind, feed and sources: the same whenever this goes wrong, in every run."""
    occurrence: str
    """This time: id and start. Deduplicate by it."""
    kind: str
    feed: str | None
    """Null: of no single feed."""
    sources: list[str]
    severity: str
    started_us: int
    told_us: int
    ended_us: int | None
    summary: str
    evidence: dict[str, Any]
    """What stands behind it: value and threshold, the inputs, ages, distances; of a group its feeds."""


class AlertChange(msgspec.Struct, frozen=True, gc=False):
    """An alert that begins (``firing``), gets worse (``escalated``) or ends (``resolved``)."""

    change: str
    at_us: int
    alert: AlertEntry


class Alerts(_Message, frozen=True, kw_only=True, gc=False, tag="alerts"):
    """All alerts that are open for a subscription. Replaces whatever the client held."""

    sub: int
    epoch: int
    n: int
    sent_us: int
    open: list[msgspec.Raw]


class AlertMessage(_Message, frozen=True, kw_only=True, gc=False, tag="alert"):
    """One change of one alert. Something was lost exactly when ``prev_n`` is greater than the ``n`` that is held."""

    sub: int
    epoch: int
    n: int
    """Number of the change in this epoch."""
    prev_n: int
    sent_us: int
    at_us: int
    change: str
    alert: msgspec.Raw


ServerMessage: TypeAlias = (
    Hello | AuthRequired | Subscribed | Unsubscribed | Snapshot | Update | Heartbeat | Config | Pong | Error | GoAway
) | (Alerts | AlertMessage)

encode = msgspec.json.Encoder().encode
"""Any message or entry to JSON bytes."""
server_message_decoder: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
"""A server's message from JSON; entries of ``feeds`` stay raw, for :data:`feed_entry_decoder`."""
feed_entry_decoder = msgspec.json.Decoder(FeedEntry)


# What a client sends.


class Resume(msgspec.Struct, frozen=True, gc=False):
    """The last ``(epoch, seq)`` that the client holds, and of which instance."""

    epoch: Annotated[int, msgspec.Meta(ge=0, le=MAX_SAFE_INTEGER)]
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SAFE_INTEGER)]
    instance: str | None = None


class Subscribe(_Message, frozen=True, kw_only=True, gc=False, tag="subscribe"):
    feeds: list[Any]
    """Names, or ``["*"]`` for all feeds, also those that are added later. Refused one by one, by name."""
    id: RequestId = None
    channel: str = "prices"
    mode: Literal["latest", "all"] = "latest"
    detail: Literal["price", "full"] = "price"
    max_hz: Annotated[float, msgspec.Meta(ge=0.001, le=1000)] | None = None
    max_age_ms: Annotated[int, msgspec.Meta(ge=1, le=86_400_000)] | None = None
    resume: Resume | None = None


class Unsubscribe(_Message, frozen=True, kw_only=True, gc=False, tag="unsubscribe"):
    sub: int
    id: RequestId = None


class Auth(_Message, frozen=True, kw_only=True, gc=False, tag="auth"):
    """The first message of a client that could show its token in no other way. Answered by ``hello``."""

    token: Annotated[str, msgspec.Meta(max_length=4_096)]
    id: RequestId = None

    def __repr__(self) -> str:
        return "Auth(token=…)"


class Ping(_Message, frozen=True, kw_only=True, gc=False, tag="ping"):
    id: RequestId = None


ClientMessage: TypeAlias = Subscribe | Unsubscribe | Ping | Auth

_client_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)


class _OnlyId(msgspec.Struct):
    id: RequestId = None


_decode_id = msgspec.json.Decoder(_OnlyId).decode


def parse_client_message(text: str) -> ClientMessage:
    """Read one message of a subscriber. Keys that it does not know are ignored.

    Raises:
        StreamError: with the :class:`ErrorCode` to answer with, and a message that names the field.
    """
    try:
        return _client_decoder.decode(text)
    except msgspec.ValidationError as error:
        message = str(error)
        unknown = message.startswith("Invalid value") and message.endswith("`$.type`")
        raise StreamError(ErrorCode.UNKNOWN_TYPE if unknown else ErrorCode.BAD_MESSAGE, message[:200]) from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise StreamError(ErrorCode.BAD_JSON, str(error)[:200]) from None
    except RecursionError:
        raise StreamError(ErrorCode.BAD_JSON, "nested too deeply") from None


def request_id(text: str) -> RequestId:
    """The id of a message that could not be read, where it has a usable one, so that the error can name it."""
    try:
        return _decode_id(text).id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


# How decisions are shown.


class View(msgspec.Struct, frozen=True, gc=False):
    """What of a decision still holds at one instant."""

    ended: ViewReason | None
    """Why it no longer holds: then it is shown as ``none``."""
    valid_until_us: int | None


_LEASE_OVER = View(ViewReason.LEASE_OVER, None)
_MAX_AGE = View(ViewReason.MAX_AGE, None)


def recency_us(decision: Decision) -> int:
    """The earlier of publish time and receipt of the chosen update: what its age is counted from."""
    publish_us = decision.publish_us or 0
    for entry in decision.inputs:
        held = entry.held or entry.withheld
        if entry.source == decision.source and held is not None:
            return min(publish_us, held.received_us)
    return publish_us


def view(decision: Decision, now_us: int, max_age_us: int | None = None) -> View:
    """What of a decision holds at ``now_us`` for somebody who takes no price older than ``max_age_us``.

    A lease ends *at* ``valid_until_us``: from that instant on the decision is no longer shown as a price, even if the
    next one is not made yet.
    """
    until_us = decision.valid_until_us
    if until_us is not None and now_us >= until_us:
        return _LEASE_OVER
    if max_age_us is None or decision.mantissa is None:
        return View(None, until_us)
    too_old_us = recency_us(decision) + max_age_us + 1
    if now_us >= too_old_us:
        return _MAX_AGE
    return View(None, too_old_us if until_us is None else min(until_us, too_old_us))


class Merge(msgspec.Struct, gc=False):
    """What happened to one feed while its subscriber was not told."""

    n: int = 0
    low: int | None = None
    high: int | None = None
    was_none: bool = False

    def add(self, decision: Decision, max_age_us: int | None = None) -> None:
        """Take one decision in, for somebody who takes no price older than ``max_age_us``: one that was older when it
        was decided was none to it."""
        self.n += 1
        mantissa = decision.mantissa
        if mantissa is None or (max_age_us is not None and decision.decided_us - recency_us(decision) > max_age_us):
            self.was_none = True
            return
        self.low = mantissa if self.low is None else min(self.low, mantissa)
        self.high = mantissa if self.high is None else max(self.high, mantissa)


def _text(mantissa: int | None) -> str | None:
    return None if mantissa is None else str(mantissa)


def feed_entry(decision: Decision, shown: View, *, full: bool = False, merge: Merge | None = None) -> FeedEntry:
    """The wire form of a decision as ``shown``. With ``full`` every input is in it, with ``merge`` what was missed."""
    ended = shown.ended is not None
    return FeedEntry(
        feed=decision.feed,
        state=State.NONE.value if ended else decision.state.value,
        price=None if ended else _text(decision.mantissa),
        expo=decision.expo,
        conf=None if ended else _text(decision.conf),
        source=None if ended else decision.source,
        rule="R3" if ended else decision.rule.value,
        reason=shown.ended.value if shown.ended is not None else decision.reason.value,
        publish_time_us=None if ended else decision.publish_us,
        decided_us=decision.decided_us,
        valid_until_us=shown.valid_until_us,
        n=msgspec.UNSET if merge is None else merge.n,
        low=msgspec.UNSET if merge is None else _text(merge.low),
        high=msgspec.UNSET if merge is None else _text(merge.high),
        was_none=msgspec.UNSET if merge is None else merge.was_none or ended,
        inputs=input_entries(decision) if full else msgspec.UNSET,
    )


def input_entries(decision: Decision) -> dict[str, InputEntry]:
    """The inputs of a decision by source, roles first, as :mod:`oracle_hub.core.licence` lets them leave.

    ``age_ms`` is as of the decision.
    """
    base = decision.mantissa
    if base is None and decision.inputs and decision.inputs[0].held is not None:
        base = decision.inputs[0].held.mantissa
    entries = {}
    for entry in decision.inputs:
        price = None if entry.held is None else entry.held.mantissa
        held = entry.held or entry.withheld
        distance: float | None = entry.apart_bps
        if distance is None and price is not None and base is not None:
            distance = divergence_bps(price, base)
        entries[entry.source] = InputEntry(
            role=entry.role,
            status=entry.status.value,
            price=_text(price),
            publish_time_us=None if held is None else held.publish_us,
            received_us=None if held is None else held.received_us,
            age_ms=None if held is None else (decision.decided_us - min(held.publish_us, held.received_us)) // 1000,
            divergence_bps=distance,
            account=None if held is None else held.account,
            slot=None if held is None or not held.slot else held.slot,
            transport=None if held is None else held.transport,
            verified=held is not None and held.verified,
            withheld=msgspec.UNSET if entry.withheld is None else WITHHELD,
        )
    return entries


# The digest of a heartbeat.


def digest_line(feed: str, state: str, price: str | None, valid_until_us: int | None, now_us: int) -> str:
    """One feed's line of the digest at ``now_us``: a lease that is over counts as ``none`` without price and lease."""
    if valid_until_us is not None and now_us >= valid_until_us:
        return f"{feed}\0none\0\0\n"
    return f"{feed}\0{state}\0{price or ''}\0{'' if valid_until_us is None else valid_until_us}\n"


def digest(lines: Iterable[str]) -> str:
    """16 hex digits: BLAKE2b (8 bytes) over the UTF-8 of the sorted lines of :func:`digest_line`.

    Server and client compute it over the feeds of a subscription at the heartbeat's ``server_time_us``, leaving out
    feeds whose reason is ``removed``. Where it differs, the client missed something and must subscribe again.
    """
    return blake2b("".join(sorted(lines)).encode(), digest_size=8).hexdigest()


def is_removed(decision: Decision) -> bool:
    """Whether this is the last word on a feed that left the configuration."""
    return decision.reason is Reason.REMOVED
