// What stands inside a Markdown block: code, links, marks of emphasis. Pure, and bounded whatever the text says.

import { deepest, DEPTH_MAX, paired } from "./emphasis.js";
import { safeHref } from "./text.js";

/** @typedef {import("./emphasis.js").Inline} Inline */
/** @typedef {import("./emphasis.js").Piece} Piece */
/** @typedef {import("./emphasis.js").Bracket} Bracket */

const MARKS_MAX = 2000; // of emphasis in one block; further ones are text
const HREF_CHARS_MAX = 2048;
const MATH_CHARS_MAX = 1000;

const PLAIN = /[^\\`*_~[\]!<&\n$h]+/y;
const WEB = /https?:\/\/[^\s<>"`\\|]+/y;
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2048})>/y;
const BREAK_TAG = /<br ?\/?>/iy;
const ENTITY = /&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|([a-zA-Z]{2,8}));/y;
const ENTITIES = new Map(
  Object.entries({ amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", mdash: "—", ndash: "–" }),
);
const PUNCTUATION = /[\p{P}\p{S}]/u;

/** The pieces of one block's text. @param {string} text @returns {Inline[]} */
export function parseInline(text) {
  return new Scan(text).run();
}

/** The words of some pieces, without their form. @param {Inline[]} pieces @returns {string} */
export function plain(pieces) {
  return pieces
    .map((piece) => ("children" in piece ? plain(piece.children) : piece.type === "break" ? " " : piece.text))
    .join("");
}

class Scan {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    this.at = 0;
    /** @type {Piece[]} */
    this.pieces = [];
    /** @type {number[]} places of open brackets */
    this.brackets = [];
    this.marks = 0;
    /** @type {Map<number, number>} by the length of a run of backticks: where none of it follows any more */
    this.noTicks = new Map();
  }

  /** @returns {Inline[]} */
  run() {
    while (this.at < this.text.length) {
      const words = this.match(PLAIN);
      if (words) this.say(words[0]);
      else if (!this.special(this.text[this.at])) this.say(this.text[this.at++]);
    }
    return paired(this.pieces);
  }

  /** @param {RegExp} pattern a sticky one */
  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  /** @param {string} text */
  say(text) {
    const last = this.pieces[this.pieces.length - 1];
    if (last?.type === "text") last.text += text;
    else this.pieces.push({ type: "text", text });
  }

  /** Whether something was made of what stands here. @param {string} char */
  special(char) {
    switch (char) {
      case "\n":
        return this.lineBreak();
      case "\\":
        return this.escape();
      case "`":
        return this.code();
      case "*":
      case "_":
      case "~":
        return this.mark(char);
      case "[":
        return this.open(false);
      case "!":
        return this.text[this.at + 1] === "[" && this.open(true);
      case "]":
        return this.close();
      case "<":
        return this.angle();
      case "&":
        return this.entity();
      case "$":
        return this.math("$", "$");
      default:
        return this.web();
    }
  }

  /** A new line stays one: what small models write is verse and lists more often than filled paragraphs. */
  lineBreak() {
    const last = this.pieces[this.pieces.length - 1];
    if (last?.type === "text") last.text = last.text.trimEnd();
    this.pieces.push({ type: "break" });
    this.at++;
    return true;
  }

  escape() {
    const next = this.text[this.at + 1] ?? "";
    if (next === "(" && this.math("\\(", "\\)")) return true;
    if (next === "\n") this.at++;
    else if (/[!-/:-@[-`{-~]/.test(next)) {
      this.say(next);
      this.at += 2;
    } else return false;
    return true;
  }

  code() {
    let end = this.at;
    while (this.text[end] === "`") end++;
    const count = end - this.at;
    const close = this.ticks(end, count);
    if (close < 0) {
      this.say(this.text.slice(this.at, end));
      this.at = end;
      return true;
    }
    let text = this.text.slice(end, close).replace(/\n/g, " ");
    if (text.startsWith(" ") && text.endsWith(" ") && text.trim()) text = text.slice(1, -1);
    this.pieces.push({ type: "code", text });
    this.at = close + count;
    return true;
  }

  /** Where the next run of exactly `count` backticks begins, or -1. @param {number} from @param {number} count */
  ticks(from, count) {
    if (from >= (this.noTicks.get(count) ?? Infinity)) return -1;
    for (let at = this.text.indexOf("`", from); at >= 0; ) {
      let end = at;
      while (this.text[end] === "`") end++;
      if (end - at === count) return at;
      at = this.text.indexOf("`", end);
    }
    this.noTicks.set(count, from);
    return -1;
  }

  /** @param {string} char */
  mark(char) {
    let end = this.at;
    while (this.text[end] === char) end++;
    const count = end - this.at;
    if (this.marks >= MARKS_MAX || (char === "~" && count !== 2)) {
      this.say(this.text.slice(this.at, end));
      this.at = end;
      return true;
    }
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[end] ?? " ";
    // CommonMark 0.31, "left-flanking" and "right-flanking".
    const left = !/\s/.test(after) && (!PUNCTUATION.test(after) || /\s/.test(before) || PUNCTUATION.test(before));
    const right = !/\s/.test(before) && (!PUNCTUATION.test(before) || /\s/.test(after) || PUNCTUATION.test(after));
    const isInWord = char === "_" && left && right;
    const opens = left && (!isInWord || PUNCTUATION.test(before));
    const closes = right && (!isInWord || PUNCTUATION.test(after));
    this.pieces.push({ type: "mark", char, count, opens, closes });
    this.marks++;
    this.at = end;
    return true;
  }

  /** @param {boolean} isImage */
  open(isImage) {
    if (this.brackets.length >= MARKS_MAX) return false;
    this.brackets.push(this.pieces.length);
    this.pieces.push({ type: "bracket", isImage });
    this.at += isImage ? 2 : 1;
    return true;
  }

  close() {
    const place = this.brackets.pop();
    if (place === undefined) return false;
    const raw = this.destination(this.at + 1);
    if (raw === null) return false;
    const bracket = /** @type {Bracket} */ (this.pieces[place]);
    const children = paired(this.pieces.splice(place).slice(1));
    const href = safeHref(raw);
    const depth = 1 + deepest(children);
    if (bracket.isImage) this.pieces.push({ type: "image", href, text: plain(children) });
    else if (href && depth <= DEPTH_MAX) {
      this.pieces.push({ type: "link", href, children, depth });
      this.brackets = []; // a link holds no other link
    } else this.pieces.push(...children);
    return true;
  }

  /** What stands in `(…)` from here, and the scan goes on after it; null when there is no such thing.
   * @param {number} from */
  destination(from) {
    if (this.text[from] !== "(") return null;
    const window = this.text.slice(from + 1, from + 1 + HREF_CHARS_MAX);
    const found = /^\s*<([^<>\n]*)>/.exec(window) ?? /^\s*([^\s()]*(?:\([^\s()]*\)[^\s()]*)*)/.exec(window);
    const rest = window.slice(found ? found[0].length : 0);
    const end = /^\s*(?:\s"[^"]*"|\s'[^']*')?\s*\)/.exec(rest);
    if (!found || !end) return null;
    this.at = from + 1 + found[0].length + end[0].length;
    return found[1];
  }

  angle() {
    if (this.match(BREAK_TAG)) return this.pieces.push({ type: "break" }) > 0;
    const found = this.match(ANGLE);
    return found !== null && this.address(found[1]);
  }

  web() {
    if (/\w/.test(this.text[this.at - 1] ?? "")) return false;
    const start = this.at;
    const found = this.match(WEB);
    if (!found) return false;
    let end = found[0].length;
    while (end > 0 && isTrailing(found[0], end)) end--;
    this.at = start + end;
    return this.address(found[0].slice(0, end));
  }

  /** @param {string} raw */
  address(raw) {
    const href = raw.length <= HREF_CHARS_MAX ? safeHref(raw) : null;
    if (href) this.pieces.push({ type: "link", href, children: [{ type: "text", text: raw }], depth: 1 });
    else this.say(raw);
    return true;
  }

  entity() {
    const found = this.match(ENTITY);
    if (!found) return false;
    const [whole, decimal, hex, name] = found;
    const code = decimal ? parseInt(decimal, 10) : parseInt(hex ?? "0", 16);
    const isCharacter = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
    this.say(name ? (ENTITIES.get(name) ?? whole) : isCharacter ? String.fromCodePoint(code) : whole);
    return true;
  }

  /** Formulas are shown as they are written; what matters is that no `_` in them becomes emphasis.
   * @param {string} open @param {string} close */
  math(open, close) {
    const from = this.at + open.length;
    const window = this.text.slice(from, from + MATH_CHARS_MAX);
    const end = window.indexOf(close);
    const text = window.slice(0, Math.max(end, 0));
    // "$5 and $6" are prices.
    const isPrice = open === "$" && (/^\s|\s$/.test(text) || /\d/.test(window[end + 1] ?? ""));
    if (end < 1 || isPrice || text.includes("\n")) return false;
    this.pieces.push({ type: "math", text: text.trim() });
    this.at = from + end + close.length;
    return true;
  }
}

/** Whether the last of these characters ends the sentence around an address. @param {string} text @param {number} end */
function isTrailing(text, end) {
  const last = text[end - 1];
  if (/[.,;:!?'*_~\]}]/.test(last)) return true;
  return last === ")" && !text.slice(0, end).includes("(");
}
