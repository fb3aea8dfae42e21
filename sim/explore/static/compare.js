// Up to four variants side by side on the same random numbers.

import { ask } from "./api.js";
import { chartWidth, COLOURS, scale, ticks } from "./charts.js";
import { el, interval, number, percent, show, svg, table } from "./dom.js";
import { load, state } from "./state.js";
import { openTab } from "./tabs.js";
import { view } from "./view.js";

const MOST = 4;
const kept = [];

export function buildCompare(place) {
  const list = el("ul", { class: "plain" });
  const keep = el("button", { type: "button", onclick: () => add(list) }, "Keep the scenario as it is now");
  const made = view(place, {
    title: "Compare", about: "Keep up to four variants; the first is the reference. All meet the same devices, networks and noise. One alone is held against the other strategy of its engine: pipeline against tensor.",
    controls: [keep], button: "Compare", run: () => answer(),
  });
  made.form.after(list);
  add(list);
}

function add(list) {
  if (kept.length < MOST && state.yaml && !state.error) kept.push({ yaml: state.yaml, name: nameOf() });
  drawKept(list);
}

function nameOf() {
  const name = state.written.name || "scenario";
  // as the server names those of one name
  return kept.some((one) => one.name === name) ? `${name}_${kept.length + 1}` : name;
}

function drawKept(list) {
  show(list, kept.map((one, at) => el("li", { class: "row" }, el("strong", {}, one.name), el("span", { class: "muted" }, describe(one)),
    el("button", { type: "button", class: "link", onclick: () => open(one) }, "Open"),
    el("button", { type: "button", class: "link", "aria-label": `Leave ${one.name} out`, onclick: () => drop(list, at) }, "Leave out"))));
}

function describe(one) {
  const rate = state.answer && one.yaml === state.yaml ? `${interval(state.answer.prediction.tokens_per_s)} tokens/s` : "";
  return [`variant ${kept.indexOf(one) + 1}`, rate].filter(Boolean).join(", ");
}

function open(one) {
  load(one.yaml);
  openTab("explore");
}

function drop(list, at) {
  kept.splice(at, 1);
  drawKept(list);
}

async function answer() {
  const found = await ask("compare", { scenarios: kept.map((one) => one.yaml) });
  const rows = found.ranking.map((row, at) => [String(at + 1), row.scenario, `${interval(row.tokens_per_s)}`, row.scenario === found.reference ? "reference" : interval(row.difference), row.scenario === found.reference ? "–" : percent(row.probability_better)]);
  return [picture(found.ranking), table(["Rank", "Scenario", "tokens/s", `Difference to ${found.reference}`, "Faster in"], rows, "Ranking, median and 90 % interval"), el("ul", {}, found.verdicts.map((text) => el("li", {}, text)))];
}

function picture(ranking) {
  const width = chartWidth();
  const names = width / 3.4;
  const high = 1.1 * Math.max(...ranking.map((row) => row.tokens_per_s.p95));
  const x = scale(0, high, names, width - 20);
  const base = 34 * ranking.length + 6;
  const chart = svg("svg", { class: "chart strip", viewBox: `0 0 ${width} ${base + 24}`, role: "img", "aria-label": ranking.map((row) => `${row.scenario} ${number(row.tokens_per_s.median)}`).join(", ") });
  ranking.forEach((row, at) => chart.append(...whisker(row, 34 * at + 18, x, COLOURS[at], names)));
  chart.append(svg("line", { class: "axis", x1: names, x2: width - 20, y1: base, y2: base }), ...ticks(0, high).map((value) => svg("text", { class: "quiet", x: x(value), y: base + 17, "text-anchor": "middle" }, number(value))));
  return chart;
}

function whisker(row, y, x, colour, names) {
  const { p05, median, p95 } = row.tokens_per_s;
  return [svg("text", { x: names - 8, y: y + 4, "text-anchor": "end" }, row.scenario.slice(0, 24)), svg("rect", { x: x(p05), y: y - 7, width: Math.max(1, x(p95) - x(p05)), height: 14, rx: 4, fill: colour, opacity: 0.35 }), svg("line", { x1: x(median), x2: x(median), y1: y - 10, y2: y + 10, stroke: colour, "stroke-width": 3.5 })];
}
