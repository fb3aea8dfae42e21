// The devices as cards in the order of the ring, and the messages between them as lines behind.

import { byId, el, gigabytes, percent, rate, seconds, show, svg } from "./dom.js";
import { select } from "./state.js";

const CARD = { width: 204, height: 150, gapX: 64, gapY: 74, edge: 24 };
export const colourClass = (at) => `c${at % 7}`;

export function drawMap(state) {
  if (!state.answer) return;
  const place = byId("map");
  const rows = ordered(state.answer);
  const width = Math.max(place.clientWidth || 700, CARD.width + 2 * CARD.edge);
  const spots = laidOut(rows.length, width);
  const chart = svg("svg", { "aria-hidden": "true" }, arrowHead());
  chart.append(...lines(state, rows, spots));
  const cards = rows.map((row, at) => card(state, row, at, spots[at]));
  show(place, chart, cards);
  place.className = "map";
  place.style.height = `${Math.max(...spots.map((spot) => spot.y)) + CARD.height + CARD.edge}px`;
  place.classList.toggle("stale", Boolean(state.error));
}

function choose(name) {
  select(name);
  // one column: the form is far below
  if (window.innerWidth <= 1080) byId("h-dev").scrollIntoView();
}

// In the order in which a token goes round; those without layers come last.
export function ordered(answer) {
  const byName = Object.fromEntries(answer.prediction.placement.map((row) => [row.device, row]));
  const inRing = answer.ring.map((name) => byName[name]).filter(Boolean);
  return [...inRing, ...answer.prediction.placement.filter((row) => !answer.ring.includes(row.device))];
}

// Two rows make a ring: there along the upper one, back along the lower one; more rows wind like a snake.
function laidOut(count, width) {
  const fit = Math.max(1, Math.floor((width - 2 * CARD.edge + CARD.gapX) / (CARD.width + CARD.gapX)));
  const columns = Math.min(fit, count > 2 ? Math.ceil(count / 2) : count);
  return Array.from({ length: count }, (_, at) => {
    const row = Math.floor(at / columns);
    const inRow = Math.min(columns, count - row * columns);
    const column = row % 2 ? columns - 1 - (at % columns) - (columns - inRow) / 2 : at % columns;
    return { x: columnLeft(column, columns, width), y: CARD.edge + row * (CARD.height + CARD.gapY) };
  });
}

function columnLeft(column, columns, width) {
  const total = columns * CARD.width;
  const gap = columns > 1 ? Math.min(160, (width - 2 * CARD.edge - total) / (columns - 1)) : 0;
  const left = (width - total - gap * (columns - 1)) / 2;
  return left + column * (CARD.width + gap);
}

function card(state, row, at, spot) {
  const link = state.answer.links[row.device];
  const isChosen = state.selected === row.device;
  const label = `${row.device}, ${row.kind || "no kind"}: ${holds(row, state.answer)}, ${row.layers ? `${seconds(row.stage_s)} a token, ` : ""}memory ${gigabytes(row.memory_bytes)} of ${gigabytes(row.cap_bytes)}`;
  const node = el("button", { type: "button", class: `device${row.layers ? "" : " idle"}`, "aria-pressed": String(isChosen), "aria-label": `${label}. Change it`, "data-key": `device ${row.device}`, onclick: () => choose(row.device) },
    el("span", { class: "name" }, el("span", {}, row.device), el("span", { class: `swatch ${colourClass(at)}` })),
    el("span", { class: "line" }, row.kind || "own device"),
    el("span", { class: "holds" }, holds(row, state.answer), row.layers ? ` · ${seconds(row.stage_s)}` : ""),
    memory(row),
    el("span", { class: "line" }, link ? `${link.kind || "link"}, ${rate(link.bytes_per_s)}` : ""),
    el("span", { class: "line" }, link ? `round trip ${seconds(link.round_trip_s)}` : ""));
  Object.assign(node.style, { left: `${spot.x}px`, top: `${spot.y}px` });
  return node;
}

// Tensor parallelism gives each device a part of every layer.
export function isSplit(answer) {
  const rows = answer.prediction.placement.filter((row) => answer.ring.includes(row.device));
  return rows.length > 1 && rows.every((row) => row.layers === answer.layers);
}

function holds(row, answer) {
  if (isSplit(answer) && row.layers) return `1/${answer.ring.length} of ${row.layers} layers`;
  return row.layers ? `layers ${row.first_layer}–${row.last_layer} (${row.layers})` : "no layers";
}

function memory(row) {
  const share = row.memory_bytes / Math.max(row.cap_bytes, 1);
  const inside = el("i", {});
  inside.style.width = `${Math.min(100, 100 * share)}%`;
  return el("span", { class: "bar-box" },
    el("span", { class: `bar${share > 1 ? " over" : ""}`, "aria-hidden": "true" }, inside),
    el("span", { class: "line" }, `${gigabytes(row.memory_bytes)} of ${gigabytes(row.cap_bytes)}${share > 1 ? ", pages" : ""}`));
}

function arrowHead() {
  const mark = svg("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto-start-reverse" });
  mark.append(svg("path", { d: "M0 0L8 4L0 8Z", fill: "var(--muted)" }));
  return svg("defs", {}, mark);
}

// Messages that were simulated where they are known, else the ring itself.
function lines(state, rows, spots) {
  const at = Object.fromEntries(rows.map((row, index) => [row.device, index]));
  const hops = hopsOf(state.limits, at);
  const pairs = hops.length ? hops : state.answer.ring.map((name, index, ring) => ({ from: name, to: ring[(index + 1) % ring.length] }));
  const known = pairs.filter((hop) => hop.from in at && hop.to in at && hop.from !== hop.to);
  return known.flatMap((hop) => line(spots[at[hop.from]], spots[at[hop.to]], hop));
}

function hopsOf(limits, at) {
  const sums = new Map();
  for (const part of limits?.parts || []) {
    const [from, to] = part.where.split(" -> ");
    if (!to || !(from in at) || !(to in at)) continue;
    // there and back are one line
    const key = [from, to].sort().join(" -> ");
    const sum = sums.get(key) || { from, to, seconds: 0, share: 0, isBoth: false };
    Object.assign(sum, { seconds: sum.seconds + part.seconds_per_token, share: sum.share + part.share, isBoth: sum.isBoth || sum.from !== from });
    sums.set(key, sum);
  }
  return [...sums.values()].sort((one, other) => other.share - one.share).slice(0, 24);
}

function line(one, other, hop) {
  const from = middle(one);
  const to = middle(other);
  const [start, end] = [edge(from, to), edge(to, from)];
  const width = 1.5 + 14 * Math.min(0.4, hop.share || 0);
  const stroke = svg("line", { x1: start.x, y1: start.y, x2: end.x, y2: end.y, stroke: "var(--muted)", "stroke-width": width, "marker-end": "url(#head)", "marker-start": hop.isBoth ? "url(#head)" : null });
  return hop.seconds ? [stroke, ...hopLabel(start, end, hop)] : [stroke];
}

function hopLabel(start, end, hop) {
  const [x, y] = [(start.x + end.x) / 2, (start.y + end.y) / 2];
  const text = [seconds(Number(hop.seconds.toPrecision(3))), percent(hop.share)];
  const isFlat = Math.abs(end.y - start.y) < 20;
  const shift = isFlat ? -8 : 4;
  return text.slice(0, isFlat ? 2 : 1).map((word, row) =>
    svg("text", { x: x + (isFlat ? 0 : 8), y: y + shift + row * 22, "text-anchor": isFlat ? "middle" : "start", fill: "var(--muted)", "font-size": 12 }, word));
}

function middle(spot) {
  return { x: spot.x + CARD.width / 2, y: spot.y + CARD.height / 2 };
}

// Where the line between two middles leaves the card.
function edge(from, to) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const share = Math.min((CARD.width / 2 + 5) / Math.abs(dx || 1e-9), (CARD.height / 2 + 5) / Math.abs(dy || 1e-9));
  return { x: from.x + dx * share, y: from.y + dy * share };
}
