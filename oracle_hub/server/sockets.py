"""What sockets are told, what still waits in front of one, and how many there may be."""

import asyncio
import logging
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)

TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)

RESERVED_DESCRIPTORS = 256
"""So many are not for those who come in: the journal, links to sources and all else that opens files need them."""
_ADVICE = "raise their limit (ulimit -n, LimitNOFILE), or lower server.max_clients"


class Listener(socket.socket):
    """Accepts nobody into the last descriptors.

    Without any left nothing of the program can open a file, and asyncio answers each connection that it cannot accept
    with a thousand tracebacks and timers. The kernel gives the lowest number that is free: a connection that gets a
    high one comes when all below are taken. It is closed at once.
    """

    __slots__ = ("ceiling", "refused")

    ceiling: int
    """Numbers from this one on are not for connections."""
    refused: int

    @classmethod
    def of(cls, bound: int, ceiling: int) -> "Listener":
        """Listens where the socket with this descriptor is bound, which the caller has to close."""
        listener = cls(fileno=os.dup(bound))
        listener.ceiling, listener.refused = ceiling, 0
        return listener

    def accept(self) -> tuple[socket.socket, Any]:
        """As a socket does it; who comes too many is told to asyncio as one who has gone."""
        connection, address = super().accept()
        if connection.fileno() < self.ceiling:
            return connection, address
        connection.close()
        self.refused += 1
        if self.refused == 1:
            log.warning("connections that would take file descriptors from %d on are closed: %s", self.ceiling, _ADVICE)
        raise ConnectionAbortedError


def descriptor_ceiling(max_connections: int) -> int:
    """The first descriptor that is not for connections, after the limit was raised for so many as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else max(soft, min(wanted, hard))
        with suppress(OSError, ValueError):  # the system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return 2**31 if soft == resource.RLIM_INFINITY else soft - min(RESERVED_DESCRIPTORS, soft // 4)


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
