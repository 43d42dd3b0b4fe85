"""The command: table, JSON, pictures, and refusals in one line."""

from pathlib import Path
from xml.etree import ElementTree

import orjson
import pytest

from oracle_hub.cli import main
from tests.whatif.whatif_stage import write_history

GRID = "max_divergence_bps=10,50 policy=strict,quorum"


async def test_a_journal_is_told_as_table_json_and_picture(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    journal = tmp_path / "journal"
    write_history(journal, turns=60)
    picture, page = tmp_path / "plot.svg", tmp_path / "plot.html"
    assert main(["whatif", str(journal), "--grid", GRID, "--json", "--plot", str(picture)]) == 0
    told = orjson.loads(capsysbinary.readouterr().out)
    assert (journal / "journal.decoded").exists()
    labels = [one["label"] for one in told["settings"]]
    assert labels[0] == "as configured" and len(labels) == 5
    assert told["mismatches"] == 0
    configured = told["settings"][0]
    assert configured["all"]["live_us"] == sum(one["live_us"] for one in configured["feeds"].values())
    assert set(configured["feeds"]) == {"SOL/USD", "BTC/USD"}
    assert told["disagreement"][0][0] == 0
    assert told["disagreement"][1][2] == told["disagreement"][2][1]
    texts = [element.text for element in ElementTree.parse(picture).iter() if element.text]
    assert set(labels) <= set(texts)

    assert main(["whatif", str(journal), "--grid", GRID, "--feed", "SOL/USD", "--plot", str(page)]) == 0
    shown = capsysbinary.readouterr().out.decode()
    assert "SOL/USD" in shown and "BTC/USD" not in shown
    assert all(label in shown for label in labels)
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--plot", "a.png"], b"plots are written as .svg or .html"),
        (["--feed", "DOGE/USD"], b"--feed DOGE/USD: not in it; there are SOL/USD, BTC/USD"),
    ],
)
async def test_refusals_are_one_line(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], more: list[str], words: bytes
) -> None:
    journal = tmp_path / "journal"
    write_history(journal, turns=5)
    assert main(["whatif", str(journal), "--grid", GRID, *more]) == 1
    said = capsysbinary.readouterr().err
    assert words in said
    assert said.count(b"\n") == 1


def test_nothing_there_is_said(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["whatif", str(tmp_path / "none"), "--grid", GRID]) == 1
    assert b"no such file or directory" in capsysbinary.readouterr().err


def test_a_real_tape_of_a_crash(tmp_path: Path, tapes_dir: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    tape = tapes_dir / "oct10_2025_crash_1s_asof.csv"
    grid = "max_divergence_bps=10,100 max_age_s=5,60"
    assert main(["whatif", str(tape), "--grid", grid, "--cache", str(tmp_path), "--json"]) == 0
    told = orjson.loads(capsysbinary.readouterr().out)
    by_label = {one["label"]: one["all"] for one in told["settings"]}
    narrow, wide = by_label["max_divergence_bps=10 max_age_s=5"], by_label["max_divergence_bps=100 max_age_s=60"]
    assert narrow["availability"] < by_label["as configured"]["availability"] < wide["availability"] < 1
    assert narrow["longest_outage_us"] > 60_000_000
