"""What sections that are not about the choice of a price must fulfil beyond types and ranges.

Each function raises ConfigError, with a line that begins with ``origin``, the file.
"""

from oracle_hub.config_secrets import refuse_literal_key
from oracle_hub.config_sections import AlertsSection, Channel, ServerSection, SolanaSection
from oracle_hub.errors import ConfigError


def check_server(server: ServerSection, origin: str) -> None:
    """Tokens have names of their own and stand in the environment; a certificate comes with its key."""
    for token in server.tokens:
        if not token.token.startswith("env:"):
            key = f"server.tokens.{token.name}.token"
            raise ConfigError(f'{origin}: {key}: write "env:NAME" and put the token in the environment')
    names = [token.name for token in server.tokens]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{origin}: server.tokens: two have the name {twice}")
    if server.require_token and not server.tokens:
        raise ConfigError(f"{origin}: server.require_token: nobody could come in; add [[server.tokens]]")
    if (server.tls_certificate is None) is not (server.tls_key is None):
        missing = "tls_key" if server.tls_key is None else "tls_certificate"
        raise ConfigError(f"{origin}: server.{missing}: certificate and key go together; this one is missing")


def check_channels(section: AlertsSection, origin: str) -> None:
    """Channels have names of their own, and their secrets stand in the environment."""
    channels: tuple[Channel, ...] = (*section.alertmanager, *section.webhook, *section.notify)
    names = [one.name for one in channels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{origin}: alerts: two channels have the name {twice}")
    secrets = {f"alertmanager.{one.name}.bearer": one.bearer for one in section.alertmanager}
    secrets |= {f"webhook.{one.name}.secret": one.secret for one in section.webhook}
    secrets |= {f"notify.{one.name}.url": one.url for one in section.notify}
    for key, value in secrets.items():
        if value is not None and not value.startswith("env:"):
            raise ConfigError(f'{origin}: alerts.{key}: write "env:NAME" and put the value in the environment')
    urls = {f"alertmanager.{one.name}": one.url for one in section.alertmanager}
    urls |= {f"webhook.{one.name}": one.url for one in section.webhook}
    for key, url in urls.items():
        refuse_literal_key(url, key=f"{origin}: alerts.{key}.url")


def check_endpoints(solana: SolanaSection, origin: str) -> None:
    """No two RPC endpoints are the same, and none has a key in its URL."""
    for what in ("name", "http_url", "ws_url"):
        values = [getattr(section, what) for section in solana.rpc]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            shown = f" ({twice})" if what == "name" else ""
            raise ConfigError(f"{origin}: solana.rpc: two endpoints have the same {what}{shown}")
    for section in solana.rpc:
        refuse_literal_key(section.http_url, key=f"{origin}: solana.rpc.{section.name}.http_url")
        refuse_literal_key(section.ws_url, key=f"{origin}: solana.rpc.{section.name}.ws_url")
