"""Every message, field and code of the stream is in docs/protocol.md."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from oracle_hub.core.selector import Reason
from oracle_hub.core.table import InputStatus
from oracle_hub.server.answers import RequestError
from oracle_hub.server.service import ServerSettings
from oracle_hub.stream import messages as m

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"`\"?([a-z_0-9]+)\"?`", TEXT)) | set(re.findall(r'"([a-z_]+)"', TEXT))
SERVER: tuple[type[msgspec.Struct], ...] = get_args(m.ServerMessage)
CLIENT: tuple[type[msgspec.Struct], ...] = get_args(m.ClientMessage)


def documented_keys(kind: str) -> set[str]:
    """The words of a server message's own row in the table of messages."""
    (row,) = re.findall(rf"^\| `{kind}` \| (.*) \|$", TEXT, re.MULTILINE)
    return set(re.findall(r"`([a-z_]+)`", row))


@pytest.mark.parametrize("message", SERVER, ids=lambda message: message.__name__)
def test_every_field_of_a_server_message_is_in_its_row(message: type[msgspec.Struct]) -> None:
    fields = {field.name for field in msgspec.structs.fields(message)}
    assert fields <= documented_keys(str(message.__struct_config__.tag))


def test_every_limit_of_a_subscriber_is_in_the_row_of_hello() -> None:
    assert set(ServerSettings().published()) <= documented_keys("hello")


@pytest.mark.parametrize("message", CLIENT, ids=lambda message: message.__name__)
def test_every_field_of_a_client_message_is_in_its_section(message: type[msgspec.Struct]) -> None:
    (section,) = re.findall(rf"^### `{message.__struct_config__.tag}`\n(.*?)\n##", TEXT, re.MULTILINE | re.DOTALL)
    fields = {field.name for field in msgspec.structs.fields(message)}
    assert fields <= set(re.findall(r"`([a-z_]+)`", section))


@pytest.mark.parametrize(
    "struct", [m.FeedEntry, m.InputEntry, m.Rejected, m.Resume, m.AlertEntry], ids=lambda s: s.__name__
)
def test_every_field_of_a_part_is_documented(struct: type[msgspec.Struct]) -> None:
    assert {field.name for field in msgspec.structs.fields(struct)} <= WORDS


@pytest.mark.parametrize("enum", [m.ErrorCode, m.FeedRejection, m.ViewReason, RequestError, Reason, InputStatus])
def test_every_code_is_documented(enum: type[m.ErrorCode]) -> None:
    assert {member.value for member in enum} <= WORDS


def test_every_close_code_is_documented_with_its_name() -> None:
    rows = dict(re.findall(r"^\| (4\d{3}) \| `([a-z_]+)` \|", TEXT, re.MULTILINE))
    assert rows == {str(code.value): code.name.lower() for code in m.CloseCode}


def test_the_digest_of_the_documentation_is_ours() -> None:
    (octal,) = re.findall(r"^printf '(.*)' \| b2sum", TEXT, re.MULTILINE)
    text = octal.replace("\\000", "\0").replace("\\0", "\0").replace("\\n", "\n")
    lines = [m.digest_line("SOL/USD", "live", "150", 200, 199), m.digest_line("BTC/USD", "none", None, None, 199)]
    assert text == "".join(sorted(lines))
