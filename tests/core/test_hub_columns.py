"""The hub gives the same batches whether a step is decided feed by feed or in columns."""

import random

import pytest

import oracle_hub.core.hub as hub_module
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Hub, batch_digest
from oracle_hub.core.selector import Policy
from oracle_hub.core.source import Condition, PriceUpdate, Status

START_US = 1_790_000_000_000_000
SOURCES = ("doves", "chainlink", "pyth")


def catalog() -> Catalog:
    ages = {"doves": 3_000_000, "chainlink": 2_000_000, "pyth": 1_000_000}
    return Catalog(
        FeedSpec(
            feed=f"F{number}",
            primary="doves",
            verifiers=("chainlink", "pyth"),
            max_age_us=ages,
            policy=(Policy.STRICT, Policy.QUORUM)[number % 2],
            max_divergence_bps=(0, 50, 10_000)[number % 3],
            max_conf_bps=(0, 10)[number % 2],
        )
        for number in range(12)
    )


def run(seed: int) -> list[str]:
    """Random updates, statuses and pauses; digests of everything published."""
    rng = random.Random(seed)
    hub = Hub(catalog(), epoch=1, config_hash="x", started_us=START_US, warmup_us=1_000_000)
    now_us, digests = START_US, []
    for _ in range(300):
        now_us += rng.choice((0, 1, 1_000, 400_000, 1_000_000))
        for _ in range(rng.randrange(20)):
            feed, source = f"F{rng.randrange(12)}", rng.choice(SOURCES)
            publish_us = now_us + rng.choice((-1_000_000, -1, 0, 0, 0, 1_000_000, 10_000_000))
            mantissa = rng.choice((100_00000000, 100_50000000, 100_50000001, 2**62, 1))
            conf = rng.choice((None, 0, mantissa // 1_000, mantissa // 1_000 + 1, 2**62))
            hub.apply(PriceUpdate(source, "solana:a", feed, mantissa, publish_us, now_us, conf), now_us)
            if not rng.randrange(10):
                status = Status(source, "solana:a", feed, Condition.HALTED, "", now_us)
                hub.apply(status, now_us)
        batch = hub.step(now_us)
        if batch is not None:
            digests.append(batch_digest(batch).hex())
    return digests


@pytest.mark.parametrize("seed", range(5))
def test_both_forms_publish_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "COLUMN_CROSSING", 10**9)
    scalar = run(seed)
    monkeypatch.setattr(hub_module, "COLUMN_CROSSING", 1)
    columnar = run(seed)
    assert len(scalar) > 200
    assert columnar == scalar
