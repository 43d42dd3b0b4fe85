"""Where real data comes from, and what happens without it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def require(available: bool, component: str) -> None:
    """Skip the test when a component is absent; fail instead where all of them are promised (CI)."""
    if available:
        return
    reason = f"{component} is not here"
    if os.environ.get("ORACLE_HUB_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and ORACLE_HUB_REQUIRE_ALL=1 promises it")
    pytest.skip(reason)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests of real programs wait more than they work."""
    return (os.cpu_count() or 1) + 1


_RECURSION_LIMIT = sys.getrecursionlimit()


@pytest.fixture(autouse=True, scope="module")
def recursion_limit() -> None:
    """As a hub has it. A library under web3's client, which tests alone import, raises it to 100,000; then nothing that
    is nested too deep is refused."""
    sys.setrecursionlimit(_RECURSION_LIMIT)


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Folder of real accounts and signed messages: ``$ORACLE_HUB_FIXTURES``, else ``../shared/fixtures``."""
    path = Path(os.environ.get("ORACLE_HUB_FIXTURES") or ROOT.parent / "shared" / "fixtures")
    require(path.is_dir(), f"the folder of real accounts ({path.name}; set ORACLE_HUB_FIXTURES)")
    return path


@pytest.fixture(scope="session")
def tapes_dir() -> Path:
    """Folder of real price series: ``tapes`` beside the folder of fixtures."""
    base = os.environ.get("ORACLE_HUB_FIXTURES")
    path = Path(base).parent / "tapes" if base else ROOT.parent / "shared" / "tapes"
    require(path.is_dir(), f"the folder of real price series ({path.name})")
    return path


@pytest.fixture(scope="session")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two self-signed certificates for 127.0.0.1, ``a`` and ``b`` (``.pem``), with their keys (``.key``).

    And ``locked.key``, the first key with a passphrase, and ``text.pem``, which is none of these.
    """
    require(shutil.which("openssl") is not None, "openssl")
    folder = tmp_path_factory.mktemp("pems")

    def openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    for name in ("a", "b"):
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN=hub {name}", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
        )  # fmt: skip
    openssl("ec", "-in", folder / "a.key", "-aes256", "-passout", "pass:x", "-out", folder / "locked.key")
    (folder / "text.pem").write_text("no certificate\n")
    return folder
