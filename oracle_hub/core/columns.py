"""The rule over columns: for bursts, large catalogues and replay, many feeds or many instants in one call.

Looks up the same table of outcomes as :func:`oracle_hub.core.selector.select`, so the two forms can differ only in how
they find the situation of a cell (a cell is one feed at one instant). Works through the columns in chunks whose
scratch stays in a core's second-level cache, and allocates nothing but the result.
"""

from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from oracle_hub.core.price import BPS_ONE, INT64_MAX
from oracle_hub.core.selector import BIT_A_BARRED, OUTCOMES, SITUATIONS, USABLE_BITS, Outcome, Policy

Int64: TypeAlias = npt.NDArray[np.int64]
UInt64: TypeAlias = npt.NDArray[np.uint64]
UInt8: TypeAlias = npt.NDArray[np.uint8]
Bool: TypeAlias = npt.NDArray[np.bool_]
IntegerT = TypeVar("IntegerT", np.int64, np.uint8)

NEVER = INT64_MAX
"""``valid_until_us`` of a cell whose outcome never changes by itself."""

POLICIES: tuple[Policy, ...] = (Policy.STRICT, Policy.QUORUM)
"""A policy's number, where cells of both are mixed, is its index here."""

CODES: tuple[Outcome, ...] = tuple(dict.fromkeys(outcome for policy in POLICIES for outcome in OUTCOMES[policy]))
"""Every outcome that the rule can have, once. A cell's code is an index into it."""

CHOSEN = np.array([outcome.chosen for outcome in CODES], np.int64)
"""int64 (n_codes,): which role has the price, by code; -1 for none."""

_BY_SITUATION = [
    OUTCOMES[policy][barred + situation]
    for barred in range(0, SITUATIONS, BIT_A_BARRED)
    for policy in POLICIES
    for situation in range(BIT_A_BARRED)
]
_CODE_OF = np.array([CODES.index(outcome) for outcome in _BY_SITUATION], np.uint8)
"""uint8 (1024,): code by situation (seven bits), policy (the eighth), and who is barred (two more)."""
_CHOSEN_OF = np.array([outcome.chosen + 1 for outcome in _BY_SITUATION], np.uint8)
"""uint8 (1024,): 0 none, 1 primary, 2 first verifier, 3 second verifier."""
_WEIGHTS = np.array([[1 << bit] for bit in range(8)], np.uint8)
_PLACES = np.array([[1], [2], [3]], np.uint8)

_NARROW_LIMIT = (2**64 - 1) // (2 * BPS_ONE)
"""Mantissas up to here (9.2e14, nine million dollars at exponent -8) can be multiplied by 20,000 within uint64."""


class ColumnInputs(NamedTuple):
    """What three sources say, cell by cell. Row 0 is the primary, rows 1 and 2 are the verifiers in config order."""

    usable_from_us: Int64
    """int64 (3, N): first instant at which the source is usable; after ``usable_until_us`` if it never is."""
    usable_until_us: Int64
    """int64 (3, N): last such instant. INT64_MAX: never ends."""
    mantissa: Int64
    """int64 (3, N): positive where the source is usable, anything elsewhere."""
    recency_us: Int64
    """int64 (3, N): decides between the two verifiers."""


class ColumnSelection(NamedTuple):
    """The outcome, cell by cell."""

    code: UInt8
    """uint8 (N,): index into :data:`CODES`, which gives state, rule, chosen role and reason."""
    mantissa: Int64
    """int64 (N,): the price; 0 for none."""
    valid_until_us: Int64 | None
    """int64 (N,): the lease; :data:`NEVER` for never. None where leases were not asked for."""


class _Scratch:
    """Working memory for one chunk of ``size`` cells."""

    def __init__(self, size: int) -> None:
        self.left: UInt64 = np.empty((3, size), np.uint64)
        self.right: UInt64 = np.empty((3, size), np.uint64)
        self.rest: UInt64 = np.empty((3, size), np.uint64)
        self.bits: Bool = np.empty((8, size), np.bool_)
        self.more: Bool = np.empty((3, size), np.bool_)
        self.situation: UInt8 = np.empty(size, np.uint8)
        self.codes: UInt8 = np.empty(size, np.uint8)
        self.index: npt.NDArray[np.intp] = np.empty(size, np.intp)
        self.instant: Int64 = np.empty(size, np.int64)
        self.mask: Int64 = np.empty(size, np.int64)


class ColumnSelector:
    """Chooses over columns, with working memory of its own: use one per thread.

    ``chunk`` is the number of cells worked on at a time. The default keeps inputs and scratch of a chunk at about a
    megabyte, within the second-level cache of a server core.
    """

    def __init__(self, chunk: int = 8_192) -> None:
        if chunk < 1:
            raise ValueError(f"chunk {chunk}: at least one cell is needed")
        self.chunk = chunk
        self._size = 0
        self._scratch = _Scratch(0)

    def select(
        self,
        now_us: int | Int64,
        inputs: ColumnInputs,
        max_divergence_bps: int | Int64,
        policy: Policy | UInt8,
        barred: int | Int64 = 0,
        *,
        leases: bool = False,
    ) -> ColumnSelection:
        """Choose for every cell what :func:`oracle_hub.core.selector.select` would.

        Args:
            now_us: the instant; one for all cells, or int64 (N,).
            inputs: what the sources say.
            max_divergence_bps: threshold, 0 to 10,000; one for all cells, or int64 (N,).
            policy: one for all cells, or uint8 (N,) of indices into :data:`POLICIES`.
            barred: verifiers that may not be chosen, as bits; one for all cells, or int64 (N,).
            leases: also find until when each outcome holds, at about twice the cost.

        Raises:
            ValueError: an array of another shape or dtype.
        """
        n_cells = _check_inputs(inputs)
        now = _per_cell("now_us", now_us, np.int64, n_cells)
        bps = _per_cell("max_divergence_bps", max_divergence_bps, np.int64, n_cells)
        policies = _per_cell(
            "policy", POLICIES.index(policy) if isinstance(policy, Policy) else policy, np.uint8, n_cells
        )
        given = _per_cell("barred", barred, np.int64, n_cells)
        bars = given * 2 if given.any() else None  # the policy's bit stands below theirs: see _CODE_OF
        result = ColumnSelection(
            np.empty(n_cells, np.uint8), np.empty(n_cells, np.int64), np.empty(n_cells, np.int64) if leases else None
        )
        for start in range(0, n_cells, self.chunk):
            cells = slice(start, min(start + self.chunk, n_cells))
            if cells.stop - start != self._size:
                self._size = cells.stop - start
                self._scratch = _Scratch(self._size)
            _select_chunk(
                self._scratch,
                now[cells] if now.ndim else now,
                ColumnInputs._make(column[:, cells] for column in inputs),
                bps[cells] if bps.ndim else bps,
                policies[cells] if policies.ndim else policies,
                bars[cells] if bars is not None and bars.ndim else bars,
                ColumnSelection._make(None if column is None else column[cells] for column in result),
            )
        return result


def _check_inputs(inputs: ColumnInputs) -> int:
    shape = inputs.mantissa.shape
    for name, column in zip(inputs._fields, inputs, strict=True):
        if column.dtype != np.int64 or column.ndim != 2 or column.shape[0] != 3 or column.shape != shape:
            raise ValueError(f"{name}: int64 of one shape (3, N) is needed, not {column.dtype} {column.shape}")
    return int(shape[1])


def _per_cell(
    name: str, value: int | npt.NDArray[IntegerT], dtype: type[IntegerT], n_cells: int
) -> npt.NDArray[IntegerT]:
    """One value for all cells as an array of no dimension, or a column."""
    array = np.array(value, dtype) if isinstance(value, int) else value
    if array.dtype != dtype or array.shape not in ((), (n_cells,)):
        found = f"{array.dtype} {array.shape}"
        raise ValueError(f"{name}: one {dtype.__name__} or ({n_cells},) of them is needed, not {found}")
    return array


def _select_chunk(
    scratch: _Scratch,
    now: Int64,
    inputs: ColumnInputs,
    bps: Int64,
    policies: UInt8,
    bars: Int64 | None,
    result: ColumnSelection,
) -> None:
    bits, index, chosen = scratch.bits, scratch.index, scratch.codes
    mantissa = inputs.mantissa.view(np.uint64)
    _usable(now, inputs, bits[:3], scratch.more)
    _near(scratch, mantissa, bps.view(np.uint64))
    np.greater(inputs.recency_us[2], inputs.recency_us[1], out=bits[6])
    np.copyto(bits[7], policies, casting="unsafe")
    _collapse(bits, scratch.situation)
    np.copyto(index, scratch.situation)
    if bars is not None:
        np.add(index, bars, out=index)
    _CODE_OF.take(index, out=result.code, mode="clip")
    _CHOSEN_OF.take(index, out=chosen, mode="clip")
    # Picks a row without a branch or a gather: each mantissa times 0 or 1, and the three or-ed together.
    np.equal(chosen, _PLACES, out=scratch.more)
    np.copyto(scratch.left, scratch.more)
    np.multiply(scratch.left, mantissa, out=scratch.left)
    np.bitwise_or.reduce(scratch.left, axis=0, out=result.mantissa.view(np.uint64))
    if result.valid_until_us is not None:
        _leases(scratch, now, inputs, bars, result.code, result.valid_until_us)


def _usable(instant: Int64, inputs: ColumnInputs, out: Bool, more: Bool) -> None:
    np.less_equal(inputs.usable_from_us, instant, out=out)
    np.less_equal(instant, inputs.usable_until_us, out=more)
    np.logical_and(out, more, out=out)


def _near(scratch: _Scratch, mantissa: UInt64, bps: UInt64) -> None:
    """Set the three near bits, exactly, whatever the mantissas.

    The bound of :func:`oracle_hub.core.price.near` grows with the mantissa, so a pair is near when neither exceeds the
    other plus the other's own bound. Multiplied by 10,000 that needs no division, where it cannot overflow.
    """
    left, right, bits, more = scratch.left, scratch.right, scratch.bits, scratch.more
    if mantissa.max() <= _NARROW_LIMIT:
        np.multiply(mantissa, BPS_ONE, out=left)
        np.multiply(mantissa, bps + np.uint64(BPS_ONE), out=right)
    else:
        rest = scratch.rest
        np.floor_divide(mantissa, BPS_ONE, out=right)
        np.multiply(right, BPS_ONE, out=rest)
        np.subtract(mantissa, rest, out=rest)
        np.multiply(rest, bps, out=rest)
        np.floor_divide(rest, BPS_ONE, out=rest)
        np.multiply(right, bps, out=right)
        np.add(right, rest, out=right)
        np.add(right, mantissa, out=right)  # at most twice INT64_MAX, which uint64 holds
        left = mantissa
    np.less_equal(left[0], right[1:], out=bits[3:5])
    np.less_equal(left[1:], right[0], out=more[:2])
    np.less_equal(left[1], right[2], out=bits[5])
    np.less_equal(left[2], right[1], out=more[2])
    np.logical_and(bits[3:6], more, out=bits[3:6])


def _collapse(bits: Bool, out: UInt8) -> None:
    """Pack rows of booleans into one byte per cell, the first row lowest. Overwrites them."""
    octets = bits.view(np.uint8)
    np.multiply(octets, _WEIGHTS[: len(octets)], out=octets)
    np.bitwise_or.reduce(octets, axis=0, out=out)


def _leases(scratch: _Scratch, now: Int64, inputs: ColumnInputs, bars: Int64 | None, codes: UInt8, out: Int64) -> None:
    """Find the first instant after now with another outcome, among those at which any source starts or ends."""
    bits, more, instant, mask = scratch.bits, scratch.more, scratch.instant, scratch.mask
    out.fill(NEVER)
    np.bitwise_and(scratch.situation, 255 - USABLE_BITS, out=scratch.situation)
    starts = bool(np.greater(inputs.usable_from_us, now, out=more).any())
    for role in range(3):
        for column in (inputs.usable_from_us, inputs.usable_until_us):
            if column is inputs.usable_from_us:
                if not starts:
                    continue
                np.copyto(instant, column[role])
            else:
                np.add(column[role], 1, out=instant)  # INT64_MAX wraps into the past: it never ends
            _usable(instant, inputs, bits[:3], more)
            _collapse(bits[:3], scratch.codes)
            np.bitwise_or(scratch.codes, scratch.situation, out=scratch.codes)
            np.copyto(scratch.index, scratch.codes)
            if bars is not None:
                np.add(scratch.index, bars, out=scratch.index)
            _CODE_OF.take(scratch.index, out=scratch.codes, mode="clip")
            np.not_equal(scratch.codes, codes, out=more[0])
            np.greater(instant, now, out=more[1])
            np.logical_and(more[0], more[1], out=more[0])
            np.copyto(mask, more[0])
            np.add(mask, NEVER, out=mask)  # NEVER, or wrapped to the least integer where the instant counts
            np.maximum(instant, mask, out=instant)
            np.minimum(out, instant, out=out)
