// For those who listen to the page: what happens, in words.

import { byId } from "./dom.js";

/** @typedef {import("./run.js").Run} Run */

/** Say this, once. @param {string} words */
export function announce(words) {
  byId("status").textContent = words;
}

const NOTICE_MS = 4000;
let hiding = 0;

/** Say this, and show it for a while. @param {string} words */
export function notify(words) {
  announce(words);
  const notice = byId("notice");
  notice.textContent = words;
  notice.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => (notice.hidden = true), NOTICE_MS);
}

/** Say what a run came to with this event, not every word of it. @param {Run} run @param {any} event */
export function follow(run, event) {
  const number = 1 + run.tasks.findIndex(({ id }) => id === event.task);
  if (event.type === "task.completed") announce(`Task ${number} of ${run.tasks.length} is done.`);
  else if (event.type === "task.failed") announce(`Task ${number} failed: ${event.message}`);
  else if (event.type === "task.continued") announce(`Task ${number} is handed on to another peer.`);
  else if (event.type === "answer.completed") announce("The answer is complete.");
}
