"""The rules for Prometheus and the routes of Alertmanager: valid, tested, and about metrics that exist."""

import re

import pytest

from oracle_hub.alerts.alert import Kind
from tests.deploy.shipped import (
    DEPLOY,
    FOREIGN,
    RULE_TESTS,
    RULES,
    Tree,
    exposed,
    matched_labels,
    rules,
    run,
    series_of,
    tree,
)

NAMES = [rule["alert"] for rule in rules()]
OWN = ["".join(word.capitalize() for word in kind.value.split("_")) for kind in Kind]
"""What alerts of the hub itself are called at Alertmanager."""


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in run("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert f"{len(NAMES)} rules found" in run("promtool", "check", "rules", RULES)


def test_every_rule_does_what_its_test_says() -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", RULE_TESTS)


def test_alertmanager_takes_its_configuration() -> None:
    assert "SUCCESS" in run("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")


def moments(test: Tree) -> list[int]:
    """How many alerts are expected at each instant that a test looks at."""
    return [len(moment["exp_alerts"]) for moment in test["alert_rule_test"]]


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_is_seen_quiet_firing_and_over(name: str) -> None:
    (test,) = (test for test in tree(RULE_TESTS)["tests"] if test["name"] == name)
    assert {moment["alertname"] for moment in test["alert_rule_test"]} == {name}
    assert moments(test) == ([1] if name == "OracleHubWatchdog" else [0, 1, 0])


@pytest.mark.parametrize("rule", rules(), ids=NAMES)
def test_a_rule_asks_for_metrics_and_labels_that_exist(rule: Tree) -> None:
    known = exposed()
    names = series_of(rule["expr"])
    assert names <= known.keys() | FOREIGN | ({"vector"} if rule["expr"] == "vector(1)" else set())
    assert names or rule["expr"] == "vector(1)"
    for name, label in matched_labels(rule["expr"]):
        assert label in known.get(name, set()) | {"job", "instance"}, (name, label)


@pytest.mark.parametrize("rule", rules(), ids=NAMES)
def test_a_rule_says_how_bad_it_is_and_what_to_do(rule: Tree) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "none"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    # Without it a scrape that is missing in between would be an end that was none.
    assert "keep_firing_for" in rule or rule["alert"] in {"OracleHubAbsent", "OracleHubWatchdog"}


def test_names_are_unique_and_in_one_style() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch(r"OracleHub[A-Z]\w+", name) for name in NAMES)


def test_routes_and_inhibitions_name_alerts_that_exist() -> None:
    config = tree(DEPLOY / "alertmanager" / "alertmanager.yml")
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routes = [config["route"], *config["route"]["routes"]]
    assert {route["receiver"] for route in routes} == receivers
    matchers = [matcher for route in routes for matcher in route.get("matchers", ())]
    for inhibition in config["inhibit_rules"]:
        matchers += inhibition["source_matchers"] + inhibition["target_matchers"]
    patterns = [re.sub(r"^alertname!?[=~]+", "", one).strip('"') for one in matchers if one.startswith("alertname")]
    for pattern in patterns:
        for choice in pattern.split("|") if "(" not in pattern else [pattern]:
            assert any(re.fullmatch(choice, name) for name in [*NAMES, *OWN]), choice


def test_a_configuration_holds_no_secret() -> None:
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text("utf-8")
    assert not re.search(r"\b(api_url|routing_key|service_key|password|credentials|bearer_token):", text)
