"""One connected subscriber: its transport, what of it is not read yet, and when a frame may go past the transport."""

import asyncio
from collections import deque

from oracle_hub.server.frames import ping_frame
from oracle_hub.server.sockets import plain_descriptor, unsent_counter
from oracle_hub.server.tokens import Token
from oracle_hub.stream.board import Board
from oracle_hub.stream.session import Session, SessionLimits

_OFFSET_BYTES = 8
_UNLIMITED = 2**62


def ask_every_bytes(window_bytes: int) -> int:
    """After how many bytes a client is asked how far it has read: twice in a window, so that the answer to one question
    is there before the next, and no oftener, since the answer is as dear as a frame. A window of 0 is none."""
    return max(1, window_bytes // 2) if window_bytes else _UNLIMITED


class Client:
    """One connected subscriber.

    What the kernel has taken may still be unread: it lies in the peer's receive buffer, of which TCP tells nothing. But
    every websocket client answers a ping when it has read that far (RFC 6455, section 5.5.2). So a ping that carries
    the number of bytes before it goes out with each :func:`ask_every_bytes`, and what is beyond ``window_bytes`` and
    not answered for counts as unsent. From when an answer is overdue on, no frame goes out without a look at that.

    Of mode ``all``, what can't be sent now waits here and not in the transport: from here it can be taken back whole
    when the connection is closed, so that the reason stands behind nothing but the rest of one frame.
    """

    __slots__ = (
        "_answered", "_ask_every_bytes", "_asked", "_limit_bytes", "_own_bytes", "_unsent_bytes",
        "_waiting", "_window_bytes", "closing", "cut", "descriptor", "due_us", "fault", "gone", "idle_since_us",
        "pings", "session", "token", "transport", "waiting_bytes",
    )  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        board: Board,
        limits: SessionLimits,
        *,
        now_us: int,
        token: Token | None = None,
        window_bytes: int = 0,
    ) -> None:
        self.transport = transport
        self.token = token
        self.session = Session(board, limits, self)
        self.idle_since_us: int | None = now_us
        """Since when it has had no subscription; None while it has one."""
        self.descriptor = plain_descriptor(transport)
        """The socket, if frames may be written to it past the transport while nothing waits in that."""
        self._unsent_bytes = unsent_counter(transport)
        self._window_bytes = window_bytes or _UNLIMITED
        self._ask_every_bytes = ask_every_bytes(window_bytes)
        self._own_bytes = 0
        """Written to it alone. Its session counts what went to its row, and nobody the heartbeats in lanes."""
        self._asked = 0
        """Bytes before the last ping, and before the last one that was answered."""
        self._answered = 0
        self.pings = 0
        """How many it was sent."""
        self._waiting: deque[bytes] | None = None
        """Frames that wait for the transport."""
        self.waiting_bytes = 0
        self.due_us: int | None = None
        """The time that it is on the list for, to be told what was held back."""
        self._limit_bytes = limits.max_unsent_bytes
        self.cut: asyncio.TimerHandle | None = None
        """Cuts the connection where the peer does not answer our close."""
        self.fault: int | None = None
        """The code that it was closed with for frames that no client may send."""
        self.closing = False
        """Our close frame was sent: nothing may follow it."""
        self.gone = asyncio.Event()
        """Its reading has ended."""

    def write(self, data: bytes) -> None:
        """Write frames as soon as they may be: through the transport, which keeps what the kernel does not take."""
        if self._waiting or (self.session.backlogged and not self._clear()):
            if self._waiting is None:
                self._waiting = deque()
            if not self._waiting:
                self.hold()
            self._waiting.append(data)
            self.waiting_bytes += len(data)
        else:
            self.write_on(data)

    def write_on(self, data: bytes) -> None:
        """Write to the transport what nothing waits in front of."""
        self.transport.write(data)
        self._own_bytes += len(data)
        if self._sent_bytes - self._asked >= self._ask_every_bytes:
            self.transport.write(self.question())

    def close(self, frame: bytes, *, drop: bool) -> None:
        """Write the close frame, and nothing ever after. ``drop``: what waits is let go, so that it comes soon."""
        if not self.transport.is_closing():
            self.transport.writelines([*(() if drop else self._waiting or ()), frame])
        self._waiting, self.waiting_bytes = None, 0
        self.closing = True
        self.hold()

    @property
    def overfull(self) -> bool:
        """Whether more waits than may, whatever it is."""
        return self.waiting_bytes > self._limit_bytes

    def _clear(self) -> bool:
        return not self._unsent_bytes() and not self._beyond_window()

    def question(self) -> bytes:
        """A ping to be written at once, by whose answer is known how far it has read."""
        self._asked = self._sent_bytes
        self.pings += 1
        if 2 * (self._asked - self._answered) > 3 * self._ask_every_bytes:  # the last one is not answered
            self.hold()
        return ping_frame(self._asked.to_bytes(_OFFSET_BYTES, "big"))

    def left_out(self, size_bytes: int) -> None:
        """A frame that was written to its row did not go to it."""
        self._own_bytes -= size_bytes

    def answered(self, payload: bytes) -> None:
        """A pong: it has read all that came before the ping, if this was one of ours."""
        offset = int.from_bytes(payload, "big")
        if len(payload) == _OFFSET_BYTES and self._answered < offset <= self._asked:
            self._answered = offset
            if not self.transport.get_write_buffer_size():
                self.release()

    @property
    def _sent_bytes(self) -> int:
        return self._own_bytes + self.session.row_bytes

    def _beyond_window(self) -> int:
        return max(0, self._sent_bytes - self._answered - self._window_bytes)

    def unsent_bytes(self) -> int:
        """What the kernel has not taken, and what it took beyond the window."""
        return self._unsent_bytes() + self._beyond_window() + self.waiting_bytes

    def hold(self) -> None:
        """Bytes wait in the transport, or it is gone: nothing may overtake them, or reach who has the number next.

        Or it has enough to read."""
        self.session.out_of_reach()

    def release(self) -> None:
        """All bytes were taken."""
        if self.closing or self.transport.is_closing():
            return
        while self._waiting and self._clear():
            data = self._waiting.popleft()
            self.waiting_bytes -= len(data)
            self.write_on(data)
        if self.descriptor is not None and self._clear() and not self._waiting:
            self.session.reach(self.descriptor)
