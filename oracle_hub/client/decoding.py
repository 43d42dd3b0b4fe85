"""A message of the hub, in whichever form it came. Pure."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from oracle_hub.errors import StreamError
from oracle_hub.stream import binary
from oracle_hub.stream import messages as wire

ReadEntry: TypeAlias = Callable[[msgspec.Raw], wire.FeedEntry]
"""Reads an entry of ``feeds``. Raises ``StreamError`` or ``msgspec.MsgspecError``."""

read_json_entry: ReadEntry = wire.feed_entry_decoder.decode


def decode(data: bytes | str) -> tuple[wire.ServerMessage | None, ReadEntry]:
    """A message, and what reads its entries; None for one of a type that we don't know: it is for others.

    Raises:
        StreamError: it can't be read.
    """
    try:
        if isinstance(data, bytes) and binary.is_binary(data):
            return binary.decode_message(data), binary.decode_entry
        return wire.server_message_decoder.decode(data), read_json_entry
    except StreamError as error:
        if error.code == binary.UNKNOWN_KIND:
            return None, binary.decode_entry
        raise
    except msgspec.ValidationError as error:
        if str(error).endswith("`$.type`"):  # grows by addition
            return None, read_json_entry
        raise StreamError("bad_message", str(error)) from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise StreamError("bad_json", str(error)) from None
