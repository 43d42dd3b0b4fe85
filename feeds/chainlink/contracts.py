"""What Chainlink's proxies and aggregators say on an EVM chain: calls, answers and events.

Source: AggregatorV3Interface, AggregatorProxy and the OCR aggregators of Chainlink's public contracts. A proxy's round
id is ``phase << 64 | round of the aggregator``; events carry the aggregator's own round. The ABI is decoded by eth-abi,
web3's own codec, which comes with the extra ``oracle-hub[evm]``.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from feeds.signatures import keccak256
from oracle_hub.core.price import INT64_MAX
from oracle_hub.errors import ConfigError, DecodeError

try:
    from eth_abi.abi import decode as abi_decode
    from eth_abi.exceptions import DecodingError
except ImportError:
    raise ConfigError(
        "kind chainlink.evm needs the library eth-abi; install it with: pip install 'oracle-hub[evm]'"
    ) from None

_WORD = 32
_PHASE_SHIFT = 64


def selector(signature: str) -> str:
    """What calls a function without arguments, in hex: ``selector("decimals()") == "0x313ce567"``."""
    return "0x" + keccak256(signature.encode())[:4].hex()


def topic(signature: str) -> str:
    """The first topic of an event, in hex."""
    return "0x" + keccak256(signature.encode()).hex()


AGGREGATOR, PHASE_ID, DECIMALS, DESCRIPTION, LATEST_ROUND_DATA = (
    selector(f"{name}()") for name in ("aggregator", "phaseId", "decimals", "description", "latestRoundData")
)
ANSWER_UPDATED = topic("AnswerUpdated(int256,uint256,uint256)")
NEW_TRANSMISSION_OCR2 = topic(
    "NewTransmission(uint32,int192,address,uint32,int192[],bytes,int192,bytes32,uint40)"
)  # fmt: skip
EVENTS = (ANSWER_UPDATED, NEW_TRANSMISSION_OCR2)
"""Topics that are subscribed to. OCR1 reports carry no time of observation, so that their event is of no use."""


class Round(msgspec.Struct, frozen=True):
    """One answer of a feed."""

    round_id: int
    """As the proxy counts: phase and round."""
    answer: int
    """Raw, at the contract's decimals; may be anything that an int256 can be."""
    started_at: int
    """Unix seconds; of a sequencer's uptime feed, when its state changed."""
    updated_at: int
    """Unix seconds of the block that brought it; 0: there was none yet."""

    @property
    def phase(self) -> int:
        """Number of the aggregator behind the proxy, from 1."""
        return self.round_id >> _PHASE_SHIFT


class AnswerUpdated(msgspec.Struct, frozen=True):
    """An aggregator has a new answer."""

    answer: int
    round: int
    """The aggregator's own, without phase."""
    updated_at: int


class Transmission(msgspec.Struct, frozen=True):
    """An OCR2 report came in: the same answer, with the time when it was observed."""

    answer: int
    round: int
    observed_at: int
    """Unix seconds, the median of the observers' clocks."""


class Log(msgspec.Struct, rename="camel"):
    """A log as a node tells it. Numbers are hexadecimal text."""

    address: str
    topics: list[str]
    data: str
    block_hash: str | None = None
    block_number: str | None = None
    transaction_hash: str | None = None
    log_index: str | None = None
    removed: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """The same wherever and however often a node tells it."""
        return (self.block_hash or "", self.log_index or "")


def proxy_round(phase: int, round_of_aggregator: int) -> int:
    """The id under which a proxy shows a round of the aggregator of a phase."""
    return phase << _PHASE_SHIFT | round_of_aggregator


def quantity(text: str | None, what: str) -> int:
    """A number as JSON-RPC writes it (``0x1f``).

    Raises:
        DecodeError: anything else, or more than int64 holds.
    """
    try:
        if text is not None and text.startswith("0x") and len(text) > 2 and "_" not in text:
            number = int(text, 16)
            if number <= INT64_MAX:
                return number
    except ValueError:
        pass
    raise DecodeError(f"{what} is no number in hex: {str(text)[:80]!r}")


def _bytes(text: str, what: str) -> bytes:
    try:
        if text.startswith("0x"):
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    raise DecodeError(f"{what} is not hex: {text[:80]!r}")


def _decoded(types: Sequence[str], data: bytes, what: str) -> Sequence[Any]:
    """Values by eth-abi, whatever is wrong with the bytes being one error."""
    try:
        return abi_decode(types, data)
    except (DecodingError, OverflowError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise DecodeError(f"{what}: {type(error).__name__} in {len(data)} bytes of ABI") from None


def decode_round(text: str) -> Round:
    """The answer of ``latestRoundData()``. Raises DecodeError."""
    values = _decoded(("uint80", "int256", "uint256", "uint256", "uint80"), _bytes(text, "result"), "latestRoundData")
    return Round(*values[:4])


def decode_number(text: str, kind: str, what: str) -> int:
    """The answer of a call that gives one number of ABI type ``kind``. Raises DecodeError."""
    return int(_decoded((kind,), _bytes(text, "result"), what)[0])


def decode_address(text: str, what: str) -> str:
    """The answer of a call that gives an address, in lower case. Raises DecodeError."""
    return str(_decoded(("address",), _bytes(text, "result"), what)[0]).lower()


def decode_text(text: str, what: str) -> str:
    """The answer of a call that gives text. Raises DecodeError."""
    return str(_decoded(("string",), _bytes(text, "result"), what)[0])


def decode_log(log: Log) -> AnswerUpdated | Transmission | None:
    """The event that a log holds; None for one that is not ours.

    Raises:
        DecodeError: one of ours with other topics or data than its kind has.
    """
    if not log.topics:
        return None
    kind, *indexed = log.topics
    data = _bytes(log.data, "data of a log")
    if kind == ANSWER_UPDATED:
        answer, number = (_topic(indexed, at, what, "AnswerUpdated") for at, what in ((0, "int256"), (1, "uint256")))
        (updated_at,) = _decoded(("uint256",), data, "AnswerUpdated")
        return AnswerUpdated(answer, number, updated_at)
    if kind == NEW_TRANSMISSION_OCR2:
        number = _topic(indexed, 0, "uint32", "NewTransmission")
        # The head of the tuple is all that is wanted; what follows it are the single observations.
        answer, _, observed_at = _decoded(("int192", "address", "uint32"), data, "NewTransmission")
        return Transmission(answer, number, observed_at)
    return None


def _topic(indexed: Sequence[str], at: int, kind: str, what: str) -> int:
    if len(indexed) <= at:
        raise DecodeError(f"{what}: topic {at + 1} is missing")
    data = _bytes(indexed[at], f"{what}: topic {at + 1}")
    if len(data) != _WORD:
        raise DecodeError(f"{what}: topic {at + 1} has {len(data)} bytes, not {_WORD}")
    return int(_decoded((kind,), data, what)[0])
