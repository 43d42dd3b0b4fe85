"""What a door gets: the store, the newest prices, the limits. A door module has ``routes(context)``."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from aiohttp import web

from oracle_hub.charts.answers import ChartsCode, Refused
from oracle_hub.charts.live import Live
from oracle_hub.charts.recorder import Recorder
from oracle_hub.charts.settings import Settings
from oracle_hub.charts.sockets import MakeGuard
from oracle_hub.charts.store import Store
from oracle_hub.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")

RETRY_AFTER_S = 2


class Context:
    """Shared by all doors of one application. Used on the event loop."""

    def __init__(
        self,
        live: Live,
        store: Store,
        recorder: Recorder,
        settings: Settings,
        make_guard: MakeGuard | None = None,
    ) -> None:
        self.live = live
        self.store = store
        """Touches the disk: only through :meth:`read`."""
        self.recorder = recorder
        self.settings = settings
        self.make_guard = make_guard
        """For websockets that are closed for a flood of small frames; None: they are not."""
        self.failures = 0
        """Answers that failed inside: each is a defect of ours."""
        self.refused = 0
        """Requests refused for a limit."""
        self.listening = 0
        """Websockets and event streams that are open."""
        self._by_address: Counter[str] = Counter()
        self._readers = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="charts read")
        self._reading = 0
        self._closed = False
        self._on_stop: list[Callable[[], None]] = []

    @property
    def stopping(self) -> bool:
        """Everybody is to be sent away."""
        return self._closed

    def on_stop(self, call: Callable[[], None]) -> None:
        """Have this called when everybody is to be sent away, to wake whoever waits."""
        self._on_stop.append(call)

    async def read(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn`` on a thread of the readers: for everything that touches the store.

        Raises:
            Refused: too many wait already, or the store cannot be read.
        """
        if self._closed:
            raise Refused(503, ChartsCode.SHUTTING_DOWN, "the server is going away", retry_after_s=RETRY_AFTER_S)
        if self._reading >= self.settings.max_reads:
            self.refused += 1
            raise Refused(503, ChartsCode.BUSY, "too many requests wait for the store", retry_after_s=RETRY_AFTER_S)
        self._reading += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: fn(*args, **kwargs))
        except StoreError as error:
            raise Refused(503, ChartsCode.STORE_FAILED, str(error), retry_after_s=RETRY_AFTER_S) from None
        finally:
            self._reading -= 1

    @contextlib.contextmanager
    def listener(self, request: web.Request) -> Iterator[None]:
        """Count a websocket or event stream for as long as it lasts; to be entered before its first byte.

        Raises:
            Refused: there are too many, in all or from this address.
        """
        address, settings = request.remote or "", self.settings
        if self._closed:
            raise Refused(503, ChartsCode.SHUTTING_DOWN, "the server is going away", retry_after_s=RETRY_AFTER_S)
        if self.listening >= settings.max_listeners:
            self.refused += 1
            raise Refused(503, ChartsCode.TOO_MANY_LISTENERS, "the server is full", retry_after_s=RETRY_AFTER_S)
        if self._by_address[address] >= settings.max_listeners_per_ip:
            self.refused += 1
            message = f"more than {settings.max_listeners_per_ip} open streams from one address"
            raise Refused(429, ChartsCode.TOO_MANY_FROM_ADDRESS, message, retry_after_s=RETRY_AFTER_S)
        self.listening += 1
        self._by_address[address] += 1
        try:
            yield
        finally:
            self.listening -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def stop_listening(self) -> None:
        """Take no more; end all listening."""
        self._closed = True
        self.live.close()
        for call in self._on_stop:
            call()

    def close(self) -> None:
        """End everything; waits for what is being read."""
        self.stop_listening()
        self._readers.shutdown(wait=True, cancel_futures=True)
