// One colour for each peer, the same wherever it is seen on this page: in answers, in the graph, in the list.

const HUES = 8; // of theme.css

/** @type {Map<string, number>} */
const given = new Map();

/** @param {string} peer its id; "" has no colour */
export function hueOf(peer) {
  if (!peer) return "none";
  if (!given.has(peer)) given.set(peer, given.size % HUES);
  return String(given.get(peer));
}
