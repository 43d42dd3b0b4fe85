"""How commands that ask a running hub find it, and show their token."""

import os
from urllib.parse import urlsplit

from oracle_hub.errors import ConfigError

VARIABLE = "ORACLE_HUB_TOKEN"
"""Read from the environment: what is on the command line, every user of the machine can read."""
WANTED = f"the hub wants a token that it knows; put it into the environment as {VARIABLE}"


def hub_address(hub: str, name: str) -> str:
    """An address that can be connected to, and printed: without a user or password.

    Raises:
        ConfigError: it is none; the message names the option or key, ``name``.
    """
    try:
        parts = urlsplit(hub)
        usable = parts.scheme in ("http", "https", "ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:  # a port out of range, brackets that do not match
        usable = False
    else:
        if parts.username is not None or parts.password is not None:
            raise ConfigError(f"{name}: a user or password in an address is not taken; set {VARIABLE}")
    if not usable:
        raise ConfigError(f"{name}: {hub!r} is no address; write http://host:port")
    return hub


def token_headers() -> dict[str, str]:
    """The header that shows the token of the environment; nothing where there is none.

    Raises:
        ConfigError: it holds something that can stand in no header.
    """
    token = os.environ.get(VARIABLE, "")
    if not token:
        return {}
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{VARIABLE}: a token is letters, digits and signs of ASCII, without spaces")
    return {"Authorization": f"Bearer {token}"}
