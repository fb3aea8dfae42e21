// A running cluster, looked at and never touched, beside what is predicted.

import { ask } from "./api.js";
import { strip } from "./charts.js";
import { el, gigabytes, interval, number, table } from "./dom.js";
import { state } from "./state.js";
import { choose, control, view } from "./view.js";

const EVERY_MS = 3000;
let timer = 0;

export function buildLive(place) {
  const cluster = el("input", { type: "text", placeholder: "exo://192.168.1.20:52415", spellcheck: "false" });
  const follow = el("input", { type: "text", placeholder: "results/run.jsonl", spellcheck: "false" });
  const again = choose([["", "once"], ["1", "every 3 seconds"]]);
  const made = view(place, {
    title: "Live", about: "Point at a cluster: exo://host:52415, openai://host:port or llama-rpc://host:port,… Only its state is read; nothing is started, stopped or asked to generate.",
    controls: [control("Cluster", cluster), control("File that a run writes now (may be empty)", follow), control("Look", again)], button: "Look",
    run: async () => {
      clearTimeout(timer);
      const found = drawn(await ask("look", { cluster: cluster.value.trim(), follow: follow.value.trim() || null }));
      if (again.value && !place.hidden) timer = setTimeout(made.again, EVERY_MS);
      return found;
    },
  });
  found(place);
}

function drawn(view) {
  const rows = view.devices.map((one) => [one.name, one.chip || "–", one.layers, one.status, one.free_bytes === null ? "–" : gigabytes(one.free_bytes)]);
  const expected = state.answer ? `predicted for ${state.answer.prediction.scenario}: ${interval(state.answer.prediction.tokens_per_s)} tokens/s` : "";
  const measured = view.measured?.tokens_per_s;
  const over = measured && state.answer ? strip(state.answer.prediction.tokens_per_s, null, "tokens/s", measured) : null;
  return [view.alarms.map((text) => el("div", { class: "fault", role: "alert" }, text)), el("p", {}, el("strong", {}, `Running: ${view.models.join(", ") || "no model"}`)), table(["Device", "Chip", "Layers", "Status", "Free"], rows, "Who is there"), el("ul", {}, view.notes.map((text) => el("li", {}, text))), el("p", { class: "muted" }, expected), measured ? el("p", {}, `measured ${number(measured)} tokens/s over ${view.measured.tokens} tokens`) : null, over];
}

function found(place) {
  const seconds = choose([["2", "2 seconds"], ["4", "4 seconds"]]);
  view(place, {
    title: "Who is there?", about: "Listens for EXO, agents and RPC servers that announce themselves on this LAN, as `sim live discover`.",
    controls: [control("Listen for", seconds)], button: "Listen",
    run: async () => rows(await ask("discover", { seconds: Number(seconds.value) })),
  });
}

function rows({ found: devices, faults }) {
  const cells = devices.map((one) => [one.name || "–", one.generation || "–", one.chip || "–", one.memory_total_bytes ? gigabytes(one.memory_total_bytes) : "–", one.addresses.slice(0, 3).join(", "), one.seen_by.join(", ")]);
  return [cells.length ? table(["Device", "Program", "Chip", "Memory", "Addresses", "Seen by"], cells, "Devices that were seen") : el("p", {}, "Nobody announced itself."), el("ul", { class: "muted small" }, faults.map((text) => el("li", {}, text)))];
}

