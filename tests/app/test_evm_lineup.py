"""EVM sources of a configuration: addresses, ages, chains and sequencers, and what is refused in one line."""

import subprocess
import sys

import pytest
import zstandard

from feeds.chainlink.evm import EvmLink
from feeds.emulator.evm import EvmNode
from feeds.evm_addresses import PROXIES, SEQUENCERS
from oracle_hub.app.capture import digest
from oracle_hub.app.checkpoint import checkpoint, restore
from oracle_hub.app.engine import Engine
from oracle_hub.app.hosted import Host
from oracle_hub.app.lineup import build_lineup, catalog_of, endpoints_of, lineup_from_text
from oracle_hub.config import parse_config
from oracle_hub.core.source import Frame, Send
from oracle_hub.errors import ConfigError
from oracle_hub.journal.records import RunStart

S = 1_000_000
NOW_S = 1_790_000_000

CONFIG = """
[roles]
primary = "pyth"
verifiers = ["evm", "edge"]
[sources.pyth]
kind = "pyth.hermes"
hosts = ["https://hermes.example"]
[sources.edge]
kind = "edge.rest"
hosts = ["https://edge.example"]
[sources.evm]
kind = "chainlink.evm"
hosts = ["wss://a.example", "env:EVM_B"]
chain_id = 42_161
[feeds."SOL/USD"]
[feeds."ETH/USD"]
"""


def links(text: str) -> list[EvmLink]:
    config = parse_config(text, origin="hub.toml")
    lineup = build_lineup(config, endpoints_of(config))
    return [link for link in lineup.links.values() if isinstance(link, EvmLink)]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVM_B", "wss://b.example/v2/top-secret-key")


def test_each_host_is_a_link_and_no_key_is_kept() -> None:
    found = links(CONFIG)
    assert [link.name for link in found] == ["evm:1", "evm:2"]
    assert "top-secret" not in repr(found)
    config = parse_config(CONFIG, origin="hub.toml")
    lineup = build_lineup(config, endpoints_of(config))
    assert "top-secret" not in lineup.config_text
    assert lineup.addresses["evm"] == {feed: PROXIES[42_161][feed] for feed in ("SOL/USD", "ETH/USD")}
    assert list(lineup_from_text(lineup.config_text).links) == list(lineup.links)
    assert "top" not in repr(Host("wss://top"))


def test_the_age_is_the_feeds_heartbeat_unless_it_is_written() -> None:
    def ages_s(text: str) -> list[int]:
        catalog = catalog_of(parse_config(text, origin="hub.toml"))
        return [spec.max_age_us["evm"] // 1_000_000 for spec in catalog.feeds]

    assert ages_s(CONFIG) == [3_660, 3_660]  # of Arbitrum none is known
    assert ages_s(CONFIG.replace("42_161", "1")) == [86_460, 3_660]
    assert ages_s(CONFIG.replace("42_161", "8_453")) == [3_660, 1_260]
    assert ages_s(CONFIG.replace("42_161", "1\nmax_age_ms = 5_000")) == [5, 5]
    assert ages_s(CONFIG + "max_age_ms = { evm = 7_000 }\n") == [3_660, 7]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("chain_id = 42_161", "", "sources.evm.chain_id: write what the chain answers to eth_chainId"),
        ('hosts = ["wss://a.example", "env:EVM_B"]', "", "sources.evm.hosts: none given"),
        ('"wss://a.example"', '"https://a.example"', "sources.evm.hosts: a URL beginning with ws:// or wss://"),
        ('"wss://a.example"', '"wss://a.example/v2/0123456789abcdef"', "seems to hold a key"),
        ("42_161", "10", "feeds.SOL/USD.accounts.evm: SOL/USD is no known asset"),
        ("42_161", '42_161\nsequencer = "0xabc"', "source evm, sequencer: '0xabc' is no address"),
        ('[feeds."ETH/USD"]', '[feeds."ETH/USD"]\naccounts = { evm = "nowhere" }', "is no address of an EVM chain"),
        (
            '[feeds."ETH/USD"]',
            f'[feeds."ETH/USD"]\naccounts = {{ evm = "{PROXIES[1]["ETH/USD"].replace("f", "F")}" }}',
            "feeds.ETH/USD.accounts.evm: .* fails the checksum of EIP-55",
        ),
        (
            '[feeds."ETH/USD"]',
            f'[feeds."ETH/USD"]\naccounts = {{ evm = "{PROXIES[42_161]["SOL/USD"].lower()}" }}',
            "have one proxy",
        ),
        ('primary = "pyth"\nverifiers = ["evm"', 'primary = "evm"\nverifiers = ["pyth"', "slow push account"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(old: str, new: str, why: str) -> None:
    assert old in CONFIG
    with pytest.raises(ConfigError, match=why) as refused:
        links(CONFIG.replace(old, new))
    assert "\n" not in str(refused.value) and "0123456789abcdef" not in str(refused.value)


def test_what_a_link_knows_of_its_chain_is_in_a_checkpoint() -> None:
    config = parse_config(CONFIG, origin="hub.toml")
    lineup = build_lineup(config, endpoints_of(config))
    engine = Engine(lineup, epoch=1, started_us=NOW_S * S, warmup_us=0)
    node, waiting = EvmNode(42_161, NOW_S - 9), [*engine.connect("evm:1", NOW_S * S)]
    for feed in ("SOL/USD", "ETH/USD"):
        node.add(PROXIES[42_161][feed], feed)
    node.add(SEQUENCERS[42_161], "uptime", 0)
    node.transmit(SEQUENCERS[42_161], 0, NOW_S - 9_000, NOW_S - 9)
    node.transmit(PROXIES[42_161]["SOL/USD"], 115 * 10**8, NOW_S - 9, NOW_S - 8)
    while waiting:
        effect = waiting.pop(0)
        for text in node.answer(1, effect.text) if isinstance(effect, Send) else ():
            waiting += engine.frame("evm:1", Frame("websocket", text.encode()), NOW_S * S)
    for _, text in node.transmit(PROXIES[42_161]["SOL/USD"], 116 * 10**8, NOW_S - 3, NOW_S):
        engine.frame("evm:1", Frame("websocket", text.encode()), NOW_S * S)
    engine.step(NOW_S * S)
    written = checkpoint(engine, RunStart("test", 1, "0.0.9", True, 0, 0), NOW_S * S)
    assert b"top-secret" not in zstandard.decompress(written.state, 2**20)
    restored = restore(written, lineup_from_text(lineup.config_text))
    assert digest(restored) == digest(engine)
    (again,) = node.transmit(PROXIES[42_161]["SOL/USD"], 117 * 10**8, NOW_S + 3, NOW_S + 6)[-1:]
    outcomes = []
    for one in (engine, restored):
        one.frame("evm:1", Frame("websocket", again[1].encode()), (NOW_S + 7) * S)
        cell = one.hub.table.cell_of("evm", "SOL/USD")
        assert cell is not None
        outcomes.append((one.hub.table.held(cell), dict(one.malformed)))
    held = outcomes[0][0]
    assert outcomes[0] == outcomes[1] and held is not None and (held.mantissa, held.slot) == (117 * 10**8, 5)


def test_without_the_extra_the_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['eth_abi'] = None; import feeds.chainlink.evm"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "pip install 'oracle-hub[evm]'" in ended.stderr.splitlines()[-1]


def test_who_reads_no_evm_chain_does_not_load_its_library() -> None:
    code = "import sys; import oracle_hub.app.lineup; sys.exit('eth_abi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
