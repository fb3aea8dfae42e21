// What one takes away: the scenario as a file, the command that answers the same.

import { el, say } from "./dom.js";
import { state } from "./state.js";

export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const fileName = () => String(state.written?.name || "scenario").replace(/[^A-Za-z0-9_.+-]/g, "_");

export function saveScenario() {
  download(`${fileName()}.yaml`, state.yaml, "application/yaml");
  say("The scenario was saved as a file.");
}

export async function copyCommand() {
  const command = `sim run ${fileName()}.yaml`;
  try {
    await navigator.clipboard.writeText(command);
    say(`Copied: ${command}`);
  } catch {
    window.prompt("The command:", command);
  }
}
