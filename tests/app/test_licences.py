"""A hub whose sources may not all be told: what its answers, metrics and proofs show, and what a reload changes."""

from pathlib import Path

import msgspec
import orjson
import pytest

from oracle_hub.app import samples
from oracle_hub.app.explain import conditions, explain_feed, notes
from oracle_hub.app.lineup import build_lineup, journaled_endpoints
from oracle_hub.cli import main
from oracle_hub.cli.check import examine
from oracle_hub.config import Config, parse_config
from oracle_hub.core.catalog import Redistribute
from oracle_hub.core.licence import told_batch
from oracle_hub.core.source import Condition, Status
from oracle_hub.metrics import families_of, text_of
from tests.app.rig import SIMULATION, Rig, hermes_event

SOL, BTC = "SOL/USD", "BTC/USD"
HIDDEN = 100_12345678
NO, CHOSEN, FULL = Redistribute.NO, Redistribute.CHOSEN, Redistribute.FULL


def licensed(text: str = SIMULATION, **licences: Redistribute) -> Config:
    for source, licence in licences.items():
        text = text.replace(f"[sources.{source}]", f'[sources.{source}]\nredistribute = "{licence}"')
    return parse_config(text, origin="test")


def live(directory: Path, config: Config) -> Rig:
    """Both feeds have their prices, and Pyth's is one that nobody else has."""
    rig = Rig(directory, config)
    for feed in config.feeds:
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, 100_00000000, rig.now_s)
        rig.chain.store(feed, 100_00000000, rig.now_s)
    rig.connect()
    rig.tick(SOL, 100_00000000)
    rig.manual.advance(1_000_000)
    rig.deliver("hermes:1", hermes_event({SOL: (HIDDEN, rig.now_s)}, 1_234_567))
    rig.pump.step()
    return rig


def answers(rig: Rig) -> str:
    """What the hub says of itself."""
    engine, now_us = rig.pump.engine, rig.clock.now_us()
    explained = msgspec.json.encode([explain_feed(engine, SOL, now_us), conditions(engine, now_us)]).decode()
    return explained + text_of(families_of(samples.of_pump(rig.pump, now_us), rig.pump.latencies)).decode()


async def test_answers_and_metrics_have_no_digit_of_it(tmp_path: Path) -> None:
    shown, hidden = (answers(live(tmp_path / licence, licensed(pyth=licence))) for licence in (FULL, NO))
    for digits in ("12345678", "0012345678", "1234567", "12.34", "0.00123"):
        assert digits not in hidden, digits
    assert "10012345678" in shown and '"divergence_bps":12.34' in shown and "0.0012345678" in shown
    assert '"withheld":"licence"' in hidden and '"divergence_bps":12,' in hidden
    assert 'source_deviation_ratio{feed="SOL/USD",source="pyth"} 0.0012\n' in hidden


async def test_what_a_source_says_loses_its_numbers(tmp_path: Path) -> None:
    rig = live(tmp_path / "journal", licensed(pyth=NO))
    engine, now_us = rig.pump.engine, rig.clock.now_us()
    for source in ("pyth", "chainlink"):
        text = "HTTP 403: refused 100.12345678"
        status = Status(source, "t", SOL, Condition.NOT_ENTITLED, text, now_us)
        engine.statuses[source, "t", SOL] = status
    said = "\n".join(notes(engine, SOL, now_us))
    assert "pyth by t: not_entitled: HTTP 403: refused …" in said
    assert "chainlink by t: not_entitled: HTTP 403: refused 100.12345678" in said
    assert [one["text"] for one in conditions(engine, now_us)] == ["HTTP 403: refused …", text]


async def test_a_reload_counts_from_the_next_step_and_keeps_the_links(tmp_path: Path) -> None:
    rig = live(tmp_path / "journal", licensed())
    before = rig.pump.engine.lineup
    config = licensed(pyth=CHOSEN)
    lineup = build_lineup(config, journaled_endpoints(config), before)
    assert lineup.links is before.links and lineup.config_hash != before.config_hash
    rig.pump.reload(lineup)
    rig.pump.step()
    batch = rig.published[-1]
    assert {decision.feed for decision in batch.decisions} == {SOL, BTC}
    told = told_batch(batch, rig.pump.engine.hub.catalog)
    assert str(HIDDEN) in repr(batch) and str(HIDDEN) not in repr(told)


async def test_a_proof_is_for_others_and_a_full_one_is_for_the_licensee(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, licences in (("stream", {"pyth": NO}), ("account", {"chainlink": CHOSEN})):
        rig = live(tmp_path / name, licensed(**licences))
        rig.close()
        batch = rig.published[-1]
        command = ["prove", str(batch.epoch), str(batch.seq), "--journal", str(tmp_path / name), "--feed", SOL]
        outputs = []
        for options in ((), ("--json",), ("--full",), ("--json", "--full")):
            assert main([*command, *options]) == 0
            outputs.append(capsys.readouterr().out)
        table, as_json, full_table, full_json = outputs
        assert "PROVED" in table and "withheld: licence" in table and "withheld" not in full_table + full_json
        inputs = orjson.loads(as_json)["decisions"][0]["inputs"]
        framed = {source: "withheld" in one["evidence"]["frames"][0] for source, one in inputs.items()}
        if name == "stream":
            assert str(HIDDEN) not in table + as_json and "100.12345678" in full_table and str(HIDDEN) in full_json
            assert framed == {"doves": False, "chainlink": False, "pyth": True}
        else:
            assert framed == {"doves": True, "chainlink": True, "pyth": False}, "one frame has several accounts"
        assert (inputs["pyth"].get("withheld") == "licence") is (name == "stream")


def test_check_tells_who_is_told_and_where_that_leaves_no_fallback() -> None:
    def warnings(config: Config) -> list[str]:
        found = examine(config)["warnings"]
        assert isinstance(found, list)
        return [line for line in found if "may" in line and "told" in line]

    assert warnings(licensed(pyth=CHOSEN)) == []
    (one, _) = warnings(licensed(pyth=NO))
    assert one.startswith(
        "feeds.SOL/USD.verifiers: pyth may not be told (redistribute): the fallback is chainlink alone"
    )
    (both, _) = warnings(licensed(pyth=NO, chainlink=NO))
    assert "neither chainlink nor pyth may be told" in both and "(not_redistributable)" in both
    feeds = examine(licensed(pyth=NO))["feeds"]
    assert isinstance(feeds, dict)
    assert {name: one["redistribute"] for name, one in feeds[SOL]["inputs"].items()} == {
        "doves": "full",
        "chainlink": "full",
        "pyth": "no",
    }
