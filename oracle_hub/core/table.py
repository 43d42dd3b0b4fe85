"""The one mutable thing: what every source last said of every feed. It has one writer, :class:`~.hub.Hub`.

A *cell* is one source's held update of one feed. Cells are columns of int64 (numpy), so that the columnar selector
reads them in place; the same memory is read and written one cell at a time through memoryviews, which costs about as
much as an attribute of an object.
"""

from collections.abc import Collection, Iterator
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.columns import ColumnInputs
from oracle_hub.core.price import BPS_ONE, INT64_MAX
from oracle_hub.core.selector import ABSENT, Input
from oracle_hub.core.source import Condition, PriceUpdate, Status

HELD, HEARD, FUTURE, HALTED, INVALID, STALLED, VERIFIED, UNPROVED = (1 << bit for bit in range(8))
"""Flags of a cell. ``HEARD``: an update came in this run, even one that could not be taken. ``UNPROVED``: one came that
was refused for want of a proof, before any other."""
UNUSABLE = FUTURE | HALTED | INVALID | STALLED
_ORDINARY = HELD | HEARD | VERIFIED


class InputStatus(StrEnum):
    """How one source stands for one feed at one instant. Listed in order of precedence, first wins."""

    WARMING = "warming"
    """Not heard in this run, warm-up not over."""
    MISSING = "missing"
    INVALID = "invalid"
    """What it publishes now is no price."""
    HALTED = "halted"
    FUTURE = "future"
    """Its last update was stamped further ahead than our clock allows."""
    STALE = "stale"
    UNCERTAIN = "uncertain"
    """Its confidence interval is too wide."""
    STALLED = "stalled"
    """Proven to repeat an old value under new times (:mod:`oracle_hub.core.stall`)."""
    UNVERIFIED = "unverified"
    """A signature is demanded, and nothing came but what has none."""
    OK = "ok"


class Applied(StrEnum):
    """What became of an update."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    """Same publish time, same value: another way to the same news. All it can add is the proof of it."""
    OLDER = "older"
    """Behind the one held: nothing goes back in publish time."""
    CONFLICT = "conflict"
    """Same order key, another value. The held one stays."""
    FUTURE = "future"
    """Stamped beyond ``now + max_future``: never enters the cell, never moves the watermark."""
    UNVERIFIED = "unverified"
    """An unverified way never replaces what a verified way brought, unless both count alike
    (:class:`~oracle_hub.core.catalog.Proof`)."""
    REFUSED = "refused"
    """Not positive, or beyond int64 in some number. Decoders refuse such values; the table does so once more, since
    one of them must neither become a price nor end the run."""
    UNKNOWN = "unknown"
    """Of a source or feed that is not in the catalog."""


class TableState(msgspec.Struct, frozen=True):
    """What a table holds, as plain data."""

    columns: tuple[bytes, ...]
    """Little-endian int64: mantissa, confidence, publish time, receipt, slot, flags, and for stalls where the value
    began and where the two others stood then; a number for each cell."""
    transports: list[str]
    accounts: list[str | None]


class Table:
    """Cells for every (source, feed) of a catalog, feed-major: cell = feed_index * n_sources + source_index."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.n_sources = len(catalog.sources)
        layout = catalog.layout
        size = layout.n_cells

        def column() -> tuple[npt.NDArray[np.int64], memoryview]:
            array = np.zeros(size, np.int64)
            return array, memoryview(array)  # type: ignore[arg-type]  # a buffer, which its stubs tell from Python 3.12 on

        self.mantissas, self._mantissa = column()
        """int64 (n_cells,): price at the feed's canonical exponent; 0 where nothing is held."""
        self.confs, self._conf = column()
        """int64 (n_cells,): confidence interval; -1 where the source gives none."""
        self.publish_us_column, self._publish_us = column()
        self.received_us_column, self._received_us = column()
        self.slots, self._slot = column()
        self.flag_column, self._flags = column()
        self.max_age_us_column, self._max_age_us = column()
        """int64 (n_cells,): 0 where the source has no part in the feed."""
        self.max_age_us_column[:] = layout.max_age_us
        _, self._since_us = column()
        _, self._first_then = column()
        _, self._second_then = column()
        self._peers, self._demanded, self._equivalent = layout.peers, layout.demanded, layout.equivalent
        self._cells = layout.cells
        self._stall_after_us = catalog.stall.after_us or INT64_MAX
        self.transports: list[str] = [""] * size
        self.accounts: list[str | None] = [None] * size
        self._taken: list[PriceUpdate | None] = [None] * size
        """The held update as it came, where it still says what the columns say: spares :meth:`held` to make it."""

    def limit(self, catalog: Catalog, feed_index: int) -> None:
        """Take over the ages of one feed from a catalog that differs in its limits only."""
        self.catalog = catalog
        spec = catalog.feeds[feed_index]
        for source in spec.sources:
            self._max_age_us[self._cells[source, spec.feed]] = spec.max_age_us[source]

    def cell_of(self, source: str, feed: str) -> int | None:
        """The number of a cell, or None where the catalog does not bind this source to this feed."""
        return self._cells.get((source, feed))

    def cells(self) -> Iterator[tuple[str, str, int]]:
        """Source, feed and number of every cell that the catalog binds."""
        return ((source, feed, cell) for (source, feed), cell in self._cells.items())

    def apply(self, update: PriceUpdate, now_us: int) -> Applied:
        """Take an update if it is plausible and newer by its order key.

        The order key is the publish time, then the slot where both came by the same kind of transport.
        """
        cell = self._cells.get((update.source, update.feed))
        if cell is None:
            return Applied.UNKNOWN
        if not _representable(update):
            return Applied.REFUSED
        flags = self._flags[cell]
        unproven = not update.verified and (
            self._demanded[cell] or bool(flags & VERIFIED and not self._equivalent[cell])
        )
        if update.publish_us > now_us + self.catalog.max_future_us:
            if not unproven:  # what could not be taken cannot spoil what is held either
                self._flags[cell] = flags | FUTURE | HEARD
            return Applied.FUTURE
        if flags & FUTURE and not unproven:
            flags &= ~FUTURE
            self._flags[cell] = flags
        if unproven or not flags & HELD or update.publish_us <= self._publish_us[cell]:  # most are simply newer
            verdict = self._order(cell, flags, update, unproven)
            if verdict is not Applied.TAKEN:
                return verdict
        peers = self._peers[cell]
        if peers is not None and (update.mantissa != self._mantissa[cell] or not flags & HELD):
            flags &= ~STALLED
            self._since_us[cell] = update.publish_us
            self._first_then[cell], self._second_then[cell] = self._mantissa[peers[0]], self._mantissa[peers[1]]
        self._mantissa[cell] = update.mantissa
        self._publish_us[cell] = update.publish_us
        self._received_us[cell] = update.received_us
        self._conf[cell] = -1 if update.conf is None else update.conf
        self._slot[cell] = update.slot
        self._flags[cell] = (flags & STALLED) | HELD | HEARD | (VERIFIED if update.verified else 0)
        self.transports[cell] = update.transport
        self.accounts[cell] = update.account
        self._taken[cell] = update
        if peers is not None:
            if not flags & HELD:
                self._appeared(cell, peers)
            after_us, publish_us, since_us = self._stall_after_us, self._publish_us, self._since_us
            first, second = peers
            if publish_us[cell] - since_us[cell] >= after_us:
                self._judge(cell)
            if publish_us[first] - since_us[first] >= after_us:
                self._judge(first)
            if publish_us[second] - since_us[second] >= after_us:
                self._judge(second)
        return Applied.TAKEN

    def _appeared(self, cell: int, peers: tuple[int, int]) -> None:
        """A role spoke for the first time: for values that began before that, it stood here."""
        for peer in peers:
            first, _ = self._peers[peer] or (cell, cell)
            then = self._first_then if first == cell else self._second_then
            if self._flags[peer] & HELD and not then[peer]:
                then[peer] = self._mantissa[cell]

    def _judge(self, cell: int) -> None:
        """Mark a cell whose publish time moved on for long under one value, if that proves a stall."""
        peers = self._peers[cell]
        flags = self._flags[cell]
        if peers is None or flags & STALLED or not flags & HELD:
            return
        first = (self._first_then[cell], self._mantissa[peers[0]])
        second = (self._second_then[cell], self._mantissa[peers[1]])
        if self.catalog.stall.proven(self._publish_us[cell] - self._since_us[cell], first, second):
            self._flags[cell] = flags | STALLED

    def _order(self, cell: int, flags: int, update: PriceUpdate, unproven: bool) -> Applied:
        if not flags & HELD:
            if not unproven:
                return Applied.TAKEN
            self._flags[cell] = flags | UNPROVED
            return Applied.UNVERIFIED
        held_us = self._publish_us[cell]
        if update.publish_us < held_us:
            return Applied.OLDER
        if update.publish_us > held_us:
            return Applied.UNVERIFIED if unproven else Applied.TAKEN
        if update.mantissa == self._mantissa[cell]:
            if update.verified and not flags & VERIFIED:
                # The same news with its proof: no newer than it was, so neither its age nor INVALID changes.
                self._flags[cell] = flags | VERIFIED
                self.transports[cell] = update.transport
                self._taken[cell] = None
            return Applied.DUPLICATE
        if unproven:
            return Applied.CONFLICT
        if update.slot and self._slot[cell] and _kind(update.transport) == _kind(self.transports[cell]):
            if update.slot > self._slot[cell]:
                return Applied.TAKEN
            if update.slot < self._slot[cell]:
                return Applied.OLDER
            if update.account and self.accounts[cell] and update.account != self.accounts[cell]:
                return Applied.OLDER  # the source has moved to another account, which is no word against the first
        return Applied.CONFLICT

    def mark(self, status: Status) -> bool:
        """Note what a source says of itself; True if a usable source became unusable or the other way round.

        What one kind of transport says does not touch what another kind brought: an account that halts while the
        stream goes on is the loss of a way, not of the source.
        """
        flag = {Condition.HALTED: HALTED, Condition.INVALID: INVALID}.get(status.condition)
        if status.condition is Condition.RESUMED:
            return self._resume(status)
        if flag is None:
            return False
        feeds = [status.feed] if status.feed is not None else [spec.feed for spec in self.catalog.feeds]
        changed = False
        for feed in feeds:
            cell = self.cell_of(status.source, feed)
            if cell is None or self._flags[cell] & flag:
                continue
            if not self._flags[cell] & HELD or _kind(status.transport) == _kind(self.transports[cell]):
                self._flags[cell] |= flag | HEARD
                changed = True
        return changed

    def _resume(self, status: Status) -> bool:
        """What is held is as good as it was; its age went on."""
        cell = None if status.feed is None else self.cell_of(status.source, status.feed)
        if cell is None or not self._flags[cell] & (HALTED | INVALID):
            return False
        if self._flags[cell] & HELD and _kind(status.transport) != _kind(self.transports[cell]):
            return False  # as in :meth:`mark`: it speaks of what its own kind told
        self._flags[cell] &= ~(HALTED | INVALID)
        return True

    def heard(self, cell: int) -> bool:
        """Whether any update of this cell came in this run."""
        return bool(self._flags[cell] & HEARD)

    def input(self, cell: int, spec: FeedSpec) -> Input:
        """The cell as the rule sees it: interval of usability, mantissa, recency.

        Age counts from the earlier of publish and receipt, so a stamp slightly ahead of our clock earns no extra life.
        """
        flags = self._flags[cell]
        if flags & UNUSABLE or not flags & HELD:
            return ABSENT
        mantissa = self._mantissa[cell]
        if spec.max_conf_bps and self._uncertain(cell, spec):
            return ABSENT
        publish_us = self._publish_us[cell]
        received_us = self._received_us[cell]
        recency_us = publish_us if publish_us < received_us else received_us
        return (0, recency_us + self._max_age_us[cell], mantissa, recency_us)

    def standing(self, cell: int) -> tuple[int, int, int, int]:
        """The cell before any limit that can be tuned: 1 where an age and a confidence can make it usable (else 0),
        mantissa, confidence (-1 where the source gives none), recency.
        """
        flags = self._flags[cell]
        if flags & UNUSABLE or not flags & HELD:
            return (0, 0, -1, 0)
        return (
            1, self._mantissa[cell], self._conf[cell], min(self._publish_us[cell], self._received_us[cell])
        )  # fmt: skip

    def input_columns(self, cells: npt.NDArray[np.int64], max_conf_bps: npt.NDArray[np.int64]) -> ColumnInputs:
        """:meth:`input` for many cells at once.

        Args:
            cells: int64 (3, N), cell numbers by role; or (n_sources, N), by source.
            max_conf_bps: int64 (N,), 0 where there is no limit.
        """
        flags = self.flag_column[cells]
        mantissa = self.mantissas[cells]
        recency_us = np.minimum(self.publish_us_column[cells], self.received_us_column[cells])
        usable = (flags & (UNUSABLE | HELD)) == HELD
        if max_conf_bps.any():
            # conf * 10^4 > bps * m, without the overflow: the floor of the right side divided by 10^4.
            bound = max_conf_bps * (mantissa // BPS_ONE) + max_conf_bps * (mantissa % BPS_ONE) // BPS_ONE
            usable &= (max_conf_bps == 0) | (self.confs[cells] <= bound)
        return ColumnInputs(
            usable_from_us=np.where(usable, 0, 1),
            usable_until_us=np.where(usable, recency_us + self.max_age_us_column[cells], 0),
            mantissa=mantissa,
            recency_us=np.where(usable, recency_us, 0),
        )

    def status(self, cell: int, spec: FeedSpec, now_us: int, *, warming: bool) -> InputStatus:
        """How the cell stands at ``now_us``, by the precedence of :class:`InputStatus`."""
        flags = self._flags[cell]
        if flags | VERIFIED == _ORDINARY and not spec.max_conf_bps:  # nearly always
            publish_us, received_us = self._publish_us[cell], self._received_us[cell]
            recency_us = publish_us if publish_us < received_us else received_us
            return InputStatus.OK if now_us - recency_us <= self._max_age_us[cell] else InputStatus.STALE
        if not flags & HEARD:
            unheard = InputStatus.UNVERIFIED if flags & UNPROVED else InputStatus.MISSING
            return InputStatus.WARMING if warming else unheard
        for flag, status in _BY_FLAG:
            if flags & flag:
                return status
        if not flags & HELD:
            return InputStatus.MISSING
        if self.age_us(cell, now_us) > self._max_age_us[cell]:
            return InputStatus.STALE
        if spec.max_conf_bps and self._uncertain(cell, spec):
            return InputStatus.UNCERTAIN
        return InputStatus.STALLED if flags & STALLED else InputStatus.OK

    def age_us(self, cell: int, now_us: int) -> int:
        """Age of the held update: from the earlier of its publish time and its receipt."""
        return now_us - min(self._publish_us[cell], self._received_us[cell])

    def publish_us(self, cell: int) -> int:
        """Publish time of the held update."""
        return self._publish_us[cell]

    def received_us(self, cell: int) -> int:
        """Receipt of the held update: when its news came first, by whatever way."""
        return self._received_us[cell]

    def verified(self, cell: int) -> bool:
        """Whether the held update was proved."""
        return bool(self._flags[cell] & VERIFIED)

    def conf(self, cell: int) -> int | None:
        """Confidence interval of the held update, where the source gives one."""
        conf = self._conf[cell]
        return None if conf < 0 else conf

    def held(self, cell: int) -> PriceUpdate | None:
        """The held update, as it was taken. The same object as long as nothing else is held."""
        taken = self._taken[cell]
        if taken is not None or not self._flags[cell] & HELD:
            return taken
        feed_index, source_index = divmod(cell, self.n_sources)
        taken = self._taken[cell] = PriceUpdate(
            source=self.catalog.sources[source_index],
            transport=self.transports[cell],
            feed=self.catalog.feeds[feed_index].feed,
            mantissa=self._mantissa[cell],
            publish_us=self._publish_us[cell],
            received_us=self._received_us[cell],
            conf=self.conf(cell),
            slot=self._slot[cell],
            verified=bool(self._flags[cell] & VERIFIED),
            account=self.accounts[cell],
        )
        return taken

    def carry_over(self, old: "Table", forgotten: Collection[tuple[str, str]] = ()) -> None:
        """Copy the cells that both tables have, at the same exponent: a reload forgets nothing that still counts.

        Args:
            old: what was held before.
            forgotten: source and feed of cells that don't count any more.
        """
        cells: list[int] = []
        old_cells: list[int] = []
        others: list[FeedSpec] = []
        for feed_index, spec in enumerate(self.catalog.feeds):
            old_index = old.catalog.feed_index.get(spec.feed)
            if old_index is None or old.catalog.feeds[old_index].expo != spec.expo:
                continue
            for source, _, cell in self.catalog.layout.inputs[feed_index]:
                old_cell = old.cell_of(source, spec.feed)
                if old_cell is not None and (source, spec.feed) not in forgotten:
                    cells.append(cell)
                    old_cells.append(old_cell)
            if self.catalog.stall != old.catalog.stall or spec.roles != old.catalog.feeds[old_index].roles:
                others.append(spec)
        for ours, theirs in zip(self._copied(), old._copied(), strict=True):
            np.frombuffer(ours, np.int64)[cells] = np.frombuffer(theirs, np.int64)[old_cells]
        for cell, old_cell in zip(cells, old_cells, strict=True):
            self.transports[cell] = old.transports[old_cell]
            self.accounts[cell] = old.accounts[old_cell]
            self._taken[cell] = old._taken[old_cell]
        for spec in others:
            self._forget_stalls(spec)

    def _forget_stalls(self, spec: FeedSpec) -> None:
        """Other company or another rule: what was proven counts no more, and every value begins now."""
        for source in spec.sources:
            cell = self._cells[source, spec.feed]
            peers = self._peers[cell]
            self._flags[cell] &= ~STALLED
            if peers is not None:
                self._since_us[cell] = self._publish_us[cell]
                self._first_then[cell], self._second_then[cell] = self._mantissa[peers[0]], self._mantissa[peers[1]]

    def state(self) -> TableState:
        """Everything held, copied."""
        columns = (np.frombuffer(column, np.int64).astype("<i8").tobytes() for column in self._copied())
        return TableState(tuple(columns), list(self.transports), list(self.accounts))

    def restore(self, state: TableState) -> None:
        """Hold what another table of the same catalog held.

        Raises:
            ValueError: the state is of another catalog.
        """
        size = len(self.transports)
        columns = [np.frombuffer(column, "<i8") for column in state.columns]
        if len(columns) != len(self._copied()) or {size} != {len(state.transports), len(state.accounts)}:
            raise ValueError("a table of another catalog")
        for ours, theirs in zip(self._copied(), columns, strict=True):
            np.frombuffer(ours, np.int64)[:] = theirs
        self.transports, self.accounts = list(state.transports), list(state.accounts)
        self._taken = [None] * size

    def _copied(self) -> tuple[memoryview, ...]:
        held = (self._mantissa, self._conf, self._publish_us, self._received_us, self._slot, self._flags)
        return (*held, self._since_us, self._first_then, self._second_then)

    def _uncertain(self, cell: int, spec: FeedSpec) -> bool:
        conf = self._conf[cell]
        return conf >= 0 and conf * BPS_ONE > spec.max_conf_bps * self._mantissa[cell]


_BY_FLAG = ((INVALID, InputStatus.INVALID), (HALTED, InputStatus.HALTED), (FUTURE, InputStatus.FUTURE))


def _representable(update: PriceUpdate) -> bool:
    """Whether the numbers of an update are a price and fit the columns (a publish time too late is *future*)."""
    conf = update.conf
    return (
        0 < update.mantissa <= INT64_MAX
        and update.publish_us >= -INT64_MAX
        and 0 <= update.slot <= INT64_MAX
        and (conf is None or 0 <= conf <= INT64_MAX)
    )


def _kind(transport: str) -> str:
    """The kind of a transport: ``solana`` of ``solana:a``. Slots of different kinds don't compare."""
    return transport.partition(":")[0]
