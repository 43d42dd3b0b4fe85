"""What the native doors say, and take, is in docs/charts.md."""

import re
from typing import get_args

import msgspec
import pytest

from oracle_hub.charts import bars_messages as wire
from oracle_hub.charts.answers import ChartsCode
from oracle_hub.charts.bars_http import BarEntry, BarsAnswer, MarkEntry, MarksAnswer
from oracle_hub.charts.dashboard.hub_door import AlertsAnswer, HubReport, OpenAlert
from oracle_hub.charts.sse import SseHeartbeat, SseSnapshot, SseUpdate
from oracle_hub.charts.states import FeedState
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "charts.md").read_text(encoding="utf-8")
SOCKET = TEXT[TEXT.index("### `/v1/bars`, the websocket") : TEXT.index("### `/v1/marks/{feed}`")]
WORDS = set(re.findall(r"`([a-z_]+)`", TEXT))
MESSAGES: tuple[type[msgspec.Struct], ...] = (*get_args(wire.ClientMessage), *get_args(wire.ServerMessage))
SHAPES: tuple[type[msgspec.Struct], ...] = (
    *(BarEntry, BarsAnswer, MarkEntry, MarksAnswer, HubReport, AlertsAnswer, OpenAlert),
    *(SseSnapshot, SseUpdate, SseHeartbeat, FeedState),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_every_field_of_a_message_is_in_its_row(message: type[msgspec.Struct]) -> None:
    (row,) = re.findall(rf"^\| `{message.__struct_config__.tag}` \| (.*) \|$", SOCKET, re.MULTILINE)
    assert {field.name for field in msgspec.structs.fields(message)} <= set(re.findall(r"`([a-z_]+)`", row))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_field_of_an_answer_is_documented(shape: type[msgspec.Struct]) -> None:
    assert {field.name for field in msgspec.structs.fields(shape)} <= WORDS


def test_every_error_is_documented() -> None:
    assert {code.value for code in ChartsCode} <= WORDS
