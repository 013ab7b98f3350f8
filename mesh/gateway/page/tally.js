// What each peer did since this page was opened, added up from the runs seen here. Pure.

/** @typedef {{done: number, failed: number, tokens: number, seconds: number, rates: number[], outcomes: boolean[]}} Tally
 *   `rates` are tokens per second of the last tasks that wrote anything, oldest first; `outcomes` whether the last went well */

const LAST = 24;

/** @param {Map<string, Tally>} tallies by peer id @param {import("./run.js").Run} run one that is over */
export function count(tallies, run) {
  for (const task of run.tasks) {
    task.attempts.forEach(({ peer, lost }, at) => {
      const isLast = at === task.attempts.length - 1;
      if (!peer || (!lost && !(isLast && (task.state === "done" || task.state === "failed")))) return;
      const tally = tallies.get(peer) ?? { done: 0, failed: 0, tokens: 0, seconds: 0, rates: [], outcomes: [] };
      tallies.set(peer, tally);
      const isGood = isLast && !lost && task.state === "done";
      tally.outcomes = [...tally.outcomes, isGood].slice(-LAST);
      if (!isGood) return void tally.failed++;
      tally.done++;
      tally.tokens += task.tokens;
      tally.seconds += task.seconds;
      if (task.tokens > 1 && task.seconds > 0) tally.rates = [...tally.rates, task.tokens / task.seconds].slice(-LAST);
    });
  }
}
