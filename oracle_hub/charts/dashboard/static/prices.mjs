// What is known of every feed, and what of it may be shown now. The client judges leases; nothing here keeps a price.

import { NoPrice, OracleHub, Refusal } from "./oracle-hub.mjs";

const MAX_HZ = 5;
const AGAIN_MS = 5_000;
/** Of a source whose feed has no lease that would tell when its status changes: so long its number is shown. */
const SOURCE_SHOWN_US = 10_000_000;

/**
 * The names of those usable sources that are further from another than the feed allows, as far as it can be told who.
 * `limitBps` is the hub's own limit; where a feed has another, its reason tells, and the farthest from the primary.
 */
export function apart(inputs, reason, limitBps) {
  const usable = Object.entries(inputs).filter(([, { status }]) => status === "ok");
  const named = (wanted) => usable.filter(([, input]) => wanted(input)).map(([name]) => name);
  if (reason === "primary_diverged" || reason === "not_redistributable") return named(({ role }) => role === "primary");
  if (reason !== "diverged") return [];
  const verifiers = named(({ role }) => role === "verifier");
  if (!usable.some(([, { role }]) => role === "primary")) return verifiers; // from each other; theirs to it say nothing
  const bps = (name) => inputs[name].divergence_bps ?? 0;
  const farthest = Math.max(...verifiers.map(bps));
  return verifiers.filter((name) => bps(name) > limitBps || bps(name) === farthest);
}

/**
 * All feeds of the hub. Events: `feed` {feed, turned} when something of a feed changed, `turned` if it got or lost its
 * price; `feeds` when there are others; `link` when the connection changed.
 */
export class Feeds extends EventTarget {
  #client;
  #entries = new Map();
  #closed = null;
  #opening = false;
  #telling = false;

  constructor(url) {
    super();
    this.#client = new OracleHub(url, { feeds: ["*"], detail: "full", maxHz: MAX_HZ });
    this.#client.addEventListener("update", ({ detail }) => this.#take(detail));
    this.#client.addEventListener("live", ({ detail }) => this.#tell("feed", { feed: detail.feed, turned: true }));
    this.#client.addEventListener("none", ({ detail }) => this.#tell("feed", { feed: detail.feed, turned: true }));
    this.#client.addEventListener("connection", () => this.#tell("link"));
    this.#client.addEventListener("failed", ({ detail }) => {
      this.#closed = detail.message;
      this.#tell("link");
      if (!this.#opening) setTimeout(() => this.follow(), AGAIN_MS); // what the hub refuses may be put right there
    });
  }

  /** Connect, and keep it so for as long as the page is open. */
  async follow() {
    this.#opening = true;
    for (;;) {
      try {
        await this.#client.open();
        this.#opening = false;
        this.#closed = null;
        this.#tell("link");
        return;
      } catch (error) {
        this.#closed = error.message;
        this.#tell("link");
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  get names() {
    return [...this.#entries.keys()];
  }

  get connected() {
    return this.#client.connected;
  }

  /** What the hub said when it was reached; null before that. */
  get hub() {
    return this.#client.hub;
  }

  /** Why nothing is tried any more, or null. */
  get failure() {
    return this.#closed;
  }

  /** The latest that the hub's clock can show, µs; null while it is not heard. */
  get nowUs() {
    const { offsetLowUs, offsetHighUs } = this.#client.stats;
    const bounds = [offsetLowUs, offsetHighUs].filter((bound) => bound !== null);
    return bounds.length && this.connected ? performance.now() * 1000 - Math.min(...bounds) : null;
  }

  /** A feed as it may be shown at this moment: {state, price or null, reason, source, rule, inputs}. */
  view(feed) {
    const entry = this.#entries.get(feed) ?? null;
    try {
      const price = this.#client.get(feed);
      return { feed, entry, price, state: price.state, reason: price.reason, source: price.source, rule: price.rule };
    } catch (error) {
      if (!(error instanceof NoPrice)) throw error;
      const reason = error.hubReason ?? error.reason;
      return { feed, entry, price: null, state: "none", reason, source: null, rule: entry && this.connected ? entry.rule : null };
    }
  }

  /**
   * The sources of a feed: {name, role, status, mantissa or null, ageUs or null, divergenceBps or null, withheld, transport}.
   * The status of one that is usable, and too far from another, is `apart`.
   */
  sources(view) {
    const nowUs = this.nowUs;
    const far = apart(view.entry?.inputs ?? {}, view.reason, this.hub?.limits?.max_divergence_bps ?? Infinity);
    return Object.entries(view.entry?.inputs ?? {}).map(([name, input]) => {
      const known = nowUs !== null && input.publish_time_us !== null;
      const ageUs = known ? Math.max(0, nowUs - input.publish_time_us) : null;
      const holds = known && input.status === "ok" && (view.price !== null || ageUs <= SOURCE_SHOWN_US);
      return {
        name,
        role: input.role,
        status: nowUs === null ? "unknown" : input.status !== "ok" ? input.status : !holds ? "stale" : far.includes(name) ? "apart" : "ok",
        mantissa: holds && input.price !== null ? BigInt(input.price) : null,
        ageUs,
        divergenceBps: holds ? input.divergence_bps : null,
        withheld: holds && input.withheld !== undefined,
        transport: input.transport,
      };
    });
  }

  #take({ feed, entry, refusal }) {
    const others = this.#entries.size;
    if (entry !== null && entry.reason !== "removed") this.#entries.set(feed, entry);
    else if (entry !== null || (refusal?.reason === Refusal.UNKNOWN_FEED && this.connected)) this.#entries.delete(feed);
    if (this.#entries.size !== others) this.#tellFeeds();
    this.#tell("feed", { feed, turned: false });
    this.#tell("link");
  }

  /** Once, when all that came together has been taken in. */
  #tellFeeds() {
    if (this.#telling) return;
    this.#telling = true;
    queueMicrotask(() => {
      this.#telling = false;
      this.#tell("feeds");
    });
  }

  #tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
