"""The checker: a function of what clients recorded and what the journals replay to. No clock, no socket.

>>> report = check(logs, truth, anchors)
>>> report.passed, report.findings
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from tests.checker.acting import check_act
from tests.checker.configured import ConfiguredCheck
from tests.checker.findings import Finding, Report
from tests.checker.records import Acted, Asked, Believed, ClockAnchor, Closed, LogRecord, Opened, Received, Woke
from tests.checker.subscription import Agreement, Complain, Message, SubscriptionCheck
from tests.checker.truth import Run, Truth

LONGEST_STALL_US = 20_000_000
"""Who did not read for longer may have been cut off: so long after 4001 was sent a server waits for it to be read."""
TOO_SLOW = 4001


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
        self._cut: tuple[str, int, dict[str, Any]] | None = None
        """A stall that ended without a close frame: on which instance, in which epoch, and the evidence."""
        self._resumes = False
        """Its last connection was closed with 4001."""
        self._reset()

    def _reset(self) -> None:
        self._frame = 0
        self._instance = ""
        self._epoch = 0
        self._worker = False
        self._woke: Woke | None = None
        self._last_us = 0
        self._longest_gap_us = 0
        """Between two records: for so long it did not read, or was not told anything."""
        self._configured: ConfiguredCheck | None = None
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
        if self._last_us:
            self._longest_gap_us = max(self._longest_gap_us, record.at_us - self._last_us)
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
        elif isinstance(record, Woke):
            self._woke = record
            self._report.checked["woke"] += 1
        elif isinstance(record, Closed):
            self._report.checked["disconnects"] += 1
            self._closed(record)
        self._last_us = record.at_us

    def _closed(self, record: Closed) -> None:
        self._resumes = record.code == TOO_SLOW
        if self._resumes:
            self._report.checked["too_slow"] += 1
            if not any(one.replays for one in self._subscriptions.values()):
                self._complain("goodbye", "4001 without a subscription in mode all", why=record.why)
        woke, cut = self._woke, record.by_peer and record.code is None
        if cut and woke is not None and self._longest_gap_us < LONGEST_STALL_US and not self._worker:
            self._cut = self._instance, self._epoch, {"stuck_us": woke.stuck_us, "why": record.why}

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
        elif kind == "config":
            self._config(message)
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
        self._worker = "worker" in message
        run = self._truth.runs.get((self._instance, self._epoch)) or Run()
        self._configured = ConfiguredCheck(message, run, self._complain)
        if self._cut is not None and self._cut[:2] == (self._instance, self._epoch):  # the hub lived on
            self._complain("goodbye", "cut off without a word after a stall", **self._cut[2])
        self._cut = None

    def _config(self, message: Message) -> None:
        if self._configured is None or message["epoch"] != self._epoch:
            self._complain("config", "a config of another epoch, or before hello", config=message, epoch=self._epoch)
            return
        self._configured.told(message, self._complain)

    def _subscribed(self, message: Message) -> None:
        request = self._requests.get(message["id"])
        if request is None:
            self._complain("protocol", "an answer to nothing", answer=message)
        elif message["sub"] is not None:
            self._report.checked["resumed_after_4001"] += self._resumes and bool(message["recovered"])
            self._resumes = False
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
            if self._configured is not None:
                self._configured.news(message, self._complain)
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
