"""How fast the rule is: scalar and columnar, beside a C loop that does the same.

A cell is one feed at one instant, decided with all reason codes. The C loop is compiled with ``cc -O2`` when the
benchmark runs, and its answers are compared with ours before anything is timed.
"""

import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.report import Figure, Report, Table, Timing, Value, main, measure
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.columns import CODES, ColumnInputs, ColumnSelector
from oracle_hub.core.hub import Hub
from oracle_hub.core.selector import OUTCOMES, Input, Policy, select
from oracle_hub.core.source import PriceUpdate

SIZES = (5, 8, 64, 512, 4_096, 1_000_000)
LARGEST_IN_ONE_LIST = 16_384
NOW_US = 1_760_000_000_000_000
BPS = 50
POLICY = Policy.STRICT
ROLES = ("doves", "chainlink", "pyth")

Int64: TypeAlias = npt.NDArray[np.int64]
Cell: TypeAlias = tuple[Input, Input, Input]
Prepared: TypeAlias = tuple[Callable[[], object], npt.NDArray[np.uint8], Int64]
"""The C loop bound to its arrays, and the two that it writes: codes and prices."""
Floor: TypeAlias = Callable[[Int64, ColumnInputs], Prepared]

C_SOURCE = r"""
#include <stdint.h>
static inline int64_t reach(int64_t m, int64_t bps) {  /* how far another price may be above m */
    return bps * (m / 10000) + bps * (m % 10000) / 10000;
}
void select_cells(int64_t n, const int64_t *now, int64_t bps, const int64_t *from, const int64_t *until,
                  const int64_t *mantissa, const int64_t *recency, const uint8_t *code_of, const uint8_t *chosen_of,
                  uint8_t *code, int64_t *price) {
    for (int64_t i = 0; i < n; i++) {
        int64_t t = now[i], p = mantissa[i], a = mantissa[n + i], b = mantissa[2 * n + i];
        int64_t rp = reach(p, bps), ra = reach(a, bps), rb = reach(b, bps);
        int64_t pa = p - a, pb = p - b, ab = a - b;
        unsigned s = (from[i] <= t) & (t <= until[i]);
        s |= ((from[n + i] <= t) & (t <= until[n + i])) << 1;
        s |= ((from[2 * n + i] <= t) & (t <= until[2 * n + i])) << 2;
        s |= ((pa <= ra) & (-pa <= rp)) << 3;
        s |= ((pb <= rb) & (-pb <= rp)) << 4;
        s |= ((ab <= rb) & (-ab <= ra)) << 5;
        s |= (recency[2 * n + i] > recency[n + i]) << 6;
        int64_t choice[4] = {0, p, a, b};
        code[i] = code_of[s];
        price[i] = choice[chosen_of[s]];
    }
}
"""


def cells(n_cells: int, *, live: bool, seed: int = 7) -> tuple[Int64, ColumnInputs]:
    """``now`` and inputs: every feed live, or a mix of fresh, stale, near and far that reaches every outcome."""
    rng = np.random.default_rng(seed)
    now = np.full(n_cells, NOW_US, np.int64)
    starts = np.zeros((3, n_cells), np.int64)
    recency = NOW_US - rng.integers(0, 4_000_000, (3, n_cells))
    base = np.exp(rng.uniform(np.log(1e6), np.log(1e13), n_cells))
    if live:
        spread, max_age_us = 0.0004, 5_000_000
    else:
        spread, max_age_us = 0.003, 3_000_000
    prices = (base * (1 + spread * rng.standard_normal((3, n_cells)).clip(-3, 3))).astype(np.int64)
    return now, ColumnInputs(starts, recency + max_age_us, prices, recency)


def compile_floor(folder: Path) -> Floor | None:
    """Build the C loop; None where there is no compiler."""
    source, library = folder / "floor.c", folder / "floor.so"
    source.write_text(C_SOURCE, encoding="utf-8")
    try:
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    function = ctypes.CDLL(str(library)).select_cells
    function.restype = None
    function.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 8]
    code_of = np.array([CODES.index(outcome) for outcome in OUTCOMES[POLICY]], np.uint8)
    chosen_of = np.array([outcome.chosen + 1 for outcome in OUTCOMES[POLICY]], np.uint8)

    def prepare(now: Int64, inputs: ColumnInputs) -> Prepared:
        code, price = np.empty(len(now), np.uint8), np.empty(len(now), np.int64)
        columns = [column.ctypes.data for column in (*inputs, code_of, chosen_of, code, price)]
        return partial(function, len(now), now.ctypes.data, BPS, *columns), code, price

    return prepare


def scalar_cells(inputs: ColumnInputs, start: int, stop: int) -> list[Cell]:
    """A slice of the columns as the scalar form takes it."""
    rows = np.stack(inputs, axis=2)[:, start:stop].tolist()
    return [(tuple(p), tuple(a), tuple(b)) for p, a, b in zip(*rows, strict=True)]


def run_scalar(of_cells: list[Cell]) -> None:
    for cell in of_cells:
        select(NOW_US, cell, BPS, POLICY)


def time_scalar(inputs: ColumnInputs, repetitions: int) -> Timing:
    n_cells = inputs.mantissa.shape[1]
    if n_cells <= LARGEST_IN_ONE_LIST:
        of_cells = scalar_cells(inputs, 0, n_cells)
        return measure(partial(run_scalar, of_cells), repetitions=repetitions)
    total_s = 0.0  # once through, in slices: a million cells as Python objects would fill the memory
    for start in range(0, n_cells, LARGEST_IN_ONE_LIST):
        of_cells = scalar_cells(
            ColumnInputs._make(c[:, start : start + LARGEST_IN_ONE_LIST] for c in inputs), 0, n_cells
        )
        started = time.perf_counter()
        run_scalar(of_cells)
        total_s += time.perf_counter() - started
    return Timing(total_s, total_s)


def check_equal(in_c: Prepared | None, now: Int64, inputs: ColumnInputs) -> None:
    """All forms give the same answers, or there is nothing to time."""
    ours = ColumnSelector().select(now, inputs, BPS, POLICY)
    if in_c is not None:
        call, code, price = in_c
        call()
        if not (np.array_equal(ours.code, code) and np.array_equal(ours.mantissa, price)):
            raise SystemExit("selector: the columnar form and the C loop differ")
    for index, cell in enumerate(scalar_cells(inputs, 0, min(len(now), LARGEST_IN_ONE_LIST))):
        selection = select(NOW_US, cell, BPS, POLICY)
        if CODES[ours.code[index]] != selection.outcome or ours.mantissa[index] != (selection.mantissa or 0):
            raise SystemExit(f"selector: the columnar and the scalar form differ at cell {index}: {cell}")


FORMS = ("scalar", "columnar", "columnar+lease", "C")


def time_forms(floor: Floor | None, n_cells: int, *, live: bool, repetitions: int) -> tuple[Timing | None, ...]:
    """One timing for each of :data:`FORMS`; None for the C loop where there is no compiler."""
    now, inputs = cells(n_cells, live=live)
    in_c = None if floor is None else floor(now, inputs)
    check_equal(in_c, now, inputs)
    columnar = partial(ColumnSelector().select, now, inputs, BPS, POLICY)
    return (
        time_scalar(inputs, repetitions),
        measure(columnar, repetitions=repetitions),
        measure(partial(columnar, leases=True), repetitions=repetitions),
        None if in_c is None else measure(in_c[0], repetitions=repetitions),
    )


def compare(floor: Floor | None, repetitions: int) -> tuple[list[Table], list[Figure]]:
    """Every size and kind of data. The figures are the worse of both kinds over a million cells."""
    times: list[tuple[Value, ...]] = []
    rates: list[tuple[Value, ...]] = []
    for n_cells in SIZES:
        for live in (False, True):
            timings = time_forms(floor, n_cells, live=live, repetitions=repetitions)
            _, columnar, _, in_c = timings
            ratio = None if in_c is None or columnar is None else columnar.median_s / in_c.median_s
            case: tuple[Value, ...] = (n_cells, "live" if live else "mixed")
            times.append(case + tuple(None if timing is None else timing.us for timing in timings))
            rates.append(case + tuple(None if timing is None else n_cells / timing.us for timing in timings) + (ratio,))
    names = ("cells", "data", *FORMS)
    tables = [
        Table("Microseconds per call", names, tuple(times)),
        Table("Million cells per second", (*names, "columnar/C"), tuple(rates)),
    ]

    def of_a_million(position: int) -> list[float]:
        return [float(row[position]) for row in rates[-2:] if row[position] is not None and row[0] == max(SIZES)]  # type: ignore[arg-type]

    figures = [
        Figure("columnar_rate", min(of_a_million(3)), "Mcells/s", at_least=12.0),
        Figure("columnar_rate_with_leases", min(of_a_million(4)), "Mcells/s"),
    ]
    if floor is not None:
        figures.append(Figure("columnar_to_c", max(of_a_million(6)), "x", at_most=8.0))
    return tables, figures


def crossing(repetitions: int, *, leases: bool) -> int | None:
    """The least number of cells, of those tried, from which on the columnar form is the faster one. Mixed data."""
    selector, won_at = ColumnSelector(), None
    for n_cells in (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128):
        now, inputs = cells(n_cells, live=False)
        of_cells = scalar_cells(inputs, 0, n_cells)
        scalar = measure(partial(run_scalar, of_cells), repetitions=repetitions, at_least_s=0.005)
        in_columns = partial(selector.select, now, inputs, BPS, POLICY, leases=leases)
        columnar = measure(in_columns, repetitions=repetitions, at_least_s=0.005)
        if columnar.minimum_s > scalar.minimum_s:
            won_at = None
        elif won_at is None:
            won_at = n_cells
    return won_at


def five_feeds() -> tuple[Hub, list[PriceUpdate]]:
    """A hub of five live feeds, and updates of one of them that each change its price."""
    names = ("SOL/USD", "BTC/USD", "ETH/USD", "USDC/USD", "USDT/USD")
    ages = dict.fromkeys(ROLES, 60_000_000)
    specs = [FeedSpec(feed=name, primary=ROLES[0], verifiers=(ROLES[1], ROLES[2]), max_age_us=ages) for name in names]
    hub = Hub(Catalog(specs), epoch=1, config_hash="", started_us=NOW_US)

    def update(feed: str, source: str, mantissa: int, at_us: int) -> PriceUpdate:
        return PriceUpdate(source, "benchmark", feed, mantissa, publish_us=at_us, received_us=at_us)

    for name in names:
        for source in ROLES:
            hub.apply(update(name, source, 17_512_345_678, NOW_US), NOW_US)
    hub.step(NOW_US)
    return hub, [update(names[0], ROLES[0], 17_512_345_678 + step % 1_000, NOW_US + step) for step in range(1, 40_001)]


def ticks(repetitions: int) -> dict[str, float]:
    """Microseconds for a tick that touches one feed of five: the choice alone, and from update to decision."""
    hub, updates = five_feeds()
    table, spec = hub.table, hub.catalog.feeds[0]
    primary, first, second = (table.cell_of(source, spec.feed) or 0 for source in ROLES)

    def choose() -> None:
        inputs = (table.input(primary, spec), table.input(first, spec), table.input(second, spec))
        select(NOW_US, inputs, spec.max_divergence_bps, spec.policy)

    choice = measure(choose, repetitions=repetitions)
    per_repetition = len(updates) // repetitions
    whole: list[float] = []
    source = cycle(updates)
    for _ in range(repetitions):
        hub, _ = five_feeds()
        started = time.perf_counter()
        for _ in range(per_repetition):
            update = next(source)
            hub.apply(update, update.received_us)
            hub.step(update.received_us)
        whole.append((time.perf_counter() - started) / per_repetition * 1e6)
    return {"choice": choice.us, "whole": sorted(whole)[len(whole) // 2]}


def run(repetitions: int) -> Report:
    tick = ticks(repetitions)
    with tempfile.TemporaryDirectory() as folder:
        floor = compile_floor(Path(folder))
        tables, over_a_million = compare(floor, repetitions)
    figures = [
        Figure("tick_one_feed_of_five", tick["choice"], "us", at_most=10.0),
        Figure("tick_update_to_decision", tick["whole"], "us"),
        *over_a_million,
    ]
    for name, leases in (("crossing", False), ("crossing_with_leases", True)):
        cell_count = crossing(repetitions, leases=leases)
        if cell_count is not None:
            figures.append(Figure(name, float(cell_count), "cells"))
    notes = [
        f"Medians of {repetitions} repetitions after a warm-up (a million cells in the scalar form: once through).",
        "Rates and ratio among the figures: the worse of mixed and live data, a million cells, one core.",
        "The scalar form always finds the lease; the C loop never does, and writes into arrays that it is given.",
        "A crossing is the fewest cells from which the columnar form wins, when its inputs are columns already.",
        "The tick reads three cells of the table and chooses; update_to_decision also applies and builds the batch.",
    ]
    if floor is None:
        notes.append("No C compiler (cc): the floor is left out.")
    return Report("selector", tuple(figures), tuple(tables), tuple(notes))


if __name__ == "__main__":
    sys.exit(main("selector", "Time the rule, in both forms and in C.", run))
