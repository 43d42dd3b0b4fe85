"""All channels together: what the hub holds of delivery."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from oracle_hub.alerts.alert import Alert, Transition
from oracle_hub.alerts.notify.alertmanager import Alertmanager
from oracle_hub.alerts.notify.channel import Channel, ChannelHealth, SendError, Sending
from oracle_hub.alerts.notify.library import Library
from oracle_hub.alerts.notify.message import Sender, test_messages
from oracle_hub.alerts.notify.outbox import Outbox
from oracle_hub.alerts.notify.settings import (
    AlertmanagerSettings,
    ChannelSettings,
    DeliverySettings,
    LibrarySettings,
    WebhookSettings,
)
from oracle_hub.alerts.notify.store import Store
from oracle_hub.alerts.notify.webhook import Webhook
from oracle_hub.errors import ConfigError

log = logging.getLogger(__name__)

FILE_NAME = "alerts-outbox.sqlite"
KEPT_S = 1.0
"""The disk is waited for no longer."""
US_PER_S = 1_000_000


class Now(Protocol):
    """The hub's clock, or a test's."""

    def now_us(self) -> int:
        """Unix microseconds."""
        ...


class TestResult(msgspec.Struct, frozen=True):
    """What became of a test message, firing and resolved."""

    __test__ = False

    channel: str
    way: str
    ok: bool
    error: str | None
    elapsed_ms: float


class Deliveries:
    """Sends every transition to every channel that wants it.

    >>> deliveries = Deliveries(settings, state_dir, instance, clock)
    >>> await deliveries.start(engine.open)
    >>> deliveries.take(transition)      # from the hub's loop, for each transition as it happens
    >>> await deliveries.stop(2.0)

    Args:
        settings: channels, secrets resolved.
        state_dir: where the outbox is kept.
        instance: UUID of the hub.
        clock: the hub's clock.
        alive: asked before each sign of life; False withholds it.
        rng: draws the jitter of retries.

    Raises:
        ConfigError: a channel that cannot be used as it is configured.
    """

    def __init__(
        self,
        settings: DeliverySettings,
        state_dir: Path,
        instance: str,
        clock: Now,
        *,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._alive = alive
        self._rng = random.Random()
        self._sender = Sender(instance=instance, simulated=settings.simulated, runbook_url=settings.runbook_url)
        self._sendings = {one.name: (way_of(one), _sending(one, self._sender)) for one in settings.channels}
        self._store = Store(state_dir / FILE_NAME)
        self._channels: list[Channel] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, open_alerts: Sequence[Alert] | None = None) -> None:
        """Load what the last run left, and begin to send it.

        ``open_alerts`` is what fires in the hub now. What a channel was told and is not among them is resolved there;
        what is among them and a channel was not told fires there. None leaves all as it is.

        Raises:
            ConfigError: a channel that cannot be used as it is configured.
        """
        if not self._sendings:
            return
        saved = await asyncio.to_thread(self._store.open)
        for name in set(saved) - set(self._sendings):
            log.warning("alerts channel %s is no longer configured: what it was told stays as it is there", name)
            self._store.keep(name, dict.fromkeys(saved[name]))
        for name, (way, sending) in self._sendings.items():
            channel = self._channel(way, sending, saved.get(name, {}))
            self._channels.append(channel)
            if open_alerts is not None:
                channel.agree(open_alerts)
        self._tasks = [asyncio.create_task(one.run(), name=f"alerts {one.name}") for one in self._channels]

    def take(self, transition: Transition) -> None:
        """Queue a transition at every channel that wants it. Never blocks, never raises."""
        for channel in self._channels:
            try:
                channel.take(transition)
            except Exception:
                log.exception("alerts channel %s: %s was not queued", channel.name, transition.alert.occurrence)

    async def settled(self) -> None:
        """Return when nothing waits that could be sent now, and what was sent is kept as sent."""
        await asyncio.gather(*(channel.settled() for channel in self._channels))
        await self._store.written(KEPT_S)

    async def stop(self, timeout_s: float) -> None:
        """Give what waits this long to be sent; what is left then is kept for the next start."""
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.settled()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(sending.close() for _, sending in self._sendings.values()))
        if self._tasks:
            await asyncio.to_thread(self._store.close)
        self._tasks, self._channels = [], []

    async def test(self, channel: str | None = None) -> list[TestResult]:
        """Send a pair that says of itself that it is a test, past queues and filters, to one channel or to all.

        Needs no :meth:`start`; to be followed by :meth:`stop`.

        Raises:
            ConfigError: there is no such channel.
        """
        if channel is not None and channel not in self._sendings:
            known = ", ".join(self._sendings) or "none"
            raise ConfigError(f"no alerts channel is called {channel}; configured: {known}")
        names = [channel] if channel is not None else list(self._sendings)
        return list(await asyncio.gather(*(self._test(name, *self._sendings[name]) for name in names)))

    @property
    def health(self) -> list[ChannelHealth]:
        """How each channel does."""
        return [channel.health for channel in self._channels]

    @property
    def kept(self) -> str | None:
        """Why the outbox is not kept over a restart; None if it is."""
        return self._store.error

    def samples(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """Metrics: name, labels, value, as ``docs/metrics.md`` describes them."""
        for one in self.health:
            labels = (one.name,)
            yield "oraclehub_alert_channel_ok", labels, one.ok
            yield "oraclehub_alert_messages_waiting", labels, one.waiting
            for change, count in one.sent.items():
                yield "oraclehub_alert_messages_sent", (one.name, change), count
            yield "oraclehub_alert_send_failures", labels, one.failures
            yield "oraclehub_alerts_dropped", labels, one.dropped
            yield "oraclehub_alert_messages_given_up", labels, one.given_up
            if one.last_success_us is not None:
                yield "oraclehub_alert_last_success_timestamp_seconds", labels, one.last_success_us / US_PER_S

    def _channel(self, way: str, sending: Sending, saved: Mapping[str, bytes]) -> Channel:
        name = sending.settings.name
        try:
            outbox = Outbox(sending.settings, self._settings.max_queued, saved)
        except msgspec.MsgspecError as error:
            log.error("%s: what is kept for channel %s is unreadable (%s): it begins anew", FILE_NAME, name, error)
            self._store.keep(name, dict.fromkeys(saved))
            outbox = Outbox(sending.settings, self._settings.max_queued)
        return Channel(
            way,
            sending,
            outbox,
            keep=partial(self._store.keep, name),
            written=self._store.written,
            now_us=self._clock.now_us,
            alive=self._alive,
            first_retry_s=self._settings.first_retry_s,
            max_retry_s=self._settings.max_retry_s,
            rng=self._rng,
        )

    async def _test(self, name: str, way: str, sending: Sending) -> TestResult:
        started_s = time.perf_counter()
        error: str | None = None
        try:
            for message in test_messages(self._clock.now_us()):
                await sending.send(message, self._clock.now_us())
        except SendError as failure:
            error = str(failure)
        except Exception as failure:
            error = f"failed ({type(failure).__name__})"
        return TestResult(name, way, error is None, error, (time.perf_counter() - started_s) * 1e3)


def way_of(settings: ChannelSettings) -> str:
    """The section of the configuration that such a channel has."""
    match settings:
        case AlertmanagerSettings():
            return "alertmanager"
        case WebhookSettings():
            return "webhook"
        case _:
            return "notify"


def _sending(settings: AlertmanagerSettings | WebhookSettings | LibrarySettings, sender: Sender) -> Sending:
    match settings:
        case AlertmanagerSettings():
            return Alertmanager(settings, sender)
        case WebhookSettings():
            return Webhook(settings, sender)
        case LibrarySettings():
            return Library(settings, sender)
