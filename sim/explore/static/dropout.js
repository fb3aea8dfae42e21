// A device is clicked away in the middle of a reply: how long that stops, and how fast it goes on.

import { ask } from "./api.js";
import { band, COLOURS, frame, legend } from "./charts.js";
import { el, interval, number, percent, seconds, svg } from "./dom.js";
import { listen, state } from "./state.js";
import { control, view } from "./view.js";

export function buildDropout(place) {
  let device = null;
  const silent = el("input", { type: "checkbox" });
  const buttons = el("div", { class: "row", role: "group", "aria-label": "Which device leaves" });
  const made = view(place, {
    title: "Dropout", about: "Click the device that leaves in the middle of a reply; 20 replications, each event simulated.",
    controls: [buttons, control("Silently (power or link lost)", silent)],
    run: async () => drawn(await ask("dropout", { scenario: state.yaml, device, silent: silent.checked })),
  });
  const paint = () => buttons.replaceChildren(...Object.keys(state.written.devices || {}).map((name) => el("button", { type: "button", onclick: () => { device = name; made.again(); } }, `${name} leaves`)));
  paint();
  listen(paint);
}

function drawn(found) {
  const rates = found.tokens_per_s;
  const facts = [["Recovery", found.recovery_s ? `${interval(found.recovery_s)} s` : "the reply never went on"], ["Before", rates.before && `${interval(rates.before)} tokens/s`], ["After", rates.after && `${interval(rates.after)} tokens/s`], ["Replies completed", percent(found.replies.completed)]];
  const reasons = found.refusals.map((one) => el("li", {}, `in ${percent(one.share)} of the replications: ${one.reason}`));
  const list = el("dl", { class: "facts" }, facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  return [list, el("ul", {}, reasons), found.chart ? picture(found.chart) : null];
}

function picture({ title, subtitle, rows }) {
  const { band: curve, phases } = rows;
  const most = Math.max(...curve.map((row) => row.high)) * 1.08;
  const plot = frame({ x: [curve[0].t, curve[curve.length - 1].t], y: [0, most], xTitle: "seconds since the loss", yTitle: "tokens/s", label: title.join(" "), height: 290 });
  const colour = Object.fromEntries(phases.map((row, at) => [row.phase, COLOURS[(at + 1) % 7]]));
  phases.forEach((row) => plot.chart.append(shade(plot, row, most, colour[row.phase])));
  band(plot, curve.map((row) => ({ ...row, x: row.t })));
  plot.chart.classList.add("strip");
  return el("div", {}, el("p", {}, title.join(" ")), plot.chart, legend(phases.map((row) => [`${row.phase} ${seconds(row.end - row.start)}`, colour[row.phase]])), el("p", { class: "muted small" }, subtitle.join(" ")));
}

function shade({ x, y }, row, most, colour) {
  return svg("rect", { x: x(row.start), width: Math.max(0.5, x(row.end) - x(row.start)), y: y(most), height: y(0) - y(most), fill: colour, opacity: 0.25 }, svg("title", {}, `${row.phase}: ${number(row.end - row.start)} s`));
}
