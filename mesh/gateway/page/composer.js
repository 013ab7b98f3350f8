// The message field and what goes with it: model, privacy, limits, plan first.

import { byId, el, fill, icon } from "./dom.js";
import { choose, setting } from "./settings.js";
import { brief } from "./text.js";

const PRIVACY = {
  local: "Local: only the gateway's own node reads it.",
  trusted: "Trusted: members of your mesh read what they do.",
  open: "Open: any peer may read the tasks it does.",
};
const ROWS_MAX = 10;

export class Composer {
  /** @param {(text: string) => void} onSend @param {() => void} onStop */
  constructor(onSend, onStop) {
    this.input = byId("input");
    this.model = byId("model");
    this.privacy = byId("privacy");
    this.plan = byId("plan-first");
    this.onSend = onSend;
    this.isRunning = false;
    this.#limits();
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      if (this.isRunning) onStop();
      else this.send();
    });
    this.input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      // While letters are composed, Enter chooses among them.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.isRunning) this.send();
    });
    this.input.addEventListener("input", () => this.#fit());
    this.privacy.value = setting("privacy") in PRIVACY ? setting("privacy") : "trusted";
    this.privacy.addEventListener("change", () => this.#private());
    this.plan.addEventListener("click", () => this.togglePlan());
    this.model.addEventListener("change", () => choose("model", this.model.value));
    this.#private();
    this.#planned(setting("planFirst") === "on");
    this.running(false);
  }

  get plansFirst() {
    return this.plan.getAttribute("aria-pressed") === "true";
  }

  /** @returns {import("./api.js").Options} */
  get options() {
    const { value: budget } = byId("budget");
    const deadline = Number(byId("deadline").value);
    return {
      model: this.model.value || "mesh",
      privacy: this.privacy.value,
      budget: budget ? Number(budget) : null,
      deadline: deadline > 0 ? deadline : 120,
    };
  }

  send() {
    const text = this.input.value.trim();
    if (!text) return this.input.focus();
    this.input.value = "";
    this.#fit();
    this.onSend(text);
  }

  /** Go to the message, where that does not bring up a keyboard over half of the screen. */
  focus() {
    if (matchMedia("(hover: hover)").matches) this.input.focus({ preventScroll: true });
  }

  /** Give words back that could not be sent. @param {string} text */
  restore(text) {
    this.input.value ||= text;
    this.#fit();
  }

  /** @param {boolean} isRunning */
  running(isRunning) {
    this.isRunning = isRunning;
    const send = byId("send");
    const name = isRunning ? "Stop" : this.plansFirst ? "Plan" : "Send";
    if (send.getAttribute("aria-label") === name && send.firstChild) return;
    fill(send, icon(isRunning ? "stop" : "send"));
    send.setAttribute("aria-label", name);
    send.title = isRunning ? "Stop (Esc)" : `${name} (Enter)`;
  }

  togglePlan() {
    this.#planned(!this.plansFirst);
    choose("planFirst", this.plansFirst ? "on" : "");
    this.running(this.isRunning);
  }

  /** The models there are now. @param {any[]} models of /v1/models */
  offer(models) {
    const wanted = this.model.value === "mesh" ? setting("model") : this.model.value;
    const name = (/** @type {any} */ model) =>
      model.id === "mesh" ? "Mesh" : model.mesh ? `${brief(model.mesh.alias, 40)} on ${brief(model.owned_by, 20)}` : brief(model.id, 60);
    const drawn = JSON.stringify(models.map(({ id }) => id));
    if (this.model.dataset.drawn === drawn) return;
    this.model.dataset.drawn = drawn;
    fill(this.model, ...models.map((model) => el("option", { value: model.id }, name(model))));
    this.model.value = models.some(({ id }) => id === wanted) ? wanted : "mesh";
  }

  /** @param {boolean} isOn */
  #planned(isOn) {
    this.plan.setAttribute("aria-pressed", String(isOn));
    this.plan.title = isOn ? "You see the plan and may change it before it runs (p)" : "Requests run at once (p)";
  }

  #private() {
    const label = /** @type {keyof PRIVACY} */ (this.privacy.value);
    byId("privacy-words").textContent = PRIVACY[label];
    choose("privacy", label);
  }

  #limits() {
    fill(byId("more").querySelector("summary"), icon("settings"));
    for (const name of ["deadline", "budget"]) {
      const field = byId(name);
      field.value = setting(name);
      field.addEventListener("change", () => {
        if (!field.reportValidity()) return;
        choose(name, field.value);
      });
    }
    document.addEventListener("click", (event) => {
      if (!byId("more").contains(event.target)) byId("more").open = false;
    });
  }

  #fit() {
    this.input.style.height = "auto";
    const line = parseFloat(getComputedStyle(this.input).lineHeight) || 24;
    this.input.style.height = `${Math.min(this.input.scrollHeight, ROWS_MAX * line)}px`;
  }
}
