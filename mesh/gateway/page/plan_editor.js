// A plan to be changed before it runs.

import { el, fill, iconButton } from "./dom.js";
import { add, complaint, link, linkable, remove, reword, show } from "./draft.js";
import { openRun } from "./run.js";

/** @typedef {import("./draft.js").Draft} Draft */
/** @typedef {import("./run.js").Run} Run */

export class PlanEditor {
  /** @param {Draft} draft @param {(draft: Draft) => void} onChange @param {(draft: Draft) => void} onRun
   * @param {() => void} onCancel */
  constructor(draft, onChange, onRun, onCancel) {
    this.draft = draft;
    this.onChange = onChange;
    this.list = el("ol", { class: "draft" });
    this.complaint = el("p", { class: "notice is-error", role: "alert", hidden: true });
    const run = (/** @type {Event} */ event) => {
      event.preventDefault();
      const wrong = complaint(this.draft);
      this.#complain(wrong);
      if (!wrong) onRun(this.draft);
    };
    const button = (/** @type {string} */ name, /** @type {() => void} */ click) =>
      el("button", { type: "button", class: "quiet", on: { click } }, name);
    this.element = el("form", { class: "turn plan", "aria-label": "The plan", on: { submit: run } },
      el("h3", {}, "The plan is yours"),
      el("p", { class: "hint" }, draft.why),
      this.list,
      this.complaint,
      el("div", { class: "row" }, button("Add a task", () => this.#change(add(this.draft), true)),
        el("span", { class: "grow" }), button("Cancel", onCancel), el("button", { class: "primary" }, "Run this plan")));
    this.#build();
  }

  /** @param {string} wrong */
  #complain(wrong) {
    this.complaint.textContent = wrong;
    this.complaint.hidden = !wrong;
  }

  /** @param {Draft} draft @param {boolean} [isAdded] whether to go to the last task */
  #change(draft, isAdded = false) {
    this.draft = draft;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.key;
    this.#build();
    const key = isAdded ? `words ${draft.tasks[draft.tasks.length - 1].id}` : focused;
    [...this.list.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key)?.focus();
    this.#complain("");
    this.onChange(draft);
  }

  #build() {
    fill(this.list, ...this.draft.tasks.map((task, at) => this.#task(task, at)));
  }

  /** @param {import("./draft.js").PlannedTask} task @param {number} at */
  #task(task, at) {
    const number = at + 1;
    const words = el("textarea", { rows: "1", dir: "auto", "aria-label": `Words of task ${number}`, data: { key: `words ${task.id}` } });
    words.value = task.text;
    words.addEventListener("input", () => {
      this.draft = reword(this.draft, task.id, words.value);
      by.textContent = "";
      this.onChange(this.draft);
    });
    const by = el("span", { class: "faint", dir: "auto" }, this.draft.by[task.id] ? `would go to ${this.draft.by[task.id]}` : "");
    const off = iconButton("trash", `Remove task ${number}`, () => this.#change(remove(this.draft, task.id)));
    return el("li", {},
      el("div", { class: "row" }, el("span", { class: "number", "aria-hidden": "true" }, String(number)), words, off),
      el("div", { class: "row notes" }, this.#needs(task, number), this.#shown(task, number), el("span", { class: "grow" }), by));
  }

  /** @param {import("./draft.js").PlannedTask} task @param {number} number */
  #needs(task, number) {
    const others = linkable(this.draft, task.id);
    if (others.length === 0) return null;
    const chips = others.map((other) => {
      const place = this.draft.tasks.indexOf(other) + 1;
      const isNeeded = task.depends_on.includes(other.id);
      const click = () => this.#change(link(this.draft, task.id, other.id, !isNeeded));
      const name = `Task ${number} is given the result of task ${place}`;
      const own = { "aria-pressed": String(isNeeded), "aria-label": name, title: other.text.slice(0, 120), data: { key: `${task.id} ${other.id}` } };
      return el("button", { type: "button", class: "toggle small", ...own, on: { click } }, String(place));
    });
    return el("span", { class: "needs" }, el("span", { class: "faint" }, "needs"), ...chips);
  }

  /** @param {import("./draft.js").PlannedTask} task @param {number} number */
  #shown(task, number) {
    const isShown = this.draft.shown.includes(task.id);
    const click = () => this.#change(show(this.draft, task.id, !isShown));
    const own = { "aria-pressed": String(isShown), "aria-label": `The result of task ${number} stands in the answer`, data: { key: `shown ${task.id}` } };
    return el("button", { type: "button", class: "toggle small", ...own, on: { click } }, "in the answer");
  }
}

/** A plan as a run that has not begun, for the graph. @param {Draft} draft @returns {Run} */
export function asRun(draft) {
  const run = openRun();
  run.status = "planned";
  run.tasks = draft.tasks.map(({ id, text, depends_on }) => ({
    id, words: text || "…", needs: depends_on, state: "waiting", attempts: [], result: "", model: draft.by[id] ?? "", sent: 0, seconds: 0,
    tokens: 0, position: 0, verdict: "", error: "", items: [], isShown: draft.shown.includes(id),
  }));
  return run;
}
