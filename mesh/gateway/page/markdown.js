// Markdown's blocks: text in, a tree out. Pure, and linear in the text whatever it says: it comes from peers.
//
// CommonMark and GitHub's tables and task lists, as models write them: raw HTML is text, indented lines are no code, `---`
// below a line is a rule (a paragraph that becomes a heading when its next line arrives would flicker).

/**
 * @typedef {{type: "paragraph", text: string}} Paragraph
 * @typedef {{type: "heading", depth: number, text: string}} Heading
 * @typedef {{type: "code", language: string, text: string}} Code
 * @typedef {{type: "math", text: string}} MathBlock
 * @typedef {{type: "quote", blocks: Block[]}} Quote
 * @typedef {{checked: boolean | null, blocks: Block[]}} Item
 * @typedef {{type: "list", ordered: boolean, start: number, isTight: boolean, items: Item[]}} List
 * @typedef {"left" | "center" | "right" | ""} Align
 * @typedef {{type: "table", align: Align[], header: string[], rows: string[][]}} Table
 * @typedef {{type: "rule"}} Rule
 * @typedef {Paragraph | Heading | Code | MathBlock | Quote | List | Table | Rule} Block
 * @typedef {{block: Block, next: number}} Found the block, and the line after it
 */

// Deeper quotes and lists are shown as they are written: nobody reads them, and each level reads its lines again.
const DEPTH_MAX = 12;
const COLUMNS_MAX = 64;

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const QUOTE = /^ {0,3}> ?/;
const MARKER = /^( *)([-*+]|\d{1,9}[.)])(?:[ \t]|$)/;
const CHECK = /^\[([ xX])\][ \t]+/;
const DELIMITER_CELL = /^:?-+:?$/;

/** The blocks of a text. @param {string} text @returns {Block[]} */
export function parse(text) {
  return parseFrom(text).map(({ block }) => block);
}

/** The blocks of a text, each with the place where it begins. Later text can change only the last one.
 * @param {string} text @returns {{block: Block, start: number}[]} */
export function parseFrom(text) {
  const lines = text.split("\n");
  const found = [];
  let start = 0;
  let line = 0;
  for (const { block, first } of blocksOf(lines, 0)) {
    for (; line < first; line++) start += lines[line].length + 1;
    found.push({ block, start });
  }
  return found;
}

/** @param {string[]} lines @param {number} depth @returns {{block: Block, first: number}[]} */
function blocksOf(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const { block, next } = nextBlock(lines, at, depth);
    blocks.push({ block, first: at });
    at = next;
  }
  return blocks;
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {Found} */
function nextBlock(lines, at, depth) {
  return (
    fenced(lines, at) ??
    heading(lines, at) ??
    (isRule(lines[at]) ? { block: { type: "rule" }, next: at + 1 } : null) ??
    displayMath(lines, at) ??
    (depth < DEPTH_MAX ? (quote(lines, at, depth) ?? list(lines, at, depth)) : null) ??
    table(lines, at) ??
    paragraph(lines, at, depth)
  );
}

/** Whether a line that follows a paragraph begins something else. @param {string} line @param {number} depth */
function interrupts(line, depth) {
  if (FENCE.test(line) || HEADING.test(line) || isRule(line)) return true;
  if (depth >= DEPTH_MAX) return false;
  const marker = MARKER.exec(line);
  // "… in\n1999. It was …" is a sentence.
  const isList = marker !== null && marker[1].length < 4 && (/^[-*+]$/.test(marker[2]) || /^1[.)]$/.test(marker[2]));
  return QUOTE.test(line) || (isList && line.trim().length > marker[2].length);
}

/** @param {string} line */
function isRule(line) {
  return /^ {0,3}[-*_]/.test(line) && /^(?:-{3,}|\*{3,}|_{3,})$/.test(line.replace(/[ \t]/g, ""));
}

/** @param {string[]} lines @param {number} at @returns {Found | null} */
function fenced(lines, at) {
  const opening = FENCE.exec(lines[at]);
  if (!opening || (opening[2][0] === "`" && opening[3].includes("`"))) return null;
  const [, indent, fence, info] = opening;
  const closing = new RegExp(`^ {0,3}\\${fence[0]}{${fence.length},}[ \\t]*$`);
  const body = [];
  let next = at + 1;
  for (; next < lines.length && !closing.test(lines[next]); next++) body.push(unindent(lines[next], indent.length));
  const language = info.trim().split(/\s/, 1)[0].slice(0, 40);
  return { block: { type: "code", language, text: body.join("\n") }, next: next + 1 };
}

/** @param {string[]} lines @param {number} at @returns {Found | null} */
function heading(lines, at) {
  const marks = HEADING.exec(lines[at]);
  if (!marks) return null;
  let text = lines[at].trim().slice(marks[1].length).trim();
  let end = text.length;
  while (end > 0 && text[end - 1] === "#") end--;
  if (end === 0 || text[end - 1] === " ") text = text.slice(0, end).trimEnd();
  return { block: { type: "heading", depth: marks[1].length, text }, next: at + 1 };
}

/** @param {string[]} lines @param {number} at @returns {Found | null} */
function displayMath(lines, at) {
  const first = lines[at].trim();
  const close = first.startsWith("$$") ? "$$" : first.startsWith("\\[") ? "\\]" : "";
  if (!close) return null;
  const body = [];
  for (let next = at; next < lines.length; next++) {
    const line = next === at ? first.slice(2) : lines[next];
    const end = line.indexOf(close);
    if (end >= 0 && line.slice(end + 2).trim()) return null; // words after it: part of a sentence
    if (end >= 0) {
      body.push(line.slice(0, end));
      return { block: { type: "math", text: body.join("\n").trim() }, next: next + 1 };
    }
    if (!line.trim() && next > at) return null;
    body.push(line);
  }
  return { block: { type: "math", text: body.join("\n").trim() }, next: lines.length };
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {Found | null} */
function quote(lines, at, depth) {
  if (!QUOTE.test(lines[at])) return null;
  const inner = [];
  let next = at;
  for (; next < lines.length && lines[next].trim(); next++) {
    const isQuoted = QUOTE.test(lines[next]);
    // A paragraph goes on in a line without the mark.
    if (!isQuoted && (!inner[inner.length - 1].trim() || interrupts(lines[next], depth))) break;
    inner.push(isQuoted ? lines[next].replace(QUOTE, "") : lines[next]);
  }
  const blocks = blocksOf(inner, depth + 1).map(({ block }) => block);
  return { block: { type: "quote", blocks }, next };
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {Found | null} */
function list(lines, at, depth) {
  const opening = MARKER.exec(lines[at]);
  if (!opening || opening[1].length > 3) return null;
  const kind = opening[2].slice(-1);
  const items = [];
  let isTight = true;
  let next = at;
  while (next < lines.length) {
    const marker = MARKER.exec(lines[next]);
    if (!marker || marker[1].length > 3 || marker[2].slice(-1) !== kind || isRule(lines[next])) break;
    const item = itemLines(lines, next, marker, depth);
    const blocks = blocksOf(item.lines, depth + 1);
    const check = CHECK.exec(item.lines[0]);
    if (check && blocks[0]?.block.type === "paragraph") blocks[0].block.text = blocks[0].block.text.slice(check[0].length);
    items.push({ checked: check ? check[1] !== " " : null, blocks: blocks.map(({ block }) => block) });
    next = item.next;
    const isLast = next >= lines.length;
    isTight &&= !(item.endsBlank && !isLast && MARKER.exec(lines[next])?.[2].slice(-1) === kind);
  }
  const ordered = /\d/.test(opening[2]);
  return { block: { type: "list", ordered, start: ordered ? parseInt(opening[2], 10) : 1, isTight, items }, next };
}

/** The lines of one item, without their indentation. @param {string[]} lines @param {number} at
 * @param {RegExpExecArray} marker @param {number} depth */
function itemLines(lines, at, marker, depth) {
  const rest = lines[at].slice(marker[0].length);
  const spaces = rest.length - rest.trimStart().length;
  const width = marker[1].length + marker[2].length + 1 + (spaces < 4 ? spaces : 0);
  const inner = [rest.slice(spaces < 4 ? spaces : 0)];
  // Models indent what is inside an item by two, also below "1. ".
  const enough = Math.min(width, marker[1].length + 2);
  let next = at + 1;
  let blanks = 0;
  for (; next < lines.length; next++) {
    const line = lines[next];
    if (!line.trim()) {
      blanks++;
      continue;
    }
    const indent = line.length - line.trimStart().length;
    const isInside = indent >= enough;
    if (!isInside && (blanks > 0 || MARKER.test(line) || interrupts(line, depth))) break;
    for (; blanks > 0; blanks--) inner.push("");
    inner.push(unindent(line, width));
  }
  return { lines: inner, next, endsBlank: blanks > 0 };
}

/** @param {string} line @param {number} most spaces to take away */
function unindent(line, most) {
  let spaces = 0;
  while (spaces < most && line[spaces] === " ") spaces++;
  return line.slice(spaces);
}

/** @param {string[]} lines @param {number} at @returns {Found | null} */
function table(lines, at) {
  const delimiter = lines[at + 1];
  if (delimiter === undefined || !lines[at].includes("|") || !/^[ \t|:-]+$/.test(delimiter)) return null;
  const header = cells(lines[at]);
  const marks = cells(delimiter);
  if (header.length > COLUMNS_MAX) return null;
  // The last line may still grow into a whole row; until then there would be a paragraph of bars on screen.
  const isGrowing = at + 2 === lines.length && lines[at].trimStart().startsWith("|");
  const isWhole = marks.length === header.length && marks.every((mark) => DELIMITER_CELL.test(mark));
  if (!isWhole && !isGrowing) return null;
  const align = marks.map(alignment);
  const rows = [];
  let next = at + 2;
  for (; next < lines.length && lines[next].trim() && (lines[next].includes("|") || !interrupts(lines[next], 0)); next++) {
    const row = cells(lines[next]);
    rows.push(header.map((_, column) => row[column] ?? ""));
  }
  return { block: { type: "table", align, header, rows }, next };
}

/** @param {string} cell of the delimiter row @returns {Align} */
function alignment(cell) {
  if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
  return cell.startsWith(":") ? "left" : "";
}

/** @param {string} line @returns {string[]} */
function cells(line) {
  const row = line.trim();
  const found = [];
  let cell = "";
  for (let at = row[0] === "|" ? 1 : 0; at < row.length; at++) {
    if (row[at] === "\\" && row[at + 1] === "|") cell += row[++at];
    else if (row[at] === "|") {
      found.push(cell.trim());
      cell = "";
    } else cell += row[at];
  }
  if (cell.trim() || !row.endsWith("|")) found.push(cell.trim());
  return found;
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {Found} */
function paragraph(lines, at, depth) {
  let next = at + 1;
  while (next < lines.length && lines[next].trim() && !interrupts(lines[next], depth)) {
    if (/^ {0,3}=+[ \t]*$/.test(lines[next])) {
      const text = joined(lines.slice(at, next));
      return { block: { type: "heading", depth: 1, text }, next: next + 1 };
    }
    if (next > at && table(lines, next)) break;
    next++;
  }
  return { block: { type: "paragraph", text: joined(lines.slice(at, next)) }, next };
}

/** @param {string[]} lines */
function joined(lines) {
  return lines.map((line) => line.trimStart()).join("\n").trimEnd();
}
