// The gateway's API as the page uses it. Every failure is a `Refused` with one sentence for people.

/** @typedef {import("./run.js").Failure} Failure */
/** @typedef {{model: string, privacy: string, budget: number | null, deadline: number}} Options deadline in seconds */
/** @typedef {{role: "user" | "assistant", content: string}} Message */

const KEY = "monai.key"; // of the session's storage: an access key does not outlive its tab
const EVENT_CHARS_MAX = 16 << 20; // of one event; the gateway's own bodies are smaller
const POLL_MS = 10_000;

export class Refused extends Error {
  /** @param {string} message @param {string} code @param {number} status 0 when nothing answered */
  constructor(message, code, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** Asks the user for an access key; null when they have none to give.
 * @type {(isWrong: boolean) => Promise<string | null>} */
let askForKey = async () => null;
/** @type {Promise<string | null> | null} */
let asking = null;
let isDeclined = false; // whoever gave no key is asked again when they want something, not by every poll

/** @param {(isWrong: boolean) => Promise<string | null>} ask */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** The events of an answer to this conversation, until the last one. @param {Message[]} messages
 * @param {Options} options @param {AbortSignal} signal */
export function ask(messages, options, signal) {
  const mesh = { ...meshOf(options), events: true };
  return events("v1/chat/completions", { model: options.model, messages, mesh, stream: true }, signal);
}

/** The events of a run of this plan. @param {{graph: object, shown: string[]}} plan @param {Message[]} messages
 * @param {Options} options @param {AbortSignal} signal */
export function runPlan(plan, messages, options, signal) {
  const body = { ...plan, model: options.model, messages, mesh: meshOf(options), stream: true };
  return events("v1/runs", body, signal);
}

/** The plan of a conversation's last message. @param {Message[]} messages @param {Options} options
 * @param {AbortSignal} signal */
export async function plan(messages, options, signal) {
  const body = { model: options.model, messages, mesh: meshOf(options) };
  return (await call("v1/plan", { method: "POST", body: JSON.stringify(body), signal })).json();
}

/** @param {string} run @param {string | null} task null for the whole run @param {"up" | "down"} rating */
export async function rate(run, task, rating) {
  const body = JSON.stringify({ run, rating, ...(task ? { task } : {}) });
  await call("v1/feedback", { method: "POST", body });
}

/** @returns {Promise<any[]>} */
export async function peers() {
  return (await (await call("v1/peers", { signal: AbortSignal.timeout(POLL_MS) })).json()).data;
}

/** Those that one can talk to. @returns {Promise<any[]>} */
export async function models() {
  const { data } = await (await call("v1/models", { signal: AbortSignal.timeout(POLL_MS) })).json();
  return data.filter((/** @type {any} */ model) => !model.mesh?.features?.includes("embeddings"));
}

/** Why no request has a chance; "" when one has. */
export async function unready() {
  const answer = await send("ready", { signal: AbortSignal.timeout(POLL_MS) });
  return answer.status === 503 ? String((await answer.json()).reason) : "";
}

/** @param {Options} options */
function meshOf(options) {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  return {
    privacy: options.privacy,
    deadline_seconds: options.deadline,
    ...(options.budget ? { budget_tokens: options.budget } : {}),
    now: localTime(new Date()),
    ...(timeZone ? { timezone: timeZone } : {}),
    locale: navigator.language,
  };
}

/** ISO 8601 with the offset of this place. @param {Date} time */
function localTime(time) {
  const offset = -time.getTimezoneOffset();
  const [hours, minutes] = [Math.floor(Math.abs(offset) / 60), Math.abs(offset) % 60];
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const local = new Date(time.getTime() + offset * 60_000).toISOString().slice(0, 19);
  return `${local}${offset < 0 ? "-" : "+"}${two(hours)}:${two(minutes)}`;
}

/** A response that is a success. @param {string} path @param {RequestInit} init @returns {Promise<Response>} */
async function call(path, init) {
  for (let isWrong = false; ; isWrong = true) {
    const response = await send(path, init);
    if (response.ok) return response;
    const refused = await refusal(response);
    if (response.status !== 401) throw refused;
    if (isDeclined && init.method !== "POST") throw refused;
    // Several requests may meet the same closed door: the user is asked once.
    asking ??= askForKey(isWrong || sessionStorage.getItem(KEY) !== null).finally(() => (asking = null));
    const key = await asking;
    isDeclined = key === null;
    if (key === null) throw refused;
    sessionStorage.setItem(KEY, key);
  }
}

/** @param {string} path @param {RequestInit} init */
async function send(path, init) {
  const key = sessionStorage.getItem(KEY);
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  try {
    return await fetch(path, { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Refused("The gateway does not answer: see whether monai-node still runs, then try again.", "", 0);
  }
}

/** @param {Response} response */
async function refusal(response) {
  let error;
  try {
    ({ error } = await response.json());
  } catch {
    error = null; // a proxy's own page
  }
  const message = typeof error?.message === "string" ? error.message : `the gateway answered ${response.status}`;
  return new Refused(message, String(error?.code ?? ""), response.status);
}

/** Events of one run from a stream of server-sent events, whether they stand there by themselves or inside OpenAI's
 * chunks. A stream that is cut throws. @param {string} path @param {object} body @param {AbortSignal} signal */
async function* events(path, body, signal) {
  const response = await call(path, { method: "POST", body: JSON.stringify(body), signal });
  for await (const data of frames(response, signal)) {
    if (data === "[DONE]") return;
    const value = JSON.parse(data);
    const event = value.mesh?.event ?? (typeof value.type === "string" ? value : null);
    if (!event) continue;
    yield event;
    if (event.type === "answer.completed" || event.type === "error") return;
  }
  throw new Refused("The connection to the gateway was lost before the answer was whole: try again.", "", 0);
}

/** The data of server-sent events; ours have one line each. @param {Response} response @param {AbortSignal} signal */
async function* frames(response, signal) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > EVENT_CHARS_MAX) throw new Refused("The gateway's answer could not be read.", "", 0);
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
    }
  } catch (error) {
    if (signal.aborted || error instanceof Refused) throw error;
    throw new Refused("The connection to the gateway was lost before the answer was whole: try again.", "", 0);
  } finally {
    void reader.cancel().catch(() => {}); // a reader that failed is at its end already
  }
}
