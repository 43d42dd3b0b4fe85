"""Alerts of a running hub at a webhook, over ``kill -9``, and the command that tests the channels."""

import signal
from pathlib import Path

import orjson

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.alerts.delivery import Received, Receiver, serving
from tests.system.conftest import Launch
from tests.system.process import command, hub_config, subscriber

SOL = "SOL/USD"
FAST = """
[alerts]
hold_on_ms = { pair_diverged = 0, no_price = 0, primary_rejected = 0 }
hold_off_ms = { pair_diverged = 100, no_price = 100, primary_rejected = 100, fallback_active = 100 }
"""
WEBHOOK = """
[[alerts.webhook]]
name = "desk"
url = "env:DESK_URL"
kinds = ["pair_diverged"]
"""


async def told(receiver: Receiver, change: str) -> Received:
    while True:
        one = await receiver.next()
        if one.json["change"] == change:
            return one


async def test_a_divergence_reaches_a_webhook_and_its_end_does_after_kill_9(launch: Launch, chain: Emulator) -> None:
    config = hub_config(chain.urls, feeds=[SOL]) + FAST + WEBHOOK
    async with serving() as receiver:
        environment = {"DESK_URL": f"{receiver.url}/desk-key-value"}
        hub = await launch(config=config, env=environment)
        async with subscriber(hub, SOL) as client:
            await client.all_in("live", [SOL])
        number = chain.inject(Fault(kind="spike", source="pyth", feed=SOL, bps=300))
        firing = await told(receiver, "firing")
        ready = await hub.get("/readyz")
        (channel,) = ready["alerts"]["channels"]
        assert (channel["name"], channel["way"], channel["dropped"]) == ("desk", "webhook", 0)
        assert "desk-key-value" not in orjson.dumps(ready).decode()
        await hub.end(signal.SIGKILL)
        hub = await launch(config=config, env=environment)
        async with subscriber(hub, SOL) as client:
            await client.feed(SOL, lambda entry: entry["reason"] != "warming", "decided after the restart")
        chain.clear(number)
        resolved = await told(receiver, "resolved")
        assert resolved.json["alert"]["occurrence"] == firing.json["alert"]["occurrence"]
        assert await hub.end() == 0


async def test_the_command_tests_channels_and_says_which_is_deaf(tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    async with serving() as receiver:
        channels = "".join(
            f'[[alerts.webhook]]\nname = "{name}"\nurl = "{receiver.url}/{name}"\n' for name in ("a", "b")
        )
        config.write_text(hub_config() + channels)
        receiver.answers.extend([200, 200, 404])
        one = await command("alerts", "test", config, "--channel", "b", "--json")
        assert (one.status, [line["ok"] for line in one.lines]) == (0, [True])
        assert [(await receiver.next()).path for _ in range(2)] == ["/b", "/b"]
        both = await command("alerts", "test", config, "--json")
        assert both.status == 1
        assert sorted((line["ok"], line["error"]) for line in both.lines) == [(False, "answered 404"), (True, None)]
        nobody = await command("alerts", "test", config, "--channel", "c")
        assert nobody.status == 1 and "no alerts channel is called c; configured: a, b" in nobody.err
    config.write_text(hub_config())
    none = await command("alerts", "test", config)
    assert none.status == 1 and "alerts: no channel to test" in none.err
