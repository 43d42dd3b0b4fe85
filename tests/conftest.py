"""Where real data comes from, and what happens without it."""

import os
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
