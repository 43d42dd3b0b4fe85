"""What all account layouts share: checks with one clear line, keys as text, and fields ready for JSON."""

from typing import ClassVar, NoReturn

import msgspec
from solders.pubkey import Pubkey

from oracle_hub.errors import DecodeError

UNSET_KEY = bytes(32)
"""The all-zero key, by which programs say that a key is not configured."""
JSON_INT_MAX = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly; beyond it :func:`json_value` writes decimal text."""
MAX_TIMESTAMP_S = (2**63 - 1) // 1_000_000
"""Largest unix second whose microseconds fit int64."""


class AccountLayout(msgspec.Struct, frozen=True, gc=False):
    """One account, field by field, as the program stores it. Keys are raw bytes: base58 is made when asked for.

    JSON names are the ones that the program's own interface description uses.
    """

    KIND: ClassVar[str]
    HEX: ClassVar[frozenset[str]] = frozenset()
    """Fields of bytes that are ids or keys of another curve: printed in hex."""
    TEXT: ClassVar[frozenset[str]] = frozenset()
    """Fields of bytes that hold zero-padded ASCII: printed as text, or in hex when they do not."""

    def fields(self) -> dict[str, object]:
        """Every field under its own name, ready for JSON: keys in base58, ids in hex (see :func:`json_value`)."""
        return struct_fields(self, self.HEX, self.TEXT)


def struct_fields(
    value: msgspec.Struct, hex_fields: frozenset[str] = frozenset(), text_fields: frozenset[str] = frozenset()
) -> dict[str, object]:
    """Fields of a struct under their JSON names, made ready for JSON."""
    out: dict[str, object] = {}
    for field in msgspec.structs.fields(value):
        item = getattr(value, field.name)
        if item is not None and field.name in hex_fields:
            out[field.encode_name] = item.hex()
        elif item is not None and field.name in text_fields:
            out[field.encode_name] = padded_text(item)
        else:
            out[field.encode_name] = json_value(item)
    return out


def json_value(value: object) -> object:
    """Make one value ready for JSON.

    Keys become base58. An integer stays a number within ``±(2**53 - 1)`` and becomes decimal text beyond it, where
    many JSON readers would lose digits: that can happen to any field of 64 or 128 bits.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -JSON_INT_MAX <= value <= JSON_INT_MAX else str(value)
    if isinstance(value, bytes):
        return pubkey_text(value) if len(value) == 32 else value.hex()
    if isinstance(value, tuple | list):
        return [json_value(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return struct_fields(value)
    return value


def pubkey_text(raw: bytes) -> str:
    """A key of 32 bytes in base58."""
    return str(Pubkey.from_bytes(raw))


def pubkey_bytes(text: str) -> bytes:
    """The 32 bytes of a base58 key.

    Raises:
        DecodeError: it is no such key.
    """
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError:
        raise DecodeError(f"{text!r} is no Solana address (32 bytes in base58)") from None


def pad32(text: str) -> bytes:
    """ASCII text, zero-padded to 32 bytes, as pairs and descriptions are stored."""
    raw = text.encode("ascii")
    if len(raw) > 32:
        raise DecodeError(f"{text!r} is longer than 32 bytes")
    return raw.ljust(32, b"\0")


def padded_text(raw: bytes) -> str:
    """Zero-padded ASCII as text; in hex when the bytes are not that."""
    text = raw.rstrip(b"\0")
    if text and all(0x20 <= byte < 0x7F for byte in text):
        return text.decode("ascii")
    return raw.hex()


def key_or_none(raw: bytes) -> bytes | None:
    """A configured key, or None for the all-zero one."""
    return None if raw == UNSET_KEY else raw


def refuse_head(kind: str, data: bytes, discriminator: bytes, size: int) -> NoReturn:
    """Say why data does not begin as its layout demands.

    Raises:
        DecodeError: always; names the layout, the offset, what was expected and what was found.
    """
    width = len(discriminator)
    found = data[:width]
    if found != discriminator and len(data) >= width:
        raise DecodeError(f"{kind}: offset 0: expected discriminator {discriminator.hex()}, found {found.hex()}")
    raise DecodeError(f"{kind}: offset {len(data)}: expected at least {size} bytes, found {len(data)}")


def check_size(kind: str, data: bytes, size: int) -> None:
    """Raises DecodeError when data is shorter than ``size``."""
    if len(data) < size:
        raise DecodeError(f"{kind}: offset {len(data)}: expected at least {size} bytes, found {len(data)}")


def check_owner(kind: str, owner: str | None, owners: frozenset[str]) -> None:
    """Raises DecodeError when an owner is given and is not one of ``owners``."""
    if owner is not None and owner not in owners:
        raise DecodeError(f"{kind}: owner: expected {' or '.join(sorted(owners))}, found {owner}")


def check_price(kind: str, price: int, price_offset: int, timestamp: int, timestamp_offset: int) -> None:
    """Refuse what is laid out well but is no price.

    Raises:
        DecodeError: price or timestamp is zero (never updated), negative, or out of range.
    """
    if timestamp == 0 or price == 0:
        name, offset = ("timestamp", timestamp_offset) if timestamp == 0 else ("price", price_offset)
        raise DecodeError(f"{kind}: offset {offset}: {name} is 0, so the account was never updated")
    if price < 0:
        raise DecodeError(f"{kind}: offset {price_offset}: expected a positive price, found {price}")
    if not 0 < timestamp <= MAX_TIMESTAMP_S:
        raise DecodeError(f"{kind}: offset {timestamp_offset}: expected unix seconds, found {timestamp}")
