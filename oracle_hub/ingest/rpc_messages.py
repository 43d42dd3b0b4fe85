"""The few JSON-RPC messages of a Solana node that the hub speaks, as bytes and values.

Shapes: Solana's RPC documentation, methods ``getGenesisHash``, ``getMultipleAccounts``, ``accountSubscribe``,
``accountUnsubscribe``, ``slotSubscribe``. Notifications are decoded with ``msgspec`` into the fields that are needed
(it checks their types and skips the rest), everything rare with ``orjson``.
"""

from binascii import a2b_base64
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec
import orjson

from oracle_hub.core.source import Account, Condition, Frame

MAX_SLOT = 2**63 - 1
SYSTEM_PROGRAM = "11111111111111111111111111111111"
"""Owner of an account that does not exist."""
RATE_LIMIT_CODES = frozenset({-32005, -32429, 429})
MIN_CONTEXT_SLOT_CODE = -32016
"""The node has not reached ``minContextSlot`` yet."""


class _Context(msgspec.Struct, gc=False):
    slot: int


class AccountValue(msgspec.Struct, gc=False):
    """One account as it stands in an answer; lamports, rent epoch and space are of no use here."""

    owner: str
    data: tuple[str, str]
    """Text and the name of its encoding."""

    def content(self) -> bytes:
        """The account's bytes.

        Raises:
            ValueError: another encoding than asked for, or not base64.
        """
        text, encoding = self.data
        if encoding != "base64":
            raise ValueError(f"encoding is {encoding[:20]!r}, expected base64")
        return a2b_base64(text, strict_mode=True)


class _Result(msgspec.Struct, gc=False):
    context: _Context
    value: AccountValue


class _Params(msgspec.Struct, gc=False):
    result: _Result
    subscription: int


class Notification(msgspec.Struct, gc=False):
    """An ``accountNotification``: ``params.subscription``, ``params.result.context.slot``, ``params.result.value``."""

    params: _Params


def snapshot_of(result: object, count: int) -> tuple[int, list[object]]:
    """Slot and values of an answer to ``getMultipleAccounts`` for so many addresses.

    Raises:
        ValueError: it is none.
    """
    try:
        if not isinstance(result, dict):
            raise TypeError
        slot, values = result["context"]["slot"], result["value"]
        if type(slot) is not int or not 0 <= slot <= MAX_SLOT or len(values) != count:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"getMultipleAccounts answered without context.slot and {count} values") from None
    return slot, values


def state_of(pubkey: str, value: object, slot: int) -> Account | int:
    """One of these values: an account, or the slot at which there is none.

    Raises:
        ValueError: it is no account.
    """
    if value is None:
        return slot
    try:
        decoded = msgspec.convert(value, AccountValue)
        content = decoded.content()
    except NOT_A_NOTIFICATION as error:
        raise ValueError(f"account {pubkey} in a snapshot: {plain_text(error)}") from None
    return Account(pubkey, decoded.owner, slot, content) if content or decoded.owner != SYSTEM_PROGRAM else slot


class Problem(msgspec.Struct, frozen=True):
    """Why a request has no result."""

    condition: Condition
    text: str
    retry_after_us: int = 0
    behind: bool = False
    """The node answered that it has not reached the slot asked for."""
    down: bool = False
    """There was no answer, or none of the node's own (HTTP 5xx)."""


decode_notification = msgspec.json.Decoder(Notification).decode
NOT_A_NOTIFICATION = (msgspec.MsgspecError, ValueError, RecursionError)


def call(request_id: int, method: str, params: Sequence[object] = ()) -> bytes:
    """One JSON-RPC 2.0 request."""
    return orjson.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": list(params)})


def subscribe_text(request_id: int, pubkey: str, commitment: str) -> str:
    """``accountSubscribe``, put together by hand: there is one for each account at each attempt to connect."""
    config = f'{{"encoding":"base64","commitment":"{commitment}"}}'
    return f'{{"jsonrpc":"2.0","id":{request_id},"method":"accountSubscribe","params":["{pubkey}",{config}]}}'


def snapshot_call(request_id: int, pubkeys: Sequence[str], commitment: str, min_slot: int) -> bytes:
    """``getMultipleAccounts``, refusing an answer from a node that is behind ``min_slot`` (0: any)."""
    config: dict[str, object] = {"encoding": "base64", "commitment": commitment}
    if min_slot:
        config["minContextSlot"] = min_slot
    return call(request_id, "getMultipleAccounts", [list(pubkeys), config])


def secrets_of(*urls: str) -> tuple[str, ...]:
    """The parts of URLs in which providers put their keys: path segments, query values, user information."""
    found: set[str] = set()
    for url in urls:
        parts = urlsplit(url)
        found.update(segment for segment in parts.path.split("/") if len(segment) >= 8)
        found.update(pair.rpartition("=")[2] for pair in parts.query.split("&"))
        found.update((parts.username or "", parts.password or ""))
    return tuple(sorted((secret for secret in found if len(secret) >= 4), key=len, reverse=True))


def plain_text(text: object, secrets: Sequence[str] = ()) -> str:
    """What a server said, fit for a log: one line, at most 200 characters, without our own secrets."""
    line = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    for secret in secrets:
        line = line.replace(secret, "…")
    line = "".join(letter if letter.isprintable() else " " for letter in line[:400])
    return " ".join(line.split())[:200]


def rpc_problem(error: object, secrets: Sequence[str]) -> Problem:
    """Name the ``error`` member of a JSON-RPC answer. ``data`` may be absent or null and is not needed."""
    code = error.get("code") if isinstance(error, dict) else None
    message = plain_text(error.get("message", "") if isinstance(error, dict) else error, secrets)
    text = f"RPC error {plain_text(code)}: {message}"
    if code == MIN_CONTEXT_SLOT_CODE:
        return Problem(Condition.LOST, text, behind=True)
    if type(code) is int and code in RATE_LIMIT_CODES and "behind" not in message.lower():
        return Problem(Condition.RATE_LIMITED, text)
    return Problem(Condition.LOST, text)


def http_result(frame: Frame, secrets: Sequence[str]) -> object | Problem:
    """The ``result`` member of an answer over HTTP, or why there is none."""
    after_us = frame.retry_after_ms * 1_000
    if frame.status == 0:
        return Problem(Condition.LOST, f"no answer: {plain_text(frame.data, secrets)}", after_us, down=True)
    if frame.status in (401, 403):
        text = f"HTTP {frame.status}, key refused or not entitled: {plain_text(frame.data, secrets)}"
        return Problem(Condition.NOT_ENTITLED, text, after_us)
    if frame.status == 429:
        return Problem(Condition.RATE_LIMITED, f"HTTP 429: {plain_text(frame.data, secrets)}", after_us)
    down = frame.status >= 500
    try:
        message = orjson.loads(frame.data)
    except orjson.JSONDecodeError:
        text = f"HTTP {frame.status}, not JSON: {plain_text(frame.data[:100], secrets)}"
        return Problem(Condition.LOST, text, after_us, down=down)
    if isinstance(message, dict):
        if message.get("error") is not None:
            problem = rpc_problem(message["error"], secrets)
            return msgspec.structs.replace(problem, retry_after_us=after_us, down=down)
        if frame.status == 200 and "result" in message:
            result: object = message["result"]
            return result
    return Problem(Condition.LOST, f"HTTP {frame.status} without a result", after_us, down=down)
