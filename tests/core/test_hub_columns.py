"""The hub gives the same batches whether a step is decided feed by feed or in columns."""

import random

import msgspec
import pytest

import oracle_hub.core.hub as hub_module
from oracle_hub.core.catalog import Catalog, FeedSpec, Redistribute
from oracle_hub.core.hub import Hub, batch_digest
from oracle_hub.core.selector import Policy
from oracle_hub.core.source import Condition, PriceUpdate, Status
from oracle_hub.core.table import InputStatus
from oracle_hub.errors import ConfigError

NO = Redistribute.NO
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
            redistribute=({}, {"chainlink": NO}, {"pyth": NO}, {"chainlink": NO, "pyth": NO})[number % 4],
        )
        for number in range(12)
    )


@pytest.mark.parametrize("seed", range(5))
def test_usable_sources_are_counted_as_they_stand_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    hub = Hub(catalog(), epoch=1, config_hash="x", started_us=START_US, warmup_us=1_000_000)
    now_us, seen = START_US, set()
    for _ in range(60):
        now_us += rng.choice((0, 1, 400_000, 1_000_000))
        for _ in range(rng.randrange(20)):
            feed, source = f"F{rng.randrange(12)}", rng.choice(SOURCES)
            publish_us = now_us + rng.choice((-2_000_000, -1, 0, 10_000_000))
            mantissa, conf = 100_00000000, rng.choice((None, 0, 10_000_000, 10_000_001))
            hub.apply(PriceUpdate(source, "solana:a", feed, mantissa, publish_us, now_us, conf), now_us)
            if not rng.randrange(10):
                hub.apply(Status(source, "solana:a", feed, Condition.HALTED, "", now_us), now_us)
        hub.step(now_us)
        one_by_one = dict.fromkeys(hub.catalog.sources, 0)
        for index in range(len(hub.catalog.feeds)):
            for entry in hub.inputs(index, now_us):
                one_by_one[entry.source] += entry.status is InputStatus.OK
        assert hub.usable_counts(now_us) == one_by_one
        seen.add(sum(one_by_one.values()))
    assert len(seen) > 5


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
        if not rng.randrange(4):
            hub.limit(other_limits(hub.catalog.feeds[rng.randrange(12)], rng))
        batch = hub.step(now_us)
        if batch is not None:
            digests.append(batch_digest(batch).hex())
    return digests


def other_limits(spec: FeedSpec, rng: random.Random) -> FeedSpec:
    ages_us = {source: rng.choice((400_000, 1_000_000, 3_000_000)) for source in SOURCES}
    return msgspec.structs.replace(spec, max_age_us=ages_us, max_divergence_bps=rng.choice((1, 50, 60, 10_000)))


@pytest.mark.parametrize("crossing", [1, 10**9])
def test_limits_that_come_later_decide_like_those_from_the_start(
    crossing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "COLUMN_CROSSING", crossing)
    rng = random.Random(3)
    limited = [other_limits(spec, rng) for spec in catalog().feeds]
    early = Hub(Catalog(limited), epoch=1, config_hash="x", started_us=START_US, warmup_us=0)
    late = Hub(catalog(), epoch=1, config_hash="x", started_us=START_US, warmup_us=0)
    for hub in (early, late):
        for number in range(12):
            for place, source in enumerate(SOURCES):
                mantissa = 100_00000000 + number * place * 4_000_000
                update = PriceUpdate(source, "solana:a", f"F{number}", mantissa, START_US, START_US)
                hub.apply(update, START_US)
        hub.step(START_US + 1)
    before = dict(late.decisions)
    for spec in limited:
        late.limit(spec)
    batch = late.step(START_US + 1)
    assert batch is not None and len(batch.decisions) > 8
    assert late.decisions == early.decisions != before
    assert late.next_deadline() == early.next_deadline()


def test_other_roles_are_no_limits() -> None:
    hub = Hub(catalog(), epoch=1, config_hash="x", started_us=START_US)
    spec = hub.catalog.feeds[0]
    for other in (
        msgspec.structs.replace(spec, primary="pyth", verifiers=("chainlink", "doves")),
        msgspec.structs.replace(spec, expo=-6),
        msgspec.structs.replace(spec, max_divergence_bps=10_001),
    ):
        with pytest.raises(ConfigError):
            hub.limit(other)


@pytest.mark.parametrize("seed", range(5))
def test_both_forms_publish_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "COLUMN_CROSSING", 10**9)
    scalar = run(seed)
    monkeypatch.setattr(hub_module, "COLUMN_CROSSING", 1)
    columnar = run(seed)
    assert len(scalar) > 200
    assert columnar == scalar
