"""``python -m tests.checker --minutes 10 --seed 1``: hubs and subscribers under faults. See docs/checker.md."""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.checker.findings import RULES
from tests.checker.plants import PLANTS
from tests.checker.run import Outcome, run

SHOWN_EVIDENCE = 400


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(outcome: Outcome) -> None:
    report = outcome.report
    for finding in report.findings:
        where = f"{finding.client}, connection {finding.connection}, frame {finding.frame}: " if finding.client else ""
        print(f"[{finding.rule}] {where}{finding.message}\n    {str(finding.evidence)[:SHOWN_EVIDENCE]}")
    print("faults:  " + ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.faults.items())))
    print("checked: " + ", ".join(f"{name} {count}" for name, count in sorted(report.checked.items())))
    if report.latest_act_us is not None:
        print(f"acts:    the latest was {report.latest_act_us / 1000:+.1f} ms from the end of its price's lease")
    if report.longest_hop_us:
        late_ms = report.longest_hop_us / 1000
        print(f"hop:     a worker sent a heartbeat {late_ms:.1f} ms after a batch that it did not know")
    for rule, count in report.found.items():
        print(f"violated {count} times: {rule}: {RULES[rule]}")
    print("passed" if report.passed else "FAILED")


def main() -> int:
    """0 when nothing was found, 1 when something was."""
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1, help="of the faults, the clients and the prices (default 1)")
    parser.add_argument("--clients", type=int, default=40, metavar="N")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that serve for each hub")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="put this fault into the first hub: the run must fail")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep journals and logs in this new directory")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.keep is not None:
            options.keep.mkdir(parents=True)
            directory = options.keep
        else:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oracle-hub-checker-")))
        outcome = asyncio.run(
            run(
                directory,
                minutes=options.minutes,
                seed=options.seed,
                n_clients=options.clients,
                n_workers=options.workers,
                plant=options.plant,
                progress=_say,
            )
        )
    if options.json:
        settings = {
            "minutes": options.minutes,
            "seed": options.seed,
            "clients": options.clients,
            "workers": options.workers,
        }
        print(msgspec.json.encode({**settings, "plant": options.plant, **outcome.as_json()}).decode())
    else:
        _print(outcome)
    return 0 if outcome.report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
