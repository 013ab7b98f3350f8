// One run as its events tell it: tasks, who has them, the answer and who made which part of it. Pure; plain values, so
// that a conversation can be kept and shown again.

import { clean } from "./text.js";

/**
 * @typedef {"waiting" | "sent" | "queued" | "working" | "done" | "failed"} TaskState
 * @typedef {{peer: string, peerName: string, skill: string, reasons: string[], lost: string}} Attempt
 *   one peer that had a task; `lost` says why it has it no more, "" while it has
 * @typedef {{item: string, peer: string, peer_name: string, model: string, seconds: number, error: string | null}} MadeItem
 * @typedef {{id: string, words: string, needs: string[], state: TaskState, attempts: Attempt[], result: string,
 *   model: string, sent: number, seconds: number, tokens: number, position: number, verdict: string, error: string,
 *   items: MadeItem[], isShown: boolean}} Task
 *   `sent` is when it was first sent, in ms of the clock that `apply` is given; `isShown` whether the answer holds its result
 * @typedef {{task: string, text: string}} Segment the part of the answer that is of this task
 * @typedef {{message: string, code: string, status: number}} Failure
 * @typedef {{id: string, status: "planned" | "running" | "done" | "failed" | "stopped", tasks: Task[], segments: Segment[],
 *   tokens: number, seconds: number, finish: string, error: Failure | null}} Run
 */

const RESULT_CHARS_MAX = 200_000; // of each task: what is kept to be looked at

/** @returns {Run} */
export function openRun() {
  return { id: "", status: "running", tasks: [], segments: [], tokens: 0, seconds: 0, finish: "", error: null };
}

/** @param {Run} run */
export function answerOf(run) {
  return run.segments.map(({ text }) => text).join("");
}

/** The tasks with a peer that has them now, or had them last. @param {Task} task */
export function holder(task) {
  return task.attempts[task.attempts.length - 1] ?? null;
}

/** Whether another peer had this task before. @param {Task} task */
export function wasHandedOn(task) {
  return task.attempts.length > 1;
}

/** Take one event of the run. Events that are not known here change nothing.
 * @param {Run} run @param {any} event of registry/events.py @param {number} now ms */
export function apply(run, event, now) {
  const task = run.tasks.find(({ id }) => id === event.task);
  if (typeof event.run === "string") run.id = event.run;
  if (event.type === "plan.task") run.tasks.push(planned(event));
  else if (event.type === "answer.delta") grow(run, event.task, clean(event.text));
  else if (event.type === "answer.completed") complete(run, event);
  else if (event.type === "error") fail(run, event);
  else if (task) progress(task, event, now);
}

/** The gap between two parts stands with the one before it. @param {Run} run @param {string} task @param {string} text */
function grow(run, task, text) {
  const last = run.segments[run.segments.length - 1];
  if (last && (!task || last.task === task)) last.text += text;
  else if (text) run.segments.push({ task, text });
}

/** @param {any} event @returns {Task} */
function planned(event) {
  return {
    id: event.task, words: event.text, needs: event.depends_on, state: "waiting", attempts: [], result: "", model: "",
    sent: 0, seconds: 0, tokens: 0, position: 0, verdict: "", error: "", items: [], isShown: event.is_shown,
  };
}

/** @param {Task} task @param {any} event @param {number} now */
function progress(task, event, now) {
  switch (event.type) {
    case "task.dispatched":
      task.sent ||= now;
      task.state = "sent";
      task.model = event.model ?? "";
      task.attempts.push({
        peer: event.peer, peerName: event.peer_name, skill: event.skill, reasons: event.reasons, lost: "",
      });
      break;
    case "task.accepted":
      task.position = event.position;
      task.state = event.position > 0 ? "queued" : "working";
      break;
    case "task.delta":
      task.state = "working";
      if (task.result.length < RESULT_CHARS_MAX) task.result += clean(event.text);
      break;
    case "task.continued": {
      const lost = task.attempts.findLast(({ peer }) => peer === event.lost_peer);
      if (lost) lost.lost = event.error || "lost";
      break;
    }
    case "task.completed":
      made(task, event.provenance);
      break;
    case "task.failed":
      task.state = "failed";
      task.error = event.message;
      task.seconds = task.sent ? (now - task.sent) / 1000 : 0;
      break;
  }
}

/** @param {Task} task @param {any} part its provenance */
function made(task, part) {
  task.state = part.status === "failed" ? "failed" : "done";
  task.model = part.model;
  task.seconds = part.seconds;
  task.tokens = part.usage.completion_tokens;
  task.verdict = part.verdict;
  task.error = part.error ?? "";
  task.items = part.items;
  const last = holder(task);
  if (part.peer && last?.peer !== part.peer) {
    task.attempts.push({ peer: part.peer, peerName: part.peer_name, skill: part.skill, reasons: [], lost: "" });
  }
}

/** @param {Run} run @param {any} event */
function complete(run, event) {
  run.status = "done";
  run.finish = event.finish_reason;
  run.tokens = event.usage.completion_tokens;
  for (const part of event.parts) {
    const task = run.tasks.find(({ id }) => id === part.task);
    if (task) made(task, part);
  }
}

/** @param {Run} run @param {{message: string, code: string, status: number}} error */
export function fail(run, error) {
  run.status = "failed";
  run.error = { message: error.message, code: error.code, status: error.status };
  end(run);
}

/** The user stopped it. @param {Run} run */
export function stop(run) {
  run.status = "stopped";
  end(run);
}

/** @param {Run} run */
function end(run) {
  for (const task of run.tasks) if (task.state !== "done" && task.state !== "failed") task.state = "waiting";
}
