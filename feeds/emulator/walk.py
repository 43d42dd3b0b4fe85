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


class Asset(msgspec.Struct, frozen=True):
    """Start price at exponent -8, step's standard deviation in 10**-9 of the price, and the pull to a peg."""

    start: int
    step_ppb: int
    peg: int | None = None


_PATHS: dict[str, Asset] = {
    "SOL/USD": Asset(116_00000000, 25_000),
    "BTC/USD": Asset(91_250_00000000, 12_000),
    "ETH/USD": Asset(3_050_00000000, 18_000),
    "USDC/USD": Asset(99990000, 2_500, 99990000),
    "USDT/USD": Asset(1_00010000, 2_500, 1_00010000),
}


def true_path(feed: str, seed: int) -> Iterator[int]:
    """The true price on the grid, for ever: positive mantissas at exponent -8."""
    asset = _PATHS[feed]
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


def walk(feed: str, oracle: str, seed: int, start_us: int, noise_bps: float | None = None) -> Iterator[Point]:
    """One oracle's observations of one feed, in the order of their time; the first is visible at ``start_us``.

    ``noise_bps`` overrides the noise of all oracles; 0 makes every oracle exact.
    """
    manner = MANNERS[oracle]
    random = Random(f"{seed}/{feed}/{oracle}")
    path = true_path(feed, seed)
    price, index = next(path), 0
    noise_ppb = noise_ppb_of(oracle, noise_bps)
    publish_us = start_us - manner.delay_us - random.randrange(min(manner.cadence_us, 1_000_000))
    first = True
    while True:
        while index < (publish_us - start_us) // STEP_US:
            price, index = next(path), index + 1
        seen = observed(price, noise_ppb, random)
        emit_us = publish_us + manner.delay_us + random.randrange(manner.jitter_us)
        if first:
            emit_us, first = start_us, False
        yield Point(seen, seen * CONF_CENTIBPS // 1_000_000, publish_us, emit_us)
        publish_us += manner.cadence_us + random.randrange(-manner.jitter_us, manner.jitter_us + 1)
