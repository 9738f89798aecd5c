// What the text is coloured by: what each token receives, where a token looks, or who looks at it.
// Each gives {value(slot), scale, allowed, said}.

import { even, transform } from "./colour.js";
import { state } from "./state.js";
import { percent, tag } from "./words.js";

export function shadeOf(picture, row, same) {
  if (row === null) return byReceived(picture);
  return state.by === "lookers" && same ? byColumn(picture, row) : byRow(picture, row);
}

function byReceived(picture) {
  const track = picture.track("keys", `received${picture.suffix}`, state.layer, state.head);
  if (!track) return { value: () => null, said: "" };
  const most = track.values.reduce((top, value) => Math.max(top, Math.abs(value)), 0) || 1;
  const low = track.values.reduce((least, value) => Math.min(least, value), 0);
  const scale = even(low < 0 ? -most : 0, most);
  const place = scale.kind === "sequential" ? (v) => (v / most) ** 0.5 : scale.place;
  return {
    value: (slot) => track.values[Math.floor(slot / track.band)], scale: { ...scale, place },
    said: "Coloured by the attention each token receives in this head (square root). Point at a token to see where it looks.",
  };
}

const named = (picture, side, slot) => `“${tag(picture.axis(state.layer, side).text[slot], 30)}” ${slot}`;

function scaleOf(picture, edge) {
  const keys = picture.axis(state.layer, "key").length;
  return transform(state.scale, { top: Math.max(1, edge), keys, signed: picture.scene.signed, edge });
}

const largest = (values) => values.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 1e-9);

// All weights of the row where they are at hand, else its strongest links alone.
function byRow(picture, row) {
  const map = picture.map(state.layer, state.head, "max");
  const scale = scaleOf(picture, map ? largest(map.values) : 1);
  const given = picture.row(state.layer, state.head, row);
  if (given) {
    const allowed = given.weights.reduce((count, weight) => count + (weight === weight ? 1 : 0), 0);
    return { value: valueIn(given.weights), scale, allowed, said: `Coloured by where ${named(picture, "query", row)} looks (${scale.said}).` };
  }
  const known = picture.links(state.layer, state.head, row);
  const links = new Map((known ? known.links : []).map((link) => [link.key, link.weight]));
  const band = known && known.band > 1 ? `rows ${Math.floor(row / known.band) * known.band} and on` : `row ${row}`;
  const rest = known && known.rest !== null ? `; the other keys share ${percent(known.rest)}` : "";
  return {
    value: (slot) => (links.has(slot) ? links.get(slot) : null), scale, allowed: map ? map.allowed[Math.floor(row / map.cell[0])] : 1,
    said: `Coloured: the ${links.size} strongest links of ${band}${rest}.`,
  };
}

// Who looks at a token: its column.
function byColumn(picture, key) {
  const map = picture.map(state.layer, state.head, "max");
  const scale = scaleOf(picture, map ? largest(map.values) : 1);
  const given = picture.column(state.layer, state.head, key);
  if (!given) return { value: () => null, said: picture.deep ? "The weights that it is given are being computed …" : "Who looks at a token is known where the map is exact; open the Trace in the viewer for more." };
  return { value: valueIn(given.weights), scale, allowed: 1, said: `Coloured by who looks at ${named(picture, "key", key)} (${scale.said}).` };
}

const valueIn = (weights) => (slot) => (weights[slot] === weights[slot] ? weights[slot] : null);
