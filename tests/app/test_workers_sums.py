"""What the hub's side of several workers adds up, deals out and tells, without their processes."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from oracle_hub.app.worker_feed import WorkerFeed
from oracle_hub.app.workers import Workers
from oracle_hub.clock import AnchoredClock, ManualClock
from oracle_hub.server.feed_pipe import Changed, Live, Published, Renew, Tick, ToWorker, Unpacker
from oracle_hub.server.service import ServerSettings
from oracle_hub.server.tokens import Token
from tests.server.stream_service import HubService

TOKEN = Token(name="desk", digest=bytes(32), max_connections=5)
SETTINGS = ServerSettings(max_clients=10, max_clients_per_ip=1, tokens=(TOKEN,))


class Crew:
    """Three workers, of which the first is here: a process that does nothing, and what it is told."""

    def __init__(self) -> None:
        self.hub = HubService("SOL/USD", "BTC/USD")
        self.wall = ManualClock()
        self.clock = AnchoredClock(self.wall)
        self.workers = Workers(self.hub, SETTINGS, 3, lambda: self.clock, failed=lambda task: None)
        self._unpacker: Unpacker[ToWorker] = Unpacker(ToWorker)

    async def start(self) -> "Crew":
        near, self.far = socket.socketpair()
        for one in (near, self.far):
            one.setblocking(False)
        process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
        loop = asyncio.get_running_loop()
        _, self.feed = await loop.create_unix_connection(lambda: WorkerFeed(1, process, self.workers), sock=near)
        self.workers._feeds[1] = self.feed
        self.feed.begin(b"")
        return self

    async def told(self) -> list[ToWorker]:
        """What it was told since the last call."""
        return self._unpacker.feed(await asyncio.get_running_loop().sock_recv(self.far, 1 << 20))

    async def end(self) -> None:
        self.feed.kill("is not needed any more")
        await self.feed.process.wait()
        self.far.close()


@pytest.fixture
async def crew() -> AsyncIterator[Crew]:
    crew = await Crew().start()
    yield crew
    await crew.end()


async def test_limits_on_connections_are_dealt_out_rounded_up(crew: Crew) -> None:
    (tick, live) = await crew.told()
    assert isinstance(tick, Tick) and isinstance(live, Live)
    share = live.settings
    assert (share.worker, share.reuse_port) == (1, True)
    assert (share.max_clients, share.max_clients_per_ip, share.tokens[0].max_connections) == (4, 1, 2)


async def test_a_clock_that_was_set_anew_is_told_before_the_batch_that_came_of_it(crew: Crew) -> None:
    await crew.told()
    kinds: list[list[type]] = []
    offsets: list[int] = []
    for step_us in (0, 0, 3_600_000_000):
        crew.wall.step_wall(step_us)
        crew.clock.check()
        crew.wall.advance(crew.clock.reanchor_after_us)
        crew.clock.check()
        crew.workers.publish(crew.hub.tick("SOL/USD", 15_000_000_000))
        told = await crew.told()
        kinds.append([type(message) for message in told])
        offsets += [message.offset_us for message in told if isinstance(message, Tick)]
    assert kinds == [[Tick, Published], [Published], [Tick, Published]]
    assert offsets[1] - offsets[0] == 3_600_000_000


async def test_facts_and_tokens_are_told_and_kept_for_workers_that_come_later(crew: Crew) -> None:
    await crew.told()
    other = Token(name="other", digest=bytes(range(32)), max_connections=7)
    crew.workers.renew(ServerSettings(tokens=(other,), require_token=True, max_clients=99))
    crew.hub.simulated = {"tape": "x"}
    crew.workers.config_changed()
    messages = await crew.told()
    (renew,) = [message for message in messages if isinstance(message, Renew)]
    (changed,) = [message for message in messages if isinstance(message, Changed)]
    assert [(one.name, one.max_connections) for one in renew.settings.tokens] == [("other", 3)]
    assert (renew.settings.require_token, renew.settings.max_clients) == (True, 4)  # the rest is read at start
    assert changed.reloaded is True and changed.facts.simulated == {"tape": "x"}
    later = Unpacker[ToWorker](ToWorker).feed(crew.workers.how_things_stand(2))[-1]
    assert isinstance(later, Live)
    assert later.settings.tokens == renew.settings.tokens and later.facts == changed.facts


async def test_what_must_not_be_told_again_is_no_past_for_a_later_worker(crew: Crew) -> None:
    await crew.told()
    for mantissa in (15_000_000_000, 15_000_000_001):
        crew.workers.publish(crew.hub.tick("SOL/USD", mantissa))
    recent = crew.workers.recent
    assert recent.first_seq < recent.last_seq
    crew.workers.config_changed(forget_past=True)
    assert (recent.first_seq, recent.size_bytes) == (recent.last_seq, 0)
    assert recent.after(recent.last_seq, 1) == (recent.last_seq, b"")
    (changed,) = [message for message in await crew.told() if isinstance(message, Changed)]
    assert (changed.reloaded, changed.forget_past) == (True, True)


async def test_counts_are_added_up_and_do_not_fall_when_a_worker_ends(crew: Crew) -> None:
    counted = (
        ("oraclehub_clients", (), 3.0),
        ("oraclehub_sent_frames", (), 100.0),
        ("oraclehub_refused_clients", ("server_full",), 2.0),
        ("oraclehub_most_unsent_bytes", ("price",), 700.0),
    )
    workers, feed = crew.workers, crew.feed
    feed.samples = counted
    workers._retire(feed)  # an earlier life
    feed.samples = counted
    workers._feeds[2] = feed  # and one more worker with the same counts
    found = {(name, tuple(labels)): value for name, labels, value in workers.samples()}
    assert found["oraclehub_clients", ()] == 6
    assert found["oraclehub_sent_frames", ()] == 300
    assert found["oraclehub_refused_clients", ("server_full",)] == 6
    assert found["oraclehub_most_unsent_bytes", ("price",)] == 700
    assert [found["oraclehub_worker_clients", (number,)] for number in "123"] == [3, 3, 0]
    assert [found["oraclehub_worker_up", (number,)] for number in "123"] == [0, 0, 0]  # none has said that it listens
    del workers._feeds[2]
