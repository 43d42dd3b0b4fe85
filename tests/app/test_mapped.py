"""Old addresses in a configuration: what is read in their place, and what is said of it."""

import pytest

from feeds.addresses import ASSETS
from oracle_hub.app.legacy import legacy_accounts, legacy_notes
from oracle_hub.app.lineup import addresses_of
from oracle_hub.app.mapped import successor_of
from oracle_hub.config import Config, parse_config

SOL, BTC = ASSETS["SOL/USD"], ASSETS["BTC/USD"]


def config(kind: str, accounts: dict[str, str], *, references: str = "[]", more: str = "") -> Config:
    text = f"""
[roles]
primary = "doves"
verifiers = ["chainlink", "pyth"]
references = {references}
[sources.doves]
kind = "{kind}"
[sources.chainlink]
kind = "chainlink.store"
[sources.pyth]
kind = "pyth.hermes"
hosts = ["https://hermes.example"]
{more}
[feeds."SOL/USD"]
"""
    lines = "".join(f'accounts.{source} = "{address}"\n' for source, address in accounts.items())
    return parse_config(text + lines, origin="test")


@pytest.mark.parametrize(
    ("kind", "address", "read"),
    [
        ("doves.custody", SOL.edge, SOL.custody),
        ("doves.custody", SOL.ag, SOL.custody),
        ("doves.custody", SOL.custody, None),
        ("doves.aggregate", SOL.edge, SOL.ag),
        ("doves.aggregate", SOL.ag, None),
        ("doves.pool", SOL.custody, SOL.mint),
        ("doves.edge", SOL.edge, None),
        ("doves.custody", BTC.edge, None),  # another feed's asset is no successor of anything here
        ("doves.custody", SOL.pyth_legacy, None),
        ("doves.custody", "11111111111111111111111111111111", None),
    ],
)
def test_what_is_read_in_place_of_an_address(kind: str, address: str, read: str | None) -> None:
    assert successor_of(kind, "SOL/USD", address) == read
    assert addresses_of(config(kind, {"doves": address}), "doves") == {"SOL/USD": read or address}


def test_what_is_said_of_a_primary() -> None:
    mapped = config("doves.custody", {"doves": SOL.edge})
    (line,) = legacy_notes(mapped)["SOL/USD"]
    assert line == (
        f"feeds.SOL/USD.accounts.doves: {SOL.edge} is an old oracle (dovesOracle); {SOL.custody} is read in its place"
    )
    assert [(one.address, one.custody, one.written) for one in legacy_accounts(mapped)] == [
        (SOL.edge, SOL.custody, True)
    ]
    (line,) = legacy_notes(config("doves.edge", {}))["SOL/USD"]
    assert line.endswith(f"which the exchange may have left; follow custody {SOL.custody}")
    assert legacy_notes(config("doves.custody", {"doves": SOL.custody})) == {}


def way(kind: str, address: str) -> str:
    return f'[sources.doves.ways.chain]\nkind = "{kind}"\naccounts = {{ "SOL/USD" = "{address}" }}\n'


def test_what_is_said_of_a_further_way() -> None:
    key = "sources.doves.ways.chain.accounts.SOL/USD"
    mapped = config("edge.rest", {}, more=way("doves.custody", SOL.edge))
    (line,) = legacy_notes(mapped)["SOL/USD"]
    assert line == f"{key}: {SOL.edge} is an old oracle (dovesOracle); {SOL.custody} is read in its place"
    assert [(one.way, one.key, one.custody) for one in legacy_accounts(mapped)] == [("chain", key, SOL.custody)]
    (line,) = legacy_notes(config("edge.rest", {}, more=way("doves.pool", SOL.custody)))["SOL/USD"]
    assert line == f"{key}: {SOL.custody} is not what this kind reads; {SOL.mint} is read in its place"
    assert legacy_notes(config("edge.rest", {}, more=way("doves.custody", SOL.custody))) == {}
    assert legacy_notes(config("edge.rest", {}, more=way("doves.edge", SOL.edge))) == {}  # Edge's, beside Edge's


def test_what_is_said_of_a_reference() -> None:
    more = '[sources.aggregate]\nkind = "doves.aggregate"\n'
    accounts = {"doves": SOL.custody, "aggregate": SOL.edge}
    both = config("doves.custody", accounts, references='["aggregate"]', more=more)
    (line,) = legacy_notes(both)["SOL/USD"]
    assert line.startswith(f"feeds.SOL/USD.accounts.aggregate: {SOL.edge} is an old oracle (dovesOracle); {SOL.ag}")
    assert legacy_notes(config("doves.custody", accounts, more=more)) == {}  # nobody asks that source
