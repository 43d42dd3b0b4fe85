// Client of an oracle-hub for browsers and Node (>= 20). No dependencies. See docs/client.md and docs/protocol.md.
//
//   const hub = new OracleHub("ws://127.0.0.1:8080/v1/stream", { feeds: ["SOL/USD"] });
//   hub.addEventListener("update", ({ detail }) => console.log(detail.feed, detail.price ?? detail.refusal.reason));
//   await hub.open();
//   const { mantissa, expo } = hub.get("SOL/USD");   // throws NoPrice when there is none to act on
//
// Node 20 and 21 hide their WebSocket behind --experimental-websocket; or pass one as { WebSocket }.

export const SUBPROTOCOL = "oraclehub.v1";
export const BINARY_SUBPROTOCOL = "oraclehub.v1.bin";
const TOKEN_SUBPROTOCOL = "oraclehub.token."; // and the token in base64url: a browser's websocket can send no header
export const Refusal = Object.freeze({
  NONE: "none",
  LEASE_OVER: "lease_over",
  GAP: "gap",
  DISCONNECTED: "disconnected",
  TOO_OLD: "too_old",
  UNKNOWN_FEED: "unknown_feed",
});

const SILENT_AFTER_HEARTBEATS = 2.5;
const PING_INTERVAL_US = 5_000_000;
const MAX_ASKED = 16;
const DRIFT = 1e-4; // how fast two clocks may part
const STEP_TOLERANCE_US = 50_000;
const SUSPENDED_US = 1_000_000; // our two clocks part by this much when the machine slept
const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 10_000;
const PROVEN_AFTER_US = 1_000_000;
const DIGITS = /^[0-9]+$/;

/** There is no price to act on: `reason` is one of Refusal, `hubReason` the hub's own word where it has none. */
export class NoPrice extends Error {
  constructor(feed, reason, message, hubReason = null) {
    super(`${feed}: ${message}`);
    this.name = "NoPrice";
    Object.assign(this, { feed, reason, hubReason });
  }
}

/** The hub will never accept this subscription, or could not be reached in time. */
export class HubError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "HubError";
    this.code = code;
  }
}

/** Bounds of "our monotonic clock minus the hub's", in µs, for one connection (docs/adr/0011-client-clock-offset.md). */
export class ClockOffset {
  #high = null;
  #low = null;
  lastSentUs = null;

  /** Take in a message; false when the hub's clock was stepped. */
  heard(sentUs, receivedUs) {
    const beforeUs = this.lastSentUs;
    this.lastSentUs = sentUs;
    if (beforeUs !== null && sentUs < beforeUs - STEP_TOLERANCE_US) return false;
    const sample = receivedUs - sentUs;
    const low = this.lowUs(receivedUs);
    if (low !== null && sample < low - STEP_TOLERANCE_US) return false;
    const high = this.highUs(receivedUs);
    if (high === null || sample <= high) this.#high = { us: sample, atUs: receivedUs };
    return true;
  }

  /** A request left us at `askedUs` and reached the hub at `reachedUs` of its clock. */
  answered(askedUs, reachedUs, receivedUs) {
    const sample = askedUs - reachedUs - (receivedUs - askedUs) * DRIFT;
    const low = this.lowUs(receivedUs);
    if (low === null || sample >= low) this.#low = { us: sample, atUs: receivedUs };
  }

  highUs(nowUs) {
    return this.#high && this.#high.us + (nowUs - this.#high.atUs) * DRIFT;
  }

  lowUs(nowUs) {
    return this.#low && this.#low.us - (nowUs - this.#low.atUs) * DRIFT;
  }

  /** The latest that the hub's clock can show: what leases are judged by. Null before any message. */
  latestUs(nowUs) {
    const bounds = [this.lowUs(nowUs), this.highUs(nowUs)].filter((bound) => bound !== null);
    return bounds.length ? nowUs - Math.min(...bounds) : null;
  }

  /** How old the newest message is that was heard, beyond the shortest way. */
  waitedUs(nowUs) {
    const high = this.highUs(nowUs);
    return high === null || this.lastSentUs === null ? 0 : Math.max(0, nowUs - high - this.lastSentUs);
  }
}

/**
 * One subscription, kept up over one or several hubs.
 *
 * Events (CustomEvent): `update` {feed, price, refusal, entry, merged, epoch, seq, lost}, the newest of each feed that changed;
 * `live` and `none`, the same, when a feed gets or loses its price for whatever reason; `connection` {connected, url, why};
 * `failed` {code, message} when the hub will not take this subscription.
 */
export class OracleHub extends EventTarget {
  #urls;
  #wanted;
  #binary;
  #token;
  #tokenFirst = new Set(); // hubs to which the token goes in the first message
  #options;
  #socket = null;
  #url = null;
  #link = "down"; // down, syncing, gap, live
  #hello = null;
  #sub = null;
  #request = 0;
  #subscribing = null;
  #resuming = false;
  #lost = false;
  #asked = new Map();
  #askedAtUs = 0;
  #offset = new ClockOffset();
  #held = { instance: "", epoch: 0, seq: null, feeds: new Map() };
  #floors = new Map();
  #rejected = new Map();
  #receivedUs = 0;
  #connectedUs = 0;
  #heartbeatUs = 0;
  #wallDriftMs = 0;
  #news = new Map();
  #usable = new Map();
  #telling = false;
  #lookAtAll = false;
  #silent = false;
  #timers = new Map();
  #next = 0;
  #notBeforeMs = new Map();
  #failures = new Map();
  #closed = true;
  #waiters = [];
  #stats = {
    connections: 0, messages: 0, updates: 0, duplicates: 0, gaps: 0, digestMismatches: 0, snapshots: 0, resumes: 0,
    heldBack: 0, clockSteps: 0, unknownMessages: 0, drained: 0, lastError: null,
  };

  /**
   * @param {string | string[]} urls of one hub or of several; when one is lost, the next is tried
   * @param {object} options feeds (names, or ["*"]); detail, maxHz, maxAgeMs as in the protocol; token; binary (form); openTimeoutMs;
   *   WebSocket (a constructor); nowUs (a monotonic clock, for tests)
   */
  constructor(urls, { feeds, detail = "price", maxHz = null, maxAgeMs = null, ...options } = {}) {
    super();
    const { token = null, binary = false } = options;
    this.#urls = [...new Set([urls].flat())];
    if (!this.#urls.length || !this.#urls.every((url) => /^wss?:\/\/[^@]*$/.test(url))) {
      throw new TypeError("urls are websocket addresses without user or password: ws://host:port/v1/stream");
    }
    if (!Array.isArray(feeds) || !feeds.length) throw new TypeError('feeds is a list of names, or ["*"]');
    if (token !== null && !/^[\x21-\x7e]+$/.test(token)) {
      throw new TypeError("token is letters, digits and signs of ASCII, without spaces");
    }
    this.#token = token;
    this.#binary = binary;
    this.#wanted = { feeds: [...feeds], mode: "latest", detail, max_hz: maxHz, max_age_ms: maxAgeMs };
    this.#options = { openTimeoutMs: 10_000, WebSocket: globalThis.WebSocket, ...options };
    this.#options.nowUs ??= () => performance.now() * 1000;
    if (typeof this.#options.WebSocket !== "function") {
      throw new TypeError("no WebSocket here: start Node 20 with --experimental-websocket, or pass { WebSocket }");
    }
  }

  /** Connect; resolves when a hub has told the present state. Rejects with HubError. */
  open() {
    if (!this.#closed) return Promise.reject(new HubError("open", "this client is open already"));
    this.#closed = false;
    const caughtUp = new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
    this.#timer("open", this.#options.openTimeoutMs, () => {
      const why = this.#stats.lastError ?? "no answer";
      this.#settleWaiters(new HubError("unreachable", `no hub answered in time: ${why}`));
      this.close();
    });
    this.#connect();
    return caughtUp;
  }

  /** End the connection. From now on there is no price. */
  close() {
    this.#closed = true;
    this.#drop("closed", null, false);
    for (const name of [...this.#timers.keys()]) this.#cancel(name);
    this.#settleWaiters(new HubError("closed", "the client was closed"));
    this.#tell();
  }

  /** Follow other feeds from now on; the present state of all of them is asked for. */
  subscribe(feeds) {
    if (!Array.isArray(feeds) || !feeds.length) throw new TypeError('feeds is a list of names, or ["*"]');
    this.#wanted.feeds = [...feeds];
    this.#rejected.clear();
    this.#lookAtAll = true;
    if (this.#hello && this.#link !== "down") this.#resubscribe(false);
    this.#tell();
  }

  /**
   * The price of a feed that holds now: {feed, mantissa (BigInt), expo, state, source, rule, reason, publishTimeUs, decidedUs,
   * validUntilUs, leaseLeftUs, instance, epoch, seq, inputs}. Throws NoPrice when there is none to act on.
   */
  get(feed, { maxAgeMs = null } = {}) {
    const judged = this.#judge(feed, this.#nowUs(), maxAgeMs);
    if (judged instanceof NoPrice) throw judged;
    return judged;
  }

  get connected() {
    return this.#link === "live";
  }

  /** Instance, policy, simulated, feeds and limits, as the hub said. */
  get hub() {
    return this.#hello;
  }

  get rejected() {
    return Object.fromEntries(this.#rejected);
  }

  get stats() {
    const nowUs = this.#nowUs();
    return {
      ...this.#stats,
      connected: this.connected,
      reconnects: Math.max(0, this.#stats.connections - 1),
      offsetLowUs: this.#offset.lowUs(nowUs),
      offsetHighUs: this.#offset.highUs(nowUs),
    };
  }

  #nowUs() {
    return this.#options.nowUs();
  }

  // Timers, each by name, at most one of each.

  #timer(name, delayMs, call) {
    this.#cancel(name);
    const fire = () => {
      this.#timers.delete(name);
      call();
    };
    this.#timers.set(name, setTimeout(fire, Math.min(Math.max(0, delayMs), 2 ** 31 - 1)));
  }

  #cancel(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  #settleWaiters(error) {
    this.#cancel("open");
    for (const { resolve, reject } of this.#waiters.splice(0)) error ? reject(error) : resolve(this);
  }

  // Connections, one after the other.

  #connect() {
    if (this.#closed) return;
    const nowMs = performance.now();
    const turn = this.#urls.map((_, step) => this.#urls[(this.#next + step) % this.#urls.length]);
    const waitOf = (url) => Math.max(0, (this.#notBeforeMs.get(url) ?? 0) - nowMs);
    const url = turn.reduce((best, each) => (waitOf(each) < waitOf(best) ? each : best));
    this.#next = (this.#urls.indexOf(url) + 1) % this.#urls.length;
    this.#timer("connect", waitOf(url), () => this.#visit(url));
  }

  #subprotocols(url) {
    const forms = this.#binary ? [BINARY_SUBPROTOCOL, SUBPROTOCOL] : [SUBPROTOCOL];
    if (this.#token === null || this.#tokenFirst.has(url)) return forms;
    const encoded = btoa(this.#token).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
    return [...forms, TOKEN_SUBPROTOCOL + encoded];
  }

  /** Nobody tells a page why a handshake failed. In the first message a token is refused with a code that it can read. */
  #tryOtherWay(url) {
    if (this.#token !== null && !this.#tokenFirst.delete(url)) this.#tokenFirst.add(url);
  }

  #visit(url) {
    const socket = new this.#options.WebSocket(url, this.#subprotocols(url));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#url = url;
    this.#timer("overdue", this.#options.openTimeoutMs, () => {
      if (!this.connected) this.#drop("the hub did not tell its state in time");
    });
    let opened = false;
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      opened = true;
      if (this.#tokenFirst.has(url)) this.#send({ type: "auth", token: this.#token });
      this.#stats.connections += 1;
      this.#offset = new ClockOffset();
      this.#setLink("syncing");
      this.#sub = this.#subscribing = null;
      this.#asked.clear();
      this.#connectedUs = this.#receivedUs = this.#nowUs();
      this.#heartbeatUs = 0;
      this.#wallDriftMs = Date.now() - performance.now();
      this.#event("connection", { connected: true, url, why: null });
    };
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onerror = () => {
      // Of an open connection `close` follows and says more; where none was made, not every runtime says it.
      if (socket !== this.#socket || opened) return;
      this.#tryOtherWay(url);
      this.#drop("no connection could be made");
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      if (!opened) this.#tryOtherWay(url);
      if (code === 4501) this.#giveUp("unauthorized", "the hub does not know this token");
      else if (code >= 4500 && code < 5000) this.#giveUp(String(code), `the hub does not want us back: ${code} ${reason}`);
      else this.#drop(`closed with ${code} ${reason}`.trim());
    };
  }

  /** This connection is of no use any more: say so, and try the next hub. */
  #drop(why, retryAfterMs = null, again = true) {
    const socket = this.#socket;
    this.#socket = null;
    this.#raiseFloors();
    this.#setLink("down");
    this.#sub = this.#subscribing = null;
    this.#cancel("overdue");
    if (socket) {
      const url = this.#url;
      try {
        socket.close();
      } catch {
        // it was not open yet, or is closed already
      }
      this.#stats.lastError = `${url}: ${why}`;
      const failures = this.#failures.get(url) ?? 0;
      this.#failures.set(url, failures + 1);
      const spread = 0.5 + Math.random() / 2;
      let waitMs = Math.min(FIRST_DELAY_MS * 2 ** Math.min(failures, 16), MAX_DELAY_MS) * spread;
      if (retryAfterMs !== null) waitMs = Math.max(waitMs, retryAfterMs * (0.5 + spread));
      this.#notBeforeMs.set(url, performance.now() + waitMs);
      this.#event("connection", { connected: false, url, why });
    }
    this.#tell();
    if (again) this.#connect();
  }

  #giveUp(code, message) {
    this.#closed = true;
    this.#drop(message, null, false);
    this.#settleWaiters(new HubError(code, message));
    this.#event("failed", { code, message });
  }

  #setLink(link) {
    if (link === this.#link) return;
    this.#link = link;
    this.#lookAtAll = true;
    if (link === "live") {
      this.#cancel("overdue");
      this.#settleWaiters(null);
    }
  }

  #send(message) {
    this.#socket?.send(JSON.stringify(message));
  }

  // Messages of the hub.

  #receive(data) {
    const nowUs = this.#nowUs();
    this.#stats.messages += 1;
    try {
      this.#take(typeof data === "string" ? JSON.parse(data) : decodeFrame(data), nowUs);
    } catch (error) {
      this.#drop(`a message that can't be read: ${error.message}`);
      return;
    }
    if (this.#offset.waitedUs(nowUs) > 20_000) this.#stats.drained += 1;
    if (this.connected && nowUs - this.#connectedUs >= PROVEN_AFTER_US) this.#failures.delete(this.#url);
    this.#tellSoon();
  }

  #take(message, nowUs) {
    const handlers = {
      hello: () => this.#onHello(message, nowUs),
      auth_required: () => this.#token ?? this.#giveUp("unauthorized", "the hub wants a token: pass { token }"),
      subscribed: () => this.#onSubscribed(message, nowUs),
      snapshot: () => this.#onSnapshot(message),
      update: () => this.#onUpdate(message),
      heartbeat: () => this.#onHeartbeat(message, nowUs),
      pong: () => this.#answered(message, nowUs),
      error: () => this.#onError(message),
      goaway: () => this.#drop(`the hub is going away: ${message.reason}`, message.retry_after_ms),
      unsubscribed: () => {},
      config: () => this.#onConfig(message),
    };
    if (!Object.hasOwn(handlers, message.type)) {
      this.#stats.unknownMessages += 1; // grows by addition: types that we don't know are for others
      return;
    }
    this.#receivedUs = nowUs;
    const sentUs = message.sent_us ?? message.server_time_us;
    if (sentUs !== undefined && !this.#offset.heard(sentUs, nowUs)) {
      this.#stats.clockSteps += 1;
      this.#drop("the hub's clock was stepped");
      return;
    }
    handlers[message.type]();
  }

  #onConfig({ feeds }) {
    const there = this.#sub !== null && feeds.some((feed) => this.#rejected.has(feed)); // refused before
    if (there) this.#resubscribe(false);
  }

  #onHello(hello, nowUs) {
    this.#hello = hello;
    this.#heartbeatUs = hello.heartbeat_ms * 1000;
    this.#subscribe(hello.instance === this.#held.instance, nowUs);
  }

  #subscribe(resume, nowUs) {
    const { instance, epoch, seq } = this.#held;
    this.#resuming = resume && seq !== null;
    this.#sub = null;
    this.#subscribing = this.#ask(nowUs);
    const point = this.#resuming ? { resume: { epoch, seq, instance } } : {};
    this.#send({ type: "subscribe", id: this.#subscribing, channel: "prices", ...this.#wanted, ...point });
  }

  #resubscribe(resume) {
    if (this.#link !== "syncing") this.#setLink("gap");
    if (this.#sub !== null) this.#send({ type: "unsubscribe", sub: this.#sub });
    this.#subscribe(resume, this.#nowUs());
  }

  #ask(nowUs) {
    this.#request += 1;
    this.#askedAtUs = nowUs;
    this.#asked.set(this.#request, nowUs);
    if (this.#asked.size > MAX_ASKED) this.#asked.delete(this.#asked.keys().next().value);
    return this.#request;
  }

  #answered({ id, received_us: reachedUs }, nowUs) {
    const askedUs = this.#asked.get(id);
    if (askedUs === undefined) return;
    this.#asked.delete(id);
    this.#offset.answered(askedUs, reachedUs, nowUs);
  }

  #onError({ id, code, message }) {
    if (this.#subscribing === null || id !== this.#subscribing) return;
    const text = `the hub refused the subscription (${code}): ${message}`;
    if (code === "rate_limited" || code === "too_many_subscriptions") this.#drop(text);
    else this.#giveUp(code, text);
  }

  #onSubscribed(answer, nowUs) {
    this.#answered(answer, nowUs);
    if (answer.id !== this.#subscribing) {
      // Other feeds were wanted before it came: nobody reads what would be sent for it.
      if (answer.sub !== null) this.#send({ type: "unsubscribe", sub: answer.sub });
      return;
    }
    this.#subscribing = null;
    this.#rejected = new Map(answer.rejected.map(({ feed, code }) => [feed, code]));
    for (const feed of this.#rejected.keys()) {
      this.#held.feeds.delete(feed);
      this.#note(feed);
    }
    if (answer.sub === null) {
      this.#drop(`the hub has none of the feeds ${[...this.#rejected.keys()].join(", ").slice(0, 100)}`);
      return;
    }
    this.#sub = answer.sub;
    this.#resuming = answer.recovered === true;
    if (!this.#resuming) this.#lost = this.#held.seq !== null;
    else if (!this.#wanted.feeds.includes("*") && answer.accepted.some((feed) => !this.#held.feeds.has(feed))) {
      this.#resubscribe(false); // a feed that was refused before: a resume would tell it only when it changes
    }
  }

  #onSnapshot(message) {
    if (message.sub !== this.#sub || !this.#hello) return;
    message.feeds.forEach(check);
    const held = this.#held;
    const { instance } = this.#hello;
    const onward = held.epoch < message.epoch || (held.epoch === message.epoch && (held.seq ?? 0) <= message.seq);
    if (held.instance === instance && onward) this.#clearFloors();
    const before = held.feeds;
    const { epoch, seq } = message;
    const known = message.feeds.filter(({ reason }) => reason !== "removed");
    this.#held = { instance, epoch, seq, feeds: new Map(known.map((entry) => [entry.feed, { entry, epoch, seq, instance }])) };
    for (const feed of before.keys()) if (!this.#held.feeds.has(feed)) this.#note(feed);
    this.#stats.snapshots += 1;
    this.#resuming = false;
    this.#setLink("live");
    const sameHub = held.instance === instance && held.epoch === epoch;
    const same = (entry) => sameHub && JSON.stringify(before.get(entry.feed)?.entry) === JSON.stringify(entry);
    this.#gather(message.feeds.filter((entry) => !same(entry)));
    this.#lost = false;
  }

  #onUpdate(message) {
    if (message.sub !== this.#sub) return;
    const held = this.#held;
    if (this.#link !== "live" && !this.#resuming) {
      this.#stats.gaps += 1; // what follows a snapshot is of no use where the snapshot did not come
      this.#resubscribe(false);
      return;
    }
    if (held.seq === null || message.epoch !== held.epoch || message.prev_seq > held.seq) {
      this.#stats.gaps += 1;
      this.#resubscribe(true);
      return;
    }
    // Equal to both: a price became too old for our own max age, which is news without a new sequence.
    if (message.seq < held.seq || (message.seq === held.seq && message.prev_seq < held.seq)) {
      this.#stats.duplicates += 1;
      return;
    }
    message.feeds.forEach(check);
    const { epoch, seq } = message;
    for (const entry of message.feeds) {
      if (entry.reason === "removed") held.feeds.delete(entry.feed);
      else held.feeds.set(entry.feed, { entry, epoch, seq, instance: held.instance });
    }
    held.seq = seq;
    if (this.#resuming) {
      this.#resuming = false;
      this.#stats.resumes += 1;
      this.#clearFloors();
      this.#setLink("live");
    }
    this.#gather(message.feeds);
  }

  #onHeartbeat(beat, nowUs) {
    if (beat.sub === this.#sub) {
      const { seq, epoch } = this.#held;
      if (this.#link !== "live") {
        this.#stats.gaps += 1; // the present state is sent with the answer, before any heartbeat
        this.#resubscribe(false);
      } else if (beat.seq !== seq) {
        this.#stats.gaps += 1;
        this.#resubscribe(beat.seq > seq);
      } else if (beat.epoch !== epoch || beat.digest !== digest(this.#held.feeds, beat.server_time_us)) {
        this.#stats.digestMismatches += 1;
        this.#resubscribe(false);
      }
    }
    if (nowUs - this.#askedAtUs >= PING_INTERVAL_US) this.#send({ type: "ping", id: this.#ask(nowUs) });
  }

  // Another hub takes nobody back behind what was told last, while that holds.

  #raiseFloors() {
    if (this.#link !== "live" && this.#link !== "gap") return; // what is held was told by an earlier connection
    const nowUs = this.#nowUs();
    const latestUs = this.#offset.latestUs(nowUs);
    for (const [feed, { entry, instance }] of this.#held.feeds) {
      if (entry.price === null || entry.publish_time_us === null || this.#hidden(feed, entry, nowUs)) continue;
      const endUs = entry.valid_until_us;
      const untilUs = endUs === null || latestUs === null ? Infinity : nowUs + endUs - latestUs;
      this.#floors.set(feed, { instance, publishUs: entry.publish_time_us, untilUs });
    }
  }

  #clearFloors() {
    for (const [feed, { instance }] of this.#floors) if (instance === this.#held.instance) this.#floors.delete(feed);
  }

  #hidden(feed, entry, nowUs) {
    const floor = this.#floors.get(feed);
    return floor !== undefined && nowUs < floor.untilUs && (entry.publish_time_us ?? 0) < floor.publishUs;
  }

  // What is held, judged.

  #judge(feed, nowUs, maxAgeMs = null) {
    const refuse = (reason, message, hubReason = null) => new NoPrice(feed, reason, message, hubReason);
    if (this.#rejected.has(feed) || !(this.#wanted.feeds.includes(feed) || this.#wanted.feeds.includes("*"))) {
      return refuse(Refusal.UNKNOWN_FEED, "not subscribed, or refused by the hub");
    }
    if (this.#link === "gap") return refuse(Refusal.GAP, "something was missed, and the newest state is on its way");
    if (this.#link !== "live") return refuse(Refusal.DISCONNECTED, "no connection to a hub that has caught up");
    if (this.#isSilent(nowUs)) return refuse(Refusal.DISCONNECTED, "nothing recent was heard from the hub");
    const held = this.#held.feeds.get(feed);
    if (!held) return refuse(Refusal.UNKNOWN_FEED, "the hub has no such feed, or it was removed");
    const { entry } = held;
    if (entry.price === null || !["live", "degraded"].includes(entry.state)) {
      const known = { lease_over: Refusal.LEASE_OVER, max_age: Refusal.TOO_OLD };
      return refuse(known[entry.reason] ?? Refusal.NONE, `the hub has no price: ${entry.reason}`, entry.reason);
    }
    const latestUs = this.#offset.latestUs(nowUs);
    const endUs = entry.valid_until_us;
    if (endUs !== null && latestUs >= endUs) return refuse(Refusal.LEASE_OVER, "its lease is over");
    if (this.#hidden(feed, entry, nowUs)) {
      return refuse(Refusal.TOO_OLD, "this hub's price is older than one that another hub told");
    }
    if (maxAgeMs !== null && latestUs - (entry.publish_time_us ?? 0) > maxAgeMs * 1000) {
      return refuse(Refusal.TOO_OLD, `published more than ${maxAgeMs} ms ago`);
    }
    return {
      feed,
      mantissa: BigInt(entry.price),
      expo: entry.expo,
      state: entry.state,
      conf: entry.conf === null ? null : BigInt(entry.conf),
      source: entry.source,
      rule: entry.rule,
      reason: entry.reason,
      publishTimeUs: entry.publish_time_us,
      decidedUs: entry.decided_us,
      validUntilUs: endUs,
      leaseLeftUs: endUs === null ? null : endUs - latestUs,
      instance: held.instance,
      epoch: held.epoch,
      seq: held.seq,
      inputs: entry.inputs ?? null,
    };
  }

  /** performance.now() may stand still while the machine sleeps; the wall clock does not. */
  get #slept() {
    return Math.abs(Date.now() - performance.now() - this.#wallDriftMs) * 1000 > SUSPENDED_US;
  }

  #isSilent(nowUs) {
    return this.#slept || this.#offset.waitedUs(nowUs) > this.#silenceUs();
  }

  // News: gathered per feed, told when everything that had arrived has been read.

  #note(feed) {
    if (!this.#news.has(feed)) this.#news.set(feed, { n: 0, low: null, high: null, wasNone: false, lost: false });
    return this.#news.get(feed);
  }

  #gather(entries) {
    const nowUs = this.#nowUs();
    this.#stats.updates += entries.length;
    for (const entry of entries) {
      const merged = this.#note(entry.feed);
      merged.n += entry.n ?? 1;
      merged.wasNone ||= entry.price === null || entry.was_none === true;
      merged.lost ||= this.#lost;
      for (const text of [entry.low, entry.high, entry.price]) {
        if (typeof text !== "string") continue;
        const mantissa = BigInt(text);
        if (merged.low === null || mantissa < merged.low) merged.low = mantissa;
        if (merged.high === null || mantissa > merged.high) merged.high = mantissa;
      }
      if (entry.price === null || !this.#floors.has(entry.feed)) continue;
      if (this.#hidden(entry.feed, entry, nowUs)) this.#stats.heldBack += 1;
      else this.#floors.delete(entry.feed);
    }
  }

  /** Messages that wait are tasks before this one: after a stall everything is read first, and only the newest is told. */
  #tellSoon() {
    if (this.#telling) return;
    this.#telling = true;
    setTimeout(() => this.#tell(), 0);
  }

  #tell() {
    this.#telling = false;
    const nowUs = this.#nowUs();
    const silent = this.#isSilent(nowUs);
    const all = this.#lookAtAll || silent !== this.#silent;
    if (all) for (const [feed, { untilUs }] of this.#floors) if (untilUs <= nowUs) this.#floors.delete(feed);
    [this.#lookAtAll, this.#silent] = [false, silent];
    const others = all ? [...this.#held.feeds.keys(), ...this.#usable.keys()] : [];
    for (const feed of new Set([...this.#news.keys(), ...others])) {
      const told = this.#told(feed); // each at its own moment: who was told before may have taken its time
      const usable = told.price !== null;
      const turned = this.#usable.get(feed) !== usable;
      if (!turned && !this.#news.has(feed)) continue;
      const { lost, ...merged } = this.#note(feed);
      this.#news.delete(feed);
      if (turned && this.#usable.get(feed)) merged.wasNone = true;
      const held = this.#held.feeds.get(feed);
      if (held || this.#rejected.has(feed)) this.#usable.set(feed, usable);
      else this.#usable.delete(feed);
      const detail = {
        feed,
        ...told,
        entry: merged.n && held ? held.entry : null,
        merged,
        epoch: held?.epoch ?? 0,
        seq: held?.seq ?? 0,
        lost,
      };
      if (turned) this.#event(usable ? "live" : "none", detail);
      this.#event("update", turned ? { ...detail, ...this.#told(feed) } : detail);
    }
    this.#arm();
  }

  #told(feed) {
    const judged = this.#judge(feed, this.#nowUs());
    return judged instanceof NoPrice ? { price: null, refusal: judged } : { price: judged, refusal: null };
  }

  #event(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // Time: leases end by themselves, and a hub that is silent is left.

  #arm() {
    if (this.#closed || this.#link === "down") return;
    const nowUs = this.#nowUs();
    const latestUs = this.#offset.latestUs(nowUs);
    let waitUs = 1_000_000; // also looks whether the machine slept
    if (this.#heartbeatUs) waitUs = Math.min(waitUs, this.#receivedUs + this.#silenceUs() - nowUs);
    for (const { untilUs } of this.#floors.values()) waitUs = Math.min(waitUs, untilUs - nowUs);
    for (const [feed, { entry }] of this.#held.feeds) {
      const endUs = entry.valid_until_us;
      if (endUs === null || latestUs === null) continue;
      if (endUs > latestUs || this.#usable.get(feed)) waitUs = Math.min(waitUs, endUs - latestUs); // not told yet that it is over
    }
    this.#timer("deadline", Math.max(1, waitUs / 1000), () => {
      // Once more round the event loop: if it was we who stood still, what waits in the socket comes first.
      this.#timer("deadline", 1, () => this.#onDeadline());
    });
  }

  #silenceUs() {
    return this.#heartbeatUs * SILENT_AFTER_HEARTBEATS;
  }

  #onDeadline() {
    const silentUs = this.#nowUs() - this.#receivedUs;
    if (this.#slept) this.#drop("the machine's clocks parted: it slept, or its clock was set");
    else if (this.#heartbeatUs && silentUs > this.#silenceUs()) this.#drop("nothing was heard for 2.5 heartbeats");
    else {
      this.#lookAtAll = true;
      this.#tell();
    }
  }
}

// The binary form (docs/protocol-binary.md), read into the same objects as JSON. All numbers are little endian.

const STATES = ["none", "live", "degraded"];
const REASONS = [
  null, "agreed", "primary_diverged", "primary_unusable", "verifier_unusable", "diverged", "too_few_sources", "warming",
  "clock_skew", "journal_unavailable", "removed", "lease_over", "max_age",
  "not_redistributable",
];
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** A snapshot, update or heartbeat from a binary message. Throws RangeError or TypeError for what is none. */
export function decodeFrame(buffer) {
  const view = new DataView(buffer);
  const integer = (at) => Number(view.getBigInt64(at, true));
  if (view.getUint32(0, false) !== 0xb14f4801) throw new TypeError("no binary frame, or of another version");
  const [kind, flags, bodyAt] = [view.getUint8(4), view.getUint8(5), view.getUint16(6, true)];
  const [sub, count] = [view.getUint32(8, true), view.getUint32(12, true)];
  const [epoch, seq, prevSeq, sentUs] = [16, 24, 32, 40].map(integer);
  if (kind === 3) {
    const digest = hex(new Uint8Array(buffer, bodyAt, 8));
    const notLive = [];
    let at = bodyAt + 8;
    for (let left = count; left > 0; left -= 1) {
      const size = view.getUint16(at, true);
      notLive.push(utf8.decode(new Uint8Array(buffer, at + 2, size)));
      at += 2 + size;
    }
    return { type: "heartbeat", sub, epoch, seq, server_time_us: sentUs, not_live: notLive, digest };
  }
  if (kind !== 1 && kind !== 2) return { type: `kind ${kind}` }; // a later one, for others
  const feeds = [];
  let at = bodyAt;
  for (let left = count; left > 0; left -= 1) {
    const size = view.getUint32(at, true);
    if (size < 64) throw new RangeError("an entry that is too short");
    feeds.push(decodeEntry(new DataView(buffer, at, size)));
    at += size;
  }
  if (at !== buffer.byteLength) throw new RangeError("bytes after the last entry");
  if (kind === 1) return { type: "snapshot", sub, epoch, seq, sent_us: sentUs, feeds };
  const [conflated, replayed] = [Boolean(flags & 1), Boolean(flags & 2)];
  const lost = flags & 4 ? { journaled: false } : {};
  return { type: "update", sub, epoch, seq, prev_seq: prevSeq, sent_us: sentUs, conflated, replayed, feeds, ...lost };
}

function decodeEntry(view) {
  const flags = view.getUint16(52, true);
  const [state, rule, reason] = [view.getUint8(57), view.getUint8(58), view.getUint8(59)];
  const price = view.getBigInt64(8, true);
  if (price > 0n !== Boolean(flags & 1) || price !== 0n !== (state > 0) || !(state in STATES)) {
    throw new TypeError("price, flag and state contradict each other");
  }
  const text = (flag, at) => (flags & flag ? String(view.getBigInt64(at, true)) : null);
  const time = (flag, at) => (flags & flag ? Number(view.getBigInt64(at, true)) : null);
  let at = view.getUint16(54, true);
  const name = (size) => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset + at, Math.min(size, view.byteLength - at));
    if (bytes.length !== size) throw new RangeError("lengths that do not fit the entry");
    at += size;
    return utf8.decode(bytes);
  };
  const feed = name(view.getUint16(4, true));
  const source = name(view.getUint16(6, true)) || null;
  const inputs = name(view.getUint32(48, true));
  const merged = { n: view.getUint32(60, true), low: text(32, 64), high: text(32, 72), was_none: Boolean(flags & 64) };
  return {
    feed,
    state: STATES[state],
    price: text(1, 8),
    expo: view.getInt8(56),
    conf: text(2, 16),
    source,
    rule: `R${rule}`,
    reason: REASONS[reason] ?? `reason_${reason}`,
    publish_time_us: time(4, 24),
    decided_us: Number(view.getBigInt64(32, true)),
    valid_until_us: time(8, 40),
    ...(flags & 16 ? merged : {}),
    ...(inputs ? { inputs: JSON.parse(inputs) } : {}),
  };
}

/** Throws for an entry that can't be read. */
function check(entry) {
  for (const text of [entry.price, entry.conf, entry.low, entry.high]) {
    if (text !== null && text !== undefined && !(typeof text === "string" && DIGITS.test(text))) {
      throw new TypeError(`${entry.feed}: a price that is not digits`);
    }
  }
  if (entry.price !== null && BigInt(entry.price) === 0n) throw new TypeError(`${entry.feed}: a price of zero`);
}

/** The digest of a heartbeat over what is held, at a time of the hub's clock (docs/protocol.md). */
function digest(feeds, nowUs) {
  const lines = [];
  for (const { entry } of feeds.values()) {
    const { feed, state, price, valid_until_us: endUs } = entry;
    const over = endUs !== null && nowUs >= endUs;
    lines.push(over ? `${feed}\0none\0\0\n` : `${feed}\0${state}\0${price ?? ""}\0${endUs ?? ""}\n`);
  }
  const encoded = lines.map((line) => new TextEncoder().encode(line)).sort(compareBytes);
  const data = new Uint8Array(encoded.reduce((sum, line) => sum + line.length, 0));
  let at = 0;
  for (const line of encoded) {
    data.set(line, at);
    at += line.length;
  }
  return blake2b8(data);
}

/** UTF-8 sorts as code points do, which is how the hub sorts; JavaScript's own order is by UTF-16 units. */
function compareBytes(a, b) {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

// BLAKE2b (RFC 7693) with a digest of 8 bytes. Words are 64 bits, in the little endian order of every machine at hand.

const IV = BigUint64Array.of(
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
);
const SIGMA = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
].map((row) => [...row].map((digit) => parseInt(digit, 16)));
const MIXES = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

/** A word of BigUint64Array, which keeps its low 64 bits, rotated right. */
const turned = (word, bits) => (word >> bits) | (word << (64n - bits));

function compress(h, m, total, last) {
  const v = new BigUint64Array(16);
  v.set(h);
  v.set(IV, 8);
  v[12] ^= BigInt(total);
  if (last) v[14] = ~v[14];
  for (let round = 0; round < 12; round += 1) {
    const sigma = SIGMA[round % 10];
    MIXES.forEach(([a, b, c, d], i) => {
      v[a] += v[b] + m[sigma[2 * i]];
      v[d] = turned(v[d] ^ v[a], 32n);
      v[c] += v[d];
      v[b] = turned(v[b] ^ v[c], 24n);
      v[a] += v[b] + m[sigma[2 * i + 1]];
      v[d] = turned(v[d] ^ v[a], 16n);
      v[c] += v[d];
      v[b] = turned(v[b] ^ v[c], 63n);
    });
  }
  for (let i = 0; i < 8; i += 1) h[i] ^= v[i] ^ v[i + 8];
}

/** 16 hex digits of BLAKE2b with an 8-byte digest. */
export function blake2b8(data) {
  const h = BigUint64Array.from(IV);
  h[0] ^= 0x01010008n;
  const blocks = Math.max(1, Math.ceil(data.length / 128));
  for (let i = 0; i < blocks; i += 1) {
    const block = new Uint8Array(128);
    block.set(data.subarray(i * 128, (i + 1) * 128));
    compress(h, new BigUint64Array(block.buffer), Math.min((i + 1) * 128, data.length), i === blocks - 1);
  }
  return hex(new Uint8Array(h.buffer, 0, 8));
}
