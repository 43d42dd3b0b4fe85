"""Faults are undone, and waits end, when a run is over: by its time, or earlier."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from tests.checker.findings import Report
from tests.checker.pace import Pace
from tests.checker.run import NEEDED, Conductor, check_coverage
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


class RecordedScene(Scene):
    """Without processes; its recorders' subscribers are back once they may be."""

    def __init__(self, back: asyncio.Event) -> None:
        self.recorders = [RecorderOf(one) for one in (back, asyncio.Event())]  # type: ignore[misc]
        self.recorders[1].back.set()  # type: ignore[attr-defined]  # has none that falls behind first


class RecorderOf:
    def __init__(self, back: asyncio.Event) -> None:
        self.back = back

    async def came_back(self) -> None:
        await self.back.wait()


@pytest.mark.parametrize("early", [False, True])
async def test_nothing_goes_wrong_before_who_fell_behind_first_is_back(early: bool) -> None:
    back = asyncio.Event()
    conductor = Conductor(RecordedScene(back), lambda line: None)
    stalling = asyncio.create_task(conductor.stall())
    await asyncio.sleep(0)
    assert not stalling.done()
    (conductor.pace.end if early else back.set)()
    async with asyncio.timeout(PATIENCE_S):
        await stalling
    assert conductor.done == ({} if early else {"stall_client": 1})
    report = Report()
    report.checked.update(NEEDED)
    check_coverage(report, [0, 0], conductor.done)
    assert [finding.evidence for finding in report.findings] == (
        [] if early else [{"names": ["too_slow", "resumed_after_4001"]}]
    )


def test_a_run_of_any_length_must_have_seen_a_4001() -> None:
    report = Report()
    report.checked.update([*NEEDED, "too_slow", "resumed_after_4001"])
    check_coverage(report, [0], Counter(stall_client=1, kill_worker=9))
    assert report.findings == []
