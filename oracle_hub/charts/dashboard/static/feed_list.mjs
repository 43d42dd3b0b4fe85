// The list of feeds: a card each, of which one is chosen. Arrow keys move between them, as in every list of tabs.

import { DASH, duration, element, priceParts, setText } from "./format.mjs";

const STATES = { live: "live", degraded: "degraded", none: "no price" };

const LAZY_ABOVE = 60;
const FIND_ABOVE = 20;

/**
 * Draws into a tablist; `choose(feed)` is called when another feed is wanted, `seen(feed)` when a card comes into sight.
 * `find` is an input that narrows the list, there when it is long.
 */
export class FeedList {
  #list;
  #choose;
  #cards = new Map();
  #chosen = null;
  #hidden = new Set();
  #sight;
  #find;

  constructor(list, choose, seen, find = null) {
    this.#list = list;
    this.#find = find;
    find?.addEventListener("input", () => this.#narrow());
    this.#choose = choose;
    this.#sight = new IntersectionObserver((changes) => this.#onSight(changes, seen), { rootMargin: "300px" });
    list.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Show exactly these feeds. */
  show(names) {
    const wanted = new Set(names);
    for (const [name, card] of this.#cards) {
      if (wanted.has(name)) continue;
      card.root.remove();
      this.#sight.unobserve(card.root);
      this.#cards.delete(name);
      this.#hidden.delete(name);
    }
    for (const name of names) {
      if (!this.#cards.has(name)) this.#cards.set(name, this.#card(name));
      this.#list.append(this.#cards.get(name).root);
    }
    this.chosen = this.#chosen;
    if (this.#find) this.#find.hidden = names.length <= FIND_ABOVE;
    this.#narrow();
  }

  /** Leave those whose names hold what was typed. */
  #narrow() {
    const typed = this.#find && !this.#find.hidden ? this.#find.value.trim().toLowerCase() : "";
    for (const [name, { root }] of this.#cards) root.hidden = !name.toLowerCase().includes(typed);
  }

  /** Whether a card is drawn: of very many, only those that are in sight. The others show no price at all. */
  sees(name) {
    return !this.#hidden.has(name);
  }

  #onSight(changes, seen) {
    for (const { target, isIntersecting } of changes) {
      const name = target.dataset.feed;
      if (isIntersecting || this.#cards.size <= LAZY_ABOVE) {
        if (this.#hidden.delete(name)) seen(name);
      } else if (this.#cards.has(name)) {
        this.#hidden.add(name);
        drawPrice(this.#cards.get(name).price, null);
      }
    }
  }

  set chosen(feed) {
    this.#chosen = feed;
    for (const [name, { root }] of this.#cards) {
      root.setAttribute("aria-selected", String(name === feed));
      root.tabIndex = name === feed ? 0 : -1;
    }
  }

  /** Draw one feed as it is now. */
  draw(view, nowUs) {
    const card = this.#cards.get(view.feed);
    if (!card) return;
    const { price } = view;
    card.root.dataset.state = view.state;
    setText(card.state, STATES[view.state]);
    drawPrice(card.price, price);
    setText(card.origin, price ? `${price.source} · ${price.rule}` : view.reason.replaceAll("_", " "));
    setText(card.age, price && nowUs !== null ? `${duration(nowUs - price.publishTimeUs)} old` : "");
    drawLease(card.lease, card.bar, price);
  }

  #card(name) {
    const made = {
      state: element("span", { class: "chip" }),
      price: element("span", { class: "price" }, DASH),
      origin: element("span", { class: "quiet" }),
      age: element("span", { class: "quiet" }),
      lease: element("span", { class: "quiet lease" }),
      bar: element("i"),
    };
    made.root = element(
      "button",
      { type: "button", role: "tab", class: "card", "data-feed": name, "aria-controls": "detail", "aria-selected": "false" },
      element("span", { class: "line" }, element("b", {}, name), made.state),
      element("span", { class: "line" }, made.price),
      element("span", { class: "line small" }, made.origin, made.age, made.lease),
      element("span", { class: "meter", "aria-hidden": "true" }, made.bar),
    );
    made.root.addEventListener("click", () => this.#choose(name));
    this.#sight.observe(made.root);
    return made;
  }

  #onKey(event) {
    const names = [...this.#cards].filter(([, { root }]) => !root.hidden).map(([name]) => name);
    const at = names.indexOf(document.activeElement?.dataset.feed);
    const steps = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 };
    if (at < 0 || !(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const name = names[(steps[event.key] + names.length) % names.length];
    this.#choose(name);
    this.#cards.get(name).root.focus();
  }
}

/** A price with all its digits, the last ones small; or a dash. */
export function drawPrice(node, price) {
  const text = price === null ? DASH : priceParts(price.mantissa, price.expo).join("");
  if (node.textContent === text) return;
  const before = node.dataset.mantissa;
  if (price === null) {
    node.replaceChildren(DASH);
    delete node.dataset.mantissa;
    return;
  }
  const [head, tail] = priceParts(price.mantissa, price.expo);
  node.replaceChildren(head, element("small", {}, tail));
  node.dataset.mantissa = String(price.mantissa);
  if (before !== undefined) flash(node, BigInt(before) < price.mantissa ? "up" : "down");
}

/** A short tint in the direction of the move, for those who do not mind things that move. */
function flash(node, direction) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const colour = getComputedStyle(node).getPropertyValue(direction === "up" ? "--live" : "--none");
  node.animate([{ color: colour }, {}], { duration: 700, easing: "ease-out" });
}

/** What is left of a lease, counting down. */
export function drawLease(text, bar, price) {
  if (price === null) {
    setText(text, "");
    bar.style.width = "0";
    return;
  }
  const left = price.leaseLeftUs;
  setText(text, left === null ? "no end" : duration(left));
  const whole = left === null ? 1 : Math.max(1, price.validUntilUs - price.decidedUs);
  bar.style.width = left === null ? "100%" : `${Math.min(100, (100 * left) / whole).toFixed(1)}%`;
  bar.dataset.short = String(left !== null && left < 1_000_000);
}
