"""Websocket frames as a server sends them (RFC 6455, section 5.2): whole, unmasked, uncompressed."""

_FINAL_TEXT = 0x81
_FINAL_BINARY = 0x82
_FINAL_CLOSE = 0x88
_FINAL_PING = 0x89
_FINAL_PONG = 0x8A


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
    return _control(_FINAL_CLOSE, code.to_bytes(2, "big") + reason.encode())


def ping_frame(payload: bytes) -> bytes:
    """A ping of at most 125 bytes, which the peer has to send back (section 5.5.2)."""
    return _control(_FINAL_PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """What a ping with this payload is answered with."""
    return _control(_FINAL_PONG, payload)


def _control(first: int, payload: bytes) -> bytes:
    if len(payload) > 125:
        raise ValueError(f"a control frame takes 125 bytes, not {len(payload)}")
    return bytes((first, len(payload))) + payload
