"""From the configuration to the channels that alerts are sent by, with their secrets from the environment."""

from oracle_hub.alerts.alert import Kind, Severity
from oracle_hub.alerts.notify.settings import (
    AlertmanagerSettings,
    DeliverySettings,
    LibrarySettings,
    Secret,
    WebhookSettings,
)
from oracle_hub.config import Config
from oracle_hub.config_secrets import resolve_secret, resolve_url
from oracle_hub.config_sections import AlertmanagerSection, NotifySection, WebhookSection
from oracle_hub.errors import ConfigError

HTTP = ("http", "https")


def delivery_settings(config: Config) -> DeliverySettings:
    """The channels of ``[alerts]``.

    Raises:
        ConfigError: a variable is not set, a URL is none, a kind is unknown, re-sends are rarer than their expiry.
    """
    section = config.alerts
    return DeliverySettings(
        channels=(
            *map(_alertmanager, section.alertmanager),
            *map(_webhook, section.webhook),
            *map(_library, section.notify),
        ),
        runbook_url=section.runbook_url,
        max_queued=section.max_queued,
        first_retry_s=section.first_retry_ms / 1e3,
        max_retry_s=max(section.max_retry_ms, section.first_retry_ms) / 1e3,
        simulated=config.emulator is not None,
    )


def _alertmanager(section: AlertmanagerSection) -> AlertmanagerSettings:
    key = f"alerts.alertmanager.{section.name}"
    if section.expire_ms < 2 * section.resend_ms:
        raise ConfigError(f"{key}.expire_ms: must be twice resend_ms or more, or what fires ends by itself")
    return AlertmanagerSettings(
        name=section.name,
        url=Secret(resolve_url(section.url, HTTP, key=f"{key}.url")),
        bearer=_secret(section.bearer, f"{key}.bearer"),
        min_severity=Severity(section.min_severity),
        kinds=_kinds(section.kinds, key),
        timeout_s=section.timeout_ms / 1e3,
        resend_s=section.resend_ms / 1e3,
        expire_s=section.expire_ms / 1e3,
        hub_alive=section.hub_alive,
    )


def _webhook(section: WebhookSection) -> WebhookSettings:
    key = f"alerts.webhook.{section.name}"
    return WebhookSettings(
        name=section.name,
        url=Secret(resolve_url(section.url, HTTP, key=f"{key}.url")),
        secret=_secret(section.secret, f"{key}.secret"),
        min_severity=Severity(section.min_severity),
        kinds=_kinds(section.kinds, key),
        timeout_s=section.timeout_ms / 1e3,
        heartbeat_s=section.heartbeat_ms / 1e3,
    )


def _library(section: NotifySection) -> LibrarySettings:
    key = f"alerts.notify.{section.name}"
    return LibrarySettings(
        name=section.name,
        url=Secret(resolve_secret(section.url, key=f"{key}.url")),
        min_severity=Severity(section.min_severity),
        kinds=_kinds(section.kinds, key),
        timeout_s=section.timeout_ms / 1e3,
    )


def _secret(reference: str | None, key: str) -> Secret | None:
    return None if reference is None else Secret(resolve_secret(reference, key=key))


def _kinds(names: tuple[str, ...], key: str) -> frozenset[Kind]:
    unknown = next((name for name in names if name not in frozenset(Kind)), None)
    if unknown is not None:
        raise ConfigError(f"{key}.kinds: {unknown} is no kind of alert; known: {', '.join(Kind)}")
    return frozenset(map(Kind, names))
