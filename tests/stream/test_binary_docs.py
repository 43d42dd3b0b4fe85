"""docs/protocol-binary.md describes the bytes that are sent."""

import re
import struct
from pathlib import Path

from oracle_hub.stream import binary
from tests.stream.test_binary import FRAME, GOLDEN_ENTRY, GOLDEN_HEADER

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "protocol-binary.md").read_text(encoding="utf-8")
TYPES = {"4 bytes": "4s", "u8": "B", "i8": "b", "u16": "H", "u32": "I", "i64": "q"}


def layout(section: str) -> list[tuple[int, str, str]]:
    """Rows of the table of a section: offset, type, field."""
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return [
        (int(at), kind, name) for at, kind, name in re.findall(r"^\| (\d+) \| (\w+|4 bytes) \| `?(\w+)`?", body, re.M)
    ]


def unpacked(data: bytes, section: str) -> dict[str, object]:
    """Fields of a section as a reader who knows only the documentation takes them."""
    return {name: struct.unpack_from("<" + TYPES[kind], data, at)[0] for at, kind, name in layout(section)}


def test_the_fields_of_the_documentation_follow_each_other_without_a_gap() -> None:
    for section, size in (("Header", binary.HEADER_BYTES), ("Body of a snapshot and of an update", 80)):
        end = 0
        for at, kind, _ in layout(section):
            assert at == end
            end += struct.calcsize("<" + TYPES[kind])
        assert end == size
    assert binary.MERGED_ENTRY_BYTES == 80


def test_the_example_is_what_its_json_says() -> None:
    (told,) = re.findall(r"^```json\n(.*?)\n```", TEXT, re.MULTILINE)
    (dump,) = re.findall(r"^```hex\n(.*?)\n```", TEXT, re.MULTILINE | re.DOTALL)
    frame = bytes.fromhex("".join(line[5:52] for line in dump.splitlines()))
    assert frame == GOLDEN_HEADER + GOLDEN_ENTRY
    assert binary.as_json(frame).decode() == told


def test_a_reader_made_from_the_documentation_reads_a_frame() -> None:
    header = unpacked(FRAME, "Header")
    assert header == {
        "magic": b"\xb1OH\x01", "kind": 2, "flags": 0, "body_at": 48, "sub": 1, "count": 2, "epoch": 1_790_000_000,
        "seq": 44, "prev_seq": 41, "sent_us": 1_790_000_000_150_040,
    }  # fmt: skip
    first = unpacked(FRAME[48:], "Body of a snapshot and of an update")
    assert (first["price"], first["expo"], first["state"], first["flags"]) == (15_012_345_678, -8, 1, 15)
    second_at = 48 + int(str(first["size"]))
    second = unpacked(FRAME[second_at:], "Body of a snapshot and of an update")
    assert (second["price"], second["state"], second["rule"], second["reason"], second["flags"]) == (0, 0, 3, 11, 112)
    assert (second["n"], second["low"], second["high"]) == (3, 15_012_345_000, 15_012_345_678)
    name_at = second_at + int(str(second["text_at"]))
    assert FRAME[name_at : name_at + int(str(second["feed_bytes"]))] == b"SOL/USD"


def test_every_reason_is_in_the_table_with_its_number() -> None:
    (rows,) = re.findall(r"^\| `reason` \|.*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    pairs = re.findall(r"\| (\d+) \| `(\w+)` ", rows)
    assert {name: int(code) for code, name in pairs} == {str(key): code for key, code in binary.REASONS.items()}
