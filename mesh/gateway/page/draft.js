// A plan in its user's hands, before it runs. Pure; every change gives a new draft.

/**
 * @typedef {{id: string, text: string, depends_on: string[], turns: number[], skill: string | null,
 *   each: string | null}} PlannedTask a task as `POST /v1/runs` takes it
 * @typedef {{tasks: PlannedTask[], shown: string[], why: string, by: Record<string, string>}} Draft
 *   `by` names, by task, who would do it
 */

const TASKS_MAX = 32; // agents/graph.py

/** @param {any} view what `POST /v1/plan` answered @returns {Draft} */
export function draftOf(view) {
  const by = view.tasks.map((/** @type {any} */ task) => {
    const best = task.candidates[0];
    return [task.id, best ? `${best.model || best.skill} on ${best.peer_name || best.peer.slice(-8)}` : ""];
  });
  return { tasks: view.graph.tasks, shown: view.shown, why: view.why, by: Object.fromEntries(by) };
}

/** The body of `POST /v1/runs`, without what every request holds. @param {Draft} draft */
export function graphOf(draft) {
  return { graph: { tasks: draft.tasks }, shown: draft.shown };
}

/** @param {Draft} draft @param {string} id @param {string} text @returns {Draft} */
export function reword(draft, id, text) {
  // Who would do a task was found out for its old words.
  return { ...change(draft, id, (task) => ({ ...task, text })), by: { ...draft.by, [id]: "" } };
}

/** Whether one task is given the result of another. @param {Draft} draft @param {string} id @param {string} need
 * @param {boolean} isNeeded @returns {Draft} */
export function link(draft, id, need, isNeeded) {
  return change(draft, id, (task) => {
    const others = task.depends_on.filter((other) => other !== need);
    const each = task.each === need && !isNeeded ? null : task.each;
    return { ...task, depends_on: isNeeded ? [...others, need] : others, each };
  });
}

/** Whether a task's result stands in the answer. @param {Draft} draft @param {string} id @param {boolean} isShown
 * @returns {Draft} */
export function show(draft, id, isShown) {
  const others = draft.shown.filter((other) => other !== id);
  return { ...draft, shown: isShown ? [...others, id] : others };
}

/** @param {Draft} draft @returns {Draft} */
export function add(draft) {
  let number = draft.tasks.length + 1;
  while (draft.tasks.some(({ id }) => id === `t${number}`)) number++;
  const id = `t${number}`;
  /** @type {PlannedTask} */
  const task = { id, text: "", depends_on: [], turns: [], skill: null, each: null };
  return { ...draft, tasks: [...draft.tasks, task], shown: [...draft.shown, id] };
}

/** @param {Draft} draft @param {string} id @returns {Draft} */
export function remove(draft, id) {
  const tasks = draft.tasks.filter((task) => task.id !== id);
  const rest = { ...draft, tasks, shown: draft.shown.filter((other) => other !== id) };
  return tasks.reduce((left, task) => link(left, task.id, id, false), rest);
}

/** Tasks that this one may be given the result of: not itself, and none that waits for it.
 * @param {Draft} draft @param {string} id @returns {PlannedTask[]} */
export function linkable(draft, id) {
  const waiting = new Set([id]);
  for (let size = 0; size < waiting.size; ) {
    size = waiting.size;
    for (const task of draft.tasks) if (task.depends_on.some((need) => waiting.has(need))) waiting.add(task.id);
  }
  return draft.tasks.filter((task) => !waiting.has(task.id));
}

/** Why this draft cannot be run, in one sentence; "" when it can. @param {Draft} draft */
export function complaint(draft) {
  if (draft.tasks.length === 0) return "A plan needs at least one task: add one.";
  if (draft.tasks.length > TASKS_MAX) return `A plan has at most ${TASKS_MAX} tasks: remove some.`;
  const empty = draft.tasks.findIndex(({ text }) => !text.trim());
  if (empty >= 0) return `Task ${empty + 1} has no words: say what is to be done, or remove it.`;
  if (draft.shown.length === 0) return "No task stands in the answer: choose at least one.";
  return "";
}

/** @param {Draft} draft @param {string} id @param {(task: PlannedTask) => PlannedTask} with_ @returns {Draft} */
function change(draft, id, with_) {
  return { ...draft, tasks: draft.tasks.map((task) => (task.id === id ? with_(task) : task)) };
}
