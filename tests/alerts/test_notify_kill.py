"""``kill -9`` of the process that sends, at any moment: nothing is lost, nothing that was acknowledged comes again."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.alerts.delivery import Receiver, alert, serving
from tests.conftest import ROOT

PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.alerts.delivery import Receiver, alert, delivering, escalated, firing, resolved, webhook

async def main(state, url, open_feeds, happening):
    receiver = Receiver()
    receiver.url = url
    deliveries = delivering(Path(state), webhook(receiver))
    changes = {"firing": firing, "escalated": escalated, "resolved": resolved}
    await deliveries.start([alert(feed) for feed in filter(None, open_feeds.split(","))])
    for what in filter(None, happening.split(",")):
        feed, change = what.split("=")
        deliveries.take(changes[change](alert(feed)))
    await deliveries.settled()
    print("settled", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def sender(
    state: Path, receiver: Receiver, *, open_feeds: str = "", happening: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that sends, killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(state), receiver.url, open_feeds, happening,
        stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def settled(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    assert await process.stdout.readline() == b"settled\n"


async def told(receiver: Receiver, count: int) -> list[tuple[str, str, str]]:
    requests = [await receiver.next() for _ in range(count)]
    return [(one.json["alert"]["feed"], one.json["change"], one.headers["webhook-id"]) for one in requests]


def key(feed: str, change: str) -> tuple[str, str, str]:
    return feed, change, f"{alert(feed).occurrence}-{change}"


async def test_what_was_not_acknowledged_comes_again_under_its_key(tmp_path: Path) -> None:
    async with serving() as receiver:
        receiver.answers.extend([200, "hang"])
        happening = "A/USD=firing,B/USD=firing,A/USD=resolved"
        async with sender(tmp_path, receiver, happening=happening):
            assert await told(receiver, 2) == [key("A/USD", "firing"), key("B/USD", "firing")]
            # Killed in the middle of the second, whose answer did not come.
        async with sender(tmp_path, receiver, open_feeds="B/USD") as process:
            assert await told(receiver, 2) == [key("B/USD", "firing"), key("A/USD", "resolved")]
            await settled(process)
        assert receiver.requests.empty()


async def test_what_was_acknowledged_does_not_come_again_and_its_end_does(tmp_path: Path) -> None:
    async with serving() as receiver:
        async with sender(tmp_path, receiver, happening="A/USD=firing,B/USD=firing,B/USD=resolved") as process:
            assert len(await told(receiver, 3)) == 3
            await settled(process)
        async with sender(tmp_path, receiver, open_feeds="A/USD", happening="A/USD=firing") as process:
            await settled(process)
            assert receiver.requests.empty()
        async with sender(tmp_path, receiver) as process:
            assert await told(receiver, 1) == [key("A/USD", "resolved")]
            await settled(process)
