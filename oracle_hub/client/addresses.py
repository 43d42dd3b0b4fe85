"""Which hub to try next, and when. Pure: time and chance are arguments."""

from collections.abc import Sequence

FIRST_DELAY_US = 100_000
MAX_DELAY_US = 10_000_000


class Addresses:
    """The addresses of one or several hubs, in turn, each with a time before which it wants no visit.

    With ``stays`` a hub that was heard and is lost without a word of its own is visited once more before the next one
    in turn: it can replay what was missed, another one can't.
    """

    def __init__(self, urls: Sequence[str], *, stays: bool = False) -> None:
        """Raises ValueError when there is no address, or one that is no websocket's."""
        if not urls:
            raise ValueError("urls is empty: name at least one hub, as ws://127.0.0.1:8080/v1/stream")
        for url in urls:
            if "@" in url:
                raise ValueError("an address holds a user or password; pass them in headers, addresses are printed")
            if not url.startswith(("ws://", "wss://")):
                raise ValueError(f"{url!r} is no websocket address; write ws://host:port/v1/stream or wss://…")
        self._urls = tuple(dict.fromkeys(urls))
        self._not_before_us = dict.fromkeys(self._urls, 0)
        self._failures = dict.fromkeys(self._urls, 0)
        self._last = -1
        self._stays = stays and len(self._urls) > 1
        self._proven: str | None = None
        self._again: str | None = None
        """What is to be visited next, whoever's turn it is."""
        self.returning = False
        """The address that was given last is such a second visit."""
        self.errors: dict[str, str] = {}
        """The last thing that went wrong, by address."""

    def next(self, now_us: int) -> tuple[str, int]:
        """The next address in turn that may be visited, and how long to wait before that (0 or more µs)."""
        url, self._again = self._again, None
        self.returning = url is not None
        if url is not None:
            return url, max(0, self._not_before_us[url] - now_us)
        count = len(self._urls)
        turn = [(self._last + step) % count for step in range(1, count + 1)]
        index = min(turn, key=lambda at: max(now_us, self._not_before_us[self._urls[at]]))
        self._last = index
        url = self._urls[index]
        return url, max(0, self._not_before_us[url] - now_us)

    def failed(self, url: str, why: str, now_us: int, chance: float, *, retry_after_ms: int | None = None) -> None:
        """A connection ended or could not be made. ``chance`` in [0, 1) spreads those who come back."""
        self.errors[url] = why
        proven, self._proven = self._proven, None
        if self._stays and proven == url and retry_after_ms is None:
            self._again = url
        delay_us = min(FIRST_DELAY_US << min(self._failures[url], 16), MAX_DELAY_US)
        self._failures[url] += 1
        wait_us = int(delay_us * (0.5 + 0.5 * chance))
        if retry_after_ms is not None:
            # Everybody was told the same: come back at or after that time, not all at once.
            wait_us = max(wait_us, int(retry_after_ms * 1000 * (1 + 0.5 * chance)))
        self._not_before_us[url] = now_us + wait_us

    def succeeded(self, url: str) -> None:
        """A connection has proved itself: the next failure is the first again."""
        self._failures[url] = 0
        self._proven = url
        self.errors.pop(url, None)
