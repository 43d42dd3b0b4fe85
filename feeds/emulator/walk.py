"""A seeded random walk: one true price per feed, and nine oracles that observe it late, seldom and inexactly.

Everything follows from the seed and the start. Oracles of one feed see the same path; each has its own noise, cadence
and delay. Simulated prices: they resemble the market in size and speed, and in nothing else.
"""

from collections.abc import Iterator
from random import Random

import msgspec

from feeds.emulator.oracles import AGGREGATE, CHAINLINK_LEG, EDGE, HERMES, LAZER, LEGACY, RECEIVER, REDSTONE, STORE

STEP_US = 100_000
"""Grid of the true price."""
GRID_US, HERMES_GRID_US = 20_000, 400_000
"""Thousands of feeds become visible in groups: a wake-up, a frame and a signature (Hermes) then count for many."""
MOST_SPREAD_US = 2_500_000
"""How old a first price may be: less than the five seconds that readers of fast oracles allow."""
_BILLION = 1_000_000_000


class Point(msgspec.Struct, frozen=True, gc=False):
    """One observation by one oracle. Prices at exponent -8."""

    mantissa: int
    conf: int
    publish_us: int
    """Time of the observation."""
    emit_us: int
    """When readers can see it: never before the observation."""


class Manner(msgspec.Struct, frozen=True):
    """How an oracle observes: noise (standard deviation, in hundredths of a basis point), cadence, delay."""

    noise_centibps: int
    cadence_us: int
    jitter_us: int
    delay_us: int


MANNERS: dict[str, Manner] = {
    EDGE: Manner(80, 1_000_000, 200_000, 250_000),
    LAZER: Manner(60, 1_000_000, 150_000, 200_000),
    CHAINLINK_LEG: Manner(150, 1_000_000, 250_000, 350_000),
    AGGREGATE: Manner(0, 500_000, 100_000, 100_000),
    STORE: Manner(200, 1_000_000, 300_000, 400_000),
    RECEIVER: Manner(100, 60_000_000, 1_000_000, 800_000),
    LEGACY: Manner(100, 400_000, 40_000, 300_000),
    HERMES: Manner(100, 400_000, 40_000, 300_000),
    REDSTONE: Manner(150, 10_000_000, 500_000, 900_000),
}
"""The aggregate computes from its legs: its noise is theirs."""
CONF_CENTIBPS = 326
"""Confidence of a Pyth price: 3.26 bps of it, the median of a recorded series of BTC/USD."""


class Path(msgspec.Struct, frozen=True):
    """Start price at exponent -8, a step's standard deviation in 10**-9 of the price, its length, and a peg."""

    start: int
    step_ppb: int
    peg: int | None = None
    step_us: int = STEP_US


_PATHS: dict[str, Path] = {
    "SOL/USD": Path(116_00000000, 25_000),
    "BTC/USD": Path(91_250_00000000, 12_000),
    "ETH/USD": Path(3_050_00000000, 18_000),
    "USDC/USD": Path(99990000, 2_500, 99990000),
    "USDT/USD": Path(1_00010000, 2_500, 1_00010000),
}


def path_of(feed: str, start: int | None = None) -> Path:
    """How a feed goes: a known asset by the table, any other from 1 to 1,000 USD, by its name.

    Such a path has steps of a second, as large as ten of SOL's: thousands of them are walked at once.
    """
    known = _PATHS.get(feed)
    if known is not None:
        return known if start is None else msgspec.structs.replace(known, start=start, peg=known.peg and start)
    drawn = round(10 ** Random(f"start/{feed}").uniform(8, 11))
    return Path(drawn if start is None else start, 79_000, step_us=10 * STEP_US)


def true_path(feed: str, seed: int, path: Path | None = None) -> Iterator[int]:
    """The true price on the grid, for ever: positive mantissas at exponent -8."""
    asset = path_of(feed) if path is None else path
    random = Random(f"{seed}/{feed}")
    price = asset.start
    while True:
        yield price
        price += price * round(random.gauss(0, asset.step_ppb)) // _BILLION
        if asset.peg is not None:
            price += (asset.peg - price) // 200
        price = max(price, 1)


def observed(price: int, noise_ppb: float, random: Random) -> int:
    """A price as an oracle with this noise sees it; noise 0 sees it exactly."""
    if not noise_ppb:
        return price
    limit = 4 * noise_ppb
    shift = round(max(-limit, min(limit, random.gauss(0, noise_ppb))))
    return max(1, price + price * shift // _BILLION)


def noise_ppb_of(oracle: str, noise_bps: float | None) -> float:
    """Standard deviation of an oracle's noise in 10**-9: its own, or the one given for all."""
    return MANNERS[oracle].noise_centibps * 1_000.0 if noise_bps is None else noise_bps * 100_000.0


def slowed(oracle: str, every_us: int) -> Manner:
    """How an oracle observes one of thousands of feeds: every ``every_us`` at most."""
    manner = MANNERS[oracle]
    cadence_us = max(manner.cadence_us, every_us)
    return msgspec.structs.replace(manner, cadence_us=cadence_us, jitter_us=min(manner.jitter_us, cadence_us // 10))


def walk(
    feed: str,
    oracle: str,
    seed: int,
    start_us: int,
    noise_bps: float | None = None,
    *,
    path: Path | None = None,
    every_us: int | None = None,
) -> Iterator[Point]:
    """One oracle's observations of one feed, in the order of their time; the first is visible at ``start_us``.

    Args:
        feed: names the path.
        oracle: who observes.
        seed: of the path and of the noise.
        start_us: unix time.
        noise_bps: overrides the noise of all oracles; 0 makes every oracle exact.
        path: how the feed goes; that of its name when absent.
        every_us: as one of thousands of feeds: seldom (:func:`slowed`), at an even place within the first interval, and
            together with others, on a grid of instants.
    """
    manner = MANNERS[oracle] if every_us is None else slowed(oracle, every_us)
    grid_us = 1 if every_us is None else HERMES_GRID_US if oracle == HERMES else GRID_US
    random = Random(f"{seed}/{feed}/{oracle}")
    path = path_of(feed) if path is None else path
    prices = true_path(feed, seed, path)
    price, index = next(prices), 0
    noise_ppb = noise_ppb_of(oracle, noise_bps)
    spread_us = min(manner.cadence_us, 1_000_000) if every_us is None else min(manner.cadence_us, MOST_SPREAD_US)
    publish_us = start_us - manner.delay_us - random.randrange(spread_us)
    first = True
    while True:
        while index < (publish_us - start_us) // path.step_us:
            price, index = next(prices), index + 1
        seen = observed(price, noise_ppb, random)
        emit_us = publish_us + manner.delay_us + random.randrange(manner.jitter_us)
        emit_us = -(-emit_us // grid_us) * grid_us
        if first:
            emit_us = start_us
        yield Point(seen, seen * CONF_CENTIBPS // 1_000_000, publish_us, emit_us)
        publish_us += manner.cadence_us + random.randrange(-manner.jitter_us, manner.jitter_us + 1)
        if first and every_us is not None:  # so that thousands of feeds are spread over the whole interval
            publish_us -= random.randrange(manner.cadence_us - manner.jitter_us)
        first = False
