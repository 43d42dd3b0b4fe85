"""A worker: a process that serves subscribers and is fed by the hub. ``python -m oracle_hub.app.worker``.

The hub starts it (``app/workers.py``) with the pipe as its standard input. It has no configuration, no clock and no
decisions of its own, and does not outlive its hub: when the pipe ends, or is silent for too long, subscribers get a
``goaway`` and the process ends, since what it could still show would only get older.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from typing import cast

from oracle_hub.app import collector
from oracle_hub.app.publisher import server_samples
from oracle_hub.errors import ConfigError, OracleHubError, PipeError
from oracle_hub.server.fed_service import FedService
from oracle_hub.server.feed_pipe import (
    Alerted,
    Answer,
    Changed,
    Listening,
    Live,
    Published,
    Renew,
    Report,
    Start,
    Stop,
    Tick,
    ToHub,
    ToWorker,
    Unpacker,
    pack,
)
from oracle_hub.server.http import Server

log = logging.getLogger("oracle_hub.worker")

SILENCE_S = 3.0
"""Six ticks of the hub: then it is hung, or we are too far behind, and nobody may trust what is shown here."""
QUIET_S = 1.0
"""Two ticks of the hub: what it said last is too old for a heartbeat, which would say that nothing came after it."""
HUB_LOST = "hub_lost"
"""The reason that subscribers are given."""


class Worker(asyncio.Protocol):
    """The worker's end of the pipe, and the server behind it."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.reason = HUB_LOST
        """Why it ends, for subscribers."""
        self.server: Server | None = None
        self._service: FedService | None = None
        self._past: list[Published] = []
        self._unpacker: Unpacker[ToWorker] = Unpacker(ToWorker)
        self._transport: asyncio.Transport | None = None
        self._starting: asyncio.Task[None] | None = None
        self._listening = False
        self._offset_us = 0
        self._word_us = 0
        """When the hub said what it said last, on the machine's monotonic clock."""
        self._heard_s = asyncio.get_running_loop().time()
        self.failed = False

    def now_us(self) -> int:
        """The hub's clock."""
        return time.monotonic_ns() // 1_000 + self._offset_us

    def current(self, now_us: int) -> bool:
        """Whether the hub spoke so shortly before a time of its clock that a heartbeat may be said then."""
        return now_us - self._offset_us - self._word_us <= QUIET_S * 1e6

    def _word(self, at_us: int) -> None:
        """The hub said something, at this time of its clock: all from before it is here."""
        self._word_us = max(self._word_us, at_us - self._offset_us)

    # The pipe.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        try:
            for message in self._unpacker.feed(data):
                self._take(message)
        except Exception as error:
            self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.is_set():
            log.error("the hub is gone; ending")
        self.ended.set()

    def _watch(self) -> None:
        """Look now and then whether the hub was heard."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._heard_s > SILENCE_S:
            log.error("nothing from the hub for %g s; ending", SILENCE_S)
            self.ended.set()
        else:
            loop.call_at(self._heard_s + SILENCE_S + 0.001, self._watch)

    def _send(self, message: ToHub) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(message))

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, OracleHubError | OSError):
            log.error("%s", error)
        else:
            log.critical("a worker failed; ending", exc_info=error)
        self.failed = True
        self.ended.set()

    # What the hub says.

    def _take(self, message: ToWorker) -> None:
        match message:
            case Published():
                self._publish(message)
            case Tick():
                self._tick(message)
            case Answer():
                self._serving().answered(message)
            case Alerted():
                if self.server is not None:
                    self.server.alert(message.change)
            case Changed():
                self._serving().learn(message.facts)
                if message.reloaded and self.server is not None:
                    self.server.config_changed(forget_past=message.forget_past)
            case Renew():
                self._renew(message)
            case Start():
                self._set_up(message)
            case Live():
                self._go_live(message)
            case Stop():
                self.reason = message.reason
                self.ended.set()

    def _publish(self, message: Published) -> None:
        if self.server is None or self._service is None:
            self._past.append(message)
            return
        self._word(message.batch.now_us)
        self._service.take(message.batch)
        self.server.publish(message.batch, journaled=message.journaled)

    def _renew(self, message: Renew) -> None:
        try:
            if self.server is not None:
                self.server.renew(message.settings)
        except ConfigError as error:  # the hub has read the same files a moment ago
            log.error("reload: %s; going on with the certificate as it was", error)

    def _tick(self, tick: Tick) -> None:
        self._offset_us = tick.offset_us
        self._word(tick.sent_us)
        behind_s = (self.now_us() - tick.sent_us) / 1e6
        if behind_s > SILENCE_S and self._listening:
            # Stopped for a while, or no match for its feed: what is shown here is as old. Before it listens nothing is
            # shown, and ticks waited for the process to start.
            log.error("%.1f s behind the hub; ending", behind_s)
            self.ended.set()
        self._report()

    def _report(self) -> None:
        if self.server is not None:
            counted = server_samples(self.server)
            self._send(Report(tuple((name, tuple(map(str, labels)), float(value)) for name, labels, value in counted)))

    def _serving(self) -> FedService:
        if self._service is None:
            raise PipeError("pipe: the hub answered before it said how things stand")
        return self._service

    def _set_up(self, start: Start) -> None:
        log_format = f"%(asctime)s %(levelname)s %(name)s: worker {start.worker}: %(message)s"
        logging.basicConfig(level=start.log_level, format=log_format, stream=sys.stderr, force=True)
        for chatty in ("aiohttp", "asyncio"):
            logging.getLogger(chatty).setLevel(max(logging.INFO, start.log_level))
        self._offset_us = start.offset_us

    def _go_live(self, live: Live) -> None:
        self._service = FedService(live, now_us=self.now_us, current=self.current, send=self._send)
        self.server = Server(self._service, live.settings)
        self.server.load([(message.batch, message.journaled) for message in self._past])
        self._past.clear()
        self._starting = asyncio.get_running_loop().create_task(self._listen(self.server))

    async def _listen(self, server: Server) -> None:
        try:
            await server.start()
        except Exception as error:
            self._fail(error)
            return
        collector.settle()
        self._listening = True
        self._send(Listening())


async def work(pipe: socket.socket) -> int:
    """Serve until the hub says stop, or is gone. The exit status."""
    loop = asyncio.get_running_loop()
    transport, worker = await loop.create_unix_connection(Worker, sock=pipe)
    await worker.ended.wait()
    if worker.server is not None:
        await worker.server.stop(worker.reason)
    transport.abort()
    return 1 if worker.failed else 0


def main() -> int:
    """Entry point. Signals to the whole group are the hub's to act on: it tells its workers."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        pipe = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    except OSError:
        print("oracle_hub.app.worker is started by oracle-hub run --workers N, not by hand", file=sys.stderr)
        return 2
    return asyncio.run(work(pipe))


if __name__ == "__main__":
    sys.exit(main())
