"""``chainlink.streams`` from a configuration to its links."""

import pytest

from feeds.addresses import ASSETS
from feeds.chainlink.data_streams import StreamsLink
from feeds.emulator.report_signing import DonSigner
from oracle_hub.app.lineup import all_addresses, build_lineup, catalog_of, endpoints_of, journaled_endpoints
from oracle_hub.config import Config, canonical_text, parse_canonical, parse_config, redistribute_of
from oracle_hub.core.catalog import Redistribute
from oracle_hub.core.source import Frame, Malformed, Open, PriceUpdate
from oracle_hub.errors import ConfigError
from tests.app.rig import SIMULATION

NOW_S = 1_790_000_000
SOL = ASSETS["SOL/USD"].data_streams_id
FULL = 'redistribute = "full"'
PLACES = (
    'hosts = ["wss://a.example", "wss://b.example"]',
    'rest_url = "https://api.example"',
    'origins = ["001", "002"]',
    'api_key = "env:DS_KEY"',
    'api_secret = "env:DS_SECRET"',
)
FRAME = Frame(
    "websocket",
    b'{"fullReport": "0x%s"}'
    % DonSigner()
    .report(bytes.fromhex(SOL), NOW_S, {"price": 5 * 10**18, "bid": 5 * 10**18, "ask": 5 * 10**18})
    .hex()
    .encode(),
)


def config(*lines: str, emulated: bool = True) -> Config:
    streams = "\n".join(["[sources.chainlink]", 'kind = "chainlink.streams"', *lines])
    text = SIMULATION.replace('[sources.chainlink]\nkind = "chainlink.store"\nmax_age_ms = 5000', streams, 1)
    if not emulated:
        rpc = '[[solana.rpc]]\nname = "a"\nhttp_url = "http://h"\nws_url = "ws://h"\n'
        text = text.replace("[emulator]", rpc).replace('"pyth.hermes"', '"pyth.hermes"\nhosts = ["http://h"]')
    return parse_config(text, origin="test")


def outcome(settings: Config) -> bool | str:
    """Whether the price was taken as verified; else why it was refused."""
    link = build_lineup(settings, journaled_endpoints(settings)).links["streams:1"]
    link.connect(NOW_S * 1_000_000)
    (first, *_) = link.receive(FRAME, NOW_S * 1_000_000)
    if isinstance(first, Malformed):
        return first.reason.split(":")[1].strip()
    assert isinstance(first, PriceUpdate)
    return first.verified


def test_its_prices_stay_inside_unless_the_operator_says_otherwise() -> None:
    for lines, emulated, told in (
        ((), True, Redistribute.FULL),  # simulated prices are nobody's
        (('redistribute = "no"',), True, Redistribute.NO),
        ((), False, Redistribute.NO),
        (('redistribute = "chosen"',), False, Redistribute.CHOSEN),
        ((FULL,), False, Redistribute.FULL),
    ):
        settings = config(*lines, emulated=emulated)
        assert redistribute_of(settings, "chainlink") is told
        assert catalog_of(settings).feeds[0].redistribute.get("chainlink", Redistribute.FULL) is told
    with pytest.raises(
        ConfigError, match=r"^test: sources\.chainlink\.redistribute: maybe is none of no, chosen, full"
    ):
        config('redistribute = "maybe"')


def test_a_primary_must_be_told() -> None:
    text = SIMULATION.replace("[sources.doves]", '[sources.doves]\nredistribute = "no"')
    with pytest.raises(ConfigError, match=r"^test: feeds\.SOL/USD\.primary: the licence of doves forbids"):
        parse_config(text, origin="test")


def test_addresses() -> None:
    assert all_addresses(config(FULL))["chainlink"]["SOL/USD"] == SOL


def test_who_may_sign() -> None:
    keys = [key.hex() for one in DonSigner().sets for key in one.keys]
    listed = f"signer_keys = {keys}"
    assert outcome(config(FULL)) is True
    assert outcome(config(FULL, 'signers = "production"')) == "unknown_signer"
    assert outcome(config(FULL, 'verify = "off"')) is False
    assert outcome(config(FULL, listed, "signer_quorum = 2", emulated=False)) is True
    assert outcome(config(FULL, listed, "signer_quorum = 3", emulated=False)) == "no_quorum"
    for lines in ((listed,), ("signer_quorum = 2",), (listed, "signer_quorum = 5")):
        with pytest.raises(ConfigError, match=r"sources\.chainlink\.signer_quorum"):
            config(FULL, *lines)
    with pytest.raises(ConfigError, match=r"chainlink\.streams wants keys of 40 hex digits"):
        config(FULL, f'signer_keys = ["02{"00" * 32}"]', "signer_quorum = 1")


def test_hosts_and_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^sources\.chainlink: Data Streams needs hosts \(websockets\), rest_url"):
        endpoints_of(config(FULL, emulated=False))
    with pytest.raises(ConfigError, match='api_secret: write "env:NAME"'):
        config(FULL, 'api_secret = "x"')
    settings = config(FULL, *PLACES, emulated=False)
    monkeypatch.setenv("DS_KEY", "the-key")
    with pytest.raises(ConfigError, match="environment variable DS_SECRET is not set"):
        endpoints_of(settings)
    monkeypatch.setenv("DS_SECRET", "top-secret")
    endpoints = endpoints_of(settings)
    links = build_lineup(settings, endpoints).links
    names = [name for name, link in links.items() if isinstance(link, StreamsLink)]
    assert names == ["streams:1", "streams:2", "streams:3", "streams:4"]
    (opening, *_) = links["streams:4"].connect(NOW_S * 1_000_000)
    assert isinstance(opening, Open) and opening.url.startswith("wss://b.example/api/v1/ws?feedIDs=0x")
    assert opening.headers["X-Cll-Origin"] == "002" and opening.headers["Authorization"] == "the-key"
    shared = {id(vars(links[name])["_prover"]) for name in names}
    assert len(shared) == 1
    assert "secret" not in repr(endpoints) + repr(links["streams:1"]) and "top-secret" not in canonical_text(settings)


def test_a_replay_has_the_same_links() -> None:
    settings = config(FULL, *PLACES, emulated=False)
    again = parse_canonical(canonical_text(settings))
    links = build_lineup(again, journaled_endpoints(again)).links
    assert sum(isinstance(link, StreamsLink) for link in links.values()) == 4
    assert all(vars(link).keys() >= link.CONFIGURED for link in links.values())
