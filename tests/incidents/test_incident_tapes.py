"""Incidents from recorded rows: the rows themselves are not in this repository."""

from pathlib import Path

import pytest

from oracle_hub.core.selector import Policy, State
from oracle_hub.errors import IncidentError
from oracle_hub.incidents.library import tape_library
from oracle_hub.incidents.player import Conditions, Watcher, play
from oracle_hub.incidents.tapes import loaded
from oracle_hub.incidents.verdict import alert_lines, figures
from tests.incidents.judge import look


@pytest.mark.parametrize("policy", list(Policy))
def test_the_crash_as_it_was_recorded(policy: Policy, tapes_dir: Path) -> None:
    script = loaded(tape_library()["tape-oct10"], tapes_dir)
    played = play(script, Conditions(policy=policy), watcher=Watcher(look))
    (fared,) = figures(played)
    # Gemini stands still from 21:13:57 to 21:20:46: 237 s to 646 s. Past its age it counts for nothing.
    frozen = [one for one in played.stretches["BTC/USD"] if one.until_us > 260_000_000 and one.from_us < 640_000_000]
    expected = {State.NONE} if policy is Policy.STRICT else {State.NONE, State.DEGRADED}
    assert {one.state for one in frozen} <= expected
    assert any("source_stale BTC/USD chainlink" in line for line in alert_lines(played))
    assert fared.worst_bps is not None and fared.worst_bps < 200
    assert 0 < fared.available_percent < 100


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    script = tape_library()["tape-oct10"]
    tape = tmp_path / "oct10_2025_crash_1s_asof.csv"
    with pytest.raises(IncidentError, match="no such tape"):
        loaded(script, tmp_path)
    head = "# comment\nts_ms,okx_index,okx_ts_ms,gemini_btc,gemini_btc_ts_ms,binance_mark_min_open\n"
    tape.write_text(head + "1760130600000,x,1760130600000,1,1760130600000,1\n", encoding="utf-8")
    with pytest.raises(IncidentError, match=r"oct10_2025_crash_1s_asof.csv, line \d+: not a row"):
        loaded(script, tmp_path)
    tape.write_text(head + "1,1,1,1,1,1\n", encoding="utf-8")
    with pytest.raises(IncidentError, match="no row within"):
        loaded(script, tmp_path)


def test_a_byte_order_mark_before_a_tape_is_passed_over(tmp_path: Path) -> None:
    script = tape_library()["tape-oct10"]
    rows = "".join(f"{at},1,{at},2,{at},3\n" for at in (1_760_130_600_000, 1_760_130_601_000))
    head = "ts_ms,okx_index,okx_ts_ms,gemini_btc,gemini_btc_ts_ms,binance_mark_min_open\n"
    read = []
    for mark in ("", "\ufeff"):
        (tmp_path / "oct10_2025_crash_1s_asof.csv").write_text(mark + head + rows, encoding="utf-8")
        read.append(loaded(script, tmp_path))
    assert read[0] == read[1]
