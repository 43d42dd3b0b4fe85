"""Posting JSON, and what became of it in our own words: never an address, a header or what the other side wrote."""

import email.utils
from collections.abc import Mapping

import aiohttp

from oracle_hub.alerts.notify.channel import SendError

US_PER_S = 1_000_000
REFUSED = frozenset({400, 413, 415, 422})
"""Answers that are about this message; whoever sends others may have more luck. 401, 403 and 404 are about us."""
HEADERS = {"Content-Type": "application/json", "User-Agent": "oracle-hub"}


class Poster:
    """Posts to one URL over a connection that is kept."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: Mapping[str, str], now_us: int) -> None:
        """Return at an answer of the 200s.

        Raises:
            SendError: anything else. Redirects are not followed: a signed message is for whom it was signed for.
        """
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.post(
                self._url, data=body, headers={**HEADERS, **headers}, allow_redirects=False
            ) as response:
                _judge(response, now_us)
        except aiohttp.ClientConnectorError:
            raise SendError("no connection") from None
        except TimeoutError:
            raise SendError(f"no answer in {self._timeout_s:g} s", unanswered=True) from None
        except aiohttp.ClientError as error:
            raise SendError(f"connection lost ({type(error).__name__})", unanswered=True) from None

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _judge(response: aiohttp.ClientResponse, now_us: int) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    raise SendError(
        f"answered {status}",
        unanswered=status >= 500,
        refused=status in REFUSED,
        retry_after_s=retry_after_s(response.headers.get("Retry-After"), now_us),
    )


def retry_after_s(value: str | None, now_us: int) -> float | None:
    """Seconds to wait by a ``Retry-After`` header (RFC 9110, 10.2.3): seconds or a date; None for neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now_us / US_PER_S)
    except (ValueError, OverflowError):
        return None
