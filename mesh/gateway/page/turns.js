// What was said: the user's turns, and answers whose parts show who made them.

import { copyButton, el, fill, icon, iconButton } from "./dom.js";
import { hueOf } from "./hue.js";
import { MarkdownView } from "./render.js";
import { answerOf, holder, wasHandedOn } from "./run.js";
import { brief, clean, duration, peerLabel, plural } from "./text.js";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./run.js").Task} Task */
/** @typedef {import("./store.js").AnswerTurn} AnswerTurn */
/** @typedef {import("./store.js").UserTurn} UserTurn */
/**
 * @typedef {{inspect: (turn: AnswerTurn, task: string, opens: boolean) => void, point: (turn: AnswerTurn, tasks: string[]) => void,
 *   retry: (turn: AnswerTurn) => void, rate: (turn: AnswerTurn, rating: "up" | "down") => void}} AnswerActs
 */

/** @param {UserTurn} turn @param {(text: string) => void} onEdit told of the new words @returns {HTMLElement} */
export function userElement(turn, onEdit) {
  const words = el("div", { class: "bubble", dir: "auto" }, clean(turn.text));
  const edit = iconButton("edit", "Change your message", () => element.replaceChildren(editor(turn, done, onEdit)));
  const row = el("div", { class: "actions" }, copyButton(() => turn.text, "Copy your message"), edit);
  const element = el("article", { class: "turn asked", "aria-label": "You" }, words, row);
  const done = () => {
    element.replaceChildren(words, row);
    edit.focus();
  };
  return element;
}

/** @param {UserTurn} turn @param {() => void} cancel @param {(text: string) => void} save */
function editor(turn, cancel, save) {
  const field = el("textarea", { dir: "auto", rows: "2", "aria-label": "Your message" });
  field.value = turn.text;
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (field.value.trim()) save(field.value.trim());
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape") cancel();
    else if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    else submit(event);
    event.stopPropagation();
  };
  const back = el("button", { type: "button", class: "quiet", on: { click: cancel } }, "Cancel");
  const go = el("button", { class: "primary" }, "Ask again");
  const form = el("form", { class: "editor", on: { submit, keydown: keys } }, field, el("div", { class: "row end" }, back, go));
  requestAnimationFrame(() => field.focus());
  return form;
}

/** One answer. `show` brings it up to date with its turn. */
export class AnswerView {
  /** @param {AnswerTurn} turn @param {AnswerActs} acts */
  constructor(turn, acts) {
    this.turn = turn;
    this.acts = acts;
    this.strip = el("button", { type: "button", class: "strip", on: { click: () => acts.inspect(turn, "", true) } });
    this.parts = el("div", { class: "parts" });
    this.end = el("div", { class: "end" });
    this.element = el("article", { class: "turn answer", "aria-label": "Answer" }, this.strip, this.parts, this.end);
    /** @type {{task: string, element: HTMLElement, label: HTMLElement, text: MarkdownView}[]} */
    this.views = [];
    this.drawnEnd = "";
  }

  show() {
    const { run } = this.turn;
    const isRunning = run.status === "running";
    this.element.setAttribute("aria-busy", String(isRunning));
    this.element.dataset.state = run.status;
    this.#strip(run);
    run.segments.forEach((segment, at) => {
      this.views[at] ??= this.#part(segment.task);
      this.views[at].text.show(segment.text);
      const task = run.tasks.find(({ id }) => id === segment.task);
      const has = task && holder(task);
      this.views[at].element.dataset.hue = hueOf(has?.peer ?? "");
      this.views[at].label.textContent = task ? makerOf(task) : "";
      if (task) this.views[at].element.setAttribute("aria-label", `Part made by ${makerOf(task)}`);
    });
    this.parts.classList.toggle("is-many", run.segments.length > 1);
    const ended = JSON.stringify([run.status, this.turn.rating, run.tasks.map(({ state }) => state)]);
    if (!isRunning && ended !== this.drawnEnd) {
      this.drawnEnd = ended;
      fill(this.end, errorElement(run), this.#makers(run), this.#actions(run));
    }
  }

  /** Let the parts of these tasks stand out. @param {string[]} tasks */
  point(tasks) {
    for (const view of this.views) view.element.classList.toggle("is-lit", tasks.includes(view.task));
  }

  /** @param {string} task */
  #part(task) {
    const text = new MarkdownView();
    const label = el("bdi", { class: "part-label", "aria-hidden": "true" });
    const on = {
      ...this.#pointing([task]),
      click: () => task && getSelection()?.isCollapsed !== false && this.acts.inspect(this.turn, task, false),
    };
    const element = el("section", { class: "part", role: "group", tabindex: "0", "aria-label": "Part of the answer", on }, label, text.element);
    this.parts.append(element);
    return { task, element, label, text };
  }

  /** @param {Run} run */
  #strip(run) {
    const done = run.tasks.filter(({ state }) => state === "done").length;
    const peers = new Set(run.tasks.flatMap((task) => holder(task)?.peer ?? [])).size;
    const count = run.tasks.length;
    const isRunning = run.status === "running";
    const words = !count
      ? isRunning ? "Reading the request…" : ""
      : isRunning
        ? `${done} of ${plural(count, "task")} done`
        : `${plural(count, "task")}, ${plural(peers, "peer")}, ${duration(run.seconds)}`;
    this.strip.hidden = !words;
    if (this.strip.textContent !== words) fill(this.strip, icon("graph"), el("span", {}, words));
    this.strip.classList.toggle("is-live", isRunning);
  }

  /** @param {string[]} tasks that stand out while an element is pointed at, or has the focus */
  #pointing(tasks) {
    const on = () => this.acts.point(this.turn, tasks);
    const off = () => this.acts.point(this.turn, []);
    return { mouseenter: on, mouseleave: off, focus: on, blur: off };
  }

  /** @param {Run} run */
  #makers(run) {
    const made = Map.groupBy(run.tasks.filter(({ state }) => state === "done"), makerOf);
    if (made.size === 0) return null;
    const chips = [...made].map(([maker, tasks]) => {
      const flags = [tasks.some(({ verdict }) => verdict) && "not quite right", tasks.some(wasHandedOn) && "handed on"];
      const on = { click: () => this.acts.inspect(this.turn, tasks[0].id, true), ...this.#pointing(tasks.map(({ id }) => id)) };
      const title = tasks.map(({ words }) => brief(words, 100)).join("\n");
      return el("button", { type: "button", class: "maker", data: { hue: hueOf(holder(tasks[0])?.peer ?? "") }, title, on },
        el("span", { class: "dot", "aria-hidden": "true" }), el("bdi", {}, maker),
        el("span", { class: "faint" }, tasks.length > 1 ? `${tasks.length} tasks` : duration(tasks[0].seconds)),
        el("span", { class: "flag" }, flags.filter(Boolean).join(", ")));
    });
    return el("div", { class: "made-by" }, el("span", { class: "faint" }, "Made by"), ...chips);
  }

  /** @param {Run} run */
  #actions(run) {
    const { turn, acts } = this;
    const text = answerOf(run);
    const thumb = (/** @type {"up" | "down"} */ way, /** @type {string} */ name) =>
      iconButton(way, name, () => acts.rate(turn, way), { "aria-pressed": String(turn.rating === way) });
    const canRate = run.id && run.status === "done";
    const usage = run.tokens ? `${plural(run.tokens, "token")}${run.finish === "length" ? ", cut at the limit" : ""}` : "";
    return el("div", { class: "actions" },
      text && copyButton(() => answerOf(run), "Copy the answer"),
      iconButton("retry", "Ask again", () => acts.retry(turn)),
      canRate && thumb("up", "Good answer"), canRate && thumb("down", "Bad answer"),
      el("span", { class: "faint" }, usage));
  }
}

/** "qwen2.5 on anna". @param {Task} task */
function makerOf(task) {
  const has = holder(task);
  const what = brief(task.model || has?.skill || "", 40);
  const who = has ? peerLabel(has.peerName, has.peer) : "";
  return what && who ? `${what} on ${who}` : what || who;
}

/** @param {Run} run */
function errorElement(run) {
  if (run.status === "stopped") return el("p", { class: "notice" }, "You stopped this answer.");
  if (!run.error) return null;
  return el("p", { class: "notice is-error", role: "alert", dir: "auto" }, sentence(run.error.message));
}

/** @param {string} message */
function sentence(message) {
  const text = brief(message, 600);
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…`]$/.test(text) ? "" : ".");
}

const EXAMPLES = [
  "What is 37 * 49, and write a two-line poem about rivers",
  "Name three trees, then describe each of them in one sentence",
  "How many days are there between 2026-03-01 and 2026-12-24? And explain leap years to a child.",
];

/** What stands where nothing was said yet. @param {(text: string) => void} ask @returns {HTMLElement} */
export function welcome(ask) {
  const example = (/** @type {string} */ text) =>
    el("li", {}, el("button", { type: "button", class: "example", on: { click: () => ask(text) } }, text));
  return el("section", { class: "welcome" },
    el("h3", {}, "What should the mesh do?"),
    el("p", {}, "Ask for several things at once. Each becomes a task, each task goes to the peer that does it best, and every part of the answer says who made it."),
    el("ul", {}, ...EXAMPLES.map(example)));
}
