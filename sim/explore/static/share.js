// One file that shows this view without a server: what is drawn now as it stands, the style, and the scenario.

import { byId, el, say } from "./dom.js";
import { state } from "./state.js";
import { download, fileName } from "./take.js";

const PARTS = ["headline", "map", "layers", "where", "whatif", "timeline", "between", "doubts"];

export async function share() {
  const style = await (await fetch("page.css")).text();
  download(`${fileName()}.html`, page(style), "text/html");
  say("The view was saved as one file.");
}

function page(style) {
  const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
  const head = el("head", {}, el("meta", { charset: "utf-8" }), el("meta", { "http-equiv": "Content-Security-Policy", content: policy }),
    el("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }), el("title", {}, document.title), el("style", {}, style));
  const found = state.answer.prediction;
  const body = el("body", {}, el("main", {}, el("h1", {}, byId("title").textContent), PARTS.map(still), el("section", { class: "card" },
    el("h2", {}, "The scenario"), el("p", { class: "muted" }, `Save this as ${fileName()}.yaml; sim run ${fileName()}.yaml gives the same figures (sim ${found.version}).`), el("pre", { id: "scenario" }, state.yaml)),
  el("section", { class: "card" }, el("details", {}, el("summary", {}, "The prediction as JSON"), el("pre", { id: "prediction" }, JSON.stringify(found, null, 2))))));
  return `<!doctype html>\n${el("html", { lang: "en" }, head, body).outerHTML}`;
}

// A copy in which nothing can be pressed.
function still(id) {
  const copy = byId(id).cloneNode(true);
  copy.querySelectorAll("button").forEach((button) => {
    const plain = el("div", { class: button.className });
    plain.style.cssText = button.style.cssText;
    plain.append(...button.childNodes);
    button.replaceWith(plain);
  });
  copy.removeAttribute("id");
  copy.classList.add("card");
  copy.classList.remove("stale");
  return copy;
}
