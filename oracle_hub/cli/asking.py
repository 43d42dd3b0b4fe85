"""How commands that ask a running hub show their token."""

import os

from oracle_hub.errors import ConfigError

VARIABLE = "ORACLE_HUB_TOKEN"
"""Read from the environment: what is on the command line, every user of the machine can read."""
WANTED = f"the hub wants a token that it knows; put it into the environment as {VARIABLE}"


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
