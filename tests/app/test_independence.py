"""Sources that read the same thing are refused as witnesses; those that read a part of it are named."""

from types import SimpleNamespace

import pytest

from feeds.addresses import ASSETS
from feeds.doves import AgLegs
from oracle_hub.app.independence import dependent_at_run_time, dependent_verifiers
from oracle_hub.app.lineup import all_addresses
from oracle_hub.config import Config, parse_config
from oracle_hub.errors import ConfigError

SOL = ASSETS["SOL/USD"]


def lineup(primary: str, first: str, second: str) -> Config:
    """Three kinds in the three roles, under the names p, a and b."""
    sources = "".join(
        f'[sources.{name}]\nkind = "{kind.partition(" ")[0]}"\n{kind.partition(" ")[2]}\n'
        for name, kind in zip("pab", (primary, first, second), strict=True)
    )
    roles = '[roles]\nprimary = "p"\nverifiers = ["a", "b"]\n'
    return parse_config(f'{sources}{roles}[feeds."SOL/USD"]\n[emulator]\n', origin="hub.toml")


@pytest.mark.parametrize(
    ("kinds", "what"),
    [
        (("doves.custody", "pyth.hermes", "pyth.hermes"), SOL.hermes_id),
        (("doves.custody", "doves.aggregate", "pyth.hermes"), SOL.ag),
        (("doves.aggregate", "chainlink.store", "doves.pool"), SOL.ag),
        (("doves.lazer", "pyth.receiver", "pyth.receiver"), SOL.pyth_new_push),
        (("doves.edge", "doves.edge", "pyth.hermes"), SOL.edge),
    ],
)
def test_the_same_reading_in_two_roles_is_refused(kinds: tuple[str, str, str], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        all_addresses(lineup(*kinds))
    assert str(caught.value).startswith("feeds.SOL/USD: ")
    assert f"both read {what}, so neither can verify the other" in str(caught.value)


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        (("doves.custody", "chainlink.store", "pyth.hermes"), []),
        (("doves.lazer", "doves.chainlink", "pyth.hermes"), []),
        (("doves.custody", "doves.chainlink", "pyth.hermes"), ["a reads", "Chainlink's leg"]),
        (("doves.pool", "chainlink.store", "doves.lazer"), ["b reads", "Pyth Lazer's leg"]),
        (("doves.custody", "doves.edge", "pyth.hermes"), ["a reads", "Edge's leg"]),
        (("doves.custody", 'pyth.receiver receiver = "old"', "chainlink.store"), ["a reads", "Pyth's leg"]),
        (("doves.lazer", "doves.aggregate", "pyth.hermes"), ["p reads", "Pyth Lazer's leg of the aggregate that a"]),
        (("doves.custody", "pyth.receiver", "pyth.hermes"), ["a and b both carry Pyth's price"]),
        (("doves.custody", "chainlink.store", "doves.chainlink"), ["both carry Chainlink's", "Chainlink's leg"]),
    ],
)
def test_parts_of_each_other_are_named(kinds: tuple[str, str, str], named: list[str]) -> None:
    config = lineup(*kinds)
    text = " ".join(dependent_verifiers(config, all_addresses(config)).get("SOL/USD", ()))
    assert bool(text) is bool(named)
    assert all(part in text for part in named)


def test_legs_that_the_aggregate_names_at_run_time_count_too() -> None:
    legs = {"SOL/USD": AgLegs(None, SOL.chainlink_store, None, None, None)}
    reader = SimpleNamespace(source="p", legs=legs)
    config = lineup("doves.custody", "chainlink.store", "pyth.hermes")
    found = dependent_at_run_time(config, all_addresses(config), {"p": reader})
    assert "names as a leg" in found["SOL/USD"][0]


@pytest.mark.parametrize(
    ("accounts", "message"),
    [
        ('{p = "zzz"}', "feeds.SOL/USD.accounts.p: 'zzz' is no Solana address"),
        ('{b = "12"}', "feeds.SOL/USD.accounts.b: '12' is no Pyth id (64 hex digits)"),
    ],
)
def test_addresses_are_checked(accounts: str, message: str) -> None:
    text = """
    [sources]
    p = {kind = "doves.lazer"}
    a = {kind = "chainlink.store"}
    b = {kind = "pyth.hermes"}
    [roles]
    primary = "p"
    verifiers = ["a", "b"]
    [feeds."SOL/USD"]
    accounts = ACCOUNTS
    """
    with pytest.raises(ConfigError) as caught:
        all_addresses(parse_config(text.replace("ACCOUNTS", accounts), origin="hub.toml"))
    assert message in str(caught.value)
