// The answer in one glance: tokens/s with its interval, what it was before, and the figures beside it.

import { strip } from "./charts.js";
import { byId, el, interval, number, percent, seconds, show } from "./dom.js";

export function drawHeadline(state) {
  const { answer, limits } = state;
  if (!answer) return;
  const found = answer.prediction;
  const chats = found.total_tokens_per_s.median !== found.tokens_per_s.median;
  const left = el("div", {}, big(found), standing(state, found), difference(state));
  const right = el("dl", { class: "facts" }, facts(found, chats), limit(limits, found));
  const strips = strip(found.tokens_per_s, state.against?.before, "tokens/s");
  const place = byId("headline");
  show(place, el("div", { class: "headline" }, left, right), strips, question(found));
  place.classList.toggle("stale", Boolean(state.error));
  document.title = `${found.scenario}: ${number(found.tokens_per_s.median)} tokens/s – sim explore`;
  byId("title").textContent = `${found.scenario}: ${found.question || found.model}`;
}

function big(found) {
  return el("p", { class: "big", id: "rate" }, number(found.tokens_per_s.median), " ", el("small", {}, "tokens/s"));
}

function standing(state, found) {
  const full = state.limits?.prediction;
  const share = state.answer.is_quick
    ? `first answer: ${found.replications} replications; the rest is being computed`
    : `all ${found.replications} replications × ${found.runs} runs, seed ${found.seed}`;
  return el("div", {},
    el("p", {}, `${interval(found.tokens_per_s)} tokens/s, median and 90 % interval `, el("span", { class: "chip" }, found.tokens_per_s.label)),
    el("p", { class: "muted small", id: "progress", "data-quick": String(state.answer.is_quick && Boolean(full || true)) }, share));
}

function difference({ against }) {
  if (!against) return el("p", { class: "muted small" }, "Change anything: the answer from before stays as a grey ghost.");
  const { difference: gain, probability_better: better } = against;
  if (gain.p05 === 0 && gain.p95 === 0) return el("p", { class: "muted" }, "The same as before, to this simulation.");
  const word = gain.median >= 0 ? ["good", "faster"] : ["bad", "slower"];
  const chance = gain.median >= 0 ? better : 1 - better;
  return el("p", { class: word[0], id: "difference" },
    `${gain.median >= 0 ? "+" : ""}${against.text}: ${word[1]} than before in ${percent(chance)} of the pairs`);
}

function facts(found, chats) {
  const rows = [["Model", found.model], ["Engine", found.engine]];
  if (chats) rows.push(["All chats", `${interval(found.total_tokens_per_s)} tokens/s`]);
  rows.push(["First token", spread(found.first_token_s)]);
  rows.push(["Token to token", gap(found, "p50")]);
  rows.push(["p99 of that", gap(found, "p99")]);
  return rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}

function limit(limits, found) {
  if (!limits || limits.prediction.scenario !== found.scenario) return [];
  return [el("dt", {}, "Limit"), el("dd", { class: "limit" }, limits.prediction.bottleneck.sentence)];
}

function gap(found, level) {
  const [p05, p95] = found.inter_token_interval_s[level];
  return spread({ median: found.inter_token_s[level], p05, p95 });
}

function spread(figure) {
  return `${seconds(figure.median)} [${seconds(figure.p05)}, ${seconds(figure.p95)}]`;
}

function question(found) {
  return found.question ? el("p", { class: "muted small" }, found.question) : null;
}
