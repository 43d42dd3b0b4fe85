"""What delivery needs to know, with secrets already resolved. Nothing in here shows a secret when printed."""

import base64
import binascii

import msgspec

from oracle_hub.alerts.alert import Kind, Severity
from oracle_hub.errors import ConfigError


class Secret:
    """Text that can be used and not be seen: its ``repr`` and ``str`` are three stars, and nothing encodes it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What all channels have in common."""

    name: str
    """Unique; the outbox, logs, metrics and ``/readyz`` know the channel by it."""
    url: Secret
    min_severity: Severity = Severity.WARNING
    kinds: frozenset[Kind] = frozenset()
    """Kinds that are sent; empty for all."""
    timeout_s: float = 10.0
    """For one attempt."""

    def wants(self, kind: Kind, severity: Severity) -> bool:
        """Whether an alert of this kind is sent at this severity."""
        grave = self.min_severity is Severity.WARNING or severity is Severity.CRITICAL
        return grave and (not self.kinds or kind in self.kinds)


class AlertmanagerSettings(ChannelSettings, frozen=True, kw_only=True):
    """An Alertmanager, by the address that its web page has."""

    bearer: Secret | None = None
    resend_s: float = 60.0
    """What fires is sent again so often: an Alertmanager that was restarted knows nothing."""
    expire_s: float = 900.0
    """Without any news of it, an alert ends at the Alertmanager after so long."""
    hub_alive: bool = True
    """Whether ``HubAlive`` fires all the time. It ends three re-sends after the last one."""


class WebhookSettings(ChannelSettings, frozen=True, kw_only=True):
    """A URL that is sent signed JSON."""

    secret: Secret | None = None
    heartbeat_s: float = 0.0
    """A sign of life so often; 0 for none."""

    def key(self) -> bytes | None:
        """The key of the signature: what follows ``whsec_`` as base64, any other secret as it is.

        Raises:
            ConfigError: not base64 after ``whsec_``.
        """
        if self.secret is None:
            return None
        text = self.secret.reveal()
        if not text.startswith("whsec_"):
            return text.encode()
        try:
            return base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise ConfigError(f"alerts.webhook.{self.name}.secret: what follows whsec_ is not base64") from None


class LibrarySettings(ChannelSettings, frozen=True, kw_only=True):
    """Any service that the notification library knows, by the library's URL for it."""


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True):
    """All channels, and what they share."""

    channels: tuple[AlertmanagerSettings | WebhookSettings | LibrarySettings, ...] = ()
    runbook_url: str = ""
    """Where people read what to do; ``{kind}`` stands for the kind. Empty: not told."""
    max_queued: int = 1_000
    """Transitions that wait per channel; beyond it whole alerts are dropped, and told as dropped."""
    first_retry_s: float = 0.5
    max_retry_s: float = 60.0
    simulated: bool = False
    """Marked in everything that is sent."""
