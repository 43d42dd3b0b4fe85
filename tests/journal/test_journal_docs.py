"""The layout in docs/journal.md keeps up with the code."""

import inspect
import re
from pathlib import Path

from oracle_hub.config_sections import JournalSection
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
    stated = (
        ("16 MiB", "buffer_limit_mib", 2**20, "buffer_limit_bytes"),
        ("64 MiB", "max_segment_mib", 2**20, "max_segment_bytes"),
        ("72 hours", "retention_hours", 3_600, "retention_s"),
        ("10 GiB", "disk_budget_mib", 2**20, "disk_budget_bytes"),
    )
    for words, key, unit, parameter in stated:
        assert re.search(rf"{words}[^.]*\(`journal\.{key}`[;)]", PAGE), key
        assert getattr(JournalSection(), key) * unit == parameters[parameter].default, key
    assert JournalSection() == JournalSection(
        buffer_limit_mib=16, max_segment_mib=64, retention_hours=72, disk_budget_mib=10 * 1024
    )
