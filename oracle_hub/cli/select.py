"""``oracle-hub select``: the rule on given inputs, one JSON object per line. A contract, for debugging and checkers."""

import argparse
import json
import sys
from typing import Annotated

import msgspec

from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.selector import ABSENT, Input, Policy, select

ROLES = ("primary", "verifier_1", "verifier_2")


class _Source(msgspec.Struct):
    price: Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,40}$")] | int
    publish_time_us: int
    received_us: int | None = None
    max_age_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Sources(msgspec.Struct, forbid_unknown_fields=True):
    primary: _Source | None = None
    verifier_1: _Source | None = None
    verifier_2: _Source | None = None


class _Question(msgspec.Struct):
    now_us: int
    sources: _Sources
    policy: Policy = Policy.STRICT
    max_age_ms: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    max_divergence_bps: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 50
    max_future_ms: Annotated[int, msgspec.Meta(ge=0)] = 2_000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Reads one JSON object per line: {now_us, policy, max_age_ms, max_divergence_bps, max_future_ms, sources: "
        "{primary, verifier_1, verifier_2}}, each source null or {price, publish_time_us, received_us?, max_age_ms?}. "
        "Writes {state, rule, source, price, reason, valid_until_us} per line; a line that cannot be read gives "
        '{"error": ...} and exit status 1 at the end. Age is by publish time here.'
    )
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON lines")


def run(options: argparse.Namespace) -> int:
    status = 0
    decoder = msgspec.json.Decoder(_Question)
    for line in sys.stdin.buffer:
        if not line.strip():
            continue
        try:
            answer = _answer(decoder.decode(line))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            answer = {"error": str(error)}
            status = 1
        # json, since an instant after a max age of "for ever" may be beyond the 64 bits that quicker libraries write
        sys.stdout.buffer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
        sys.stdout.buffer.flush()
    return status


def _answer(question: _Question) -> dict[str, object]:
    sources = (question.sources.primary, question.sources.verifier_1, question.sources.verifier_2)
    primary, first, second = (_input(question, source) for source in sources)
    selection = select(question.now_us, (primary, first, second), question.max_divergence_bps, question.policy)
    outcome = selection.outcome
    return {
        "state": outcome.state,
        "rule": outcome.rule,
        "source": ROLES[outcome.chosen] if outcome.chosen >= 0 else None,
        "price": None if selection.mantissa is None else str(selection.mantissa),
        "reason": outcome.reason,
        "valid_until_us": selection.valid_until_us,
    }


def _input(question: _Question, source: _Source | None) -> Input:
    if source is None:
        return ABSENT
    mantissa = int(source.price)
    if not 0 < mantissa <= INT64_MAX:
        return ABSENT
    max_age_ms = question.max_age_ms if source.max_age_ms is None else source.max_age_ms
    publish_us = source.publish_time_us
    received_us = publish_us if source.received_us is None else source.received_us
    return (
        publish_us - question.max_future_ms * 1_000,
        publish_us + max_age_ms * 1_000,
        mantissa,
        min(publish_us, received_us),
    )
