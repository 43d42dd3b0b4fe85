"""JSON-RPC as EVM nodes speak it over a websocket: requests, answers, notifications.

Source: JSON-RPC 2.0 and Ethereum's execution API (``eth_subscribe``, ``eth_call``, ``eth_getLogs``).
"""

import msgspec
import orjson

from feeds.chainlink.contracts import Log, quantity
from oracle_hub.core.source import Send
from oracle_hub.errors import DecodeError

_NEVER = 2**63 - 1


class Call(msgspec.Struct, frozen=True):
    """A request that has no answer yet."""

    what: str
    proxy: str
    """Whom it is about; empty: the node."""
    sent_us: int


class Head(msgspec.Struct, rename="camel"):
    """The header of a block, as far as it shows that the chain goes on."""

    number: str
    hash: str
    parent_hash: str


class NodeError(msgspec.Struct):
    """Why a node did not answer."""

    code: int = 0
    message: str = ""


class _Notification(msgspec.Struct):
    result: msgspec.Raw


_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Message(msgspec.Struct):
    """One message of a node: an answer (``id``), or a notification (``params``)."""

    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: NodeError | None = None
    params: _Notification | None = None

    @classmethod
    def of(cls, data: bytes) -> "Message":
        """Raises DecodeError: no JSON, or no message of JSON-RPC."""
        try:
            return _MESSAGE.decode(data)
        except _BROKEN as error:
            raise DecodeError(f"no JSON-RPC: {str(error)[:200]}") from None


_MESSAGE = msgspec.json.Decoder(Message)
_LOG = msgspec.json.Decoder(Log)
_LOGS = msgspec.json.Decoder(list[Log])
_HEAD = msgspec.json.Decoder(Head)
_TEXT = msgspec.json.Decoder(str)


def request(number: int, method: str, params: list[object]) -> Send:
    """A request; its answer carries ``number``."""
    return Send(orjson.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).decode())


def text_of(result: msgspec.Raw) -> str:
    """A result that is text. Raises DecodeError."""
    try:
        return _TEXT.decode(result)
    except _BROKEN:
        raise DecodeError("the result is no text") from None


def logs_of(result: msgspec.Raw) -> list[Log]:
    """A result that is a list of logs. Raises DecodeError."""
    try:
        return _LOGS.decode(result)
    except _BROKEN:
        raise DecodeError("the result is no list of logs") from None


def log_or_head(result: msgspec.Raw) -> Log | Head:
    """What a subscription tells. Raises DecodeError."""
    try:
        return _LOG.decode(result)
    except _BROKEN:
        pass
    try:
        return _HEAD.decode(result)
    except _BROKEN:
        raise DecodeError("a notification that is neither a log nor a block") from None


class NodeLimits(msgspec.Struct, frozen=True):
    """Patience of a link."""

    silence_us: int = 8_000_000
    """Without any frame for half of it the node is asked for its height, after all of it the session ends."""
    head_silence_us: int = 90_000_000
    """A node that answers and has no new block for so long has lost its chain."""
    check_every_us: int = 60_000_000
    """How often proxies are asked for their aggregator and their latest answer."""
    answer_timeout_us: int = 5_000_000
    second_look_us: int = 2_000_000
    """When to ask again after a refusal or a contradiction."""
    refused_retry_us: int = 60_000_000
    """Wait after the wrong chain, and after refused credentials."""
    sequencer_grace_us: int = 3_600_000_000
    backfill_blocks: int = 1_000
    """How far back logs are asked for at most."""


class Session(msgspec.Struct):
    """One websocket to a node: what was asked, when it was heard, and how its chain goes on."""

    heard_us: int
    head_us: int = 0
    probed: bool = False
    """Asked whether it still lives, since it was heard."""
    right_chain: bool = False
    height: int = 0
    head: Head | None = None
    calls: dict[int, Call] = {}
    """By id; the oldest first."""

    def __post_init__(self) -> None:
        self.head_us = self.head_us or self.heard_us

    def hear(self, received_us: int) -> None:
        """Anything came."""
        self.heard_us, self.probed = received_us, False

    def next_deadline(self, limits: NodeLimits) -> int:
        """When silence, a missing answer or a missing block will matter."""
        quiet_us = self.heard_us + (limits.silence_us if self.probed else limits.silence_us // 2)
        oldest_us = next((call.sent_us for call in self.calls.values()), _NEVER - limits.answer_timeout_us)
        return min(quiet_us, oldest_us + limits.answer_timeout_us, self.head_us + limits.head_silence_us)

    def unanswered(self, now_us: int, limits: NodeLimits) -> list[Call]:
        """Take out the requests that waited too long."""
        late = [number for number, call in self.calls.items() if now_us - call.sent_us >= limits.answer_timeout_us]
        return [self.calls.pop(number) for number in late]

    def quiet(self, now_us: int, limits: NodeLimits) -> bool:
        """Whether it is time to ask if the node still lives; true once for each silence."""
        if self.probed or now_us - self.heard_us < limits.silence_us // 2:
            return False
        self.probed = True
        return True

    def take_head(self, head: Head, received_us: int) -> bool:
        """Take a new block; whether it does not continue the one before: the chain was reorganised.

        Raises:
            DecodeError: its number is none.
        """
        number, before = quantity(head.number, "number of a block"), self.head
        self.head, self.head_us = head, received_us
        if before is not None and before.hash != head.hash:
            last = quantity(before.number, "number of a block")
            if number <= last or (number == last + 1 and head.parent_hash != before.hash):
                self.height = number
                return True
        self.height = max(self.height, number)
        return False
