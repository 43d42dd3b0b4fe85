"""One life of one worker: its process, the hub's end of its pipe, and how far it has been told."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Protocol, cast

from oracle_hub.errors import PipeError
from oracle_hub.server.feed_pipe import Answer, Ask, Listening, Recent, Report, ToHub, Unpacker, pack

log = logging.getLogger(__name__)

PAST_CHUNK_BYTES = 128 << 10
"""The past is told in pieces of this size, as the worker reads them: it must not hold up what is new for others."""
MAX_UNREAD_BYTES = 8 << 20
"""A worker that leaves more of its feed unread can't keep up. A thousand full batches are about a fifth of it."""
END_S = 1.0
"""How long a process may live on after it closed its pipe."""
MAX_ANSWERING = 64
"""Questions of one worker that are being answered; more are left to time out."""


class Origin(Protocol):
    """What a worker is fed from."""

    recent: Recent

    def how_things_stand(self, number: int) -> bytes:
        """The message after which a worker serves."""
        ...

    def answer(self, question: Ask) -> Awaitable[Answer]:
        """Answer a question of a worker. Never raises."""
        ...


class WorkerFeed(asyncio.Protocol):
    """Tells a worker the past, then how things stand, then whatever comes; and hears it."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, origin: Origin, n_start: int = 1) -> None:
        """``n_start`` counts the lives of this worker, from 1."""
        self.number = number
        self.process = process
        self.live = False
        """Whether it has been told everything so far and gets each batch at once."""
        self.listening = asyncio.Event()
        """Whether it takes connections."""
        self.began_s = self.heard_s = asyncio.get_running_loop().time()
        self.samples: tuple[tuple[str, tuple[str, ...], float], ...] = ()
        """Its latest report."""
        self.may_end = False
        """Whether it was told to end."""
        self._origin = origin
        self._n_start = n_start
        self._told_seq = 0
        self._paused = False
        self._unpacker: Unpacker[ToHub] = Unpacker(ToHub)
        self._transport: asyncio.Transport | None = None
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def unread_bytes(self) -> int:
        """What it has not read yet, beside what the kernel holds."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process.returncode is None

    @property
    def serving(self) -> bool:
        """Whether subscribers can be served by it."""
        return self.running and self.live and self.listening.is_set()

    # To the worker.

    def begin(self, start: bytes) -> None:
        """Tell it who it is, then the past."""
        self._told_seq = self._origin.recent.first_seq
        self._write(start)
        self._tell_past()

    def _tell_past(self) -> None:
        recent = self._origin.recent
        while not self._paused and not self.live and not self.may_end:
            if self._told_seq == recent.last_seq:
                self._write(self._origin.how_things_stand(self.number))
                self.live = True
                return
            found = recent.after(self._told_seq, PAST_CHUNK_BYTES)
            if found is None:
                self.kill("reads the past more slowly than it grows")
                return
            self._told_seq, frames = found
            self._write(frames)

    def send(self, message: bytes) -> None:
        """Send it what is new. Never waits; whoever leaves too much unread is killed."""
        self._write(message)
        if self.unread_bytes > MAX_UNREAD_BYTES:
            self.kill(f"leaves {self.unread_bytes >> 20} MiB unread")

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def kill(self, fault: str) -> None:
        """End it: it can't serve the truth."""
        self.live, self.may_end = False, True
        if self._transport is not None:
            self._transport.abort()
        if self.running:
            log.error("worker %d %s; killed", self.number, fault)
            self.process.kill()

    def close(self) -> None:
        """The process has ended."""
        self.live = False
        if self._transport is not None:
            self._transport.abort()
        for task in self._answering:
            task.cancel()

    # The pipe.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=2 * PAST_CHUNK_BYTES, low=PAST_CHUNK_BYTES)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if not self.live:  # soon, since the transport may not be aborted in the middle of its own writing
            asyncio.get_running_loop().call_soon(self._tell_past)

    def data_received(self, data: bytes) -> None:
        self.heard_s = asyncio.get_running_loop().time()
        try:
            messages = self._unpacker.feed(data)
        except PipeError as error:
            self.kill(f"sent what can't be read ({error})")
            return
        for message in messages:
            match message:
                case Report():
                    self.samples = message.samples
                case Listening():
                    self.listening.set()
                    log.info("worker %d serves (start %d)", self.number, self._n_start)
                case Ask():
                    self._answer(message)

    def _answer(self, question: Ask) -> None:
        if len(self._answering) >= MAX_ANSWERING:
            return
        task = asyncio.get_running_loop().create_task(self._reply(question))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _reply(self, question: Ask) -> None:
        self._write(pack(await self._origin.answer(question)))

    def connection_lost(self, error: Exception | None) -> None:
        self.live = False
        if not self.may_end:  # it is ending, as a rule
            asyncio.get_running_loop().call_later(END_S, self._end)

    def _end(self) -> None:
        if self.running:
            self.kill("closed its pipe and goes on")
