// A client of UDF that asks as TradingView's public adapter asks, and pages back as its charting library does:
//   config, then symbols; then history with {symbol, resolution, from, to, countback}, where `symbol` is the ticker that was
//   resolved. Prices are read with parseFloat, times become ms. "no_data" sets noData and hands nextTime on; anything that is
//   neither "ok" nor "no_data" is an error. The library then asks for what lies before the first bar it has, or up to
//   nextTime, and stops for good at noData without one.
// Prints one JSON object: what it has seen.
const [url, name, resolution, barsPerPage, startTo, mode] = process.argv.slice(2);
const perPage = Number(barsPerPage);
const PERIOD_S = { "1S": 1, 1: 60, 60: 3600, "1D": 86400, "1W": 604800, "1M": 2678400 };

async function send(path, params = {}) {
  const query = Object.entries(params).map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(value)}`);
  const response = await fetch(`${url}/${path}${query.length ? "?" : ""}${query.join("&")}`, { credentials: "same-origin" });
  return JSON.parse(await response.text());
}

function toBars(response) {
  if (response.s !== "ok" && response.s !== "no_data") throw new Error(response.errmsg);
  if (response.s === "no_data") return { bars: [], noData: true, nextTime: response.nextTime };
  const bars = response.t.map((time, at) => ({
    time: time * 1000,
    open: parseFloat(response.o[at]),
    high: parseFloat(response.h[at]),
    low: parseFloat(response.l[at]),
    close: parseFloat(response.c[at]),
    volume: parseFloat(response.v[at]),
  }));
  return { bars, noData: false };
}

const config = await send("config");
if (!config.supports_search && !config.supports_group_request) throw new Error("neither search nor groups: unusable");
const symbol = await send("symbols", { symbol: name });
if (symbol.s !== undefined) throw new Error(`unknown_symbol: ${symbol.errmsg}`);

const seen = { pages: 0, bars: 0, jumps: 0, slowestMs: 0, totalMs: 0, faults: [], first: null, last: null, closes: 0 };
const period = PERIOD_S[resolution];
let to = Number(startTo);
let oldest = Infinity;
const began = performance.now();
for (;;) {
  const params = { symbol: symbol.ticker, resolution, from: to - perPage * period, to };
  if (mode === "countback") params.countback = perPage;
  const asked = performance.now();
  const { bars, noData, nextTime } = toBars(await send("history", params));
  seen.slowestMs = Math.max(seen.slowestMs, performance.now() - asked);
  seen.pages += 1;
  if (noData) {
    if (nextTime === undefined) break;
    if (nextTime >= params.from) seen.faults.push(`nextTime ${nextTime} is not before ${params.from}`);
    seen.jumps += 1;
    to = nextTime + 1;
    continue;
  }
  bars.forEach((bar, at) => {
    if (at > 0 && bar.time <= bars[at - 1].time) seen.faults.push(`bar ${bar.time} is not after the one before it`);
    if (bar.time >= to * 1000) seen.faults.push(`bar ${bar.time} is not before ${to}`);
    if (!(bar.low <= bar.open && bar.open <= bar.high && bar.low <= bar.close && bar.close <= bar.high)) {
      seen.faults.push(`bar ${bar.time} has its low or high inside`);
    }
    seen.closes += bar.close;
  });
  if (bars.at(-1).time >= oldest) seen.faults.push(`page at ${to} repeats a bar`);
  oldest = bars[0].time;
  seen.bars += bars.length;
  seen.last ??= bars.at(-1).time;
  seen.first = bars[0].time;
  to = mode === "countback" ? bars[0].time / 1000 : params.from;
}
seen.totalMs = performance.now() - began;
process.stdout.write(JSON.stringify({ config, symbol, ...seen }) + "\n");
