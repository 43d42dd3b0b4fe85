"""The exchange's aggregate beside our decisions over a journal: how far apart, how long executable, by which legs.

Between two steps nothing changes but ages, so shares of time are exact, not sampled.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.parity import ParityBook, whole_bps
from oracle_hub.app.replay import Replayer, ReplayReport
from oracle_hub.core.catalog import Catalog
from oracle_hub.core.hub import Hub
from oracle_hub.core.parity import Parity
from oracle_hub.journal.records import Record, Step


class _Account(msgspec.Struct):
    """What is known of one aggregate over time."""

    since_us: int
    last: Parity | None = None
    compare_us: int = 0
    """Its price counts up to this age."""
    seconds_us: int = 0
    executable_us: int = 0
    compared_us: int = 0
    weighted: int = 0
    """Distance times duration."""
    most: int | None = None

    def until(self, now_us: int) -> None:
        """Count the time since the last look, in which nothing changed but ages."""
        last, span_us = self.last, now_us - self.since_us
        self.since_us = now_us
        if last is None or span_us <= 0:
            return
        self.seconds_us += span_us
        if last.age_us is None:
            return
        if last.sound:
            self.executable_us += min(max(last.max_age_us - last.age_us, 0), span_us)
        if last.apart is not None:
            compared_us = min(max(self.compare_us - last.age_us, 0), span_us)
            self.compared_us += compared_us
            self.weighted += last.apart * compared_us


class ParityRow(msgspec.Struct, frozen=True):
    """One aggregate of one feed over a journal."""

    feed: str
    source: str
    seconds: float
    executable_share: float | None
    """Part of the time in which the exchange could execute; None where there was no time."""
    compared_seconds: float
    """Time in which both had a price."""
    mean_parity_bps: float | None
    """Over that time."""
    max_parity_bps: int | None
    prices: int
    """Prices of the aggregate whose leg was looked for."""
    legs: dict[str, float]
    """Share of each leg in them."""


class ParityTable:
    """Adds up over a replay: call :meth:`after` when the hub has stepped, :meth:`rows` at the end."""

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._catalog: Catalog | None = None
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._legs: dict[tuple[str, str], Counter[str]] = {}
        self._book: ParityBook | None = None
        self._last_us = 0

    def after(self, hub: Hub, book: ParityBook, now_us: int) -> None:
        """Take down the feeds that the step at ``now_us`` looked at."""
        touched: range | list[int] = hub.touched
        if hub is not self._hub or hub.catalog is not self._catalog or now_us < self._last_us:
            self._close(now_us if hub is self._hub and now_us >= self._last_us else self._last_us)
            touched = range(len(hub.catalog.feeds))
        if hub is not self._hub or book is not self._book:
            self._gather(book if hub is self._hub else None)
        self._hub, self._catalog, self._book, self._last_us = hub, hub.catalog, book, now_us
        for index in touched:
            spec = hub.catalog.feeds[index]
            for source, _, one in book.standing(hub, index, now_us):
                account = self._accounts.setdefault((spec.feed, source), _Account(now_us))
                account.until(now_us)
                account.last, account.compare_us = one, spec.max_age_us[source]
                if one.apart is not None:
                    account.most = max(account.most or 0, one.apart)

    def _close(self, at_us: int) -> None:
        """Nothing is known from here to the next look."""
        for account in self._accounts.values():
            account.until(at_us)
            account.last = None

    def _gather(self, goes_on: ParityBook | None = None) -> None:
        """Keep what a run counted of legs, but for what a reloaded line-up goes on counting."""
        for key, used in self._book.used.items() if self._book is not None else ():
            if goes_on is None or key not in goes_on.used:
                self._legs.setdefault(key, Counter()).update(used)
        self._book = None

    def rows(self) -> list[ParityRow]:
        """The table, ended where the journal ends."""
        self._close(self._last_us)
        self._gather()
        self._hub = None
        return [
            _row(feed, source, one, self._legs.get((feed, source), Counter()))
            for (feed, source), one in self._accounts.items()
        ]


def _row(feed: str, source: str, one: _Account, legs: Counter[str]) -> ParityRow:
    prices = legs.total()
    return ParityRow(
        feed=feed,
        source=source,
        seconds=one.seconds_us / 1e6,
        executable_share=one.executable_us / one.seconds_us if one.seconds_us else None,
        compared_seconds=one.compared_us / 1e6,
        mean_parity_bps=round(one.weighted / one.compared_us / 100, 2) if one.compared_us else None,
        max_parity_bps=whole_bps(one.most),
        prices=prices,
        legs={leg: count / prices for leg, count in sorted(legs.items())},
    )


def parity_of(records: Iterable[Record]) -> tuple[list[ParityRow], ReplayReport]:
    """Replay records and hold every aggregate against what was decided.

    Raises:
        JournalError: as a replay does.
    """
    table, replayer = ParityTable(), Replayer(lineup_from_text)
    for record in records:
        replayer.take(record)
        engine = replayer.engine
        if isinstance(record, Step) and engine is not None:
            table.after(engine.hub, engine.chain, record.now_us)
    return table.rows(), replayer.finish()
