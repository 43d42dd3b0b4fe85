"""The layout in docs/journal.md keeps up with the code."""

import inspect
import re
from pathlib import Path

from oracle_hub.journal.records import MAX_PAYLOAD_BYTES, REFERENCE_MIN_BYTES, REFERENCE_WINDOW_BYTES, RecordType
from oracle_hub.journal.segments import FORMAT_VERSION, MAGIC
from oracle_hub.journal.writer import JournalWriter

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "journal.md").read_text(encoding="utf-8")


def test_every_record_type_is_described_under_its_number() -> None:
    described = {int(number): name for number, name in re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", PAGE, re.MULTILINE)}
    assert described == {int(kind): kind.name for kind in RecordType}


def test_constants_are_those_of_the_page() -> None:
    assert f"format version {FORMAT_VERSION}" in PAGE
    assert MAGIC.hex(" ") in PAGE
    assert MAX_PAYLOAD_BYTES == 2**24 - 1
    assert (REFERENCE_MIN_BYTES, REFERENCE_WINDOW_BYTES) == (256, 8 * 2**20)


def test_defaults_are_those_of_the_page() -> None:
    parameters = inspect.signature(JournalWriter).parameters
    stated = {
        "buffer_limit_bytes": 16 * 2**20,
        "max_segment_bytes": 64 * 2**20,
        "retention_s": 7 * 86_400,
        "disk_budget_bytes": 10 * 2**30,
    }
    for name, value in stated.items():
        assert f"`{name}`" in PAGE, name
        assert parameters[name].default == value, name
