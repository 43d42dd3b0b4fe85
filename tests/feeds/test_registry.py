"""Decoders as the command line sees them, and that no reader was forgotten."""

import base64
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

import feeds
from feeds.addresses import ASSETS, POOL, PROGRAMS
from feeds.custody import PoolReader
from feeds.doves import AgPriceFeed, PriceFeed
from feeds.pyth.legacy import PriceAccount, PriceInfo
from feeds.pyth.receiver import PriceUpdateV2
from feeds.reader import PriceAccountReader
from feeds.registry import DECODERS, SOURCES, default_account, make_reader
from oracle_hub.errors import ConfigError, DecodeError

SOL = ASSETS["SOL/USD"]
KEY = bytes(32)
KINDS = {
    "doves_pricefeed_sol_edge_2026-09-24": "doves.price_feed",
    "doves_agpricefeed_sol_2026-09-24": "doves.ag_price_feed",
    "jup_custody_sol_2026-09-24": "jupiter.custody",
    "jup_custody_sol_2026-02-23": "jupiter.custody",
    "jup_pool_2026-02-19": "jupiter.pool",
    "chainlink_transmissions_sol_usd_mainnet_2024-07-14": "chainlink.transmissions",
    "chainlink_transmissions_unit_vector_live3": "chainlink.transmissions",
    "pyth_priceupdatev2_sol_usd_new_receiver_2026-09-18": "pyth.price_update_v2",
    "pyth_priceupdatev2_usdc_usd_old_receiver_2026-04-20": "pyth.price_update_v2",
    "SYNTHETIC_pyth_priceupdatev2_partial5": "pyth.price_update_v2",
    "pyth_legacy_price_bch_usd_pythclient_test": "pyth.legacy_price",
    "pyth_pythnet_price_aapl_usd_pythclient_test": "pyth.legacy_price",
}
PRICES = {
    "doves_pricefeed_sol_edge_2026-09-24": ("6782862018", -8, 1_780_621_855, None, None),
    "doves_agpricefeed_sol_2026-09-24": ("11500840348", -8, 1_790_256_931, None, None),
    "chainlink_transmissions_sol_usd_mainnet_2024-07-14": ("14512628598", -8, 1_720_938_297, None, 277_451_773),
    "chainlink_transmissions_unit_vector_live3": ("14", -18, 1_633_364_819, None, 64),
    "pyth_priceupdatev2_sol_usd_new_receiver_2026-09-18": ("10259321149", -8, 1_789_699_386, 1_384_501, 447_956_893),
    "SYNTHETIC_pyth_priceupdatev2_partial5": ("10259321149", -8, 1_789_699_386, 1_384_501, 447_956_893),
    "pyth_legacy_price_bch_usd_pythclient_test": ("561718680000", -9, 1, 799_485_000, 96_878_111),
    "pyth_pythnet_price_aapl_usd_pythclient_test": ("23623373", -5, 1_739_388_661, 14_454, 197_635_583),
}


def load(fixtures_dir: Path, name: str) -> tuple[bytes, dict[str, Any], str]:
    loaded = orjson.loads((fixtures_dir / f"{name}.json").read_bytes())
    return base64.b64decode(loaded["data_base64"]), loaded["expected"], loaded["owner"].split()[0]


@pytest.mark.parametrize("name", KINDS)
def test_expected_values_of_real_accounts(fixtures_dir: Path, name: str) -> None:
    data, expected, owner = load(fixtures_dir, name)
    answer = orjson.loads(orjson.dumps(DECODERS[KINDS[name]](data, owner)))
    assert answer["kind"] == KINDS[name]
    shared = set(expected) & set(answer) - {"price"}
    assert len(shared) >= 2
    for field in shared:
        got, want = answer[field], expected[field]
        if isinstance(want, list) and isinstance(got, dict):
            got = list(got.values())
        if isinstance(want, dict):
            got = {key: got[key] for key in want}
        assert got == want or got == str(want), field


@pytest.mark.parametrize("name", PRICES)
def test_the_common_keys(fixtures_dir: Path, name: str) -> None:
    data, _, _ = load(fixtures_dir, name)
    answer = DECODERS[KINDS[name]](data, None)
    price, expo, timestamp, conf, slot = PRICES[name]
    assert (answer["price"], answer["expo"], answer["publish_time_us"]) == (price, expo, timestamp * 1_000_000)
    assert (answer.get("conf"), answer.get("slot")) == (conf, slot)


@pytest.mark.parametrize("name", KINDS)
def test_a_foreign_owner_is_refused(fixtures_dir: Path, name: str) -> None:
    data, _, owner = load(fixtures_dir, name)
    for program in PROGRAMS.values():
        if program[:4] == owner[:4] or {program[:3], owner[:3]} == {"rec"}:
            continue
        if {program, owner} == {PROGRAMS["pyth_legacy"], PROGRAMS["pyth_legacy_devnet"]}:
            continue
        with pytest.raises(DecodeError, match="owner: expected"):
            DECODERS[KINDS[name]](data, program)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("name", KINDS)
def test_foreign_and_truncated_bytes_are_refused(fixtures_dir: Path, name: str, kind: str) -> None:
    data, _, _ = load(fixtures_dir, name)
    if KINDS[name] != kind:
        with pytest.raises(DecodeError, match=rf"^{kind}: offset "):
            DECODERS[kind](data, None)
    for size in (0, 7, 8, 40, 80):
        with pytest.raises(DecodeError, match=rf"^{kind}: offset "):
            DECODERS[kind](data[:size], None)


def test_a_stopped_aggregate_decodes_with_its_status() -> None:
    account = PriceAccount(exponent=-8, timestamp=5, agg=PriceInfo(7, 1, 2))
    assert DECODERS["pyth.legacy_price"](account.encode(), None)["status"] == "halted"


def test_a_chainlink_leg_shows_its_id_in_hex() -> None:
    leg = PriceFeed(SOL.chainlink_pair, bytes(33), 5, -8, 6)
    assert DECODERS["doves.price_feed"](leg.encode(), None)["feed_id"] == SOL.data_streams_id


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("doves.price_feed", PriceFeed(bytes(32), bytes(33), 0, -8, 6).encode(), "offset 73: price is 0"),
        ("doves.price_feed", PriceFeed(bytes(32), bytes(33), 6, -8, 0).encode(), "offset 82: timestamp is 0"),
        ("doves.price_feed", PriceFeed(bytes(32), bytes(33), 6, -8, -1).encode(), "expected unix seconds, found -1"),
        ("doves.ag_price_feed", AgPriceFeed(KEY, KEY, KEY, KEY, KEY, 0, -8, 6).encode(), "offset 168: price is 0"),
        ("pyth.price_update_v2", PriceUpdateV2(bytes(32), bytes(32), -4, 0, -8, 1, 1, 1, 1, 1).encode(), "found -4"),
        ("pyth.price_update_v2", PriceUpdateV2(bytes(32), bytes(32), 0, 0, -8, 1, 1, 1, 1, 1, 5).encode(), "offset 74"),
        ("pyth.legacy_price", PriceAccount(exponent=-8, timestamp=0, agg=PriceInfo(7, 1)).encode(), "offset 96"),
    ],
)
def test_an_account_that_was_never_updated_is_no_price(kind: str, data: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        DECODERS[kind](data, None)


def test_nothing_written_yet(fixtures_dir: Path) -> None:
    data, _, _ = load(fixtures_dir, "chainlink_transmissions_sol_usd_mainnet_2024-07-14")
    with pytest.raises(DecodeError, match="nothing written yet"):
        DECODERS["chainlink.transmissions"](data[:143] + bytes(4) + data[147:], None)


def test_every_reader_of_accounts_is_registered() -> None:
    """A class that reads accounts, in any module of ours, has a line in SOURCES."""
    readers = set()
    for module in pkgutil.walk_packages(feeds.__path__, "feeds."):
        if module.name.startswith("feeds.emulator"):
            continue
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            reads = all(hasattr(found, method) for method in ("accounts", "read", "missing"))
            if reads and found.__module__ == module.name and not inspect.isabstract(found):
                readers.add(found)
    assert len(readers) >= 7
    assert readers == {kind.reader for kind in SOURCES.values()}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_reads_all_five_assets(kind: str) -> None:
    accounts = {feed: default_account(kind, feed) for feed in ASSETS}
    known = {feed: address for feed, address in accounts.items() if address is not None}
    assert len(known) == 5
    reader = make_reader(kind, "name", known, dict.fromkeys(ASSETS, -8))
    assert reader.source == "name"
    watched = {POOL} if isinstance(reader, PoolReader) else set(known.values())
    assert reader.accounts() == watched
    if isinstance(reader, PriceAccountReader):
        assert all(reader.describe(feed)["matches_derived"] for feed in ASSETS)


def test_unknown_names_are_refused_or_unknown() -> None:
    assert default_account("doves.custody", "BONK/USD") is None
    assert default_account("pyth.receiver", "SOL/USD", receiver="old") == SOL.pyth_old_push
    with pytest.raises(ConfigError, match=r"unknown kind of source nonsense; known: chainlink.store, "):
        make_reader("nonsense", "x", {}, {})


def test_layouts_are_frozen() -> None:
    with pytest.raises(AttributeError):
        PriceFeed(bytes(32), bytes(33), 0, -8, 6).price = 5  # type: ignore[misc]
    assert msgspec.structs.replace(PriceFeed(bytes(32), bytes(33), 0, -8, 6), price=5).price == 5
