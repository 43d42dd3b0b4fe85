"""From ``sources.NAME.verify`` to the table: what a configuration asks for is what prices must prove."""

import msgspec
import orjson
import pytest

from feeds.emulator.pyth_signing import PythSigner, simulated_signer
from feeds.pyth.accumulator import PriceMessage
from feeds.pyth.proving import Prover
from oracle_hub.app.lineup import build_lineup, journaled_endpoints
from oracle_hub.config import Config, canonical_text, parse_canonical, parse_config
from oracle_hub.core.source import Frame, Malformed, PriceUpdate
from oracle_hub.errors import ConfigError
from tests.app.rig import SIMULATION, hermes_event

NOW_S = 1_790_000_000
SIGNED = hermes_event({"SOL/USD": (15_000_000_000, NOW_S)})


def config(*lines: str, emulated: bool = True) -> Config:
    text = SIMULATION.replace('kind = "pyth.hermes"', "\n".join(['kind = "pyth.hermes"', *lines]))
    if not emulated:
        rpc = '[[solana.rpc]]\nname = "a"\nhttp_url = "http://h"\nws_url = "ws://h"\n'
        text = text.replace("[emulator]", rpc).replace('"pyth.hermes"', '"pyth.hermes"\nhosts = ["http://h"]')
    return parse_config(text, origin="test")


def outcome(settings: Config, frame: Frame) -> bool | str:
    """Whether the price was taken as verified; else why it was refused."""
    link = build_lineup(settings, journaled_endpoints(settings)).links["hermes:1"]
    link.connect(NOW_S * 1_000_000)
    (first, *_) = link.receive(frame, NOW_S * 1_000_000)
    if isinstance(first, Malformed):
        return first.reason.split(":")[1].strip()
    taken = [one for one in (first, *_) if isinstance(one, PriceUpdate)]
    return taken[0].verified


def test_test_keys_count_in_a_simulation_and_nowhere_else() -> None:
    assert outcome(config(), SIGNED) is True
    assert outcome(config(emulated=False), SIGNED) == "unknown_signer"
    assert outcome(config('signers = "staging"'), SIGNED) == "unknown_signer"
    assert outcome(config('signers = "production"'), SIGNED) == "unknown_signer"
    assert outcome(config('signers = "simulated"', emulated=False), SIGNED) is True


def test_strict_refuses_what_lenient_takes_and_off_never_looks() -> None:
    unsigned = Frame("sse", orjson.dumps(orjson.loads(SIGNED.data) | {"binary": {"encoding": "hex", "data": []}}))
    assert outcome(config(), unsigned) == "unsigned"
    assert outcome(config('verify = "lenient"'), unsigned) is False
    assert outcome(config('verify = "lenient"'), SIGNED) is True
    assert outcome(config('verify = "off"'), SIGNED) is False
    with pytest.raises(ConfigError, match=r"sources\.pyth\.verify"):
        config('verify = "maybe"')


def test_a_rotation_that_nobody_has_signed_is_refused_with_its_key() -> None:
    forged = PythSigner().vaa(bytes(28) + b"Core\x02" + bytes(6) + b"\x01\x01" + bytes(20), NOW_S, 1)
    with pytest.raises(ConfigError, match=r"^sources\.pyth\.rotations: VAA 1: rotation: not a guardian set upgrade"):
        outcome(config(f'rotations = ["{forged.hex()}"]'), SIGNED)


def test_all_hosts_of_a_source_share_what_was_proved() -> None:
    settings = config()
    links = build_lineup(settings, journaled_endpoints(settings)).links
    hosts = [link for name, link in links.items() if name.startswith("hermes:")]
    assert len(hosts) >= 2
    for link in hosts:
        link.connect(NOW_S * 1_000_000)
        assert any(isinstance(one, PriceUpdate) for one in link.receive(SIGNED, NOW_S * 1_000_000))
    provers = {id(vars(link)["_prover"]): vars(link)["_prover"] for link in hosts}
    (prover,) = provers.values()
    assert isinstance(prover, Prover) and prover.checked == 1


def test_a_journal_of_a_hub_that_did_not_verify_replays_as_it_was() -> None:
    text = canonical_text(config())
    raw = msgspec.json.decode(text)
    assert raw["sources"]["pyth"].pop("verify") == "strict"
    assert parse_canonical(text).sources["pyth"].verify == "strict"
    assert parse_canonical(msgspec.json.encode(raw).decode()).sources["pyth"].verify == "off"


def test_hosts_of_one_world_are_signed_alike() -> None:
    price = PriceMessage(bytes(32), 5, 1, -8, NOW_S, NOW_S, 5, 1)
    assert simulated_signer().updates([price], NOW_S, 9) == PythSigner().updates([price], NOW_S, 9)
