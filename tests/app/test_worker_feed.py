"""A worker that does not read, does not come up, or talks nonsense: bounded, named, and no harm to the hub."""

import asyncio
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable

import pytest

from oracle_hub.app.worker_feed import MAX_UNREAD_BYTES, WorkerFeed
from oracle_hub.app.workers import Workers, reserve
from oracle_hub.clock import AnchoredClock, ManualClock, SystemClock
from oracle_hub.core.hub import Batch
from oracle_hub.errors import ConfigError
from oracle_hub.server.feed_pipe import Answer, Ask, Live, Recent, Report, Start, Tick, facts_of, pack
from oracle_hub.server.service import ServerSettings
from tests.patience import PATIENCE_S
from tests.server.stream_service import HubService


class Origin:
    """What a worker is fed from, with a past of so many bytes in frames of 64 KiB."""

    def __init__(self, n_frames: int = 0) -> None:
        self.recent = Recent(0)
        self.n_frames = 0
        self.more(n_frames)
        self.stood = 0

    def more(self, n_frames: int) -> None:
        for _ in range(n_frames):
            self.n_frames += 1
            self.recent.append(Batch(1, self.n_frames, 1, "", ()), bytes(65_536))

    def how_things_stand(self, number: int) -> bytes:
        self.stood += 1
        return b"live"

    def answer(self, question: Ask) -> Awaitable[Answer]:
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        done.set_result(Answer(question.number, True, body=question.feed.encode()))
        return done


class Scene:
    """A feed, a process that reads nothing of it, and the far end of its pipe."""

    def __init__(self, feed: WorkerFeed, far: socket.socket) -> None:
        self.feed = feed
        self.far = far

    async def read(self, n_bytes: int) -> bytes:
        """Exactly so many bytes of the feed."""
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(PATIENCE_S):
            while len(data) < n_bytes:
                piece = await loop.sock_recv(self.far, min(65_536, n_bytes - len(data)))
                assert piece, "the feed ended"
                data += piece
        return data

    async def ended(self) -> int:
        """The process's end."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.feed.process.wait()


@pytest.fixture
async def origin() -> Origin:
    return Origin()


@pytest.fixture
async def scene(origin: Origin) -> AsyncIterator[Scene]:
    near, far = socket.socketpair()
    for one in (near, far):
        one.setblocking(False)
    process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
    loop = asyncio.get_running_loop()
    _, feed = await loop.create_unix_connection(lambda: WorkerFeed(1, process, origin), sock=near)
    yield Scene(feed, far)
    far.close()
    if feed.running:
        process.kill()
    await process.wait()
    feed.close()


async def test_the_past_is_told_as_it_is_read_and_what_is_new_only_then(scene: Scene, origin: Origin) -> None:
    origin.more(64)  # 4 MiB
    scene.feed.begin(b"start")
    assert origin.stood == 0 and not scene.feed.live
    assert scene.feed.unread_bytes < 1 << 20  # most of the past waits with the hub, once for all workers
    data = await scene.read(5 + 64 * 65_536 + 4)
    assert (data[:5], data[-4:], origin.stood, scene.feed.live) == (b"start", b"live", 1, True)


async def test_a_worker_that_leaves_too_much_unread_is_killed(scene: Scene) -> None:
    scene.feed.begin(b"start")
    n_sent = 0
    while scene.feed.live:
        scene.feed.send(bytes(65_536))
        n_sent += 1
    assert MAX_UNREAD_BYTES // 65_536 <= n_sent <= MAX_UNREAD_BYTES // 65_536 + 16  # what the kernel held is beside it
    assert await scene.ended() == -9


async def test_a_worker_that_reads_the_past_too_slowly_is_killed(scene: Scene, origin: Origin) -> None:
    origin.recent = Recent(0, max_batches=20)
    origin.more(20)
    scene.feed.begin(b"start")
    origin.more(40)
    async with asyncio.timeout(PATIENCE_S):
        while not scene.feed.may_end:
            await asyncio.get_running_loop().sock_recv(scene.far, 65_536)
            await asyncio.sleep(0)
    assert await scene.ended() == -9 and not scene.feed.live


async def test_what_a_worker_says_is_kept_and_questions_are_answered(scene: Scene) -> None:
    scene.feed.begin(b"")
    await scene.read(4)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(scene.far, pack(Report((("oraclehub_clients", (), 3.0),))) + pack(Ask(7, "explain", "X")))
    expected = pack(Answer(7, True, body=b"X"))
    assert await scene.read(len(expected)) == expected
    assert scene.feed.samples == (("oraclehub_clients", (), 3.0),)


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", pack(Tick(1, 2))])
async def test_a_worker_that_talks_nonsense_is_killed(scene: Scene, nonsense: bytes) -> None:
    scene.feed.begin(b"")
    await asyncio.get_running_loop().sock_sendall(scene.far, nonsense)
    assert await scene.ended() == -9


async def test_a_worker_that_closes_its_pipe_and_goes_on_is_killed(scene: Scene) -> None:
    scene.feed.begin(b"")
    scene.far.close()
    assert await scene.ended() == -9


async def test_workers_that_do_not_come_up_are_named() -> None:
    clock = AnchoredClock(ManualClock())
    failing = (sys.executable, "-c", "raise SystemExit(3)")
    workers = Workers(
        HubService("SOL/USD"), ServerSettings(port=0), 2, lambda: clock, failed=lambda task: None, command=failing
    )
    with pytest.raises(ConfigError, match=r"^server\.workers: worker \d ended \(exit status 3\); the log has"):
        await workers.start()
    assert all(feed.process.returncode is not None for feed in workers._feeds.values())


async def test_a_worker_started_by_hand_says_how_it_is_started() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oracle_hub.app.worker"),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await process.communicate()
    assert (process.returncode, error.count(b"\n")) == (2, 1) and b"--workers N" in error


async def test_a_worker_that_is_told_nonsense_ends_with_one_line() -> None:
    near, far = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oracle_hub.app.worker"), stdin=far.fileno(), stderr=asyncio.subprocess.PIPE
    )
    far.close()
    near.sendall(b"\xff\xff\xff\xff")
    _, error = await process.communicate()
    near.close()
    assert process.returncode == 1
    assert error.count(b"\n") == 1 and b"pipe: a message of 4294967295 bytes" in error


async def test_a_worker_that_is_behind_its_hub_says_goodbye_and_not_before_it_shows_anything() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oracle_hub.app.worker"), stdin=far.fileno(), stderr=asyncio.subprocess.PIPE
    )
    far.close()
    hub, clock = HubService("SOL/USD"), AnchoredClock(SystemClock())
    settings = ServerSettings(port=0, worker=1, reuse_port=True)
    start = pack(Start(worker=1, log_level=logging.INFO, offset_us=clock.offset_us))
    live = pack(Live(settings, facts_of(hub), hub.seq, tuple(hub.decisions.values())))
    loop = asyncio.get_running_loop()
    waited = pack(Tick(clock.offset_us, clock.now_us() - 5_000_000))  # for the process, which was slow to start
    await loop.sock_sendall(near, start + live + waited)
    said = b""
    async with asyncio.timeout(PATIENCE_S):
        while b"report" not in said or b"listening" not in said:
            said += await loop.sock_recv(near, 65_536)
    await loop.sock_sendall(near, pack(Tick(clock.offset_us, clock.now_us() - 4_000_000)))
    _, error = await process.communicate()
    near.close()
    (behind_s,) = re.findall(rb"worker 1: (\d+\.\d) s behind the hub; ending", error)
    assert process.returncode == 0 and float(behind_s) >= 4.0


def test_a_port_is_held_for_workers_and_against_others() -> None:
    with reserve("127.0.0.1", 0) as held:
        address = held.getsockname()
        with socket.socket() as listener:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                listener.setsockopt(socket.SOL_SOCKET, option, 1)
            listener.bind(address)
            listener.listen()
            with socket.create_connection(address), pytest.raises(OSError, match="in use"):
                reserve("127.0.0.1", address[1])
