"""Signed updates behind chosen prices, as the hub hands them on (``/v1/signed/{feed}``), for Hermes' ``binary``.

A price is asked for once, whoever wants it; what was found is kept, as is that there is none. Nothing of it decides
anything: a price is told by the stream alone, and an update goes out with it only if it is of that very price.
"""

import asyncio
import contextlib
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from oracle_hub.charts.context import Context
from oracle_hub.charts.resolutions import SECOND_US
from oracle_hub.charts.signed_together import together

MAX_KEPT = 8_192
"""Prices of which it is known what is behind them: a few hundred bytes each."""
MAX_ASKING = 16
"""Questions to the hub at once; others wait."""
PATIENCE_S = 0.5
"""So long an answer waits for a signed update. Then it goes without."""
MAX_ROUNDS = 4
"""So often it looks again whether there are newer prices by then."""
RECENT_US = 60 * SECOND_US
"""The hub keeps the last ones of each feed. What was decided longer ago is not asked for."""
UNSIGNED_S = 60.0
"""A source without signatures is asked about again after this: its configuration may be another one."""


class Told(Protocol):
    """A price that was told: by the stream or by the store."""

    @property
    def feed(self) -> str: ...
    @property
    def source(self) -> str | None: ...
    @property
    def publish_time_us(self) -> int | None: ...
    @property
    def mantissa(self) -> int | None: ...
    @property
    def decided_us(self) -> int: ...


class Key(NamedTuple):
    """A chosen price."""

    feed: str
    source: str
    publish_time_us: int
    mantissa: int


class _Update(msgspec.Struct):
    format: str
    data: str


class _Answer(msgspec.Struct):
    signing: bool
    update: _Update | None


_decode = msgspec.json.Decoder(_Answer).decode
FORMAT = "pyth.accumulator"


class Signed:
    """What is known of signed updates. Used on the event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: OrderedDict[Key, bytes | None] = OrderedDict()
        self._unsigned: dict[str, float] = {}
        """Sources that sign nothing, until when that is believed (monotonic)."""
        self._asking: dict[Key, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(MAX_ASKING)

    def of(self, told: Told) -> bytes | None:
        """The signed update of exactly this price, where it is known."""
        key = _key(told)
        return None if key is None else self._known.get(key)

    def all_of(self, told: Sequence[Told]) -> list[bytes]:
        """The signed updates of all these prices, one for each message that was signed; none where one is missing."""
        found = [update for one in told if (update := self.of(one)) is not None]
        return together(found) if len(found) == len(told) else []

    async def learn(self, told: Callable[[], Iterable[Told]]) -> None:
        """Ask the hub about those of these prices of which it is not known; at most for ``PATIENCE_S``.

        Time goes by meanwhile: ``told`` is called again, for the prices as they stand then, and so must the caller
        look anew at what he tells.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(MAX_ROUNDS):
                    if not await self._learn(told()):
                        return

    async def _learn(self, told: Iterable[Told]) -> bool:
        """Whether all that was not known was asked for, and is known now."""
        oldest_us = self._context.live.now_us() - RECENT_US
        keys = (_key(one) for one in told if one.decided_us >= oldest_us)
        wanted = [key for key in keys if key is not None and self._open(key)]
        for key in wanted:
            if key not in self._asking:
                task = self._asking[key] = asyncio.create_task(self._ask(key), name=f"signed update of {key.feed}")
                task.add_done_callback(partial(self._asked, key))
        if wanted:
            await asyncio.wait([self._asking[key] for key in wanted])
        return bool(wanted) and not any(self._open(key) for key in wanted)

    def _open(self, key: Key) -> bool:
        return key not in self._known and self._unsigned.get(key.source, 0.0) <= time.monotonic()

    def _asked(self, key: Key, _: asyncio.Task[None]) -> None:
        self._asking.pop(key, None)

    async def _ask(self, key: Key) -> None:
        recorder = self._context.recorder
        query = {"source": key.source, "publish_time_us": key.publish_time_us, "price": key.mantissa}
        url = recorder.hub_url(f"/v1/signed/{quote(key.feed, safe='')}?{urlencode(query)}")
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        try:
            async with (
                self._turns,
                aiohttp.ClientSession(timeout=timeout, headers=recorder.headers, trust_env=True) as http,
                http.get(url, allow_redirects=False) as response,
            ):
                answer = _decode(await response.read()) if response.status == 200 else _Answer(False, None)
                update = answer.update
                data = None if update is None or update.format != FORMAT else b64decode(update.data, validate=True)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return  # not known; whoever asks next may have more luck
        if not answer.signing:
            self._unsigned[key.source] = time.monotonic() + UNSIGNED_S
            return
        self._known[key] = data
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)


def _key(told: Told) -> Key | None:
    if told.source is None or told.publish_time_us is None or told.mantissa is None:
        return None
    return Key(told.feed, told.source, told.publish_time_us, told.mantissa)
