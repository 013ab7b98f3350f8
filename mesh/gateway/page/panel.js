// What stands beside the conversation: the tasks of one answer, and the mesh. On small screens, sheets.

import { byId, el, fill, icon } from "./dom.js";
import { DetailsView } from "./details.js";
import { GraphView } from "./graph.js";

/** @typedef {import("./run.js").Run} Run */

export const SMALL = matchMedia("(max-width: 1080px)"); // page.css: where the panel is a sheet

export class Panel {
  /** @param {(tasks: string[]) => void} onPoint @param {(task: string, rating: "up" | "down") => void} onRate */
  constructor(onPoint, onRate) {
    /** @type {Run | null} */
    this.run = null;
    this.selected = "";
    /** @type {Map<string, "up" | "down">} */
    this.ratings = new Map();
    this.graph = new GraphView((task) => this.select(this.selected === task ? "" : task), onPoint);
    this.details = new DetailsView(onRate);
    this.empty = el("p", { class: "hint" }, "The tasks of an answer appear here while it is made: who does each, how far they are, and why they were chosen.");
    byId("tasks").append(this.empty, this.graph.element, this.details.element);
    this.#tabs();
    this.#sheets();
    new ResizeObserver(() => this.show()).observe(this.graph.element);
    this.show();
  }

  /** Show this run. @param {Run | null} run @param {string} [selected] a task of it */
  inspect(run, selected = "") {
    if (run !== this.run) this.ratings.clear();
    this.run = run;
    this.selected = selected;
    this.show();
  }

  /** @param {string} task */
  select(task) {
    this.selected = task;
    this.show();
  }

  show() {
    const { run } = this;
    this.empty.hidden = Boolean(run?.tasks.length);
    this.graph.element.hidden = this.details.element.hidden = !run?.tasks.length;
    if (!run) return;
    this.graph.show(run, this.selected, performance.now());
    this.details.show(run, this.selected, this.ratings);
  }

  /** @param {"tasks" | "mesh"} name */
  tab(name) {
    for (const each of ["tasks", "mesh"]) {
      const isChosen = each === name;
      byId(`tab-${each}`).setAttribute("aria-selected", String(isChosen));
      byId(`tab-${each}`).tabIndex = isChosen ? 0 : -1;
      byId(each).hidden = !isChosen;
    }
    this.show();
  }

  #tabs() {
    for (const name of /** @type {const} */ (["tasks", "mesh"])) {
      byId(`tab-${name}`).addEventListener("click", () => this.tab(name));
    }
    byId("tab-tasks").parentElement.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = byId("tasks").hidden ? "tasks" : "mesh";
      this.tab(other);
      byId(`tab-${other}`).focus();
    });
  }

  #sheets() {
    fill(byId("open-sidebar"), icon("menu"));
    fill(byId("open-panel"), icon("graph"));
    fill(byId("close-panel"), icon("close"));
    byId("open-sidebar").addEventListener("click", () => sheet("sidebar"));
    byId("open-panel").addEventListener("click", () => sheet("panel"));
    byId("close-panel").addEventListener("click", () => sheet(""));
    byId("veil").addEventListener("click", () => sheet(""));
    SMALL.addEventListener("change", () => sheet(""));
  }
}

/** On small screens: open this sheet, which closes the other; what it covers cannot be reached meanwhile.
 * @param {"" | "sidebar" | "panel"} name */
export function sheet(name) {
  const before = document.body.dataset.sheet ?? "";
  document.body.dataset.sheet = name;
  for (const each of ["sidebar", "main", "panel"]) byId(each).inert = name !== "" && each !== name;
  byId("veil").hidden = !name;
  for (const each of ["sidebar", "panel"]) byId(`open-${each}`).setAttribute("aria-expanded", String(each === name));
  if (name) byId(name).querySelector("button")?.focus();
  else if (before) byId(`open-${before}`).focus();
}
