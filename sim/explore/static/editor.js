// The scenario's text beside the page: both change each other, and faults stand at their line.

import { byId, el, show } from "./dom.js";
import { write } from "./state.js";

let area = null;
let gutter = null;
let timer = 0;

function build() {
  gutter = el("div", { class: "lines", "aria-hidden": "true" });
  area = el("textarea", { id: "yaml", "aria-label": "The scenario as YAML", spellcheck: "false", autocomplete: "off", autocapitalize: "off", oninput: typed });
  area.addEventListener("scroll", () => { gutter.scrollTop = area.scrollTop; });
  const faults = el("ul", { id: "yaml-faults", class: "plain small bad" });
  show(byId("editor"), el("div", { class: "code" }, gutter, area), faults);
}

function typed() {
  clearTimeout(timer);
  numbers([]);
  timer = setTimeout(() => write(area.value, { isOneAct: true }), 300);
}

export function drawEditor(state) {
  if (!area) build();
  // while somebody types, the text is theirs
  if (document.activeElement !== area && area.value !== state.yaml) area.value = state.yaml;
  area.setAttribute("aria-invalid", String(state.faults.length > 0));
  numbers(state.faults);
  const told = state.faults.map((fault) => el("li", {}, `${fault.line ? `line ${fault.line}: ` : ""}${fault.path ? `${fault.path}: ` : ""}${fault.reason}`));
  show(byId("yaml-faults"), told);
}

function numbers(faults) {
  const wrong = new Set(faults.map((fault) => fault.line));
  const count = area.value.split("\n").length;
  const rows = Array.from({ length: count }, (_, at) => (wrong.has(at + 1) ? el("b", {}, `● ${at + 1}\n`) : `${at + 1}\n`));
  gutter.replaceChildren(...rows);
  gutter.scrollTop = area.scrollTop;
}
