// Divergence and age of each source over time: what the server kept, then what this page has seen. Where a source was not
// usable there is a gap.

import { DASH, duration, element } from "./format.mjs";
import { chartLook, colour } from "./theme.mjs";
import { createChart, LineSeries } from "./vendor/lightweight-charts.standalone.production.mjs";

const KEPT = 1_800; // one a second
const MAX_FEEDS = 100; // beyond it only of the feed that is looked at
const COLOURS = Array.from({ length: 8 }, (_, at) => `series-${at + 1}`);

export class Trends {
  #legend;
  #charts;
  #samples = new Map();
  #past = new Set(); // feeds whose past was read
  #shown = null;
  #drawn = "";
  #places = new Map(); // of sources among the colours: the same in both charts and beside them, whoever is told first

  constructor(divergence, ages, legend) {
    this.#legend = legend;
    const colourOf = (name) => this.#colourOf(name);
    this.#charts = [
      new Trend(divergence, (source) => source.divergenceBps, (value) => value.toFixed(value < 10 ? 2 : 1), colourOf),
      new Trend(ages, (source) => source.ageUs === null ? null : source.ageUs / 1e6, (value) => value.toFixed(1), colourOf),
    ];
  }

  #colourOf(name) {
    if (!this.#places.has(name)) this.#places.set(name, this.#places.size);
    return colour(COLOURS[this.#places.get(name) % COLOURS.length]);
  }

  restyle() {
    for (const chart of this.#charts) chart.restyle();
    this.#drawn = "";
  }

  /** Another feed is looked at. */
  show(feed) {
    this.#shown = feed;
    if (this.#samples.size > MAX_FEEDS) {
      this.#samples.clear();
      this.#past.clear();
    }
    for (const chart of this.#charts) chart.fill(this.#samples.get(feed) ?? []);
    if (!this.#past.has(feed)) this.#readPast(feed);
  }

  /** What was before this page, once for each feed. Without it the page begins with itself, as it does when alone. */
  async #readPast(feed) {
    this.#past.add(feed);
    try {
      const answer = await fetch(`v1/trends/${feed.split("/").map(encodeURIComponent).join("/")}`);
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      const { times, sources } = await answer.json();
      const named = Object.entries(sources);
      const past = times.map((timeS, at) => ({
        timeS,
        sources: named.map(([name, { divergence_bps, age_ms }]) => ({
          name,
          divergenceBps: divergence_bps[at],
          ageUs: age_ms[at] === null ? null : age_ms[at] * 1e3,
        })),
      }));
      const seen = this.#samples.get(feed) ?? [];
      const before = seen.length ? past.filter(({ timeS }) => timeS < seen[0].timeS) : past;
      this.#samples.set(feed, [...before, ...seen].slice(-KEPT));
      if (feed === this.#shown) for (const chart of this.#charts) chart.fill(this.#samples.get(feed));
    } catch {
      this.#past.delete(feed); // again when the feed is looked at again
    }
  }

  /** Whether samples of this feed are wanted. */
  wants(feed, feeds) {
    return feed === this.#shown || feeds <= MAX_FEEDS;
  }

  /** The sources of a feed at this second of the hub's clock. */
  sample(feed, timeS, sources) {
    if (!this.#samples.has(feed)) this.#samples.set(feed, []);
    const samples = this.#samples.get(feed);
    if (samples.length && timeS <= samples.at(-1).timeS) return; // a clock that was set back
    const sample = { timeS, sources };
    samples.push(sample);
    if (samples.length > KEPT) samples.shift();
    if (feed === this.#shown) for (const chart of this.#charts) chart.add(sample);
  }

  /** The newest values beside the colours. */
  tell(sources) {
    const parts = sources.map(({ name, divergenceBps, ageUs }) => [
      name,
      divergenceBps === null ? DASH : `${divergenceBps.toFixed(1)} bps`,
      ageUs === null ? DASH : duration(ageUs),
    ]);
    const text = JSON.stringify(parts);
    if (text === this.#drawn) return;
    this.#drawn = text;
    this.#legend.replaceChildren(
      ...parts.map(([name, divergence, age]) => {
        const key = element("i", { class: "key" });
        key.style.background = this.#colourOf(name);
        return element("span", {}, key, element("b", {}, name), ` ${divergence} · ${age}`);
      }),
    );
  }
}

class Trend {
  #chart;
  #value;
  #format;
  #colourOf;
  #series = new Map();

  constructor(node, value, format, colourOf) {
    this.#value = value;
    this.#format = format;
    this.#colourOf = colourOf;
    this.#chart = createChart(node, { autoSize: true, ...this.#look() });
    node.chartData = () => Object.fromEntries([...this.#series].map(([name, series]) => [name, series.data()]));
    node.chartColours = () => Object.fromEntries([...this.#series].map(([name, series]) => [name, series.options().color]));
  }

  #look() {
    const look = chartLook();
    return {
      ...look,
      handleScroll: false,
      handleScale: false,
      grid: { ...look.grid, vertLines: { visible: false } },
      rightPriceScale: { ...look.rightPriceScale, scaleMargins: { top: 0.12, bottom: 0.04 }, borderVisible: false },
      timeScale: { ...look.timeScale, timeVisible: true, secondsVisible: true, borderVisible: false },
    };
  }

  restyle() {
    this.#chart.applyOptions(this.#look());
    for (const [name, series] of this.#series) series.applyOptions({ color: this.#colourOf(name) });
  }

  fill(samples) {
    for (const series of this.#series.values()) this.#chart.removeSeries(series);
    this.#series.clear();
    const names = [...new Set(samples.flatMap(({ sources }) => sources.map(({ name }) => name)))];
    for (const name of names) {
      this.#of(name).setData(samples.map(({ timeS, sources }) => this.#point(timeS, sources.find((one) => one.name === name))));
    }
    this.#chart.timeScale().fitContent();
  }

  add({ timeS, sources }) {
    for (const source of sources) this.#of(source.name).update(this.#point(timeS, source));
    this.#chart.timeScale().fitContent();
  }

  #of(name) {
    if (!this.#series.has(name)) {
      const options = {
        color: this.#colourOf(name),
        lineWidth: 2,
        priceLineVisible: false,
        lastValueVisible: false,
        crosshairMarkerRadius: 3,
        priceFormat: { type: "custom", minMove: 0.01, formatter: this.#format },
      };
      this.#series.set(name, this.#chart.addSeries(LineSeries, options));
    }
    return this.#series.get(name);
  }

  #point(time, source) {
    const value = source ? this.#value(source) : null;
    return value === null ? { time } : { time, value };
  }
}
