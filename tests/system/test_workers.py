"""Several workers on one port: the same of every sequence on each, and what becomes of each when another ends."""

import os
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson
import pytest

from feeds.emulator.emulator import Emulator
from oracle_hub.app.worker import QUIET_S
from oracle_hub.client.price import NoPrice, Refusal
from oracle_hub.client.state import SILENT_AFTER_HEARTBEATS, ClientState, Reconnect, Wanted
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

N_WORKERS = 3
BEAT_MS = 100
DRIFT_US = 1_000
"""More than clients allow two clocks to part by in a few seconds."""
MANY = 200
"""Connections until every worker had one: that one of three never has a turn in so many is out of the question."""


def worker_of(client: Subscriber) -> int:
    """The number that hello gave."""
    number: int = client.messages[0]["worker"]
    return number


@asynccontextmanager
async def on(
    hub: HubProcess, *numbers: int, feeds: Iterable[str] = (), **options: object
) -> AsyncIterator[list[Subscriber]]:
    """One subscriber on each of these workers: connect until the kernel has dealt one to each."""
    found: dict[int, Subscriber] = {}
    async with AsyncExitStack() as stack:
        for _ in range(MANY):
            if found.keys() >= set(numbers):
                break
            async with AsyncExitStack() as attempt:
                client = await attempt.enter_async_context(subscriber(hub, *feeds, **options))
                if worker_of(client) in numbers and worker_of(client) not in found:
                    found[worker_of(client)] = client
                    stack.push_async_exit(attempt.pop_all())
        assert found.keys() >= set(numbers), found.keys()
        yield [found[number] for number in numbers]


async def pids(hub: HubProcess) -> dict[int, int]:
    """The workers' processes by number."""
    return {one["worker"]: one["pid"] for one in (await hub.get("/readyz"))["workers"]}


def held(client: Subscriber) -> Message:
    """What a subscriber resumes from."""
    hello = client.messages[0]
    last = [message for message in client.messages if message["type"] in ("snapshot", "update")][-1]
    return {"instance": hello["instance"], "epoch": last["epoch"], "seq": last["seq"]}


def told(client: Subscriber) -> dict[tuple[int, int], list[Message]]:
    """What each batch was, by epoch and sequence."""
    updates = [message for message in client.messages if message["type"] == "update"]
    return {(update["epoch"], update["seq"]): update["feeds"] for update in updates if not update["conflated"]}


async def read_to(client: Subscriber, seq: int) -> None:
    """Read on to a batch, if it was not read yet."""
    if held(client)["seq"] < seq:
        await client.until(lambda message: message["type"] == "update" and message["seq"] >= seq, f"batch {seq}")


def check_agreement(clients: Iterable[Subscriber], at_least: int) -> None:
    """All were told the same of every batch that several of them got."""
    content: dict[tuple[int, int], list[Message]] = {}
    n_compared = 0
    for client in clients:
        for key, feeds in told(client).items():
            n_compared += key in content
            assert content.setdefault(key, feeds) == feeds, key
    assert n_compared >= at_least


def last_beat_us(client: Subscriber) -> int:
    """When the last heartbeat was said. None came after the end of a lease without saying so."""
    until_us: dict[str, int | None] = {}
    at_us = 0
    for message in client.messages:
        if message["type"] in ("snapshot", "update"):
            until_us |= {entry["feed"]: entry["valid_until_us"] for entry in message["feeds"]}
        elif message["type"] == "heartbeat":
            at_us = message["server_time_us"]
            over = {feed for feed, end_us in until_us.items() if end_us is not None and end_us <= at_us}
            assert over <= set(message["not_live"]), message
    return at_us


async def check_resumed(hub: HubProcess, worker: int, lost: Subscriber, witness: Subscriber) -> None:
    """What ``lost`` held can be resumed on this worker in both modes, with all that ``witness`` saw since."""
    point = held(lost)
    await read_to(witness, point["seq"] + 5)
    async with on(hub, worker, mode="all", resume=point) as (again,):
        answer = await again.until(lambda message: message["type"] == "subscribed", "the answer")
        snapshot = await again.until(lambda message: message["type"] == "snapshot", "the end of the replay")
        assert answer["recovered"] is True
        replayed = [message for message in again.messages if message["type"] == "update"]
        assert replayed and all(message["replayed"] for message in replayed)
        assert [message["seq"] for message in replayed] == list(range(point["seq"] + 1, snapshot["seq"] + 1))
        assert [message["prev_seq"] for message in replayed] == list(range(point["seq"], snapshot["seq"]))
        await read_to(witness, snapshot["seq"])
        seen = told(witness)
        assert all(feeds == seen[key] for key, feeds in told(again).items())
    async with on(hub, worker, resume=point) as (merged,):
        update = await merged.until(lambda message: message["type"] == "update", "the merged update")
        assert merged.messages[1]["recovered"] is True
        assert update["conflated"] is True and update["prev_seq"] == point["seq"]


async def test_all_workers_tell_the_same_and_the_journal_proves_it(launch: Launch, chain: Emulator) -> None:
    hub = await launch("--workers", N_WORKERS, config=hub_config(chain.urls))
    async with on(hub, 1, 2, 3, mode="all") as clients:
        for client in clients:
            await client.all_in("live")
        target = max(held(client)["seq"] for client in clients) + 10
        for client in clients:
            await read_to(client, target)
        metrics = ""
        while "\noraclehub_clients 3.0\n" not in metrics:  # workers report twice a second
            await clients[0].until(lambda message: message["type"] == "heartbeat", "a heartbeat")
            async with hub.http.get(hub.url + "/metrics") as response:
                metrics = await response.text()
        assert all(f'oraclehub_worker_up{{worker="{number}"}} 1.0' in metrics for number in (1, 2, 3))
        explained = await hub.get("/v1/explain/SOL-USD")
        assert explained["feed"] == "SOL/USD" and set(explained["inputs"]) == {"doves", "chainlink", "pyth"}
        assert (await hub.get("/v1/explain/NO-USD"))["error"]["code"] == "unknown_feed"
        parity = (await hub.get("/v1/parity"))["feeds"]
        assert {one["feed"]: one["executable"] for one in parity} == dict.fromkeys(FEEDS, True)
        ready = await hub.get("/readyz")
        assert ready["ready"] is True and [one["serving"] for one in ready["workers"]] == [True] * N_WORKERS
        hub.send_signal(signal.SIGTERM)
        for client in clients:
            goaway = (await client.to_the_end())[-1]
            assert (goaway["type"], goaway["reason"], client.close_code) == ("goaway", "shutdown", 4000)
    assert await hub.ended() == 0
    check_agreement(clients, at_least=20)
    for client in clients:
        check_order(client)
        check_leases(client)
    replayed = await command("replay", hub.state / "journal", "--batches", "--json")
    *batches, report = replayed.lines
    derived = {(batch["epoch"], batch["seq"]): batch["feeds"] for batch in batches}
    assert report["proved"] is True
    for client in clients:
        assert all(derived[key] == feeds for key, feeds in told(client).items())


async def test_a_worker_that_is_killed_is_replaced_and_its_clients_resume_anywhere(
    launch: Launch, chain: Emulator
) -> None:
    hub = await launch("--workers", N_WORKERS, config=hub_config(chain.urls))
    async with on(hub, 1, 2, 3, mode="all") as (lost, *others):
        for client in (lost, *others):
            await client.all_in("live")
        before = await pids(hub)
        os.kill(before[1], signal.SIGKILL)
        await lost.to_the_end()
        await hub.logged("worker 1 ended (SIGKILL)")
        await check_resumed(hub, 2, lost, others[0])
        await hub.logged("worker 1 serves (start 2)")
        await check_resumed(hub, 1, lost, others[0])  # the new one, whose past came from the hub
        after = await pids(hub)
        assert after[1] != before[1] and [after[2], after[3]] == [before[2], before[3]]
        await read_to(others[1], held(others[0])["seq"])
        check_agreement(others, at_least=5)
        for client in (lost, *others):
            check_order(client)
            check_leases(client)
        metrics = await (await hub.http.get(hub.url + "/metrics")).text()
        assert 'oraclehub_worker_restarts_total{worker="1"} 1.0' in metrics
    assert await hub.end() == 0


async def test_a_stuck_worker_holds_up_nobody_and_is_replaced(launch: Launch, chain: Emulator) -> None:
    hub = await launch("--workers", N_WORKERS, config=hub_config(chain.urls))
    async with on(hub, 1, 2, 3, mode="all") as (stuck, *others):
        for client in (stuck, *others):
            await client.all_in("live")
        os.kill((await pids(hub))[1], signal.SIGSTOP)
        await hub.logged("worker 1 has been silent")
        await stuck.to_the_end()
        await hub.logged("worker 1 serves (start 2)")
        await check_resumed(hub, 1, stuck, others[0])
        for client in others:
            await read_to(client, held(others[0])["seq"])
            check_order(client)
            check_leases(client)
    assert await hub.end() == 0


def monotonic_us() -> int:
    """This machine's clock, which a hub's clock follows at a fixed distance."""
    return time.monotonic_ns() // 1_000


def said_us(message: Message) -> int:
    """When a message was said, by the hub's clock."""
    at_us: int = message.get("sent_us") or message["server_time_us"]
    return at_us


def keeper(client: Subscriber) -> ClientState:
    """What our client library makes of all that a subscriber was told before goaway, had it heard each word at once.

    Its clock is the hub's.
    """
    state = ClientState(Wanted(feeds=FEEDS))
    *told, _ = client.messages
    state.connected(said_us(told[0]))
    for message in told:
        state.receive(orjson.dumps(message), said_us(message))
    return state


def refusal(state: ClientState, feed: str, now_us: int) -> Refusal | None:
    """Why the library has no price of a feed then; None where it has one."""
    try:
        state.get(feed, now_us)
    except NoPrice as none:
        return none.reason
    return None


def check_goodbye(client: Subscriber) -> None:
    """The library trusts what it holds up to the last word that it heard, and nothing from goaway on."""
    state, (*_, last, goaway) = keeper(client), client.messages
    last_us = said_us(last)
    assert {refusal(state, feed, last_us) for feed in FEEDS} <= {None, Refusal.NONE, Refusal.LEASE_OVER}
    (effect,) = state.receive(orjson.dumps(goaway), last_us)
    assert isinstance(effect, Reconnect) and effect.retry_after_ms == goaway["retry_after_ms"]
    state.disconnected(last_us)
    assert {refusal(state, feed, last_us) for feed in FEEDS} == {Refusal.DISCONNECTED}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_no_worker_outlives_its_hub(launch: Launch, chain: Emulator, how: signal.Signals) -> None:
    hub = await launch("--workers", N_WORKERS, config=hub_config(chain.urls, heartbeat_ms=BEAT_MS))
    async with on(hub, 1, 2, 3) as clients:
        for client in clients:
            await client.all_in("live")
        asked_us = monotonic_us()
        ahead_us = (await hub.get("/v1/prices"))["server_time_us"] - asked_us  # the hub's clock, at the most
        hub.send_signal(how)
        await hub.halted()
        halted_us = monotonic_us() + ahead_us
        for client in clients:
            *_, goaway = await client.to_the_end()
            assert (goaway["type"], goaway["reason"], client.close_code) == ("goaway", "hub_lost", 4000)
            check_leases(client)
            # No heartbeat stands for a hub that has said nothing for a second, …
            assert last_beat_us(client) <= halted_us + QUIET_S * 1e6
            assert max(entry["decided_us"] for _, entry in client.words) <= halted_us
            # … so that no keeper acts any more, with or without the word that its hub is lost.
            quiet_us = round(halted_us + (QUIET_S + SILENT_AFTER_HEARTBEATS * BEAT_MS / 1_000) * 1e6) + DRIFT_US
            assert {refusal(keeper(client), feed, quiet_us) for feed in FEEDS} == {Refusal.DISCONNECTED}
            check_goodbye(client)
    if how is signal.SIGSTOP:
        hub.send_signal(signal.SIGCONT)
        for number in (1, 2, 3):
            await hub.logged(f"worker {number} ended (exit status 0); starting it again")
        hub.send_signal(signal.SIGKILL)
    await hub.ended()  # and the end of its log, which its workers hold open


async def test_a_hub_ends_although_a_worker_is_stuck(launch: Launch) -> None:
    hub = await launch("--workers", 2, config=hub_config())
    os.kill((await pids(hub))[2], signal.SIGSTOP)
    assert await hub.end(signal.SIGINT) == 0
    assert any("worker 2 has not ended yet; killed" in line for line in hub.log)


async def test_a_reload_reaches_every_worker(launch: Launch, chain: Emulator, tmp_path: Path) -> None:
    hub = await launch("--workers", N_WORKERS, config=hub_config(chain.urls))
    async with on(hub, 1, 2, 3, mode="all") as clients:
        for client in clients:
            await client.all_in("live")
        (tmp_path / "hub.toml").write_text(hub_config(chain.urls, feeds=FEEDS[:4], max_divergence_bps=40))
        hub.send_signal(signal.SIGHUP)
        told_of = [await client.until(lambda message: message["type"] == "config", "the reload") for client in clients]
        assert {message["config_hash"] for message in told_of} != {hub.hello["config_hash"]}
        assert len({orjson.dumps(message) for message in told_of}) == 1
        assert told_of[0]["feeds"] == list(FEEDS[:4])
        for client in clients:
            assert [entry["reason"] for _, entry in client.words if entry["feed"] == FEEDS[4]][-1] == "removed"
            check_order(client)
        check_agreement(clients, at_least=2)
    async with on(hub, 1, 2, 3) as clients:
        assert {client.messages[0]["config_hash"] for client in clients} == {told_of[0]["config_hash"]}
    assert await hub.end(signal.SIGINT) == 0


async def test_tokens_and_their_renewal_reach_every_worker(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_TOKEN_A", "a" * 32)
    monkeypatch.setenv("HUB_TOKEN_B", "b" * 32)

    def config(name: str) -> str:
        token = f'[[server.tokens]]\nname = "desk"\ntoken = "env:HUB_TOKEN_{name}"\n'
        return hub_config().replace("[server]\n", "[server]\nrequire_token = true\n") + token

    hub = await launch("--workers", 2, config=config("A"))

    async def statuses(secret: str) -> set[int]:
        found = set()
        for _ in range(20):  # a connection each, dealt to either worker
            headers = {"Authorization": f"Bearer {secret}", "Connection": "close"}
            async with hub.http.get(hub.url + "/v1/prices", headers=headers) as response:
                found.add(response.status)
        return found

    assert [await statuses(secret * 32) for secret in "ab"] == [{200}, {401}]
    (tmp_path / "hub.toml").write_text(config("B"))
    hub.send_signal(signal.SIGHUP)
    await hub.logged("in force")
    ready = await hub.get("/readyz")
    os.kill(ready["workers"][0]["pid"], signal.SIGKILL)  # the one that replaces it has to know as well
    await hub.logged("worker 1 serves (start 2)")
    assert [await statuses(secret * 32) for secret in "ab"] == [{401}, {200}]
    assert await hub.end() == 0
    assert "aaaa" not in "".join(hub.log) and "bbbb" not in "".join(hub.log)


async def test_a_port_that_is_taken_is_refused(launch: Launch, tmp_path: Path) -> None:
    hub = await launch("--workers", 1, config=hub_config())
    port = hub.url.rsplit(":", 1)[1]
    for workers in (0, 1):
        second = await command(
            *("run", "--config", tmp_path / "hub.toml", "--port", port, "--state", tmp_path / "second"),
            *("--workers", workers),
        )
        assert second.status == 1 and f"cannot listen on 127.0.0.1:{port}" in second.err
    assert await hub.end() == 0
