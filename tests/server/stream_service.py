"""A program behind the server, small and true: the real hub on a clock that is set by hand."""

from collections.abc import Mapping
from typing import Any

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Batch, Decision, Hub
from oracle_hub.core.source import PriceUpdate
from oracle_hub.server.service import SignedAnswer, SignedQuery, SignedUpdate

START_US = 1_790_000_000_000_000
SOURCES = ("doves", "chainlink", "pyth")
MAX_AGE_US = 10_000_000


def feed_spec(feed: str) -> FeedSpec:
    """A feed with three sources and a max age of 10 s for each."""
    return FeedSpec(
        feed=feed, primary="doves", verifiers=("chainlink", "pyth"), max_age_us=dict.fromkeys(SOURCES, MAX_AGE_US)
    )


class HubService:
    """Implements :class:`oracle_hub.server.service.Service` over a hub."""

    instance = "6f1c2d3e-0000-4000-8000-000000000001"
    first_epoch: int | None = None
    simulated: Mapping[str, Any] | None = None
    policy = "strict"
    limits: Mapping[str, Any] = {"max_future_ms": 2_000}

    def __init__(self, *feeds: str, epoch: int = 1_790_000_000) -> None:
        self.clock_us = START_US
        self.hub = Hub(
            Catalog(map(feed_spec, feeds)), epoch=epoch, config_hash="c0ffee", started_us=START_US, warmup_us=1_000_000
        )
        self.is_ready = self.is_current = True
        self.signed_updates: dict[tuple[str, str, int, int], str] = {}
        """Base64 by feed, source, publish time and price."""
        first = self.hub.step(START_US)
        assert first is not None
        self.first = first

    @property
    def epoch(self) -> int:
        return self.hub.epoch

    @property
    def seq(self) -> int:
        return self.hub.seq

    @property
    def config_hash(self) -> str:
        return self.hub.config_hash

    @property
    def decisions(self) -> Mapping[str, Decision]:
        order = [spec.feed for spec in self.hub.catalog.feeds]
        return {feed: self.hub.decisions[feed] for feed in order if feed in self.hub.decisions}

    def now_us(self) -> int:
        return self.clock_us

    def current(self, now_us: int) -> bool:
        return self.is_current

    async def explain(self, feed: str) -> Mapping[str, Any] | None:
        held = self.hub.decisions.get(feed)
        return None if held is None else {"feed": feed, "reason": held.reason.value}

    async def signed(self, asked: SignedQuery) -> SignedAnswer:
        data = self.signed_updates.get((asked.feed, asked.source, asked.publish_time_us, asked.price))
        return SignedAnswer(
            feed=asked.feed,
            source=asked.source,
            price=str(asked.price),
            publish_time_us=asked.publish_time_us,
            signing=asked.source == "pyth",
            update=None if data is None else SignedUpdate(format="pyth.accumulator", data=data),
        )

    async def parity(self) -> Mapping[str, Any]:
        return {"now_us": self.now_us(), "feeds": []}

    async def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return self.is_ready, {"ready": self.is_ready, "seq": self.seq}

    async def metrics(self) -> bytes:
        return b"# TYPE oraclehub_batches_total counter\noraclehub_batches_total 1\n"

    # What happens to it.

    def tick(self, feed: str, mantissa: int, *sources: str) -> Batch:
        """As :meth:`try_tick`, where that must change something."""
        batch = self.try_tick(feed, mantissa, *sources)
        assert batch is not None
        return batch

    def try_tick(
        self, feed: str, mantissa: int, *sources: str, after_us: int = 1_000, age_us: int = 500
    ) -> Batch | None:
        """Time goes on, these sources (all, when none is named) say a price of this age, and the hub decides."""
        self.clock_us += after_us
        for source in sources or SOURCES:
            self.hub.apply(
                PriceUpdate(
                    source=source,
                    transport=f"{source}:a",
                    feed=feed,
                    mantissa=mantissa,
                    publish_us=self.clock_us - age_us,
                    received_us=self.clock_us,
                    conf=12_345 if source == "pyth" else None,
                    slot=7 if source == "doves" else 0,
                    account="Acc1" if source == "doves" else None,
                ),
                self.clock_us,
            )
        return self.hub.step(self.clock_us)

    def wait(self, until_us: int) -> Batch | None:
        """Nothing arrives until then, and the hub decides."""
        self.clock_us = until_us
        return self.hub.step(until_us)
