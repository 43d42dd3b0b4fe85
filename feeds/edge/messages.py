"""Edge's REST messages: single prices and batches, signed for Solana (SVM) or for EVM chains.

Sources: Edge's API reference; for the signed bytes the programs that check them, Adrena's ``chaos_labs_oracle`` (SVM)
and GMX's ``EdgeDataStreamVerifier`` (EVM).

- SVM: each price is 49 bytes (feed 32, price u64, exponent i8, time i64, little endian), a batch is its prices one
  after the other in the order of the answer; keccak256, secp256k1, ``recoveryId`` beside it. A feed is a number (one
  byte; the API's reference types it as text, too) or a zero-padded name; the layout of names is presumed from the
  accounts, no signer of one is known.
- EVM: keccak256 over seven words: keccak256(feed), price, negated exponent, round, time, bid, ask; 65 bytes r, s, v.
  The answers of the REST API leave out round, bid and ask: these can be read and not verified. The contract recovers
  by OpenZeppelin's ``ECDSA``, which refuses the second of the two signatures that anybody can make of one: its s is in
  the upper half of the order (EIP-2).

``ts`` is in seconds in all real messages and in milliseconds in a part of the documentation: told apart by magnitude.
The value as it stands is what was signed.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, Literal, NoReturn, TypeAlias

import msgspec

from feeds.layout import json_value, pad32
from feeds.signatures import keccak256, recover, recover_key
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Mode, Signer, Verdict, Why
from oracle_hub.core.price import rescale
from oracle_hub.errors import DecodeError

Kind: TypeAlias = Literal["edge.svm", "edge.evm"]
SVM: Final = "edge.svm"
EVM: Final = "edge.evm"
MAX_BYTES = 2**20
MAX_PRICES = 1_024
MILLISECONDS_FROM = 10**11
"""A time from here on is in milliseconds: as seconds it would be in the year 5138."""
_MAX_TS = (2**63 - 1) // 1_000
_ENTRY = Struct("<32sQbq")
_WORD = 32
_HALF_ORDER = 0x7FFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_5D576E73_57A4501D_DFE92F46_681B20A0
"""Half the order of secp256k1, rounded down (SEC 2, section 2.4.1)."""


class EdgePrice(msgspec.Struct, frozen=True, gc=False):
    """One price, as it stands in a message. ``round_id``, ``bid`` and ``ask`` are of the EVM form only."""

    feed_id: str | int
    price: int
    expo: int
    ts: int
    round_id: int | None = None
    bid: int | None = None
    ask: int | None = None

    @property
    def publish_us(self) -> int:
        """Time of the observation."""
        return self.ts * (1_000 if self.ts > MILLISECONDS_FROM else 1_000_000)

    def mantissa(self, expo: int) -> int:
        """The price at a feed's exponent.

        Raises:
            PriceError: not positive, or beyond int64.
        """
        return rescale(self.price, self.expo, expo)

    def fields(self) -> dict[str, object]:
        """Ready for JSON: the common keys, and the message's own time."""
        out: dict[str, object] = {
            "price": str(self.price),
            "expo": self.expo,
            "publish_time_us": json_value(self.publish_us),
            "feed_id": self.feed_id,
            "ts": json_value(self.ts),
        }
        if self.round_id is not None:
            out["round_id"] = self.round_id
        return out | {name: str(value) for name, value in (("bid", self.bid), ("ask", self.ask)) if value is not None}


class EdgeMessage(msgspec.Struct, frozen=True):
    """Prices under one signature."""

    kind: Kind
    prices: tuple[EdgePrice, ...]
    signed: bytes | None
    """What the digest is of; None when the message does not hold all of it."""
    signature: bytes
    """r and s; empty when there is none."""
    recovery_id: int

    def digest(self) -> bytes | None:
        """The 32 bytes that were signed, as far as they are known."""
        return None if self.signed is None else keccak256(self.signed)

    @property
    def mirrored(self) -> bool:
        """Whether the signature is the one of two that EVM contracts refuse."""
        return self.kind == EVM and int.from_bytes(self.signature[_WORD:], "big") > _HALF_ORDER

    def signer(self) -> bytes | None:
        """Who made the signature: for SVM the compressed key, for EVM the address; None for nobody that counts."""
        digest = self.digest()
        if digest is None or not self.signature or self.mirrored:
            return None
        by = recover_key if self.kind == SVM else recover
        return by(digest, self.signature, self.recovery_id)


def decode(kind: Kind, data: bytes) -> tuple[EdgeMessage, ...]:
    """Read an answer of the API: one message, or several that are signed one by one.

    Args:
        kind: which form it is signed in.
        data: JSON (a price, a list of prices, or an object with ``prices``); for EVM also the ABI encoding that goes to
            a contract.

    Raises:
        DecodeError: nothing of the kind, or a value that its signed form has no room for.
    """
    if len(data) > MAX_BYTES:
        _refuse(kind, 0, f"expected at most {MAX_BYTES} bytes, found {len(data)}")
    if kind == EVM and data[:1] == b"\0":
        return (_from_abi(data),)
    if not data.lstrip().startswith((b"{", b"[")):
        _refuse(kind, 0, "expected the API's JSON" + (" or its ABI encoding" if kind == EVM else ""))
    try:
        answer = msgspec.json.decode(data, type=_Answer | list[_Entry])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _refuse(kind, 0, f"expected the API's JSON: {' '.join(str(error).split())[:200]}")
    return _messages(kind, answer)


def feed_id_of(feed: str) -> str:
    """Edge's name of a feed: ``SOLUSD`` of ``SOL/USD``."""
    return feed.replace("/", "").upper()


def signed_svm(prices: Sequence[EdgePrice]) -> bytes:
    """What is signed for Solana, 49 bytes a price.

    Raises:
        DecodeError: a value has no room in its field.
    """
    return b"".join(map(_svm_entry, prices))


def signed_evm(price: EdgePrice) -> bytes | None:
    """The seven words that are signed for EVM chains; None when round, bid or ask is missing.

    Raises:
        DecodeError: a value has no room in its field.
    """
    if price.round_id is None or price.bid is None or price.ask is None:
        return None
    name = price.feed_id if isinstance(price.feed_id, str) else str(price.feed_id)
    numbers = (
        ("price", price.price, 192),
        ("expo, negated,", -price.expo, 31),
        ("roundId", price.round_id, 32),
        ("timestamp", price.ts, 32),
        ("bid", price.bid, 256),
        ("ask", price.ask, 256),
    )
    for what, number, bits in numbers:
        if not 0 <= number < 1 << bits:
            _refuse(EVM, 0, f"expected {what} to fit uint{bits}, found {number}")
    return keccak256(name.encode()) + b"".join(number.to_bytes(_WORD, "big") for _, number, _ in numbers)


def check(
    messages: Sequence[EdgeMessage],
    sets: SignerSets,
    *,
    at_us: int | None = None,
    mode: Mode,
    signer: Callable[[EdgeMessage], bytes | None] = EdgeMessage.signer,
) -> Verdict:
    """Check messages against signer sets: the first that is not verified decides.

    Args:
        messages: of one kind, as :func:`decode` gives them; at least one.
        sets: who may sign; a set's group is a name for people.
        at_us: when a set has to be in force: the time of the check, live. Absent: each message's oldest price.
        mode: how strict.
        signer: who made a message's signature, where that is remembered.
    """
    verdicts = [_check_one(one, sets, at_us, mode, signer) for one in messages]
    decides = next((one for one in verdicts if not one.verified), verdicts[0])
    return msgspec.structs.replace(decides, signers=tuple(signer for one in verdicts for signer in one.signers))


def fields(messages: Sequence[EdgeMessage]) -> dict[str, object]:
    """Everything, ready for JSON. A single price has its keys at the top, several are listed under ``prices``."""
    kind = messages[0].kind
    prices = [price.fields() for message in messages for price in message.prices]
    digests = [digest.hex() for message in messages if (digest := message.digest()) is not None]
    head = prices[0] if len(prices) == 1 else {}
    return {"kind": kind, **head, "prices": prices, "message_hashes": digests}


def _check_one(
    message: EdgeMessage,
    sets: SignerSets,
    at_us: int | None,
    mode: Mode,
    signer: Callable[[EdgeMessage], bytes | None],
) -> Verdict:
    names = "/".join(str(price.feed_id) for price in message.prices[:3])
    if not message.signature:
        return Verdict(Why.UNSIGNED, f"{names}: there is no signature", quorum=1)
    if message.signed is None:
        text = f"{names}: roundId, bid and ask are signed and are not in this form of the message"
        return Verdict(Why.INCOMPLETE, text, quorum=1)
    key = signer(message)
    if key is None:
        text = f"{names}: nobody can have made the signature"
        if message.mirrored:
            text = f"{names}: the signature's s is in the upper half of the order, which the contract refuses"
        return Verdict(Why.BAD_SIGNATURE, text, quorum=1, signers=(Signer(None, known=False),))
    named = [one for one in sets if one.kind == message.kind and key in one.keys]
    if not named:
        text = f"{names}: signed by {key.hex()}, which is not a known signer"
        return Verdict(Why.UNKNOWN_SIGNER, text, quorum=1, signers=(Signer(key, known=False),))
    at_us = min(price.publish_us for price in message.prices) if at_us is None else at_us
    judged = [(one, *_judge(one, at_us, mode)) for one in named]
    signer_set, why, detail = next((one for one in judged if one[1] is None), judged[0])
    until_us = None if signer_set.until_s is None else signer_set.until_s * 1_000_000
    return Verdict(why, f"{names}: {detail}", at_us, signer_set.name, until_us, 1, (Signer(key, known=True),))


def _judge(signer_set: SignerSet, at_us: int, mode: Mode) -> tuple[Why | None, str]:
    name = signer_set.name
    if not signer_set.proved and mode is Mode.STRICT:
        return Why.SIGNER_UNPROVED, f"nobody vouches for {name}: it was seen in public data and no more"
    if at_us < signer_set.from_s * 1_000_000:
        return Why.EARLY_SET, f"{name} begins at unix second {signer_set.from_s}"
    if signer_set.until_s is not None and at_us >= signer_set.until_s * 1_000_000:
        return Why.EXPIRED_SET, f"{name} ended at unix second {signer_set.until_s}"
    return None, f"signed by {name}"


def _refuse(kind: str, offset: int, text: str) -> NoReturn:
    raise DecodeError(f"{kind}: offset {offset}: {text}")


def _svm_entry(price: EdgePrice) -> bytes:
    feed = price.feed_id
    if isinstance(feed, str) and feed.isdigit():
        feed = int(feed)  # else number 49 and the name "1" were the same bytes, and one signature good for both
    if isinstance(feed, int):
        if not 0 <= feed < 256:
            _refuse(SVM, 0, f"expected feedId to fit one byte, found {feed}")
        raw = bytes((feed,)).ljust(_WORD, b"\0")
    else:
        raw = pad32(feed)
    for what, number, low, high in (
        ("price", price.price, 0, 1 << 64),
        ("expo", price.expo, -128, 128),
        ("ts", price.ts, 0, 1 << 63),
    ):
        if not low <= number < high:
            _refuse(SVM, 0, f"expected {what} within [{low}, {high}), found {number}")
    return _ENTRY.pack(raw, price.price, price.expo, price.ts)


_Number: TypeAlias = int | str
"""A number of the API's JSON: as one, or as decimal text."""


class _Entry(msgspec.Struct, rename="camel"):
    feed_id: str | int
    price: _Number
    expo: _Number
    ts: _Number | None = None
    timestamp: _Number | None = None
    """GMX's name of it."""
    round_id: _Number | None = None
    bid: _Number | None = None
    ask: _Number | None = None
    signature: str | None = None
    recovery_id: _Number | None = None


class _Answer(msgspec.Struct, rename="camel"):
    prices: list[_Entry] | None = None
    signature: str | None = None
    recovery_id: _Number | None = None
    feed_id: str | int | None = None
    price: _Number | None = None
    expo: _Number | None = None
    ts: _Number | None = None
    timestamp: _Number | None = None
    round_id: _Number | None = None
    bid: _Number | None = None
    ask: _Number | None = None

    def alone(self) -> _Entry | None:
        """The object as a single price."""
        if self.feed_id is None or self.price is None or self.expo is None:
            return None
        return _Entry(
            self.feed_id,
            self.price,
            self.expo,
            self.ts,
            self.timestamp,
            self.round_id,
            self.bid,
            self.ask,
            self.signature,
            self.recovery_id,
        )


def _messages(kind: Kind, answer: "_Answer | list[_Entry]") -> tuple[EdgeMessage, ...]:
    single = None if isinstance(answer, list) else answer.alone()
    entries = answer if isinstance(answer, list) else [single] if single is not None else answer.prices
    if not entries or len(entries) > MAX_PRICES:
        _refuse(kind, 0, f"expected 1 to {MAX_PRICES} prices, found {len(entries or ())}")
    prices = tuple(_price(kind, entry) for entry in entries)
    if single is None and isinstance(answer, _Answer) and answer.signature is not None:
        if kind == EVM:
            _refuse(kind, 0, "expected a signature with each price: batches are of the SVM form")
        return (_message(kind, prices, answer.signature, answer.recovery_id),)
    return tuple(
        _message(kind, (price,), entry.signature, entry.recovery_id)
        for price, entry in zip(prices, entries, strict=True)
    )


def _price(kind: Kind, entry: _Entry) -> EdgePrice:
    ts = _number(kind, entry.ts if entry.ts is not None else entry.timestamp)
    if ts is None or not 0 < ts <= _MAX_TS:
        _refuse(kind, 0, f"expected ts, a unix time, found {ts}")
    if isinstance(entry.feed_id, str) and not (0 < len(entry.feed_id) <= _WORD and entry.feed_id.isascii()):
        _refuse(kind, 0, f"expected a feedId of 1 to 32 ASCII characters, found {entry.feed_id[:80]!r}")
    price, expo = _number(kind, entry.price), _number(kind, entry.expo)
    round_id, bid, ask = (_number(kind, value) for value in (entry.round_id, entry.bid, entry.ask))
    assert price is not None and expo is not None
    return EdgePrice(entry.feed_id, price, expo, ts, round_id, bid, ask)


def _number(kind: Kind, value: _Number | None) -> int | None:
    if not isinstance(value, str):
        return value
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 78):
        _refuse(kind, 0, f"expected an integer, found {value[:80]!r}")
    return int(value)


def _message(kind: Kind, prices: tuple[EdgePrice, ...], signature: str | None, recovery: _Number | None) -> EdgeMessage:
    recovery_id = _number(kind, recovery)
    try:
        raw = bytes.fromhex((signature or "").removeprefix("0x"))
    except ValueError:
        _refuse(kind, 0, "expected a signature in hex")
    if kind == EVM:
        return _evm_message(prices[0], raw)
    if raw and len(raw) != 64:
        _refuse(kind, 0, f"expected a signature of 64 bytes, found {len(raw)}")
    if raw and (recovery_id is None or not 0 <= recovery_id <= 3):
        _refuse(kind, 0, f"expected a recoveryId of 0 to 3, found {recovery_id}")
    return EdgeMessage(kind, prices, signed_svm(prices), raw, recovery_id or 0)


def _evm_message(price: EdgePrice, raw: bytes) -> EdgeMessage:
    if raw and len(raw) != 65:
        _refuse(EVM, 0, f"expected a signature of 65 bytes, found {len(raw)}")
    recovery_id = raw[64] - 27 if raw else 0
    if recovery_id not in (0, 1):
        _refuse(EVM, 0, f"expected a signature that ends in 27 or 28, found {raw[64]}")
    return EdgeMessage(EVM, (price,), signed_evm(price), raw[:64], recovery_id)


def encode_abi(message: EdgeMessage) -> bytes:
    """An EVM message as it goes to a contract: the ABI encoding of ``(string feedId, uint192 price, uint32 roundId,
    uint32 timestamp, uint256 bid, uint256 ask, bytes signature, int32 expo)``.
    """
    (price,) = message.prices
    name = str(price.feed_id).encode()
    signature = message.signature + bytes((message.recovery_id + 27,))
    first = _dynamic(name)
    numbers = (price.price, price.round_id or 0, price.ts, price.bid or 0, price.ask or 0)
    words = [_WORD, 8 * _WORD, *numbers, 8 * _WORD + len(first)]
    head = b"".join(number.to_bytes(_WORD, "big") for number in words)
    return head + price.expo.to_bytes(_WORD, "big", signed=True) + first + _dynamic(signature)


def _dynamic(raw: bytes) -> bytes:
    return len(raw).to_bytes(_WORD, "big") + raw.ljust(-(-len(raw) // _WORD) * _WORD, b"\0")


def _from_abi(data: bytes) -> EdgeMessage:
    words = [int.from_bytes(data[at : at + _WORD], "big") for at in range(0, 9 * _WORD, _WORD)]
    size = int.from_bytes(data[9 * _WORD : 10 * _WORD], "big")
    if not 0 < size <= _WORD or len(data) != 15 * _WORD:
        _refuse(EVM, 9 * _WORD, f"expected a report of {15 * _WORD} bytes with a feedId of 1 to 32, found {size}")
    name = data[10 * _WORD : 10 * _WORD + size]
    signature = data[12 * _WORD : 12 * _WORD + 65]
    if not name.isascii():
        _refuse(EVM, 10 * _WORD, "expected a feedId in ASCII")
    price, round_id, ts, bid, ask = words[2:7]
    expo = int.from_bytes(data[8 * _WORD : 9 * _WORD], "big", signed=True)
    if not 0 < ts <= _MAX_TS or not -128 <= expo <= 0:
        _refuse(EVM, 4 * _WORD, f"expected a unix time and an exponent of -128 to 0, found {ts} and {expo}")
    message = _evm_message(EdgePrice(name.decode(), price, expo, ts, round_id, bid, ask), signature)
    if encode_abi(message) != data:
        _refuse(EVM, 0, "expected the canonical encoding of a report")
    return message
