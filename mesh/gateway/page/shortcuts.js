// Everything by keyboard, and the list of it.

import { byId, el, fill, put } from "./dom.js";
import { choose, setting } from "./settings.js";

/** @typedef {{keys: string[], words: string, act: () => void}} Shortcut */

/** @param {Shortcut[]} shortcuts single keys, pressed outside of text fields @param {() => void} onEscape */
export function install(shortcuts, onEscape) {
  const isOn = byId("single-keys");
  // Speech input types letters: whoever uses it turns these off (WCAG 2.1.4).
  isOn.checked = setting("singleKeys") === "on";
  isOn.addEventListener("change", () => choose("singleKeys", isOn.checked ? "on" : ""));
  const fixed = [
    [["Enter"], "Send"], [["Shift", "Enter"], "New line"], [["Esc"], "Stop the answer, or close what is open"],
    [["↑", "↓"], "Go through the tasks of the graph"],
  ];
  const rows = [...fixed, ...shortcuts.map(({ keys, words }) => [keys, words])];
  fill(byId("keys"), ...rows.map(([keys, words]) => row(/** @type {string[]} */ (keys), /** @type {string} */ (words))));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented) return onEscape();
    const target = /** @type {HTMLElement} */ (event.target);
    const isTyping = target.closest("input, textarea, select, [contenteditable]") !== null;
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !isOn.checked) return;
    if (document.querySelector("dialog[open]")) return;
    const found = shortcuts.find(({ keys }) => keys.includes(event.key));
    if (!found) return;
    event.preventDefault();
    found.act();
  });
}

/** @param {string[]} keys @param {string} words */
function row(keys, words) {
  const named = el("dt", {});
  for (const key of keys) put(named, el("kbd", {}, key));
  return el("div", {}, named, el("dd", {}, words));
}
