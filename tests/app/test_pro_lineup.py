"""``pyth.pro`` from a configuration to its links."""

from base64 import b64encode
from pathlib import Path

import orjson
import pytest

from feeds.emulator.pro_signing import ProSigner
from feeds.pyth.lazer import LazerFeed
from feeds.pyth.pro import ProLink
from oracle_hub.app.checkpoint import checkpoint, restore
from oracle_hub.app.engine import Engine
from oracle_hub.app.independence import dependent_verifiers
from oracle_hub.app.lineup import all_addresses, build_lineup, endpoints_of, journaled_endpoints
from oracle_hub.config import Config, canonical_text, load_config, parse_canonical, parse_config
from oracle_hub.core.source import Frame, Malformed, Open, PriceUpdate, Send
from oracle_hub.errors import ConfigError
from oracle_hub.journal.records import RunStart
from tests.app.rig import SIMULATION

NOW_US = 1_790_000_000_000_000
NAMES = ("price", "exponent", "feed_update_timestamp")
FEED = LazerFeed(6, NAMES, price=5 * 10**8, exponent=-8, feed_update_timestamp=NOW_US)
HOSTS = 'hosts = ["wss://a.example", "wss://b.example/v1/prices/stream"]'
KEY = 'api_key = "env:PRO_KEY"'
ROOT = Path(__file__).resolve().parents[2]


def frame(form: str = "solana") -> Frame:
    message = ProSigner().message("evm" if form == "evm" else "solana", NOW_US, 3, [FEED])
    data = {"encoding": "base64", "data": b64encode(message).decode()}
    return Frame("websocket", orjson.dumps({"type": "streamUpdated", "subscriptionId": 1, form: data}))


def config(*lines: str, emulated: bool = True) -> Config:
    pro = "\n".join(["[sources.chainlink]", 'kind = "pyth.pro"', *lines])
    text = SIMULATION.replace('[sources.chainlink]\nkind = "chainlink.store"\nmax_age_ms = 5000', pro, 1)
    if not emulated:
        rpc = '[[solana.rpc]]\nname = "a"\nhttp_url = "http://h"\nws_url = "ws://h"\n'
        text = text.replace("[emulator]", rpc).replace('"pyth.hermes"', '"pyth.hermes"\nhosts = ["http://h"]')
    return parse_config(text, origin="test")


def outcome(settings: Config, form: str = "solana") -> bool | str:
    """Whether the price was taken as verified; else why it was refused."""
    link = build_lineup(settings, journaled_endpoints(settings)).links["pro:1"]
    link.connect(NOW_US)
    output = link.receive(frame(form), NOW_US)
    (first,) = [one for one in output if isinstance(one, PriceUpdate | Malformed)]
    return first.verified if isinstance(first, PriceUpdate) else first.reason.split(":")[1].strip()


def test_who_may_sign() -> None:
    key, address = ProSigner().public_key.hex(), ProSigner().address.hex()
    assert outcome(config()) is True
    assert outcome(config('signers = "production"')) == "unknown_signer"
    assert outcome(config('verify = "off"')) is False
    assert outcome(config('signers = "production"', 'verify = "lenient"')) is False
    assert outcome(config(f'signer_keys = ["0x{key}"]', emulated=False)) is True
    assert outcome(config(f'signer_keys = ["{"00" * 32}", "{key}"]', emulated=False)) is True
    assert outcome(config(f'signer_keys = ["{"00" * 32}"]', emulated=False)) == "unknown_signer"
    assert outcome(config('envelope = "evm"', f'signer_keys = ["{address}"]', emulated=False), "evm") is True
    assert outcome(config(emulated=False)) == "unknown_signer"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((f'signer_keys = ["{"00" * 20}"]',), r"signer_keys: pyth\.pro wants keys of 64 hex digits"),
        (('envelope = "leEcdsa"', f'signer_keys = ["{"00" * 32}"]'), r"pyth\.pro wants keys of 40 hex digits"),
        (('signers = "staging"', f'signer_keys = ["{"00" * 32}"]'), "and in place of signers"),
        (('channel = "fixed_rate@1ms"',), r"sources\.chainlink\.channel"),
        (('envelope = "leUnsigned"',), r"sources\.chainlink\.envelope"),
        (('api_key = "secret"',), 'api_key: write "env:NAME"'),
    ],
)
def test_what_is_refused(lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(*lines)


def test_numbers_of_feeds() -> None:
    assert all_addresses(config())["chainlink"] == {"SOL/USD": "6", "BTC/USD": "1"}
    own = SIMULATION.replace('"chainlink.store"\nmax_age_ms = 5000', '"pyth.pro"')
    given = own.replace('[feeds."SOL/USD"]', '[feeds."SOL/USD"]\naccounts.chainlink = "%s"')
    assert all_addresses(parse_config(given % "112", origin="test"))["chainlink"]["SOL/USD"] == "112"
    for wrong in ("SOL", "-1", "06", "1" * 12):
        with pytest.raises(ConfigError, match=f"accounts.chainlink: '{wrong}' is no number of a feed at Pyth Pro"):
            all_addresses(parse_config(given % wrong, origin="test"))


def test_hosts_and_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for lines in ((HOSTS,), (KEY,)):
        with pytest.raises(ConfigError, match=r"^sources\.chainlink: Pyth Pro needs hosts \(websockets\) and api_key"):
            endpoints_of(config(*lines, emulated=False))
    settings = config(HOSTS, KEY, 'channel = "real_time"', 'envelope = "leEcdsa"', emulated=False)
    with pytest.raises(ConfigError, match="environment variable PRO_KEY is not set"):
        endpoints_of(settings)
    monkeypatch.setenv("PRO_KEY", "top-secret")
    endpoints = endpoints_of(settings)
    links = build_lineup(settings, endpoints).links
    assert [name for name, link in links.items() if isinstance(link, ProLink)] == ["pro:1", "pro:2"]
    first, second = (links[name].connect(NOW_US) for name in ("pro:1", "pro:2"))
    assert first[0] == Open("websocket", "wss://a.example/v1/stream", {"Authorization": "Bearer top-secret"})
    assert second[0] == Open("websocket", "wss://b.example/v1/prices/stream", {"Authorization": "Bearer top-secret"})
    assert isinstance(first[1], Send)
    asked = orjson.loads(first[1].text)
    assert (asked["channel"], asked["formats"], asked["priceFeedIds"]) == ("real_time", ["leEcdsa"], [6, 1])
    assert len({id(vars(links[name])["_prover"]) for name in ("pro:1", "pro:2")}) == 1
    assert "secret" not in repr(endpoints) + repr(links["pro:1"]) and "top-secret" not in canonical_text(settings)


def test_the_documented_example(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    (example,) = [block for block in page.split("```") if block.startswith("toml\n[sources.lazer]")]
    roles = '[roles]\nprimary = "lazer"\nverifiers = ["a", "b"]\n'
    roles += '[sources.a]\nkind = "edge.rest"\nhosts = ["http://a"]\n[sources.b]\nkind = "pyth.hermes"\n'
    text = roles + 'hosts = ["http://b"]\n' + example.removeprefix("toml\n") + '[feeds."SOL/USD"]\n'
    settings = parse_config(text, origin="test")
    monkeypatch.setenv("PYTH_PRO_KEY", "k")
    links = build_lineup(settings, endpoints_of(settings)).links
    openings = [link.connect(NOW_US)[0] for link in links.values() if isinstance(link, ProLink)]
    assert [one.url for one in openings if isinstance(one, Open)] == [
        f"wss://pyth-lazer-{number}.dourolabs.app/v1/stream" for number in range(3)
    ]


def test_a_replay_has_the_same_links() -> None:
    for settings, count in ((config(HOSTS, KEY, emulated=False), 2), (config(), 3)):
        again = parse_canonical(canonical_text(settings))
        links = build_lineup(again, journaled_endpoints(again)).links
        assert sum(isinstance(link, ProLink) for link in links.values()) == count
        assert all(vars(link).keys() >= link.CONFIGURED for link in links.values())


def test_a_checkpoint_holds_what_a_link_knows_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRO_KEY", "top-secret")
    settings = config(HOSTS, KEY, f'signer_keys = ["{ProSigner().public_key.hex()}"]', emulated=False)
    engine = Engine(build_lineup(settings, endpoints_of(settings)), epoch=1, started_us=NOW_US, warmup_us=0)
    engine.lineup.links["pro:1"].connect(NOW_US)
    engine.frame("pro:1", frame(), NOW_US)
    engine.step(NOW_US)
    written = checkpoint(engine, RunStart("test", 1, "0.0.9", True, 0, 0), NOW_US)
    assert b"top-secret" not in written.state
    lineup = build_lineup(settings, journaled_endpoints(settings))
    restored = restore(written, lineup).lineup.links["pro:1"]
    before = engine.lineup.links["pro:1"]
    for link in (before, restored):
        assert [type(one).__name__ for one in link.receive(frame(), NOW_US + 1)] == ["Unchanged"]
    assert restored.next_deadline() == before.next_deadline()


def test_pyth_twice_is_one_witness() -> None:
    told = dependent_verifiers(config(), all_addresses(config()))
    assert told["SOL/USD"] == (
        "chainlink carries Pyth Lazer's price, as Pyth Lazer's leg of the aggregate that doves reads does: "
        "in part they are one witness",
        "chainlink and pyth both carry Pyth's price: one oracle's error would pass as two witnesses",
    )


def test_one_number_at_two_oracles_is_not_one_feed() -> None:
    text = '[roles]\nprimary = "pro"\nverifiers = ["edge", "pyth"]\n[sources.pro]\nkind = "pyth.pro"\n'
    text += '[sources.edge]\nkind = "edge.rest"\n[sources.pyth]\nkind = "pyth.hermes"\n[emulator]\n'
    settings = parse_config(text + '[feeds."SOL/USD"]\naccounts.edge = "6"\n', origin="test")
    assert all_addresses(settings)["edge"] == {"SOL/USD": "6"}


def test_the_simulation_of_signed_sources_uses_every_kind_of_them() -> None:
    settings = load_config(ROOT / "deploy" / "simulate-signed.toml")
    links = build_lineup(settings, journaled_endpoints(settings)).links
    kinds = {name.partition(":")[0] for name in links}
    assert kinds == {"edge", "streams", "pro", "hermes", "solana"}
