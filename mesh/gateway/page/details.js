// One task in full: its words, who does it and why, what came of it.

import { copyButton, el, fill, iconButton } from "./dom.js";
import { hueOf } from "./hue.js";
import { holder } from "./run.js";
import { brief, clean, duration, peerLabel, plural } from "./text.js";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./run.js").Task} Task */

const RESULT_SHOWN = 4000; // characters; the copy button has all

export class DetailsView {
  /** @param {(task: string, rating: "up" | "down") => void} onRate */
  constructor(onRate) {
    this.onRate = onRate;
    this.element = el("section", { class: "details", "aria-label": "The chosen task" });
    this.drawn = "";
    this.result = el("pre", { class: "result", tabindex: "0", dir: "auto" });
  }

  /** @param {Run} run @param {string} selected @param {Map<string, "up" | "down">} ratings */
  show(run, selected, ratings) {
    const at = run.tasks.findIndex(({ id }) => id === selected);
    const task = run.tasks[at];
    // Without what grows: a button that is pressed should not be built anew under the finger.
    const { result, ...rest } = task ?? { result: "" };
    const drawn = JSON.stringify([rest, run.status, ratings.get(selected)]);
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      fill(this.element, ...(task ? this.#parts(run, task, at, ratings.get(selected)) : [el("p", { class: "hint" }, "Choose a task to see who does it, and why.")]));
    }
    const tail = result.length > RESULT_SHOWN ? `…${result.slice(-RESULT_SHOWN)}` : result;
    if (this.result.textContent !== tail) this.result.textContent = tail;
    if (this.result.parentElement) this.result.parentElement.hidden = !result;
  }

  /** @param {Run} run @param {Task} task @param {number} at @param {"up" | "down" | undefined} rating */
  #parts(run, task, at, rating) {
    const has = holder(task);
    const thumb = (/** @type {"up" | "down"} */ way, /** @type {string} */ name) =>
      iconButton(way, name, () => this.onRate(task.id, way), { "aria-pressed": String(rating === way) });
    const canRate = task.state === "done" && run.status === "done";
    return [
      el("header", {}, el("h3", {}, `Task ${at + 1}`),
        canRate && thumb("up", "This part is good"), canRate && thumb("down", "This part is bad")),
      el("p", { class: "words", dir: "auto" }, clean(task.words)),
      task.error && el("p", { class: "notice is-error", dir: "auto" }, brief(task.error, 600)),
      task.verdict && el("p", { class: "notice", dir: "auto" }, `Not quite what was asked for: ${brief(task.verdict, 400)}`),
      facts(task),
      has && has.reasons.length > 0 && reasons(has.reasons),
      lostPeers(task),
      items(task),
      el("div", {}, el("header", {}, el("h4", {}, "Result"), copyButton(() => task.result, "Copy the result")), this.result),
    ];
  }
}

/** @param {Task} task */
function facts(task) {
  const has = holder(task);
  if (!has) return null;
  const rate = task.tokens && task.seconds > 0 ? `, ${(task.tokens / task.seconds).toFixed(1)} per second` : "";
  const rows = [
    ["Peer", el("bdi", { data: { hue: hueOf(has.peer) }, class: "who" }, el("span", { class: "dot" }), `${peerLabel(has.peerName, has.peer)} · ${has.peer.slice(-8)}`)],
    ["Model", brief(task.model, 80)],
    ["Skill", brief(has.skill, 80)],
    ["Time", task.seconds ? duration(task.seconds) : ""],
    ["Tokens", task.tokens ? `${task.tokens.toLocaleString("en")}${rate}` : ""],
    ["Tries", task.attempts.length > 1 ? String(task.attempts.length) : ""],
  ];
  const said = rows.filter(([, value]) => value !== "");
  return el("dl", {}, ...said.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** @param {string[]} said */
function reasons(said) {
  const entries = said.map((reason) => el("li", { dir: "auto" }, brief(reason, 300)));
  return el("div", {}, el("h4", {}, "Why this peer"), el("ul", { class: "reasons" }, ...entries));
}

/** @param {Task} task */
function lostPeers(task) {
  const lost = task.attempts.slice(0, -1);
  if (lost.length === 0) return null;
  const entry = (/** @type {import("./run.js").Attempt} */ { peer, peerName, lost }) =>
    el("li", {}, el("bdi", {}, peerLabel(peerName, peer)), lost && `: ${brief(lost, 200)}`);
  return el("div", {}, el("h4", {}, "Handed on by"), el("ul", { class: "reasons" }, ...lost.map(entry)));
}

/** @param {Task} task */
function items(task) {
  if (task.items.length === 0) return null;
  const entry = (/** @type {import("./run.js").MadeItem} */ made) => {
    const who = made.peer ? peerLabel(made.peer_name, made.peer) : "nobody";
    const what = made.error ? brief(made.error, 200) : duration(made.seconds);
    return el("li", { data: { hue: hueOf(made.peer) } }, el("span", { class: "dot" }), el("bdi", {}, brief(made.item, 80)), el("span", { class: "faint" }, ` ${who}, ${what}`));
  };
  return el("div", {}, el("h4", {}, `Done for each of ${plural(task.items.length, "item")}`), el("ul", { class: "items" }, ...task.items.map(entry)));
}
