// The page: parts listen to the state and draw themselves; tabs show one view at a time.

import { ask } from "./api.js";
import { byId, el, say, show } from "./dom.js";
import { drawEditor } from "./editor.js";
import { addDevice, drawDevice, drawSettings } from "./fields.js";
import { drawHeadline } from "./headline.js";
import { drawLayers } from "./layers.js";
import { drawLimits } from "./limits.js";
import { drawMap } from "./map.js";
import { listen, load, notify, redo, state, undo, write } from "./state.js";
import { buildTabs } from "./tabs.js";
import { copyCommand, saveScenario } from "./take.js";
import { share } from "./share.js";

function drawFaults({ error }) {
  show(byId("faults"), error ? el("div", { class: "fault" }, el("strong", {}, "No answer yet; below, in grey, is the last one.\n"), error) : null);
}

function drawActions(now) {
  byId("undo").disabled = !now.past.length;
  byId("redo").disabled = !now.future.length;
}

function withWords(entries) {
  return entries.map((entry) => (typeof entry === "string" ? { name: entry } : entry)).map((entry) => ({ ...entry, words: [entry.name, entry.about, ...(entry.also || [])].join(" ").toLowerCase() }));
}

async function begin() {
  buildTabs();
  [drawFaults, drawActions, drawHeadline, drawMap, drawLayers, drawLimits, drawSettings, drawDevice, drawEditor].forEach(listen);
  const [first, known] = await Promise.all([ask("start"), ask("catalogue")]);
  for (const part of ["devices", "models", "networks", "quantisations"]) known[part] = withWords(known[part]);
  state.catalogue = known;
  fillLibrary(first);
  write(first.yaml);
}

function fillLibrary({ scenarios, name }) {
  const names = scenarios.includes(name) ? scenarios : [name, ...scenarios];
  const pick = byId("library");
  pick.append(...names.map((one) => el("option", { value: one }, one)));
  pick.value = name;
  pick.addEventListener("change", async () => load((await ask(`scenarios/${encodeURIComponent(pick.value)}`)).yaml));
}

function keys(event) {
  const inText = event.target.closest("input, textarea, select");
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || inText) return;
  event.preventDefault();
  (event.shiftKey ? redo : undo)();
}

byId("undo").addEventListener("click", undo);
byId("redo").addEventListener("click", redo);
byId("save").addEventListener("click", saveScenario);
byId("copy").addEventListener("click", copyCommand);
byId("share").addEventListener("click", share);
byId("add").addEventListener("click", addDevice);
document.addEventListener("keydown", keys);
let lastWidth = 0;
new ResizeObserver(() => {
  if (Math.abs(byId("map").clientWidth - lastWidth) < 2) return;
  lastWidth = byId("map").clientWidth;
  notify();
}).observe(byId("map"));
begin().catch((refused) => {
  state.error = refused.message;
  notify();
  say(refused.message);
});
