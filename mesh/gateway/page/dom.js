// Making DOM: the only place where elements are created, all of them from fixed names.

const ELEMENTS = new Set(
  ("a article aside bdi blockquote br button caption code dd del details div dl dt em fieldset footer form h2 h3 h4 h5 h6 header " +
    "hr input kbd label legend li menu ol option output p pre progress section select small span strong summary table " +
    "tbody td textarea th thead time tr ul").split(" "),
);
const DRAWN = new Set(["svg", "path", "circle", "rect", "g", "line", "title"]);
const SVG = "http://www.w3.org/2000/svg";

/** Icons, 16 by 16, drawn as one path. */
const ICONS = {
  plus: "M8 3v10M3 8h10",
  menu: "M2.5 4h11M2.5 8h11M2.5 12h11",
  graph: "M4 4.5 8 8m4-3.5L8 8m0 0v4M2.5 4a1.5 1.5 0 1 0 3 0 1.5 1.5 0 1 0-3 0m8 0a1.5 1.5 0 1 0 3 0 1.5 1.5 0 1 0-3 0m-4 8.5a1.5 1.5 0 1 0 3 0 1.5 1.5 0 1 0-3 0",
  send: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
  end: "M8 3v10M3.5 8.5 8 13l4.5-4.5",
  stop: "M4.5 4.5h7v7h-7z",
  copy: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
  check: "M3 8.5 6.5 12 13 4.5",
  retry: "M13 8a5 5 0 1 1-1.5-3.6M13 2v3h-3",
  edit: "m3 13 .7-3L10.5 3.2l2.3 2.3L6 12.3z",
  up: "M5 7v6H2.5V7zm0 0 3-5c1.2 0 1.7.9 1.5 2L9 6.5h3.2c.9 0 1.5.8 1.3 1.6l-.9 3.8c-.2.7-.7 1.1-1.4 1.1H5",
  down: "M5 9V3H2.5v6zm0 0 3 5c1.2 0 1.7-.9 1.5-2L9 9.5h3.2c.9 0 1.5-.8 1.3-1.6l-.9-3.8C12.4 3.4 11.9 3 11.2 3H5",
  close: "m4 4 8 8m0-8-8 8",
  trash: "M3 4.5h10M6.5 4V2.5h3V4m-5 .5.6 9h5.8l.6-9",
  download: "M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10",
  settings: "M2.5 5h5m3.5 0h2.5M2.5 11H5m3.5 0h5M9 3.3v3.4M7 9.3v3.4",
  theme: "M8 2.5a5.5 5.5 0 1 0 0 11z M8 2.5a5.5 5.5 0 0 1 0 11",
  link: "M6.5 9.5 12 4m-4 0h4v4M10 9.5V12H4V6h2.5",
};

/** @typedef {keyof typeof ICONS} IconName */
/** @typedef {Node | string | null | undefined | false} Child */

/** An element. `on` are listeners by event, `data` its data attributes; of the rest, true sets an attribute and false,
 * null or undefined leave it out. @param {string} name @param {Record<string, any>} [props] @param {...Child} children
 * @returns {any} */
export function el(name, props = {}, ...children) {
  if (!ELEMENTS.has(name)) throw new TypeError(`${name} is not an element of this page`);
  return filled(document.createElement(name), props, children);
}

/** A drawn element. @param {string} name @param {Record<string, any>} [props] @param {...Child} children
 * @returns {any} */
export function drawn(name, props = {}, ...children) {
  if (!DRAWN.has(name)) throw new TypeError(`${name} is not drawn on this page`);
  return filled(document.createElementNS(SVG, name), props, children);
}

/** @param {Element} element @param {Record<string, any>} props @param {Child[]} children */
function filled(element, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (key === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (key === "data") Object.assign(/** @type {HTMLElement} */ (element).dataset, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, String(value));
  }
  put(element, ...children);
  return element;
}

/** Append what there is. @param {Element} parent @param {...Child} children */
export function put(parent, ...children) {
  for (const child of children) if (child) parent.append(child);
}

/** Have exactly these children, and touch none that stays: a live region would tell it again.
 * @param {Element} parent @param {...Child} children */
export function keep(parent, ...children) {
  const wanted = /** @type {Node[]} */ (children.filter((child) => child instanceof Node));
  for (const old of [...parent.childNodes]) if (!wanted.includes(old)) old.remove();
  wanted.forEach((child, at) => {
    if (parent.childNodes[at] !== child) parent.insertBefore(child, parent.childNodes[at] ?? null);
  });
}

/** Have exactly these children. @param {Element} parent @param {...Child} children */
export function fill(parent, ...children) {
  parent.replaceChildren();
  put(parent, ...children);
}

/** @param {IconName} name */
export function icon(name) {
  return drawn("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, drawn("path", { d: ICONS[name] }));
}

/** A button with an icon; its name is also its tooltip. @param {IconName} picture @param {string} name
 * @param {(event: MouseEvent) => void} press @param {Record<string, any>} [props] */
export function iconButton(picture, name, press, props = {}) {
  const own = { type: "button", class: "icon-button", "aria-label": name, title: name, on: { click: press } };
  return el("button", { ...own, ...props }, icon(picture));
}

/** A button that copies, and says that it did. @param {() => string} text @param {string} name */
export function copyButton(text, name) {
  const button = iconButton("copy", name, async () => {
    const done = await copy(text());
    fill(button, icon(done ? "check" : "close"));
    button.setAttribute("aria-label", done ? "Copied" : "Could not copy");
    setTimeout(() => {
      fill(button, icon("copy"));
      button.setAttribute("aria-label", name);
    }, 1500);
  });
  return button;
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no permission, or a page that did not come over a secure connection
  }
}

/** Text on its way out as a file. @param {string} name @param {string} type @param {string} text */
export function saveFile(name, type, text) {
  const href = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href, download: name }).click();
  URL.revokeObjectURL(href);
}

/** The element of the page's skeleton with this id. @param {string} id @returns {any} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new TypeError(`the page has no #${id}`);
  return found;
}
