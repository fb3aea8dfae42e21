// A text field with a list that narrows while one types: names of the catalogue, searchable by all their words.

import { el } from "./dom.js";

const MOST = 40;
let made = 0;

export function combo({ id, value, placeholder, entries, commit, key, describedBy, invalid }) {
  const list = el("ul", { id: `list-${++made}`, role: "listbox", hidden: true, "aria-label": "Suggestions" });
  const input = el("input", {
    id, value, placeholder, type: "text", "data-shown": value, autocomplete: "off", spellcheck: "false", role: "combobox", "data-key": key,
    "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list", "aria-describedby": describedBy, "aria-invalid": invalid,
  });
  const box = { input, list, entries, commit, shown: [], at: -1, last: value };
  input.addEventListener("input", () => open(box));
  input.addEventListener("keydown", (event) => press(box, event));
  input.addEventListener("click", () => open(box, true));
  input.addEventListener("blur", () => leave(box));
  return el("div", { class: "combo" }, input, list);
}

export function matching(entries, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (entry) => words.every((word) => entry.words.includes(word));
  return entries.filter(fits).slice(0, MOST);
}

function open(box, all = false) {
  box.shown = matching(box.entries, all ? "" : box.input.value);
  box.at = -1;
  box.list.replaceChildren(...box.shown.map((entry, at) => option(box, entry, at)));
  box.list.hidden = !box.shown.length;
  box.input.setAttribute("aria-expanded", String(!box.list.hidden));
}

function option(box, entry, at) {
  const pick = (event) => {
    event.preventDefault();
    take(box, entry.name);
  };
  return el("li", { id: `${box.list.id}-${at}`, role: "option", "aria-selected": "false", onpointerdown: pick },
    entry.name, entry.about ? el("span", { class: "muted small" }, ` ${entry.about}`) : null);
}

function press(box, event) {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") step(box, event);
  else if (event.key === "Escape") close(box);
  else if (event.key === "Enter") take(box, box.at >= 0 ? box.shown[box.at].name : box.input.value);
}

function step(box, event) {
  event.preventDefault();
  if (box.list.hidden) open(box, !box.input.value);
  const count = box.shown.length;
  if (!count) return;
  box.at = (box.at + (event.key === "ArrowDown" ? 1 : -1) + count) % count;
  [...box.list.children].forEach((node, at) => node.setAttribute("aria-selected", String(at === box.at)));
  box.list.children[box.at].scrollIntoView({ block: "nearest" });
  box.input.setAttribute("aria-activedescendant", box.list.children[box.at].id);
}

function close(box) {
  box.list.hidden = true;
  box.input.setAttribute("aria-expanded", "false");
  box.input.removeAttribute("aria-activedescendant");
}

function take(box, value) {
  box.input.value = value;
  close(box);
  if (value === box.last) return;
  box.last = box.input.dataset.shown = value;
  box.commit(value);
}

function leave(box) {
  close(box);
  take(box, box.input.value);
}
