"""Sources that read the same thing are refused as witnesses; those that read a part of it are named."""

from types import SimpleNamespace

import pytest

from feeds.addresses import ASSETS
from feeds.doves import AgLegs
from oracle_hub.app.independence import Witnesses, dependent_verifiers
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
        (("doves.custody", "chainlink.store", "pyth.pro"), ["b carries Pyth Lazer's price, as Pyth Lazer's leg of"]),
        (("doves.custody", "chainlink.streams", "pyth.hermes"), ["a carries the price of Chainlink Data Streams, as"]),
        (("doves.custody", "edge.rest", "pyth.hermes"), ["a carries Edge's price, as Edge's leg of", "in part"]),
        (
            ("pyth.pro", "chainlink.store", "doves.aggregate"),
            ["p carries Pyth Lazer's price", "aggregate that b reads"],
        ),
        (("doves.lazer", "chainlink.store", "pyth.pro"), ["p and b both carry Pyth Lazer's price, on two roads"]),
        (("edge.rest", "doves.edge", "pyth.hermes"), ["p and a both carry Edge's price, on two roads"]),
        (("doves.edge", "chainlink.streams", "pyth.pro"), []),
    ],
)
def test_parts_of_each_other_are_named(kinds: tuple[str, str, str], named: list[str]) -> None:
    config = lineup(*kinds)
    text = " ".join(dependent_verifiers(config, all_addresses(config)).get("SOL/USD", ()))
    assert bool(text) is bool(named)
    assert all(part in text for part in named)


def test_legs_that_the_aggregate_names_at_run_time_count_too() -> None:
    legs = {"SOL/USD": AgLegs(None, SOL.chainlink_store, None, None, None)}
    reader = SimpleNamespace(source="p", legs_of=legs.get)
    config = lineup("doves.custody", "chainlink.store", "pyth.hermes")
    found = Witnesses(config, all_addresses(config), {"p": reader}).all()
    assert "names as a leg" in found["SOL/USD"][0]


@pytest.mark.parametrize(("lazer", "is_told"), [(SOL.lazer, True), (None, False)])
def test_the_oracle_behind_a_leg_of_an_unknown_asset_counts_once_the_leg_is_named(
    lazer: str | None, is_told: bool
) -> None:
    config = parse_config(
        """
        [sources]
        p = {kind = "doves.aggregate"}
        a = {kind = "chainlink.store"}
        b = {kind = "pyth.pro"}
        [roles]
        primary = "p"
        verifiers = ["a", "b"]
        [feeds."JUP/USD"]
        accounts = {p = "AG", a = "STORE", b = "92"}
        [emulator]
        """.replace("AG", SOL.ag).replace("STORE", SOL.chainlink_store),
        origin="hub.toml",
    )
    addresses = all_addresses(config)
    assert dependent_verifiers(config, addresses) == {}
    reader = SimpleNamespace(source="p", legs_of={"JUP/USD": AgLegs(SOL.edge, None, None, lazer, None)}.get)
    line = "b carries Pyth Lazer's price, as Pyth Lazer's leg of the aggregate that p reads does: "
    expected = {"JUP/USD": (line + "in part they are one witness",)} if is_told else {}
    assert Witnesses(config, addresses, {"p": reader}).all() == expected


def test_of_one_feed_no_other_is_looked_at() -> None:
    asked: list[str] = []

    def legs_of(feed: str) -> AgLegs:
        asked.append(feed)
        return AgLegs(None, SOL.chainlink_store, None, None, None)

    config = parse_config(
        """
        [sources]
        p = {kind = "doves.custody"}
        a = {kind = "chainlink.store"}
        b = {kind = "pyth.hermes"}
        [roles]
        primary = "p"
        verifiers = ["a", "b"]
        [feeds."SOL/USD"]
        [feeds."BTC/USD"]
        [feeds."ETH/USD"]
        [emulator]
        """,
        origin="hub.toml",
    )
    witnesses = Witnesses(config, all_addresses(config), {"p": SimpleNamespace(legs_of=legs_of)})
    assert "names as a leg" in witnesses.of("SOL/USD")[0]
    assert (asked, witnesses.of("JUP/USD")) == (["SOL/USD"], ())
    assert witnesses.all().keys() == {"SOL/USD"}
    assert asked == ["SOL/USD", "SOL/USD", "BTC/USD", "ETH/USD"]


def test_what_is_known_beforehand_is_told_once() -> None:
    legs = AgLegs(SOL.edge, SOL.chainlink_doves, None, SOL.lazer, None)
    reader = SimpleNamespace(source="p", legs_of={"SOL/USD": legs}.get)
    config = lineup("doves.custody", "doves.chainlink", "pyth.pro")
    addresses = all_addresses(config)
    assert Witnesses(config, addresses, {"p": reader}).all() == dependent_verifiers(config, addresses)
    assert len(dependent_verifiers(config, addresses)["SOL/USD"]) == 2


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
