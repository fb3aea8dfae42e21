// Hours of a swarm, where a scenario has one: what its users get, and which blocks somebody serves.

import { ask } from "./api.js";
import { frame, path, COLOURS } from "./charts.js";
import { el, interval, number, percent, svg } from "./dom.js";
import { state } from "./state.js";
import { control, view } from "./view.js";

export function buildSwarm(place) {
  const hours = el("input", { type: "number", min: 0.1, max: 48, step: 0.1, placeholder: "as the scenario says" });
  view(place, {
    title: "Swarm", about: "Servers that come, choose their blocks and go (engine petals; scenarios petals_three_rooms, petals_flaky, petals_public).",
    controls: [control("Hours", hours)], button: "Simulate",
    run: async () => drawn(await ask("swarm", { scenario: state.yaml, hours: Number(hours.value) || null })),
  });
}

function drawn(found) {
  const rows = [["Tokens/s of a reply", found.tokens_per_s && interval(found.tokens_per_s)], ["First token", found.first_token_s && `${interval(found.first_token_s)} s`], ["All chats", `${interval(found.all_tokens_per_s)} tokens/s`], ["Replies complete", percent(found.completed.median)], ["All blocks served", `${percent(found.whole.median)} of the time`], ["Servers lost in a reply", `${interval(found.losses_per_hour)} per hour`]];
  const list = el("dl", { class: "facts" }, rows.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  return [list, el("div", { class: "pair" }, rates(found), coverage(found))];
}

function rates(found) {
  const values = found.rate_over_time;
  const most = Math.max(...values, 1e-9);
  const plot = frame({ x: [0, found.hours], y: [0, most * 1.05], xTitle: "hours", yTitle: "tokens/s of all chats", label: "Tokens/s of all chats over the hours" });
  const at = (index) => ((index + 0.5) * found.hours) / values.length;
  plot.chart.append(svg("path", { d: path(values.map((value, index) => [plot.x(at(index)), plot.y(value)])), fill: "none", stroke: COLOURS[0], "stroke-width": 2 }));
  return el("div", {}, el("h2", {}, "Tokens/s over time"), plot.chart);
}

function coverage(found) {
  const counts = found.counts;
  const blocks = counts[0]?.length || 1;
  const most = Math.max(...counts.flat(), 1);
  const plot = frame({ x: [0, found.hours], y: [0, blocks], xTitle: "hours", yTitle: "block", label: `Servers of each block over the hours; at most ${number(most)}` });
  const every = Math.max(1, Math.ceil(counts.length / 60));
  const step = found.hours / counts.length;
  counts.forEach((row, at) => at % every === 0 && runs(row).forEach(([from, to, count]) => plot.chart.append(cell(plot, at * step, (at + every) * step, from, to, count / most))));
  return el("div", {}, el("h2", {}, "Who serves which block"), plot.chart, el("p", { class: "muted small" }, "the darker, the more servers; empty: nobody"));
}

// Neighbouring blocks of as many servers are one rectangle.
function runs(row) {
  const found = [];
  row.forEach((count, block) => {
    const last = found[found.length - 1];
    if (last && last[2] === count) last[1] = block + 1;
    else found.push([block, block + 1, count]);
  });
  return found.filter(([, , count]) => count);
}

function cell({ x, y }, from, to, low, high, share) {
  return svg("rect", { x: x(from), width: Math.max(0.3, x(to) - x(from) + 0.3), y: y(high), height: y(low) - y(high), fill: COLOURS[0], opacity: 0.2 + 0.8 * share });
}
