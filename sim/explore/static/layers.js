// The layers as one bar; a boundary between two devices is dragged, or moved with the arrow keys.

import { byId, el, show } from "./dom.js";
import { colourClass, isSplit } from "./map.js";
import { change } from "./state.js";

let drag = null;

export function drawLayers(state) {
  const place = byId("layers");
  if (!state.answer) return;
  const rows = holders(state.answer);
  if (drag && drag.rows.length === rows.length) return;
  const bar = el("div", { class: "layers", role: "group", "aria-label": "Layers of each device; move a boundary with the arrow keys" });
  bar.append(...pieces(state.answer, rows));
  const hint = bar.querySelector(".edge") ? "Drag a boundary, or focus it and use the arrow keys (Page Up and Down: five layers)." : "";
  show(place, el("h3", {}, `${state.answer.layers} layers`), bar, el("p", { class: "muted small" }, hint));
}

function holders(answer) {
  const byName = Object.fromEntries(answer.prediction.placement.map((row) => [row.device, row]));
  return answer.ring.map((name, at) => ({ name, at, layers: byName[name].layers })).filter((row) => row.layers !== undefined);
}

function pieces(answer, rows) {
  const splits = isSplit(answer);
  return rows.flatMap((row, at) => {
    const part = el("span", { class: `part ${colourClass(row.at)}`, title: `${row.name}: ${row.layers} layers` }, row.layers ? `${row.name} ${splits ? `1/${rows.length}` : row.layers}` : "");
    part.style.flex = `${Math.max(row.layers, 0.01)} 1 0`;
    return at + 1 < rows.length && !splits ? [part, edge(rows, at)] : [part];
  });
}

function edge(rows, at) {
  const [left, right] = [rows[at], rows[at + 1]];
  const both = left.layers + right.layers;
  return el("button", {
    type: "button", class: "edge", role: "slider", "data-key": `edge ${left.name}`, "aria-orientation": "horizontal",
    "aria-label": `Boundary between ${left.name} and ${right.name}: layers of ${left.name}`,
    "aria-valuemin": 0, "aria-valuemax": both, "aria-valuenow": left.layers, "aria-valuetext": `${left.name} ${left.layers}, ${right.name} ${right.layers}`,
    onkeydown: (event) => press(event, rows, at), onpointerdown: (event) => begin(event, rows, at),
  });
}

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5, Home: -1000, End: 1000 };

function press(event, rows, at) {
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  put(moved(rows, at, rows[at].layers + step));
}

function moved(rows, at, wanted) {
  const both = rows[at].layers + rows[at + 1].layers;
  const layers = Math.min(both, Math.max(0, Math.round(wanted)));
  return rows.map((row, index) => (index === at ? { ...row, layers } : index === at + 1 ? { ...row, layers: both - layers } : row));
}

function put(rows) {
  change({ path: ["placement"], value: { layers: Object.fromEntries(rows.map((row) => [row.name, row.layers])) } });
}

function begin(event, rows, at) {
  const bar = event.currentTarget.parentNode;
  const total = rows.reduce((sum, row) => sum + row.layers, 0);
  drag = { rows, at, bar, from: event.clientX, perLayer: bar.clientWidth / total, last: rows[at].layers };
  event.currentTarget.setPointerCapture(event.pointerId);
  event.currentTarget.addEventListener("pointermove", move);
  event.currentTarget.addEventListener("pointerup", end, { once: true });
  event.currentTarget.addEventListener("pointercancel", end, { once: true });
}

function move(event) {
  if (!drag) return;
  const now = moved(drag.rows, drag.at, drag.rows[drag.at].layers + (event.clientX - drag.from) / drag.perLayer);
  if (now[drag.at].layers === drag.last) return;
  drag.last = now[drag.at].layers;
  const parts = [...drag.bar.querySelectorAll(".part")];
  parts.forEach((part, index) => {
    part.style.flex = `${Math.max(now[index].layers, 0.01)} 1 0`;
    part.textContent = now[index].layers ? `${now[index].name} ${now[index].layers}` : "";
  });
  put(now);
}

function end(event) {
  event.currentTarget.removeEventListener("pointermove", move);
  drag = null;
}
