"""The columnar what-if against the whole program, setting by setting."""

import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from feeds.emulator.tape import read_tape
from oracle_hub.alerts.alert import Change, Kind
from oracle_hub.alerts.engine import AlertEngine, facts_after
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.app.whatif import decoded_journal, decoded_tape, hold_times, play, tape_catalog, tape_hub, tape_updates
from oracle_hub.config import parse_config
from oracle_hub.core.hub import Batch, Hub
from oracle_hub.core.selector import Policy, Rule, State
from oracle_hub.journal.decoded import Decoded
from oracle_hub.journal.grid import Setting, parse_grid
from oracle_hub.journal.whatif import ALERTS, LEAVE_PERCENT, transitions, what_if
from tests.app.rig import SIMULATION
from tests.whatif.whatif_stage import BTC, SOL, After, Said, collapsed, expire, replayed, shown, walk, write_history

SETTINGS = [
    *parse_grid("max_divergence_bps=10,60 max_age_ms=1617,5003,20000 policy=strict,quorum"),
    Setting(max_conf_bps=20),
    Setting(max_conf_bps=5, policy=Policy.QUORUM, source_age_us=(("pyth", 2_000_000),)),
]
CONFIGURED = Setting()


def decode(directory: Path) -> Decoded:
    return decoded_journal(directory, None, strict=True, progress=lambda now_us: None)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_transition_is_that_of_a_replay(tmp_path: Path, seed: int) -> None:
    directory = tmp_path / "journal"
    write_history(directory, seed=seed)
    decoded = decode(directory)
    assert (decoded.index.mismatches, decoded.index.gaps) == (0, 0)
    n_transitions = 0
    for setting in (CONFIGURED, *SETTINGS):
        expected = replayed(directory, setting)
        for feed in (SOL, BTC):
            found = shown(transitions(decoded, setting, feed))
            assert found == expected[feed], setting.label
            n_transitions += len(found)
    assert n_transitions > 50 * len(SETTINGS)


async def test_figures_are_those_of_the_transitions(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    write_history(directory, seed=4)
    decoded = decode(directory)
    end_us = max(decoded.index.ends_us)
    result = what_if(decoded, SETTINGS, hold_times())
    series = {setting.label: replayed(directory, setting) for setting in (CONFIGURED, *SETTINGS)}
    for one in result.settings:
        for figures in one.feeds:
            spans = lasting(series[one.setting.label][figures.feed], end_us)
            assert figures.live_us == sum(us for said, us in spans if said.state is State.LIVE)
            assert figures.degraded_us == sum(us for said, us in spans if said.state is State.DEGRADED)
            assert figures.fallback_us == sum(us for said, us in spans if said.rule is Rule.R2)
            assert figures.none_us == sum(us for said, us in spans if said.mantissa is None)
            assert figures.longest_outage_us == longest(spans)
    differing = [row for row in result.disagreement_us if any(row)]
    assert len(differing) == len(result.settings)
    first, second = (series[result.settings[at].setting.label] for at in (1, 5))
    assert result.disagreement_us[1][5] == sum(apart_us(first[feed], second[feed], end_us) for feed in (SOL, BTC))


def lasting(series: Iterable[Said], end_us: int) -> list[tuple[Said, int]]:
    listed = list(series)
    ends = [one.at_us for one in listed[1:]] + [end_us]
    return [(one, until_us - one.at_us) for one, until_us in zip(listed, ends, strict=True)]


def longest(spans: list[tuple[Said, int]]) -> int:
    best = run = 0
    for said, us in spans:
        run = run + us if said.mantissa is None else 0
        best = max(best, run)
    return best


def apart_us(first: list[Said], second: list[Said], end_us: int) -> int:
    """Time in which two series of one feed say another state or price."""
    instants = sorted({one.at_us for one in (*first, *second)} | {end_us})
    total = 0
    for at_us, until_us in itertools.pairwise(instants):
        said = [next(one for one in reversed(series) if one.at_us <= at_us) for series in (first, second)]
        if (said[0].state, said[0].mantissa) != (said[1].state, said[1].mantissa):
            total += until_us - at_us
    return total


@pytest.mark.parametrize("kind", ALERTS)
async def test_alerts_are_as_many_as_the_engine_opens(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "journal"
    write_history(directory, seed=5, turns=400)
    result = what_if(decode(directory), SETTINGS, hold_times())
    counts = []
    for one in result.settings:
        # Alone, so that nothing is grouped with it or kept back for it: what is counted is what lasted.
        alone = AlertSettings(off=frozenset(Kind) - {Kind(kind)}, group_min=1_000, storm_cap=1_000)
        engine = AlertEngine(alone)
        told: list[Change] = []

        def after(
            hub: Hub, now_us: int, batch: Batch | None, engine: AlertEngine = engine, told: list[Change] = told
        ) -> None:
            told.extend(said.change for said in engine.observe(now_us, facts_after(hub, now_us)))

        walk(directory, one.setting, after)
        count = sum(figures.alerts[kind] for figures in one.feeds)
        assert count == told.count(Change.FIRING), one.setting.label
        counts.append(count)
    assert len(set(counts)) > 2


def test_alerts_leave_at_the_same_part_of_their_threshold() -> None:
    assert AlertSettings().leave_percent == LEAVE_PERCENT


async def test_worst_accepted_is_the_largest_distance_from_a_usable_other(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    write_history(directory, seed=6)
    setting = Setting(max_divergence_bps=40, policy=Policy.QUORUM)
    worst = dict.fromkeys((SOL, BTC), 0)

    def after(hub: Hub, now_us: int, batch: Batch | None) -> None:
        for decision in hub.decisions.values():
            for entry in hub.inputs(hub.catalog.feed_index[decision.feed], now_us):
                if decision.mantissa is None or entry.status.value != "ok" or entry.held is None:
                    continue
                apart = abs(entry.held.mantissa - decision.mantissa) * 1_000_000
                smaller = min(entry.held.mantissa, decision.mantissa)
                worst[decision.feed] = max(worst[decision.feed], -(-apart // smaller))

    walk(directory, setting, after)
    found = what_if(decode(directory), [setting], hold_times()).settings[1].feeds
    assert {one.feed: one.worst_accepted_centibps for one in found} == worst
    assert max(worst.values()) > 2_000


def test_a_tape_gives_what_a_hub_decides_that_is_told_of_it(tmp_path: Path) -> None:
    rows = ["t_s,doves,chainlink,pyth"]
    price = 100_000
    for second in range(0, 900, 3):
        price += (second * 7919 % 31 - 15) * 10
        far = price * (80 if 300 < second < 500 else 4) // 10_000
        chainlink = "" if 600 < second < 640 else f"{(price + far) / 1000:.3f}"
        rows.append(f"{1_700_000_000 + second},{price / 1000:.3f},{chainlink},{(price - far // 2) / 1000:.3f}")
    tape_path = tmp_path / "three.csv"
    tape_path.write_text("\n".join(rows) + "\n")
    series = "".join(
        f'[[series]]\nfeed = "SOL/USD"\nsources = ["{name}"]\nprice = "{name}"\ntime = "t_s"\n'
        for name in ("doves", "chainlink", "pyth")
    )
    (tmp_path / "three.csv.toml").write_text(f'title = "three"\n{series}')
    config = parse_config(SIMULATION, origin="simulation")
    decoded = decoded_tape(tape_path, config, None, manifest=None, progress=lambda now_us: None)
    assert decoded.feeds == (SOL,)
    tape = read_tape(tape_path)
    for setting in (CONFIGURED, *SETTINGS):
        catalog = tape_catalog(tape, config)
        hub = tape_hub(tape, setting.changed(catalog))
        batches: list[Batch] = []

        def after(hub: Hub, now_us: int, batch: Batch | None, batches: list[Batch] = batches) -> None:
            if batch is not None:
                batches.append(batch)

        stepped, early = partial(after, hub), partial(lease_ends, hub, after)
        play(tape_updates(tape, catalog, config), hub, stepped, early)
        assert shown(transitions(decoded, setting, SOL)) == collapsed(batches)[SOL], setting.label


def test_a_tape_is_heard_by_every_way_that_reads_it(tmp_path: Path) -> None:
    rows = "t_s,edge,leg,lazer,aggregate\n" + "".join(
        f"{1_700_000_000 + at},{'100.1' if at < 20 else ''},{100.2 if at % 2 else ''},{100.3},{50}\n"
        for at in range(40)
    )
    tape_path = tmp_path / "ways.csv"
    tape_path.write_text(rows)
    names = {"edge": "doves.edge", "leg": "doves.chainlink", "lazer": "doves.lazer", "aggregate": "doves.aggregate"}
    (tmp_path / "ways.csv.toml").write_text(
        'title = "ways"\n'
        + "".join(
            f'[[series]]\nfeed = "SOL/USD"\nsources = ["{oracle}"]\nprice = "{column}"\ntime = "t_s"\n'
            for column, oracle in names.items()
        )
    )
    text = """
[roles]
primary = "edge"
verifiers = ["streams", "lazer"]
[sources.edge]
kind = "edge.rest"
equivalent = true
[sources.edge.ways.lazer]
kind = "doves.lazer"
[sources.streams]
kind = "chainlink.streams"
[sources.streams.ways.account]
kind = "doves.chainlink"
[sources.lazer]
kind = "pyth.pro"
[feeds."SOL/USD"]
[emulator]
"""
    config = parse_config(text, origin="test")
    tape = read_tape(tape_path)
    heard = [update for _, update in tape_updates(tape, tape_catalog(tape, config), config)]
    told = {(one.source, one.transport, one.mantissa, one.verified) for one in heard}
    assert told == {
        ("edge", "tape", 100_10000000, True),
        ("edge", "tape/lazer", 100_30000000, False),
        ("streams", "tape", 100_20000000, True),  # once: both ways read one oracle, and this one proves
        ("lazer", "tape", 100_30000000, True),
    }
    decoded = decoded_tape(tape_path, config, None, manifest=None, progress=lambda now_us: None)
    unequal = parse_config(text.replace("equivalent = true\n", ""), origin="test")
    alone = decoded_tape(tape_path, unequal, None, manifest=None, progress=lambda now_us: None)
    # Edge's own series ends: the further way goes on where it is as good, and where it proves nothing it does not.
    assert shown(transitions(decoded, CONFIGURED, SOL))[-1] != shown(transitions(alone, CONFIGURED, SOL))[-1]
    assert shown(transitions(decoded, CONFIGURED, SOL))[-1][1].startswith("live")


def lease_ends(hub: Hub, after: After, now_us: int) -> None:
    expire(hub, now_us, after)
