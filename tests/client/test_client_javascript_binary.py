"""The JavaScript module reads the binary form as it reads JSON."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from oracle_hub.stream import binary
from oracle_hub.stream.messages import BINARY_SUBPROTOCOL, Heartbeat, Snapshot
from tests.client.client_stage import HubStage
from tests.client.test_client_javascript import MODULE, Program, node
from tests.conftest import require
from tests.stream.test_binary import ENDED, FRAME, HOLDS, LIVE, MERGE, update

READ = """
import { createInterface } from "node:readline";
const { decodeFrame } = await import(process.argv[1]);
for await (const line of createInterface({ input: process.stdin })) {
  const bytes = Uint8Array.from(line.match(/../g) ?? [], (hex) => parseInt(hex, 16));
  let told;
  try { told = decodeFrame(bytes.buffer); } catch (error) { told = { refused: error.name }; }
  console.log(JSON.stringify(told));
}
"""

HUB = HubStage("SOL/USD", "Übung/€")


def frames() -> list[bytes]:
    snapshot = Snapshot(sub=3, epoch=1_790_000_000, seq=44, sent_us=1_790_000_000_150_040, feeds=[
        binary.encode_entry(decision, HOLDS, True) for decision in HUB.service.decisions.values()
    ])  # fmt: skip
    beat = Heartbeat(
        sub=1, epoch=1_790_000_000, seq=44, server_time_us=1_790_000_000_150_040, not_live=["BTC/USD", "Übung/€"],
        digest="07cbda0cea230da0",
    )  # fmt: skip
    merged = update(binary.encode_entry(LIVE, HOLDS, False, MERGE), binary.encode_entry(LIVE, ENDED, True))
    return [FRAME, merged, update(), binary.encode_message(snapshot), binary.encode_message(beat)]


async def read_by_node(data: list[bytes]) -> list[object]:
    require(node() is not None, "node")
    process = await asyncio.create_subprocess_exec(
        node() or "",
        *("--input-type=module", "--eval", READ, MODULE.as_uri()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate("\n".join(each.hex() for each in data).encode())
    assert process.returncode == 0
    return [orjson.loads(line) for line in out.splitlines()]


async def test_frames_are_read_as_their_json() -> None:
    wanted = [orjson.loads(binary.as_json(frame)) for frame in frames()]
    assert await read_by_node(frames()) == wanted


async def test_cut_and_contradicting_frames_are_refused() -> None:
    cut = [frame[:end] for frame in frames() for end in range(1, len(frame), 7)]
    no_price, other_version = bytearray(FRAME), bytearray(FRAME)
    no_price[56:64] = bytes(8)
    other_version[3] = 2
    told = await read_by_node([*cut, bytes(no_price), bytes(other_version)])
    assert all(isinstance(one, dict) and one.get("refused") in ("RangeError", "TypeError") for one in told)


@pytest.fixture
async def hub() -> AsyncIterator[HubStage]:
    require(node() is not None, "node")
    stage = await HubStage().start()
    yield stage
    await stage.server.stop("the test is over")


async def test_a_program_reads_prices_in_the_binary_form(hub: HubStage) -> None:
    program = await Program.start([hub.url], feeds=["*"], detail="full", binary=True)
    await program.event("open")
    assert hub.server._subscribers is not None
    (client,) = hub.server._subscribers._clients
    assert client.session.protocol == BINARY_SUBPROTOCOL
    answer = (await program.ask("get", feed="SOL/USD"))["price"]
    assert (answer["mantissa"], list(answer["inputs"])) == ("15000000000", ["doves", "chainlink", "pyth"])
    hub.tick("SOL/USD", 15_010_000_000)
    await program.event("update", price="15010000000")
    hub.tick("SOL/USD", 20_000_000_000, "chainlink")
    none = await program.event("none", feed="SOL/USD")
    assert (none["why"], none["entry"]["reason"]) == ("none", "diverged")
    client.transport.abort()
    await program.event("none", feed="BTC/USD", why="disconnected")
    for step in (1, 2, 3):
        hub.tick("SOL/USD", 15_000_000_000 + step)
    live = await program.event("live", price="15000000003")
    assert live["merged"]["n"] == 3
    hub.server.heartbeat()
    stats = await program.ask("stats")
    assert (stats["reconnects"], stats["resumes"], stats["gaps"], stats["digestMismatches"]) == (1, 1, 0, 0)
    await program.end()
