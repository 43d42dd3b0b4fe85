"""Watches as versions up to 0.1 kept them in checkpoints: objects for each feed, where there are columns now. Pure."""

from collections.abc import Mapping

from oracle_hub.alerts.detectors import Facts
from oracle_hub.alerts.memory import SECOND_US, Memory, WatchesState
from oracle_hub.alerts.settings import AlertSettings


class FormerSeen:
    """What one source did before."""

    __slots__ = ("highest", "lowest", "since_publish_us", "value")
    value: int
    lowest: int
    highest: int
    since_publish_us: int


class FormerWatch:
    """One feed under watch."""

    __slots__ = ("_highest", "_lowest", "_moves", "_seen", "conflicts_us", "facts", "settings")
    settings: AlertSettings
    facts: Facts | None
    conflicts_us: dict[str, int]
    _seen: dict[str, FormerSeen]
    _moves: list[tuple[int, int, int]]
    """By second: (second, lowest, highest)."""

    def remember(self, feed: str, memory: Memory) -> None:
        """Write into columns what is kept here."""
        row = memory.row(feed)
        for source, seen in self._seen.items():
            for mantissa in (seen.lowest, seen.highest, seen.value):
                memory.see(memory.cell(feed, source), mantissa, seen.since_publish_us)
        for second, lowest, highest in self._moves:
            for mantissa in (lowest, highest):
                memory.move(row, second * SECOND_US, mantissa)
        if self.facts is not None:
            memory.told(row, self.facts.now_us)


def watches_of(former: Mapping[str, FormerWatch], settings: AlertSettings) -> WatchesState:
    """The same as they are kept now."""
    memory = Memory(settings.velocity_window_us)
    for feed, watch in former.items():
        watch.remember(feed, memory)
    conflicts_us = {feed: watch.conflicts_us for feed, watch in former.items() if watch.conflicts_us}
    return WatchesState(list(former), conflicts_us, memory.state())
