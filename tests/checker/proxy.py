"""A TCP proxy that does to connections what networks do: delay, throttle, pause, truncate, reset, half-open.

It hides nothing: every byte that is passed on is the peer's, in order. Bounded: per direction it holds one chunk.
"""

import asyncio
import contextlib
import socket
import struct

CHUNK_BYTES = 4_096
KERNEL_BUFFER_BYTES = 4_096
"""Asked of the kernel for each socket and direction: what a client leaves unread is soon left with the hub."""
_LINGER_ZERO = struct.pack("ii", 1, 0)


def _small(sock: socket.socket) -> socket.socket:
    """Limit its buffers; a listening socket hands the limits on to what it accepts."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER_BYTES)
    return sock


class _Connection:
    """A client's socket and the one to the target."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.target: asyncio.StreamWriter | None = None
        self.half_open = False
        self.budget_bytes: int | None = None
        """How many more bytes go down to the client before it is cut; None: no end."""

    @property
    def writers(self) -> list[asyncio.StreamWriter]:
        return [self.client] if self.target is None else [self.client, self.target]

    def cut(self, *, reset: bool) -> None:
        """End both sides: with RST, or with FIN and whatever was written before it."""
        for writer in self.writers:
            if reset and not writer.transport.is_closing():
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
                writer.transport.abort()
            else:
                writer.close()


class FaultProxy:
    """Listens on a free port of loopback and passes everything on to ``target``, which may change.

    ``delay_s`` and ``bytes_per_s`` hold for every chunk in either direction from now on. A chunk waits for the one
    before, so bytes come between one and two delays late.
    """

    def __init__(self, target: tuple[str, int] | None = None) -> None:
        self.target = target
        """Where new connections go; None: they are reset."""
        self.delay_s = 0.0
        self.bytes_per_s: int | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._mute = False
        self._connections: dict[_Connection, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.accepted = 0
        """Connections so far."""

    @property
    def connections(self) -> int:
        """Connections now."""
        return len(self._connections)

    async def start(self) -> "FaultProxy":
        """Listen. Sets ``port``."""
        sock = _small(socket.socket())
        sock.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._accept, sock=sock, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Cut everything and listen no more."""
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    # Faults.

    def pause(self) -> None:
        """Pass nothing on until :meth:`clear`; what arrives waits in the kernel, and then with the sender."""
        self._flowing.clear()

    def half_open(self) -> None:
        """Forget every connection, without a word to either side; new ones are accepted and hear nothing."""
        self._mute = True
        for connection in self._connections:
            connection.half_open = True

    def reset(self) -> None:
        """End every connection with RST."""
        for connection in tuple(self._connections):
            connection.cut(reset=True)

    def truncate(self, after_bytes: int) -> None:
        """End every connection after so many more bytes to the client, wherever in a frame that is."""
        for connection in self._connections:
            connection.budget_bytes = after_bytes

    def clear(self) -> None:
        """No faults from now on. What was forgotten stays forgotten, and is ended with RST."""
        self.delay_s, self.bytes_per_s, self._mute = 0.0, None, False
        for connection in tuple(self._connections):
            connection.budget_bytes = None
            if connection.half_open:
                connection.cut(reset=True)
        self._flowing.set()

    # Passing on.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection(writer)
        connection.half_open = self._mute
        self.accepted += 1
        self._connections[connection] = None
        try:
            await self._serve(connection, reader)
        except (OSError, asyncio.CancelledError):
            pass  # the end of either side ends both; a cancelled task was cancelled by stop()
        finally:
            connection.cut(reset=True)
            del self._connections[connection]
            self._tasks.discard(task)

    async def _serve(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        target = self.target
        if target is None:
            return
        if connection.half_open:
            await self._read_to_the_end(reader)
            return
        sock = _small(socket.socket())
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, target)
        except BaseException:
            sock.close()
            raise
        upstream, connection.target = await asyncio.open_connection(sock=sock, limit=CHUNK_BYTES)
        for writer in connection.writers:
            writer.transport.set_write_buffer_limits(high=CHUNK_BYTES)
        directions = [
            asyncio.create_task(self._pass_on(connection, reader, connection.target, down=False)),
            asyncio.create_task(self._pass_on(connection, upstream, connection.client, down=True)),
        ]
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if all(task.exception() is None for task in done):
                for writer in connection.writers:
                    await writer.drain()
                connection.cut(reset=False)
        finally:
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _read_to_the_end(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(CHUNK_BYTES):
            pass

    async def _pass_on(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._flowing.wait()
            if self.delay_s:
                await _pass_time(self.delay_s)
            if self.bytes_per_s:
                await _pass_time(len(data) / self.bytes_per_s)
            if connection.half_open:
                await self._read_to_the_end(reader)
                await asyncio.Event().wait()  # not even its end is told
            budget = connection.budget_bytes
            if down and budget is not None:
                connection.budget_bytes = max(0, budget - len(data))
                data = data[:budget]
            writer.write(data)
            await writer.drain()
            if down and connection.budget_bytes == 0:
                return


async def _pass_time(seconds: float) -> None:
    """What a slow network does. A timer and not a nap: the proxy is a tool, and what tests wait for are events."""
    over = asyncio.get_running_loop().create_future()
    timer = asyncio.get_running_loop().call_later(seconds, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()
