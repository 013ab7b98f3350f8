// What a user chose, kept in this browser; one key each, so that an unreadable one costs only itself.

/** @type {Record<string, string>} */
const DEFAULTS = { model: "mesh", privacy: "trusted", planFirst: "", deadline: "120", budget: "", theme: "auto", singleKeys: "on" };

/** @param {string} name */
export function setting(name) {
  try {
    return localStorage.getItem(`monai.${name}`) ?? DEFAULTS[name];
  } catch {
    return DEFAULTS[name];
  }
}

/** @param {string} name @param {string} value */
export function choose(name, value) {
  try {
    localStorage.setItem(`monai.${name}`, value);
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
}
