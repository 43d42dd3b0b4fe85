"""What survives ``kill -9``, a lost directory and a reload: the epoch, and the proof of every price."""

import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

from feeds.emulator.emulator import Emulator, EmulatorUrls
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import (
    FEEDS,
    HubProcess,
    Message,
    Subscriber,
    check_leases,
    check_order,
    command,
    hub_config,
    subscriber,
)


def check_warm_up(client: Subscriber) -> None:
    """Before every source was heard, or the warm-up was over, there was no price."""
    for _, entry in client.words:
        if any(one["status"] == "warming" for one in entry["inputs"].values()):
            assert entry["state"] == "none", entry


async def one_life(hub: HubProcess) -> Subscriber:
    """Watch a hub from its first word until its clock has left the second that its epoch is named after; kill it."""
    epoch = hub.hello["epoch"]
    async with subscriber(hub) as client:
        await client.all_in("live")
        await client.until(
            lambda message: message["type"] == "heartbeat" and message["server_time_us"] // 1_000_000 > epoch,
            "the next second",
        )
        hub.send_signal(signal.SIGKILL)
        await client.to_the_end()
    assert await hub.ended() == -signal.SIGKILL
    check_warm_up(client)
    check_leases(client)
    check_order(client)
    assert {message["epoch"] for message in client.messages if "epoch" in message} == {epoch}
    return client


async def test_the_epoch_grows_over_kill_and_over_a_lost_directory(launch: Launch, chain: Emulator) -> None:
    config = hub_config(chain.urls)
    hubs = [await launch(config=config)]
    await one_life(hubs[-1])
    hubs.append(await launch(config=config))
    await one_life(hubs[-1])
    assert hubs[1].hello["instance"] == hubs[0].hello["instance"]
    (hubs[-1].state / "identity.json").unlink()  # the identity alone: the journal still knows
    hubs.append(await launch(config=config))
    await one_life(hubs[-1])
    shutil.rmtree(hubs[-1].state)
    hubs.append(await launch(config=config))
    await one_life(hubs[-1])
    epochs = [hub.hello["epoch"] for hub in hubs]
    assert epochs == sorted(set(epochs))
    assert len({hub.hello["instance"] for hub in hubs}) == 3


def received(messages: Iterable[Message]) -> dict[tuple[int, int, str], Message]:
    """Every word of the updates, by epoch, sequence and feed."""
    return {
        (message["epoch"], message["seq"], entry["feed"]): entry
        for message in messages
        if message["type"] == "update"
        for entry in message["feeds"]
    }


def segments_of(hub: HubProcess) -> list[Path]:
    """The files of its journal, oldest first."""
    return sorted((hub.state / "journal").glob("*.ohj*"))


async def check_cut(data: bytes, folder: Path, name: str, whole: int) -> None:
    """A power cut may end a file anywhere: what is whole is derived, and agrees."""
    published = [whole]
    for size in (len(data) - 1, len(data) * 3 // 4, len(data) // 2):
        (folder / name).write_bytes(data[:size])
        cut = await command("replay", folder / name, "--json")
        assert cut.status == 0 and cut.lines[0]["proved"] is True, cut.err
        published.append(cut.lines[0]["published"])
    assert published[0] > published[1] > published[2] > published[3] > 0


async def test_everything_that_a_client_received_is_derived_again(
    launch: Launch, chain: Emulator, tmp_path: Path
) -> None:
    hub = await launch(config=hub_config(chain.urls))
    file = tmp_path / "hub.toml"
    async with subscriber(hub, mode="all") as client:
        await client.all_in("live")

        file.write_text(hub_config(chain.urls, max_divergence_bps=0))  # no two oracles agree to the last digit
        hub.send_signal(signal.SIGHUP)
        changed = await client.until(lambda message: message["type"] == "config", "the reload")
        await hub.logged(f"configuration {changed['config_hash']} in force")
        assert changed["config_hash"] != hub.hello["config_hash"]
        await client.feed("BTC/USD", lambda entry: entry["state"] == "none", "diverged at 0 bps")

        file.write_text(hub_config(chain.urls).replace("warmup_ms", "warm_ms"))
        hub.send_signal(signal.SIGHUP)
        line = await hub.logged("reload refused")
        assert "unknown key warm_ms; did you mean warmup_ms?" in line
        assert (await hub.get("/v1/prices"))["config_hash"] == changed["config_hash"]

        file.write_text(hub_config(chain.urls, feeds=FEEDS[:4]))  # a feed leaves, and the threshold is back
        hub.send_signal(signal.SIGHUP)
        await client.feed("USDT/USD", lambda entry: entry["reason"] == "removed", "the farewell")
        await client.all_in("live", FEEDS[:4])

        chain.inject(Fault(kind="kill", source="doves", feed="SOL/USD"))  # an end of a lease is in it too
        await client.feed("SOL/USD", lambda entry: entry["state"] == "degraded", "the verifiers' price")
        hub.send_signal(signal.SIGKILL)
        await client.to_the_end()
    await hub.ended()
    check_order(client)
    check_leases(client)
    got = received(client.messages)
    assert len(got) > 20

    chain.clear()
    again = await launch(config=hub_config(chain.urls))  # a second run in the same journal
    async with subscriber(again, mode="all") as second:
        await second.all_in("live")
        assert await again.end() == 0
        got |= received(await second.to_the_end())

    replayed = await command("replay", hub.state / "journal", "--batches", "--json")
    assert replayed.status == 0, replayed.err
    *batches, report = replayed.lines
    derived = {(batch["epoch"], batch["seq"], entry["feed"]): entry for batch in batches for entry in batch["feeds"]}
    assert {key: derived.get(key) for key in got} == got
    assert report["proved"] is True and report["runs"] == 2 and report["mismatches"] == []
    assert report["published"] == len(batches) == report["batches"]

    first = segments_of(hub)[0]
    await check_cut(first.read_bytes(), tmp_path, first.name, report["published"])


async def test_a_reload_that_moves_the_links(launch: Launch, chain: Emulator, tmp_path: Path) -> None:
    assert chain.urls is not None
    fewer = EmulatorUrls(chain.urls.solana[1:], chain.urls.hermes[:1], chain.urls.control)
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub, mode="all") as client:
        await client.all_in("live")
        for urls, links in (
            (fewer, {"solana:b", "hermes:1"}),
            (chain.urls, {"solana:a", "solana:b", "hermes:1", "hermes:2"}),
        ):
            (tmp_path / "hub.toml").write_text(hub_config(urls))
            hub.send_signal(signal.SIGHUP)
            await client.until(lambda message: message["type"] == "config", "the reload")
            assert set((await hub.get("/readyz"))["links"]) == links
            since_us = chain.world.now_us
            for feed in FEEDS:
                await client.feed(feed, lambda one: (one["publish_time_us"] or 0) > since_us, "news")  # noqa: B023 - awaited in its own turn
        await client.all_in("live")
        assert {entry["state"] for _, entry in client.words if entry["reason"] != "warming"} == {"live"}
        check_order(client)
        check_leases(client)
    assert await hub.end() == 0
    replayed = await command("replay", hub.state / "journal", "--batches", "--json")
    *batches, report = replayed.lines
    derived = {(batch["epoch"], batch["seq"], entry["feed"]): entry for batch in batches for entry in batch["feeds"]}
    got = received(client.messages)
    assert {key: derived.get(key) for key in got} == got
    assert report["proved"] is True and replayed.status == 0


async def test_a_reload_says_what_it_cannot_change(launch: Launch, tmp_path: Path) -> None:
    config = hub_config()
    hub = await launch(config=config)
    (tmp_path / "hub.toml").write_text(config.replace("heartbeat_ms = 500", "heartbeat_ms = 200"))
    hub.send_signal(signal.SIGHUP)
    line = await hub.logged("next start")
    assert "[server]" in line
    await hub.logged("in force")
    (tmp_path / "hub.toml").write_text(config.replace("[emulator]", "[emulator]\nseed = 2"))
    hub.send_signal(signal.SIGHUP)
    await hub.logged("[emulator]")
    assert (await hub.get("/livez")) == {"status": "ok"}
