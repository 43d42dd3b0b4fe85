"""A fault that can't do anything is refused by name, wherever it comes from."""

from pathlib import Path

import aiohttp
import pytest

from feeds.emulator.emulator import Emulator, EmulatorSettings
from feeds.emulator.faults import Fault
from oracle_hub.errors import ConfigError

SENSELESS = [
    ({"kind": "wide"}, "fault wide: widens nothing; give bps"),
    ({"kind": "spike"}, "fault spike: moves no price; give bps, or times"),
    ({"kind": "spike", "times": "1.0"}, "fault spike: moves no price"),
    (
        {"kind": "spike", "bps": 5, "feed": "NOPE/USD"},
        "fault spike: no feed 'NOPE/USD' is simulated; there are SOL/USD",
    ),
    (
        {"kind": "disconnect", "source": "edge"},
        "fault disconnect: cuts servers, not oracles or feeds; select by endpoint",
    ),
    ({"kind": "slow", "endpoint": "c"}, "fault slow: no endpoint 'c' is simulated; there are a, b, hermes-1, hermes-2"),
]


def make(**settings: object) -> Emulator:
    return Emulator(settings=EmulatorSettings(feeds=("SOL/USD",), **settings), now_us=lambda: 10**15, drive=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fault", "message"), SENSELESS)
async def test_over_http_and_nothing_else_of_the_request_happens(fault: dict[str, object], message: str) -> None:
    emulator = make()
    urls = await emulator.start()
    try:
        async with aiohttp.ClientSession() as http:
            body = [{"kind": "kill", "source": "doves"}, fault]
            async with http.post(f"{urls.control}/faults", json=body) as answer:
                assert answer.status == 400
                assert message in (await answer.json())["error"]
            async with http.get(f"{urls.control}/faults") as answer:
                assert await answer.json() == []
    finally:
        await emulator.stop()


def test_in_a_script_and_in_the_settings(tmp_path: Path) -> None:
    (tmp_path / "faults.toml").write_text('[[fault]]\nkind = "kill"\nfeed = "BTC/USD"\n')
    with pytest.raises(ConfigError, match="fault kill: no feed 'BTC/USD' is simulated; there are SOL/USD"):
        make(script=str(tmp_path / "faults.toml"))
    with pytest.raises(ConfigError, match="no endpoint 'x' is simulated"):
        make(faults=(Fault(kind="half_open", endpoint="x"),))
