// Numbers and times as text. Prices stay integers until they are text: what is shown is what was sent, digit for digit.

export const DASH = "—";

/** 14512345678n at -8 as ["145.1234", "5678"]: what the eye needs first, and the rest. Together they are exact. */
export function priceParts(mantissa, expo) {
  const digits = mantissa.toString().padStart(1 - expo, "0");
  if (expo >= 0) return [grouped(digits + "0".repeat(expo)), ""];
  const whole = digits.slice(0, expo);
  const fraction = digits.slice(expo);
  const shown = whole.length >= 4 ? 2 : 4;
  return [`${grouped(whole)}.${fraction.slice(0, shown)}`, fraction.slice(shown)];
}

function grouped(digits) {
  return digits.replace(/\B(?=(\d{3})+$)/g, ",");
}

/** For drawing only. */
export function approximate(mantissa, expo) {
  return Number(mantissa) * 10 ** expo;
}

/** How many decimals an axis needs for prices of this size. */
export function decimalsFor(price, expo) {
  const wanted = price >= 1000 ? 2 : price >= 10 ? 3 : price >= 1 ? 5 : 6;
  return Math.max(0, Math.min(wanted, -expo));
}

/** A duration: 0.4 s, 12.3 s, 3 min, 2 h, 5 d. */
export function duration(us) {
  const seconds = Math.max(0, us) / 1e6;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  if (seconds < 6_000) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** A moment in UTC, as everything here is: its time if that is today, its day if that is midnight, else both. */
export function moment(us, nowMs = Date.now()) {
  const [day, time] = new Date(us / 1000).toISOString().slice(0, 19).split("T");
  if (time === "00:00:00") return day;
  return day === new Date(nowMs).toISOString().slice(0, 10) ? time : `${day} ${time}`;
}

export function words(code) {
  return String(code).replaceAll("_", " ");
}

/** "30 min" for the code of a resolution: minutes without a letter. */
export function resolutionName(code) {
  if (/S$/.test(code)) return code.toLowerCase();
  if (/[DWM]$/.test(code)) return code;
  const minutes = Number(code);
  return minutes < 60 ? `${minutes}m` : `${minutes / 60}h`;
}

/** An element with text and attributes. No markup is ever made of what was received. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Write only what differs, so that the page is not laid out for nothing. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
