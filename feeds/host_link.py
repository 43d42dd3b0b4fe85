"""What the links to hosts have in common: what they say of what goes wrong, in the same words and once."""

import zlib
from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

from oracle_hub.core.source import Condition, Effect, Event, Frame, Malformed, Status

Output: TypeAlias = Event | Effect
Verify: TypeAlias = Literal["strict", "lenient", "off"]
"""``strict`` refuses what is not verified, ``lenient`` takes it as not verified, ``off`` does not look."""

NEVER = 2**63 - 1
LONGEST_PATIENCE_US = 600_000_000
"""A host's wish to be left alone is kept over a reconnect, but not over a clock that was set back."""
PLAUSIBLE_US = 10_000_000
"""What is stamped further from our clock than this says nothing about now."""
REFUSALS: Mapping[int, Condition] = {
    401: Condition.NOT_ENTITLED,
    403: Condition.NOT_ENTITLED,
    429: Condition.RATE_LIMITED,
}
"""What it means when a host answers with such an HTTP status. All others: it is lost."""


class RetryLimits(Protocol):
    """What :func:`retry_delay_us` goes by."""

    @property
    def first_retry_us(self) -> int:
        """Before the second request."""
        ...

    @property
    def down_retry_us(self) -> int:
        """At most, while the host is down."""
        ...

    @property
    def max_retry_us(self) -> int:
        """At most, while it answers and refuses."""
        ...


_ENDED_BY_A_PRICE = (Condition.HALTED, Condition.INVALID)
_AGAIN_US = 1_000_000
_LONGEST_TEXT = 2_000
_LONGEST_LINE = 400
_SHORTEST_SECRET = 8


def retry_delay_us(frame: Frame, attempt: int, received_us: int, name: str, limits: RetryLimits) -> int:
    """How long a link waits before it asks a host again that gave no good answer.

    Doubled with each attempt. A host that is down (no answer, or 5xx) is asked every few seconds without end, so that
    it is used again soon after it comes back; one that answers and refuses, ever less. A wait that the host names in
    ``Retry-After`` counts instead. A quarter of the wait at most is taken off by chance, drawn from when the answer
    came, so that many hubs do not ask at once and a replay waits as the run did.

    Args:
        frame: the answer; status 0 when there was none.
        attempt: failures before this one.
        received_us: our clock.
        name: of the link.
        limits: how patiently.
    """
    if frame.retry_after_ms:
        return max(limits.first_retry_us, frame.retry_after_ms * 1_000)
    longest_us = limits.down_retry_us if frame.status == 0 or frame.status >= 500 else limits.max_retry_us
    delay_us = min(longest_us, limits.first_retry_us << min(attempt, 32))
    return delay_us - zlib.crc32(f"{name} {received_us}".encode()) % (delay_us // 4 + 1)


def plain(text: bytes | str, *secrets: str) -> str:
    """What a host said, fit for a log: one line, bounded, without secrets."""
    line = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for secret in secrets:
        line = line.replace(secret, "…") if secret else line
    shown = "".join(letter if letter.isprintable() else " " for letter in line[:_LONGEST_TEXT])
    return " ".join(shown.split())[:_LONGEST_LINE]


def secrets_of(url: str) -> tuple[str, ...]:
    """What in a URL may be a key, and the whole of it: providers put keys into path, query, or the host's name."""
    parts = urlsplit(url)
    pieces = [
        *parts.path.split("/"),
        *parts.query.replace("=", "&").split("&"),
        *(parts.hostname or "").split(".")[:-2],
    ]
    return url, *sorted((piece for piece in pieces if len(piece) >= _SHORTEST_SECRET), key=len, reverse=True)


class HostLink:
    """The part of a :class:`~oracle_hub.core.source.Link` to one host that speaks of troubles.

    A trouble has a key of the link's own. It is told when it begins and when it is over. Halted and invalid are told
    again by each later word of the host to that effect (at most once a second of the source's time): a newer price that
    another host brought has ended them meanwhile, and this link can't know.

    Args:
        name: unique in the run.
        source: the name under which its updates go.
        secrets: what no text may show.
    """

    CONFIGURED: ClassVar[frozenset[str]] = frozenset({"name", "source", "_secrets"})

    def __init__(self, name: str, source: str, *secrets: str | None) -> None:
        self.name = name
        self.source = source
        self._secrets = tuple(secret for secret in secrets if secret)
        self._troubles: dict[str, tuple[Condition, str | None]] = {}
        self._said_us: dict[str, int] = {}

    def __repr__(self) -> str:  # may hold a key
        return f"{type(self).__name__}({self.name!r})"

    def _plain(self, text: bytes | str) -> str:
        return plain(text, *self._secrets)

    def _malformed(self, feed: str | None, reason: str, received_us: int) -> Malformed:
        return Malformed(self.source, self.name, feed, reason, received_us)

    def _trouble(
        self, key: str, feed: str | None, condition: Condition, text: str, received_us: int, word_us: int = 0
    ) -> list[Output]:
        """A trouble of a feed (None: of all): told unless it is known, of the same kind, and by no later word.

        ``word_us``: the source's own time of what it said; 0 where it has none.
        """
        word_us = min(word_us, received_us)  # else one wrong clock would silence what is right
        if self._troubles.get(key) == (condition, feed):
            again = condition in _ENDED_BY_A_PRICE and word_us - self._said_us.get(key, NEVER) >= _AGAIN_US
            if not again:
                return []
        self._troubles[key] = (condition, feed)
        self._said_us[key] = word_us
        return [Status(self.source, self.name, feed, condition, text, received_us)]

    def _clear(self, key: str, received_us: int) -> list[Output]:
        """A trouble is over: its feed is well again if it has no other one."""
        if key not in self._troubles:
            return []
        _, feed = self._troubles.pop(key)
        self._said_us.pop(key, None)
        if any(other == feed for _, other in self._troubles.values()):
            return []
        return [Status(self.source, self.name, feed, Condition.OK, f"{key} is well again", received_us)]

    def _no_price(self, feed: str, why: str, received_us: int, word_us: int) -> list[Output]:
        """What stands where a price should can't be one."""
        told = self._trouble(f"price {feed}", feed, Condition.INVALID, why, received_us, word_us)
        return [self._malformed(feed, why, received_us), *told]

    def _unproved(self, feed: str, why: str, received_us: int, *, refused: bool) -> list[Output]:
        """A price of a feed has no proof, and is refused for it or taken as not verified."""
        text = f"not verified: {self._plain(why)}"
        told = self._trouble(f"proof {feed}", feed, Condition.UNVERIFIED, text, received_us)
        return [self._malformed(feed, text, received_us), *told] if refused else told

    def _refusal(
        self, frame: Frame, key: str, received_us: int, retry_us: int, why: str = "not entitled"
    ) -> tuple[list[Output], int]:
        """Name an HTTP status; also the wait that it asks for (microseconds, 0 for none).

        Args:
            frame: the answer. Status 0: there was none.
            key: of the trouble.
            received_us: our clock.
            retry_us: least wait after refused credentials, and after a rate limit that names no wait of its own.
            why: what 401 and 403 mean here, in words.
        """
        said, wait_us = self._plain(frame.data), frame.retry_after_ms * 1_000
        condition = REFUSALS.get(frame.status, Condition.LOST)
        if condition is Condition.NOT_ENTITLED:
            text, wait_us = f"HTTP {frame.status}, {why}: {said}", max(wait_us, retry_us)
        elif condition is Condition.RATE_LIMITED:
            text, wait_us = f"HTTP {frame.status}, too many requests: {said}", wait_us or retry_us
        else:
            text = f"HTTP {frame.status}: {said}" if frame.status else f"no answer: {said}"
        return self._trouble(key, None, condition, text, received_us), wait_us
