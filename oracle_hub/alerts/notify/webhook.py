"""Signed JSON to a URL, by the Standard Webhooks specification (standardwebhooks.com), for which libraries exist.

``webhook-id`` is the key of the message, ``webhook-timestamp`` the unix second of the attempt, ``webhook-signature``
``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``. A receiver checks the signature, refuses old
timestamps, and drops keys that it has seen.
"""

import base64
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from oracle_hub.alerts.alert import Alert
from oracle_hub.alerts.notify.message import Message, Sender, document, heartbeat
from oracle_hub.alerts.notify.posting import US_PER_S, Poster
from oracle_hub.alerts.notify.settings import WebhookSettings


class Webhook:
    """Tells one URL."""

    def __init__(self, settings: WebhookSettings, sender: Sender) -> None:
        self.settings = settings
        self._sender = sender
        self._key = settings.key()
        self._poster = Poster(settings.url.reveal(), settings.timeout_s)

    @property
    def every_s(self) -> float:
        """How often a sign of life is sent."""
        return self.settings.heartbeat_s

    async def send(self, message: Message, now_us: int) -> None:
        """Post one transition."""
        await self._post(document(message, self._sender), now_us)

    async def again(self, firing: Sequence[Alert], alive: bool, now_us: int) -> None:
        """Post a sign of life. Alerts are not repeated: who answered with 200 has them."""
        if alive:
            await self._post(heartbeat(now_us, self.settings.heartbeat_s, self._sender), now_us)

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()

    async def _post(self, document: Mapping[str, Any], now_us: int) -> None:
        body = msgspec.json.encode(document)
        key = str(document["key"])
        seconds = now_us // US_PER_S
        headers = {"webhook-id": key, "webhook-timestamp": str(seconds), "Idempotency-Key": key}
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, key, seconds, body)
        await self._poster.post(body, headers, now_us)


def signature(secret: bytes, message_id: str, unix_s: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    signed = f"{message_id}.{unix_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
