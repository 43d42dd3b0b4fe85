"""One channel at work: a task of its own that sends what waits, in order, and tries again.

What a way of sending has to do is :class:`Sending`; how often, in what order and what after a failure is decided here,
the same for all.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from oracle_hub.alerts.alert import Alert, Change, Transition
from oracle_hub.alerts.notify.message import Message
from oracle_hub.alerts.notify.outbox import Entry, Outbox
from oracle_hub.alerts.notify.settings import ChannelSettings

log = logging.getLogger(__name__)

WRITTEN_AHEAD_S = 0.05
"""So long a message waits for the disk. A disk that hangs must not keep an alert about it back."""
MAX_RETRY_AFTER_S = 3_600.0
GRACE_S = 1.0
REFUSALS = 3
"""So often a message may be refused as such before it is given up."""


class SendError(Exception):
    """A message was not accepted.

    Args:
        what: in our own words, without address, token or the other side's text.
        unanswered: it may have been received all the same.
        refused: the other side will never take this message; another one, it may.
        retry_after_s: as the other side asked for.
    """

    def __init__(
        self, what: str, *, unanswered: bool = False, refused: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(what)
        self.unanswered = unanswered
        self.refused = refused
        self.retry_after_s = retry_after_s


class Sending(Protocol):
    """A way of sending."""

    @property
    def settings(self) -> ChannelSettings:
        """Of the channel."""
        ...

    @property
    def every_s(self) -> float:
        """How often :meth:`again` is wanted; 0 for never."""
        ...

    async def send(self, message: Message, now_us: int) -> None:
        """Return once it was accepted. Raises SendError. Ends within the channel's timeout."""
        ...

    async def again(self, firing: Sequence[Alert], alive: bool, now_us: int) -> None:
        """Say what still fires and, if ``alive``, that the hub lives. Raises SendError."""
        ...

    async def close(self) -> None:
        """Let go of sockets."""
        ...


class ChannelHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel does, for ``/readyz``, metrics and the command line. Counters are of this run."""

    name: str
    way: str
    """``alertmanager``, ``webhook`` or ``notify``."""
    ok: bool
    """The last attempt succeeded, or there was none."""
    waiting: int
    sent: Mapping[str, int]
    """Acknowledged messages by change."""
    failures: int
    """Attempts that failed."""
    dropped: int
    """Alerts that nobody was told of since too many waited."""
    given_up: int
    """Messages that the other side refused for good."""
    last_success_us: int | None
    last_error: str | None
    """In our words; None while ``ok``."""


class Channel:
    """Queue, task and counters of one channel.

    Args:
        way: its kind, for people.
        sending: how it sends.
        outbox: what it has to send.
        keep: told the changed lines of the outbox, to write them.
        written: waits until what was kept is on disk, at most so many seconds.
        now_us: the hub's clock.
        alive: whether the hub really works; without that there is no sign of life.
        first_retry_s, max_retry_s: range of the waits after failures.
        rng: draws the jitter.
    """

    def __init__(
        self,
        way: str,
        sending: Sending,
        outbox: Outbox,
        *,
        keep: Callable[[Mapping[str, bytes | None]], None],
        written: Callable[[float], Awaitable[None]],
        now_us: Callable[[], int],
        alive: Callable[[], bool],
        first_retry_s: float,
        max_retry_s: float,
        rng: random.Random,
    ) -> None:
        self.name = sending.settings.name
        self.way = way
        self.sending = sending
        self.outbox = outbox
        self._keep = keep
        self._written = written
        self._now_us = now_us
        self._alive = alive
        self._first_retry_s = first_retry_s
        self._max_retry_s = max_retry_s
        self._rng = rng
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._attempts = 0
        """Failures in a row."""
        self._refusals = 0
        """Of the present head."""
        self._not_before_s = 0.0
        self._sent = dict.fromkeys((change.value for change in Change), 0)
        self._failures = self._given_up = 0
        self._last_success_us: int | None = None
        self._last_error: str | None = None

    @property
    def health(self) -> ChannelHealth:
        """How it does."""
        return ChannelHealth(
            name=self.name,
            way=self.way,
            ok=self._last_error is None,
            waiting=len(self.outbox),
            sent=dict(self._sent),
            failures=self._failures,
            dropped=self.outbox.dropped,
            given_up=self._given_up,
            last_success_us=self._last_success_us,
            last_error=self._last_error,
        )

    def take(self, transition: Transition) -> None:
        """Queue it, if the channel wants it. Does not block."""
        if self.outbox.take(transition):
            self._changed()

    def agree(self, open_alerts: Sequence[Alert]) -> None:
        """See :meth:`Outbox.agree`."""
        self.outbox.agree(open_alerts, self._now_us())
        self._changed()

    async def run(self) -> None:
        """Send until cancelled. Whatever goes wrong is counted, told in the log once, and tried again."""
        loop = asyncio.get_running_loop()
        again_s = loop.time()
        while True:
            self._wake.clear()
            now_s = loop.time()
            entry = self.outbox.head
            if entry is None:
                self._settled.set()
            if now_s < self._not_before_s:
                await asyncio.sleep(self._not_before_s - now_s)
            elif self.sending.every_s and now_s >= again_s:
                again_s = now_s + self.sending.every_s
                await self._attempt(self.sending.again(self.outbox.firing, self._alive(), self._now_us()))
            elif entry is not None:
                await self._deliver(entry)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(again_s - now_s if self.sending.every_s else None):
                        await self._wake.wait()

    async def settled(self) -> None:
        """Return when nothing waits, or what waits can't be sent now."""
        await self._settled.wait()

    async def _deliver(self, entry: Entry) -> None:
        self._settled.clear()
        # On disk first: whoever kills us between the two must not make an orphan of what is now sent.
        await self._written(WRITTEN_AHEAD_S)
        transition = entry.transition
        message = Message(
            key=entry.key,
            change=transition.change,
            at_us=transition.at_us,
            alert=transition.alert,
            before=self.outbox.told(transition.alert.occurrence),
        )
        error = await self._attempt(self.sending.send(message, self._now_us()))
        if error is None:
            self._sent[transition.change.value] += 1
            self._refusals = 0
            self.outbox.acknowledged(entry)
        elif error.refused:
            self._refusals += 1
            if self._refusals >= REFUSALS:
                log.error("alerts channel %s: gave up %s: %s", self.name, entry.key, error)
                self._given_up += 1
                self._refusals = 0
                self.outbox.refused(entry)
        elif error.unanswered:
            self.outbox.unanswered(entry)
        self._save()

    async def _attempt(self, sending: Coroutine[Any, Any, None]) -> SendError | None:
        """Do it, and draw the consequences for when the next attempt may be."""
        try:
            # A way of sending keeps its own timeout; that this one is needed is a defect there, not here.
            async with asyncio.timeout(self.sending.settings.timeout_s + GRACE_S):
                await sending
        except SendError as error:
            failed = error
        except TimeoutError:
            failed = SendError("no answer in time", unanswered=True)
        except Exception as error:
            # Its text may hold an address: only what it is.
            failed = SendError(f"failed ({type(error).__name__})", unanswered=True)
        else:
            if self._last_error is not None:
                log.info("alerts channel %s: works again", self.name)
            self._attempts, self._last_error, self._last_success_us = 0, None, self._now_us()
            return None
        if self._last_error is None:
            log.warning("alerts channel %s: %s; trying again until it works", self.name, failed)
        self._failures += 1
        self._last_error = str(failed)
        self._not_before_s = asyncio.get_running_loop().time() + self._wait_s(failed)
        self._attempts += 1
        self._settled.set()
        return failed

    def _wait_s(self, error: SendError) -> float:
        ceiling_s = min(self._max_retry_s, self._first_retry_s * float(2 ** min(self._attempts, 32)))
        wait_s = ceiling_s * (0.5 + self._rng.random() / 2)
        return max(wait_s, min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S))

    def _changed(self) -> None:
        self._save()
        self._wake.set()
        if asyncio.get_running_loop().time() >= self._not_before_s:
            self._settled.clear()

    def _save(self) -> None:
        changed = self.outbox.changed()
        if changed:
            self._keep(changed)
