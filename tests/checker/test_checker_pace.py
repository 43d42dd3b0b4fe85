"""Faults are undone, and waits end, when a run is over: by its time, or earlier."""

import asyncio
from collections.abc import Callable

import pytest

from tests.checker.pace import Pace
from tests.checker.run import Conductor
from tests.checker.scene import Scene
from tests.checker.schedule import Event
from tests.patience import PATIENCE_S


async def test_a_wait_ends_with_its_time_or_with_the_run() -> None:
    pace, loop = Pace(), asyncio.get_running_loop()
    began_s = loop.time()
    await pace.wait(0.01)
    assert loop.time() - began_s >= 0.01 and not pace.over
    loop.call_soon(pace.end)
    async with asyncio.timeout(PATIENCE_S):
        await pace.wait(60.0)
        await pace.until(began_s + 60.0)
        await pace.ended()
    assert pace.over


class NotedScene(Scene):
    """Without processes; notes what its hubs are told."""

    def __init__(self, noted: list[int]) -> None:
        self.hubs = [NotedHub(noted)]  # type: ignore[list-item]


class NotedHub:
    def __init__(self, noted: list[int]) -> None:
        self.step_clock: Callable[[int], None] = noted.append


@pytest.mark.parametrize("early", [False, True])
async def test_every_fault_is_undone_also_in_a_run_that_ends_early(early: bool) -> None:
    noted: list[int] = []
    conductor = Conductor(NotedScene(noted), lambda line: None)
    if early:
        conductor = Conductor(NotedScene(noted), lambda line: conductor.pace.end())
    length_s = 60.0 if early else 0.01
    events = [
        Event(at_s=0.0, kind="step_clock", target=0, duration_s=length_s, value=3_600),
        Event(at_s=length_s, kind="step_clock", target=0, duration_s=length_s / 2, value=-3_600),
    ]
    async with asyncio.timeout(PATIENCE_S):
        await conductor.play(events, 2 * length_s)
    assert noted[0] == 3_600 and noted[-1] == 0
    assert sorted(noted) == ([0, 3_600] if early else [-3_600, 0, 0, 3_600])
    assert conductor.done["step_clock"] == (1 if early else 2)
