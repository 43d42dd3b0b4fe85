// The dashboard put together. Everything comes from this server; prices are judged by the client at the moment of drawing.

import { Bars } from "./bars.mjs";
import { drawLease, drawPrice, FeedList } from "./feed_list.mjs";
import { DASH, duration, element, moment, priceParts, resolutionName, setText, words } from "./format.mjs";
import { followHealth } from "./health.mjs";
import { PriceChart } from "./price_chart.mjs";
import { Feeds } from "./prices.mjs";
import { followTheme } from "./theme.mjs";
import { Trends } from "./trends.mjs";

const DRAW_MS = 100; // leases count down; a price that is over goes at the client's own timer, before this
const OUTAGE_MS = 1_500; // the page says so when nothing is heard for longer
const MARKS_AGAIN_MS = 400; // what the stream tells now, the store has a moment later
const MAX_CHANGES = 8;
const RESOLUTIONS = ["1S", "5S", "15S", "1", "3", "5", "15", "30", "60", "120", "240", "360", "720", "1D", "1W", "1M"];
const STATES = { live: "live", degraded: "degraded", none: "no price" };

const at = (id) => document.getElementById(id);
const websocket = (path) => new URL(path, location.href).href.replace(/^http/, "ws");

const feeds = new Feeds(websocket("v1/stream"));
const bars = new Bars(websocket("v1/bars"));
const list = new FeedList(at("feeds"), choose, (feed) => list.draw(feeds.view(feed), feeds.nowUs), at("find-feed"));
const chart = new PriceChart(at("chart"), at("ohlc"), () => bars.earlier().then((more) => more && readMarks()));
const trends = new Trends(at("divergence"), at("ages"), at("legend"));
const chosen = { feed: null, resolution: remembered("resolution", RESOLUTIONS) ?? "1" };
let downSinceMs = performance.now();

function remembered(key, allowed = null) {
  const value = new URLSearchParams(location.hash.slice(1)).get(key);
  return value !== null && (allowed === null || allowed.includes(value)) ? value : null;
}

function remember() {
  const { feed, resolution } = chosen;
  history.replaceState(null, "", `#${new URLSearchParams({ feed, resolution })}`);
}

// What is looked at.

function choose(feed) {
  if (feed === chosen.feed) return;
  chosen.feed = feed;
  list.chosen = feed;
  setText(at("feed-name"), feed);
  at("price").removeAttribute("data-mantissa"); // another feed's price is no move of this one
  at("detail").setAttribute("aria-label", feed);
  at("chart").setAttribute("aria-label", `Candlestick chart of ${feed}`);
  at("sources").replaceChildren();
  trends.show(feed);
  look();
  draw();
}

function look() {
  remember();
  chart.clear(chosen.resolution);
  bars.choose(chosen.feed, chosen.resolution);
}

function drawResolutions() {
  const choices = RESOLUTIONS.map((code) => {
    const input = element("input", { type: "radio", name: "resolution", value: code });
    input.checked = code === chosen.resolution;
    return element("label", {}, input, element("span", {}, resolutionName(code)));
  });
  at("resolutions").firstElementChild.append(...choices);
  at("resolutions").addEventListener("change", ({ target }) => {
    chosen.resolution = target.value;
    if (chosen.feed !== null) look();
  });
}

async function readMarks() {
  const { feed } = chosen;
  const from = Math.floor((bars.bars[0]?.startUs ?? Date.now() * 1000 - 86_400e6) / 1e6);
  const path = feed.split("/").map(encodeURIComponent).join("/");
  try {
    const answer = await fetch(`v1/marks/${path}?from=${from}`);
    if (!answer.ok || feed !== chosen.feed) return;
    const { marks } = await answer.json();
    chart.mark(marks);
    drawChanges(marks);
  } catch {
    // the server is away; the page says so already, and reads again when it is back
  }
}

// Drawing.

function draw() {
  const nowUs = feeds.nowUs;
  for (const name of feeds.names) if (list.sees(name)) list.draw(feeds.view(name), nowUs);
  if (chosen.feed !== null) drawDetail(feeds.view(chosen.feed), nowUs);
  drawLink();
}

function drawDetail(view, nowUs) {
  const { price } = view;
  at("hero").dataset.state = view.state;
  drawPrice(at("price"), price);
  const state = at("state");
  setText(state, STATES[view.state]);
  state.className = "chip";
  at("why-none").hidden = price !== null;
  setText(at("why-none"), price === null ? `No price: ${words(view.reason)}` : "");
  setText(at("source"), price?.source ?? DASH);
  setText(at("rule"), price ? `${price.rule} · ${words(price.reason)}` : (view.rule ?? DASH));
  setText(at("age"), price && nowUs !== null ? duration(nowUs - price.publishTimeUs) : DASH);
  drawLease(at("lease"), at("lease-bar"), price);
  if (price === null) setText(at("lease"), DASH);
  chart.inForce = price !== null;
  const sources = feeds.sources(view);
  drawSources(sources, view);
  trends.tell(sources);
}

function drawSources(sources, view) {
  const body = at("sources");
  const rows = new Map([...body.rows].map((row) => [row.dataset.source, row]));
  for (const [name, row] of rows) if (!sources.some((source) => source.name === name)) row.remove();
  for (const source of sources) {
    let row = rows.get(source.name);
    if (!row) {
      const title = element("th", { scope: "row" }, element("b", {}, source.name), element("small", { class: "quiet" }, source.role));
      row = element("tr", { "data-source": source.name }, title, ...[0, 1, 2, 3].map(() => element("td")));
      row.cells[1].append(element("span", { class: "chip" }));
      body.append(row);
    }
    row.dataset.state = { ok: "live", apart: "degraded", unknown: "" }[source.status] ?? "none";
    row.dataset.chosen = String(view.price !== null && view.price.source === source.name);
    row.title = source.transport === null ? "" : `by ${source.transport}`;
    setText(row.cells[1].firstChild, words(source.status));
    setText(row.cells[2], source.withheld ? "withheld" : source.mantissa === null ? DASH : priceParts(source.mantissa, view.entry.expo).join(""));
    setText(row.cells[3], source.ageUs === null ? DASH : duration(source.ageUs));
    setText(row.cells[4], source.divergenceBps === null ? DASH : `${source.divergenceBps.toFixed(source.withheld ? 0 : 2)} bps`);
  }
}

function drawChanges(marks) {
  const rows = marks.slice(-MAX_CHANGES).reverse().map(({ at_us: atUs, state, before, reason }) =>
    element(
      "li",
      { "data-state": state },
      element("i", { class: "dot", "aria-hidden": "true" }),
      element("b", {}, before === null ? STATES[state] : `${STATES[before]} → ${STATES[state]}`),
      element("span", { class: "quiet" }, words(reason)),
      element("time", { datetime: new Date(atUs / 1000).toISOString(), class: "quiet" }, moment(atUs)),
    ),
  );
  at("changes").replaceChildren(...(rows.length ? rows : [element("li", { class: "quiet" }, "none in this range")]));
}

function drawLink() {
  const { connected, hub, failure } = feeds;
  if (connected) downSinceMs = null;
  else downSinceMs ??= performance.now();
  at("link").dataset.link = connected ? "live" : "down";
  setText(at("link-text"), connected ? "connected" : "not connected");
  const long = downSinceMs !== null && performance.now() - downSinceMs > OUTAGE_MS;
  if (at("outage").hidden === long) {
    at("outage").hidden = !long;
    setText(at("outage"), long ? "The hub is not heard, so there are no prices. Trying again by itself." : "");
  }
  if (long && failure !== null) at("outage").title = failure;
  at("simulated").hidden = !hub?.simulated;
  setText(at("hub-line"), hub ? `hub ${hub.instance.slice(0, 8)} · policy ${hub.policy} · config ${hub.config_hash}` : "");
  const mark = hub?.simulated ? "SIMULATED · " : "";
  const state = chosen.feed === null ? "" : `${chosen.feed} ${STATES[feeds.view(chosen.feed).state]} · `;
  if (document.title !== `${mark}${state}oracle-hub`) document.title = `${mark}${state}oracle-hub`;
}

/** Nothing that was drawn may still be there when the page comes back from sleep. */
function blank() {
  for (const node of document.querySelectorAll(".price, #sources td, #ohlc")) if (node.firstElementChild?.className !== "chip") node.textContent = DASH;
  chart.inForce = false;
}

function speak(feed) {
  const view = feeds.view(feed);
  at("spoken").textContent = view.price ? `${feed}: ${view.state}, from ${view.source}` : `${feed}: no price, ${words(view.reason)}`;
}

// Events.

const states = new Map();

feeds.addEventListener("feeds", () => {
  const { names } = feeds;
  at("no-feeds").hidden = names.length > 0;
  list.show(names);
  if (!names.includes(chosen.feed) && names.length) choose(names.includes(remembered("feed")) ? remembered("feed") : names[0]);
});

feeds.addEventListener("feed", ({ detail: { feed } }) => {
  const view = feeds.view(feed);
  const nowUs = feeds.nowUs;
  if (list.sees(feed)) list.draw(view, nowUs);
  if (feed === chosen.feed) drawDetail(view, nowUs);
  if (states.get(feed) === view.state) return;
  const known = states.has(feed);
  states.set(feed, view.state);
  if (!known) return;
  speak(feed);
  if (feed === chosen.feed) setTimeout(readMarks, MARKS_AGAIN_MS);
});

feeds.addEventListener("link", drawLink);
bars.addEventListener("history", ({ detail }) => {
  chart.history(detail.bars, detail.expo);
  readMarks();
});
bars.addEventListener("bars", ({ detail }) => chart.append(detail.bars));
bars.addEventListener("status", ({ detail }) => setText(at("chart-status"), detail.text));
for (const event of ["freeze", "pagehide"]) addEventListener(event, blank, true);
for (const event of ["resume", "pageshow", "visibilitychange"]) document.addEventListener(event, draw);

function sample() {
  const nowUs = feeds.nowUs;
  if (nowUs === null) return;
  const { names } = feeds;
  for (const name of names) {
    if (trends.wants(name, names.length)) trends.sample(name, Math.floor(nowUs / 1e6), feeds.sources(feeds.view(name)));
  }
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says what is looked at
  at("detail").focus();
});

drawResolutions();
followTheme(at("theme"), () => {
  chart.restyle();
  trends.restyle();
});
feeds.follow();
setInterval(draw, DRAW_MS);
setInterval(sample, 1_000);
followHealth({
  badge: at("health-badge"),
  links: at("links"),
  vitals: at("vitals"),
  alertsPanel: at("alerts-panel"),
  alerts: at("alerts"),
});
