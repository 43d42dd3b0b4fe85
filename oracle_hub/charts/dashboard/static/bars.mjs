// Bars of one feed and resolution: history by HTTP, then live by `/v1/bars`, joined at the last final bar. What is told
// goes forward only: a bar is new, or it is the last one; whatever else changed is told as a whole.

const HISTORY = 500;
const SILENT_MS = 5_000; // the server says something every second
const FIRST_DELAY_MS = 250;
const MAX_DELAY_MS = 5_000;
const RETRY_MS = 1_000;

/**
 * Events: `history` {bars, expo} replaces all; `bars` {bars} are to be appended, or replace the last; `status` {text}.
 * A bar: {startUs, open, high, low, close (BigInt), closed, updates}.
 */
export class Bars extends EventTarget {
  #url;
  #wanted = null;
  #turn = 0; // of the choice that is being shown; what belongs to another is dropped
  #bars = [];
  #expo = null;
  #previousUs = null;
  #earlier = false;
  #socket = null;
  #ready = false; // hello was heard
  #sub = null;
  #delayMs = FIRST_DELAY_MS;
  #silence = null;

  constructor(url) {
    super();
    this.#url = url;
  }

  get bars() {
    return this.#bars;
  }

  /** Show this from now on. */
  choose(feed, resolution) {
    this.#wanted = { feed, resolution };
    this.#leave();
    this.#bars = [];
    this.#begin();
    if (this.#socket === null) this.#connect();
  }

  /** Read what lies before the first bar; false when there is nothing, or it is being read. */
  async earlier() {
    if (this.#earlier || this.#previousUs === null || !this.#bars.length) return false;
    const turn = this.#turn;
    this.#earlier = true;
    try {
      const page = await this.#page(`&to=${this.#bars[0].startUs / 1e6}`);
      if (turn !== this.#turn) return false;
      this.#previousUs = page.previous_us;
      this.#bars = [...page.bars.map(read), ...this.#bars];
      this.#tell("history", { bars: this.#bars, expo: this.#expo });
      return true;
    } catch (error) {
      this.#tell("status", { text: `earlier bars cannot be read: ${error.message}` });
      return false;
    } finally {
      this.#earlier = false;
    }
  }

  // History.

  async #begin() {
    const turn = (this.#turn += 1);
    this.#tell("status", { text: "reading history" });
    try {
      const page = await this.#page("");
      if (turn !== this.#turn) return;
      this.#bars = page.bars.map(read);
      this.#expo = page.expo;
      this.#previousUs = page.previous_us;
      this.#tell("history", { bars: this.#bars, expo: this.#expo });
      this.#tell("status", { text: "" });
      this.#subscribe();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#tell("status", { text: `history cannot be read: ${error.message}` });
      setTimeout(() => turn === this.#turn && this.#begin(), RETRY_MS);
    }
  }

  async #page(range) {
    const { feed, resolution } = this.#wanted;
    const path = feed.split("/").map(encodeURIComponent).join("/");
    const answer = await fetch(`v1/bars/${path}?resolution=${resolution}&countback=${HISTORY}${range}`);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error?.message ?? `HTTP ${answer.status}`);
    return body;
  }

  // Live.

  #connect() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(JSON.parse(data));
    socket.onclose = () => socket === this.#socket && this.#lost();
    this.#heard();
  }

  #lost() {
    const socket = this.#socket;
    this.#socket = null;
    this.#ready = false;
    this.#sub = null;
    clearTimeout(this.#silence);
    socket.close();
    this.#tell("status", { text: "live bars: reconnecting" });
    setTimeout(() => this.#connect(), this.#delayMs * (0.5 + Math.random() / 2));
    this.#delayMs = Math.min(2 * this.#delayMs, MAX_DELAY_MS);
  }

  #heard() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), SILENT_MS);
  }

  #leave() {
    if (this.#sub !== null) this.#send({ type: "unsubscribe", sub: this.#sub });
    this.#sub = null;
  }

  /** From the last final bar on, which comes again: so there is no gap, and nothing but that one twice. */
  #subscribe() {
    if (!this.#ready || this.#wanted === null || this.#expo === null) return;
    const final = this.#bars.findLast((bar) => bar.closed) ?? this.#bars[0];
    const { feed, resolution } = this.#wanted;
    this.#leave();
    const from = final ? { from_us: final.startUs } : { count: HISTORY };
    this.#send({ type: "subscribe", id: this.#turn, feeds: [feed], resolution, ...from });
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #receive(message) {
    this.#heard();
    if (message.type === "hello") {
      this.#ready = true;
      this.#delayMs = FIRST_DELAY_MS;
      this.#tell("resolutions", { resolutions: message.resolutions });
      this.#subscribe();
    } else if (message.type === "subscribed" && message.id === this.#turn) {
      if (message.sub === null) this.#again();
      else this.#sub = message.sub;
    } else if (message.type === "error" && message.id === this.#turn) {
      this.#again();
    } else if (message.type === "snapshot" && message.sub === this.#sub) {
      this.#tell("status", { text: "" });
      this.#merge(message.bars);
    } else if (message.type === "bars" && message.sub === this.#sub) {
      for (const { bars } of message.feeds) this.#merge(bars);
    } else if (message.type === "revisions" && message.sub === this.#sub) {
      this.#merge(message.bars);
    } else if (message.type === "heartbeat") {
      this.#tell("status", { text: message.connected ? "" : "bars stand still: the hub is not heard" });
    }
  }

  /** The feed is not known yet, or too much was missed: all of it again, a little later. */
  #again() {
    const turn = this.#turn;
    setTimeout(() => turn === this.#turn && this.#begin(), RETRY_MS);
  }

  #merge(entries) {
    const news = [];
    let rewritten = false;
    for (const bar of entries.map(read)) {
      const last = this.#bars.at(-1);
      if (last === undefined || bar.startUs > last.startUs) this.#bars.push(bar);
      else if (bar.startUs === last.startUs) this.#bars[this.#bars.length - 1] = bar;
      else {
        rewritten = this.#rewrite(bar) || rewritten;
        continue;
      }
      news.push(bar);
    }
    if (rewritten) this.#tell("history", { bars: this.#bars, expo: this.#expo });
    else if (news.length) this.#tell("bars", { bars: news });
  }

  /** A bar that is not the last one, told again: it differs only where it was corrected. */
  #rewrite(bar) {
    const at = this.#bars.findLastIndex((held) => held.startUs <= bar.startUs);
    const held = this.#bars[at];
    const same = held?.startUs === bar.startUs;
    if (same && ["open", "high", "low", "close", "closed"].every((key) => held[key] === bar[key])) return false;
    this.#bars.splice(same ? at : at + 1, same ? 1 : 0, bar);
    return true;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function read(bar) {
  return {
    startUs: bar.start_us,
    open: BigInt(bar.open),
    high: BigInt(bar.high),
    low: BigInt(bar.low),
    close: BigInt(bar.close),
    closed: bar.closed,
    updates: bar.updates,
  };
}
