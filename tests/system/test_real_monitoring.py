"""Real Prometheus and Alertmanager over a hub: an oracle parts, a rule fires, a webhook hears of it, and of the end."""

import signal
from pathlib import Path

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.deploy.shipped import Tree, run
from tests.ports import free_ports
from tests.system.conftest import Launch
from tests.system.monitors import monitored
from tests.system.process import hub_config, subscriber

DIVERGED = "OracleHubSourceDiverged"


def about(alert: Tree, name: str, status: str) -> bool:
    return bool(alert["labels"]["alertname"] == name and alert["status"] == status)


async def test_a_divergence_reaches_the_webhook_and_so_does_its_end(
    launch: Launch, chain: Emulator, tmp_path: Path
) -> None:
    hub = await launch(config=hub_config(chain.urls))
    address = hub.url.removeprefix("http://")
    async with subscriber(hub) as client, monitored(tmp_path / "monitors", [address]) as webhook:
        await client.all_in("live")
        await webhook.until(lambda alert: about(alert, "OracleHubWatchdog", "firing"), "the dead-man signal")
        assert not [alert for alert in webhook.alerts if alert["labels"]["alertname"] == DIVERGED]

        chain.inject(Fault(kind="spike", source="pyth", feed="SOL/USD", bps=300))
        await client.feed("SOL/USD", lambda entry: entry["state"] == "none", "diverged")
        fired = await webhook.until(lambda alert: about(alert, DIVERGED, "firing"), "the divergence")
        assert fired["labels"] == {
            **{"alertname": DIVERGED, "job": "oracle-hub", "instance": address, "severity": "warning"},
            **{"feed": "SOL/USD", "source": "pyth"},
        }
        assert fired["annotations"]["runbook_url"] == "docs/runbook.md#oraclehubsourcediverged"
        assert fired["annotations"]["summary"].startswith("pyth is ") and fired["receiver"] == "operators"
        nowhere = await webhook.until(lambda alert: about(alert, "OracleHubNoPriceAnywhere", "firing"), "no price")
        assert nowhere["receiver"] == "on-call"

        chain.clear()
        await client.feed("SOL/USD", lambda entry: entry["state"] == "live", "agreed again")
        over = await webhook.until(lambda alert: about(alert, DIVERGED, "resolved"), "the end of it")
        assert (over["fingerprint"], over["startsAt"]) == (fired["fingerprint"], fired["startsAt"])
        assert over["endsAt"] > over["startsAt"]
        resolved = await webhook.until(lambda alert: about(alert, "OracleHubNoPriceAnywhere", "resolved"), "a price")
        assert resolved["fingerprint"] == nowhere["fingerprint"]
    told = [alert["status"] for alert in webhook.alerts if alert["fingerprint"] == fired["fingerprint"]]
    assert told.index("resolved") == len(told) - 1 and told.count("resolved") == 1


async def test_a_hub_that_is_gone_is_told_once_and_its_return_too(
    launch: Launch, chain: Emulator, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    config = hub_config(chain.urls)
    hub = await launch("--port", port, config=config)
    async with monitored(tmp_path / "monitors", [f"127.0.0.1:{port}"]) as webhook:
        await webhook.until(lambda alert: about(alert, "OracleHubWatchdog", "firing"), "the dead-man signal")
        hub.send_signal(signal.SIGKILL)
        await hub.ended()
        gone = await webhook.until(lambda alert: about(alert, "OracleHubNoneUp", "firing"), "the loss")
        assert (gone["receiver"], gone["labels"]["severity"]) == ("on-call", "critical")
        await launch("--port", port, config=config)
        back = await webhook.until(lambda alert: about(alert, "OracleHubNoneUp", "resolved"), "the return")
        assert (back["fingerprint"], back["startsAt"]) == (gone["fingerprint"], gone["startsAt"])
    told = [alert["status"] for alert in webhook.alerts if alert["fingerprint"] == gone["fingerprint"]]
    assert told == ["firing", "resolved"]


async def test_promtool_finds_no_fault_with_what_a_hub_exposes(launch: Launch, tmp_path: Path) -> None:
    hub = await launch()
    async with subscriber(hub) as client, hub.http.get(hub.url + "/metrics") as answer:
        await client.all_in("live")
        (tmp_path / "metrics.txt").write_bytes(await answer.read())
    with (tmp_path / "metrics.txt").open("rb") as metrics:
        assert run("promtool", "check", "metrics", stdin=metrics) == ""
