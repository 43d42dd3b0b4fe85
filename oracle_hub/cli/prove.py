"""``oracle-hub prove``: the frames, inputs and rule behind one published price, derived again from the journal."""

import argparse
import base64
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import orjson
from rich.console import Console
from rich.table import Table

from oracle_hub.app.prove import DecisionProof, Evidence, Proof, Prover
from oracle_hub.cli.console import console
from oracle_hub.core.hub import Decision
from oracle_hub.core.licence import WITHHELD, told_inputs
from oracle_hub.core.price import decimal_text, divergence_bps
from oracle_hub.errors import JournalError
from oracle_hub.journal.records import FrameIn
from oracle_hub.stream.messages import encode, feed_entry, view

SHOWN_BYTES = 400
"""How much of a frame is shown to people; ``--json`` has all of it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("batch", metavar="N", nargs="*", type=int, help="epoch and sequence of a batch")
    parser.add_argument("--feed", help="one feed of the batch; with --at, the feed")
    parser.add_argument("--at", metavar="TIME", help="what was in force then: ISO 8601 (UTC), or unix s, ms or us")
    parser.add_argument("--journal", metavar="DIR", type=Path, default=Path("var/journal"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the proof as JSON, with whole frames")
    parser.add_argument(
        "--full",
        action="store_true",
        help="also what redistribute withholds: prices of sources whose licence keeps them here. Not to be handed on",
    )


def run(options: argparse.Namespace) -> int:
    proof = _prove(options)
    if options.json:
        answer = as_json(proof, full=options.full)
        sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _show(proof, console(), full=options.full)
    return 0 if proof.proved else 1


def _prove(options: argparse.Namespace) -> Proof:
    if options.at is not None:
        if options.batch or options.feed is None:
            raise JournalError(
                "--at goes with --feed and with no batch: prove --feed SOL/USD --at 2026-11-21T12:00:00Z"
            )
        return Prover(options.journal).in_force(options.feed, instant_us(options.at))
    if len(options.batch) != 2:
        raise JournalError("give EPOCH and SEQ, as the stream tells them, or --feed and --at")
    epoch, seq = options.batch
    return Prover(options.journal).batch(epoch, seq, options.feed)


def instant_us(text: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time (UTC where it names no zone) or a unix time, by its magnitude.

    Raises:
        JournalError: neither.
    """
    try:
        number = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise JournalError(f"--at {text}: neither ISO 8601 (2026-11-21T12:00:00Z) nor a unix time") from None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1e6)
    if not 0 < number < 1e17:
        raise JournalError(f"--at {text}: no unix time in seconds, milliseconds or microseconds")
    if number >= 1e14:
        return int(text) if text.isdigit() else round(number)
    return round(number * (1e3 if number >= 1e11 else 1e6))


def as_json(proof: Proof, *, full: bool = False) -> dict[str, Any]:
    """The proof as JSON values; only with ``full`` what a licence keeps inside."""
    return {
        "proved": proof.proved,
        "epoch": proof.epoch,
        "seq": proof.seq,
        "now_us": proof.now_us,
        "instance": proof.instance,
        "version": proof.version,
        "simulated": proof.simulated,
        "config_hash": proof.config_hash,
        "digest_published": proof.published,
        "digest_derived": proof.derived,
        "began_at": proof.began_at,
        "decisions": [_decision_json(one, proof.now_us, full) for one in proof.decisions],
    }


def _told(one: DecisionProof, full: bool) -> Decision:
    """The decision as it may be handed on."""
    decision, spec = one.decision, one.spec
    if full or spec is None:
        return decision
    return msgspec.structs.replace(decision, inputs=told_inputs(decision.inputs, spec, decision.mantissa))


def _decision_json(one: DecisionProof, now_us: int, full: bool) -> dict[str, Any]:
    decision, spec = _told(one, full), one.spec
    entry: dict[str, Any] = orjson.loads(encode(feed_entry(decision, view(decision, now_us), full=True)))
    entry["by_the_rule"] = one.by_the_rule
    if spec is not None:
        entry["policy"] = spec.policy.value
        entry["max_divergence_bps"] = spec.max_divergence_bps
        entry["max_conf_bps"] = spec.max_conf_bps
        for source, shown in entry["inputs"].items():
            shown["max_age_ms"] = spec.max_age_us[source] // 1_000
    for source, evidence in one.evidence.items():
        hidden = source in one.private and not full
        frames = [_withheld_json(frame) if hidden else _frame_json(frame) for frame in evidence.frames]
        entry["inputs"][source]["evidence"] = {"segment": evidence.segment, "frames": frames}
    return entry


def _frame_json(record: FrameIn) -> dict[str, Any]:
    frame = record.frame
    shown: dict[str, Any] = {"link": record.link, "received_us": record.received_us, "channel": frame.channel}
    if frame.fetch_id:
        shown |= {"fetch_id": frame.fetch_id, "status": frame.status}
    try:
        shown["text"] = frame.data.decode()
    except UnicodeDecodeError:
        shown["base64"] = base64.b64encode(frame.data).decode()
    return shown


def _withheld_json(record: FrameIn) -> dict[str, Any]:
    """A frame by its digest: who has it can show that it is the one."""
    data = record.frame.data
    where = {"link": record.link, "received_us": record.received_us, "channel": record.frame.channel}
    return where | {"withheld": WITHHELD, "bytes": len(data), "sha256": sha256(data).hexdigest()}


def _show(proof: Proof, out: Console, *, full: bool) -> None:
    verdict = "[bold green]PROVED[/]" if proof.proved else "[bold red]NOT PROVED[/]"
    marked = "  [magenta]SIMULATED: not the market[/]" if proof.simulated else ""
    out.print(f"{verdict}  batch {proof.epoch}, {proof.seq}, decided {_time(proof.now_us)}{marked}")
    same = "the same" if proof.published == proof.derived else f"[red]{proof.derived}[/]"
    out.print(f"published digest {proof.published}; derived from {proof.began_at} on: {same}")
    out.print(f"instance {proof.instance}, version {proof.version}, configuration {proof.config_hash}")
    for one in proof.decisions:
        out.print()
        _show_decision(one, out, full)


def _show_decision(one: DecisionProof, out: Console, full: bool) -> None:
    decision, spec = one.decision, one.spec
    price = "no price" if decision.mantissa is None else decimal_text(decision.mantissa, decision.expo)
    out.print(f"[bold]{decision.feed}[/]  {decision.state.value}  [bold]{price}[/]")
    lease = "without end" if decision.valid_until_us is None else f"until {_time(decision.valid_until_us)}"
    said = {None: "no rule was applied", True: "the rule gives it again", False: "[red]the rule gives another[/]"}
    out.print(
        f"{decision.rule.value} ({decision.reason.value}), source {decision.source or 'none'}, lease {lease}; "
        f"{said[one.by_the_rule]}"
    )
    if spec is not None:
        out.print(f"policy {spec.policy.value}, threshold {spec.max_divergence_bps} bps")
        out.print(_inputs(one, full))
    for source, evidence in one.evidence.items():
        _show_evidence(source, evidence, out, hidden=source in one.private and not full)


def _inputs(one: DecisionProof, full: bool) -> Table:
    decision, spec = _told(one, full), one.spec
    assert spec is not None
    table = Table()
    for column in ("source", "role", "status", "price", "published", "received", "age s", "max s", "from price bps"):
        table.add_column(column)
    for entry in decision.inputs:
        held = entry.held or entry.withheld
        price, apart = "withheld: licence", "—" if entry.apart_bps is None else str(entry.apart_bps)
        if entry.held is not None:
            price = decimal_text(entry.held.mantissa, decision.expo)
            if decision.mantissa is not None:
                apart = f"{divergence_bps(entry.held.mantissa, decision.mantissa):.2f}"
        limit = f"{spec.max_age_us[entry.source] / 1e6:g}"
        if held is None:
            table.add_row(entry.source, entry.role, entry.status.value, "—", "—", "—", "—", limit, "—")
            continue
        age_s = (decision.decided_us - min(held.publish_us, held.received_us)) / 1e6
        table.add_row(
            entry.source,
            entry.role,
            entry.status.value,
            price,
            _time(held.publish_us),
            _time(held.received_us),
            f"{age_s:.3f}",
            limit,
            apart if decision.mantissa is not None else "—",
        )
    return table


def _show_evidence(source: str, evidence: Evidence, out: Console, *, hidden: bool) -> None:
    for record in evidence.frames:
        data = record.frame.data
        if hidden:
            data = f"withheld: licence (--full); {len(data)} bytes, SHA-256 {sha256(data).hexdigest()}".encode()
        shown = data[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
        more = f" … {len(data) - SHOWN_BYTES} bytes more" if len(data) > SHOWN_BYTES else ""
        out.print(f"{source}: {record.link} at {_time(record.received_us)}, {evidence.segment}", style="cyan")
        out.print(f"{shown}{more}", style="dim", markup=False)


def _time(instant_us: int) -> str:
    return datetime.fromtimestamp(instant_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + (
        f".{instant_us % 1_000_000:06d}Z"
    )
