"""``edge.rest`` from a configuration to its links."""

import pytest

from feeds.edge.messages import EdgePrice
from feeds.edge.rest import EdgeLink
from feeds.emulator.edge_signing import EdgeSigner
from oracle_hub.app.lineup import all_addresses, build_lineup, endpoints_of, journaled_endpoints
from oracle_hub.config import Config, canonical_text, parse_canonical, parse_config
from oracle_hub.core.source import Fetch, Frame, Malformed, PriceUpdate
from oracle_hub.errors import ConfigError
from tests.app.rig import SIMULATION

NOW_S = 1_790_000_000
KEY = "03e288ccf67da826e6b89d6e6927be9e3a3d08e019592df2b3ebb5766370fd5c2e"


def config(*lines: str, emulated: bool = True, feeds: str = "") -> Config:
    edge = "\n".join(["[sources.edge]", 'kind = "edge.rest"', *lines, "[sources.doves]"])
    text = SIMULATION.replace("[sources.doves]", edge, 1).replace('primary = "doves"', 'primary = "edge"') + feeds
    if not emulated:
        rpc = '[[solana.rpc]]\nname = "a"\nhttp_url = "http://h"\nws_url = "ws://h"\n'
        text = text.replace("[emulator]", rpc).replace('"pyth.hermes"', '"pyth.hermes"\nhosts = ["http://h"]')
    return parse_config(text, origin="test")


def outcome(settings: Config, body: bytes) -> bool | str:
    """Whether the price was taken as verified; else why it was refused."""
    link = build_lineup(settings, journaled_endpoints(settings)).links["edge:1"]
    (fetch,) = link.connect(NOW_S * 1_000_000)
    assert isinstance(fetch, Fetch)
    for item in link.receive(Frame("http", body, fetch.fetch_id, 200), NOW_S * 1_000_000):
        if isinstance(item, Malformed):
            return item.reason.split(":")[1].strip()
        if isinstance(item, PriceUpdate):
            return item.verified
    raise AssertionError("neither a price nor a refusal")


BODY = EdgeSigner().batch([EdgePrice("SOLUSD", 15_000_000_000, -8, NOW_S), EdgePrice("BTCUSD", 5, -8, NOW_S)])


def test_ids_are_known_or_configured() -> None:
    assert all_addresses(config())["edge"] == {"SOL/USD": "SOLUSD", "BTC/USD": "BTCUSD"}
    settings = config(feeds='[feeds."SOL/USD".accounts]\nedge = "0"\n')
    assert all_addresses(settings)["edge"]["SOL/USD"] == "0"
    with pytest.raises(ConfigError, match=r"^feeds\.SOL/USD\.accounts\.edge: 'S L' is no id of Edge"):
        all_addresses(config(feeds='[feeds."SOL/USD".accounts]\nedge = "S L"\n'))


def test_test_keys_count_in_a_simulation_and_nowhere_else() -> None:
    assert outcome(config(), BODY) is True
    assert outcome(config(emulated=False), BODY) == "unknown_signer"
    assert outcome(config('signers = "staging"'), BODY) == "unknown_signer"
    assert outcome(config('verify = "lenient"', 'signers = "production"'), BODY) is False
    assert outcome(config('verify = "off"'), BODY) is False


def test_a_customers_own_key_stands_in_place_of_the_known_ones() -> None:
    (own, _) = EdgeSigner().sets
    assert outcome(config(f'signer_keys = ["{KEY}", "0x{own.keys[0].hex()}"]', emulated=False), BODY) is True
    assert outcome(config(f'signer_keys = ["{KEY}"]'), BODY) == "unknown_signer"
    with pytest.raises(ConfigError, match=r"sources\.edge\.signer_keys"):
        config('signer_keys = ["5e"]')
    with pytest.raises(
        ConfigError, match=r"sources\.edge\.signer_keys: for edge\.rest, chainlink\.streams and pyth\.pro, and in "
    ):
        config(f'signer_keys = ["{KEY}"]', 'signers = "staging"')


def test_hosts_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^sources\.edge\.hosts: none given; add the base URL of Edge's API$"):
        endpoints_of(config(emulated=False))
    settings = config('hosts = ["https://a.example", "https://b.example"]', 'api_key = "env:EDGE_KEY"', emulated=False)
    with pytest.raises(ConfigError, match="environment variable EDGE_KEY is not set"):
        endpoints_of(settings)
    monkeypatch.setenv("EDGE_KEY", "top-secret")
    endpoints = endpoints_of(settings)
    links = build_lineup(settings, endpoints).links
    assert [name for name in links if name.startswith("edge")] == ["edge:1", "edge:2"]
    (fetch,) = links["edge:2"].connect(1)
    assert isinstance(fetch, Fetch) and fetch.headers == {"Authorization": "top-secret"}
    assert fetch.url == "https://b.example/prices/batch?feedIds=SOLUSD,BTCUSD"
    assert "top-secret" not in repr(endpoints) + canonical_text(settings)


def test_a_replay_has_the_same_links() -> None:
    settings = config('hosts = ["https://a.example", "https://b.example"]', emulated=False)
    again = parse_canonical(canonical_text(settings))
    links = build_lineup(again, journaled_endpoints(again)).links
    assert {name for name, link in links.items() if isinstance(link, EdgeLink)} == {"edge:1", "edge:2"}
    assert all(vars(link).keys() >= link.CONFIGURED for link in links.values())
    assert vars(links["edge:1"])["_prover"] is vars(links["edge:2"])["_prover"]
