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


async def test_nobody_is_told_a_price_whose_lease_ended_while_another_was_told() -> None:
    require(node() is not None, "node")
    process = await asyncio.create_subprocess_exec(
        node() or "",
        "--input-type=module",
        "-e",
        SCRIPT % json.dumps(MODULE.as_uri()),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    assert json.loads(out) == [
        ["live", "A", "15000000000"],
        ["update", "A", "lease_over"],
        ["none", "B", "lease_over"],
        ["update", "B", "lease_over"],
        ["none", "A", "lease_over"],
        ["update", "A", "lease_over"],
    ]
