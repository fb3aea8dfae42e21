// Where time goes, what would change it, and how it went token by token.

import { band, bars, COLOURS, colourOfKind, dot, frame, legend } from "./charts.js";
import { byId, el, interval, percent, show } from "./dom.js";

export function drawLimits(state) {
  const { limits, answer } = state;
  const isOld = Boolean(state.error) || Boolean(answer?.is_quick);
  for (const id of ["where", "whatif", "timeline", "between"]) byId(id).classList.toggle("stale", isOld && Boolean(limits));
  if (!limits) for (const id of ["where", "whatif", "timeline", "between", "doubt-list"]) show(byId(id), state.error ? null : el(id === "doubt-list" ? "li" : "p", { class: "muted" }, "being computed"));
  if (!limits || answer !== limits) return;
  drawWhere(limits);
  drawWhatIfs(limits);
  drawTimeline(limits.charts.slowest_stage);
  drawBetween(limits.charts.inter_token_time);
  drawDoubts(limits.prediction.warnings);
}

function drawWhere({ charts, prediction, over_worlds: worlds }) {
  const table = charts.where_time_goes;
  const kinds = [...new Set(table.rows.parts.map((row) => row.kind))];
  const rows = table.rows.totals.map((total) => ({
    name: total.place, text: total.label,
    parts: table.rows.parts.filter((row) => row.place === total.place).map((row) => [row.duration, colourOfKind(row.kind), `${row.kind}: ${row.duration} ${table.unit}`]),
  }));
  const words = `${prediction.bottleneck.sentence}. ${rows.map((row) => `${row.name} ${row.text}`).join(", ")}`;
  show(byId("where"), el("p", {}, prediction.bottleneck.sentence), bars(rows, words), legend(kinds.map((kind) => [kind, colourOfKind(kind)])), el("p", { class: "muted small" }, worlds));
}

function drawWhatIfs({ prediction }) {
  const rows = prediction.what_if.map((one) => {
    const isGood = one.difference.median >= 0;
    return el("li", {}, el("strong", {}, one.change), el("br"), `${interval(one.tokens_per_s)} tokens/s `,
      el("span", { class: isGood ? "good" : "bad" }, `${isGood ? "+" : ""}${interval(one.difference)}`), el("span", { class: "muted" }, `, better in ${percent(one.probability_better)} of the cases`));
  });
  show(byId("whatif"), rows.length ? el("ul", { class: "plain" }, rows) : el("p", { class: "muted" }, "Nothing obvious to change."));
}

function drawTimeline(table) {
  const points = table.rows.points;
  const most = Math.max(...points.map((row) => row.drawn));
  const plot = frame({ x: [1, points[points.length - 1].token], y: [0, most], xTitle: "token of the reply", yTitle: `longest part (${table.unit})`, label: table.title.join(" ") });
  const colour = Object.fromEntries(table.order.map((name, at) => [name, COLOURS[at % COLOURS.length]]));
  points.forEach((row) => plot.chart.append(dot(plot.x(row.token), plot.y(row.drawn), colour[row.part], null, 2.6)));
  show(byId("timeline"), el("p", {}, table.title.join(" ")), plot.chart, legend(table.order.map((name) => [name, colour[name]])), el("p", { class: "muted small" }, table.subtitle.join(" ")));
}

function drawBetween(table) {
  const rows = table.rows.curve;
  const most = rows[rows.length - 1].high;
  const least = rows[0].low;
  const plot = frame({ x: [least, most], y: [0, 100], xTitle: `time from one token to the next (${table.unit})`, yTitle: "tokens (%)", label: table.title.join(" ") });
  distribution(plot, rows, COLOURS[0]);
  table.rows.marks.forEach((row) => plot.chart.append(dot(plot.x(row.median), plot.y(row.percent), "var(--ink)", row.label)));
  show(byId("between"), el("p", {}, table.title.join(" ")), plot.chart, el("p", { class: "muted small" }, table.subtitle.join(" ")));
}

// Percent over time lies on its side: the band is between times.
export function distribution(plot, rows, colour) {
  const flipped = { chart: plot.chart, x: plot.y, y: plot.x };
  const group = document.createElementNS("http://www.w3.org/2000/svg", "g");
  band({ ...flipped, chart: group }, rows.map((row) => ({ ...row, x: row.percent })), colour);
  group.querySelectorAll("path").forEach((node) => node.setAttribute("d", mirrored(node.getAttribute("d"))));
  plot.chart.append(group);
}

function mirrored(d) {
  return d.replace(/(-?[\d.]+) (-?[\d.]+)/g, "$2 $1");
}

function drawDoubts(warnings) {
  byId("doubts").hidden = !warnings.length;
  show(byId("doubt-list"), warnings.map((text) => el("li", {}, text)));
}
