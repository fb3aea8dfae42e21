// Every field of a scenario as a control; what is wrong with one stands beneath it.

import { combo } from "./combo.js";
import { byId, el, seconds, show } from "./dom.js";
import { change, select, state } from "./state.js";

const SHORT = { model: "name", engine: "name", placement: "rule" };

// What the text says at a path; a word that stands for a mapping is its main key.
export function written(path) {
  let place = state.written;
  for (const [depth, key] of path.entries()) {
    if (typeof place === "string" && depth === 1) return SHORT[path[0]] === key ? place : undefined;
    if (place === null || typeof place !== "object") return undefined;
    place = place[key];
  }
  return place;
}

function asText(value) {
  if (value === undefined || value === null) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export function faultAt(path) {
  const dotted = path.join(".");
  return state.faults.find((fault) => fault.path === dotted || (fault.path && fault.path.startsWith(`${dotted}.`)));
}

const put = (path, text) => change({ path, value: text.trim() === "" ? null : text });

export function field({ path, label, hint, entries, options, value = written(path), also = [] }) {
  const id = `field-${path.join("-")}`;
  const fault = faultAt(path);
  const common = { id, key: id, value: asText(value), placeholder: hint || "", invalid: fault ? "true" : null, describedBy: fault ? `${id}-why` : null };
  const control = entries ? combo({ ...common, entries, commit: (text) => put(path, text) }) : options ? choice(common, path, options, also) : plain(common, path);
  const why = fault ? el("p", { class: "why", id: `${id}-why` }, fault.reason) : null;
  return el("div", { class: "field" }, el("label", { for: id }, label), control, why);
}

function plain({ id, key, value, placeholder, invalid, describedBy }, path) {
  let last = value;
  const commit = (event) => {
    if (event.target.value === last) return;
    last = event.target.dataset.shown = event.target.value;
    put(path, last);
  };
  const onkeydown = (event) => event.key === "Enter" && commit(event);
  return el("input", { id, "data-key": key, "data-shown": value, value, placeholder, type: "text", spellcheck: "false", autocomplete: "off", "aria-invalid": invalid, "aria-describedby": describedBy, onchange: commit, onkeydown });
}

function choice({ id, key, value, placeholder, invalid, describedBy }, path, options, also) {
  const names = options.includes(value) || value === "" ? options : [value, ...options];
  const rows = [el("option", { value: "" }, placeholder || "(default)"), ...names.map((name) => el("option", { value: name }, name))];
  const node = el("select", { id, "data-key": key, "aria-invalid": invalid, "aria-describedby": describedBy, onchange: (event) => change({ path, value: event.target.value || null }, ...also) }, rows);
  node.value = value;
  return node;
}

// What somebody types or drags right now is theirs: it is drawn anew when they have let go.
function isInUse(place) {
  const active = document.activeElement;
  if (!place.contains(active)) return false;
  const isTyped = active.matches("input[type=text]") && active.value !== active.dataset.shown;
  if ((isTyped || active.type === "range") && !place.dataset.late) {
    place.dataset.late = "yes";
    active.addEventListener("blur", () => setTimeout(() => released(place)), { once: true });
  }
  return Boolean(place.dataset.late);
}

function released(place) {
  delete place.dataset.late;
  (place.id === "device" ? drawDevice : drawSettings)(state);
}

export function drawSettings(now) {
  if (!now.catalogue || !now.yaml || isInUse(byId("settings"))) return;
  const { models, engines, rules, quantisations } = now.catalogue;
  const complete = now.answer?.complete || {};
  const names = engines.map((one) => one.name);
  show(byId("settings"),
    field({ path: ["model", "name"], label: "Model", entries: models }),
    el("div", { class: "grid2" },
      field({ path: ["model", "quantisation"], label: "Quantisation", entries: quantisations, hint: complete.model?.quantisation }),
      engineField(now, names),
      field({ path: ["placement", "rule"], label: "Placement rule", hint: written(["placement", "layers"]) ? "by hand" : "(default)", options: rules.filter((rule) => rule !== "manual") }),
      field({ path: ["workload", "prompt_tokens"], label: "Prompt (tokens)", hint: "128" }),
      field({ path: ["workload", "output_tokens"], label: "Reply (tokens)", hint: "256" }),
      field({ path: ["workload", "concurrency"], label: "Chats at once", hint: "1" }),
      field({ path: ["replications"], label: "Replications", hint: "200" })),
    more("More fields of the scenario", scenarioFields()));
}

// An engine's name stands for its strategy too: what said that apart goes when another is chosen.
function engineField(now, names) {
  const told = written(["engine", "sharding"]) ? now.answer?.prediction.engine : written(["engine", "name"]);
  const apart = ["sharding", "backend"].filter((key) => written(["engine", key]) !== undefined);
  const node = field({ path: ["engine", "name"], label: "Engine and strategy", options: names, value: told, also: apart.map((key) => ({ path: ["engine", key], value: null })) });
  return node;
}

export function drawDevice(now) {
  if (!now.catalogue || !now.yaml || isInUse(byId("device"))) return;
  const names = Object.keys(written(["devices"]) || {});
  const name = names.includes(now.selected) ? now.selected : names[0];
  if (!name) return show(byId("device"), el("p", { class: "muted" }, "No device yet."));
  const at = (...keys) => ["devices", name, ...keys];
  const complete = now.answer?.complete?.devices?.[name] || {};
  show(byId("device"),
    el("div", { class: "row" }, chooser(names, name), el("button", { type: "button", "data-key": "remove", disabled: names.length < 2, onclick: () => remove(name) }, "Remove")),
    field({ path: at("kind"), label: "Device of the catalogue", entries: now.catalogue.devices }),
    el("div", { class: "grid2" },
      field({ path: at("memory"), label: "Memory", hint: options(now, written(at("kind"))) }),
      field({ path: at("link", "kind"), label: "Link", entries: now.catalogue.networks, hint: complete.link?.kind }),
      field({ path: at("link", "rtt"), label: "Round trip to its access point", hint: hintOfRoundTrip(now, name) }),
      field({ path: at("background_load"), label: "Other work on it", hint: "0 %" })),
    slider(now, name, at("link", "rtt")),
    more("More fields of this device", [...rest(at(), "DeviceSpec", ["kind", "memory", "background_load", "link"]), ...rest(at("link"), "LinkSpec", ["kind", "rtt"])]));
}

function chooser(names, name) {
  const node = el("select", { id: "which", "data-key": "which", onchange: (event) => select(event.target.value) }, names.map((one) => el("option", { value: one }, one)));
  node.value = name;
  return el("div", { class: "field" }, el("label", { for: "which" }, "Which device"), node);
}

function remove(name) {
  select(null);
  change({ path: ["devices", name], value: null });
}

function options(now, kind) {
  const found = now.catalogue.devices.find((one) => one.name === kind);
  return found?.memory_bytes ? found.memory_bytes.map((bytes) => `${Math.round(bytes / 2 ** 30)} GiB`).join(", ") : "24 GB";
}

function hintOfRoundTrip(now, name) {
  const link = now.answer?.links?.[name];
  return link ? `now ${seconds(link.round_trip_s)}` : "3 ms";
}

// How far away a device is: from a cable to another continent, on a scale of factors.
function slider(now, name, path) {
  const link = now.answer?.links?.[name];
  const value = Math.log10(Math.max(1e-4, link?.round_trip_s || 3e-3));
  const text = (exponent) => `${Number((1e3 * 10 ** exponent).toPrecision(2))} ms`;
  return el("div", { class: "field" }, el("label", { for: "distance" }, "Distance: nearer or further away"),
    el("input", { id: "distance", "data-key": "distance", type: "range", min: -4, max: 0, step: 0.05, value, "aria-valuetext": text(value),
      onpointerdown: (event) => event.target.focus(), oninput: (event) => farther(event.target, path, text) }));
}

const slug = (title) => title.toLowerCase().replaceAll(" ", "-");

function farther(node, path, text) {
  const value = text(Number(node.value));
  node.setAttribute("aria-valuetext", value);
  byId(`field-${path.join("-")}`).value = value;
  change({ path, value });
}

function more(title, fields) {
  const isOpen = fields.some((node) => node.querySelector("[aria-invalid]")) || byId(slug(title))?.open;
  return el("details", { id: slug(title), open: isOpen }, el("summary", { "data-key": title }, title), el("div", { class: "grid2" }, fields));
}

// All other keys that the schema knows, as text: the same as in the file.
function rest(at, spec, known) {
  const properties = state.catalogue.schema.$defs[spec]?.properties || {};
  return Object.keys(properties).filter((key) => !known.includes(key)).map((key) => field({ path: [...at, key], label: [...at.slice(2), key].join("."), hint: properties[key].description || "" }));
}

function scenarioFields() {
  const of = (name, spec, known) => rest([name], spec, known).map(named(name));
  const named = (name) => (node) => {
    node.querySelector("label").textContent = `${name}.${node.querySelector("label").textContent}`;
    return node;
  };
  const top = ["name", "question", "seed", "access_points", "wires", "shared_host", "common_noise", "events", "recovery", "swarm"];
  return [...top.map((key) => field({ path: [key], label: key })), ...of("model", "ModelSpec", ["name", "quantisation"]), ...of("engine", "EngineSpec", ["name"]), ...of("placement", "PlacementSpec", ["rule"]), ...of("workload", "WorkloadSpec", ["prompt_tokens", "output_tokens", "concurrency"])];
}

export function addDevice() {
  const names = Object.keys(written(["devices"]) || {});
  const name = Array.from({ length: 99 }, (_, at) => `device_${at + 1}`).find((one) => !names.includes(one));
  select(name);
  change({ path: ["devices", name], value: { kind: "MacBook Air M4", memory: "16 GB", link: { kind: "wifi6" } } });
  setTimeout(() => byId(`field-devices-${name}-kind`)?.focus(), 600);
}
