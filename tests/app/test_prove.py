"""Proofs: what was published comes out of the journal again, with the frames that it was made of."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import orjson
import pytest

from oracle_hub.app.prove import Prover, by_the_rule
from oracle_hub.cli import main
from oracle_hub.cli.prove import instant_us
from oracle_hub.config import Config
from oracle_hub.core.hub import Batch
from oracle_hub.errors import JournalError
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import FrameIn, Published, Record
from oracle_hub.journal.segments import list_segments
from oracle_hub.journal.writer import JournalWriter
from tests.app.rig import Rig

SOL, BTC = "SOL/USD", "BTC/USD"
EPOCH = 1_790_000_000


@pytest.fixture
async def journal(tmp_path: Path, simulation: Config) -> tuple[Path, list[Batch]]:
    """A run of forty seconds over several segments, with ten seconds in which SOL/USD is silent."""
    rig = Rig(tmp_path / "journal", simulation, max_segment_bytes=24_000)
    for feed in simulation.feeds:
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, 100_00000000, rig.now_s)
        rig.chain.store(feed, 100_00000000, rig.now_s)
    rig.connect()
    for second in range(40):
        rig.manual.advance(1_000_000)
        if not 10 <= second < 20:
            rig.tick(SOL, 100_00000000 + second * 1_000_000)
        rig.tick(BTC, 100_00000000 - second)
        rig.pump.step()
    rig.close()
    assert len(list_segments(tmp_path / "journal")) > 3
    return tmp_path / "journal", rig.published


async def test_every_batch_is_proved_with_the_frames_of_its_inputs(journal: tuple[Path, list[Batch]]) -> None:
    directory, published = journal
    prover = Prover(directory)
    for batch in (published[0], published[1], published[len(published) // 2], published[-2]):
        proof = prover.batch(batch.epoch, batch.seq)
        assert proof.proved
        assert (proof.epoch, proof.seq, proof.now_us) == (batch.epoch, batch.seq, batch.now_us)
        assert tuple(one.decision for one in proof.decisions) == batch.decisions
        for one in proof.decisions:
            assert one.by_the_rule is (None if one.decision.reason.value == "warming" else True)
            held = {entry.source: entry.held for entry in one.decision.inputs if entry.held is not None}
            assert set(one.evidence) == set(held)
            for source, update in held.items():
                frames = one.evidence[source].frames  # of both feeds: this clock stands still within a second
                assert {(frame.link, frame.received_us) for frame in frames} == {(update.transport, update.received_us)}


async def test_a_proof_begins_at_the_nearest_checkpoint(journal: tuple[Path, list[Batch]]) -> None:
    directory, published = journal
    names = [segment.path.name for segment in list_segments(directory)]
    assert Prover(directory).batch(EPOCH, 1).began_at == names[0]
    late = Prover(directory).batch(EPOCH, published[-2].seq)
    assert names.index(late.began_at) >= 2
    for segment in list_segments(directory)[:2]:
        segment.path.unlink()
    assert Prover(directory).batch(EPOCH, published[-2].seq) == late
    with pytest.raises(JournalError, match=rf"batch {EPOCH}, 1 is older than the journal, which begins after \d+"):
        Prover(directory).batch(EPOCH, 1)


async def test_what_was_in_force_at_an_instant(journal: tuple[Path, list[Batch]]) -> None:
    directory, published = journal
    prover = Prover(directory)
    told = [(batch, one) for batch in published for one in batch.decisions if one.feed == SOL]
    states = set()
    for (batch, decision), (following, _) in zip(told[2:-1:5], told[3::5], strict=False):
        for at_us in (batch.now_us, following.now_us - 1):
            proof = prover.in_force(SOL, at_us)
            assert proof.proved
            assert proof.seq == batch.seq
            assert [one.decision for one in proof.decisions] == [decision]
        states.add(decision.state.value)
    assert "live" in states
    with pytest.raises(JournalError, match="no decision for SOL/USD at or before"):
        prover.in_force(SOL, published[0].now_us - 1)
    with pytest.raises(JournalError, match="no decision for DOGE/USD"):
        prover.in_force("DOGE/USD", published[-1].now_us)
    with pytest.raises(JournalError, match="nothing was in force for BTC/USD: the lease of batch"):
        prover.in_force(BTC, published[-1].now_us + 3_600_000_000)


def rewritten(source: Path, target: Path, change: Callable[[Record], Record]) -> None:
    """A journal that is whole and well sealed, and holds other records."""
    writer = JournalWriter(target, instance="test", epoch=EPOCH)
    for record in read_journal(source):
        writer.append(change(record))
    assert writer.close()


@pytest.mark.parametrize("what", ["signed bytes", "json beside them"])
async def test_a_changed_frame_is_found_out(journal: tuple[Path, list[Batch]], tmp_path: Path, what: str) -> None:
    """A price is what was signed: changed, it is refused; the JSON beside it says nothing."""
    directory, published = journal
    wanted = published[-2]
    price = next(one.mantissa for one in wanted.decisions if one.feed == SOL)
    event = next(
        record
        for record in reversed(list(read_journal(directory)))
        if isinstance(record, FrameIn) and record.link == "hermes:1" and f'"{price}"'.encode() in record.frame.data
    )

    def forged(record: Record) -> Record:
        if record != event:
            return record
        was, becomes = str(price).encode(), str((price or 0) + 1).encode()
        if what == "signed bytes":
            was, becomes = b'"data":["UE5BVQEA', b'"data":["UE5BVQIA'
        data = event.frame.data.replace(was, becomes)
        assert data != event.frame.data
        return msgspec.structs.replace(event, frame=msgspec.structs.replace(event.frame, data=data))

    rewritten(directory, tmp_path / "forged", forged)
    proof = Prover(tmp_path / "forged").batch(EPOCH, wanted.seq)
    assert proof.proved is (what == "json beside them")
    assert (proof.published == proof.derived) is proof.proved


async def test_a_changed_digest_is_found_out(
    journal: tuple[Path, list[Batch]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, published = journal
    seq = published[-2].seq

    def forged(record: Record) -> Record:
        if isinstance(record, Published) and record.seq == seq:
            return msgspec.structs.replace(record, digest=bytes(16))
        return record

    rewritten(directory, tmp_path / "forged", forged)
    assert main(["prove", str(EPOCH), str(seq), "--journal", str(tmp_path / "forged")]) == 1
    shown = capsys.readouterr().out
    assert "NOT PROVED" in shown
    assert "00" * 16 in shown


async def test_the_rule_over_other_inputs_is_not_the_decision(journal: tuple[Path, list[Batch]]) -> None:
    directory, published = journal
    (one,) = Prover(directory).batch(EPOCH, published[-2].seq, SOL).decisions
    decision, spec = one.decision, one.spec
    assert decision.mantissa is not None
    assert by_the_rule(decision, spec) is True
    for change in ({"mantissa": decision.mantissa + 1}, {"source": "pyth"}, {"valid_until_us": 1}):
        assert by_the_rule(msgspec.structs.replace(decision, **change), spec) is False
    held = decision.inputs[1].held
    assert held is not None
    doubled = msgspec.structs.replace(held, mantissa=held.mantissa * 2)
    far = msgspec.structs.replace(decision.inputs[1], held=doubled)
    inputs = (decision.inputs[0], far, *decision.inputs[2:])
    assert by_the_rule(msgspec.structs.replace(decision, inputs=inputs), spec) is False


async def test_the_command_prints_frames_inputs_and_rule(
    journal: tuple[Path, list[Batch]], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, published = journal
    batch = published[-2]
    command = ["prove", str(batch.epoch), str(batch.seq), "--journal", str(directory)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "PROVED" in shown
    assert "accountNotification" in shown
    assert "the rule gives it again" in shown
    assert main([*command, "--json", "--feed", SOL]) == 0
    answer = orjson.loads(capsys.readouterr().out)
    (entry,) = answer["decisions"]
    decision = next(one for one in batch.decisions if one.feed == SOL)
    assert answer["proved"] is True
    assert answer["digest_published"] == answer["digest_derived"]
    assert (entry["feed"], entry["price"], entry["rule"]) == (SOL, str(decision.mantissa), "R1")
    frames = entry["inputs"]["pyth"]["evidence"]["frames"]
    prices = [parsed["price"]["price"] for frame in frames for parsed in orjson.loads(frame["text"])["parsed"]]
    assert entry["inputs"]["pyth"]["price"] in prices


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1"], "give EPOCH and SEQ"),
        ([], "give EPOCH and SEQ"),
        (["--at", "2026-11-21"], "--at goes with --feed"),
        (["1", "2", "--feed", SOL, "--at", "5"], "--at goes with --feed"),
        (["--feed", SOL, "--at", "yesterday"], "--at yesterday: neither ISO 8601"),
        (["--feed", SOL, "--at", "-5"], "--at -5: no unix time"),
        (["1", "2"], "no run of epoch 1 in the journal; it holds 1790000000"),
        ([str(EPOCH), "999999"], "was never published"),
        ([str(EPOCH), "1", "--feed", "DOGE/USD"], "says nothing of DOGE/USD; it tells of"),
    ],
)
async def test_bad_input_is_one_line(
    arguments: list[str], message: str, journal: tuple[Path, list[Batch]], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--at={arguments[arguments.index('--at') + 1]}" if one == "--at" else one for one in arguments]
    given = [one for index, one in enumerate(given) if not (index and arguments[index - 1] == "--at")]
    assert main(["prove", *given, "--journal", str(journal[0])]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("name", "reason"), [("nowhere", "no such file or directory"), ("file", "not a directory")])
def test_no_directory_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    assert main(["prove", "1", "2", "--journal", str(tmp_path / name)]) == 1
    line = f"oracle-hub prove: {tmp_path / name}: {reason}; --journal names a journal's directory\n"
    assert capsys.readouterr().err == line


def test_no_journal_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "1", "2", "--journal", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"oracle-hub prove: no segments of a journal in {tmp_path}\n"


@pytest.mark.parametrize(
    "text",
    [
        *("2026-09-21T14:13:20Z", "2026-09-21T14:13:20", "2026-09-21T16:13:20+02:00"),
        *("1790000000", "1790000000000", "1790000000000000", "1790000000.0"),
    ],
)
def test_an_instant_in_any_form(text: str) -> None:
    assert instant_us(text) == 1_790_000_000_000_000
