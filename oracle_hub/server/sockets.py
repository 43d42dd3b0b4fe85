"""What a subscriber's socket is told, and what still waits in front of it."""

import asyncio
import socket
from collections.abc import Callable

TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


def tune(transport: asyncio.Transport, not_sent_low_water_bytes: int) -> bool:
    """Send small frames at once, and let the kernel hide no more than so much unsent data.

    Returns False when the platform does not do the latter: the option is unknown, or reads back as something else.
    A socket that is not TCP has nothing to be told.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        return True  # gone already: the peer reset the connection
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, not_sent_low_water_bytes)
        in_force: int = sock.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT)
    except OSError:
        return False
    return in_force == not_sent_low_water_bytes


def plain_descriptor(transport: asyncio.Transport) -> int | None:
    """The socket's descriptor where bytes go to it as they are; None where TLS or something else is between.

    It may be written to only while nothing waits in the transport, and not after ``connection_lost``, from which on it
    may be somebody else's. Only of asyncio's own transport is it known that a write goes to the socket at once.
    """
    sock = transport.get_extra_info("socket")
    own = type(transport).__module__ == "asyncio.selector_events"
    if sock is None or not own or transport.get_extra_info("ssl_object") is not None:
        return None
    descriptor: int = sock.fileno()
    return descriptor if descriptor >= 0 else None


def unsent_counter(transport: asyncio.Transport) -> Callable[[], int]:
    """A function that gives how many bytes the kernel has not taken.

    Under TLS asyncio keeps what is encrypted in a transport of its own below the one that we write to, up to its high
    water of 64 KiB, and counts it in neither: without it a slow client would be noticed that much later.
    """
    above = transport.get_write_buffer_size
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    if below is None:
        return above
    encrypted: Callable[[], int] = below.get_write_buffer_size
    return lambda: above() + encrypted()
