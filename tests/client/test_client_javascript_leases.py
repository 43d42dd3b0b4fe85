"""The JavaScript module and programs that take their time over what they are told."""

import asyncio
import json

from tests.client.test_client_javascript import MODULE, node
from tests.conftest import require
from tests.patience import PATIENCE_S

SCRIPT = """
import { OracleHub } from %s;
const events = [];
let nowUs = 1e9;
const T = 1_790_000_000_000_000;
const entry = (feed) => ({
  feed, state: "live", price: "15000000000", expo: -8, conf: null, source: "doves", rule: "R1", reason: "agreed",
  publish_time_us: T - 1000, decided_us: T, valid_until_us: T + 5_000_000,
});
class Hub {
  constructor() {
    setTimeout(() => {
      this.onopen();
      this.#tell({ type: "hello", protocol: "oraclehub.v1", instance: "i", epoch: 1, seq: 7, server_time_us: T,
        heartbeat_ms: 3_600_000, feeds: [], policy: "strict", config_hash: "", simulated: null, limits: {} });
    });
  }
  #tell(message) { this.onmessage({ data: JSON.stringify(message) }); }
  send(text) {
    const { type, id } = JSON.parse(text);
    if (type !== "subscribe") return;
    this.#tell({ type: "subscribed", id, sub: 1, channel: "prices", accepted: ["A", "B"], rejected: [], recovered: null,
      received_us: T, sent_us: T });
    this.#tell({ type: "snapshot", sub: 1, epoch: 1, seq: 7, sent_us: T, feeds: [entry("A"), entry("B")] });
  }
  close() {}
}
const hub = new OracleHub("ws://hub.example/v1/stream", { feeds: ["A", "B"], WebSocket: Hub, nowUs: () => nowUs });
const note = (type) => hub.addEventListener(type, ({ detail: { feed, price, refusal } }) => {
  events.push([type, feed, refusal?.reason ?? String(price.mantissa)]);
  if (type === "live") nowUs += 60e6; // the program takes a minute over it
  if (events.length === 6) { console.log(JSON.stringify(events)); hub.close(); process.exit(0); }
});
["live", "none", "update"].forEach(note);
hub.open();
"""


TWO_HUBS = """
import { OracleHub } from %s;
const events = [];
let nowUs = 1e9, hubs = 0;
const T = 1_790_000_000_000_000;
const hello = (instance) => ({ type: "hello", protocol: "oraclehub.v1", instance, epoch: 1, seq: 7, server_time_us: T,
  heartbeat_ms: 3_600_000, feeds: [], policy: "strict", config_hash: "", simulated: null, limits: {} });
const entry = (price, publish_time_us, valid_until_us) => ({ feed: "A", state: "live", price, expo: -8, conf: null,
  source: "doves", rule: "R1", reason: "agreed", decided_us: T, publish_time_us, valid_until_us });
const TOLD = [["first", entry("150", T - 1000, T + 300_000)], ["second", entry("149", T - 2000, T + 9_000_000)]];
class Hub {
  constructor() {
    const [instance, told] = TOLD[hubs++];
    this.told = told;
    setTimeout(() => { this.onopen(); this.tell(hello(instance)); });
  }
  tell(message) { this.onmessage({ data: JSON.stringify(message) }); }
  send(text) {
    const { type, id } = JSON.parse(text);
    if (type !== "subscribe") return;
    this.tell({ type: "subscribed", id, sub: 1, channel: "prices", accepted: ["A"], rejected: [], recovered: null,
      received_us: T, sent_us: T });
    this.tell({ type: "snapshot", sub: 1, epoch: 1, seq: 7, sent_us: T, feeds: [this.told] });
    if (hubs === 1) setTimeout(() => this.onclose({ code: 4000, reason: "" }));
    else setInterval(() => this.tell({ type: "later" }), 100); // it is heard all the time, and says nothing of A
  }
  close() {}
}
const hub = new OracleHub(["ws://a.example/", "ws://b.example/"], { feeds: ["A"], WebSocket: Hub, nowUs: () => nowUs });
const done = () => { console.log(JSON.stringify(events)); process.exit(0); };
hub.addEventListener("update", ({ detail: { price, refusal } }) => {
  events.push(refusal?.reason ?? String(price.mantissa));
  if (events.at(-1) === "too_old") { nowUs += 400_000; setTimeout(done, 10_000); } // past what the first hub's held
  if (events.at(-1) === "149") done();
});
hub.open();
"""


async def told(script: str) -> list[object]:
    """What a script prints."""
    require(node() is not None, "node")
    process = await asyncio.create_subprocess_exec(
        node() or "",
        "--input-type=module",
        "-e",
        script % json.dumps(MODULE.as_uri()),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    events: list[object] = json.loads(out)
    return events


async def test_the_end_of_what_another_hub_told_is_news() -> None:
    assert await told(TWO_HUBS) == ["150", "disconnected", "too_old", "149"]


async def test_nobody_is_told_a_price_whose_lease_ended_while_another_was_told() -> None:
    assert await told(SCRIPT) == [
        ["live", "A", "15000000000"],
        ["update", "A", "lease_over"],
        ["none", "B", "lease_over"],
        ["update", "B", "lease_over"],
        ["none", "A", "lease_over"],
        ["update", "A", "lease_over"],
    ]
