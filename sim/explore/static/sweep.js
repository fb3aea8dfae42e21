// One field along its values: tokens/s as a curve with its band.

import { ask } from "./api.js";
import { band, frame } from "./charts.js";
import { el, interval, number, table } from "./dom.js";
import { state } from "./state.js";
import { choose, control, view } from "./view.js";

function paths() {
  const devices = Object.keys(state.written.devices || {});
  const of = devices.flatMap((name) => [[`devices.${name}.link.rtt=0.5ms..60ms:log:10`, `round trip of ${name}`], [`devices.${name}.background_load=0 %..80 %:9`, `other work on ${name}`]]);
  return [["workload.prompt_tokens=128..8192:log:7", "prompt (tokens)"], ["workload.output_tokens=32..512:log:5", "reply (tokens)"], ["workload.concurrency=1,2,4,8", "chats at once"], ...of, [`devices.${devices[0]}.link.kind=wifi24,wifi5,wifi6,ethernet_1g`, `link of ${devices[0]}`]];
}

export function buildSweep(place) {
  const over = el("input", { type: "text", value: paths()[0][0], spellcheck: "false" });
  const pick = choose(paths());
  pick.addEventListener("change", () => { over.value = pick.value; });
  view(place, {
    title: "Sweep", about: "One field along its values, as `sim sweep --over` takes it: path=1,2,4 or path=1ms..60ms[:log][:steps].",
    controls: [control("Field", pick), control("Values (--over)", over)], button: "Sweep",
    run: async () => drawn(await ask("sweep", { scenario: state.yaml, over: over.value })),
  });
}

function drawn(found) {
  const good = found.points.filter((one) => !one.error);
  const rows = found.points.map((one) => [String(one.value), one.error ? one.error : interval(figure(one)), one.placement || ""]);
  return [good.length > 1 ? picture(found, good) : null, table([found.path, "tokens/s", "Layers"], rows, `${found.replications} replications a point`)];
}

function figure(one) {
  return { median: one.tokens_per_s_median, p05: one.tokens_per_s_p05, p95: one.tokens_per_s_p95 };
}

function picture(found, good) {
  const isNumber = good.every((one) => one.number !== null);
  const x = good.map((one, at) => (isNumber ? one.number : at));
  const isLog = isNumber && found.is_log;
  const named = good.map((one, at) => [x[at], String(one.value)]);
  const few = named.filter((_, at) => at % Math.ceil(named.length / 6) === 0 || at === named.length - 1);
  const most = Math.max(...good.map((one) => one.tokens_per_s_p95));
  const words = good.map((one) => `${one.value}: ${number(one.tokens_per_s_median)}`).join(", ");
  const plot = frame({ x: [x[0], x[x.length - 1]], y: [0, most * 1.05], isLog, xTicks: few, xTitle: found.path, yTitle: "tokens/s", label: words, height: 290 });
  band(plot, good.map((one, at) => ({ x: x[at], low: one.tokens_per_s_p05, median: one.tokens_per_s_median, high: one.tokens_per_s_p95 })), undefined, { dots: true });
  plot.chart.classList.add("strip");
  return plot.chart;
}
