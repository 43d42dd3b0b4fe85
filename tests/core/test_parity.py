"""An aggregate beside a decision, by value: distance, age, and whether the exchange could execute."""

import msgspec
import pytest

from oracle_hub.core.catalog import FeedSpec
from oracle_hub.core.hub import DecisionInput
from oracle_hub.core.parity import Parity, apart, chain_max_age_us, parity
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import InputStatus

S = 1_000_000
NOW = 1_790_000_000 * S
SPEC = FeedSpec(
    feed="SOL/USD",
    primary="edge",
    verifiers=("chainlink", "pyth"),
    references=("aggregate",),
    max_age_us={"edge": 5 * S, "chainlink": 5 * S, "pyth": 5 * S, "aggregate": 8 * S},
)


def entry(mantissa: int | None, age_us: int = S, status: InputStatus = InputStatus.OK) -> DecisionInput:
    held = None
    if mantissa is not None:
        held = PriceUpdate("aggregate", "solana:a", "SOL/USD", mantissa, NOW - age_us, NOW)
    return DecisionInput("aggregate", "reference", status, held)


@pytest.mark.parametrize(
    ("chosen", "theirs", "expected", "executable"),
    [
        (100_00, entry(100_00), Parity(0, S, 10 * S, True), True),
        (100_00, entry(101_00), Parity(10_000, S, 10 * S, True), True),  # 100 bps
        (101_00, entry(100_00), Parity(10_000, S, 10 * S, True), True),  # the same the other way round
        (None, entry(100_00), Parity(None, S, 10 * S, True), True),  # we have no price, the chain executes
        (100_00, entry(100_00, 9 * S), Parity(None, 9 * S, 10 * S, True), True),  # stale for us, not for the chain
        (100_00, entry(100_00, 10 * S), Parity(None, 10 * S, 10 * S, True), True),
        (100_00, entry(100_00, 10 * S + 1), Parity(None, 10 * S + 1, 10 * S, True), False),
        (100_00, entry(100_00, S, InputStatus.INVALID), Parity(None, S, 10 * S, False), False),
        (100_00, entry(100_00, S, InputStatus.FUTURE), Parity(None, S, 10 * S, False), False),
        (100_00, entry(100_00, S, InputStatus.STALLED), Parity(None, S, 10 * S, True), True),
        (100_00, entry(None, 0, InputStatus.MISSING), Parity(None, None, 10 * S, False), False),
    ],
)
def test_an_aggregate_beside_a_decision(
    chosen: int | None, theirs: DecisionInput, expected: Parity, executable: bool
) -> None:
    found = parity(SPEC, chosen, theirs, NOW, 10 * S)
    assert (found, found.executable) == (expected, executable)


def test_a_published_limit_is_the_exchanges_own() -> None:
    published = msgspec.structs.replace(SPEC, chain_max_age_us=3 * S)
    assert (chain_max_age_us(SPEC, 10 * S), chain_max_age_us(published, 10 * S)) == (10 * S, 3 * S)
    assert parity(published, 100_00, entry(100_00, 4 * S), NOW, 10 * S).too_old


def test_distance_is_of_the_smaller_and_rounded_up() -> None:
    assert [apart(3, 4), apart(4, 3), apart(1_000_001, 1_000_000), apart(5, 5)] == [333_334, 333_334, 1, 0]
