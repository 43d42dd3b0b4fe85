"""An emulator on a clock that moves when told to."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest

from feeds.emulator.emulator import Emulator, EmulatorSettings

START_US = 1_795_000_000_250_000
"""A quarter of a second after a full one."""


class Stage:
    """An emulator and its clock."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self.now_us = START_US
        self.emulator = Emulator(settings=settings, now_us=lambda: self.now_us, drive=False)
        self.world = self.emulator.world

    def advance(self, seconds: float) -> None:
        """Move the clock and let the emulator tell what happened."""
        self.now_us += round(seconds * 1_000_000)
        self.emulator.tick()


MakeStage: TypeAlias = Callable[[EmulatorSettings], Awaitable[Stage]]


@pytest.fixture
async def make_stage() -> AsyncIterator[MakeStage]:
    """Start an emulator with given settings; all are stopped at the end."""
    stages: list[Stage] = []

    async def make(settings: EmulatorSettings) -> Stage:
        stage = Stage(settings)
        stages.append(stage)
        await stage.emulator.start()
        return stage

    yield make
    for stage in stages:
        await stage.emulator.stop()


@pytest.fixture
async def stage(make_stage: MakeStage) -> Stage:
    """A walk with seed 1."""
    return await make_stage(EmulatorSettings())
