"""What the watch over a catalogue remembers of its feeds, in columns: what sources said before, and how prices moved.

A *row* is a feed, a *cell* is one source of one feed. The same memory is written one at a time (:meth:`Memory.see`,
:meth:`Memory.move`) or for a whole burst (:meth:`Memory.see_all`, :meth:`Memory.move_all`); which way never matters.
As columns it is also quick to keep in a checkpoint. Pure.
"""

from typing import NamedTuple, Self, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from oracle_hub.core.price import INT64_MAX

Int64: TypeAlias = npt.NDArray[np.int64]
SECOND_US = 1_000_000
_NO_SECOND = -INT64_MAX
_EMPTY_CELL = (0, 0, INT64_MAX, 0, 0, 0, -1)
_EMPTY_ROW = (0, 0, _NO_SECOND, INT64_MAX, 0, _NO_SECOND, INT64_MAX, 0)
_N_TOLD = 2
"""Columns of rows that say when a feed was looked at; those behind say how its price moved."""


class Said(NamedTuple):
    """What sources say now, int64 arrays of one shape."""

    mantissas: Int64
    publish_us: Int64
    received_us: Int64
    confs: Int64
    """-1 where a source gives none."""


class MemoryState(msgspec.Struct, frozen=True):
    """What a memory holds, as plain data."""

    feeds: list[str]
    cells: list[tuple[str, str]]
    window_us: int
    columns: list[bytes]
    """Little-endian int64, of the columns in their order: those of cells, then those of feeds."""


class WatchesState(msgspec.Struct, frozen=True):
    """What an alert engine knows of its feeds, as plain data: with what a hub holds, all that its watches need."""

    feeds: list[str]
    conflicts_us: dict[str, dict[str, int]]
    memory: MemoryState


class Memory:
    """Columns of cells and rows, which are given out as feeds and sources come up.

    Chosen prices are kept by second, as the lowest and the highest of each second within ``window_us``.
    """

    def __init__(self, window_us: int) -> None:
        self.rows: dict[str, int] = {}
        """By feed."""
        self.cells: dict[tuple[str, str], int] = {}
        """By feed and source."""
        self._n_rows = self._n_cells = 0
        self._size_to(window_us)
        # Of cells: the value that a source told last, since when by its own time, the extremes of all it told; and of
        # its latest update, where that came by a glance: publication, receipt, confidence.
        self._value, self._since_us, self._least, self._most = (np.zeros(0, np.int64) for _ in range(4))
        self._publish_us, self._received_us, self._conf = (np.zeros(0, np.int64) for _ in range(3))
        # Of rows: when the hub was looked at last, whether by a glance; the second of the latest price, the extremes
        # of the window; and those of each of its seconds, (slots, rows).
        self._told_us, self._glanced = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._second, self._low, self._high = (np.zeros(0, np.int64) for _ in range(3))
        self._seconds, self._lows, self._highs = (np.zeros((self._n_slots, 0), np.int64) for _ in range(3))

    def _size_to(self, window_us: int) -> None:
        self.window_us = window_us
        self._n_slots = -(-window_us // SECOND_US) + 2
        """A second has the slot of its remainder by this, so that none is taken from another within the window."""

    # Places.

    def row(self, feed: str) -> int:
        """The row of a feed, a new one if it has none."""
        row = self.rows.get(feed)
        if row is None:
            row = self.rows[feed] = self._n_rows
            self._n_rows += 1
            if row >= len(self._second):
                self._grow_rows(max(8, 2 * row))
        return row

    def cell(self, feed: str, source: str) -> int:
        """The cell of a source of a feed, a new one if it has none."""
        cell = self.cells.get((feed, source))
        if cell is None:
            cell = self.cells[feed, source] = self._n_cells
            self._n_cells += 1
            if cell >= len(self._value):
                self._grow_cells(max(8, 2 * cell))
        return cell

    def _grow_cells(self, size: int) -> None:
        grown = (_grown(column, size, empty) for column, empty in zip(self._of_cells(), _EMPTY_CELL, strict=True))
        self._value, self._since_us, self._least, self._most, self._publish_us, self._received_us, self._conf = grown

    def _grow_rows(self, size: int) -> None:
        grown = (_grown(column, size, empty) for column, empty in zip(self._of_rows(), _EMPTY_ROW, strict=True))
        self._told_us, self._glanced, *grown_more = grown
        self._second, self._low, self._high, self._seconds, self._lows, self._highs = grown_more

    def forget(self, feed: str) -> None:
        """Give up what is held of a feed. Its places stay, empty, for the day when it comes back."""
        row = self.rows.get(feed)
        if row is not None:
            for column, empty in zip(self._of_rows(), _EMPTY_ROW, strict=True):
                column[..., row] = empty
        for key, cell in self.cells.items():
            if key[0] == feed:
                for column, empty in zip(self._of_cells(), _EMPTY_CELL, strict=True):
                    column[cell] = empty

    def forget_moves(self) -> None:
        """Give up how prices moved: it was told by a clock that was set since."""
        for column, empty in zip(self._of_rows()[_N_TOLD:], _EMPTY_ROW[_N_TOLD:], strict=True):
            column[...] = empty

    def change(self, window_us: int) -> None:
        """Hold prices of another window from now on."""
        olds = self._seconds, self._lows, self._highs
        self._size_to(window_us)
        size = len(self._second)
        self._seconds, self._lows, self._highs = (
            np.full((self._n_slots, size), empty, np.int64) for empty in _EMPTY_ROW[-3:]
        )
        slots, rows = np.nonzero(olds[0] >= self._second - window_us // SECOND_US - 1)
        held = olds[0][slots, rows] % self._n_slots
        for ours, theirs in zip((self._seconds, self._lows, self._highs), olds, strict=True):
            ours[held, rows] = theirs[slots, rows]
        self._low, self._high = self._lows.min(axis=0), self._highs.max(axis=0)

    # What sources said.

    def see(self, cell: int, mantissa: int, publish_us: int) -> None:
        """Note what a source says now; ``publish_us`` is when, by its own clock."""
        if self._value[cell] != mantissa:
            self._value[cell], self._since_us[cell] = mantissa, publish_us
            self._least[cell] = min(self._least[cell], mantissa)
            self._most[cell] = max(self._most[cell], mantissa)

    def see_all(self, cells: Int64, said: Said) -> None:
        """:meth:`see` for int64 (3, N) or (N,) of cells, none of them twice; and keep what these updates were."""
        new = self._value.take(cells) != said.mantissas
        changed, mantissas = cells[new], said.mantissas[new]
        self._value[changed], self._since_us[changed] = mantissas, said.publish_us[new]
        self._least[changed] = np.minimum(self._least.take(changed), mantissas)
        self._most[changed] = np.maximum(self._most.take(changed), mantissas)
        self._publish_us[cells], self._received_us[cells], self._conf[cells] = said[1:]

    def knows(self, cells: Int64) -> npt.NDArray[np.bool_]:
        """Bool (N,): of which int64 (N,) of cells something was ever said."""
        known: npt.NDArray[np.bool_] = self._value.take(cells) != 0
        return known

    def told(self, row: int, now_us: int) -> None:
        """Note when a feed was looked at by itself."""
        self._told_us[row], self._glanced[row] = now_us, 0

    def told_all(self, rows: Int64, now_us: int) -> None:
        """Note when feeds were glanced at, int64 (N,)."""
        self._told_us[rows], self._glanced[rows] = now_us, 1

    def glanced_us(self, row: int) -> int | None:
        """When a feed was glanced at; None if it was looked at by itself since."""
        return int(self._told_us[row]) if self._glanced[row] else None

    def told_us(self, row: int) -> int:
        """When a feed was looked at last, in either way."""
        return int(self._told_us[row])

    def update(self, cell: int) -> tuple[int, int, int, int | None]:
        """Mantissa, publication, receipt and confidence of an update that a glance noted."""
        conf = int(self._conf[cell])
        return (
            int(self._value[cell]),
            int(self._publish_us[cell]),
            int(self._received_us[cell]),
            None if conf < 0 else conf,
        )

    def seen(self, cell: int) -> tuple[int, int, int, int]:
        """What a source said last, since when, and the least and the most that it ever said; all 0 for nothing."""
        if not self._value[cell]:
            return (0, 0, 0, 0)
        return int(self._value[cell]), int(self._since_us[cell]), int(self._least[cell]), int(self._most[cell])

    # How prices moved.

    def move(self, row: int, now_us: int, mantissa: int) -> None:
        """Note the chosen price of a feed."""
        second = now_us // SECOND_US
        if self._second[row] != second:
            self._begin_second_of(row, now_us)
        slot = second % self._n_slots
        if mantissa < self._lows[slot, row]:
            self._lows[slot, row] = mantissa
            self._low[row] = min(self._low[row], mantissa)
        if mantissa > self._highs[slot, row]:
            self._highs[slot, row] = mantissa
            self._high[row] = max(self._high[row], mantissa)

    def move_all(self, rows: Int64, now_us: int, mantissas: Int64) -> None:
        """:meth:`move` for int64 (N,) of feeds, none of them twice."""
        second = now_us // SECOND_US
        begun = self._second.take(rows) == second
        if not begun.all():
            self._begin_second(rows[~begun], now_us)
        lows, highs = self._lows[second % self._n_slots], self._highs[second % self._n_slots]
        lows[rows] = np.minimum(lows.take(rows), mantissas)
        highs[rows] = np.maximum(highs.take(rows), mantissas)
        self._low[rows] = np.minimum(self._low.take(rows), mantissas)
        self._high[rows] = np.maximum(self._high.take(rows), mantissas)

    def begin_second(self, rows: Int64, now_us: int) -> None:
        """Make room for a price of these feeds, int64 (N,): :meth:`move` does it too, at ten times the price."""
        self._begin_second(rows[self._second.take(rows) != now_us // SECOND_US], now_us)

    def _begin_second(self, rows: Int64, now_us: int) -> None:
        """Drop what is older than the window, and make room for a second of these feeds."""
        second, slot = now_us // SECOND_US, now_us // SECOND_US % self._n_slots
        seconds, lows, highs = self._seconds[:, rows], self._lows[:, rows], self._highs[:, rows]
        past = seconds < (now_us - self.window_us) // SECOND_US
        past[slot] = True
        seconds[past], lows[past], highs[past] = _NO_SECOND, INT64_MAX, 0
        seconds[slot] = second
        self._seconds[:, rows], self._lows[:, rows], self._highs[:, rows] = seconds, lows, highs
        self._second[rows], self._low[rows], self._high[rows] = second, lows.min(axis=0), highs.max(axis=0)

    def _begin_second_of(self, row: int, now_us: int) -> None:
        """:meth:`_begin_second` for one feed, at half the time."""
        second, slot = now_us // SECOND_US, now_us // SECOND_US % self._n_slots
        seconds, lows, highs = self._seconds[:, row], self._lows[:, row], self._highs[:, row]
        past = (seconds < (now_us - self.window_us) // SECOND_US) & (seconds != _NO_SECOND)
        past[slot] = True
        for place in past.nonzero()[0].tolist():
            seconds[place], lows[place], highs[place] = _NO_SECOND, INT64_MAX, 0
        seconds[slot] = second
        self._second[row], self._low[row], self._high[row] = second, lows.min(), highs.max()

    def spans(self, rows: Int64) -> Int64:
        """:meth:`span` for int64 (N,) of feeds that have prices."""
        return self._high.take(rows) - self._low.take(rows)

    def span(self, row: int) -> int:
        """How far the extremes of the window are apart; 0 where no price is known."""
        return max(0, int(self._high[row]) - int(self._low[row]))

    def extremes(self, row: int, now_us: int) -> tuple[int, int] | None:
        """The lowest and the highest price of the window that ends now; None where there is none."""
        within = self._seconds[:, row] >= max(0, (now_us - self.window_us) // SECOND_US)
        if not within.any():
            return None
        return int(self._lows[:, row][within].min()), int(self._highs[:, row][within].max())

    def next_us(self, row: int) -> int | None:
        """When the oldest second leaves the window; None where no other one is known."""
        seconds = self._seconds[:, row]
        held = seconds[seconds != _NO_SECOND]
        return (int(held.min()) + 1) * SECOND_US + self.window_us if len(held) > 1 else None

    # Over a restart of a replay.

    def state(self) -> MemoryState:
        """All of it, copied."""
        # Places are given out one after the other and never taken back.
        cells = [column[: self._n_cells] for column in self._of_cells()]
        columns = [*cells, *(column[..., : self._n_rows] for column in self._of_rows())]
        as_bytes = [column.astype("<i8", copy=False).tobytes() for column in columns]
        return MemoryState(list(self.rows), [(feed, source) for feed, source in self.cells], self.window_us, as_bytes)

    @classmethod
    def restored(cls, state: MemoryState) -> Self:
        """A memory that holds the same.

        Raises:
            ValueError: columns of other lengths than there are feeds and cells.
        """
        memory = cls(state.window_us)
        memory.rows = {feed: row for row, feed in enumerate(state.feeds)}
        memory.cells = {key: cell for cell, key in enumerate(state.cells)}
        memory._n_rows, memory._n_cells = len(memory.rows), len(memory.cells)
        memory._grow_cells(memory._n_cells)
        memory._grow_rows(memory._n_rows)
        for column, kept in zip((*memory._of_cells(), *memory._of_rows()), state.columns, strict=True):
            column[:] = np.frombuffer(kept, "<i8").reshape(column.shape)
        return memory

    def _of_cells(self) -> tuple[Int64, ...]:
        said = (self._publish_us, self._received_us, self._conf)
        return (self._value, self._since_us, self._least, self._most, *said)

    def _of_rows(self) -> tuple[Int64, ...]:
        return (
            self._told_us,
            self._glanced,
            self._second,
            self._low,
            self._high,
            self._seconds,
            self._lows,
            self._highs,
        )


def _grown(column: Int64, size: int, empty: int) -> Int64:
    """A longer copy of columns."""
    grown = np.full((*column.shape[:-1], size), empty, np.int64)
    grown[..., : column.shape[-1]] = column
    return grown
