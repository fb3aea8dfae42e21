// What became of predictions: reliability, hits and misses with their causes, and one's own measurement laid over.

import { ask } from "./api.js";
import { COLOURS, dot, frame, legend } from "./charts.js";
import { distribution } from "./limits.js";
import { el, interval, percent, seconds, svg, table } from "./dom.js";
import { state } from "./state.js";
import { control, view } from "./view.js";

export function buildTruth(place) {
  const made = view(place, {
    title: "Truth", about: "Every prediction below the results folder that met its measurement; each measurement counts once.",
    button: "Read the ledgers again", run: async () => drawn(await ask("truth")),
  });
  overlay(place);
  made.again();
}

function drawn(found) {
  const rows = found.grounds.map((one) => [one.ground, String(one.measurements), percent(one.median_error), percent(one.p90_error), ...[50, 80, 90].map((level) => held(one, level))]);
  const misses = found.misses.map((one) => [one.ground, one.name, `${one.error > 0 ? "+" : ""}${Math.round(100 * one.error)} %`, one.cause || "not known"]);
  return [el("div", { class: "pair" }, reliability(found.all), errors(found)),
    table(["Ground", "Measurements", "Median error", "90 % within", "In 50 %", "In 80 %", "In 90 %"], rows, "By ground"),
    el("h2", {}, "Largest misses of 90 % intervals, with causes"), table(["Ground", "What", "Predicted against measured", "Cause"], misses, "Misses")];
}

function held(standing, level) {
  const found = standing.coverage.find((one) => one.level === level);
  return found ? percent(found.held) : "–";
}

function reliability(all) {
  const plot = frame({ x: [40, 100], y: [40, 100], xTitle: "interval (%)", yTitle: "held the measurement (%)", label: all.coverage.map((one) => `${one.level} % intervals held ${percent(one.held)}`).join(", ") });
  plot.chart.append(svg("line", { x1: plot.x(40), y1: plot.y(40), x2: plot.x(100), y2: plot.y(100), stroke: "var(--muted)", "stroke-dasharray": "5 4" }));
  for (const one of all.coverage) {
    plot.chart.append(svg("line", { x1: plot.x(one.level), x2: plot.x(one.level), y1: plot.y(100 * one.low), y2: plot.y(100 * one.high), stroke: COLOURS[0], "stroke-width": 8, opacity: 0.25 }));
    plot.chart.append(dot(plot.x(one.level), plot.y(100 * one.held), COLOURS[0], `${one.level} %: ${percent(one.held)}`, 5));
  }
  return el("div", {}, el("h2", {}, "Reliability"), plot.chart, el("p", { class: "muted small" }, "On the dashed line intervals hold as often as they say; bars: where that share lies by chance when all is right."));
}

// Predicted over measured, one point a prediction, a row a ground.
function errors(found) {
  const grounds = found.grounds.map((one) => one.ground);
  const plot = frame({ x: [0.4, 2.5], y: [0, grounds.length], isLog: true, xTicks: [[0.5, "÷2"], [0.8, "−20 %"], [1, "equal"], [1.25, "+25 %"], [2, "×2"]], xTitle: "predicted / measured", yTitle: "", label: "Predicted against measured by ground; the figures are in the table below", height: 60 + 26 * grounds.length });
  plot.chart.querySelectorAll(".grid, text[text-anchor=end]").forEach((node) => node.remove());
  plot.chart.append(svg("line", { x1: plot.x(1), x2: plot.x(1), y1: plot.size.top, y2: plot.size.height - plot.size.bottom, stroke: "var(--muted)", "stroke-dasharray": "5 4" }));
  for (const one of found.trials) {
    const at = grounds.indexOf(one.ground) + 0.5 + spread(one.name);
    plot.chart.append(dot(plot.x(Math.min(2.5, Math.max(0.4, 1 + one.error))), plot.y(grounds.length - at), one.held === false ? COLOURS[5] : COLOURS[0], null, 2.4));
  }
  grounds.forEach((name, at) => plot.chart.append(svg("text", { class: "quiet halo", x: plot.size.left, y: plot.y(grounds.length - at) + 11 }, name)));
  return el("div", {}, el("h2", {}, "Predicted against measured"), plot.chart, legend([["inside its 90 % interval", COLOURS[0]], ["outside", COLOURS[5]]]));
}

// Points of a row lie apart by their names, the same each time.
function spread(name) {
  const sum = [...name].reduce((total, letter) => (total * 31 + letter.charCodeAt(0)) % 1000, 7);
  return (sum / 1000 - 0.5) * 0.5;
}

function overlay(place) {
  const file = el("input", { type: "file", accept: ".jsonl" });
  view(place, {
    title: "Your own measurement", about: "A file of `sim live run` or `sim live openai`, laid over the prediction of the scenario in `Explore`. It stays on this machine.",
    controls: [control("Measurement (.jsonl)", file)], button: "Lay it over",
    run: async () => {
      const chosen = file.files[0];
      if (!chosen) return el("p", { class: "bad" }, "Choose a file first.");
      return laid(await ask("measured", { scenario: state.yaml, name: chosen.name, content: await chosen.text() }));
    },
  });
}

function laid({ measured, predicted, held, curves }) {
  const words = { inside: "inside the predicted interval", slower: `slower by a factor of ${held.factor}`, faster: `faster by a factor of ${held.factor}` }[held.verdict];
  const causes = held.candidates.map((one) => el("li", {}, `${one.cause}: ${one.tokens_per_s} tokens/s${one.enough_alone ? ", enough alone" : ""}`));
  return [el("p", {}, el("strong", {}, `measured ${interval(measured.tokens_per_s)} tokens/s, predicted ${interval(predicted.tokens_per_s)}: ${words}`)), el("ul", {}, causes), distributions(curves), el("ul", { class: "muted small" }, measured.warnings.map((text) => el("li", {}, text)))];
}

function distributions(curves) {
  const factor = (unit) => (unit === "s" ? 1 : 1e-3);
  const rows = Object.fromEntries(Object.entries(curves).map(([name, one]) => [name, one.curve.map((row) => ({ ...row, low: row.low * factor(one.unit), median: row.median * factor(one.unit), high: row.high * factor(one.unit) }))]));
  const all = Object.values(rows).flat();
  const plot = frame({ x: [Math.min(...all.map((row) => row.low)), Math.max(...all.map((row) => row.high))], y: [0, 100], xTitle: "time from one token to the next (s)", yTitle: "tokens (%)", label: `Half of the tokens follow within ${seconds(rows.predicted[99]?.median)} predicted` });
  distribution(plot, rows.predicted, COLOURS[0]);
  distribution(plot, rows.measured, "var(--ink)");
  plot.chart.classList.add("strip");
  return el("div", {}, plot.chart, legend([["predicted", COLOURS[0]], ["measured", "var(--ink)"]]));
}

