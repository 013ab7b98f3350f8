// One conversation on screen: asks, stops, tries again, and keeps what was said.

import { announce, follow, notify } from "./announce.js";
import * as api from "./api.js";
import { byId, el, fill, keep } from "./dom.js";
import { draftOf, graphOf } from "./draft.js";
import { Pace } from "./pace.js";
import { sheet, SMALL } from "./panel.js";
import { asRun, PlanEditor } from "./plan_editor.js";
import { answerOf, apply, fail, openRun, stop } from "./run.js";
import { Scroll } from "./scroll.js";
import { newConversation } from "./store.js";
import { brief, plural } from "./text.js";
import { AnswerView, userElement, welcome } from "./turns.js";

/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./store.js").AnswerTurn} AnswerTurn */
/** @typedef {import("./store.js").Conversation} Conversation */
/** @typedef {import("./store.js").UserTurn} UserTurn */
/** @typedef {import("./composer.js").Composer} Composer */
/** @typedef {import("./panel.js").Panel} Panel */
/** @typedef {{abort: AbortController, turn: AnswerTurn | null, conversation: Conversation, isAbandoned: boolean}} Running
 *   without a turn while a plan is made */

const TICK_MS = 200;

export class Talk {
  /** @param {Panel} panel @param {{changed: (conversation: Conversation) => Promise<void>, ended: (run: Run) => void}} told */
  constructor(panel, told) {
    this.panel = panel;
    this.told = told;
    /** @type {Composer} */
    this.composer;
    this.log = byId("log");
    this.scroll = new Scroll(byId("scroll"), byId("to-end"));
    this.conversation = newConversation();
    /** @type {Map<AnswerTurn, AnswerView>} */
    this.views = new Map();
    /** @type {WeakMap<UserTurn, HTMLElement>} */
    this.questions = new WeakMap();
    /** @type {Running | null} */
    this.running = null;
    /** @type {PlanEditor | null} */
    this.editor = null;
    this.pace = new Pace(() => this.#update());
  }

  /** @param {Conversation} conversation */
  open(conversation) {
    this.conversation = conversation;
    this.views.clear();
    this.editor = null;
    // What was said long ago is not news.
    this.log.setAttribute("aria-live", "off");
    this.#draw();
    requestAnimationFrame(() => this.log.setAttribute("aria-live", "polite"));
    const last = conversation.turns.findLast(({ role }) => role === "assistant");
    this.panel.inspect(/** @type {AnswerTurn | undefined} */ (last)?.run ?? null);
    if (last) this.scroll.toEnd();
    else this.scroll.toStart();
  }

  /** @param {string} text what the user says next */
  ask(text) {
    if (this.running) return;
    this.#cancelPlan();
    this.conversation.title ||= brief(text, 80);
    this.conversation.turns.push({ role: "user", text });
    this.#answer();
  }

  stop() {
    this.running?.abort.abort();
  }

  /** Nothing is kept any more of the conversation with this id. @param {string} id */
  abandon(id) {
    if (this.running?.conversation.id !== id) return;
    this.running.isAbandoned = true;
    this.stop();
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
    this.scroll.toEnd();
    void (this.composer.plansFirst ? this.#plan() : this.#run(api.ask));
  }

  async #plan() {
    const running = this.#begin(null);
    const { conversation, abort } = running;
    this.#draw();
    announce("Making a plan");
    try {
      const view = await api.plan(this.#messages(), this.composer.options, abort.signal);
      if (conversation === this.conversation) this.#edit(view);
    } catch (error) {
      end(this.#push(conversation).run, error, abort.signal);
    }
    this.#over();
    if (conversation === this.conversation) this.#draw();
  }

  /** @param {AnswerTurn | null} turn @returns {Running} */
  #begin(turn) {
    this.running = { abort: new AbortController(), turn, conversation: this.conversation, isAbandoned: false };
    this.composer.running(true);
    return this.running;
  }

  #over() {
    this.running = null;
    this.composer.running(false);
  }

  /** @param {any} view what `POST /v1/plan` answered */
  #edit(view) {
    const draft = draftOf(view);
    const run = (/** @type {import("./draft.js").Draft} */ chosen) => {
      this.editor = null;
      void this.#run((messages, options, signal) => api.runPlan(graphOf(chosen), messages, options, signal));
    };
    const cancel = () => {
      this.#cancelPlan();
      this.#draw();
      this.composer.focus();
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

  /** @param {Conversation} conversation */
  #push(conversation) {
    /** @type {AnswerTurn} */
    const turn = { role: "assistant", run: openRun(), rating: "" };
    conversation.turns.push(turn);
    return turn;
  }

  /** @param {(messages: import("./api.js").Message[], options: import("./api.js").Options, signal: AbortSignal) =>
   *   AsyncIterable<any>} start */
  async #run(start) {
    const messages = this.#messages();
    const { conversation } = this;
    const turn = this.#push(conversation);
    const running = this.#begin(turn);
    this.panel.inspect(turn.run);
    this.panel.tab("tasks");
    this.#draw();
    this.composer.focus();
    void this.told.changed(conversation); // whoever leaves now finds the question again
    const started = performance.now();
    const ticking = setInterval(() => this.pace.soon(), TICK_MS);
    try {
      for await (const event of start(messages, this.composer.options, running.abort.signal)) {
        apply(turn.run, event, performance.now());
        follow(turn.run, event);
        this.pace.soon();
      }
    } catch (error) {
      end(turn.run, error, running.abort.signal);
    }
    clearInterval(ticking);
    turn.run.seconds = (performance.now() - started) / 1000;
    this.#over();
    this.told.ended(turn.run);
    this.pace.soon();
    conversation.updated = Date.now();
    if (!running.isAbandoned) await this.told.changed(conversation);
  }

  /** Bring the last answer and its graph up to date. */
  #update() {
    const last = this.conversation.turns[this.conversation.turns.length - 1];
    this.scroll.following(() => last?.role === "assistant" && this.views.get(last)?.show());
    this.panel.show();
  }

  /** Put every turn on screen. */
  #draw() {
    const { conversation, editor } = this;
    const title = brief(conversation.title, 80);
    byId("title").textContent = title || "New conversation";
    document.title = title ? `${title} · monai-node` : "monai-node";
    if (conversation.turns.length === 0) return fill(this.log, welcome((text) => this.ask(text)));
    const elements = conversation.turns.map((turn) => (turn.role === "user" ? this.#question(turn) : this.#view(turn).element));
    const isPlanning = this.running?.conversation === conversation && !this.running.turn;
    keep(this.log, ...elements, editor?.element ?? (isPlanning && el("p", { class: "hint turn" }, "Making a plan…")));
  }

  /** @param {UserTurn} turn */
  #question(turn) {
    const element = this.questions.get(turn) ?? userElement(turn, (text) => this.#again(turn, text));
    this.questions.set(turn, element);
    return element;
  }

  /** @param {AnswerTurn} turn */
  #view(turn) {
    let view = this.views.get(turn);
    if (!view) {
      view = new AnswerView(turn, {
        inspect: (of, task, opens) => this.#inspect(of, task, opens),
        point: (of, tasks) => this.panel.run === of.run && this.point(tasks),
        retry: (of) => this.#retry(of),
        rate: (of, rating) => void this.#rate(of, rating),
      });
      this.views.set(turn, view);
      view.show();
    }
    return view;
  }

  /** @param {AnswerTurn} turn @param {string} task @param {boolean} opens the panel, where it is not seen */
  #inspect(turn, task, opens) {
    this.panel.tab("tasks");
    this.panel.inspect(turn.run, task);
    if (opens && SMALL.matches) sheet("panel");
    this.point([task]);
  }

  /** Let tasks stand out, in the graph and in the answer. @param {string[]} tasks */
  point(tasks) {
    this.panel.graph.point(tasks);
    for (const [turn, view] of this.views) view.point(turn.run === this.panel.run ? tasks : []);
  }

  /** Ask again with other words; what was said after them goes. @param {UserTurn} turn @param {string} text */
  #again(turn, text) {
    if (this.running) return;
    this.conversation.turns.length = this.conversation.turns.indexOf(turn);
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
      return notify(error instanceof Error ? error.message : "It could not be rated.");
    }
    if (task) this.panel.ratings.set(task, rating);
    else turn.rating = rating;
    notify("Thank you: peers are chosen by it.");
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
