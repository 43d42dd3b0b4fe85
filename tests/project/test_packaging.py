"""What is shipped: one wheel with both packages, and a lock that says exactly what it runs on."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import oracle_hub

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PYTHONS = ("3.11", "3.12", "3.13")
LOCKS = {
    "runtime.txt": PROJECT["project"]["dependencies"],
    "evm.txt": PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["evm"],
    "notify.txt": PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["notify"],
    "parquet.txt": PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["parquet"],
    "dev.txt": PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"],
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built offline by the backend that the lock pins."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    assert path.name == f"oracle_hub-{oracle_hub.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_wheel_holds_both_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"oracle_hub/__init__.py", "oracle_hub/py.typed", "feeds/__init__.py", "feeds/py.typed"} <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"oracle_hub", "feeds", f"oracle_hub-{oracle_hub.__version__}.dist-info"}


def test_wheel_names_its_licence_version_and_command(wheel: zipfile.ZipFile) -> None:
    info = f"oracle_hub-{oracle_hub.__version__}.dist-info"
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Version"] == oracle_hub.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "oracle-hub = oracle_hub.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def entries(name: str) -> list[tuple[Requirement, int]]:
    """Each requirement of a lock file, with the number of its hashes."""
    text = (ROOT / "requirements" / name).read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(Requirement(line.split("--hash")[0].strip()), line.count("--hash=sha256:")) for line in lines]


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_lock_pins_and_hashes_everything_and_names_no_host(name: str) -> None:
    assert "://" not in (ROOT / "requirements" / name).read_text("utf-8")
    for requirement, hashes in entries(name):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes >= 1, requirement


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", sorted(LOCKS))
def test_lock_satisfies_the_project_file(name: str, python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    applying = [entry for entry, _ in entries(name) if entry.marker is None or entry.marker.evaluate(environment)]
    pins = {canonicalize_name(entry.name): str(entry.specifier).removeprefix("==") for entry in applying}
    assert len(pins) == len(applying)
    wanted = [Requirement(line) for line in LOCKS[name]]
    wrong = [str(want) for want in wanted if not want.specifier.contains(pins.get(canonicalize_name(want.name), "0"))]
    assert wrong == []


def test_locks_agree_with_each_other() -> None:
    versions: dict[str, set[str]] = {}
    for name in LOCKS:
        for requirement, _ in entries(name):
            versions.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("target", ["setup", "run", "test", "lint", "bench", "clean"])
def test_makefile_has_the_promised_target(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
