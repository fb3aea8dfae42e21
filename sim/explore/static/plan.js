// What to buy within a budget: the front of price against tokens/s; a point loads its mix.

import { ask } from "./api.js";
import { COLOURS, frame, legend } from "./charts.js";
import { el, interval, number, percent, svg, table } from "./dom.js";
import { load, state } from "./state.js";
import { openTab } from "./tabs.js";
import { choose, control, view } from "./view.js";

const GROUPS = [["network,memory", "cables and memory"], ["network,memory,gpus", "and graphics cards"], ["network,memory,macs", "and Macs"], ["network,memory,minipcs,pcs", "and other computers"], ["", "everything (minutes)"]];

export function buildPlan(place) {
  const budget = el("input", { type: "range", min: 0, max: 5000, step: 50, value: 800 });
  const shown = el("output", { for: "control-budget" }, "800");
  const currency = choose(["EUR", "USD", "GBP"]);
  const goal = el("input", { type: "text", placeholder: "8 tokens/s" });
  const groups = choose(GROUPS, "network,memory,gpus");
  const most = choose([["0", "none"], ["1", "one"], ["2", "two"]], "1");
  const paint = () => { shown.textContent = `${number(Number(budget.value))} ${currency.value}`; };
  budget.addEventListener("input", paint);
  currency.addEventListener("change", paint);
  const box = control("Budget", budget);
  box.append(shown);
  paint();
  view(place, {
    title: "Plan", about: "What to buy, rewire or leave out. Prices are the catalogue’s; your own go into `sim plan --prices`.",
    controls: [box, control("Currency", currency), control("Goal (may be empty)", goal), control("Choose from", groups), control("Machines to buy at most", most)], button: "Plan",
    run: async () => drawn(await ask("plan", { scenario: state.yaml, budget: `${budget.value} ${currency.value}`, goal: goal.value.trim() || null, most_purchases: Number(most.value), allow: groups.value || null })),
  });
}

function drawn(found) {
  const rows = found.options.map((one, at) => [`${number(one.price)} ${one.currency}`, one.model, interval(one.tokens_per_s), one.goal_probability === null ? "–" : percent(one.goal_probability), one.actions.join(", ") || "place the layers anew",
    el("button", { type: "button", "aria-label": `Load option ${at + 1}`, onclick: () => taken(found.yaml[at]) }, "Load")]);
  return [el("p", {}, el("strong", {}, "Answer: "), found.answer), front(found), table(["Price", "Model", "tokens/s", "Goal", "What to do", ""], rows, `${found.considered} mixes, ${found.pruned} ruled out by a bound, ${found.evaluated} evaluated`), el("ul", { class: "muted small" }, found.doubts.map((text) => el("li", {}, text)))];
}

function taken(yaml) {
  load(yaml);
  openTab("explore");
}

function front(found) {
  const options = found.options;
  const most = Math.max(...options.map((one) => one.tokens_per_s.p95), found.goal_tokens_per_s || 0);
  const plot = frame({ x: [0, Math.max(...options.map((one) => one.price), 1) * 1.06], y: [0, most * 1.05], xTitle: `price (${found.budget.currency})`, yTitle: "tokens/s", label: "Price against tokens/s; the same as in the table below" });
  const models = [...new Set(options.map((one) => one.model))];
  options.forEach((one, at) => plot.chart.append(point(plot, one, COLOURS[models.indexOf(one.model) % 7], () => taken(found.yaml[at]))));
  if (found.goal_tokens_per_s) plot.chart.append(svg("line", { x1: plot.size.left, x2: plot.size.width - plot.size.right, y1: plot.y(found.goal_tokens_per_s), y2: plot.y(found.goal_tokens_per_s), stroke: "var(--muted)", "stroke-dasharray": "5 4" }));
  plot.chart.classList.add("strip");
  return el("div", {}, plot.chart, legend(models.map((name, at) => [name, COLOURS[at % 7]])), el("p", { class: "muted small" }, "Click a point to load its mix; the table’s buttons do the same."));
}

function point({ x, y }, one, colour, onclick) {
  const { p05, median, p95 } = one.tokens_per_s;
  const group = svg("g", { class: "pick-point", onclick }, svg("title", {}, `${one.price} ${one.currency}: ${one.actions.join(", ")}`),
    svg("line", { x1: x(one.price), x2: x(one.price), y1: y(p05), y2: y(p95), stroke: colour, "stroke-width": 2.5, opacity: 0.6 }),
    svg("circle", { cx: x(one.price), cy: y(median), r: 6.5, fill: colour }));
  return group;
}
