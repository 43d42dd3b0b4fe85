"""Secrets by reference: what ``env:NAME`` stands for, and texts that should have been such a reference."""

import os
from urllib.parse import SplitResult, urlsplit

from oracle_hub.errors import ConfigError


def resolve_url(reference: str, schemes: tuple[str, ...], *, key: str) -> str:
    """A URL, or the one behind ``env:NAME``.

    Raises:
        ConfigError: the variable is not set, the scheme is another, or the URL carries a user name.
    """
    url = _split(resolve_secret(reference, key=key), key)
    if url.scheme not in schemes or not url.hostname:
        raise ConfigError(f"{key}: a URL beginning with {' or '.join(f'{scheme}://' for scheme in schemes)} is needed")
    if url.username is not None:
        raise ConfigError(f"{key}: a URL with a user name is not supported; use a key")
    return url.geturl()


def refuse_literal_key(url: str, *, key: str) -> None:
    """The text of a configuration is journaled and copied around: what looks like a key belongs in the environment."""
    if url.startswith("env:"):
        return
    parts = _split(url, key)
    segments = [segment for segment in parts.path.split("/") if len(segment) >= 8 and any(map(str.isdigit, segment))]
    if parts.query or parts.username is not None or segments or any(len(part) > 20 for part in parts.path.split("/")):
        raise ConfigError(f'{key}: this URL seems to hold a key; write "env:NAME" and put the URL in the environment')


def _split(url: str, key: str) -> SplitResult:
    """Raises ConfigError, without showing the URL, for brackets that are not closed and for a port that is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at only when it is asked for
    except ValueError:
        raise ConfigError(f"{key}: is no URL; check its port, and the brackets of an IPv6 address") from None
    return parts


def resolve_secret(reference: str, *, key: str) -> str:
    """The value behind ``env:NAME``, or the text itself where it is no reference.

    Raises:
        ConfigError: the environment does not have it. The message names the variable, never a value.
    """
    if not reference.startswith("env:"):
        return reference
    name = reference.removeprefix("env:")
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"{key}: environment variable {name} is not set")
    return value
