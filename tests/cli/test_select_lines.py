"""``select`` line by line: every line has its answer, whatever stands in another one."""

import io
import json
from typing import Any

import pytest

from oracle_hub.cli import main

NOW_US = 1_795_000_000_000_000
FOREVER_MS = 2**63


def question(**changes: object) -> str:
    source = {"price": "100", "publish_time_us": NOW_US}
    sources = dict.fromkeys(("primary", "verifier_1", "verifier_2"), source)
    return json.dumps({"now_us": NOW_US, "sources": sources} | changes)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    def run(*lines: str) -> tuple[int, list[dict[str, Any]]]:
        text = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
        monkeypatch.setattr("sys.stdin", text)
        status = main(["select"])
        out, error = capfdbinary.readouterr()
        assert error == b""
        return status, [json.loads(line) for line in out.splitlines()]

    return run


def test_a_price_that_holds_for_ever_has_its_instant_to_the_last_digit(answers: Any) -> None:
    status, (held,) = answers(question(max_age_ms=FOREVER_MS))
    assert (status, held["state"], held["price"]) == (0, "live", "100")
    assert held["valid_until_us"] == NOW_US + FOREVER_MS * 1_000 + 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (question()[:-1] + ', "more": ' + "[" * 50_000 + "]" * 50_000 + "}", "maximum recursion depth exceeded"),
        ("{", "Input data was truncated"),
        ("\ufeff{}", "JSON is malformed"),
        (question(policy="ünanimous"), "Invalid enum value 'ünanimous'"),
        (question(max_age_ms=-1), "Expected `int` >= 0 - at `$.max_age_ms`"),
    ],
)
def test_a_line_that_cannot_be_read_has_its_error_and_the_next_its_answer(answers: Any, line: str, told: str) -> None:
    status, (error, answer) = answers(line, question())
    assert status == 1 and error["error"].startswith(told)
    assert (answer["state"], answer["rule"], answer["source"]) == ("live", "R1", "primary")
