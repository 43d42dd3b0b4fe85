"""From a journal or a tape to the decoded columns that :mod:`oracle_hub.journal.whatif` reads.

A journal goes through the very replay that proves it; after each step the feeds that it looked at are written down. A
tape goes through a hub as the emulator would play it, in the tape's own time and without noise.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec

import oracle_hub
from feeds.emulator.oracles import AGGREGATE, CHAINLINK_LEG, EDGE, HERMES, LAZER, LEGACY, ORACLES, RECEIVER, STORE
from feeds.emulator.tape import Playback, Tape, read_tape
from oracle_hub.alerts.alert import KINDS, Kind
from oracle_hub.app.lineup import addresses_of, catalog_of, lineup_from_text, proves
from oracle_hub.app.replay import Replayer, ReplayReport
from oracle_hub.config import Config, Way, text_hash, ways_of
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.hub import Batch, Hub
from oracle_hub.core.price import rescale, rescale_conf
from oracle_hub.core.selector import Reason
from oracle_hub.core.source import PriceUpdate
from oracle_hub.errors import ConfigError, JournalError
from oracle_hub.journal.decoded import FORMAT, Decoded, DecodedWriter, Stretch, open_decoded
from oracle_hub.journal.holds import HoldTimes
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import Checkpoint, Record, RunStart, Step
from oracle_hub.journal.segments import list_segments
from oracle_hub.journal.whatif import ALERTS

_REASONS = tuple(Reason)
_HOLDING = {reason: 1 + _REASONS.index(reason) for reason in (Reason.CLOCK_SKEW, Reason.JOURNAL, Reason.WARMING)}
CACHE_SUFFIX = ".decoded"
TAPE_WARMUP_US = 10_000_000
_WITH_CONF = frozenset({RECEIVER, LEGACY, HERMES})
_HOSTED_ORACLES = {"edge.rest": EDGE, "chainlink.streams": CHAINLINK_LEG, "pyth.pro": LAZER, "chainlink.evm": STORE}
"""Whose prices the emulator's hosts tell."""

Progress = Callable[[int], None]
"""Called with the instant that was reached."""


def hold_times() -> dict[str, HoldTimes]:
    """The alert engine's own hold times, for the kinds that are counted."""
    specs = {kind: KINDS[Kind(kind)] for kind in ALERTS}
    return {kind: HoldTimes(spec.hold_on_us, spec.hold_off_us, spec.grid_us) for kind, spec in specs.items()}


class _Open(msgspec.Struct):
    """A feed's stretch while it is written."""

    number: int
    cells: tuple[int, int, int]
    warm_until_us: int | None = None
    last: tuple[tuple[int, int, int, int], ...] | None = None


class Recorder:
    """Writes down what a hub looks at. Call :meth:`after` when it has stepped, :meth:`finish` at the end."""

    def __init__(self, writer: DecodedWriter) -> None:
        self._writer = writer
        self._hub: Hub | None = None
        self._catalog: Catalog | None = None
        self._open: dict[str, _Open] = {}
        self._last_us = 0

    def after(self, hub: Hub, now_us: int) -> None:
        """Take down every feed that the step at ``now_us`` looked at."""
        if hub is not self._hub or hub.catalog is not self._catalog or now_us < self._last_us:
            # A reload goes on without a hole. Between two runs, and over a clock that was set back, nothing is known.
            self._close(now_us if hub is self._hub and now_us >= self._last_us else self._last_us)
            self._hub, self._catalog = hub, hub.catalog
            touched: Iterable[int] = range(len(hub.catalog.feeds))
        else:
            touched = hub.touched
        for index in touched:
            self._look(hub, hub.catalog.feeds[index], now_us)
        self._last_us = now_us

    def _look(self, hub: Hub, spec: FeedSpec, now_us: int) -> None:
        held = self._open.get(spec.feed)
        if held is None:
            held = self._open[spec.feed] = self._begin(hub, spec)
        self._warm(held, now_us)
        decision = hub.decisions[spec.feed]
        table = hub.table
        a, b, c = held.cells
        roles = (table.standing(a), table.standing(b), table.standing(c))
        self._writer.row(held.number, now_us, roles, _HOLDING.get(decision.reason, 0))
        held.last = roles
        held.warm_until_us = decision.valid_until_us if decision.reason is Reason.WARMING else None

    def _warm(self, held: _Open, now_us: int) -> None:
        """Warm-up ends at its own instant, whenever somebody looks next."""
        until_us = held.warm_until_us
        if until_us is not None and until_us < now_us and held.last is not None:
            a, b, c = held.last
            self._writer.row(held.number, until_us, (a, b, c), 0)
        held.warm_until_us = None

    def _begin(self, hub: Hub, spec: FeedSpec) -> _Open:
        cells = [hub.table.cell_of(source, spec.feed) for source in spec.roles]
        assert None not in cells  # the catalog binds every role
        first, second, third = spec.roles
        ages_us = (spec.max_age_us[first], spec.max_age_us[second], spec.max_age_us[third])
        stretch = Stretch(
            feed=spec.feed,
            expo=spec.expo,
            roles=spec.roles,
            policy=spec.policy,
            max_divergence_bps=spec.max_divergence_bps,
            max_conf_bps=spec.max_conf_bps,
            max_age_us=ages_us,
            barred=spec.barred,
        )
        a, b, c = (cell or 0 for cell in cells)
        return _Open(self._writer.begin(stretch), (a, b, c))

    def _close(self, at_us: int) -> None:
        for held in self._open.values():
            self._warm(held, at_us)
            self._writer.end(held.number, at_us)
        self._open.clear()

    def finish(self) -> None:
        """End what is open at the last instant."""
        self._close(self._last_us)


def decode_records(records: Iterable[Record], writer: DecodedWriter, progress: Progress) -> ReplayReport:
    """Replay records and write down what the hub looked at.

    Raises:
        JournalError: as a replay does.
    """
    recorder = Recorder(writer)
    replayer = Replayer(lineup_from_text)
    try:
        for record in records:
            if isinstance(record, RunStart | Checkpoint):
                progress(replayer.report.last_us)
            replayer.take(record)
            if isinstance(record, Step) and replayer.engine is not None:
                recorder.after(replayer.engine.hub, record.now_us)
                if not replayer.report.steps % 5_000:
                    progress(record.now_us)
        report = replayer.finish()
        recorder.finish()
        writer.finish(frames=report.frames, steps=report.steps, gaps=report.gaps, mismatches=len(report.mismatches))
    except BaseException:
        writer.discard()
        raise
    return report


def journal_paths(path: Path) -> list[Path]:
    """The segments of a journal's directory, or the one that is named. Raises JournalError where there are none."""
    if path.is_dir():
        paths = [segment.path for segment in list_segments(path)]
        if not paths:
            raise JournalError(f"no segments of a journal in {path}")
        return paths
    if not path.exists():
        raise JournalError(f"{path}: no such file or directory")
    return [path]


def decoded_journal(path: Path, cache: Path | None, *, strict: bool, progress: Progress) -> Decoded:
    """The decoded columns of a journal, made where they are not there yet.

    Args:
        path: directory or segment.
        cache: folder for the columns; beside the journal where None.
    """
    paths = journal_paths(path)
    parts = [f"{one.name} {one.stat().st_size}" for one in paths]
    key = _key("journal", "strict" if strict else "lenient", *parts)
    folder = cache or (path if path.is_dir() else path.parent)
    target = folder / f"{path.resolve().name}{CACHE_SUFFIX}"
    found = open_decoded(target, key)
    if found is None:
        decode_records(read_journal(paths, strict=strict), DecodedWriter(target, key), progress)
        found = open_decoded(target, key)
    return _made(found, target)


def decoded_tape(
    path: Path, config: Config, cache: Path | None, *, manifest: Path | None, progress: Progress
) -> Decoded:
    """The decoded columns of a tape, under the roles of a configuration.

    Raises:
        ConfigError: not a tape, or no feed of the configuration is on it.
    """
    tape = read_tape(path, manifest)
    catalog = tape_catalog(tape, config)
    key = _key("tape", _content(path), str(tape.manifest), _series(tape), text_hash(_catalog_text(catalog, config)))
    target = (cache or path.parent) / f"{path.name}{CACHE_SUFFIX}"
    found = open_decoded(target, key)
    if found is None:
        _decode_tape(tape, catalog, config, DecodedWriter(target, key), progress)
        found = open_decoded(target, key)
    return _made(found, target)


def _made(found: Decoded | None, target: Path) -> Decoded:
    if found is None:
        raise JournalError(f"{target} does not read back as it was written: the disk may be failing")
    return found


def _key(*parts: str) -> str:
    text = "\n".join((f"decoded {FORMAT}", oracle_hub.__version__, *parts))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _content(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _series(tape: Tape) -> str:
    return repr(sorted((feed, oracle, repr(series.spec)) for (feed, oracle), series in tape.series.items()))


def _catalog_text(catalog: Catalog, config: Config) -> str:
    heard = [
        (spec.feed, source, way.name, way.section.kind, proves(way.section))
        for spec in catalog.feeds
        for source in spec.sources
        for way in _ways_by_oracle(config, source, spec.feed)
    ]
    return repr((catalog.feeds, catalog.max_future_us, catalog.stall, catalog.proof, heard))


# Tapes.


def tape_catalog(tape: Tape, config: Config) -> Catalog:
    """The feeds of a configuration that a tape plays."""
    whole = catalog_of(config)
    feeds = [spec for spec in whole.feeds if spec.feed in tape.feeds]
    if not feeds:
        raise ConfigError(f"{tape.name}: plays {', '.join(tape.feeds)}, and the configuration has none of them")
    return Catalog(feeds, max_future_us=whole.max_future_us, stall=whole.stall, proof=whole.proof)


def oracle_of(kind: str) -> str:
    """Which of the emulator's oracles a kind of source reads; a custody is followed to the aggregate."""
    return kind if kind in ORACLES else _HOSTED_ORACLES.get(kind, AGGREGATE)


def tape_updates(tape: Tape, catalog: Catalog, config: Config) -> Iterator[tuple[int, PriceUpdate]]:
    """What the configured sources hear by all of their ways, in order, each with the instant of its arrival.

    What a way proves in a run counts as proved here, since a tape has no signatures.
    """
    playback = Playback(tape, tape.first_us, noise_bps=0)
    series = [
        _updates(playback, way, spec)
        for spec in catalog.feeds
        for source in spec.sources
        for way in _ways_by_oracle(config, source, spec.feed)
    ]
    return heapq.merge(*series, key=lambda one: one[0])


def _ways_by_oracle(config: Config, source: str, feed: str) -> list[Way]:
    """The ways to a feed of a source; of those that read one oracle the one whose word counts most."""
    found: dict[str, Way] = {}
    for name, way in ways_of(config).items():
        if way.source == source and feed in addresses_of(config, name):
            oracle = oracle_of(way.section.kind)
            if oracle not in found or (proves(way.section) and not proves(found[oracle].section)):
                found[oracle] = way
    return list(found.values())


def _updates(playback: Playback, way: Way, spec: FeedSpec) -> Iterator[tuple[int, PriceUpdate]]:
    oracle, transport = oracle_of(way.section.kind), f"tape/{way.way}" if way.way else "tape"
    verified = proves(way.section)
    for point in playback.points(spec.feed, oracle):
        conf = rescale_conf(point.conf, -8, spec.expo) if oracle in _WITH_CONF else None
        mantissa = rescale(point.mantissa, -8, spec.expo)
        update = PriceUpdate(
            way.source, transport, spec.feed, mantissa, point.publish_us, point.emit_us, conf, verified=verified
        )
        yield point.emit_us, update


def play(
    updates: Iterator[tuple[int, PriceUpdate]],
    hub: Hub,
    after: Callable[[int, Batch | None], None],
    before: Callable[[int], None] = lambda now_us: None,
) -> tuple[int, int]:
    """Step a hub once for each instant at which something arrives. Returns updates and steps.

    ``before`` is called with the instant before its updates are applied, ``after`` with what the step gave.
    """
    n_updates = n_steps = 0
    for now_us, burst in itertools.groupby(updates, key=lambda one: one[0]):
        before(now_us)
        for _, update in burst:
            hub.apply(update, now_us)
            n_updates += 1
        after(now_us, hub.step(now_us))
        n_steps += 1
    return n_updates, n_steps


def tape_hub(tape: Tape, catalog: Catalog) -> Hub:
    """A hub that begins with the first row."""
    return Hub(catalog, epoch=1, config_hash="", started_us=tape.first_us, warmup_us=TAPE_WARMUP_US)


def _decode_tape(tape: Tape, catalog: Catalog, config: Config, writer: DecodedWriter, progress: Progress) -> None:
    hub, recorder = tape_hub(tape, catalog), Recorder(writer)

    def after(now_us: int, batch: Batch | None) -> None:
        recorder.after(hub, now_us)
        progress(now_us)

    try:
        n_updates, n_steps = play(tape_updates(tape, catalog, config), hub, after)
        recorder.finish()
        writer.finish(frames=n_updates, steps=n_steps, gaps=0, mismatches=0)
    except BaseException:
        writer.discard()
        raise
