"""The exchange moves from one oracle account to the next, step by step, under a subscriber that reads everything.

Nobody restarts anything. What the subscriber got is held against what the journal gives when it is replayed.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feeds.addresses import ASSETS
from feeds.emulator.catalogue import next_aggregate
from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.app.run import Application, serve, with_overrides
from oracle_hub.config import Config, parse_config
from oracle_hub.core.hub import Batch
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.segments import list_segments
from tests.system.conftest import Launch
from tests.system.process import (
    PROGRAM,
    ROOT,
    HubProcess,
    Message,
    Subscriber,
    check_leases,
    check_order,
    environment,
    hub_config,
    patiently,
    subscriber,
)

SOL = ASSETS["SOL/USD"]
FEED = "SOL/USD"
SECOND_AGGREGATE = next_aggregate(FEED)


async def explained(hub: HubProcess, client: Subscriber, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask why the feed has its price, once per message of the stream, until the answer is the wanted one."""
    answer: dict[str, Any] = {}

    async def ask() -> None:
        while not wanted(answer):
            await client.read()
            answer.update(await hub.get(f"/v1/explain/{FEED}"))

    answer.update(await hub.get(f"/v1/explain/{FEED}"))
    await patiently(ask(), "the wanted explanation")
    return answer


async def goes_on(client: Subscriber, account: str) -> None:
    """Two more prices of an account, both live."""
    for _ in range(2):
        await client.feed(
            FEED,
            lambda one: (one["state"], one["inputs"]["doves"]["account"]) == ("live", account),
            f"live by {account}",
        )


def doves_reads(answer: dict[str, Any]) -> tuple[str, str | None]:
    """The account that doves is read from, and the one that it waits for."""
    reads = answer["inputs"]["doves"]["reads"]
    return reads["account"], reads["pending"]


def said(answer: dict[str, Any]) -> str:
    """What is said of the line-up: one change at most stands for a source and a feed."""
    (line,) = [note for note in answer["notes"] if note.startswith("doves by solana:") and ": changed: " in note]
    return str(line)


def derived_batches(journal: Path) -> list[Batch]:
    """All batches of a journal, proved."""
    batches: list[Batch] = []
    replayer = Replayer(lineup_from_text, on_batch=batches.append)
    for record in read_journal([segment.path for segment in list_segments(journal)], strict=True):
        replayer.take(record)
    report = replayer.finish()
    assert report.proved and report.unpublished <= 1
    return batches


def accounts_told(entry: Message) -> dict[str, str | None]:
    """Which account each input of an entry came from."""
    return {source: one["account"] for source, one in entry["inputs"].items()}


def check_against_journal(client: Subscriber, batches: list[Batch]) -> int:
    """Every published price reached the subscriber, once, in order, and nothing else did; how many there were."""
    updates = [message for message in client.messages if message["type"] == "update"]
    got = [
        (message["seq"], one["state"], one["price"], one["source"], one["publish_time_us"], accounts_told(one))
        for message in updates
        for one in message["feeds"]
    ]
    assert not any(message["conflated"] or message["replayed"] for message in updates)
    first, last = updates[0]["seq"], updates[-1]["seq"]
    published = [
        (
            batch.seq,
            one.state,
            None if one.mantissa is None else str(one.mantissa),
            one.source,
            one.publish_us,
            {entry.source: None if entry.held is None else entry.held.account for entry in one.inputs},
        )
        for batch in batches
        for one in batch.decisions
        if first <= batch.seq <= last and one.feed == FEED
    ]
    assert got == published
    assert len({seq for seq, *_ in got}) == len(got)
    return len(got)


def check_chosen(client: Subscriber, source: str) -> None:
    """What was chosen of one source went forward in time, at every change of accounts too."""
    chosen = [one["publish_time_us"] for _, one in client.words if one["source"] == source]
    assert chosen == sorted(chosen) and len(set(chosen)) > 5


@pytest.fixture
def drill_config(chain: Emulator) -> str:
    """The documented line-up over the emulator, one feed."""
    return hub_config(chain.urls, feeds=(FEED,))


async def test_the_exchange_moves_and_no_price_is_lost_repeated_or_older(
    launch: Launch, chain: Emulator, drill_config: str
) -> None:
    chain.inject(Fault(kind="custody", feed=FEED, mode="short"))
    hub = await launch(config=drill_config)
    async with subscriber(hub, FEED, mode="all") as client:
        # 1. Custody is from before the field: the old oracle.
        await client.all_in("live", [FEED])
        answer = await explained(hub, client, lambda one: one["state"] == "live")
        assert doves_reads(answer) == (SOL.edge, None)
        await goes_on(client, SOL.edge)
        # 2. The field is set, and the account that it names does not exist, then exists without a price.
        wipe = chain.inject(Fault(kind="wipe", account=SOL.ag))
        chain.inject(Fault(kind="custody", feed=FEED, mode="set"))
        answer = await explained(hub, client, lambda one: doves_reads(one) == (SOL.edge, SOL.ag))
        answer = await explained(hub, client, lambda one: "does not exist" in said(one))
        assert f"not ready (it does not exist): reading {SOL.edge}" in said(answer)
        blank = chain.inject(Fault(kind="wipe", mode="blank", account=SOL.ag))
        chain.clear(wipe)
        answer = await explained(hub, client, lambda one: "does not exist" not in said(one))
        assert doves_reads(answer) == (SOL.edge, SOL.ag) and "reading " + SOL.edge in said(answer)
        await goes_on(client, SOL.edge)
        # 3. It is live.
        chain.clear(blank)
        await goes_on(client, SOL.ag)
        answer = await explained(hub, client, lambda one: doves_reads(one) == (SOL.ag, None))
        assert f"now reading {SOL.ag}, as custody {SOL.custody} says, instead of {SOL.edge}" in said(answer)
        # 4. The old account is dead: nobody looks at it any more.
        kill = chain.inject(Fault(kind="kill", source="doves.edge"))
        await goes_on(client, SOL.ag)
        # 5. The new one is silent, though the old one lives again: stale, and no way back.
        chain.inject(Fault(kind="freeze", account=SOL.ag))
        chain.clear(kill)
        entry = await client.feed(FEED, lambda one: one["inputs"]["doves"]["status"] == "stale", "doves is stale")
        assert (entry["state"], entry["rule"], entry["inputs"]["doves"]["account"]) == ("degraded", "R2", SOL.ag)
        answer = await explained(hub, client, lambda one: one["inputs"]["doves"]["status"] == "stale")
        assert doves_reads(answer) == (SOL.ag, None)
        chain.inject(Fault(kind="custody", feed=FEED, mode="unset"))
        answer = await explained(hub, client, lambda one: "staying with" in said(one))
        assert doves_reads(answer) == (SOL.ag, None) and answer["inputs"]["doves"]["status"] == "stale"
        # 6. Custody names another one.
        chain.inject(Fault(kind="custody", feed=FEED, mode="next"))
        await goes_on(client, SECOND_AGGREGATE)
        answer = await explained(hub, client, lambda one: doves_reads(one) == (SECOND_AGGREGATE, None))
        assert answer["inputs"]["doves"]["reads"]["matches_derived"] is False
        assert f"now reading {SECOND_AGGREGATE}" in said(answer)
    assert await hub.end() == 0
    check_order(client)
    check_leases(client)
    check_chosen(client, "doves")
    accounts = [one["inputs"]["doves"]["account"] for _, one in client.words if one["inputs"].get("doves")]
    assert list(dict.fromkeys(account for account in accounts if account)) == [SOL.edge, SOL.ag, SECOND_AGGREGATE]
    assert sorted(accounts, key=lambda one: [None, SOL.edge, SOL.ag, SECOND_AGGREGATE].index(one)) == accounts
    assert check_against_journal(client, derived_batches(hub.state / "journal")) > 10


LEGS = """
[sources.edge]
kind = "doves.edge"
[sources.aggregate]
kind = "doves.aggregate"
"""


async def test_a_reload_moves_the_primary_under_a_subscriber(
    launch: Launch, chain: Emulator, drill_config: str, tmp_path: Path
) -> None:
    before = drill_config.replace('primary = "doves"', 'primary = "edge"') + LEGS
    hub = await launch(config=before)
    async with subscriber(hub, FEED, mode="all") as client:
        await client.feed(FEED, lambda one: one["source"] == "edge", "live by edge")
        (tmp_path / "hub.toml").write_text(before.replace('primary = "edge"', 'primary = "nobody"'))
        hub.send_signal(signal.SIGHUP)
        assert "nobody" in await hub.logged("reload refused, going on as before")
        await client.feed(FEED, lambda one: one["source"] == "edge", "edge goes on")
        (tmp_path / "hub.toml").write_text(before.replace('primary = "edge"', 'primary = "aggregate"'))
        hub.send_signal(signal.SIGHUP)
        entry = await client.feed(FEED, lambda one: one["source"] == "aggregate", "live by the aggregate")
        assert entry["state"] == "live"
        await client.feed(FEED, lambda one: one["price"] is not None and one["source"] == "aggregate", "and goes on")
    assert await hub.end() == 0
    assert [message["config_hash"] for message in client.messages if message["type"] == "config"]
    check_order(client)
    check_leases(client)
    assert check_against_journal(client, derived_batches(hub.state / "journal")) > 3


async def test_an_old_address_is_mapped_and_said(launch: Launch, chain: Emulator, drill_config: str) -> None:
    hub = await launch(config=drill_config + f'accounts.doves = "{SOL.edge}"\n')
    async with subscriber(hub, FEED) as client:
        entry = await client.feed(FEED, lambda one: one["state"] == "live", "live")
        assert entry["inputs"]["doves"]["account"] == SOL.ag
    answer = await hub.get(f"/v1/explain/{FEED}")
    line = f"feeds.{FEED}.accounts.doves: {SOL.edge} is an old oracle (dovesOracle); {SOL.custody} is read in its place"
    assert f"legacy: {line}" in answer["notes"]
    assert answer["inputs"]["doves"]["reads"]["custody"] == SOL.custody
    assert (await hub.get("/readyz"))["legacy"] == {FEED: [line]}
    assert line in await hub.logged("old oracle")
    assert await hub.end() == 0
    assert derived_batches(hub.state / "journal")


async def test_a_wish_to_reload_before_there_is_a_hub_ends_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "hub.toml"
    os.mkfifo(pipe)
    arguments = (
        "run",
        "--json",
        "--port",
        "0",
        "--no-charts",
        "--state",
        str(tmp_path / "state"),
        "--config",
        str(pipe),
    )
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    try:
        file = await patiently(asyncio.to_thread(pipe.open, "w"), "the program reading its configuration")
        with file:  # now it waits for the text
            process.send_signal(signal.SIGHUP)
            file.write(hub_config(feeds=(FEED,)))
        assert process.stdout is not None
        assert b'"url"' in await patiently(process.stdout.readline(), "the hub's first line")
        process.terminate()
        assert await patiently(process.wait(), "the hub's end") == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_wish_to_reload_during_the_start_is_kept(tmp_path: Path) -> None:
    config = parse_config(hub_config(feeds=(FEED,)), origin="test")
    config = with_overrides(config, server={"port": 0}, state={"directory": str(tmp_path)})
    read: list[str] = []

    def load() -> Config:
        read.append("again")
        signal.raise_signal(signal.SIGTERM)
        return config

    async def announce(application: Application) -> None:
        read.append("serves")

    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(serve(config, load, announce))
    loop.call_soon(signal.raise_signal, signal.SIGHUP)  # the task began before: it waits for the emulator's ports
    await patiently(serving, "the hub's end")
    assert read == ["serves", "again"]


async def test_an_endpoint_that_is_not_told_of_a_new_account_watches_it_too(
    launch: Launch, chain: Emulator, drill_config: str
) -> None:
    # Nothing but the word of the other endpoint can tell it: custody is silent there, and nobody asks by itself.
    for key in ("snapshot_interval_ms = 1_000", "silence_ms = 2_000"):
        assert key in drill_config
        drill_config = drill_config.replace(key, key.split(" = ")[0] + " = 600_000")
    hub = await launch(config=drill_config)
    async with subscriber(hub, FEED) as client:
        await goes_on(client, SOL.ag)
        chain.inject(Fault(kind="silent", account=SOL.custody, endpoint="b"))
        chain.inject(Fault(kind="custody", mode="next", feed=FEED))
        await goes_on(client, SECOND_AGGREGATE)
        chain.inject(Fault(kind="disconnect", endpoint="a", duration_s=600))
        await client.feed(
            FEED,
            lambda one: (
                [one["inputs"]["doves"][key] for key in ("status", "account", "transport")]
                == ["ok", SECOND_AGGREGATE, "solana:b"]
            ),
            "the second aggregate by the other endpoint",
        )
    assert await hub.end(signal.SIGTERM) == 0
    derived_batches(hub.state / "journal")
