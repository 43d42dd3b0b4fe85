"""What clients' frames must keep and aiohttp does not see to (RFC 6455): they are masked, no message is too long, and
no more small ones come than somebody could mean.

Only headers are looked at. All else of the protocol is aiohttp's: reserved bits, kinds of frames, their order, UTF-8.
"""

import time
from collections.abc import Callable

PROTOCOL_ERROR, POLICY_VIOLATION, MESSAGE_TOO_BIG = 1002, 1008, 1009
SMALL_BYTES = 256
"""Of frames with less in them there is a limit: one read from the socket holds 40,000 pongs or empty fragments, and
whoever goes through them lets nobody else have a turn."""
SMALL_FRAMES = 1_000
"""So many may come at once beside requests and answers to pings,"""
SMALL_FRAMES_PER_S = 100
"""and so many for long."""
_MASK_BYTES = 4
_CONTROL = 0x08


class FrameGuard:
    """Follows the frames of one client."""

    __slots__ = (
        "_answerable", "_burst", "_fault", "_head", "_left", "_max_message_bytes", "_message_bytes", "_n_answerable",
        "_now_s", "_per_s", "_since_s", "_skip_bytes", "_tell",
    )  # fmt: skip

    def __init__(self, max_message_bytes: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._max_message_bytes = max_message_bytes
        self._now_s = now_s
        self._burst = self._left = SMALL_FRAMES
        """How many small frames may come, and how many of these may still."""
        self._per_s = SMALL_FRAMES_PER_S
        self._since_s = now_s()
        """When ``_left`` was last counted."""
        self._answerable: Callable[[], int] = int
        self._n_answerable = 0
        """How many of our pings are in the allowance already."""
        self._head = b""
        """What has come of a header that is not whole yet."""
        self._skip_bytes = 0
        """Of the frame at hand, how much is still to come: nothing that matters here."""
        self._message_bytes = 0
        """Of the message at hand, in all its fragments so far."""
        self._fault: int | None = None
        self._tell: Callable[[int], None] | None = None

    def watch(self, tell: Callable[[int], None]) -> None:
        """Call this with a close code once there is a fault, or at once where there was one."""
        self._tell = tell
        if self._fault is not None:
            tell(self._fault)

    def allow(self, requests: int, requests_per_s: int, answerable: Callable[[], int]) -> None:
        """Let so many requests come too, at once and for long, and an answer to each ping of ours.

        ``answerable`` tells how many pings were sent, or more. It is asked when the allowance is used up."""
        self._burst += requests
        self._left += requests
        self._per_s += requests_per_s
        self._answerable = answerable

    def passes(self, data: bytes) -> bool:
        """Whether these bytes, and all before them, may be read. After a fault nothing may."""
        if self._fault is None:
            self._fault = self._look(data)
            if self._fault is not None and self._tell is not None:
                self._tell(self._fault)
        return self._fault is None

    def _look(self, data: bytes) -> int | None:
        """The close code of the first fault; None where there is none."""
        at = 0
        while at < len(data):
            if self._skip_bytes:
                step = min(self._skip_bytes, len(data) - at)
                self._skip_bytes -= step
                at += step
                continue
            wanted = self._head_bytes() - len(self._head)
            self._head += data[at : at + wanted]
            at += wanted
            if len(self._head) == self._head_bytes():
                fault = self._begin()
                if fault is not None:
                    return fault
        return None

    def _head_bytes(self) -> int:
        """Size of the header without the mask, as far as it is known (section 5.2)."""
        if len(self._head) < 2:
            return 2
        return {126: 4, 127: 10}.get(self._head[1] & 0x7F, 2)

    def _begin(self) -> int | None:
        """A header is whole: what it announces."""
        first, second = self._head[0], self._head[1]
        size_bytes = second & 0x7F if len(self._head) == 2 else int.from_bytes(self._head[2:], "big")
        self._head = b""
        if not second & 0x80:
            return PROTOCOL_ERROR  # section 5.1: a server must close
        if size_bytes < SMALL_BYTES:
            self._left -= 1
            if self._left < 0 and not self._earned():
                return POLICY_VIOLATION
        self._skip_bytes = _MASK_BYTES + size_bytes
        if not first & _CONTROL:
            is_continued = first & 0x0F == 0
            self._message_bytes = size_bytes + (self._message_bytes if is_continued else 0)
            if self._message_bytes > self._max_message_bytes:
                return MESSAGE_TOO_BIG
        return None

    def _earned(self) -> bool:
        """Count anew how many small frames may still come; whether this one may."""
        now_s, n_answerable = self._now_s(), self._answerable()
        grown = min(self._burst, int((now_s - self._since_s) * self._per_s))
        self._left += grown + n_answerable - self._n_answerable
        self._since_s, self._n_answerable = now_s, n_answerable
        return self._left >= 0
