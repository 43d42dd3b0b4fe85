"""Dashboards: whole, about metrics that exist, and provisioned with the datasource that they name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.shipped import DEPLOY, FOREIGN, Tree, exposed, matched_labels, rules, run, series_of, tree

FOLDER = DEPLOY / "grafana"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
DATASOURCE = tree(FOLDER / "provisioning" / "datasources" / "prometheus.yaml")["datasources"][0]


def dashboard(path: Path) -> Tree:
    loaded: Tree = json.loads(path.read_text("utf-8"))
    return loaded


def datasources(node: object) -> Iterator[Tree]:
    """Every reference to a datasource, wherever it is."""
    if isinstance(node, dict):
        if "datasource" in node:
            yield node["datasource"]
        for value in node.values():
            yield from datasources(value)
    elif isinstance(node, list):
        for value in node:
            yield from datasources(value)


def expressions(board: Tree) -> Iterator[str]:
    """Every query: of panels, annotations and variables."""
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (one["expr"] for one in board["annotations"]["list"])
    for variable in board["templating"]["list"]:
        yield re.sub(r"^label_values\((.*), (\w+)\)$", r'\1{\2=""}', variable["definition"])


def test_there_is_one_for_each_who_asks() -> None:
    assert [path.stem for path in DASHBOARDS] == [
        "oracle-hub-feed",
        "oracle-hub-overview",
        "oracle-hub-sources",
        "oracle-hub-stream",
    ]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    board = dashboard(path)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) > 5
    assert board["uid"] == path.stem and board["title"].startswith("oracle-hub / ")
    assert {(one["type"], one["uid"]) for one in datasources(board)} == {(DATASOURCE["type"], DATASOURCE["uid"])}
    for panel in board["panels"]:
        assert panel["title"] and (panel["type"] == "row" or panel["targets"]), panel
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(path)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_metrics_labels_and_variables_that_exist(path: Path) -> None:
    board, known = dashboard(path), exposed()
    variables = {variable["name"] for variable in board["templating"]["list"]}
    for expression in expressions(board):
        assert series_of(expression) <= known.keys() | FOREIGN, expression
        for name, label in matched_labels(expression):
            if name in known:
                assert label in known[name] | {"job", "instance"}, (name, label)
        assert set(re.findall(r"\$(\w+)", expression)) <= variables, expression


def test_most_metrics_of_the_hub_are_on_a_dashboard_or_in_a_rule() -> None:
    """What nobody looks at need not be counted; sums of others and what only identifies a run are the exception."""
    texts = " ".join(expression for path in DASHBOARDS for expression in expressions(dashboard(path)))
    looked_at = series_of(texts + " ".join(rule["expr"] for rule in rules()))
    parts = re.compile(r"_(sum|count)$")
    unseen = {name for name in exposed() if name not in looked_at and not parts.search(name)}
    assert len(unseen) < len(exposed()) / 5, sorted(unseen)


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    """Variables are replaced as Grafana does it; promtool parses them as recording rules."""
    queries = [expression for path in DASHBOARDS for expression in expressions(dashboard(path))]
    recorded = [
        {"record": f"query:{number}", "expr": re.sub(r"\$\w+", ".*", query)} for number, query in enumerate(queries)
    ]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in run("promtool", "check", "rules", tmp_path / "queries.yml")
