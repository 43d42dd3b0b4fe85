"""Names of signers become keys: in the journal's text, in the hash, and in what a replay proves by."""

from pathlib import Path

import msgspec
import pytest

from feeds.pyth.signers import ACCUMULATOR, GUARDIANS, PRODUCTION
from oracle_hub.app.lineup import build_lineup, journaled_endpoints, lineup_from_text
from oracle_hub.app.trust import SIGNED_KINDS, settled, trusted
from oracle_hub.cli.check import examine
from oracle_hub.config import KINDS, Config, canonical_text, config_hash, parse_canonical, parse_config
from oracle_hub.errors import ConfigError
from tests.app.rig import SIMULATION

REAL = SIMULATION.replace("[emulator]", '[[solana.rpc]]\nname = "a"\nhttp_url = "http://h"\nws_url = "ws://h"\n')
EMITTER = "26:" + "aa" * 32
SET = '[[set]]\nkind = "pyth.accumulator"\ngroup = "{group}"\nkeys = ["{key}"]\nquorum = 1\nuntil_s = 1_800_000_000\n'
KEY, OTHER = "41" * 20, "42" * 20


def config(*pyth: str) -> Config:
    lines = "\n".join(['"pyth.hermes"', 'hosts = ["http://h"]', *pyth])
    return parse_config(REAL.replace('"pyth.hermes"', lines), origin="test")


def test_known_names_are_written_out_by_key() -> None:
    assert set(KINDS) > SIGNED_KINDS
    found = settled(config())
    pyth = found.sources["pyth"]
    assert list(trusted(pyth)) == [one for one in PRODUCTION if one.kind == ACCUMULATOR]
    assert {one.group for one in pyth.trusted} > {GUARDIANS}
    assert {name for name, source in found.sources.items() if source.trusted} == {"pyth"}
    assert settled(found) == found
    assert settled(config('verify = "off"')).sources["pyth"].trusted == ()
    assert trusted(settled(config('signers = "simulated"')).sources["pyth"]).knows(ACCUMULATOR, GUARDIANS) is False


def test_a_further_way_has_signers_of_its_own() -> None:
    way = '[sources.pyth.ways.pro]\nkind = "pyth.pro"\nhosts = ["wss://h"]\napi_key = "env:K"\n'
    found = settled(
        parse_config(REAL.replace('"pyth.hermes"', '"pyth.hermes"\nhosts = ["http://h"]') + way, origin="t")
    )
    assert {one.kind for one in found.sources["pyth"].ways["pro"].trusted} == {"pyth.lazer"}


def test_a_replay_proves_by_the_keys_of_then(tmp_path: Path) -> None:
    file = tmp_path / "signers.toml"
    file.write_text(SET.format(group=EMITTER, key=KEY))
    settings = config(f'signers = "{file}"')
    then = build_lineup(settings, journaled_endpoints(settings))
    file.write_text(SET.format(group=EMITTER, key=OTHER))
    now = build_lineup(settings, journaled_endpoints(settings), then)
    assert now.links is not then.links and now.config_hash != then.config_hash
    assert build_lineup(settings, journaled_endpoints(settings), now).links is now.links
    file.unlink()
    again = lineup_from_text(then.config_text)
    assert again.config_hash == then.config_hash
    (one,) = trusted(again.config.sources["pyth"])
    assert (one.keys, one.until_s, one.proved) == ((bytes.fromhex(KEY),), 1_800_000_000, True)
    before = parse_canonical(canonical_text(config()))  # a journal from before the keys were in it
    assert trusted(build_lineup(before, journaled_endpoints(before)).config.sources["pyth"]).knows(
        ACCUMULATOR, GUARDIANS
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            'signers = "nobody"',
            "sources.pyth.signers: nobody: neither a known set (production, simulated, staging) nor",
        ),
        ('signers = "/"', "sources.pyth.signers: /: neither a known set"),
        ('signers = "FILE"', "names nobody for pyth.accumulator, which is what pyth sends"),
    ],
)
def test_what_is_refused(lines: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "lazer.toml").write_text(SET.format(group="secp256k1", key=KEY).replace("accumulator", "lazer"))
    with pytest.raises(ConfigError) as caught:
        settled(config(lines.replace("FILE", str(tmp_path / "lazer.toml"))))
    assert words in str(caught.value)


def test_keys_cannot_be_written_in_their_place() -> None:
    one = 'trusted = [{kind = "k", group = "g", index = 0, keys = [], quorum = 0, from_s = 0, proved = true}]'
    with pytest.raises(ConfigError, match=r"sources\.pyth\.trusted"):
        config(one)


def test_check_shows_the_hash_of_the_keys_and_warns_of_what_anybody_can_sign() -> None:
    findings = msgspec.convert(examine(config('signers = "simulated"', 'verify = "lenient"')), dict[str, object])
    assert findings["config_hash"] == config_hash(settled(config('signers = "simulated"', 'verify = "lenient"')))
    warnings = findings["warnings"]
    assert isinstance(warnings, list)
    assert "sources.pyth.signers: simulated; anybody can sign with the test keys" in warnings
    assert "sources.pyth.verify: lenient; prices that nobody signed may be chosen" in warnings
    plain = examine(config())["warnings"]
    assert isinstance(plain, list) and not [line for line in plain if "sources.pyth" in line]
