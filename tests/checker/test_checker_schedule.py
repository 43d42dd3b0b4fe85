"""A schedule is a function of its seed, keeps to its time, and has everything that a long run must show."""

from itertools import pairwise
from typing import get_args

import pytest

from oracle_hub.config_sections import ServerSection
from oracle_hub.server.service import ServerSettings
from tests.checker.lineup import FEEDS, lineup
from tests.checker.schedule import (
    HUB_KINDS,
    LONGEST_STOP_S,
    PROXY_KINDS,
    WORKER_KINDS,
    WORLD_KINDS,
    Event,
    Kind,
    schedule,
)

TEN_MINUTES_S = 600.0


def events(seed: int, duration_s: float = TEN_MINUTES_S, n_workers: int = 0) -> list[Event]:
    return schedule(seed, duration_s, n_hubs=2, n_client_processes=2, n_proxies=2, n_workers=n_workers)


def test_a_seed_makes_one_schedule_and_another_seed_another() -> None:
    assert events(1) == events(1) != events(2)
    assert lineup(1, 20, ["a"], ["b"]) == lineup(1, 20, ["a"], ["b"]) != lineup(2, 20, ["a"], ["b"])


@pytest.mark.parametrize("seed", range(5))
def test_ten_minutes_have_every_fault(seed: int) -> None:
    found = events(seed, n_workers=2)
    assert {event.kind for event in found} == set(get_args(Kind))
    assert [event for event in found if event.kind not in WORKER_KINDS] == events(seed)
    assert found == sorted(found, key=lambda event: event.at_s)
    for event in found:
        assert event.at_s > 0 and event.at_s + event.duration_s <= TEN_MINUTES_S - 5
    stops = [event.duration_s for event in found if event.kind in ("stop_hub", "stop_clients")]
    assert set(stops) == {LONGEST_STOP_S}
    assert {abs(event.value) for event in found if event.kind == "step_clock"} == {3_600}


@pytest.mark.parametrize("kinds", [HUB_KINDS, PROXY_KINDS, WORLD_KINDS, ("stop_clients",)])
def test_faults_of_one_lane_follow_each_other(kinds: tuple[Kind, ...]) -> None:
    lane = [event for event in events(3) if event.kind in kinds]
    for before, after in pairwise(lane):
        assert before.at_s + before.duration_s < after.at_s


def test_a_short_run_has_short_stops() -> None:
    for event in events(1, 30.0):
        assert event.at_s + event.duration_s <= 25.0


@pytest.mark.parametrize("n_clients", [4, 40, 200])
def test_the_lineup_has_stuck_clients_and_clients_of_the_library(n_clients: int) -> None:
    specs = lineup(1, n_clients, ["steady-1", "steady-2"], ["faulty-1", "faulty-2"])
    assert len({spec.name for spec in specs}) == len(specs) == n_clients
    assert sum(spec.stuck_every_s is not None for spec in specs) == max(2, n_clients // 20)
    if n_clients > 4:
        forms = {(spec.kind, spec.mode, spec.binary) for spec in specs}
        assert {("raw", "all", True), ("raw", "latest", True), ("library", "latest", True)} <= forms
    (stuck_all, *_) = (spec for spec in specs if spec.stuck_every_s is not None and spec.mode == "all")
    assert [spec for spec in specs if spec.stuck_first] == [stuck_all]
    lengths = [spec.stuck_for_s * 1_000 for spec in specs if spec.stuck_every_s is not None]
    assert ServerSection().max_unsent_age_ms < min(lengths) <= max(lengths) <= ServerSettings().slow_close_grace_ms
    assert (len(stuck_all.urls), stuck_all.resume, stuck_all.feeds) == (1, True, ["*"])
    assert sum(spec.kind == "library" for spec in specs) == max(1, round(n_clients * 0.15))
    for spec in specs:
        assert spec.feeds == ["*"] or set(spec.feeds) <= set(FEEDS)
        assert spec.max_hz is None or spec.mode == "latest"
