// A run as its events tell it, and what the page makes of that.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as draft from "../../mesh/gateway/page/draft.js";
import { depths, layOut } from "../../mesh/gateway/page/layout.js";
import { answerOf, apply, fail, openRun, stop, wasHandedOn } from "../../mesh/gateway/page/run.js";
import { count } from "../../mesh/gateway/page/tally.js";
import { brief, clean, duration, safeHref, target } from "../../mesh/gateway/page/text.js";

const part = (task, fields = {}) => ({
  task, text: task, skill: "chat", peer: "p1", peer_name: "anna", model: "m", seconds: 2, finish_reason: "stop", attempts: 1,
  status: "completed", error: null, verdict: "", items: [], usage: { prompt_tokens: 1, completion_tokens: 8 }, ...fields,
});
const planned = (task, depends_on = [], is_shown = true) => ({ type: "plan.task", task, text: `do ${task}`, depends_on, is_shown });
const sent = (task, peer = "p1") => ({ type: "task.dispatched", task, attempt: "a", skill: "chat", peer, peer_name: peer, reasons: ["fits"] });
const said = (task, text) => ({ type: "task.delta", task, text });
const grew = (task, text) => ({ type: "answer.delta", task, text });
const gap = grew("", "\n\n");
const done = (task, fields) => ({ type: "task.completed", task, provenance: part(task, fields) });
const completed = (...parts) => ({ type: "answer.completed", finish_reason: "stop", usage: { completion_tokens: 9 }, parts, tool_calls: [] });

function told(...events) {
  const run = openRun();
  events.forEach((event, at) => apply(run, { run: "run-1", seq: at, ...event }, 1000 * at));
  return run;
}
const pieces = (run) => run.segments.map(({ task, text }) => [task, text]);

test("an answer has a part of each task that it holds, and the gap between two stands with the one before it", () => {
  const run = told(planned("a"), planned("hidden", [], false), planned("b", ["hidden"]), said("b", "second "), grew("a", "fi"), grew("a", "rst"),
    done("a"), gap, grew("b", "second "), grew("b", "part\u202e!"), done("b"), completed(part("a"), part("hidden"), part("b")));
  assert.deepEqual(pieces(run), [["a", "first\n\n"], ["b", "second part!"]]);
  assert.equal(answerOf(run), "first\n\nsecond part!");
  assert.equal(run.status, "done");
  assert.deepEqual(run.tasks.map(({ isShown }) => isShown), [true, false, true]);
});

test("a part that failed is told in its place", () => {
  const failed = { type: "task.failed", task: "b", code: "x", message: "nobody can" };
  const run = told(planned("a"), planned("b"), failed, grew("a", "first"), done("a"), gap, grew("b", "[nobody can]"),
    completed(part("a"), part("b", { status: "failed", error: "nobody can" })));
  assert.deepEqual(pieces(run), [["a", "first\n\n"], ["b", "[nobody can]"]]);
  assert.equal(run.tasks[1].state, "failed");
});

test("a task goes through its states, and remembers who had it before", () => {
  const run = told(planned("a"), sent("a", "p0"));
  const [task] = run.tasks;
  assert.equal(task.state, "sent");
  apply(run, { type: "task.accepted", task: "a", attempt: "a", position: 2 }, 0);
  assert.equal(task.state, "queued");
  apply(run, said("a", "x\u202ey\u0007"), 0);
  assert.deepEqual([task.state, task.result], ["working", "xy"]);
  apply(run, { type: "task.continued", task: "a", lost_peer: "p0", error: "it died" }, 0);
  apply(run, sent("a", "p1"), 0);
  assert.ok(wasHandedOn(task));
  apply(run, done("a"), 0);
  assert.deepEqual([task.state, task.attempts[0].lost, task.tokens], ["done", "it died", 8]);
});

test("a run that fails or is stopped leaves no task under way", () => {
  for (const end of [(run) => fail(run, { message: "m", code: "c", status: 503 }), stop]) {
    const run = told(planned("a"), planned("b"), sent("a"), done("a"), sent("b"));
    end(run);
    assert.deepEqual(run.tasks.map(({ state }) => state), ["done", "waiting"]);
  }
});

test("events and tasks that are not known change nothing", () => {
  const run = told(planned("a"), { type: "run.queued", position: 3 }, said("z", "x"), { type: "task.new", task: "a" });
  assert.equal(run.tasks.length, 1);
  assert.equal(run.tasks[0].state, "waiting");
});

test("what peers did is counted, the ones that lost a task among them", () => {
  const tallies = new Map();
  const run = told(planned("a"), sent("a", "p0"), { type: "task.continued", task: "a", lost_peer: "p0", error: "gone" }, sent("a"), done("a"), completed(part("a")));
  count(tallies, run);
  assert.deepEqual(tallies.get("p0").outcomes, [false]);
  assert.deepEqual([tallies.get("p1").done, tallies.get("p1").rates], [1, [4]]);
});

// --- plans ---------------------------------------------------------------------------------------------------
const task = (id, depends_on = []) => ({ id, text: `do ${id}`, depends_on, turns: [], skill: null, each: null });
const plan = () => draft.draftOf({ graph: { tasks: [task("t1"), task("t2", ["t1"]), task("t3", ["t2"])] }, shown: ["t3"], why: "", tasks: [] });

test("a plan is changed, and stays one that can be run", () => {
  let own = draft.add(draft.remove(plan(), "t2"));
  assert.deepEqual(own.tasks.map(({ id, depends_on }) => [id, depends_on]), [["t1", []], ["t3", []], ["t4", []]]);
  assert.match(draft.complaint(own), /Task 3 has no words/);
  own = draft.link(draft.reword(own, "t4", "more"), "t4", "t1", true);
  assert.equal(draft.complaint(own), "");
  assert.deepEqual(draft.graphOf(own).shown, ["t3", "t4"]);
  assert.match(draft.complaint(draft.show(draft.show(own, "t3", false), "t4", false)), /at least one/);
});

test("no link is offered that would close a circle", () => {
  assert.deepEqual(draft.linkable(plan(), "t1"), []);
  assert.deepEqual(draft.linkable(plan(), "t3").map(({ id }) => id), ["t1", "t2"]);
});

// --- the graph -------------------------------------------------------------------------------------------------
const SIZE = { width: 400, nodeMin: 128, nodeMax: 260, nodeHeight: 94, gapX: 14, gapY: 34 };

test("what needs a result stands below it, and nothing overlaps", () => {
  const nodes = [["a"], ["b"], ["c", "a"], ["d", "a", "b"], ["e", "c", "a"], ["f", "e", "d", "b"]].map(([id, ...needs]) => ({ id, needs }));
  const { places, links, nodeWidth, width, height } = layOut(nodes, SIZE);
  for (const { id, needs } of nodes) for (const need of needs) assert.ok(places.get(need).y < places.get(id).y, `${need} above ${id}`);
  const at = [...places.values()];
  for (const one of at) {
    assert.ok(one.x >= -0.01 && one.x + nodeWidth <= width + 0.01 && one.y + SIZE.nodeHeight <= height + 0.01);
    for (const other of at) assert.ok(one === other || one.y !== other.y || Math.abs(one.x - other.x) >= nodeWidth + SIZE.gapX - 0.01);
  }
  assert.equal(links.length, 8);
});

test("a chain stands straight, with its links around it", () => {
  const { places } = layOut([{ id: "a", needs: [] }, { id: "b", needs: ["a"] }, { id: "c", needs: ["b", "a"] }], SIZE);
  const [a, b, c] = ["a", "b", "c"].map((id) => places.get(id).x);
  assert.ok(Math.abs(a - b) < 2 && Math.abs(b - c) < 2, `${a} ${b} ${c}`);
});

test("circles, strangers and nothing at all are laid out somehow", () => {
  assert.equal(layOut([{ id: "a", needs: ["b"] }, { id: "b", needs: ["a"] }, { id: "c", needs: ["z"] }], SIZE).places.size, 3);
  assert.equal(layOut([], SIZE).places.size, 0);
  assert.equal(depths([{ id: "a", needs: [] }, { id: "b", needs: ["a"] }]).get("b"), 1);
});

// --- words -------------------------------------------------------------------------------------------------------
test("text is made fit to show", () => {
  assert.equal(clean("a\u202eb\u0000\u001b[31mc\n\t"), "ab[31mc\n\t");
  assert.equal(brief("  many\n words and more", 10), "many words…");
  assert.deepEqual([0.03, 1.25, 12.4, 125].map(duration), ["0.03 s", "1.3 s", "12 s", "2 min 5 s"]);
  assert.equal(safeHref("javascript:alert(1)"), null);
  assert.equal(target(safeHref("https://аpple.com/x")), "xn--pple-43d.com"); // a Cyrillic а
});
