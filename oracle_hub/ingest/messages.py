"""A websocket that hands each message over at once, where the library would queue it and wake a task."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux's; elsewhere there is none."""
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class MessageConnection(ClientConnection):
    """Calls back with the bytes of each message, within the read that completed it.

    Tens of thousands of small messages a second spend as much time in the library's queue as in its parser. A peer is
    held back by not being read: a read is at most 256 KiB, and the loop turns between two of them. Messages that come
    before :meth:`deliver_to` wait for it. Their size is bounded by the connection's ``max_size``, parts included.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._take: Callable[[bytes], None] | None = None
        self._ended = False
        self._socket: socket.socket | None = None
        self._early: list[bytes] = []
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of the protocol: the socket is there."""
        super().connection_made(transport)
        self._socket = transport.get_extra_info("socket") if _QUICK_ACK is not None else None

    def data_received(self, data: bytes) -> None:
        """Part of the protocol: take what was read, and let the kernel acknowledge it now.

        A sender that holds small packets back until the last one is acknowledged (Nagle) would wait for the 40 ms by
        which our kernel delays that. The kernel forgets the wish, so it is told at every read.
        """
        super().data_received(data)
        if self._socket is not None and _QUICK_ACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def deliver_to(self, take: Callable[[bytes], None]) -> None:
        """Hand over what came since the handshake, then every message as it comes. ``take`` must not raise."""
        early, self._early = self._early, []
        self._take = take
        for message in early:
            take(message)

    def end_delivery(self) -> None:
        """Hand over nothing any more."""
        self._ended = True

    def process_event(self, event: Event) -> None:
        """Part of the library's protocol: frames of data are ours, the rest is its own."""
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
            return
        if self._ended:
            return
        data = event.data if isinstance(event.data, bytes) else bytes(event.data)
        if not event.fin or self._parts:
            self._parts.append(data)
            if not event.fin:
                return
            data = b"".join(self._parts)
            self._parts = []
        if self._take is None:
            self._early.append(data)
        else:
            self._take(data)
