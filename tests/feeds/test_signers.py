"""Signer sets as data, and the hashes and signatures below them."""

import pytest

from feeds.emulator.pyth_signing import PythSigner
from feeds.pyth.signers import ACCUMULATOR, GUARDIANS, PRODUCTION, majority, two_thirds
from feeds.signatures import address_of, ed25519_holds, keccak256, recover
from feeds.signed import SIGNED, decode_signed
from feeds.signers import SignerSet, SignerSets, read_sets
from oracle_hub.errors import ConfigError, DecodeError

ADDRESS = "41534bb176e461a3fb30479400f210549ecce638"
TOML = f"""
[[set]]
kind = "pyth.accumulator"
group = "26:ABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCDABCD"
index = 3
keys = ["0x{ADDRESS}"]
quorum = 1
from_s = 5
until_s = 1_790_000_000
proved = false
"""


def test_a_file_of_toml_or_json_gives_the_sets() -> None:
    expected = SignerSet(ACCUMULATOR, "26:" + "abcd" * 16, 3, (bytes.fromhex(ADDRESS),), 1, 5, 1_790_000_000, False)
    assert list(read_sets(TOML.encode(), "f.toml")) == [expected]
    assert list(read_sets(TOML.encode("utf-8-sig"), "f.toml")) == [expected]
    short = b'{"set": [{"kind": "edge.evm", "group": "", "keys": ["%s"], "quorum": 1}]}' % ADDRESS.encode()
    assert list(read_sets(b"\xef\xbb\xbf" + short, "f.json")) == list(read_sets(short, "f.json"))
    sets = read_sets(short, "f.json")
    assert sets.get("edge.evm", "", 0) == SignerSet("edge.evm", "", 0, (bytes.fromhex(ADDRESS),), 1)
    assert sets.knows("edge.evm", "") and not sets.knows("edge.svm", "")


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("quorum = 1", "quorum = 2", "signers f: set 1: quorum: 2 of 1 keys can't be"),
        ("quorum = 1", "quorum = 0", "signers f: set 1: quorum: 0 of 1 keys can't be"),
        ("quorum = 1", "qourum = 1", "signers f: Object contains unknown field `qourum` - at `$.set[0]`"),
        ("until_s = 1_790_000_000", "until_s = 5", "signers f: set 1: from_s and until_s: unix seconds in this order"),
        (ADDRESS, "41", "signers f: set 1: '0x41' is no key: 40 or 66 hex digits (secp256k1 address or key) or"),
        (f'["0x{ADDRESS}"]', "[]", "signers f: set 1: keys: 1 to 256 different ones are needed"),
        ("[[set]]", "[[set", "signers f: "),
        ("pyth.acc", "pyth.ac", "signers f: set 1: kind 'pyth.acumulator' is unknown; known: pyth.accumulator, "),
        ("26:ABCD", "26:", "signers f: set 1: group '26:abcd"),
        ("pyth.accumulator", "chainlink.report", "signers f: set 1: group '26:abcd"),
        (ADDRESS, "11" * 32, f"signers f: set 1: '0x{'11' * 32}' is no key of pyth.accumulator, group 26:"),
        (TOML, TOML + TOML, f"signer set pyth.accumulator 26:{'abcd' * 16}#3 is there twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(was: str, becomes: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_sets(TOML.replace(was, becomes).encode(), "f")
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


def test_a_digest_may_be_written_as_chains_write_it() -> None:
    digest = "00090d9e8d96765a0c49e03a6ae05c82e8f8de70cf179baa632f18313e54bd69"
    text = f'[[set]]\nkind = "chainlink.report"\ngroup = "0x{digest.upper()}"\nkeys = ["{ADDRESS}"]\nquorum = 1\n'
    assert read_sets(text.encode(), "f").knows("chainlink.report", digest)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^signers f: "):
        read_sets(b"\xff\xfe", "f")


def test_a_set_put_in_replaces_the_one_of_its_name() -> None:
    last = PRODUCTION.get(ACCUMULATOR, GUARDIANS, 7)
    assert last is not None and (len(last.keys), last.quorum, last.until_s) == (19, 13, None)
    other = SignerSet(ACCUMULATOR, GUARDIANS, 7, last.keys[:1], 1)
    sets = PRODUCTION.having(other)
    assert sets.get(ACCUMULATOR, GUARDIANS, 7) == other
    assert len(list(sets)) == len(list(PRODUCTION))
    assert PRODUCTION.get(ACCUMULATOR, GUARDIANS, 7) == last


def test_quorums() -> None:
    assert [(two_thirds(n), majority(n)) for n in (1, 3, 5, 6, 19)] == [(1, 1), (3, 2), (4, 3), (5, 4), (13, 10)]


def test_hashes_and_addresses_of_known_values() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    generator = bytes.fromhex(
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
    )
    assert address_of(generator).hex() == "7e5f4552091a69125d5dfcb7b8c2659029395bdf"  # the key 1


def test_signatures_that_nobody_can_have_made() -> None:
    assert recover(bytes(32), bytes(64), 0) is None
    assert recover(bytes(32), b"\x01" * 64, 4) is None
    assert recover(bytes(32), b"\x01" * 63, 0) is None
    assert recover(bytes(32), b"\xff" * 64, 1) is None
    assert not ed25519_holds(bytes(31), bytes(64), b"")
    assert not ed25519_holds(bytes(32), bytes(63), b"")
    assert not ed25519_holds(b"\xff" * 32, b"\xff" * 64, b"x")
    assert not ed25519_holds(bytes(32), bytes(64), b"x")  # a key of small order, for which anything would hold


def test_test_keys_are_the_same_in_each_run() -> None:
    assert list(PythSigner().sets) == list(PythSigner().sets) != list(PythSigner(seed=1).sets)


@pytest.mark.parametrize("kind", SIGNED)
def test_every_signed_kind_is_whole(kind: str) -> None:
    signed = SIGNED[kind]
    assert signed.summary and "production" in signed.signers
    with pytest.raises(DecodeError, match=f"^{kind}: offset 0: "):
        decode_signed(kind, b"")


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(DecodeError, match=r"^unknown kind of signed message x; known: chainlink\.report, edge\.evm, "):
        decode_signed("x", b"")


def test_sets_twice_under_one_name_are_refused() -> None:
    one = SignerSet("k", "g", 0, (bytes(20),), 1)
    with pytest.raises(ConfigError, match="signer set k g#0 is there twice"):
        SignerSets([one, one])
