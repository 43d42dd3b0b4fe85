"""Alerts about sources that may not be told: the same alerts at the same instants, without a digit of their prices."""

import re

import msgspec

from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import Redistribute
from tests.alerts.rig import Scene, spec

NO, CHOSEN = Redistribute.NO, Redistribute.CHOSEN
NEAR, FAR = 99_98765432, 98_76543217
PEGS = AlertSettings(pegs={"SOL/USD": 100_00000000}, wide_conf_bps=1)


def told(hidden: Redistribute | None) -> Scene:
    """A verifier and a reference far from the others, then all of them without a choice, with wide confidence."""
    licences = {} if hidden is None else {"pyth": hidden, "aggregate": hidden}
    scene = Scene(spec(references=("aggregate",), redistribute=licences), settings=PEGS)
    for second in range(40):
        scene.at(second)
        hidden_price = FAR + 1_000_000_000 if second > 20 else NEAR
        others = (102_00000000, 104_00000000) if second > 20 else (100_00000000, 100_00000000)
        prices = {"doves": others[0], "chainlink": others[1], "pyth": hidden_price, "aggregate": FAR}
        scene.tell(prices, conf=7_654_321)
    return scene


def test_what_is_told_when_and_how_bad_is_the_same() -> None:
    logs = [told(licence).log() for licence in (None, CHOSEN, NO)]
    assert logs[0] == logs[1] == logs[2]
    kinds = {entry[2] for entry in logs[0]}
    assert {"pair_diverged", "parity_broken", "confidence_wide", "peg_band", "no_price"} <= kinds


def test_no_digit_of_a_hidden_price_is_in_any_text_or_evidence() -> None:
    plain, hidden = (msgspec.json.encode(told(licence).told).decode() for licence in (None, NO))
    digits = re.compile(r"(99|98|108)\.?(98765|76543)")
    assert digits.search(plain) and not digits.search(hidden)
    assert "pyth (price withheld: licence)" in hidden


def test_distances_of_hidden_prices_are_whole_basis_points() -> None:
    about = [one.alert for one in told(NO).told if {"pyth", "aggregate"} & set(one.alert.sources)]
    measured = [alert.evidence for alert in about if alert.evidence.get("unit") == "bps/100"]
    values = [one[key] for one in measured for key in ("value", "worst")]
    assert values and all(value % 100 == 0 for value in values)
    inputs = [alert.evidence["inputs"] for alert in about if "inputs" in alert.evidence]
    assert {one["pyth"]["withheld"] for one in inputs} == {"licence"}
    assert all(one["pyth"]["price"] is None and isinstance(one["pyth"]["divergence_bps"], int) for one in inputs)
    exact = [one.alert.evidence["value"] for one in told(None).told if one.alert.sources == ("doves", "pyth")]
    assert any(value % 100 for value in exact), "otherwise nothing was rounded"
