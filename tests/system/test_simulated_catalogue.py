"""Hundreds of feeds as a newcomer makes them: added to a shipped simulation, run, subscribed to, and all live."""

import signal
from pathlib import Path

from tests.system.conftest import Launch
from tests.system.process import FEEDS as KNOWN
from tests.system.process import ROOT, command, subscriber

BASE = ROOT / "deploy" / "simulate-catalogue.toml"
FEEDS = [f"F{number:04}/USD" for number in range(1, 301)]


async def test_three_hundred_feeds_are_live(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_text(BASE.read_text())
    done = await command("feeds", "add", *FEEDS, "--derived", "--config", path, "--write")
    assert done.status == 0, done.err
    checked = await command("check", path)
    assert checked.status == 0 and "305" in checked.out.decode() and len(checked.out.splitlines()) < 20

    hub = await launch(config=path.read_text())
    async with subscriber(hub, detail="price") as client:
        await client.all_in("live", [*KNOWN, *FEEDS])
        (ready,) = [message for message in client.messages if message["type"] == "subscribed"]
        assert ready["rejected"] == []
    async with subscriber(hub, "F0300/USD") as client:
        entry = await client.feed("F0300/USD", lambda one: one["state"] == "live", "live, in detail")
    assert {name: one["status"] for name, one in entry["inputs"].items()} == dict.fromkeys(
        ("lazer", "chainlink", "pyth"), "ok"
    )
    assert await hub.end(signal.SIGINT) == 0
    assert not [line for line in hub.log if "Traceback" in line or "emulator.updates_per_s" in line], hub.log
