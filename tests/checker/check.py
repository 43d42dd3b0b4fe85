"""The checker: a function of what clients recorded and what the journals replay to. No clock, no socket.

>>> report = check(logs, truth, anchors)
>>> report.passed, report.findings
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from tests.checker.acting import check_act
from tests.checker.findings import Finding, Report
from tests.checker.records import Acted, Asked, Believed, ClockAnchor, Closed, LogRecord, Opened, Received
from tests.checker.subscription import Agreement, Complain, Message, SubscriptionCheck
from tests.checker.truth import Run, Truth


class ClientCheck:
    """Follows one client through its connections."""

    def __init__(self, name: str, truth: Truth, anchors: Sequence[ClockAnchor], report: Report, agreed: Agreement):
        self._name = name
        self._truth = truth
        self._anchors = anchors
        self._report = report
        self._agreed = agreed
        self._reached: dict[str, tuple[int, int]] = {}
        """By instance: the greatest (epoch, seq) of a snapshot or update."""
        self._connection = 0
        self._reset()

    def _reset(self) -> None:
        self._frame = 0
        self._instance = ""
        self._epoch = 0
        self._requests: dict[Any, Message] = {}
        self._subscriptions: dict[int, SubscriptionCheck] = {}

    def _complain(self, rule: str, message: str, **evidence: Any) -> None:
        self._report.add(Finding(rule, self._name, self._connection, self._frame, message, evidence))

    def take(self, record: LogRecord) -> None:
        """The client's next record."""
        if isinstance(record, Acted):
            self._connection = record.connection
            late_us = check_act(record, self._truth, self._anchors, self._complain)
            if late_us is not None:
                self._report.note_act(late_us)
            self._report.checked["acts"] += 1
            return
        if isinstance(record, Opened):
            self._reset()
            self._connection = record.connection
            self._report.checked["connections"] += 1
        elif isinstance(record, Asked):
            request = orjson.loads(record.text)
            self._requests[request.get("id")] = request
        elif isinstance(record, Received):
            self._frame += 1
            self._report.checked["frames"] += 1
            self._received(record)
        elif isinstance(record, Closed):
            self._report.checked["disconnects"] += 1

    def _received(self, record: Received) -> None:
        try:
            message: Message = orjson.loads(record.text)
            kind = message["type"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self._complain("protocol", "a message that is not one", text=record.text[:500])
            return
        self._report.checked[kind] += 1
        if kind == "hello":
            self._hello(message)
        elif kind == "subscribed":
            self._subscribed(message)
        elif kind in ("snapshot", "update", "heartbeat"):
            self._stream(kind, message, record.believed)
        elif kind == "error":
            self._complain("protocol", "a well-formed request was refused", error=message)

    def _hello(self, message: Message) -> None:
        self._instance, self._epoch = message["instance"], message["epoch"]
        reached = self._reached.get(self._instance)
        if reached is not None and (self._epoch, message["seq"]) < reached:
            self._complain("order", "hello stands before what was received", hello=message["seq"], reached=reached)
        if (self._instance, self._epoch) not in self._truth.runs:
            self._complain("journal", "no journal has this run", instance=self._instance, epoch=self._epoch)

    def _subscribed(self, message: Message) -> None:
        request = self._requests.get(message["id"])
        if request is None:
            self._complain("protocol", "an answer to nothing", answer=message)
        elif message["sub"] is not None:
            run = self._truth.runs.get((self._instance, self._epoch)) or Run()
            self._subscriptions[message["sub"]] = SubscriptionCheck(
                (self._instance, self._epoch), request, message, run, self._report, self._agreed
            )

    def _stream(self, kind: str, message: Message, believed: Believed | None) -> None:
        subscription = self._subscriptions.get(message["sub"])
        if subscription is None:
            self._complain("protocol", f"a {kind} for a subscription that does not exist", sub=message["sub"])
            return
        if message["epoch"] != self._epoch:
            self._complain("order", f"a {kind} of another epoch", epoch=message["epoch"], hello=self._epoch)
            return
        if kind == "heartbeat":
            subscription.heartbeat(message, self._complain)
        else:
            self._advance(kind, message)
            subscription.news(message, self._complain, self._where)
        if believed is not None:
            subscription.belief(believed, message, self._complain)

    @property
    def _where(self) -> str:
        return f"{self._name}, connection {self._connection}, frame {self._frame}"

    def _advance(self, kind: str, message: Message) -> None:
        at = (self._epoch, message["seq"])
        reached = self._reached.get(self._instance, (0, 0))
        if kind == "snapshot" and at < reached:
            self._complain("order", "a snapshot from before what was received", snapshot=at, reached=reached)
        self._reached[self._instance] = max(at, reached)


def check_truth(truth: Truth, report: Report) -> None:
    """What must hold in the journals alone."""

    def complain(rule: str, message: str, **evidence: Any) -> None:
        report.add(Finding(rule, "", 0, 0, message, evidence))

    for objection in truth.objections:
        complain("journal", objection)
    report.checked["published"] += truth.published
    latest: dict[tuple[str, str, str], int] = {}
    for (instance, epoch), run in sorted(truth.runs.items()):
        report.checked["batches"] += len(run.now_us)
        if run.first_seq != 1:
            complain("journal", "a run that does not start with batch 1", instance=instance, epoch=epoch)
        for feed in run.feeds:
            _check_feed(instance, epoch, run, feed, latest, complain)


def _check_feed(
    instance: str,
    epoch: int,
    run: Run,
    feed: str,
    latest: dict[tuple[str, str, str], int],
    complain: Complain,
) -> None:
    held_us = 0
    for number, decided in enumerate(run.history(feed)):
        if decided.decided_us < held_us:  # our clock was set back: what is held was forgotten
            for key in [key for key in latest if key[:2] == (instance, feed)]:
                del latest[key]
        held_us = decided.decided_us
        if decided.price is not None and (number == 0 or decided.warming):
            complain("warmup", "a price before the warm-up was over", epoch=epoch, decided=str(decided))
        for source, published_us in decided.published_us.items():
            at = (instance, feed, source)
            if published_us < latest.get(at, 0):
                complain("publish_time", "a publish time went back", epoch=epoch, source=source, decided=str(decided))
            latest[at] = published_us


def check(
    logs: Iterable[Iterable[LogRecord]],
    truth: Truth,
    anchors: Sequence[ClockAnchor] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Check logs (each of one recorder, in order, of any number of clients) against the truth.

    ``anchors`` say what the hubs' clocks were; without them acts are not judged by time.
    """
    report, agreed = Report(), Agreement()
    check_truth(truth, report)
    for number, log in enumerate(logs, 1):
        clients: dict[str, ClientCheck] = {}
        for record in log:
            client = clients.get(record.client)
            if client is None:
                client = clients[record.client] = ClientCheck(record.client, truth, anchors, report, agreed)
            client.take(record)
        report.checked["clients"] += len(clients)
        progress(f"log {number}: {len(clients)} clients, {report.checked['frames']} frames so far")
    return report
