"""How the server is set up by a configuration: its limits, its tokens, its certificate."""

from oracle_hub.config import Config
from oracle_hub.config_secrets import resolve_secret
from oracle_hub.config_sections import ServerSection, TokenSection
from oracle_hub.errors import ConfigError
from oracle_hub.server import tls
from oracle_hub.server.service import ServerSettings
from oracle_hub.server.tokens import Token, token_digest
from oracle_hub.stream.session import SessionLimits

MIN_TOKEN_LENGTH = 16
"""Whoever can try a token ten times a second finds a shorter one some day."""
UNSENT_BYTES_PER_FEED = 4_096
"""A feed in full detail takes about 1 KiB: who hears of all of them once a second may stand still for some seconds."""


def server_settings(config: Config) -> ServerSettings:
    """The settings of the server, with tokens from the environment.

    Raises:
        ConfigError: a token is not set, too short, or that of another name; a certificate or key cannot be used.
    """
    section = config.server
    if section.tls_certificate is not None and section.tls_key is not None:
        tls.server_context(section.tls_certificate, section.tls_key)
    return ServerSettings(
        host=section.host,
        port=section.port,
        heartbeat_ms=section.heartbeat_ms,
        allowed_origins=section.allowed_origins,
        allowed_hosts=section.allowed_hosts,
        max_clients=section.max_clients,
        max_clients_per_ip=section.max_clients_per_ip,
        handshake_timeout_ms=section.handshake_timeout_ms,
        subscribe_timeout_ms=section.subscribe_timeout_ms,
        max_message_bytes=section.max_message_bytes,
        max_unanswered_bytes=section.max_unanswered_bytes,
        history_batches=section.history_batches,
        history_bytes=section.history_mib * 2**20,
        history_age_ms=section.history_age_ms,
        tls_certificate=section.tls_certificate,
        tls_key=section.tls_key,
        tokens=_tokens(section),
        require_token=section.require_token,
        session=SessionLimits(
            max_subscriptions=section.max_subscriptions,
            max_feeds=section.max_feeds,
            requests_per_second=section.requests_per_second,
            request_burst=section.request_burst,
            conflate_above_bytes=section.conflate_above_bytes,
            max_unsent_bytes=_max_unsent_bytes(config),
            max_unsent_age_ms=section.max_unsent_age_ms,
        ),
    )


def _max_unsent_bytes(config: Config) -> int:
    """What is configured, else enough for every feed: thousands in one batch are megabytes, and nobody's slowness."""
    configured = config.server.max_unsent_bytes
    if configured is not None:
        return configured
    return max(SessionLimits().max_unsent_bytes, UNSENT_BYTES_PER_FEED * len(config.feeds))


def _tokens(section: ServerSection) -> tuple[Token, ...]:
    tokens: dict[bytes, Token] = {}
    for one in section.tokens:
        token = _token(one)
        other = tokens.get(token.digest)
        if other is not None:
            raise ConfigError(f"server.tokens.{one.name}.token: the same as that of {other.name}")
        tokens[token.digest] = token
    return tuple(tokens.values())


def _token(one: TokenSection) -> Token:
    key = f"server.tokens.{one.name}.token"
    secret = resolve_secret(one.token, key=key)
    variable = one.token.removeprefix("env:")
    if len(secret) < MIN_TOKEN_LENGTH:
        raise ConfigError(f"{key}: what {variable} holds is shorter than {MIN_TOKEN_LENGTH} characters")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigError(f"{key}: what {variable} holds must be letters, digits and signs of ASCII, without spaces")
    return Token(
        name=one.name,
        digest=token_digest(secret),
        max_connections=one.max_connections,
        max_subscriptions=one.max_subscriptions,
        requests_per_second=one.requests_per_second,
        request_burst=one.request_burst,
    )
