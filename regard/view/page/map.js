// The heat map of one head, with token labels, tracks beside its axes, zoom and pan.

import { cellsOf, painted } from "./cells.js";
import { inkOn } from "./colour.js";
import { byId } from "./dom.js";
import { layoutOf } from "./layout.js";
import { drawMapWords } from "./mapwords.js";
import { drawBottomTrack, drawHiddenMass, drawSideTrack } from "./tracks.js";
import { shownKey, state } from "./state.js";
import { tag, twoPlaces } from "./words.js";

let drawn = null; // {picture, cells, image, layout}
let view = null; // the part that is shown, in cells: {row, key, rows, keys}

export const current = () => (drawn ? { ...drawn, view } : null);

// Compute everything again, then draw.
export function drawMap(picture, keepView = false) {
  const cells = cellsOf(picture);
  const fits = keepView && drawn && cells && drawn.cells && drawn.cells.map.rows === cells.map.rows && drawn.cells.map.keys === cells.map.keys;
  if (!fits) view = cells ? { row: 0, key: 0, rows: cells.map.rows, keys: cells.map.keys } : null;
  drawn = { picture, cells, image: cells ? painted(cells) : null, layout: null };
  redraw();
  drawMapWords(picture, cells);
}

// Draw what was computed, for hovers, zooms and new sizes.
export function redraw() {
  if (!drawn) return;
  const canvas = byId("canvas");
  canvas.hidden = !drawn.cells;
  if (!drawn.cells) return;
  const context = canvas.getContext("2d");
  const layout = (drawn.layout = layoutOf(drawn.picture, drawn.cells, byId("frame").clientWidth, context));
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  canvas.width = Math.round(layout.width * ratio);
  canvas.height = Math.round(layout.height * ratio);
  canvas.style.height = `${layout.height}px`;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const colours = themeColours();
  drawImage(context, layout, colours);
  drawNumbers(context, layout);
  drawLabels(context, layout, colours);
  if (drawn.cells.mass) drawHiddenMass(context, layout, view, drawn, colours);
  drawSideTrack(context, layout, view, drawn, colours);
  drawBottomTrack(context, layout, view, drawn, colours);
  drawSelection(context, layout, colours);
  drawMinimap(context, layout, colours);
}

function themeColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "panel", "sunk", "line", "ink", "soft", "accent", "mark", "rest", "hatch"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function drawImage(context, { left, top, across, down }, colours) {
  context.fillStyle = colours.sunk;
  context.fillRect(left, top, across, down);
  const smooth = across < view.keys || down < view.rows;
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.save();
  context.beginPath();
  context.rect(left, top, across, down);
  context.clip();
  if (drawn.cells.hidden) drawHatches(context, { left, top, across, down }, colours);
  context.drawImage(drawn.image, view.key, view.row, view.keys, view.rows, left, top, across, down);
  if (Math.min(across / view.keys, down / view.rows) >= 12) drawGaps(context, { left, top, across, down }, colours);
  context.restore();
}

function drawHatches(context, { left, top, across, down }, colours) {
  context.strokeStyle = colours.rest;
  context.lineWidth = 1;
  drawn.cells.hidden.forEach((hidden, key) => {
    const x = left + ((key - view.key) * across) / view.keys, w = across / view.keys;
    if (!hidden || x + w < left || x > left + across) return;
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
  });
}

function drawGaps(context, { left, top, across, down }, colours) {
  context.strokeStyle = colours.panel;
  context.lineWidth = 1;
  context.beginPath();
  for (let row = Math.ceil(view.row); row <= view.row + view.rows; row++) {
    const y = top + ((row - view.row) * down) / view.rows;
    context.moveTo(left, y);
    context.lineTo(left + across, y);
  }
  for (let key = Math.ceil(view.key); key <= view.key + view.keys; key++) {
    const x = left + ((key - view.key) * across) / view.keys;
    context.moveTo(x, top);
    context.lineTo(x, top + down);
  }
  context.stroke();
}

// Weights inside the cells, once these are large enough to hold them; those that would read 0.00 are left out.
function drawNumbers(context, { left, top, across, down }) {
  const w = across / view.keys, h = down / view.rows;
  if (w < 34 || h < 18) return;
  const { map, values, hidden, scale } = drawn.cells;
  context.font = "10.5px ui-sans-serif, system-ui, 'DejaVu Sans', sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let row = Math.floor(view.row); row < Math.min(map.rows, view.row + view.rows); row++) {
    for (let key = Math.floor(view.key); key < Math.min(map.keys, view.key + view.keys); key++) {
      const at = row * map.keys + key;
      if (!map.count[at] || (hidden && hidden[key])) continue;
      const x = left + (key + 0.5 - view.key) * w, y = top + (row + 0.5 - view.row) * h;
      if (x < left || x > left + across || y < top || y > top + down) continue;
      context.fillStyle = inkOn(scale.kind, scale.place(values[at], map.allowed[row]));
      if (Math.abs(values[at]) >= 0.005) context.fillText(twoPlaces(values[at]), x, y);
    }
  }
}

function drawLabels(context, layout, colours) {
  const { left, top, across, down } = layout;
  context.font = layout.font;
  context.fillStyle = colours.soft;
  const { map } = drawn.cells;
  const rows = { axis: drawn.picture.axis(state.layer, "query"), cell: map.cell[0], step: down / view.rows };
  const keys = { axis: drawn.picture.axis(state.layer, "key"), cell: map.cell[1], step: across / view.keys };
  context.textBaseline = "middle";
  eachLabel(rows, view.row, view.rows, (text, at, chosen) => {
    context.fillStyle = chosen === state.row || chosen === state.hoverRow ? colours.ink : colours.soft;
    context.textAlign = "right";
    context.fillText(cut(context, text, left - layout.bar - 8), left - layout.bar - 6, top + at);
  });
  eachLabel(keys, view.key, view.keys, (text, at, chosen) => {
    context.save();
    context.translate(left + at, top - 6);
    context.rotate(-Math.PI / 2);
    context.fillStyle = chosen === shownKey() ? colours.ink : colours.soft;
    context.textAlign = "left";
    context.fillText(cut(context, text, top - 10), 0, 0);
    context.restore();
  });
}

// Token text where a token has 10 pixels, else slot numbers at round steps.
function eachLabel({ axis, cell, step }, begin, count, draw) {
  const perToken = step / cell;
  if (cell === 1 && perToken >= (axis.kind === "text" ? 10 : 14)) {
    for (let at = Math.floor(begin); at < Math.min(axis.length, begin + count); at++) {
      const middle = (at + 0.5 - begin) * step;
      if (middle >= 0 && middle <= count * step) draw(tag(axis.text[at], 24), middle, at);
    }
    return;
  }
  const every = roundStep(42 / perToken);
  for (let slot = Math.ceil((begin * cell) / every) * every; slot < Math.min(axis.length, (begin + count) * cell); slot += every) {
    draw(String(slot), (slot + 0.5) * perToken - begin * step, slot);
  }
}

function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  return [1, 2, 5, 10].map((x) => x * power).find((x) => x >= least) || 10 * power;
}

function cut(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let letters = [...text];
  while (letters.length > 1 && context.measureText(letters.join("") + "…").width > room) letters = letters.slice(0, -1);
  return letters.join("") + "…";
}

function drawSelection(context, layout, colours) {
  const { left, top, across, down } = layout, { cell } = drawn.cells.map;
  context.save();
  context.beginPath();
  context.rect(left - 2, top - 2, across + 4, down + 4);
  context.clip();
  context.lineWidth = 1.5;
  const bands = [[state.hoverRow, cell[0], true, 1], [state.row, cell[0], true, 2], [shownKey(), cell[1], false, 1.5]];
  for (const [slot, size, isRow, width] of bands) {
    if (slot === null) continue;
    context.strokeStyle = isRow ? colours.mark : colours.accent;
    context.lineWidth = width;
    const at = Math.floor(slot / size);
    if (isRow) context.strokeRect(left, top + ((at - view.row) * down) / view.rows, across, down / view.rows);
    else context.strokeRect(left + ((at - view.key) * across) / view.keys, top, across / view.keys, down);
  }
  context.restore();
}

// Where the shown part lies in the whole, once it is not all of it.
function drawMinimap(context, { left, top, across }, colours) {
  const { map } = drawn.cells;
  if (view.rows >= map.rows && view.keys >= map.keys) return;
  const side = Math.min(84, across / 4), w = side, h = Math.max(12, Math.min(side, (side * map.rows) / map.keys));
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
  context.strokeRect(x + (view.key / map.keys) * w, y + (view.row / map.rows) * h, (view.keys / map.keys) * w, (view.rows / map.rows) * h);
}

// ---- the shown part ----------------------------------------------------------------------------------------------

// The slots {row, key} under a point of the canvas; null outside the map.
export function slotsAt(x, y) {
  if (!drawn || !drawn.layout) return null;
  const { left, top, across, down } = drawn.layout, { cell } = drawn.cells.map;
  if (x < left || y < top || x >= left + across || y >= top + down) return null;
  const lengths = ["query", "key"].map((side) => drawn.picture.axis(state.layer, side).length);
  const row = Math.floor((view.row + ((y - top) / down) * view.rows) * cell[0]);
  const key = Math.floor((view.key + ((x - left) / across) * view.keys) * cell[1]);
  return { row: Math.min(row, lengths[0] - 1), key: Math.min(key, lengths[1] - 1) };
}

// Zoom by a factor around a point of the canvas, by default the locked pair, else the middle.
export function zoom(factor, x = null, y = null) {
  if (!drawn || !drawn.layout) return;
  const { left, top, across, down } = drawn.layout, { map } = drawn.cells;
  const share = (value) => Math.min(1, Math.max(0, value));
  const selected = (slot, cell, begin, count) => (slot === null ? 0.5 : share(((slot + 0.5) / cell - begin) / count));
  const fx = x === null ? selected(state.key ?? state.row, map.cell[1], view.key, view.keys) : share((x - left) / across);
  const fy = y === null ? selected(state.row, map.cell[0], view.row, view.rows) : share((y - top) / down);
  const rows = Math.min(map.rows, Math.max(Math.min(4, map.rows), view.rows / factor));
  const keys = Math.min(map.keys, Math.max(Math.min(4, map.keys), view.keys / factor));
  place({ row: view.row + fy * (view.rows - rows), key: view.key + fx * (view.keys - keys), rows, keys });
}

export const fit = () => drawn && drawn.cells && place({ row: 0, key: 0, rows: drawn.cells.map.rows, keys: drawn.cells.map.keys });

// Pan by pixels.
export function pan(dx, dy) {
  if (!drawn || !drawn.layout) return;
  const { across, down } = drawn.layout;
  place({ ...view, row: view.row - (dy / down) * view.rows, key: view.key - (dx / across) * view.keys });
}

// Bring slots into the shown part.
export function reveal(row, key) {
  if (!drawn || !drawn.cells) return;
  const { cell } = drawn.cells.map, next = { ...view };
  const within = (at, begin, count) => (at < begin ? at : at + 1 > begin + count ? at + 1 - count : begin);
  if (row !== null) next.row = within(Math.floor(row / cell[0]), view.row, view.rows);
  if (key !== null) next.key = within(Math.floor(key / cell[1]), view.key, view.keys);
  place(next);
}

export const isZoomed = () => drawn && drawn.cells && (view.rows < drawn.cells.map.rows || view.keys < drawn.cells.map.keys);

function place(next) {
  const { map } = drawn.cells;
  view = {
    ...next,
    row: Math.min(map.rows - next.rows, Math.max(0, next.row)),
    key: Math.min(map.keys - next.keys, Math.max(0, next.key)),
  };
  redraw();
}
