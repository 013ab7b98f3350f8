// Who is in the mesh: peers, their models, and what they did while this page was open.

import { copyButton, drawn, el, fill } from "./dom.js";
import { hueOf } from "./hue.js";
import { ago, brief, duration, peerLabel, plural } from "./text.js";
import { isAble } from "./watch.js";

/** @typedef {import("./tally.js").Tally} Tally */

const STATES = { self: "this node", alive: "reachable", suspect: "silent", gone: "gone" };
const SKILLS_SHOWN = 6;
const COMMAND = "monai-node serve model.gguf --join '…'";

/** The peers, and how to get some where there are none. @param {HTMLElement} panel @param {any[]} peers of /v1/peers
 * @param {any[]} models of /v1/models @param {Map<string, Tally>} tallies @param {string} unready why nothing can be asked */
export function showMesh(panel, peers, models, tallies, unready) {
  const focused = document.activeElement?.closest?.("[data-peer]")?.getAttribute("data-peer");
  const open = new Set([...panel.querySelectorAll("details[open]")].map((one) => one.getAttribute("data-peer")));
  const place = (/** @type {any} */ peer) => Object.keys(STATES).indexOf(peer.state);
  const sorted = peers.toSorted((one, other) => place(one) - place(other) || one.name.localeCompare(other.name));
  fill(panel,
    unready && nobody(unready),
    el("h3", {}, "Peers"),
    el("ul", { class: "peers" }, ...sorted.map((peer) => peerElement(peer, models, tallies.get(peer.id), open.has(peer.id)))),
    el("h3", {}, "Add one"),
    el("p", { class: "hint" }, "On any machine that can reach this one, with the join line that the gateway printed when it started:"),
    command());
  /** @type {HTMLElement | null} */
  const summary = focused ? panel.querySelector(`[data-peer="${CSS.escape(focused)}"] summary`) : null;
  summary?.focus();
}

/** How many can be asked, in words. @param {any[]} peers */
export function healthWords(peers) {
  const able = peers.filter(isAble).length;
  const silent = peers.filter(({ state }) => state === "suspect").length;
  return able ? `${plural(able, "peer")}${silent ? `, ${silent} silent` : ""}` : "No peer";
}

/** What stands where nobody can be asked. @param {string} why */
export function nobody(why) {
  return el("section", { class: "nobody", role: "group", "aria-label": "No peer is reachable" },
    el("h3", {}, "No peer is reachable"),
    el("p", { class: "hint" }, `${why.charAt(0).toUpperCase()}${why.slice(1)}. Start one on this machine, or on another with the join line that the gateway printed:`),
    command());
}

function command() {
  return el("div", { class: "command" }, el("code", { dir: "ltr" }, COMMAND), copyButton(() => COMMAND, "Copy the command"));
}

/** @param {any} peer @param {any[]} models @param {Tally | undefined} tally @param {boolean} isOpen */
function peerElement(peer, models, tally, isOpen) {
  const load = peer.running + peer.queued ? `${peer.running} running, ${peer.queued} queued` : "idle";
  const state = STATES[/** @type {keyof STATES} */ (peer.state)] ?? peer.state;
  const heard = peer.last_heard_seconds === null ? "" : `heard ${ago(peer.last_heard_seconds)}`;
  const facts = [state, peer.state === "alive" || peer.state === "self" ? load : heard].filter(Boolean).join(" · ");
  return el("li", {}, el("details", { open: isOpen, data: { peer: peer.id, state: peer.state, hue: hueOf(peer.id) } },
    el("summary", {},
      el("span", { class: "dot", "aria-hidden": "true" }),
      el("span", { class: "peer-head" }, el("bdi", { class: "who" }, peerLabel(peer.name, peer.id)), el("span", { class: "faint" }, facts)),
      meter(peer), tally && spark(tally.rates)),
    el("div", { class: "peer-body" },
      heard && el("p", { class: "faint" }, `${heard.charAt(0).toUpperCase()}${heard.slice(1)}.`),
      tally && session(tally),
      ...peer.models.map((/** @type {string} */ alias) => modelElement(alias, models.find(({ id }) => id === `${alias}@${peer.id}`)?.mesh)),
      skills(peer.skills),
      el("p", { class: "faint id" }, el("bdi", {}, peer.id)))));
}

/** @param {string} alias @param {any} model as /v1/models describes it */
function modelElement(alias, model) {
  const size = model?.parameter_count ? `${large(model.parameter_count)} parameters` : "";
  const facts = [size, model?.quantisation, model?.n_ctx ? `${large(model.n_ctx)} context` : "", model?.licence].filter(Boolean);
  return el("p", { class: "model" }, el("bdi", {}, brief(alias, 80)), el("span", { class: "faint" }, brief(facts.join(" · "), 160)));
}

/** @param {string[]} names */
function skills(names) {
  if (names.length === 0) return el("p", { class: "faint" }, "Offers no skill.");
  const more = names.length - SKILLS_SHOWN;
  const chips = names.slice(0, SKILLS_SHOWN).map((name) => el("li", {}, brief(name, 40)));
  return el("ul", { class: "skills", "aria-label": "Skills" }, ...chips, more > 0 && el("li", {}, `and ${more} more`));
}

/** @param {Tally} tally */
function session(tally) {
  const speed = tally.rates.length ? `, ${tally.rates[tally.rates.length - 1].toFixed(1)} tokens per second` : "";
  const failed = tally.failed ? `, ${tally.failed} failed` : "";
  const ticks = tally.outcomes.map((isGood) => el("span", { class: isGood ? "tick" : "tick is-bad" }));
  return el("div", { class: "session" },
    el("p", {}, `Here: ${plural(tally.done, "task")} in ${duration(tally.seconds)}${speed}${failed}`),
    el("div", { class: "ticks", role: "img", "aria-label": `${tally.done} of ${tally.done + tally.failed} went well` }, ...ticks));
}

/** Places taken, as a row of marks. @param {any} peer */
function meter(peer) {
  const busy = Math.min(peer.running, 4);
  const queued = Math.min(peer.queued, 4);
  if (busy + queued === 0) return null;
  const mark = (/** @type {string} */ name) => el("span", { class: name });
  return el("span", { class: "meter", "aria-hidden": "true" },
    ...Array.from({ length: busy }, () => mark("busy")), ...Array.from({ length: queued }, () => mark("queued")));
}

/** Tokens per second of the last tasks. @param {number[]} rates */
function spark(rates) {
  if (rates.length < 2) return null;
  const most = Math.max(...rates);
  const points = rates.map((rate, at) => `${(at / (rates.length - 1)) * 56 + 2} ${20 - (rate / most) * 16}`);
  const name = `Tokens per second, last ${rates[rates.length - 1].toFixed(1)}`;
  return drawn("svg", { class: "spark", viewBox: "0 0 60 22", role: "img", "aria-label": name },
    drawn("path", { d: `M${points.join("L")}` }),
    drawn("circle", { cx: "58", cy: points[points.length - 1].split(" ")[1], r: "2" }));
}

/** 135M, 7.2B, 8k. @param {number} value */
function large(value) {
  const [size, unit] = value >= 1e9 ? [value / 1e9, "B"] : value >= 1e6 ? [value / 1e6, "M"] : [value / 1024, "k"];
  return `${size < 10 && unit === "B" ? size.toFixed(1) : Math.round(size)}${unit}`;
}
