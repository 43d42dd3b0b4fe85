"""Every address in the table follows from its rule."""

import pytest
from solders.hash import Hash

from feeds import addresses
from feeds.addresses import ASSETS, PYTH_NEW_PUSH, PYTH_OLD_PUSH, Asset
from feeds.layout import pubkey_bytes
from oracle_hub.errors import DecodeError

BUMPS = {
    "SOL/USD": (254, 252, 255, 254),
    "ETH/USD": (253, 255, 254, 254),
    "BTC/USD": (251, 251, 254, 255),
    "USDC/USD": (255, 255, 255, 255),
    "USDT/USD": (254, 255, 252, 252),
}
"""Bumps of the edge, aggregate, chainlink and lazer accounts, as published with the addresses."""


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_all_addresses_of_an_asset_are_derived(asset: Asset) -> None:
    assert addresses.doves_feed(asset.edge_pair) == asset.edge
    assert addresses.doves_feed(asset.lazer_pair) == asset.lazer
    assert addresses.doves_feed(asset.chainlink_pair) == asset.chainlink_doves
    assert addresses.doves_ag_feed(asset.mint) == asset.ag
    assert addresses.redstone_price(asset.symbol) == asset.redstone
    assert addresses.jupiter_custody(addresses.POOL, asset.mint) == asset.custody
    assert addresses.pyth_push(asset.hermes_id, program=PYTH_OLD_PUSH) == asset.pyth_old_push
    assert addresses.pyth_push(asset.hermes_id, program=PYTH_NEW_PUSH) == asset.pyth_new_push
    assert addresses.pyth_legacy_price(asset.hermes_id) == asset.pyth_legacy
    assert len(pubkey_bytes(asset.chainlink_store)) == 32  # a keypair's address: derived from nothing


@pytest.mark.parametrize("feed", BUMPS)
def test_bumps_are_those_that_the_accounts_store(feed: str) -> None:
    asset = ASSETS[feed]
    derived = (
        addresses.doves_feed_bump(asset.edge_pair),
        addresses.doves_ag_feed_bump(asset.mint),
        addresses.doves_feed_bump(asset.chainlink_pair),
        addresses.doves_feed_bump(asset.lazer_pair),
    )
    assert derived == BUMPS[feed]


def test_pool_and_root_are_derived() -> None:
    assert addresses.jupiter_pool() == addresses.POOL
    assert addresses.jupiter_perpetuals() == addresses.PERPETUALS
    mint, custody = "JuprjznTrTSp2UFa3ZBUFgwdAmtZCq4MQCwysN55USD", "DdwY1ELc9rRK7xNL3hTXabSFBmVrTPpfsUZSv2Y3LL1U"
    assert addresses.jupiter_custody(addresses.POOL, mint) == custody
    assert addresses.doves_ag_feed(mint) == "9DRrwc4hSMQouw3ptpHXtQXVNHoqwyqLaK6NWztWTDin"


def test_the_mistyped_pyth_address_in_circulation_is_not_ours() -> None:
    assert addresses.asset_of("7UVimffxr9ow1uXYxsr4LH8oT1Zg73AFY6SGUt7jLiE") is None


def test_asset_of_names_the_role() -> None:
    found = addresses.asset_of("39cWjvHrpHNz2SbXv6ME4NPhqBDBd4KsjUYv5JkHEAJU")
    assert found is not None
    assert (found[0].feed, found[1]) == ("SOL/USD", "edge")


def test_known_pair_only_where_the_address_follows_from_it() -> None:
    sol = ASSETS["SOL/USD"]
    assert addresses.known_pair("SOL/USD", sol.lazer) == sol.lazer_pair
    assert addresses.known_pair("SOL/USD", sol.chainlink_doves) == sol.chainlink_pair
    assert addresses.known_pair("BTC/USD", sol.edge) is None
    assert addresses.known_pair("BONK/USD", sol.edge) is None
    assert addresses.known_mint("BONK/USD") is None
    assert addresses.known_feed_id("BONK/USD") is None


def test_programs_and_genesis_hashes_are_32_bytes_and_distinct() -> None:
    assert len({pubkey_bytes(program) for program in addresses.PROGRAMS.values()}) == len(addresses.PROGRAMS)
    assert len({bytes(Hash.from_string(text)) for text in addresses.GENESIS_HASHES.values()}) == 3


def test_no_address_is_used_twice() -> None:
    names = ["mint", "custody", "edge", "ag", "chainlink_doves", "lazer", "redstone", "chainlink_store"]
    names += ["pyth_old_push", "pyth_new_push", "pyth_legacy"]
    all_addresses = [getattr(asset, name) for asset in ASSETS.values() for name in names]
    assert len(set(all_addresses)) == len(all_addresses)


def test_a_bad_address_is_refused_by_name() -> None:
    with pytest.raises(DecodeError, match="'nonsense' is no Solana address"):
        addresses.doves_ag_feed("nonsense")
