// How the hub, its links and the alerts are, asked of this process every few seconds.

import { duration, element, moment, words } from "./format.mjs";

const EVERY_MS = 2_000;
const OPEN = "open";

/** Keep the panels as they should be. */
export async function followHealth(nodes) {
  for (;;) {
    const report = await ask("v1/hub");
    draw(nodes, report);
    await drawAlerts(nodes);
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

async function ask(path) {
  try {
    const answer = await fetch(path, { signal: AbortSignal.timeout(EVERY_MS * 2) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // the next time is soon
  }
}

function draw({ badge, links, vitals }, report) {
  const hub = report?.readiness ?? null;
  const says = report === null ? "charts not reached" : hub === null ? "hub not reached" : hub.ready ? "ready" : "not ready";
  badge.textContent = says;
  badge.dataset.state = says === "ready" ? "live" : "none";
  links.replaceChildren(...Object.entries(hub?.links ?? {}).map(linkRow), ...(hub?.conditions ?? []).map(conditionRow));
  if (hub === null) links.replaceChildren(element("li", { class: "quiet" }, report?.error ?? "nothing is known of its links"));
  vitals.replaceChildren(...(hub === null ? [] : vitalRows(hub)));
}

function linkRow([name, link]) {
  const open = link.state === OPEN;
  const heard = link.last_frame_ms_ago ?? null;
  const late = heard !== null && heard > 5_000;
  const says = [
    open ? (heard === null ? "nothing heard yet" : `heard ${duration(heard * 1000)} ago`) : words(link.state),
    link.reconnects ? `${link.reconnects} reconnect${link.reconnects === 1 ? "" : "s"}` : "",
    open ? "" : link.last_error,
  ];
  const dot = element("i", { class: "dot", "aria-hidden": "true" });
  const state = open ? (late ? "degraded" : "live") : "none";
  return element("li", { "data-state": state }, dot, element("b", {}, name), element("span", { class: "quiet" }, says.filter(Boolean).join(" · ")));
}

function conditionRow(condition) {
  const says = typeof condition === "string" ? condition : Object.values(condition).filter((part) => typeof part === "string").join(" · ");
  return element("li", { "data-state": "degraded" }, element("i", { class: "dot", "aria-hidden": "true" }), element("span", {}, words(says)));
}

function vitalRows(hub) {
  const { journal = null, clock: clocks = null, not_independent: dependent = {} } = hub;
  const rows = [];
  if (journal !== null) rows.push(["Journal", !journal.on ? "off" : journal.ok ? "written" : (journal.error ?? "not written"), !journal.on || journal.ok]);
  if (clocks !== null) rows.push(["Clock", clocks.skewed ? `skewed by ${duration(Math.abs(clocks.skew_us))}` : "steady", !clocks.skewed]);
  const feeds = Object.values(hub.feeds ?? {});
  const live = feeds.filter(({ state }) => state === "live").length;
  if (feeds.length) rows.push(["Feeds live", `${live} of ${feeds.length}`, live === feeds.length]);
  const pairs = Object.keys(dependent).length;
  if (pairs) rows.push(["Not independent", `${pairs} feed${pairs === 1 ? "" : "s"}`, false]);
  return rows.map(([name, text, good]) => element("div", {}, element("dt", {}, name), element("dd", { "data-state": good ? "live" : "degraded" }, text)));
}

async function drawAlerts({ alertsPanel, alerts }) {
  const answer = await ask("v1/alerts");
  alertsPanel.hidden = answer === null; // nobody here knows of alerts, or the server is away, which the page says above
  if (answer === null) return;
  const open = answer.alerts?.toSorted((a, b) => rank(b) - rank(a) || b.started_us - a.started_us);
  const rows = (open ?? []).map(alertRow);
  const none = open === undefined ? "not known: the hub cannot be asked" : "no alerts";
  alerts.replaceChildren(...(rows.length ? rows : [element("li", { class: "quiet" }, none)]));
}

function rank({ severity }) {
  return ["info", "warning", "critical"].indexOf(severity);
}

function alertRow({ id, kind, feed, severity, started_us: startedUs, summary }) {
  const state = ["live", "degraded", "none"][Math.max(0, rank({ severity }))];
  return element(
    "li",
    { "data-alert": id, "data-state": state },
    element("i", { class: "dot", "aria-hidden": "true" }),
    element("b", {}, [words(kind), feed].filter(Boolean).join(" · ")),
    element("span", { class: "chip" }, severity),
    element("time", { class: "quiet", datetime: new Date(startedUs / 1000).toISOString() }, moment(startedUs)),
    element("p", { class: "quiet" }, summary.replace(`${feed}: ${kind}: `, "")),
  );
}
