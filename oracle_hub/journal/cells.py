"""From rows of a decoded cache to cells in which no setting of a grid changes its mind.

The hub decides when something arrives and when a lease ends. Leases differ with the max ages, so a row is cut at every
instant at which any of its prices becomes too old under any of the settings. Within what is left every setting has one
outcome: evaluated once, at its beginning, and exact to the microsecond.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from oracle_hub.core.columns import ColumnInputs
from oracle_hub.core.price import BPS_ONE
from oracle_hub.journal.decoded import Columns, Int64, UInt8

Bool: TypeAlias = npt.NDArray[np.bool_]

PAIRS = ((0, 1), (0, 2), (1, 2))
CENTI_BPS = 1_000_000
"""Hundredths of a basis point in 1."""
FAR = 10**15
"""No distance is told as more: ten billion times the smaller price."""
_NARROW = (2**64 - 1) // CENTI_BPS
"""Mantissas up to here (1.8e13, 184,000 dollars at exponent -8) times :data:`CENTI_BPS` fit uint64."""


class Cells(NamedTuple):
    """Intervals of one feed's time. ``until_us`` of the last one is the next row's instant, or the end."""

    at_us: Int64
    """int64 (M,): ascending."""
    until_us: Int64
    """int64 (M,): first instant that is no longer of the cell. Empty intervals occur (two steps in a microsecond)."""
    columns: Columns
    """The row that each cell is of; its own ``at_us`` is the row's."""
    apart: Int64
    """int64 (3, M): distance of each of :data:`PAIRS` in hundredths of a basis point of the smaller, rounded up."""
    beyond: Int64
    """int64 (3, M): the same beyond the sum of both confidences, as alerts measure it."""


class Usable(NamedTuple):
    """What ages and a limit of confidence leave of the cells."""

    inputs: ColumnInputs
    usable: Bool
    """bool (3, M)."""
    bits: UInt8
    """uint8 (M,): the same as bits, the primary lowest."""
    apart: Int64
    """int64 (3, M): as in :class:`Cells`, 0 where one of the pair is not usable."""
    beyond: Int64


def cut(columns: Columns, end_us: int, ages_us: Sequence[tuple[int, ...]]) -> Cells:
    """Cut rows at every end of a price's life under any of the ages.

    Args:
        columns: rows of one block.
        end_us: until when the last row holds.
        ages_us: max ages by role, for each setting (or each that differs).
    """
    at_us = columns.at_us
    until_us = np.append(at_us[1:], end_us)
    rows, instants = [], []
    for role in range(3):
        alive = columns.usable[role] != 0
        for age_us in sorted({ages[role] for ages in ages_us}):
            over_us = columns.recency_us[role] + (age_us + 1)
            within = np.flatnonzero((over_us > at_us) & (over_us < until_us) & alive)
            if len(within):
                rows.append(within)
                instants.append(over_us[within])
    apart, beyond = _distances(columns)
    if not rows:
        return Cells(at_us, until_us, columns, apart, beyond)
    row = np.concatenate([np.arange(len(at_us)), *rows])
    instant = np.concatenate([at_us, *instants])
    order = np.lexsort((instant, row))
    row, instant = row[order], instant[order]
    # A row begins at its own instant even if that is an empty interval; of equal cuts within a row one is kept.
    keep = np.append(True, (row[1:] != row[:-1]) | (instant[1:] != instant[:-1]))
    row, instant = row[keep], instant[keep]
    expanded = Columns._make(column[..., row] for column in columns)
    return Cells(instant, np.append(instant[1:], end_us), expanded, apart[:, row], beyond[:, row])


def _distances(columns: Columns) -> tuple[Int64, Int64]:
    conf = np.maximum(columns.conf, 0)
    apart = np.zeros(columns.mantissa.shape, np.int64)
    beyond = np.zeros_like(apart)
    for pair, (a, b) in enumerate(PAIRS):
        both = (columns.usable[a] & columns.usable[b]) != 0
        smaller = np.minimum(columns.mantissa[a], columns.mantissa[b])
        distance = np.abs(columns.mantissa[a] - columns.mantissa[b])
        # Two confidences may not fit int64 together; neither is more than the distance in what follows.
        margin = np.minimum(conf[a], distance)
        left = distance - margin
        left -= np.minimum(conf[b], left)
        apart[pair] = np.where(both, _centi_bps(distance, smaller), 0)
        beyond[pair] = np.where(both, _centi_bps(left, smaller), 0)
    return apart, beyond


def _centi_bps(distance: Int64, smaller: Int64) -> Int64:
    """``distance / smaller`` in hundredths of a basis point, rounded up, exact; capped at :data:`FAR`."""
    divisor = np.maximum(smaller, 1)
    if not len(distance) or distance.max() <= _NARROW:
        scaled = distance.astype(np.uint64) * np.uint64(CENTI_BPS)
        quotient, rest = np.divmod(scaled, divisor.astype(np.uint64))
        capped: Int64 = np.minimum(quotient + (rest > 0), FAR).astype(np.int64)
        return capped
    exact = [-(-one * CENTI_BPS // by) for one, by in zip(distance.tolist(), divisor.tolist(), strict=True)]
    return np.array([min(one, FAR) for one in exact], np.int64)


def usable(cells: Cells, ages_us: tuple[int, ...], max_conf_bps: int) -> Usable:
    """What the rule gets under these limits: as :meth:`oracle_hub.core.table.Table.input` says it."""
    columns = cells.columns
    able = columns.usable != 0
    if max_conf_bps:
        # conf * 10^4 > bps * m, without the overflow: the floor of the right side divided by 10^4.
        whole, rest = np.divmod(columns.mantissa, BPS_ONE)
        able &= columns.conf <= max_conf_bps * whole + max_conf_bps * rest // BPS_ONE
    ages = np.array(ages_us, np.int64)[:, None]
    recency_us = np.where(able, columns.recency_us, 0)
    inputs = ColumnInputs(
        usable_from_us=np.where(able, 0, 1),
        usable_until_us=np.where(able, columns.recency_us + ages, 0),
        mantissa=columns.mantissa,
        recency_us=recency_us,
    )
    alive = able & (cells.at_us <= inputs.usable_until_us)
    bits = alive[0] | alive[1].astype(np.uint8) << 1 | alive[2].astype(np.uint8) << 2
    pairs = np.stack([alive[a] & alive[b] for a, b in PAIRS])
    return Usable(inputs, alive, bits.astype(np.uint8), cells.apart * pairs, cells.beyond * pairs)
