"""What is wrong with a link, told once when it begins and once when it is over."""

from oracle_hub.core.source import Condition, Status

_LONGEST_TEXT = 2_000
_LONGEST_LINE = 400


class Troubles:
    """The troubles of one link, by a key of the link's own. Plain data: it goes into checkpoints."""

    __slots__ = ("_open", "_source", "_transport")

    def __init__(self, source: str, transport: str) -> None:
        self._source = source
        self._transport = transport
        self._open: dict[str, tuple[Condition, str | None]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def tell(self, key: str, feed: str | None, condition: Condition, text: str, received_us: int) -> list[Status]:
        """A trouble of a feed (None: of all): told unless it is known already, of the same kind."""
        if self._open.get(key) == (condition, feed):
            return []
        self._open[key] = (condition, feed)
        return [Status(self._source, self._transport, feed, condition, text, received_us)]

    def clear(self, key: str, received_us: int) -> list[Status]:
        """A trouble is over: its feed is well again if it has no other one."""
        if key not in self._open:
            return []
        _, feed = self._open.pop(key)
        if any(other == feed for _, other in self._open.values()):
            return []
        return [Status(self._source, self._transport, feed, Condition.OK, f"{key} is well again", received_us)]


def plain(text: bytes | str, *secrets: str) -> str:
    """What a server said, fit for a log: one line, bounded, without secrets."""
    line = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for secret in secrets:
        line = line.replace(secret, "…") if secret else line
    shown = "".join(letter if letter.isprintable() else " " for letter in line[:_LONGEST_TEXT])
    return " ".join(shown.split())[:_LONGEST_LINE]
