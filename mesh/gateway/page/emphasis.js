// Marks of emphasis, paired as CommonMark pairs them. Pure.

/**
 * @typedef {{type: "text" | "code" | "math", text: string}} Leaf
 * @typedef {{type: "break"}} Break
 * @typedef {{type: "em" | "strong" | "del", children: Inline[], depth: number}} Emphasis
 * @typedef {{type: "link", href: string, children: Inline[], depth: number}} Link
 * @typedef {{type: "image", href: string | null, text: string}} Image
 * @typedef {Leaf | Break | Emphasis | Link | Image} Inline
 * @typedef {{type: "mark", char: string, count: number, opens: boolean, closes: boolean}} Mark
 * @typedef {{type: "bracket", isImage: boolean}} Bracket
 * @typedef {Inline | Mark | Bracket} Piece
 */

export const DEPTH_MAX = 16; // what is nested deeper loses its form, not its words

/** Marks become emphasis, or text. One pass with a stack: what closes, closes the nearest that it can.
 * @param {Piece[]} pieces @returns {Inline[]} */
export function paired(pieces) {
  /** @type {Piece[]} */
  const done = [];
  /** @type {number[]} */
  let openers = [];
  for (const piece of pieces) {
    if (piece.type !== "mark") {
      done.push(piece);
      continue;
    }
    let { count } = piece;
    while (piece.closes && count > 0) {
      const nearest = openers.findLastIndex((place) => fits(/** @type {Mark} */ (done[place]), piece));
      if (nearest < 0) break;
      const opener = /** @type {Mark} */ (done[openers[nearest]]);
      const children = settled(done.splice(openers[nearest] + 1));
      const depth = 1 + deepest(children);
      const used = Math.min(2, count, opener.count);
      openers = openers.slice(0, nearest + 1);
      opener.count -= used;
      count -= used;
      if (opener.count === 0) {
        done.pop();
        openers.pop();
      }
      const type = piece.char === "~" ? "del" : used === 2 ? "strong" : "em";
      if (depth <= DEPTH_MAX) done.push({ type, children, depth });
      else done.push(...children);
    }
    if (count > 0) {
      if (piece.opens) openers.push(done.length);
      done.push({ ...piece, count });
    }
  }
  return settled(done);
}

/** @param {Mark} opener @param {Mark} closer */
function fits(opener, closer) {
  if (opener.char !== closer.char) return false;
  // CommonMark's rule of three, for runs that can do both.
  const isBoth = opener.closes || closer.opens;
  return !(isBoth && (opener.count + closer.count) % 3 === 0 && opener.count % 3 !== 0);
}

/** What is still a mark is text. @param {Piece[]} pieces @returns {Inline[]} */
function settled(pieces) {
  /** @type {Inline[]} */
  const found = [];
  for (const piece of pieces) {
    const text =
      piece.type === "mark" ? piece.char.repeat(piece.count) : piece.type === "bracket" ? (piece.isImage ? "![" : "[") : null;
    const last = found[found.length - 1];
    if (text === null && piece.type === "text" && last?.type === "text") last.text += piece.text;
    else if (text === null) found.push(/** @type {Inline} */ (piece));
    else if (last?.type === "text") last.text += text;
    else found.push({ type: "text", text });
  }
  return found;
}

/** @param {Inline[]} pieces */
export function deepest(pieces) {
  return pieces.reduce((most, piece) => Math.max(most, "depth" in piece ? piece.depth : 0), 0);
}
