// Questions to the server: the token of the address, one name for this page, and refusals as they are worded.

const client = crypto.getRandomValues(new Uint32Array(3)).join("-");
const token = tokenOfAddress();

export class Refused extends Error {
  constructor(status, found) {
    super(found.error || `the server answered ${status}`);
    this.status = status;
    this.faults = found.faults || [];
    this.yaml = found.yaml || null;
    this.written = found.written || null;
  }
}

function tokenOfAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    // out of the address bar, where screenshots and shared links would show it
    history.replaceState(null, "", location.pathname);
  }
  return given || sessionStorage.getItem("token");
}

export async function ask(path, body, signal) {
  // a refusal comes as an answer: for another status a browser writes an error of its own
  const headers = { "x-sim-client": client, "x-sim-page": "1" };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers["content-type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), credentials: "omit", signal };
  const answer = await sent(`/api/${path}`, options);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok || found.status) throw new Refused(found.status || answer.status, found);
  return found;
}

async function sent(path, options) {
  try {
    return await fetch(path, options);
  } catch (fault) {
    if (fault.name === "AbortError") throw new Refused(409, {});
    throw new Refused(0, { error: "the server does not answer; is `sim explore` still running?" });
  }
}
