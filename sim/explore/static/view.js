// What the views beside `Explore` have in common: a form above, an answer below, words for what goes wrong.

import { el, say, show } from "./dom.js";

// A view: a heading, what it is for, controls, a button that asks, and a place for the answer.
export function view(place, { title, about, controls = [], button, run }) {
  const out = el("div", { "aria-live": "polite" });
  const start = button && el("button", { type: "submit", class: "primary" }, button);
  const form = el("form", { class: "tool", novalidate: true }, controls, start);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    work(out, start, run);
  });
  place.append(el("section", { class: "card" }, el("h1", {}, title), el("p", { class: "muted" }, about), form, out));
  return { out, form, again: () => work(out, start, run) };
}

async function work(out, button, run) {
  if (button) button.disabled = true;
  show(out, el("p", { class: "muted" }, "Working…"));
  try {
    show(out, await run());
    say("The answer is there.");
  } catch (refused) {
    if (refused.status !== undefined) show(out, el("div", { class: "fault", role: "alert" }, refused.message));
    else throw refused;
  } finally {
    if (button) button.disabled = false;
  }
}

export function control(label, node) {
  node.id ||= `control-${label.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return el("div", { class: "field" }, el("label", { for: node.id }, label), node);
}

export function choose(names, value) {
  const node = el("select", {}, names.map((name) => (Array.isArray(name) ? el("option", { value: name[0] }, name[1]) : el("option", { value: name }, name))));
  if (value !== undefined) node.value = value;
  return node;
}

