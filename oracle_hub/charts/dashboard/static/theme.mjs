// Light and dark: as the system has it, or as somebody chose here. Charts are canvases, and are told their colours.

const KEY = "oracle-hub.theme";
const CHOICES = ["system", "light", "dark"];
const SIGNS = { system: "◐", light: "☀", dark: "☾" };
const SAYS = { system: "as the system has them", light: "light", dark: "dark" };

/** Make the button work; `changed()` is called whenever colours have changed, whoever changed them. */
export function followTheme(button, changed) {
  let choice = CHOICES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "system";
  const apply = () => {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.textContent = SIGNS[choice];
    button.setAttribute("aria-label", `Colours: ${SAYS[choice]}`);
    button.title = `Colours: ${SAYS[choice]}`;
    changed();
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    localStorage.setItem(KEY, choice);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choice === "system" && changed());
  apply();
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Options of a chart in the colours of now. */
export function chartLook() {
  const lines = { color: colour("grid") };
  return {
    layout: {
      background: { type: "solid", color: "transparent" },
      textColor: colour("muted"),
      fontFamily: getComputedStyle(document.body).fontFamily,
      fontSize: 11,
      attributionLogo: false, // the credit is in the page's footer
    },
    grid: { vertLines: lines, horzLines: lines },
    rightPriceScale: { borderColor: colour("border") },
    timeScale: { borderColor: colour("border") },
    crosshair: { mode: 0 },
  };
}
