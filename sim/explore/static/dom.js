// Elements and words: everything on the page is made here, from text, never from markup.

const SVG = "http://www.w3.org/2000/svg";

export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value") node.value = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

// New content without losing where the keyboard is: the focused element is found again by its key.
export function show(place, ...children) {
  const old = place.contains(document.activeElement) ? document.activeElement : null;
  const chosen = old?.type === "text" ? [old.selectionStart, old.selectionEnd] : null;
  place.replaceChildren(...children.flat(3).filter(Boolean));
  if (!old?.dataset.key) return;
  const now = place.querySelector(`[data-key="${CSS.escape(old.dataset.key)}"]`);
  now?.focus({ preventScroll: true });
  // what was marked to be typed over stays marked
  if (chosen && now?.type === "text") now.setSelectionRange(...chosen);
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const text = Number(value.toPrecision(digits));
  return Math.abs(text) >= 1000 ? Math.round(text).toLocaleString("en") : String(text);
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 90) return `${number(value / 60)} min`;
  if (value >= 1) return `${number(value)} s`;
  return value >= 1e-3 ? `${number(value * 1e3)} ms` : `${number(value * 1e6)} µs`;
}

export const gigabytes = (bytes) => `${number(bytes / 1e9)} GB`;

export function rate(bytesPerSecond) {
  const megabits = (bytesPerSecond * 8) / 1e6;
  return megabits >= 1000 ? `${number(megabits / 1000)} Gbit/s` : `${number(megabits)} Mbit/s`;
}

export const percent = (share) => (share > 0 && share < 0.0095 ? `${(100 * share).toFixed(1)} %` : `${Math.round(100 * share)} %`);

// "5.1 [4.6, 5.5]": digits end where the interval's do, as in the command line.
export function interval(estimate) {
  if (!estimate) return "–";
  if (estimate.n === 1) return number(estimate.median);
  const width = estimate.p95 - estimate.p05 || Math.abs(estimate.median) / 100;
  const places = width > 0 ? Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(width)))) : 1;
  const [middle, low, high] = [estimate.median, estimate.p05, estimate.p95].map((one) => one.toFixed(places));
  return `${middle} [${low}, ${high}]`;
}

export function say(text) {
  byId("status").textContent = text;
}

export function table(heads, rows, caption) {
  const head = el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)));
  const body = rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell))));
  const label = caption ? el("caption", {}, caption) : null;
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || heads.join(", ") }, el("table", {}, label, el("thead", {}, head), el("tbody", {}, body)));
}
