// The list of conversations.

import { byId, el, fill, iconButton, saveFile } from "./dom.js";
import { answerOf } from "./run.js";
import { ago, brief } from "./text.js";

/** @typedef {import("./store.js").Head} Head */
/** @typedef {import("./store.js").Conversation} Conversation */

/** @param {Head[]} heads newest first @param {string} current @param {{open: (id: string) => void,
 *   remove: (id: string) => void, save: (id: string) => void}} acts */
export function showConversations(heads, current, acts) {
  const entry = (/** @type {Head} */ { id, title, updated }) => {
    const name = brief(title, 60) || "Untitled";
    return el("li", { class: id === current ? "is-current" : null },
      el("button", { type: "button", class: "conversation", "aria-current": id === current ? "page" : null, on: { click: () => acts.open(id) } },
        el("span", { class: "name", dir: "auto" }, name), el("span", { class: "faint" }, ago((Date.now() - updated) / 1000))),
      iconButton("download", `Save “${name}” as a file`, () => acts.save(id)),
      iconButton("trash", `Delete “${name}”`, () => acts.remove(id)));
  };
  const list = byId("conversations");
  if (heads.length) fill(list, ...heads.map(entry));
  else fill(list, el("li", { class: "hint" }, "What you ask will be listed here."));
}

/** A conversation as Markdown, in a file. @param {Conversation} conversation */
export function saveConversation(conversation) {
  const turns = conversation.turns.map((turn) =>
    turn.role === "user" ? `**You:** ${turn.text}` : [answerOf(turn.run), madeBy(turn)].filter(Boolean).join("\n\n"),
  );
  const name = brief(conversation.title, 40).replace(/[^\p{L}\p{N}]+/gu, "-") || "conversation";
  saveFile(`${name}.md`, "text/markdown", `# ${brief(conversation.title, 80)}\n\n${turns.join("\n\n---\n\n")}\n`);
}

/** @param {import("./store.js").AnswerTurn} turn */
function madeBy({ run }) {
  const made = run.tasks.filter(({ state }) => state === "done");
  const lines = made.map(({ words, model, attempts }) => `- ${brief(words, 80)}: ${model} on ${attempts.at(-1)?.peerName ?? ""}`);
  return lines.length ? `Made by\n${lines.join("\n")}` : "";
}
