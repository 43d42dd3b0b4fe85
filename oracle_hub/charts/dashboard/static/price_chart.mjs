// The candles: bars, empty places where there was no price, and marks where the state changed.

import { approximate, decimalsFor, moment, priceParts, setText, words } from "./format.mjs";
import { chartLook } from "./theme.mjs";
import { CandlestickSeries, createChart, createSeriesMarkers } from "./vendor/lightweight-charts.standalone.production.mjs";

const MAX_EMPTY = 500; // empty places in a row: longer times without a price are drawn shorter
const EARLIER_BARS = 20; // so close to the left end what lies before is read
const LENGTH_S = { S: 1, D: 86_400, W: 604_800 };
const WORSE = { none: 2, degraded: 1, live: 0 };

export class PriceChart {
  #node;
  #legend;
  #chart;
  #series;
  #marks;
  #changes = [];
  #bars = [];
  #expo = -8;
  #stepS = null;
  #inForce = true;
  #fresh = true;

  /** `wantEarlier()` is called when somebody looks at the left end. */
  constructor(node, legend, wantEarlier) {
    this.#node = node;
    this.#legend = legend;
    this.#chart = createChart(node, { autoSize: true, ...chartLook() });
    this.#series = this.#chart.addSeries(CandlestickSeries, this.#look());
    this.#marks = createSeriesMarkers(this.#series, []);
    this.#chart.timeScale().applyOptions({ timeVisible: true, secondsVisible: true, rightOffset: 4, barSpacing: 8, minBarSpacing: 1 });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range !== null && range.from < EARLIER_BARS && this.#bars.length) wantEarlier();
    });
    this.#chart.subscribeCrosshairMove(({ time }) => this.#tellBar(time ?? null));
    node.chartData = () => this.#series.data(); // what is drawn, for the console and for tests
    node.chartPosition = () => this.#chart.timeScale().scrollPosition(); // of the right edge, in bars after the last
  }

  restyle() {
    this.#chart.applyOptions(chartLook());
    this.#series.applyOptions(this.#look());
    this.#drawMarks();
  }

  /** Another feed or resolution: nothing is drawn until its history is here. */
  clear(resolution) {
    this.#stepS = stepOf(resolution);
    this.#bars = [];
    this.#changes = [];
    this.#series.setData([]);
    this.#marks.setMarkers([]);
    this.#chart.timeScale().applyOptions({ secondsVisible: resolution.endsWith("S") });
    this.#tellBar(null);
    this.#fresh = true;
  }

  history(bars, expo) {
    this.#bars = [...bars];
    this.#expo = expo;
    const last = bars.at(-1);
    if (last) {
      const precision = decimalsFor(approximate(last.close, expo), expo);
      this.#series.applyOptions({ priceFormat: { type: "price", precision, minMove: 10 ** -precision } });
    }
    this.#series.setData(this.#points(bars, null));
    if (this.#fresh && last) {
      this.#fresh = false;
      this.#chart.timeScale().resetTimeScale(); // the newest bar is in sight, and stays there
    }
    this.#drawMarks();
    this.#tellBar(null);
  }

  /** Bars that are new, or the last one again. */
  append(bars) {
    for (const bar of bars) {
      const last = this.#bars.at(-1) ?? null;
      for (const point of this.#points([bar], last)) this.#series.update(point);
      if (last !== null && last.startUs === bar.startUs) this.#bars[this.#bars.length - 1] = bar;
      else this.#bars.push(bar);
    }
    this.#tellBar(null);
    if (this.#changes.length) this.#drawMarks();
  }

  /** Changes of state: {at_us, state, before, reason}, ascending. */
  mark(changes) {
    this.#changes = changes;
    this.#drawMarks();
  }

  /** Whether a price is in force: without one nothing on the axis may look like one. */
  set inForce(inForce) {
    if (inForce === this.#inForce) return;
    this.#inForce = inForce;
    this.#series.applyOptions(this.#look());
    this.#tellBar(null);
  }

  #look() {
    const style = getComputedStyle(this.#node);
    const [up, down] = [style.getPropertyValue("--up"), style.getPropertyValue("--down")];
    return {
      upColor: up,
      downColor: down,
      wickUpColor: up,
      wickDownColor: down,
      borderVisible: false,
      lastValueVisible: this.#inForce,
      priceLineVisible: this.#inForce,
    };
  }

  /** What the chart draws: bars, and an empty place for every bucket between them that has none. */
  #points(bars, before) {
    const points = [];
    let lastS = before === null ? null : before.startUs / 1e6;
    for (const bar of bars) {
      const time = bar.startUs / 1e6;
      if (lastS !== null && this.#stepS !== null) {
        const first = Math.max(lastS + this.#stepS, time - MAX_EMPTY * this.#stepS);
        for (let empty = first; empty < time; empty += this.#stepS) points.push({ time: empty });
      }
      const drawn = Object.fromEntries(["open", "high", "low", "close"].map((key) => [key, approximate(bar[key], this.#expo)]));
      points.push({ time, ...drawn });
      lastS = time;
    }
    return points;
  }

  /** One mark for all changes within a bar: the worst state, as the bar is where it can be drawn. */
  #drawMarks() {
    const worst = new Map();
    let at = 0;
    for (const change of this.#changes) {
      if (change.before === null && change.state !== "none") continue; // the first word of a hub is no change
      while (at + 1 < this.#bars.length && this.#bars[at + 1].startUs <= change.at_us) at += 1;
      const startUs = this.#bars[at]?.startUs;
      if (startUs === undefined || startUs > change.at_us) continue;
      if (!(WORSE[worst.get(startUs)] >= WORSE[change.state])) worst.set(startUs, change.state);
    }
    const style = getComputedStyle(this.#node);
    const looks = {
      none: { text: "none", position: "aboveBar", shape: "arrowDown", color: style.getPropertyValue("--none") },
      degraded: { text: "degraded", position: "aboveBar", shape: "circle", color: style.getPropertyValue("--degraded") },
      live: { text: "live", position: "belowBar", shape: "arrowUp", color: style.getPropertyValue("--live") },
    };
    this.#marks.setMarkers([...worst].map(([startUs, state]) => ({ time: startUs / 1e6, size: 0.8, ...looks[state] })));
  }

  /** Open, high, low and close of the bar under the pointer; without one, of the last, while a price is in force. */
  #tellBar(time) {
    const last = this.#inForce ? this.#bars.at(-1) : undefined;
    const bar = time === null ? last : this.#bars.findLast(({ startUs }) => startUs === time * 1e6);
    if (bar === undefined) {
      setText(this.#legend, "");
      return;
    }
    const text = (mantissa) => priceParts(mantissa, this.#expo)[0];
    const { open, high, low, close } = bar;
    const values = `O ${text(open)}  H ${text(high)}  L ${text(low)}  C ${text(close)}`;
    setText(this.#legend, `${moment(bar.startUs)} UTC  ${values}${bar.updates === 0 ? `  ${words("carried")}` : ""}`);
  }
}

/** Seconds of a resolution; null where they differ from one bar to the next. */
function stepOf(resolution) {
  const letter = resolution.at(-1);
  if (letter === "M") return null;
  return letter in LENGTH_S ? Number.parseInt(resolution, 10) * LENGTH_S[letter] : Number(resolution) * 60;
}
