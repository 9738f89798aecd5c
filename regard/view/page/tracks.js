// One-dimensional tracks along the axes of the heat map: a number per row at its right, per key below it.

import { state } from "./state.js";
import { number } from "./words.js";

// The chosen statistic where it is one per row, else entropy, else the first there is.
export function sideLabel(picture) {
  const rows = Object.keys(picture.parts(state.layer, state.head).rows);
  return [state.statistic, "entropy"].find((label) => rows.includes(label)) || rows[0] || null;
}

export function drawSideTrack(context, layout, view, { picture }, colours) {
  const label = sideLabel(picture);
  if (!label) return;
  const track = picture.track("rows", label, state.layer, state.head);
  const { left, top, across, down, side } = layout;
  const begin = left + across + 9, room = side - 16;
  const most = largest(track.values);
  context.save();
  context.beginPath();
  context.rect(begin, top, room + 8, down);
  context.clip();
  frame(context, begin, top, room, down, colours);
  const perToken = down / view.rows;
  each(track, view.row, view.rows, (value, slot) => {
    const width = (Math.abs(value) / most) * room;
    const y = top + (slot - view.row) * perToken, height = Math.max(0.6, track.band * perToken - gap(track.band * perToken));
    context.fillStyle = picture.scene.signed && value > 0 ? colours.mark : colours.accent;
    context.globalAlpha = lit(state.row === null ? state.hoverRow : state.row, slot, track.band) ? 1 : 0.55;
    context.fillRect(begin, y, width, height);
  });
  context.restore();
  const edge = left + across + side;
  caption(context, layout, colours, short(picture, label), edge, top - 19, "right");
  caption(context, layout, colours, `${picture.scene.signed ? "±" : "0…"}${number(most)}`, edge, top - 7, "right");
}

export function drawBottomTrack(context, layout, view, { picture }, colours) {
  const labels = Object.keys(picture.parts(state.layer, state.head).keys), wanted = `received${picture.suffix}`;
  const label = labels.includes(wanted) ? wanted : labels[0];
  if (!label) return;
  const track = picture.track("keys", label, state.layer, state.head);
  const title = short(picture, label), losses = picture.losses(state.layer);
  drawKeys(context, layout, view, { picture, track, title, begin: layout.top + layout.down + 9 }, colours);
  if (losses) drawKeys(context, layout, view, { picture, track: { values: losses.map((x) => (x === x ? x : 0)), band: 1 }, title: "loss, nats", begin: layout.top + layout.down + 51 }, colours);
}

const ROOM = 36;

// A number per key, below the map.
function drawKeys(context, layout, view, { picture, track, title, begin }, colours) {
  const { left, across } = layout, room = ROOM, most = largest(track.values);
  context.save();
  context.beginPath();
  context.rect(left, begin, across, room + 1);
  context.clip();
  frame(context, left, begin, across, room, colours);
  const perToken = across / view.keys;
  each(track, view.key, view.keys, (value, slot) => {
    const height = (Math.abs(value) / most) * room;
    const x = left + (slot - view.key) * perToken, width = Math.max(0.6, track.band * perToken - gap(track.band * perToken));
    context.fillStyle = picture.scene.signed && value > 0 ? colours.mark : colours.accent;
    context.globalAlpha = lit(state.hoverKey === null ? state.key : state.hoverKey, slot, track.band) ? 1 : 0.55;
    context.fillRect(x, begin, width, height);
  });
  context.restore();
  caption(context, layout, colours, title, left - 6, begin + 7, "right");
  caption(context, layout, colours, `${picture.scene.signed ? "±" : "0…"}${number(most)}`, left - 6, begin + 20, "right");
}

// What the hidden keys hold of each row, so that nothing is hidden silently.
export function drawHiddenMass(context, layout, view, { cells }, colours) {
  const { left, top, down, bar } = layout;
  const begin = left - bar + 2, room = bar - 6;
  frame(context, begin, top, room, down, colours);
  context.save();
  context.beginPath();
  context.rect(begin, top, room, down);
  context.clip();
  context.fillStyle = colours.soft;
  cells.mass.forEach((mass, row) => {
    const y = top + ((row * cells.map.cell[0] - view.row) * down) / view.rows, height = (cells.map.cell[0] * down) / view.rows;
    context.fillRect(begin + room * (1 - mass), y, room * mass, Math.max(0.6, height - gap(height)));
  });
  context.restore();
  context.save();
  context.translate(begin + room / 2, top - 6);
  context.rotate(-Math.PI / 2);
  caption(context, layout, colours, "hidden", 0, 0, "left");
  context.restore();
}

function each({ values, band }, first, count, draw) {
  for (let at = Math.max(0, Math.floor(first / band)); at < Math.min(values.length, Math.ceil((first + count) / band)); at++) {
    if (values[at] !== 0) draw(values[at], at * band);
  }
}

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
const gap = (size) => (size > 5 ? 1 : 0);
const lit = (slot, from, band) => slot !== null && slot >= from && slot < from + band;
const short = (picture, label) => picture.statistic(label).title.replace("attention received", "received").replace("mass on ", "");

function frame(context, x, y, width, height, colours) {
  context.fillStyle = colours.sunk;
  context.fillRect(x, y, width, height);
}

function caption(context, layout, colours, text, x, y, align) {
  context.font = layout.font.replace(/^[\d.]+px/, "10px");
  context.fillStyle = colours.soft;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.fillText(text, x, y);
}
