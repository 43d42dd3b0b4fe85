"""A hub and an alert engine on a manual clock, fed with updates. No sockets, no files."""

from collections.abc import Mapping

from oracle_hub.alerts.alert import Transition
from oracle_hub.alerts.engine import AlertEngine, facts_after
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Hub
from oracle_hub.core.selector import Policy
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import Applied

START_US = 1_790_000_000_000_000
SOURCES = ("doves", "chainlink", "pyth")
SOL = "SOL/USD"


def spec(feed: str = SOL, policy: Policy = Policy.STRICT, **more: object) -> FeedSpec:
    ages = dict.fromkeys((*SOURCES, "aggregate", "mirror"), 5000000)
    return FeedSpec(
        feed=feed,
        primary="doves",
        verifiers=("chainlink", "pyth"),
        policy=policy,
        max_age_us=ages,
        **more,  # type: ignore[arg-type]
    )


class Scene:
    """Time in microseconds since :data:`START_US`."""

    def __init__(self, *specs: FeedSpec, settings: AlertSettings | None = None) -> None:
        self.catalog = Catalog(specs or (spec(),))
        self.engine = AlertEngine(settings)
        self.told: list[Transition] = []
        self.start()

    def start(self, at_us: int = 0) -> None:
        """Another run of the hub: nothing is held, and it warms up."""
        self.now_us = START_US + at_us
        self.hub = Hub(self.catalog, epoch=1, config_hash="", started_us=self.now_us, warmup_us=10_000_000)
        self.step()

    def at(self, seconds: float) -> None:
        """Let time pass: leases end, timers fire."""
        self.until(START_US + round(seconds * 1e6))

    def until(self, at_us: int) -> None:
        while (deadline_us := self.hub.next_deadline()) is not None and deadline_us <= at_us:
            self.now_us = max(self.now_us, deadline_us)
            self.step()
        self.now_us = at_us
        self.told += self.engine.advance(at_us)

    def step(self) -> None:
        self.hub.step(self.now_us)
        self.told += self.engine.observe(self.now_us, facts_after(self.hub, self.now_us))

    def tell(
        self, prices: Mapping[str, int | None], feed: str = SOL, *, late_us: int = 0, conf: int | None = None
    ) -> list[Applied | None]:
        """Updates of this instant, by source; None leaves a source silent."""
        applied = []
        for source, mantissa in prices.items():
            if mantissa is not None:
                update = PriceUpdate(source, "t:1", feed, mantissa, self.now_us - late_us, self.now_us, conf)
                applied.append(self.hub.apply(update, self.now_us))
        self.step()
        return applied

    def run(self, seconds: float, *prices: int | None, feed: str = SOL, every: float = 0.5) -> None:
        """All three sources tell these prices for so long."""
        end_us = self.now_us + round(seconds * 1e6)
        while self.now_us < end_us:
            self.tell(dict(zip(SOURCES, prices, strict=True)), feed)
            self.until(min(end_us, self.now_us + round(every * 1e6)))

    def log(self) -> list[tuple[float, str, str, str | None, tuple[str, ...], str]]:
        """What was told: seconds, change, kind, feed, sources, severity."""
        return [
            (
                round((one.at_us - START_US) / 1e6, 3),
                one.change.value,
                one.alert.kind.value,
                one.alert.feed,
                one.alert.sources,
                one.alert.severity.value,
            )
            for one in self.told
        ]
