// Programs as people have them, on the clients of Pyth, with nothing changed but the URL. Tells what it gets in lines of
// JSON. Usage: node hermes_clients.mjs WHAT URL IDS…   Commands, one a line, come on standard input.

import { createInterface } from "node:readline";
import { HermesClient } from "@pythnetwork/hermes-client";
import { HermesClient as HermesClient2 } from "@pythnetwork/hermes-client-2";
import { PriceServiceConnection } from "@pythnetwork/price-service-client";

const [what, url, ...ids] = process.argv.slice(2);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const tried = (promise) => promise.then((value) => ({ value }), (error) => ({ error: error.message, status: error.response?.status, body: error.response?.data }));

// The first version of the client for Node below 24, and the latest.
async function hermes(Client) {
  const client = new Client(url, { httpRetries: 0 });
  const [feeds, latest, encoded, bad, ignored] = await Promise.all([
    client.getPriceFeeds({ query: "sol", assetType: "crypto" }),
    client.getLatestPriceUpdates(ids),
    client.getLatestPriceUpdates([`0x${ids[0].toUpperCase()}`], { encoding: "base64", parsed: false }),
    tried(client.getLatestPriceUpdates([ids[0], "ab".repeat(32)])),
    client.getLatestPriceUpdates([ids[0], "ab".repeat(32)], { ignoreInvalidPriceIds: true }),
  ]);
  const then = await client.getPriceUpdatesAtTimestamp(latest.parsed[0].price.publish_time, [ids[0]]);
  say({ feeds, latest, encoded, bad, ignored, then });
}

// Events, over as many connections as it takes.
async function stream(Client) {
  const events = await new Client(url).getPriceUpdatesStream(ids, { parsed: true, allowUnordered: false });
  events.onopen = () => say({ type: "open" });
  events.onmessage = ({ data }) => say({ type: "update", ...JSON.parse(data) });
  events.onerror = () => say({ type: "error" });
  for await (const _ of createInterface({ input: process.stdin }));
  events.close();
}

async function service() {
  const plain = new PriceServiceConnection(url, { httpRetries: 0 });
  const full = new PriceServiceConnection(url, { httpRetries: 0, priceFeedRequestConfig: { binary: true, verbose: true } });
  const [found, feeds, verbose, bad, vaas] = await Promise.all([
    plain.getPriceFeedIds(),
    plain.getLatestPriceFeeds(ids),
    full.getLatestPriceFeeds(ids),
    tried(plain.getLatestPriceFeeds([ids[0], "ab".repeat(32)])),
    tried(plain.getLatestVaas(ids)),
  ]);
  const then = await full.getPriceFeed(ids[0], feeds[0].getPriceUnchecked().publishTime);
  say({
    ids: found,
    prices: feeds.map((feed) => ({ id: feed.id, price: feed.getPriceUnchecked(), ema: feed.getEmaPriceUnchecked() })),
    metadata: verbose.map((feed) => feed.getMetadata()),
    vaas: verbose.map((feed) => feed.getVAA() ?? null),
    then: then.getPriceUnchecked(),
    bad,
    signed: vaas,
  });
}

// The websocket, over as many connections as it takes.
async function socket() {
  const quiet = () => {};
  const logger = { trace: quiet, debug: quiet, info: quiet, warn: (text) => say({ type: "warn", text: String(text) }), error: quiet };
  const connection = new PriceServiceConnection(url, { logger, priceFeedRequestConfig: { binary: true, verbose: true } });
  connection.onWsError = (error) => say({ type: "error", message: error?.message ?? "" });
  const told = (feed) => say({ type: "update", id: feed.id, price: feed.getPriceUnchecked(), metadata: feed.getMetadata() });
  const commands = {
    subscribe: (wanted) => connection.subscribePriceFeedUpdates(wanted, told),
    unsubscribe: (wanted) => connection.unsubscribePriceFeedUpdates(wanted),
  };
  await connection.subscribePriceFeedUpdates(ids, told);
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, ...wanted] = line.split(" ");
    await commands[command](wanted);
    say({ type: "done", command });
  }
  connection.closeWebSocket();
}

const programs = {
  hermes: () => hermes(HermesClient),
  hermes2: () => hermes(HermesClient2),
  stream: () => stream(HermesClient),
  stream2: () => stream(HermesClient2),
  service,
  socket,
};
await programs[what]();
