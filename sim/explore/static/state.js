// The one scenario of the page, what was answered about it, and the way back.
//
// The text is the truth. Changes go to the server as edits of the last text that it gave back; those that a
// newer request has overtaken travel with that one, so that none is lost while somebody drags.

import { ask } from "./api.js";
import { say } from "./dom.js";

const SETTLED_MS = 350;
const ONE_ACT_MS = 900;

export const state = {
  yaml: "", written: {}, answer: null, limits: null, against: null, faults: [], error: "", isBusy: false,
  selected: null, past: [], future: [], catalogue: null, lastPath: null,
};
const listeners = [];
let pending = [];
let sequence = 0;
let confirmed = 0;
let reference = null;
let timer = 0;
let flight = null;
let lastAct = { path: "", at: 0 };

export const listen = (listener) => listeners.push(listener);
export const notify = () => listeners.forEach((listener) => listener(state));

export function change(...edits) {
  remember(edits.map((edit) => edit.path.join(".")).join());
  state.lastPath = edits[0].path.join(".");
  for (const edit of edits) {
    pending = pending.filter((one) => one.path.join() !== edit.path.join());
    pending.push({ ...edit, sequence: ++sequence });
  }
  answerSoon();
}

export function write(yaml, { isOneAct = false } = {}) {
  remember(isOneAct ? "text" : `text ${sequence}`);
  state.lastPath = null;
  replace(yaml);
}

// Another scenario is no change of this one: nothing of the old answer is shown beside it.
export function load(yaml) {
  Object.assign(state, { selected: null, limits: null, against: null });
  write(yaml);
  reference = null;
}

export function undo() {
  if (!state.past.length) return;
  state.future.push(state.yaml);
  back(state.past.pop());
}

export function redo() {
  if (!state.future.length) return;
  state.past.push(state.yaml);
  back(state.future.pop());
}

function back(yaml) {
  reference = state.yaml;
  lastAct = { path: "", at: 0 };
  replace(yaml);
}

// What was there before an act is kept once, however many steps a drag has.
function remember(path) {
  const now = performance.now();
  const goesOn = path === lastAct.path && now - lastAct.at < ONE_ACT_MS;
  lastAct = { path, at: now };
  if (goesOn || !state.yaml) return;
  state.past.push(state.yaml);
  state.past = state.past.slice(-200);
  state.future = [];
  reference = state.yaml;
}

function replace(yaml) {
  state.yaml = yaml;
  pending = [];
  confirmed = ++sequence;
  answerSoon();
}

function answerSoon() {
  state.isBusy = true;
  notify();
  // when the act that this belongs to has been noted to its end
  queueMicrotask(() => request(true));
}

async function request(quick) {
  clearTimeout(timer);
  const upTo = sequence;
  const edits = pending.map(({ path, value }) => ({ path, value }));
  const body = { scenario: state.yaml, edits, quick, against: reference };
  flight?.abort();
  flight = new AbortController();
  const found = await ask("predict", body, flight.signal).catch((refused) => refused);
  if (!(found instanceof Error)) take(found, upTo, quick);
  // of what a newer request has overtaken nobody waits for an answer
  else if (found.status !== 409) refuse(found, upTo);
}

function take(found, upTo, quick) {
  if (upTo < sequence) {
    settle(found.yaml, upTo);
    return;
  }
  settle(found.yaml, upTo);
  Object.assign(state, { answer: found, written: found.written, faults: [], error: "", isBusy: quick });
  state.against = found.against || null;
  if (!quick) state.limits = found;
  notify();
  if (quick) timer = setTimeout(() => request(false), SETTLED_MS);
  else say(`${found.text.tokens_per_s}, all replications`);
}

function refuse(refused, upTo) {
  if (upTo < sequence) return;
  if (refused.yaml) settle(refused.yaml, upTo);
  if (refused.written) state.written = refused.written;
  state.error = refused.message;
  state.faults = refused.faults.length ? refused.faults : atLastField(refused);
  state.isBusy = false;
  notify();
}

// A refusal of the catalogue names no path; it is about the field that was changed last.
function atLastField(refused) {
  return refused.status === 422 ? [{ path: state.lastPath || "", reason: refused.message, line: null }] : [];
}

function settle(yaml, upTo) {
  if (upTo <= confirmed && yaml === state.yaml) return;
  state.yaml = yaml;
  confirmed = upTo;
  pending = pending.filter((edit) => edit.sequence > upTo);
}

export function select(name) {
  state.selected = name;
  notify();
}
