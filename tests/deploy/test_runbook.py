"""Whoever is woken finds an entry: one for every alert of the hub and every rule, with the same five answers."""

import re

import pytest

from oracle_hub.alerts.alert import Kind
from oracle_hub.cli import COMMANDS
from tests.deploy.shipped import ROOT, rules

TEXT = (ROOT / "docs" / "runbook.md").read_text("utf-8")
ENTRIES = {
    name: body
    for name, body in re.findall(r"^#{3,4} (\w+)$\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    if "**Means:**" in body
}
ALERTS = [kind.value for kind in Kind] + [rule["alert"] for rule in rules()]


def anchors() -> set[str]:
    """What headings can be linked to, as code forges make them."""
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_is_an_entry_for_every_alert_and_none_for_another() -> None:
    assert sorted(ENTRIES) == sorted(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_entry_answers_what_one_asks_at_night(name: str) -> None:
    answers = re.findall(r"^- \*\*([\w ]+):\*\* (\S.+)$", ENTRIES[name], re.MULTILINE)
    assert [label for label, _ in answers] == ["Means", "Keepers see", "Check", "Do", "Normal"]
    assert all(text.endswith((".", "?")) for _, text in answers)


def test_links_of_rules_and_within_the_page_lead_somewhere() -> None:
    links = [rule["annotations"]["runbook_url"].removeprefix("docs/runbook.md#") for rule in rules()]
    links += re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert set(links) <= anchors()


def test_what_it_tells_to_run_exists() -> None:
    named = set(re.findall(r"`oracle-hub (\w+(?:-\w+)*)", TEXT))
    assert named <= set(COMMANDS) and {"explain", "prove", "alerts"} <= named
