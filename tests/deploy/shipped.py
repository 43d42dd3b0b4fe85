"""What is shipped under ``deploy/``, read as whoever runs it reads it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import yaml

from oracle_hub.charts.health import SPECS as CHARTS_SPECS
from oracle_hub.metrics import HISTOGRAMS, SPECS
from tests.conftest import require

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "oracle-hub.yml"
RULE_TESTS = DEPLOY / "prometheus" / "tests" / "oracle-hub.test.yml"

Tree: TypeAlias = dict[str, Any]

FOREIGN = {
    "up",
    "scrape_duration_seconds",
    "alertmanager_notifications_failed_total",
    "prometheus_notifications_dropped_total",
}
"""Series of Prometheus and Alertmanager themselves that rules and dashboards use."""
_NAME = re.compile(r"\b[a-z][a-z0-9]*_[a-z0-9_]+\b")
_FUNCTIONS = {"histogram_quantile", "max_over_time", "label_replace", "label_values", "keep_firing_for", "query_result"}


def tree(path: Path) -> Tree:
    """A YAML file with one document."""
    loaded: Tree = yaml.safe_load(path.read_text("utf-8"))
    return loaded


def rules() -> list[Tree]:
    """Every alerting rule."""
    return [rule for group in tree(RULES)["groups"] for rule in group["rules"]]


def exposed() -> dict[str, set[str]]:
    """Every series that hub and charts can expose, with its labels."""
    names: dict[str, set[str]] = {}
    for name, kind, labels in (
        *((spec.name, spec.kind, spec.labels) for spec in SPECS),
        *((spec.name, spec.kind, ()) for spec in CHARTS_SPECS),
    ):
        names[f"{name}_total" if kind == "counter" else name] = set(labels)
    for histogram in HISTOGRAMS:
        names[f"{histogram.name}_bucket"] = {*histogram.labels, "le"}
        names[f"{histogram.name}_sum"] = names[f"{histogram.name}_count"] = set(histogram.labels)
    return names


def series_of(expression: str) -> set[str]:
    """Names of series in an expression of PromQL, as far as they have an underscore (all of ours do), and ``up``."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    found = {name for name in _NAME.findall(bare) if name not in _FUNCTIONS}
    return found | ({"up"} if re.search(r"\bup\b", bare) else set())


def matched_labels(expression: str) -> Iterator[tuple[str, str]]:
    """(series, label) for every label that a selector asks for."""
    for name, body in re.findall(r"([a-z][a-z0-9_]*)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', body)):
            yield name, label


def run(command: str, *arguments: object, stdin: IO[bytes] | None = None) -> str:
    """Run a program that checks, and return what it says; fails with that if it finds fault."""
    beside = Path(sys.executable).with_name(command)  # of our own environment, which need not be on PATH
    program = str(beside) if beside.exists() else shutil.which(command)
    require(program is not None, command)
    done = subprocess.run(
        [str(program), *map(str, arguments)], stdin=stdin, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
