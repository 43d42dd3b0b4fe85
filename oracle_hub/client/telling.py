"""When a program is told what its client holds: at once, and after a standstill only the newest."""

import asyncio
import contextlib
import logging
import select
from collections.abc import Callable
from typing import Any, TypeAlias

from oracle_hub.client.price import NoPrice, Update
from oracle_hub.client.state import ClientState, Reconnect

log = logging.getLogger(__name__)

FRESH_US = 20_000
"""A message that waited longer than this, beyond the shortest way, may have newer ones behind it."""
LOOK_AGAIN_S = 0.01
DRAIN_LIMIT_S = 1.0
"""A client that can't catch up is told the newest that it has after so long."""

Callback: TypeAlias = Callable[[Update], None]


class Telling:
    """What one client tells, on its event loop, and when it looks at the time.

    Args:
        state: what is held. Leases and the hub's silence are looked at when they are due.
        clock_us: the client's monotonic clock.
        guard: held while the state changes.
        has_unread: whether messages wait in the socket, where the loop has not looked yet.
        abandon: called when the connection is of no use any more.
        on_live, on_none: called when a feed gets or loses its price.
    """

    def __init__(
        self,
        state: ClientState,
        *,
        clock_us: Callable[[], int],
        guard: contextlib.AbstractContextManager[Any],
        has_unread: Callable[[], bool],
        abandon: Callable[[Reconnect], None],
        on_live: Callback | None,
        on_none: Callback | None,
    ) -> None:
        self._state = state
        self._clock_us = clock_us
        self._guard = guard
        self._has_unread = has_unread
        self._abandon = abandon
        self._on_live, self._on_none = on_live, on_none
        self.news = asyncio.Event()
        """Set when there is something that nobody has taken."""
        self.heard_us: int | None = None
        """What whoever takes news was told of :attr:`ClientState.heard_us`."""
        self.drained = 0
        """Messages that had waited in a buffer, and were read to get at the newest."""
        self.callback_errors = 0
        self._timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.Handle | None = None
        self._behind_since_s: float | None = None
        self._told_us = 0

    def stop(self) -> None:
        """Look at the time no more."""
        for handle in (self._timer, self._settling):
            if handle is not None:
                handle.cancel()

    def received(self, now_us: int) -> None:
        """A message was taken in. Tell what is new, unless newer messages wait behind it."""
        if self._state.offset.waited_us(now_us) <= FRESH_US:
            self.tell()
            return
        self.drained += 1
        self._drain()

    def may_tell(self) -> bool:
        """Whether what is new may be told now. Not when newer messages wait: the program stood still, and comes here
        before the reader had a turn."""
        if self._behind_since_s is None and not self._state.full:
            now_us = self._clock_us()
            waited_us = min(self._state.offset.waited_us(now_us), now_us - self._told_us)  # nobody waits for ever
            if waited_us > FRESH_US and self._has_unread():
                self._drain()
        return self._behind_since_s is None

    def _drain(self) -> None:
        """Tell nothing until the socket is empty."""
        loop = asyncio.get_running_loop()
        if self._behind_since_s is None:
            self._behind_since_s = loop.time()
        if self._settling is None:
            self._settling = loop.call_soon(self._settle, False)

    def _settle(self, was_empty: bool) -> None:
        """Look whether the socket has more. What was in it until just now is with the reader one turn later."""
        self._settling = None
        since_s = self._behind_since_s
        if since_s is None:
            return
        loop, empty = asyncio.get_running_loop(), not self._has_unread()
        if not (empty and was_empty) and not self._state.full and loop.time() - since_s < DRAIN_LIMIT_S:
            self._settling = loop.call_soon(self._settle, empty)
            return
        self.tell()

    def tell(self) -> None:
        """Tell what is new, and look again when the next lease is over."""
        self._tell_turns()
        self._arm()

    def _tell_turns(self) -> None:
        self._behind_since_s = None
        with self._guard:
            self._told_us = self._clock_us()
            turned = self._state.turns(self._told_us)
        for update in turned:
            callback = self._on_none if update.price is None else self._on_live
            # A callback before it may have taken longer than the lease: then the timer tells the end instead.
            if callback is not None and (update.price is None or self._holds(update.feed)):
                try:
                    callback(update)
                except Exception:
                    self.callback_errors += 1
                    log.exception("a callback for %s failed", update.feed)
        if self._state.has_update or self._state.heard_us != self.heard_us:
            self.news.set()

    def _holds(self, feed: str) -> bool:
        try:
            with self._guard:
                self._state.get(feed, self._clock_us())
        except NoPrice:
            return False
        return True

    def _arm(self) -> None:
        """Keep a timer that fires no later than the next deadline. One that fires early is armed again."""
        deadline_us = self._state.next_deadline_us()
        if deadline_us is None:
            return
        loop = asyncio.get_running_loop()
        when_s = loop.time() + max(0, deadline_us - self._clock_us()) / 1e6
        if self._timer is not None:
            if self._timer.when() <= when_s + 0.001:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when_s, self.on_deadline)

    def on_deadline(self) -> None:
        """A lease is over, or the hub was silent for too long, unless a message says otherwise."""
        # What has arrived may be in the socket, where the loop has not looked yet, or on its way to the reader: it is
        # with the reader when the socket is empty now, and once more round the loop.
        waits = self._has_unread() and not self._state.full
        again_s, call = (LOOK_AGAIN_S, self.on_deadline) if waits else (0, self.on_timer)
        self._timer = asyncio.get_running_loop().call_later(again_s, call)

    def on_timer(self) -> None:
        """The same, when all that has arrived was read."""
        loop = asyncio.get_running_loop()
        if self._state.full:
            # It is the program that lets messages wait, not the hub that is silent; leases end all the same.
            self._timer = loop.call_later(LOOK_AGAIN_S, self.on_deadline)
            self._tell_turns()
            return
        if self._behind_since_s is not None or self._has_unread():
            # We were the ones who stood still: what waits in the socket comes first.
            self._timer = loop.call_later(LOOK_AGAIN_S, self.on_deadline)
            return
        self._timer = None
        with self._guard:
            effects = self._state.on_timer(self._clock_us())
        for effect in effects:
            if isinstance(effect, Reconnect):
                self._abandon(effect)
        self.tell()


def has_unread(transport: asyncio.Transport) -> bool:
    """Whether the kernel holds bytes of this connection for us."""
    if transport.is_closing():
        return False
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return False
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
