// One conversation on screen: asks, stops, tries again, and keeps what was said.

import * as api from "./api.js";
import { byId, el, fill } from "./dom.js";
import { draftOf, graphOf } from "./draft.js";
import { asRun, PlanEditor } from "./plan_editor.js";
import { answerOf, apply, fail, openRun, stop } from "./run.js";
import { newConversation } from "./store.js";
import { brief, clean, plural } from "./text.js";
import { announce, AnswerView, userElement, welcome } from "./turns.js";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./store.js").AnswerTurn} AnswerTurn */
/** @typedef {import("./store.js").Conversation} Conversation */
/** @typedef {import("./composer.js").Composer} Composer */
/** @typedef {import("./panel.js").Panel} Panel */

const NEAR_PX = 120; // from the end: whoever reads there wants to follow
const BUSY = 4; // drawing may take one part in so many of the time
const TICK_MS = 200;

export class Talk {
  /** @param {Panel} panel @param {{changed: (conversation: Conversation) => Promise<void>, ended: (run: Run) => void}} told */
  constructor(panel, told) {
    this.panel = panel;
    this.told = told;
    /** @type {Composer} */
    this.composer;
    this.log = byId("log");
    this.scroller = byId("scroll");
    this.conversation = newConversation();
    /** @type {Map<AnswerTurn, AnswerView>} */
    this.views = new Map();
    /** @type {{abort: AbortController, turn: AnswerTurn | null, conversation: Conversation} | null} */
    this.running = null;
    this.drawAgain = 0; // ms: not before
    this.isDrawing = false;
  }

  /** @param {Conversation} conversation */
  open(conversation) {
    this.conversation = conversation;
    this.views.clear();
    this.editor = null;
    this.#draw();
    const last = conversation.turns.findLast(({ role }) => role === "assistant");
    this.panel.inspect(/** @type {AnswerTurn | undefined} */ (last)?.run ?? null);
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** @param {string} text what the user says next */
  ask(text) {
    if (this.running) return;
    this.#cancelPlan();
    this.conversation.title ||= brief(text, 80);
    this.conversation.turns.push({ role: "user", text: clean(text) });
    this.#answer();
  }

  stop() {
    this.running?.abort.abort();
  }

  /** What was said, as the API takes it; a turn without an answer is left out with its question.
   * @returns {import("./api.js").Message[]} */
  #messages() {
    const said = this.conversation.turns.map((turn) =>
      turn.role === "user"
        ? { role: /** @type {const} */ ("user"), content: turn.text }
        : { role: /** @type {const} */ ("assistant"), content: answerOf(turn.run) },
    );
    return said.filter(({ role, content }, at) => content && (role === "assistant" || said[at + 1]?.content !== ""));
  }

  #answer() {
    this.#draw();
    this.scroller.scrollTop = this.scroller.scrollHeight;
    void (this.composer.plansFirst ? this.#plan() : this.#run((options, signal) => api.ask(this.#messages(), options, signal)));
  }

  async #plan() {
    const abort = new AbortController();
    this.running = { abort, turn: null, conversation: this.conversation };
    this.composer.running(true);
    announce("Making a plan");
    try {
      this.#edit(await api.plan(this.#messages(), this.composer.options, abort.signal));
    } catch (error) {
      const turn = this.#push();
      end(turn.run, error, abort.signal);
    }
    this.running = null;
    this.composer.running(false);
    this.#draw();
  }

  /** @param {any} view what `POST /v1/plan` answered */
  #edit(view) {
    const draft = draftOf(view);
    const run = (/** @type {import("./draft.js").Draft} */ chosen) => {
      this.editor = null;
      void this.#run((options, signal) => api.runPlan(graphOf(chosen), this.#messages(), options, signal));
    };
    const cancel = () => {
      this.#cancelPlan();
      this.#draw();
      this.composer.input.focus();
    };
    this.editor = new PlanEditor(draft, (changed) => this.panel.inspect(asRun(changed)), run, cancel);
    this.panel.tab("tasks");
    this.panel.inspect(asRun(draft));
    announce(`The plan has ${plural(draft.tasks.length, "task")}; change it, or run it.`);
  }

  #cancelPlan() {
    if (!this.editor) return;
    this.editor = null;
    const last = this.conversation.turns.pop();
    if (last?.role === "user") this.composer.restore(last.text);
    this.panel.inspect(null);
  }

  #push() {
    /** @type {AnswerTurn} */
    const turn = { role: "assistant", run: openRun(), rating: "" };
    this.conversation.turns.push(turn);
    return turn;
  }

  /** @param {(options: import("./api.js").Options, signal: AbortSignal) => AsyncIterable<any>} start */
  async #run(start) {
    const abort = new AbortController();
    const { conversation } = this;
    // The question is what the answer follows: the events are asked for before the open answer stands there.
    const events = start(this.composer.options, abort.signal);
    const turn = this.#push();
    this.running = { abort, turn, conversation };
    this.composer.running(true);
    this.panel.inspect(turn.run);
    this.panel.tab("tasks");
    this.#draw();
    const started = performance.now();
    const ticking = setInterval(() => this.#later(), TICK_MS);
    try {
      for await (const event of events) {
        apply(turn.run, event, performance.now());
        say(turn.run, event);
        this.#later();
      }
    } catch (error) {
      end(turn.run, error, abort.signal);
    }
    clearInterval(ticking);
    turn.run.seconds = (performance.now() - started) / 1000;
    this.running = null;
    this.composer.running(false);
    this.told.ended(turn.run);
    this.#later();
    conversation.updated = Date.now();
    await this.told.changed(conversation);
  }

  /** Draw with the next frame, but leave the page time for its user. */
  #later() {
    if (this.isDrawing) return;
    this.isDrawing = true;
    const wait = Math.max(0, this.drawAgain - performance.now());
    const draw = () => requestAnimationFrame(() => {
      const before = performance.now();
      this.isDrawing = false;
      this.#update();
      const now = performance.now();
      this.drawAgain = now + BUSY * (now - before);
    });
    if (wait) setTimeout(draw, wait);
    else draw();
  }

  /** Bring the last answer and its graph up to date. */
  #update() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const follows = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    for (const turn of this.conversation.turns.slice(-1)) if (turn.role === "assistant") this.views.get(turn)?.show();
    this.panel.show();
    if (follows) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** Put every turn on screen. */
  #draw() {
    const { conversation, editor } = this;
    const title = brief(conversation.title, 80);
    byId("title").textContent = title || "New conversation";
    document.title = title ? `${title} · monai-node` : "monai-node";
    if (conversation.turns.length === 0) return fill(this.log, welcome((text) => this.ask(text)));
    const elements = conversation.turns.map((turn, at) =>
      turn.role === "user" ? userElement(turn, (text) => this.#again(at, text)) : this.#view(turn).element,
    );
    fill(this.log, ...elements, editor?.element ?? (this.running && !this.running.turn && el("p", { class: "hint turn" }, "Making a plan…")));
  }

  /** @param {AnswerTurn} turn */
  #view(turn) {
    let view = this.views.get(turn);
    if (!view) {
      view = new AnswerView(turn, {
        inspect: (of, task) => this.inspect(of, task),
        point: (of, tasks) => this.panel.run === of.run && this.point(tasks),
        retry: (of) => this.#retry(of),
        rate: (of, rating) => void this.#rate(of, rating),
      });
      this.views.set(turn, view);
      view.show();
    }
    return view;
  }

  /** @param {AnswerTurn} turn @param {string} task */
  inspect(turn, task) {
    this.panel.tab("tasks");
    this.panel.inspect(turn.run, task);
    this.point([task]);
  }

  /** Let tasks stand out, in the graph and in the answer. @param {string[]} tasks */
  point(tasks) {
    this.panel.graph.point(tasks);
    for (const [turn, view] of this.views) view.point(turn.run === this.panel.run ? tasks : []);
  }

  /** Ask again with other words; what was said after them goes. @param {number} at @param {string} text */
  #again(at, text) {
    if (this.running) return;
    this.conversation.turns.length = at;
    this.ask(text);
  }

  /** @param {AnswerTurn} turn */
  #retry(turn) {
    if (this.running) return;
    this.#cancelPlan();
    this.conversation.turns.length = this.conversation.turns.indexOf(turn);
    this.#answer();
  }

  /** @param {AnswerTurn} turn @param {"up" | "down"} rating @param {string | null} task */
  async #rate(turn, rating, task = null) {
    try {
      await api.rate(turn.run.id, task, rating);
    } catch (error) {
      return announce(error instanceof Error ? error.message : "It could not be rated.");
    }
    if (task) this.panel.ratings.set(task, rating);
    else turn.rating = rating;
    announce("Thank you: peers are chosen by it.");
    this.views.get(turn)?.show();
    this.panel.show();
    await this.told.changed(this.conversation);
  }

  /** @param {string} task @param {"up" | "down"} rating */
  rateTask(task, rating) {
    const turn = [...this.views.keys()].find(({ run }) => run === this.panel.run);
    if (turn) void this.#rate(turn, rating, task);
  }
}

/** @param {Run} run @param {unknown} error @param {AbortSignal} signal */
function end(run, error, signal) {
  if (signal.aborted) return stop(run);
  if (error instanceof api.Refused) return fail(run, error);
  fail(run, { message: "This page could not read the gateway's answer: reload it, then try again.", code: "", status: 0 });
  console.error(error);
}

/** For those who listen: what a run came to, not every word of it. @param {Run} run @param {any} event */
function say(run, event) {
  const number = 1 + run.tasks.findIndex(({ id }) => id === event.task);
  if (event.type === "task.completed") announce(`Task ${number} of ${run.tasks.length} is done.`);
  else if (event.type === "task.failed") announce(`Task ${number} failed: ${event.message}`);
  else if (event.type === "task.continued") announce(`Task ${number} is handed on to another peer.`);
  else if (event.type === "answer.completed") announce("The answer is complete.");
}
