"""The client for programs without an event loop: it runs on a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from oracle_hub.client.price import Price, Update
from oracle_hub.client.prices import Prices, Stats, connect

T = TypeVar("T")


class BlockingPrices:
    """Prices of one subscription, for any thread. Made by :func:`open_prices`; to be used with ``with``.

    Iterating waits for news; only one thread may iterate. Callbacks are called on the client's own thread, so they may
    ask for prices, and neither wait for news nor close the client: they would wait for themselves.
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="oracle-hub client", daemon=True)
        self._open = False

    def __enter__(self) -> Self:
        """Start, and wait until a hub has told the present state. Raises what ``Prices.__aenter__`` raises."""
        self._thread.start()
        self._open = True
        try:
            self._run(self._prices.__aenter__()).result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and the thread. A thread that waits for news is told that there is none any more.

        Raises:
            RuntimeError: this is a callback.
        """
        if not self._open:
            return
        self._refuse_callbacks()
        self._open = False
        self._run(self._prices.close()).result()
        self._run(_settled()).result()  # whoever waited has been woken
        self._run(self._loop.shutdown_default_executor()).result()  # names were looked up on threads
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, feed: str, max_age_ms: int | None = None) -> Price:
        """The price of a feed that holds now. Never waits for the network. Raises :class:`NoPrice`."""
        return self._prices.get(feed, max_age_ms)

    @property
    def stats(self) -> Stats:
        """See :class:`Stats`."""
        return self._prices.stats

    @property
    def rejected(self) -> dict[str, str]:
        """Feeds that the hub refused, with its code."""
        return self._prices.rejected

    def next(self, timeout_s: float | None = None) -> Update | None:
        """The next news; None when the client is closed. Raises TimeoutError when nothing is new for so long, and
        RuntimeError in a callback."""
        if not self._open:
            return None
        self._refuse_callbacks()
        return self._run(_next(self._prices, timeout_s)).result()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Update:
        update = self.next()
        if update is None:
            raise StopIteration
        return update

    def _refuse_callbacks(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a callback runs on the client's own thread: tell another one to wait or to close")

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _next(prices: Prices, timeout_s: float | None) -> Update | None:
    async with asyncio.timeout(timeout_s):  # on the loop: it ends the wait, and never what has been taken
        return await anext(prices, None)


async def _settled() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=1)


def open_prices(urls: str | Sequence[str], feeds: Sequence[str], **options: Any) -> BlockingPrices:
    """As :func:`connect`, with the same options, for programs without an event loop.

    >>> with open_prices("ws://127.0.0.1:8080/v1/stream", ["SOL/USD"]) as prices:
    ...     price = prices.get("SOL/USD")
    """
    return BlockingPrices(connect(urls, feeds, guard=threading.RLock(), **options))
