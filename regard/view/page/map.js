// The heat map of one head, with token labels, tracks beside its axes, zoom and pan.

import { cellsOf, painted } from "./cells.js";
import { inkOn } from "./colour.js";
import { cellAt, drawDeep, exactAt } from "./deep.js";
import { byId } from "./dom.js";
import { drawLabels } from "./labels.js";
import { layoutOf } from "./layout.js";
import { drawMapWords } from "./mapwords.js";
import { drawBottomTrack, drawHiddenMass, drawSideTrack } from "./tracks.js";
import { keepPlace, shownKey, state } from "./state.js";
import { asText, bringIn, fitAll, isZoomed, moveTo, start, view, whole, zoomBy } from "./view.js";
import { number, twoPlaces } from "./words.js";

let drawn = null; // {picture, cells, image, layout}
let asleep = true; // whether no frame is due

export const current = () => (drawn ? { ...drawn, view: view() } : null);

// Compute everything again, then draw.
export function drawMap(picture, keepView = false) {
  const cells = cellsOf(picture);
  const sizes = cells ? ["query", "key"].map((side) => picture.axis(state.layer, side).length) : [0, 0];
  start(...sizes, picture.deep || !cells ? [1, 1] : cells.map.cell, keepView);
  drawn = { picture, cells, image: cells ? painted(cells) : null, layout: null };
  redraw();
  drawMapWords(picture, cells);
}

// Draw once before the next frame, however often it is asked for.
export function redrawSoon() {
  if (!asleep) return;
  asleep = false;
  requestAnimationFrame(() => {
    asleep = true;
    redraw();
  });
}

// Draw what was computed, for hovers, zooms and new sizes.
export function redraw() {
  if (!drawn) return;
  const canvas = byId("canvas");
  canvas.hidden = !drawn.cells;
  if (!drawn.cells) return;
  const context = canvas.getContext("2d");
  const layout = (drawn.layout = layoutOf(drawn.picture, drawn.cells, byId("frame").clientWidth, context));
  fitCanvas(canvas, context, layout);
  const colours = themeColours(), shown = view();
  drawImage(context, layout, shown, colours);
  drawNumbers(context, layout, shown);
  drawLabels(context, layout, shown, drawn.picture, colours);
  if (drawn.cells.mass) drawHiddenMass(context, layout, shown, drawn, colours);
  drawSideTrack(context, layout, shown, drawn, colours);
  drawBottomTrack(context, layout, shown, drawn, colours);
  drawSelection(context, layout, shown, colours);
  if (isZoomed()) drawMinimap(context, layout, shown, colours);
}

// A canvas of the same size is wiped, which is cheaper than a new one.
function fitCanvas(canvas, context, layout) {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  const [width, height] = [layout.width, layout.height].map((size) => Math.round(size * ratio));
  context.setTransform(1, 0, 0, 1, 0, 0);
  if (canvas.width === width && canvas.height === height) context.clearRect(0, 0, width, height);
  else Object.assign(canvas, { width, height });
  canvas.style.height = `${layout.height}px`;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
}

function themeColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "panel", "sunk", "line", "ink", "soft", "accent", "mark", "rest", "hatch"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function drawImage(context, layout, shown, colours) {
  const { left, top, across, down } = layout, { cell } = drawn.cells.map;
  context.fillStyle = colours.sunk;
  context.fillRect(left, top, across, down);
  context.imageSmoothingEnabled = across < shown.keys / cell[1] || down < shown.rows / cell[0];
  context.imageSmoothingQuality = "high";
  context.save();
  context.beginPath();
  context.rect(left, top, across, down);
  context.clip();
  context.drawImage(drawn.image, shown.key / cell[1], shown.row / cell[0], shown.keys / cell[1], shown.rows / cell[0], left, top, across, down);
  if (drawn.picture.deep) drawDeep(context, drawn.picture, drawn.cells, shown, layout, redrawSoon);
  if (drawn.cells.hidden) drawHatches(context, layout, shown, colours);
  if (Math.min(across / shown.keys, down / shown.rows) >= 12) drawGaps(context, layout, shown, colours);
  context.restore();
}

function drawHatches(context, { left, top, across, down }, shown, colours) {
  const { hidden, hides, map } = drawn.cells, fine = hides && shown.keys < across;
  context.strokeStyle = colours.rest;
  context.lineWidth = 1;
  const hatch = (begin, size) => {
    const x = left + ((begin - shown.key) * across) / shown.keys, w = Math.max(1, (size * across) / shown.keys);
    if (x + w < left || x > left + across) return;
    context.save();
    context.beginPath();
    context.rect(x, top, w, down);
    context.clip();
    context.beginPath();
    for (let at = -down; at < w; at += 7) {
      context.moveTo(x + at, top + down);
      context.lineTo(x + at + down, top);
    }
    context.stroke();
    context.restore();
  };
  if (fine) for (let slot = Math.floor(shown.key); slot < shown.key + shown.keys; slot++) hides(slot, 1) && hatch(slot, 1);
  else hidden.forEach((each, key) => each && hatch(key * map.cell[1], map.cell[1]));
}

function drawGaps(context, { left, top, across, down }, shown, colours) {
  context.strokeStyle = colours.panel;
  context.lineWidth = 1;
  context.beginPath();
  for (let row = Math.ceil(shown.row); row <= shown.row + shown.rows; row++) {
    const y = top + ((row - shown.row) * down) / shown.rows;
    context.moveTo(left, y);
    context.lineTo(left + across, y);
  }
  for (let key = Math.ceil(shown.key); key <= shown.key + shown.keys; key++) {
    const x = left + ((key - shown.key) * across) / shown.keys;
    context.moveTo(x, top);
    context.lineTo(x, top + down);
  }
  context.stroke();
}

// {value, allowed} of a pair as the map shows it, renormalised where keys are hidden; null where it is not at hand.
function pairAt(row, key) {
  const { map, values, hidden, hides, slotMass } = drawn.cells;
  if (map.exact) {
    const at = row * map.keys + key;
    return map.count[at] && !(hidden && hidden[key]) ? { value: values[at], allowed: map.allowed[row] } : null;
  }
  const found = drawn.picture.deep ? exactAt(drawn.picture, row, key) : null;
  if (!found || Number.isNaN(found.value) || (hides && hides(key, 1))) return null;
  return hides ? { ...found, value: Math.min(1, found.value / Math.max(1e-6, 1 - slotMass[row])) } : found;
}

// The cells of the shown part that may be seen: {view, cell, exact, cells: [{row, key, value, allowed}]}, each pair where
// exact weights are at hand, else the finest cells that are.
export function cellsShown() {
  const shown = view(), { rows, keys } = whole(), { map } = drawn.cells;
  const exact = map.exact || (drawn.picture.deep && shown.rows * shown.keys <= 1e6 && exactAt(drawn.picture, Math.floor(shown.row), Math.floor(shown.key)) !== null);
  const cell = exact ? [1, 1] : (drawn.picture.deep && levelAt(drawn.picture, shown)) || map.cell;
  const cells = [], begin = [shown.row, shown.key].map((at, side) => Math.floor(at / cell[side]) * cell[side]);
  for (let row = begin[0]; row < Math.min(rows, shown.row + shown.rows); row += cell[0]) {
    for (let key = begin[1]; key < Math.min(keys, shown.key + shown.keys); key += cell[1]) {
      const at = exact ? pairAt(row, key) : pooledAt(row, key);
      if (at && at.value === at.value) cells.push({ row, key, value: at.value, allowed: at.allowed });
    }
  }
  return { view: shown, cell, exact: Boolean(exact), cells };
}

function levelAt(picture, shown) {
  const found = cellAt(picture, Math.floor(shown.row + shown.rows / 2), Math.floor(shown.key + shown.keys / 2));
  return found && found.cell;
}

function pooledAt(row, key) {
  const found = drawn.picture.deep ? cellAt(drawn.picture, row, key) : null;
  if (found) return found;
  const { map, values } = drawn.cells, r = Math.floor(row / map.cell[0]), at = r * map.keys + Math.floor(key / map.cell[1]);
  return map.count[at] ? { value: values[at], allowed: map.allowed[r] } : null;
}

// Weights inside the cells, once these are large enough to hold them: two places, three digits where there is room. What
// would read 0.00 is left out.
function drawNumbers(context, { left, top, across, down }, shown) {
  const w = across / shown.keys, h = down / shown.rows, { rows, keys } = whole();
  if (w < 34 || h < 18) return;
  const { scale } = drawn.cells, roomy = w >= 62;
  context.font = "10.5px ui-sans-serif, system-ui, 'DejaVu Sans', sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let row = Math.floor(shown.row); row < Math.min(rows, shown.row + shown.rows); row++) {
    for (let key = Math.floor(shown.key); key < Math.min(keys, shown.key + shown.keys); key++) {
      const x = left + (key + 0.5 - shown.key) * w, y = top + (row + 0.5 - shown.row) * h;
      const pair = x < left || x > left + across || y < top || y > top + down ? null : pairAt(row, key);
      if (!pair || Math.abs(pair.value) < (roomy ? 1e-9 : 0.005)) continue;
      context.fillStyle = inkOn(scale.kind, scale.place(pair.value, pair.allowed));
      context.fillText(roomy ? number(pair.value) : twoPlaces(pair.value), x, y);
    }
  }
}

// Marks lie over whole cells: of one token where tokens can be told apart, else of the overview.
function drawSelection(context, layout, shown, colours) {
  const { left, top, across, down } = layout;
  const cell = drawn.picture.deep ? [1, 1] : drawn.cells.map.cell;
  context.save();
  context.beginPath();
  context.rect(left - 2, top - 2, across + 4, down + 4);
  context.clip();
  const bands = [[state.hoverRow, cell[0], true, 1], [state.row, cell[0], true, 2], [shownKey(), cell[1], false, 1.5]];
  for (const [slot, size, isRow, width] of bands) {
    if (slot === null) continue;
    context.strokeStyle = isRow ? colours.mark : colours.accent;
    context.lineWidth = width;
    const at = Math.floor(slot / size) * size;
    if (isRow) context.strokeRect(left, top + ((at - shown.row) * down) / shown.rows, across, (size * down) / shown.rows);
    else context.strokeRect(left + ((at - shown.key) * across) / shown.keys, top, (size * across) / shown.keys, down);
  }
  context.restore();
}

// Where the shown part lies in the whole, once it is not all of it.
function drawMinimap(context, { left, top, across }, shown, colours) {
  const { rows, keys } = whole();
  const side = Math.min(84, across / 4), w = side, h = Math.max(12, Math.min(side, (side * rows) / keys));
  const x = left + across - w - 6, y = top + 6;
  context.fillStyle = colours.panel;
  context.globalAlpha = 0.92;
  context.fillRect(x - 2, y - 2, w + 4, h + 4);
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = true;
  context.drawImage(drawn.image, x, y, w, h);
  context.strokeStyle = colours.soft;
  context.lineWidth = 1;
  context.strokeRect(x - 1.5, y - 1.5, w + 3, h + 3);
  context.strokeStyle = colours.mark;
  context.lineWidth = 1.5;
  const box = [(shown.key / keys) * w, (shown.row / rows) * h, (shown.keys / keys) * w, (shown.rows / rows) * h];
  context.strokeRect(x + Math.min(w - 3, box[0]), y + Math.min(h - 3, box[1]), Math.max(3, box[2]), Math.max(3, box[3]));
}

// ---- the shown part ----------------------------------------------------------------------------------------------

// The slots {row, key} under a point of the canvas; null outside the map.
export function slotsAt(x, y) {
  if (!drawn || !drawn.layout || !view()) return null;
  const { left, top, across, down } = drawn.layout, shown = view(), { rows, keys } = whole();
  if (x < left || y < top || x >= left + across || y >= top + down) return null;
  const row = Math.floor(shown.row + ((y - top) / down) * shown.rows);
  const key = Math.floor(shown.key + ((x - left) / across) * shown.keys);
  return { row: Math.min(row, rows - 1), key: Math.min(key, keys - 1) };
}

// Zoom by a factor around a point of the canvas, by default the locked pair, else the middle.
export function zoom(factor, x = null, y = null) {
  if (!drawn || !drawn.layout) return;
  const { left, top, across, down } = drawn.layout, shown = view();
  const share = (value) => Math.min(1, Math.max(0, value));
  const selected = (slot, begin, count) => (slot === null ? 0.5 : share((slot + 0.5 - begin) / count));
  const fx = x === null ? selected(state.key ?? state.row, shown.key, shown.keys) : share((x - left) / across);
  const fy = y === null ? selected(state.row, shown.row, shown.rows) : share((y - top) / down);
  zoomBy(factor, fx, fy);
  moved();
}

export function fit() {
  if (!drawn || !drawn.cells) return;
  fitAll();
  moved();
}

function moved() {
  redrawSoon();
  keepPlace(asText());
}

// Show a part, as another view did.
export function showPart(part) {
  if (!drawn || !drawn.cells) return;
  moveTo(part);
  moved();
}

// Pan by pixels.
export function pan(dx, dy) {
  if (!drawn || !drawn.layout) return;
  const { across, down } = drawn.layout, shown = view();
  moveTo({ ...shown, row: shown.row - (dy / down) * shown.rows, key: shown.key - (dx / across) * shown.keys });
  moved();
}

// Bring slots into the shown part.
export function reveal(row, key) {
  if (!drawn || !drawn.cells) return;
  bringIn(row, key);
  moved();
}
