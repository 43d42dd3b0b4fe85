"""Hubs in processes of their own, and an emulator that outlives them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from feeds.emulator.emulator import Emulator, EmulatorSettings
from tests.system.process import PROGRAM, ROOT, HubProcess, environment, patiently

Launch: TypeAlias = Callable[..., Awaitable[HubProcess]]


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    """Start a hub: ``await launch(*arguments, config=TEXT, state=NAME, env={…})``. All are ended afterwards."""
    hubs: list[HubProcess] = []

    async def start(
        *arguments: object,
        config: str | None = None,
        state: str = "state",
        env: dict[str, str] | None = None,
        charts: bool = False,
    ) -> HubProcess:
        given = list(map(str, arguments))
        if config is not None:
            (tmp_path / "hub.toml").write_text(config)
            given += ["--config", str(tmp_path / "hub.toml")]
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *("run", "--json", "--port", "0", "--state", str(tmp_path / state)),
            *(() if charts else ("--no-charts",)),
            *given,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment(env),
        )
        hubs.append(HubProcess(process, tmp_path / state))
        return await hubs[-1].started()

    yield start
    for hub in hubs:
        await hub.clean_up()


@pytest.fixture
async def chain() -> AsyncIterator[Emulator]:
    """The chain and Hermes, which go on while hubs come and go. Its clock is this machine's."""
    emulator = Emulator(settings=EmulatorSettings(seed=7), now_us=lambda: time.time_ns() // 1_000)
    await emulator.start()
    yield emulator
    await patiently(emulator.stop(), "the emulator's end")
