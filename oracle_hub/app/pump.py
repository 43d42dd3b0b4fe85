"""The live loop around the engine: journal first, decide at the end of the loop turn, publish last.

Every call into the engine is preceded by its record, so the order of the journal is the order of calls, and a replay
that reads it makes the same ones. Frames, step mark and digest are written to the file before the batch is handed on.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from oracle_hub.alerts.alert import Transition
from oracle_hub.app.checkpoints import Checkpoints
from oracle_hub.app.engine import Engine, Lineup
from oracle_hub.clock import AnchoredClock
from oracle_hub.core.hub import Batch, batch_digest
from oracle_hub.core.selector import Reason
from oracle_hub.core.source import Effect, Frame, Link
from oracle_hub.ingest.solana_rpc import SolanaRpc
from oracle_hub.journal.records import ClockReading, Config, LinkEvent, Published, RunStart, Step
from oracle_hub.journal.writer import JournalWriter
from oracle_hub.metrics import Latencies

log = logging.getLogger(__name__)

STANDSTILL_US = 5_000_000
"""A hub that has not looked at its prices for so long gives no sign of life. It looks four times a second."""


class Pump:
    """Takes what drivers bring, and calls ``publish(batch, journaled)`` with what was decided.

    ``carry_out(link, effects)`` is called with effects for links other than the one that brought the frame.
    """

    def __init__(
        self,
        engine: Engine,
        clock: AnchoredClock,
        *,
        journal: JournalWriter | None,
        journal_required: bool,
        publish: Callable[[Batch, bool], None],
        latencies: Latencies,
        checkpoint_interval_us: int = 60_000_000,
    ) -> None:
        self.engine = engine
        engine.received = latencies.received
        self.clock = clock
        self.journal = journal
        self.journal_required = journal_required
        self.latencies = latencies
        self.decisions: Counter[tuple[str, str, str]] = Counter()
        """Published decisions by (feed, rule, source)."""
        self.carry_out: Callable[[str, Sequence[Effect]], None] = lambda link, effects: None
        self.tell: Callable[[Sequence[Transition]], None] = lambda transitions: None
        """Called with alerts that begin, get worse or end."""
        self.clock_set: Callable[[], None] = lambda: None
        """Called when our clock was set anew: deadlines that others hold are instants of the old one."""
        self.skew_us = 0
        self.skewed = False
        self._stepped_us = clock.clock.monotonic_us()
        self._publish = publish
        self._journal_good = True
        self._checkpoints = None if journal is None else Checkpoints(journal, clock.clock, checkpoint_interval_us)
        self._link_ids: dict[str, int] = {}
        self._first_received_us: int | None = None
        self._scheduled: asyncio.Handle | None = None
        self._lease_timer: asyncio.TimerHandle | None = None
        self._alert_timer: asyncio.TimerHandle | None = None
        self._lease_us: int | None = None
        self._alert_us: int | None = None
        self._stopped = False

    def begin(self, run: RunStart, started_us: int) -> None:
        """Write down that the run begins, and with what configuration. To be called first."""
        if self._checkpoints is not None:
            self._checkpoints.begin(run, started_us)
        if self.journal is not None:
            lineup = self.engine.lineup
            self.journal.append(run)
            self.journal.append(Config(lineup.config_text, lineup.config_hash, started_us))

    # What drivers call (:class:`oracle_hub.ingest.supervisor.Sink`).

    def on_connect(self, link: Link, now_us: int) -> Sequence[Effect]:
        """A link connects, for the first time or again."""
        self._record(LinkEvent(link.name, "connect", now_us))
        effects = self.engine.connect(link.name, now_us)
        self._after(now_us)
        return effects

    def on_frame(self, link: Link, frame: Frame, received_us: int) -> Sequence[Effect]:
        """A frame arrived; ``received_us`` was stamped before anything looked into it."""
        journal = self.journal
        if journal is not None:
            link_id = self._link_ids.get(link.name)
            if link_id is None:
                link_id = self._link_ids[link.name] = journal.link(link.name)
            # A node's text names its own subscription or request: no other link brings the same.
            journal.frame(link_id, received_us, frame, unique=isinstance(link, SolanaRpc))
        effects = self.engine.frame(link.name, frame, received_us)
        if self._first_received_us is None:
            self._first_received_us = received_us
        self._after(received_us)
        return effects

    def on_timer(self, link: Link, now_us: int) -> Sequence[Effect]:
        """A link's own deadline came."""
        self._record(LinkEvent(link.name, "timer", now_us))
        effects = self.engine.timer(link.name, now_us)
        self._after(now_us)
        return effects

    def on_disconnect(self, link: Link, now_us: int, reason: str) -> None:
        """A link lost its stream. Prices hold until their leases end."""
        self._record(LinkEvent(link.name, "disconnect", now_us, reason))
        self.engine.disconnect(link.name, now_us, reason)
        self._schedule()

    # What the app calls.

    def check_clock(self) -> None:
        """Compare the clocks; give no price while they are apart, start over once the wall clock is the new anchor."""
        state = self.clock.check()
        self.skew_us = state.skew_us
        if state.reanchored:
            now_us = self.clock.now_us()
            log.warning("clock re-anchored: moved by %+.3f s; warming up again", state.skew_us / 1e6)
            self._record(ClockReading(self.clock.clock.wall_us(), now_us, "reanchor"))
            self.skewed = False
            self.engine.reanchor(now_us)
            self.clock_set()
        elif state.skewed is not self.skewed:
            log.warning("clock skew %s (wall clock %+.3f s from ours)", _began(state.skewed), state.skew_us / 1e6)
            wall_us, now_us = self.clock.clock.wall_us(), self.clock.now_us()
            self._record(ClockReading(wall_us, now_us, "skew" if state.skewed else "ok"))
            self.skewed = state.skewed
            self.engine.skew(state.skewed, now_us)
        self._schedule()

    def reload(self, lineup: Lineup) -> None:
        """Go on with another line-up from the next step on."""
        now_us = self.clock.now_us()
        self._record(Config(lineup.config_text, lineup.config_hash, now_us))
        self.engine.reload(lineup, now_us)
        self._schedule()

    def step(self) -> None:
        """Decide now, and publish what changed. Runs at the end of a loop turn and at the end of a lease."""
        if self._stopped:
            return
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        now_us = self.clock.now_us()
        deadline_us = self.engine.hub.next_deadline()
        batch = self.engine.decide(now_us)
        decided_us = self.clock.now_us() if batch is not None else now_us
        journaled = self._commit(now_us, batch)
        if batch is not None:
            self._count(batch, now_us, deadline_us)
            self._publish(batch, journaled)
            self._time(decided_us)
        self._first_received_us = None
        self.engine.watch(now_us, batch)  # no price waits for the alerts
        if self.engine.transitions:
            self._tell()
        if self._checkpoints is not None:
            if self.journal_required:
                self._demand_journal(journaled)
            self._checkpoints.after_step(self.engine, now_us)
        self._stepped_us = self.clock.clock.monotonic_us()
        self._arm()

    def alive(self) -> bool:
        """Whether it decided lately, or saw that there was nothing to decide: :meth:`check_clock` has it look."""
        return self.clock.clock.monotonic_us() - self._stepped_us <= STANDSTILL_US

    def _commit(self, now_us: int, batch: Batch | None) -> bool:
        if self.journal is None:
            return False
        self.journal.append(Step(now_us))
        if batch is not None:
            self.journal.append(Published(batch.epoch, batch.seq, batch_digest(batch)))
        return self.journal.commit()

    def _demand_journal(self, journaled: bool) -> None:
        if journaled is self._journal_good:
            return
        self._journal_good = journaled
        if journaled:
            log.warning("journal: can be written again")
            self.engine.hub.unblock(Reason.JOURNAL)
        else:
            log.error("journal: %s; no prices until it can be written (journal.mode)", self.journal_error)
            self.engine.hub.block(Reason.JOURNAL)
        self._schedule()

    @property
    def journal_error(self) -> str:
        """The last error of the journal, in words."""
        return "off" if self.journal is None else self.journal.last_error or "none"

    def _count(self, batch: Batch, now_us: int, deadline_us: int | None) -> None:
        for decision in batch.decisions:
            self.decisions[decision.feed, decision.rule.value, decision.source or "none"] += 1
        if deadline_us is not None and deadline_us <= now_us:
            self.latencies.lease_overrun.observe_us(now_us - deadline_us)

    def _time(self, decided_us: int) -> None:
        """A batch was handed over: how long did each part take?"""
        latencies, sent_us, received_us = self.latencies, self.clock.now_us(), self._first_received_us
        latencies.decide_to_socket.observe_us(sent_us - decided_us)
        if received_us is not None:
            latencies.receive_to_decide.observe_us(decided_us - received_us)
            latencies.tick_to_send.observe_us(sent_us - received_us)

    def _record(self, record: LinkEvent | ClockReading | Config) -> None:
        if self.journal is not None:
            self.journal.append(record)

    def _after(self, now_us: int) -> None:
        if self.engine.others:
            self._carry_out_others(self.engine.drain_others())
        self._schedule()

    def _carry_out_others(self, others: Mapping[str, Sequence[Effect]]) -> None:
        for link, effects in others.items():
            self.carry_out(link, effects)

    def _schedule(self) -> None:
        if self._scheduled is None:
            self._scheduled = asyncio.get_running_loop().call_soon(self.step)

    def _arm(self) -> None:
        """Have :meth:`step` called at the end of the earliest lease, even if nothing arrives."""
        self._arm_alerts()
        deadline_us = self.engine.hub.next_deadline()
        if deadline_us == self._lease_us and self._lease_timer is not None:
            return
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None
        self._lease_us = deadline_us
        if deadline_us is not None:
            loop = asyncio.get_running_loop()
            delay_s = max(0, deadline_us - self.clock.now_us()) / 1e6
            self._lease_timer = loop.call_later(delay_s, self._lease_over)

    def _tell(self) -> None:
        """Hand on what the engine has to tell of alerts: after the prices, before anything else."""
        transitions, self.engine.transitions = self.engine.transitions, []
        self.tell(transitions)

    def _arm_alerts(self) -> None:
        """Have alerts looked at when a hold time ends or something gets too old, even if nothing arrives."""
        due_us = self.engine.alerts.next_deadline()
        if due_us is None or (
            self._alert_timer is not None and self._alert_us is not None and self._alert_us <= due_us
        ):
            return
        if self._alert_timer is not None:
            self._alert_timer.cancel()
        self._alert_us = due_us
        delay_s = max(0, due_us - self.clock.now_us()) / 1e6
        self._alert_timer = asyncio.get_running_loop().call_later(delay_s, self._alerts_due)

    def _alerts_due(self) -> None:
        self._alert_timer = self._alert_us = None
        self.step()  # not a look beside the steps: what is told follows from the journal, wherever it breaks off

    def _lease_over(self) -> None:
        self._lease_timer = None
        self._lease_us = None
        self.step()

    def stop(self) -> None:
        """Decide no more, whatever links that are being ended still bring. The journal is closed by its owner."""
        self._stopped = True
        if self._checkpoints is not None:
            self._checkpoints.stop()
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None
        if self._alert_timer is not None:
            self._alert_timer.cancel()
            self._alert_timer = None


def _began(skewed: bool) -> str:
    return "began" if skewed else "ended"
