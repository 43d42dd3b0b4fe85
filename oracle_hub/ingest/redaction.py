"""What authorises us, cut out of what peers say: some quote it in their refusals, and every frame is journaled."""

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace

from oracle_hub.core.source import Effect, Fetch, Frame, Open

_SHORTEST = 8
"""A shorter text may be a word that peers use."""
_LONGEST_PLAIN_PART = 20
"""Longer parts of a path are keys, as the configuration has it too."""
_INSTEAD = "…".encode()


def secrets_of(effects: Iterable[Effect]) -> frozenset[bytes]:
    """What the requests among these effects are authorised by.

    That is the value of ``Authorization`` (without its scheme), keys in the path, and parameters of the query that are
    called key or token.
    """
    found: set[str] = set()
    for effect in effects:
        if isinstance(effect, Open | Fetch):
            found.update(_in_headers(effect.headers))
            found.update(_in_url(effect.url))
    return frozenset(text.encode() for text in found if len(text) >= _SHORTEST)


def _in_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if name.lower() == "authorization":
            yield value.rpartition(" ")[2]


def _in_url(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    for part in parts.path.split("/"):
        if len(part) > _LONGEST_PLAIN_PART:
            yield part
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        if any(word in name.lower() for word in ("key", "token")):
            yield from (value, unquote(value))


def redacted(frame: Frame, secrets: Iterable[bytes]) -> Frame:
    """The frame without these texts; the very same one if it holds none of them."""
    data = frame.data
    for secret in secrets:
        if secret in data:
            data = data.replace(secret, _INSTEAD)
    return frame if data is frame.data else replace(frame, data=data)
