// Deep zoom: tiles of the shown head, asked for as the map moves, painted over its overview. The finest are exact.

import { table } from "./colour.js";
import { state } from "./state.js";

const SIDE = 128, REACH = 8192; // as regard/view/pyramid.py cuts tiles
const KEPT = 500, AT_ONCE = 4;

const tiles = new Map(); // name -> {rows, keys, begin, cell, values, allowed, level, image, paint}
let wanted = []; // names and questions still to ask, the most telling first
const asked = new Set();
let running = 0;
let failure = "";

export const tokensOf = (zoom) => Math.min(SIDE * 2 ** zoom, Math.max(REACH, 2 ** zoom));
export const failed = () => failure;
export const busy = () => running > 0 || wanted.length > 0;

// How coarse cells may be so that each still has a pixel: the zoom of an axis.
const zoomFor = (slots, pixels) => Math.max(0, Math.ceil(Math.log2(slots / pixels) - 0.01));

const headName = (picture) => `${picture.scene.served.trace} ${picture.scene.batch} ${state.layer} ${state.head}`;
const levelName = (picture, zr, zk) => `${headName(picture)} ${zr || zk ? state.which : "exact"} ${zr} ${zk}`;

// Ask for the tiles of the shown part and draw those that are there, coarse ones below fine ones.
export function drawDeep(context, picture, cells, view, box, arrived) {
  const zr = zoomFor(view.rows, box.down), zk = zoomFor(view.keys, box.across);
  const [or, ok] = cells.map.cell.map((side) => Math.log2(side));
  wanted = [];
  if (!(zr >= or && zk >= ok)) want(picture, Math.min(zr, or), Math.min(zk, ok), view, arrived);
  const name = headName(picture);
  const mine = [...tiles.values()].filter((tile) => tile.head === name && touches(tile, view) && (tile.which === state.which || tile.exact));
  mine.sort((a, b) => b.cell[0] * b.cell[1] - a.cell[0] * a.cell[1]);
  for (const tile of mine) {
    if (tile.cell[0] < 2 ** Math.min(zr, or) || tile.cell[1] < 2 ** Math.min(zk, ok)) continue;
    drawTile(context, tile, cells, view, box);
  }
}

function touches(tile, view) {
  const [rows, keys] = [tile.rows * tile.cell[0], tile.keys * tile.cell[1]];
  return tile.begin[0] < view.row + view.rows && tile.begin[0] + rows > view.row && tile.begin[1] < view.key + view.keys && tile.begin[1] + keys > view.key;
}

function want(picture, zr, zk, view, arrived) {
  const level = levelName(picture, zr, zk), tr = tokensOf(zr), tk = tokensOf(zk);
  const [middleRow, middleKey] = [view.row + view.rows / 2, view.key + view.keys / 2];
  for (let row = Math.floor(view.row / tr); row * tr < view.row + view.rows; row++) {
    for (let key = Math.floor(view.key / tk); key * tk < view.key + view.keys; key++) {
      const name = `${level} ${row} ${key}`;
      if (tiles.has(name)) {
        const tile = tiles.get(name);
        tiles.delete(name);
        tiles.set(name, tile); // used last
        continue;
      }
      if (asked.has(name)) continue;
      const far = Math.hypot((row + 0.5) * tr - middleRow, (key + 0.5) * tk - middleKey);
      wanted.push({ name, far, picture, head: headName(picture), which: state.which, fields: { batch: picture.scene.batch, layer: state.layer, head: state.head, row, key, zr, zk, which: state.which }, arrived });
    }
  }
  wanted.sort((a, b) => a.far - b.far);
  next();
}

function next() {
  while (running < AT_ONCE && wanted.length) {
    const one = wanted.shift();
    if (tiles.has(one.name) || asked.has(one.name)) continue;
    running++;
    asked.add(one.name);
    one.picture.source.ask("tile", one.fields).then((answer) => keep(one, answer)).catch((error) => (failure = error.message)).finally(() => {
      running--;
      asked.delete(one.name);
      one.arrived();
      next();
    });
  }
}

function keep(one, { about, numbers }) {
  const size = about.rows * about.keys;
  tiles.set(one.name, { ...about, head: one.head, which: one.which, exact: about.cell[0] * about.cell[1] === 1, values: numbers.subarray(0, size), allowed: numbers.subarray(size), image: null, paint: "" });
  failure = "";
  for (const name of tiles.keys()) {
    if (tiles.size <= KEPT) break;
    tiles.delete(name);
  }
}

function drawTile(context, tile, cells, view, { left, top, across, down }) {
  if (tile.paint !== cells.paint) paint(tile, cells);
  const x = left + ((tile.begin[1] - view.key) * across) / view.keys, y = top + ((tile.begin[0] - view.row) * down) / view.rows;
  const w = (tile.keys * tile.cell[1] * across) / view.keys, h = (tile.rows * tile.cell[0] * down) / view.rows;
  context.imageSmoothingEnabled = w < tile.keys || h < tile.rows;
  context.drawImage(tile.image, x, y, w, h);
}

// One pixel per cell; what a query may not see, and hidden keys, show the ground below.
function paint(tile, cells) {
  const canvas = document.createElement("canvas");
  canvas.width = tile.keys;
  canvas.height = tile.rows;
  const context = canvas.getContext("2d"), image = context.createImageData(tile.keys, tile.rows);
  const colours = table(cells.scale.kind), ground = cells.ground;
  const { hides } = cells;
  for (let row = 0, at = 0; row < tile.rows; row++) {
    const left = 1 - (hides ? massOf(cells, tile, row) : 0);
    for (let key = 0; key < tile.keys; key++, at++) {
      const value = tile.values[at];
      if (value !== value || (hides && hides(tile.begin[1] + key * tile.cell[1], tile.cell[1]))) {
        image.data.set(ground, 4 * at);
        continue;
      }
      const shown = hides ? Math.min(1, value / Math.max(1e-6, left)) : value;
      const from = 3 * Math.round(255 * Math.min(1, Math.max(0, cells.scale.place(shown, tile.allowed[row]))));
      image.data[4 * at] = colours[from];
      image.data[4 * at + 1] = colours[from + 1];
      image.data[4 * at + 2] = colours[from + 2];
      image.data[4 * at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  tile.image = canvas;
  tile.paint = cells.paint;
}

// The share of a row of cells that the hidden keys hold, the mean over its rows.
export function massOf(cells, tile, row) {
  const begin = tile.begin[0] + row * tile.cell[0], end = Math.min(cells.slotMass.length, begin + tile.cell[0]);
  let total = 0;
  for (let slot = begin; slot < end; slot++) total += cells.slotMass[slot];
  return total / Math.max(1, end - begin);
}

// The exact weight of a pair {value, allowed}, NaN where it is not visible; null where its tile is not here.
export function exactAt(picture, row, key) {
  const tile = tiles.get(`${levelName(picture, 0, 0)} ${Math.floor(row / SIDE)} ${Math.floor(key / SIDE)}`);
  if (!tile) return null;
  const at = row - tile.begin[0];
  return { value: tile.values[at * tile.keys + (key - tile.begin[1])], allowed: tile.allowed[at] };
}

// The cell of the finest level that is drawn at a pair: {value, cell, allowed}; null where none is here.
export function cellAt(picture, row, key) {
  const name = headName(picture);
  let best = null;
  for (const tile of tiles.values()) {
    if (tile.head !== name || !(tile.exact || tile.which === state.which)) continue;
    const r = Math.floor((row - tile.begin[0]) / tile.cell[0]), k = Math.floor((key - tile.begin[1]) / tile.cell[1]);
    if (r < 0 || k < 0 || r >= tile.rows || k >= tile.keys) continue;
    if (!best || tile.cell[0] * tile.cell[1] < best.cell[0] * best.cell[1]) best = { value: tile.values[r * tile.keys + k], cell: tile.cell, allowed: tile.allowed[r] };
  }
  return best;
}
