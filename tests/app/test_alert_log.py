"""The alert log is a function of the journal: a replay tells what was told live, from any checkpoint on."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from oracle_hub.alerts.alert import Transition
from oracle_hub.app.alert_settings import alert_settings
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.config import Config, parse_config
from oracle_hub.core.hub import Hub
from oracle_hub.errors import ConfigError
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.segments import list_segments
from tests.app.rig import SIMULATION, Rig

SOL, BTC = "SOL/USD", "BTC/USD"


@pytest.fixture
async def told(tmp_path: Path, simulation: Config) -> list[Transition]:
    """Two minutes with an outage, a divergence and a lost link; what was told live."""
    rig = Rig(tmp_path / "journal", simulation, max_segment_bytes=30_000)
    transitions: list[Transition] = []
    rig.pump.tell = transitions.extend
    for feed in simulation.feeds:
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, 100_00000000, rig.now_s)
        rig.chain.store(feed, 100_00000000, rig.now_s)
    rig.connect()
    for second in range(120):
        rig.manual.advance(1_000_000)
        if not 20 <= second < 45:
            rig.tick(SOL, 100_00000000 + (9_00000000 if second >= 70 else 0))
        rig.tick(BTC, 100_00000000 - second)
        if second == 50:
            link = rig.pump.engine.lineup.links["hermes:1"]
            rig.pump.on_disconnect(link, rig.clock.now_us(), "gone")
        if second % 7 == 0:  # a timer of the alerts that comes late, or not at all, changes nothing
            rig.pump._alerts_due()
        rig.pump.step()
    rig.close()
    return transitions


def replayed(paths: list[Path]) -> list[Transition]:
    transitions: list[Transition] = []
    replayer = Replayer(lineup_from_text, on_alert=transitions.append)
    for record in read_journal(paths):
        replayer.take(record)
    assert replayer.finish().proved
    return transitions


async def test_a_replay_tells_what_was_told(told: list[Transition], tmp_path: Path) -> None:
    paths = [segment.path for segment in list_segments(tmp_path / "journal")]
    kinds = {(one.alert.kind.value, one.change.value) for one in told}
    assert kinds >= {("no_price", "firing"), ("no_price", "resolved"), ("source_stale", "firing")}
    assert replayed(paths) == told
    for start in range(1, len(paths) - 1, 3):
        part = replayed(paths[start:])
        assert part == told[len(told) - len(part) :]


async def test_no_price_waits_for_the_alerts(
    tmp_path: Path, simulation: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path / "journal", simulation)
    alerts, published = rig.pump.engine.alerts, list[int]()
    look = alerts.look

    def looked(now_us: int, hub: Hub, conflicts: Sequence[tuple[str, str]]) -> list[Transition]:
        published.append(rig.published[-1].now_us)
        return look(now_us, hub, conflicts)

    monkeypatch.setattr(alerts, "look", looked)
    rig.manual.advance(11_000_000)  # warm-up is over: every feed is told anew
    rig.pump.step()
    assert published == [rig.clock.now_us()]
    rig.close()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('off = ["nonsense"]', "alerts.off: nonsense is no kind of alert; known: pair_diverged, "),
        ("hold_on_ms = { no_prize = 5 }", "alerts.hold_on_ms: no_prize is no kind of alert"),
        ('pegs = { "SOL/USD" = "abc" }', "alerts.pegs.SOL/USD: abc is no positive number with at most 8 decimals"),
        ('pegs = { "SOL/USD" = "1.0000000001" }', "alerts.pegs.SOL/USD: 1.0000000001 is no positive number"),
        ('pegs = { "SOL/USD" = "NaN" }', "alerts.pegs.SOL/USD: NaN is no positive number"),
        ('pegs = { "SOL/USD" = "-1" }', "alerts.pegs.SOL/USD: -1 is no positive number"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(lines: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        alert_settings(parse_config(f"{SIMULATION}\n[alerts]\n{lines}\n", origin="hub.toml"))
    assert message in str(caught.value)
