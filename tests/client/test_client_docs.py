"""What the client offers is documented, and the example of the README runs."""

import asyncio
import inspect
import re
from typing import Any

import pytest

import oracle_hub.client
from oracle_hub.client import Price, Refusal, Stats, Update, connect
from tests.client.client_stage import HubStage
from tests.conftest import ROOT
from tests.patience import PATIENCE_S

PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("reason", Refusal)
def test_every_refusal_is_documented(reason: str) -> None:
    assert f"| `{reason}` |" in PAGE


@pytest.mark.parametrize("option", inspect.signature(connect).parameters)
def test_every_option_is_documented(option: str) -> None:
    assert re.search(rf"^\| .*`{option}`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("field", [*Price.__struct_fields__, *Update.__struct_fields__])
def test_every_field_is_documented(field: str) -> None:
    assert f"`{field}`" in PAGE or f".{field}`" in PAGE or field == "feed"


def test_every_count_is_named() -> None:
    counts = PAGE[PAGE.index("`prices.stats` counts") :].replace("\n", " ")
    words = {"held_back": "held back", "unknown_messages": "messages", "callback_errors": "error", "url": "connection"}
    names = [words.get(name, name.replace("_", " ")) for name in Stats.__struct_fields__ if "offset" not in name]
    assert [name for name in names if name not in counts and name != "connected"] == []


def test_the_public_names_exist() -> None:
    assert [name for name in oracle_hub.client.__all__ if not hasattr(oracle_hub.client, name)] == []


async def test_the_keepers_example_is_short_and_runs() -> None:
    section = README[README.index("## For keepers") :]
    match = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert match is not None
    source = match[1]
    assert len(source.splitlines()) < 40
    hub = await HubStage().start()
    printed: list[tuple[Any, ...]] = []
    ready = asyncio.Event()

    def take(*words: Any) -> None:
        printed.append(words)
        if len(printed) == 2:
            ready.set()

    source = source.replace("ws://127.0.0.1:8080/v1/stream", hub.url).replace("asyncio.run(main())", "")
    names: dict[str, Any] = {"print": take}
    exec(compile(source, "README.md", "exec"), names)
    task = asyncio.create_task(names["main"]())
    async with asyncio.timeout(PATIENCE_S):
        await ready.wait()
    task.cancel()
    await asyncio.wait([task])
    assert sorted(words[0] for words in printed) == ["BTC/USD", "SOL/USD"]
    assert {words[2] for words in printed} == {"live"}
    await hub.server.stop("the test is over")
