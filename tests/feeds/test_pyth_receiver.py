"""Pyth's PriceUpdateV2: the shift of a partial update, both receivers, and the reader."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from feeds.addresses import ASSETS, PYTH_NEW_RECEIVER, PYTH_OLD_RECEIVER
from feeds.layout import pubkey_bytes
from feeds.pyth.receiver import PriceUpdateReader, PriceUpdateV2
from oracle_hub.core.source import Account, Condition, Malformed, PriceUpdate, Status
from oracle_hub.errors import DecodeError

SOL = ASSETS["SOL/USD"]
NOW = 1_790_000_001_000_000
UPDATE = PriceUpdateV2(
    write_authority=pubkey_bytes(SOL.pyth_new_push),
    feed_id=bytes.fromhex(SOL.hermes_id),
    price=15_000_000_000,
    conf=7_000_001,
    exponent=-8,
    publish_time=1_790_000_000,
    prev_publish_time=1_789_999_999,
    ema_price=14_999_999_999,
    ema_conf=6_000_000,
    posted_slot=450_000_000,
)
DERIVED = ("price_message_offset", "end_offset", "trailing", "price_float", "publish_time_utc")


def read(data: bytes, owner: str = PYTH_NEW_RECEIVER, expo: int = -8) -> object:
    reader = PriceUpdateReader("pyth", {"SOL/USD": SOL.pyth_new_push}, {"SOL/USD": expo})
    (event,) = reader.read(Account(SOL.pyth_new_push, owner, 3, data), "solana:a", NOW)
    return event


@pytest.mark.parametrize(
    "name",
    [
        "pyth_priceupdatev2_sol_usd_2025-01-11",
        "pyth_priceupdatev2_sol_usd_new_receiver_2026-09-18",
        "pyth_priceupdatev2_sol_usd_old_receiver_2025-06-11",
        "pyth_priceupdatev2_sol_usd_old_receiver_2026-08-24",
        "pyth_priceupdatev2_sol_usd_old_receiver_2026-09-20",
        "pyth_priceupdatev2_usdc_usd_old_receiver_2026-04-20",
        "SYNTHETIC_pyth_priceupdatev2_partial5",
    ],
)
def test_real_accounts(fixtures_dir: Path, name: str) -> None:
    loaded = orjson.loads((fixtures_dir / f"{name}.json").read_bytes())
    data = base64.b64decode(loaded["data_base64"])
    update = PriceUpdateV2.decode(data)
    assert update.encode() == data
    expected = {field: value for field, value in loaded["expected"].items() if field not in DERIVED}
    assert update.fields() == expected


@pytest.mark.parametrize("signatures", [None, 0, 5, 255])
def test_encoding_gives_the_live_size_and_comes_back(signatures: int | None) -> None:
    update = msgspec.structs.replace(UPDATE, num_signatures=signatures)
    assert len(update.encode()) == 134
    assert PriceUpdateV2.decode(update.encode()) == update


def test_a_partial_update_lies_one_byte_further() -> None:
    full = UPDATE.encode()
    partial = msgspec.structs.replace(UPDATE, num_signatures=5).encode()
    assert full[40:42] == bytes([1, UPDATE.feed_id[0]])
    assert partial[40:43] == bytes([0, 5, UPDATE.feed_id[0]])
    assert partial[42:134] == full[41:133]
    assert full[133] == 0


@pytest.mark.parametrize("owner", [PYTH_OLD_RECEIVER, PYTH_NEW_RECEIVER])
def test_either_receiver_gives_an_update(owner: str) -> None:
    assert read(UPDATE.encode(), owner) == PriceUpdate(
        "pyth",
        "solana:a",
        "SOL/USD",
        15_000_000_000,
        1_790_000_000_000_000,
        NOW,
        conf=7_000_001,
        slot=3,
        account=SOL.pyth_new_push,
    )


def test_confidence_is_rounded_up_at_another_exponent() -> None:
    event = read(UPDATE.encode(), expo=-6)
    assert isinstance(event, PriceUpdate)
    assert (event.mantissa, event.conf) == (150_000_000, 70_001)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_signatures": 5}, "partially (5 signatures)"),
        ({"feed_id": bytes.fromhex(ASSETS["BTC/USD"].hermes_id)}, "not ef0d8b6f"),
        ({"price": 0}, "not positive"),
        ({"price": -5}, "not positive"),
        ({"publish_time": 0}, "never updated"),
        ({"exponent": 90}, "too far"),
        ({"conf": 2**64 - 1}, "does not fit"),
    ],
)
def test_what_is_no_price_is_invalid(changes: dict[str, Any], words: str) -> None:
    event = read(msgspec.structs.replace(UPDATE, **changes).encode())
    assert isinstance(event, Status)
    assert event.condition is Condition.INVALID
    assert words in event.text


def test_an_account_that_anyone_can_write_is_malformed() -> None:
    event = read(UPDATE.encode(), "11111111111111111111111111111111")
    assert isinstance(event, Malformed)
    assert "owner" in event.reason


def test_a_twap_of_the_same_owner_is_refused() -> None:
    data = bytes.fromhex("68c0bc48f6a60c51") + UPDATE.encode()[8:]
    with pytest.raises(DecodeError, match="expected discriminator 22f123639d7ef4cd, found 68c0bc48f6a60c51"):
        PriceUpdateV2.decode(data)


def test_errors_are_one_clear_line() -> None:
    data = UPDATE.encode()
    with pytest.raises(DecodeError, match="offset 40: expected verification level 0 or 1, found 2"):
        PriceUpdateV2.decode(data[:40] + b"\x02" + data[41:])
    with pytest.raises(DecodeError, match="expected at least 133 bytes, found 132"):
        PriceUpdateV2.decode(data[:132])
    with pytest.raises(DecodeError, match="expected at least 134 bytes, found 133"):
        PriceUpdateV2.decode(msgspec.structs.replace(UPDATE, num_signatures=5).encode()[:133])


def test_given_feed_ids_are_demanded_and_unknown_ones_are_not() -> None:
    account = Account(SOL.edge, PYTH_NEW_RECEIVER, 3, UPDATE.encode())
    demanding = PriceUpdateReader("pyth", {"BONK/USD": SOL.edge}, None, {"BONK/USD": "0x" + "ab" * 32})
    (event,) = demanding.read(account, "solana:a", NOW)
    assert isinstance(event, Status)
    (event,) = PriceUpdateReader("pyth", {"BONK/USD": SOL.edge}).read(account, "solana:a", NOW)
    assert isinstance(event, PriceUpdate)


def test_describe_knows_both_push_programs() -> None:
    for address, matches in ((SOL.pyth_new_push, True), (SOL.pyth_old_push, True), (SOL.edge, False)):
        assert PriceUpdateReader("pyth", {"SOL/USD": address}).describe("SOL/USD")["matches_derived"] is matches
    assert PriceUpdateReader("pyth", {"BONK/USD": SOL.edge}).describe("BONK/USD")["derived"] == []
