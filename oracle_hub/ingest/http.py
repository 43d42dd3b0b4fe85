"""One HTTP request, as a frame, whatever becomes of it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from websockets.exceptions import ConnectionClosed, InvalidURI
from websockets.frames import CloseCode

from oracle_hub.core.source import Fetch, Frame

_LONGEST_RETRY_AFTER_MS = 600_000


def retry_after_ms(value: str | None, now: Callable[[], datetime] | None = None) -> int:
    """A Retry-After header (RFC 9110, 10.2.3: seconds or a date) in milliseconds.

    At most ten minutes, and at least 1: a host that wishes no wait has said so. 0: it says nothing, or nothing clear.
    """
    if not value:
        return 0
    try:
        delay_ms = round(float(value) * 1_000)
        if delay_ms < 0:
            return 0
    except (ValueError, OverflowError):
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return 0
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        present = now() if now else datetime.now(UTC)
        delay_ms = round((when - present).total_seconds() * 1_000)
    return min(max(delay_ms, 1), _LONGEST_RETRY_AFTER_MS)


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in words. Never the text of the exception, which may hold a URL and so a key."""
    if isinstance(error, ConnectionClosed):
        if error.rcvd is not None:
            return f"websocket closed by the server, code {error.rcvd.code}"
        if error.sent is not None and error.sent.code == CloseCode.INTERNAL_ERROR:
            return "no answer to pings on the websocket"  # what the library sends when it gives up waiting
        return "websocket lost without a close"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name does not resolve"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed or the certificate is not trusted"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut short"
    if isinstance(error, aiohttp.InvalidURL | InvalidURI):
        return "the URL cannot be used"
    if isinstance(error, OSError) and error.strerror:
        detail = error.strerror.lower() if error.errno and error.errno > 0 else "name or address not usable"
        return f"connection failed: {detail}"[:120]
    return f"connection failed: {type(error).__name__}"


async def fetch_frame(
    session: aiohttp.ClientSession, fetch: Fetch, max_bytes: int, clock: Callable[[], int]
) -> tuple[Frame, int]:
    """Carry out a request; return its frame and when the answer was complete (our clock, us).

    Redirects are not followed: credentials stay with their host. A failure is status 0 with the reason in words.
    """
    try:
        async with (
            asyncio.timeout(fetch.timeout_ms / 1_000),
            session.request(
                fetch.method, fetch.url, headers=fetch.headers, data=fetch.body or None, allow_redirects=False
            ) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    return Frame("http", f"answer longer than {max_bytes} bytes".encode(), fetch.fetch_id), clock()
            received_us = clock()
            after_ms = retry_after_ms(response.headers.get("Retry-After"))
            return Frame("http", bytes(body), fetch.fetch_id, response.status, after_ms), received_us
    except TimeoutError:
        return Frame("http", f"no answer within {fetch.timeout_ms} ms".encode(), fetch.fetch_id), clock()
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Frame("http", reason_of(error).encode(), fetch.fetch_id), clock()
