"""``oracle-hub tail`` beside a hub whose clock is set by hand: what a pipe gets, and when."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.client.client_stage import HubStage
from tests.patience import PATIENCE_S

SOL, BTC = "SOL/USD", "BTC/USD"


@asynccontextmanager
async def tail(url: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, with its output in a pipe."""
    hub = url.replace("ws://", "http://").removesuffix("/v1/stream")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "oracle_hub.cli", "tail", *arguments, "--url", hub, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode().split()


async def test_a_pipe_gets_a_line_for_each_decision_as_it_comes() -> None:
    stage = await HubStage(SOL, BTC).start()
    async with tail(stage.url, SOL) as process:
        title = await line(process)
        assert title[:2] == ["oracle-hub", stage.service.instance[:8]]
        # The next decision is made when the line of the one before was read, so nothing waits for an end.
        for mantissa, price in (
            (None, "150.00000000"),
            (15_100_000_000, "151.00000000"),
            (15_200_000_000, "152.00000000"),
        ):
            if mantissa is not None:
                stage.tick(BTC, mantissa)
                stage.tick(SOL, mantissa)
            at, feed, state, shown, source, rule, reason, *_ = await line(process)
            assert (len(at.split(":")), feed, state, shown) == (3, SOL, "live", price)
            decision = stage.service.decisions[SOL]
            assert (source, rule, reason) == (decision.source, decision.rule, decision.reason)
    await stage.server.stop("the test is over")


async def test_a_pipe_ends_after_as_many_updates_as_were_asked_for() -> None:
    stage = await HubStage(SOL, BTC).start()
    async with tail(stage.url, "--count", "1") as process:
        lines = [await line(process) for _ in range(3)]
        assert {one[1] for one in lines[1:]} == {SOL, BTC}  # what there is
        stage.tick(BTC, 15_300_000_000)
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            rest = await process.stdout.read()
            assert await process.wait() == 0
        (told,) = rest.decode().splitlines()
        assert told.split()[1:4] == [BTC, "live", "153.00000000"]
    await stage.server.stop("the test is over")
