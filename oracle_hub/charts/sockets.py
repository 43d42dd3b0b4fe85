"""What waits in front of a reader: little, so that one who comes back to a stalled connection finds no old prices.

And what clients' frames must keep, where the gate gives connections a guard.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, TypeAlias

from aiohttp import web

TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
UNSENT_BYTES = 16_384
"""How much the kernel may take that it cannot send yet; by itself it takes megabytes."""
POLL_S = 0.01


class FrameGuard(Protocol):
    """Follows the frames of one client, and lets nothing more be read after a fault."""

    def watch(self, tell: Callable[[int], None]) -> None:
        """Call this with a close code once there is a fault."""


MakeGuard: TypeAlias = Callable[[int], FrameGuard]
"""With the longest message in bytes."""


def frame_guard(request: web.Request, make: MakeGuard | None, max_message_bytes: int) -> FrameGuard | None:
    """Put a guard before a websocket; to be called before the handshake is answered, and somebody must watch it.

    None where there is none to be had, or the gate's connections have no place for one.
    """
    if make is None or not hasattr(request.protocol, "guard"):
        return None
    guard: FrameGuard = make(max_message_bytes)
    request.protocol.guard = guard
    return guard


def hide_little(transport: asyncio.Transport | None) -> None:
    """Have the kernel take little more than it can send. Where that is unknown or the peer is gone, nothing happens."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    except OSError:
        return


async def others_turn() -> None:
    """Let everybody else go first; to be awaited between two messages of one client.

    Those that came together are handed out without waiting, and answers that the kernel takes are not waited for
    either: a thousand of them would be one turn of the loop, in which nobody else is served.
    """
    await asyncio.sleep(0)


async def taken(transport: asyncio.Transport | None, timeout_s: float) -> None:
    """Wait until the kernel has taken everything that was written, before anything newer is looked for.

    Raises:
        TimeoutError: it has not, in time: the reader takes nothing.
    """
    async with asyncio.timeout(timeout_s):
        while transport is not None and transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110 - of a transport's buffer there is no event
            await asyncio.sleep(POLL_S)
