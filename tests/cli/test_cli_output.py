"""What commands say when there is nothing to read, or nobody takes what they write: one line, and no success."""

import os
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
