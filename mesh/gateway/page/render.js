// Markdown on screen: the tree becomes DOM, and grows with a stream without being built anew.

import { copyButton, el, fill, icon } from "./dom.js";
import { parseInline } from "./inline.js";
import { parseFrom } from "./markdown.js";
import { plural, target } from "./text.js";

/** @typedef {import("./markdown.js").Block} Block */
/** @typedef {import("./emphasis.js").Inline} Inline */

const CELLS_SHOWN = 600; // of one table; the rest on request
const ITEMS_SHOWN = 400;
const LINES_SHOWN = 2000; // of one code block

/** A text that grows. Blocks that are whole stay as they are; only the last one is built again. */
export class MarkdownView {
  constructor() {
    this.element = el("div", { class: "markdown" });
    this.start = 0; // of the last block in the text
    this.written = 0; // characters of it that are on screen
  }

  /** Show this text, which begins with the one before; without control characters, see `clean`. @param {string} text */
  show(text) {
    if (text.length === this.written) return;
    if (this.written > 0) this.element.lastElementChild?.remove();
    this.written = text.length;
    const found = parseFrom(text.slice(this.start));
    this.element.append(...found.map(({ block }) => blockElement(block)));
    this.start += found[found.length - 1]?.start ?? 0;
  }
}

/** @param {Block} block @returns {HTMLElement} */
function blockElement(block) {
  switch (block.type) {
    case "heading":
      // The page's own headings are above those of an answer.
      return el(`h${Math.min(6, block.depth + 2)}`, { dir: "auto" }, ...inline(block.text));
    case "paragraph":
      return el("p", { dir: "auto" }, ...inline(block.text));
    case "code":
      return codeElement(block.text, block.language);
    case "math":
      return el("pre", { class: "math", tabindex: "0" }, el("code", {}, block.text));
    case "quote":
      return el("blockquote", { dir: "auto" }, ...block.blocks.map(blockElement));
    case "list":
      return listElement(block);
    case "table":
      return tableElement(block);
    case "rule":
      return el("hr");
  }
}

/** @param {string} text @param {string} language */
function codeElement(text, language) {
  const lines = text.split("\n");
  const isLong = lines.length > LINES_SHOWN;
  const code = el("code", {}, isLong ? lines.slice(0, LINES_SHOWN).join("\n") : text);
  const head = el("div", { class: "code-head" }, el("span", {}, language || "text"), copyButton(() => text, "Copy code"));
  const box = el("div", { class: "code" }, head, el("pre", { dir: "ltr", tabindex: "0" }, code));
  if (isLong) box.append(showAll(plural(lines.length, "line"), () => fill(code, text)));
  return box;
}

/** @param {import("./markdown.js").List} block */
function listElement(block) {
  const list = el(block.ordered ? "ol" : "ul", { dir: "auto", class: block.isTight ? "tight" : null });
  if (block.ordered && block.start !== 1) list.setAttribute("start", String(block.start));
  list.append(...block.items.slice(0, ITEMS_SHOWN).map((item) => itemElement(item, block.isTight)));
  if (block.items.length <= ITEMS_SHOWN) return list;
  const rest = () => list.append(...block.items.slice(ITEMS_SHOWN).map((item) => itemElement(item, block.isTight)));
  return el("div", {}, list, showAll(plural(block.items.length, "item"), rest));
}

/** @param {import("./markdown.js").Item} item @param {boolean} isTight */
function itemElement(item, isTight) {
  const [first, ...others] = item.blocks;
  const isPlain = isTight && first?.type === "paragraph";
  const words = isPlain ? inline(first.text) : first ? [blockElement(first)] : [];
  const box =
    item.checked === null
      ? null
      : el("input", { type: "checkbox", disabled: true, checked: item.checked, "aria-label": item.checked ? "Done" : "Open" });
  return el("li", { class: box ? "check" : null }, box, ...words, ...others.map(blockElement));
}

/** @param {import("./markdown.js").Table} block */
function tableElement(block) {
  const most = Math.max(5, Math.floor(CELLS_SHOWN / block.header.length));
  const cell = (/** @type {string} */ name, /** @type {string} */ text, /** @type {number} */ column) =>
    el(name, { dir: "auto", class: block.align[column] && `align-${block.align[column]}` }, ...inline(text));
  const row = (/** @type {string[]} */ cells) => el("tr", {}, ...cells.map((text, column) => cell("td", text, column)));
  const head = el("thead", {}, el("tr", {}, ...block.header.map((text, column) => cell("th", text, column))));
  const body = el("tbody", {}, ...block.rows.slice(0, most).map(row));
  const box = el("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }, el("table", {}, head, body));
  if (block.rows.length <= most) return box;
  const rest = () => body.append(...block.rows.slice(most).map(row));
  return el("div", {}, box, showAll(plural(block.rows.length, "row"), rest));
}

/** @param {string} what @param {() => void} show */
function showAll(what, show) {
  const press = (/** @type {MouseEvent} */ event) => {
    show();
    /** @type {HTMLElement} */ (event.currentTarget).remove();
  };
  return el("button", { type: "button", class: "show-all", on: { click: press } }, `Show all ${what}`);
}

/** @param {string} text @returns {Node[]} */
function inline(text) {
  return parseInline(text).map(inlineNode);
}

/** @param {Inline} piece @returns {Node} */
function inlineNode(piece) {
  switch (piece.type) {
    case "text":
      return document.createTextNode(piece.text);
    case "break":
      return el("br");
    case "code":
      return el("code", { dir: "ltr" }, piece.text);
    case "math":
      return el("code", { class: "math", dir: "ltr" }, piece.text);
    case "image":
      // Never loaded: an address that holds what a model read would tell its owner.
      return piece.href ? linkElement(piece.href, [`Image: ${piece.text || "without a title"}`], true) : new Text(piece.text);
    case "link":
      return linkElement(piece.href, piece.children.map(inlineNode), !isSelfSaying(piece));
    default:
      return el(piece.type, {}, ...piece.children.map(inlineNode));
  }
}

/** Whether the words of a link are its address. @param {import("./emphasis.js").Link} link */
function isSelfSaying({ href, children }) {
  const [only] = children;
  return children.length === 1 && only.type === "text" && [href, `${only.text}/`].includes(href) && href.startsWith(only.text);
}

/** @param {string} href @param {(Node | string)[]} words @param {boolean} saysTarget */
function linkElement(href, words, saysTarget) {
  const where = saysTarget ? el("span", { class: "target", dir: "ltr" }, target(href), icon("link")) : null;
  return el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow", title: href }, ...words, where);
}
