"""How long a worker may say heartbeats for a hub that it does not hear."""

from oracle_hub.app.worker import QUIET_S, Worker
from oracle_hub.server.feed_pipe import Tick, pack

HOUR_US = 3_600_000_000
QUIET_US = int(QUIET_S * 1_000_000)


async def test_a_worker_is_current_for_a_second_after_the_hubs_last_word_whatever_the_clock_does() -> None:
    worker = Worker()
    assert not worker.current(worker.now_us())  # it has heard nothing yet
    said_us = worker.now_us()
    worker.data_received(pack(Tick(0, said_us)))
    assert worker.current(said_us + QUIET_US) and not worker.current(said_us + QUIET_US + 1)
    worker.data_received(pack(Tick(-HOUR_US, said_us - HOUR_US + 5)))  # set back: the word is no older for it
    assert worker.current(said_us - HOUR_US + 5 + QUIET_US) and not worker.current(said_us - HOUR_US + 6 + QUIET_US)
    worker.data_received(pack(Tick(-HOUR_US, said_us - HOUR_US + 2)))  # and none makes it younger
    assert not worker.current(said_us - HOUR_US + 6 + QUIET_US)
    assert not worker.ended.is_set()
