// A program that uses the client library, steered by lines of JSON on its standard input. It answers, and tells events, in
// lines of JSON. Usage: node hub_client.mjs LIBRARY '{"urls": […], "options": {…}}'

import { readSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [library, setup] = process.argv.slice(2);
const { OracleHub } = await import(pathToFileURL(library));
const { urls, options } = JSON.parse(setup);

const plain = (_, value) => (typeof value === "bigint" ? String(value) : value);
const say = (message) => process.stdout.write(`${JSON.stringify(message, plain)}\n`);
const shown = ({ price, refusal, ...rest }) => ({ ...rest, price: price?.mantissa ?? null, why: refusal?.reason ?? null });

let skippedUs = 0;
const hub = new OracleHub(urls, { ...options, nowUs: () => performance.now() * 1000 + skippedUs });
for (const type of ["update", "live", "none"]) hub.addEventListener(type, ({ detail }) => say({ type, ...shown(detail) }));
for (const type of ["connection", "failed"]) hub.addEventListener(type, ({ detail }) => say({ type, ...detail }));

const commands = {
  get: ({ feed, options }) => {
    try {
      return { price: hub.get(feed, options) };
    } catch (error) {
      return { why: error.reason, name: error.name };
    }
  },
  stats: () => hub.stats,
  subscribe: ({ feeds, then }) => {
    hub.subscribe(feeds);
    if (then) hub.subscribe(then);
  },
  skip: ({ us }) => void (skippedUs += us),
  // Stand still, as a busy page does, until the next line is there; nothing that arrives meanwhile is looked at.
  freeze: () => {
    say({ type: "frozen" });
    for (;;) {
      try {
        return void readSync(0, Buffer.alloc(1));
      } catch (error) {
        if (error.code !== "EAGAIN") throw error; // nothing there yet
      }
    }
  },
  close: () => hub.close(),
};

hub.open().then(
  () => say({ type: "open" }),
  ({ name, code }) => say({ type: "not_open", name, code }),
);
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  say({ type: "answer", answer: commands[command.type](command) ?? null });
}
hub.close();
