// Search in the text: where the letters stand, and the row of the token that holds them.

import { byId } from "./dom.js";
import { set, state } from "./state.js";

let known = null; // {axis, text, begins}: the axis as one text, in small letters, and where each token begins

function textOf(axis) {
  if (known && known.axis === axis) return known;
  const begins = [];
  let text = "";
  for (const token of axis.text) {
    begins.push(text.length);
    text += token.replace(/↵/g, "\n").toLowerCase();
  }
  known = { axis, text, begins };
  return known;
}

// The slots of the tokens in which the wanted letters begin.
export function found(axis, wanted) {
  const { text, begins } = textOf(axis), slots = [];
  const letters = wanted.toLowerCase();
  if (!letters) return slots;
  let slot = 0;
  for (let at = text.indexOf(letters); at >= 0 && slots.length < 10000; at = text.indexOf(letters, at + 1)) {
    while (slot + 1 < begins.length && begins[slot + 1] <= at) slot++;
    const lead = /^\s/.test(letters) ? 0 : text.slice(at, at + letters.length).search(/\S/);
    if (slots[slots.length - 1] !== slot && lead >= 0) slots.push(slot);
  }
  return slots;
}

// The next one after the locked row, or the one before it.
export function searchOn(picture, back) {
  const axis = picture.axis(state.layer, "query"), slots = found(axis, byId("search").value);
  const from = state.row ?? -1;
  const next = back ? [...slots].reverse().find((slot) => slot < from) ?? slots[slots.length - 1] : slots.find((slot) => slot > from) ?? slots[0];
  say(slots, next);
  if (next !== undefined) set({ row: next, key: null });
}

export function say(slots, at) {
  const nth = slots.indexOf(at) + 1;
  byId("search-said").textContent = !byId("search").value ? "" : slots.length ? `${nth ? `${nth} of ` : ""}${slots.length}` : "not in the text";
}

export const count = (picture) => say(found(picture.axis(state.layer, "query"), byId("search").value), state.row);
