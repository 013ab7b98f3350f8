// Markdown as models and their enemies write it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { parseInline, plain } from "../../mesh/gateway/page/inline.js";
import { parse, parseFrom } from "../../mesh/gateway/page/markdown.js";

const types = (text) => parse(text).map(({ type }) => type);
const shape = (text) => parseInline(text).map((piece) => (piece.type === "text" ? piece.text : [piece.type, piece.text ?? plain(piece.children ?? [])]));

test("the blocks of an answer", () => {
  const text = "# Title\n\nWords\nand more\n\n- one\n- two\n\n> said\n\n```py\nx = 1\n```\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n---\n\n$$\nx_1\n$$";
  assert.deepEqual(types(text), ["heading", "paragraph", "list", "quote", "code", "table", "rule", "math"]);
  assert.deepEqual(parse("```py\nx = 1\n```")[0], { type: "code", language: "py", text: "x = 1" });
  assert.deepEqual(parse("| a | b |\n|---|--:|\n| 1 \\| 2 |")[0].rows, [["1 | 2", ""]]);
});

test("what begins a block inside a sentence is a sentence", () => {
  assert.deepEqual(types("He was born in\n1999. It rained."), ["paragraph"]);
  assert.deepEqual(types("a line\n---\nanother"), ["paragraph", "rule", "paragraph"]);
  assert.deepEqual(types("$$ is two dollars"), ["math"]);
  assert.deepEqual(types("$$x$$ is a formula"), ["paragraph"]);
});

test("lists inside lists, also with the two spaces that models use", () => {
  const [list] = parse("1. one\n  - inner\n  - more\n2. two\n\n   still two");
  assert.equal(list.items.length, 2);
  assert.equal(list.items[0].blocks[1].items.length, 2);
  assert.equal(list.items[1].blocks[1].text, "still two");
  assert.deepEqual(parse("- [x] done\n- [ ] open")[0].items.map(({ checked }) => checked), [true, false]);
  assert.equal(parse("3. c\n4. d")[0].start, 3);
});

test("a fence that is never closed holds the rest", () => {
  assert.deepEqual(parse("```js\nlet a;\n<script>"), [{ type: "code", language: "js", text: "let a;\n<script>" }]);
});

test("a table shows as soon as its second line begins", () => {
  assert.deepEqual(types("| a | b |\n|-"), ["table"]);
  assert.deepEqual(types("| a | b |\n|-\nwords"), ["paragraph"]);
});

test("blocks say where they begin, and text that comes later changes only the last one", () => {
  const text = "# T\n\nwords\n\n- a\n- b\n\n| a |\n|---|\n| 1 |\n\n> q\n\n```\ncode\n\nmore\n```\nend";
  for (let length = 1; length < text.length; length++) {
    const before = parseFrom(text.slice(0, length));
    const last = before.at(-1);
    if (!last) continue;
    const whole = parseFrom(text).filter(({ start }) => start < last.start);
    assert.deepEqual(before.slice(0, -1), whole);
  }
});

test("emphasis, code and links", () => {
  assert.deepEqual(shape("a *b **c*** `x_y_z` snake_case_name"), ["a ", ["em", "b c"], " ", ["code", "x_y_z"], " snake_case_name"]);
  assert.deepEqual(shape("**bold**, ~~gone~~, 2 * 3 * 4"), [["strong", "bold"], ", ", ["del", "gone"], ", 2 * 3 * 4"]);
  const [link] = parseInline('[words](https://example.org/a_b "title")');
  assert.equal(link.href, "https://example.org/a_b");
  assert.equal(parseInline("see https://example.org/x_(y).").at(1).href, "https://example.org/x_(y)");
  assert.deepEqual(shape("costs $5 or $6, but $x_1$ is math"), ["costs $5 or $6, but ", ["math", "x_1"], " is math"]);
  assert.deepEqual(shape("&lt;b&gt; &#x41; &nope; &#xD800;"), ["<b> A &nope; &#xD800;"]);
});

test("only addresses that lead out of here, and run nothing, become links", () => {
  const hostile = ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "/v1/peers", "//evil.example", "blob:x"];
  for (const href of hostile) assert.deepEqual(shape(`[x](${href})`), ["x"], href);
  assert.deepEqual(shape("[x](java\tscript:alert(1))"), ["[x](java\tscript:alert(1))"]);
  assert.equal(parseInline("![pixel](https://evil.example/?q=secret)")[0].type, "image");
  assert.equal(parseInline("<javascript:alert(1)>")[0].type, "text");
});

test("HTML is text", () => {
  assert.deepEqual(shape("<script>alert(1)</script><img src=x onerror=alert(1)>"), ["<script>alert(1)</script><img src=x onerror=alert(1)>"]);
});

test("nothing takes long or overflows, whatever is written", () => {
  const many = 8_000;
  const hostile = [
    "> ".repeat(1000) + "x", ">".repeat(many), "[".repeat(many), "![".repeat(many), "[a](".repeat(many / 4), "*a ".repeat(many),
    "**a".repeat(many), "_a_".repeat(many), "*a ".repeat(many / 2) + "a* ".repeat(many / 2), "`".repeat(many), "``a`".repeat(many / 4),
    "<".repeat(many), "&a".repeat(many), "\\(".repeat(many / 2), "$a".repeat(many), "http://a.".repeat(many / 9), `https://${")".repeat(many)}`,
    `#${" ".repeat(many)}x`, `|a|b|\n|${"-".repeat(many)}x`, `|a\n${"|".repeat(many)}`, "$$\n".repeat(many), "- ".repeat(many) + "x",
    Array.from({ length: 500 }, (_, depth) => `${" ".repeat(2 * depth)}- a`).join("\n"), `a\n${"|b\n".repeat(many)}`, "- x\n\n".repeat(many / 5),
    ("`".repeat(40) + " ").repeat(many / 40), `[a](${"(a)".repeat(many / 3)}`, "~~~\n".repeat(many / 4), "![".repeat(500) + "](x)".repeat(500),
  ];
  const walk = (block) => {
    if (block.text !== undefined && block.type !== "code") parseInline(block.text);
    for (const inner of [...(block.blocks ?? []), ...(block.items ?? []).flatMap(({ blocks }) => blocks)]) walk(inner);
    for (const cell of [block.header ?? [], block.rows ?? []].flat(2)) parseInline(cell);
  };
  for (const text of hostile) parse(text).forEach(walk); // what is quadratic takes minutes, and the test's deadline
});
