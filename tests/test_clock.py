"""Our clock against a wall clock that jumps, drifts and oscillates."""

import pytest

from oracle_hub.clock import AnchoredClock, ClockState, ManualClock, SystemClock

T = 1_760_000_000_000_000
S = 1_000_000
HOUR = 3_600 * S
CALM = ClockState(0, skewed=False, reanchored=False)


def make() -> tuple[ManualClock, AnchoredClock]:
    manual = ManualClock(wall_us=T, monotonic_us=55 * S)
    return manual, AnchoredClock(manual)


def test_it_starts_at_the_wall_time_and_is_carried_by_the_monotonic_clock() -> None:
    manual, anchored = make()
    assert anchored.now_us() == T
    manual.advance(7)
    assert anchored.now_us() == T + 7
    assert anchored.check() == CALM


@pytest.mark.parametrize("step_us", [HOUR, -HOUR])
def test_an_hours_step_is_skew_at_once_and_the_new_anchor_after_five_seconds(step_us: int) -> None:
    manual, anchored = make()
    manual.step_wall(step_us)
    assert anchored.now_us() == T  # no held price became younger or older by it
    for tenths in range(50):
        assert anchored.check() == ClockState(step_us, skewed=True, reanchored=False), tenths
        assert anchored.now_us() == T + tenths * S // 10
        manual.advance(S // 10)
    assert anchored.check() == ClockState(step_us, skewed=False, reanchored=True)
    assert anchored.now_us() == T + 5 * S + step_us
    manual.advance(S)
    assert anchored.check() == CALM
    assert anchored.now_us() == T + 6 * S + step_us


@pytest.mark.parametrize("sign", [1, -1])
def test_the_limit_is_inclusive(sign: int) -> None:
    manual, anchored = make()
    manual.step_wall(sign * 2 * S)
    assert anchored.check() == ClockState(sign * 2 * S, skewed=False, reanchored=False)
    manual.step_wall(sign)
    assert anchored.check() == ClockState(sign * (2 * S + 1), skewed=True, reanchored=False)


def test_a_small_drift_is_no_skew_and_moves_no_anchor() -> None:
    manual, anchored = make()
    for second in range(1, 1_001):
        manual.advance(S)
        manual.step_wall(-500)  # 500 ppm, the most that NTP slews
        assert anchored.check() == ClockState(-500 * second, skewed=False, reanchored=False)
    assert anchored.now_us() == T + 1_000 * S


def test_a_step_that_is_taken_back_before_the_anchor_moves_is_over_at_once() -> None:
    manual, anchored = make()
    manual.step_wall(HOUR)
    anchored.check()
    manual.advance(5 * S - 1)
    assert anchored.check().skewed
    manual.step_wall(-HOUR)
    assert anchored.check() == CALM
    assert anchored.now_us() == T + 5 * S - 1


def test_the_wait_begins_anew_after_a_return() -> None:
    manual, anchored = make()
    manual.step_wall(HOUR)
    anchored.check()
    manual.advance(4 * S)
    manual.step_wall(-HOUR)
    anchored.check()
    manual.step_wall(HOUR)
    anchored.check()
    manual.advance(5 * S - 1)
    assert anchored.check() == ClockState(HOUR, skewed=True, reanchored=False)
    manual.advance(1)
    assert anchored.check().reanchored


def test_a_second_step_begins_the_wait_anew() -> None:
    manual, anchored = make()
    manual.step_wall(HOUR)
    anchored.check()
    manual.advance(4 * S)
    manual.step_wall(HOUR)
    assert anchored.check().skewed
    manual.advance(5 * S - 1)
    assert anchored.check() == ClockState(2 * HOUR, skewed=True, reanchored=False)
    manual.advance(1)
    assert anchored.check() == ClockState(2 * HOUR, skewed=False, reanchored=True)
    assert anchored.now_us() == T + 9 * S + 2 * HOUR


def test_an_oscillating_wall_clock_never_becomes_the_anchor() -> None:
    manual, anchored = make()
    for seconds in range(0, 600, 2):
        manual.step_wall(HOUR if seconds % 4 == 0 else -HOUR // 2)
        state = anchored.check()
        assert state.skewed and not state.reanchored
        manual.advance(2 * S)
    assert anchored.now_us() == T + 600 * S


def test_a_wall_clock_that_runs_away_never_becomes_the_anchor() -> None:
    manual, anchored = make()
    manual.step_wall(HOUR)
    for _ in range(600):
        state = anchored.check()
        assert state.skewed and not state.reanchored
        manual.advance(S)
        manual.step_wall(S)  # twice as fast as it should be
    assert anchored.now_us() == T + 600 * S


def test_limits_are_arguments() -> None:
    manual = ManualClock(wall_us=T)
    anchored = AnchoredClock(manual, max_skew_us=10, reanchor_after_us=100)
    manual.step_wall(11)
    assert anchored.check().skewed
    manual.advance(100)
    assert anchored.check() == ClockState(11, skewed=False, reanchored=True)


def test_the_machines_clocks_give_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: T * 1_000 + 999)
    monkeypatch.setattr("time.monotonic_ns", lambda: 5_999)
    assert SystemClock().wall_us() == T
    assert SystemClock().monotonic_us() == 5
