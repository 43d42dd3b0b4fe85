"""Which names a server answers to. Pure.

A page of anybody's can point a name of its own at 127.0.0.1 (DNS rebinding): the browser then takes the page and a
server on this machine for one origin, and lets it read everything. What gives it away is the ``Host`` that it asks for.
"""

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

ANY = "*"
_NAME = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*")


def is_pattern(text: str) -> bool:
    """Whether a ``Host`` could ever match it: a name or address, ``*.example``, or ``*``; no port, no scheme."""
    return text == ANY or _is_address(text) or _NAME.fullmatch(text) is not None


def host_name(host: str) -> str | None:
    """The name in a ``Host`` header, in small letters and without port or brackets; None where it can't be read."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return None
    return None if name is None else name.rstrip(".")


def is_loopback(bound: str) -> bool:
    """Whether a server at this address can be reached from this machine only."""
    if bound == "localhost":
        return True
    try:
        return ipaddress.ip_address(bound).is_loopback
    except ValueError:
        return False


def host_allowed(host: str | None, bound: str, allowed: Sequence[str]) -> bool:
    """Whether a request for this ``Host`` is answered.

    Always: one without it (no browser), an address in digits (no name that somebody could point elsewhere), and
    ``localhost``. Else those of ``allowed``: names, ``*.example`` for all below one, ``*`` for any. Where nothing is
    allowed by name, a server on loopback answers to nothing else, and one that is ``bound`` elsewhere to the name that
    it is bound to and to all others: what it is called there, it can't know.
    """
    if host is None or ANY in allowed:
        return True
    name = host_name(host)
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost") or name == bound.lower() or _is_address(name):
        return True
    if not allowed:
        return not is_loopback(bound)
    return any(_matches(name, one.lower()) for one in allowed)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _matches(name: str, allowed: str) -> bool:
    return name.endswith(allowed[1:]) if allowed.startswith("*.") else name == allowed
