// Which task each piece of the answer is from. Pure.
//
// The gateway joins the results of the shown tasks in plan order with blank lines; the first that is not over is shown as
// it comes, the later ones wait (`agents/merge.py`). A piece of the answer follows the event that caused it: one caused by
// a task's text is that task's, one caused by a task's end holds what is left of it and then what waited of later ones.

/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("./run.js").Task} Task */

const GAP = "\n\n";
const FENCE_END = /^\n(?:`{3,}|~{3,})(?=\n\n|$)/; // a code block that a part leaves open is closed

/** Add a piece of the answer to the run's segments. @param {Run} run @param {string} text */
export function attribute(run, text) {
  const cause = run.tasks.find(({ id }) => id === run.cause);
  if (!cause || !text) return add(run, run.segments[run.segments.length - 1]?.task ?? "", text);
  if (cause.state !== "done" && cause.state !== "failed") return add(run, cause.id, text);
  const later = run.tasks.slice(run.tasks.indexOf(cause) + 1).filter((task) => waitingText(task));
  for (let at = text.indexOf(GAP); ; at = text.indexOf(GAP, at + 1)) {
    // A first gap at 0: the part that ended had nothing left to show.
    const found = at < 0 ? [] : follow(text, at, later);
    if (at < 0 || found) {
      const end = at < 0 ? text.length : at;
      if (end) add(run, cause.id, text.slice(0, end));
      for (const { task, text: piece } of found ?? []) add(run, task, piece);
      return;
    }
  }
}

/** The text from `at` as whole parts of `later` tasks in their order; null when it is not that.
 * @param {string} text @param {number} at @param {Task[]} later
 * @returns {{task: string, text: string}[] | null} */
function follow(text, at, later) {
  if (at === text.length) return [];
  for (let n = 0; n < later.length; n++) {
    const part = GAP + waitingText(later[n]);
    if (!text.startsWith(part, at)) continue;
    let end = at + part.length;
    end += FENCE_END.exec(text.slice(end))?.[0].length ?? 0;
    const rest = follow(text, end, later.slice(n + 1));
    if (rest) return [{ task: later[n].id, text: text.slice(at, end) }, ...rest];
  }
  return null;
}

/** What the answer holds of a task that waited for its turn. @param {Task} task */
function waitingText(task) {
  const said = task.state === "failed" ? `[This part could not be done: ${task.error}]` : "";
  return [task.result.trim(), said].filter(Boolean).join(GAP);
}

/** @param {Run} run @param {string} task @param {string} text */
function add(run, task, text) {
  const last = run.segments[run.segments.length - 1];
  if (last && last.task === task) last.text += text;
  else if (text) run.segments.push({ task, text });
}
