// Where the tasks of a graph stand: layers from top to bottom, few crossings, room for links that pass by. Pure.
//
// Sugiyama's method as far as thirty tasks need it: longest-path layers, stand-ins where a link crosses a layer, and the
// order within layers by the mean place of the neighbours (barycentre), swept down and up.

/**
 * @typedef {{id: string, needs: string[]}} Node
 * @typedef {{x: number, y: number}} Point
 * @typedef {{places: Map<string, Point>, links: {from: string, to: string, points: Point[]}[], width: number,
 *   height: number, nodeWidth: number}} Layout
 *   `places` are the upper left corners; the points of a link go from the lower edge of one node to the upper of another
 * @typedef {{id: string, isReal: boolean, up: Cell[], down: Cell[], x: number}} Cell
 */

const SWEEPS = 4;
const STAND_IN_WIDTH = 20;
const NODE_WEIGHT = 1000; // against 1 of a stand-in: nodes stand straight, and links go around them

/** @param {Node[]} nodes without circles @param {{width: number, nodeMin: number, nodeMax: number, nodeHeight: number,
 *   gapX: number, gapY: number}} size in pixels; wider than `width` only where nodes would be narrower than `nodeMin`
 * @returns {Layout} */
export function layOut(nodes, size) {
  const { layers, chains } = layered(nodes);
  for (let sweep = 0; sweep < SWEEPS; sweep++) order(layers, sweep % 2 === 0);
  const room = (/** @type {Cell[]} */ layer) => {
    const stands = layer.filter(({ isReal }) => !isReal).length;
    const taken = (layer.length - 1) * size.gapX + stands * STAND_IN_WIDTH;
    return (size.width - taken) / (layer.length - stands || 1);
  };
  const nodeWidth = Math.max(size.nodeMin, Math.min(size.nodeMax, ...layers.map(room)));
  const widthOf = (/** @type {Cell} */ cell) => (cell.isReal ? nodeWidth : STAND_IN_WIDTH);
  const widths = layers.map((layer) => layer.reduce((sum, cell) => sum + widthOf(cell) + size.gapX, -size.gapX));
  const width = Math.max(size.width, ...widths);
  layers.forEach((layer, at) => {
    let x = (width - widths[at]) / 2;
    for (const cell of layer) {
      cell.x = x + widthOf(cell) / 2;
      x += widthOf(cell) + size.gapX;
    }
  });
  for (let sweep = 0; sweep < 2 * SWEEPS; sweep++) {
    for (const layer of sweep % 2 === 0 ? layers : layers.toReversed()) straighten(layer, widthOf, size.gapX, width);
  }
  centre(layers, widthOf, width);
  const step = size.nodeHeight + size.gapY;
  const places = new Map();
  layers.forEach((layer, at) => {
    for (const { id, x, isReal } of layer) if (isReal) places.set(id, { x: x - nodeWidth / 2, y: at * step });
  });
  const links = chains.map(({ from, to, cells, layer }) => ({
    from,
    to,
    points: cells.flatMap((cell, n) => {
      const top = { x: cell.x, y: (layer + n) * step };
      const bottom = { x: cell.x, y: top.y + size.nodeHeight };
      return n === 0 ? [bottom] : n === cells.length - 1 ? [top] : [top, bottom];
    }),
  }));
  return { places, links, width, height: layers.length * step - size.gapY, nodeWidth };
}

/** How deep each node lies, from 0; what lies on a circle, or behind one, stands at 0.
 * @param {Node[]} nodes @returns {Map<string, number>} */
export function depths(nodes) {
  const found = new Map();
  const known = new Set(nodes.map(({ id }) => id));
  let rest = nodes;
  while (rest.length > 0) {
    const ready = rest.filter(({ needs }) => needs.every((need) => !known.has(need) || found.has(need)));
    if (ready.length === 0) break;
    const now = ready.map(({ id, needs }) => [id, 1 + Math.max(-1, ...needs.map((need) => found.get(need) ?? -1))]);
    for (const [id, depth] of now) found.set(id, depth);
    rest = rest.filter(({ id }) => !found.has(id));
  }
  for (const { id } of rest) found.set(id, 0);
  return found;
}

/** @param {Node[]} nodes */
function layered(nodes) {
  const depth = depths(nodes);
  /** @type {Cell[][]} */
  const layers = Array.from({ length: 1 + Math.max(0, ...depth.values()) }, () => []);
  /** @type {Map<string, Cell>} */
  const cells = new Map();
  const put = (/** @type {string} */ id, /** @type {number} */ at, /** @type {boolean} */ isReal) => {
    /** @type {Cell} */
    const cell = { id, isReal, up: [], down: [], x: 0 };
    layers[at].push(cell);
    return cell;
  };
  for (const { id } of nodes) cells.set(id, put(id, depth.get(id) ?? 0, true));
  /** @type {Map<string, Cell>} */
  const stands = new Map();
  const chains = [];
  for (const { id, needs } of nodes) {
    for (const need of needs) {
      const [start, end] = [cells.get(need), cells.get(id)];
      const [first, last] = [depth.get(need) ?? 0, depth.get(id) ?? 0];
      if (!start || !end || first >= last) continue;
      const chain = [start];
      // All links of one node pass a layer at one place.
      for (let at = first + 1; at < last; at++) {
        const stand = stands.get(`${at} ${need}`) ?? put(need, at, false);
        stands.set(`${at} ${need}`, stand);
        chain.push(stand);
      }
      chain.push(end);
      for (let n = 1; n < chain.length; n++) {
        if (chain[n].up.includes(chain[n - 1])) continue;
        chain[n].up.push(chain[n - 1]);
        chain[n - 1].down.push(chain[n]);
      }
      chains.push({ from: need, to: id, cells: chain, layer: first });
    }
  }
  return { layers, chains };
}

/** @param {Cell[][]} layers @param {boolean} isDown */
function order(layers, isDown) {
  for (const layer of isDown ? layers : layers.toReversed()) {
    layer.forEach((cell, place) => {
      const near = isDown ? cell.up : cell.down;
      cell.x = near.length ? near.reduce((sum, other) => sum + other.x, 0) / near.length : place / layer.length;
    });
    layer.sort((one, other) => one.x - other.x);
    layer.forEach((cell, place) => (cell.x = (place + 0.5) / layer.length));
  }
}

/** Move the cells of a layer towards their neighbours above and below; their order and gaps stay. Weighted least squares
 * under these bounds: isotonic regression, by pooling adjacent violators.
 * @param {Cell[]} layer @param {(cell: Cell) => number} widthOf @param {number} gap @param {number} width of the whole */
function straighten(layer, widthOf, gap, width) {
  let end = -gap;
  const offsets = layer.map((cell) => {
    const middle = end + gap + widthOf(cell) / 2;
    end += gap + widthOf(cell);
    return middle;
  });
  /** @type {{sum: number, weight: number, count: number}[]} */
  const pools = [];
  layer.forEach((cell, at) => {
    const weight = cell.isReal ? NODE_WEIGHT : 1;
    pools.push({ sum: weight * (wanted(cell) - offsets[at]), weight, count: 1 });
    for (let last = pools.length - 1; last > 0; last--) {
      const [one, other] = [pools[last - 1], pools[last]];
      if (one.sum / one.weight <= other.sum / other.weight) break;
      const both = { sum: one.sum + other.sum, weight: one.weight + other.weight, count: one.count + other.count };
      pools.splice(last - 1, 2, both);
    }
  });
  const shifts = pools.flatMap(({ sum, weight, count }) => Array(count).fill(sum / weight));
  layer.forEach((cell, at) => (cell.x = offsets[at] + Math.min(Math.max(shifts[at], 0), width - end)));
}

/** Below and above its own kind: nodes follow nodes, and a link that passes several layers goes straight.
 * @param {Cell} cell */
function wanted(cell) {
  const near = [...cell.up, ...cell.down];
  const alike = near.filter(({ isReal }) => isReal === cell.isReal);
  const counted = alike.length ? alike : near;
  return counted.length ? counted.reduce((sum, other) => sum + other.x, 0) / counted.length : cell.x;
}

/** Move everything so that it stands in the middle. @param {Cell[][]} layers @param {(cell: Cell) => number} widthOf
 * @param {number} width of the whole */
function centre(layers, widthOf, width) {
  const cells = layers.flat();
  const left = Math.min(...cells.map((cell) => cell.x - widthOf(cell) / 2));
  const right = Math.max(...cells.map((cell) => cell.x + widthOf(cell) / 2));
  for (const cell of cells) cell.x += (width - left - right) / 2;
}
