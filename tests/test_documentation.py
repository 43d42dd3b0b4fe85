"""What a user can set, call or read is documented: these tests fail when something new is not."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

from oracle_hub.charts.health import SPECS as CHARTS_SPECS
from oracle_hub.cli import COMMANDS
from oracle_hub.core.selector import Reason
from oracle_hub.core.table import Applied, InputStatus
from oracle_hub.metrics import HISTOGRAMS, SPECS, Latencies, families_of, text_of

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_metric_is_documented_with_its_labels_and_none_is_invented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", page("metrics.md"), re.MULTILINE)
    documented = {name: (kind, tuple(filter(None, re.split(r", *", labels.strip())))) for name, kind, labels in rows}
    expected: dict[str, tuple[str, tuple[str, ...]]] = {spec.name: (spec.kind, spec.labels) for spec in SPECS}
    expected |= {spec.name: ("histogram", spec.labels) for spec in HISTOGRAMS}
    expected |= {spec.name: (spec.kind, ()) for spec in CHARTS_SPECS}
    assert documented == expected


def test_metrics_render_as_prometheus_text() -> None:
    samples = [("oraclehub_epoch", (), 7), ("oraclehub_updates", ("doves", "taken"), 3)]
    text = text_of(families_of(samples, Latencies())).decode()
    assert "oraclehub_epoch 7.0" in text
    assert 'oraclehub_updates_total{applied="taken",source="doves"} 3.0' in text
    assert all(f"# TYPE {spec.name} histogram" in text for spec in HISTOGRAMS)


def test_a_sample_of_no_known_metric_is_a_bug() -> None:
    with pytest.raises(KeyError):
        families_of([("oraclehub_nonsense", (), 1)], Latencies())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_its_options_are_documented(name: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"oracle_hub.cli.{COMMANDS[name].module}").arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    text = page("cli.md")
    assert f"`{name}`" in text
    missing = {option for option in options - {"--help"} if option not in text}
    assert not missing


@pytest.mark.parametrize("member", [*Reason, *InputStatus])
def test_every_reason_and_status_is_documented(member: str) -> None:
    assert f"`{member}`" in page("protocol.md")


def test_every_fate_of_an_update_is_documented() -> None:
    assert [fate.value for fate in Applied if f"`{fate.value}`" not in page("metrics.md")] == []


def test_links_between_pages_lead_somewhere() -> None:
    for source in (ROOT / "README.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", source.read_text(encoding="utf-8")):
            assert (source.parent / target).exists(), f"{source.name}: {target}"


def test_every_page_and_every_decision_is_listed() -> None:
    for folder in (DOCS, DOCS / "adr"):
        listed = set(re.findall(r"\]\(([\w.-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
        assert listed == {path.name for path in folder.glob("*.md")} - {"README.md"}


def test_decisions_are_listed_by_their_titles() -> None:
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    for path in (DOCS / "adr").glob("[0-9]*.md"):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert title.startswith(f"{int(path.name[:4])}. ")
        assert f"[{title}]({path.name})" in index, path.name
