"""The scripts that are shipped, read from beside this module."""

import difflib
from functools import lru_cache
from importlib.resources import files

from oracle_hub.errors import IncidentError
from oracle_hub.incidents.script import Script, parse


@lru_cache(maxsize=1)
def library() -> dict[str, Script]:
    """Every incident by its id, oldest first.

    Raises:
        IncidentError: a script that can't be used, or two of one id. A defect of ours.
    """
    found: dict[str, Script] = {}
    for entry in files("oracle_hub.incidents").joinpath("scripts").iterdir():
        if entry.name.endswith(".toml"):
            script = parse(entry.read_text(encoding="utf-8"), origin=entry.name)
            if entry.name != f"{script.id}.toml":
                raise IncidentError(f"{entry.name}: holds {script.id}: file and id must be the same")
            found[script.id] = script
    return dict(sorted(found.items(), key=lambda item: (item[1].kind != "incident", item[1].start_us, item[0])))


@lru_cache(maxsize=1)
def tape_library() -> dict[str, Script]:
    """What can be played from recorded rows, by id; :func:`~oracle_hub.incidents.tapes.loaded` puts the rows in."""
    folder = files("oracle_hub.incidents").joinpath("scripts", "tapes")
    scripts = [parse(entry.read_text(encoding="utf-8"), origin=entry.name) for entry in folder.iterdir()]
    return {script.id: script for script in sorted(scripts, key=lambda script: script.id)}


def incident(name: str) -> Script:
    """One incident.

    Raises:
        IncidentError: there is none of this name; the message names the nearest.
    """
    known = library()
    if name not in known:
        nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
        hint = f"did you mean {nearest[0]}?" if nearest else "see oracle-hub incidents list"
        raise IncidentError(f"no incident {name}; {hint}")
    return known[name]
