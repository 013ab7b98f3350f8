// Text of models, peers and users made fit to show, and the small words around it. Pure.

// Unicode's Bidi_Control characters make text read as something else than it is (CVE-2021-42574); the gateway takes
// them out of answers, and here the same is done for names, tasks and results.
const BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069";
const UNFIT = new RegExp(`[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f${BIDI}]`, "g");

/** Without control and bidi characters; newlines and tabs stay. @param {string} text */
export function clean(text) {
  return text.replace(UNFIT, "");
}

/** The beginning of a text on one line. @param {string} text @param {number} max characters */
export function brief(text, max) {
  const line = clean(text.slice(0, 4 * max)).replace(/\s+/g, " ").trim();
  return line.length <= max ? line : `${line.slice(0, max).trimEnd()}…`;
}

/** "1 task", "3 tasks". @param {number} count @param {string} noun */
export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** 0.04 s, 1.2 s, 12 s, 2 min 5 s. @param {number} seconds */
export function duration(seconds) {
  if (seconds < 0.1) return `${seconds.toFixed(2)} s`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** How long ago. @param {number} seconds */
export function ago(seconds) {
  if (seconds < 60) return seconds < 5 ? "just now" : `${Math.round(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86400);
  return days === 1 ? "yesterday" : `${days} days ago`;
}

/** What people call a peer: its name, or the end of its id, since all ids begin alike.
 * @param {string} name @param {string} id */
export function peerLabel(name, id) {
  return brief(name, 40) || id.slice(-8) || "nobody";
}

/** The address of a link that may be followed, or null: absolute http(s) and mailto only, since a relative one
 * would lead into this gateway. @param {string} raw */
export function safeHref(raw) {
  let url;
  try {
    url = new URL(raw);
  } catch {
    return null;
  }
  return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
}

/** Where a link leads, in the spelling that no look-alike letter hides in. @param {string} href a safe one */
export function target(href) {
  const url = new URL(href);
  return url.protocol === "mailto:" ? url.pathname : url.host;
}
