"""Custody and pool: layouts of all ages."""

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from feeds.addresses import ASSETS, POOL
from feeds.jupiter import (
    Assets,
    Custody,
    FundingRateState,
    JumpRateState,
    ParameterUpdateOracle,
    Pool,
    PriceImpactBuffer,
)
from feeds.layout import pubkey_bytes, pubkey_text
from oracle_hub.errors import DecodeError

SOL = ASSETS["SOL/USD"]
CUSTODY = Custody(
    pool=pubkey_bytes(POOL),
    mint=pubkey_bytes(SOL.mint),
    decimals=9,
    assets=Assets(owned=2**64 - 1, locked=2**53),
    funding_rate_state=FundingRateState(cumulative_interest_rate=2**127),
    doves_oracle=pubkey_bytes(SOL.edge),
    doves_ag_oracle=pubkey_bytes(SOL.ag),
    price_impact_buffer=PriceImpactBuffer(open_interest=tuple(range(-30, 30))),
    debt=2**100,
    withdrawal_limit_interval_seconds=3600,
)
POOL_STATE = Pool(
    custodies=tuple(pubkey_bytes(asset.custody) for asset in ASSETS.values()),
    aum_usd=2**90,
    parameter_update_oracle=ParameterUpdateOracle(2, bytes(range(32))),
    aum_usd_refreshed_at_slot=401_338_012,
)


def real(fixtures_dir: Path, name: str) -> tuple[bytes, dict[str, Any]]:
    loaded = orjson.loads((fixtures_dir / name).read_bytes())
    return base64.b64decode(loaded["data_base64"]), loaded["expected"]


def test_custody_of_september(fixtures_dir: Path) -> None:
    data, expected = real(fixtures_dir, "jup_custody_sol_2026-09-24.json")
    custody = Custody.decode(data)
    assert custody.encode() == data
    fields = custody.fields()
    assert {name: fields[name] for name in expected} == expected


def test_custody_of_february(fixtures_dir: Path) -> None:
    data, expected = real(fixtures_dir, "jup_custody_sol_2026-02-23.json")
    custody = Custody.decode(data)
    assert custody.encode() == data
    fields: dict[str, Any] = custody.fields()
    for name in ("pricing", "assets", "jumpRateState"):
        assert list(fields[name].values()) == expected.pop(name), name
    impact = list(fields["priceImpactBuffer"].values())
    assert impact[0] == expected.pop("priceImpactBuffer.openInterest")
    assert impact[1:] == expected.pop("priceImpactBuffer.tail")
    assert fields["fundingRateState"].items() >= expected.pop("fundingRateState").items()
    assert {name: fields[name] for name in expected} == expected


def test_pool_of_february(fixtures_dir: Path) -> None:
    data, expected = real(fixtures_dir, "jup_pool_2026-02-19.json")
    pool = Pool.decode(data)
    assert pool.encode() == data
    fields = pool.fields()
    expected |= expected.pop("source_asserts")
    assert {name: fields[name] for name in expected} == expected


def test_encoding_gives_the_live_size_and_comes_back() -> None:
    assert len(CUSTODY.encode()) == len(POOL_STATE.encode()) == 2000
    assert Custody.decode(CUSTODY.encode()) == CUSTODY
    assert Pool.decode(POOL_STATE.encode()) == POOL_STATE


def test_the_oracles_lie_where_the_description_says() -> None:
    data = CUSTODY.encode()
    assert pubkey_text(data[320:352]) == SOL.edge
    assert pubkey_text(data[384:416]) == SOL.ag
    assert int.from_bytes(data[1004:1020], "little") == 2**100
    assert int.from_bytes(data[1109:1117], "little") == 3600


@pytest.mark.parametrize(
    ("size", "edge", "aggregate"),
    [
        (296, False, False),
        (351, False, False),
        (352, True, False),
        (384, True, False),
        (415, True, False),
        (416, True, True),
    ],
)
def test_an_older_custody_lacks_what_came_later(size: int, edge: bool, aggregate: bool) -> None:
    custody = Custody.decode(CUSTODY.encode()[:size])
    assert (custody.doves_oracle is not None) is edge
    assert (custody.doves_ag_oracle is not None) is aggregate
    assert custody.price_impact_buffer is None
    assert custody.fields()["totalStakedAmountLamports"] is None


@pytest.mark.parametrize(
    ("size", "there", "absent"),
    [
        (1036, "borrowLendInterestsAccured", "borrowLimitInTokenAmount"),
        (1044, "borrowLimitInTokenAmount", "minInterestFeeBps"),
        (1084, "externalSwapFeeMultiplierBps", "disableClosePositionRequest"),
    ],
)
def test_each_growth_of_the_program_is_read_to_its_end(size: int, there: str, absent: str) -> None:
    whole: dict[str, Any] = CUSTODY.fields()
    fields: dict[str, Any] = Custody.decode(CUSTODY.encode()[:size]).fields()
    assert fields[there] == whole[there] is not None
    assert fields["borrowLendParameters"] == whole["borrowLendParameters"] is not None
    assert fields[absent] is None


@pytest.mark.parametrize("size", [296, 320, 384, 416, 932, 1036, 1044, 1060, 1084])
def test_an_older_custody_comes_back_at_its_own_size(size: int) -> None:
    data = CUSTODY.encode()[:size]
    assert Custody.decode(data).encode() == data


def test_a_spring_2025_custody_without_an_aggregate_keeps_its_zeros() -> None:
    data = CUSTODY.encode()
    data = data[:384] + bytes(32) + data[416:]
    custody = Custody.decode(data)
    assert custody.doves_ag_oracle is None
    assert custody.encode() == data


def test_integers_beyond_53_bits_are_text() -> None:
    fields: dict[str, Any] = CUSTODY.fields()
    assert fields["assets"]["owned"] == str(2**64 - 1)
    assert fields["assets"]["locked"] == str(2**53)
    assert fields["fundingRateState"]["cumulativeInterestRate"] == str(2**127)
    assert fields["decimals"] == 9
    assert fields["isStable"] is False
    assert orjson.loads(orjson.dumps(fields)) == fields


def test_jump_rate_state_is_by_name() -> None:
    custody = Custody(pool=bytes(32), mint=bytes(32), jump_rate_state=JumpRateState(1, 2, 3, 4))
    assert Custody.decode(custody.encode()).jump_rate_state == JumpRateState(1, 2, 3, 4)


def test_errors_are_one_clear_line() -> None:
    with pytest.raises(DecodeError, match=r"^jupiter.custody: offset 295: expected at least 296 bytes, found 295$"):
        Custody.decode(CUSTODY.encode()[:295])
    with pytest.raises(DecodeError, match=r"jupiter.custody: offset 0: expected discriminator 01b8"):
        Custody.decode(POOL_STATE.encode())
    with pytest.raises(DecodeError, match=r"jupiter.pool: offset 0: expected discriminator f19a"):
        Pool.decode(CUSTODY.encode())
    with pytest.raises(DecodeError, match=r"^jupiter.pool: offset 300: expected at least 416 bytes, found 300$"):
        Pool.decode(POOL_STATE.encode()[:300])
    with pytest.raises(DecodeError, match="expected a name in UTF-8, found ffffffff"):
        Pool.decode(POOL_STATE.encode()[:12] + b"\xff" * 4 + POOL_STATE.encode()[16:])


def test_a_length_that_lies_does_not_read_past_the_end() -> None:
    data = POOL_STATE.encode()
    with pytest.raises(DecodeError, match="expected at least"):
        Pool.decode(data[:8] + b"\xff\xff\xff\xff" + data[12:])
    with pytest.raises(DecodeError, match="expected at least"):
        Pool.decode(data[:16] + b"\xff\xff\xff\xff" + data[20:])
