// The page, put together.

import { announce } from "./announce.js";
import * as api from "./api.js";
import { Composer } from "./composer.js";
import { byId, fill, icon, saveFile } from "./dom.js";
import { healthWords, nobody, showMesh } from "./mesh.js";
import { Panel, sheet, SMALL } from "./panel.js";
import { choose, setting } from "./settings.js";
import { install } from "./shortcuts.js";
import { saveConversation, showConversations } from "./sidebar.js";
import { newConversation, Store } from "./store.js";
import { Talk } from "./talk.js";
import { count } from "./tally.js";
import { MeshWatch } from "./watch.js";

/** @typedef {import("./store.js").Conversation} Conversation */

const THEMES = ["auto", "light", "dark"];

const store = await Store.open();
/** @type {Map<string, import("./tally.js").Tally>} */
const tallies = new Map();
const panel = new Panel((tasks) => talk.point(tasks), (task, rating) => talk.rateTask(task, rating));
const talk = new Talk(panel, { changed: keep, ended: (run) => count(tallies, run) });
const composer = new Composer((text) => talk.ask(text), () => talk.stop());
talk.composer = composer;
const watch = new MeshWatch(learn, (words) => tell(words, "none"));

// --- conversations ---------------------------------------------------------------------------------------
/** @param {Conversation} conversation */
async function keep(conversation) {
  const isKept = await store.save(conversation);
  byId("kept").textContent = isKept ? "Kept in this browser only." : "This conversation is too long to be kept.";
  if (conversation === talk.conversation) history.replaceState(null, "", `#${conversation.id}`);
  await list();
}

async function list() {
  showConversations(await store.heads(), talk.conversation.id, { open: go, remove, save });
}

/** @param {string} id */
async function go(id) {
  const running = talk.running?.conversation;
  const found = running?.id === id ? running : await store.load(id);
  talk.open(found ?? newConversation());
  history.replaceState(null, "", found ? `#${id}` : location.pathname);
  sheet("");
  await list();
}

async function startNew() {
  await go("");
  composer.focus();
}

/** @param {string} id */
async function remove(id) {
  if (!confirm("Delete this conversation? It cannot be brought back.")) return;
  talk.abandon(id);
  await store.remove(id);
  if (id === talk.conversation.id) await startNew();
  else await list();
}

/** @param {string} id */
async function save(id) {
  const found = await store.load(id);
  if (found) saveConversation(found);
}

async function exportAll() {
  const all = await Promise.all((await store.heads()).map(({ id }) => store.load(id)));
  saveFile("conversations.json", "application/json", JSON.stringify(all, null, 1));
}

async function forgetAll() {
  if (!confirm("Delete all conversations? They cannot be brought back.")) return;
  talk.abandon(talk.running?.conversation.id ?? "");
  await store.clear();
  await startNew();
}

/** To the one before or after in the list. @param {number} step */
async function neighbour(step) {
  const heads = await store.heads();
  const next = heads[heads.findIndex(({ id }) => id === talk.conversation.id) + step];
  if (next) await go(next.id);
}

// --- the mesh --------------------------------------------------------------------------------------------
/** @param {import("./watch.js").News} news */
function learn({ peers, models, unready }) {
  composer.offer(models);
  tell(unready ? "No peer" : healthWords(peers), unready ? "none" : "well");
  if (!byId("mesh").hidden) showMesh(byId("mesh"), peers, models, tallies, unready);
  alone(unready);
}

/** @param {string} words @param {"well" | "none"} state */
function tell(words, state) {
  byId("health").dataset.state = state;
  if (byId("health-words").textContent !== words) byId("health-words").textContent = words;
}

/** Over an empty conversation: how to get a peer. @param {string} unready why there is none */
function alone(unready) {
  const box = byId("log").querySelector(".welcome");
  const shown = byId("log").querySelector(".nobody");
  if (unready && box && !shown) box.before(nobody(unready));
  else if (!unready) shown?.remove();
}

// --- the rest of the page ----------------------------------------------------------------------------------
/** @param {string} theme */
function dress(theme) {
  document.documentElement.dataset.theme = theme;
  const button = byId("theme");
  fill(button, icon("theme"));
  button.title = { auto: "Colours: as the system (t)", light: "Colours: light (t)", dark: "Colours: dark (t)" }[theme] ?? "";
  button.setAttribute("aria-label", button.title.replace(" (t)", ""));
}

function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(setting("theme")) + 1) % THEMES.length];
  choose("theme", theme);
  dress(theme);
  announce(byId("theme").getAttribute("aria-label"));
}

/** @param {"tasks" | "mesh"} name */
function look(name) {
  panel.tab(name);
  if (SMALL.matches) sheet("panel");
  else byId(`tab-${name}`).focus();
  if (name === "mesh") learn(watch.news);
}

/** @param {boolean} isWrong whether a key was given before @returns {Promise<string | null>} */
function askForKey(isWrong) {
  const dialog = byId("key-dialog");
  const field = byId("key");
  field.value = "";
  if (isWrong) byId("key-words").textContent = "This key is not known here, or not any more: give another one.";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "use" && field.value.trim() ? field.value.trim() : null);
  });
}

function escape() {
  if (document.querySelector("dialog[open]")) return;
  if (byId("more").open) byId("more").open = false;
  else if (document.body.dataset.sheet) sheet("");
  else talk.stop();
}

fill(byId("to-end"), icon("end"));
api.onKeyNeeded(askForKey);
byId("key-cancel").addEventListener("click", () => byId("key-dialog").close("cancel"));
byId("key-form").addEventListener("submit", () => (byId("key-dialog").returnValue = "use"));
byId("new").addEventListener("click", startNew);
byId("export").addEventListener("click", exportAll);
byId("forget").addEventListener("click", forgetAll);
byId("theme").addEventListener("click", nextTheme);
byId("health").addEventListener("click", () => look("mesh"));
byId("tab-mesh").addEventListener("click", () => learn(watch.news));
byId("help").addEventListener("click", () => byId("shortcuts").showModal());
install([
  { keys: ["/"], words: "Write a message", act: () => composer.input.focus() },
  { keys: ["n"], words: "New conversation", act: () => void startNew() },
  { keys: ["k"], words: "The conversation above", act: () => void neighbour(-1) },
  { keys: ["j"], words: "The conversation below", act: () => void neighbour(1) },
  { keys: ["g"], words: "The tasks of the answer", act: () => look("tasks") },
  { keys: ["m"], words: "The mesh", act: () => look("mesh") },
  { keys: ["p"], words: "Plan first, or not", act: () => composer.togglePlan() },
  { keys: ["t"], words: "Colours: as the system, light, dark", act: nextTheme },
  { keys: ["?"], words: "This list", act: () => byId("shortcuts").showModal() },
], escape);
dress(setting("theme"));
await go(location.hash.slice(1));
composer.focus();
void watch.run();
