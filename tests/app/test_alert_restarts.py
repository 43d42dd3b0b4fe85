"""What is wrong with a link, a clock or a process is told once and ended once, also over restarts and reloads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from oracle_hub.alerts.alert import Kind, Transition
from oracle_hub.alerts.engine import AlertEngine
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.app.alerting import Alerting
from oracle_hub.app.lineup import build_lineup, journaled_endpoints, lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.config import Config, parse_config
from oracle_hub.core.hub import Batch
from oracle_hub.core.source import Fetch, Frame
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import Checkpoint
from oracle_hub.journal.segments import list_segments
from tests.app.rig import SIMULATION, Rig

SOL, BTC = "SOL/USD", "BTC/USD"
S = 1_000_000


def made(directory: Path, config: Config) -> tuple[Rig, list[Transition]]:
    """A rig whose feeds all have a price, and what it will tell."""
    rig = Rig(directory, config)
    told: list[Transition] = []
    rig.pump.tell = told.extend
    for feed in config.feeds:
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, 100_00000000, rig.now_s)
        rig.chain.store(feed, 100_00000000, rig.now_s)
    return rig, told


def go_on(rig: Rig, seconds: int, each: Callable[[], None] = lambda: None) -> None:
    """All is well with prices, second by second."""
    for second in range(seconds):
        rig.manual.advance(S)
        for feed in rig.pump.engine.lineup.config.feeds:
            rig.tick(feed, 100_00000000 + second)
        each()
        rig.pump.step()


def lines(told: list[Transition]) -> list[tuple[str, str, str | None, tuple[str, ...]]]:
    return [(one.change.value, one.alert.kind.value, one.alert.feed, one.alert.sources) for one in told]


def replayed(*directories: Path) -> list[Transition]:
    transitions: list[Transition] = []
    replayer = Replayer(lineup_from_text, on_alert=transitions.append)
    for record in read_journal([segment.path for each in directories for segment in list_segments(each)]):
        replayer.take(record)
    replayer.finish()
    return transitions


async def test_answers_to_requests_and_refusals_bring_no_stream_back(tmp_path: Path, simulation: Config) -> None:
    rig, told = made(tmp_path / "journal", simulation)
    rig.connect()
    go_on(rig, 2)
    link = rig.pump.engine.lineup.links["hermes:2"]
    rig.pump.on_disconnect(link, rig.clock.now_us(), "connection refused")

    def again() -> None:
        fetches = [one for one in rig.pump.on_connect(link, rig.clock.now_us()) if isinstance(one, Fetch)]
        for fetch in fetches:
            rig.deliver("hermes:2", Frame("http", b"connection refused", fetch.fetch_id, 0))
        rig.deliver("hermes:2", Frame("sse", b"busy", status=503))

    go_on(rig, 5, again)
    lost = "redundancy_degraded", None, ("hermes:2",)
    assert lines(told) == [("firing", *lost)]
    rig.deliver("hermes:2", Frame("sse", b""))  # a comment: the stream lives
    rig.hermes = ("hermes:1", "hermes:2")
    go_on(rig, 31)
    assert lines(told) == [("firing", *lost), ("resolved", *lost)]
    rig.close()


async def test_a_link_that_only_asks_has_no_stream_to_lose(tmp_path: Path) -> None:
    text = SIMULATION.replace('kind = "pyth.hermes"', 'kind = "edge.rest"')
    rig, told = made(tmp_path / "journal", parse_config(text, origin="simulation"))
    name = next(name for name in rig.pump.engine.lineup.links if name.startswith("edge"))
    link = rig.pump.engine.lineup.links[name]
    rig.pump.on_connect(link, rig.clock.now_us())
    rig.pump.on_disconnect(link, rig.clock.now_us(), "our clock was set anew")
    rig.pump.on_connect(link, rig.clock.now_us())
    rig.manual.advance(5 * S)
    rig.pump.step()
    assert lines(told) == []
    rig.close()


async def test_what_no_new_run_sees_again_ends(tmp_path: Path, simulation: Config) -> None:
    """A lost link, spoilt frames, a clock that had parted, and a feed that is gone from the configuration."""
    before, told = made(tmp_path / "before", simulation)
    before.connect()
    go_on(before, 2)
    links = before.pump.engine.lineup.links
    before.pump.on_disconnect(links["hermes:2"], before.clock.now_us(), "gone")
    for _ in range(simulation.alerts.decode_errors):
        before.deliver("hermes:1", Frame("sse", b"{"))
    before.pump.engine.skew(True, before.clock.now_us())
    before.manual.advance(20 * S)  # and all feeds are stale
    before.pump.step()
    before.pump.step()
    state = before.pump.engine.alerts.state()
    n_before = len(told)
    assert {one.alert.kind for one in told} >= {Kind.REDUNDANCY_DEGRADED, Kind.DECODE_ERRORS, Kind.CLOCK_SKEW}
    before.pump.stop()
    before.journal.close()

    one_feed = parse_config(SIMULATION.replace('[feeds."BTC/USD"]\n', ""), origin="simulation")
    after, more = made(tmp_path / "after", one_feed)
    after.manual.advance(before.clock.now_us() - after.clock.now_us())
    after.pump.engine.resume_alerts(state, after.clock.now_us())
    after.connect()
    after.deliver("hermes:2", Frame("sse", b""))
    after.hermes = ("hermes:1", "hermes:2")
    go_on(after, 75)
    told += more
    after.close()
    fired = sorted(map(str, (line[1:] for line in lines(told) if line[0] == "firing")))
    assert fired == sorted(map(str, (line[1:] for line in lines(told) if line[0] == "resolved")))
    assert {line[0] for line in lines(told)[n_before:]} == {"resolved"}
    assert not after.pump.engine.alerts.open


async def test_a_link_that_a_reload_takes_away_is_missed_no_more(tmp_path: Path, simulation: Config) -> None:
    rig, told = made(tmp_path / "journal", simulation)
    rig.connect()
    go_on(rig, 2)
    rig.pump.on_disconnect(rig.pump.engine.lineup.links["hermes:1"], rig.clock.now_us(), "gone")
    rig.manual.advance(3 * S)
    rig.pump.step()
    assert ("firing", "redundancy_degraded", None, ("hermes:1",)) in lines(told)
    text = SIMULATION.replace('kind = "pyth.hermes"', 'kind = "doves.lazer"')
    other = parse_config(text, origin="simulation")
    rig.pump.reload(build_lineup(other, journaled_endpoints(other), rig.pump.engine.lineup))
    for _ in range(40):
        rig.manual.advance(S)
        rig.pump.step()
    assert ("resolved", "redundancy_degraded", None, ("hermes:1",)) in lines(told)
    rig.close()
    assert replayed(tmp_path / "journal") == told


async def test_what_is_told_by_a_timer_is_in_the_journal_at_once(tmp_path: Path, simulation: Config) -> None:
    """kill -9 right after an alert whose hold time ended with no frame in between."""
    rig, told = made(tmp_path / "journal", simulation)
    rig.connect()
    go_on(rig, 2)
    rig.pump.on_disconnect(rig.pump.engine.lineup.links["hermes:1"], rig.clock.now_us(), "gone")
    rig.pump.step()
    rig.manual.advance(3 * S)
    rig.pump._alerts_due()
    rig.pump.stop()
    assert ("firing", "redundancy_degraded", None, ("hermes:1",)) in lines(told)
    assert replayed(tmp_path / "journal") == told  # nothing was closed
    rig.journal.close()


@pytest.mark.parametrize("by_s", [-3_600, 3_600])
async def test_a_clock_that_was_set_neither_hastens_nor_delays_an_alert(
    tmp_path: Path, simulation: Config, by_s: int
) -> None:
    """One has ended and waits to be told so, one has just begun, one would get worse in ten minutes."""
    rig, told = made(tmp_path / "journal", simulation)
    rig.connect()
    go_on(rig, 2)
    links = rig.pump.engine.lineup.links

    def silence(seconds: int) -> None:
        for _ in range(seconds):
            rig.manual.advance(S)
            rig.pump.step()

    for name in ("hermes:1", "solana:a"):
        rig.pump.on_disconnect(links[name], rig.clock.now_us(), "gone")
    silence(4)
    rig.deliver("hermes:1", Frame("sse", b""))
    rig.pump.step()
    rig.manual.step_wall(by_s * S)
    for tick in range(21):  # the last one sets our clock
        if tick == 19:
            rig.pump.on_disconnect(links["hermes:2"], rig.clock.now_us(), "gone")
        rig.pump.check_clock()
        rig.pump.step()
        rig.manual.advance(250_000)
    assert abs(rig.clock.now_us() - rig.manual.wall_us()) < S

    def of_links() -> list[tuple[str, str]]:
        found = (one for one in told if one.alert.kind is Kind.REDUNDANCY_DEGRADED and one.alert.feed is None)
        return [(one.change.value, one.alert.sources[0]) for one in found]

    both = [("firing", "hermes:1"), ("firing", "solana:a")]
    assert of_links() == both
    silence(3)
    assert of_links() == [*both, ("firing", "hermes:2")]
    silence(30)
    assert of_links() == [*both, ("firing", "hermes:2"), ("resolved", "hermes:1")]
    rig.close()
    assert replayed(tmp_path / "journal") == told


async def test_a_clock_that_was_set_back_costs_no_checkpoint(tmp_path: Path, simulation: Config) -> None:
    """Retention would delete what the segments of the next hour follow from."""
    rig, _ = made(tmp_path / "journal", simulation)
    checkpoints = rig.pump._checkpoints
    assert checkpoints is not None
    checkpoints._interval_us = 60 * S
    rig.manual.step_wall(-3_600 * S)
    for _ in range(21):
        rig.manual.advance(250_000)
        rig.pump.check_clock()
    assert rig.journal.rotate()
    rig.pump.step()
    rig.close()
    assert any(isinstance(record, Checkpoint) for record in read_journal(tmp_path / "journal"))


def alerting(directory: Path, settings: AlertSettings) -> tuple[Alerting, list[Transition]]:
    told: list[Transition] = []
    return Alerting(directory, AlertEngine(settings), show=lambda change: None, deliver=told.append), told


def test_settings_hold_for_what_the_process_says_of_itself(tmp_path: Path) -> None:
    silent, told = alerting(tmp_path, AlertSettings(off=frozenset({Kind.JOURNAL_LAG})))
    silent.condition(S, Kind.JOURNAL_LAG, "write", True, "full")
    assert told == []
    patient, told = alerting(tmp_path, AlertSettings(hold_on_us={Kind.JOURNAL_LAG: 2 * S}))
    patient.condition(S, Kind.JOURNAL_LAG, "write", True, "full")
    assert told == []
    patient.advance(3 * S)
    assert lines(told) == [("firing", "journal_lag", None, ("write",))]


def test_what_the_process_before_said_of_itself_ends_where_there_is_no_journal_now(tmp_path: Path) -> None:
    before, told = alerting(tmp_path, AlertSettings())
    before.condition(S, Kind.JOURNAL_LAG, "write", True, "full")
    after, more = alerting(tmp_path, AlertSettings())
    after.resume(lambda saved: None)
    after.begin(2 * S)
    after.advance(8 * S)
    assert lines(told + more) == [
        ("firing", "journal_lag", None, ("write",)),
        ("resolved", "journal_lag", None, ("write",)),
    ]


async def test_a_hub_that_stands_still_gives_no_sign_of_life(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rig.pump.alive()
    rig.manual.advance(5 * S)
    assert rig.pump.alive()
    rig.manual.advance(1)
    assert not rig.pump.alive()
    rig.pump.step()
    assert rig.pump.alive()

    def broken(now_us: int) -> Batch | None:
        raise ZeroDivisionError

    monkeypatch.setattr(rig.pump.engine, "decide", broken)
    rig.manual.advance(6 * S)
    with pytest.raises(ZeroDivisionError):
        rig.pump.step()
    assert not rig.pump.alive()


def test_what_the_disk_did_not_keep_is_kept_once_it_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "alerts.json"
    path.mkdir()  # no file can take its place
    before, told = alerting(tmp_path, AlertSettings())
    before.condition(S, Kind.JOURNAL_LAG, "write", True, "full")
    before.advance(2 * S)
    assert lines(told) == [("firing", "journal_lag", None, ("write",))]
    assert [record.message.split(": ")[1][:27] for record in caplog.records if "alerts.json" in record.message] == [
        "open alerts can't be kept ("
    ]  # once, not at every look
    path.rmdir()
    before.advance(3 * S)
    after, _ = alerting(tmp_path, AlertSettings())
    after.resume(lambda saved: None)
    assert [alert.sources for alert in after.open] == [("write",)]
