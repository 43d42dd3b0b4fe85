"""Everything else (Slack, Telegram, Discord, PagerDuty, e-mail, …) by Apprise, an optional extra.

Its calls block, sleep to keep to services' rates, and hang when the service does. So each channel has at most one
thread in a call; the hub's loop and the other channels don't notice. The threads are daemons: one that hangs does not
keep the hub from ending.
"""

import asyncio
import contextlib
import logging
import threading
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oracle_hub.alerts.alert import Alert, Change, Severity
from oracle_hub.alerts.notify.channel import SendError
from oracle_hub.alerts.notify.message import Message, Sender, lines
from oracle_hub.alerts.notify.settings import LibrarySettings
from oracle_hub.errors import ConfigError

if TYPE_CHECKING:
    import apprise


class Library:
    """Tells one service through the library.

    Raises:
        ConfigError: the extra is not installed, or the library does not know such a URL.
    """

    every_s = 0.0

    def __init__(self, settings: LibrarySettings, sender: Sender) -> None:
        self.settings = settings
        self._sender = sender
        self._service = _service(settings)
        self._running: tuple[str, asyncio.Future[bool]] | None = None
        """The call that the thread is in, and for which message."""

    async def send(self, message: Message, now_us: int) -> None:
        """Hand over one message. A call that outlasts its time goes on, and the next attempt asks how it ended."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                if self._running is not None and self._running[0] != message.key:
                    await asyncio.shield(self._running[1])
                    self._running = None
                if self._running is None:
                    self._running = message.key, self._call(message)
                accepted = await asyncio.shield(self._running[1])
        except TimeoutError:
            raise SendError(f"no answer in {self.settings.timeout_s:g} s", unanswered=True) from None
        self._running = None
        if not accepted:
            raise SendError("the service did not accept it", unanswered=True)

    async def again(self, firing: Sequence[Alert], alive: bool, now_us: int) -> None:
        """Nothing: people are told once."""

    async def close(self) -> None:
        """Nothing to close: the library connects for every message."""

    def _call(self, message: Message) -> "asyncio.Future[bool]":
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        title, body = lines(message, self._sender)
        kind = _notify_type(message)

        def finish(accepted: bool) -> None:
            if not done.done():
                done.set_result(accepted)

        def work() -> None:
            accepted = False
            # Whatever a plugin raises may hold its URL. That it failed is enough.
            with contextlib.suppress(Exception):
                accepted = bool(self._service.notify(body=body, title=title, notify_type=kind, body_format="text"))
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, accepted)

        threading.Thread(target=work, name=f"alerts-{self.settings.name}", daemon=True).start()
        return done


def _service(settings: LibrarySettings) -> "apprise.Apprise":
    key = f"alerts.notify.{settings.name}"
    # What it logs at any level names addresses, and those are secrets.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    logging.getLogger("urllib3").setLevel(logging.INFO)
    with warnings.catch_warnings():
        # It imports what Python 3.11 deprecates, and does without where that is gone.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            import apprise
        except ImportError:
            raise ConfigError(f"{key}: needs the extra: pip install 'oracle-hub[notify]'") from None
        asset = apprise.AppriseAsset(
            app_id="oracle-hub",
            app_desc="oracle-hub alerts",
            app_url="",
            async_mode=False,
            http_redirects=False,
            # No threads of its own, which could not be left behind; no files.
            service_timeout=0,
            storage_mode=apprise.PersistentStoreMode.MEMORY,
        )
        service = apprise.Apprise(asset=asset)
        if not service.add(settings.url.reveal()) or len(service) != 1:
            raise ConfigError(f"{key}.url: the notification library does not know such a URL; one service per entry")
    return service


def _notify_type(message: Message) -> "apprise.NotifyType":
    import apprise

    if message.change is Change.RESOLVED:
        return apprise.NotifyType.SUCCESS
    return apprise.NotifyType.FAILURE if message.alert.severity is Severity.CRITICAL else apprise.NotifyType.WARNING
