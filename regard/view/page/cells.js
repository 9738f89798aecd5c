// What the heat map paints: the values of a head with hidden keys taken out, and their colours.

import { ground, isDark, table, transform } from "./colour.js";
import { state } from "./state.js";

// {map, values, hidden (per key cell), mass (hidden mass per row cell), scale}; null where there is no map. For tiles:
// hides(slot, count) whether keys are hidden, slotMass what they hold of each row, ground, and paint, which names how
// cells are painted.
export function cellsOf(picture, layer = state.layer, head = state.head) {
  const signed = picture.scene.signed;
  const map = picture.map(layer, head, state.which);
  if (!map || !map.rows || !map.keys) return null;
  const apart = picture.deep ? hiddenApart(picture, layer, head) : null;
  const hidden = picture.deep ? apart && apart.cells(map) : hiddenKeys(picture, map, layer);
  const mass = !hidden ? null : apart ? apart.mass(map) : hiddenMass(picture, map, hidden, layer, head);
  const values = hidden ? without(map, hidden, mass) : map.values;
  const largest = values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  const top = largest > 1.0001 ? largest : 1;
  const keys = picture.axis(layer, "key").length;
  const scale = transform(picture.suffix && state.scale === "lift" ? "log" : state.scale, { top, keys, signed, edge: signed && picture.deep ? 1 : largest || 1 });
  const paint = `${state.scale} ${isDark()} ${top} ${apart ? `${state.hide} ${state.special}` : ""}`;
  return { map, values, hidden, mass, scale, hides: apart && apart.hides, slotMass: apart && apart.slotMass, ground: ground(), paint };
}

// Hidden keys of a Trace that answers: their exact mass of every row comes from its source. A pooled cell that holds a
// hidden key is hidden whole. null while nothing is hidden, or not yet known.
function hiddenApart(picture, layer, head) {
  if (!state.hide && !state.special) return null;
  const known = picture.mass(layer, head, state.hide, state.special);
  if (!known) return null;
  const slots = new Set(known.slots), slotMass = known.numbers;
  const hides = (slot, count) => known.slots.some((each) => each >= slot && each < slot + count);
  const cells = (map) => {
    const hidden = new Uint8Array(map.keys);
    for (const slot of slots) hidden[Math.floor(slot / map.cell[1])] = 1;
    return hidden;
  };
  const mass = (map) => Float32Array.from({ length: map.rows }, (_, row) => mean(slotMass.subarray(row * map.cell[0], (row + 1) * map.cell[0])));
  return { hides, slotMass, cells, mass };
}

const mean = (values) => values.reduce((total, value) => total + value, 0) / Math.max(1, values.length);

// Which key cells hold only tokens to hide; null if none.
function hiddenKeys(picture, map, layer) {
  if (picture.scene.signed || picture.suffix || (!state.hide && !state.special)) return null;
  const axis = picture.axis(layer, "key");
  const positions = picture.positions(layer, "key");
  const special = new Set(state.special ? axis.special : []);
  const padding = new Set(axis.padding);
  const hidden = new Uint8Array(map.keys).fill(1);
  for (let slot = 0; slot < axis.length; slot++) {
    if (!padding.has(slot) && positions[slot] >= state.hide && !special.has(slot)) hidden[Math.floor(slot / map.cell[1])] = 0;
  }
  return hidden.some((x) => x) ? hidden : null;
}

// The share of each row that the hidden keys hold; for a row cell, the mean over its rows.
function hiddenMass(picture, map, hidden, layer, head) {
  const mean = picture.map(layer, head, "mean").values;
  return Float32Array.from({ length: map.rows }, (_, row) => {
    let total = 0;
    for (let key = 0; key < map.keys; key++) {
      if (hidden[key]) total += mean[row * map.keys + key] * map.count[row * map.keys + key];
    }
    return Math.min(1, total / Math.max(1, map.valid[row]));
  });
}

function without(map, hidden, mass) {
  return map.values.map((value, at) => {
    const row = Math.floor(at / map.keys);
    return hidden[at % map.keys] ? 0 : Math.min(1, value / Math.max(1e-6, 1 - mass[row]));
  });
}

// One pixel per cell; excluded and hidden cells stay clear.
export function painted({ map, values, hidden, scale }) {
  const canvas = document.createElement("canvas");
  canvas.width = map.keys;
  canvas.height = map.rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(map.keys, map.rows);
  const colours = table(scale.kind);
  for (let at = 0; at < values.length; at++) {
    if (!map.count[at] || (hidden && hidden[at % map.keys])) continue;
    const place = scale.place(values[at], map.allowed[Math.floor(at / map.keys)]);
    const from = 3 * Math.round(255 * Math.min(1, Math.max(0, place)));
    image.data.set([colours[from], colours[from + 1], colours[from + 2], 255], 4 * at);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
