"""Logs of a run without sockets or time: the product's hub, board and sessions, and clients that keep beliefs."""

from typing import Any

import orjson

from oracle_hub.core.hub import Batch
from oracle_hub.stream.board import Board
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import SUBPROTOCOL
from oracle_hub.stream.session import Session
from tests.checker.belief import Belief
from tests.checker.records import Asked, LogRecord, Opened, Received
from tests.checker.truth import Truth
from tests.server.stream_service import HubService


class FabricatedClient:
    """One connection with one subscription; what it is sent goes to ``log``."""

    def __init__(self, run: "FabricatedRun", name: str, resume: Belief | None, **options: Any) -> None:
        self._run = run
        self.name = name
        self.log: list[LogRecord] = []
        self.session = Session(run.board, peer=self)
        self.options = options
        self.belief = Belief(resume)
        self.unsent_bytes = 0
        self.log.append(Opened(client=name, connection=1, at_us=run.clock_us, url="ws://hub"))
        self._receive({"type": "hello", "protocol": SUBPROTOCOL, **run.standing})
        request = {"type": "subscribe", "id": 1, "feeds": ["*"], **options}
        if resume is not None:
            request["resume"] = resume.resume
        text = orjson.dumps(request).decode()
        self.log.append(Asked(client=name, connection=1, at_us=run.clock_us, text=text))
        self.receive(self.session.receive(text, run.clock_us, run.clock_us))

    def receive(self, data: bytes) -> None:
        """What the session sent: messages, one per line."""
        for line in data.splitlines():
            self._receive(orjson.loads(line))

    def tell(self, message: dict[str, Any]) -> None:
        """A message that comes from the server, not from its session."""
        self._receive(message)

    def _receive(self, message: dict[str, Any]) -> None:
        kind, run = message["type"], self._run
        if kind == "subscribed":
            self.belief.subscribed(message, run.service.instance)
        self.belief.take(message)
        told = self.belief.believed() if kind in ("snapshot", "heartbeat") else None
        text = orjson.dumps(message).decode()
        record = Received(client=self.name, connection=1, at_us=run.clock_us, text=text, believed=told)
        self.log.append(record)


class FabricatedRun:
    """A hub with a board in front of it. Every batch goes to the truth and to every client."""

    def __init__(self, *feeds: str) -> None:
        self.service = HubService(*(feeds or ("SOL/USD", "BTC/USD")))
        self.truth = Truth()
        self.truth.take(self.service.instance, self.service.first)
        self.clients: list[FabricatedClient] = []
        history = History(self.service.epoch, self.service.seq)
        self.board = Board(self.service.decisions, history, lambda data: data + b"\n", instance=self.service.instance)

    @property
    def clock_us(self) -> int:
        return self.service.clock_us

    @property
    def standing(self) -> dict[str, Any]:
        """What hello says of the run."""
        service = self.service
        held = {"instance": service.instance, "epoch": service.epoch, "seq": self.board.seq}
        return {**held, "config_hash": service.config_hash}

    def join(self, name: str, resume: Belief | None = None, **options: Any) -> FabricatedClient:
        """A client subscribes."""
        client = FabricatedClient(self, name, resume, **options)
        self.clients.append(client)
        return client

    def publish(self, batch: Batch) -> None:
        """A batch is journaled, and sent to everybody."""
        self.truth.take(self.service.instance, batch)
        publication = self.board.apply(batch, self.clock_us)
        served = {}
        for group, number, row in publication.in_step:
            served.update(dict.fromkeys(row.sessions, (group, number)))
        for client in self.clients:
            if client.session in served and not client.unsent_bytes:
                client.receive(publication.step_frame(*served[client.session]))
            elif client.session in served or client.session in publication.apart:
                client.receive(client.session.publish(publication, client.unsent_bytes))

    def tick(self, feed: str, mantissa: int) -> None:
        """A price, a millisecond later."""
        self.publish(self.service.tick(feed, mantissa))

    def heartbeat(self) -> None:
        """Flush and heartbeat for everybody."""
        for client in self.clients:
            client.receive(client.session.flush(self.clock_us, client.unsent_bytes))
            client.receive(client.session.heartbeat(self.clock_us, client.unsent_bytes))

    def expire(self) -> None:
        """Tell which prices are too old for subscriptions with a max age of their own."""
        ended = self.board.pop_ended(self.clock_us)
        for client in self.clients:
            client.receive(client.session.expire(ended, self.clock_us, client.unsent_bytes))


def fabricated_run() -> FabricatedRun:
    """Clients of every kind, prices, a stall, a resume, and the end of leases."""
    run = FabricatedRun()
    first = run.join("all", mode="all", detail="full")
    run.join("latest")
    run.join("sol", feeds=["SOL/USD"], max_hz=2)
    run.join("young", max_age_ms=1_500)
    slow = run.join("slow")
    for number in range(6):
        run.tick("SOL/USD", 15_000_000_000 + number)
        run.tick("BTC/USD", 6_000_000_000_000 - number)
        slow.unsent_bytes = 10_000 if 1 <= number <= 3 else 0
        run.heartbeat()
    run.join("back", resume=first.belief, mode="all", detail="full")
    run.tick("SOL/USD", 15_000_000_100)
    resumed = Belief(first.belief)
    resumed.seq -= 4
    run.join("merged", resume=resumed)
    for _ in range(2):
        lease_us = min(one.valid_until_us or 0 for one in run.service.decisions.values() if one.valid_until_us)
        batch = run.service.wait(lease_us)
        assert batch is not None
        run.publish(batch)
        run.heartbeat()
    return run
