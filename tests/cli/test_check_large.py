"""``oracle-hub check`` of a catalogue of thousands stays something that people can read."""

import json
from pathlib import Path

import pytest

from benchmarks.catalogue import made_asset, made_config
from oracle_hub.cli import main


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.toml"
    text = made_config(2_000, str(tmp_path / "var"), "127.0.0.1:1", hermes=True)
    text = text.replace("[hub]", '[feeds."SOL/USD"]\n[feeds."BTC/USD"]\npolicy = "quorum"\n[hub]')
    path.write_text(text, encoding="utf-8")
    return path


def test_it_is_summed_up(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(large)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 60
    assert "2,001" in out and "F0000/USD … SOL/USD" in out and "2,002 feeds; --feed FEED shows one" in out
    assert "primary lazer (doves.lazer, 60 s, told: full)" in out and "quorum" in out
    assert "solana.rpc: one endpoint only" in out
    assert made_asset(7).lazer not in out


def test_one_feed_is_shown_whole(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(large), "--feed", "F0007/USD"]) == 0
    out = capsys.readouterr().out
    assert made_asset(7).lazer in out and "F0008/USD" not in out
    assert main(["check", str(large), "--feed", "F0007/USD", "--feed", "SOL/USD", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["feeds"]) == ["F0007/USD", "SOL/USD"]
    assert main(["check", str(large), "--feed", "F0007/UST"]) == 1
    err = capsys.readouterr().err
    assert err == "oracle-hub check: --feed F0007/UST: not in the configuration; did you mean F0007/USD?\n"


def test_lines_about_feeds_come_last_and_are_counted(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = large.read_text(encoding="utf-8").replace('"doves.lazer"', '"doves.edge"')
    large.write_text(text, encoding="utf-8")
    assert main(["check", str(large)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert lines[0].startswith("warning: solana.rpc: one endpoint only")
    assert len(lines) == 20 and lines[1].startswith("warning: sources.pyth.verify: off")
    assert lines[2].startswith("warning: feeds.F0000/USD.accounts.lazer")
