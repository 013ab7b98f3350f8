// The task graph on screen: nodes are buttons in a list, links are drawn behind them.

import { drawn, el, fill } from "./dom.js";
import { hueOf } from "./hue.js";
import { layOut } from "./layout.js";
import { holder, wasHandedOn } from "./run.js";
import { brief, duration, peerLabel } from "./text.js";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./run.js").Task} Task */
/** @typedef {import("./layout.js").Point} Point */

const ANSWER = "→"; // no task can be called so
const SIZE = { nodeMin: 128, nodeMax: 260, nodeHeight: 94, gapX: 14, gapY: 34 };
const PILL_HEIGHT = 30;
const EDGE = 4; // padding, so that the outline of a node at the edge is whole

const STATE_WORDS = { waiting: "waiting", sent: "sent", queued: "queued", working: "working", done: "done", failed: "failed" };

export class GraphView {
  /** @param {(task: string) => void} onSelect @param {(tasks: string[]) => void} onPoint none when nothing is pointed at */
  constructor(onSelect, onPoint) {
    this.onSelect = onSelect;
    this.onPoint = onPoint;
    this.links = drawn("svg", { class: "links", "aria-hidden": "true" });
    this.list = el("ol", { class: "nodes", "aria-label": "Tasks" });
    this.pill = el("div", { class: "answer-pill", "aria-hidden": "true" }, "Answer");
    this.canvas = el("div", { class: "canvas" }, this.links, this.list, this.pill);
    this.element = el("div", { class: "graph", on: { keydown: (/** @type {KeyboardEvent} */ event) => this.#move(event) } }, this.canvas);
    this.built = "";
    /** @type {Map<string, HTMLButtonElement>} */
    this.nodes = new Map();
    /** @type {{from: string, to: string, path: SVGElement}[]} */
    this.paths = [];
  }

  /** @param {Run} run @param {string} selected @param {number} now ms */
  show(run, selected, now) {
    const width = (this.element.clientWidth || 360) - 2 * EDGE;
    const ends = run.tasks.filter(({ isShown }) => isShown).map(({ id }) => id);
    const shape = JSON.stringify([width, ends, run.tasks.map(({ id, needs }) => [id, needs])]);
    if (shape !== this.built) this.#build(run, ends, width);
    this.built = shape;
    run.tasks.forEach((task, at) => this.#update(run, task, at, task.id === selected, now));
    const states = new Map(run.tasks.map(({ id, state }) => [id, state]));
    for (const { from, to, path } of this.paths) {
      const isDone = states.get(from) === "done";
      const isLive = isDone && (to === ANSWER ? run.status === "running" : states.get(to) === "working");
      path.setAttribute("class", isLive ? "is-live" : isDone ? "is-done" : "");
    }
    this.pill.dataset.state = run.status;
  }

  /** Let the nodes of these tasks stand out. @param {string[]} tasks */
  point(tasks) {
    this.list.classList.toggle("has-point", tasks.some((task) => this.nodes.has(task)));
    for (const [id, node] of this.nodes) node.classList.toggle("is-lit", tasks.includes(id));
  }

  /** @param {Run} run @param {string[]} ends @param {number} width */
  #build(run, ends, width) {
    const nodes = run.tasks.map(({ id, needs }) => ({ id, needs }));
    const layout = layOut(ends.length ? [...nodes, { id: ANSWER, needs: ends }] : nodes, { ...SIZE, width });
    const height = ends.length ? layout.height - SIZE.nodeHeight + PILL_HEIGHT : layout.height;
    Object.assign(this.canvas.style, { width: `${layout.width}px`, height: `${Math.max(height, 0)}px` });
    this.links.setAttribute("viewBox", `0 0 ${layout.width} ${height}`);
    this.paths = layout.links.map(({ from, to, points }) => ({ from, to, path: drawn("path", { d: curve(points) }) }));
    fill(this.links, ...this.paths.map(({ path }) => path));
    const focused = [...this.nodes].find(([, node]) => node === document.activeElement)?.[0];
    this.nodes = new Map(run.tasks.map((task) => [task.id, this.#node(task)]));
    fill(this.list, ...run.tasks.map(({ id }) => el("li", {}, this.nodes.get(id))));
    for (const [id, node] of this.nodes) place(node, layout.places.get(id), layout.nodeWidth);
    const end = layout.places.get(ANSWER);
    this.pill.hidden = !end;
    if (end) place(this.pill, { x: end.x + layout.nodeWidth / 2 - 48, y: end.y }, 96);
    if (focused) this.nodes.get(focused)?.focus();
  }

  /** @param {Task} task @returns {HTMLButtonElement} */
  #node(task) {
    const point = (/** @type {string[]} */ ...ids) => () => this.onPoint(ids);
    const on = {
      click: () => this.onSelect(task.id),
      mouseenter: point(task.id), mouseleave: point(), focus: point(task.id), blur: point(),
    };
    return el("button", { type: "button", class: "node", on },
      el("span", { class: "node-head" }, el("span", { class: "dot" }), el("bdi", { class: "who" }), el("span", { class: "time" })),
      el("span", { class: "words", dir: "auto" }, brief(task.words, 160)),
      el("span", { class: "node-foot" }),
      el("span", { class: "flow" }),
    );
  }

  /** @param {Run} run @param {Task} task @param {number} at @param {boolean} isSelected @param {number} now */
  #update(run, task, at, isSelected, now) {
    const node = this.nodes.get(task.id);
    if (!node) return;
    const has = holder(task);
    const who = has ? peerLabel(has.peerName, has.peer) : "";
    const isOpen = run.status === "running" && has !== null && task.state !== "done" && task.state !== "failed";
    const seconds = isOpen ? (now - task.sent) / 1000 : task.seconds;
    const [head, words, foot] = node.children;
    Object.assign(node.dataset, { state: task.state, hue: hueOf(has?.peer ?? ""), handed: String(wasHandedOn(task)) });
    say(head.children[1], who || `Task ${at + 1}`);
    say(head.children[2], has && seconds >= 0 ? duration(seconds) : "");
    say(words, brief(task.words, 160));
    say(foot, footOf(run, task));
    node.setAttribute("aria-pressed", String(isSelected));
    const needs = task.needs.map((need) => run.tasks.findIndex(({ id }) => id === need) + 1);
    node.setAttribute("aria-label", [
      `Task ${at + 1} of ${run.tasks.length}: ${brief(task.words, 160)}`,
      who ? `${STATE_WORDS[task.state]}, ${who}` : STATE_WORDS[task.state],
      wasHandedOn(task) ? "handed on by another peer" : "",
      needs.length ? `needs task ${needs.join(", ")}` : "",
    ].filter(Boolean).join(". "));
  }

  /** Arrow keys go through the tasks. @param {KeyboardEvent} event */
  #move(event) {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const nodes = [...this.nodes.values()];
    const at = nodes.findIndex((node) => node === document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = nodes[(at + step + nodes.length) % nodes.length];
    next.focus();
    if (next.getAttribute("aria-pressed") !== "true") next.click();
  }
}

/** @param {Run} run @param {Task} task */
function footOf(run, task) {
  if (task.state === "failed") return "failed";
  if (task.state === "done" || run.status === "planned") return task.model;
  if (run.status !== "running") return run.status === "stopped" ? "not done" : "";
  if (task.state === "queued") return `queued, ${task.position} before it`;
  if (task.state === "working") return task.result ? `${task.result.length.toLocaleString("en")} characters` : "reading";
  if (task.state === "sent") return wasHandedOn(task) ? "handed on" : "sent";
  const open = task.needs.map((need) => run.tasks.findIndex(({ id, state }) => id === need && state !== "done") + 1);
  const numbers = open.filter((number) => number > 0);
  return numbers.length ? `waits for ${numbers.join(", ")}` : "waiting";
}

/** @param {Element} element @param {string} text */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {HTMLElement} element @param {Point | undefined} at @param {number} width */
function place(element, at, width) {
  if (at) Object.assign(element.style, { left: `${at.x}px`, top: `${at.y}px`, width: `${width}px` });
}

/** Down through these points, each pair of them a smooth bend. @param {Point[]} points */
function curve(points) {
  return points.map(({ x, y }, at) => {
    if (at === 0) return `M${x} ${y}`;
    const middle = (points[at - 1].y + y) / 2;
    return `C${points[at - 1].x} ${middle} ${x} ${middle} ${x} ${y}`;
  }).join("");
}
