"""Golden decisions and alerts of every incident under both policies, and how to write them anew.

``python -m tests.incidents.golden`` rewrites the files of ``reviewed/``. Lines that begin with ``#`` are the reasoning
of whoever reviewed the file: they are kept, so read them again beside what changed. A file without them fails.
"""

from pathlib import Path

from oracle_hub.core.selector import Policy
from oracle_hub.incidents.library import library
from oracle_hub.incidents.player import Conditions, Played, play
from oracle_hub.incidents.script import Script
from oracle_hub.incidents.verdict import alert_lines, decision_lines

GOLDEN = Path(__file__).parent / "reviewed"


def path_of(name: str, policy: Policy) -> Path:
    """The reviewed file."""
    return GOLDEN / f"{name}.{policy.value}.txt"


def played(script: Script, policy: Policy) -> Played:
    """Under the conditions that golden files are of."""
    return play(script, Conditions(policy=policy))


def text_of(result: Played) -> str:
    """What is compared."""
    return "\n".join(["decisions", *decision_lines(result), "", "alerts", *alert_lines(result), ""])


def reasoning(name: str, policy: Policy) -> str:
    """Why the file is plausible, as noted by its reviewer; empty where nobody has."""
    path = path_of(name, policy)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return "".join(f"{line}\n" for line in lines if line.startswith("#"))


def reviewed(name: str, policy: Policy) -> str:
    """What the file holds beside the reasoning."""
    lines = path_of(name, policy).read_text("utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#")).lstrip("\n")


def write_all() -> list[str]:
    """Write every file; names of those that changed."""
    changed = []
    GOLDEN.mkdir(exist_ok=True)
    for name, script in library().items():
        for policy in Policy:
            path, why = path_of(name, policy), reasoning(name, policy)
            text = f"{why}\n{text_of(played(script, policy))}" if why else text_of(played(script, policy))
            if not path.exists() or path.read_text("utf-8") != text:
                path.write_text(text, encoding="utf-8")
                changed.append(path.name)
    return changed


if __name__ == "__main__":
    print("\n".join(write_all()) or "nothing changed")
