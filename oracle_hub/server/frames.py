"""Websocket frames as a server sends them (RFC 6455, section 5.2): whole, unmasked, uncompressed."""

_FINAL_TEXT = 0x81
_FINAL_BINARY = 0x82
_FINAL_CLOSE = 0x88


def text_frame(payload: bytes) -> bytes:
    """One final text frame. Built once and written to any number of transports."""
    return _frame(_FINAL_TEXT, payload)


def binary_frame(payload: bytes) -> bytes:
    """One final binary frame."""
    return _frame(_FINAL_BINARY, payload)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        header = bytes((first, size))
    elif size < 65_536:
        header = bytes((first, 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, 127)) + size.to_bytes(8, "big")
    return header + payload


def close_frame(code: int, reason: str) -> bytes:
    """A close frame. The reason must not be longer than 123 bytes."""
    payload = code.to_bytes(2, "big") + reason.encode()
    if len(payload) > 125:
        raise ValueError(f"a control frame takes 125 bytes, not {len(payload)}")
    return bytes((_FINAL_CLOSE, len(payload))) + payload
