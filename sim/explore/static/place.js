// Where the layers should go: the search's answer, and a button that takes it.

import { ask } from "./api.js";
import { el, interval, percent, table } from "./dom.js";
import { load, state } from "./state.js";
import { openTab } from "./tabs.js";
import { choose, control, view } from "./view.js";

const OBJECTIVES = [["chat", "tokens/s of one chat"], ["users", "tokens/s of several users"], ["slowest-stage", "the slowest stage"], ["p99", "p99 between tokens"], ["first-token", "the first token"]];

export function buildPlace(place) {
  const objective = choose(OBJECTIVES, "chat");
  view(place, {
    title: "Place", about: "Which devices, in which order of the ring, with how many layers each: searched exactly, then simulated.",
    controls: [control("What should be best", objective)], button: "Search",
    run: async () => drawn(await ask("place", { scenario: state.yaml, objective: objective.value })),
  });
}

function drawn(found) {
  const take = found.yaml && el("button", { type: "button", class: "primary", onclick: () => taken(found.yaml) }, "Load the best placement");
  return [found.best ? pipeline(found) : null, found.strategies ? strategies(found.strategies) : null, el("p", {}, take)];
}

function taken(yaml) {
  load(yaml);
  openTab("explore");
}

function pipeline(found) {
  const rows = [found.best, ...found.beside].map((one) => [one.name, layers(one), interval(one.tokens_per_s), one.refused ? one.refused : one.gain ? interval(one.gain) : "–"]);
  const proof = found.proof;
  const sure = proof.gap < 1e-9 ? "proven optimal for the mean cost" : `at most ${percent(proof.gap)} above the least possible mean cost`;
  return [el("p", {}, `${found.meaning}: ${sure}; ${proof.simulated} placements simulated.`), table(["Placement", "Layers", "tokens/s", "Cost / best"], rows, "Placements")];
}

function layers(option) {
  const shards = option.placement?.shards || [];
  return shards.map((shard) => `${shard.device}: ${shard.end_layer - shard.start_layer}`).join(", ") || "–";
}

function strategies(found) {
  const rows = found.ranking.map((one) => [one.backend ? `${one.engine} over ${one.backend}` : one.engine, interval(one.tokens_per_s), one.refused || (one.slower ? `${interval(one.slower)} × the best` : "best")]);
  return table(["Strategy", "tokens/s", ""], rows, "Strategies of this engine");
}
