// One view at a time; arrow keys go from tab to tab. A view builds itself when it is first shown.

import { buildCompare } from "./compare.js";
import { buildDropout } from "./dropout.js";
import { buildLive } from "./live.js";
import { buildPlace } from "./place.js";
import { buildPlan } from "./plan.js";
import { buildSwarm } from "./swarm.js";
import { buildSweep } from "./sweep.js";
import { buildTruth } from "./truth.js";
import { byId, el } from "./dom.js";

export const VIEWS = [
  ["explore", "Explore", null], ["compare", "Compare", buildCompare], ["place", "Place", buildPlace], ["plan", "Plan", buildPlan], ["sweep", "Sweep", buildSweep],
  ["dropout", "Dropout", buildDropout], ["swarm", "Swarm", buildSwarm], ["truth", "Truth", buildTruth], ["live", "Live", buildLive],
];

export function buildTabs() {
  byId("tabs").append(...VIEWS.map(([id, title]) => el("button", {
    type: "button", role: "tab", id: `tab-${id}`, "aria-controls": `panel-${id}`, "aria-selected": "false", tabindex: "-1",
    onclick: () => open(id), onkeydown: press,
  }, title)));
  for (const [id, , build] of VIEWS) if (build) byId("content").append(panel(id));
  open("explore");
}

function panel(id) {
  return el("section", { id: `panel-${id}`, role: "tabpanel", "aria-labelledby": `tab-${id}`, hidden: true });
}

function open(id) {
  for (const [one, , build] of VIEWS) {
    const isOpen = one === id;
    const tab = byId(`tab-${one}`);
    tab.setAttribute("aria-selected", String(isOpen));
    tab.tabIndex = isOpen ? 0 : -1;
    const place = byId(`panel-${one}`);
    place.hidden = !isOpen;
    if (isOpen && build && !place.childElementCount) build(place);
  }
}

export const openTab = open;

function press(event) {
  const at = VIEWS.findIndex(([id]) => `tab-${id}` === event.target.id);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: VIEWS.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const id = VIEWS[(to + VIEWS.length) % VIEWS.length][0];
  open(id);
  byId(`tab-${id}`).focus();
}
