"""Habits that a reader can count on, checked over every file that git tracks."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "types", "common", "misc"}
# Written in pieces: this file is searched too.
HOSTS = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "deb." + "debian.org")
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|root|home|Users|opt/wheels)/[\w.]")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error)\b")


def tracked() -> list[Path]:
    """Every tracked file that is still there; all files of the folder's packages where git does not know it."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git clone: nothing says which files belong to the project")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """A file as text, or nothing where it is binary."""
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8")


def python_files() -> list[Path]:
    found = [path for path in tracked() if path.suffix == ".py"]
    assert found
    return found


def test_no_python_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(text_of(path).splitlines()) for path in python_files()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {}
    for path in python_files():
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(node, clean=False) or ""
                lines = (node.end_lineno or node.lineno) - node.lineno + 1 - len(doc.splitlines())
                if lines > MAX_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = [path.relative_to(ROOT) for path in python_files()]
    assert [str(name) for name in names if VAGUE_NAMES & {part.removesuffix(".py") for part in name.parts}] == []


def test_nothing_names_a_registry_host() -> None:
    found = [(str(path.relative_to(ROOT)), host) for path in tracked() for host in HOSTS if host in text_of(path)]
    assert found == []


def test_nothing_names_a_path_of_one_machine() -> None:
    found = {
        str(path.relative_to(ROOT)): hit.group() for path in tracked() if (hit := MACHINE_PATH.search(text_of(path)))
    }
    assert found == {}


def test_nothing_is_left_unfinished() -> None:
    found = {
        str(path.relative_to(ROOT)): hit.group() for path in python_files() if (hit := UNFINISHED.search(text_of(path)))
    }
    assert found == {}


def test_machine_path_pattern_catches_what_it_should() -> None:
    assert MACHINE_PATH.search('open("/home/' + 'someone/x")')
    assert MACHINE_PATH.search("cd /" + "work/main")
    assert not MACHINE_PATH.search("GET /v1/home/page and docs/work/x and ~/home/x")


def test_tests_never_sleep() -> None:
    nap = re.compile(r"\btime\.sleep\(|\basyncio\.sleep\((?!0\))")
    files = [path for path in python_files() if path.relative_to(ROOT).parts[0] == "tests" and path != Path(__file__)]
    found = {str(path.relative_to(ROOT)): hit.group() for path in files if (hit := nap.search(text_of(path)))}
    assert found == {}
