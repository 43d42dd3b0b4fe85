"""What commands say when there is nothing to read, or nobody takes what they write: one line, and no success."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from oracle_hub.cli import main

MAIN = "import sys; from oracle_hub.cli import main; sys.exit(main())"


def called(output: int | IO[bytes], *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a process of its own, whose output goes there."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], stdout=output, stderr=subprocess.PIPE, timeout=60, check=False
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("arguments", [("incidents", "list"), ("incidents", "list", "--json")])
def test_a_reader_that_has_heard_enough_ends_it_without_a_word(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert called(writing, *arguments) == (141, "")
    finally:
        os.close(writing)


@pytest.mark.parametrize("arguments", [("incidents", "list"), ("incidents", "list", "--json")])
def test_a_full_disk_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        assert called(full, *arguments) == (1, "oracle-hub: No space left on device\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", "{journal}"),
        ("replay", "--batches", "{journal}"),
        ("parity", "--journal", "{journal}"),
        ("alerts", "history", "--journal", "{journal}"),
        ("rebuild-bars", "{journal}", "--database", "{journal}.db"),
    ],
)
def test_nothing_is_proved_by_an_empty_journal(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "empty.ohj"
    journal.touch()
    assert main([one.format(journal=journal) for one in arguments]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"oracle-hub {arguments[0]}: ") and told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [journal]  # no store of nothing


def test_an_export_makes_no_store_of_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "hub.toml"
    empty.touch()
    assert main(["export", "bars", "--database", str(empty)]) == 1
    assert "hub.toml: is empty" in capsys.readouterr().err
    assert empty.read_bytes() == b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--url", "nonsense"), "--url: 'nonsense' is no address; write http://host:port"),
        (("--count", "0"), "--count 0: at least one update"),
        (("--svg", "x.svg"), "--svg: goes with --count N"),
    ],
)
def test_what_tail_cannot_do(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_an_empty_tape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape = tmp_path / "tape.csv"
    tape.touch()
    assert main(["whatif", str(tape), "--grid", "max_divergence_bps=10"]) == 1
    assert "tape.csv: is empty; a tape begins with a header" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "behind"),
    [
        (("run", "--config", ""), "--config"),
        (("run", "--faults="), "--faults"),
        (("tail", "--url", "", "SOL/USD"), "--url"),
        (("check", ""), "check"),
        (("",), "COMMAND"),
        (("feeds", "add", "X/USD", "--references", "", "--config="), "--config"),
    ],
)
def test_an_empty_argument_is_not_taken_for_none(
    arguments: tuple[str, ...], behind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    told = f"oracle-hub: error: {behind} is followed by nothing (an empty argument); is a variable not set?\n"
    assert capsys.readouterr().err.endswith(told)


def test_the_name_of_a_file_makes_no_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "no\nsuch\x1b[2J.toml"]) == 1
    assert capsys.readouterr().err == "oracle-hub check: no\\nsuch\\x1b[2J.toml: no such file\n"


HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A shell starts what runs in its background deaf to Ctrl-C, the tests too."""


def test_an_interrupt_while_modules_are_imported_ends_it_without_a_word() -> None:
    """Raised amid the import of an extension, KeyboardInterrupt crashed the interpreter now and then."""
    interrupted = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'oracle_hub.cli.run':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", HEARD + interrupted + MAIN, "run", "--help"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_an_interrupt_afterwards_is_an_exit_status() -> None:
    interrupted = (
        "import os, signal\n"
        "import oracle_hub.cli.select as select\n"
        "select.run = lambda options: os.kill(os.getpid(), signal.SIGINT) or 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", HEARD + interrupted + MAIN, "select"], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
