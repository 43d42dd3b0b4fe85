"""Getting to a hub: a socket that hoards little, a token that nobody else reads, and what a refusal means."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from oracle_hub.client.state import GiveUp, Reconnect
from oracle_hub.stream.messages import CloseCode

RECEIVE_BUFFER_BYTES = 32_768
"""Of the kernel, which doubles it: what a program that stood still finds of old messages, but for the hub's few KiB."""

LEFT_UNREAD = "more waited for us than server.max_unsent_bytes of the hub, or for too long"


class _NoHandshakes(logging.LoggerAdapter[logging.Logger]):
    """The log of websockets without its level DEBUG: there it writes every header, the token among them."""

    def isEnabledFor(self, level: int) -> bool:
        return level > logging.DEBUG and super().isEnabledFor(level)


wire_log = _NoHandshakes(logging.getLogger("websockets.client"), {})


def handshake_options(
    token: str | None, headers: Mapping[str, str] | None, ssl_context: ssl.SSLContext | None
) -> dict[str, Any]:
    """What ``websockets`` is given for the handshake, beside what every connection of ours has.

    Raises:
        ValueError: the token can stand in no header. The message does not hold it.
    """
    options: dict[str, Any] = {}
    shown = dict(headers or {})
    if token is not None:
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("token is letters, digits and signs of ASCII, without spaces")
        shown["Authorization"] = f"Bearer {token}"
    if shown:
        options["additional_headers"] = shown
    if ssl_context is not None:
        options["ssl"] = ssl_context
    return options


async def connected_socket(url: str, receive_buffer_bytes: int | None) -> socket.socket | None:
    """A TCP connection to the host of a websocket address, with a receive buffer of so many bytes.

    The size must be there before the connection: what a peer may send unasked is agreed on with its first packet. None
    where it is left to the system, or a proxy of the environment stands between: then somebody else connects.

    Raises:
        OSError: no address of the host takes a connection.
    """
    uri = parse_uri(url)
    if receive_buffer_bytes is None or get_proxy(uri) is not None:
        return None
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = error
            continue
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{uri.host} has no address")


def why_refused(error: InvalidStatus, options: dict[str, Any]) -> Reconnect | GiveUp:
    """What to do after a handshake that was answered with an HTTP error."""
    status = error.response.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        shown = "Authorization" in options.get("additional_headers", {})
        why = "the hub does not know this token" if shown else "the hub wants a token: pass token=…"
        return GiveUp("unauthorized", f"{why} (HTTP 401)")
    later = error.response.headers.get("Retry-After", "")
    return Reconnect(f"refused with HTTP {status}", int(later) * 1000 if later.isascii() and later.isdigit() else None)


def why_closed(error: ConnectionClosed) -> Reconnect | GiveUp:
    """Codes 4500 to 4999 say that coming back is of no use until something is changed."""
    code = 1006 if error.rcvd is None else error.rcvd.code
    reason = "" if error.rcvd is None else error.rcvd.reason[:100]
    text = f"closed with {code} {reason}".rstrip()
    if code == CloseCode.TOO_SLOW:
        return Reconnect(f"{text}: {LEFT_UNREAD}")
    if code == CloseCode.UNAUTHORIZED:
        return GiveUp("unauthorized", f"the hub does not know this token any more ({text})")
    return GiveUp(str(code), f"the hub does not want us back: {text}") if 4500 <= code < 5000 else Reconnect(text)
