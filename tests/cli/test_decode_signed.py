"""``decode`` of signed messages: output, exit status, and options that don't belong."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feeds.doves import PriceFeed
from feeds.edge.messages import EdgePrice
from feeds.emulator.edge_signing import EdgeSigner
from feeds.emulator.pyth_signing import PythSigner, simulated_signer
from feeds.emulator.report_signing import DonSigner
from feeds.pyth.accumulator import PriceMessage
from oracle_hub.cli import main

PRICE = PriceMessage(b"\x07" * 32, 17_270_134_218, 5, -8, 1_789_248_348, 1_789_248_347, 17_270_000_000, 6)
SIGNER = PythSigner()
(UPDATE,) = SIGNER.updates([PRICE], 1_789_248_348)
(SET,) = SIGNER.sets


@pytest.fixture
def signers(tmp_path: Path) -> Path:
    """A file with the set of the test keys, which ends in a second."""
    path = tmp_path / "signers.toml"
    keys = ", ".join(f'"{key.hex()}"' for key in SET.keys)
    path.write_text(
        f'[[set]]\nkind = "{SET.kind}"\ngroup = "{SET.group}"\nkeys = [{keys}]\nquorum = 3\nuntil_s = 1789248349\n'
    )
    return path


def decode(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], text: str, *arguments: object
) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, lines of standard output, and standard error."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    status = main(["decode", *map(str, arguments)])
    out, error = capfdbinary.readouterr()
    return status, [json.loads(line) for line in out.splitlines()], error.decode()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    return lambda text, *arguments: decode(monkeypatch, capfdbinary, text, *arguments)


def test_without_verify_it_says_nothing_of_signers(run: Any) -> None:
    status, (answer,), error = run(UPDATE.hex(), "pyth.accumulator")
    assert (status, error) == (0, "")
    assert answer["kind"] == "pyth.accumulator" and "verified" not in answer
    headline = {key: answer[key] for key in ("price", "expo", "publish_time_us", "conf", "feed_id", "slot")}
    assert headline == {
        "price": "17270134218",
        "expo": -8,
        "publish_time_us": 1_789_248_348_000_000,
        "conf": "5",
        "feed_id": "07" * 32,
        "slot": 1_789_248_348 * 20,
    }


def test_what_the_emulator_signs_is_verified_by_its_name_alone(run: Any) -> None:
    (update,) = simulated_signer().updates([PRICE], 1_789_248_348)
    assert run(update.hex(), "pyth.accumulator", "--verify", "--signers", "simulated")[0] == 0
    status, _, error = run(update.hex(), "pyth.accumulator", "--verify")
    assert status == 1 and "not verified" in error


def test_a_verified_update(run: Any, signers: Path) -> None:
    status, (answer,), error = run(UPDATE.hex(), "pyth.accumulator", "--verify", "--signers", signers)
    assert (status, error) == (0, "")
    verdict = {key: answer[key] for key in ("verified", "why", "quorum", "valid_signatures", "quorum_met", "mode")}
    assert verdict == {
        "verified": True,
        "why": None,
        "quorum": 3,
        "valid_signatures": 3,
        "quorum_met": True,
        "mode": "strict",
    }
    assert answer["signers"] == [{"index": n, "key": SET.keys[n].hex(), "known": True} for n in range(3)]
    assert answer["set_until_us"] == 1_789_248_349_000_000


@pytest.mark.parametrize("at", ["1789248349", "1789248349000", "1789248349000000", "2026-09-12T21:25:49Z"])
def test_a_set_that_is_over(run: Any, signers: Path, at: str) -> None:
    arguments = ("pyth.accumulator", "--verify", "--signers", signers, "--at", at)
    status, (answer,), error = run(UPDATE.hex(), *arguments)
    assert (status, answer["verified"], answer["why"], answer["quorum_met"]) == (1, False, "expired_set", True)
    assert error.startswith("oracle-hub decode: not verified: expired_set: set 26:") and error.count("\n") == 1
    assert answer["judged_at_us"] == 1_789_248_349_000_000


def test_strangers_and_nonsense_are_not_verified_and_say_why(run: Any) -> None:
    status, (answer,), error = run(UPDATE.hex(), "pyth.accumulator", "--verify", "--mode", "lenient")
    assert (status, answer["why"], answer["mode"]) == (1, "unknown_signer", "lenient")
    assert [signer["known"] for signer in answer["signers"]] == [False] * 3
    status, (answer,), error = run("ffff", "pyth.lazer", "--verify")
    assert (status, answer["verified"], answer["why"]) == (1, False, "malformed")
    assert error == (
        "oracle-hub decode: not verified: malformed: "
        "pyth.lazer: offset 2: expected a magic number of 4 bytes, found 2 bytes\n"
    )
    status, lines, error = run("ffff", "pyth.lazer")
    assert (status, lines) == (1, []) and error.startswith("oracle-hub decode: pyth.lazer: offset 2:")


def test_lines_go_on_after_what_is_refused(run: Any, signers: Path) -> None:
    changed = bytearray(UPDATE)
    changed[-2] ^= 1  # of the message
    text = f"{UPDATE.hex()}\nzz\n{changed.hex()}\nabcd\n"
    status, lines, error = run(text, "pyth.accumulator", "--lines", "--verify", "--signers", signers)
    assert (status, error) == (0, "")
    assert [line.get("verified") for line in lines] == [True, None, False, False]
    assert lines[1] == {"error": "standard input is neither base64 nor hex"}
    assert [line["why"] for line in lines[2:]] == ["bad_proof", "malformed"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["doves.price_feed", "--at", "5"], "--at: only with --verify"),
        (
            ["pyth.lazer", "--owner", "x"],
            "--owner: pyth.lazer is a signed message, which no program owns; use --verify",
        ),
        (["pyth.lazer", "--mode", "strict"], "--mode: only with --verify"),
        (
            ["pyth.lazer", "--verify", "--signers", "nowhere"],
            "--signers: nowhere: neither a known set (production, simulated, staging) nor a file: "
            "No such file or directory",
        ),
    ],
)
def test_options_that_do_not_belong_are_refused(run: Any, arguments: list[str], told: str) -> None:
    assert run("00", *arguments) == (1, [], f"oracle-hub decode: {told}\n")


def test_account_data_is_unsigned(run: Any) -> None:
    data = PriceFeed(b"SOL".ljust(32, b"\0"), bytes(33), 10**10, -8, 1_790_000_000).encode()
    status, (answer,), error = run(data.hex(), "doves.price_feed", "--verify", "--mode", "lenient")
    assert (status, answer["price"], answer["verified"], answer["why"]) == (1, "10000000000", False, "unsigned")
    detail = "doves.price_feed is account data, which holds no signature"
    assert error == f"oracle-hub decode: not verified: unsigned: {detail}\n"
    assert (answer["signers"], answer["quorum_met"], answer["mode"]) == ([], False, "lenient")


def test_account_data_that_is_none_is_malformed(run: Any) -> None:
    status, (answer,), error = run("00" * 200, "redstone.price", "--verify")
    assert (status, answer["verified"], answer["why"], answer["mode"]) == (1, False, "malformed", "strict")
    assert answer["detail"] == "redstone.price: offset 0: expected discriminator e871c1e785d1ce9a, found " + "00" * 8
    assert error == f"oracle-hub decode: not verified: malformed: {answer['detail']}\n"


@pytest.mark.parametrize("written", ["0X{}", "0x{}", "\ufeff{}", "\ufeff0x{}\r\n", " {}\n\n"])
def test_hex_as_editors_and_languages_write_it(run: Any, written: str) -> None:
    status, (answer,), error = run(written.format(UPDATE.hex().upper()), "pyth.accumulator")
    assert (status, error, answer["price"]) == (0, "", "17270134218")


def test_a_file_that_is_no_set_is_refused(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "signers.toml"
    path.write_text("[[set]]\n")
    status, _, error = run("00", "pyth.lazer", "--verify", "--signers", path)
    assert status == 1 and error.startswith(f"oracle-hub decode: signers {path}: Object missing required field")
    path.write_bytes(b"#" * (2**20 + 1))
    status, _, error = run("00", "pyth.lazer", "--verify", "--signers", path)
    assert status == 1 and error.endswith("larger than 1048576 bytes\n")


EDGE = EdgeSigner()
PRICES = [EdgePrice("SOLUSD", 11_500_840_348, -8, 1_790_000_000), EdgePrice("BTCUSD", 5, -8, 1_790_000_000)]
DON = DonSigner()
REPORT = DON.report(b"\0\3" + bytes(30), 1_790_000_000, {"price": 5 * 10**18, "bid": 10**18, "ask": 9 * 10**18})


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    """A file with the sets of Edge's and Chainlink's test keys."""
    path = tmp_path / "simulated.json"
    sets = [
        {"kind": one.kind, "group": one.group, "keys": ["0x" + key.hex() for key in one.keys], "quorum": one.quorum}
        for one in (*EDGE.sets, *DON.sets)
    ]
    path.write_text(json.dumps({"set": sets}))
    return path


def test_json_is_read_where_an_api_speaks_it(run: Any, simulated: Path) -> None:
    pretty = json.dumps(json.loads(EDGE.batch(PRICES)), indent=1)
    for text in (pretty, EDGE.batch(PRICES).hex(), EDGE.each(PRICES).decode()):
        status, (answer,), error = run(text, "edge.svm", "--verify", "--signers", simulated)
        assert (status, error, answer["verified"], len(answer["prices"])) == (0, "", True, 2)
    wrapped = json.dumps({"report": {"fullReport": "0x" + REPORT.hex()}})
    for text in (wrapped, REPORT.hex(), "0x" + REPORT.hex()):
        status, (answer,), error = run(text, "chainlink.report", "--verify", "--signers", simulated)
        assert (status, error, answer["verified"], answer["price"]) == (0, "", True, str(5 * 10**18))
    assert run("{}", "pyth.lazer")[2] == "oracle-hub decode: standard input is neither base64 nor hex\n"


def test_a_report_that_is_over(run: Any, simulated: Path) -> None:
    arguments = ("chainlink.report", "--verify", "--signers", simulated, "--at", "1792592001")
    status, (answer,), error = run(REPORT.hex(), *arguments)
    assert (status, answer["why"], answer["quorum_met"]) == (1, "expired", True)
    assert error == "oracle-hub decode: not verified: expired: the report expired at unix second 1792592000\n"


@pytest.mark.parametrize("kind", ["doves.price_feed", "pyth.accumulator", "edge.svm"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_raw_bytes_are_refused_in_words(kind: str, locale: str) -> None:
    given = b'{"prices": "\xff\xfe"}' if kind == "edge.svm" else bytes(range(256))
    command = [sys.executable, "-m", "oracle_hub.cli", "decode", kind]
    ran = subprocess.run(command, input=given, capture_output=True, env=os.environ | {"LC_ALL": locale}, check=False)
    assert ran.returncode == 1
    assert ran.stdout == b""
    assert re.fullmatch(rb"oracle-hub decode: [^\n]+\n", ran.stderr)


def test_lines_of_json(run: Any) -> None:
    changed = EDGE.single(PRICES[0]).replace(b"11500840348", b"11500840349").decode()
    lines = f"{EDGE.single(PRICES[0]).decode()}\n{{}}\n{changed}\n"
    status, answers, _ = run(lines, "edge.svm", "--lines", "--verify")
    assert status == 0 and [one["why"] for one in answers] == ["unknown_signer", "malformed", "unknown_signer"]
