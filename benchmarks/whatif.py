"""How long a question takes: ten million (feed, instant) cells under 24 settings, from the decoded column cache.

The history is made: five feeds whose three sources walk together, each row a new observation of one of them, with hours
in which they part, silences, and unsure confidences. It is written through the cache's own writer, read back mapped
into memory as the command does, and decided by the same call. A sample of it is decided cell by cell in the scalar form
and compared. Writing it takes as long as deciding it, and is not timed.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Figure, Report, Table, main
from oracle_hub.app.whatif import hold_times
from oracle_hub.core.columns import CODES, ColumnSelector
from oracle_hub.core.selector import Policy, select
from oracle_hub.journal.cells import cut, usable
from oracle_hub.journal.decoded import BLOCK_ROWS, Columns, Decoded, DecodedWriter, Int64, Stretch, open_decoded
from oracle_hub.journal.grid import Setting, parse_grid
from oracle_hub.journal.whatif import what_if

ROWS = 10_000_000
GRID = "max_divergence_bps=10,25,50,100 max_age_s=5,10,60 policy=strict,quorum"
FEEDS = ("SOL/USD", "BTC/USD", "ETH/USD", "USDC/USD", "USDT/USD")
START_US = 1_790_000_000_000_000
MIB = 2**20


def history(rng: np.random.Generator, rows: int, start_us: int, price: int) -> tuple[Int64, int]:
    """Columns (14, N) of one block, and the price that it ends with.

    A row is 83 ms after the one before (five feeds, 60 updates a second), and one source is new in it.
    """
    at_us = start_us + np.arange(rows) * 83_333 + rng.integers(0, 20_000, rows)
    path = price + np.cumsum(rng.integers(-2, 3, rows) * (price // 100_000))
    turn = np.arange(rows) % 3
    columns = np.zeros((14, rows), np.int64)
    columns[0] = at_us
    apart = rng.random() < 0.03
    for role in range(3):
        noise = rng.normal(0, (12 if apart else 1) * price / 10_000, rows).astype(np.int64)
        heard = turn == role
        if rng.random() < 0.02:
            heard[rows // 3 : rows // 2] = False  # about seven minutes of silence
        heard[0] = True
        last = np.maximum.accumulate(np.where(heard, np.arange(rows), 0))
        columns[1 + role] = np.maximum((path + noise)[last], 1)
        columns[4 + role] = columns[1 + role] // 3_000 if role == 2 else -1
        columns[7 + role] = at_us[last] - 400_000
        columns[10 + role] = 1
    return columns, int(path[-1])


def write(path: Path, n_rows: int) -> None:
    """A cache of so many rows, a fifth of them for each feed."""
    rng = np.random.default_rng(8)
    writer = DecodedWriter(path, "benchmark")
    each = n_rows // len(FEEDS)
    for number, feed in enumerate(FEEDS):
        writer.begin(
            Stretch(
                feed=feed,
                expo=-8,
                roles=("doves", "chainlink", "pyth"),
                policy=Policy.STRICT,
                max_divergence_bps=50,
                max_conf_bps=0,
                max_age_us=(10_000_000, 5_000_000, 5_000_000),
            )
        )
        price, at_us = 100 * 10**8 * (number + 1), START_US
        for start in range(0, each, BLOCK_ROWS):
            columns, price = history(rng, min(BLOCK_ROWS, each - start), at_us, price)
            writer.block(number, columns)
            at_us = int(columns[0, -1]) + 83_333
        writer.end(number, at_us)
    writer.finish(frames=n_rows, steps=n_rows, gaps=0, mismatches=0)


def compare(decoded: Decoded, settings: list[Setting]) -> int:
    """Decide a sample in the scalar form, too. Returns how many cells; ends the program where one differs."""
    columns, end_us = next(decoded.blocks_of(1))
    sample = Columns._make(column[..., :400] for column in columns)
    stretch, selector, compared = decoded.index.stretches[1], ColumnSelector(), 0
    for setting in settings:
        limits = setting.of(stretch)
        cells = cut(sample, int(columns.at_us[400]) if len(columns.at_us) > 400 else end_us, [limits.max_age_us])
        alive = usable(cells, limits.max_age_us, limits.max_conf_bps)
        chosen = selector.select(cells.at_us, alive.inputs, limits.max_divergence_bps, limits.policy)
        rows = np.stack(alive.inputs).tolist()
        for at, now_us in enumerate(cells.at_us.tolist()):
            inputs = tuple(tuple(rows[part][role][at] for part in range(4)) for role in range(3))
            one = select(now_us, inputs, limits.max_divergence_bps, limits.policy)  # type: ignore[arg-type]
            if (one.outcome, one.mantissa or 0) != (CODES[chosen.code[at]], chosen.mantissa[at]):
                raise SystemExit(f"whatif: the forms differ at {now_us} under {setting.label}")
            compared += 1
    return compared


def run(repetitions: int, *, n_rows: int = ROWS) -> Report:
    """Time one question, ``repetitions`` times."""
    settings = parse_grid(GRID)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.decoded"
        write(path, n_rows)
        base_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        opened = time.perf_counter()
        decoded = open_decoded(path, "benchmark")
        assert decoded is not None
        open_s = time.perf_counter() - opened
        compared = compare(decoded, settings)
        seconds = []
        for _ in range(repetitions):
            started = time.perf_counter()
            result = what_if(decoded, settings, hold_times())
            seconds.append(time.perf_counter() - started)
        size_mib = path.stat().st_size / MIB
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    best_s = sorted(seconds)[len(seconds) // 2]
    decided = result.cells * len(result.settings)
    changes = sum(one.transitions for setting in result.settings for one in setting.feeds)
    rows = (("cells", result.cells), ("settings", len(result.settings)), ("transitions", changes))
    return Report(
        "whatif",
        (
            Figure("whatif_s", best_s, "s", at_most=60.0),
            Figure("whatif_rate", decided / best_s / 1e6, "million cells/s"),
            Figure("whatif_peak_rss", peak_mib, "MiB", at_most=256.0),
            Figure("cache_open_s", open_s, "s"),
        ),
        (Table("history", ("what", "count"), rows),),
        (
            f"cache {size_mib:.0f} MiB; {base_kib / 1024:.0f} MiB resident before it was opened; "
            f"{compared:,} cells compared with the scalar form",
        ),
    )


if __name__ == "__main__":
    sys.exit(main("whatif", str(__doc__), run, repetitions=1))
