"""What becomes of alerts once they are told: subscribers, the log, who delivers them, and a file for the next run."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from oracle_hub.alerts.alert import Alert, Change, Key, Kind, Severity, Transition
from oracle_hub.alerts.engine import AlertEngine
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.state import replace_durably
from oracle_hub.stream.messages import AlertChange, AlertEntry

log = logging.getLogger(__name__)

STATE_FILE = "alerts.json"


class Alerting:
    """Hands every transition on, in order, and remembers what is open.

    Two engines stand behind it: that of the :class:`~oracle_hub.app.engine.Engine`, whose log follows from the journal,
    and :attr:`own`, for what concerns this process alone (its journal, its disk) and no replay can derive.

    Args:
        directory: where the file of open alerts is kept.
        engine: the one whose state is kept.
        show: tells subscribers.
        deliver: called with each transition, for channels outside; must not block.
    """

    def __init__(
        self,
        directory: Path,
        engine: AlertEngine,
        *,
        show: Callable[[AlertChange], None],
        deliver: Callable[[Transition], None] = lambda transition: None,
    ) -> None:
        self._path = directory / STATE_FILE
        self._engine = engine
        self.own = AlertEngine(_own_settings(engine.settings))
        self._show = show
        self.deliver = deliver
        self._kept: tuple[int, int] = (0, 0)
        self._unkept = False
        """The disk did not take what is open."""
        self.told: Counter[tuple[Kind, Change]] = Counter()
        """Transitions told in this run, by kind and change."""

    def resume(self, take_over: Callable[[Mapping[str, Any]], None]) -> None:
        """Take over what was open when the run before ended, and show it. A file that is none of ours is set aside.

        Args:
            take_over: restores the engine (:meth:`oracle_hub.app.engine.Engine.resume_alerts`). Raises ValueError.
        """
        try:
            saved = msgspec.json.decode(self._path.read_bytes())
            take_over(saved["engine"])
            self.own.restore(saved["own"])
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
            log.error("%s: no alerts can be taken over from it (%s); what was open then gets no end", self._path, error)
            return
        for alert in self.open:
            self._show(AlertChange(Change.FIRING.value, alert.told_us, entry_of(alert)))

    def begin(self, now_us: int) -> None:
        """What the process before said of itself ends, unless this one says it again within the hold time."""
        for key in self.own.feedless:
            self.tell(self.own.condition(now_us, key, False, ""))

    def configured_anew(self) -> None:
        """Go on by the settings that the engine has now."""
        self.own.change(_own_settings(self._engine.settings))

    @property
    def open(self) -> Sequence[Alert]:
        """What is firing now."""
        return [*self._engine.open, *self.own.open]

    def condition(self, now_us: int, kind: Kind, about: str, wrong: bool, text: str) -> None:
        """Say that something of this process is wrong, or no longer; ``about`` tells several of one kind apart."""
        self.tell(self.own.condition(now_us, Key(kind, None, (about,)), wrong, text))

    def advance(self, now_us: int) -> None:
        """Let time pass for what concerns this process."""
        self.tell(self.own.advance(now_us))

    def tell(self, transitions: Sequence[Transition]) -> None:
        """Hand these on. Kept first, so that no crash makes one fire twice."""
        self._keep()
        for transition in transitions:
            alert = transition.alert
            self.told[alert.kind, transition.change] += 1
            level = logging.WARNING if alert.severity is Severity.WARNING else logging.ERROR
            shown = logging.INFO if transition.change is Change.RESOLVED else level
            log.log(shown, "alert %s: %s", transition.change.value, alert.summary)
            self._show(AlertChange(transition.change.value, transition.at_us, entry_of(alert)))
            self.deliver(transition)

    def _keep(self) -> None:
        changes = self._engine.changes, self.own.changes
        if changes == self._kept:
            return
        try:
            state = {"engine": self._engine.state(), "own": self.own.state()}
            replace_durably(self._path, msgspec.json.encode(state), sync=False)
        except OSError as error:
            if not self._unkept:
                text = "%s: open alerts can't be kept (%s): a restart before they are may tell them twice"
                log.error(text, self._path, error.strerror)
            self._unkept = True
            return
        self._kept, self._unkept = changes, False


def _own_settings(settings: AlertSettings) -> AlertSettings:
    """The operator's, but for groups and storms: what can be wrong with a process is told one by one."""
    return msgspec.structs.replace(settings, group_min=1_000, storm_cap=1_000)


def entry_of(alert: Alert) -> AlertEntry:
    """An alert as subscribers see it."""
    return AlertEntry(
        id=alert.id,
        occurrence=alert.occurrence,
        kind=alert.kind.value,
        feed=alert.feed,
        sources=list(alert.sources),
        severity=alert.severity.value,
        started_us=alert.started_us,
        told_us=alert.told_us,
        ended_us=alert.ended_us,
        summary=alert.summary,
        evidence=alert.evidence,
    )
