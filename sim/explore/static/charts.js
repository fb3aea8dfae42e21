// Charts from plain rows; each tells in words what it shows, for who does not see it.

import { el, number, svg } from "./dom.js";

export const COLOURS = ["--blue", "--orange", "--green", "--pink", "--sky", "--red", "--grey"].map((name) => `var(${name})`);
const KIND = { compute: 0, head: 4, hop: 5, queue: 1, prefill: 2, phase: 3 };
export const colourOfKind = (kind) => COLOURS[KIND[kind] ?? 6];
const FRAME = { height: 250, left: 52, right: 14, top: 10, bottom: 40 };
const WIDE = 560;

// In units of the screen where that is narrow, so that letters keep their size.
export const chartWidth = () => Math.min(WIDE, Math.max(270, window.innerWidth - 56));

export function legend(entries) {
  return el("ul", { class: "legend" }, entries.map(([text, colour]) => el("li", {}, swatch(colour), text)));
}

function swatch(colour) {
  const node = el("span", { class: "swatch", "aria-hidden": "true" });
  node.style.background = colour;
  return node;
}

// Round steps for an axis from low to high.
export function ticks(low, high, count = 5) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) || power;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(Math.abs(at) < step * 1e-6 ? 0 : at);
  return found;
}

export function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
    found.push(...[1, 2, 5].map((one) => one * 10 ** power).filter((one) => one >= low * 0.999 && one <= high * 1.001));
  return found;
}

export function scale(low, high, from, to, isLog = false) {
  const bend = isLog ? Math.log : (value) => value;
  const span = bend(high) - bend(low) || 1;
  return (value) => from + ((bend(value) - bend(low)) / span) * (to - from);
}

// Axes and the two scales of a chart of the usual size.
export function frame({ x, y, xTitle, yTitle, isLog = false, label, height = FRAME.height, xTicks = null }) {
  const size = { ...FRAME, height, width: chartWidth() };
  const place = {
    x: scale(x[0], x[1], size.left, size.width - size.right, isLog),
    y: scale(y[0], y[1], size.height - size.bottom, size.top),
  };
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": label });
  chart.append(...horizontals(place, y, size), ...verticals(place, x, size, isLog, xTicks), ...titles(size, xTitle, yTitle));
  return { chart, ...place, size };
}

function horizontals(place, y, size) {
  return ticks(y[0], y[1]).flatMap((value) => [
    svg("line", { class: "grid", x1: size.left, x2: size.width - size.right, y1: place.y(value), y2: place.y(value) }),
    svg("text", { class: "quiet", x: size.left - 7, y: place.y(value) + 4, "text-anchor": "end" }, number(value)),
  ]);
}

function verticals(place, x, size, isLog, xTicks) {
  const base = size.height - size.bottom;
  const values = xTicks || (isLog ? logTicks(x[0], x[1]) : ticks(x[0], x[1], size.width / 90));
  const axis = svg("line", { class: "axis", x1: size.left, x2: size.width - size.right, y1: base, y2: base });
  return [axis, ...values.map((one) => {
    const [value, text] = Array.isArray(one) ? one : [one, number(one)];
    return svg("text", { class: "quiet", x: place.x(value), y: base + 17, "text-anchor": "middle" }, text);
  })];
}

function titles(size, xTitle, yTitle) {
  const middle = (size.height - size.bottom + size.top) / 2;
  return [
    svg("text", { x: (size.left + size.width - size.right) / 2, y: size.height - 4, "text-anchor": "middle" }, xTitle || ""),
    svg("text", { x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, yTitle || ""),
  ];
}

export function path(points) {
  return points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

// A curve with its band: rows of {x, low, median, high}.
export function band({ chart, x, y }, rows, colour = COLOURS[0], { dots = false } = {}) {
  const up = rows.map((row) => [x(row.x), y(row.high)]);
  const down = rows.map((row) => [x(row.x), y(row.low)]).reverse();
  chart.append(svg("path", { d: `${path([...up, ...down])}Z`, fill: colour, opacity: 0.22 }));
  chart.append(svg("path", { d: path(rows.map((row) => [x(row.x), y(row.median)])), fill: "none", stroke: colour, "stroke-width": 2.5 }));
  if (dots) rows.forEach((row) => chart.append(dot(x(row.x), y(row.median), colour, `${number(row.x)}: ${number(row.median)}`)));
}

export function dot(x, y, colour, title, radius = 3.5) {
  return svg("circle", { cx: x, cy: y, r: radius, fill: colour }, title ? svg("title", {}, title) : null);
}

// The interval of a figure on an axis from nought; an older one lies behind it as a ghost.
export function strip(now, before, unit, measured = 0) {
  const high = 1.12 * Math.max(now.p95, before ? before.p95 : 0, measured) || 1;
  const width = chartWidth();
  const x = scale(0, high, 8, width - 8);
  const words = `${number(now.median)} ${unit}, from ${number(now.p05)} to ${number(now.p95)} in nine of ten cases`;
  const chart = svg("svg", { class: "chart strip", viewBox: `0 0 ${width} 66`, role: "img", "aria-label": words });
  ticks(0, high, width / 90).forEach((value) => chart.append(svg("text", { class: "quiet", x: x(value), y: 61, "text-anchor": "middle" }, number(value))));
  chart.append(svg("line", { class: "axis", x1: 8, x2: width - 8, y1: 45, y2: 45 }));
  if (before) chart.append(...marks(before, x, 31, 9, "var(--grey)", "before"));
  chart.append(...marks(now, x, before ? 14 : 20, 14, COLOURS[0], "now"));
  if (measured) chart.append(dot(x(measured), 20, COLOURS[5], `measured ${number(measured)}`, 6));
  return chart;
}

function marks(figure, x, y, height, colour, word) {
  const [low, middle, high] = [figure.p05, figure.median, figure.p95].map(x);
  return [
    svg("rect", { x: low, y: y - height / 2, width: Math.max(1, high - low), height, rx: 4, fill: colour, opacity: 0.35 }, svg("title", {}, word)),
    svg("line", { x1: middle, x2: middle, y1: y - height / 2 - 3, y2: y + height / 2 + 3, stroke: colour, "stroke-width": 3.5 }),
  ];
}

// Bars from nought, one a row: {name, parts: [[length, colour, title]], text}.
export function bars(rows, label) {
  const most = Math.max(...rows.map((row) => row.parts.reduce((sum, part) => sum + part[0], 0)), 1e-12);
  const width = chartWidth();
  const room = { names: Math.min(176, width / 2.6), width };
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${24 * rows.length + 4}`, role: "img", "aria-label": label });
  rows.forEach((row, at) => chart.append(...bar(row, 24 * at, (width - room.names - 60) / most, room.names)));
  return chart;
}

function bar(row, top, perUnit, names) {
  let left = names;
  const parts = row.parts.map(([length, colour, title]) => {
    const node = svg("rect", { x: left, y: top + 4, width: Math.max(0.5, length * perUnit), height: 15, fill: colour }, svg("title", {}, title));
    left += length * perUnit;
    return node;
  });
  const fit = Math.floor(names / 6.6);
  const name = row.name.length > fit ? `${row.name.slice(0, fit - 1)}…` : row.name;
  return [svg("text", { x: names - 8, y: top + 16, "text-anchor": "end" }, name), ...parts, svg("text", { class: "quiet", x: left + 6, y: top + 16 }, row.text)];
}
