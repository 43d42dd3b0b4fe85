"""A source with several ways: what a configuration may say, which transports it gives, who is a witness for whom."""

import pytest

from feeds.addresses import ASSETS
from oracle_hub.app.independence import dependent_verifiers
from oracle_hub.app.lineup import all_addresses, catalog_of, endpoints_of, lineup_from_text
from oracle_hub.cli.check import examine
from oracle_hub.config import Config, canonical_text, parse_config, redistribute_of
from oracle_hub.core.catalog import Proof, Redistribute
from oracle_hub.errors import ConfigError

SOL = ASSETS["SOL/USD"]
CONFIG = """
[roles]
primary = "edge"
verifiers = ["chainlink", "pyth"]
[sources.edge]
kind = "edge.rest"
[sources.chainlink]
kind = "chainlink.streams"
redistribute = "full"
[sources.chainlink.ways.doves]
kind = "doves.chainlink"
[sources.pyth]
kind = "pyth.hermes"
[sources.pyth.ways.pushed]
kind = "pyth.receiver"
[feeds."SOL/USD"]
[emulator]
"""
BNB = '[feeds."BNB/USD".accounts]\nedge = "BNBUSD"\nchainlink = "{}"\npyth = "{}"\n'.format("0003" * 16, "ab" * 32)


def config(text: str = CONFIG) -> Config:
    return parse_config(text, origin="hub.toml")


def transports(of: Config) -> dict[str, list[tuple[str, str, tuple[str, ...], bool]]]:
    lineup = lineup_from_text(canonical_text(of))
    found: dict[str, list[tuple[str, str, tuple[str, ...], bool]]] = {}
    for way in lineup.ways:
        found.setdefault(way.source, []).append((way.transport, way.link, way.feeds, way.proves))
    return found


def test_every_way_by_every_link_is_a_transport_of_its_own() -> None:
    sol = ("SOL/USD",)
    found = transports(config())
    assert found["chainlink"] == [
        *(one for one in found["chainlink"] if one[0].startswith("streams:")),
        ("solana/doves:a", "solana:a", sol, False),
        ("solana/doves:b", "solana:b", sol, False),
    ]
    assert found["chainlink"][0] == ("streams:1", "streams:1", sol, True)
    assert found["pyth"] == [
        ("hermes:1", "hermes:1", sol, True),
        ("hermes:2", "hermes:2", sol, True),
        ("solana/pushed:a", "solana:a", sol, False),
        ("solana/pushed:b", "solana:b", sol, False),
    ]


def test_two_ways_of_one_kind_have_links_of_their_own_and_the_name_of_their_source() -> None:
    second = (
        '[sources.pyth.ways.spare]\nkind = "pyth.hermes"\napi_key = "env:SPARE"\nhosts = ["https://spare.example"]\n'
    )
    lineup = lineup_from_text(canonical_text(config(CONFIG + second)))
    hermes = [(way.source, way.way, way.transport) for way in lineup.ways if way.kind == "pyth.hermes"]
    assert ("pyth", "pyth.spare", "hermes:pyth.spare:1") in hermes and ("pyth", "pyth", "hermes:pyth:1") in hermes
    assert {way.link for way in lineup.ways} == lineup.links.keys()


def test_a_further_way_need_not_have_every_feed() -> None:
    found = transports(config(CONFIG + BNB))
    assert {feeds for _, _, feeds, _ in found["chainlink"]} == {("SOL/USD", "BNB/USD"), ("SOL/USD",)}
    given = f'[sources.chainlink.ways.doves.accounts]\n"BNB/USD" = "{SOL.mint}"\n'
    found = transports(config(CONFIG + BNB + given))
    assert {feeds for _, _, feeds, _ in found["chainlink"]} == {("SOL/USD", "BNB/USD")}


@pytest.mark.parametrize(
    ("change", "proof"),
    [
        (("", ""), Proof.DEMANDED),
        (('redistribute = "full"', 'redistribute = "full"\nequivalent = true'), Proof.EQUIVALENT),
        (('redistribute = "full"', 'redistribute = "full"\nverify = "lenient"'), Proof.PREFERRED),
        (('redistribute = "full"', 'redistribute = "full"\nverify = "off"'), Proof.EQUIVALENT),
        (('[sources.chainlink.ways.doves]\nkind = "doves.chainlink"\n', ""), Proof.PREFERRED),
    ],
)
def test_a_strict_way_demands_proof_of_all_ways_unless_they_are_called_equivalent(
    change: tuple[str, str], proof: Proof
) -> None:
    assert catalog_of(config(CONFIG.replace(*change))).proof["chainlink"] is proof


WAY = "[sources.pyth.ways.x]\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (WAY, "sources.pyth.ways.x: kind is missing"),
        (WAY + 'kind = "pyth.hemes"\n', "sources.pyth.ways.x.kind: unknown kind pyth.hemes; did you mean pyth.hermes?"),
        (WAY + 'kind = "redstone"\nhosst = []\n', "sources.pyth.ways.x: unknown key hosst; did you mean hosts?"),
        (WAY + 'kind = "redstone"\n[sources.pyth.ways.x.ways.y]\nkind = "redstone"\n', "unknown key ways"),
        (WAY + 'kind = "pyth.hermes"\napi_key = "hunter2"\n', 'sources.pyth.ways.x.api_key: write "env:NAME"'),
        (WAY + 'kind = "redstone"\nredistribute = "full"\n', "sources.pyth.ways.x: unknown key redistribute"),
        ('[sources.pyth.ways."X Y"]\nkind = "redstone"\n', "sources.pyth.ways.X Y: a way is named by"),
        (WAY + 'kind = "redstone"\naccounts = {"DOGE/USD" = "1"}\n', "accounts: names DOGE/USD, which is no feed"),
        (
            '[sources."pyth.x"]\nkind = "redstone"\n' + WAY + 'kind = "redstone"\n',
            "there is a source of the name pyth.x",
        ),
    ],
)
def test_what_a_way_may_not_say_is_refused_in_one_line(more: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(CONFIG + more)
    assert message in str(caught.value)
    assert str(caught.value).startswith("hub.toml: ") and "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_equivalent_is_for_sources_with_several_ways() -> None:
    with pytest.raises(ConfigError, match=r"sources.edge.equivalent: for sources with \[sources.edge.ways.WAY\] only"):
        config(CONFIG.replace('kind = "edge.rest"', 'kind = "edge.rest"\nequivalent = true'))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            WAY + 'kind = "redstone"\naccounts = {"SOL/USD" = "zz0"}\n',
            "sources.pyth.ways.x.accounts.SOL/USD: 'zz0' is no",
        ),
        (WAY + 'kind = "edge.rest"\n', "feeds.SOL/USD: edge and pyth.x both read SOLUSD, so neither can verify"),
    ],
)
def test_what_a_way_reads_is_checked(more: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        all_addresses(config(CONFIG + more))
    assert message in str(caught.value)


def test_one_stream_read_in_two_ways_of_one_source_is_redundancy() -> None:
    assert all_addresses(config(CONFIG + WAY + 'kind = "pyth.hermes"\n'))["pyth.x"] == {"SOL/USD": SOL.hermes_id}


def test_a_verifier_one_of_whose_ways_reads_a_leg_is_named() -> None:
    text = CONFIG.replace('kind = "edge.rest"', 'kind = "doves.custody"')
    of = config(text)
    lines = dependent_verifiers(of, all_addresses(of))["SOL/USD"]
    assert lines == (
        "chainlink carries the price of Chainlink Data Streams, as Chainlink's leg of the aggregate that edge reads "
        "does: in part they are one witness",
        f"chainlink.doves reads {SOL.chainlink_doves}, which is Chainlink's leg of the aggregate that edge reads",
    )


def test_check_shows_every_way() -> None:
    found = examine(config())
    feeds = found["feeds"]
    assert isinstance(feeds, dict)
    entry = feeds["SOL/USD"]["inputs"]["chainlink"]
    assert entry["ways"] == {"chainlink.doves": {"kind": "doves.chainlink", "reads": SOL.chainlink_doves}}
    assert entry["proof"] == "demanded"


def test_a_way_without_hosts_is_named_where_it_stands() -> None:
    text = CONFIG.replace("[emulator]", "").replace('kind = "edge.rest"', 'kind = "doves.custody"')
    text = text.replace('kind = "chainlink.streams"\nredistribute = "full"', 'kind = "chainlink.store"')
    text = text.replace('kind = "pyth.hermes"', 'kind = "pyth.legacy"').replace("pyth.receiver", "pyth.hermes")
    rpc = '[[solana.rpc]]\nname = "a"\nhttp_url = "http://a.example"\nws_url = "ws://a.example"\n'
    with pytest.raises(ConfigError, match=r"^sources.pyth.ways.pushed.hosts: none given"):
        endpoints_of(config(text + rpc))


def test_links_are_kept_where_only_an_age_or_an_equivalence_changes() -> None:
    before = lineup_from_text(canonical_text(config()))
    text = CONFIG.replace('redistribute = "full"', 'redistribute = "full"\nequivalent = true\nmax_age_ms = 7000')
    after = lineup_from_text(canonical_text(config(text)), before)
    assert after.links is before.links
    assert [way.transport for way in after.ways] == [way.transport for way in before.ways]
    assert {way.max_age_us for way in after.ways if way.way == "chainlink"} == {7_000_000}
    third = lineup_from_text(canonical_text(config(text.replace("doves.chainlink", "chainlink.store"))), after)
    assert third.links is not after.links


def test_a_source_lets_out_what_the_strictest_of_its_ways_does() -> None:
    text = CONFIG.replace("[emulator]\n", "").replace('redistribute = "full"\n', "")
    assert redistribute_of(config(text), "chainlink") is Redistribute.NO
    first = text.replace('kind = "chainlink.streams"', 'kind = "x"').replace("doves.chainlink", "chainlink.streams")
    assert redistribute_of(config(first.replace('"x"', '"doves.chainlink"')), "chainlink") is Redistribute.NO
    assert redistribute_of(config(CONFIG), "chainlink") is Redistribute.FULL
