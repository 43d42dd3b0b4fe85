"""``oracle-hub charts --hub``: what is no address of a hub is refused in one line."""

from pathlib import Path

import pytest

from oracle_hub.cli import main
from oracle_hub.cli.run import simulation_text
from oracle_hub.config import load_config


@pytest.mark.parametrize(
    ("hub", "said"),
    [
        ("nonsense", "is no address"),
        ("ftp://hub:1", "is no address"),
        ("http://", "is no address"),
        ("ws://127.0.0.1:99999", "is no address"),
        ("http://[::1", "is no address"),
        ("http://user:secret@127.0.0.1:1", "a user or password in an address is not taken"),
    ],
)
def test_what_is_no_address_of_a_hub_is_refused_in_one_line(
    hub: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["charts", "--hub", hub, "--port", "0", "--state", str(tmp_path)]) != 0
    told = capsys.readouterr().err
    assert told.startswith("oracle-hub charts: --hub: ") and said in told and told.count("\n") == 1
    assert "secret" not in told
    assert list(tmp_path.iterdir()) == []


def test_every_one_of_several_hubs_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ["--hub", "http://127.0.0.1:1"]
    assert main(["charts", *good, "--hub", "nonsense", "--port", "0", "--state", str(tmp_path)]) != 0
    assert "--hub: 'nonsense' is no address" in capsys.readouterr().err
    config = tmp_path / "hub.toml"
    config.write_text(simulation_text() + '[charts]\nhubs = ["http://127.0.0.1:1", "nonsense"]\n')
    assert main(["charts", str(config), "--port", "0", "--state", str(tmp_path / "state")]) != 0
    assert "charts.hubs: 'nonsense' is no address" in capsys.readouterr().err


def test_charts_need_no_sources_in_their_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "charts.toml"
    own.write_text('[charts]\nhubs = ["nonsense"]\nmax_rows = 7\n')
    config = load_config(own, base=simulation_text())
    assert (config.charts.hubs, config.charts.max_rows) == (("nonsense",), 7)
    assert main(["charts", str(own), "--state", str(tmp_path / "state")]) != 0
    assert "charts.hubs: 'nonsense' is no address" in capsys.readouterr().err
    assert main(["check", str(own)]) != 0
    assert "sources is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[chart]\nport = 1\n", "chart"),
        ("[charts]\nrows = 1\n", "charts: unknown key rows"),
        ('[feeds."SOL/USD"]\n[charts]\nport = 1\n', "sources is missing"),
    ],
)
def test_a_wrong_file_for_charts_is_refused_by_its_own_name(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "charts.toml"
    own.write_text(text)
    assert main(["charts", str(own), "--state", str(tmp_path / "state")]) != 0
    told = capsys.readouterr().err
    assert str(own) in told and said in told and told.count("\n") == 1


def test_the_store_is_named_as_the_other_commands_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From where the command was called, wherever ``--state`` is. A file that is no store shows which one is opened."""
    monkeypatch.chdir(tmp_path)
    held = tmp_path / "bars.sqlite"
    held.write_bytes(b"no store" * 100)
    named = ["--database", "bars.sqlite", "--state", str(tmp_path / "state"), "--port", "0"]
    assert main(["charts", "--hub", "http://127.0.0.1:1", *named]) != 0
    told = capsys.readouterr().err
    assert told.startswith(f"oracle-hub charts: {held}: damaged") and told.count("\n") == 1
    assert not (tmp_path / "state").exists()
