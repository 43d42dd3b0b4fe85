"""``oracle-hub incidents`` as people and programs see it."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import orjson
import pytest

from oracle_hub.cli import main
from oracle_hub.cli.timeplots import Band, Line, Mark, Plot, lines_svg
from oracle_hub.incidents.library import library, tape_library

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
[hub]
policy = "quorum"
max_divergence_bps = 500
[sources.doves]
kind = "doves.aggregate"
[sources.chainlink]
kind = "doves.chainlink"
max_age_ms = 30000
[sources.pyth]
kind = "pyth.legacy"
[roles]
primary = "doves"
verifiers = ["chainlink", "pyth"]
[feeds."SOL/USD"]
[feeds."ETH/USD"]
policy = "strict"
max_divergence_bps = 50
"""


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["incidents", *arguments]) == 0
    return capsys.readouterr().out


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    listed = printed(capsys, "list")
    assert all(name in listed for name in library()) and "a drill" in listed
    assert [one["id"] for one in orjson.loads(printed(capsys, "list", "--json"))] == [*library(), *tape_library()]
    shown = printed(capsys, "show", "pyth-2021")
    assert (
        "100 s: 5402 ± 20000" in shown and "published [0]" in shown and "role played by Pyth's own aggregate" in shown
    )
    assert orjson.loads(printed(capsys, "show", "luna-min", "--json"))["sees"]["strict"].startswith("None from")


def test_run_one_under_both_policies(capsys: pytest.CaptureFixture[str]) -> None:
    strict, quorum = orjson.loads(printed(capsys, "run", "drill-lost-verifier", "--json"))
    assert strict["feeds"][0]["available_percent"] == "67.87" and quorum["feeds"][0]["available_percent"] == "97.22"
    assert strict["alerts"]["critical"] == 1 and strict["policy"] == {"SOL/USD": "strict"}
    told = printed(capsys, "run", "drill-lost-verifier", "--policy", "quorum")
    assert "97.22" in told and "67.87" not in told and "firing    fallback_active SOL/USD warning" in told


def test_run_with_a_configuration_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text(CONFIG, encoding="utf-8")
    ours = ["--config", str(config), "--json"]
    (guard,) = orjson.loads(printed(capsys, "run", "aave-capo", *ours))
    assert guard["policy"] == {"wstETH/stETH": "quorum"}
    assert guard["feeds"][0]["available_percent"] == "100.00"  # 285 bps are within the 500 of this configuration
    (lost,) = orjson.loads(printed(capsys, "run", "drill-lost-verifier", *ours))
    assert float(lost["feeds"][0]["available_percent"]) > 97
    (named,) = orjson.loads(printed(capsys, "run", "drill-carried", *ours))
    assert named["policy"] == {"ETH/USD": "strict"}
    (asked,) = orjson.loads(printed(capsys, "run", "aave-capo", "--policy", "strict", *ours))
    assert asked["policy"] == {"wstETH/stETH": "strict"}


def test_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "bzx.svg"
    printed(capsys, "run", "bzx-1", "--policy", "strict", "--plot", str(picture))
    drawn = ElementTree.fromstring(picture.read_text("utf-8"))
    titles = [one.text or "" for one in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert "diverged" in titles and any(title.startswith("WBTC/ETH: no_price") for title in titles)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "bzx"], "no incident bzx; did you mean bzx-"),
        (["run", "bzx-1", "--plot", "a.png"], "plots are written as .svg or .html"),
        (["run", "all", "--policy", "strict", "--plot", "a.svg"], "one incident at a time"),
        (["run", "bzx-1", "--plot", "/nowhere/a.svg"], "cannot be written"),
        (["run", "tape-oct10"], "--tape-dir"),
        (["run", "tape-oct10", "--tape-dir", "nowhere"], "no such tape"),
        (["run", "bzx-1", "--config", "nowhere.toml"], "nowhere.toml: no such file"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["incidents", *arguments]) == 1
    refused = capsys.readouterr().err
    assert says in refused and refused.count("\n") == 1


def test_a_step_line_stays_until_its_next_value_and_gaps_interrupt() -> None:
    line = Line(name="<a>", color="red", points=[(0, 1.0), (1, 2.0), (2, None), (3, 1.0)], step=True)
    drawn = lines_svg(
        Plot(
            title="t & u",
            x_name="s",
            y_name="p",
            lines=[line],
            bands=[Band(begin=0, end=1, color="green", name="b")],
            marks=[Mark(x=1, color="red", name="m")],
        )
    )
    paths = [one.get("d") or "" for one in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}path")]
    assert re.fullmatch(r"M90\.0 \d+\.\dH386\.7V\d+\.\dH683\.3M980\.0 \d+\.\d", paths[-1])
    assert "t &amp; u" in drawn and "&lt;a&gt;" in drawn


def test_the_page_about_incidents_names_all_of_them() -> None:
    page = (ROOT / "docs" / "incidents.md").read_text("utf-8")
    assert re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE) == list(library())
